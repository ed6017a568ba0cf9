"""GRU and RNN as graphs of primitive ops: the interpreters' bytes, and near the float model."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

import interpreters
from edge_lstm import float_reference
from edge_lstm.arrays import F32, Array
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import (
    Activation,
    Bidirectional,
    Dense,
    Embedding,
    Gate,
    Gru,
    LastStep,
    Lstm,
    MulOp,
    Recurrent,
    Rnn,
    SubOp,
)
from edge_lstm.cells.functions import RELU, TANH, Function
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.program import PROFILES, Profile, Program, Tensor
from edge_lstm.program_file import program_bytes
from edge_lstm.program_file import program_from_bytes as load
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_converters.read_tflite import program_from_bytes
from edge_lstm_converters.tflite_schema import parse, serialize
from edge_lstm_converters.tflite_tables import AddOptions
from edge_lstm_converters.write_tflite import tflite_bytes

DType = Literal["int8", "int16"]
KINDS = ("gru", "gru before", "rnn", "relu")
STEPS, CALIBRATION, ROWS = 12, 30, 6


def normal(random: np.random.Generator, *shape: int, deviation: float = 0.3) -> F32:
    return (random.standard_normal(shape) * deviation).astype(np.float32)


def gate(random: np.random.Generator, hidden: int, features: int, gain: float) -> Gate:
    return Gate(
        normal(random, hidden, features, deviation=gain / np.sqrt(features)),
        normal(random, hidden, hidden, deviation=gain / np.sqrt(hidden)),
        normal(random, hidden),
    )


def cell(
    random: np.random.Generator, kind: str, features: int, hidden: int, gain: float = 1.5
) -> Recurrent:
    if kind == "rnn":
        return Rnn("cell", gate(random, hidden, features, gain))
    if kind == "relu":
        return Rnn("cell", gate(random, hidden, features, min(gain, 0.6)), function=RELU)
    gates = tuple(gate(random, hidden, features, gain) for _ in range(3))
    bias = normal(random, hidden) if kind == "gru" else None
    return Gru("cell", gates, bias, kind == "gru")  # type: ignore[arg-type]


def model(
    seed: int, kind: str, dtype: DType = "int8", profile: str = "tflm"
) -> tuple[ModelSpec, Program, F32]:
    """Return a model, its integers and inputs that it was not calibrated with."""
    random = np.random.default_rng(seed)
    features, hidden = int(random.integers(1, 20)), int(random.integers(2, 40))
    layers = [cell(random, kind, features, hidden, float(random.uniform(0.3, 3)))]
    if seed % 3:
        head = Dense("head", normal(random, 5, hidden), normal(random, 5))
        layers += [LastStep("last"), head] if seed % 3 == 1 else [head]  # type: ignore[list-item]
    spec = ModelSpec("model", Signal("sequence", features), tuple(layers))
    x = normal(random, CALIBRATION + ROWS, STEPS, features, deviation=1.0)
    ranges = calibrate(spec, x[:CALIBRATION])
    return spec, quantize(spec, ranges, profile, dtype), x[CALIBRATION:]


def by_steps(profile: str, program: Program, x: Array) -> Array:
    """Return an interpreter's outputs for integers ``x`` [rows, time, size], a step a call."""
    calls = x.reshape(-1, 1, 1, x.shape[-1])
    reset = np.arange(len(calls)) % x.shape[1] == 0
    y = interpreters.run(profile, tflite_bytes(program, 1), calls, reset)
    y = y.reshape(*x.shape[:2], -1)
    return y[:, -1] if program.output_tensor.signal.kind == "vector" else y


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", list(interpreters.IN_PROCESS))
def test_cells_equal_the_interpreter(profile: Profile, kind: str, dtype: DType) -> None:
    """State is kept from call to call, and a reset clears it."""
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    for seed in range(6):
        _, program, x = model(seed, kind, dtype, profile)
        integers = program.input_tensor.quantize(x)
        want = by_steps(profile, program, integers)
        np.testing.assert_array_equal(program.predict(integers), want, strict=True)


