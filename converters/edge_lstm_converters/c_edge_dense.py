"""Dense of the `edge` profile in C."""

from __future__ import annotations

from edge_lstm.cells.edge_dense import EdgeDenseOp
from edge_lstm_converters.c_parts import COp, Place, array


def emit_edge_dense(op: EdgeDenseOp, place: Place) -> COp:
    """Return one sum, one multiplication and one clamp for each output."""
    rows, columns = op.weights.shape
    name = place.name
    dot = "el_dot_s8_s8" if place.source.dtype == "int8" else "el_dot_s8_s16"
    constants = [
        array("int8_t", f"{name}_weights", op.weights),
        array("int32_t", f"{name}_bias", op.bias),
        array("int16_t", f"{name}_multipliers", op.multipliers),
    ]
    step = f"""\
for (int32_t row = 0; row < {rows}; row++) {{
    int32_t acc = {dot}({name}_weights + row * {columns}, x, {columns}, {name}_bias[row]);
    y[row] = (int8_t)el_clamp((acc * {name}_multipliers[row]) >> {op.shift}, {op.low}, {op.high});
}}"""
    return COp(
        step=step,
        kernels=("el_edge_rows.h",),
        constants="".join(constants),
        macs=rows * columns,
    )
