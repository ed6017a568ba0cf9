"""Dense of the interchange profiles in C."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_lstm.cells.dense import DenseKernel, DenseOp
from edge_lstm_converters.c_exact_rows import (
    LIMIT,
    bias_array,
    check_sums,
    loop,
    reach,
    wide_factor,
)
from edge_lstm_converters.c_parts import COp, Place, array, ctype


def emit_dense(op: DenseOp, place: Place) -> COp:
    """Return a sum, its rounding as the profile rounds it, and a clamp for each output."""
    kernel = DenseKernel(op, place.program, 1)
    rows, columns = op.weights.shape
    name, wide = place.name, kernel.wide
    check_sums(kernel.weights, "int8", place)
    constants = [
        array("int8_t", f"{name}_weights", op.weights),
        bias_array(f"{name}_bias", kernel.bias, wide=wide),
    ]
    row = f"{name}_weights + k * {columns}, x, {columns}"
    if wide:
        # A damaged file's bias wraps, as it does in NumPy.
        parts = f"(uint64_t){name}_bias[k] + (uint64_t)el_wide_row({row})"
        lines = [f"const int64_t acc = (int64_t)({parts});"]
    else:
        lines = [f"const int32_t acc = el_wrap_add({name}_bias[k], el_row({row}));"]
    before = []
    if op.weight_zero_point:
        # The offset of the weights meets every value, so their sum is enough.
        before = ["int32_t total = 0;", loop("k", columns, "total += x[k];")]
        lines[0] = lines[0].replace(";", f" - {op.weight_zero_point} * total;")
    rounded, kernels = _rounding(kernel, place, constants)
    value = f"el_offset({rounded}, {kernel.zero_point})"
    value = f"el_saturate({value}, {kernel.low}, {kernel.high})"
    lines.append(f"y[k] = ({ctype(place.output)}){value};")
    return COp(
        step="\n".join([*before, loop("k", rows, "\n".join(lines))]),
        kernels=("el_fixed_point.h", "el_rows.h", *kernels),
        constants="".join(constants),
        macs=rows * columns,
    )


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
