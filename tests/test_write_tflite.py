"""Written files in the real interpreters, byte for byte; read back; compiled for the NPU."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import interpreters
from edge_lstm import float_reference
from edge_lstm.arrays import F32, F64, Array
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Gate,
    LastStep,
    Lstm,
    LstmOp,
)
from edge_lstm.errors import OutputError, UnsupportedModel, UsageError
from edge_lstm.program import Program
from edge_lstm.quantize import quantize
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.read_tflite import program_from_bytes, read_tflite
from edge_lstm_converters.tflite_schema import ABSENT, parse
from edge_lstm_converters.tflite_tables import SequenceLstmOptions
from edge_lstm_converters.write_tflite import (
    float_tflite_bytes,
    tflite_bytes,
    write_float_tflite,
    write_tflite,
)

STEPS = 10
TOKENS = 20


class Sample(NamedTuple):
    """A model, in float and in integers, with sequences in float (or token ids)."""

    spec: ModelSpec
    program: Program
    x: Array

    @property
    def integers(self) -> Array:
        tensor = self.program.input_tensor
        return self.x if tensor.signal.kind == "tokens" else tensor.quantize(self.x)

    @property
    def step_counts(self) -> tuple[int, ...]:
        return (STEPS,) if self.spec.time_steps else (STEPS, 1)


def lstm(rng: np.random.Generator, name: str, inputs: int, hidden: int, gain: float) -> Lstm:
    def weights(*shape: int) -> F32:
        values: F64 = rng.standard_normal(shape) * gain / np.sqrt(shape[-1])
        return values.astype(np.float32)

    gates = tuple(
        Gate(weights(hidden, inputs), weights(hidden, hidden), weights(hidden)) for _ in range(4)
    )
    return Lstm(name, gates)  # type: ignore[arg-type]


def dense(rng: np.random.Generator, name: str, inputs: int, outputs: int) -> Dense:
    weights = rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)
    return Dense(name, weights.astype(np.float32), rng.standard_normal(outputs).astype(np.float32))


def layers(form: str, rng: np.random.Generator, size: int, gain: float) -> tuple[Layer, ...]:
    """Return the layers of a model form; ``size`` features in, LSTMs of gain ``gain``."""
    hidden, outputs = int(rng.integers(2, 24)), int(rng.integers(2, 8))
    first = lstm(rng, "lstm", size, hidden, gain)
    head = dense(rng, "dense", hidden, outputs)
    last = LastStep("last")
    return {
        "last": (first, last, head),
        "every_step": (first,),
        "softmax": (
            first, last, dense(rng, "hidden", hidden, 6), Activation("relu", "relu"),
            dense(rng, "logits", 6, outputs), Activation("softmax", "softmax"),
        ),
        "stack": (
            first, Dropout("drop"), lstm(rng, "lstm_2", hidden, 7, gain), last,
            dense(rng, "dense", 7, outputs), Activation("sigmoid", "sigmoid"),
        ),
        "time_distributed": (first, head, Activation("softmax", "softmax")),
        "flatten": (
            first, Flatten("flat", STEPS), dense(rng, "dense", hidden * STEPS, outputs),
            Activation("tanh", "tanh"),
        ),
        "dense_first": (
            dense(rng, "enter", size, 5), Activation("relu6", "relu6"),
            lstm(rng, "lstm", 5, hidden, gain), last, Activation("relu", "relu"),
        ),
        "embedding": (
            Embedding("words", rng.standard_normal((TOKENS, size)).astype(np.float32)),
            first, last, head,
        ),
        "relu6": (first, Activation("relu6", "relu6"), last),
    }[form]  # fmt: skip


FORMS = (
    "last",
    "every_step",
    "softmax",
    "stack",
    "time_distributed",
    "flatten",
    "dense_first",
    "embedding",
    "relu6",
)


def sample(form: str, seed: int = 0) -> Sample:
    rng = np.random.default_rng([seed, FORMS.index(form)])
    size, gain = int(rng.integers(1, 12)), float(rng.choice([0.5, 1.0, 4.0]))
    signal = Signal("tokens", TOKENS) if form == "embedding" else Signal("sequence", size)
    x: Array
    if form == "embedding":
        x = rng.integers(0, TOKENS, (12, STEPS)).astype(np.int32)
    else:
        x = rng.standard_normal((12, STEPS, size)).astype(np.float32)
    spec = ModelSpec(
        form, signal, layers(form, rng, size, gain), STEPS if form == "flatten" else None
    )
    return Sample(spec, quantize(spec, calibrate(spec, x)), x)


def calls(x: Array, steps: int) -> tuple[Array, Array]:
    """Return one-row calls of ``steps`` steps, and which of them start from reset state.

    Every third sequence is reset, so the others continue from the state before.
    """
    parts = [row[None, k : k + steps] for row in x for k in range(0, STEPS, steps)]
    per_row = STEPS // steps
    return np.stack(parts), np.array([k % (3 * per_row) == 0 for k in range(len(parts))])


def run(program: Program, x: Array, reset: Array) -> Array:
    session = program.session(x.shape[1])
    outputs = []
    for values, starts in zip(x, reset, strict=True):
        if starts:
            session.reset()
        outputs.append(session.run(values))
    return np.stack(outputs)


# ------------------------------------------------------------------- in the interpreters


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", ["litert", "litert-ref", "tflm"])
def test_the_interpreter_gives_the_same_bytes(profile: str, form: str) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    for seed in range(2):
        model = sample(form, seed)
        for steps in model.step_counts:
            x, reset = calls(model.integers, steps)
            got = interpreters.IN_PROCESS[profile](tflite_bytes(model.program, steps), x, reset)
            want = run(model.program.with_profile(profile), x, reset)
            np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.tflite_runtime
@pytest.mark.skipif(
    interpreters.missing("tflite-runtime") is not None,
    reason=str(interpreters.missing("tflite-runtime")),
)
def test_tflite_runtime_gives_the_same_bytes(tmp_path: Path) -> None:
    models, want = {}, {}
    for form in FORMS:
        model = sample(form)
        for steps in model.step_counts:
            x, reset = calls(model.integers, steps)
            models[f"{form}_{steps}"] = tflite_bytes(model.program, steps), x, reset
            want[f"{form}_{steps}"] = run(model.program.with_profile("tflite-runtime"), x, reset)
    got = interpreters.tflite_runtime(models, tmp_path)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name, strict=True)


def test_one_file_of_ten_steps_equals_ten_calls_of_one(tmp_path: Path) -> None:
    if reason := interpreters.missing("tflm"):
        pytest.skip(reason)
    model = sample("every_step")
    whole, reset = calls(model.integers, STEPS)
    at_once = interpreters.tflm(tflite_bytes(model.program, STEPS), whole, reset)
    single, reset = calls(model.integers, 1)
    stepped = interpreters.tflm(tflite_bytes(model.program, 1), single, reset)
    np.testing.assert_array_equal(stepped.reshape(at_once.shape), at_once)


@pytest.mark.parametrize("profile", ["litert", "litert-ref", "tflm"])
def test_batches_give_the_same_bytes(profile: str) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    for form in ("softmax", "time_distributed", "flatten", "embedding"):
        model = sample(form)
        x = model.integers.reshape(4, 3, *model.x.shape[1:])
        reset = np.array([1, 0, 1, 0])
        got = interpreters.IN_PROCESS[profile](tflite_bytes(model.program, STEPS, 3), x, reset)
        np.testing.assert_array_equal(got, run(model.program.with_profile(profile), x, reset))


@pytest.mark.parametrize("form", FORMS)
def test_int16_activations_give_the_same_bytes_in_tflm(form: str) -> None:
    if reason := interpreters.missing("tflm"):
        pytest.skip(reason)
    for seed in range(2):
        model = sample(form, seed)
        program = quantize(model.spec, calibrate(model.spec, model.x), "tflm", "int16")
        assert program.output_tensor.dtype == "int16"
        tokens = program.input_tensor.signal.kind == "tokens"
        source = model.x if tokens else program.input_tensor.quantize(model.x)
        for steps in model.step_counts:
            data = tflite_bytes(program, steps)
            x, reset = calls(source, steps)
            got = interpreters.tflm(data, x, reset)
            np.testing.assert_array_equal(got, run(program, x, reset), strict=True)
            assert program_from_bytes(data, "m.tflite").fingerprint() == program.fingerprint()


@pytest.mark.parametrize("form", FORMS)
def test_int16_activations_are_nearer_to_the_float_model(form: str) -> None:
    model = sample(form)
    want = float_reference.run(model.spec, model.x)
    errors = {}
    for dtype in ("int8", "int16"):
        ranges = calibrate(model.spec, model.x)
        program = quantize(model.spec, ranges, "tflm", dtype)
        got = program.predict(model.x)
        if program.input_tensor.signal.kind == "tokens":
            got = program.output_tensor.dequantize(got)
        errors[dtype] = float(np.square(got - want).mean())
    assert errors["int16"] < errors["int8"]


# ------------------------------------------------------------------- the form of the file


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_read_back_as_the_same_program(form: str) -> None:
    for seed in range(3):
        model = sample(form, seed)
        for steps in model.step_counts:
            data = tflite_bytes(model.program, steps)
            assert program_from_bytes(data, "m.tflite").fingerprint() == (
                model.program.fingerprint()
            )
            assert tflite_bytes(model.program, steps) == data


@pytest.mark.parametrize("name", ["cifg", "peephole", "layernorm", "projection"])
def test_variants_are_written_back_as_they_were_read(name: str) -> None:
    path = Path(__file__).parent / "golden" / f"tfliteonly_{name}" / "model.tflite"
    program = read_tflite(path, "litert")
    again = program_from_bytes(tflite_bytes(program, 12), "m.tflite", "litert")
    assert again.fingerprint() == program.fingerprint()


def test_the_lstm_follows_the_rules_for_files_that_run_alike_everywhere() -> None:
    model = parse(tflite_bytes(sample("stack").program, STEPS), "m.tflite")
    operators = [o for o in model.operators if o.code == "UNIDIRECTIONAL_SEQUENCE_LSTM"]
    assert len(operators) == 2
    for operator in operators:
        assert operator.version == 1
        assert len(operator.inputs) == 24
        assert [k for k, i in enumerate(operator.inputs) if i == ABSENT] == [
            9, 10, 11, 16, 17, 20, 21, 22, 23,
        ]  # fmt: skip
        assert operator.options == SequenceLstmOptions(fused_activation=4)
        assert len(set(operator.intermediates)) == 5
        assert not set(operator.intermediates) & set(operator.outputs)
        for position in (18, 19):
            state = model.tensors[operator.inputs[position]]
            assert state.is_variable
            assert state.data is None
            assert len(state.shape) == 2
        quantizations = {
            (tensor.scales, tensor.zero_points)
            for tensor in (
                model.tensors[operator.inputs[18]],
                model.tensors[operator.intermediates[4]],
                model.tensors[operator.outputs[0]],
            )
        }
        assert len(quantizations) == 1
        cell = model.tensors[operator.inputs[19]]
        assert 2.0**-15 <= cell.scales[0] <= 2.0**-9
        for position in range(1, 9):
            weights = model.tensors[operator.inputs[position]]
            assert weights.zero_points == (0,)
            assert weights.array().min() >= -127


def test_an_initial_state_is_refused_with_the_way_out() -> None:
    model = sample("last")
    first = model.spec.layers[0]
    assert isinstance(first, Lstm)
    started = replace(first, initial_hidden=np.full(first.hidden_size, 0.5, np.float32))
    spec = replace(model.spec, layers=(started, *model.spec.layers[1:]))
    program = quantize(spec, calibrate(spec, model.x))
    with pytest.raises(UnsupportedModel, match=r"'lstm': has an initial state .* write \.elstm"):
        tflite_bytes(program, STEPS)
    with pytest.raises(UnsupportedModel, match=r"'lstm': has an initial state .* write \.onnx"):
        float_tflite_bytes(spec, STEPS)
    zeros = replace(first, initial_hidden=np.zeros(first.hidden_size, np.float32))
    assert float_tflite_bytes(replace(spec, layers=(zeros, *spec.layers[1:])), STEPS)


@pytest.mark.parametrize(("steps", "message"), [(0, "time_steps 0: must be at least 1")])
def test_a_file_must_have_steps(steps: int, message: str) -> None:
    model = sample("last")
    with pytest.raises(UsageError, match=message):
        tflite_bytes(model.program, steps)
    with pytest.raises(UsageError, match=message):
        float_tflite_bytes(model.spec, steps)


def test_flatten_binds_the_number_of_steps() -> None:
    model = sample("flatten")
    for write, source in ((tflite_bytes, model.program), (float_tflite_bytes, model.spec)):
        with pytest.raises(UsageError, match="'flat' joins exactly 10 steps; give time_steps 10"):
            write(source, 3)  # type: ignore[arg-type]


def test_files_are_written_with_one_step_or_the_steps_of_the_model(tmp_path: Path) -> None:
    for form, steps in (("last", "1"), ("flatten", "10")):
        model = sample(form)
        write_tflite(model.program, tmp_path / "m.tflite")
        assert read_tflite(tmp_path / "m.tflite").source["time_steps"] == steps
        write_float_tflite(model.spec, tmp_path / "f.tflite")
        assert parse((tmp_path / "f.tflite").read_bytes(), "f").tensors[0].shape[1] == int(steps)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none.m\.tflite: cannot be written"):
        write_tflite(sample("last").program, tmp_path / "none" / "m.tflite")


# ------------------------------------------------------------------- float files

# float32 against float64: the largest difference over 34 seeds of these forms, both resolvers,
# was 9.6e-7; two gates swapped are off by 7e-3 and more.
FLOAT_TOLERANCE = 4e-6


def float_run(spec: ModelSpec, x: Array, reset: Array) -> Array:
    state: dict[str, F64] = {}
    outputs = []
    for values, starts in zip(x, reset, strict=True):
        if starts:
            state = {}
        outputs.append(float_reference.run(spec, values, state=state))
    return np.stack(outputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("resolver", ["litert", "litert-ref"])
def test_litert_runs_the_float_file_as_the_float_reference(resolver: str, form: str) -> None:
    if reason := interpreters.missing(resolver):
        pytest.skip(reason)
    model = sample(form)
    for steps in model.step_counts:
        x, reset = calls(model.x, steps)
        got = interpreters.IN_PROCESS[resolver](float_tflite_bytes(model.spec, steps), x, reset)
        want = float_run(model.spec, x, reset)
        assert got.shape == want.shape
        assert np.abs(got - want).max() < FLOAT_TOLERANCE


@pytest.mark.tflite_runtime
@pytest.mark.skipif(
    interpreters.missing("tflite-runtime") is not None,
    reason=str(interpreters.missing("tflite-runtime")),
)
def test_tflite_runtime_runs_the_float_file_as_the_float_reference(tmp_path: Path) -> None:
    models, want = {}, {}
    for form in FORMS:
        model = sample(form)
        for steps in model.step_counts:
            x, reset = calls(model.x, steps)
            models[f"{form}_{steps}"] = float_tflite_bytes(model.spec, steps), x, reset
            want[f"{form}_{steps}"] = float_run(model.spec, x, reset)
    got = interpreters.tflite_runtime(models, tmp_path)
    for name, values in want.items():
        assert np.abs(got[name] - values).max() < FLOAT_TOLERANCE, name


# ------------------------------------------------------------------- on the NPU

NEEDS_VELA = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None,
    reason="ethos-u-vela not found: pip install ethos-u-vela",
)


def operators_by_place(data: bytes, accelerator: str, folder: Path) -> tuple[int, int]:
    """Return how many operators Vela places on the CPU and on the NPU."""
    path = folder / "m.tflite"
    path.write_bytes(data)
    vela = Path(sys.executable).with_name("vela")
    report = subprocess.run(
        [vela, "--accelerator-config", accelerator, "--output-dir", folder, path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = [re.search(rf"{place} operators = (\d+)", report) for place in ("CPU", "NPU")]
    assert all(found), report
    cpu, npu = (int(match[1]) for match in found if match)
    return cpu, npu


NPU_CASES = [
    *((form, "ethos-u55-128", STEPS) for form in FORMS if form != "embedding"),
    ("softmax", "ethos-u65-256", STEPS),
    ("softmax", "ethos-u65-256", 1),
    ("time_distributed", "ethos-u55-128", 1),
]


@NEEDS_VELA
@pytest.mark.parametrize(("form", "accelerator", "steps"), NPU_CASES)
def test_vela_places_the_whole_model_on_the_npu(
    form: str, accelerator: str, steps: int, tmp_path: Path
) -> None:
    data = tflite_bytes(sample(form).program, steps)
    cpu, npu = operators_by_place(data, accelerator, tmp_path)
    assert cpu == 0
    assert npu > 0


@NEEDS_VELA
def test_vela_leaves_only_the_embedding_to_the_cpu(tmp_path: Path) -> None:
    # Vela has no GATHER for the Ethos-U55; the sibling shows that the count above can fail.
    data = tflite_bytes(sample("embedding").program, STEPS)
    cpu, _ = operators_by_place(data, "ethos-u55-128", tmp_path)
    assert cpu == 1


def test_programs_without_a_lstm_are_written_too() -> None:
    model = sample("dense_first")
    spec = replace(model.spec, layers=model.spec.layers[:2])
    program = quantize(spec, calibrate(spec, model.x))
    assert not any(isinstance(op, LstmOp) for op in program.ops)
    again = program_from_bytes(tflite_bytes(program, STEPS), "m.tflite")
    assert again.fingerprint() == program.fingerprint()
