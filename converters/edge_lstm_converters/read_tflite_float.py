"""A ``.tflite`` file of either kind: full-integer to Program, float to ModelSpec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_lstm.errors import UnsupportedModel
from edge_lstm.files import read_bytes
from edge_lstm.program import Program
from edge_lstm.spec import ModelSpec
from edge_lstm_converters.read_tflite import program_from_bytes
from edge_lstm_converters.tflite_axes import Layout, LayoutMismatch, possible_layouts
from edge_lstm_converters.tflite_float_graph import FloatGraph
from edge_lstm_converters.tflite_float_ops import FLOAT_OPERATORS
from edge_lstm_converters.tflite_schema import ABSENT, TfliteModel, parse

FLOAT_TYPES = ("float32", "int32", "int64", "bool")


def read_any_tflite(path: Path | str, profile: str = "tflm") -> Program | ModelSpec:
    """Read a ``.tflite`` file: full-integer, int8 or 16x8, or float.

    Args:
        path: the file.
        profile: whose arithmetic a Program has; a float model has none.

    Raises:
        UnreadableModel: the file is damaged or of another format.
        UnsupportedModel: it holds something that has no counterpart here, said by name.
    """
    data = read_bytes(path)
    model = parse(data, str(path))
    if not is_float(model):
        return program_from_bytes(data, str(path), profile)
    return float_spec(model, str(path))


def is_float(model: TfliteModel) -> bool:
    """Whether a model computes in float throughout; its weights may be of another type."""
    made = [model.tensors[k] for o in model.operators for k in o.outputs if k != ABSENT]
    return bool(made) and all(t.dtype in FLOAT_TYPES and not t.scales for t in made)


def float_spec(model: TfliteModel, where: str) -> ModelSpec:
    """Return the ModelSpec of a float model; ``where`` is its file's name."""
    model = _unpacked(model)
    first: LayoutMismatch | None = None
    for layout in _layouts(model, where):
        try:
            return FloatGraph(model, where, layout).spec(FLOAT_OPERATORS)
        except LayoutMismatch as mismatch:
            first = first or mismatch
    assert first is not None
    raise UnsupportedModel(str(first)) from first


def _unpacked(model: TfliteModel) -> TfliteModel:
    """Return the model with its float16 weights as float32, and without what unpacked them."""
    tensors, operators = list(model.tensors), []
    for operator in model.operators:
        source = model.tensors[operator.inputs[0]] if operator.inputs else None
        if (
            operator.code == "DEQUANTIZE"
            and source is not None
            and source.dtype == "float16"
            and source.data is not None
        ):
            data = source.array().astype("<f4").tobytes()
            index = operator.outputs[0]
            tensors[index] = replace(tensors[index], data=data, shape=source.shape)
        else:
            operators.append(operator)
    return replace(model, tensors=tuple(tensors), operators=tuple(operators))


def _layouts(model: TfliteModel, where: str) -> list[Layout]:
    """Return what the input may be: a sequence, or token ids, which Keras feeds as floats."""
    index = model.inputs[0] if len(model.inputs) == 1 else ABSENT
    readers = [o for o in model.operators if index in o.inputs]
    if index != ABSENT and [o.code for o in readers] == ["CAST"]:
        tensors = list(model.tensors)
        tensors[index] = replace(tensors[index], dtype="int32")
        model = replace(model, tensors=tuple(tensors))
    return [k for k in possible_layouts(model, where) if k.signal.kind != "vector"]
