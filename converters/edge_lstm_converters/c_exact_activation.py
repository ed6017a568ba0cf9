"""Activations of the interchange profiles in C, where a table of 256 results is not enough."""

from __future__ import annotations

import numpy as np

from edge_lstm import activations
from edge_lstm.cells.activation import (
    ActivationKernel,
    ActivationOp,
    fixed_point_exponentials,
    float_exponentials,
    softmax_factor,
)
from edge_lstm.cells.activation_s16 import scale_quotient, softmax_factor_s16, table_factor
from edge_lstm.cells.quantize_op import QuantizeOp, RequantizeKernel
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import quantize_multiplier
from edge_lstm_converters.c_exact_rows import loop, requantized
from edge_lstm_converters.c_moves import emit_elementwise
from edge_lstm_converters.c_parts import COp, Place, array, ctype

SIGMOID_END = 130559  # from here on the interpolated sigmoid is saturated
MOST_CLASSES = 4095  # of a softmax whose sum fits Q12.19
LEAST_FLOAT = 2.0**-126
"""Smaller terms are denormal; beside the greatest, 1.0, they change no sum."""


def emit_activation(op: ActivationOp, place: Place) -> COp:
    """Return a table of all results, or the profile's own arithmetic."""
    try:
        kernel = ActivationKernel(op, place.program)
    except UnsupportedModel as cause:
        raise place.refuse("has no arithmetic in this profile", str(cause)) from cause
    if op.kind == "softmax":
        return _softmax(op, place)
    if not kernel.wide:
        return emit_elementwise(op, place)
    assert kernel.table is not None
    source, output = place.source, place.output
    if op.kind in ("sigmoid", "tanh"):
        multiplier, shift = table_factor(op.kind, source.scale)
        if multiplier > 32767:
            found = f"is fed steps of {source.scale}"
            raise place.refuse(found, "in C they must be below 2; convert the model again")
        argument = f"el_shift_right_ties_up(x[k] * {multiplier}, {shift})"
        if op.kind == "sigmoid":
            argument = f"el_saturate({argument}, -{SIGMOID_END}, {SIGMOID_END})"
        return _each(place, f"el_interpolated_{op.kind}({argument})", "el_interpolated.h")
    value = "x[k]"
    if op.kind == "relu":
        double = place.program.profile == "tflm"
        factor = quantize_multiplier(scale_quotient(source, output, double=double))
        value = requantized(f"x[k] - {source.zero_point}", factor)
        value = f"el_offset({value}, {output.zero_point})"
    return _each(place, f"el_saturate({value}, {kernel.table.min()}, {kernel.table.max()})")


def emit_quantize(op: QuantizeOp, place: Place) -> COp:
    """Return the same values in another scale."""
    if place.source.dtype == "int8":
        return emit_elementwise(op, place)
    kernel = op.prepare(place.program, 1)
    assert isinstance(kernel, RequantizeKernel)
    info = np.iinfo(place.output.dtype)
    value = requantized(f"x[k] - {place.source.zero_point}", kernel.factor)
    value = f"el_offset({value}, {place.output.zero_point})"
    return _each(place, f"el_saturate({value}, {info.min}, {info.max})")


def _each(place: Place, value: str, *kernels: str) -> COp:
    line = f"y[k] = ({ctype(place.output)}){value};"
    return COp(
        step=loop("k", place.output.signal.size, line), kernels=("el_fixed_point.h", *kernels)
    )


def _softmax(op: ActivationOp, place: Place) -> COp:
    size, scale = place.source.signal.size, place.source.scale
    if size > MOST_CLASSES:
        raise place.refuse(f"has {size} classes", f"in C it must have {MOST_CLASSES} at most")
    name = f"{place.name}_exp"
    if place.source.dtype == "int16":
        multiplier, shift = softmax_factor_s16(scale, op.beta)
        inverse = f"{place.name}_inverse"
        call = f"el_softmax_s16(x, y, {size}, {name}, {inverse}, {multiplier}, {shift});"
        constants = array("int16_t", name, activations.exp_s16())
        constants += array("int16_t", inverse, activations.one_over_one_plus_s16())
        return COp(call, ("el_fixed_point.h", "el_softmax_s16.h"), constants)
    if place.program.profile in ("litert", "tflite-runtime"):
        floats = float_exponentials(scale, op.beta)
        bits = np.where(floats < LEAST_FLOAT, np.float32(0), floats).view(np.uint32)
        constants = array("uint32_t", name, bits)
        return COp(f"el_softmax_f32(x, y, {size}, {name});", ("el_softmax_f32.h",), constants)
    factor, least = softmax_factor(scale, op.beta)
    counted = min(256, 1 - least)
    table = fixed_point_exponentials(-np.arange(counted), factor)
    call = f"el_softmax_s8(x, y, {size}, {name}, {counted});"
    return COp(call, ("el_fixed_point.h", "el_softmax_s8.h"), array("int32_t", name, table))
