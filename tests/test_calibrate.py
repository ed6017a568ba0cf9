"""Calibration and quantization: what is seen, and the scales that follow."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.calibrate import CHUNK_STEPS, calibrate
from edge_lstm.cells import Activation, Dense, DenseOp, Dropout, LastStep, Lstm, LstmOp
from edge_lstm.errors import CalibrationError, UnsupportedModel, UsageError
from edge_lstm.program import Range, asymmetric_scale
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec, Signal
from strategies import lstm_layer, random_spec, uniform

RANDOM = np.random.default_rng(3)
LSTM = lstm_layer(RANDOM, "lstm", 3, 5)
SPEC = ModelSpec("m", Signal("sequence", 3), (LSTM,))


def test_every_step_of_every_sequence_is_observed_from_zero_state() -> None:
    x = RANDOM.normal(0, 1, (7, 6, 3)).astype(np.float32)
    ranges = calibrate(SPEC, x)
    alone = [float_reference.run(SPEC, row[None]) for row in x]
    assert ranges["lstm.output"].low == pytest.approx(min(y.min() for y in alone), rel=1e-6)
    assert ranges["lstm.output"].high == pytest.approx(max(y.max() for y in alone), rel=1e-6)
    # float32 to float64 is exact
    assert ranges["input"] == Range(float(x.min()), float(x.max()))


def test_a_peak_inside_a_sequence_is_seen() -> None:
    """TensorFlow's calibrator looks at the cell state only between calls."""
    x = np.zeros((1, 20, 3), np.float32)
    x[0, 8] = 5.0
    states: dict[str, np.ndarray] = {}
    float_reference.run(SPEC, x, state=states)
    seen = calibrate(SPEC, x)["lstm.cell_state"].magnitude
    assert seen > np.abs(states["lstm.cell"]).max()


def test_padding_is_not_observed() -> None:
    x = RANDOM.normal(0, 1, (2, 6, 3)).astype(np.float32)
    padded = x.copy()
    padded[1, 2:] = 1e6
    lengths = np.array([6, 2])
    ranges = calibrate(SPEC, padded, lengths)
    assert ranges["input"].high < 10
    row = float_reference.run(SPEC, x[1:, :2])
    np.testing.assert_allclose(float_reference.run(SPEC, padded, lengths)[1, :2], row[0])


def test_chunks_change_nothing_and_progress_reaches_the_end() -> None:
    steps = CHUNK_STEPS // 4
    x = np.random.default_rng(0).normal(0, 1, (9, steps, 1)).astype(np.float32)
    spec = ModelSpec("m", Signal("sequence", 1), (lstm_layer(RANDOM, "lstm", 1, 1),))
    shown: list[tuple[int, int]] = []
    ranges = calibrate(spec, x, progress=lambda done, total: shown.append((done, total)))
    assert shown == [(4, 9), (8, 9), (9, 9)]
    assert ranges["input"].high == x.max()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 6, 3), np.float32), "all samples are 0.0"),
        (np.zeros((4, 6), np.float32), r"shape \[4, 6\]; want \[batch, time, 3\]"),
        (np.zeros((4, 6, 2), np.float32), r"want \[batch, time, 3\]"),
        (np.zeros((0, 6, 3), np.float32), r"shape \[0, 6, 3\]"),
        (np.full((4, 6, 3), np.inf, np.float32), "72 of 72 values are NaN or infinite"),
        (np.array([[["a"] * 3]]), "want float32"),
    ],
)
def test_useless_calibration_data_is_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        calibrate(SPEC, x)


def test_wrong_lengths_are_refused() -> None:
    x = np.ones((2, 4, 3), np.float32)
    with pytest.raises(UsageError, match="1 to 5; want 1 to 4"):
        calibrate(SPEC, x, np.array([1, 5]))
    with pytest.raises(UsageError, match=r"want integers \[2\]"):
        calibrate(SPEC, x, np.array([1, 2, 3]))


def test_zero_is_exact_in_every_activation_scale() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0)):
        scale, zero_point = asymmetric_scale(Range(low, high), "x")
        assert scale == np.float32((max(high, 0) - min(low, 0)) / np.float32(255))
        assert -128 <= zero_point <= 127


def test_a_range_of_zeros_is_refused_by_the_tensor_s_name() -> None:
    x = np.ones((1, 2, 3), np.float32)
    ranges = calibrate(SPEC, x)
    with pytest.raises(CalibrationError, match=r"lstm\.output: all calibration samples are 0.0"):
        quantize(SPEC, {**ranges, "lstm.output": Range(0.0, 0.0)})
    del ranges["lstm.output"]
    with pytest.raises(CalibrationError, match=r"lstm\.output: calibration gave no range"):
        quantize(SPEC, ranges)


