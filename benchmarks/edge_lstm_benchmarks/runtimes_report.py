"""The goals of the NumPy runtimes, and the kept results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Run = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """How many times faster ours must be than a peer.

    Args:
        title: of the column.
        ours: a peer of ours.
        peers: of these, the fastest counts.
        modes: where the goal holds.
        least: shape to ratio; a shape without an entry has no goal.
    """

    title: str
    ours: str
    peers: tuple[str, ...]
    modes: tuple[str, ...]
    least: dict[str, float]

    def target(self, run: Run) -> float | None:
        """Return the ratio wanted of a run, or None where there is no goal."""
        return self.least.get(run["shape"]) if run["mode"] in self.modes else None

    def ratio(self, run: Run) -> float | None:
        """Return the ratio reached, or None where a figure is missing."""
        rows = run["peers"]
        theirs = [rows.get(name, {}).get("us_per_step") for name in self.peers]
        known = [value for value in theirs if value is not None]
        own = rows.get(self.ours, {}).get("us_per_step")
        return min(known) / own if known and own else None


_ALL = ("8x16", "16x32", "40x64", "40x128", "64x256", "40x64x2", "40x256x3")


def _each(value: float, **other: float) -> dict[str, float]:
    return {shape: other.get(f"s{shape}", value) for shape in _ALL}


GOALS: tuple[Goal, ...] = (
    Goal(
        "int8 / LiteRT int8",
        "numpy-int8:litert",
        ("litert",),
        ("stream",),
        dict(zip(_ALL, (1, 1.7, 2.5, 3, 3.5, 2, 1.4), strict=True)),
    ),
    Goal(
        "int8 / ORT session.run",
        "numpy-int8:litert",
        ("onnxruntime-run",),
        ("stream",),
        _each(1),
    ),
    Goal(
        "int8 / ORT IO binding",
        "numpy-int8:litert",
        ("onnxruntime",),
        ("stream",),
        {"8x16": 1, "16x32": 1},
    ),
    Goal(
        "float / ORT IO binding",
        "numpy-float",
        ("onnxruntime",),
        ("stream",),
        _each(2.5, s40x128=1, s64x256=1, s40x256x3=1),
    ),
    Goal(
        "int8 / LiteRT int8",
        "numpy-int8:litert",
        ("litert",),
        ("T100", "T1000"),
        _each(1.5, s64x256=3),
    ),
    Goal(
        "int8 / LiteRT int8, its best layout",
        "numpy-int8:litert",
        ("litert", "litert-time-major"),
        ("batch32", "batch256"),
        _each(3),
    ),
)

TITLES = {
    "stream": "Streaming: one step a call, state carried",
    "T100": "Sequences of 100 steps",
    "T1000": "Sequences of 1000 steps",
    "batch32": "Batches of 32 rows, 20 steps",
    "batch256": "Batches of 256 rows, 20 steps",
}

ENGINES = ("litert", "onnxruntime", "tflm", "tflite-runtime")

HEAD = """## Speed of the NumPy runtimes

Made by `python -m edge_lstm_benchmarks.runtimes`, which measures, keeps the figures of each
machine in `results/`, and writes this page (`--render` only writes it). Microseconds for one step
of one row: medians over interleaved rounds of processor time, every engine with one thread on the
same CPU. Shapes are input size x hidden size (x layers). In streaming `onnxruntime` is IO binding
and `onnxruntime-run` is `session.run`; `litert-time-major` is LiteRT fed [time, batch, features].
A ratio says how many times faster ours is; behind it is the goal, and whether it is met.
Ratios carry to other machines, microseconds do not.
"""


def render(kept: list[dict[str, Any]]) -> str:
    """Return the page's section for the results of all machines."""
    parts = [HEAD]
    for machine in kept:
        host = machine["host"]
        parts.append(
            f"\n### {host['cpu']}\n\n{host['cpus']} CPUs, {host['architecture']},"
            f" {host['system']}, Python {host['python']}, NumPy {host['numpy']};"
            f" {machine['date']}. {_versions(machine['runs'])}"
            f" {_contention(machine['runs'])}\n"
        )
        for mode, title in TITLES.items():
            runs = [run for run in machine["runs"] if run["mode"] == mode]
            if runs:
                parts.append(f"\n#### {title}\n\n{_figures(runs)}\n{_ratios(runs)}")
        parts.append(_differences(machine["runs"]))
    return "".join(parts)


def _contention(runs: list[Run]) -> str:
    """Return how much longer the time on the wall was than the processor time."""
    shares = [
        row["wall_us_per_step"] / row["us_per_step"]
        for run in runs
        for row in run["peers"].values()
        if row.get("wall_us_per_step")
    ]
    if not shares:
        return ""
    return f"The time on the wall was {statistics.median(shares):.2f} times the processor time."


def _versions(runs: list[Run]) -> str:
    found = {
        name: row["version"]
        for run in runs
        for name, row in run["peers"].items()
        if "version" in row and name in ENGINES
    }
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items())) + "."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figures(runs: list[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run["peers"]))
    rows = []
    for name in names:
        cells = [run["peers"].get(name, {}).get("us_per_step") for run in runs]
        if any(value is not None for value in cells):
            rows.append([name, *("-" if v is None else f"{v:.3g}" for v in cells)])
    return _table(["us per step", *(run["shape"] for run in runs)], rows)


def _ratios(runs: list[Run]) -> str:
    rows = []
    for goal in GOALS:
        cells = []
        for run in runs:
            target, ratio = goal.target(run), goal.ratio(run)
            if target is None:
                cells.append(
                    "" if ratio is None or run["mode"] not in goal.modes else f"{ratio:.2f}"
                )
            elif ratio is None:
                cells.append(f"not measured ({target:g})")
            else:
                word = "met" if ratio >= target else "**missed**"
                cells.append(f"{ratio:.2f} ({target:g}: {word})")
        if any(cells):
            rows.append([goal.title, *cells])
    return _table(["times faster (goal)", *(run["shape"] for run in runs)], rows)


def _differences(runs: list[Run]) -> str:
    def worst(key: str, names: Callable[[str], bool] = bool) -> float:
        values = [
            row[key] for r in runs for n, row in r["peers"].items() if key in row and names(n)
        ]
        return max(values, default=0)

    wrong = [
        f"{name} at {run['shape']} {run['mode']}: {row['differing_bytes']:,}"
        for run in runs
        for name, row in run["peers"].items()
        if row.get("differing_bytes")
    ]
    compared = sum("differing_bytes" in row for run in runs for row in run["peers"].values())
    text = "; ".join(wrong) if wrong else "none"
    return (
        f"\nBytes that differ from the plain profile, over {compared} compared runs: {text}."
        f" Greatest error of a float runtime against float64:"
        f" {worst('max_error'):.1e} (ours {worst('max_error', 'numpy-float'.__eq__):.1e}).\n"
    )
