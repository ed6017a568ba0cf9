"""The goals of generated C, and what was measured, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_lstm.program import PROFILES

Row = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """What the best build of one LSTM may cost.

    Args:
        core: which.
        profile: of the arithmetic.
        shape: input size x hidden size.
        most: instructions of a step.
    """

    core: str
    profile: str
    shape: str
    most: float


def macs(shape: str) -> int:
    """Return the multiply-accumulates of an LSTM's step: four gates over input and hidden."""
    features, hidden = (int(part) for part in shape.split("x"))
    return 4 * hidden * (features + hidden)


def _goals() -> tuple[Goal, ...]:
    edge = {
        "cortex-m0plus": (8300, 3.7), "cortex-m3": (5000, 2.5), "cortex-m4": (2450, 1.0),
        "cortex-m7": (2450, 1.0), "cortex-m33": (2450, 1.0), "cortex-m55": (900, 0.21),
        "rv32imc": (7200, 3.6),
    }  # fmt: skip
    goals = []
    for core, (small, per_mac) in edge.items():
        goals.append(Goal(core, "edge", "8x16", small))
        goals.append(Goal(core, "edge", "40x128", per_mac * macs("40x128")))
    for profile in PROFILES:
        goals.append(Goal("cortex-m4", profile, "8x16", 5400))
        goals.append(Goal("cortex-m4", profile, "40x128", 112_000))
    return tuple(goals)


GOALS = _goals()
# On a Cortex-M4 at -Os: bytes of flash beyond the weights, and for each unit on top of that.
FLASH_BEYOND_WEIGHTS, FLASH_EACH_UNIT = 1000, 24
# On a Cortex-M4: RAM and stack.
MOST_RAM = {"8x16": 130, "40x128": 650}

HEAD = """\
## Generated C on emulated cores

Made by `make firmware`. Instructions are exact and the same on every machine: those of one step of
an LSTM of random weights, state carried, in the build that needs fewest of four (zig and gcc, -O3
and -Os). Cycles are estimates: the tables of the cores' reference manuals, memory without wait
states; none where no such table is public. Sizes are bytes of the model alone.
"""


BYTES = """\
Of all outputs, over random inputs with extremes among them, and for the trained models (weather and
digits; the others have random weights) over test data. A profile without a row has no integers for
such a model. Places: this machine; """


def best(rows: list[Row], core: str, profile: str, shape: str) -> Row | None:
    """Return the build of fewest instructions, or None where none was measured."""
    found = [r for r in rows if _is(r, core, profile, shape) and "instructions" in r]
    return min(found, key=lambda r: float(r["instructions"]), default=None)


def _is(row: Row, core: str, profile: str, shape: str) -> bool:
    return (row["core"], row["profile"], row["shape"]) == (core, profile, shape)


def render(kept: list[dict[str, Any]]) -> str:
    """Return the page's section for the one document of ``firmware.py``."""
    (document,) = kept
    rows = document["costs"]
    built = sorted({r["built_by"].rpartition(" ")[0] for r in rows if "built_by" in r})
    run = sorted({r["run_by"] for r in rows if "run_by" in r})
    parts = [HEAD, f"\nMeasured {document['date']} with {', '.join(built + run)}.\n"]
    for profile, title in (("edge", "Profile edge"), ("tflm", "Profile tflm, exact")):
        parts.append(f"\n### {title}: one step of an LSTM\n\n{_steps(rows, profile)}")
    parts.append(f"\n### Exact profiles on a Cortex-M4\n\n{_profiles(rows)}")
    parts.append(f"\n### Goals\n\n{_goal_table(rows)}")
    parts.append(f"\n### Flash, RAM and stack of the profile edge\n\n{_sizes(rows)}")
    found = document["conformance"]
    parts.append(f"\n### Bytes that differ from NumPy\n\n{BYTES}{_places(found)}.\n")
    parts.append(f"\n{_bytes(found)}")
    return "".join(parts)


