"""Weights as a file stores them, checked and made float32; and the names of their layers."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.spec import identifier


def as_float32(where: str, weights: Array) -> F32:
    """Return trained weights as float32.

    Args:
        where: file and tensor, for messages.
        weights: float16, float32 or float64.

    Raises:
        UnsupportedModel: the weights are not floats.
        UnreadableModel: some are NaN, infinite, or too large for float32.
    """
    if not np.issubdtype(weights.dtype, np.floating):
        raise UnsupportedModel(f"{where}: {weights.dtype}; want float32 weights")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(weights, np.float32).reshape(weights.shape)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise UnreadableModel(
            f"{where}: {bad} of {values.size} values are NaN or infinite; train the model again or"
            " choose another checkpoint"
        )
    return values


def layer_name(prefix: str, fallback: str, taken: Collection[str]) -> str:
    """Return a layer's name that is not in ``taken``.

    Args:
        prefix: of its weights, as ``encoder.lstm``; may be empty or a number.
        fallback: the layer's type, used where the prefix is no name.
        taken: names of the layers before it.
    """
    wanted = identifier(prefix) if prefix else fallback
    if prefix[:1].isdigit():
        wanted = f"{fallback}_{identifier(prefix).strip('_')}"
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name
