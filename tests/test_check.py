"""``convert --check``: every framework runs what our readers have read, and is believed."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import cli, float_reference
from edge_lstm.arrays import Array
from edge_lstm.cells import Dense, Embedding, Steps
from edge_lstm.errors import MismatchError, MissingTool, UsageError
from edge_lstm.samples import Samples
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_converters import check as checking
from edge_lstm_converters import read
from edge_lstm_converters.check import (
    Framework,
    NotCheckedError,
    check,
    check_inputs,
    least_steps,
    tolerance,
)
from edge_lstm_converters.check_worker import NotTheSameShapeError, canonical, fitted, laid_out

os.environ.setdefault("KERAS_BACKEND", "torch")

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "tests" / "models"
WEATHER = ROOT / "benchmarks" / "edge_lstm_benchmarks" / "models" / "weather"
STACKED = MODELS / "stacked.pt"
LAYERS = MODELS / "stacked_layers.toml"
PLANTED = Framework("numpy", "planted_framework", "pip install numpy")
FILES = {
    "onnxruntime": (MODELS / "stacked_dynamo.onnx", None),
    "torch": (STACKED, LAYERS),
    "keras": (MODELS / "keras3_chain.keras", None),
}


def needs(package: str) -> None:
    pytest.importorskip(package, reason=f"{package} not found: pip install {package}")


def spec_of(path: Path, layers: Path | None = None) -> ModelSpec:
    spec = read(path, layers=layers)
    assert isinstance(spec, ModelSpec)
    return spec


def wrong(spec: ModelSpec) -> ModelSpec:
    """Return a model whose last Dense is another one."""
    last = max(k for k, layer in enumerate(spec.layers) if isinstance(layer, Dense))
    dense = spec.layers[last]
    assert isinstance(dense, Dense)
    changed = np.arange(len(dense.bias), 0, -1, dtype=np.float32)  # a softmax sees no constant
    layers = (
        *spec.layers[:last],
        replace(dense, bias=dense.bias + changed),
        *spec.layers[last + 1 :],
    )
    return replace(spec, layers=layers)


@pytest.mark.parametrize("package", FILES)
def test_a_framework_confirms_what_was_read_and_denies_what_was_not(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(package)
    path, layers = FILES[package]
    spec = spec_of(path, layers)
    answers: list[Any] = []
    run_framework = checking._run_framework

    def run_once(*given: Any) -> Any:
        """Keep the answer: what was read does not change it, and a start takes seconds."""
        if not answers:
            answers.append(run_framework(*given))
        return answers[0]

    monkeypatch.setattr(checking, "_run_framework", run_once)
    found = check(path, spec, None, layers)
    assert found["runtime"] == package
    assert found["version"]
    assert found["max_abs_error"] <= found["tolerance"] < 1e-3
    assert found["inputs"]["from"] == "random"
    with pytest.raises(MismatchError, match=rf"{path.name}: {package} .*--no-check"):
        check(path, wrong(spec), None, layers)


def run_here(path: Path, spec: ModelSpec, module: Any) -> None:
    """Check a model without a process of its own, which takes some seconds to import PyTorch."""
    job = {"source": spec.source, "kind": spec.output.kind, "size": spec.output.size}
    runner = module.open_model(path, job | {"layers": str(path.with_name("layers.toml"))})
    x = fitted(check_inputs(spec), runner.rows, runner.time_steps)
    rows = runner.rows or len(x)
    y = np.concatenate([runner.run(x[k : k + rows]) for k in range(0, len(x), rows)])
    want = float_reference.run(spec, x)
    assert y.shape == want.shape
    assert np.abs(y - want).max() <= tolerance(spec, x, want)
    assert np.abs(want).max() > 1e-3


def modules() -> dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[Any, ...], Any]]:
    """Return modules by name: what they do, their parts, example inputs, what is dynamic."""
    import torch
    from torch import nn
    from torch.export import Dim

    x = torch.randn(3, 6, 4)
    ids = torch.randint(0, 9, (2, 5))
    state = torch.zeros(1, 3, 5)
    lstm = nn.LSTM(4, 5, batch_first=True)
    open_axes = {"inputs": ({0: Dim("batch", min=2, max=64)},)}
    return {
        "open sizes": (
            lambda m, x: m.fc(m.lstm(x)[0].reshape(-1, 5)).reshape(x.shape[0], x.shape[1], 2),
            {"lstm": lstm, "fc": nn.Linear(5, 2)},
            (x,),
            open_axes,
        ),
        "first states made in the module": (
            lambda m, x: m.lstm(x, (torch.zeros(1, 3, 5), torch.zeros(1, 3, 5)))[0],
            {"lstm": lstm},
            (x,),
            None,
        ),
        "states fed": (
            lambda m, x, h, c: m.lstm(x, (h, c)),
            {"lstm": lstm},
            (x, state, state.clone()),
            None,
        ),
        "time first, both final states": (
            lambda m, x: torch.cat([m.gru(x)[1][-2], m.gru(x)[1][-1]], -1),
            {"gru": nn.GRU(4, 5, 2, bidirectional=True)},
            (torch.randn(6, 3, 4),),
            None,
        ),
        "embedding, in place, joined": (
            lambda m, x: m.fc(m.rnn(m.table(x))[0].relu_().flatten(1)),
            {
                "table": nn.Embedding(9, 4),
                "rnn": nn.RNN(4, 3, batch_first=True),
                "fc": nn.Linear(15, 2),
            },
            (ids,),
            None,
        ),
    }


@pytest.mark.parametrize("name", [
    "open sizes", "first states made in the module", "states fed",
    "time first, both final states", "embedding, in place, joined",
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*were assigned during export")  # of torch's own weights
def test_a_pt2_runs_in_torch_s_operators(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    from edge_lstm_converters import check_torch

    forward, parts, inputs, dynamic = modules()[name]

    class Module(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            for word, part in parts.items():
                setattr(self, word, part)

        def forward(self, *inputs: Any) -> Any:
            return forward(self, *inputs)

    program = torch.export.export(Module().eval(), inputs, dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "m.pt2")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("torch.export.load can run code of the file")

    monkeypatch.setattr(torch.export, "load", forbidden)
    run_here(tmp_path / "m.pt2", spec_of(tmp_path / "m.pt2"), check_torch)


def test_an_axis_of_one_element_that_means_nothing_is_fed(tmp_path: Path) -> None:
    needs("onnxruntime")
    needs("onnx")
    from edge_lstm_converters import check_onnx
    from onnx_graphs import graph_file

    nodes = """
    a = Constant <value_ints = [0]> () s = Squeeze (x, a) b = Constant <value_ints = [1]> ()
    t = Unsqueeze (s, b) y = LSTM <hidden_size = 2> (t, W, R)"""
    path = graph_file(tmp_path / "m.onnx", nodes, inputs="float[1, 9, 3] x")
    spec = spec_of(path)
    assert spec.source["input_layout"].startswith("input axis 0 1, time 9")
    run_here(path, spec, check_onnx)


@pytest.mark.parametrize("whole", [True, False], ids=["from end to end", "inside"])
def test_onnxruntime_in_16_bits_is_no_measure(whole: bool, tmp_path: Path) -> None:
    needs("onnxruntime")
    needs("onnx")
    from edge_lstm_converters import check_onnx
    from onnx_graphs import graph_file, small_lstm

    halves = {name: values.astype(np.float16) for name, values in small_lstm().items()}
    lstm = "LSTM <hidden_size = 2> (h, W, R, B)"
    nodes = f"h = Identity (x) y = {lstm}"
    if not whole:
        nodes = f"h = Cast <to = 10> (x) g = {lstm} y = Cast <to = 1> (g)"
    kind = "float16" if whole else "float"
    path = graph_file(
        tmp_path / "m.onnx",
        nodes,
        halves,
        inputs=f"{kind}[time, batch, 3] x",
        outputs=f"{kind}[time, 1, batch, 2] y",
    )
    spec = spec_of(path)
    with pytest.raises(ValueError, match="computes in 16 bits"):
        check_onnx.open_model(path, {"source": spec.source})


@pytest.mark.filterwarnings("ignore:.*were assigned during export")  # of torch's own weights
def test_a_module_in_memory_is_run_beside_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    from edge_lstm_converters.read_torch import read_module
    from edge_lstm_converters.torch_graph import graph_to_spec

    class Net(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 5)
            self.fc = torch.nn.Linear(5, 2)

        def forward(self, x: Any, state: Any) -> Any:
            y, state = self.lstm(x, state)
            return self.fc(y), state

    net = Net()
    state = torch.randn(1, 3, 5)
    inputs = (torch.randn(6, 3, 4), (state, state.clone()))
    spec = read_module(net, inputs)
    assert net.training
    monkeypatch.setattr(
        "edge_lstm_converters.read_torch_export.graph_to_spec",
        lambda *given: wrong(graph_to_spec(*given)),
    )
    with pytest.raises(MismatchError, match=r"Net: torch .* gives other values .*check=False"):
        read_module(net, inputs)
    assert net.training
    assert read_module(net, inputs, check=False).output == spec.output


CONFIGS = {
    "windows": """
