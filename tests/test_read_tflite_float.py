"""Float ``.tflite`` files: held against LiteRT, TensorFlow's interpreter and Keras."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import cli, float_reference
from edge_lstm.arrays import Array
from edge_lstm.cells import (
    Activation,
    Backward,
    Bidirectional,
    Dense,
    Embedding,
    Flatten,
    Gate,
    Layer,
    Lstm,
    Parallel,
)
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.program import Program
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_converters import read
from edge_lstm_converters.check import check_inputs, tolerance
from edge_lstm_converters.check_worker import fitted
from edge_lstm_converters.read_tflite_float import float_spec
from edge_lstm_converters.tflite_schema import ABSENT, TfliteModel, TfliteTensor, parse
from edge_lstm_converters.tflite_tables import (
    AddOptions,
    DivOptions,
    FullyConnectedOptions,
    LeakyReluOptions,
    MulOptions,
    SoftmaxOptions,
    StridedSliceOptions,
    SubOptions,
)
from edge_lstm_converters.write_tflite import float_tflite_bytes
from float_tflite_files import NONE, TANH, Builder, random_lstm, random_rnn

pytest.importorskip("flatbuffers", reason="flatbuffers not found: pip install 'edge-lstm[tools]'")

GOLDEN = Path(__file__).parent / "golden" / "float"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.npz") if path.stem != "gru_loop")


def spec_of(path: Path) -> ModelSpec:
    spec = read(path)
    assert isinstance(spec, ModelSpec)
    return spec


def agrees_with_litert(path: Path, spec: ModelSpec) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT not found: pip install ai-edge-litert")
    from edge_lstm_converters.check_tflite import TfliteRunner

    job = {"source": spec.source, "kind": spec.output.kind, "size": spec.output.size}
    runner = TfliteRunner(path, job)
    x = fitted(check_inputs(spec), runner.rows, runner.time_steps)
    y = np.concatenate([runner.run(x[k : k + runner.rows]) for k in range(0, len(x), runner.rows)])
    want = float_reference.run(spec, x)
    assert y.shape == want.shape
    assert np.abs(y - want).max() <= tolerance(spec, x, want)
    assert np.abs(want).max() > 0


@pytest.mark.parametrize("both", [False, True], ids=["one direction", "two directions"])
@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_recurrent_operators_with_random_options_are_what_litert_runs(
    kind: str, both: bool, tmp_path: Path
) -> None:
    make: Callable[..., bytes] = random_lstm if kind == "lstm" else random_rnn
    for seed in range(60):
        path = tmp_path / f"{seed}.tflite"
        path.write_bytes(make(seed, both=both))
        agrees_with_litert(path, spec_of(path))


@pytest.mark.parametrize("name", NAMES)
def test_models_of_tensorflow_are_what_keras_computed(name: str) -> None:
    spec = spec_of(GOLDEN / f"{name}.tflite")
    with np.load(GOLDEN / f"{name}.npz") as file:
        x, keras, tflite = file["x"], file["y_keras"], file["y_tflite"]
        assert json.loads(str(file["origin"]))["versions"]["tensorflow"] == "2.15.1"
    calls, rows = x.shape[:2]
    x = x.reshape(calls * rows, *x.shape[2:])
    x = x.astype(np.int64) if spec.input.kind == "tokens" else x
    y = float_reference.run(spec, x)
    keras, tflite = keras.reshape(y.shape), tflite.reshape(y.shape)
    allowed = tolerance(spec, x, y)
    assert np.abs(y - tflite).max() <= allowed
    # Keras has no clip, but these cells stay below it.
    assert np.abs(y - keras).max() <= allowed


def test_directions_and_branches_of_tensorflow_are_layers_again() -> None:
    def types(name: str) -> list[type[Layer]]:
        return [type(layer) for layer in spec_of(GOLDEN / f"{name}.tflite").layers]

    assert types("bidirectional") == [Bidirectional, Dense]
    final = spec_of(GOLDEN / "bidirectional_last.tflite").layers[0]
    assert isinstance(final, Bidirectional)
    assert final.final
    assert types("bidirectional_mean") == [Bidirectional, Dense]
    lstm = spec_of(GOLDEN / "last_step.tflite").layers[0]
    assert isinstance(lstm, Lstm)
    assert lstm.cell_clip == 10.0  # what TensorFlow's converter writes


def gate(rng: np.random.Generator, features: int, hidden: int) -> Gate:
    shapes = (hidden, features), (hidden, hidden), (hidden,)
    return Gate(*(rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes))


def test_what_we_write_in_float_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gates = tuple(gate(rng, 4, 5) for _ in range(4))
    layers: tuple[Layer, ...] = (
        Embedding("table", rng.normal(0, 1, (9, 4)).astype(np.float32)),
        Lstm("first", gates, cell_clip=0.5),  # type: ignore[arg-type]
        Dense("each", rng.normal(0, 1, (3, 5)).astype(np.float32), np.ones(3, np.float32), "relu"),
        Flatten("flat", 6),
        Dense("head", rng.normal(0, 1, (2, 18)).astype(np.float32), np.ones(2, np.float32)),
        Activation("end", "softmax"),
    )
    spec = ModelSpec("m", Signal("tokens", 9), layers, 6)
    (tmp_path / "m.tflite").write_bytes(float_tflite_bytes(spec, 6))
    found = spec_of(tmp_path / "m.tflite")
    assert (found.input, found.time_steps, found.name) == (spec.input, 6, "m")
    kinds = [(type(layer), layer.name) for layer in found.layers]
    fused = [k for k in kinds if k[0] is not Activation or k[1] == "end"]
    assert fused == [(type(layer), layer.name) for layer in layers]
    x = rng.integers(0, 9, (4, 6))
    assert (float_reference.run(found, x) == float_reference.run(spec, x)).all()
    agrees_with_litert(tmp_path / "m.tflite", found)


# One operator after an LSTM-shaped start


def start(b: Builder, size: int = 3) -> tuple[int, int]:
    """Return the input of a file and the output of an RNN behind it, [2, 4, size]."""
    x = b.tensor(2, 4, size)
    inputs = [x, b.weights(size, size), b.weights(size, size), b.weights(size)]
    inputs.append(b.tensor(2, size, variable=True))
    from edge_lstm_converters.tflite_tables import SequenceRnnOptions

    options = SequenceRnnOptions(False, TANH)
    (y,) = b.add("UNIDIRECTIONAL_SEQUENCE_RNN", inputs, [b.tensor(2, 4, size)], options)
    return x, y


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


Change = Callable[[Builder, int], int]


def behind(code: str, *constants: Array, options: object = None, first: bool = False) -> Change:
    """Return a change that puts an operator of one value and constants behind a tensor."""

    def change(b: Builder, y: int) -> int:
        fixed = [b.constant(values) for values in constants]
        inputs = [*fixed, y] if first else [y, *fixed]
        return b.add(code, inputs, [b.tensor(2, 4, 3)], options)[0]

    return change


def residual(b: Builder, y: int) -> int:
    (z,) = b.add("TANH", [y], [b.tensor(2, 4, 3)])
    return b.add("MUL", [y, z], [b.tensor(2, 4, 3)], MulOptions(NONE))[0]


def pooled(code: str) -> Change:
    def change(b: Builder, y: int) -> int:
        return b.add(code, [y, b.constant(np.array([1], np.int32))], [b.tensor(2, 3)])[0]

    return change


def first_step_joined_to_last(b: Builder, y: int) -> int:
    from edge_lstm_converters.tflite_tables import ConcatenationOptions

    steps = []
    for step in (0, 3):
        places = [[0, step, 0], [0, step + 1, 0], [1, 1, 1]]
        inputs = [y, *(b.constant(np.array(place, np.int32)) for place in places)]
        options = StridedSliceOptions(begin_mask=5, end_mask=5, shrink_axis_mask=2)
        steps += b.add("STRIDED_SLICE", inputs, [b.tensor(2, 3)], options)
    return b.add("CONCATENATION", steps, [b.tensor(2, 6)], ConcatenationOptions(1))[0]


def weights_in_float16(b: Builder, y: int) -> int:
    halves = b.constant(b.rng.normal(0, 1, (5, 3)).astype(np.float16))
    whole = b.tensor(5, 3)
    b.add("DEQUANTIZE", [halves], [whole])
    options = FullyConnectedOptions(1, keep_num_dims=True)
    return b.add("FULLY_CONNECTED", [y, whole, ABSENT], [b.tensor(2, 4, 5)], options)[0]


ACCEPTED: dict[str, Change] = {
    "add a constant": behind("ADD", floats(1, 2, 3), options=AddOptions(3)),
    "subtract from a constant": behind("SUB", floats(1, 2, 3), options=SubOptions(), first=True),
    "subtract a number": behind("SUB", floats(0.25), options=SubOptions()),
    "multiply by a row": behind("MUL", floats(1, 2, 3).reshape(1, 1, 3), options=MulOptions(1)),
    "divide": behind("DIV", floats(1, 2, 4), options=DivOptions()),
    "relu6": behind("RELU6"),
    "elu": behind("ELU"),
    "leaky relu": behind("LEAKY_RELU", options=LeakyReluOptions(0.3)),
    "softmax": behind("SOFTMAX", options=SoftmaxOptions(1.0)),
    "a product of branches": residual,
    "mean": pooled("MEAN"),
    "maximum": pooled("REDUCE_MAX"),
    "sum": pooled("SUM"),
    "first and last step": first_step_joined_to_last,
    "float16 weights": weights_in_float16,
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_operator_is_what_litert_runs(name: str, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(1))
    x, y = start(b)
    path = tmp_path / "m.tflite"
    path.write_bytes(b.file(x, ACCEPTED[name](b, y)))
    agrees_with_litert(path, spec_of(path))


REFUSED: dict[str, tuple[Change, str]] = {
    "division by a value": (
        behind("DIV", floats(1, 2, 3), first=True),
        r"operator 1 \(DIV\): divides by a computed value; want a constant",
    ),
    "a constant for each step": (
        behind("ADD", np.ones((1, 4, 1), np.float32)),
        r"\(ADD\): the constant has shape \[1, 4, 1\] beside sequence \[time, 3\]; want a value a",
    ),
    "an integer constant": (
        behind("ADD", np.ones(3, np.int32)),
        r"\(ADD\): the constant are int32; want float32: convert the model without quantizing",
    ),
    "a soft softmax": (
        behind("SOFTMAX", options=SoftmaxOptions(0.5)),
        r"\(SOFTMAX\): has beta 0.5; it must be 1",
    ),
    "a fused activation": (
        behind("ADD", floats(1), options=AddOptions(2)),
        r"\(ADD\): has fused activation relu_n1_to_1; want none, relu or relu6",
    ),
    "an operator that is not known": (behind("ATAN2"), "operator ATAN2 has no counterpart here"),
    "a cast": (behind("CAST"), r"\(CAST\): makes float32 of sequence"),
    "a mean of features": (
        behind("MEAN", np.array([2], np.int32)),
        r"\(MEAN\): reduces axes \[2\] of sequence \[time, 3\]; want time",
    ),
    "half of a difference": (
        lambda b, y: b.add("SUB", [y, y], [b.tensor(2, 4, 3)])[0],
        r"\(SUB\): joins .*; want a sum or product of two alike",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_operator_is_refused_by_name(name: str) -> None:
    b = Builder(np.random.default_rng(1))
    x, y = start(b)
    change, says = REFUSED[name]
    with pytest.raises(UnsupportedModel, match=says) as info:
        float_spec(b.model(x, change(b, y)), "m.tflite")
    assert str(info.value).startswith("m.tflite: ")
    assert "\n" not in str(info.value)


# Variants of an LSTM that the float reference has no place for


def lstm_file() -> TfliteModel:
    return parse(random_lstm(0, both=False), "m.tflite")


def changed(model: TfliteModel, position: int, tensor: TfliteTensor) -> TfliteModel:
    """Return a model whose LSTM has another input."""
    (operator,) = model.operators
    inputs = [*operator.inputs, *[ABSENT] * 24][:24]
    inputs[position] = len(model.tensors)
    operators = (replace(operator, inputs=tuple(inputs)),)
    return replace(model, tensors=(*model.tensors, tensor), operators=operators)


def test_layer_normalization_in_an_lstm_is_refused() -> None:
    norm = TfliteTensor("norm", (3,), "float32", data=bytes(12))
    with pytest.raises(UnsupportedModel, match=r"input 21 \('norm'\) is a layer normalization"):
        float_spec(changed(lstm_file(), 21, norm), "m.tflite")


def test_int8_weights_beside_float_values_are_refused() -> None:
    model = lstm_file()
    weights = model.tensors[model.operators[0].inputs[2]]
    hybrid = TfliteTensor(
        "w", weights.shape, "int8", (0.1,), (0,), data=bytes(weights.array().size)
    )
    with pytest.raises(UnsupportedModel, match=r"input 2 \('w'\) is int8; .* dynamic-range"):
        float_spec(changed(model, 2, hybrid), "m.tflite")


def test_a_state_that_the_file_sets_is_refused() -> None:
    model = lstm_file()
    state = model.tensors[model.operators[0].inputs[18]]
    given = replace(state, is_variable=False)
    with pytest.raises(UnsupportedModel, match=r"hidden state \(input 18\) is not variable"):
        float_spec(changed(model, 18, given), "m.tflite")


def test_an_auxiliary_input_is_refused() -> None:
    model = parse(random_lstm(3, both=True), "m.tflite")
    (operator,) = [o for o in model.operators if o.code.startswith("BIDIRECTIONAL")]
    linked = replace(operator, inputs=(*operator.inputs[:39], 0, *operator.inputs[40:]))
    operators = tuple(linked if o is operator else o for o in model.operators)
    with pytest.raises(UnsupportedModel, match="input 39 is an auxiliary one"):
        float_spec(replace(model, operators=operators), "m.tflite")


def test_an_unknown_activation_is_refused() -> None:
    for make, code in ((random_lstm, 5), (random_lstm, NONE), (random_rnn, 5)):
        model = parse(make(0, both=False), "m.tflite")
        (operator,) = model.operators
        options = replace(operator.options, fused_activation=code)
        with pytest.raises(UnsupportedModel, match=f"has fused activation {code}"):
            float_spec(replace(model, operators=(replace(operator, options=options),)), "m.tflite")


def test_merged_outputs_that_litert_gets_wrong_are_refused() -> None:
    seed = next(
        k for k in range(99) if parse(random_lstm(k, both=True), "").tensors[0].shape[0] > 1
    )
    model = parse(random_lstm(seed, both=True), "m.tflite")
    operator = model.operators[0]
    options = replace(operator.options, merge_outputs=True, time_major=False)
    operators = (replace(operator, options=options),)
    with pytest.raises(UnsupportedModel, match=r"merges outputs of \d rows, batch-major; LiteRT"):
        float_spec(replace(model, operators=operators), "m.tflite")


def test_a_loop_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"has 3 subgraphs; .* without control flow"):
        read(GOLDEN / "gru_loop.tflite")


def test_damaged_float_files_are_one_error_each(tmp_path: Path) -> None:
    whole = bytearray((GOLDEN / "normalized.tflite").read_bytes())
    rng = np.random.default_rng(0)
    path = tmp_path / "m.tflite"
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(8, len(data)))] = int(rng.integers(0, 256))
        path.write_bytes(bytes(data[: int(rng.integers(64, len(data) + 1))]))
        said = []
        try:
            read(path)
        except ModelError as error:
            said.append(str(error))
        assert not any("\n" in text for text in said)
        refused += len(said)
    assert refused > 100


def test_convert_takes_a_float_tflite_to_int8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")
    pytest.importorskip("ai_edge_litert", reason="LiteRT not found: pip install ai-edge-litert")
    data = tmp_path / "calib.npz"
    np.savez(data, x=np.random.default_rng(0).normal(0, 1, (20, 5, 3)).astype(np.float32))
    model = GOLDEN / "last_step.tflite"
    arguments = ["convert", model, "-o", tmp_path, "--calib", data, "--check"]
    assert cli.run([*map(str, arguments)]) == 0
    said = capsys.readouterr().out
    assert "check     ai_edge_litert" in said
    assert isinstance(read(tmp_path / "last_step_int8.tflite"), Program)
    # TensorFlow gives each LSTM a clip of 10. What has none is left out, and said.
    reason = "layer 'lstm' (lstm): has a cell_clip, which ONNX's LSTM does not have"
    assert f"warning: no onnx: {reason}" in said
    manifest = json.loads((tmp_path / "last_step.manifest.json").read_text())
    assert manifest["left_out"]["onnx"].startswith(reason)
    assert not (tmp_path / "last_step.onnx").exists()
    arguments = ["convert", model, "-o", tmp_path / "f", "--quant", "float32", "--no-check"]
    assert cli.run([*map(str, arguments)]) == 0
    assert (tmp_path / "f" / "last_step_float32.tflite").is_file()
    assert cli.run([*map(str, arguments), "--to", "onnx"]) == 3


def test_branches_of_a_file_have_names_of_their_own() -> None:
    b = Builder(np.random.default_rng(1))
    x, y = start(b)
    spec = float_spec(b.model(x, residual(b, y)), "m.tflite")
    assert [type(layer).__name__ for layer in spec.layers] == ["Rnn", "Parallel"]
    assert isinstance(spec.layers[1], Parallel)
    assert not any(isinstance(layer, Backward) for layer in spec.layers)
