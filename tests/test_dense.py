"""Dense: one step in few calls gives the bytes of the plain form, ties and extremes included."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given

from edge_lstm.cells.dense import DenseKernel, DenseOp
from edge_lstm.program import PROFILES, Profile, Program, Tensor
from edge_lstm.spec import Signal
from strategies import FUSED, profiles, random_scale, seeds


def dense_program(
    random: np.random.Generator, profile: Profile, *, power_of_two: bool = False
) -> Program:
    features, outputs = int(random.integers(1, 60)), int(random.integers(1, 12))
    rows = outputs if random.random() < 0.3 else 1
    scales = [2.0**-5, 2.0**-6, 2.0**-4] if power_of_two else None
    if scales is None:
        scales = [random_scale(random, 0.001, 0.1) for _ in range(2)]
        scales.append(random_scale(random, 0.02, 0.5) * scales[0] * scales[1] * 1000)
    tensors = (
        Tensor("input", Signal("vector", features), "int8", scales[0], int(random.integers(-9, 9))),
        Tensor("output", Signal("vector", outputs), "int8", scales[2], int(random.integers(-9, 9))),
    )
    op = DenseOp(
        "dense",
        (0,),
        1,
        random.integers(-127, 128, (outputs, features)).astype(np.int8),
        random.integers(-5000, 5000, outputs).astype(np.int32),
        np.full(rows, scales[1], np.float32),
        FUSED[int(random.integers(0, 3))],
    )
    return Program("dense", profile, tensors, (op,), 0, 1)


def compare(program: Program, random: np.random.Generator, batch: int) -> bool:
    op = program.ops[0]
    assert isinstance(op, DenseOp)
    kernel = DenseKernel(op, program, batch)
    for _ in range(20):
        x = random.integers(-128, 128, (batch, op.weights.shape[1])).astype(np.int8)
        np.testing.assert_array_equal(kernel.step(x), kernel.run([x], None))
    return kernel._step is not None


@given(seed=seeds, profile=profiles)
def test_a_step_equals_the_plain_form(seed: int, profile: Profile) -> None:
    random = np.random.default_rng(seed)
    compare(dense_program(random, profile), random, int(random.integers(1, 4)))


def test_ties_round_alike_in_both_forms() -> None:
    """Scales of powers of two put every other accumulator on a tie."""
    random = np.random.default_rng(1)
    fast: Counter[Profile] = Counter()
    for trial in range(60):
        profile = PROFILES[trial % len(PROFILES)]
        program = dense_program(random, profile, power_of_two=True)
        fast[profile] += compare(program, random, 2)
    assert {p for p, count in fast.items() if count} == set(PROFILES) - {"litert-ref"}
