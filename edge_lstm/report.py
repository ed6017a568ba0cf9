"""Results of a benchmark, and how they are shown as text, JSON and Markdown."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_lstm.records import (
    Accuracy,
    Analysis,
    BitExactness,
    ColdStart,
    Counted,
    Fidelity,
    Latency,
    ModelRecord,
    Result,
    SignalFidelity,
    Timing,
    plain_json,
)

__all__ = [
    "SCHEMA",
    "Accuracy",
    "Analysis",
    "BitExactness",
    "ColdStart",
    "Counted",
    "Fidelity",
    "Latency",
    "ModelRecord",
    "Report",
    "Result",
    "SignalFidelity",
    "Timing",
]

SCHEMA = "edge-lstm.bench/1"
LINE_WIDTH = 110
SIGNALS_SHOWN, NOISES_SHOWN = 24, 3

Row = list[str]


@dataclass(frozen=True)
class Report:
    """All results of one run.

    Args:
        host: the machine, the system, and the conditions.
        models: what was measured.
        results: a row for each model and backend.
        notes: what else a reader must know.
        command: that gives this report again, or None.
    """

    host: dict[str, Any]
    models: tuple[ModelRecord, ...]
    results: tuple[Result, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    command: str | None = None

    def mismatches(self) -> list[str]:
        """Return a line for each backend whose bytes are not those of its profile."""
        lines = []
        for result in self.results:
            count = None if result.fidelity is None else result.fidelity.differing_bytes
            if count:
                lines.append(
                    f"{result.model}, {result.backend}: {count:,} of {result.output_bytes:,} bytes"
                    f" are not those of profile {result.profile}; want 0"
                )
        return lines

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        found: dict[str, Any] = plain_json(
            {
                "schema": SCHEMA,
                "host": self.host,
                "command": self.command,
                "models": [asdict(model) for model in self.models],
                "results": [result.document() for result in self.results],
                "notes": list(self.notes),
            }
        )
        return found

    def text(self) -> str:
        """Return tables that are readable in 120 columns."""
        parts = []
        for record in self.models:
            results = self._of(record)
            parts.append(_wrapped(f"{record.name}: {_about(record, results)}").lstrip())
            parts.append(_plain_table(*_speed_cells(results)))
            parts.extend(_wrapped(f"{name}  not run: {why}") for name, why in _skipped(results))
            parts.append("")
            if any(r.latency_us is not None for r in results):
                parts += [_plain_table(*_cost_cells(results)), ""]
            if any(r.counted is not None for r in results):
                parts += [_plain_table(*_counted_cells(results)), ""]
            if record.analysis is not None:
                about, header, rows = _signal_cells(record.analysis)
                parts += [_wrapped(about).lstrip(), _plain_table(header, rows), ""]
        parts.extend(_wrapped(line).lstrip() for line in self._remarks())
        return "\n".join(parts)

    def markdown(self) -> str:
        """Return the same tables as Markdown."""
        parts = []
        for record in self.models:
            results = self._of(record)
            header, rows = _speed_cells(results)
            parts.append(f"**{record.name}**: {_about(record, results)}\n")
            parts += _markdown_table(header, rows)
            blanks = " |" * (len(header) - 2)
            parts += [f"| {n} | not run: {_escape(why)} |{blanks}" for n, why in _skipped(results)]
            parts += ["", *_markdown_table(*_cost_cells(results)), ""]
        parts.extend(f"- {_escape(line)}" for line in self._remarks())
        return "\n".join(parts) + "\n"

    def _of(self, record: ModelRecord) -> list[Result]:
        return [result for result in self.results if result.model == record.name]

    def _remarks(self) -> list[str]:
        lines = [f"differs: {line}" for line in self.mismatches()]
        for record in self.models:
            groups = [] if record.bit_exactness is None else record.bit_exactness.groups()
            lines += [f"same bytes: {record.name}: {' = '.join(group)}" for group in groups]
        lines += [f"ran on: {r.model}, {r.backend}: {r.ran_on}" for r in self.results if r.ran_on]
        lines += [
            f"warning: {r.model}, {r.backend}: {r.warning}" for r in self.results if r.warning
        ]
        for record in self.models:
            noisy = [r for r in self._of(record) if r.timing is not None and r.timing.noise]
            lines += [f"noise (~): {record.name}: {_noises(noisy)}"] if noisy else []
        lines += [f"note: {note}" for note in self.notes]
        return [*lines, _about_host(self.host)]


def _noises(noisy: list[Result]) -> str:
    """Return what disturbed which backends; the first few, as it is often all of them."""
    shown = [f"{r.backend} ({r.timing.noise})" for r in noisy[:NOISES_SHOWN] if r.timing]
    more = len(noisy) - len(shown)
    return ", ".join(shown) + (f", and {more} more; all with --json" if more else "")


def _about_host(host: dict[str, Any]) -> str:
    pinned, load, governor = (host.get(k) for k in ("pinned_cpu", "load_average", "governor"))
    return (
        f"on {host.get('cpu')}, {host.get('cpus')} CPUs, {host.get('system')},"
        f" Python {host.get('python')}, NumPy {host.get('numpy')}; {host.get('threads')} thread"
        + ("" if pinned is None else f", pinned to CPU {pinned}")
        + ("" if load is None else f"; load {load:.2f} at the start")
        + ("" if governor is None else f"; governor {governor}")
        + f"; clock {host.get('clock')}, {host.get('clock_cost_ns')} ns in every call"
    )


def _about(record: ModelRecord, results: list[Result]) -> str:
    check = "" if record.input_checksum is None else f", check {record.input_checksum[:6]}"
    sizes = [
        f"{record.sequences:,} sequences of up to {record.time_steps} steps ({record.data}{check})"
    ]
    if record.parameters is not None:
        sizes.insert(0, f"{record.parameters:,} parameters")
    steps = {r.steps_per_call for r in results if r.steps_per_call is not None and _gave(r)}
    scenarios = {r.scenario for r in results}
    calls = ", ".join(f"{n} step" + ("s" if n > 1 else "") for n in sorted(steps)) or "no call"
    return f"{'; '.join(sizes)}; scenario {', '.join(sorted(scenarios))}, one call = {calls}"


def _skipped(results: list[Result]) -> list[tuple[str, str]]:
    return [(r.backend, r.skipped_reason) for r in results if r.skipped_reason is not None]


def _gave(result: Result) -> bool:
    """Return whether it gave outputs, and is no mere estimate."""
    return result.output_checksum is not None


def _ran(results: list[Result]) -> list[Result]:
    """Return what ran, fastest first."""
    ran = [r for r in results if r.skipped_reason is None]
    return sorted(ran, key=lambda r: math.inf if r.latency_us is None else r.latency_us.p50)


def _speed_cells(results: list[Result]) -> tuple[Row, list[Row]]:
    """Return the header and the rows of the first table.

    ``~`` stands behind a median that something disturbed; ``delta`` is against the float model,
    with half its 95 % interval; ``labels`` is the share of the float model's labels; ``differ``
    counts the bytes that are not those of the profile that the backend must equal; ``check`` is
    the start of the outputs' checksum.
    """
    ran = [r for r in _ran(results) if _gave(r)]
    metric = next((r.accuracy.metric for r in ran if r.accuracy is not None), None)
    has_labels = any(r.fidelity is not None and r.fidelity.labels_same is not None for r in ran)
    has_float = any(r.fidelity is not None and r.fidelity.snr_db is not None for r in ran)
    has_rate = any(r.real_time is not None for r in ran)
    header = ["backend", "p50 us", "p90 us", "p99 us", "steps/s"]
    header += ["x real time"] if has_rate else []
    header += [] if metric is None else [metric, "delta"]
    header += ["SNR dB"] if has_float else []
    header += ["labels"] if has_labels else []
    header += ["differ", "check"]
    rows = []
    for r in ran:
        row = [_name(r), *_latency(r), _rate(r.steps_per_s)]
        if has_rate:
            row.append(_rate(r.real_time))
        if metric is not None:
            row += _accuracy(r.accuracy)
        fidelity = r.fidelity or Fidelity()
        if has_float:
            row.append("-" if fidelity.snr_db is None else f"{fidelity.snr_db:.1f}")
        if has_labels:
            row.append(_percent(fidelity.labels_same))
        row += [_count(fidelity.differing_bytes), (r.output_checksum or "-")[:6]]
        rows.append(row)
    return header, rows


def _cost_cells(results: list[Result]) -> tuple[Row, list[Row]]:
    """Return the header and the rows of the second table.

    ``cold ms`` is from the start of a process to its first result, of which ``load ms`` is the
    import of the engine and the loading of the model. ``RAM`` is the peak of that process, with
    Python and NumPy; ``own`` is what the engine and the model added.
    """
    header = ["backend", "model bytes", "cold ms", "load ms", "RAM MB", "own MB", "install MB"]
    rows = []
    for r in _ran(results):
        if r.latency_us is None:
            continue
        cold, peak, base = r.cold_start, r.peak_memory_bytes, r.base_memory_bytes
        own = None if peak is None or base is None else peak - base
        rows.append(
            [
                _name(r),
                _count(r.size_bytes),
                "-" if cold is None else _figure(cold.total_ms),
                "-" if cold is None else _figure(cold.load_ms),
                *(_megabytes(n) for n in (peak, own, r.package_bytes)),
            ]
        )
    known = [k for k in range(len(header)) if k < 2 or any(row[k] != "-" for row in rows)]
    return [header[k] for k in known], [[row[k] for k in known] for row in rows]


def _counted_cells(results: list[Result]) -> tuple[Row, list[Row]]:
    """Return the header and the rows of what was counted where there is no clock."""
    header = ["backend", "how", "a step", "unit", "flash bytes", "RAM bytes", "sequences"]
    rows = [
        [
            r.backend,
            r.counted.how,
            _count(r.counted.per_step),
            r.counted.unit,
            _count(r.counted.flash_bytes),
            _count(r.counted.ram_bytes),
            ("all" if r.sequences is None else f"first {r.sequences:,}") if _gave(r) else "none",
        ]
        for r in results
        if r.counted is not None
    ]
    return header, rows


def _signal_cells(analysis: Analysis) -> tuple[str, Row, list[Row]]:
    """Return what the third table is about, its header and its rows."""
    about = (
        f"inside, NumPy int8 (profile {analysis.profile}) against float, over"
        f" {analysis.sequences:,} sequences:"
    )
    header = ["signal", "kind", "SNR dB", "cosine", "saturated", "error at first step", "at last"]
    rows = [
        [
            signal.name,
            signal.kind,
            f"{signal.snr_db:.1f}",
            f"{signal.cosine:.6f}",
            f"{signal.saturated:,} of {signal.values:,}",
            *(
                _share(signal.error_over_time[end]) if signal.error_over_time else "-"
                for end in (0, -1)
            ),
        ]
        for signal in analysis.signals[:SIGNALS_SHOWN]
    ]
    if len(analysis.signals) > SIGNALS_SHOWN:
        about += f" (the first {SIGNALS_SHOWN} of {len(analysis.signals)}; all with --json)"
    return about, header, rows


def _name(result: Result) -> str:
    """Return the backend's name, which must say when it computes in float."""
    is_told = result.precision != "float32" or "float" in result.backend
    return result.backend if is_told else f"{result.backend} (float)"


