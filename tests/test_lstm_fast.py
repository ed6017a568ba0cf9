"""The fast LSTM against the plain one: every byte and every state, on all its paths."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from edge_lstm.cells.lstm_fast import CHUNK_VALUES, FastLstmKernel
from edge_lstm.cells.lstm_integer import LstmKernel, LstmOp
from edge_lstm.cells.lstm_tables import NARROW_VALUES, fast_tables, output_is_decided
from edge_lstm.fixed_point import Factor, quantize_multiplier
from edge_lstm.program import PROFILES, Profile, Program
from strategies import profiles, random_bytes, random_program, seeds


def lstm_of(program: Program) -> LstmOp:
    op = program.ops[0]
    assert isinstance(op, LstmOp)
    return op


def compare(program: Program, random: np.random.Generator, batch: int, steps: int) -> str:
    """Run both kernels; return the path that the fast one took."""
    op = lstm_of(program)
    tables = fast_tables(op, program)
    if tables is None:
        return "plain only"
    plain, fast = LstmKernel(op, program, batch), FastLstmKernel(op, tables, batch)
    plain.reset()
    fast.reset()
    x = random_bytes(random, program, batch, steps)
    want = plain.run([x], None)
    np.testing.assert_array_equal(fast.run([x], None), want)
    for name, value in plain.state.items():
        np.testing.assert_array_equal(fast.state[name], value, name)
    fast.reset()
    stepped = np.stack([fast.step(x[:, t]) for t in range(steps)], axis=1)
    np.testing.assert_array_equal(stepped, want)
    fast.set_state(plain.state)
    np.testing.assert_array_equal(fast.step(x[:, 0]), plain.step(x[:, 0]))
    clips = tables.from_input.bounds is not None
    return ("narrow" if tables.recurrent.shift is not None else "wide") + " clips" * clips


@given(seed=seeds, profile=profiles)
def test_fast_lstm_equals_the_plain_one(seed: int, profile: Profile) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random, profile, head=False, largest=40)
    compare(program, random, int(random.integers(1, 4)), int(random.integers(1, 20)))


def test_every_path_of_the_fast_lstm_is_reached_and_equal() -> None:
    random = np.random.default_rng(11)
    paths: Counter[str] = Counter()
    for trial in range(60):
        program = random_program(random, PROFILES[trial % 6], head=False, largest=32)
        paths[compare(program, random, 1 + trial % 3, 12)] += 1
    for trial in range(6):
        program = large_program(random, PROFILES[trial])
        paths[compare(program, random, 1 + trial % 2, 6)] += 1
    assert {"wide", "wide clips", "narrow clips", "plain only"} <= set(paths), paths


def large_program(random: np.random.Generator, profile: Profile) -> Program:
    """Return an LSTM above the size from which weights are kept in float32."""
    while True:
        program = random_program(random, profile, head=False, largest=128)
        op = lstm_of(program)
        if op.input_weights.size + op.recurrent_weights.size > NARROW_VALUES:
            return program


def test_chunks_of_a_long_sequence_do_not_show() -> None:
    random = np.random.default_rng(5)
    program = random_program(random, "litert", head=False, largest=8)
    op = lstm_of(program)
    steps = CHUNK_VALUES // (4 * op.cell_count) + 7
    compare(program, random, 1, steps)


def test_a_hidden_scale_of_a_power_of_two_has_ties_and_they_round_away_from_zero() -> None:
    """With the multiplier 2**30 every second threshold is hit exactly."""
    random = np.random.default_rng(8)
    for trial in range(12):
        program = random_program(random, PROFILES[trial % 6], head=False, largest=16)
        op = replace(lstm_of(program), hidden_scale=2.0**-7, product_scale=2.0**-7)
        output = replace(program.tensors[1], scale=2.0**-7)
        program = replace(program, ops=(op,), tensors=(program.tensors[0], output))
        assert quantize_multiplier(2.0**-23).multiplier == 2**30
        compare(program, random, 2, 25)


@pytest.mark.parametrize("seed", range(40))
def test_output_is_decided_agrees_with_the_integers_at_every_threshold(seed: int) -> None:
    random = np.random.default_rng(seed)
    factor = Factor(int(random.integers(2**30, 2**31)), -int(random.integers(18, 25)))
    if not output_is_decided(factor):
        pytest.skip("this multiplier runs in the plain form")
    multiplier, right = factor.multiplier, -factor.shift
    for k in range(1, 257):
        threshold = (((k << right) - (1 << (right - 1))) << 31) - (1 << 30)
        first = -(-threshold // multiplier)
        for p, want in ((first, k), (first - 1, k - 1), (-first, -k), (1 - first, 1 - k)):
            high = (p * multiplier + (1 << 30)) >> 31
            magnitude = (abs(high) + (1 << (right - 1))) >> right
            exact = magnitude if high >= 0 else -magnitude
            rounding = 300.5 + 2.0**-41 + np.sign(p) * 2.0 ** (factor.shift - 1)
            floated = int(p * (multiplier * 2.0 ** (factor.shift - 31)) + rounding) - 300
            assert floated == exact
            if p != -first or first * multiplier > threshold:
                assert exact == want


def test_sessions_of_one_program_share_their_tables() -> None:
    program = random_program(np.random.default_rng(3), head=False, largest=8)
    first, second = (program.session()._kernels[0] for _ in range(2))
    assert isinstance(first, FastLstmKernel)
    assert isinstance(second, FastLstmKernel)
    assert first.tables is second.tables
