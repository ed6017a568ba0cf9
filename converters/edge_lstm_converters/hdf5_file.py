"""HDF5 files as NumPy arrays; follows no link and allocates no more than the file can fill.

What is checked is what HDF5 tells before it reads: links, shapes, types and sizes. The lengths of
single texts it does not tell; ``hdf5_heap`` finds these.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import MissingTool, UnreadableModel, UnsupportedModel
from edge_lstm_converters.hdf5_heap import claimed_too_long

# Compressed data says nothing about its size when unpacked: 256 MiB of float32.
MOST_COMPRESSED_VALUES = 2**26
MOST_AXES = 8
LARGEST_ATTRIBUTE = 2**26
# What h5py raises on damaged files; its own classes are these.
DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    struct.error,
)


class Hdf5File:
    """An open HDF5 file.

    Args:
        where: the file, for messages.
        data: its path, or its bytes.

    Raises:
        UnreadableModel: the file is damaged, or not HDF5.
        MissingTool: h5py is not installed.
    """

    def __init__(self, where: str, data: Path | bytes) -> None:
        try:
            import h5py
        except ImportError as error:
            raise MissingTool(
                f"{where}: reading Keras files needs h5py: pip install h5py"
            ) from error
        self.where, self._h5py = where, h5py
        try:
            # Opened here, so that a missing file is not taken for a damaged one.
            self._source: Any = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UnreadableModel(f"{where}: cannot be read: {reason}") from error
        self._size = self._source.seek(0, io.SEEK_END)
        self._source.seek(0)
        try:
            with self._damage("not a whole HDF5 file"):
                self._root: Any = h5py.File(self._source, "r")
                self._check_texts(data)
        except BaseException:
            self.close()
            raise

    def _check_texts(self, data: Path | bytes) -> None:
        """Refuse a file with a text that cannot be in it."""
        plan = self._root.id.get_create_plist()
        sizes, block = plan.get_sizes(), plan.get_userblock()
        if block or sizes[0] != 8:
            raise UnreadableModel(
                f"{self.where}: has a user block of {block} bytes and addresses of {sizes[0]}; want"
                " none, and 8, as Keras writes; save the model again"
            )
        length = claimed_too_long(data)
        if length is not None:
            raise UnreadableModel(
                f"{self.where}: a text claims {length:,} bytes; the file has {self._size:,}; save"
                " the model again"
            )

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(*DAMAGE):
            self._root.close()  # there is none where the file is none
        self._source.close()

    def __enter__(self) -> Hdf5File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, path: str) -> bool:
        """Return whether a group or dataset has this path."""
        return self._find(path) is not None

    def names(self, path: str) -> list[str]:
        """Return what is in a group, or nothing where there is no such group."""
        group = self._find(path)
        with self._damage(f"group {path!r} is damaged"):
            return [] if not isinstance(group, self._h5py.Group) else [str(name) for name in group]

    def datasets(self, path: str) -> list[str]:
        """Return the paths of all datasets under a group, in the order of their names."""
        found: list[str] = []
        todo, seen = [path], set()
        while todo:
            group = todo.pop()
            entry = self._find(group)
            if not isinstance(entry, self._h5py.Group):
                found.append(group)
                continue
            # A damaged file can have a group inside itself.
            if entry.id in seen or group.count("/") > 64:
                raise UnreadableModel(f"{self.where}: group {group!r} stands inside itself")
            seen.add(entry.id)
            todo += [f"{group}/{name}".strip("/") for name in reversed(self.names(group))]
        return found

    def read(self, path: str) -> Array:
        """Return a dataset.

        Raises:
            UnreadableModel: there is none, or it claims more values than the file holds.
            UnsupportedModel: it is not an array of numbers.
        """
        entry = self._find(path)
        if not isinstance(entry, self._h5py.Dataset):
            raise UnreadableModel(f"{self.where}: has no tensor {path!r}")
        with self._damage(f"tensor {path!r} is damaged"):
            self._check(path, entry)
            return np.asarray(entry[()])

    def shape(self, path: str) -> tuple[int, ...]:
        """Return a dataset's shape; nothing where there is no such dataset."""
        entry = self._find(path)
        with self._damage(f"tensor {path!r} is damaged"):
            is_array = isinstance(entry, self._h5py.Dataset) and entry.shape is not None
            return tuple(entry.shape) if is_array else ()

    def text(self, path: str, name: str) -> str | None:
        """Return a text attribute of a group, or None where it has none."""
        value = self._attribute(path, name)
        if isinstance(value, bytes | np.bytes_):
            with self._damage(f"attribute {name!r} is not UTF-8"):
                return bytes(value).decode("utf-8")
        return str(value) if isinstance(value, str) else None

    def texts(self, path: str, name: str) -> list[str] | None:
        """Return a list of texts; Keras splits a long one into ``name0``, ``name1`` and so on."""
        value = self._attribute(path, name)
        if value is None:
            parts: list[str] = []
            for number in range(10_000):
                part = self.texts(path, f"{name}{number}") if not name[-1].isdigit() else None
                if part is None:
                    return parts if number else None
                parts += part
            return parts
        with self._damage(f"attribute {name!r} is not a list of texts"):
            return [
                bytes(v).decode("utf-8") if isinstance(v, bytes | np.bytes_) else str(v)
                for v in np.asarray(value).reshape(-1).tolist()
            ]

    def _attribute(self, path: str, name: str) -> Any:
        entry = self._find(path)
        with self._damage(f"attribute {name!r} is damaged"):
            if entry is None or name not in entry.attrs:
                return None
            stored = entry.attrs.get_id(name)
            count = math.prod(stored.shape or ())
            if count == 0:
                return []  # an empty list of names is one of float64
            # Lists of lists and the like, which Keras never writes, crash HDF5 where damaged.
            if not isinstance(stored.get_type(), self._h5py.h5t.TypeStringID):
                raise UnreadableModel(f"{self.where}: attribute {name!r} is not text")
            size = max(stored.get_storage_size(), count * stored.dtype.itemsize)
            if size > min(self._size, LARGEST_ATTRIBUTE):
                raise UnreadableModel(
                    f"{self.where}: attribute {name!r} claims {size:,} bytes; the file has"
                    f" {self._size:,}"
                )
            return entry.attrs[name]

    def _check(self, path: str, entry: Any) -> None:
        """Refuse a dataset that would allocate more than the file can fill, or lies elsewhere."""
        where = f"{self.where}: tensor {path!r}"
        if entry.dtype.kind not in "fiub":
            raise UnsupportedModel(f"{where}: {entry.dtype}; want float32 weights")
        shape = entry.shape
        if shape is None or len(shape) > MOST_AXES:
            raise UnreadableModel(f"{where}: shape {shape}; want at most {MOST_AXES} axes")
        if entry.external or entry.is_virtual:
            raise UnreadableModel(f"{where}: its values are in another file; save the model again")
        count, stored = math.prod(shape), entry.id.get_storage_size()
        packed = entry.compression is not None or entry.id.get_create_plist().get_nfilters() > 0
        if packed and count > MOST_COMPRESSED_VALUES:
            raise UnreadableModel(
                f"{where}: {count:,} compressed values; want at most {MOST_COMPRESSED_VALUES:,}, or"
                " save the model without compression"
            )
        if not packed and (stored > self._size or stored < count * entry.dtype.itemsize):
            raise UnreadableModel(
                f"{where}: shape {list(shape)} of {entry.dtype} needs"
                f" {count * entry.dtype.itemsize:,} bytes; {min(stored, self._size):,} are stored"
            )

    def _find(self, path: str) -> Any:
        """Return a group or dataset by its path, or None; every link on the way is a hard one."""
        entry = self._root
        for part in [p for p in path.split("/") if p not in ("", ".")]:
            with self._damage(f"{path!r} is damaged"):
                if not isinstance(entry, self._h5py.Group):
                    return None
                link = entry.get(part, getlink=True)
                if link is None:
                    return None
                if not isinstance(link, self._h5py.HardLink):
                    kind = "external" if isinstance(link, self._h5py.ExternalLink) else "soft"
                    raise UnreadableModel(
                        f"{self.where}: {path!r} is {'an' if kind == 'external' else 'a'} {kind}"
                        " link; want the weights in the file itself; save the model again"
                    )
                entry = entry[part]
        return entry

    @contextlib.contextmanager
    def _damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except (UnreadableModel, UnsupportedModel):
            raise
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UnreadableModel(f"{self.where}: {what}: {reason}") from error
