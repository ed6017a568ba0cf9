"""The FlatBuffers tables of a ``.tflite`` file, and a flat model made of them.

``parse`` turns bytes into a ``TfliteModel``, ``serialize`` turns one into bytes; equal models
give equal bytes. Reading takes nothing on trust: every offset is checked, and what is decoded
is bounded by the length of the file, so that a hostile file gives UnreadableModel and nothing
else.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import MissingTool, UnreadableModel, UnsupportedModel
from edge_lstm_converters.tflite_tables import (
    DTYPES,
    OPERATORS,
    OPTIONS,
    TABLES,
    BufferTable,
    ModelTable,
    OperatorCodeTable,
    OperatorTable,
    QuantizationTable,
    SubGraphTable,
    TensorTable,
)

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16  # force_align of Buffer.data
ABSENT = -1  # index of an optional tensor that is not there


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor: what it is, and its value where it is a constant.

    Args:
        scales: one, or one for each index of axis ``axis``; none where it is not quantized.
        data: little-endian bytes, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: bytes | None = None
    is_variable: bool = False

    def array(self) -> Array:
        """Return the constant's value."""
        assert self.data is not None
        # TFLite files are little-endian on every machine.
        dtype = np.dtype(self.dtype)
        values = np.frombuffer(self.data, dtype.newbyteorder("<")).astype(dtype)
        return values.reshape(self.shape)


@dataclass(frozen=True)
class TfliteOperator:
    """An operator: its BuiltinOperator name and the tensors that it touches, by index.

    ``options`` is a table of ``tflite_tables.OPTIONS``, or None where no field of it matters.
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = None
    intermediates: tuple[int, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class TfliteModel:
    """A ``.tflite`` file of one subgraph; ``ABSENT`` stands for an optional tensor."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str = ""


# ---------------------------------------------------------------------------------- reading

T = TypeVar("T")


