"""Memory of the runtimes: nothing grows with steps, and sessions share their Program's weights."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge_lstm import FloatSession
from edge_lstm.arrays import Array
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Activation, Dense, LastStep, Layer
from edge_lstm.program import Program
from edge_lstm.quantize import quantize
from edge_lstm.runtime import CHUNK_VALUES
from edge_lstm.spec import ModelSpec, Signal
from strategies import lstm_layer, uniform


def spec_of(features: int, hidden: int, *, last: bool = False) -> ModelSpec:
    random = np.random.default_rng(1)
    layers: list[Layer] = [
        lstm_layer(random, "a", features, hidden),
        lstm_layer(random, "b", hidden, hidden),
        *([LastStep("last")] if last else []),
        Dense("head", uniform(random, 3, hidden), uniform(random, 3)),
        Activation("act", "sigmoid"),
    ]
    return ModelSpec("model", Signal("sequence", features), tuple(layers))


def program_of(spec: ModelSpec) -> Program:
    x = np.random.default_rng(2).normal(size=(4, 30, spec.input.size)).astype(np.float32)
    return quantize(spec, calibrate(spec, x))


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def growth(step: Callable[[Array], Array], x: Array, steps: int = 2000) -> tuple[int, int]:
    """Return by how many bytes memory grew over ``steps`` calls, and the peak above the start."""
    for _ in range(50):
        step(x)
    gc.collect()
    start, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for _ in range(steps):
        step(x)
    now, peak = tracemalloc.get_traced_memory()
    return now - start, peak - start


# What one call may hold at a time: its result, the arrays and views behind the integer sigmoid
# head, which are not preallocated, and Python's own small objects.
STEP_BYTES = 8192


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kind", ["int8", "float"])
def test_a_step_leaves_nothing_behind(kind: str, batch: int) -> None:
    spec = spec_of(6, 8)
    x: Array = np.ones((batch, 6), np.int8)
    step = program_of(spec).session(batch).step
    if kind == "float":
        x, step = x.astype(np.float32), FloatSession(spec, batch).step
    left, peak = growth(step, x)
    assert left < 1024, f"{left} bytes after 2000 steps"
    assert peak < STEP_BYTES


@pytest.mark.usefixtures("traced")
def test_the_check_sees_a_step_that_keeps_its_outputs() -> None:
    session, kept = FloatSession(spec_of(6, 8)), []

    def step(x: Array) -> Array:
        kept.append(session.step(x))
        return kept[-1]

    assert growth(step, np.ones((1, 6), np.float32))[0] > 100_000


def working_bytes(run: Callable[[Array], Array], x: Array) -> int:
    """Return the peak of a run beyond its input and its output."""
    gc.collect()
    start, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    y = run(x)
    return tracemalloc.get_traced_memory()[1] - start - y.nbytes


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", ["int8", "float in, int8 inside", "float"])
def test_working_memory_does_not_grow_with_the_sequence(kind: str) -> None:
    spec = spec_of(6, 64)
    run = FloatSession(spec).run if kind == "float" else program_of(spec).session().run
    steps = CHUNK_VALUES // 64
    x: Array = np.random.default_rng(3).normal(size=(1, 6 * steps, 6)).astype(np.float32)
    if kind == "int8":
        x = np.rint(x * 20).astype(np.int8)
    run(x[:, : 2 * steps])
    some, many = working_bytes(run, x[:, : 3 * steps]), working_bytes(run, x)
    # Lists of chunk starts and the like; one array of all steps would be 590 kB and more.
    assert many < some + 50_000, (some, many)
    # Some int64 and float64 values for each value of a chunk of the widest tensor.
    assert many < CHUNK_VALUES * 8 * 6, many


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("floats", [False, True])
def test_a_sequence_in_chunks_equals_the_whole(last: bool, batch: int, floats: bool) -> None:
    program = program_of(spec_of(6, 8, last=last))
    chunked, whole = program.session(batch), program.session(batch)
    chunked._chunk_steps, steps = 4, 19
    x: Array = np.random.default_rng(4).normal(size=(batch, steps, 6)).astype(np.float32)
    if not floats:
        x = program.input_tensor.quantize(x)
    np.testing.assert_array_equal(chunked.run(x), whole.run(x))
    for name, value in whole.state.items():
        np.testing.assert_array_equal(chunked.state[name], value)
    for lengths in ([19, 4, 5], [1, 8, 12], [16, 19, 3]):
        chunked.reset()
        whole.reset()
        valid = np.array(lengths[:batch])
        np.testing.assert_array_equal(chunked.run(x, valid), whole.run(x, valid))


def test_a_nan_far_into_a_sequence_is_refused_before_any_state_moves() -> None:
    program = program_of(spec_of(6, 8))
    session = program.session()
    session._chunk_steps = 4
    x = np.ones((1, 19, 6), np.float32)
    x[0, 17, 2] = np.nan
    before = session.state
    with pytest.raises(ValueError, match="1 values are NaN"):
        session.run(x)
    for name, value in session.state.items():
        np.testing.assert_array_equal(before[name], value)


@pytest.mark.usefixtures("traced")
def test_sessions_share_a_large_head() -> None:
    random = np.random.default_rng(5)
    head = Dense("head", uniform(random, 400, 300), uniform(random, 400))
    program = program_of(ModelSpec("head", Signal("sequence", 300), (head,)))
    keep = [program.session(), program.session()]
    gc.collect()
    start, _ = tracemalloc.get_traced_memory()
    keep += [program.session() for _ in range(10)]
    # Of 120,000 weights, nothing; of 700 values, some float64 arrays.
    assert (tracemalloc.get_traced_memory()[0] - start) / 10 < 50_000


@pytest.mark.usefixtures("traced")
def test_many_sessions_share_one_programs_weights() -> None:
    """A session's own memory: its buffers, about 300 bytes a cell, and Python objects."""
    hidden = 128
    spec = spec_of(40, hidden)
    program = program_of(spec)
    keep = [program.session(), program.session()]
    gc.collect()
    start, _ = tracemalloc.get_traced_memory()
    keep += [program.session() for _ in range(40)]
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - start) / 40
    assert each < 40_000 + 2 * 300 * hidden, each
    assert each < program.weight_bytes() / 1.8

    floats = [FloatSession(spec), FloatSession(spec)]
    gc.collect()
    start, _ = tracemalloc.get_traced_memory()
    floats += [FloatSession(spec) for _ in range(20)]
    gc.collect()
    assert (tracemalloc.get_traced_memory()[0] - start) / 20 < 60_000
