"""Runs samples through the float reference; returns a range for each named tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import F64, Array
from edge_lstm.errors import CalibrationError
from edge_lstm.plain_form import plain_form
from edge_lstm.program import Range
from edge_lstm.spec import ModelSpec

CHUNK_STEPS = 65536
"""Rows times steps run at once: bounds the memory, shows progress."""
SAMPLE, SAMPLE_STEPS = 8, 2000
"""Sequences and steps of each that are kept to try things on, at most."""
MOMENTS_SIZE = 1024
"""Wider tensors have no moments: their square would take more memory than it is worth."""


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
    sums: dict[str, F64] = {}

    def observe(name: str, values: F64) -> None:
        seen = Range(float(values.min()), float(values.max()))
        ranges[name] = seen if name not in ranges else ranges[name].union(seen)
        if is_read_by_layers(name) and values.shape[1] <= MOMENTS_SIZE:
            rows = np.column_stack([values, np.ones(len(values))])
            sums[name] = sums.get(name, 0.0) + (rows.T * row_weights(values)) @ rows

    rows = max(1, CHUNK_STEPS // x.shape[1])
    for first in range(0, len(x), rows):
        part = slice(first, first + rows)
        float_reference.run(
            spec, x[part], None if lengths is None else lengths[part], observe=observe
        )
        if progress is not None:
            progress(min(first + rows, len(x)), len(x))
    for name, total in sums.items():
        ranges[name] = replace(ranges[name], moments=total / total[-1, -1])
    if "input" in ranges:
        few = x[:: -(-len(x) // SAMPLE), :SAMPLE_STEPS].astype(np.float64)
        ranges["input"] = replace(ranges["input"], sample=few)
    return ranges


def row_weights(values: F64) -> F64:
    """Return what each row counts in the moments, [rows]: the louder, the less.

    Sound spans decades. Without this its few loudest rows would decide everything, where gates
    saturate and small errors do not count.
    """
    squares = np.square(values).sum(axis=1)
    usual = float(np.median(squares[squares > 0])) if squares.any() else 1.0
    weights: F64 = 1 / (1 + squares / usual)
    return weights


def is_read_by_layers(name: str) -> bool:
    """Return whether a tensor is what a layer is fed, not a gate or a state inside one."""
    return name == "input" or name.endswith(".output")