def test_a_stack_behind_an_embedding_equals_the_interpreters() -> None:
    """And the int8 head, which LiteRT keeps from XNNPACK in a graph with a state."""
    random = np.random.default_rng(7)
    layers = (
        Embedding("words", normal(random, 30, 9, deviation=1.0)),
        replace(cell(random, "gru", 9, 12), name="first"),
        replace(cell(random, "relu", 12, 10), name="second"),
        LastStep("last"),
        Dense("head", normal(random, 40, 10, deviation=1.0), normal(random, 40)),
        Activation("probability", "sigmoid"),
    )
    spec = ModelSpec("words", Signal("tokens", 30), layers)
    tokens = random.integers(0, 30, (40, 9)).astype(np.int32)
    ranges = calibrate(spec, tokens)
    for profile in interpreters.IN_PROCESS:
        if interpreters.missing(profile):
            continue
        program = quantize(spec, ranges, profile)
        calls = tokens.reshape(-1, 1, 1)
        reset = np.arange(len(calls)) % 9 == 0
        y = interpreters.run(profile, tflite_bytes(program, 1), calls, reset)
        want = y.reshape(40, 9, -1)[:, -1]
        got = program.predict(tokens)
        np.testing.assert_array_equal(got, want, profile, strict=True)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_the_same(kind: str, dtype: DType) -> None:
    _, program, _ = model(1, kind, dtype)
    read = program_from_bytes(tflite_bytes(program, 1), "m.tflite")
    assert read.fingerprint() == program.fingerprint()
    assert load(program_bytes(program)).fingerprint() == program.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_integers_stay_near_the_float_model(kind: str) -> None:
    """The gains reach 3: half of the cells saturate, and a tanh RNN is near chaos."""
    for seed in range(6):
        spec, program, x = model(seed, kind)
        want = float_reference.run(spec, x)
        error = program.predict(x) - want
        # Six bits: two lost of int8's eight, to the head's quantized weights and the recurrence.
        assert np.sqrt(np.mean(error**2)) < np.sqrt(np.mean(want**2)) / 8, (seed, kind)


@pytest.mark.parametrize("profile", [p for p in PROFILES if p != "tflite-runtime"])
@pytest.mark.parametrize("kind", KINDS)
def test_sequence_is_its_steps_and_a_batch_its_rows(kind: str, profile: Profile) -> None:
    _, program, x = model(3, kind, profile=profile)
    integers = program.input_tensor.quantize(x)
    whole = program.predict(integers)
    session = program.session(len(x))
    steps = [session.step(integers[:, k]) for k in range(STEPS)]
    np.testing.assert_array_equal(np.stack(steps, axis=1), whole)
    rows = [program.predict(row[None])[0] for row in integers]
    np.testing.assert_array_equal(np.stack(rows), whole)


def test_a_state_taken_and_set_continues_the_stream() -> None:
    _, program, x = model(3, "gru")
    integers = program.input_tensor.quantize(x)
    session = program.session(len(x))
    session.run(integers[:, :5])
    kept = session.state
    assert {name: value.dtype.name for name, value in kept.items()} == {"cell_state.value": "int16"}
    want = session.run(integers[:, 5:])
    session.reset()
    session.state = kept
    np.testing.assert_array_equal(session.run(integers[:, 5:]), want)


def test_a_padded_row_is_the_row_alone() -> None:
    _, program, x = model(1, "gru")
    integers = program.input_tensor.quantize(x)
    lengths = np.array([1, 4, STEPS, 7, 2, 9])
    poisoned = integers.copy()
    for row, length in enumerate(lengths):
        poisoned[row, length:] = -128
    got = program.predict(poisoned, lengths)
    alone = [program.predict(integers[k : k + 1, :n])[0] for k, n in enumerate(lengths)]
    np.testing.assert_array_equal(got, np.stack(alone))


