"""The fast LSTM against the plain one: every byte and every state, on all its paths."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from edge_lstm.cells.lstm_fast import CHUNK_STEPS, FastLstmKernel
from edge_lstm.cells.lstm_integer import LstmKernel, LstmOp
from edge_lstm.cells.lstm_tables import FORMS, NARROW_VALUES, fast_tables, output_is_decided
from edge_lstm.fixed_point import Factor, quantize_multiplier
from edge_lstm.program import PROFILES, Profile, Program
from strategies import profiles, random_bytes, random_program, seeds


def lstm_of(program: Program) -> LstmOp:
    op = program.ops[0]
    assert isinstance(op, LstmOp)
    return op


def compare(program: Program, random: np.random.Generator, batch: int, steps: int) -> set[str]:
    """Run the plain kernel and the fast one in each of its forms; return those there were."""
    op = lstm_of(program)
    plain = LstmKernel(op, program, batch)
    plain.reset()
    x = random_bytes(random, program, batch, steps)
    want, state = plain.run([x], None), plain.state
    after = plain.step(x[:, 0]).copy()
    paths = set()
    for form in FORMS:
        tables = fast_tables(op, program, [form])
        if tables is None:
            continue
        fast = FastLstmKernel(op, tables, batch)
        fast.reset()
        np.testing.assert_array_equal(fast.run([x], None), want, form)
        for name, value in state.items():
            np.testing.assert_array_equal(fast.state[name], value, f"{form} {name}")
        fast.reset()
        stepped = np.stack([fast.step(x[:, t]) for t in range(steps)], axis=1)
        np.testing.assert_array_equal(stepped, want, form)
        fast.set_state(state)
        np.testing.assert_array_equal(fast.step(x[:, 0]), after, form)
        ties = tables.from_input.ties or tables.recurrent.ties
        clips = tables.from_input.bounds is not None
        paths.add(form + " ties" * (ties and form == "rounded") + " clips" * clips)
    return paths


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
        paths.update(compare(program, random, 1 + trial % 3, 12))
    for trial in range(6):
        program = large_program(random, PROFILES[trial])
        paths.update(compare(program, random, 1 + trial % 2, 6))
    every = {f"{form}{clips}" for form in (*FORMS, "rounded ties") for clips in ("", " clips")}
    assert every <= set(paths), paths


def test_every_form_rounds_the_ties_of_both_roundings() -> None:
    """Weight scales of powers of two: every sum but one in 2**s is a tie of one of them."""
    random = np.random.default_rng(21)
    reached: Counter[str] = Counter()
    for trial in range(36):
        program = random_program(random, PROFILES[trial % 6], head=False, largest=16)
        source = replace(program.tensors[0], scale=2.0**-6)
        scales = np.float32(2.0) ** random.integers(-12, -3, (2, 4)).astype(np.float32)
        op = replace(
            lstm_of(program),
            hidden_scale=2.0**-7,
            product_scale=2.0**-7,
            input_weight_scales=scales[0],
            recurrent_weight_scales=scales[1],
        )
        output = replace(program.tensors[1], scale=2.0**-7)
        program = replace(program, ops=(op,), tensors=(source, output))
        reached.update(compare(program, random, 1 + trial % 2, 15))
    assert {"folded", "rounded ties"} <= {path.removesuffix(" clips") for path in reached}, reached


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
    for batch in (1, 3):
        assert compare(program, random, batch, 2 * CHUNK_STEPS + 7)


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
