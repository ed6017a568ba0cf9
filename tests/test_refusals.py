"""What cannot be converted rightly is refused by ``convert``: one line, exit 3, nothing written."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import cli
from edge_lstm_converters import READERS
from float_tflite_files import Builder
from keras_files import MODELS

ROOT = Path(__file__).parent.parent
WEATHER = ROOT / "benchmarks" / "edge_lstm_benchmarks" / "models" / "weather"
os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.fixture(autouse=True)
def tools() -> None:
    for package in ("typer", "onnx", "h5py"):
        pytest.importorskip(package, reason=f"{package} not found: pip install 'edge-lstm[tools]'")


def refused(model: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check that ``convert`` refuses a file, and return what it says."""
    folder = model.parent / "out"
    layers: list[str] = []
    if model.suffix in (".pt", ".pth", ".safetensors"):
        layers = ["--layers", str(WEATHER / "layers.toml")]
    before = sorted(model.parent.iterdir())
    capsys.readouterr()
    code = cli.run(["convert", str(model), *layers, "-o", str(folder), "--quant", "float32"])
    said = capsys.readouterr()
    assert (code, said.out) == (3, ""), said.err
    assert said.err.count("\n") == 1
    assert said.err.startswith("edge-lstm: ")
    assert model.name in said.err
    assert sorted(model.parent.iterdir()) == before
    return said.err


