import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel
from edge_lstm_converters.tflite_schema import (
    ABSENT,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    parse,
    serialize,
)
from edge_lstm_converters.tflite_tables import DTYPES, OPERATORS

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*/model.tflite"))
SMALL = min(GOLDEN, key=lambda path: path.stat().st_size).read_bytes()


def official(data: bytes) -> Any:
    """Return the file as LiteRT's own schema code reads it."""
    schema = pytest.importorskip(
        "ai_edge_litert.schema_py_generated",
        reason="ai_edge_litert not found: pip install ai-edge-litert",
    )
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def numbers(values: Any) -> tuple[float, ...]:
    return () if values is None else tuple(values.tolist() if hasattr(values, "tolist") else values)


def assert_same_as_official(model: TfliteModel, data: bytes) -> None:
    want = official(data)
    (graph,) = want.subgraphs
    assert model.inputs == numbers(graph.inputs)
    assert model.outputs == numbers(graph.outputs)
    assert len(model.tensors) == len(graph.tensors)
    for tensor, theirs in zip(model.tensors, graph.tensors, strict=True):
        assert tensor.name == theirs.name.decode()
        assert tensor.shape == numbers(theirs.shape)
        assert tensor.dtype == DTYPES[theirs.type]
        assert tensor.is_variable == theirs.isVariable
        if theirs.quantization is not None:
            assert tensor.scales == numbers(theirs.quantization.scale)
            assert tensor.zero_points == numbers(theirs.quantization.zeroPoint)
        held = want.buffers[theirs.buffer].data
        assert tensor.data == (None if held is None else bytes(held))
    for operator, theirs in zip(model.operators, graph.operators, strict=True):
        code = want.operatorCodes[theirs.opcodeIndex]
        assert OPERATORS.index(operator.code) == code.builtinCode
        assert operator.version == code.version
        assert operator.inputs == numbers(theirs.inputs)
        assert operator.outputs == numbers(theirs.outputs)
        assert operator.intermediates == numbers(theirs.intermediates)
        if operator.options is not None:
            ours = vars(operator.options)
            named = {name.replace("_", "").lower(): value for name, value in ours.items()}
            for name, value in vars(theirs.builtinOptions).items():
                key = name.lower().replace("fusedactivationfunction", "fusedactivation")
                key = key.replace("projclip", "projectionclip")
                assert named.get(key, value) == value


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_a_file_is_read_as_the_official_schema_reads_it(path: Path) -> None:
    data = path.read_bytes()
    assert_same_as_official(parse(data, "m.tflite"), data)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_the_official_schema_reads_what_is_written(path: Path) -> None:
    model = parse(path.read_bytes(), "m.tflite")
    data = serialize(model)
    assert_same_as_official(model, data)
    assert parse(data, "m.tflite") == model


def test_operator_names_are_the_official_ones() -> None:
    schema = pytest.importorskip(
        "ai_edge_litert.schema_py_generated",
        reason="ai_edge_litert not found: pip install ai-edge-litert",
    )
    for code, name in enumerate(OPERATORS):
        assert getattr(schema.BuiltinOperator, name) == code


def test_equal_models_give_equal_bytes() -> None:
    model = parse(SMALL, "m.tflite")
    assert serialize(model) == serialize(replace(model))


def test_buffers_are_aligned_to_16_bytes() -> None:
    data = np.arange(40, dtype=np.int8).tobytes()
    tensors = tuple(
        TfliteTensor(f"t{n}", (n,), "int8", (0.5,), (0,), data=data[:n]) for n in (1, 5, 16, 40)
    )
    written = serialize(TfliteModel(tensors, (), (0,), (0,)))
    for tensor in tensors[1:]:
        assert tensor.data is not None
        assert written.index(struct.pack("<I", len(tensor.data)) + tensor.data) % 16 == 12


@pytest.mark.parametrize("path", GOLDEN[:4], ids=lambda path: path.parent.name)
def test_every_truncation_is_refused_in_one_line(path: Path) -> None:
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        with pytest.raises(ModelError) as caught:
            parse(data[:length], "m.tflite")
        assert "\n" not in str(caught.value)


@given(st.integers(0, 2**32))
def test_damage_gives_a_model_or_a_model_error(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(chance.choice(GOLDEN).read_bytes())
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(len(data) - 4)
        new = chance.choice(
            [b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff", chance.randbytes(1), b"\x00\x00"]
        )
        data[place : place + len(new)] = new
    try:
        parse(bytes(data), "m.tflite")
    except ModelError as error:
        assert str(error).startswith("m.tflite: ")  # noqa: PT017


def test_another_format_is_named() -> None:
    with pytest.raises(UnreadableModel, match=r"bytes 4 to 7 are b'zip!'; a \.tflite"):
        parse(b"PK\x03\x04zip!" + bytes(100), "m.tflite")


def test_another_schema_version_is_refused() -> None:
    field = struct.pack("<I", 3)
    data = bytearray(SMALL)
    root = struct.unpack_from("<I", data)[0]
    place = data.index(field, root)
    data[place : place + 4] = struct.pack("<I", 4)
    with pytest.raises(UnreadableModel, match="schema version 4; want version 3"):
        parse(bytes(data), "m.tflite")


def test_tables_shared_beyond_measure_are_refused() -> None:
    flatbuffers = pytest.importorskip(
        "flatbuffers", reason="flatbuffers not found: pip install flatbuffers"
    )
    builder = flatbuffers.Builder(0)
    builder.StartVector(4, 4000, 4)
    for _ in range(4000):
        builder.PrependInt32(0)
    inputs = builder.EndVector()
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(1, inputs, 0)
    operator = builder.EndObject()
    builder.StartVector(4, 4000, 4)
    for _ in range(4000):
        builder.PrependUOffsetTRelative(operator)
    operators = builder.EndVector()
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(3, operators, 0)
    graph = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    builder.StartObject(3)
    builder.PrependUint32Slot(0, 3, 0)
    builder.PrependUOffsetTRelativeSlot(2, graphs, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    # 32 KB that stand for 16 million operands.
    with pytest.raises(UnreadableModel, match="tables are shared so often"):
        parse(bytes(builder.Output()), "m.tflite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": (99,)}, "tensor 99 is used, there are 4"),
        ({"outputs": (-2,)}, "tensor -2 is used, there are 4"),
    ],
)
def test_indices_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    model = TfliteModel(
        tuple(TfliteTensor(f"t{k}", (1,), "int8", (1.0,), (0,)) for k in range(4)),
        (TfliteOperator("TANH", (0, ABSENT), (1,)),),
        (0,),
        (1,),
    )
    assert parse(serialize(model), "m.tflite") == model
    with pytest.raises(UnreadableModel, match=message):
        parse(serialize(replace(model, **change)), "m.tflite")


def test_a_constant_whose_bytes_do_not_fill_its_shape_is_refused() -> None:
    tensor = TfliteTensor("weights", (2**20, 2**20), "int8", (1.0,), (0,), data=b"12345")
    data = serialize(TfliteModel((tensor,), (), (0,), (0,)))
    with pytest.raises(UnreadableModel, match="'weights' has 5 bytes, its shape 1099511627776"):
        parse(data, "m.tflite")


def test_unknown_sizes_are_refused() -> None:
    data = serialize(TfliteModel((TfliteTensor("x", (-1, 3), "int8"),), (), (0,), (0,)))
    with pytest.raises(UnsupportedModel, match=r"shape \[-1, 3\]; every size must be known"):
        parse(data, "m.tflite")
