"""write_onnx against onnxruntime, the ONNX checker and read_onnx."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.arrays import F32, F64, Array
from edge_lstm.cells import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Gate,
    LastStep,
    Lstm,
)
from edge_lstm.cells.activation import KINDS
from edge_lstm.errors import MismatchError, MissingTool, OutputError, UnsupportedModel
from edge_lstm.program import ProgramBuilder
from edge_lstm.spec import FloatRun, Layer, ModelSpec, Signal

onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime not found: pip install 'edge-lstm[tools]'"
)
from onnx import numpy_helper  # noqa: E402

from edge_lstm_converters import graph_to_onnx  # noqa: E402
from edge_lstm_converters.layouts import lstm_gates_to_onnx  # noqa: E402
from edge_lstm_converters.read_onnx import read_onnx  # noqa: E402
from edge_lstm_converters.write_onnx import onnx_bytes, write_onnx  # noqa: E402

# float32 against float64: see RELATIVE_TOLERANCE in write_onnx.py.
FLOAT32 = 1e-5


def weights(rng: np.random.Generator, *shape: int) -> F32:
    return rng.standard_normal(shape).astype(np.float32)


def random_lstm(
    rng: np.random.Generator, name: str, features: int, hidden: int, states: int = 0
) -> Lstm:
    """Return an LSTM; ``states``: 0 from zero, 1 with a hidden state, 2 a cell, 3 both."""
    i, f, g, o = (
        Gate(weights(rng, hidden, features), weights(rng, hidden, hidden), weights(rng, hidden))
        for _ in range(4)
    )
    return Lstm(
        name,
        (i, f, g, o),
        weights(rng, hidden) if states & 1 else None,
        weights(rng, hidden) if states & 2 else None,
    )


def random_dense(rng: np.random.Generator, name: str, features: int, outputs: int) -> Dense:
    fused: list[Literal["none", "relu", "relu6"]] = ["none", "relu", "relu6"]
    activation = fused[rng.integers(3)]
    return Dense(name, weights(rng, outputs, features), weights(rng, outputs), activation)


def random_spec(seed: int) -> ModelSpec:
    """Return a model of up to eight layers in any order that fits."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 9))
    layers: list[Layer] = []
    if rng.random() < 0.3:
        start = Signal("tokens", 7)
        layers.append(Embedding("table", weights(rng, 7, size)))
    else:
        start = Signal("sequence", size)
    time_steps = None
    for k in range(int(rng.integers(1, 6))):
        name, wide = f"layer_{k}", int(rng.integers(1, 9))
        choice = rng.choice(["lstm", "dense", "activation", "dropout"], p=[0.5, 0.25, 0.2, 0.05])
        if choice == "lstm":
            layers.append(random_lstm(rng, name, size, wide, int(rng.integers(4))))
            size = wide
        elif choice == "dense":
            layers.append(random_dense(rng, name, size, wide))
            size = wide
        elif choice == "activation":
            layers.append(Activation(name, KINDS[rng.integers(len(KINDS))]))
        else:
            layers.append(Dropout(name))
    end = rng.choice(["last", "flat", "all"])
    if end == "last":
        layers.append(LastStep("last"))
    elif end == "flat":
        time_steps = 4
        layers.append(Flatten("flat", time_steps))
        size *= time_steps
    # Without a head one feature flattened over time is a sequence in other words.
    if rng.random() < 0.7 or (end == "flat" and size == time_steps):
        layers += [random_dense(rng, "head", size, 3), Activation("answer", "softmax")]
    return ModelSpec(f"random_{seed}", start, tuple(layers), time_steps)


def random_input(spec: ModelSpec, rows: int = 3, steps: int = 6) -> Array:
    rng = np.random.default_rng(1)
    steps = spec.time_steps or steps
    if spec.input.kind == "tokens":
        return rng.integers(0, spec.input.size, (rows, steps))
    return rng.standard_normal((rows, steps, spec.input.size)).astype(np.float32)


def onnxruntime_says(data: bytes, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, feeds)]


def assert_close(found: Array, want: Array) -> None:
    assert found.shape == want.shape
    assert np.abs(found.astype(np.float64) - want).max() <= FLOAT32 * max(np.abs(want).max(), 1e-3)


