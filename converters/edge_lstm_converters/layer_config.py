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

A gru is written as an lstm is, an rnn too, with nonlinearity = "tanh" or "relu". A bidirectional
one that does not keep every step says which it keeps: final_states = true for the last state of
each direction, h_n; false for the last step of the output, output[:, -1].

The other types: embedding (weights), activation (kind), flatten (time_steps), dropout, last_step,
first_step, layer_norm and batch_norm (weights, epsilon), conv1d (weights, stride, padding,
dilation, groups, activation), max_pool and average_pool (size, stride, padding), global_max_pool,
global_average_pool.
Files of Keras weights have types and keys of their own, see ``keras_weights``.
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
from edge_lstm.cells import (
    Activation,
    Bidirectional,
    Conv1d,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalPool,
    LastStep,
    LayerNorm,
    PickStep,
    Pool1d,
)
from edge_lstm.cells.activation import KINDS
from edge_lstm.errors import MissingTool, UnsupportedModel, UsageError
from edge_lstm.spec import Layer, ModelSpec, Signal, identifier
from edge_lstm_converters.float_weights import as_float32, layer_name
from edge_lstm_converters.layouts import ungrouped
from edge_lstm_converters.torch_lstm import GATE_COUNTS, WEIGHT_NAME, torch_recurrent
from edge_lstm_converters.torch_walk import first_signal
from edge_lstm_converters.torch_window import batch_norm_scale

# Dense computes these itself; the others become a layer behind it.
FUSED: dict[str, Literal["relu", "relu6"]] = {"relu": "relu", "relu6": "relu6"}
DENSE_ACTIVATIONS = ("linear", *KINDS)
LARGEST_CONFIG = 2**20


class Key(NamedTuple):
    """What may stand at one key of a layer."""

    type: type
    required: bool = True
    accepted: tuple[str, ...] = ()


RECURRENT_KEYS = {
    "weights": Key(str),
    "return_sequences": Key(bool),
    "final_states": Key(bool, False),
}
POOL_KEYS = {"size": Key(int), "stride": Key(int, False), "padding": Key(int, False)}
LAYER_KEYS: dict[str, dict[str, Key]] = {
    "lstm": RECURRENT_KEYS,
    "gru": RECURRENT_KEYS,
    "rnn": {**RECURRENT_KEYS, "nonlinearity": Key(str, True, ("tanh", "relu"))},
    "dense": {"weights": Key(str), "activation": Key(str, False, DENSE_ACTIVATIONS)},
    "embedding": {"weights": Key(str)},
    "activation": {"kind": Key(str, True, KINDS)},
    "flatten": {"time_steps": Key(int, False)},
    "dropout": {},
    "last_step": {},
    "first_step": {},
    "layer_norm": {"weights": Key(str), "epsilon": Key(float, False)},
    "batch_norm": {"weights": Key(str), "epsilon": Key(float, False)},
    "conv1d": {
        "weights": Key(str),
        "stride": Key(int, False),
        "padding": Key(int, False),
        "dilation": Key(int, False),
        "groups": Key(int, False),
        "activation": Key(str, False, DENSE_ACTIVATIONS),
    },
    "max_pool": POOL_KEYS,
    "average_pool": POOL_KEYS,
    "global_max_pool": {},
    "global_average_pool": {},
}
TOP_KEYS: dict[str, type] = {
    "name": str,
    "time_steps": int,
    "state_dict": str,
    "ignore": list,
    "layers": list,
}
WORDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a point",
    list: "a list",
}


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


def read_config(
    path: Path,
    layer_keys: Mapping[str, Mapping[str, Key]] = LAYER_KEYS,
    recurrent: tuple[str, ...] = tuple(GATE_COUNTS),
) -> LayerConfig:
    """Read and check a layer configuration.

    Args:
        path: its file.
        layer_keys: the types of layers that the weights' format has, and their keys.
        recurrent: which of them are recurrent; a model has at least one.

    Raises:
        UsageError: the file cannot be read, or something in it is wrong.
        MissingTool: Python 3.10 without tomli.
    """
    table = parse_toml(path)
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
        _check_layer(path, number, layer, layer_keys)
    if not any(layer["type"] in recurrent for layer in layers):
        words = " or ".join(f'"{word}"' for word in recurrent)
        raise UsageError(f"{path}: no layer has type = {words}; want at least one")
    return LayerConfig(
        path, tuple(layers), table.get("name"), time_steps, table.get("state_dict"), tuple(ignore)
    )


def parse_toml(path: Path) -> dict[str, Any]:
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


def _check_layer(
    path: Path, number: int, layer: object, layer_keys: Mapping[str, Mapping[str, Key]]
) -> None:
    if not isinstance(layer, dict):
        raise UsageError(f"{path}: layer {number} is {layer!r}; want a [[layers]] table")
    kind = layer.get("type")
    if not isinstance(kind, str) or kind not in layer_keys:
        found = "type is missing" if kind is None else f"type = {kind!r}"
        raise UsageError(f"{path}: layer {number}: {found}; want one of {', '.join(layer_keys)}")
    where, keys = f"{path}: layer {number} ({kind})", layer_keys[kind]
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
        signal = first_signal(self.layers)
        assert signal is not None  # read_config wants a recurrent layer
        start = signal
        for number, layer in zip(self.numbers, self.layers, strict=True):
            try:
                signal = layer.output_signal(signal)
            except UnsupportedModel as error:
                raise UsageError(f"{self.config.path}: layer {number}: {error}") from error
        return start


