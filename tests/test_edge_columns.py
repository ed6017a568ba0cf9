"""What calibration's moments decide of the `edge` weights: their rounding, shifts, and tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import F32
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Embedding, Gate, Lstm
from edge_lstm.cells.edge_columns import Columns
from edge_lstm.cells.edge_embedding import even_embedding
from edge_lstm.cells.edge_lstm import EdgeLstmOp
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec, Signal


def gates(random: np.random.Generator, features: int, hidden: int) -> tuple[Gate, ...]:
    return tuple(
        Gate(
            random.normal(0, features**-0.5, (hidden, features)).astype(np.float32),
            random.normal(0, hidden**-0.5, (hidden, hidden)).astype(np.float32),
            random.normal(0, 0.5, hidden).astype(np.float32),
        )
        for _ in range(4)
    )


def lstm(random: np.random.Generator, features: int, hidden: int) -> Lstm:
    i, f, g, o = gates(random, features, hidden)
    return Lstm("lstm", (i, f, g, o))


def test_moments_are_the_mean_products_of_all_valid_steps() -> None:
    random = np.random.default_rng(0)
    spec = ModelSpec("m", Signal("sequence", 3), (lstm(random, 3, 4),))
    x = random.normal(2, 1, (6, 5, 3)).astype(np.float32)
    x[:, :, 2] = x[:, :, 0]
    lengths = np.array([5, 4, 3, 5, 1, 2])
    x[4, 1:] = 1e6  # padding, which no one may look at
    moments = calibrate(spec, x, lengths)["input"].moments
    assert moments is not None
    assert moments.shape == (4, 4)
    assert moments[3, 3] == 1.0
    assert np.allclose(moments, moments.T)
    assert np.isclose(moments[0, 0], moments[0, 2])
    assert 1.0 < moments[0, 3] < 3.0  # the mean is 2


def test_a_few_loud_steps_do_not_decide_the_moments() -> None:
    random = np.random.default_rng(1)
    spec = ModelSpec("m", Signal("sequence", 3), (lstm(random, 3, 4),))
    x = random.normal(0, 1, (50, 20, 3)).astype(np.float32)
    x[:1] *= 1000
    moments = calibrate(spec, x)["input"].moments
    assert moments is not None
    # Their share of 2 % would make the mean square 20,000.
    assert np.diag(moments).max() < 2.0


def test_errors_of_rounding_make_up_for_each_other() -> None:
    random = np.random.default_rng(2)
    mixed = random.normal(0, 20, (2000, 6)) @ random.normal(0, 1, (6, 24))
    activations = mixed + random.normal(0, 2, (2000, 24))
    ones = np.ones(24)
    columns = Columns(ones, 128 * ones, 0 * ones, 0 * ones, np.cov(activations.T))
    grid = random.normal(0, 40, (32, 24))
    fed_back = columns.rounded(grid) - grid
    alone = columns.apart().rounded(grid) - grid
    assert np.array_equal(alone, np.rint(grid) - grid)
    errors = [np.square(activations @ off.T).mean() for off in (fed_back, alone)]
    assert errors[0] < errors[1] / 2


def test_an_embedding_is_evened_to_the_same_function() -> None:
    random = np.random.default_rng(3)
    table = (random.normal(0, 1, (20, 5)) * [1, 0.1, 3, 0, 1]).astype(np.float32)
    spec = ModelSpec("m", Signal("tokens", 20), (Embedding("words", table), lstm(random, 5, 6)))
    x = random.integers(0, 20, (8, 12)).astype(np.int32)
    ranges = calibrate(spec, x)
    layers, known = even_embedding(spec.layers, ranges)
    even = ModelSpec("m", Signal("tokens", 20), layers)
    want = float_reference.run(spec, x)
    assert np.abs(float_reference.run(even, x) - want).max() < 1e-6  # float32 tables
    fresh = calibrate(even, x)["words.output"].moments
    moved = known["words.output"].moments
    assert fresh is not None
    assert moved is not None
    # Not equal: steps count by their loudness, which stretching changes.
    assert fresh.shape == moved.shape
    first = layers[0]
    assert isinstance(first, Embedding)
    assert np.allclose(np.abs(first.table).max(axis=0)[[0, 1, 2, 4]], np.abs(table).max())


def test_a_16_bit_input_that_spans_decades_leaves_the_hidden_state_its_bits() -> None:
    random = np.random.default_rng(4)
    parts = gates(random, 4, 12)
    x = random.normal(0, 1, (16, 60, 4)).astype(np.float32)

    def hidden_shift(gain: np.float32, x: F32) -> int:
        i, f, g, o = (replace(gate, input_weights=gate.input_weights * gain) for gate in parts)
        spec = ModelSpec("m", Signal("sequence", 4), (Lstm("lstm", (i, f, g, o)),))
        op = quantize(spec, calibrate(spec, x), "edge", "int16").ops[0]
        assert isinstance(op, EdgeLstmOp)
        return op.hidden_shift

    # Weights of like size: 128ths and 32768ths share a scale where the 128ths are shifted.
    assert hidden_shift(np.float32(1), x) >= 4
    # Great weights for an input that is mostly near 0, as mel powers are.
    seldom = x * np.exp(random.normal(-6, 2, (16, 60, 1))).astype(np.float32)
    assert hidden_shift(np.float32(300), seldom) <= 2
