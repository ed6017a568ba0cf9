"""Lengths of texts in an HDF5 file, looked at before HDF5 believes them.

A text of variable length, as Keras's ``model_config``, stands in a heap of the file. What refers to
it is its length (4 bytes), the heap's address (8) and a number in the heap (4). HDF5 allocates
that length, up to 4 GiB, before it finds that the heap holds less.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

HEAP = b"GCOL"
UNDEFINED = b"\xff" * 8  # an address that is none; a size may stand behind it
HEAP_NUMBERS = 2**16
LARGEST_SCANNED = 2**28  # where the file itself is large, a few seconds more are no surprise


def claimed_too_long(data: Path | bytes) -> int | None:
    """Return the length of a text that is longer than its file; None where all are shorter.

    Args:
        data: a file that has no user block and addresses of 8 bytes, by its path or as bytes.
    """
    if isinstance(data, bytes):
        return _scan(data)
    with data.open("rb") as file:
        if not 0 < data.stat().st_size <= LARGEST_SCANNED:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _scan(mapped)


def _scan(data: bytes | mmap.mmap) -> int | None:
    for heap in re.finditer(HEAP, data):
        address = re.escape(struct.pack("<Q", heap.start()))
        for reference in re.finditer(address, data):
            at = reference.start() - 4
            found = data[at : at + 16]
            # h5py writes object headers of version 1, in which all lies at multiples of 8.
            if at < 4 or at % 8 or len(found) < 16 or data[at - 4 : at + 4] == UNDEFINED:
                continue
            length, number = struct.unpack("<I8xI", found)
            if length > len(data) and 0 < number < HEAP_NUMBERS:
                return int(length)
    return None