@pytest.mark.parametrize("seed", range(80))
def test_a_random_model_gives_in_onnxruntime_what_the_float_reference_gives(
    tmp_path: Path, seed: int
) -> None:
    spec = random_spec(seed)
    path = tmp_path / "m.onnx"
    write_onnx(spec, path)
    for rows, steps in ((1, 1), (5, 9)):
        x = random_input(spec, rows, steps)
        (y,) = onnxruntime_says(path.read_bytes(), {"x": x})
        assert_close(y, float_reference.run(spec, x))


def same_values(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same_values, a, b))
    if isinstance(a, Gate):
        return same_values(tuple(vars(a).values()), tuple(vars(b).values()))
    return bool(a == b)


@pytest.mark.parametrize("seed", range(80))
def test_reading_what_was_written_gives_the_same_model(tmp_path: Path, seed: int) -> None:
    spec = random_spec(seed)
    path = tmp_path / "m.onnx"
    write_onnx(spec, path)
    back = read_onnx(path, spec.name)
    assert (back.input, back.time_steps, back.output) == (spec.input, spec.time_steps, spec.output)
    # ONNX has no fused activation, and what does nothing is left out.
    plain: list[Layer] = []
    for layer in spec.layers:
        if isinstance(layer, Dense) and layer.activation != "none":
            plain += [replace(layer, activation="none"), Activation("", layer.activation)]
        elif not isinstance(layer, Dropout):
            plain.append(layer)
    assert [type(a) for a in back.layers] == [type(b) for b in plain]
    for found, want in zip(back.layers, plain, strict=True):
        found_values, want_values = (
            tuple(v for k, v in vars(layer).items() if k != "name") for layer in (found, want)
        )
        assert same_values(found_values, want_values), want
    x = random_input(spec)
    assert (float_reference.run(back, x) == float_reference.run(spec, x)).all()


@pytest.mark.parametrize("seed", range(0, 80, 5))
def test_one_step_at_a_time_gives_the_whole_sequence_when_states_are_fed_back(seed: int) -> None:
    spec = random_spec(seed)
    if spec.time_steps is not None:
        steps = [isinstance(layer, Flatten) for layer in spec.layers].index(True)
        spec = replace(spec, layers=spec.layers[:steps], time_steps=None)
    data = onnx_bytes(spec, stateful=True)
    model = onnx.load_from_string(data)
    first = json.loads({p.key: p.value for p in model.metadata_props}.get("initial_state", "{}"))
    names = [i.name for i in list(model.graph.input)[1:]]
    sizes = [i.type.tensor_type.shape.dim[2].dim_value for i in list(model.graph.input)[1:]]
    assert names == [
        f"{layer.name}.{word}"
        for layer in spec.layers
        if isinstance(layer, Lstm)
        for word in ("hidden", "cell")
    ]
    x = random_input(spec)
    states: list[Array] = [
        np.tile(np.asarray(first.get(n, [0.0] * size), np.float32), (1, 3, 1))
        for n, size in zip(names, sizes, strict=True)
    ]
    outputs = []
    for t in range(x.shape[1]):
        y, *states = onnxruntime_says(
            data, {"x": x[:, t : t + 1], **dict(zip(names, states, strict=True))}
        )
        outputs.append(y)
    want = float_reference.run(spec, x)
    found = outputs[-1] if want.ndim == 2 else np.concatenate(outputs, axis=1)
    assert_close(found, want)


