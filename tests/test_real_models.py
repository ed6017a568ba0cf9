"""Trained models as their packages ship them, through the command, against their own framework."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import cli, float_reference
from edge_lstm.arrays import F32
from edge_lstm.errors import MissingTool, UsageError
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import datasets
from edge_lstm_converters import read

pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")
onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
pytest.importorskip("onnxruntime", reason="onnxruntime not found: pip install onnxruntime")
from edge_lstm_converters.part_onnx import Part, cut, read_part  # noqa: E402
from onnx_graphs import onnxruntime_says  # noqa: E402

ROOT = Path(__file__).parent.parent
LAYERS = ROOT / "examples" / "layers"
REAL = 1e-4  # the bound for real models


def fetched(get: Callable[[], Path]) -> Path:
    try:
        return get()
    except MissingTool as error:
        pytest.skip(str(error))


def converted(model: Path, name: str, folder: Path, *options: str) -> ModelSpec:
    """Convert a file with the command, to ONNX in float; return what was read from it."""
    layers = LAYERS / f"{name}.toml"
    arguments = ["convert", str(model), "--layers", str(layers), "--name", name, *options]
    assert cli.run([*arguments, "--quant", "float32", "--to", "onnx", "-o", str(folder)]) == 0
    assert (folder / f"{name}.manifest.json").is_file()
    spec = read(model, layers=layers, name=name)
    assert isinstance(spec, ModelSpec)
    return spec


def assert_written_alike(spec: ModelSpec, x: F32, folder: Path) -> None:
    """Compare the file that the command wrote, in onnxruntime, with the float reference."""
    path = folder / f"{spec.name}.onnx"
    first = onnx.load(path).graph.input[0]
    want = float_reference.run(spec, x)
    (found, *_) = onnxruntime_says(path, {first.name: x})
    assert np.abs(found - want).max() <= REAL


def test_silero_vad_equals_the_whole_model_in_onnxruntime(tmp_path: Path) -> None:
    source = fetched(datasets.silero_vad_onnx)
    spec = converted(source, "silero_vad", tmp_path, "--check")
    assert [layer.type_name for layer in spec.layers] == ["lstm", "relu", "dense", "sigmoid"]
    check = json.loads((tmp_path / "silero_vad.manifest.json").read_text())["check"]
    assert check["runtime"] == "onnxruntime"
    assert check["max_abs_error"] <= REAL
    # The whole file hears sound; the part is fed what the convolutions make of it.
    whole = onnx.load(source)
    features = spec.source["part_start"]
    whole.graph.output.append(onnx.helper.make_tensor_value_info(features, 1, None))
    onnx.save(whole, tmp_path / "whole.onnx")
    sound = np.random.default_rng(0).standard_normal((100, 576)).astype(np.float32) * 0.1
    zero = np.zeros((1, 1, 128), np.float32)
    answers = onnxruntime_says(tmp_path / "whole.onnx", {"input": sound, "h": zero, "c": zero})
    found = float_reference.run(spec, answers[-1].swapaxes(0, 1))
    assert np.abs(found.reshape(-1) - answers[0].reshape(-1)).max() <= REAL


def test_resemblyzer_equals_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    source = fetched(datasets.resemblyzer_checkpoint)
    spec = converted(source, "resemblyzer", tmp_path, "--check")
    check = json.loads((tmp_path / "resemblyzer.manifest.json").read_text())["check"]
    assert check["runtime"] == "torch"
    assert check["max_abs_error"] <= REAL
    weights = torch.load(source, map_location="cpu", weights_only=True)["model_state"]
    lstm, fc = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    for prefix, module in (("lstm.", lstm), ("linear.", fc)):
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        module.load_state_dict(own)
    # Mel powers are positive and span decades.
    x = np.exp(np.random.default_rng(0).normal(-6, 3, (4, 160, 40))).astype(np.float32)
    with torch.no_grad():
        want = torch.relu(fc(lstm(torch.from_numpy(x))[1][0][-1])).numpy()
    assert np.abs(float_reference.run(spec, x) - want).max() <= REAL


def test_textgenrnn_equals_keras(tmp_path: Path) -> None:
    source = fetched(datasets.textgenrnn_weights)
    spec = converted(source, "textgenrnn", tmp_path)
    assert [layer.type_name for layer in spec.layers] == ["embedding", "lstm", "lstm"]
    with np.load(ROOT / "tests" / "models" / "keras2_textgenrnn.npz") as kept:
        found = float_reference.run(spec, kept["x"])
        assert np.abs(found[:, -1] - kept["y"]).max() <= REAL


def test_what_the_command_wrote_equals_the_reference(tmp_path: Path) -> None:
    spec = converted(fetched(datasets.silero_vad_onnx), "silero_vad", tmp_path)
    x = np.random.default_rng(1).standard_normal((2, 50, 128)).astype(np.float32)
    assert_written_alike(spec, x, tmp_path)


# A part of a graph.


def whole_graph(folder: Path) -> Path:
    """Return a file with an operator before its LSTM that no layer here computes."""
    make = onnx.helper.make_node
    rng = np.random.default_rng(0)
    weights = {"W": (1, 8, 3), "R": (1, 8, 2)}
    initializers = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    graph = onnx.helper.make_graph(
        [
            make("Sin", ["x"], ["features"], name="sine"),
            make("LSTM", ["features", "W", "R"], ["y", "", ""], hidden_size=2, name="lstm"),
            make("Squeeze", ["y", "one"], ["steps"]),
            make("Sin", ["steps"], ["out"], name="behind"),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [5, 2, 3])],
        [onnx.helper.make_tensor_value_info("out", 1, [5, 2, 2])],
        [*initializers, onnx.numpy_helper.from_array(np.array([1]), "one")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, folder / "whole.onnx")
    return folder / "whole.onnx"


def part_file(folder: Path, text: str) -> Path:
    (folder / "part.toml").write_text(text)
    return folder / "part.toml"


def test_a_part_of_a_graph_is_read_and_computes_what_the_whole_does(tmp_path: Path) -> None:
    path = whole_graph(tmp_path)
    layers = part_file(tmp_path, 'start = "features"\nend = ["steps"]\n')
    spec = read(path, layers=layers)
    assert isinstance(spec, ModelSpec)
    assert (spec.source["part_start"], spec.source["part_end"]) == ("features", "steps")
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    (want,) = onnxruntime_says(path, {"x": x})
    found = float_reference.run(spec, np.sin(x).swapaxes(0, 1)).swapaxes(0, 1)
    assert np.abs(np.sin(found) - want).max() <= 1e-6  # float32, sums of five products


def test_the_refusal_of_the_whole_names_the_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"node 'sine' \(Sin\): has no counterpart.* from 'feat"):
        read(whole_graph(tmp_path))


def test_the_refusal_of_the_head_names_the_part_in_front_of_it(tmp_path: Path) -> None:
    whole = onnx.load(whole_graph(tmp_path))
    del whole.graph.node[0]
    whole.graph.node[0].input[0] = "x"
    onnx.save(whole, tmp_path / "head.onnx")
    with pytest.raises(
        ValueError, match=r"node 'behind' \(Sin\): .* from 'x' to 'steps', as start"
    ):
        read(tmp_path / "head.onnx")
    layers = part_file(tmp_path, 'start = "x"\nend = ["steps"]\n')
    spec = read(tmp_path / "head.onnx", layers=layers)
    assert isinstance(spec, ModelSpec)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    (want,) = onnxruntime_says(tmp_path / "head.onnx", {"x": x})
    found = float_reference.run(spec, x.swapaxes(0, 1)).swapaxes(0, 1)
    assert np.abs(np.sin(found) - want).max() <= 1e-6  # float32, sums of five products


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('end = ["y"]', r'want start = "tensor"'),
        ('start = "features"\n[[layers]]\ntype = "lstm"', "layers = .*the layers are in the file"),
        ("start = 3", r"start = 3; of an \.onnx file, --layers may say start"),
        ('start = "feature"', r"'feature' is no tensor of .*whole\.onnx; it has 'features'"),
        ('start = "features"\nend = ["z"]', "'z' is no tensor"),
        ('start = "steps"\nend = ["features"]', "features do not depend on 'steps'"),
        ('start = "features"\nend = [1]', "names of tensors in end"),
        ("start =", "not a TOML file|TOML"),
    ],
)
def test_a_wrong_part_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = whole_graph(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        read(path, layers=part_file(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_part_keeps_the_models_other_fields(tmp_path: Path) -> None:
    model = onnx.load(whole_graph(tmp_path))
    part = read_part(part_file(tmp_path, 'start = "features"\nend = ["y"]\n'))
    assert part == Part(tmp_path / "part.toml", "features", ("y",))
    found = cut(model, part, "whole")
    onnx.checker.check_model(found)
    assert [node.op_type for node in found.graph.node] == ["LSTM"]
    assert {t.name for t in found.graph.initializer} == {"W", "R"}
    assert found.opset_import == model.opset_import
