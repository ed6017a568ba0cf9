"""What outputs are worth: against the float model, and against other bytes."""

from __future__ import annotations

import hashlib

import numpy as np

from edge_lstm.arrays import F64, I64, Array
from edge_lstm.errors import UsageError
from edge_lstm.records import Fidelity
from edge_lstm_benchmarks.metrics import labels_of

SNR_LIMIT_DB = 999.0
"""Stands for no difference at all."""
STEPS = 8
"""Differences of integers beyond this are counted together."""


def valid_rows(values: Array, lengths: I64 | None) -> Array:
    """Return every valid output as a row: [batch, time, size] or [batch, size] to [rows, size]."""
    if values.ndim < 3:
        return values
    if lengths is None:
        return values.reshape(-1, values.shape[-1])
    kept: Array = values[np.arange(values.shape[1])[None, :] < lengths[:, None]]
    return kept


def wanted_rows(y: Array, outputs: Array, lengths: I64 | None) -> Array:
    """Return labels [rows] or targets [rows, size] that stand beside ``valid_rows(outputs)``.

    Raises:
        UsageError: ``y`` has another shape than the outputs.
    """
    is_label = not np.issubdtype(y.dtype, np.floating)
    axes = outputs.shape[:-1] if is_label else outputs.shape
    if not is_label and y.shape == outputs.shape[:-1] and outputs.shape[-1] == 1:
        y = y[..., None]
    if is_label and y.shape == (*axes, 1):
        y = y[..., 0]
    if y.shape != axes:
        raise UsageError(
            f"y: {y.dtype} {list(y.shape)}; want integer labels {list(outputs.shape[:-1])}"
            f" or float targets {list(outputs.shape)}"
        )
    if outputs.ndim < 3:
        return y
    if lengths is None:
        return y.reshape(-1) if is_label else y.reshape(-1, y.shape[-1])
    return y[np.arange(y.shape[1])[None, :] < lengths[:, None]]


def agreement(outputs: Array, reference: Array, wanted: Array | None) -> Fidelity:
    """Return how near real outputs are to the float model's, [rows, size] both.

    Labels are compared where the outputs are labels: when ``wanted`` says so, or when it is
    absent and there is more than one output.
    """
    got, want = outputs.astype(np.float64), reference.astype(np.float64)
    if wanted is None:
        is_labels = want.shape[-1] > 1
    else:
        is_labels = not np.issubdtype(wanted.dtype, np.floating)
    same = float((labels_of(got) == labels_of(want)).mean()) if is_labels else None
    return Fidelity(snr_db(got, want), cosine(got, want), same)


def snr_db(got: F64, want: F64) -> float:
    """Return signal to noise in decibels; the signal's mean counts as signal."""
    noise, signal = float(np.sum((got - want) ** 2)), float(np.sum(want**2))
    if not np.isfinite(noise):
        return -SNR_LIMIT_DB
    if noise == 0.0:
        return SNR_LIMIT_DB
    if signal == 0.0:
        return -SNR_LIMIT_DB
    return float(np.clip(10 * np.log10(signal / noise), -SNR_LIMIT_DB, SNR_LIMIT_DB))


def cosine(got: F64, want: F64) -> float:
    """Return the cosine of the angle between all outputs and all of the reference's."""
    if not np.isfinite(got).all():
        return 0.0
    norms = float(np.linalg.norm(got) * np.linalg.norm(want))
    if norms == 0.0:
        return float(np.array_equal(got, want))
    return float(np.sum(got * want) / norms)


def differing_bytes(got: Array, want: Array) -> int:
    """Return how many bytes of two arrays differ; all, when shape or type differ."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return max(got.nbytes, want.nbytes)
    left, right = (np.ascontiguousarray(a).view(np.uint8) for a in (got, want))
    return int(np.count_nonzero(left != right))


def steps_between(got: Array, want: Array) -> dict[str, int] | None:
    """Return how many integers are so many above the wanted; None for floats and other shapes."""
    if got.shape != want.shape or not np.issubdtype(got.dtype, np.integer):
        return None
    difference = np.clip(got.astype(np.int64) - want, -STEPS - 1, STEPS + 1)
    values, counts = np.unique(difference, return_counts=True)
    ends = {-STEPS - 1: f"< -{STEPS}", STEPS + 1: f"> {STEPS}"}
    return {ends.get(int(v), str(v)): int(n) for v, n in zip(values, counts, strict=True)}


def checksum(outputs: Array) -> str:
    """Return the first 16 hex digits of the SHA-256 of type, shape and values."""
    digest = hashlib.sha256(f"{outputs.dtype.str}{outputs.shape}".encode())
    digest.update(np.ascontiguousarray(outputs).tobytes())
    return digest.hexdigest()[:16]
