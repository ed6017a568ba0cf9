"""Ops on two values of one shape in C: ADD, SUB and MUL."""

from __future__ import annotations

from edge_lstm.cells.add_op import AddKernel, AddOp
from edge_lstm.cells.mul_op import MulKernel, MulOp
from edge_lstm_converters.c_exact_dense import float_factor
from edge_lstm_converters.c_exact_rows import loop, requantized
from edge_lstm_converters.c_parts import COp, Place, ctype


def emit_add(op: AddOp, place: Place) -> COp:
    """Return the sum or the difference, both values brought to one scale."""
    kernel = AddKernel(op, place.program)
    left, right = (f"(x{k}[k] - {t.zero_point})" for k, t in enumerate(place.inputs))
    if kernel.right:
        first, second = kernel.weights.tolist()
        total = f"el_shift_right_ties_up({left} * {first} + {right} * {second}, {kernel.right})"
    else:
        unit = 1 << kernel.headroom
        sign = "+" if op.sign > 0 else "-"
        terms = [
            requantized(f"{value} * {unit}", factor)
            for value, factor in zip((left, right), kernel.factors, strict=True)
        ]
        total = requantized(f"\n    {terms[0]} {sign} {terms[1]}", kernel.factor)
    return _each(place, total, kernel.low, kernel.high)


def emit_mul(op: MulOp, place: Place) -> COp:
    """Return the product, rounded as the profile rounds it."""
    kernel = MulKernel(op, place.program)
    left, right = (f"(x{k}[k] - {t.zero_point})" for k, t in enumerate(place.inputs))
    if not kernel.xnnpack:
        return _each(
            place, requantized(f"{left} * {right}", kernel.factor), kernel.low, kernel.high
        )
    whole, shift = float_factor(float(kernel.ratio), 24)
    total = f"el_round_product_f32({left} * {right}, {whole}, {shift})"
    return _each(place, total, kernel.low, kernel.high, "el_product_f32.h")


def _each(place: Place, total: str, low: int, high: int, *kernels: str) -> COp:
    """Return the loop that brings every ``total`` into the output's range."""
    value = f"el_saturate(el_offset({total}, {place.output.zero_point}), {low}, {high})"
    line = f"y[k] = ({ctype(place.output)}){value};"
    return COp(
        step=loop("k", place.output.signal.size, line), kernels=("el_fixed_point.h", *kernels)
    )