def quantized_lstm(peak: float) -> tuple[LstmOp, tuple[str, ...]]:
    ranges = calibrate(SPEC, np.ones((1, 2, 3), np.float32))
    program = quantize(SPEC, {**ranges, "lstm.cell_state": Range(-peak, peak / 2)})
    op = program.ops[0]
    assert isinstance(op, LstmOp)
    return op, program.warnings


@pytest.mark.parametrize(
    ("peak", "power"), [(0.01, -15), (1.0, -15), (1.01, -14), (17.0, -10), (64.0, -9)]
)
def test_the_cell_scale_is_a_power_of_two_that_every_interpreter_takes(
    peak: float, power: int
) -> None:
    op, warnings = quantized_lstm(peak)
    assert op.cell_power == power
    assert not warnings


def test_a_cell_beyond_64_is_said() -> None:
    op, warnings = quantized_lstm(100.0)
    assert op.cell_power == -9
    assert "calibration saw 100.0" in warnings[0]


def test_the_writer_rules_hold() -> None:
    """Weights in [-127, 127], one scale a matrix, three hidden quantizations alike."""
    op, _ = quantized_lstm(3.0)
    assert np.abs(op.input_weights.astype(int)).max() == 127
    assert np.abs(op.recurrent_weights.astype(int)).max() == 127
    assert op.input_weight_scales.shape == (4,)
    assert (op.product_scale, op.product_zero_point) == (op.hidden_scale, op.hidden_zero_point)
    gate = LSTM.gates[2]
    np.testing.assert_allclose(
        op.input_weights[2] * op.input_weight_scales[2],
        gate.input_weights,
        atol=op.input_weight_scales[2] / 1.99,  # half a step, and float32's rounding of the scale
    )


def test_relu_is_fused_and_dropout_disappears() -> None:
    layers = (
        LSTM,
        Dropout("drop"),
        LastStep("last"),
        Dense("dense", uniform(RANDOM, 4, 5), uniform(RANDOM, 4)),
        Activation("relu", "relu"),
    )
    spec = ModelSpec("m", Signal("sequence", 3), layers)
    x = RANDOM.normal(0, 1, (20, 5, 3)).astype(np.float32)
    ranges = calibrate(spec, x)
    program = quantize(spec, ranges)
    assert [op.name for op in program.ops] == ["lstm", "last", "dense"]
    dense = program.ops[-1]
    assert isinstance(dense, DenseOp)
    assert dense.activation == "relu"
    # The output's scale is that of the values behind the ReLU.
    assert program.output_tensor.scale == np.float32(ranges["relu.output"].high / 255)


@pytest.mark.parametrize("seed", range(25))
def test_int8_is_close_to_float_on_random_models(seed: int) -> None:
    """Signal to noise above 20 dB: int8 steps on values that fill their range give 30 to 45."""
    random = np.random.default_rng(seed)
    spec = random_spec(random)
    x = random.normal(0, 1, (40, 12, spec.input.size)).astype(np.float32)
    want = float_reference.run(spec, x)
    if float(np.ptp(want)) < 0.02:
        pytest.skip("the head gives a constant: there is no signal to compare with noise")
    got = quantize(spec, calibrate(spec, x)).predict(x)
    signal, noise = np.var(want), np.mean((got - want) ** 2)
    assert 10 * np.log10(signal / noise) > 20 or np.abs(got - want).max() < 0.02


def test_initial_state_is_the_model_s_first_state() -> None:
    first = np.linspace(-0.5, 0.5, 5).astype(np.float32)
    started = Lstm("lstm", LSTM.gates, initial_hidden=first, initial_cell=2 * first)
    spec = ModelSpec("m", Signal("sequence", 3), (started,))
    x = RANDOM.normal(0, 1, (30, 3, 3)).astype(np.float32)
    rows = np.tile(first.astype(np.float64), (30, 1))
    state = {"lstm.hidden": rows, "lstm.cell": 2 * rows}
    want = float_reference.run(SPEC, x, state=state)
    np.testing.assert_allclose(float_reference.run(spec, x), want)
    got = quantize(spec, calibrate(spec, x)).predict(x)
    assert np.abs(got - want).max() < 0.05 < np.abs(float_reference.run(SPEC, x) - want).max()


def test_models_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"layer 'dense' \(dense\): is fed sequence"):
        ModelSpec(
            "m",
            Signal("sequence", 3),
            (LSTM, Dense("dense", uniform(RANDOM, 4, 6), uniform(RANDOM, 4))),
        )
    bad = uniform(RANDOM, 4, 5)
    bad[1, 2] = np.nan
    with pytest.raises(UnsupportedModel, match="1 of 20 weights are NaN or infinite"):
        ModelSpec("m", Signal("sequence", 3), (LSTM, Dense("dense", bad, uniform(RANDOM, 4))))
    with pytest.raises(UsageError, match="must be a C identifier"):
        ModelSpec("my-model", Signal("sequence", 3), (LSTM,))
