"""The safetensors format as NumPy arrays: a length, a JSON header, raw bytes."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from edge_lstm.arrays import Array
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.files import read_bytes
from edge_lstm_converters.torch_checkpoint import MOST_AXES, from_bytes

LARGEST_HEADER = 100_000_000  # safetensors README, "Format"

DTYPES = {
    "F64": ("f8", 8),
    "F32": ("f4", 4),
    "F16": ("f2", 2),
    "BF16": ("bf2", 2),
    "I64": ("i8", 8),
    "I32": ("i4", 4),
    "I16": ("i2", 2),
    "I8": ("i1", 1),
    "U8": ("u1", 1),
    "BOOL": ("?", 1),
}


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return all tensors of the file, by name, in the file's order.

    Raises:
        UnreadableModel: the file is damaged.
        UnsupportedModel: a tensor has a type that no weight here has.
    """
    header, body = _split(path, read_bytes(path))
    tensors: dict[str, Array] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(path, *item)):
        dtype, shape, (start, stop) = _entry(path, name, entry)
        if start != end or stop > len(body):
            raise UnreadableModel(
                f"{path}: tensor {name!r}: bytes {start:,} to {stop:,}; want {end:,} on, of"
                f" {len(body):,}"
            )
        end = stop
        code, item_size = DTYPES[dtype]
        if math.prod(shape) * item_size != stop - start:
            raise UnreadableModel(
                f"{path}: tensor {name!r}: {stop - start:,} bytes for {dtype} {shape}"
            )
        tensors[name] = from_bytes(body[start:stop], code).reshape(shape)
    if end != len(body):
        raise UnreadableModel(f"{path}: {len(body) - end:,} bytes after the last tensor")
    return tensors


def _split(path: Path, data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < 8:
        raise UnreadableModel(f"{path}: {len(data)} bytes; a safetensors file has at least 8")
    (length,) = struct.unpack("<Q", data[:8])
    if length > LARGEST_HEADER or 8 + length > len(data):
        raise UnreadableModel(
            f"{path}: not a whole safetensors file: its header claims {length:,} bytes, the file"
            f" has {len(data):,}"
        )
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnreadableModel(f"{path}: the safetensors header is not JSON") from error
    if not isinstance(header, dict):
        raise UnreadableModel(f"{path}: the safetensors header is not a JSON object")
    header.pop("__metadata__", None)
    return header, data[8 + length :]


def _offsets(path: Path, name: str, entry: object) -> tuple[int, int]:
    return _entry(path, name, entry)[2]


def _entry(path: Path, name: str, entry: object) -> tuple[str, list[int], tuple[int, int]]:
    """Return dtype, shape and byte range of a tensor, or raise UnreadableModel."""
    if isinstance(entry, dict):
        dtype = entry.get("dtype")
        shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
        if isinstance(dtype, str) and shape is not None and offsets is not None:
            if dtype not in DTYPES:
                raise UnsupportedModel(
                    f"{path}: tensor {name!r}: type {dtype}; want one of {', '.join(DTYPES)}"
                )
            if len(offsets) == 2 and len(shape) <= MOST_AXES:
                return dtype, shape, (offsets[0], offsets[1])
    raise UnreadableModel(
        f"{path}: tensor {name!r}: want dtype, shape and data_offsets in the header"
    )


def _sizes(value: object) -> list[int] | None:
    """Return ``value`` if it is a list of sizes, else None."""
    if not isinstance(value, list):
        return None
    fits = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48 for n in value)
    return value if fits else None
