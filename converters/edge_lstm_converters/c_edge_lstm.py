"""The LSTM of the `edge` profile in C."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.cells.edge_lstm import EdgeLstmOp
from edge_lstm_converters.c_edge_rows import (
    activations_member,
    byte_rows,
    column_step,
    padded_columns,
    quad_words,
    reset_values,
    widen,
    words_array,
)
from edge_lstm_converters.c_parts import COp, Member, Place, array

KERNELS = (
    "el_activation.h",
    "el_edge_rows.h",
    "el_edge_sigmoid.h",
    "el_quad_bytes.h",
    "el_quad_rows.h",
    "el_edge_quad.h",
    "el_edge_lstm.h",
    "el_edge_lstm_dsp.h",
    "el_edge_lstm_v7m.h",
    "el_edge_lstm_thumb2.h",
    "el_edge_lstm_v6m.h",
    "el_edge_lstm_rv32.h",
    "el_edge_lstm_mve.h",
)
ASSEMBLER_COLUMNS = 2047  # twice as many is an immediate of SUBW
BLOCK = 12  # columns


def emit_edge_lstm(op: EdgeLstmOp, place: Place) -> COp:
    """Return the sums of a unit's four gates, and what they do to its state."""
    name, units, features = place.name, op.hidden_size, op.input_size
    end = features + units
    rows = padded_columns(op.rows, end, -end % column_step(op.rows))
    columns = rows.weights.shape[1]
    activations, cell = f"state->{name}_activations", f"state->{name}_cell"
    first = np.concatenate([np.zeros(features, np.int64), op.initial_hidden.astype(np.int64)])
    hidden_reset, hidden_values = reset_values(
        activations, first << op.hidden_shift, columns, f"{name}_initial_activations"
    )
    cell_reset, cell_values = reset_values(cell, op.initial_cell, units, f"{name}_initial_cell")
    step = f"""\
{widen(op, place.source, activations)}
el_edge_lstm({name}_words, {activations}, {cell}, y, {units}, {columns},
    {op.shift}, {op.high_shift}, {op.cell_bits});
el_edge_widen_s8(y, {activations} + {features}, {units}, {op.hidden_shift});"""
    words = words_array(f"{name}_words", quad_words(rows)[::-1])
    if op.rows.paired and columns <= ASSEMBLER_COLUMNS:
        words = f"#if defined(EL_CORE_MVE)\n{_helium(op, name)}#else\n{words}#endif\n"
        words += _whole_step(op, place, columns)
        step = f"""\
#if defined(EL_EDGE_LSTM_WHOLE)
{name}_units({activations}, {cell}, x, y);
#else
{step}
#endif"""
    return COp(
        step=step,
        kernels=KERNELS,
        constants=words + hidden_values + cell_values,
        members=(activations_member(name, columns), Member("int16_t", f"{name}_cell", units)),
        reset=f"{hidden_reset}\n{cell_reset}",
        macs=op.weights.size,
    )


def _whole_step(op: EdgeLstmOp, place: Place, columns: int) -> str:
    """Return the definition of the step in assembler, where the core has one.

    Rows in pairs have 8-bit inputs, and those a ``hidden_shift`` of 0.
    """
    assert op.hidden_shift == 0
    names = (place.name, f"{place.program.name}_state_t")
    sizes = (op.input_size, op.hidden_size, columns, op.input_shift)
    words = ", ".join(str(v) for v in (*names, *sizes, op.shift, op.high_shift, op.cell_bits))
    blocks = columns // BLOCK
    return f"""\
#if defined(EL_EDGE_LSTM_WHOLE)
#if defined(__OPTIMIZE_SIZE__)
EL_EDGE_LSTM_STEP({words}, 1)
#elif defined(EL_CORE_RV32) || defined(EL_CORE_V6M)
EL_EDGE_LSTM_STEP({words}, {unrolled(blocks, 2)})
#else
EL_EDGE_LSTM_STEP({words}, {unrolled(blocks, 7)})
#endif
#endif
"""


def unrolled(blocks: int, limit: int) -> int:
    """Return how many blocks stand in a row: all, or so many that the others are few."""
    if blocks <= limit:
        return max(blocks, 1)
    return min(range(limit, limit // 2, -1), key=lambda n: blocks // n + blocks % n)


def _helium(op: EdgeLstmOp, name: str) -> str:
    """Return the weights, biases and factors in the order of ``el_edge_lstm_mve.h``."""
    missing = 4 * (-op.hidden_size % 4)
    rows = replace(
        op.rows,
        weights=np.pad(op.weights, ((0, missing), (0, 0))),
        bias=np.pad(op.bias, (0, missing)),
        multipliers=np.pad(op.multipliers, (0, missing)),
    )
    # The high half of the product is u itself.
    place = np.array([32 - op.high_shift, 0, 32 - op.high_shift, 0])
    factors = rows.multipliers.astype(np.int64).reshape(-1, 4) << place
    both = np.stack([rows.bias.reshape(-1, 4, 4), factors.reshape(-1, 4, 4)], axis=1)
    return array("int8_t", f"{name}_rows", byte_rows(rows, op.input_size)) + array(
        "int32_t", f"{name}_factors", both.swapaxes(2, 3)
    )
