"""A benchmark against an earlier one: which rows got worse, and by how much."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_lstm.errors import UsageError
from edge_lstm.report import SCHEMA

Document = dict[str, Any]
Key = tuple[str, str, str]
"""Model, backend, scenario."""

# What is held against the base where lower is better, and where it stands in a result.
COSTS: dict[str, tuple[str, ...]] = {
    "latency p50 us": ("latency_us", "p50"),
    "counted per step": ("counted", "per_step"),
    "flash bytes": ("counted", "flash_bytes"),
    "RAM bytes": ("counted", "ram_bytes"),
    "model bytes": ("size", "model_bytes"),
    "peak memory bytes": ("memory", "peak_rss_bytes"),
}
SAME_MACHINE = ("cpu", "cpus", "system", "python")


@dataclass(frozen=True)
class Worse:
    """One figure of one row that got worse.

    Args:
        model: of the row.
        backend: of the row.
        scenario: of the row.
        field: what got worse.
        base: its figure before, or None.
        now: its figure, or None.
        change: relative, positive; None where there is no number for it.
        reason: in words.
    """

    model: str
    backend: str
    scenario: str
    field: str
    base: float | None
    now: float | None
    change: float | None
    reason: str

    def __str__(self) -> str:
        return f"{self.model}, {self.backend}, {self.scenario}: {self.field} {self.reason}"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        base: the file.
        max_regress: what is allowed, relative.
        rows: results that stand in both.
        worse: those beyond it.
        notes: what a reader must know.
    """

    base: str
    max_regress: float
    rows: int
    worse: tuple[Worse, ...]
    notes: tuple[str, ...]

    def document(self) -> Document:
        """Return it as JSON has it."""
        return {**asdict(self), "worse": [asdict(one) for one in self.worse]}

    def text(self) -> str:
        """Return it as lines."""
        allowed = f"{100 * self.max_regress:g} %"
        lines = [f"worse: {one}" for one in self.worse]
        lines += [f"note: {note}" for note in self.notes]
        lines.append(
            f"against {self.base}: {self.rows} rows stand in both; figures that are worse by more"
            f" than {allowed}: {len(self.worse)}"
        )
        return "\n".join(lines)


def parse_percent(text: str) -> float:
    """Return ``5%`` or ``5`` as 0.05, or raise UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", text.strip())
    if match is None:
        raise UsageError(f"--max-regress {text!r}: want percent, such as 5%")
    return float(match[1]) / 100


def read_base(path: Path) -> Document:
    """Return an earlier ``bench --json`` document.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as JSON: {error}") from error
    found = document.get("schema") if isinstance(document, dict) else type(document).__name__
    if found != SCHEMA:
        raise UsageError(f"{path}: holds {found}; want {SCHEMA}, as bench --json prints it")
    results = document.get("results")
    if not isinstance(results, list) or not all(
        isinstance(r, dict)
        and all(isinstance(r.get(name), str) for name in ("model", "backend", "scenario"))
        for r in results
    ):
        raise UsageError(f"{path}: its results are not rows; want what bench --json prints")
    found_document: Document = document
    return found_document


def compare_with(base: Document, now: Document, max_regress: float, name: str) -> Comparison:
    """Return which rows of ``now`` are worse than in ``base``.

    Args:
        base: an earlier document.
        now: this one.
        max_regress: relative change that is allowed.
        name: of the base, for the report.
    """
    before = {_key(result): result for result in base["results"]}
    after = {_key(result): result for result in now["results"]}
    common = [key for key in after if key in before]
    worse = [found for key in common for found in _worse(key, before[key], after[key], max_regress)]
    notes = []
    hosts = [_object(document, "host") for document in (base, now)]
    different = [
        f"{field} {hosts[0].get(field)} then, {hosts[1].get(field)} now"
        for field in SAME_MACHINE
        if hosts[0].get(field) != hosts[1].get(field)
    ]
    if different:
        notes.append(f"another machine: {'; '.join(different)}; latencies say little")
    gone = [", ".join(key) for key in before if key not in after]
    if gone:
        notes.append(f"not measured this time: {'; '.join(gone)}")
    if not common:
        notes.append("no row stands in both")
    return Comparison(name, max_regress, len(common), tuple(worse), tuple(notes))


def _key(result: Document) -> Key:
    return result["model"], result["backend"], result["scenario"]


def _worse(key: Key, base: Document, now: Document, allowed: float) -> Iterator[Worse]:
    """Yield what got worse in one row."""
    if now.get("skipped_reason"):
        if not base.get("skipped_reason"):
            reason = f"no longer: {now['skipped_reason']}"
            yield Worse(*key, "runs", None, None, None, reason)
        return
    disturbed = [_object(result, "timing").get("noise") for result in (base, now)]
    for field, path in COSTS.items():
        for found in _beyond(key, field, _figure(base, path), _figure(now, path), allowed):
            is_noisy = "latency_us" in path and any(disturbed)
            note = "; measured under noise (~)" if is_noisy else ""
            yield replace(found, reason=found.reason + note)
    metrics = [_object(result, "accuracy") for result in (base, now)]
    names = [metric.get("metric") for metric in metrics]
    if names[0] is not None and names[0] == names[1]:
        old, new = (_figure(metric, ("value",)) for metric in metrics)
        higher = bool(metrics[1].get("higher_is_better", names[1] in ("accuracy", "f1")))
        yield from _beyond(key, str(names[1]), old, new, allowed, higher_is_better=higher)
    old_bytes, new_bytes = (_figure(r, ("fidelity", "differing_bytes")) for r in (base, now))
    if new_bytes and new_bytes > (old_bytes or 0):
        reason = f"{old_bytes or 0:,.0f} then, {new_bytes:,.0f} now"
        yield Worse(*key, "differing bytes", old_bytes, new_bytes, None, reason)


def _beyond(
    key: Key,
    field: str,
    base: float | None,
    now: float | None,
    allowed: float,
    *,
    higher_is_better: bool = False,
) -> Iterator[Worse]:
    if base is None or now is None:
        return
    loss = base - now if higher_is_better else now - base
    known = loss / abs(base) if base else None
    if loss > 0 if known is None else known > allowed:
        by = "from nothing" if known is None else f"by {100 * known:.1f} %"
        reason = f"{base:.6g} then, {now:.6g} now: worse {by}"
        yield Worse(*key, field, base, now, known, reason)


def _object(document: Document, name: str) -> Document:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _figure(result: Document, path: tuple[str, ...]) -> float | None:
    """Return the number at ``path``, or None where there is none."""
    value: Any = result
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
