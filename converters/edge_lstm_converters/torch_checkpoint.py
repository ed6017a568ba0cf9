"""PyTorch checkpoints (.pt, .pth) as NumPy arrays, without PyTorch and without running their code.

A checkpoint is a pickle beside raw storages. The pickle is unpickled with the few names that
rebuild tensors, and no others: a file that asks for more is refused by that name.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edge_lstm.arrays import Array
from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel
from edge_lstm.files import read_bytes

# From torch.serialization: the first pickle of the format before PyTorch 1.6.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

# The pickle holds names and shapes; the weights lie beside it. One opcode makes at most an
# empty dict of 64 bytes, so these bound the memory.
LARGEST_PICKLE = 64 * 2**20
MOST_OPCODES = 4_000_000
MOST_AXES = 32  # NumPy 1's limit

# What torch.save and pickle protocols 2 to 5 need for dicts of tensors. Left out on purpose:
# BYTEARRAY8 (allocates what it claims), EXT* and INST/OBJ (make objects), sets, buffers.
# fmt: off
OPCODES = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_DICT", "DICT",
    "SETITEM", "SETITEMS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT",
    "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID",
))
# fmt: on

DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def from_bytes(data: bytes, dtype: str, byte_order: Literal["<", ">"] = "<") -> Array:
    """Return raw bytes as a flat array; ``bf2``, which NumPy lacks, becomes float32."""
    if dtype != "bf2":
        return np.frombuffer(data, np.dtype(dtype).newbyteorder(byte_order))
    halves = np.frombuffer(data, np.dtype("u2").newbyteorder(byte_order))
    return (halves.astype(np.uint32) << 16).view(np.float32)


# Tuples, since a pickle's BUILD can change any other object's attributes behind our checks.
class _Storage(NamedTuple):
    """A storage that the pickle names; its bytes are elsewhere in the file."""

    key: str
    dtype: str
    elements: int


class _Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_checkpoint(path: Path) -> object:
    """Return what ``torch.save`` was given: dicts, lists, numbers, and tensors as arrays.

    Raises:
        UnreadableModel: the file is damaged.
        UnsupportedModel: it holds something else than tensors, numbers and text.
    """
    data = read_bytes(path)
    try:
        if data.startswith(b"PK\x03\x04"):
            return _ZipReader(path, open_archive(path, data)).read()
        return _read_legacy(path, data)
    except ModelError:
        raise
    # Whatever a damaged file makes of zipfile and the unpickler, it is the file's fault.
    except Exception as error:
        raise _damaged(path, error) from error


def open_archive(path: Path, data: bytes) -> zipfile.ZipFile:
    """Return the zip archive in ``data``, whose parts are not larger than it.

    Raises:
        UnreadableModel: the parts claim more, as those of a zip bomb do.
        UnsupportedModel: it is TorchScript's, which holds code.
        zipfile.BadZipFile: it is no zip archive.
    """
    archive = zipfile.ZipFile(io.BytesIO(data))
    if any(name.endswith("/constants.pkl") for name in archive.namelist()):
        raise UnsupportedModel(
            f"{path}: a TorchScript archive; save the state dict with"
            " torch.save(model.state_dict(), path), or torch.export.save a .pt2"
        )
    # Entries of an honest file are stored, not compressed, and do not overlap.
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > len(data):
        raise UnreadableModel(
            f"{path}: its parts claim {claimed:,} bytes, the file has {len(data):,}; want an"
            " uncompressed archive, as PyTorch writes it"
        )
    return archive


def byte_order_of(path: Path, archive: zipfile.ZipFile, root: str) -> Literal["<", ">"]:
    """Return the byte order of an archive's storages."""
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b""
    if order not in (b"", b"little", b"big"):
        raise UnreadableModel(f"{path}: byte order {order[:20]!r}; want little or big")
    return ">" if order == b"big" else "<"


def _damaged(path: Path, error: BaseException) -> UnreadableModel:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnreadableModel(
        f"{path}: damaged checkpoint: {reason[:200]}; save it again with"
        " torch.save(model.state_dict(), path)"
    )


