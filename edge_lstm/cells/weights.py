"""Weights and biases in integers, as the TFLite scheme has them."""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.program import symmetric_scale


def quantize_weights(weights: F32, what: str) -> tuple[Array, float]:
    """Return int8 weights in [-127, 127] and their scale, ties away from zero.

    A matrix of zeros gets the scale 1: it has no range to take one from.
    """
    magnitude = float(np.abs(weights).max(initial=0.0))
    scale = symmetric_scale(magnitude, 127, what) if magnitude else 1.0
    scaled = weights.astype(np.float32) / np.float32(scale)
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return np.clip(rounded, -127, 127).astype(np.int8), scale


def quantize_bias(bias: F32, input_scale: float, weight_scale: float, *, wide: bool) -> Array:
    """Return the bias in units of the accumulator: int32, or int64 beside int16 activations."""
    scale = float(np.float32(np.float32(input_scale) * np.float32(weight_scale)))
    exact = bias.astype(np.float64) / scale
    rounded = np.trunc(exact + np.copysign(0.5, exact))
    dtype = np.int64 if wide else np.int32
    info = np.iinfo(dtype)
    return np.clip(rounded, float(info.min) / 2, float(info.max) / 2).astype(dtype)
