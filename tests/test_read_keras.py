"""Keras files, against Keras 3 itself and against files and answers of Keras 2.15 and 3.15."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import keras_zoo as zoo
from campaign import seeds
from edge_lstm import float_reference
from edge_lstm.arrays import F32
from edge_lstm.cells import Bidirectional, Lstm, Parallel
from edge_lstm.errors import (
    MissingTool,
)
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.book import LAYERS
from edge_lstm_converters import read
from edge_lstm_converters.keras_weights import LAYER_KEYS, RECURRENT
from edge_lstm_converters.layer_config import read_config
from edge_lstm_converters.read_keras import read_keras
from keras_files import FILES, MODELS, WEIGHTS, rewritten, save_suggestion

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
@pytest.mark.parametrize("seed", seeds(100))
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
    "steps beside the state of one layer": lambda layers, x: layers.Concatenate()(
        [
            layers.GlobalAveragePooling1D()(
                (y := layers.GRU(3, return_sequences=True, return_state=True)(x))[0]
            ),
            y[1],
        ]
    ),
    "the state where the output is it": lambda layers, x: layers.Add()(
        layers.SimpleRNN(3, return_state=True)(x)
    ),
    "the final states of both directions": lambda layers, x: layers.Concatenate()(
        layers.Bidirectional(layers.LSTM(2, return_sequences=True, return_state=True))(x)[1::2]
    ),
    "the final states of both directions multiplied": lambda layers, x: layers.Multiply()(
        layers.Bidirectional(layers.GRU(2, return_state=True), merge_mode=None)(x)[2:]
    ),
    "the backward state alone": lambda layers, x: layers.Bidirectional(
        layers.LSTM(2, return_state=True)
    )(x)[3],
    "the state of a layer that runs backward": lambda layers, x: layers.Concatenate()(
        [
            layers.GlobalMaxPooling1D()(
                (
                    y := layers.LSTM(
                        3, return_sequences=True, return_state=True, go_backwards=True
                    )(x)
                )[0]
            ),
            y[1],
        ]
    ),
    "a cell in an RNN": lambda layers, x: layers.RNN(layers.GRUCell(3, reset_after=False))(x),
    "a stack of models": lambda layers, x: zoo.keras().Sequential(
        [layers.Dense(3), zoo.keras().Sequential([layers.LSTM(2), layers.BatchNormalization()])]
    )(x),
    "the same class twice": lambda layers, x: layers.LSTM(2)(
        layers.LSTM(3, return_sequences=True)(layers.Dense(4)(layers.Dense(2)(x)))
    ),
    "steps cut off": lambda layers, x: layers.LSTM(2)(layers.Cropping1D((2, 1))(x)),
    "steps added, and nothing": lambda layers, x: layers.LSTM(2)(
        layers.Identity()(layers.Conv1D(3, 4)(layers.ZeroPadding1D((3, 1))(x)))
    ),
    "the last step": lambda layers, x: layers.GRU(2, return_sequences=True)(x)[:, -1, :],
    "the first step of both directions": lambda layers, x: layers.Bidirectional(
        layers.GRU(2, return_sequences=True)
    )(x)[:, 0],
    "a step from the end": lambda layers, x: layers.GRU(2, return_sequences=True)(x)[:, -3],
    "some steps": lambda layers, x: layers.LSTM(2)(x[:, 2:-1]),
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


def adapted(layers: Any) -> Any:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2, 3, (20, zoo.TIME, 4)).astype(np.float32))
    return layer


NORMALIZED: dict[str, Callable[[Any], list[Any]]] = {
    "adapted": lambda layers: [adapted(layers)],
    "given": lambda layers: [layers.Normalization(mean=[1.0, 2, 3, 4], variance=[2.0, 1, 3, 1])],
    "inverted": lambda layers: [layers.Normalization(mean=1.0, variance=0.25, invert=True)],
    "rescaled": lambda layers: [layers.Rescaling(1 / 127.5, -1)],
    "each rescaled": lambda layers: [layers.Rescaling([1.0, 2, 3, 4], [0.0, 1, 0, 1])],
}


@needs_keras
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", NORMALIZED)
def test_what_normalizes_the_input_is_a_scale(name: str, suffix: str, tmp_path: Path) -> None:
    package, layers = zoo.keras(), zoo.keras().layers
    entry = package.Input((zoo.TIME, 4))
    model = package.Sequential([entry, *NORMALIZED[name](layers), layers.LSTM(3)])
    spec = read_keras(zoo.save(model, tmp_path / f"model{suffix}"))
    assert_computes_the_same(model, spec, 0)
    assert [layer.type_name for layer in spec.layers] == ["scale", "lstm", "laststep"]


@needs_keras
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("fed", "target"), [((12,), (-1, 2)), ((6, 2, 1), (6, 2)), ((3, 4), (6, 2)), ((5,), (5, 1))]
)
def test_a_model_that_starts_with_a_reshape_is_fed_what_it_makes(
    fed: tuple[int, ...], target: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    package, layers = zoo.keras(), zoo.keras().layers
    model = package.Sequential([package.Input(fed), layers.Reshape(target), layers.GRU(3)])
    zoo.randomize(model, np.random.default_rng(0))
    spec = read_keras(zoo.save(model, tmp_path / f"model{suffix}"))
    x = np.random.default_rng(0).standard_normal((4, *fed)).astype(np.float32)
    assert_close(float_reference.run(spec, x.reshape(4, *target)), zoo.answer(model, x))
    assert (spec.time_steps, spec.input.size) == x.reshape(4, *target).shape[1:]
    assert f"of the {list(fed)} that Keras is fed" in spec.source["reshaped"]


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
def test_final_states_behind_a_mask_are_those_of_the_last_valid_step(tmp_path: Path) -> None:
    package, layers = zoo.keras(), zoo.keras().layers
    entry = package.Input((zoo.TIME,), dtype="int32")
    x = layers.Embedding(11, 3, mask_zero=True)(entry)
    y, ahead, back = layers.Bidirectional(layers.GRU(4, return_sequences=True, return_state=True))(
        x
    )
    top, state = layers.SimpleRNN(2, return_sequences=True, return_state=True)(y)
    ends = [layers.GlobalAveragePooling1D()(top), state]
    model = package.Model(entry, layers.Concatenate()([ahead, back, layers.Add()(ends)]))
    zoo.randomize(model, np.random.default_rng(0))
    model.masked = True
    assert_computes_the_same(model, read_keras(zoo.save(model, tmp_path / "model.keras")), 0)


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
    layers.write_text(LAYERS, encoding="utf8")
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


def test_textgenrnn_computes_what_keras_computes(tmp_path: Path) -> None:
    path, config = textgenrnn(), tmp_path / "layers.toml"
    config.write_text(LAYERS, encoding="utf8")
    with np.load(MODELS / "keras2_textgenrnn.npz") as kept:
        found = float_reference.run(read_keras(path, config), kept["x"])
        # Keras in float64: 3e-8, for the file holds it as float32. On these random letters Keras
        # in float32, 2.15 and 3.15 alike, is off from both by up to 6e-4 at the 40th step.
        assert np.abs(found[:, -1] - kept["y"]).max() <= 1e-6


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
