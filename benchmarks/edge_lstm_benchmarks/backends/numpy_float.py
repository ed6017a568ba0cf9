"""The float model in NumPy: ``edge_lstm.FloatSession``."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import numpy as np

import edge_lstm
from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.cells import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Gate,
    LastStep,
    Layer,
    Lstm,
)
from edge_lstm.errors import UnsupportedModel
from edge_lstm.float_runtime import FloatSession
from edge_lstm.spec import ModelSpec, Signal


class NumpyFloat:
    """``numpy-float``: one thread when NumPy's BLAS is told so."""

    precision: Precision = "float32"
    profile: str | None = None
    fixed_shape = False
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def available(self) -> str | None:
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return f"{edge_lstm.__version__} (NumPy {np.__version__})"

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        del shape
        if model.spec is None:
            raise UnsupportedModel(f"{model.name}: has no floats; give the float model")
        return spec_bytes(model.spec)

    def load(self, data: bytes, shape: CallShape) -> Session:
        return FloatSession(spec_from_bytes(data), shape.batch_size)


def spec_bytes(spec: ModelSpec) -> bytes:
    """Return the model as the bytes of an npz, to send to another process."""
    layers: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for layer in spec.layers:
        if isinstance(layer, Dropout):
            continue
        held, options = _pack(layer)
        arrays.update({f"{len(layers)}.{name}": value for name, value in held.items()})
        layers.append({"kind": layer.type_name, "name": layer.name, **options})
    text = json.dumps(
        {"name": spec.name, "input": [spec.input.kind, spec.input.size], "layers": layers}
    )
    buffer = io.BytesIO()
    np.savez(buffer, model=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _pack(layer: Layer) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return a layer's arrays and its options."""
    if isinstance(layer, Lstm) and not layer.variants:
        held = {
            name: np.stack([getattr(gate, name) for gate in layer.gates])
            for name in ("input_weights", "recurrent_weights", "bias")
        }
        starts = {"hidden": layer.initial_hidden, "cell": layer.initial_cell}
        held.update({name: value for name, value in starts.items() if value is not None})
        return held, {}
    if isinstance(layer, Dense):
        return {"weights": layer.weights, "bias": layer.bias}, {"activation": layer.activation}
    if isinstance(layer, Activation):
        return {}, {"kind": "activation", "activation": layer.kind}
    if isinstance(layer, Embedding):
        return {"table": layer.table}, {}
    if isinstance(layer, Flatten):
        return {}, {"time_steps": layer.time_steps}
    if isinstance(layer, LastStep):
        return {}, {}
    raise UnsupportedModel(
        f"layer {layer.name!r}: {layer.type_name} is not in numpy-float; use the float reference"
    )


def spec_from_bytes(data: bytes) -> ModelSpec:
    """Return the model that ``spec_bytes`` packed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    model = json.loads(arrays.pop("model").tobytes())
    layers = []
    for number, options in enumerate(model["layers"]):
        held = {
            name.partition(".")[2]: value
            for name, value in arrays.items()
            if name.partition(".")[0] == str(number)
        }
        layers.append(_unpack(options, held))
    return ModelSpec(model["name"], Signal(*model["input"]), tuple(layers))


def _unpack(options: dict[str, Any], held: dict[str, Array]) -> Layer:
    name, kind = options["name"], options["kind"]
    if kind == "lstm":
        i, f, g, o = (
            Gate(*values)
            for values in zip(
                held["input_weights"], held["recurrent_weights"], held["bias"], strict=True
            )
        )
        return Lstm(name, (i, f, g, o), held.get("hidden"), held.get("cell"))
    if kind == "dense":
        return Dense(name, held["weights"], held["bias"], options["activation"])
    if kind == "activation":
        return Activation(name, options["activation"])
    if kind == "embedding":
        return Embedding(name, held["table"])
    if kind == "flatten":
        return Flatten(name, options["time_steps"])
    return LastStep(name)
