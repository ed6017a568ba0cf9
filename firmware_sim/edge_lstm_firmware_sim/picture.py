"""Draws a comparison of devices; the only file here that knows matplotlib."""

from __future__ import annotations

import io
from pathlib import Path

from edge_lstm.errors import MissingTool, UsageError
from edge_lstm_firmware_sim.package import Package
from edge_lstm_firmware_sim.report import fits, steps_per_second
from edge_lstm_firmware_sim.simulate import Simulation

FORMATS = (".png", ".svg")
CODE, WEIGHTS, STATE, STACK, BAR, GRID = (
    "#d9480f", "#1f6fb4", "#1f6fb4", "#9a9a9a", "#1f6fb4", "#e6e6e6",
)  # fmt: skip


def check_picture(path: Path) -> None:
    """Raise UsageError unless the file's suffix is one that we can draw."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: suffix {path.suffix!r}; want {' or '.join(FORMATS)}")


def draw(package: Package, simulations: list[Simulation], kind: str) -> bytes:
    """Return a picture of the devices that were run: instructions, time, flash and RAM.

    Args:
        package: that was run.
        simulations: what to draw; those that were skipped are left out.
        kind: png or svg.

    Raises:
        MissingTool: matplotlib is not installed.
        UsageError: no device was run.
    """
    ran = [(s, s.measured) for s in simulations if s.measured is not None]
    if not ran:
        raise UsageError("no device was run, so there is nothing to draw")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingTool("matplotlib is not installed; pip install matplotlib") from error
    names = [s.device.name + (" (too small)" if fits(s) is False else "") for s, _ in ran]
    figure = Figure(figsize=(11, 2.2 + 0.38 * len(ran)), layout="constrained")
    steps, time, flash, ram = figure.subplots(1, 4, sharey=True)
    bars = steps.barh(names, [m.instructions_per_step for _, m in ran], color=BAR)
    steps.bar_label(bars, fmt="{:,.0f}", padding=3)
    steps.set_xlabel("instructions a step")
    rates = [steps_per_second(s) for s, _ in ran]
    bars = time.barh(names, [0 if rate is None else 1e6 / rate for rate in rates], color=BAR)
    labels = ["no clock" if rate is None else f"{1e6 / rate:,.3g}" for rate in rates]
    time.bar_label(bars, labels, padding=3)
    time.set_xlabel("estimated µs a step")
    weights = [m.footprint.flash.weights / 1024 for _, m in ran]
    flash.barh(names, weights, color=WEIGHTS, label="constants")
    flash.barh(
        names, [m.footprint.flash.code / 1024 for _, m in ran], left=weights, color=CODE,
        label="code",
    )  # fmt: skip
    flash.set_xlabel("flash, KiB")
    state = [m.footprint.ram_bytes for _, m in ran]
    ram.barh(names, state, color=STATE, label="state")
    ram.barh(names, [m.stack_bytes for _, m in ran], left=state, color=STACK, label="stack")
    ram.set_xlabel("RAM, bytes")
    steps.invert_yaxis()  # the first device on top
    for axes in (steps, time, flash, ram):
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (steps, time):
        axes.margins(x=0.25)  # room for the figures beside the bars
    for axes in (flash, ram):
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    figure.suptitle(f"{package.name}, profile {package.profile}", x=0.01, ha="left", weight="bold")
    buffer = io.BytesIO()
    # Equal data give equal bytes: no date, no version, no random ids.
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "edge-lstm"}):
        figure.savefig(buffer, format=kind, dpi=110, metadata=metadata)
    return buffer.getvalue()
