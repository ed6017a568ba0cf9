"""Keras files of weights alone, with a layer configuration that says the rest.

::

    time_steps = 40               # optional: the one length the model takes
    ignore = ["attention", "out"] # layers with weights that the model runs without

    [[layers]]
    type = "embedding"
    weights = "embedding"         # the layer's group in the file

    [[layers]]
    type = "lstm"                 # or gru, simple_rnn
    weights = "rnn_1"
    return_sequences = true
    recurrent_activation = "sigmoid"   # Keras before 2.3: "hard_sigmoid", but for CuDNN layers

    [[layers]]
    type = "bidirectional"
    cell = "lstm"
    weights = "bidirectional"
    return_sequences = false
    recurrent_activation = "sigmoid"

    [[layers]]
    type = "dense"
    weights = "dense"
    activation = "softmax"

The other types: batch_normalization and layer_normalization (weights), activation (kind), flatten
(time_steps), dropout, last_step. A layer inside a model is ``weights = "model/layer"``; inside a
numbered file, ``"model/layers/layer"`` and ``"time_distributed/layer"``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.spec import ModelSpec, Signal, identifier
from edge_lstm_converters.keras_archive import (
    SWITCHES,
    VARIABLES,
    Half,
    KerasFile,
    KerasLayer,
)
from edge_lstm_converters.keras_graph import LAST_STEP, snake_case
from edge_lstm_converters.keras_layers import Chain
from edge_lstm_converters.keras_recurrent import ACCEPTED
from edge_lstm_converters.layer_config import Key, LayerConfig, read_config

FUNCTION = Key(str, False, ACCEPTED)
RECURRENT_KEYS = {
    "weights": Key(str),
    "return_sequences": Key(bool),
    "activation": FUNCTION,
    "go_backwards": Key(bool, False),
}
GATED_KEYS = {**RECURRENT_KEYS, "recurrent_activation": Key(str, True, ACCEPTED)}
LAYER_KEYS: dict[str, dict[str, Key]] = {
    "lstm": GATED_KEYS,
    "gru": {**GATED_KEYS, "reset_after": Key(bool, False)},
    "simple_rnn": RECURRENT_KEYS,
    "bidirectional": {
        "weights": Key(str),
        "cell": Key(str, True, ("lstm", "gru", "simple_rnn")),
        "return_sequences": Key(bool),
        "merge_mode": Key(str, False, ("concat", "sum", "mul", "ave")),
        "activation": FUNCTION,
        "recurrent_activation": Key(str, False, ACCEPTED),
        "reset_after": Key(bool, False),
    },
    "dense": {
        "weights": Key(str),
        "activation": Key(str, False, (*ACCEPTED, "softmax", "relu6")),
    },
    "embedding": {"weights": Key(str), "mask_zero": Key(bool, False)},
    "batch_normalization": {"weights": Key(str), "epsilon": Key(float, False)},
    "layer_normalization": {"weights": Key(str), "epsilon": Key(float, False)},
    "activation": {"kind": Key(str, True, (*ACCEPTED, "softmax", "relu6"))},
    "flatten": {"time_steps": Key(int, False)},
    "dropout": {},
    "last_step": {},
}
RECURRENT = ("lstm", "gru", "simple_rnn", "bidirectional")
CLASSES = {
    "lstm": "LSTM",
    "gru": "GRU",
    "simple_rnn": "SimpleRNN",
    "bidirectional": "Bidirectional",
    "dense": "Dense",
    "embedding": "Embedding",
    "batch_normalization": "BatchNormalization",
    "layer_normalization": "LayerNormalization",
    "activation": "Activation",
    "flatten": "Flatten",
    "dropout": "Dropout",
}
GATES = {4: "lstm", 3: "gru", 1: "simple_rnn"}


def read_weights(file: KerasFile, layers: Path | None, name: str | None) -> ModelSpec:
    """Return the model that a layer configuration makes of a file of weights.

    Args:
        file: open.
        layers: the configuration.
        name: of the model; None: the configuration's, else the file's.

    Raises:
        UnsupportedModel: ``layers`` is None; the message ends with a configuration.
        UsageError: the configuration is wrong, or does not fit the weights.
        ModelError: a weight is damaged or of a layer that has no counterpart here.
    """
    known = _groups(file)
    if layers is None:
        raise UnsupportedModel(
            f"{file.path}: holds weights without the layers' arguments; save the whole model with"
            " model.save('model.keras'), or save what follows as a .toml file, check it, and pass"
            f" it with --layers\n\n{_suggest(file, known)}"
        )
    config = read_config(Path(layers), LAYER_KEYS, RECURRENT)
    keras_layers = [
        _keras_layer(file, config, known, number, layer)
        for number, layer in enumerate(config.layers, 1)
    ]
    _check_leftovers(file, config, known)
    first = next(k for k in keras_layers if "weights" in k.config)
    signal = _first_signal(file, first)
    chain = Chain(file, signal, config.time_steps, [])
    for keras_layer in keras_layers:
        chain.step(keras_layer)
    return ModelSpec(
        name=name or config.name or identifier(file.path.stem),
        input=signal,
        layers=tuple(chain.layers),
        time_steps=config.time_steps,
        source={"format": "keras weights", "layers": config.path.name, **chain.notes},
    )


def _groups(file: KerasFile) -> list[str]:
    """Return the layers that have weights, as a configuration names them, in the file's order."""
    if not file.numbered:
        names = file.weights.texts(file.root, "layer_names") or []
        root = f"{file.root}/" if file.root else ""
        return [n for n in names if file.weights.texts(f"{root}{n}", "weight_names")]
    found = []
    for path in file.weights.datasets(file.root):
        inside = path.removeprefix(f"{file.root}/")
        group = re.sub(r"(/(forward|backward)_layer)?(/cell)?/vars/\d+$", "", inside)
        # A dropout's random numbers, and metrics, are no weights.
        if group != inside and "seed_generator" not in group:
            found.append(group)
    return list(dict.fromkeys(found))


