"""Simulations as JSON and as a table that people read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge_lstm_firmware_sim.package import Package
from edge_lstm_firmware_sim.simulate import Measurement, Simulation

SCHEMA = "edge-lstm.simulation/1"
Row = tuple[str, ...]
HEADER: Row = (
    "device", "core", "bytes that differ", "instructions/step", "per MAC", "cycles/step, est.",
    "steps/s, est.", "flash", "of it weights", "RAM", "stack", "fits",
)  # fmt: skip


def document(
    package: Package, simulations: list[Simulation], frame_ms: float | None = None
) -> dict[str, Any]:
    """Return one JSON document.

    Args:
        package: that was run.
        simulations: one for each device.
        frame_ms: time between two steps in the user's application, if it was said.
    """
    return {
        "schema": SCHEMA,
        "model": package.name,
        "profile": package.profile,
        "macs_per_step": package.macs_per_step,
        "frame_ms": frame_ms,
        "devices": [_entry(package, simulation, frame_ms) for simulation in simulations],
    }


def _entry(package: Package, simulation: Simulation, frame_ms: float | None) -> dict[str, Any]:
    device, measured = simulation.device, simulation.measured
    entry: dict[str, Any] = {
        "device": device.name,
        "core": device.core.name,
        "emulator": None,
        "profile": package.profile,
        "differing_bytes": None,
        "instructions_per_step": None,
        "instructions_per_mac": None,
        "estimated_cycles_per_step": None,
        "flash_bytes": None,
        "ram_bytes": None,
        "stack_bytes": None,
        "fits": None,
        "skipped_reason": simulation.skipped_reason,
        "clock_hz": device.clock_hz,
    }
    if measured is None:
        return entry
    free = room(simulation)
    return entry | {
        "emulator": measured.emulator,
        "differing_bytes": measured.differing_bytes,
        "instructions_per_step": measured.instructions_per_step,
        "instructions_per_mac": _per_mac(package, measured),
        "estimated_cycles_per_step": measured.cycles_per_step,
        "flash_bytes": asdict(measured.footprint.flash),
        "ram_bytes": measured.footprint.ram_bytes,
        "stack_bytes": measured.stack_bytes,
        "fits": fits(simulation),
        "compiler": measured.compiler,
        "compared_bytes": measured.compared_bytes,
        "steps": measured.steps,
        "given_steps": measured.given_steps,
        "instructions_of_first_steps": measured.instructions,
        "cycles_are": device.core.accuracy,
        "estimated_steps_per_second": steps_per_second(simulation),
        "estimated_share_of_frame": frame_share(simulation, frame_ms),
        "flash_left_bytes": None if free is None else free[0],
        "ram_left_bytes": None if free is None else free[1],
        "selftest_passed": measured.selftest_passed,
    }


def room(simulation: Simulation) -> tuple[int, int] | None:
    """Return the flash and the RAM that the model leaves; None for a bare core."""
    device, measured = simulation.device, simulation.measured
    if measured is None or device.flash_bytes is None or device.ram_bytes is None:
        return None
    used = measured.footprint
    ram = used.ram_bytes + measured.stack_bytes
    return device.flash_bytes - used.flash.total, device.ram_bytes - ram


def fits(simulation: Simulation) -> bool | None:
    """Return whether flash and RAM suffice; None for a bare core, or where nothing was run."""
    left = room(simulation)
    return None if left is None else min(left) >= 0


def steps_per_second(simulation: Simulation) -> float | None:
    """Return how many steps the device makes in a second, estimated."""
    device, measured = simulation.device, simulation.measured
    if measured is None or device.clock_hz is None or measured.cycles_per_step is None:
        return None
    return device.clock_hz / measured.cycles_per_step


def frame_share(simulation: Simulation, frame_ms: float | None) -> float | None:
    """Return the share of a frame's time that a step takes, estimated."""
    rate = steps_per_second(simulation)
    return None if rate is None or frame_ms is None else 1000 / (rate * frame_ms)


def passed(simulations: list[Simulation]) -> bool:
    """Return whether what was run is right, byte for byte, and fits."""
    return all(
        s.measured is None
        or (s.measured.bytes_equal and s.measured.selftest_passed and fits(s) is not False)
        for s in simulations
    )


