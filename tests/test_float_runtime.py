"""FloatSession against the float64 reference, and the same contract as Session."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from edge_lstm import FloatSession, float_reference
from edge_lstm.arrays import F32
from edge_lstm.cells import Dense, Embedding, Flatten, LastStep, Lstm
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.float_runtime import CHUNK_STEPS, HOIST_VALUES
from edge_lstm.spec import Layer, ModelSpec, Signal
from strategies import lstm_layer, random_spec, seeds, uniform

# float32 rounds each of some tens of products and sums of values up to about 4 by 2**-24 of
# itself, and a step's error enters the next one damped by the gates.
TOLERANCE = 1e-5


def close(got: F32, want: F32) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


def inputs(random: np.random.Generator, spec: ModelSpec, batch: int, steps: int) -> F32:
    return random.normal(size=(batch, steps, spec.input.size)).astype(np.float32)


def stepped(session: FloatSession, x: F32, kind: str) -> F32:
    outputs = [session.step(np.ascontiguousarray(x[:, t])) for t in range(x.shape[1])]
    return np.stack(outputs, axis=1) if kind == "sequence" else outputs[-1]


@given(seed=seeds)
def test_whole_sequences_and_steps_are_near_the_reference(seed: int) -> None:
    random = np.random.default_rng(seed)
    spec = random_spec(random)
    batch, steps = int(random.integers(1, 4)), int(random.integers(1, 12))
    x = inputs(random, spec, batch, steps)
    want = float_reference.run(spec, x)
    session = FloatSession(spec, batch)
    close(session.run(x), want)
    session.reset()
    close(stepped(session, x, spec.output.kind), want)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("features", "hidden"), [(3, 5), (40, 64)])
def test_chunks_of_a_long_sequence_do_not_show(batch: int, features: int, hidden: int) -> None:
    """Both ways of a whole sequence: [x, 1, hidden] as one, and with the input half hoisted."""
    assert (4 * hidden * features >= HOIST_VALUES) == (hidden == 64)
    random = np.random.default_rng(features)
    layers = [
        lstm_layer(random, "a", features, hidden),
        lstm_layer(random, "b", hidden, 7),
        Dense("head", uniform(random, 2, 7), uniform(random, 2)),
    ]
    spec = ModelSpec("long", Signal("sequence", features), tuple(layers))
    x = inputs(random, spec, batch, 2 * CHUNK_STEPS + 7)
    session = FloatSession(spec, batch)
    want = float_reference.run(spec, x)
    close(session.run(x), want)
    session.reset()
    parts = [session.run(x[:, a:b]) for a, b in ((0, 3), (3, 200), (200, x.shape[1]))]
    close(np.concatenate(parts, axis=1), want)


def stateful_spec() -> ModelSpec:
    random = np.random.default_rng(1)
    first = lstm_layer(random, "lstm", 4, 6)
    start = Lstm("lstm", first.gates, uniform(random, 6), uniform(random, 6))
    head = Dense("head", uniform(random, 2, 6), uniform(random, 2), "relu6")
    return ModelSpec("state", Signal("sequence", 4), (start, LastStep("last"), head))


@pytest.mark.parametrize("batch", [1, 3])
def test_state_is_a_copy_that_can_be_set_on_another_session(batch: int) -> None:
    spec = stateful_spec()
    x = inputs(np.random.default_rng(2), spec, batch, 9)
    session, other = FloatSession(spec, batch), FloatSession(spec, batch)
    session.run(x[:, :4])
    saved = session.state
    assert {name: value.shape for name, value in saved.items()} == {
        "lstm.hidden": (batch, 6),
        "lstm.cell": (batch, 6),
    }
    want = session.run(x[:, 4:])
    other.state = saved
    np.testing.assert_array_equal(other.run(x[:, 4:]), want)
    close(want, float_reference.run(spec, x))
    for value in saved.values():
        value[...] = 0
    session.reset()
    close(session.run(x), float_reference.run(spec, x))
    with pytest.raises(UsageError, match=r"want \['lstm.cell', 'lstm.hidden'\]"):
        session.state = {}
    with pytest.raises(UsageError, match=r"'lstm.cell': shape \[6\]; want"):
        session.state = {**session.state, "lstm.cell": np.zeros(6, np.float32)}


def test_outputs_belong_to_the_caller() -> None:
    spec = stateful_spec()
    x = inputs(np.random.default_rng(3), spec, 1, 2)
    session = FloatSession(spec)
    first = session.step(x[:, 0])
    kept = first.copy()
    session.step(x[:, 1])
    np.testing.assert_array_equal(first, kept)


def test_tokens_and_flatten() -> None:
    random = np.random.default_rng(4)
    table = random.normal(size=(11, 4)).astype(np.float32)
    layers: list[Layer] = [Embedding("table", table), lstm_layer(random, "lstm", 4, 5)]
    spec = ModelSpec("tokens", Signal("tokens", 11), tuple(layers))
    for batch in (1, 2):
        x = random.integers(0, 11, (batch, 6)).astype(np.int32)
        session = FloatSession(spec, batch)
        want = float_reference.run(spec, x)
        close(session.run(x), want)
        session.reset()
        close(np.stack([session.step(x[:, t]) for t in range(6)], axis=1), want)
    with pytest.raises(UsageError, match="0 to 11; want 0 to 10"):
        FloatSession(spec).run(np.array([[0, 11]]))
    flat = (
        lstm_layer(random, "lstm", 4, 5),
        Flatten("flat", 3),
        Dense("head", uniform(random, 2, 15), uniform(random, 2)),
    )
    spec = ModelSpec("flat", Signal("sequence", 4), flat, 3)
    for batch in (1, 2):
        values = inputs(random, spec, batch, 3)
        close(FloatSession(spec, batch).run(values), float_reference.run(spec, values))
    with pytest.raises(UsageError, match=r"use run\(\), not step\(\)"):
        FloatSession(spec, 2).step(values[:, 0])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 5), np.float32), r"shape \[1, 3, 5\]; want \[1, time, 4\]"),
        (np.zeros((2, 3, 4), np.float32), r"want \[1, time, 4\]"),
        (np.zeros((1, 0, 4), np.float32), r"want \[1, time, 4\]"),
        (np.zeros(4, np.float32), r"want \[1, time, 4\]"),
        (np.zeros((1, 3, 4), np.complex64), "complex64; want float32"),
    ],
)
def test_wrong_input_is_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FloatSession(stateful_spec()).run(x)


def test_wrong_steps_are_refused_and_other_floats_are_taken() -> None:
    session = FloatSession(stateful_spec())
    for x in (np.zeros((1, 5), np.float32), np.zeros(4, np.float32), np.zeros((2, 4))):
        with pytest.raises(UsageError, match="want"):
            session.step(x)
    x = np.random.default_rng(5).normal(size=(1, 4))
    y = session.step(x)
    session.reset()
    np.testing.assert_array_equal(session.step(x.astype(np.float32)), y)
    with pytest.raises(UsageError, match="batch_size 0"):
        FloatSession(stateful_spec(), 0)


def test_other_layers_are_refused_by_name() -> None:
    class Odd(LastStep):
        pass

    class Stranger(Layer):
        def output_signal(self, signal: Signal) -> Signal:
            return signal

        forward = quantize = None  # type: ignore[assignment]

    assert FloatSession(ModelSpec("odd", Signal("sequence", 2), (Odd("odd"),))) is not None
    spec = ModelSpec("strange", Signal("sequence", 2), (Stranger("it"),))
    with pytest.raises(UnsupportedModel, match="'it': Stranger is not in the float runtime"):
        FloatSession(spec)