def _keras_layer(
    file: KerasFile, config: LayerConfig, known: list[str], number: int, layer: Mapping[str, Any]
) -> KerasLayer:
    """Return a layer of a configuration as Keras would have written it."""
    kind = layer["type"]
    where = f"{file.path}: layer {number} ({kind})"
    if kind == "last_step":
        return KerasLayer(LAST_STEP, kind, {}, where)
    arguments = {key: value for key, value in layer.items() if key != "type"}
    if kind == "activation":
        arguments["activation"] = arguments.pop("kind")
    group = str(arguments.get("weights", ""))
    owner, _, inner = group.partition("/")
    if group and (owner if not file.numbered else group) not in known:
        raise UsageError(
            f"{config.where(number)}: weights = {group!r}; {file.path} has"
            f" {', '.join(map(repr, known[:12])) or 'none'}"
        )
    found = KerasLayer(
        CLASSES[kind], group.split("/")[-1] or kind, arguments, where, group, owner, inner
    )
    if kind == "bidirectional":
        return _bidirectional(file, config, number, found)
    if kind == "flatten" and layer.get("time_steps") not in (None, config.time_steps):
        raise UsageError(
            f"{config.where(number)}: time_steps = {layer['time_steps']}; give it at the top of the"
            f" file, where it is {config.time_steps}"
        )
    return _switched(file, config, number, found) if group else found


def _bidirectional(
    file: KerasFile, config: LayerConfig, number: int, layer: KerasLayer
) -> KerasLayer:
    cell = layer.config["cell"]
    if cell != "simple_rnn" and "recurrent_activation" not in layer.config:
        raise UsageError(
            f"{config.where(number)}: recurrent_activation is missing; want one of"
            f" {', '.join(ACCEPTED)}"
        )
    branches = []
    halves: tuple[Half, Half] = ("forward", "backward")
    for half in halves:
        branch = replace(
            layer,
            class_name=CLASSES[cell],
            config={**layer.config, "go_backwards": half == "backward"},
            group=f"{layer.group}/{half}_layer",
            half=half,
        )
        branches.append(_switched(file, config, number, branch))
    return replace(layer, branches=tuple(branches))


def _switched(file: KerasFile, config: LayerConfig, number: int, layer: KerasLayer) -> KerasLayer:
    """Return a layer with the arguments that its weights tell: biases, and a GRU's form."""
    names = file.present(layer)
    if names is None:
        raise UsageError(
            f"{config.where(number)}: weights = {layer.config['weights']!r}: these are not the"
            f" weights of a {layer.class_name}; want {', '.join(VARIABLES[layer.class_name])}"
        )
    switches = {SWITCHES[k]: k in names for k in VARIABLES[layer.class_name] if k in SWITCHES}
    layer = replace(layer, config={**switches, **layer.config})
    if layer.class_name != "GRU":
        return layer
    if "bias" in names:
        weights = file.variables(layer)
        two = weights["bias"].size == 2 * weights["kernel"].shape[-1]
        return replace(layer, config={"reset_after": two, **layer.config})
    if "reset_after" not in layer.config:
        raise UsageError(
            f"{config.where(number)}: reset_after is missing, and without biases the weights do"
            " not tell; want true or false"
        )
    return layer