def text(package: Package, simulations: list[Simulation], frame_ms: float | None = None) -> str:
    """Return the comparison as a table, with what its figures are worth below."""
    ran = [s for s in simulations if s.measured is not None]
    macs = "" if package.macs_per_step is None else f", {package.macs_per_step:,} MACs a step"
    lines = [f"{package.name}: profile {package.profile}{macs}", ""]
    if ran:
        header = HEADER if frame_ms is None else (*HEADER, f"of {frame_ms:g} ms, est.")
        lines += _table([header, *(_row(package, s, frame_ms) for s in ran)])
        lines.append("")
    lines += [f"{s.device.name}: not run: {s.skipped_reason}" for s in simulations if s not in ran]
    lines += _left(ran) + _remarks(ran)
    return "\n".join(lines)


def _row(package: Package, simulation: Simulation, frame_ms: float | None) -> Row:
    device, measured = simulation.device, simulation.measured
    assert measured is not None
    flash, does_fit = measured.footprint.flash, fits(simulation)
    share = frame_share(simulation, frame_ms)
    row: Row = (
        device.name,
        device.core.name,
        f"{measured.differing_bytes:,} of {measured.compared_bytes:,}",
        _figure(measured.instructions_per_step),
        _figure(_per_mac(package, measured), 2),
        _figure(measured.cycles_per_step),
        _figure(steps_per_second(simulation)),
        f"{flash.total:,}",
        f"{flash.weights:,}",
        f"{measured.footprint.ram_bytes:,}",
        f"{measured.stack_bytes:,}",
        {None: "-", True: "yes", False: "NO"}[does_fit],
    )
    if frame_ms is not None:
        row += ("-" if share is None else f"{100 * share:.2g}%",)
    return row


def _left(ran: list[Simulation]) -> list[str]:
    """Return for each device what the model leaves, or by how much it is too large."""
    lines = []
    for simulation in ran:
        left, device = room(simulation), simulation.device
        if left is not None:
            what = (
                f"{abs(free):,} of {have or 0:,} bytes of {kind} {'left' if free >= 0 else 'short'}"
                for kind, free, have in (
                    ("flash", left[0], device.flash_bytes),
                    ("RAM", left[1], device.ram_bytes),
                )
            )
            lines.append(f"{device.name}: {', '.join(what)}. {device.note}".rstrip())
    return lines


def _remarks(ran: list[Simulation]) -> list[str]:
    """Return what the figures are and what they are worth."""
    measured = [(s.device, s.measured) for s in ran if s.measured is not None]
    if not measured:
        return []
    lines = [
        f"{device.name}: THE PACKAGE'S OWN TEST FAILED"
        for device, m in measured
        if not m.selftest_passed
    ]
    tools = sorted({f"{m.compiler}, {m.emulator}" for _, m in measured})
    lines.append(
        f"Built and run with {'; '.join(tools)}. Instructions are exact, and the same each time;"
        f" the outputs of {_steps([m for _, m in measured])} were compared with NumPy's."
    )
    worth: dict[str, dict[str, None]] = {}
    for device, _ in measured:
        worth.setdefault(device.core.accuracy, {})[device.core.name] = None
    for accuracy, cores in worth.items():
        lines.append(f"Cycles on {', '.join(cores)} are estimated: {accuracy}.")
    lines.append("Memory with wait states, which cost 0 to 40 % more, is not in these estimates.")
    lines.append(
        "Flash, RAM and stack in bytes, of the model alone: its state is RAM; start-up code and"
        " the caller's buffers come on top."
    )
    return lines


def _steps(measured: list[Measurement]) -> str:
    """Return how many steps were run, and of how many where some were left out."""
    fewest, most = min(m.steps for m in measured), max(m.steps for m in measured)
    span = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    given = measured[0].given_steps
    return f"{span} steps" if fewest == given else f"the first {span} of {given:,} steps"


def _per_mac(package: Package, measured: Measurement) -> float | None:
    if package.macs_per_step is None:
        return None
    return measured.instructions_per_step / package.macs_per_step


def _figure(value: float | None, decimals: int = 0) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"


def _table(rows: list[Row]) -> list[str]:
    """Return aligned lines: names to the left, figures to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{cell:<{width}}" if k < 2 else f"{cell:>{width}}"
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines
