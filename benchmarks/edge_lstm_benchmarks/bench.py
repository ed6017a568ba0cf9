"""The bench command: measures, writes what was asked for, compares with an earlier run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_lstm.errors import OutputError, UsageError
from edge_lstm.files import make_folder, write_atomically
from edge_lstm.report import Report
from edge_lstm.samples import Samples
from edge_lstm_benchmarks.harness import (
    BenchModel,
    BenchOptions,
    Progress,
    Standing,
    Watch,
    run_bench,
)
from edge_lstm_benchmarks.regression import Comparison, compare_with, parse_percent, read_base
from edge_lstm_benchmarks.report_csv import csv_text
from edge_lstm_benchmarks.report_html import html_page

Document = dict[str, Any]
LIVE_HEADER = ("backend", "doing", "rounds", "p50 us")


@dataclass(frozen=True)
class BenchRequest:
    """What the command was asked for.

    Args:
        backends: names or families of BACKENDS, or None for all.
        scenario: ``stream``, ``sequence`` or ``batch:N``.
        csv: file to write, or None.
        html: file to write, or None.
        plot: folder for pictures, or None.
        compare: an earlier ``--json`` document, or None.
        max_regress: what may get worse, in percent.
        metric: a name of METRICS or ``module:function``, or None.
        frame_ms: milliseconds of signal that one step stands for, or None.
        seconds: the most that timing may take for one model, or None.
        command: the command line.
    """

    backends: list[str] | None = None
    scenario: str = "stream"
    csv: Path | None = None
    html: Path | None = None
    plot: Path | None = None
    compare: Path | None = None
    max_regress: str = "5%"
    metric: str | None = None
    frame_ms: float | None = None
    seconds: float | None = None
    command: str | None = None


@dataclass(frozen=True)
class BenchOutcome:
    """What came of it.

    Args:
        report: of all backends.
        comparison: with an earlier run, or None.
        written: the files.
    """

    report: Report
    comparison: Comparison | None
    written: tuple[Path, ...]

    @property
    def failed(self) -> bool:
        """Whether bytes differ that must not, or something got worse."""
        worse = self.comparison is not None and self.comparison.worse
        return bool(self.report.mismatches() or worse)

    def document(self) -> Document:
        """Return the ``edge-lstm.bench/1`` document."""
        document = self.report.document()
        if self.comparison is not None:
            document["comparison"] = self.comparison.document()
        return document

    def text(self) -> str:
        """Return it for a terminal."""
        parts = [self.report.text()]
        if self.comparison is not None:
            parts += ["", self.comparison.text()]
        parts += [f"wrote {path}  {path.stat().st_size:,} bytes" for path in self.written]
        return "\n".join(parts)


def bench(
    models: list[BenchModel],
    samples: Samples | None,
    request: BenchRequest,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> BenchOutcome:
    """Do what was asked; whatever can be refused is refused before anything is measured.

    Raises:
        UsageError: an option is wrong, or the data do not fit.
        OutputError: a file cannot be written.
        MissingTool: pictures were asked for, and matplotlib is not installed.
    """
    allowed = parse_percent(request.max_regress)
    base = None if request.compare is None else read_base(request.compare)
    options = _options(request)
    for path in (request.csv, request.html):
        if path is not None and not path.parent.is_dir():
            raise OutputError(f"{path}: cannot be written: no such folder")
    if request.plot is not None:
        from edge_lstm_benchmarks.picture_bench import check_matplotlib

        check_matplotlib()
        make_folder(request.plot)
    report = run_bench(
        models, samples, request.backends, request.scenario, progress, options, watch
    )
    report = replace(report, command=request.command)
    comparison = None
    if base is not None:
        document = report.document()
        comparison = compare_with(base, document, allowed, str(request.compare))
    outcome = BenchOutcome(report, comparison, ())
    return replace(outcome, written=tuple(_write(outcome.document(), request)))


def _options(request: BenchRequest) -> BenchOptions:
    for name, value in (("--frame-ms", request.frame_ms), ("--seconds", request.seconds)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} {value:g}: want a number above 0")
    options = BenchOptions(metric=request.metric, frame_ms=request.frame_ms)
    return options if request.seconds is None else replace(options, cap_s=request.seconds)


def _write(document: Document, request: BenchRequest) -> Iterable[Path]:
    """Write what was asked for; yield the files."""
    if request.csv is not None:
        write_atomically(request.csv, csv_text(document).encode())
        yield request.csv
    if request.html is not None:
        write_atomically(request.html, html_page(document).encode())
        yield request.html
    if request.plot is not None:
        from edge_lstm_benchmarks.picture_bench import pictures

        for name, data in pictures(document):
            path = request.plot / name
            write_atomically(path, data)
            yield path


def live_cells(standing: Standing) -> tuple[str, ...]:
    """Return where a backend is, as cells of the live table."""
    p50 = "" if standing.p50_us is None else f"{standing.p50_us:,.2f}"
    rounds = str(standing.rounds or "")
    doing = "settled" if standing.settled and standing.rounds else standing.doing
    return standing.backend, doing[:60], rounds, p50
