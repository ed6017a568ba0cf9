"""Modules of PyTorch held against their specs, whatever the order of their axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.spec import ModelSpec


def canonical(values: Array, axes: list[str]) -> Array:
    """Return values as [batch, time, features], as far as these are there."""
    order = [axes.index(word) for word in ("batch", "time", "features") if word in axes]
    order += [i for i, word in enumerate(axes) if word == "unit"]
    return values.transpose(order)


def reference(spec: ModelSpec, x: Array) -> Array:
    axes = spec.source["input_axes"].split(", ")
    x = canonical(x, axes)
    if "batch" not in axes:
        x = x[None]
    if "time" not in axes:
        x = x[:, None]
    if spec.input.kind == "sequence" and "features" not in axes:
        x = x[:, :, None]
    return float_reference.run(spec, x)


def relative_difference(spec: ModelSpec, x: Any, output: Any) -> float:
    """Return how far the reference is from PyTorch's output, of the greatest value there."""
    want = canonical(output.float().numpy(), spec.source["output_axes"].split(", "))
    got = reference(spec, x.numpy())
    # Axes of size 1 may have come or gone: the values and their order are what counts.
    assert got.size == want.size
    return float(np.abs(got.reshape(want.shape) - want).max() / np.abs(want).max())