def _add_recurrent(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    prefix, kind = layer["weights"], layer["type"]
    where = f"{builder.weights_path}: {prefix or kind}"
    weights = builder.under(number, prefix, WEIGHT_NAME.pattern)
    taken = [known.name for known in builder.layers]
    nonlinearity = layer.get("nonlinearity", "tanh")
    layers = list(torch_recurrent(where, prefix, weights, taken, kind, nonlinearity))
    last = layers[-1]
    final = layer.get("final_states")
    both = isinstance(last, Bidirectional)
    if final is not None and (not both or layer["return_sequences"]):
        raise UsageError(
            f"{builder.config.where(number)}: final_states is for a bidirectional layer with"
            " return_sequences = false; leave it out"
        )
    if isinstance(last, Bidirectional) and not layer["return_sequences"]:
        if final is None:
            raise UsageError(
                f"{builder.config.where(number)}: final_states is missing; want true for the last"
                " state of each direction (h_n), false for the last step of the output"
            )
        if final:
            layers[-1] = replace(last, final=True)
    builder.add(number, *layers)
    if not layer["return_sequences"] and not final:
        builder.add(number, LastStep(builder.name("last_step", "last_step")))


def _vector(
    builder: _Builder, number: int, prefix: str, found: Mapping[str, Array], word: str, size: int
) -> Array:
    values = found.get(word)
    if values is None or values.shape != (size,):
        shape = "is missing" if values is None else f"has shape {list(values.shape)}"
        raise UsageError(
            f"{builder.config.where(number)}: weights = {prefix!r}: its {word} {shape}; want"
            f" [{size}]"
        )
    return as_float32(f"{builder.weights_path}: {prefix}.{word}", values)


def _add_layer_norm(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    prefix = layer["weights"]
    found = builder.under(number, prefix, "weight|bias")
    size = next(iter(found.values())).size
    weight = _vector(builder, number, prefix, found, "weight", size)
    given = "bias" in found
    bias = _vector(builder, number, prefix, found, "bias", size) if given else np.zeros(size)
    name = builder.name(prefix, "layer_norm")
    epsilon = layer.get("epsilon", 1e-5)
    builder.add(number, LayerNorm(name, weight, bias.astype(np.float32), epsilon))


def _add_batch_norm(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    prefix = layer["weights"]
    words = ("weight", "bias", "running_mean", "running_var")
    found = builder.under(number, prefix, f"{'|'.join(words)}|num_batches_tracked")
    size = found["running_mean"].size if "running_mean" in found else 0
    if "weight" not in found and "bias" not in found:  # affine=False
        ones, zeros = np.ones(size, np.float32), np.zeros(size, np.float32)
        found = {"weight": ones, "bias": zeros, **found}
    values = [_vector(builder, number, prefix, found, word, size) for word in words]
    name = builder.name(prefix, "batch_norm")
    epsilon = layer.get("epsilon", 1e-5)
    builder.add(number, batch_norm_scale(name, values[0], values[1], values[2], values[3], epsilon))


def _add_conv1d(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    prefix = layer["weights"]
    found = builder.under(number, prefix, "weight|bias")
    weight = found.get("weight")
    where = builder.config.where(number)
    if weight is None or weight.ndim != 3:
        shape = "is missing" if weight is None else f"has shape {list(weight.shape)}"
        raise UsageError(
            f"{where}: weights = {prefix!r}: its weight {shape}; want [outputs, inputs, kernel], as"
            " torch.nn.Conv1d has"
        )
    groups, pad = layer.get("groups", 1), layer.get("padding", 0)
    if groups < 1 or len(weight) % groups:
        raise UsageError(f"{where}: groups = {groups}; want a divisor of {len(weight)} outputs")
    weights = ungrouped(as_float32(f"{builder.weights_path}: {prefix}.weight", weight), groups)
    bias = np.zeros(len(weights), np.float32)
    if "bias" in found:
        bias = _vector(builder, number, prefix, found, "bias", len(weights))
    name = builder.name(prefix, "conv1d")
    steps = layer.get("stride", 1), layer.get("dilation", 1)
    builder.add(number, Conv1d(name, weights, bias, *steps, (pad, pad)))
    kind = layer.get("activation", "linear")
    if kind != "linear":
        builder.add(number, Activation(builder.name(f"{name}_{kind}", kind), kind))


def _add_pool(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    word: str = layer["type"]
    kind: Literal["max", "average"] = "max" if word == "max_pool" else "average"
    pad, size = layer.get("padding", 0), layer["size"]
    stride = layer.get("stride", size)
    # PyTorch's average divides by the whole window.
    pool = Pool1d(builder.name(word, word), kind, size, stride, (pad, pad), kind == "average")
    builder.add(number, pool)


def _add_global_pool(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    word: str = layer["type"]
    kind: Literal["max", "average"] = "max" if word == "global_max_pool" else "average"
    builder.add(number, GlobalPool(builder.name(word, word), kind))


def _add_first_step(builder: _Builder, number: int, layer: Mapping[str, Any]) -> None:
    del layer
    builder.add(number, PickStep(builder.name("first_step", "first_step"), 0))


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
    "lstm": _add_recurrent,
    "gru": _add_recurrent,
    "rnn": _add_recurrent,
    "layer_norm": _add_layer_norm,
    "batch_norm": _add_batch_norm,
    "conv1d": _add_conv1d,
    "max_pool": _add_pool,
    "average_pool": _add_pool,
    "global_max_pool": _add_global_pool,
    "global_average_pool": _add_global_pool,
    "first_step": _add_first_step,
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
