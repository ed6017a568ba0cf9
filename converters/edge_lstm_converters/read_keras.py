"""Keras files to ModelSpec, without Keras or TensorFlow: .keras, .h5 and weights alone."""

from __future__ import annotations

import math
from pathlib import Path

from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.spec import ModelSpec, Signal, identifier
from edge_lstm_converters.keras_archive import KerasFile, KerasLayer, open_keras
from edge_lstm_converters.keras_graph import Architecture, layers_of, read_architecture
from edge_lstm_converters.keras_layers import Chain


def read_keras(path: Path, layers: Path | None = None, name: str | None = None) -> ModelSpec:
    """Read a Keras model (.keras; .h5 or .hdf5 of a whole model, or of weights).

    Args:
        path: the file.
        layers: layer configuration, for a file of weights alone; see ``keras_weights``.
        name: of the model; None: the configuration's, else the file's.

    Raises:
        UnreadableModel: the file is damaged.
        UnsupportedModel: it holds what has no counterpart here; or ``layers`` is None and the
            file holds weights only.
        UsageError: ``layers`` is wrong, or given for a whole model.
        MissingTool: h5py is not installed.
    """
    path = Path(path)
    file = open_keras(path)
    try:
        if file.config is not None:
            if layers is not None:
                raise UsageError(
                    f"{path}: --layers is for files of weights alone; this one says its layers"
                    " itself"
                )
            architecture = read_architecture(path, file.config)
            return _model(file, architecture, name or identifier(path.stem))
        from edge_lstm_converters.keras_weights import read_weights

        return read_weights(file, layers, name)
    finally:
        file.weights.close()


def _model(file: KerasFile, architecture: Architecture, name: str) -> ModelSpec:
    architecture, reshaped = _without_first_reshape(architecture)
    signal, time_steps = _input(file.path, architecture)
    chain = Chain(file, signal, time_steps, [])
    chain.notes.update(reshaped)
    for step in architecture.steps:
        chain.step(step)
    version = "" if file.version is None else " {}.{}".format(*file.version)
    return ModelSpec(
        name=name,
        input=signal,
        layers=tuple(chain.layers),
        time_steps=time_steps,
        source={"format": f"keras{version}", **chain.notes},
    )


def _without_first_reshape(architecture: Architecture) -> tuple[Architecture, dict[str, str]]:
    """Return a model that is fed what its first Reshape makes, and a note of that."""
    shape, steps = architecture.shape, architecture.steps
    first = steps[0] if steps else None
    if not isinstance(first, KerasLayer) or first.class_name != "Reshape" or shape is None:
        return architecture, {}
    sizes = [n for n in shape if n is not None]
    target = [n for n in first.get("target_shape", []) if type(n) is int]
    rest = math.prod(sizes) // max(math.prod(n for n in target if n != -1), 1)
    made = [rest if n == -1 else n for n in target]
    whole = len(sizes) == len(shape) and math.prod(made) == math.prod(sizes)
    if not whole or len(made) != 2 or min(made) < 1 or made == sizes:
        return architecture, {}
    note = f"layer {first.name!r} makes {made} of the {sizes} that Keras is fed; feed {made} here"
    return Architecture(tuple(made), steps[1:]), {"reshaped": note}


def _input(path: Path, architecture: Architecture) -> tuple[Signal, int | None]:
    """Return what the model is fed, from its input shape and its first layer."""
    layers = list(layers_of(architecture.steps))
    if not layers:
        raise UnsupportedModel(f"{path}: the model has no layers; want at least one")
    shape = architecture.shape
    first = next((layer for layer in layers if layer.class_name != "Dropout"), layers[0])
    if first.class_name == "Embedding":
        if shape is not None and len(shape) != 1:
            raise _misfed(first, shape, "want token ids, keras.Input((time,))")
        rows = first.get("input_dim", 0)
        if type(rows) is not int or not 0 < rows < 2**31:
            raise first.refuse(f"input_dim is {rows}", "want how many tokens there are")
        return Signal("tokens", rows), shape[0] if shape else None
    if shape is None:
        raise UnsupportedModel(
            f"{path}: the model does not say its input's shape; call it once, or give it"
            " keras.Input((time, features)), and save it again"
        )
    if len(shape) != 2 or shape[1] is None:
        raise _misfed(first, shape, "want a sequence, keras.Input((time, features))")
    return Signal("sequence", shape[1]), shape[0]


def _misfed(first: KerasLayer, shape: tuple[int | None, ...], accepted: str) -> UnsupportedModel:
    return first.refuse(f"the model is fed {list(shape)} behind the batch", accepted)
