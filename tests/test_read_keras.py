"""Keras files, against Keras 3 itself and against files and answers of Keras 2.15 and 3.15."""

import importlib.util
import json
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import keras_zoo as zoo
from edge_lstm import float_reference
from edge_lstm.arrays import F32
from edge_lstm.cells import Bidirectional, Lstm, Parallel
from edge_lstm.errors import (
    MissingTool,
    ModelError,
    UnreadableModel,
    UnsupportedModel,
    UsageError,
)
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import datasets
from edge_lstm_converters import read
from edge_lstm_converters.keras_weights import LAYER_KEYS, RECURRENT
from edge_lstm_converters.layer_config import read_config
from edge_lstm_converters.read_keras import read_keras
from edge_lstm_converters.rules import sentence
from edge_lstm_converters.rules_keras import RULES

MODELS = Path(__file__).parent / "models"
HAS_KERAS = importlib.util.find_spec("keras") and importlib.util.find_spec("torch")
needs_keras = pytest.mark.skipif(
    not HAS_KERAS, reason="keras and torch not found: pip install keras==3.15.1 torch"
)

# Keras computes in float32, the reference in float64. Over 320 models the largest difference was
# 2.5e-6 of the largest output: rounding of 2**-24 in each of some ten steps of a chain of cells.
RELATIVE = 1e-5


def assert_close(found: F32, want: F32) -> None:
    """Compare by the largest output, or 1e-3 where softmax and the like leave less."""
    assert found.shape == want.shape
    assert np.abs(found - want).max() <= RELATIVE * max(np.abs(want).max(), 1e-3)


def assert_computes_the_same(model: Any, spec: ModelSpec, seed: int) -> None:
    x, lengths = zoo.samples(model, np.random.default_rng(seed))
    want = zoo.answer(model, x)
    if want.ndim == 3 and lengths is not None:
        # Past a row's end Keras repeats the last step; here it is 0.
        valid = np.arange(want.shape[1])[None, :] < lengths[:, None]
        want = np.where(valid[:, :, None], want, np.float32(0))
    assert_close(float_reference.run(spec, x, lengths), want)


# Keras itself ------------------------------------------------------------------------------------


@needs_keras
@pytest.mark.parametrize("seed", range(100))
def test_a_random_model_computes_what_keras_computes(seed: int, tmp_path: Path) -> None:
    model = zoo.random_model(seed)
    # The whole model in one of both formats; each format gets every option over all seeds.
    path = zoo.save(model, tmp_path / ("model.keras" if seed % 2 else "model.h5"))
    assert_computes_the_same(model, read_keras(path), seed)


def _two_directions(layers: Any, x: Any, join: Any, every: bool) -> Any:
    ahead = layers.LSTM(3, return_sequences=every)(x)
    back = layers.LSTM(3, return_sequences=every, go_backwards=True)(x)
    return join([ahead, back])


GRAPHS: dict[str, Callable[[Any, Any], Any]] = {
    "two directions as two layers": lambda layers, x: _two_directions(
        layers, x, layers.Concatenate(), False
    ),
    "two directions added": lambda layers, x: _two_directions(layers, x, layers.Add(), False),
    "two directions by step": lambda layers, x: _two_directions(
        layers, x, layers.Concatenate(axis=2), True
    ),
    "two directions multiplied by step": lambda layers, x: _two_directions(
        layers, x, layers.Multiply(), True
    ),
    "both outputs of a Bidirectional joined": lambda layers, x: layers.Average()(
        layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode=None)(x)
    ),
    "a residual": lambda layers, x: layers.Add()([x, layers.GRU(4, return_sequences=True)(x)]),
    "a residual in a residual": lambda layers, x: layers.Add()(
        [
            x,
            layers.Concatenate()(
                [y := layers.Dense(2)(x), layers.SimpleRNN(2, return_sequences=True)(y)]
            ),
        ]
    ),
    "three branches": lambda layers, x: layers.Concatenate()(
        [layers.LSTM(2)(x), layers.GRU(3)(x), layers.GlobalMaxPooling1D()(x)]
    ),
    "the hidden state as output": lambda layers, x: layers.LSTM(
        3, return_sequences=True, return_state=True
    )(x)[1],
    "a GRU's steps beside its state": lambda layers, x: layers.GRU(
        3, return_sequences=True, return_state=True
    )(x)[0],
    "a cell in an RNN": lambda layers, x: layers.RNN(layers.GRUCell(3, reset_after=False))(x),
    "a stack of models": lambda layers, x: zoo.keras().Sequential(
        [layers.Dense(3), zoo.keras().Sequential([layers.LSTM(2), layers.BatchNormalization()])]
    )(x),
    "the same class twice": lambda layers, x: layers.LSTM(2)(
        layers.LSTM(3, return_sequences=True)(layers.Dense(4)(layers.Dense(2)(x)))
    ),
    "steps cut off": lambda layers, x: layers.LSTM(2)(layers.Cropping1D((2, 1))(x)),
    "reshapes that join steps": lambda layers, x: layers.Reshape((-1,))(
        layers.Reshape((zoo.TIME, 2))(layers.LSTM(2, return_sequences=True)(x))
    ),
}


