"""The report's tables and document, from records made by hand."""

import json
import math
from dataclasses import replace

from edge_lstm.report import (
    SCHEMA,
    Accuracy,
    Analysis,
    ColdStart,
    Fidelity,
    Latency,
    ModelRecord,
    Report,
    Result,
    SignalFidelity,
    Timing,
)

HOST = {"cpu": "some CPU", "cpus": 2, "threads": 1, "pinned_cpu": 1, "clock_cost_ns": 50}
RECORD = ModelRecord("m", 1000, 900, 20, 24, "test.npz")


def result(backend: str, p50: float = 5.0, **changes: object) -> Result:
    given: dict[str, object] = {
        "model": "m",
        "backend": backend,
        "profile": "tflm",
        "precision": "int8",
        "scenario": "stream",
        "version": "1",
        "steps_per_call": 1,
        "latency_us": Latency(p50 - 1, p50, p50 + 1, p50 + 2, 100),
        "steps_per_s": 1e6 / p50,
        "size_bytes": 9056,
        "accuracy": Accuracy("accuracy", 0.98, -0.0025),
        "fidelity": Fidelity(31.7, 0.999, 0.995, 0),
        "output_bytes": 1944,
        "output_checksum": "0123456789abcdef",
    }
    return Result(**{**given, **changes})  # type: ignore[arg-type]


def timing(noise: str | None) -> Timing:
    return Timing(12, (4.9, 5.1), 0.02, 0.99, True, noise)


def skipped(backend: str, reason: str) -> Result:
    return Result("m", backend, None, "int8", "stream", skipped_reason=reason)


def report(*results: Result) -> Report:
    return Report(HOST, (RECORD,), results)


def test_text_lists_the_fastest_first_and_what_did_not_run_with_its_reason() -> None:
    text = report(result("slow", 50.0), skipped("gone", "pip install gone"), result("fast")).text()
    assert text.index("  fast") < text.index("  slow") < text.index("  gone  not run: pip install")


def test_text_fits_120_columns_with_every_column_and_the_longest_names() -> None:
    rows = [result("numpy-int8:tflite-runtime", 12345.0), result("b", 0.123)]
    text = report(*rows, skipped("litert", "a reason " * 40)).text()
    assert max(len(line) for line in text.splitlines()) <= 120
    assert " ".join(text.split()).count("a reason") == 40


def test_what_a_backend_costs_is_a_table_of_its_own() -> None:
    cold = ColdStart(412.3, 54.2, 1.5, 3)
    one = result("a", cold_start=cold, peak_memory_bytes=47_000_000, base_memory_bytes=34_500_000)
    rows = [line.split() for line in report(one).text().splitlines() if line.startswith("  a ")]
    assert rows[1] == ["a", "9,056", "412", "54.2", "47.0", "12.5"]  # nobody knows install MB


def test_a_median_that_something_disturbed_is_marked_and_said() -> None:
    text = report(result("a", timing=timing("rounds differ by 30 %")), result("b")).text()
    assert "5.00~" in text
    assert "noise (~): m: a (rounds differ by 30 %)" in text


def test_times_real_time_has_a_column_where_the_rate_is_known() -> None:
    assert "x real time" not in report(result("a")).text()
    text = report(result("a", real_time=1351.0)).text()
    assert "x real time" in text
    assert "1.35k" in text


def test_the_interval_of_a_difference_stands_behind_it() -> None:
    known = Accuracy("mae", 1.633, 0.0004, (-0.003, 0.005), False)
    assert "+0.000 ±0.004" in report(result("a", accuracy=known)).text()


def test_signals_inside_are_a_table_and_a_long_one_says_where_the_rest_is() -> None:
    signals = tuple(SignalFidelity(f"s{n}", "gate", 40.0, 0.99, n, 100) for n in range(30))
    record = replace(RECORD, analysis=Analysis("tflm", 12, (0,), signals))
    text = Report(HOST, (record,), (result("a"),)).text()
    assert "s23" in text
    assert "s24" not in text
    assert "(the first 24 of 30; all with --json)" in text


def test_inputs_have_a_checksum_beside_their_name() -> None:
    record = replace(RECORD, input_checksum="89abcdef01234567")
    assert "(test.npz, check 89abcd)" in Report(HOST, (record,), (result("a"),)).text()


def test_figures_have_three_digits_from_nanoseconds_to_seconds() -> None:
    text = report(result("a", 0.1234), result("b", 12.345), result("c", 1234567.0)).text()
    for figure in (" 0.123 ", " 12.3 ", " 1,234,567 "):
        assert figure in text


def test_accuracy_is_shown_in_percent_and_its_difference_in_points() -> None:
    text = report(result("a")).text()
    assert "98.00%" in text
    assert "-0.25" in text
    error = report(result("a", accuracy=Accuracy("mae", 1.654, 0.0213))).text()
    assert "1.654" in error
    assert "+0.021" in error


def test_bytes_that_differ_are_said_below_the_table() -> None:
    wrong = result("wrong", fidelity=Fidelity(3.0, 0.5, 0.5, 12))
    found = report(result("right"), wrong).mismatches()
    assert found == ["m, wrong: 12 of 1,944 bytes are not those of profile tflm; want 0"]
    assert f"differs: {found[0]}" in report(wrong).text()


def test_warnings_are_said_below_the_table() -> None:
    assert "warning: m, a: it drifts" in report(result("a", warning="it drifts")).text()


def test_report_of_nothing_but_skipped_backends_is_a_report() -> None:
    text = report(skipped("a", "no"), skipped("b", "neither")).text()
    assert "(no backend ran)" in text
    assert "  b  not run: neither" in text


def test_markdown_rows_all_have_the_headers_columns() -> None:
    text = report(result("a"), skipped("b", "either|or")).markdown()
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert [len(table.strip().splitlines()) for table in tables] == [4, 3]
    for table in tables:
        bars = [line.replace("\\|", "").count("|") for line in table.strip().splitlines()]
        assert set(bars) == {bars[0]}


def test_document_has_the_schema_and_every_named_field() -> None:
    document = report(result("a"), skipped("b", "no")).document()
    assert document["schema"] == SCHEMA == "edge-lstm.bench/1"
    assert set(document) == {"schema", "host", "command", "models", "results", "notes"}
    for record in document["results"]:
        assert set(record) >= {
            *("model", "backend", "profile", "precision", "version", "scenario", "latency_us"),
            *("steps_per_s", "memory", "size", "accuracy", "fidelity", "output_checksum"),
            "skipped_reason",
        }
    first = document["results"][0]
    assert set(first["latency_us"]) == {"min", "p50", "p90", "p99", "n"}
    assert set(first["accuracy"]) >= {"metric", "value", "delta_vs_float"}
    assert set(first["fidelity"]) >= {"snr_db", "cosine", "labels_same", "differing_bytes"}


def test_document_is_json_that_any_parser_takes() -> None:
    doubtful = result("a", accuracy=Accuracy("mae", math.nan, math.inf))
    text = json.dumps(report(doubtful).document(), allow_nan=False)
    assert json.loads(text)["results"][0]["accuracy"]["value"] is None
