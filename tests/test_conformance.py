"""Random models on the real interpreters: every byte of every profile.

Sizes, batches, gains up to saturation and beyond, time-major files, uniform and extreme inputs,
state that is carried over calls. ``EDGE_LSTM_MODELS`` sets how many models each profile gets,
``EDGE_LSTM_SEED`` which (`make fuzz` sets many new ones).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.arrays import Array
from edge_lstm.cells.lstm_integer import LstmKernel, LstmOp
from edge_lstm.program import Profile, Program
from edge_lstm_converters.tflite_schema import parse, serialize
from edge_lstm_converters.write_tflite import tflite_bytes
from interpreters import IN_PROCESS, elsewhere, missing
from strategies import random_bytes, random_program

MODELS = int(os.environ.get("EDGE_LSTM_MODELS", "300"))
SEED = int(os.environ.get("EDGE_LSTM_SEED", "1"))
CALLS = 3
"""Calls of each model; all but the last continue from the state of the one before."""


@dataclass(frozen=True, eq=False)
class Case:
    """One random model with its inputs."""

    program: Program
    data: bytes
    x: Array
    """int8 [calls, batch, time, features], as the Session takes it."""
    time_major: bool

    @property
    def file_x(self) -> Array:
        return self.x.swapaxes(1, 2) if self.time_major else self.x

    def from_file(self, y: Array) -> Array:
        return y.swapaxes(1, 2) if self.time_major else y


RESET = np.array([True, False, True])


def time_major(data: bytes) -> bytes:
    """Return a file of one LSTM with its sequences laid out [time, batch, features]."""
    model = parse(data, "test")
    (operator,) = model.operators
    swapped = {operator.inputs[0], operator.outputs[0]}
    tensors = tuple(
        replace(t, shape=(t.shape[1], t.shape[0], t.shape[2])) if k in swapped else t
        for k, t in enumerate(model.tensors)
    )
    options = replace(operator.options, time_major=True)
    return serialize(
        replace(model, tensors=tensors, operators=(replace(operator, options=options),))
    )


def cases(profile: Profile, count: int, seed: int) -> Iterator[Case]:
    random = np.random.default_rng(seed)
    for number in range(count):
        program = random_program(random, profile, head=number % 3 == 0)
        batch = int(random.integers(1, 4)) if number % 2 else 1
        steps = int(random.integers(1, 20))
        data = tflite_bytes(program, steps, batch)
        turned = number % 6 == 1
        if turned:
            data = time_major(data)
        x = np.stack([random_bytes(random, program, batch, steps) for _ in range(CALLS)])
        yield Case(program, data, x, turned)


def ours(case: Case) -> Array:
    session = case.program.session(case.x.shape[1])
    results = []
    for x, reset in zip(case.x, RESET, strict=True):
        if reset:
            session.reset()
        results.append(session.run(x))
    return np.stack(results)


def check(case: Case, number: int, theirs: Array) -> int:
    got, want = ours(case), case.from_file(theirs)
    assert got.shape == want.shape
    differing = int((got != want).sum())
    assert differing == 0, (
        f"model {number}: {differing} of {got.size} bytes differ, first at"
        f" {np.argwhere(got != want)[0].tolist()}"
    )
    return got.size


@pytest.mark.parametrize("profile", list(IN_PROCESS))
def test_random_models_equal_the_interpreter(profile: Profile) -> None:
    reason = missing(profile)
    if reason is not None:
        pytest.skip(reason)
    total = 0
    for number, case in enumerate(cases(profile, MODELS, seed=SEED)):
        total += check(case, number, IN_PROCESS[profile](case.data, case.file_x, RESET))
    assert total > 500 * MODELS


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param("tflite-runtime", marks=pytest.mark.tflite_runtime),
        pytest.param("tflm-2026-08", marks=pytest.mark.tflm_2026_08),
    ],
)
def test_random_models_equal_the_interpreter_elsewhere(profile: Profile, tmp_path: Path) -> None:
    reason = missing(profile)
    if reason is not None:
        pytest.skip(reason)
    for first in range(0, MODELS, 100):
        count = min(100, MODELS - first)
        batch = dict(enumerate(cases(profile, count, seed=SEED + 1 + first)))
        theirs = elsewhere(
            profile,
            {str(k): (case.data, case.file_x, RESET) for k, case in batch.items()},
            tmp_path,
        )
        for number, case in batch.items():
            check(case, first + number, theirs[str(number)])


def test_the_check_can_fail() -> None:
    """One wrong byte is seen."""
    case = next(cases("tflm", 1, seed=3))
    theirs = ours(case)
    theirs.reshape(-1)[-1] ^= 1
    with pytest.raises(AssertionError, match="1 of"):
        check(case, 0, case.from_file(theirs))


@pytest.mark.parametrize("profile", ["tflm", "tflm-2026-08", "cmsis-nn", "litert", "litert-ref"])
def test_plain_and_fast_runtime_agree_on_the_same_models(profile: Profile) -> None:
    """The interpreters saw the fast form; the plain one is the documentation."""
    for case in cases(profile, 30, seed=4):
        op = case.program.ops[0]
        assert isinstance(op, LstmOp)
        lstm_only = replace(case.program, ops=(op,), output=op.output)
        plain = LstmKernel(op, lstm_only, case.x.shape[1])
        plain.reset()
        session = lstm_only.session(case.x.shape[1])
        np.testing.assert_array_equal(session.run(case.x[0]), plain.run([case.x[0]], None))


def test_whole_sequence_equals_step_by_step_and_batch_equals_one_by_one() -> None:
    random = np.random.default_rng(6)
    for case in cases("litert", 20, seed=5):
        program, x = case.program, case.x[0]
        whole = program.predict(x)
        session = program.session(len(x))
        steps = np.stack([session.step(x[:, t]) for t in range(x.shape[1])], axis=1)
        last = whole if whole.ndim == 3 else whole[:, None]
        np.testing.assert_array_equal(steps[:, -last.shape[1] :], last)
        rows = np.concatenate([program.predict(row[None]) for row in x])
        np.testing.assert_array_equal(rows, whole)
        cut = int(random.integers(0, x.shape[1]))
        if cut:
            halves = program.session(len(x))
            halves.run(x[:, :cut])
            again = program.session(len(x))
            again.state = halves.state
            end = again.run(x[:, cut:])
            np.testing.assert_array_equal(end, whole if whole.ndim == 2 else whole[:, cut:])
