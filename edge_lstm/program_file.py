"""Program to and from one file: ``.elstm``, an npz that is read without pickle.

Members: ``program``, the JSON document as bytes, and one array for each constant, named
``<op number>.<field>``. ``FORMAT`` grows when a reader of the old form would go wrong.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import OPS
from edge_lstm.errors import EdgeLstmError, UnreadableModel
from edge_lstm.files import read_bytes, write_atomically
from edge_lstm.program import Op, Program, Tensor
from edge_lstm.spec import Signal

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "edge-lstm.program/1"
_OP_TYPES = {op.type_name: op for op in OPS}
_ARRAY_KINDS = "iuf"


def program_bytes(program: Program) -> bytes:
    """Return the program as the bytes of an ``.elstm`` file; equal programs, equal bytes."""
    import io
    import json

    arrays: dict[str, Array] = {}
    ops = []
    for number, op in enumerate(program.ops):
        entry: dict[str, Any] = {"type": op.type_name}
        for field in fields(op):
            value = getattr(op, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{number}.{field.name}"] = np.ascontiguousarray(value)
            else:
                entry[field.name] = value
        ops.append(entry)
    document = {
        "format": FORMAT,
        "name": program.name,
        "profile": program.profile,
        "tensors": [asdict(tensor) for tensor in program.tensors],
        "ops": ops,
        "input": program.input,
        "output": program.output,
        "time_steps": program.time_steps,
        "source": program.source,
        "warnings": program.warnings,
        "fingerprint": program.fingerprint(),
    }
    text = json.dumps(document, sort_keys=True).encode()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, program=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def save(program: Program, path: Path | str) -> None:
    """Write ``program`` to an ``.elstm`` file."""
    write_atomically(path, program_bytes(program))


def load_elstm(path: Path | str) -> Program:
    """Read an ``.elstm`` file.

    Raises:
        UnreadableModel: not such a file, damaged, or made by a newer version.
    """
    return program_from_bytes(read_bytes(path), str(path))


def program_from_bytes(data: bytes, where: str = "program") -> Program:
    """Return what ``program_bytes`` was given; ``where`` is for messages."""
    try:
        return _parse(_read_arrays(data))
    except EdgeLstmError as error:
        raise UnreadableModel(f"{where}: {error}") from error
    except (Exception, MemoryError) as error:  # zipfile, zlib, json and NumPy have no common base
        raise UnreadableModel(
            f"{where}: is damaged or not an .elstm file ({type(error).__name__}: {error});"
            " convert the model again"
        ) from error


def _read_arrays(data: bytes) -> dict[str, Array]:
    """Return the npz's arrays; a size that its bytes do not bear out is never allocated."""
    import io
    import zipfile

    arrays: dict[str, Array] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > 1000 * len(data) + (1 << 20):
            raise UnreadableModel(f"claims {total:,} bytes in {len(data):,}; convert it again")
        for info in archive.infolist():
            content = archive.read(info)
            file = io.BytesIO(content)
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(file)
            count = 1
            for axis in shape:
                count *= axis
            body = content[file.tell() :]
            if dtype.kind not in _ARRAY_KINDS or fortran or count * dtype.itemsize != len(body):
                raise UnreadableModel(
                    f"array {info.filename!r}: {dtype} {list(shape)} in {len(body)} bytes;"
                    " convert the model again"
                )
            name = info.filename.removesuffix(".npy")
            arrays[name] = np.frombuffer(body, dtype).reshape(shape)
    return arrays


def _parse(arrays: dict[str, Array]) -> Program:
    import json

    document = json.loads(arrays["program"].tobytes())
    if document["format"] != FORMAT:
        raise UnreadableModel(
            f"format {document['format']!r}; this version reads {FORMAT!r};"
            " install the newest edge-lstm or convert the model again"
        )
    tensors = tuple(
        Tensor(**{**entry, "signal": Signal(**entry["signal"])}) for entry in document["tensors"]
    )
    program = Program(
        name=document["name"],
        profile=document["profile"],
        tensors=tensors,
        ops=tuple(_op(number, entry, arrays) for number, entry in enumerate(document["ops"])),
        input=document["input"],
        output=document["output"],
        time_steps=document["time_steps"],
        source=document["source"],
        warnings=tuple(document["warnings"]),
    )
    if program.fingerprint() != document["fingerprint"]:
        raise UnreadableModel("contents do not match their fingerprint; convert the model again")
    return program


def _op(number: int, entry: dict[str, Any], arrays: dict[str, Array]) -> Op:
    op_type = _OP_TYPES[entry.pop("type")]
    entry["inputs"] = tuple(entry["inputs"])
    prefix = f"{number}."
    constants = {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    entry.update(constants)
    return op_type(**entry)
