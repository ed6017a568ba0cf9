"""read_onnx on what exporters write, against torch and onnxruntime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import float_reference

onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
from edge_lstm_converters.read_onnx import read_onnx  # noqa: E402
from onnx_graphs import FLOAT32, MODELS, WEATHER, onnxruntime_says, relative_error  # noqa: E402


@pytest.mark.parametrize("name", [p.stem for p in sorted(MODELS.glob("*.onnx"))])
def test_sample_models_give_what_torch_gave(name: str) -> None:
    spec = read_onnx(MODELS / f"{name}.onnx")
    with np.load(MODELS / f"{name}.npz") as arrays:
        data = dict(arrays)
    state = {}
    if "h0" in data:
        state = {"lstm.hidden": data["h0"][0], "lstm.cell": data["c0"][0]}
    found = float_reference.run(spec, data["x"], state=state)
    assert relative_error(found, data["y"]) < FLOAT32
    if "hn" in data:
        assert relative_error(state["lstm.hidden"][None], data["hn"]) < FLOAT32
        assert relative_error(state["lstm.cell"][None], data["cn"]) < FLOAT32


def test_the_weather_model_gives_what_onnxruntime_gives() -> None:
    spec = read_onnx(WEATHER)
    with np.load(WEATHER.parent / "test.npz") as data:
        x = data["x"][:50].astype(np.float32)
    (want, *_) = onnxruntime_says(WEATHER, {_first_input(WEATHER): x})
    assert relative_error(float_reference.run(spec, x), want) < FLOAT32


def _first_input(path: Path) -> str:
    return str(onnx.load(path).graph.input[0].name)


# exporter: batch_first, layers, bias, state, end, embedding, head
TORCH_CASES = [
    ("dynamo", True, 1, True, False, "slice", False, "sigmoid"),
    ("dynamo", False, 2, False, False, "hidden", False, "softmax"),
    ("dynamo", True, 3, True, True, "all", False, "relu"),
    ("dynamo", False, 1, True, True, "all", True, "linear"),
    ("dynamo", True, 2, True, False, "hidden", True, "relu6"),
    ("dynamo", False, 3, False, False, "slice", True, "tanh"),
    ("torchscript", True, 1, True, False, "slice", False, "sigmoid"),
    ("torchscript", False, 2, False, False, "hidden", False, "softmax"),
    ("torchscript", True, 3, True, True, "all", False, "relu"),
    ("torchscript", False, 1, True, True, "all", True, "linear"),
    ("torchscript", True, 2, True, False, "hidden", True, "relu6"),
    ("torchscript", False, 3, False, True, "slice", True, "tanh"),
    ("torchscript", True, 1, False, False, "hidden", False, "flatten"),
    ("torchscript", True, 2, True, True, "slice", False, "linear"),
]


# The dynamo exporter takes seconds a model.
OPEN_AND_FIXED = [(c, True) for c in TORCH_CASES] + [(c, False) for c in TORCH_CASES[4:]]


@pytest.mark.parametrize(("case", "dynamic"), OPEN_AND_FIXED, ids=str)
def test_a_torch_export_gives_what_torch_gives(
    tmp_path: Path, case: tuple[Any, ...], dynamic: bool
) -> None:
    torch = pytest.importorskip("torch", reason="torch not found: pip install torch onnxscript")
    exporter, batch_first, layers, bias, with_state, end, embedded, head = case
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="onnxscript not found: pip install onnxscript")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    nn = torch.nn
    steps, rows, hidden = 6, 3, 5
    heads = {
        "sigmoid": nn.Sequential(nn.Linear(hidden, 2), nn.Sigmoid()),
        "softmax": nn.Sequential(nn.Linear(hidden, 4), nn.Softmax(dim=-1)),
        "relu": nn.Sequential(nn.Linear(hidden, 4), nn.ReLU(), nn.Linear(4, 2)),
        "relu6": nn.Sequential(nn.Linear(hidden, 4), nn.ReLU6(), nn.Dropout(), nn.Linear(4, 2)),
        "tanh": nn.Sequential(nn.Tanh(), nn.Linear(hidden, 3)),
        "linear": nn.Linear(hidden, 2, bias=False),
        "flatten": nn.Sequential(nn.Flatten(), nn.Linear(hidden, 2)),
    }

    class Net(nn.Module):  # type: ignore[name-defined]  # torch is Any to mypy
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 4)
            self.lstm = nn.LSTM(4, hidden, layers, batch_first=batch_first, bias=bias)
            self.head = heads[head]

        def forward(self, x: Any, *state: Any) -> Any:
            x = self.embedding(x) if embedded else x
            y, (h, c) = self.lstm(x, state) if state else self.lstm(x)
            if end == "slice":
                y = y[:, -1] if batch_first else y[-1]
            elif end == "hidden":
                y = h[-1]
            y = self.head(y)
            return (y, h, c) if state else y

    net = Net().eval()
    for parameter in net.lstm.parameters():
        parameter.data.mul_(3)  # as torch starts them, no gate leaves its straight part
    shape = (rows, steps) if batch_first else (steps, rows)
    x = torch.randint(0, 11, shape) if embedded else torch.randn(*shape, 4)
    feeds = {"x": x}
    if with_state:
        feeds |= {w: torch.zeros(layers, rows, hidden) for w in ("h", "c")}
    axes = {0: "batch", 1: "time"} if batch_first else {0: "time", 1: "batch"}
    opened = {"x": axes, **{w: {1: "batch"} for w in feeds if w != "x"}} if dynamic else {}
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            # Time stays fixed: torch.export 2.13 finds the length of the sample in the LSTM.
            given = opened or {key: {} for key in feeds}
            shapes = [{a: n for a, n in v.items() if n == "batch"} for v in given.values()]
            named = {"x": shapes[0]} | ({"state": tuple(shapes[1:])} if with_state else {})
            torch.onnx.export(
                net,
                tuple(feeds.values()),
                path,
                input_names=list(feeds),
                dynamo=True,
                verbose=False,
                external_data=False,
                dynamic_shapes=named if dynamic else None,
            )
        else:
            torch.onnx.export(
                net,
                tuple(feeds.values()),
                path,
                input_names=list(feeds),
                dynamo=False,
                dynamic_axes=opened,
            )
    with torch.no_grad():
        result = net(*feeds.values())
    want = (result[0] if with_state else result).numpy()
    given = x.numpy() if batch_first else x.numpy().swapaxes(0, 1)
    found = float_reference.run(read_onnx(path), given)
    if want.ndim == 3 and not batch_first:
        want = want.swapaxes(0, 1)
    assert relative_error(found, want) < FLOAT32


def test_the_lstm_of_silero_vad_gives_what_onnxruntime_gives(tmp_path: Path) -> None:
    from edge_lstm.errors import MissingTool
    from edge_lstm_benchmarks.datasets import silero_vad_onnx

    try:
        whole = silero_vad_onnx()
    except MissingTool as error:
        pytest.skip(str(error))
    path = tmp_path / "vad_lstm.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx.utils.extract_model(
            str(whole), str(path), ["/Transpose_output_0", "h", "c"], ["speech_probs", "hn", "cn"]
        )
    spec = read_onnx(path)
    assert [layer.name for layer in spec.layers] == ["lstm", "relu", "dense", "sigmoid"]
    features = np.random.default_rng(0).standard_normal((100, 1, 128)).astype(np.float32) * 3
    zeros = np.zeros((1, 1, 128), np.float32)
    feeds = {"/Transpose_output_0": features, "h": zeros, "c": zeros}
    want, *_ = onnxruntime_says(path, feeds)
    found = float_reference.run(spec, features.swapaxes(0, 1)).reshape(-1)
    # The issue asks for 1e-4 of real models.
    assert np.abs(found - want).max() < 1e-4
