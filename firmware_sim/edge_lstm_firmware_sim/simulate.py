"""Simulates a C package on devices: its bytes, its instructions, its flash, RAM and stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_lstm.arrays import Array
from edge_lstm.errors import MissingTool, UsageError
from edge_lstm_firmware_sim.build import Target
from edge_lstm_firmware_sim.cores import Core, core_named
from edge_lstm_firmware_sim.device import Device
from edge_lstm_firmware_sim.execution import Execution
from edge_lstm_firmware_sim.footprint import Footprint, measure_footprint
from edge_lstm_firmware_sim.inputs import check_inputs, differing_bytes, random_inputs
from edge_lstm_firmware_sim.package import Package, find_package
from edge_lstm_firmware_sim.run_qemu import execute as run_in_qemu
from edge_lstm_firmware_sim.run_unicorn import execute as run_in_unicorn
from edge_lstm_firmware_sim.toolchain import COMPILERS, NEEDS_ZIG, OPTIMIZATIONS

MOST_INSTRUCTIONS = 400_000_000
"""Of one device's run; three seconds of unicorn. The sequences that fit into it are run."""
EMULATORS = {"unicorn": run_in_unicorn, "qemu": run_in_qemu}


@dataclass(frozen=True)
class Options:
    """How to build and run.

    Args:
        compiler: zig, gcc, or auto: zig where it is installed.
        optimization: -O3, -O2 or -Os.
        emulator: unicorn, qemu, or auto: unicorn where it has the core.
    """

    compiler: str = "auto"
    optimization: str = "-O3"
    emulator: str = "auto"

    def check(self) -> None:
        """Raise UsageError unless each is one of those."""
        for what, value, known in (
            ("compiler", self.compiler, ("auto", *COMPILERS)),
            ("optimization", self.optimization, OPTIMIZATIONS),
            ("emulator", self.emulator, ("auto", *EMULATORS)),
        ):
            if value not in known:
                raise UsageError(f"{what} {value!r}: unknown; there are {', '.join(known)}")


@dataclass(frozen=True)
class Measurement:
    """What a package costs on one core.

    Args:
        emulator: name and version.
        compiler: name, version and optimization.
        instructions: of each of the first steps; exact.
        instructions_per_step: their mean.
        cycles_per_step: estimated; None where the emulator's count allows no estimate.
        differing_bytes: of all outputs, from the NumPy runtime's.
        compared_bytes: how many there were.
        steps: that were run and compared.
        given_steps: in all sequences; those beyond MOST_INSTRUCTIONS are left out.
        footprint: flash by what it holds, and RAM.
        stack_bytes: of the deepest call, by painting.
        selftest_passed: whether the package's own test passed.
    """

    emulator: str
    compiler: str
    instructions: tuple[int, ...]
    instructions_per_step: float
    cycles_per_step: float | None
    differing_bytes: int
    compared_bytes: int
    steps: int
    given_steps: int
    footprint: Footprint
    stack_bytes: int
    selftest_passed: bool

    @property
    def bytes_equal(self) -> bool:
        """Whether every output byte is the NumPy runtime's."""
        return self.differing_bytes == 0


@dataclass(frozen=True)
class Simulation:
    """A package on a device: measured, or skipped with the reason."""

    device: Device
    measured: Measurement | None
    skipped_reason: str | None = None


def count(
    package_dir: Path | str,
    core: str,
    inputs: Array | None = None,
    compiler: str = "zig",
    opt: str = "-O3",
    emulator: str = "auto",
) -> Measurement:
    """Build a C package for a core, run it under emulation, and count.

    >>> found = count("out/model_c", "cortex-m4", None, "zig", "-O3")
    >>> found.instructions_per_step, found.bytes_equal, found.footprint.flash, found.stack_bytes

    Args:
        package_dir: the package's folder, or one that holds just this package.
        core: cortex-m0plus, -m3, -m4, -m7, -m33, -m55 or rv32imc.
        inputs: integers ``[sequences, steps, size]``, or token ids ``[sequences, steps]``; None:
            64 random steps, the same each time, extremes among them.
        compiler: zig or gcc.
        opt: -O3, -O2 or -Os.
        emulator: unicorn or qemu; auto: unicorn where it has the core.

    Raises:
        MismatchError: the package does not compile, or crashes.
        MissingTool: a compiler or emulator is not installed.
    """
    package = find_package(package_dir)
    x = random_inputs(package) if inputs is None else list(check_inputs(package, inputs))
    return measure(package, core_named(core), x, Options(compiler, opt, emulator))


def measure(
    package: Package, core: Core, sequences: Sequence[Array], options: Options
) -> Measurement:
    """Build for a core, run, compare and count; see ``count``."""
    options.check()
    target = _target(core, options)
    execution = _execute(package, target, list(sequences), options.emulator)
    cycles = execution.cycles
    if cycles is None and core.costs is None:
        cycles = execution.instructions
    return Measurement(
        emulator=execution.emulator,
        compiler=f"{target.compiler.name} {target.compiler.version} {target.optimization}",
        instructions=execution.instructions,
        instructions_per_step=_mean(execution.instructions),
        cycles_per_step=None if cycles is None else _mean(cycles),
        differing_bytes=differing_bytes(package, list(sequences), execution),
        compared_bytes=sum(y.nbytes for y in execution.outputs),
        steps=sum(execution.steps),
        given_steps=sum(map(len, sequences)),
        footprint=measure_footprint(package, target),
        stack_bytes=execution.stack_bytes,
        selftest_passed=execution.selftest,
    )


def simulate(
    package: Package,
    devices: Sequence[Device],
    sequences: Sequence[Array],
    options: Options,
    show: Callable[[str, int, int], None],
) -> list[Simulation]:
    """Measure on each device; a missing tool skips the devices that need it.

    Args:
        package: what to run.
        devices: where; those with the same core share one measurement.
        sequences: the package's integers, ``[steps, ...]`` each.
        options: how.
        show: told what is done, how far, of how many.
    """
    done: dict[str, Simulation] = {}
    results = []
    for number, device in enumerate(devices):
        show(device.name, number, len(devices))
        core = device.core.name
        if core not in done:
            done[core] = _attempt(package, device, sequences, options)
        results.append(replace(done[core], device=device))
    return results


def _attempt(
    package: Package, device: Device, sequences: Sequence[Array], options: Options
) -> Simulation:
    try:
        return Simulation(device, measure(package, device.core, sequences, options))
    except MissingTool as error:
        return Simulation(device, None, str(error))


def _target(core: Core, options: Options) -> Target:
    if options.compiler != "auto":
        return Target.of(core, options.compiler, options.optimization)
    try:
        return Target.of(core, "zig", options.optimization)
    except MissingTool:
        try:
            return Target.of(core, "gcc", options.optimization)
        except MissingTool:
            raise MissingTool(NEEDS_ZIG) from None


def _execute(package: Package, target: Target, sequences: list[Array], emulator: str) -> Execution:
    name = emulator
    if name == "auto":
        name = "unicorn" if target.core.unicorn else "qemu"
    return EMULATORS[name](package, target, sequences, MOST_INSTRUCTIONS)


def _mean(values: tuple[int, ...]) -> float:
    """Return the mean, as an integer where it is one."""
    mean = sum(values) / len(values)
    return int(mean) if mean.is_integer() else mean
