"""Runs samples through the float reference; returns a range for each named tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import F64, Array
from edge_lstm.errors import CalibrationError
from edge_lstm.plain_form import plain_form
from edge_lstm.program import Range
from edge_lstm.spec import ModelSpec

CHUNK_STEPS = 65536
"""Rows times steps run at once: bounds the memory, shows progress."""


def calibrate(
    spec: ModelSpec,
    x: Array,
    lengths: Array | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Range]:
    """Return the range of every tensor of the plain form over every step of every sequence.

    Each sequence starts from the model's first state, as it does on the device.

    Args:
        spec: the model.
        x: ``[sequences, time, features]``, or token ids ``[sequences, time]``.
        lengths: valid steps of each sequence; None: all.
        progress: called with sequences done and their total.

    Raises:
        CalibrationError: the samples are all zero and cannot give a range.
        UsageError: their shape or type does not fit the model.
    """
    x, lengths = float_reference.check_samples(spec, x, lengths, "calibration x")
    if spec.input.kind != "tokens" and not np.any(x):
        raise CalibrationError(
            "calibration x: all samples are 0.0; give samples that move the model"
        )
    spec, _ = plain_form(spec)
    ranges: dict[str, Range] = {}

    def observe(name: str, values: F64) -> None:
        seen = Range(float(values.min()), float(values.max()))
        ranges[name] = seen if name not in ranges else ranges[name].union(seen)

    rows = max(1, CHUNK_STEPS // x.shape[1])
    for first in range(0, len(x), rows):
        part = slice(first, first + rows)
        float_reference.run(
            spec, x[part], None if lengths is None else lengths[part], observe=observe
        )
        if progress is not None:
            progress(min(first + rows, len(x)), len(x))
    return ranges
