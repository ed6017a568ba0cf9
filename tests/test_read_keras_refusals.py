"""Keras files that are refused, damaged or hostile: one line each, nothing run."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edge_lstm.errors import (
    MissingTool,
    ModelError,
    UnreadableModel,
    UnsupportedModel,
    UsageError,
)
from edge_lstm_converters.read_keras import read_keras
from edge_lstm_converters.rules import sentence
from edge_lstm_converters.rules_keras import COMMON, RULES
from keras_files import FILES, MODELS, WEIGHTS, layer_of, rewritten

# What is refused ---------------------------------------------------------------------------------


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
    "not_quantized": (
        setting("answer", dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}),
        "is quantized already",
    ),
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
    (function,) = {r for rules in (COMMON, *RULES.values()) for r in rules if r.__name__ == rule}
    assert str(info.value).startswith(f"{path}: layer ")
    assert str(info.value).endswith(sentence(function))
    assert "\n" not in str(info.value)


# Of what only functional models do: tested on one below.
OF_STATES = {"no_cell_state_output", "takes_steps"}


def test_every_rule_is_broken_once() -> None:
    names = {rule.__name__ for rules in (COMMON, *RULES.values()) for rule in rules}
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


TENSOR = {"class_name": "__keras_tensor__", "config": {"keras_history": ["residual", 0, 0]}}
SLICE = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}
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
    "a cell state of two directions": (
        lambda c: (
            layer_of(c, "ahead").update(class_name="Bidirectional"),
            layer_of(c, "ahead")["config"].update(
                layer={"class_name": "LSTM", "config": {"name": "one"}}
            ),
            calling("join", [[["ahead", 0, 2, {}], ["back", 0, 0, {}]]])(c),
        )[0],
        "its output 2, a state, is used; Of what return_state=True adds, only the hidden state",
    ),
    "features taken": (
        lambda c: (
            becoming("back", "GetItem")(c),
            calling("back", [{"args": [TENSOR, [SLICE, SLICE, 1]], "kwargs": {}}])(c),
        )[0],
        r"takes \[\(None, None, None\), \(None, None, None\), 1\]; Of x",
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
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "[]"


def test_the_file_is_closed_again() -> None:
    """On Windows an open file cannot be replaced; h5py keeps those it was not told to close."""
    before = h5py.h5f.get_obj_count()
    read_keras(MODELS / "keras2_chain.h5")
    assert h5py.h5f.get_obj_count() == before
