"""The goals of our runtimes, and the kept results as Markdown."""

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


_LONG = ("16x32", "40x64", "40x128", "64x256", "40x256x3")
BEST = (
    *("litert", "litert-float", "tflm", "tflite-runtime", "onnxruntime", "onnxruntime-run"),
    *("onnxruntime-dynamic-int8", "openvino", "openvino:bf16"),
)
"""Every engine that is not ours."""
ROUNDING = ("onnxruntime-dynamic-int8", "openvino:bf16")
"""Floats in and out, and less in between."""
BOUND_GOALS = {"40x64": 3.0, "40x256x3": 1.5}
"""At most so many times as long as reading the weights."""
START_GOAL_MS = 15


def _stream(title: str, ours: str, peers: tuple[str, ...], least: tuple[float | None, ...]) -> Goal:
    found = {shape: value for shape, value in zip(_ALL, least, strict=True) if value is not None}
    return Goal(title, ours, peers, ("stream",), found)


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
    _stream("C / best peer", "c-host:edge", BEST, (12, 10, 9, 6, 4, 7, 3)),
    _stream("C / ORT IO binding", "c-host:edge", ("onnxruntime",), (50, 35, 20, 10, 8, 15, 15)),
    _stream("C / LiteRT int8", "c-host:edge", ("litert",), (40, 40, 40, 40, 30, 40, 25)),
    _stream("C of litert / LiteRT int8", "c-host:litert", ("litert",), (30,) * 7),
    _stream("C by ctypes / best peer", "c-host:ctypes", BEST, (4, 4, 4, 4, None, 4, None)),
    _stream(
        "portable C, -march=native / LiteRT int8", "c-host:portable-native", ("litert",), (12,) * 7
    ),
    _stream("portable C / LiteRT int8", "c-host:portable", ("litert",), (3,) * 7),
    Goal(
        "C / ORT dynamic int8",
        "c-host:edge",
        ("onnxruntime-dynamic-int8",),
        ("T100",),
        {"16x32": 3.5, "40x64": 2.4, "40x128": 1.5, "64x256": 1.4, "40x256x3": 1.4},
    ),
    Goal("C / ORT float", "c-host:edge", ("onnxruntime",), ("T100",), dict.fromkeys(_LONG, 3)),
    Goal("C / LiteRT int8", "c-host:edge", ("litert",), ("T100",), dict.fromkeys(_LONG, 30)),
    Goal("C / ORT float", "c-host:edge", ("onnxruntime",), ("batch32xT100",), _each(2)),
    Goal(
        "C / ORT dynamic int8",
        "c-host:edge",
        ("onnxruntime-dynamic-int8",),
        ("batch32xT100",),
        _each(1.4),
    ),
    Goal(
        "C / OpenVINO, float and bf16",
        "c-host:edge",
        ("openvino", "openvino:bf16"),
        ("batch32xT100",),
        {},
    ),
)

TITLES = {
    "stream": "Streaming: one step a call, state carried",
    "T100": "Sequences of 100 steps",
    "T1000": "Sequences of 1000 steps",
    "batch32": "Batches of 32 rows, 20 steps",
    "batch256": "Batches of 256 rows, 20 steps",
    "batch32xT100": "Batches of 32 rows, 100 steps",
}

ENGINES = ("litert", "onnxruntime", "openvino", "tflm", "tflite-runtime")

HEAD = """## Speed of the runtimes

Made by `python -m edge_lstm_benchmarks.runtimes`, which measures, keeps the figures of each
machine in `results/`, and writes this page (`--render` only writes it). Microseconds for one step
of one row: medians over interleaved rounds of processor time, every engine with one thread on the
same CPU. Shapes are input size x hidden size (x layers). In streaming `onnxruntime` is IO binding
and `onnxruntime-run` is `session.run`; `litert-time-major` is LiteRT fed [time, batch, features].
`c-host` is the generated C with the best kernels that the processor has, behind the session of
`program.compile()`; `ctypes` behind the module of a native package, without NumPy; `portable` with
no intrinsics, for any processor of the kind; `portable-native` the same with `-march=native`. The
best peer is the fastest engine that is not ours.
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
        parts.append(_bounds(machine.get("bounds", [])))
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


def _bounds(bounds: list[dict[str, Any]]) -> str:
    """Return what a step called from C takes beside the time to read its weights."""
    rows = []
    for bound in bounds:
        if "step_us" in bound:
            ratio, most = bound["step_us"] / bound["bound_us"], BOUND_GOALS.get(bound["shape"])
            word = (
                "" if most is None else f" ({most:g}: {'met' if ratio <= most else '**missed**'})"
            )
            rows.append(
                [
                    bound["shape"],
                    f"{bound['weight_bytes']:,}",
                    f"{bound['bound_us']:.3g}",
                    f"{bound['step_us']:.3g}",
                    f"{ratio:.2f}{word}",
                ]
            )
    if not rows:
        return ""
    head = ["shape", "weight bytes", "us to read them", "us per step in C", "ratio (goal: at most)"]
    return (
        "\n#### One step called from C, and the time that reading its weights takes\n\n"
        f"{_table(head, rows)}{_costs(bounds)}"
    )


def _costs(bounds: list[dict[str, Any]]) -> str:
    """Return the start without NumPy, and what more threads bring."""
    rows = []
    for bound in bounds:
        if "first_step_ms" in bound:
            first, speeds = bound["first_step_ms"], bound["sequences_per_s"]
            most = max(speeds, key=int)
            word = "met" if first <= START_GOAL_MS else "**missed**"
            rows.append(
                [
                    bound["shape"],
                    f"{first:.1f} ({START_GOAL_MS}: {word})",
                    f"{bound['python_alone_ms']:.1f}",
                    f"{speeds['1']:,.0f}",
                    f"{speeds[most]:,.0f} by {most}: {speeds[most] / speeds['1']:.2f} times",
                ]
            )
    if not rows:
        return ""
    head = [
        "shape",
        "ms from a process's start to the first step, without NumPy (goal: at most)",
        "of it Python",
        "sequences of 100 steps a second by one thread",
        "by more, each with its session",
    ]
    return f"\n{_table(head, rows)}"


def _differences(runs: list[Run]) -> str:
    def worst(key: str, names: Callable[[str], bool] = bool) -> float:
        values = [
            row[key] for r in runs for n, row in r["peers"].items() if key in row and names(n)
        ]
        return max(values, default=0)

    def exact(name: str) -> bool:
        return name not in ROUNDING

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
        f" Greatest error of a float runtime against float64: {worst('max_error', exact):.1e} (ours"
        f" {worst('max_error', 'numpy-float'.__eq__):.1e}); of those that round:"
        f" {worst('max_error', lambda name: not exact(name)):.1e}.\n"
    )