@needs_keras
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_computes_what_keras_computes(name: str, suffix: str, tmp_path: Path) -> None:
    package = zoo.keras()
    entry = package.Input((zoo.TIME, 4))
    model = package.Model(entry, GRAPHS[name](package.layers, entry))
    zoo.randomize(model, np.random.default_rng(0))
    spec = read_keras(zoo.save(model, tmp_path / f"model{suffix}"))
    assert_computes_the_same(model, spec, 0)
    if name in ("two directions as two layers", "two directions added"):
        assert [type(layer) for layer in spec.layers] == [Bidirectional]


@needs_keras
def test_max_pooling_behind_a_mask_is_taken_where_padding_repeats(tmp_path: Path) -> None:
    package, layers = zoo.keras(), zoo.keras().layers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that the pooling ends the mask
        model = package.Sequential(
            [
                package.Input((zoo.TIME,), dtype="int32"),
                layers.Embedding(11, 3, mask_zero=True),
                layers.LSTM(4, return_sequences=True),
                layers.GlobalMaxPooling1D(),
            ]
        )
    zoo.randomize(model, np.random.default_rng(0))
    model.masked = True
    spec = read_keras(zoo.save(model, tmp_path / "model.keras"))
    assert_computes_the_same(model, spec, 0)
    assert "mask_zero=True: give lengths" in spec.source["mask"]


@needs_keras
def test_a_stateful_layer_is_noted(tmp_path: Path) -> None:
    package = zoo.keras()
    entry = package.Input(batch_shape=(4, zoo.TIME, 2))
    model = package.Model(entry, package.layers.LSTM(3, stateful=True)(entry))
    spec = read_keras(zoo.save(model, tmp_path / "model.keras"))
    assert_computes_the_same(model, spec, 0)
    assert "carries its state from call to call" in spec.source["stateful"]


@needs_keras
def test_weights_of_keras_3_alone_are_read_with_the_suggested_layers(tmp_path: Path) -> None:
    package, layers = zoo.keras(), zoo.keras().layers
    model = package.Sequential(
        [
            package.Input((zoo.TIME, 3)),
            layers.GRU(4, return_sequences=True),
            layers.TimeDistributed(layers.Dense(2)),
        ]
    )
    zoo.randomize(model, np.random.default_rng(0))
    path = zoo.save(model, tmp_path / "model.weights.h5")
    spec = read_keras(path, save_suggestion(path, tmp_path))
    assert_computes_the_same(model, spec, 0)


# Files of Keras 2.15 and 3.15 --------------------------------------------------------------------

FILES = ["keras2_chain.h5", "keras2_branches.keras", "keras3_chain.keras", "keras3_branches.h5"]
WEIGHTS = """
[[layers]]
type = "embedding"
weights = "embedding"

[[layers]]
type = "bidirectional"
cell = "gru"
weights = "bidirectional"
return_sequences = true
recurrent_activation = "sigmoid"

[[layers]]
type = "lstm"
weights = "lstm"
return_sequences = false
recurrent_activation = "{gate}"

[[layers]]
type = "dense"
weights = "dense"
"""


