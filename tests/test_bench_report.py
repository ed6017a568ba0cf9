"""What bench writes: page, CSV, pictures; and that each fault of a backend is shown as it is."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest

import edge_lstm_benchmarks
from edge_lstm.errors import MissingTool, OutputError, UsageError
from edge_lstm.samples import Samples
from edge_lstm_benchmarks import BACKENDS, charts, picture_bench
from edge_lstm_benchmarks.bench import BenchOutcome, BenchRequest, bench, live_cells
from edge_lstm_benchmarks.contestant import BenchOptions, Standing
from edge_lstm_benchmarks.harness import BenchModel, run_bench
from edge_lstm_benchmarks.report_csv import COLUMNS, csv_text
from edge_lstm_benchmarks.report_html import html_page
from edge_lstm_benchmarks.results import sample_model

Document = dict[str, Any]
PLANTED = ("slow", "wrong", "segfaults", "hangs", "counts")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium not found: apt install chromium"
)
VOID = {"meta", "br"}


@pytest.fixture(scope="module")
def weather() -> tuple[BenchModel, Samples]:
    model, samples = sample_model("weather")
    assert samples.y is not None
    return model, replace(samples, x=samples.x[:60], y=samples.y[:60])


@pytest.fixture(scope="module")
def document(weather: tuple[BenchModel, Samples]) -> Document:
    """Give the document of runs in which one backend is slow, one wrong, one crashes, one hangs."""
    model, samples = weather
    options = BenchOptions(
        rounds=7, least_rounds=7, slice_ms=1.0, warm_ms=0.1, cold_runs=1, answer_limit_s=10.0
    )
    names = ["numpy-int8:tflm", "numpy-float", *PLANTED]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        rows = BACKENDS | dict.fromkeys(PLANTED, "planted_backends:Planted")
        patch.setattr(edge_lstm_benchmarks, "BACKENDS", rows)
        patch.setattr("edge_lstm_benchmarks.remote.BACKENDS", rows)
        report = run_bench([model], samples, names, options=options)
    report = replace(report, command="edge-lstm bench 'a <model>.onnx'")
    return report.document()


@pytest.fixture(scope="module")
def page(document: Document) -> str:
    return html_page(document)


class Reader(HTMLParser):
    """Holds what a page says, by heading, and finds what it would fetch or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self.tags: set[str] = set()
        self.fetched: list[str] = []
        self._heading = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h2", "h3"):
            self._heading = ""
        self.fetched += [
            f"{name}={value}"
            for name, value in attrs
            if name in ("src", "href", "srcset", "data") or name.startswith("on")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self._heading = data
        elif "style" not in self.open:
            self.sections[self._heading] = f"{self.sections.get(self._heading, '')} {data}"


def test_page_needs_no_other_file_no_network_and_no_javascript(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert reader.fetched == []
    assert not reader.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://|javascript:", page)
    assert "prefers-color-scheme: dark" in page
    assert len(page) < 200_000


def test_reader_of_pages_would_find_a_script() -> None:
    assert Reader('<p onclick="x()"><script src="a.js"></script></p>').fetched == [
        "onclick=x()",
        "src=a.js",
    ]


def test_page_has_every_section_that_a_decision_needs(document: Document, page: str) -> None:
    sections = Reader(page).sections
    for heading in (
        *("Latency against accuracy", "Results", "Latency of single calls", "Memory"),
        *("Cold start", "Sizes", "Inside the model", "Error over time", "Not run", "Again"),
        *("Integers away from the profile's bytes", "Bytes that differ, backend by backend"),
    ):
        assert sections.get(heading, "").strip(), heading
    assert "edge-lstm bench 'a <model>.onnx'" in sections["Again"]
    assert document["models"][0]["input_checksum"] in sections["weather"]
    assert "lstm.forget_gate" in sections["Inside the model"]
    assert "forget gate" in sections["Error over time"]


def test_each_fault_is_shown_for_what_it_is(document: Document, page: str) -> None:
    rows = {row["backend"]: row for row in document["results"]}
    sections = Reader(page).sections
    # The planted clock stands still while a model is loaded by the real one.
    assert all(r["cold_start"]["load_ms"] > 0 for r in rows.values() if r["cold_start"])
    # Slow: the planted clock says 3 ms a call; its bytes are right.
    assert rows["slow"]["latency_us"]["p50"] == 3000.0
    assert rows["slow"]["fidelity"]["differing_bytes"] == 0
    assert "3,000" in sections["Results"]
    # Wrong: fast, and its bytes are not those of its profile.
    wrong = rows["wrong"]["fidelity"]
    assert rows["wrong"]["latency_us"]["p50"] == 20.0
    assert wrong["differing_bytes"] == 60
    assert "differ: wrong" in sections["weather"]
    assert "not the bytes of its profile" in sections["Latency against accuracy"]
    assert rows["wrong"]["output_checksum"] != rows["slow"]["output_checksum"]
    assert rows["slow"]["output_checksum"] == rows["numpy-int8:tflm"]["output_checksum"]
    # Crashes and hangs: no figures, and how they ended.
    for name, reason in (("segfaults", "crashed: its process ended"), ("hangs", "hung: no answer")):
        assert rows[name]["latency_us"] is None
        assert rows[name]["skipped_reason"].startswith(reason)
        assert f"{name} {reason}" in sections["Not run"]
        assert name not in sections["Results"]
    # Without a clock: counted, and in no table of times.
    assert "counts emulated 1,000 instructions 2,048 512" in sections["Counted, not timed"]
    assert "counts" not in sections["Results"]


def test_what_a_model_and_a_reason_are_called_cannot_break_the_page(document: Document) -> None:
    hostile = "<script>alert(1)</script>&\"'"
    model = {**document["models"][0], "name": hostile}
    results = [{**r, "model": hostile, "backend": hostile} for r in document["results"][:1]]
    skipped = {**document["results"][-2], "model": hostile, "skipped_reason": hostile}
    changed = {**document, "models": [model], "results": [*results, skipped], "command": hostile}
    reader = Reader(html_page(changed))
    assert "script" not in reader.tags
    assert hostile in reader.sections["Again"]


def test_page_of_nothing_that_ran_is_a_page(document: Document) -> None:
    skipped = [r for r in document["results"] if r["skipped_reason"]]
    model = {**document["models"][0], "analysis": None, "bit_exactness": None}
    sections = Reader(html_page({**document, "models": [model], "results": skipped})).sections
    assert "No backend ran" in sections["weather"]
    assert "segfaults" in sections["Not run"]


def test_without_labels_the_agreement_with_float_stands_for_accuracy(document: Document) -> None:
    results = [{**r, "accuracy": None} for r in document["results"]]
    text = Reader(html_page({**document, "results": results})).sections["Latency against accuracy"]
    assert "signal to noise against float" in text


def test_other_precisions_share_a_colour_and_the_legend_names_them(document: Document) -> None:
    names = {"slow": "float16", "numpy-int8:tflm": "int8-dynamic"}
    results = [
        {**r, "precision": names.get(r["backend"], r["precision"])} for r in document["results"]
    ]
    text = Reader(html_page({**document, "results": results})).sections["Latency against accuracy"]
    assert "int8-dynamic or float16" in text


def test_page_tells_on_what_a_backend_ran(document: Document) -> None:
    (row, *rest) = document["results"]
    assert "Ran on" not in Reader(html_page(document)).sections
    told = {**document, "results": [{**row, "ran_on": "CPU: <LSTM> in bf16"}, *rest]}
    said = Reader(html_page(told)).sections["Ran on"]
    assert f"{row['backend']} CPU: <LSTM> in bf16" in said


def test_comparison_is_on_the_page(document: Document) -> None:
    worse: Document = {"model": "weather", "backend": "slow", "scenario": "stream", "field": "runs"}
    worse |= {"base": None, "now": None, "change": None, "reason": "no longer: <gone>"}
    found = {"base": "b.json", "max_regress": 0.05, "rows": 3, "worse": [worse], "notes": ["n"]}
    sections = Reader(html_page({**document, "comparison": found})).sections
    assert "no longer: <gone>" in sections["Against b.json"]


# In a browser


class Shown(NamedTuple):
    """A page in headless Chromium."""

    pixels: Any  # [rows, columns, 4]
    console: list[str]
    fetched: set[str]


def show(page: Path, folder: Path, *, dark: bool) -> Shown:
    """Return a page as Chromium shows it, what it said, and what the page asked for."""
    image = pytest.importorskip("matplotlib.image", reason="pip install matplotlib")
    assert CHROMIUM is not None
    target, log = folder / f"{'dark' if dark else 'light'}.png", folder / "net.json"
    scheme = 0 if dark else 1  # blink::mojom::PreferredColorScheme
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--blink-settings=preferredColorScheme={scheme}", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1100,2600"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}"]
    command += [f"--screenshot={target}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # What the browser asks for by itself has no page that it starts from.
    asked = {p["url"] for p in told if p.get("initiator", "not an origin") != "not an origin"}
    pixels = (image.imread(target) * 255).round().astype(int)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    return Shown(pixels, console, asked)


def colour(rule: str, page: str, *, dark: bool) -> list[int]:
    """Return the red, green and blue of one of the page's variables."""
    found = re.findall(rf"--{rule}: #(\w{{6}})", page)[int(dark)]
    return [int(found[k : k + 2], 16) for k in (0, 2, 4)]


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_page_shows_in_a_browser_in_light_and_dark(page: str, tmp_path: Path, dark: bool) -> None:
    path = tmp_path / "out.html"
    path.write_text(page, encoding="utf8")
    found = show(path, tmp_path, dark=dark)
    assert (found.console, found.fetched) == ([], set())
    shown = found.pixels[:, :, :3]
    assert shown[2, 2].tolist() == colour("page", page, dark=dark)
    # Text, both kinds of marks, and the bars of memory are drawn in their colours.
    for rule in ("ink", "float", "int8", "card"):
        same = (shown == colour(rule, page, dark=dark)).all(axis=2)
        assert same.sum() > 50, rule
    # Nothing is wider than the window: the margin at the right is the page's colour all the way.
    assert (shown[:, -4:] == colour("page", page, dark=dark)).all()


@needs_chromium
def test_errors_and_fetches_of_a_page_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    path.write_text('<img src="http://nowhere.invalid/a.png"><script>nothing()</script>')
    found = show(path, tmp_path, dark=False)
    assert "nothing is not defined" in found.console[0]
    assert found.fetched == {"http://nowhere.invalid/a.png"}


# Charts


def test_front_holds_what_no_other_beats_in_both() -> None:
    rng = np.random.default_rng(0)
    for higher in (True, False):
        points = rng.uniform(1, 10, (40, 2))
        bubbles = [charts.Bubble(str(k), x, y, 1, "k", None, "") for k, (x, y) in enumerate(points)]
        sign = 1 if higher else -1
        least = 1e-3 * float(np.ptp(points[:, 1]))
        want = {
            str(k)
            for k, (x, y) in enumerate(points)
            if not any(a < x and sign * (b - y) > -least for a, b in points)
        }
        front = charts.pareto_front(bubbles, higher_is_better=higher)
        assert {one.label for one in front} == want
        assert [one.x for one in front] == sorted(one.x for one in front)


def test_labels_of_bubbles_in_one_place_do_not_overlap() -> None:
    boxes: list[charts.Box] = [(395.0, 195.0, 405.0, 205.0)] * 8
    placed = [
        charts.place(f"backend number {k}", (400.0, 200.0), 5.0, boxes, (0.0, 0.0, 860.0, 400.0))[0]
        for k in range(8)
    ]
    for k, (left, top, right, bottom) in enumerate(placed):
        assert 0 <= left < right <= 860
        assert 0 <= top < bottom <= 400
        for other in placed[:k]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


@pytest.mark.parametrize(("low", "high"), [(3.0, 20.0), (0.9, 1.1), (1.0, 1e6), (0.02, 7.0)])
def test_logarithmic_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    ticks = charts.Scale(low, high, 0, 100, is_log=True).ticks()
    assert 1 <= len(ticks) <= 12
    assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)
    assert all(a < b for a, b in pairwise(ticks))


def test_scales_go_from_end_to_end() -> None:
    linear, log = charts.Scale(2, 4, 10, 110), charts.Scale(1, 100, 0, 100, is_log=True)
    assert [linear(2), linear(3), linear(4)] == [10, 60, 110]
    assert [log(1), log(10), log(100)] == pytest.approx([0, 50, 100])
    assert linear.ticks(5) == pytest.approx([2, 2.5, 3, 3.5, 4])


def test_every_chart_is_xml_and_stays_on_its_sheet(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for text in root.iter("text"):
            assert 0 <= float(text.attrib["x"]) <= width
            assert 0 <= float(text.attrib["y"]) <= height
        for mark in root.iter("circle"):
            assert 0 < float(mark.attrib["cx"]) < width


# CSV and pictures


def test_csv_has_a_line_for_each_result_and_a_column_for_each_figure(document: Document) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(document))))
    assert [row["backend"] for row in rows] == [r["backend"] for r in document["results"]]
    assert set(rows[0]) == {*COLUMNS, "input_checksum"}
    assert rows[0]["input_checksum"] == document["models"][0]["input_checksum"]
    by_name = {row["backend"]: row for row in rows}
    assert float(by_name["slow"]["p50_us"]) == 3000
    assert by_name["wrong"]["differing_bytes"] == "60"
    assert float(by_name["wrong"]["delta_low"]) <= float(by_name["wrong"]["delta_high"])
    assert by_name["hangs"]["p50_us"] == ""
    assert by_name["hangs"]["skipped_reason"].startswith("hung")


