"""Random graphs on the real interpreters: every byte of every profile.

As tests/test_conformance.py, for whole models: stacked, parallel and bidirectional LSTMs, batch-
and time-major, with variants, heads and int16 activations. ``EDGE_LSTM_GRAPHS`` sets how many
each profile gets (`make fuzz` sets many), ``EDGE_LSTM_SEED`` which.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import interpreters
from edge_lstm.arrays import Array
from edge_lstm.cells import LstmOp
from edge_lstm.program import Profile, Program
from edge_lstm_converters.read_tflite import program_from_bytes
from edge_lstm_converters.write_tflite import tflite_bytes
from random_graphs import RandomGraph, can_turn, turned

GRAPHS = int(os.environ.get("EDGE_LSTM_GRAPHS", "60"))
WIDE_GRAPHS = int(os.environ.get("EDGE_LSTM_GRAPHS", "300"))
SEED = int(os.environ.get("EDGE_LSTM_SEED", "1"))
RESET = np.array([True, False, True])
"""The second call continues from the state of the first."""


@dataclass(frozen=True, eq=False)
class Case:
    """One random graph with its inputs, [calls, batch, time, ...]."""

    program: Program
    data: bytes
    x: Array
    time_major: bool

    @property
    def file_x(self) -> Array:
        return self.x.swapaxes(1, 2) if self.time_major else self.x

    def from_file(self, y: Array) -> Array:
        swaps = self.time_major and self.program.output_tensor.signal.kind == "sequence"
        return y.swapaxes(1, 2) if swaps else y


def cases(profile: Profile, count: int, dtype: Literal["int8", "int16"] = "int8") -> Iterator[Case]:
    for number in range(count):
        random = np.random.default_rng([SEED, number, dtype == "int16"])
        steps, batch = int(random.integers(1, 10)), int(random.integers(1, 4))
        graph = RandomGraph(random, profile, dtype, steps)
        program = graph.program()
        data = tflite_bytes(program, steps, batch)
        time_major = number % 3 == 1 and can_turn(program)
        if time_major:
            data = turned(data)
        yield Case(program, data, graph.inputs(program, len(RESET), batch), time_major)


def check(case: Case, number: int, theirs: Array) -> int:
    """Hold the program, and what is read from its file, to the interpreter's bytes."""
    want = case.from_file(theirs)
    read = program_from_bytes(case.data, "m.tflite", case.program.profile)
    for program in (case.program, read):
        session = program.session(case.x.shape[1])
        results = []
        for x, reset in zip(case.x, RESET, strict=True):
            if reset:
                session.reset()
            results.append(session.run(x))
        got = np.stack(results)
        what = f"graph {number}: {[op.type_name for op in program.ops]}"
        np.testing.assert_array_equal(got, want, err_msg=what, strict=True)
    kinds = [[op.type_name for op in program.ops] for program in (case.program, read)]
    # A Flatten is read behind the elementwise ops that follow it: the same bytes.
    if not case.time_major and kinds[0] == kinds[1]:
        assert read.fingerprint() == case.program.fingerprint()
    return int(want.size)


@pytest.mark.parametrize("profile", list(interpreters.IN_PROCESS))
def test_random_graphs_equal_the_interpreter(profile: Profile) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    total = 0
    for number, case in enumerate(cases(profile, GRAPHS)):
        theirs = interpreters.run(profile, case.data, case.file_x, RESET)
        total += check(case, number, theirs)
    print(f"{profile}: {GRAPHS} graphs, {total} values")


def test_random_graphs_of_int16_equal_the_interpreter() -> None:
    if reason := interpreters.missing("tflm"):
        pytest.skip(reason)
    total = 0
    for number, case in enumerate(cases("tflm", WIDE_GRAPHS, "int16")):
        theirs = interpreters.run("tflm", case.data, case.file_x, RESET)
        total += check(case, number, theirs)
    print(f"tflm: {WIDE_GRAPHS} graphs of int16, {total} values")


@pytest.mark.parametrize(
    ("profile", "dtype"),
    [
        pytest.param(*pair, marks=getattr(pytest.mark, pair[0].replace("-", "_")))
        for pair in (
            ("tflite-runtime", "int8"),
            ("tflm-2026-08", "int8"),
            ("tflm-2026-08", "int16"),
        )
    ],
)
def test_random_graphs_equal_the_interpreter_elsewhere(
    profile: Profile, dtype: Literal["int8", "int16"], tmp_path: Path
) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    batch = dict(enumerate(cases(profile, GRAPHS if dtype == "int8" else WIDE_GRAPHS, dtype)))
    theirs = interpreters.elsewhere(
        profile, {str(k): (case.data, case.file_x, RESET) for k, case in batch.items()}, tmp_path
    )
    for number, case in batch.items():
        check(case, number, theirs[str(number)])


def test_the_graphs_have_every_op_that_a_file_can_have() -> None:
    """A campaign that never meets an op says nothing of it."""
    seen = {op.type_name for case in cases("litert", 60) for op in case.program.ops}
    assert seen == {
        "activation", "add", "concat", "dense", "embedding", "first_step", "flatten", "last_step",
        "lstm", "quantize", "reverse",
    }  # fmt: skip
    assert any(case.time_major for case in cases("litert", 60))
    lstms = [op for case in cases("litert", 60) for op in case.program.ops]
    variants = {variant for op in lstms if isinstance(op, LstmOp) for variant in op.variants}
    assert variants == {"CIFG", "peephole", "projection", "layer normalization"}


def test_the_check_can_fail() -> None:
    case = next(cases("tflm", 1))
    theirs = np.stack([case.program.predict(x) for x in case.x])
    theirs.reshape(-1)[0] ^= 1
    with pytest.raises(AssertionError):
        check(case, 0, case.from_file(theirs))
