"""A Keras model in Keras, for ``check``."""

from __future__ import annotations

import builtins
import importlib.util
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.check_worker import canonical
from edge_lstm_converters.keras_archive import open_keras

RECURRENT = ("LSTM", "GRU", "SimpleRNN")
BACKENDS = ("tensorflow", "torch", "jax")  # Keras's own choice comes first


def open_model(path: Path, job: Mapping[str, Any]) -> KerasRunner:
    """Return the model, ready to run."""
    return KerasRunner(path, job)


class KerasRunner:
    """A model that Keras has loaded; each run starts from its first states."""

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        file = open_keras(path)
        file.weights.close()
        for name in foreign_names(file.config):
            raise ValueError(f"its configuration names {name}, which is not Keras's")
        is_old = file.version is None or file.version[0] < 3
        if is_old and "hard_sigmoid" in json.dumps(file.config):
            raise ValueError("the hard_sigmoid of the Keras that saved it is not today's")
        if "KERAS_BACKEND" not in os.environ:
            there = [name for name in BACKENDS if importlib.util.find_spec(name) is not None]
            if not there:
                raise ValueError("Keras has no backend; pip install torch")
            os.environ["KERAS_BACKEND"] = there[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import keras
        self.keras = keras
        self.model = keras.models.load_model(
            path,
            custom_objects={name: _old_layer(keras, name) for name in RECURRENT}
            if is_old
            else None,
            compile=False,
            safe_mode=True,
        )
        self.version = str(keras.__version__)
        self.job = job
        for layer in self.model.layers:
            if layer.compute_dtype not in ("float32", "float64"):
                raise ValueError(f"layer {layer.name!r} computes in {layer.compute_dtype}")
        shape = self.model.input_shape
        shape = shape[0] if isinstance(shape[0], tuple | list) else shape
        self.rows, self.time_steps = shape[0], shape[1]
        # What the model's first Reshape makes is undone.
        self.shape = shape[1:] if "reshaped" in job["source"] else None
        if self.shape is not None:
            self.time_steps = None

    def run(self, x: Array) -> Array:
        """Return [rows, time, features] or [rows, features]."""
        for layer in self.model.layers:
            if getattr(layer, "stateful", False):
                layer.reset_states()
        dtype = np.int32 if np.issubdtype(x.dtype, np.integer) else np.float32
        x = x if self.shape is None else x.reshape(len(x), *self.shape)
        y = self.model(x.astype(dtype), training=False)
        y = y[0] if isinstance(y, list | tuple) and len(y) == 1 else y
        values = np.asarray(self.keras.ops.convert_to_numpy(y))
        words = ["batch", *["time"] * (values.ndim - 2), "features"]
        return canonical(values, words, len(x), self.job)


def _old_layer(keras: Any, name: str) -> Any:
    """Return a layer of today's Keras that takes what Keras 2 wrote into its files."""
    layer = getattr(keras.layers, name)

    def init(self: Any, *args: Any, time_major: bool = False, **options: Any) -> None:
        if time_major:
            raise ValueError("time_major=True is not in today's Keras")
        layer.__init__(self, *args, **options)

    # Bidirectional makes its second layer of the first one's configuration, by the module's name.
    return type(name, (layer,), {"__init__": init, "__module__": layer.__module__})


def foreign_names(config: object) -> Iterator[str]:
    """Yield what a configuration would have Keras import from elsewhere: no code comes from it."""
    if isinstance(config, Mapping):
        module = config.get("module")
        name = str(config.get("config" if module == "builtins" else "class_name"))
        if module == "builtins":  # how Keras writes the name of a function of its own
            if hasattr(builtins, name):
                yield name
        elif module is not None and str(module).partition(".")[0] != "keras":
            yield f"{module}.{name}"
        for value in config.values():
            yield from foreign_names(value)
    elif isinstance(config, list):
        for value in config:
            yield from foreign_names(value)