class _ZipReader:
    """The format of PyTorch 1.6 and later: data.pkl, byteorder, data/0, data/1 ..."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self.infos if name.rsplit("/", 1)[-1] == "data.pkl"]
        if any(name.endswith("models/model.json") for name in self.infos):
            raise UnsupportedModel(f"{path}: an exported program, no checkpoint; name it .pt2")
        if len(pickles) != 1:
            raise UnreadableModel(
                f"{path}: a zip file with {len(pickles)} data.pkl; a PyTorch checkpoint has one"
            )
        self.root = pickles[0][: -len("data.pkl")]
        self.byte_order = byte_order_of(path, archive, self.root)
        self.storages: dict[str, Array] = {}

    def read(self) -> object:
        value = _unpickle(self.path, self.archive.read(f"{self.root}data.pkl"))
        return _with_arrays(self.path, value, self.load)

    def load(self, storage: _Storage) -> Array:
        if storage.key not in self.storages:
            name = f"{self.root}data/{storage.key}"
            if name not in self.infos:
                raise UnreadableModel(f"{self.path}: storage {storage.key!r} is not in the file")
            size = self.infos[name].file_size
            want = storage.elements * _item_size(storage.dtype)
            if size != want:
                raise UnreadableModel(
                    f"{self.path}: storage {storage.key!r} has {size:,} bytes; want {want:,}"
                )
            data = self.archive.read(name)
            self.storages[storage.key] = from_bytes(data, storage.dtype, self.byte_order)
        return self.storages[storage.key]


def _read_legacy(path: Path, data: bytes) -> object:
    """Read the format before PyTorch 1.6: five pickles, then the storages."""
    if not data.startswith(b"\x80"):
        raise UnreadableModel(
            f"{path}: not a PyTorch checkpoint; want a file that torch.save wrote"
        )
    stream = io.BytesIO(data)
    magic = _unpickle(path, _next_pickle(stream))
    if magic != LEGACY_MAGIC:
        raise UnreadableModel(
            f"{path}: a pickle, but not one that torch.save wrote; save the weights with"
            " torch.save(model.state_dict(), path)"
        )
    version = _unpickle(path, _next_pickle(stream))
    if version != LEGACY_VERSION:
        raise UnsupportedModel(
            f"{path}: legacy format version {version!r}; load it in PyTorch and save it again"
            " with torch.save(state_dict, path)"
        )
    system = _unpickle(path, _next_pickle(stream))
    little = not isinstance(system, dict) or system.get("little_endian", True)
    value = _unpickle(path, _next_pickle(stream))
    keys = _unpickle(path, _next_pickle(stream))
    if not isinstance(keys, list):
        raise UnreadableModel(f"{path}: the list of storages is a {type(keys).__name__}")
    declared = {s.key: s for s in _storages(value)}
    storages: dict[str, Array] = {}
    for key in keys:
        if key not in declared:
            raise UnreadableModel(f"{path}: storage {key!r} is in the file but in no tensor")
        storage = declared[key]
        (count,) = struct.unpack("<q" if little else ">q", stream.read(8))
        if count != storage.elements:
            raise UnreadableModel(
                f"{path}: storage {key!r} has {count:,} elements; want {storage.elements:,}"
            )
        size = count * _item_size(storage.dtype)
        raw = data[stream.tell() : stream.tell() + size]
        if len(raw) != size:
            raise UnreadableModel(
                f"{path}: storage {key!r} has {len(raw):,} bytes; want {size:,}; the file is"
                " cut short"
            )
        stream.seek(size, io.SEEK_CUR)
        storages[key] = from_bytes(raw, storage.dtype, "<" if little else ">")
    for key in declared:
        if key not in storages:
            raise UnreadableModel(f"{path}: storage {key!r} is not in the file")
    return _with_arrays(path, value, lambda storage: storages[storage.key])


def _next_pickle(stream: io.BytesIO) -> bytes:
    """Return the bytes of the next pickle, up to its STOP."""
    start = stream.tell()
    for _ in pickletools.genops(stream):
        pass
    return stream.getvalue()[start : stream.tell()]


def _unpickle(path: Path, data: bytes) -> object:
    if len(data) > LARGEST_PICKLE:
        raise UnreadableModel(
            f"{path}: its pickle has {len(data):,} bytes; want at most {LARGEST_PICKLE:,}"
        )
    _check_opcodes(path, data)
    return _Unpickler(path, data).load()


def _check_opcodes(path: Path, data: bytes) -> None:
    """Refuse what would make the unpickler itself allocate without bound, and nn.Modules."""
    names: list[str] = []
    texts: list[str] = []
    unknown = None
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count == MOST_OPCODES:
            raise UnreadableModel(
                f"{path}: its pickle has over {MOST_OPCODES:,} steps; save only the weights"
            )
        if opcode.name not in OPCODES:
            unknown = unknown or opcode.name
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            # The C unpickler's memo is an array: an index allocates that many pointers.
            if argument is None or not 0 <= argument <= len(data):
                raise UnreadableModel(f"{path}: damaged checkpoint: memo index {argument}")
        elif opcode.name == "GLOBAL":
            names.append(str(argument).replace(" ", ".", 1))
        elif opcode.name == "STACK_GLOBAL":
            names.append(".".join(texts[-2:]))
        elif isinstance(argument, str):
            texts.append(argument)
    if any(name.startswith("torch.nn.modules.") for name in names):
        culprit = next((name for name in names if not _allowed(name)), names[0])
        raise UnsupportedModel(
            f"{path}: a pickled nn.Module ({culprit}), which holds code; save"
            " torch.save(model.state_dict(), path) or torch.export.save(torch.export.export(...))"
        )
    if unknown is not None:
        raise UnsupportedModel(
            f"{path}: pickle opcode {unknown} is no part of a state dict; save only the weights"
            " with torch.save(model.state_dict(), path)"
        )


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the names that rebuild tensors, or refuse."""
        full = f"{module}.{name}"
        if not _allowed(full):
            raise UnsupportedModel(
                f"{self.path}: the pickle asks for {full}, which is no part of a state dict; save"
                " only weights: torch.save(model.state_dict(), path)"
            )
        if full in _REBUILDERS:
            return _REBUILDERS[full]
        return name if name in DTYPES else _INERT_CALL

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a persistent id names."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise UnreadableModel(f"{self.path}: damaged checkpoint: a persistent id is no storage")
        _, dtype, key, _, count, *view = pid
        if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(key, str):
            raise UnreadableModel(f"{self.path}: damaged checkpoint: storage {key!r} has no type")
        if not _is_size(count):
            raise UnreadableModel(f"{self.path}: storage {key!r}: size {count!r}")
        if view and view[0] is not None:
            raise UnsupportedModel(
                f"{self.path}: storage {key!r} is a view of another (PyTorch before 0.4); load it"
                " in PyTorch and save it again with torch.save(state_dict, path)"
            )
        return _Storage(key, DTYPES[dtype], count)