[[layers]]
type = "conv1d"
weights = "conv"
stride = 2
padding = 1
groups = 2
activation = "relu"
[[layers]]
type = "batch_norm"
weights = "bn"
[[layers]]
type = "max_pool"
size = 2
[[layers]]
type = "gru"
weights = "gru"
return_sequences = true
[[layers]]
type = "average_pool"
size = 2
stride = 1
padding = 1
[[layers]]
type = "layer_norm"
weights = "ln"
[[layers]]
type = "global_average_pool"
[[layers]]
type = "dense"
weights = "fc"
activation = "softmax"
""",
    "final states": """
[[layers]]
type = "lstm"
weights = "lstm"
return_sequences = false
final_states = true
[[layers]]
type = "activation"
kind = "relu6"
[[layers]]
type = "dropout"
""",
    "an rnn": """
[[layers]]
type = "rnn"
weights = "rnn"
nonlinearity = "relu"
return_sequences = true
[[layers]]
type = "first_step"
""",
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_state_dict_runs_in_torch_s_modules(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    from torch import nn

    from edge_lstm_converters import check_torch

    torch.manual_seed(1)
    norm = nn.BatchNorm1d(6)
    norm(torch.randn(8, 6, 5))  # moves its mean and variance
    parts: dict[str, dict[str, Any]] = {
        "windows": {
            "conv": nn.Conv1d(4, 6, 3, groups=2),
            "bn": norm,
            "gru": nn.GRU(6, 5, bidirectional=True),
            "ln": nn.LayerNorm(10),
            "fc": nn.Linear(10, 3),
        },
        "final states": {"lstm": nn.LSTM(4, 5, 2, bidirectional=True, proj_size=3)},
        "an rnn": {"rnn": nn.RNN(4, 5, bias=False, nonlinearity="relu")},
    }
    (tmp_path / "layers.toml").write_text(CONFIGS[name])
    torch.save(nn.ModuleDict(parts[name]).state_dict(), tmp_path / "m.pt")
    spec = spec_of(tmp_path / "m.pt", tmp_path / "layers.toml")
    run_here(tmp_path / "m.pt", spec, check_torch)


def keras_models() -> dict[str, Callable[[Any], Any]]:
    """Return models by name, from the Keras package."""
    return {
        "masked tokens": lambda k: [
            k.Input((None,)),
            k.layers.Embedding(9, 4, mask_zero=True),
            k.layers.Bidirectional(k.layers.GRU(3)),
            k.layers.Dense(2, activation="softmax"),
        ],
        "stateful, two rows a call": lambda k: [
            k.Input((5, 3), batch_size=2),
            k.layers.LSTM(4, stateful=True, return_sequences=True),
            k.layers.TimeDistributed(k.layers.Dense(2)),
        ],
        "convolution, joined": lambda k: [
            k.Input((8, 3)),
            k.layers.Conv1D(4, 3, activation="relu"),
            k.layers.MaxPooling1D(2),
            k.layers.SimpleRNN(4, return_sequences=True),
            k.layers.Flatten(),
            k.layers.Dense(2),
        ],
        "reshaped": lambda k: [k.Input((12,)), k.layers.Reshape((-1, 3)), k.layers.LSTM(4)],
    }


@pytest.mark.parametrize(
    "name", ["masked tokens", "stateful, two rows a call", "convolution, joined", "reshaped"]
)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore")  # Keras's of its own old formats
def test_a_keras_model_runs_in_keras(name: str, suffix: str, tmp_path: Path) -> None:
    needs("torch")
    keras = pytest.importorskip("keras", reason="Keras not found: pip install keras torch")
    from edge_lstm_converters import check_keras

    keras.utils.set_random_seed(3)
    keras.Sequential(keras_models()[name](keras)).save(tmp_path / f"m{suffix}")
    run_here(tmp_path / f"m{suffix}", spec_of(tmp_path / f"m{suffix}"), check_keras)


def as_keras_2(config: Any) -> Any:
    """Return a configuration as Keras 2 wrote it: class names alone, and time_major."""
    if isinstance(config, list):
        return [as_keras_2(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config["config"]["name"]
    new = ("module", "registered_name", "build_config", "compile_config")
    old = {key: as_keras_2(value) for key, value in config.items() if key not in new}
    return old | ({"time_major": False} if "recurrent_initializer" in old else {})


@pytest.mark.filterwarnings("ignore")  # Keras's of its own old formats
def test_a_file_of_keras_2_runs_in_today_s_keras_unless_it_means_another_function(
    tmp_path: Path,
) -> None:
    needs("torch")
    keras = pytest.importorskip("keras", reason="Keras not found: pip install keras torch")
    import h5py

    from edge_lstm_converters import check_keras

    keras.utils.set_random_seed(4)
    path = tmp_path / "m.h5"
    layers = keras.layers
    both = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
    keras.Sequential([keras.Input((5, 3)), both, layers.SimpleRNN(2)]).save(path)
    with h5py.File(path, "r+") as file:
        config = as_keras_2(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
    run_here(path, spec_of(path), check_keras)
    old = MODELS / "keras2_chain.h5"
    with pytest.raises(ValueError, match="the hard_sigmoid of the Keras that saved it"):
        run_here(old, spec_of(old), check_keras)


def test_keras_is_not_told_to_import_what_is_not_its_own() -> None:
    from edge_lstm_converters.check_keras import foreign_names

    own = {"module": "keras.layers", "class_name": "LSTM", "config": {"activation": "tanh"}}
    function = {"module": "builtins", "class_name": "function", "config": "relu"}
    assert list(foreign_names([own, {"activation": function, "module": None}])) == []
    other = {"layers": [own | {"config": {"a": {"module": "os", "class_name": "system"}}}]}
    assert list(foreign_names(other)) == ["os.system"]
    assert list(foreign_names([function | {"config": "eval"}])) == ["eval"]


# The near side


def test_inputs_come_from_the_calibration_data_without_their_padding() -> None:
    rng = np.random.default_rng(0)
    spec = spec_of(WEATHER / "model.onnx")
    size = spec.input.size
    x = rng.normal(0, 3, (50, 40, size)).astype(np.float32)
    lengths = np.full(50, 7)
    x[:, 7:] = np.nan
    x[np.arange(50)[:, None], 7 + np.arange(33)] = 0.0
    chosen = check_inputs(spec, Samples(x, lengths))
    assert chosen.shape == (4, 7, size)
    assert all(any((row == known[:7]).all() for known in x) for row in chosen)
    with pytest.raises(UsageError, match=r"calib\.npz: shape"):
        check_inputs(spec, Samples(x[:, :, :1], where="calib.npz"))


def test_inputs_of_a_masked_model_hold_nothing_to_mask() -> None:
    table = Embedding("table", np.eye(3, dtype=np.float32))
    tokens = ModelSpec("m", Signal("tokens", 3), (table,), source={"mask": "mask_zero"})
    given = np.zeros((5, 4), np.int64)
    assert (check_inputs(tokens, Samples(given)) == 1).all()
    assert check_inputs(tokens).min() == 1
    floats = replace(spec_of(WEATHER / "model.onnx"), source={"mask": "Masking"})
    x = np.zeros((5, 4, floats.input.size), np.float32)
    x[0] = 2.0
    drawn = check_inputs(floats, Samples(x))
    assert ((drawn > 0) & (drawn < 2)).all()


def test_a_model_with_long_windows_gets_long_inputs() -> None:
    spec = spec_of(STACKED, LAYERS)
    assert least_steps(replace(spec, layers=(Steps("later", 50), *spec.layers))) == 64


def test_the_tolerance_follows_what_the_model_makes_of_noise() -> None:
    for gain in (1.0, 1e4):
        dense = Dense("d", np.array([[gain, -gain]], np.float32), np.zeros(1, np.float32))
        spec = ModelSpec("m", Signal("sequence", 2), (dense,))
        x = np.array([[[1.0, 1.000001]]])
        # Two numbers near 1, each known to 2^-20, subtracted.
        allowed = tolerance(spec, x, float_reference.run(spec, x))
        assert allowed <= gain * 2 * 2**-20 + 1e-5 * gain * 1e-6


def test_axes_are_laid_out_as_the_file_has_them_and_back() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    assert laid_out(x, ["time", "batch", "features"]).shape == (3, 2, 4)
    assert laid_out(x[:1], ["time", "features"]).shape == (3, 4)
    assert laid_out(x[:1], ["unit", "time", "features"]).shape == (1, 3, 4)
    with pytest.raises(ValueError, match="reshape"):
        laid_out(x, ["time", "features"])
    job = {"kind": "sequence", "size": 4}
    for words in (["time", "batch", "features"], ["features", "time", "batch"]):
        order = [("batch", "time", "features").index(word) for word in words]
        assert (canonical(x.transpose(order), words, 2, job) == x).all()
    joined = x.transpose(1, 0, 2).reshape(6, 4)
    assert (canonical(joined, ["time*batch", "features"], 2, job) == x).all()
    parts = x.reshape(2, 3, 2, 2).transpose(1, 2, 0, 3)  # ONNX: [time, directions, batch, hidden]
    words = ["time", "direction", "batch", "features of a direction"]
    assert (canonical(parts, words, 2, job) == x).all()
    with pytest.raises(NotTheSameShapeError, match=r"gives shape \[2, 3, 4\] for 2 rows; want 5"):
        canonical(x, ["batch", "time", "features"], 2, job | {"size": 5})


def test_inputs_are_repeated_to_the_sizes_that_a_framework_takes() -> None:
    x = np.arange(6.0).reshape(2, 3)
    want: Array = np.array([[0, 1, 2, 0], [3, 4, 5, 3], [0, 1, 2, 0], [3, 4, 5, 3]])
    assert (fitted(x, 4, 4) == want).all()
    assert (fitted(x, None, 2) == x[:, :2]).all()
    assert (fitted(x, 1, None) == x).all()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hang", "numpy gave no answer in 2 s; its process was ended"),
        ("crash", "numpy ended with exit status 134"),
        ("complain", "numpy does not run it: cannot read vector"),
    ],
)
def test_a_framework_that_fails_is_one_line(
    word: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "FRAMEWORKS", {"pytorch state dict": PLANTED})
    monkeypatch.setattr(checking, "LIMIT_S", 2.0 if word == "hang" else 60.0)
    (tmp_path / "model").write_text(word)
    with pytest.raises(NotCheckedError, match=says) as info:
        check(tmp_path / "model", spec_of(STACKED, LAYERS))
    assert "\n" not in str(info.value)


def test_a_file_that_does_not_say_all_and_a_missing_package_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = spec_of(STACKED, LAYERS)
    with pytest.raises(NotCheckedError, match="keras weights does not say all"):
        check(STACKED, replace(spec, source={"format": "keras weights"}))
    monkeypatch.setattr(checking, "FRAMEWORKS", {"onnx": Framework("no_such", "m", "pip it")})
    with pytest.raises(MissingTool, match="no_such is not installed; pip it"):
        check(STACKED, replace(spec, source={"format": "onnx"}))


# The command


def convert(*arguments: object) -> int:
    return cli.run(["convert", *map(str, arguments)])


@pytest.fixture(autouse=True)
def tools() -> None:
    needs("typer")
    needs("onnx")


def test_the_manifest_says_how_far_the_framework_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("onnxruntime")
    data = ["--calib", WEATHER / "calibration.npz"]
    model = WEATHER / "model.onnx"
    assert convert(model, "-o", tmp_path, *data, "--to", "elstm", "--check", "--name", "w") == 0
    found = json.loads((tmp_path / "w.manifest.json").read_text())["check"]
    assert found["runtime"] == "onnxruntime"
    assert found["inputs"]["from"] == "calibration data"
    assert 0 < found["max_abs_error"] <= found["tolerance"] < 1e-4
    assert "check     onnxruntime" in capsys.readouterr().out
    assert convert(tmp_path / "w.elstm", "-o", tmp_path / "q", "--to", "elstm") == 0
    text = (tmp_path / "q" / "w.manifest.json").read_text()
    assert "the model is quantized" in json.loads(text)["check"]["skipped"]
    assert convert(model, "-o", tmp_path, *data, "--no-check", "--name", "w") == 0
    again = json.loads((tmp_path / "w.manifest.json").read_text())
    assert again["check"] == {"skipped": "--no-check was given"}


def test_a_model_that_was_read_wrongly_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("onnxruntime")
    from edge_lstm_converters import convert as converting

    def misread(path: Path, **_: object) -> ModelSpec:
        return wrong(spec_of(path))

    monkeypatch.setattr(converting, "read", misread)
    model = MODELS / "stacked_dynamo.onnx"
    assert convert(model, "-o", tmp_path / "out", "--quant", "float32") == 1
    error = capsys.readouterr().err
    assert "onnxruntime" in error
    assert "gives other values than the float reference, by up to" in error
    assert not (tmp_path / "out").exists()
    assert convert(model, "-o", tmp_path / "out", "--quant", "float32", "--no-check") == 0


@pytest.mark.parametrize(("package", "code"), [("no_such", 4), ("numpy", 2)])
def test_check_insists_or_is_an_error(
    package: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    planted = Framework(package, "planted_framework_that_is_not", "pip it")
    monkeypatch.setattr(checking, "FRAMEWORKS", {"onnx": planted})
    model = MODELS / "stacked_dynamo.onnx"
    arguments = [model, "-o", tmp_path / "out", "--quant", "float32", "--to", "tflite"]
    assert convert(*arguments, "--check") == code
    assert "--check is not possible" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert convert(*arguments) == 0
    manifest = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert package in manifest["check"]["skipped"]
