"""The Session contract that others program against."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Dense, Embedding, Flatten, LastStep
from edge_lstm.errors import UsageError
from edge_lstm.program import Profile, Program
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec, Signal
from strategies import lstm_layer, profiles, random_bytes, random_program, seeds, uniform

RANDOM = np.random.default_rng(2)
PROGRAM = random_program(RANDOM, head=True, largest=12)
X = random_bytes(RANDOM, PROGRAM, 3, 9)


@given(seed=seeds, profile=profiles)
def test_whole_sequence_equals_steps_equals_halves_equals_rows(seed: int, profile: Profile) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random, profile, head=False, largest=16)
    x = random_bytes(random, program, 2, 7)
    whole = program.predict(x)
    session = program.session(2)
    np.testing.assert_array_equal(np.stack([session.step(x[:, t]) for t in range(7)], 1), whole)
    session.reset()
    halves = np.concatenate([session.run(x[:, :3]), session.run(x[:, 3:])], axis=1)
    np.testing.assert_array_equal(halves, whole)
    rows = np.concatenate([program.predict(row[None]) for row in x])
    np.testing.assert_array_equal(rows, whole)


def test_state_is_a_copy_that_can_be_set_on_another_session() -> None:
    session, other = PROGRAM.session(3), PROGRAM.session(3)
    session.run(X[:, :4])
    saved = session.state
    want = session.run(X[:, 4:])
    other.state = saved
    np.testing.assert_array_equal(other.run(X[:, 4:]), want)
    for value in saved.values():
        value[...] = 0
    session.reset()
    session.run(X[:, :4])
    np.testing.assert_array_equal(session.run(X[:, 4:]), want)


def test_state_has_the_integers_of_the_device() -> None:
    session = PROGRAM.session(3)
    state = session.state
    assert {name: (v.dtype.name, v.shape[0]) for name, v in state.items()} == {
        "lstm.hidden": ("int8", 3),
        "lstm.cell": ("int16", 3),
    }
    assert (state["lstm.hidden"] == PROGRAM.tensors[1].zero_point).all()
    assert not state["lstm.cell"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lstm.cell": None}, r"want \['lstm.cell', 'lstm.hidden'\]"),
        ({"lstm.cell": np.zeros((3, 1), np.int16)}, "state 'lstm.cell': int16"),
        ({"lstm.hidden": np.zeros((3, 12), np.int16)}, "state 'lstm.hidden': int16"),
    ],
)
def test_a_state_of_another_model_is_refused_and_nothing_moves(
    change: dict[str, np.ndarray | None], message: str
) -> None:
    session = PROGRAM.session(3)
    session.run(X)
    before = session.state
    wrong = {**before, **change}
    with pytest.raises(UsageError, match=message):
        session.state = {name: v for name, v in wrong.items() if v is not None}
    for name, value in session.state.items():
        np.testing.assert_array_equal(value, before[name])


def test_int8_gives_int8_and_float_gives_float() -> None:
    y = PROGRAM.predict(X)
    assert y.dtype == np.int8
    x = PROGRAM.input_tensor.dequantize(X)
    floats = PROGRAM.predict(x)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, PROGRAM.output_tensor.dequantize(y))
    session = PROGRAM.session(3)
    assert session.step(x[:, 0]).dtype == np.float32


def test_floats_beyond_the_range_saturate() -> None:
    big = np.full((1, 1, PROGRAM.input_tensor.signal.size), 1e30, np.float32)
    most = np.full(big.shape, 127, np.int8)
    want = PROGRAM.output_tensor.dequantize(PROGRAM.predict(most))
    np.testing.assert_array_equal(PROGRAM.predict(big), want)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 9), np.int8), r"shape \[3, 9\]; want \[3, time, "),
        (np.zeros((2, 9, X.shape[2]), np.int8), r"want \[3, time, "),
        (np.zeros((3, 0, X.shape[2]), np.int8), r"want \[3, time, "),
        (np.zeros((3, 9, X.shape[2]), np.int32), "int32; want int8 or float32"),
        (np.full((3, 9, X.shape[2]), np.nan, np.float32), "values are NaN"),
    ],
)
def test_wrong_input_is_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PROGRAM.session(3).run(x)


def test_wrong_steps_are_refused() -> None:
    session = PROGRAM.session(3)
    with pytest.raises(UsageError, match="shape"):
        session.step(X)
    with pytest.raises(UsageError, match="shape"):
        session.step(X[:1, 0])
    with pytest.raises(UsageError, match="batch_size 0"):
        PROGRAM.session(0)


def test_lengths_read_the_last_valid_step() -> None:
    lengths = np.array([9, 1, 4])
    y = PROGRAM.predict(X, lengths)
    for row, length in enumerate(lengths):
        alone = PROGRAM.predict(X[row : row + 1, :length])
        np.testing.assert_array_equal(y[row : row + 1], alone)


def test_steps_past_the_length_hold_zero() -> None:
    program = random_program(np.random.default_rng(4), head=False, largest=8)
    x = random_bytes(np.random.default_rng(5), program, 2, 6)
    y = program.predict(x, np.array([6, 2]))
    assert (y[1, 2:] == program.output_tensor.zero_point).all()
    np.testing.assert_array_equal(y[0], program.predict(x)[0])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (np.array([9, 0, 1]), "0 to 9; want 1 to 9"),
        (np.array([9, 10, 1]), "1 to 10; want 1 to 9"),
        (np.array([9, 9]), r"\[2\]; want integers \[3\]"),
        (np.array([9.0, 9.0, 9.0]), "float64"),
    ],
)
def test_wrong_lengths_are_refused(lengths: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PROGRAM.predict(X, lengths)


def token_program() -> Program:
    random = np.random.default_rng(7)
    table = random.normal(0, 1, (11, 4)).astype(np.float32)
    spec = ModelSpec(
        "tokens",
        Signal("tokens", 11),
        (Embedding("embedding", table), lstm_layer(random, "lstm", 4, 5), LastStep("last")),
    )
    return quantize(spec, calibrate(spec, random.integers(0, 11, (20, 8))))


def test_tokens_go_in_as_integers_and_out_of_range_ones_are_refused() -> None:
    program = token_program()
    x = np.array([[1, 2, 10]], np.int32)
    whole = program.predict(x)
    session = program.session()
    for t in range(3):
        y = session.step(x[:, t])
    np.testing.assert_array_equal(y, whole)
    with pytest.raises(UsageError, match="1 to 11; want 0 to 10"):
        program.predict(np.array([[1, 11]]))
    with pytest.raises(UsageError, match="float64; want int32"):
        program.predict(np.array([[1.0, 2.0]]))


def test_flatten_needs_the_whole_sequence() -> None:
    random = np.random.default_rng(9)
    spec = ModelSpec(
        "flat",
        Signal("sequence", 3),
        (
            lstm_layer(random, "lstm", 3, 4),
            Flatten("flatten", 5),
            Dense("dense", uniform(random, 2, 20), uniform(random, 2)),
        ),
        time_steps=5,
    )
    x = random.normal(0, 1, (6, 5, 3)).astype(np.float32)
    program = quantize(spec, calibrate(spec, x))
    assert program.predict(x).shape == (6, 2)
    with pytest.raises(UsageError, match=r"'flatten' needs the whole sequence; use run\(\)"):
        program.session().step(x[:1, 0])
    with pytest.raises(UsageError, match=r"want \[6, 5, 3\]"):
        program.predict(x[:, :4])
