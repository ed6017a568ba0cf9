"""bench --compare: each way to be worse is found, and nothing else is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.errors import UsageError
from edge_lstm_benchmarks.regression import Comparison, compare_with, parse_percent, read_base

Document = dict[str, Any]


def document(**changes: Any) -> Document:
    result = {
        "model": "m",
        "backend": "b",
        "scenario": "stream",
        "latency_us": {"min": 9.0, "p50": 10.0, "p90": 11.0, "p99": 12.0, "n": 100},
        "size": {"model_bytes": 1000, "package_bytes": 5},
        "memory": {"peak_rss_bytes": 50_000_000},
        "accuracy": {"metric": "mae", "value": 1.0, "higher_is_better": False},
        "fidelity": {"differing_bytes": 0},
        "skipped_reason": None,
    }
    host = {"cpu": "c", "cpus": 2, "system": "s", "python": "3"}
    return {"schema": "edge-lstm.bench/1", "host": host, "results": [{**result, **changes}]}


def against(now: Document, base: Document | None = None, percent: str = "5%") -> Comparison:
    return compare_with(base or document(), now, parse_percent(percent), "base.json")


def fields(found: Comparison) -> list[str]:
    return [one.field for one in found.worse]


def test_the_same_is_not_worse() -> None:
    found = against(document())
    assert (found.rows, found.worse, found.notes) == (1, (), ())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"latency_us": {"p50": 10.6}}, "latency p50 us"),
        ({"size": {"model_bytes": 1051}}, "model bytes"),
        ({"memory": {"peak_rss_bytes": 53_000_000}}, "peak memory bytes"),
        ({"accuracy": {"metric": "mae", "value": 1.06, "higher_is_better": False}}, "mae"),
        ({"fidelity": {"differing_bytes": 1}}, "differing bytes"),
        ({"skipped_reason": "crashed: SIGSEGV", "latency_us": None}, "runs"),
    ],
)
def test_each_way_to_be_worse_is_found_alone(change: Document, field: str) -> None:
    assert fields(against(document(**change))) == [field]


@pytest.mark.parametrize(
    "change",
    [
        {"latency_us": {"p50": 10.5}},
        {"latency_us": {"p50": 1.0}},
        {"size": {"model_bytes": 1050}},
        {"accuracy": {"metric": "mae", "value": 0.5, "higher_is_better": False}},
        {"accuracy": {"metric": "mape", "value": 9.0, "higher_is_better": False}},
        {"memory": {"peak_rss_bytes": None}},
        {"accuracy": None, "fidelity": None},
    ],
)
def test_within_the_limit_better_or_unknown_is_not_worse(change: Document) -> None:
    assert against(document(**change)).worse == ()


def test_a_metric_where_higher_is_better_is_worse_when_it_falls() -> None:
    def of(value: float) -> Document:
        return document(accuracy={"metric": "accuracy", "value": value, "higher_is_better": True})

    assert fields(against(of(0.90), of(0.98))) == ["accuracy"]
    assert against(of(0.98), of(0.90)).worse == ()
    assert against(of(0.94), of(0.98)).worse == ()


def test_from_nothing_to_something_is_worse_whatever_is_allowed() -> None:
    base = document(accuracy={"metric": "mae", "value": 0.0})
    now = document(accuracy={"metric": "mae", "value": 1e-9})
    found = against(now, base, "1000%")
    assert fields(found) == ["mae"]
    assert found.worse[0].change is None
    json.dumps(found.document(), allow_nan=False)


def test_a_row_that_never_ran_is_not_worse() -> None:
    gone = document(skipped_reason="not installed", latency_us=None)
    assert against(gone, gone).worse == ()
    assert against(document(), gone).worse == ()


def test_rows_are_told_apart_by_model_backend_and_scenario() -> None:
    base, now = document(), document(scenario="batch:32", latency_us={"p50": 99.0})
    found = against(now, base)
    assert (found.rows, found.worse) == (0, ())
    assert found.notes == ("not measured this time: m, b, stream", "no row stands in both")


def test_a_latency_that_something_disturbed_is_worse_and_says_so() -> None:
    now = document(latency_us={"p50": 12.0}, timing={"noise": "rounds differ by 30 %"})
    assert against(now).worse[0].reason.endswith("worse by 20.0 %; measured under noise (~)")
    assert not against(document(latency_us={"p50": 12.0})).worse[0].reason.endswith("(~)")


def test_another_machine_is_said() -> None:
    now = document()
    now["host"] = {**now["host"], "cpu": "other"}
    assert "another machine: cpu c then, other now" in against(now).notes[0]


def test_text_has_the_rows_that_got_worse() -> None:
    text = against(document(latency_us={"p50": 12.0})).text()
    assert "worse: m, b, stream: latency p50 us 10 then, 12 now: worse by 20.0 %" in text
    assert text.endswith("worse by more than 5 %: 1")


@pytest.mark.parametrize(
    ("text", "want"), [("5%", 0.05), ("5", 0.05), ("2.5 %", 0.025), ("0%", 0.0), ("250%", 2.5)]
)
def test_percent_is_read(text: str, want: float) -> None:
    assert parse_percent(text) == pytest.approx(want)


@pytest.mark.parametrize("text", ["", "%", "-5%", "five", "5%%", "nan", "1e3"])
def test_what_is_no_percent_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="want percent, such as 5%"):
        parse_percent(text)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[1]", "holds list; want edge-lstm.bench/1"),
        (b"{}", "holds None; want edge-lstm.bench/1"),
        (b'{"schema": "edge-lstm.verify/1"}', "holds edge-lstm.verify/1; want edge-lstm.bench/1"),
        (b'{"schema": "edge-lstm.bench/1"}', "its results are not rows"),
        (b'{"schema": "edge-lstm.bench/1", "results": [[]]}', "its results are not rows"),
        (b'{"schema": "edge-lstm.bench/1", "results": [{"model": 1}]}', "its results are not rows"),
    ],
)
def test_a_base_that_is_something_else_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as caught:
        read_base(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["latency_us", "size", "memory", "accuracy", "fidelity"])
@pytest.mark.parametrize("value", [None, [], "text", 3, {"p50": "x", "value": [], "metric": 7}])
def test_a_base_with_odd_fields_has_no_figure_there(field: str, value: Any) -> None:
    base = copy.deepcopy(document(**{field: value}))
    base["host"] = [] if value == [] else base["host"]
    assert against(document(), base).worse == ()