class _Call:
    """A function that a pickle may call but, having no attributes, not change with BUILD."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: object) -> object:
        function: Callable[..., object] = object.__getattribute__(self, "_function")
        return function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a pickle may not set {name}")


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    sizes = (offset, *_as_tuple(shape), *_as_tuple(strides))
    if not all(_is_size(size) for size in sizes) or len(_as_tuple(shape)) != len(
        _as_tuple(strides)
    ):
        raise ValueError(f"a tensor has offset {offset}, shape {shape}, strides {strides}")
    assert isinstance(offset, int)
    return _Tensor(storage, offset, _as_tuple(shape), _as_tuple(strides))


def _as_tuple(value: object) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _rebuild_parameter(tensor: object, *_: object) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise ValueError("a parameter has no tensor")
    return tensor


def _inert(*_: object) -> None:
    """Stand for a torch.device, torch.Size or dtype; nothing reads it."""


_REBUILDERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor": _Call(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Call(_rebuild_parameter),
}
_INERT_CALL = _Call(_inert)
# fmt: off
_INERT = frozenset((
    "torch.device", "torch.Size", "torch.float", "torch.float16", "torch.float32",
    "torch.float64", "torch.bfloat16", "torch.int8", "torch.int16", "torch.int32", "torch.int64",
    "torch.uint8", "torch.bool",
))
# fmt: on


def _allowed(full_name: str) -> bool:
    return (
        full_name in _REBUILDERS
        or full_name in _INERT
        or full_name in {f"torch.{dtype}" for dtype in DTYPES}
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bf2" else np.dtype(dtype).itemsize


def _storages(value: object) -> Iterator[_Storage]:
    for tensor in _walk(value):
        if isinstance(tensor, _Tensor):
            yield tensor.storage


def _walk(value: object) -> Iterator[object]:
    """Yield everything inside dicts, lists and tuples, each once."""
    waiting, seen = [value], {id(value)}
    while waiting:
        item = waiting.pop()
        yield item
        inside: list[object] = []
        if isinstance(item, dict):
            inside = list(item.values())
        elif isinstance(item, list | tuple) and not isinstance(item, _Tensor | _Storage):
            inside = list(item)
        for part in inside:
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)


def _with_arrays(path: Path, value: object, load: Callable[[_Storage], Array]) -> object:
    """Return ``value`` with each tensor in a dict as an array; dicts are changed in place."""
    if isinstance(value, _Tensor):
        return _as_array(path, "", value, load)
    for item in _walk(value):
        if isinstance(item, dict):
            for key, inside in item.items():
                if isinstance(inside, _Tensor):
                    item[key] = _as_array(path, str(key), inside, load)
    return value


def _as_array(path: Path, name: str, tensor: _Tensor, load: Callable[[_Storage], Array]) -> Array:
    storage = load(tensor.storage)
    return strided(f"{path}: tensor {name!r}", storage, tensor.offset, tensor.shape, tensor.strides)


def strided(
    where: str, storage: Array, offset: int, shape: Sequence[int], strides: Sequence[int]
) -> Array:
    """Return a view of a flat storage.

    Args:
        where: file and tensor, for messages.
        storage: flat.
        offset: of the first element, in elements.
        shape: of the view; it has no more elements than the storage.
        strides: in elements.

    Raises:
        UnreadableModel: the view reaches beyond the storage.
    """
    numbers = (offset, *shape, *strides)
    count = math.prod(shape)
    fits = (
        all(_is_size(n) for n in numbers)
        and len(shape) == len(strides) <= MOST_AXES
        and count <= storage.size
        and (
            count == 0
            or offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
            < storage.size
        )
    )
    if not fits:
        raise UnreadableModel(
            f"{where}: shape {list(shape)}, strides {list(strides)}, offset {offset}; its storage"
            f" has {storage.size} elements"
        )
    if count == 0:
        return np.zeros(shape, storage.dtype)
    bytes_apart = [step * storage.itemsize for step in strides]
    return as_strided(storage[offset:], shape, bytes_apart, writeable=False)
