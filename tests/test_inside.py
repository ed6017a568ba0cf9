"""Signals inside a model, integers against float: every name, and faults that must be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_lstm.arrays import F32
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Bidirectional, Dense, Gate, Gru, LastStep, Layer, Lstm, LstmOp
from edge_lstm.program import Profile
from edge_lstm.quantize import quantize
from edge_lstm.records import SignalFidelity
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_benchmarks.inside import MOST_STEPS, analyse

X = np.random.default_rng(0).normal(size=(20, 12, 3)).astype(np.float32)


def lstm(name: str, features: int, hidden: int = 8) -> Lstm:
    rng = np.random.default_rng(len(name) + features)

    def values(*size: int) -> F32:
        return rng.normal(0, 0.4, size).astype(np.float32)

    gates = tuple(
        Gate(values(hidden, features), values(hidden, hidden), values(hidden)) for _ in "ifgo"
    )
    return Lstm(name, gates)  # type: ignore[arg-type]


def head(features: int) -> tuple[Layer, Layer]:
    weights = np.random.default_rng(9).normal(size=(2, features)).astype(np.float32)
    return LastStep("last"), Dense("head", weights, np.zeros(2, np.float32))


def model(*layers: Layer) -> ModelSpec:
    return ModelSpec("m", Signal("sequence", 3), layers)


def signals(spec: ModelSpec, x: F32 = X) -> dict[str, SignalFidelity]:
    found = analyse(spec, quantize(spec, calibrate(spec, X)), x)
    assert found.sequences == len(x)
    return {signal.name: signal for signal in found.signals}


def test_every_layer_gate_and_state_is_there_in_order_of_computation() -> None:
    found = signals(model(lstm("one", 3), lstm("two", 8), *head(8)))
    inside = [f"{gate}_gate" for gate in ("input", "forget", "cell", "output")] + ["cell_state"]
    want = ["input"]
    for layer in ("one", "two"):
        want += [f"{layer}.{name}" for name in inside] + [f"{layer}.output"]
    assert list(found) == [*want, "head.output"]
    for signal in found.values():
        # 8 bits over the range that calibration saw: 6 dB a bit, less what one loses in 12 steps.
        assert signal.snr_db > 25, signal
        assert signal.cosine > 0.99


def test_both_directions_are_compared_in_the_order_in_which_they_ran() -> None:
    both = Bidirectional("bi", lstm("fore", 3), lstm("back", 3))
    found = signals(model(both, *head(16)))
    assert any("back" in name and name.endswith("cell_state") for name in found)
    assert all(signal.snr_db > 25 for signal in found.values()), found


@pytest.mark.parametrize("profile", ["edge", "tflm"])
def test_gates_of_a_gru_are_there_in_each_form_that_it_has(profile: Profile) -> None:
    rng = np.random.default_rng(4)

    def values(*size: int) -> F32:
        return rng.normal(0, 0.4, size).astype(np.float32)

    gates = tuple(Gate(values(8, 3), values(8, 8), values(8)) for _ in "zrn")
    spec = model(Gru("gru", gates, values(8)), *head(8))  # type: ignore[arg-type]
    found = analyse(spec, quantize(spec, calibrate(spec, X), profile=profile), X)
    by_name = {signal.name: signal for signal in found.signals}
    # The edge kernel keeps its candidate to itself.
    words = ("update", "reset", "candidate")[: 2 if profile == "edge" else 3]
    for word in words:
        signal = by_name[f"gru.{word}_gate"]
        assert (signal.kind, len(signal.error_over_time)) == ("gate", 12)
        assert signal.snr_db > 25
    assert by_name["gru.output"].snr_db > 25


def test_gates_and_cell_of_the_edge_lstm_are_there() -> None:
    spec = model(lstm("one", 3), *head(8))
    found = analyse(spec, quantize(spec, calibrate(spec, X), profile="edge"), X)
    kinds = {signal.name: signal.kind for signal in found.signals}
    want = dict.fromkeys((f"one.{g}_gate" for g in ("input", "forget", "cell", "output")), "gate")
    assert kinds.items() >= (want | {"one.cell_state": "state", "one.output": "output"}).items()
    assert all(signal.snr_db > 25 for signal in found.signals)


def test_error_over_time_grows_where_the_integers_go_astray() -> None:
    spec = model(lstm("one", 3))
    program = quantize(spec, calibrate(spec, X))
    (op,) = program.ops
    assert isinstance(op, LstmOp)
    forgets_less = op.bias.copy()
    forgets_less[1] += 3000
    astray = replace(program, ops=(replace(op, bias=forgets_less),))
    right, wrong = ({s.name: s for s in analyse(spec, p, X).signals} for p in (program, astray))
    cell = "one.cell_state"
    assert wrong[cell].snr_db < right[cell].snr_db - 10
    curve = wrong[cell].error_over_time
    # The first state is zero: nothing is there to be forgotten too little.
    assert curve[0] == right[cell].error_over_time[0]
    assert curve[-1] > 10 * curve[0]
    # Nothing else in the first step was touched.
    assert wrong["one.cell_gate"].error_over_time[0] == right["one.cell_gate"].error_over_time[0]
    assert wrong["one.forget_gate"].snr_db < 25 < wrong["input"].snr_db


def test_inputs_beyond_calibration_are_counted_as_saturated() -> None:
    spec = model(lstm("one", 3))
    inside, beyond = signals(spec)["input"], signals(spec, 3 * X)["input"]
    assert inside.values == X.size
    assert inside.saturated <= 2  # the least and the greatest that calibration saw
    program = quantize(spec, calibrate(spec, X))
    integers = program.input_tensor.quantize(3 * X)
    assert beyond.saturated == int(np.isin(integers, (-128, 127)).sum()) > 10


def test_long_sequences_are_cut_and_the_curve_has_their_steps() -> None:
    spec = model(lstm("one", 3, 2))
    program = quantize(spec, calibrate(spec, X))
    long = np.tile(X[:1], (1, MOST_STEPS // 6, 1))
    found = analyse(spec, program, long)
    assert found.steps[0] == 0
    assert found.steps[-1] == MOST_STEPS - 1
    assert len(found.steps) == 100
    assert all(len(s.error_over_time) == 100 for s in found.signals)


def test_a_vector_has_no_curve_over_time() -> None:
    found = signals(model(lstm("one", 3), *head(8)))
    assert found["head.output"].error_over_time == ()
    assert len(found["one.output"].error_over_time) == 12
    assert "last.output" not in found