class _Reader:
    """Checked access to a FlatBuffer.

    Args:
        data: the file.
        where: its name, for messages.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where = data, where
        # Tables can share their children, so a small file can stand for a huge model.
        self.budget = 8 * len(data) + 4096

    def damaged(self, what: str) -> UnreadableModel:
        return UnreadableModel(
            f"{self.where}: {what}; the file is damaged or truncated, get it again"
        )

    def scalar(self, kind: str, position: int) -> Any:
        try:
            if position < 0:
                raise self.damaged(f"an offset points to {position}")
            return struct.unpack_from("<" + kind, self.data, position)[0]
        except struct.error:
            raise self.damaged(
                f"an offset points to {position}, the file has {len(self.data)} bytes"
            ) from None

    def spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise self.damaged("tables are shared so often that the model exceeds its file")

    def target(self, position: int) -> int:
        """Follow the offset at ``position``."""
        return position + int(self.scalar("I", position))

    def vector(self, position: int, item_size: int) -> tuple[int, int]:
        """Return the start and the count of the vector at ``position``."""
        count = int(self.scalar("I", position))
        if position + 4 + count * item_size > len(self.data):
            raise self.damaged(f"a vector of {count} items reaches past the end")
        return position + 4, count

    def bytes(self, position: int) -> bytes:
        start, count = self.vector(position, 1)
        self.spend(count)
        return self.data[start : start + count]

    def slots(self, position: int) -> dict[int, int]:
        """Return where each slot of the table at ``position`` has its value."""
        vtable = position - int(self.scalar("i", position))
        size = int(self.scalar("H", vtable))
        if size < 4 or size % 2:
            raise self.damaged(f"a table at {position} has a vtable of {size} bytes")
        self.spend(16)
        found = {}
        for index in range((size - 4) // 2):
            offset = int(self.scalar("H", vtable + 4 + 2 * index))
            if offset:
                found[index] = position + offset
        return found

    def table(self, position: int, cls: type[T]) -> T:
        """Return the table at ``position``; slots that ``cls`` does not name are skipped."""
        slots = self.slots(position)
        values: dict[str, Any] = {}
        for item in dataclasses.fields(cls):  # type: ignore[arg-type]
            index, kind = item.metadata["slot"], item.metadata["kind"]
            if index not in slots:
                continue
            if kind == "options":
                options = OPTIONS.get(values.get("options_type", 0))
                if options is not None:
                    values[item.name] = self.table(self.target(slots[index]), options)
            else:
                values[item.name] = self.value(kind, slots[index])
        return cls(**values)

    def value(self, kind: str, position: int) -> Any:
        if len(kind) == 1:
            return self.scalar(kind, position)
        start = self.target(position)
        if kind == "[B]":
            return self.bytes(start)
        if kind == "str":
            return self.bytes(start).decode("utf-8", "replace")
        if kind in TABLES:
            return self.table(start, TABLES[kind])
        item = kind[1:-1]
        if item in TABLES:
            first, count = self.vector(start, 4)
            positions = range(first, first + 4 * count, 4)
            return tuple(self.table(self.target(p), TABLES[item]) for p in positions)
        size = struct.calcsize("<" + item)
        first, count = self.vector(start, size)
        self.spend(count * size)
        return struct.unpack_from(f"<{count}{item}", self.data, first)


def parse(data: bytes, where: str) -> TfliteModel:
    """Return the model in the bytes of a ``.tflite`` file.

    Args:
        data: the file.
        where: its name, for messages.

    Raises:
        UnreadableModel: it is not a ``.tflite`` file, or damaged.
        UnsupportedModel: it has several subgraphs, or weights outside the file.
    """
    if data[4:8] != IDENTIFIER:
        raise UnreadableModel(
            f"{where}: bytes 4 to 7 are {data[4:8]!r}; a .tflite file has {IDENTIFIER!r} there"
        )
    reader = _Reader(data, where)
    model = reader.table(reader.target(0), ModelTable)
    if model.version != SCHEMA_VERSION:
        raise UnreadableModel(
            f"{where}: schema version {model.version}; want version {SCHEMA_VERSION}"
        )
    if len(model.subgraphs) != 1:
        raise UnsupportedModel(
            f"{where}: has {len(model.subgraphs)} subgraphs; a model must be one graph, without"
            " control flow (a GRU or RNN of Keras is a loop here); convert the .keras file instead"
        )
    graph = model.subgraphs[0]
    tensors = tuple(_tensor(reader, model, t) for t in graph.tensors)
    operators = tuple(_operator(reader, model, o) for o in graph.operators)
    touched = [*graph.inputs, *graph.outputs]
    for operator in operators:
        touched += [*operator.inputs, *operator.outputs, *operator.intermediates]
    for index in touched:
        if not ABSENT <= index < len(tensors):
            raise reader.damaged(f"tensor {index} is used, there are {len(tensors)}")
    return TfliteModel(tensors, operators, graph.inputs, graph.outputs, model.description)


def _tensor(reader: _Reader, model: ModelTable, table: TensorTable) -> TfliteTensor:
    label = f"{reader.where}: tensor {table.name!r}"
    if table.type not in DTYPES:
        raise UnsupportedModel(f"{label}: TensorType {table.type}; no reader for this type")
    if not table.buffer < len(model.buffers):
        raise reader.damaged(f"tensor {table.name!r} has buffer {table.buffer}")
    buffer = model.buffers[table.buffer]
    # Offset 1 is the schema's placeholder for "within this file".
    if buffer.offset > 1 or table.external_buffer:
        raise UnsupportedModel(f"{label}: its data lie outside the FlatBuffer; want them inside")
    if table.sparsity is not None:
        raise UnsupportedModel(f"{label}: is sparse; convert the model with dense weights")
    if min(table.shape, default=1) < 0:
        raise UnsupportedModel(f"{label}: shape {list(table.shape)}; every size must be known")
    dtype, data = DTYPES[table.type], buffer.data or None
    want = math.prod(table.shape) * np.dtype(dtype).itemsize
    if data is not None and len(data) != want:
        raise reader.damaged(f"tensor {table.name!r} has {len(data)} bytes, its shape {want}")
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis = 0
    if table.quantization is not None:
        scales, zero_points = table.quantization.scale, table.quantization.zero_point
        axis = table.quantization.quantized_dimension
        if not zero_points:
            zero_points = (0,) * len(scales)
        if len(zero_points) not in (1, len(scales)) and scales:
            raise reader.damaged(f"tensor {table.name!r} has {len(zero_points)} zero points")
    return TfliteTensor(
        table.name, table.shape, dtype, scales, zero_points, axis, data, table.is_variable
    )


def _operator(reader: _Reader, model: ModelTable, table: OperatorTable) -> TfliteOperator:
    if not table.opcode_index < len(model.operator_codes):
        raise reader.damaged(f"an operator has code {table.opcode_index}")
    code = model.operator_codes[table.opcode_index]
    number = max(code.builtin_code, code.deprecated_builtin_code)
    if not 0 <= number < len(OPERATORS):
        name = f"operator {number}"
    elif OPERATORS[number] == "CUSTOM":
        name = f"CUSTOM {code.custom_code}"
    else:
        name = OPERATORS[number]
    return TfliteOperator(
        name, table.inputs, table.outputs, table.options, table.intermediates, code.version
    )


# ---------------------------------------------------------------------------------- writing


def serialize(model: TfliteModel) -> bytes:
    """Return the bytes of a ``.tflite`` file; equal models give equal bytes.

    Raises:
        MissingTool: the ``flatbuffers`` package is not installed.
    """
    codes: dict[tuple[str, int], int] = {}
    for operator in model.operators:
        codes.setdefault((operator.code, operator.version), len(codes))
    buffers = [BufferTable()]  # buffer 0 is empty by convention
    numbers = {name: number for number, name in DTYPES.items()}
    # Equal constants, such as biases of zero, share a buffer, as in the official converter's files.
    shared: dict[bytes, int] = {}
    tensors = []
    for tensor in model.tensors:
        if tensor.data is not None and tensor.data not in shared:
            shared[tensor.data] = len(buffers)
            buffers.append(BufferTable(tensor.data))
        quantization = None
        if tensor.scales:
            quantization = QuantizationTable(
                tensor.scales, tensor.zero_points, quantized_dimension=tensor.axis
            )
        tensors.append(
            TensorTable(
                shape=tensor.shape,
                type=numbers[tensor.dtype],
                buffer=0 if tensor.data is None else shared[tensor.data],
                name=tensor.name,
                quantization=quantization,
                is_variable=tensor.is_variable,
            )
        )
    option_numbers: Mapping[type[Any], int] = {cls: number for number, cls in OPTIONS.items()}
    operators = tuple(
        OperatorTable(
            opcode_index=codes[operator.code, operator.version],
            inputs=operator.inputs,
            outputs=operator.outputs,
            options_type=option_numbers.get(type(operator.options), 0),
            options=operator.options,
            intermediates=operator.intermediates,
        )
        for operator in model.operators
    )
    table = ModelTable(
        version=SCHEMA_VERSION,
        operator_codes=tuple(
            OperatorCodeTable(
                deprecated_builtin_code=min(OPERATORS.index(name), 127),
                version=version,
                builtin_code=OPERATORS.index(name),
            )
            for name, version in codes
        ),
        subgraphs=(SubGraphTable(tuple(tensors), model.inputs, model.outputs, operators, "main"),),
        description=model.description,
        buffers=tuple(buffers),
    )
    try:
        import flatbuffers
    except ImportError:
        raise MissingTool(
            "package flatbuffers not found; install it: pip install 'edge-lstm[tools]'"
        ) from None
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, table), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


_PREPEND = {
    "b": "PrependInt8Slot",
    "B": "PrependUint8Slot",
    "?": "PrependBoolSlot",
    "i": "PrependInt32Slot",
    "I": "PrependUint32Slot",
    "Q": "PrependUint64Slot",
    "f": "PrependFloat32Slot",
}
_NUMPY = {"i": "<i4", "q": "<i8", "f": "<f4", "B": "u1"}


def _write_table(builder: Any, table: Any) -> int:
    """Write a table after its children; slots with their default are left out."""
    items = dataclasses.fields(table)
    offsets: dict[int, int] = {}
    for item in items:
        index, kind = item.metadata["slot"], item.metadata["kind"]
        value = getattr(table, item.name)
        if len(kind) > 1 and value not in (None, (), b"", ""):
            offsets[index] = _write_child(builder, kind, value)
    builder.StartObject(1 + max((item.metadata["slot"] for item in items), default=-1))
    for item in items:
        index, kind = item.metadata["slot"], item.metadata["kind"]
        if index in offsets:
            builder.PrependUOffsetTRelativeSlot(index, offsets[index], 0)
        elif len(kind) == 1:
            getattr(builder, _PREPEND[kind])(index, getattr(table, item.name), item.default)
    return int(builder.EndObject())


def _write_child(builder: Any, kind: str, value: Any) -> int:
    if kind == "str":
        return int(builder.CreateString(value))
    if kind == "options" or kind in TABLES:
        return _write_table(builder, value)
    item = kind[1:-1]
    if item in TABLES:
        offsets = [_write_table(builder, table) for table in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    if kind == "[B]":
        data, size, alignment = value, 1, BUFFER_ALIGNMENT
    else:
        data = np.array(value, _NUMPY[item]).tobytes()
        size = alignment = struct.calcsize("<" + item)
    builder.StartVector(size, len(data) // size, alignment)
    builder.head = builder.head - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return int(builder.EndVector())