def test_pictures_are_png_and_svg_and_equal_for_equal_input(document: Document) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    files = dict(picture_bench.pictures(document))
    names = {
        f"weather_{name}.{suffix}"
        for name in ("pareto", "latency", "memory", "error")
        for suffix in ("png", "svg")
    }
    assert set(files) == names
    for name, data in files.items():
        if name.endswith(".png"):
            assert data.startswith(b"\x89PNG\r\n")
        else:
            text = "".join(ElementTree.fromstring(data).itertext())
            assert ("wrong" if "error" not in name else "lstm.cell_state") in text
    again = dict(picture_bench.pictures(document))
    assert again["weather_pareto.svg"] == files["weather_pareto.svg"]


def test_without_matplotlib_pictures_are_refused_before_measuring(
    monkeypatch: pytest.MonkeyPatch, weather: tuple[BenchModel, Samples], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingTool, match="pip install matplotlib"):
        bench([weather[0]], weather[1], BenchRequest(plot=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


# The command's own part


def quick(weather: tuple[BenchModel, Samples], **wanted: Any) -> BenchOutcome:
    request = BenchRequest(backends=["numpy-int8:tflm"], seconds=0.1, **wanted)
    return bench([weather[0]], weather[1], request)


def test_bench_writes_what_it_was_asked_for(
    weather: tuple[BenchModel, Samples], tmp_path: Path
) -> None:
    outcome = quick(weather, csv=tmp_path / "o.csv", html=tmp_path / "o.html", command="again")
    assert [path.name for path in outcome.written] == ["o.csv", "o.html"]
    assert outcome.document()["command"] == "again"
    assert (tmp_path / "o.html").read_text(encoding="utf8").startswith("<!doctype html>")
    assert f"wrote {tmp_path / 'o.csv'}" in outcome.text()
    assert not outcome.failed


@pytest.mark.parametrize(
    ("wanted", "error", "reason"),
    [
        ({"html": "absent/o.html"}, OutputError, "o.html: cannot be written: no such folder"),
        ({"csv": "absent/o.csv"}, OutputError, "o.csv: cannot be written: no such folder"),
        ({"frame_ms": 0.0}, UsageError, "--frame-ms 0: want a number above 0"),
        ({"frame_ms": float("nan")}, UsageError, "--frame-ms nan: want"),
        ({"metric": "bleu"}, UsageError, "metric 'bleu': unknown"),
        ({"max_regress": "much"}, UsageError, "--max-regress 'much': want percent"),
        ({"compare": "absent.json"}, UsageError, "absent.json: cannot be read as JSON"),
    ],
)
def test_what_can_be_refused_is_refused_before_measuring(
    weather: tuple[BenchModel, Samples],
    tmp_path: Path,
    wanted: dict[str, Any],
    error: type[Exception],
    reason: str,
) -> None:
    paths = {"html", "csv", "compare"}
    given = {k: tmp_path / v if k in paths else v for k, v in wanted.items()}
    with pytest.raises(error) as caught:
        quick(weather, **given)
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_live_cells_say_where_a_backend_is() -> None:
    assert live_cells(Standing("a", "waits", 0, None, False)) == ("a", "waits", "", "")
    assert live_cells(Standing("a", "timing", 3, 7.4, False)) == ("a", "timing", "3", "7.40")
    assert live_cells(Standing("a", "timing", 12, 1234.5, True)) == (
        *("a", "settled", "12", "1,234.50"),
    )
