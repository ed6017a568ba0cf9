"""Data files: ``.npy`` or ``.npz`` with ``x``, and ``lengths`` and ``y`` where there are any."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import UsageError


@dataclass(frozen=True, eq=False)
class Samples:
    """Sequences to run, calibrate or measure with.

    Args:
        x: ``[sequences, time, features]``, or token ids ``[sequences, time]``.
        lengths: valid steps of each sequence, or None for all.
        y: labels (integers) or targets (floats), or None.
        extra: the file's other arrays, such as ``y_mean`` and ``y_std``.
        where: the file, for messages.
    """

    x: Array
    lengths: Array | None = None
    y: Array | None = None
    extra: dict[str, Array] = field(default_factory=dict)
    where: str = "x"


def load_samples(path: Path | str) -> Samples:
    """Read a data file, without pickle.

    Raises:
        UsageError: the file cannot be read, or has no array ``x``.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: cannot be read: {reason}") from error
    arrays: dict[str, Array] = {}
    try:
        if data[:2] == b"PK":
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            arrays = {"x": np.load(io.BytesIO(data), allow_pickle=False)}
    except (ValueError, zipfile.BadZipFile, OSError, EOFError, KeyError, MemoryError) as error:
        raise UsageError(
            f"{path}: is not a .npy or .npz of plain arrays ({error}); save it with numpy.savez"
        ) from error
    if "x" not in arrays:
        found = ", ".join(arrays) or "nothing"
        raise UsageError(f"{path}: holds {found}; want an array named x")
    arrays = {
        name: value.astype(np.float32) if value.dtype in (np.float16, np.float64) else value
        for name, value in arrays.items()
    }
    x, lengths, y = arrays.pop("x"), arrays.pop("lengths", None), arrays.pop("y", None)
    if x.ndim < 2:
        raise UsageError(f"{path}: x has shape {list(x.shape)}; want [sequences, time, ...]")
    if y is not None and y.shape[:1] != x.shape[:1]:
        raise UsageError(f"{path}: y has shape {list(y.shape)}; want [{len(x)}, ...], as x has")
    return Samples(x, lengths, y, arrays, str(path))


def npz_bytes(arrays: dict[str, Array]) -> bytes:
    """Return arrays as the bytes of an ``.npz``; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
