"""What ``edge-lstm simulate`` does."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lstm.errors import MismatchError, MissingTool, UsageError
from edge_lstm.files import write_atomically
from edge_lstm.program import Program, check_profile
from edge_lstm.samples import load_samples
from edge_lstm.spec import ModelSpec
from edge_lstm_firmware_sim import report
from edge_lstm_firmware_sim.device import Device, device_named
from edge_lstm_firmware_sim.inputs import random_inputs, sequences_of
from edge_lstm_firmware_sim.open_model import Given, open_model
from edge_lstm_firmware_sim.package import Package
from edge_lstm_firmware_sim.picture import check_picture, draw
from edge_lstm_firmware_sim.simulate import Options, Simulation, simulate


@dataclass(frozen=True)
class SimulateOptions:
    """The command's options, as the user wrote them.

    Args:
        devices: names with commas between.
        data: samples to run; None: random steps.
        calibration: samples to scale a float model by; None: ``data``.
        profile: whose arithmetic.
        compiler: zig, gcc or auto.
        optimization: -O3, -O2 or -Os.
        emulator: unicorn, qemu or auto.
        frame_ms: time between two steps.
        plot: picture to write.
    """

    devices: str
    data: Path | None = None
    calibration: Path | None = None
    profile: str | None = None
    compiler: str = "auto"
    optimization: str = "-O3"
    emulator: str = "auto"
    frame_ms: float | None = None
    plot: Path | None = None


@dataclass(frozen=True)
class SimulateResult:
    """What was found on each device."""

    package: Package
    simulations: list[Simulation]
    frame_ms: float | None

    @property
    def exit_code(self) -> int:
        """0; 1 where bytes differ or a model does not fit; 4 where no device could be run."""
        if not report.passed(self.simulations):
            return MismatchError.exit_code
        is_skipped = all(s.measured is None for s in self.simulations)
        return MissingTool.exit_code if is_skipped else 0

    def document(self) -> dict[str, Any]:
        """Return one JSON document."""
        return report.document(self.package, self.simulations, self.frame_ms)

    def text(self) -> str:
        """Return the table."""
        return report.text(self.package, self.simulations, self.frame_ms)


def run_simulate(
    model: Path,
    options: SimulateOptions,
    read: Callable[[Path, str | None], ModelSpec | Program],
    show: Callable[[str, int, int], None],
) -> SimulateResult:
    """Simulate a model on devices, and draw the picture if one is asked for.

    Args:
        model: a model file, or the folder of a C package.
        options: of the command.
        read: reads a model file, under a profile if it holds integers.
        show: told what is done, how far, of how many.
    """
    devices = _devices(options.devices)
    how = Options(options.compiler, options.optimization, options.emulator)
    how.check()
    if options.profile is not None:
        check_profile(options.profile)
    if options.frame_ms is not None and not 0 < options.frame_ms < math.inf:
        raise UsageError(f"--frame-ms {options.frame_ms:g}: must be above 0")
    if options.plot is not None:
        check_picture(options.plot)
    samples = None if options.data is None else load_samples(options.data)
    calibration = None if options.calibration is None else load_samples(options.calibration)
    show("generating C", 0, len(devices))
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        given = Given(options.profile, calibration, samples)
        package = open_model(model, given, read, Path(folder))
        sequences = random_inputs(package) if samples is None else sequences_of(package, samples)
        simulations = simulate(package, devices, sequences, how, show)
    if options.plot is not None:
        kind = options.plot.suffix.lower().lstrip(".")
        write_atomically(options.plot, draw(package, simulations, kind))
    return SimulateResult(package, simulations, options.frame_ms)


def _devices(names: str) -> list[Device]:
    chosen = [device_named(name) for name in names.split(",") if name.strip()]
    if not chosen:
        raise UsageError("--device: names no device; give one, as --device nrf52840")
    return chosen
