"""Dense of the interchange profiles in C."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_lstm.cells.dense import DenseKernel, DenseOp
from edge_lstm_converters.c_exact_rows import bias_array, check_sums, loop, wide_factor
from edge_lstm_converters.c_parts import ACTIVATION, COp, Member, Place, array, ctype
from edge_lstm_converters.c_quads import LIMIT, Quads, reach, row

LEAST_ROWS = 8
"""From here on rows are summed four at a time; below, widening the values costs what it saves."""


def emit_dense(op: DenseOp, place: Place) -> COp:
    """Return a sum, its rounding as the profile rounds it, and a clamp for each output."""
    kernel = DenseKernel(op, place.program, 1)
    rows, columns = op.weights.shape
    name, wide = place.name, kernel.wide
    for weights in (op.weights, kernel.weights):
        check_sums(weights, "int8", place)
    constants = [bias_array(f"{name}_bias", kernel.bias, wide=wide)]
    rounded, kernels = _rounding(kernel, place, constants)
    value = f"el_offset({rounded}, {kernel.zero_point})"
    value = f"el_saturate({value}, {kernel.low}, {kernel.high})"
    store = f"y[k] = ({ctype(place.output)}){value};"
    before, bias = [], f"{name}_bias[k]"
    if op.weight_zero_point:
        # The offset of the weights meets every value, so their sum is enough.
        before = [
            f"{'int64_t' if wide else 'int32_t'} total = 0;",
            loop("k", columns, "total += x[k];"),
        ]
        share = f"{-op.weight_zero_point} * total"
        bias = f"{bias} + {share}" if wide else f"el_wrap_add({bias}, {share})"
    fast = Quads(op.weights[: rows // 4 * 4].reshape(-1, 4, columns))
    start, members = 0, []
    if not wide and rows >= LEAST_ROWS and fast.fit(-128, 127):
        start = rows // 4 * 4
        constants.append(fast.array(f"{name}_quads"))
        members.append(Member(ACTIVATION, f"{name}_x", fast.columns))
        kernels += ("el_activation.h", "el_quad_rows.h")
        before += _fast_rows(fast, place, bias, store)
    if start < rows:
        kernels += ("el_rows.h",)
        constants.append(array("int8_t", f"{name}_weights", op.weights[start:]))
        first = (
            f"{name}_weights + (k - {start}) * {columns}"
            if start
            else f"{name}_weights + k * {columns}"
        )
        acc = f"const int32_t acc = el_wrap_add({bias}, el_row({first}, x, {columns}));"
        if wide:
            # A damaged file's bias wraps, as it does in NumPy.
            total = f"(uint64_t)({bias}) + (uint64_t)el_wide_row({first}, x, {columns})"
            acc = f"const int64_t acc = (int64_t)({total});"
        before.append(loop("k", rows, f"{acc}\n{store}", start))
    return COp(
        step="\n".join(before),
        kernels=("el_fixed_point.h", *kernels),
        constants="".join(constants),
        members=tuple(members),
        reset="".join(f"state->{m.name}[{m.size - 1}] = 0;" for m in members),
        macs=rows * columns,
    )


def _fast_rows(quads: Quads, place: Place, bias: str, store: str) -> list[str]:
    """Return the statements for rows four by four, which the values are widened for."""
    values, columns = f"state->{place.name}_x", quads.weights.shape[2]
    call = quads.sums(f"{place.name}_quads", "quad", values, "sums")
    acc = f"const int32_t k = 4 * quad + n, acc = el_wrap_add({bias}, sums[n]);"
    lines = [
        "int32_t sums[4];",
        call,
        f"sums[0] = {row('sums', 0)};",
        f"sums[2] = {row('sums', 2)};",
        loop("n", 4, f"{acc}\n{store}"),
    ]
    return [
        loop("k", columns, f"{values}[k] = x[k];"),
        loop("quad", len(quads.words), "\n".join(lines)),
    ]


def _rounding(
    kernel: DenseKernel, place: Place, constants: list[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the expression for the rounded accumulator and the kernels that it calls."""
    if kernel.rounding == "litert":
        parts = [float_factor(scale, 24) for scale in kernel.float_scales.tolist()]
        factor = _factors(place, parts, "int32_t int16_t", constants)
        return f"el_round_product_f32(acc, {factor})", ("el_product_f32.h",)
    if kernel.rounding == "litert-ref":
        return _double_rounding(kernel, place, constants)
    if kernel.wide:
        wide = [wide_factor(factor) for factor in kernel.factors]
        factor = _factors(place, wide, "int16_t int8_t", constants)
        return f"el_requantize_s64(acc, {factor})", ()
    ties = "_ties_up" if kernel.rounding == "tflite-runtime" else ""
    factor = _factors(place, kernel.factors, "int32_t int8_t", constants)
    return f"el_requantize{ties}(acc, {factor})", ()


def _double_rounding(
    kernel: DenseKernel, place: Place, constants: list[str]
) -> tuple[str, tuple[str, ...]]:
    scales = kernel.real_scales.tolist()
    parts = [float_factor(scale, 53) for scale in scales]
    split = [(whole >> 21, whole & ((1 << 21) - 1), right - 21) for whole, right in parts]
    acc = "acc"
    low, high = (-32768, 32767) if kernel.wide else (-128, 127)
    bound = reach(kernel.weights, low, high) + int(np.abs(kernel.bias).max(initial=0))
    if kernel.wide:
        # What saturates stays saturated, so 32 bits of the accumulator are enough.
        most = math.ceil(2 * 65536 / min(scales))
        if most < LIMIT:
            acc = f"el_saturate_s64(acc, {most})"
        elif bound < LIMIT:
            acc = "(int32_t)acc"
        else:
            found = "an accumulator of more than 32 bits meets a tiny scale"
            raise place.refuse(found, "load it with tflm or cmsis-nn")
    factor = _factors(place, split, "uint32_t uint32_t int16_t", constants)
    return f"el_round_product_f64({acc}, {factor})", ("el_product_f64.h",)


def float_factor(scale: float, bits: int) -> tuple[int, int]:
    """Return a positive float as ``whole * 2**-right``, ``whole`` of so many bits."""
    fraction, exponent = math.frexp(scale)
    return int(fraction * 2**bits), bits - exponent


def _factors(place: Place, parts: Sequence[Sequence[int]], types: str, constants: list[str]) -> str:
    """Return the arguments for a row's factor: literals where all rows share one."""
    if len(parts) == 1:
        return ", ".join(f"{v}u" if v >= LIMIT else str(v) for v in parts[0])
    names: list[str] = []
    for values, kind in zip(zip(*parts, strict=True), types.split(), strict=True):
        names.append(f"{place.name}_factor_{len(names)}")
        constants.append(array(kind, names[-1], np.array(values)))
    return ", ".join(f"{name}[k]" for name in names)
