"""LiteRT (ai-edge-litert): int8 with the default and the reference kernels, and float."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from dataclasses import replace

from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import UnsupportedModel
from edge_lstm_benchmarks.backends.tflite_session import TfliteSession


class LiteRt:
    """``litert``, ``litert-ref`` or ``litert-float``: one thread."""

    fixed_shape = True
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.precision: Precision = "float32" if name == "litert-float" else "int8"
        self.profile: str | None = name if self.precision == "int8" else None

    def available(self) -> str | None:
        if importlib.util.find_spec("ai_edge_litert") is None:
            return "ai-edge-litert is not installed; pip install ai-edge-litert"
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return importlib.metadata.version("ai-edge-litert")

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        if self.precision == "int8":
            return int8_file(model, shape)
        from edge_lstm_converters.write_tflite import float_tflite_bytes

        if model.spec is None:
            raise UnsupportedModel(f"{model.name}: has no floats; give the float model")
        return float_tflite_bytes(model.spec, shape.time_steps, shape.batch_size)

    def load(self, data: bytes, shape: CallShape) -> Session:
        from ai_edge_litert import interpreter  # type: ignore[import-untyped,unused-ignore]

        resolvers = interpreter.OpResolverType
        reference = self.name == "litert-ref"
        return TfliteSession(
            interpreter.Interpreter(
                model_content=data,
                num_threads=1,
                experimental_op_resolver_type=(
                    resolvers.BUILTIN_REF if reference else resolvers.AUTO
                ),
            ),
            shape,
        )


class LiteRtTimeMajor(LiteRt):
    """The same of a model of LSTMs only; takes and gives sequences as [time, batch, features]."""

    def load(self, data: bytes, shape: CallShape) -> Session:
        turned = replace(shape, batch_size=shape.time_steps, time_steps=shape.batch_size)
        return super().load(data, turned)

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        from edge_lstm_converters.tflite_schema import parse, serialize

        file = parse(super().build(model, shape), model.name)
        sequences = {k for op in file.operators for k in (op.inputs[0], op.outputs[0])}
        tensors = tuple(
            replace(t, shape=(t.shape[1], t.shape[0], t.shape[2])) if k in sequences else t
            for k, t in enumerate(file.tensors)
        )
        operators = tuple(
            replace(op, options=replace(op.options, time_major=True)) for op in file.operators
        )
        return serialize(replace(file, tensors=tensors, operators=operators))


def int8_file(model: BenchModel, shape: CallShape) -> bytes:
    """Return the model as an int8 ``.tflite`` of one shape, the same for every interpreter.

    A graph with a state of its own, such as a GRU's, takes one step a call whatever is asked.
    """
    from edge_lstm_converters.write_tflite import tflite_bytes

    if model.program is None:
        raise UnsupportedModel(f"{model.name}: has no integers; give calibration data")
    steps = 1 if model.program.has_state_ops else shape.time_steps
    return tflite_bytes(model.program, steps, shape.batch_size)