def _ordered(rows: list[Row], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _steps(rows: list[Row], profile: str) -> str:
    shapes = _ordered(rows, "shape")
    head = ["instructions (per MAC)", *shapes, f"cycles at {shapes[-1]}, est.", "build"]
    lines = []
    for core in _ordered(rows, "core"):
        found = {shape: best(rows, core, profile, shape) for shape in shapes}
        last = found[shapes[-1]]
        cells = [
            "-" if row is None else f"{row['instructions']:,.0f} ({_per_mac(row):.2f})"
            for row in found.values()
        ]
        cycles = "-" if last is None or last["cycles"] is None else f"{last['cycles']:,.0f}"
        if last is not None and last["cycles"] == last["instructions"]:
            cycles = "no table"
        build = "-" if last is None else _build(last)
        lines.append([core, *cells, cycles, build])
    return _table(head, lines)


def _profiles(rows: list[Row]) -> str:
    """Return a table of the exact profiles, and of the build that needs fewest at each shape."""
    shapes = ["8x16", "40x128"]
    lines = []
    for profile in PROFILES:
        found = [best(rows, "cortex-m4", profile, shape) for shape in shapes]
        cells = [
            "-" if row is None else f"{row['instructions']:,.0f}, {_build(row)}" for row in found
        ]
        lines.append([profile, *cells])
    return _table(["instructions, build", *shapes], lines)


def _build(row: Row) -> str:
    return f"{row['compiler']} {row['optimization']}"


def _per_mac(row: Row) -> float:
    return float(row["instructions"]) / macs(row["shape"])


def _goal_table(rows: list[Row]) -> str:
    lines = []
    for goal in GOALS:
        row = best(rows, goal.core, goal.profile, goal.shape)
        if row is not None:
            lines.append(
                [
                    f"{goal.core}, {goal.profile}, {goal.shape}: instructions",
                    f"{row['instructions']:,.0f}",
                    f"{goal.most:,.0f}",
                    _met(row["instructions"] <= goal.most),
                ]
            )
    for shape in _ordered(rows, "shape"):
        hidden = int(shape.partition("x")[2])
        smallest = least(rows, shape, "flash", "-Os")
        if smallest is not None:
            beyond = smallest["flash"] - macs(shape)
            most = FLASH_BEYOND_WEIGHTS + FLASH_EACH_UNIT * hidden
            name = f"cortex-m4, edge, {shape}: flash beyond weights"
            lines.append([name, f"{beyond:,}", f"{most:,}", _met(beyond <= most)])
        if shape in MOST_RAM:
            row = least(rows, shape, "memory", "-Os")
            if row is not None:
                memory = row["ram"] + row["stack"]
                name = f"cortex-m4, edge, {shape}: RAM and stack"
                met = _met(memory <= MOST_RAM[shape])
                lines.append([name, f"{memory:,}", f"{MOST_RAM[shape]:,}", met])
    return _table(["goal", "measured", "at most", ""], lines)


def least(rows: list[Row], shape: str, what: str, optimization: str) -> Row | None:
    """Return the Cortex-M4's build under edge that takes least flash, or RAM and stack."""
    found = [
        r
        for r in rows
        if _is(r, "cortex-m4", "edge", shape)
        and r["optimization"] == optimization
        and "instructions" in r
    ]
    if what == "flash":
        return min(found, key=lambda r: int(r["flash"]), default=None)
    return min(found, key=lambda r: int(r["ram"] + r["stack"]), default=None)


def _met(holds: bool) -> str:
    return "met" if holds else "**missed**"


def _sizes(rows: list[Row]) -> str:
    head = ["core, shape", "build", "code", "constants", "flash", "beyond weights", "RAM", "stack"]
    lines = []
    for row in rows:
        if row["profile"] == "edge" and "flash" in row and row["compiler"] == "zig":
            lines.append(
                [
                    f"{row['core']}, {row['shape']}",
                    f"zig {row['optimization']}",
                    *(f"{row[key]:,}" for key in ("code", "constants", "flash")),
                    f"{row['flash'] - macs(row['shape']):,}",
                    f"{row['ram']:,}",
                    f"{row['stack']:,}",
                ]
            )
    return _table(head, lines)


def _places(rows: list[Row]) -> str:
    """Return which cores were run in which emulator."""
    emulators = [emulator for emulator in _ordered(rows, "emulator") if emulator != "none"]
    cores = (
        ", ".join(_ordered([r for r in rows if r["emulator"] == emulator], "core"))
        for emulator in emulators
    )
    return "; ".join(f"{c} in {e}" for c, e in zip(cores, emulators, strict=True))


def _bytes(rows: list[Row]) -> str:
    """Return a table of models: differing bytes of all that were compared, on all cores."""
    emulators = _ordered(rows, "emulator")
    head = ["model", "profile"]
    for emulator in emulators:
        cores = _ordered([r for r in rows if r["emulator"] == emulator], "core")
        head.append("this machine" if emulator == "none" else f"{emulator}, {len(cores)} cores")
    lines = []
    for model, profile in dict.fromkeys((r["model"], r["profile"]) for r in rows):
        of = [r for r in rows if (r["model"], r["profile"]) == (model, profile)]
        cells = (_compared([r for r in of if r["emulator"] == emulator]) for emulator in emulators)
        lines.append([model, profile, *cells])
    return _table(head, lines)


def _compared(rows: list[Row]) -> str:
    """Return how many bytes differ of how many, and where; and where nothing was run."""
    ran = [r for r in rows if "bytes" in r]
    parts = [f"{sum(r['differing_bytes'] for r in ran):,} of {sum(r['bytes'] for r in ran):,}"]
    if wrong := [r["core"] for r in ran if r["differing_bytes"]]:
        parts.append(f"**differ on {', '.join(wrong)}**")
    if missing := [r["core"] for r in rows if "bytes" not in r]:
        parts.append(f"not run on {', '.join(missing)}")
    return "; ".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