def test_the_file_is_plain_onnx_of_opset_17(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = (random_lstm(rng, "a", 3, 4), random_lstm(rng, "b", 4, 5, 1), LastStep("last"))
    path = tmp_path / "m.onnx"
    write_onnx(ModelSpec("two", Signal("sequence", 3), layers), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert (model.producer_name, model.graph.name) == ("edge-lstm", "two")
    lstms = [n for n in model.graph.node if n.op_type == "LSTM"]
    assert [n.name for n in lstms] == ["a", "b"]
    assert len(lstms[0].input) == 4  # no first state
    assert list(lstms[1].input)[4:] == ["", "b.initial_hidden.out"]
    assert not [a for n in lstms for a in n.attribute if a.name == "layout"]
    # Between two LSTMs nothing turns the axes.
    assert [n.op_type for n in model.graph.node].count("Transpose") == 1
    axes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", "time", 3]


def test_equal_models_give_equal_bytes() -> None:
    assert onnx_bytes(random_spec(3)) == onnx_bytes(random_spec(3))
    assert onnx_bytes(random_spec(3)) != onnx_bytes(random_spec(4))


def test_gates_are_written_in_the_order_of_onnx(tmp_path: Path) -> None:
    i, f, g, o = (
        Gate(*(np.full(s, value, np.float32) for s in ((1, 1), (1, 1), (1,))))
        for value in (1, 2, 3, 4)
    )
    path = tmp_path / "m.onnx"
    write_onnx(ModelSpec("m", Signal("sequence", 1), (Lstm("a", (i, f, g, o)),)), path)
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    # i, o, f, c: the ONNX operator's text, input W.
    assert arrays["a.W"].ravel().tolist() == [1, 4, 2, 3]
    assert arrays["a.R"].ravel().tolist() == [1, 4, 2, 3]
    assert arrays["a.B"].ravel().tolist() == [1, 4, 2, 3, 0, 0, 0, 0]


def test_a_wrong_graph_is_found_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(graph_to_onnx.OPERATORS, "sigmoid", "Tanh")
    rng = np.random.default_rng(0)
    layers = (random_lstm(rng, "a", 3, 4), Activation("s", "sigmoid"))
    path = tmp_path / "m.onnx"
    with pytest.raises(MismatchError, match="onnxruntime differs from the float reference by"):
        write_onnx(ModelSpec("m", Signal("sequence", 3), layers), path)
    assert list(tmp_path.iterdir()) == []


def test_a_gate_order_that_is_wrong_is_found_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edge_lstm_converters.recurrent_to_onnx.lstm_gates_to_onnx",
        lambda gates: lstm_gates_to_onnx((gates[1], gates[0], *gates[2:])),
    )
    spec = ModelSpec(
        "m", Signal("sequence", 3), (random_lstm(np.random.default_rng(0), "a", 3, 4),)
    )
    with pytest.raises(MismatchError, match="differs from the float reference"):
        write_onnx(spec, tmp_path / "m.onnx")


def test_weights_that_saturate_every_gate_can_be_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = random_lstm(rng, "a", 3, 4)
    i, f, g, o = (
        Gate(50 * gate.input_weights, 50 * gate.recurrent_weights, gate.bias)
        for gate in plain.gates
    )
    layers = (replace(plain, gates=(i, f, g, o)),)
    write_onnx(ModelSpec("m", Signal("sequence", 3), layers), tmp_path / "m.onnx")


class Unknown(Layer):
    """A layer that ONNX has no form for here."""

    def output_signal(self, signal: Signal) -> Signal:
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        return x

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        return source


def test_an_unknown_layer_is_refused_by_name(tmp_path: Path) -> None:
    spec = ModelSpec("m", Signal("sequence", 3), (Unknown("odd"),))
    with pytest.raises(UnsupportedModel, match=r"layer 'odd' \(unknown\): has no form in ONNX"):
        write_onnx(spec, tmp_path / "m.onnx")


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_onnx(random_spec(0), tmp_path / "missing" / "m.onnx")


def test_without_onnxruntime_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingTool, match=r"pip install 'edge-lstm\[tools\]'"):
        onnx_bytes(random_spec(0))


def test_an_onnx_file_from_elsewhere_survives_reading_and_writing(tmp_path: Path) -> None:
    weather = Path(__file__).parents[1] / "benchmarks/edge_lstm_benchmarks/models/weather"
    spec = read_onnx(weather / "model.onnx")
    write_onnx(spec, tmp_path / "again.onnx")
    with np.load(weather / "test.npz") as data:
        x = data["x"][:20].astype(np.float32)
    (y,) = onnxruntime_says((tmp_path / "again.onnx").read_bytes(), {"x": x})
    source = (weather / "model.onnx").read_bytes()
    (want,) = onnxruntime_says(source, {onnx.load_from_string(source).graph.input[0].name: x})
    assert_close(y, want)
    assert len(spec.layers) == len(read_onnx(tmp_path / "again.onnx").layers)
