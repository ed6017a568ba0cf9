"""The demo tells the truth: it passes on sound bytes only, and says what it could not do."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.inspection import as_json

pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
pytest.importorskip("flatbuffers", reason="flatbuffers not found: pip install 'edge-lstm[tools]'")

from edge_lstm_benchmarks import demo, picture


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Give the list that the demo's texts are put into."""
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> demo.DemoResult:
    """Give the result of one quick run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "QUICK", demo.ONCE)
        return demo.run_demo(tmp_path_factory.mktemp("demo") / "out", said.append)


def test_demo_passes_with_no_byte_different(result: demo.DemoResult, said: list[str]) -> None:
    assert result.passed
    compared = [row for row in result.equality if row.differing_bytes is not None]
    assert {row.differing_bytes for row in compared} == {0}
    # The six profiles from the file, and the file itself, are compared wherever this runs.
    assert len(compared) >= 7
    assert said[-1].startswith("Passed")


def test_demo_has_a_row_for_every_interpreter_fed_in_both_ways(result: demo.DemoResult) -> None:
    for name in demo.INTERPRETERS:
        rows = [row for row in result.equality if row.runner.split()[0] == name]
        assert [row.how for row in rows] == ["whole windows", "step by step"]
        for row in rows:
            assert row.output_bytes == 1944 or row.reason


def test_demo_error_of_int8_is_within_a_hundredth_of_float(result: demo.DemoResult) -> None:
    # The published figure of the model: models/weather/README.md.
    assert round(result.errors.in_float, 3) == 1.633
    assert round(result.errors.as_now, 3) == 2.701
    assert abs(result.errors.change) < 0.01


def test_demo_is_one_json_document(result: demo.DemoResult) -> None:
    document = json.loads(json.dumps(as_json(result.document()), allow_nan=False))
    assert document["schema"] == demo.SCHEMA
    assert document["passed"] is True
    for path in document["files"].values():
        assert Path(path).is_file()


def test_demo_draws_a_picture(result: demo.DemoResult) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    assert result.picture is not None
    assert result.picture.read_bytes().startswith(b"\x89PNG\r\n")


def test_demo_says_where_the_files_are(result: demo.DemoResult, said: list[str]) -> None:
    text = "\n".join(said)
    for path in result.converted.files.values():
        assert str(path) in text
    assert f"{result.errors.in_int8:.3f} °C" in text


def test_one_different_byte_fails_the_demo(result: demo.DemoResult) -> None:
    first, *rest = result.equality
    planted = replace(first, differing_bytes=1)
    assert not replace(result, equality=(planted, *rest)).passed


def test_runtime_of_ours_that_does_not_run_fails_the_demo(result: demo.DemoResult) -> None:
    rows = [
        replace(row, skipped_reason="broken") if row.backend == "numpy-int8:tflm" else row
        for row in result.report.results
    ]
    assert not replace(result, report=replace(result.report, results=tuple(rows))).passed


def test_equality_table_gives_the_reason_of_an_interpreter_that_is_missing() -> None:
    reason = "tflite-micro is not installed; pip install --pre tflite-micro"
    row = demo.Equality("tflm", "tflm", "step by step", reason=reason)
    assert f"not run: {reason}" in demo._equality_text((row,))


def test_demo_without_matplotlib_says_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    values = np.zeros(1944)
    path, notes = demo._draw(tmp_path / "forecast.png", values, values, values)
    assert path is None
    assert notes == ("no picture: matplotlib is not installed; pip install matplotlib",)
    assert list(tmp_path.iterdir()) == []


def test_equal_forecasts_give_an_equal_picture() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    from datetime import datetime

    hours = [datetime(2013, 4, 23, hour) for hour in range(10)]
    values = np.arange(10.0)
    first, second = (picture.forecast_png("t", hours, values, values, values) for _ in range(2))
    assert first == second
