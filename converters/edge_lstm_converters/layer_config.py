"""The layer configuration: what a state dict does not say, as a TOML file.

::

    name = "speaker"              # optional
    time_steps = 160              # optional: the one length the model takes
    state_dict = "model_state"    # optional: which, where a checkpoint holds several
    ignore = ["similarity_*"]     # weights that no layer uses

    [[layers]]
    type = "lstm"
    weights = "lstm"              # prefix: lstm.weight_ih_l0 and so on, all layers of the stack
    return_sequences = false      # true keeps every step, false the last step only

    [[layers]]
    type = "dense"
    weights = "fc"
    activation = "sigmoid"

The other types: embedding (weights), activation (kind), flatten (time_steps), dropout, last_step.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import Activation, Dense, Dropout, Embedding, Flatten, LastStep, Lstm
from edge_lstm.cells.activation import KINDS
from edge_lstm.errors import MissingTool, UnsupportedModel, UsageError
from edge_lstm.spec import Layer, ModelSpec, Signal, identifier
from edge_lstm_converters.float_weights import as_float32, layer_name
from edge_lstm_converters.torch_lstm import WEIGHT_NAME, torch_lstm

# Dense computes these itself; the others become a layer behind it.
FUSED: dict[str, Literal["relu", "relu6"]] = {"relu": "relu", "relu6": "relu6"}
DENSE_ACTIVATIONS = ("linear", *KINDS)
LARGEST_CONFIG = 2**20


class Key(NamedTuple):
    """What may stand at one key of a layer."""

    type: type
    required: bool = True
    accepted: tuple[str, ...] = ()


LAYER_KEYS: dict[str, dict[str, Key]] = {
    "lstm": {"weights": Key(str), "return_sequences": Key(bool)},
    "dense": {"weights": Key(str), "activation": Key(str, False, DENSE_ACTIVATIONS)},
    "embedding": {"weights": Key(str)},
    "activation": {"kind": Key(str, True, KINDS)},
    "flatten": {"time_steps": Key(int, False)},
    "dropout": {},
    "last_step": {},
}
TOP_KEYS: dict[str, type] = {
    "name": str,
    "time_steps": int,
    "state_dict": str,
    "ignore": list,
    "layers": list,
}
WORDS = {str: "text", bool: "true or false", int: "a whole number", list: "a list"}


@dataclass(frozen=True)
class LayerConfig:
    """A layer configuration that has been checked.

    Args:
        path: its file, for messages.
        layers: each with its type and keys, in order.
        name: of the model.
        time_steps: the one sequence length that the model takes, or None for any.
        state_dict: dotted path to the state dict inside the checkpoint.
        ignore: patterns of weights that no layer uses.
    """

    path: Path
    layers: tuple[Mapping[str, Any], ...]
    name: str | None = None
    time_steps: int | None = None
    state_dict: str | None = None
    ignore: tuple[str, ...] = ()

    def where(self, number: int) -> str:
        """Return file, number and type of a layer, for messages; numbers start at 1."""
        return f"{self.path}: layer {number} ({self.layers[number - 1]['type']})"


def read_config(path: Path) -> LayerConfig:
    """Read and check a layer configuration.

    Raises:
        UsageError: the file cannot be read, or something in it is wrong.
        MissingTool: Python 3.10 without tomli.
    """
    table = _parse_toml(path)
    for key, value in table.items():
        if key not in TOP_KEYS:
            raise UsageError(f"{path}: key {key!r}; want one of {', '.join(TOP_KEYS)}")
        _check_type(f"{path}: {key}", value, TOP_KEYS[key])
    time_steps = table.get("time_steps")
    if time_steps is not None and time_steps < 1:
        raise UsageError(f"{path}: time_steps = {time_steps}; want at least 1")
    ignore = table.get("ignore", [])
    if not all(isinstance(pattern, str) for pattern in ignore):
        raise UsageError(f'{path}: ignore = {ignore}; want texts, as ["similarity_*"]')
    layers = table.get("layers", [])
    if not layers:
        raise UsageError(f"{path}: has no [[layers]]; give one for each layer, in order")
    for number, layer in enumerate(layers, 1):
        _check_layer(path, number, layer)
    if not any(layer["type"] == "lstm" for layer in layers):
        raise UsageError(f'{path}: no layer has type = "lstm"; want at least one')
    return LayerConfig(
        path, tuple(layers), table.get("name"), time_steps, table.get("state_dict"), tuple(ignore)
    )


def _parse_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingTool(
                "a layer configuration needs tomli on Python 3.10: pip install tomli"
            ) from error
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_CONFIG + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: cannot be read: {reason}") from error
    if len(data) > LARGEST_CONFIG:
        raise UsageError(f"{path}: over {LARGEST_CONFIG:,} bytes; want a layer configuration")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {' '.join(str(error).split())}") from error


def _check_type(where: str, value: object, want: type) -> None:
    # A bool is an int to Python.
    if not isinstance(value, want) or (isinstance(value, bool) and want is not bool):
        raise UsageError(f"{where} = {value!r}; want {WORDS[want]}")


def _check_layer(path: Path, number: int, layer: object) -> None:
    if not isinstance(layer, dict):
        raise UsageError(f"{path}: layer {number} is {layer!r}; want a [[layers]] table")
    kind = layer.get("type")
    if not isinstance(kind, str) or kind not in LAYER_KEYS:
        found = "type is missing" if kind is None else f"type = {kind!r}"
        raise UsageError(f"{path}: layer {number}: {found}; want one of {', '.join(LAYER_KEYS)}")
    where, keys = f"{path}: layer {number} ({kind})", LAYER_KEYS[kind]
    for key, value in layer.items():
        if key == "type":
            continue
        if key not in keys:
            accepted = ", ".join(keys) or "no key but type"
            raise UsageError(f"{where}: key {key!r}; want {accepted}")
        _check_type(f"{where}: {key}", value, keys[key].type)
        if keys[key].accepted and value not in keys[key].accepted:
            raise UsageError(
                f"{where}: {key} = {value!r}; want one of {', '.join(keys[key].accepted)}"
            )
    for key, rule in keys.items():
        if rule.required and key not in layer:
            want = " or ".join(rule.accepted) or WORDS[rule.type]
            raise UsageError(f"{where}: {key} is missing; want {want}")


def build(
    config: LayerConfig, weights: Mapping[str, Array], weights_path: Path, name: str | None = None
) -> ModelSpec:
    """Return the model that ``config`` makes of ``weights``.

    Args:
        config: the layers.
        weights: a state dict's arrays by name.
        weights_path: their file, for messages.
        name: of the model; None: the configuration's, else made from ``weights_path``.

    Raises:
        UsageError: the configuration does not fit the weights.
        ModelError: a weight is damaged or of a layer that has no counterpart here.
    """
    builder = _Builder(config, weights, weights_path)
    for number, layer in enumerate(config.layers, 1):
        _BUILDERS[layer["type"]](builder, number, layer)
    builder.check_leftovers()
    return ModelSpec(
        name=name or config.name or identifier(weights_path.stem),
        input=builder.check_chain(),
        layers=tuple(builder.layers),
        time_steps=builder.time_steps,
        source={"format": "pytorch state dict", "layers": config.path.name},
    )


class _Builder:
    """Collects layers, and which weights they used."""

    def __init__(
        self, config: LayerConfig, weights: Mapping[str, Array], weights_path: Path
    ) -> None:
        self.config, self.weights, self.weights_path = config, weights, weights_path
        self.layers: list[Layer] = []
        self.numbers: list[int] = []
        self.used: set[str] = set()
        self.time_steps = config.time_steps

    def name(self, prefix: str, fallback: str) -> str:
        return layer_name(prefix, fallback, [layer.name for layer in self.layers])

    def add(self, number: int, *layers: Layer) -> None:
        self.layers += layers
        self.numbers += [number] * len(layers)

    def under(self, number: int, prefix: str, pattern: str) -> dict[str, Array]:
        """Return the weights under a prefix, by the rest of their names, and mark them used."""
        start = f"{prefix}." if prefix else ""
        found = {
            name.removeprefix(start): values
            for name, values in self.weights.items()
            if name.startswith(start) and re.fullmatch(pattern, name.removeprefix(start))
        }
        if not found:
            modules = list(dict.fromkeys(name.rpartition(".")[0] for name in self.weights))
            raise UsageError(
                f"{self.config.where(number)}: weights = {prefix!r}; {self.weights_path} has"
                f" {_listed(modules)}"
            )
        self.used.update(start + rest for rest in found)
        return found

    def check_leftovers(self) -> None:
        """Raise UsageError for weights that no layer used and ``ignore`` does not name."""
        patterns = self.config.ignore
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in self.weights):
                raise UsageError(f"{self.config.path}: ignore {pattern!r} matches no weight")
        left = [
            name
            for name in self.weights
            if name not in self.used and not any(fnmatch.fnmatchcase(name, p) for p in patterns)
        ]
        if left:
            raise UsageError(
                f"{self.config.path}: no layer uses {_listed(left)} of {self.weights_path}; add"
                " the layer, or the name to ignore = [...] if the model runs without it"
            )

    def check_chain(self) -> Signal:
        """Return the first signal, or raise UsageError where two layers do not fit."""
        first = next(v for v in self.layers if isinstance(v, Embedding | Lstm | Dense))
        if isinstance(first, Embedding):
            signal = Signal("tokens", len(first.table))
        elif isinstance(first, Lstm):
            signal = Signal("sequence", first.input_size)
        else:
            signal = Signal("sequence", int(first.weights.shape[1]))
        start = signal
        for number, layer in zip(self.numbers, self.layers, strict=True):
            try:
                signal = layer.output_signal(signal)
            except UnsupportedModel as error:
                raise UsageError(f"{self.config.path}: layer {number}: {error}") from error
        return start


def _add_lstm(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    prefix = layer["weights"]
    where = f"{builder.weights_path}: {prefix or 'lstm'}"
    weights = builder.under(number, prefix, WEIGHT_NAME.pattern)
    taken = [known.name for known in builder.layers]
    builder.add(number, *torch_lstm(where, prefix, weights, taken))
    if not layer["return_sequences"]:
        builder.add(number, LastStep(builder.name("last_step", "last_step")))


def _add_dense(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    prefix, kind = layer["weights"], layer.get("activation", "linear")
    found = builder.under(number, prefix, "weight|bias")
    where = f"{builder.weights_path}: {prefix or 'dense'}"
    matrix = found.get("weight")
    if matrix is None or matrix.ndim != 2:
        shape = "is missing" if matrix is None else f"has shape {list(matrix.shape)}"
        raise UsageError(
            f"{builder.config.where(number)}: weights = {prefix!r}: its weight {shape}; want"
            " [outputs, inputs], as torch.nn.Linear has"
        )
    weights = as_float32(f"{where}.weight", matrix)
    bias = found.get("bias", np.zeros(len(weights), np.float32))
    name = builder.name(prefix, "dense")
    dense = Dense(name, weights, as_float32(f"{where}.bias", bias))
    builder.add(number, replace(dense, activation=FUSED[kind]) if kind in FUSED else dense)
    if kind != "linear" and kind not in FUSED:
        builder.add(number, Activation(builder.name(f"{name}_{kind}", kind), kind))


def _add_embedding(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    prefix = layer["weights"]
    table = builder.under(number, prefix, "weight")["weight"]
    if table.ndim != 2:
        raise UsageError(
            f"{builder.config.where(number)}: weights = {prefix!r}: its weight has shape"
            f" {list(table.shape)}; want [tokens, features]"
        )
    values = as_float32(f"{builder.weights_path}: {prefix}.weight", table)
    builder.add(number, Embedding(builder.name(prefix, "embedding"), values))


def _add_activation(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    kind = layer["kind"]
    builder.add(number, Activation(builder.name(kind, kind), kind))


def _add_flatten(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    steps = layer.get("time_steps", builder.time_steps)
    where = builder.config.where(number)
    if steps is None:
        raise UsageError(
            f"{where}: time_steps is missing; want the sequence length of the training"
        )
    if steps < 1 or builder.time_steps not in (None, steps):
        raise UsageError(
            f"{where}: time_steps = {steps}; want"
            f" {'at least 1' if steps < 1 else f'{builder.time_steps}, as above'}"
        )
    builder.time_steps = steps
    builder.add(number, Flatten(builder.name("flatten", "flatten"), steps))


def _add_dropout(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    del layer
    builder.add(number, Dropout(builder.name("dropout", "dropout")))


def _add_last_step(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    del layer
    builder.add(number, LastStep(builder.name("last_step", "last_step")))


_BUILDERS: dict[str, Callable[[_Builder, int, Mapping[str, Any]], None]] = {
    "lstm": _add_lstm,
    "dense": _add_dense,
    "embedding": _add_embedding,
    "activation": _add_activation,
    "flatten": _add_flatten,
    "dropout": _add_dropout,
    "last_step": _add_last_step,
}


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