@pytest.mark.parametrize("name", FILES)
def test_a_file_computes_what_its_keras_computed(name: str) -> None:
    spec = read(MODELS / name)
    assert isinstance(spec, ModelSpec)
    with np.load(MODELS / f"{name.partition('.')[0]}.npz") as kept:
        assert_close(float_reference.run(spec, kept["x"]), kept["y"])
    assert spec.source["format"] == f"keras {name[5]}.15"


@pytest.mark.parametrize(
    ("name", "gate"),
    [("keras2_weights.h5", "hard_sigmoid"), ("keras3_weights.weights.h5", "sigmoid")],
)
def test_a_file_of_weights_computes_what_its_keras_computed(
    name: str, gate: str, tmp_path: Path
) -> None:
    layers = tmp_path / "layers.toml"
    layers.write_text(WEIGHTS.format(gate=gate), encoding="utf8")
    spec = read(MODELS / name, layers=layers)
    assert isinstance(spec, ModelSpec)
    with np.load(MODELS / f"{name.partition('.')[0]}.npz") as kept:
        assert_close(float_reference.run(spec, kept["x"]), kept["y"])


def test_hard_sigmoid_is_another_function_in_keras_3(tmp_path: Path) -> None:
    """Else the files above would prove nothing about which of both was taken."""
    path = rewritten(tmp_path, lambda config: None, version="2.15.0")
    with np.load(MODELS / "keras3_chain.npz") as kept:
        found = float_reference.run(read_keras(path), kept["x"])
        assert np.abs(found - kept["y"]).max() > 10 * RELATIVE


def test_branches_become_the_layers_that_they_are() -> None:
    spec = read_keras(MODELS / "keras2_branches.keras", name="other")
    types = [type(layer).__name__ for layer in spec.layers]
    assert types == ["Dense", "LayerNorm", "Parallel", "Bidirectional", "Dense", "Activation"]
    assert spec.name == "other"
    residual = spec.layers[2]
    assert isinstance(residual, Parallel)
    assert [len(branch) for branch in residual.branches] == [0, 1]


# textgenrnn --------------------------------------------------------------------------------------

TEXTGENRNN = """
ignore = ["attention", "output"]

[[layers]]
type = "embedding"
weights = "embedding"

[[layers]]
type = "lstm"
weights = "rnn_1"
return_sequences = true
recurrent_activation = "sigmoid"

[[layers]]
type = "lstm"
weights = "rnn_2"
return_sequences = true
recurrent_activation = "sigmoid"
"""


def textgenrnn() -> Path:
    """Return the weights of textgenrnn as its package ships them."""
    try:
        return datasets.textgenrnn_weights()
    except MissingTool as error:
        pytest.skip(str(error))


def keras_form(file: Any, name: str) -> list[F32]:
    """Return the weights of a CuDNN LSTM as ``keras.layers.LSTM`` takes them.

    This is what Keras 2's ``load_weights(by_name=True)`` does to them (_convert_rnn_weights).
    """
    kernel, recurrent, bias = (
        file[f"{name}/{name}/{part}:0"][()] for part in ("kernel", "recurrent_kernel", "bias")
    )
    return [
        np.hstack([p.T.reshape(p.shape, order="F") for p in np.hsplit(kernel, 4)]),
        np.hstack([p.T for p in np.hsplit(recurrent, 4)]),
        bias[:512] + bias[512:],
    ]


def test_textgenrnn_has_the_weights_that_keras_loads(tmp_path: Path) -> None:
    path, layers = textgenrnn(), tmp_path / "layers.toml"
    layers.write_text(TEXTGENRNN, encoding="utf8")
    spec = read_keras(path, layers)
    assert [type(layer).__name__ for layer in spec.layers] == ["Embedding", "Lstm", "Lstm"]
    with h5py.File(path) as file:
        for layer, name in zip(spec.layers[1:], ("rnn_1", "rnn_2"), strict=True):
            assert isinstance(layer, Lstm)
            kernel, recurrent, bias = keras_form(file, name)
            for k, gate in enumerate(layer.gates):
                columns = slice(128 * k, 128 * (k + 1))
                np.testing.assert_array_equal(gate.input_weights, kernel[:, columns].T)
                np.testing.assert_array_equal(gate.recurrent_weights, recurrent[:, columns].T)
                np.testing.assert_array_equal(gate.bias, bias[columns])