def _first_signal(file: KerasFile, layer: KerasLayer) -> Signal:
    source = layer.branches[0] if layer.branches else layer
    weights = file.variables(source)
    if layer.class_name == "Embedding":
        return Signal("tokens", len(weights["embeddings"]))
    values = next(iter(weights.values()))
    return Signal("sequence", int(values.shape[0]))


def _check_leftovers(file: KerasFile, config: LayerConfig, known: list[str]) -> None:
    used = {str(layer["weights"]) for layer in config.layers if "weights" in layer}
    used |= {name.partition("/")[0] for name in used if not file.numbered}
    for pattern in config.ignore:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            raise UsageError(f"{config.path}: ignore {pattern!r} matches no layer of {file.path}")
    left = [
        name
        for name in known
        if name not in used and not any(fnmatch.fnmatchcase(name, p) for p in config.ignore)
    ]
    if left:
        raise UsageError(
            f"{config.path}: no layer uses {', '.join(map(repr, left[:8]))} of {file.path}; add the"
            " layer, or the name to ignore = [...] if the model runs without it"
        )


def _suggest(file: KerasFile, known: list[str]) -> str:
    """Return a configuration to be looked through and saved."""
    kinds = {group: _guess(file, group) for group in known}
    left = [f'"{group}"' for group, kind in kinds.items() if kind is None]
    lines = ["# in the order of their names: put them in the model's"] if file.numbered else []
    if left:
        lines.append(f"ignore = [{', '.join(left)}]   # have no counterpart here")
    for group, kind in kinds.items():
        if kind is None:
            continue
        outer, cell = kind.split()[0], kind.split()[-1]
        lines += ["", "[[layers]]", f'type = "{outer}"', f'weights = "{group}"']
        if outer == "bidirectional":
            lines.append(f'cell = "{cell}"')
        if outer in RECURRENT:
            lines.append("return_sequences = true   # false: the last step only")
            if cell != "simple_rnn":
                lines.append(f'recurrent_activation = "{_gate_function(file, group)}"')
        elif outer == "dense":
            lines.append('activation = "linear"   # or softmax, sigmoid, relu ...')
    return "\n".join(lines).strip()


def _gate_function(file: KerasFile, group: str) -> str:
    """Return the default of the Keras that saved a recurrent layer; CuDNN layers have no other."""
    if file.numbered or file.version is None or file.version >= (2, 3):
        return "sigmoid"
    root = f"{file.root}/{group}".strip("/")
    names = file.weights.texts(root, "weight_names") or []
    shapes = [file.weights.shape(f"{root}/{n}") for n in names]
    widths = [shape[-1] for shape in shapes if len(shape) == 2]
    cudnn = any(len(shape) == 1 and shape[0] in [2 * w for w in widths] for shape in shapes)
    return "sigmoid" if cudnn else "hard_sigmoid"


def _guess(file: KerasFile, group: str) -> str | None:
    if file.numbered:
        prefix = f"{file.root}/{group}"
        for kind in ("forward_layer/cell", "cell", ""):
            folder = f"{prefix}/{kind}/vars".replace("//", "/")
            if file.weights.names(folder):
                shapes = [file.weights.shape(f"{folder}/{n}") for n in file.weights.names(folder)]
                word = re.sub(r"_\d+$", "", group.split("/")[-1])
                return _kind_of(word, shapes, kind)
        return None
    root = f"{file.root}/{group}".strip("/")
    names = file.weights.texts(root, "weight_names") or []
    named = {n.split("/")[-1].partition(":")[0]: file.weights.shape(f"{root}/{n}") for n in names}
    if "recurrent_kernel" in named:
        shape = named["recurrent_kernel"]
        cell = GATES.get(shape[-1] // max(shape[0], 1)) if len(shape) == 2 else None
        return cell and ("bidirectional " + cell if len(names) > 3 else cell)
    for kind, wanted in (
        ("embedding", {"embeddings"}),
        ("batch_normalization", {"moving_mean", "moving_variance"}),
        ("layer_normalization", {"gamma", "beta"}),
    ):
        if wanted <= set(named):
            return kind
    return "dense" if len(named.get("kernel", ())) == 2 else None


def _kind_of(word: str, shapes: list[tuple[int, ...]], folder: str) -> str | None:
    """Return the type of a numbered layer, from its class's word and its first shapes."""
    if folder.endswith("cell"):
        square = shapes[1] if len(shapes) > 1 and len(shapes[1]) == 2 else (1, 0)
        cell = GATES.get(square[1] // max(square[0], 1))
        return cell and (f"bidirectional {cell}" if "forward" in folder else cell)
    words = {snake_case(CLASSES[kind]): kind for kind in LAYER_KEYS if kind in CLASSES}
    if word == "layer":  # of a TimeDistributed
        return "dense" if shapes and len(shapes[0]) == 2 else None
    return words.get(word)