def test_a_first_state_is_run_and_not_written() -> None:
    spec, _, x = model(0, "gru")
    (gru,) = spec.layers
    assert isinstance(gru, Gru)
    started = replace(gru, initial_hidden=np.full(gru.hidden_size, 0.5, np.float32))
    spec = replace(spec, layers=(started,))
    program = quantize(spec, calibrate(spec, x))
    want = float_reference.run(spec, x)
    # 8-bit weights and outputs in [-1, 1].
    np.testing.assert_allclose(program.predict(x), want, atol=0.1)
    with pytest.raises(UnsupportedModel, match="'cell_state': has an initial state that is not"):
        tflite_bytes(program, 1)


def test_bidirectional_runs_here_and_is_refused_in_tflite() -> None:
    random = np.random.default_rng(0)
    both = Bidirectional("both", cell(random, "gru", 4, 8), cell(random, "rnn", 4, 8))
    spec = ModelSpec("model", Signal("sequence", 4), (both,))
    x = normal(random, 20, STEPS, 4, deviation=1.0)
    program = quantize(spec, calibrate(spec, x))
    np.testing.assert_allclose(program.predict(x), float_reference.run(spec, x), atol=0.1)
    with pytest.raises(UsageError, match="layer 'both_reversed' needs several steps at once"):
        tflite_bytes(program, 1)


def test_several_steps_a_call_are_refused() -> None:
    _, program, _ = model(0, "rnn")
    with pytest.raises(UsageError, match="a call of 4 time steps needs several steps at once"):
        tflite_bytes(program, 4)


def test_lstm_and_gru_share_a_file() -> None:
    random = np.random.default_rng(2)
    gates = tuple(gate(random, 6, 6, 1.0) for _ in range(4))
    layers = (
        replace(cell(random, "gru", 4, 6), name="gru"),
        Lstm("lstm", gates),  # type: ignore[arg-type]
        Dense("head", normal(random, 3, 6), normal(random, 3)),
    )
    spec = ModelSpec("model", Signal("sequence", 4), layers)
    x = normal(random, 20, STEPS, 4, deviation=1.0)
    ranges = calibrate(spec, x)
    for profile in interpreters.IN_PROCESS:
        if interpreters.missing(profile):
            continue
        program = quantize(spec, ranges, profile)
        integers = program.input_tensor.quantize(x)
        want = by_steps(profile, program, integers)
        np.testing.assert_array_equal(program.predict(integers), want, profile, strict=True)


# --------------------------------------------------------------------------------- refusals


def test_other_functions_are_refused_by_name() -> None:
    random = np.random.default_rng(0)
    gru, rnn = cell(random, "gru", 3, 4), cell(random, "rnn", 3, 4)
    assert isinstance(gru, Gru)
    assert isinstance(rnn, Rnn)
    hard = Function("hard_sigmoid")
    for layer, found in (
        (replace(gru, functions=(hard, TANH)), r"has the functions hard_sigmoid and tanh"),
        (replace(rnn, function=hard), r"has the function hard_sigmoid"),
        (
            replace(gru, initial_hidden=np.full(4, 3, np.float32)),
            "starts from a state of 3",
        ),
    ):
        spec = ModelSpec("model", Signal("sequence", 3), (layer,))
        x = normal(random, 4, 5, 3)
        with pytest.raises(UnsupportedModel, match=f"layer 'cell'.*{found}"):
            quantize(spec, calibrate(spec, x))


def test_tflite_runtime_is_refused_by_name() -> None:
    _, program, x = model(0, "gru")
    with pytest.raises(UnsupportedModel, match=r"QUANTIZE with int16 .* tflite-runtime"):
        program.with_profile("tflite-runtime").predict(x)