@needs_keras
def test_textgenrnn_computes_what_keras_computes(tmp_path: Path) -> None:
    path, config = textgenrnn(), tmp_path / "layers.toml"
    config.write_text(TEXTGENRNN, encoding="utf8")
    package, layers = zoo.keras(), zoo.keras().layers
    model = package.Sequential(
        [package.Input((40,), dtype="int32"), layers.Embedding(465, 100)]
        + [layers.LSTM(128, return_sequences=True) for _ in range(2)]
    )
    with h5py.File(path) as file:
        table = file["embedding/embedding/embeddings:0"][()]
        model.set_weights([table, *keras_form(file, "rnn_1"), *keras_form(file, "rnn_2")])
    x = np.random.default_rng(0).integers(0, 465, (2, 40)).astype(np.int32)
    found = float_reference.run(read_keras(path, config), x)
    # 1e-4 is what the project promises for real models; float32 in Keras gives about 1e-6.
    assert np.abs(found - zoo.answer(model, x)).max() <= 1e-4


def test_textgenrnn_without_layers_suggests_them(tmp_path: Path) -> None:
    path = textgenrnn()
    suggested = read_config(save_suggestion(path, tmp_path), LAYER_KEYS, RECURRENT)
    assert [layer["type"] for layer in suggested.layers] == [
        "embedding",
        "lstm",
        "lstm",
        "dense",
    ]
    assert suggested.ignore == ("attention",)
    assert suggested.layers[1]["recurrent_activation"] == "sigmoid"


# What is refused ---------------------------------------------------------------------------------


def save_suggestion(path: Path, folder: Path) -> Path:
    """Save the configuration at the end of the message about a file of weights alone."""
    with pytest.raises(
        UnsupportedModel, match="holds weights without the layers' argument"
    ) as info:
        read_keras(path)
    layers = folder / "suggested.toml"
    layers.write_text(str(info.value).partition("\n\n")[2], encoding="utf8")
    return layers


def rewritten(
    folder: Path,
    change: Callable[[dict[str, Any]], None],
    name: str = "keras3_chain.keras",
    version: str = "3.15.1",
) -> Path:
    """Copy a .keras file with another configuration."""
    path = folder / "changed.keras"
    with zipfile.ZipFile(MODELS / name) as old, zipfile.ZipFile(path, "w") as new:
        config = json.loads(old.read("config.json"))
        change(config)
        new.writestr("metadata.json", json.dumps({"keras_version": version}))
        new.writestr("config.json", json.dumps(config))
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    return path


def layer_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the entry of a layer in a model's configuration."""
    entries = [e for e in config["config"]["layers"] if e["config"]["name"] == name]
    assert len(entries) == 1
    entry: dict[str, Any] = entries[0]
    return entry


