"""Results of a benchmark: the records, and how they are shown as text, JSON and Markdown."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = "edge-lstm.bench/1"
LINE_WIDTH = 110


@dataclass(frozen=True)
class Latency:
    """Microseconds of one call; ``n`` calls were timed."""

    min: float
    p50: float
    p90: float
    p99: float
    n: int


@dataclass(frozen=True)
class Accuracy:
    """The task metric: ``accuracy`` (share of labels) or ``mae`` (in the target's units)."""

    metric: str
    value: float
    delta_vs_float: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """Agreement with the float model; and with the profile that must be equal, in bytes.

    Args:
        snr_db: signal to noise, 999 where nothing differs.
        cosine: of all outputs.
        labels_same: share; None where outputs are no labels.
        differing_bytes: None where no profile is named, or for the runtime that defines it.
    """

    snr_db: float | None = None
    cosine: float | None = None
    labels_same: float | None = None
    differing_bytes: int | None = None


@dataclass(frozen=True)
class Result:
    """One backend on one model; ``skipped_reason`` says why there are no numbers.

    Args:
        model: its name.
        backend: its row in BACKENDS.
        profile: whose bytes it must give, or None.
        precision: ``int8`` or ``float32``.
        version: of the engine.
        scenario: ``stream``, ``sequence`` or ``batch:N``.
        steps_per_call: time steps of one timed call.
        latency_us: of one call.
        steps_per_s: steps of all rows together, over the time inside the timer.
        peak_memory_bytes: largest resident size of the backend's whole process.
        size_bytes: the model in the engine's own format.
        accuracy: None without labels or targets.
        fidelity: None where there is nothing to compare with.
        output_bytes: how many there are.
        output_checksum: of all valid outputs.
        warning: what makes the numbers doubtful.
        skipped_reason: one line.
    """

    model: str
    backend: str
    profile: str | None
    precision: str
    scenario: str
    version: str | None = None
    steps_per_call: int | None = None
    latency_us: Latency | None = None
    steps_per_s: float | None = None
    peak_memory_bytes: int | None = None
    size_bytes: int | None = None
    accuracy: Accuracy | None = None
    fidelity: Fidelity | None = None
    output_bytes: int | None = None
    output_checksum: str | None = None
    warning: str | None = None
    skipped_reason: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        record = asdict(self)
        record["memory"] = {"peak_rss_bytes": record.pop("peak_memory_bytes")}
        record["size"] = {"model_bytes": record.pop("size_bytes")}
        return {key: _finite(value) for key, value in record.items()}


@dataclass(frozen=True)
class ModelRecord:
    """What was measured: a model, and the data it was fed."""

    name: str
    parameters: int | None
    weight_bytes: int | None
    sequences: int
    time_steps: int
    data: str


@dataclass(frozen=True)
class Report:
    """All results of one run."""

    host: dict[str, Any]
    models: tuple[ModelRecord, ...]
    results: tuple[Result, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)

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
        return {
            "schema": SCHEMA,
            "host": self.host,
            "models": [asdict(model) for model in self.models],
            "results": [result.document() for result in self.results],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return tables that are readable in 120 columns."""
        parts = []
        for record in self.models:
            header, rows, skipped = _cells(self._of(record))
            parts.append(_wrapped(f"{record.name}: {_about(record, self._of(record))}").lstrip())
            parts.append(_plain_table(header, rows))
            parts.extend(_wrapped(f"{name}  not run: {reason}") for name, reason in skipped)
            parts.append("")
        parts.extend(_wrapped(line).lstrip() for line in self._remarks())
        return "\n".join(parts)

    def markdown(self) -> str:
        """Return the same tables as Markdown."""
        parts = []
        for record in self.models:
            header, rows, skipped = _cells(self._of(record))
            parts.append(f"**{record.name}**: {_about(record, self._of(record))}\n")
            parts.append("| " + " | ".join(header) + " |")
            parts.append("|---" + "|---:" * (len(header) - 1) + "|")
            parts.extend("| " + " | ".join(row) + " |" for row in rows)
            blanks = " |" * (len(header) - 2)
            parts.extend(f"| {name} | not run: {_escape(why)} |{blanks}" for name, why in skipped)
            parts.append("")
        parts.extend(f"- {_escape(line)}" for line in self._remarks())
        return "\n".join(parts) + "\n"

    def _of(self, record: ModelRecord) -> list[Result]:
        return [result for result in self.results if result.model == record.name]

    def _remarks(self) -> list[str]:
        lines = [f"differs: {line}" for line in self.mismatches()]
        lines += [
            f"warning: {r.model}, {r.backend}: {r.warning}" for r in self.results if r.warning
        ]
        lines += [f"note: {note}" for note in self.notes]
        host = self.host
        pinned = host.get("pinned_cpu")
        lines.append(
            f"on {host.get('cpu')}, {host.get('cpus')} CPUs, {host.get('system')},"
            f" Python {host.get('python')}, NumPy {host.get('numpy')}; {host.get('threads')} thread"
            + ("" if pinned is None else f", pinned to CPU {pinned}")
            + f"; clock {host.get('clock')}, {host.get('clock_cost_ns')} ns in every call"
        )
        return lines


def _about(record: ModelRecord, results: list[Result]) -> str:
    sizes = [f"{record.sequences:,} sequences of up to {record.time_steps} steps ({record.data})"]
    if record.parameters is not None:
        sizes.insert(0, f"{record.parameters:,} parameters")
    steps = {r.steps_per_call for r in results if r.steps_per_call is not None}
    scenarios = {r.scenario for r in results}
    calls = ", ".join(f"{n} step" + ("s" if n > 1 else "") for n in sorted(steps)) or "no call"
    return f"{'; '.join(sizes)}; scenario {', '.join(sorted(scenarios))}, one call = {calls}"


def _cells(results: list[Result]) -> tuple[list[str], list[list[str]], list[tuple[str, str]]]:
    """Return the header, the rows of what ran (fastest first), and what did not run.

    ``delta`` is against the float model and ``labels`` the share of its labels; ``differ`` counts
    the bytes that are not those of the profile that the backend must equal; ``check`` is the start
    of the outputs' checksum.
    """
    ran = [r for r in results if r.skipped_reason is None]
    ran.sort(key=lambda r: math.inf if r.latency_us is None else r.latency_us.p50)
    metric = next((r.accuracy.metric for r in ran if r.accuracy is not None), None)
    has_labels = any(r.fidelity is not None and r.fidelity.labels_same is not None for r in ran)
    has_float = any(r.fidelity is not None and r.fidelity.snr_db is not None for r in ran)
    header = ["backend", "p50 us", "p90 us", "p99 us", "steps/s", "bytes"]
    if metric is not None:
        header += [metric, "delta"]
    if has_float:
        header += ["SNR dB"]
    if has_labels:
        header += ["labels"]
    header += ["differ", "check"]
    rows = []
    for r in ran:
        row = [_name(r)]
        latency = r.latency_us
        if latency is None:
            row += ["-"] * 3
        else:
            row += [_figure(us) for us in (latency.p50, latency.p90, latency.p99)]
        row += [_rate(r.steps_per_s), _count(r.size_bytes)]
        if metric is not None:
            row += _accuracy(r.accuracy)
        fidelity = r.fidelity or Fidelity()
        if has_float:
            row.append("-" if fidelity.snr_db is None else f"{fidelity.snr_db:.1f}")
        if has_labels:
            row.append(_percent(fidelity.labels_same))
        row += [_count(fidelity.differing_bytes), (r.output_checksum or "-")[:6]]
        rows.append(row)
    return header, rows, [(r.backend, r.skipped_reason or "") for r in results if r.skipped_reason]


def _name(result: Result) -> str:
    """Return the backend's name, which must say when it computes in float."""
    is_told = result.precision != "float32" or "float" in result.backend
    return result.backend if is_told else f"{result.backend} (float)"


def _accuracy(accuracy: Accuracy | None) -> list[str]:
    if accuracy is None:
        return ["-", "-"]
    delta = accuracy.delta_vs_float
    if accuracy.metric == "accuracy":
        shown = "-" if delta is None else f"{100 * delta:+.2f}"
        return [_percent(accuracy.value), shown]
    decimals = _decimals(accuracy.value, 4)
    shown = "-" if delta is None else f"{delta:+.{decimals}f}"
    return [f"{accuracy.value:.{decimals}f}", shown]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


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


def _figure(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:,.{_decimals(value, 3)}f}"


def _plain_table(header: list[str], rows: list[list[str]]) -> str:
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


def _finite(value: Any) -> Any:
    """Return ``value`` with null for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