def test_a_graph_whose_state_is_written_otherwise_is_refused() -> None:
    _, program, _ = model(0, "rnn")
    file = parse(tflite_bytes(program, 1), "m.tflite")
    (writes,) = [o for o in file.operators if file.tensors[o.outputs[0]].is_variable]
    state = writes.outputs[0]
    without = replace(file, operators=tuple(o for o in file.operators if o is not writes))
    with pytest.raises(UnsupportedModel, match=r"no operator writes the state 'cell_state.output'"):
        program_from_bytes(serialize(without), "m.tflite")
    direct = tuple(
        replace(o, outputs=(state,)) if o.outputs == writes.inputs else o for o in without.operators
    )
    with pytest.raises(UnsupportedModel, match=r"\(TANH\): writes the state 'cell_state.output'"):
        program_from_bytes(serialize(replace(file, operators=direct)), "m.tflite")
    first = (writes, *(o for o in file.operators if o is not writes))
    with pytest.raises(UnsupportedModel, match="writes a state before it is read"):
        program_from_bytes(serialize(replace(file, operators=first)), "m.tflite")
    tensors = tuple(
        replace(t, data=bytes(2 * t.shape[-1])) if t.is_variable else t for t in file.tensors
    )
    with pytest.raises(UnsupportedModel, match=r"is fed a state of int16; want .* no data"):
        program_from_bytes(serialize(replace(file, tensors=tensors)), "m.tflite")


def test_litert_power_of_two_additions_are_refused() -> None:
    """For them LiteRT has another kernel, which TFLM has not."""
    _, program, _ = model(0, "gru")
    file = parse(tflite_bytes(program, 1), "m.tflite")
    operators = tuple(
        replace(o, options=AddOptions()) if o.code == "ADD" else o for o in file.operators
    )
    with pytest.raises(UnsupportedModel, match="has pot_scale_int16 and scales that are powers"):
        program_from_bytes(serialize(replace(file, operators=operators)), "m.tflite")


def test_a_dense_of_int16_without_bias_is_refused_for_litert() -> None:
    _, program, _ = model(0, "rnn")
    file = parse(tflite_bytes(program, 1), "m.tflite")
    operators = tuple(
        replace(o, inputs=(*o.inputs[:2], -1)) if o.code == "FULLY_CONNECTED" else o
        for o in file.operators
    )
    data = serialize(replace(file, operators=operators))
    with pytest.raises(UnsupportedModel, match="has int16 values and no bias"):
        program_from_bytes(data, "m.tflite", "litert")
    program_from_bytes(data, "m.tflite", "litert-ref")


def test_a_program_whose_states_do_not_pair_is_refused() -> None:
    _, program, _ = model(0, "rnn")
    kept = tuple(op for op in program.ops if op.type_name != "write_state")
    with pytest.raises(UsageError, match="op 'cell_state': its state is never written"):
        replace(program, ops=kept).session()


# ------------------------------------------------------------------------- MUL and SUB alone


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("op_type", [SubOp, MulOp])
@pytest.mark.parametrize("profile", list(interpreters.IN_PROCESS))
def test_products_and_differences_equal_the_interpreter(
    profile: Profile, op_type: type[SubOp | MulOp], dtype: DType
) -> None:
    """Of a value with itself: SUB then shows what each side is rounded to."""
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    random, info = np.random.default_rng(5), np.iinfo(dtype)
    for _ in range(20):
        signal, scale = Signal("sequence", 500), np.float32(np.exp(random.uniform(-8, -1)))
        finest = scale * scale * info.max if op_type is MulOp else scale
        zero_points = random.integers(-128, 128, 2) if dtype == "int8" else (0, 0)
        tensors = (
            Tensor("input", signal, dtype, float(scale), int(zero_points[0])),
            Tensor(
                "op.output", signal, dtype,
                float(np.float32(finest * np.exp(random.uniform(-1, 1)))), int(zero_points[1]),
            ),
        )  # fmt: skip
        program = Program("model", profile, tensors, (op_type("op", (0, 0), 1),), 0, 1)
        x = random.integers(info.min, info.max + 1, (1, 1, 2, 500)).astype(dtype)
        want = interpreters.run(profile, tflite_bytes(program, 2), x, np.ones(1))
        np.testing.assert_array_equal(program.predict(x[0]), want[0], strict=True)