def setting(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of a layer's arguments."""
    return lambda config: layer_of(config, name)["config"].update(values)


def becoming(name: str, class_name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of a layer into one of another class."""

    def change(config: dict[str, Any]) -> None:
        entry = layer_of(config, name)
        entry["class_name"] = class_name
        entry["config"].update(values)

    return change


def inside(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of the layer inside a wrapper."""
    return lambda config: layer_of(config, name)["config"]["layer"]["config"].update(values)


# rule: (change of keras3_chain.keras that breaks it, what is found)
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "batch_major": (setting("gru", time_major=True), "time_major is true"),
    "features_last": (setting("pool", data_format="channels_first"), "data_format is"),
    "normalizes_features": (setting("norm", axis=1), "axis is 1"),
    "no_rms_scaling": (
        becoming("norm", "LayerNormalization", rms_scaling=True),
        "rms_scaling is true",
    ),
    "is_fed_tokens": (becoming("dropout", "Embedding"), "is fed sequence"),
    "is_fed_a_sequence": (becoming("answer", "GRU"), r"is fed vector \[2\]"),
    "directions_apart": (inside("both", go_backwards=True), "go_backwards is True in its forward"),
    "merged_directions": (setting("both", merge_mode="max"), "merge_mode is 'max'"),
    "directions_alike": (inside("both", return_sequences=False), "return_sequences differs"),
    "of_one_step": (
        lambda c: layer_of(c, "each_step")["config"]["layer"].update(class_name="Conv1D"),
        "it wraps Conv1D",
    ),
    "drops_the_axis": (
        becoming("dropout", "GlobalMaxPooling1D", keepdims=True),
        "keepdims is true",
    ),
    "no_mask": (
        lambda c: c["config"]["layers"].insert(
            1, {"class_name": "Masking", "config": {"name": "mask", "mask_value": 0.0}}
        ),
        "reads the steps that 'mask' masks",
    ),
    "max_over_repeats": (
        lambda c: (
            c["config"]["layers"].insert(
                6, {"class_name": "Masking", "config": {"name": "mask", "mask_value": 0.0}}
            ),
            becoming("dropout", "GlobalMaxPooling1D")(c),
        )[0],
        "reads the steps that 'mask' masks",
    ),
    "no_mask_on_reversed_steps": (
        lambda c: (
            c["config"]["layers"].insert(
                5, {"class_name": "Masking", "config": {"name": "mask", "mask_value": 0.0}}
            ),
            setting("old_gru", go_backwards=True)(c),
        )[0],
        "has the mask of 'mask'",
    ),
    "known_length": (
        lambda c: (
            layer_of(c, "frames")["config"].update(batch_shape=[None, None, 3]),
            becoming("dropout", "Flatten")(c),
        )[0],
        "the sequence may have any length",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_reader_refuses_by_rule(rule: str, tmp_path: Path) -> None:
    change, found = BROKEN[rule]
    path = rewritten(tmp_path, change)
    with pytest.raises(UnsupportedModel, match=found) as info:
        read_keras(path)
    (function,) = {r for rules in RULES.values() for r in rules if r.__name__ == rule}
    assert str(info.value).startswith(f"{path}: layer ")
    assert str(info.value).endswith(sentence(function))
    assert "\n" not in str(info.value)


# Of states, which a chain does not use: tested on functional models below.
OF_STATES = {"no_cell_state_output", "no_state_of_both_directions"}


def test_every_rule_is_broken_once() -> None:
    names = {rule.__name__ for rules in RULES.values() for rule in rules}
    assert names == set(BROKEN) | OF_STATES


def test_reader_accepts_the_file_that_the_refusals_change(tmp_path: Path) -> None:
    assert len(read_keras(rewritten(tmp_path, lambda config: None)).layers) > 8


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a lambda": (
        becoming("dropout", "Lambda", function={"class_name": "__lambda__", "config": "!"}),
        r"layer 'dropout' \(Lambda\): holds Python code, which is never run; want a layer of",
    ),
    "an unknown layer": (
        becoming("dropout", "Attention"),
        r"layer 'dropout' \(Attention\): Attention has no counterpart here; want LSTM, .*; cut",
    ),
    "a layer of one's own": (
        lambda c: layer_of(c, "dropout").update(registered_name="mine>Gate", module=None),
        "'mine>Gate' is a layer of your own, and its code is never run; want layers of Keras",
    ),
    "a layer of one's own module": (
        lambda c: layer_of(c, "dropout").update(module="mine.layers"),
        "'mine.layers.Dropout' is a layer of your own",
    ),
    "a model class of one's own": (
        lambda c: c.update(class_name="Mine", module=None),
        "the model is a class of its own, 'Mine'; want a Sequential or functional model",
    ),
    "an activation of one's own": (
        setting("answer", activation={"class_name": "function", "config": "mine"}),
        "activation is 'mine', a function of your own; want one of",
    ),
    "an unknown activation": (
        setting("old_gru", activation="swish"),
        r"layer 'old_gru' \(GRU\): activation is 'swish'; want one of linear, sigmoid, tanh",
    ),
    "a shape that does not fit": (
        setting("gru", units=5),
        r"units = 5; its recurrent_kernel has shape \[2, 6\]",
    ),
    "a vector": (
        lambda c: layer_of(c, "frames")["config"].update(batch_shape=[None, 3]),
        r"the model is fed \[3\] behind the batch; want a sequence, keras.Input\(\(time",
    ),
    "too few steps": (
        lambda c: layer_of(c, "frames")["config"].update(batch_shape=[None, 1, 3]),
        "is fed 1 steps; want at least 2, its window",
    ),
    "a reshape": (
        becoming("dropout", "Reshape", target_shape=[2, 6]),
        r"turns \[4, 3\] into \[2, 6\]; want the same shape",
    ),
    "a bounded ReLU": (
        becoming("dropout", "ReLU", max_value=1.0),
        "max_value 1.0, negative_slope 0.0, threshold 0.0; want max_value None or 6",
    ),
    "an unknown padding": (setting("conv", padding="full"), "padding is 'full'; want valid, same"),
    "two strides": (setting("conv", strides=[1, 2]), r"strides is \[1, 2\]; want one whole number"),
    "no layers": (
        lambda c: c["config"].update(layers=c["config"]["layers"][:1]),
        "the model has no layers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_reader_refuses(name: str, tmp_path: Path) -> None:
    change, found = REFUSED[name]
    with pytest.raises(UnsupportedModel, match=found) as info:
        read_keras(rewritten(tmp_path, change))
    assert "\n" not in str(info.value)


def calling(name: str, node: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of what a layer of a functional model reads."""
    return lambda config: layer_of(config, name).update(inbound_nodes=node)


FUNCTIONAL: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "two inputs": (
        lambda c: c["config"].update(input_layers=[["frames", 0, 0], ["rnn", 0, 0]]),
        r"the model has 2 inputs \('frames', 'rnn'\); want one: save keras.Model",
    ),
    "two outputs": (
        lambda c: c["config"].update(output_layers=[["answer", 0, 0], ["join", 0, 0]]),
        r"the model has 2 outputs \('answer', 'join'\)",
    ),
    "a cell state": (
        calling("join", [[["ahead", 0, 2, {}], ["back", 0, 0, {}]]]),
        "its output 2, a state, is used; Of what return_state=True adds, only the hidden state",
    ),
    "a layer called twice": (
        calling("rnn", [[["inner", 1, 0, {}]], [["inner", 1, 0, {}]]]),
        "is called 2 times; want once",
    ),
    "an initial state": (
        calling("back", [[["residual", 0, 0, {"initial_state": [["ahead", 0, 1]]}]]]),
        r"reads 2 tensors \('residual', 'ahead'\); want one, without initial_state",
    ),
    "a layer in training": (
        calling("back", [[["residual", 0, 0, {"training": True}]]]),
        "is called with training=True; want a model for inference",
    ),
    "a layer that reads itself": (calling("back", [[["back", 0, 0, {}]]]), "reads 'back'"),
    "layers that read each other": (
        calling("residual", [[["inner", 1, 0, {}], ["join", 0, 0, {}]]]),
        "nested too deep",
    ),
    "branches of different kinds": (
        lambda c: layer_of(c, "ahead")["config"].update(return_sequences=True),
        "joins",
    ),
}


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_reader_refuses_a_functional_model_with(name: str, tmp_path: Path) -> None:
    change, found = FUNCTIONAL[name]
    with pytest.raises(ModelError, match=found) as info:
        read_keras(rewritten(tmp_path, change, "keras2_branches.keras", "2.15.0"))
    assert "\n" not in str(info.value)


def test_hard_sigmoid_is_refused_in_weights_that_do_not_say_their_keras(tmp_path: Path) -> None:
    layers = tmp_path / "layers.toml"
    layers.write_text(WEIGHTS.format(gate="hard_sigmoid"), encoding="utf8")
    with pytest.raises(UnsupportedModel, match="the file does not say which Keras saved it; hard_"):
        read_keras(MODELS / "keras3_weights.weights.h5", layers)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('weights = "lstm"', 'weights = "gru"', r"weights = 'gru'; .* has 'embedding', 'bidirec"),
        ('weights = "dense"', 'weights = "lstm"', "these are not the weights of a Dense"),
        ('recurrent_activation = "sigmoid"', "", "recurrent_activation is missing; want one of"),
        ('type = "dense"', 'type = "linear"', "type = 'linear'; want one of lstm, gru, simple_rnn"),
        ('[[layers]]\ntype = "dense"\nweights = "dense"', "", "no layer uses 'dense'"),
        ('cell = "gru"', 'cell = "rnn"', "cell = 'rnn'; want one of lstm, gru, simple_rnn"),
    ],
)
def test_a_wrong_layer_configuration_is_told(
    old: str, new: str, found: str, tmp_path: Path
) -> None:
    layers = tmp_path / "layers.toml"
    text = WEIGHTS.format(gate="hard_sigmoid")
    assert old in text
    layers.write_text(text.replace(old, new), encoding="utf8")
    with pytest.raises(UsageError, match=found):
        read_keras(MODELS / "keras2_weights.h5", layers)


def test_layers_are_refused_beside_a_whole_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--layers is for files of weights alone"):
        read_keras(MODELS / "keras2_chain.h5", tmp_path / "layers.toml")


# Hostile files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, "keras2_weights.h5"])
def test_a_truncated_file_is_told(name: str, tmp_path: Path) -> None:
    data = (MODELS / name).read_bytes()
    path = tmp_path / f"cut{Path(name).suffix}"
    for size in [0, 1, 7, 100, 1000, *range(2000, len(data), 3001)]:
        path.write_bytes(data[:size])
        with pytest.raises(UnreadableModel) as info:
            read_keras(path)
        assert str(info.value).startswith(str(path))
        assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gives_a_model_or_one_line(name: str, tmp_path: Path) -> None:
    """Wherever bytes differ; most damage is in weights and stays unseen."""
    data, rng = (MODELS / name).read_bytes(), np.random.default_rng(0)
    path = tmp_path / f"damaged{Path(name).suffix}"
    told: list[str] = []
    for _ in range(60):
        damaged = bytearray(data)
        # Only what HDF5 itself checks with a sum of its own could crash its C code: none of it
        # did in some thousand trials.
        for place in rng.integers(0, len(data), 8):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_keras(path)
        except ModelError as error:
            told.append(str(error))
    assert told
    assert not any("\n" in message for message in told)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_text_file_is_told(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_text("an LSTM", encoding="utf8")
    with pytest.raises(UnreadableModel, match="not a whole"):
        read_keras(path)
    with pytest.raises(UnreadableModel, match="cannot be read: no such file"):
        read_keras(tmp_path / f"nowhere{suffix}")


def legacy(folder: Path, change: Callable[[Any], None]) -> Path:
    """Copy a legacy file and change it through h5py."""
    path = folder / "changed.h5"
    shutil.copy(MODELS / "keras2_chain.h5", path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


GRU = "model_weights/gru/gru"
KERNEL = f"{GRU}/gru_cell_1/kernel:0"


def kernel_of(file: Any) -> str:
    """Return the path of one kernel."""
    names = file["model_weights/gru"].attrs["weight_names"]
    return f"model_weights/gru/{next(n for n in names if '/kernel' in n)}"


def replaced(make: Callable[[Any, str], None]) -> Callable[[Any], None]:
    """Return a change that puts something else in the place of a kernel."""

    def change(file: Any) -> None:
        path = kernel_of(file)
        del file[path]
        make(file, path)

    return change


def link(make: Callable[[], Any]) -> Callable[[Any], None]:
    """Return a change of a kernel into a link."""

    def put(file: Any, path: str) -> None:
        file[path] = make()

    return replaced(put)


def nan(file: Any) -> None:
    """Put a NaN into a kernel."""
    file[kernel_of(file)][0, 0] = np.nan


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "an external link": (
        link(lambda: h5py.ExternalLink("other.h5", "/secret")),
        "is an external link; want the weights in the file itself",
    ),
    "a soft link": (link(lambda: h5py.SoftLink("/model_weights")), "is a soft link"),
    "a huge tensor": (
        replaced(lambda f, p: f.create_dataset(p, (2**20, 2**20), "f4", chunks=(64, 64))),
        r"shape \[1048576, 1048576\] of float32 needs 4,398,046,511,104 bytes; 0 are stored",
    ),
    "a huge compressed tensor": (
        replaced(
            lambda f, p: f.create_dataset(
                p, (2**20, 2**20), "f4", chunks=(64, 64), compression="gzip"
            )
        ),
        "1,099,511,627,776 compressed values; want at most 67,108,864",
    ),
    "values in another file": (
        replaced(
            lambda f, p: f.create_dataset(
                p, (3, 6), "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
            )
        ),
        "its values are in another file",
    ),
    "a missing tensor": (replaced(lambda f, p: None), "has no tensor 'model_weights/gru/"),
    "a NaN": (nan, r"layer 'gru' \(GRU\), kernel: 1 of 18 values are NaN or infinite; train"),
    "texts for weights": (
        replaced(lambda f, p: f.create_dataset(p, data=["a", "b"])),
        "object; want float32 weights",
    ),
    "integers for weights": (
        replaced(lambda f, p: f.create_dataset(p, data=np.zeros((3, 6), np.int8))),
        "int8; want float32 weights",
    ),
    "no architecture": (
        lambda f: f.attrs.__setitem__("model_config", "{"),
        "model_config is not JSON",
    ),
    "an architecture of nothing": (
        lambda f: f.attrs.__setitem__("model_config", "{}"),
        "the model's configuration is damaged",
    ),
    "an architecture without end": (
        lambda f: f.attrs.__setitem__("model_config", "[" * 20_000),
        "model_config is not JSON",
    ),
    "no weights": (lambda f: f.__delitem__("model_weights/gru"), "has no weights for it under"),
    "another layer's weights": (
        lambda f: f["model_weights/gru"].attrs.__setitem__("weight_names", ["gru/gamma:0"]),
        "has 'gamma' for it; want kernel, recurrent_kernel, bias",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_told(name: str, tmp_path: Path) -> None:
    change, found = HOSTILE[name]
    path = legacy(tmp_path, change)
    with pytest.raises(ModelError, match=found) as info:
        read_keras(path)
    assert "\n" not in str(info.value)


def test_an_archive_that_unpacks_to_much_more_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", " " * 2**24)
        archive.writestr("model.weights.h5", "")
    with pytest.raises(UnreadableModel, match=r"'config.json' claims 16,777,216 bytes"):
        read_keras(path)


@pytest.mark.parametrize("missing", ["metadata.json", "config.json", "model.weights.h5"])
def test_an_archive_without_a_member_is_told(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(MODELS / "keras3_chain.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name != missing:
                new.writestr(name, old.read(name))
    with pytest.raises(UnreadableModel, match=f"has 0 members '{missing}'"):
        read_keras(path)


def test_weights_of_another_layer_are_told(tmp_path: Path) -> None:
    """Keras 3 writes down whose weights each group holds."""

    def change(config: dict[str, Any]) -> None:
        layer_of(config, "answer")["config"]["name"] = "other"

    with pytest.raises(UnreadableModel, match="its weights belong to layer 'answer'"):
        read_keras(rewritten(tmp_path, change))


def test_an_hdf5_file_of_other_things_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(3)
    with pytest.raises(UnreadableModel, match="an HDF5 file without Keras layers"):
        read_keras(path)


def test_a_missing_h5py_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingTool, match="reading Keras files needs h5py: pip install h5py"):
        read_keras(MODELS / "keras2_chain.h5")


def test_neither_keras_nor_tensorflow_is_loaded() -> None:
    code = (
        "import sys; from pathlib import Path; from edge_lstm_converters import read;"
        f"read(Path({str(MODELS / 'keras3_chain.keras')!r}));"
        "print([m for m in ('keras', 'tensorflow', 'torch') if m in sys.modules])"
    )
    import subprocess

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "[]"


def test_the_file_is_closed_again() -> None:
    """On Windows an open file cannot be replaced; h5py keeps those it was not told to close."""
    before = h5py.h5f.get_obj_count()
    read_keras(MODELS / "keras2_chain.h5")
    assert h5py.h5f.get_obj_count() == before
