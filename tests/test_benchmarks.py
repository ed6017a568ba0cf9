"""The harness: what it measures, and that faults of backends stay in their rows."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_lstm_benchmarks
from edge_lstm.backend import BenchModel
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Dense, Flatten, Gate, LastStep, Layer, Lstm
from edge_lstm.errors import UsageError
from edge_lstm.quantize import quantize
from edge_lstm.report import Counted, Report, Result
from edge_lstm.samples import Samples
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_benchmarks import BACKENDS, accuracy, select_backends
from edge_lstm_benchmarks.harness import BenchOptions, Standing, parse_scenario, run_bench
from edge_lstm_benchmarks.machine import describe_host
from edge_lstm_benchmarks.worker import read_message, write_message

QUICK = BenchOptions(rounds=2, slice_ms=1.0, warm_ms=0.1, cold_runs=0, inside=False)
PLANTED = (
    *("right", "slow", "wrong", "raises", "segfaults", "exits", "hangs", "missing", "no-python"),
    *("unbuildable", "chatty", "remembers", "fails-late", "cold", "five-rows"),
    *("counts", "one-process"),
)


def small_model(name: str = "small", *, sequence: bool = False) -> BenchModel:
    rng = np.random.default_rng(1)

    def gate() -> Gate:
        return Gate(*(rng.normal(0, 0.5, s).astype(np.float32) for s in ((4, 3), (4, 4), (4,))))

    layers: list[Layer] = [Lstm("lstm", (gate(), gate(), gate(), gate()))]
    if not sequence:
        layers.append(LastStep("last"))
    weights = rng.normal(size=(2, 4)).astype(np.float32)
    layers.append(Dense("head", weights, np.zeros(2, np.float32)))
    spec = ModelSpec(name, Signal("sequence", 3), tuple(layers))
    x = rng.normal(size=(20, 6, 3)).astype(np.float32)
    return BenchModel(name, spec, quantize(spec, calibrate(spec, x)))


def small_samples(*, with_lengths: bool = False) -> Samples:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 6, 3)).astype(np.float32)
    lengths = np.array([6, 3, 6, 1, 6, 4, 3, 6, 6, 2, 6, 6]) if with_lengths else None
    return Samples(x, lengths, rng.integers(0, 2, 12), where="samples")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the planted backends into the table."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    rows = dict.fromkeys(PLANTED, "planted_backends:Planted")
    monkeypatch.setattr(edge_lstm_benchmarks, "BACKENDS", BACKENDS | rows)
    monkeypatch.setattr("edge_lstm_benchmarks.remote.BACKENDS", BACKENDS | rows)


def bench(
    *names: str,
    model: BenchModel | None = None,
    samples: Samples | None = None,
    scenario: str = "stream",
    options: BenchOptions = QUICK,
) -> Report:
    model = model or small_model()
    return run_bench([model], samples or small_samples(), list(names), scenario, None, options)


def rows_of(report: Report) -> dict[str, Result]:
    return {result.backend: result for result in report.results}


@pytest.mark.usefixtures("planted")
def test_a_slow_backend_is_slower_and_both_are_right() -> None:
    rows = rows_of(bench("right", "slow"))
    fast, slow = rows["right"].latency_us, rows["slow"].latency_us
    assert fast is not None
    assert slow is not None
    # The planted clock moves 20 us or 3 ms for each call, whatever the machine does.
    assert (fast.p50, slow.p50) == (20.0, 3000.0)
    assert fast.n > slow.n >= QUICK.rounds
    assert rows["slow"].steps_per_s == pytest.approx(1 / 3e-3)
    assert rows["slow"].output_checksum == rows["right"].output_checksum


@pytest.mark.usefixtures("planted")
def test_a_first_call_that_is_slow_is_warmed_up_away() -> None:
    latency = rows_of(bench("cold"))["cold"].latency_us
    assert latency is not None
    assert (latency.min, latency.p99) == (20.0, 20.0)


@pytest.mark.usefixtures("planted")
def test_a_batch_is_what_is_judged_and_what_is_timed() -> None:
    row = rows_of(bench("five-rows", scenario="batch:5"))["five-rows"]
    assert row.skipped_reason is None
    assert row.latency_us is not None
    # Six steps of five rows in each call of 20 us.
    assert row.steps_per_s == pytest.approx(6 * 5 / 20e-6)


@pytest.mark.usefixtures("planted")
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not let a process choose CPUs"
)
def test_a_backend_runs_with_the_threads_and_on_the_cpu_that_the_report_states() -> None:
    report = bench("right")
    cpu = report.host["pinned_cpu"]
    assert rows_of(report)["right"].version == f"{report.host['threads']} thread on CPU {{{cpu}}}"


@pytest.mark.usefixtures("planted")
def test_a_wrong_backend_is_shown_by_its_bytes_its_checksum_and_its_agreement() -> None:
    report = bench("right", "wrong")
    rows = rows_of(report)
    right, wrong = rows["right"].fidelity, rows["wrong"].fidelity
    assert right is not None
    assert wrong is not None
    assert right.differing_bytes == 0
    assert wrong.differing_bytes == 12  # one byte of each of the 12 rows
    assert right.snr_db is not None
    assert wrong.snr_db is not None
    assert wrong.snr_db < right.snr_db
    assert rows["wrong"].output_checksum != rows["right"].output_checksum
    assert report.mismatches() == [
        "small, wrong: 12 of 24 bytes are not those of profile tflm; want 0"
    ]


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "RuntimeError: kernel failed at node 3"),
        ("fails-late", "RuntimeError: ran out of calls"),
        ("unbuildable", "ValueError: first line second line"),
        ("missing", "planted is not installed; pip install planted"),
        ("exits", "crashed: its process ended with exit status 7 (the engine gave up)"),
    ],
)
def test_a_failing_backend_is_a_row_with_one_line_and_the_others_run(
    name: str, reason: str
) -> None:
    report = bench("right", name)
    rows = rows_of(report)
    assert rows[name].skipped_reason == reason
    assert rows[name].latency_us is None
    assert rows["right"].latency_us is not None
    assert f"{name}  not run: {reason}" in report.text()


@pytest.mark.usefixtures("planted")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are named on POSIX systems only")
def test_a_backend_that_takes_its_process_down_is_a_row_with_the_signal() -> None:
    reason = rows_of(bench("segfaults", "right"))["segfaults"].skipped_reason
    assert reason is not None
    assert reason.startswith("crashed: its process ended with SIGSEGV")


@pytest.mark.usefixtures("planted")
def test_a_backend_whose_python_is_missing_is_a_row() -> None:
    reason = rows_of(bench("no-python"))["no-python"].skipped_reason
    assert reason is not None
    assert reason.startswith("/nowhere/python does not start")


@pytest.mark.usefixtures("planted")
def test_a_backend_that_hangs_is_ended() -> None:
    options = replace(QUICK, answer_limit_s=2.0)
    reason = rows_of(bench("hangs", options=options))["hangs"].skipped_reason
    assert reason == "hung: no answer in 2 s; its process was ended"


@pytest.mark.usefixtures("planted")
def test_an_engine_that_prints_does_not_disturb_the_messages() -> None:
    fidelity = rows_of(bench("chatty"))["chatty"].fidelity
    assert fidelity is not None
    assert fidelity.differing_bytes == 0


@pytest.mark.usefixtures("planted")
def test_a_backend_that_does_not_reset_is_found() -> None:
    row = rows_of(bench("remembers"))["remembers"]
    assert row.fidelity is not None
    assert row.fidelity.differing_bytes
    assert row.warning is not None
    assert row.warning.startswith("the timed session gives other outputs")


@pytest.mark.usefixtures("planted")
def test_measuring_ends_when_the_median_is_known() -> None:
    options = replace(QUICK, rounds=50, least_rounds=7)
    timing = rows_of(bench("right", options=options))["right"].timing
    assert timing is not None
    # The planted clock makes every call alike.
    assert (timing.rounds, timing.stable, timing.noise) == (7, True, None)
    assert timing.median_interval_us == (20.0, 20.0)
    assert timing.processor_share == 1.0


def test_a_fresh_process_tells_cold_start_memory_and_packages() -> None:
    options = replace(QUICK, cold_runs=2, cold_limit_s=100.0)
    row = rows_of(bench("numpy-int8:tflm", options=options))["numpy-int8:tflm"]
    assert row.cold_start is not None
    assert row.cold_start.runs == 2
    assert 0 < row.cold_start.load_ms + row.cold_start.first_ms < row.cold_start.total_ms
    assert row.peak_memory_bytes is not None
    assert row.base_memory_bytes is not None
    assert row.base_memory_bytes <= row.peak_memory_bytes
    assert row.packages == ("numpy",)
    assert row.package_bytes is not None
    # NumPy 1.23 to 2.4, with its BLAS, has 40 to 100 MB.
    assert 20e6 < row.package_bytes < 200e6


@pytest.mark.usefixtures("planted")
def test_no_further_process_is_started_after_one_that_took_long() -> None:
    options = replace(QUICK, cold_runs=3, cold_limit_s=0.0)
    cold = rows_of(bench("right", options=options))["right"].cold_start
    assert cold is not None
    assert cold.runs == 1


@pytest.mark.usefixtures("planted")
@pytest.mark.skipif(sys.platform == "win32", reason="the lock that stands for a device is POSIX's")
def test_a_device_that_takes_one_process_keeps_its_figures_but_the_cold_start() -> None:
    row = rows_of(bench("one-process", options=replace(QUICK, cold_runs=1)))["one-process"]
    assert row.latency_us is not None
    assert row.cold_start is None
    assert row.warning is not None
    assert row.warning.startswith("no cold start: BlockingIOError: ")


@pytest.mark.usefixtures("planted")
def test_bytes_of_all_pairs_are_compared() -> None:
    report = bench("numpy-int8:tflm", "numpy-float", "right", "wrong", "raises")
    pairs = report.models[0].bit_exactness
    assert pairs is not None
    assert pairs.backends == ("numpy-int8:tflm", "numpy-float", "right", "wrong")
    assert pairs.differing_bytes == (
        *((0, None, 0, 12), (None, 0, None, None), (0, None, 0, 12), (12, None, 12, 0)),
    )
    assert pairs.groups() == [("numpy-int8:tflm", "right")]
    assert "same bytes: small: numpy-int8:tflm = right" in " ".join(report.text().split())
    steps = rows_of(report)["wrong"].fidelity
    assert steps is not None
    assert steps.steps_from_profile is not None
    assert steps.steps_from_profile["0"] == 12


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("scenario", ["stream", "sequence", "batch:5"])
def test_a_backend_without_a_clock_is_counted_over_its_share_of_the_data(scenario: str) -> None:
    report = bench("numpy-int8:tflm", "counts", scenario=scenario)
    row = rows_of(report)["counts"]
    assert row.skipped_reason is None
    assert row.counted == Counted("emulated", "instructions", 1000.0, 2048, 512)
    assert (row.latency_us, row.timing, row.cold_start) == (None, None, None)
    assert row.sequences == 5
    assert row.fidelity is not None
    assert row.fidelity.differing_bytes == 0
    assert row.output_bytes == 5 * 2
    assert row.accuracy is not None
    assert row.accuracy.delta_vs_float is not None
    # The matrix compares what both ran.
    pairs = report.models[0].bit_exactness
    assert pairs is not None
    assert pairs.differing_bytes == ((0, 0), (0, 0))
    table = [line.split() for line in report.text().splitlines() if line.startswith("  counts ")]
    counted = ["emulated", "1,000", "instructions", "2,048", "512", "first", "5"]
    assert ["counts", *counted] in table


@pytest.mark.usefixtures("planted")
def test_times_real_time_is_the_signal_of_a_call_over_its_latency() -> None:
    options = replace(QUICK, frame_ms=10.0)
    for scenario, steps in (("stream", 1), ("sequence", 6), ("batch:5", 6)):
        row = rows_of(bench("right", scenario=scenario, options=options))["right"]
        assert row.real_time == pytest.approx(steps * 10e-3 / 20e-6)


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_every_scenario_gives_the_same_bytes(sequence: bool, with_lengths: bool) -> None:
    model, samples = small_model(sequence=sequence), small_samples(with_lengths=with_lengths)
    if sequence:
        samples = Samples(samples.x, samples.lengths)
    checksums = {}
    for scenario in ("stream", "sequence", "batch:5", "batch:32"):
        report = bench("numpy-int8:tflm", model=model, samples=samples, scenario=scenario)
        (row,) = report.results
        # The timed session gave the judged outputs, also where rows have other lengths.
        assert row.warning is None
        checksums[scenario] = row.output_checksum
    assert None not in checksums.values()
    assert len(set(checksums.values())) == 1, checksums


def test_accuracy_and_agreement_of_the_float_backend_are_those_of_float() -> None:
    row = rows_of(bench("numpy-float", samples=small_samples(with_lengths=True)))["numpy-float"]
    assert row.skipped_reason is None
    assert row.accuracy is not None
    assert row.accuracy.metric == "accuracy"
    assert row.accuracy.delta_vs_float == 0.0
    assert row.fidelity is not None
    assert row.fidelity.labels_same == 1.0
    assert row.fidelity.snr_db is not None
    # float32 against float64: 24 bits of mantissa are 144 dB, minus some rounding.
    assert row.fidelity.snr_db > 110


def test_integers_alone_run_the_integer_backends_and_say_why_float_does_not() -> None:
    whole = small_model()
    model = BenchModel("only-int", None, whole.program)
    rows = rows_of(bench("numpy-int8:tflm", "numpy-float", model=model))
    assert rows["numpy-int8:tflm"].latency_us is not None
    assert rows["numpy-float"].skipped_reason == (
        "the model has no float32 form here; give the float model"
    )


def test_integer_data_are_run_as_they_are() -> None:
    whole, samples = small_model(), small_samples()
    assert whole.program is not None
    integers = Samples(whole.program.input_tensor.quantize(samples.x), None, samples.y)
    first = rows_of(bench("numpy-int8:tflm", samples=samples))["numpy-int8:tflm"]
    second = rows_of(bench("numpy-int8:tflm", samples=integers))["numpy-int8:tflm"]
    assert first.output_checksum == second.output_checksum


def test_a_model_that_needs_whole_sequences_does_not_stream() -> None:
    weights = np.ones((1, 18), np.float32)
    layers = (Flatten("flat", 6), Dense("head", weights, np.zeros(1, np.float32)))
    spec = ModelSpec("flat", Signal("sequence", 3), layers, time_steps=6)
    model = BenchModel("flat", spec, None)
    samples = Samples(small_samples().x)
    stream = rows_of(bench("numpy-float", model=model, samples=samples))["numpy-float"]
    assert stream.skipped_reason == "the model needs the whole sequence; use --scenario sequence"
    whole = bench("numpy-float", model=model, samples=samples, scenario="sequence")
    assert rows_of(whole)["numpy-float"].skipped_reason is None


def test_data_that_do_not_fit_are_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"samples: shape \[12, 6\]; want \[rows, time, 3\]"):
        bench("numpy-float", samples=Samples(np.zeros((12, 6), np.float32), where="samples"))
    with pytest.raises(UsageError, match=r"y: int64 \[12, 3\]; want integer labels \[12\]"):
        bench("numpy-float", samples=Samples(small_samples().x, None, np.zeros((12, 3), np.int64)))
    model = BenchModel("only-int", None, small_model().program)
    for lengths, found in (([7] * 12, "7 to 7; want 1 to 6"), ([1, 2], r"int64 \[2\]; want int")):
        samples = Samples(small_samples().x, np.array(lengths), where="samples")
        with pytest.raises(UsageError, match=f"samples, lengths: {found}"):
            bench("numpy-int8:tflm", model=model, samples=samples)


def test_without_data_random_inputs_are_used_and_said() -> None:
    report = run_bench([small_model()], None, ["numpy-float"], "stream", None, QUICK)
    assert report.models[0].data == "random inputs"
    assert report.results[0].accuracy is None


def test_report_is_one_json_document() -> None:
    document = bench("numpy-float").document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["host"]["threads"] == 1


def test_watcher_sees_each_backend_from_waiting_to_settled() -> None:
    seen: list[list[Standing]] = []
    run_bench(
        [small_model()],
        small_samples(),
        ["numpy-float", "numpy-int8:tflm"],
        options=QUICK,
        watch=lambda standings: seen.append(list(standings)),
    )
    first, last = seen[0], seen[-1]
    assert [one.backend for one in first] == ["numpy-int8:tflm", "numpy-float"]
    assert [one.doing for one in first] == ["outputs", "waits"]
    assert [one.doing for one in last] == ["done", "done"]
    assert all(one.rounds == 2 and one.p50_us is not None for one in last)


@pytest.mark.usefixtures("planted")
def test_a_clock_that_takes_its_part_of_a_call_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    host = {**describe_host(), "clock_cost_ns": 5_000}
    monkeypatch.setattr("edge_lstm_benchmarks.harness.describe_host", lambda: host)
    # Of 20 us and of 3 ms.
    assert bench("right", "slow").notes == (
        "reading the clock takes 5000 ns of every call: 25 % of right's median",
    )


def test_progress_goes_from_nothing_to_all() -> None:
    calls: list[tuple[str, int, int]] = []
    run_bench(
        [small_model()],
        small_samples(),
        ["numpy-float"],
        "stream",
        lambda text, done, total: calls.append((text, done, total)),
        QUICK,
    )
    assert calls[0] == ("small: outputs of numpy-float", 0, 1)
    assert calls[-1] == ("small: done", QUICK.rounds, QUICK.rounds)


def test_names_select_rows_and_families() -> None:
    assert select_backends(None) == list(BACKENDS)
    assert select_backends(["tflm", "numpy-int8:litert"]) == ["numpy-int8:litert", "tflm"]
    assert len(select_backends(["numpy-int8"])) == 7
    assert select_backends(["c-host"]) == ["c-host:edge", "c-host:tflm", "c-host:litert"]
    with pytest.raises(UsageError, match="backend 'tensorflow': unknown; give some of"):
        select_backends(["tensorflow"])


@pytest.mark.parametrize("text", ["batch:0", "batch:", "batch:-1", "", "streams"])
def test_scenarios_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="give stream, sequence or batch:N"):
        parse_scenario(text)


def test_messages_carry_fields_and_arrays() -> None:
    stream = io.BytesIO()
    arrays = {"a": np.arange(6, dtype=np.int8).reshape(2, 3), "b": np.array(1.5), "c": np.empty(0)}
    write_message(stream, {"do": "x", "n": [1, True]}, arrays)
    stream.seek(0)
    fields, found = read_message(stream)
    assert fields == {"do": "x", "n": [1, True]}
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_messages_never_carry_pickles() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_message(io.BytesIO(), {}, {"a": np.array([object()])})


def test_a_message_cut_short_is_the_end() -> None:
    stream = io.BytesIO()
    write_message(stream, {"do": "x"}, {"a": np.arange(5)})
    for length in (0, 4, 20, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            read_message(io.BytesIO(stream.getvalue()[:length]))


def test_signal_to_noise_and_cosine_are_those_of_the_definitions() -> None:
    want = np.array([[3.0, 4.0]])
    assert accuracy.snr_db(want + np.array([[0.0, 0.5]]), want) == pytest.approx(20.0)
    assert accuracy.snr_db(want, want) == accuracy.SNR_LIMIT_DB
    assert accuracy.snr_db(want * np.nan, want) == -accuracy.SNR_LIMIT_DB
    assert accuracy.cosine(want * 2, want) == pytest.approx(1.0)
    assert accuracy.cosine(np.array([[4.0, -3.0]]), want) == pytest.approx(0.0)
    assert accuracy.cosine(want * 0, want * 0) == 1.0


def test_bytes_that_differ_are_counted_and_shapes_must_agree() -> None:
    a = np.arange(10, dtype=np.int8)
    b = a.copy()
    b[[2, 5]] += 1
    assert accuracy.differing_bytes(a, b) == 2
    assert accuracy.differing_bytes(a, a[::-1][::-1]) == 0
    assert accuracy.differing_bytes(a, a[:4]) == 10
    assert accuracy.differing_bytes(a, a.astype(np.int16)) == 20


def test_differences_of_integers_are_counted_by_size() -> None:
    want = np.array([0, 0, 0, 0, 100], np.int8)
    got = np.array([0, 1, 1, -2, -100], np.int8)
    assert accuracy.steps_between(got, want) == {"< -8": 1, "-2": 1, "0": 1, "1": 2}
    assert accuracy.steps_between(got.astype(np.float32), want) is None
    assert accuracy.steps_between(got[:2], want) is None


def test_steps_past_a_rows_length_count_for_nothing() -> None:
    outputs = np.arange(12.0).reshape(2, 3, 2)
    rows = accuracy.valid_rows(outputs, np.array([1, 3]))
    assert rows.tolist() == [[0, 1], [6, 7], [8, 9], [10, 11]]
    wanted = accuracy.wanted_rows(np.array([[1, 9, 9], [0, 1, 0]]), outputs, np.array([1, 3]))
    assert wanted.tolist() == [1, 0, 1, 0]


def test_checksum_is_of_type_shape_and_values() -> None:
    a = np.arange(6, dtype=np.int8)
    assert accuracy.checksum(a) == hashlib.sha256(b"|i1(6,)" + a.tobytes()).hexdigest()[:16]
    assert accuracy.checksum(a) != accuracy.checksum(a.reshape(2, 3))
    assert accuracy.checksum(a) != accuracy.checksum(a.view(np.uint8))


def test_host_names_the_processor_and_the_conditions() -> None:
    host = describe_host()
    assert host["cpu"]
    assert host["threads"] == 1
    assert host["clock_cost_ns"] > 0
    json.dumps(host, allow_nan=False)
