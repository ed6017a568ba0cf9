"""Writing files whole or not at all, and reading them with one line when that fails.

``pathlib`` and ``tempfile`` cost more to import than all of the core: they are imported on use.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from edge_lstm.errors import OutputError, UnreadableModel

if TYPE_CHECKING:
    from pathlib import Path

READ_LIMIT_BYTES = 4 << 30


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def write_atomically(path: Path | str, data: bytes) -> None:
    """Write ``data`` to ``path`` so that nobody sees half of it.

    Raises:
        OutputError: the folder is missing or read-only, or the disk is full; the file that was
            there before, if any, is untouched.
    """
    import tempfile
    from pathlib import Path

    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {_reason(error)}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        if isinstance(error, OSError):
            raise OutputError(f"{path}: cannot be written: {_reason(error)}") from error
        raise


def make_folder(path: Path | str) -> Path:
    """Make the folder ``path`` and those above it."""
    from pathlib import Path

    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {_reason(error)}") from error
    return path


def read_bytes(path: Path | str) -> bytes:
    """Return the bytes of a model file.

    Raises:
        UnreadableModel: there is none, it may not be read, it is empty or absurdly large.
    """
    from pathlib import Path

    path = Path(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UnreadableModel(f"{path}: is a folder; give a model file")
        if size > READ_LIMIT_BYTES:
            raise UnreadableModel(f"{path}: has {size:,} bytes; want a model below 4 GiB")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableModel(f"{path}: cannot be read: {_reason(error)}") from error
    if not data:
        raise UnreadableModel(f"{path}: is empty; give a model file")
    return data


def cache_folder() -> Path:
    """Return where what is fetched or built is kept: ``$EDGE_LSTM_CACHE``, or the user's cache.

    It need not exist yet.
    """
    from pathlib import Path

    if own := os.environ.get("EDGE_LSTM_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "edge-lstm"
    return Path.home() / ".cache" / "edge-lstm"