def _latency(result: Result) -> Row:
    latency = result.latency_us
    if latency is None:
        return ["-"] * 3
    is_noisy = result.timing is not None and result.timing.noise is not None
    mark = "~" if is_noisy else ""
    return [f"{_figure(latency.p50)}{mark}", _figure(latency.p90), _figure(latency.p99)]


def _accuracy(accuracy: Accuracy | None) -> Row:
    if accuracy is None:
        return ["-", "-"]
    factor, unit = (100.0, "%") if accuracy.metric in ("accuracy", "f1", "mape") else (1.0, "")
    value = factor * accuracy.value
    decimals = 2 if unit else _decimals(value, 4)
    delta, interval = accuracy.delta_vs_float, accuracy.delta_interval
    shown = "-" if delta is None else f"{factor * delta:+.{decimals}f}"
    if interval is not None:
        shown += f" ±{factor * (interval[1] - interval[0]) / 2:.{decimals}f}"
    return [f"{value:.{decimals}f}{unit}", shown]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"


def _share(share: float) -> str:
    """Return a share in percent with two digits, as it may be very small."""
    return f"{_figure(100 * share, 2)}%"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _megabytes(value: float | None) -> str:
    return "-" if value is None else _figure(value / 1e6)


def _rate(value: float | None) -> str:
    """Return three digits and a letter for thousands, as a rate is compared at a glance."""
    if value is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{_figure(value / size)}{letter}"
    return _figure(value)


def _decimals(value: float, digits: int) -> int:
    """Return how many decimals show ``digits`` significant digits."""
    if not math.isfinite(value) or value == 0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _figure(value: float, digits: int = 3) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:,.{_decimals(value, digits)}f}"


def _plain_table(header: Row, rows: list[Row]) -> str:
    if not rows:
        return "  (no backend ran)"
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join(f"  {line}" for line in lines)


def _markdown_table(header: Row, rows: list[Row]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _wrapped(line: str) -> str:
    """Return a line as several; words such as install commands stay whole."""
    return textwrap.fill(
        line,
        LINE_WIDTH,
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