@pytest.mark.parametrize("suffix", [*READERS, ".elstm"])
def test_a_plain_text_file_is_no_model(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / f"notes{suffix}"
    model.write_text("These are notes on the LSTM that we trained.\n" * 40, encoding="utf-8")
    refused(model, capsys)


# ONNX


def onnx_file(path: Path, body: str, more: str = "") -> Path:
    import onnx
    from onnx import parser

    text = f"""<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1, "com.microsoft" : 1]>
    g (float[1, 5, 4] x) => (float[1, 5, 4] y) {more} {{ {body} }}"""
    onnx.save(parser.parse_model(text), path)
    return path


ATTENTION = """
k = Transpose <perm = [0, 2, 1]> (x)
scores = MatMul (x, k)
weights = Softmax <axis = -1> (scores)
y = MatMul (weights, x)
"""
LOOP = """
trips = Constant <value = int64 {5}> ()
go = Constant <value = bool {1}> ()
y = Loop (trips, go, x) <body = step (int64 i, bool c, float[1, 5, 4] v) =>
    (bool d, float[1, 5, 4] w) { w = Tanh (v)
    total = ReduceSum <keepdims = 0> (w)
    zero = Constant <value = float {0.0}> ()
    d = Greater (total, zero) }>
"""
ONNX = {
    "a transformer's attention": (ATTENTION, "(MatMul): multiplies computed values"),
    "a loop that its data end": (LOOP, "Loop is control flow"),
    "a layer of one's own": ("y = my.ops.Swirl (x)", "(Swirl): domain 'my.ops'"),
    "quantized": ("q, s, z = DynamicQuantizeLinear (x)\n y = DequantizeLinear (q, s, z)",
                  "DynamicQuantizeLinear is an operator of quantized models"),
}  # fmt: skip


@pytest.mark.parametrize("name", ONNX)
def test_an_onnx_file_is_refused_by_its_node(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, says = ONNX[name]
    assert says in refused(onnx_file(tmp_path / "m.onnx", body), capsys)


@pytest.mark.filterwarnings("ignore")  # onnxruntime's of its own
@pytest.mark.parametrize("how", ["dynamic", "QDQ", "QOperator"])
def test_a_file_that_onnxruntime_has_quantized_is_refused(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantization = pytest.importorskip(
        "onnxruntime.quantization", reason="onnxruntime not found: pip install onnxruntime"
    )
    source, target = WEATHER / "model.onnx", tmp_path / "m.onnx"
    if how == "dynamic":
        quantization.quantize_dynamic(source, target)
    else:
        with np.load(WEATHER / "calibration.npz") as file:
            rows = iter([{"x": file["x"][:2].astype(np.float32)}])

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined,unused-ignore]
            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(rows, None)

        kind = quantization.QuantFormat[how]
        quantization.quantize_static(source, target, Reader(), quant_format=kind)
    assert "is an operator of quantized models" in refused(target, capsys)


# PyTorch


@pytest.mark.parametrize("name", ["attention", "while loop", "condition"])
@pytest.mark.filterwarnings("ignore")  # torch.export's of its own
def test_a_pt2_is_refused_by_its_node(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    from torch._higher_order_ops.while_loop import while_loop

    class Module(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(8, 8, batch_first=True)
            self.block = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x):  # type: ignore[no-untyped-def]
            y = self.lstm(x)[0]
            if name == "attention":
                return self.block(y)
            if name == "condition":
                return torch.cond(y.sum() > 0, lambda v: v * 2, lambda v: v + 1, (y,))
            return while_loop(lambda v: v.abs().sum() > 1, lambda v: (v * 0.5,), (y,))[0]

    program = torch.export.export(Module().eval(), (torch.randn(2, 5, 8),))
    torch.export.save(program, tmp_path / "m.pt2")
    node = {
        "attention": "aten.scaled_dot_product_attention",
        "while loop": "higher_order.while_loop",
        "condition": "higher_order.cond",
    }[name]
    assert node in refused(tmp_path / "m.pt2", capsys)


@pytest.mark.filterwarnings("ignore")  # torch.jit's of its own end
def test_a_torchscript_file_is_told_what_to_save_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    lstm = torch.nn.LSTM(3, 4)
    torch.jit.trace(lstm, (torch.randn(5, 1, 3),)).save(str(tmp_path / "m.pt"))
    assert "a TorchScript archive; save the state dict with" in refused(tmp_path / "m.pt", capsys)


def test_a_pt2_of_an_older_pytorch_is_told_how_to_be_saved_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # PyTorch 2.0 to 2.7 wrote these names, all beside one another.
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", b"")
        archive.writestr("version", "5.1")
    said = refused(tmp_path / "m.pt2", capsys)
    assert "a .pt2 file of an older PyTorch; with a newer, save it again: torch.export.save" in said


# Keras


def keras_file(folder: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """Return a copy of a .keras file whose Dense was changed."""
    path = folder / "m.keras"
    with zipfile.ZipFile(MODELS / "keras3_chain.keras") as old, zipfile.ZipFile(path, "w") as new:
        config = json.loads(old.read("config.json"))
        entry = next(e for e in config["config"]["layers"] if e["class_name"] == "Dense")
        change(entry)
        new.writestr("metadata.json", old.read("metadata.json"))
        new.writestr("config.json", json.dumps(config))
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    return path


KERAS = {
    "a layer of one's own": (
        {"class_name": "Swirl", "module": "mine.layers", "registered_name": "mine>Swirl"},
        "'mine>Swirl' is a layer of your own, and its code is never run",
    ),
    "a transformer's attention": (
        {"class_name": "MultiHeadAttention", "module": "keras.layers"},
        "MultiHeadAttention has no counterpart here",
    ),
    "Python code": ({"class_name": "Lambda"}, "holds Python code, which is never run"),
}


@pytest.mark.parametrize("name", KERAS)
def test_a_keras_file_is_refused_by_its_layer(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, says = KERAS[name]
    assert says in refused(keras_file(tmp_path, lambda e: e.update(entry)), capsys)


# TFLite


def test_a_tflite_file_with_a_loop_or_a_custom_operator_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = ROOT / "tests" / "golden"
    loop = tmp_path / "loop.tflite"
    loop.write_bytes((golden / "float" / "gru_loop.tflite").read_bytes())
    assert (
        "3 subgraphs; a model must be one graph, without control flow (a GRU or RNN of Keras is"
        in refused(loop, capsys)
    )
    b = Builder(np.random.default_rng(0))
    x = b.tensor(1, 5, 3)
    (y,) = b.add("CUSTOM", [x], [b.tensor(1, 5, 3)])
    own = tmp_path / "own.tflite"
    own.write_bytes(b.file(x, y))
    assert "operator CUSTOM" in refused(own, capsys)
