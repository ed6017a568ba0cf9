"""Counts what one step costs on a core, and holds the emulated C to the NumPy runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import UsageError
from edge_lstm_firmware_sim.build import Target
from edge_lstm_firmware_sim.cores import core_named
from edge_lstm_firmware_sim.execution import Execution
from edge_lstm_firmware_sim.footprint import Footprint, measure_footprint
from edge_lstm_firmware_sim.package import Package, find_package
from edge_lstm_firmware_sim.run_qemu import execute as run_in_qemu
from edge_lstm_firmware_sim.run_unicorn import execute as run_in_unicorn

MOST_INSTRUCTIONS = 400_000_000
"""Of one device's run; three seconds of unicorn."""
RANDOM_STEPS = 64
EMULATORS = {"unicorn": run_in_unicorn, "qemu": run_in_qemu}


@dataclass(frozen=True, eq=False)
class Count:
    """What ``count`` found.

    Args:
        instructions: of each of the first steps; exact.
        instructions_per_step: their mean.
        cycles_per_step: estimated, or None.
        differing_bytes: of all outputs, from the NumPy runtime's; 0 when all is right.
        bytes_equal: whether that is 0.
        steps: that were run and compared.
        footprint: flash by section and RAM (the state).
        stack_bytes: of the deepest call, by painting.
        selftest: whether the package's own test passed.
        compiler: name, version and optimization.
    """

    instructions: tuple[int, ...]
    instructions_per_step: float
    cycles_per_step: float | None
    differing_bytes: int
    bytes_equal: bool
    steps: int
    footprint: Footprint
    stack_bytes: int
    selftest: bool
    compiler: str


def count(
    package_dir: Path | str,
    core: str,
    inputs: Array | None = None,
    compiler: str = "zig",
    opt: str = "-O3",
    emulator: str | None = None,
) -> Count:
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
        emulator: unicorn or qemu; None: unicorn where it has the core.

    Raises:
        MismatchError: the package does not compile, or crashes.
        MissingTool: a compiler or emulator is not installed.
    """
    package = find_package(package_dir)
    target = Target.of(core_named(core), compiler, opt)
    x = random_inputs(package) if inputs is None else check_inputs(package, inputs)
    execution = execute(package, target, list(x), emulator)
    differing = differing_bytes(package, list(x), execution)
    cycles = execution.cycles
    return Count(
        instructions=execution.instructions,
        instructions_per_step=_mean(execution.instructions),
        cycles_per_step=None if cycles is None else _mean(cycles),
        differing_bytes=differing,
        bytes_equal=differing == 0,
        steps=sum(execution.steps),
        footprint=measure_footprint(package, target),
        stack_bytes=execution.stack_bytes,
        selftest=execution.selftest,
        compiler=f"{compiler} {target.compiler.version} {opt}",
    )


def execute(
    package: Package, target: Target, sequences: list[Array], emulator: str | None = None
) -> Execution:
    """Run sequences in unicorn or QEMU; None: in unicorn where it has the core."""
    chosen = emulator or ("unicorn" if target.core.unicorn else "qemu")
    if chosen not in EMULATORS:
        raise UsageError(f"emulator {chosen!r}: unknown; there are {', '.join(EMULATORS)}")
    return EMULATORS[chosen](package, target, sequences, MOST_INSTRUCTIONS)


def random_inputs(package: Package, steps: int = RANDOM_STEPS) -> Array:
    """Return one sequence for a package, ``[1, steps, ...]``: random, with runs of extremes."""
    port = package.input
    random = np.random.default_rng(0)
    if package.max_steps is not None:
        steps = package.max_steps
    if port.kind == "tokens":
        return random.integers(0, port.size, (1, steps)).astype(np.int32)
    info = np.iinfo(port.dtype)
    x = random.integers(info.min, info.max, (1, steps, port.size), endpoint=True)
    # Where sums are largest: all values at one end.
    x[:, steps // 2 : steps // 2 + 4] = info.max
    x[:, steps // 2 + 4 : steps // 2 + 8] = info.min
    return x.astype(port.dtype)


def check_inputs(package: Package, x: Array) -> Array:
    """Return inputs ``[sequences, steps, ...]`` of the package's type.

    Raises:
        UsageError: they are of another shape or type.
    """
    port = package.input
    shape = () if port.kind == "tokens" else (port.size,)
    x = np.asarray(x)
    if x.ndim != 2 + len(shape) or x.shape[2:] != shape or 0 in x.shape:
        want = ", ".join(["sequences", "steps", *map(str, shape)])
        raise UsageError(f"inputs: shape {list(x.shape)}; want [{want}]")
    if x.dtype != port.dtype and not (port.kind == "tokens" and x.dtype.kind in "iu"):
        raise UsageError(f"inputs: {x.dtype}; want {port.dtype}")
    if port.kind == "tokens" and (x.min() < 0 or x.max() >= port.size):
        raise UsageError(f"inputs: ids {x.min()} to {x.max()}; want 0 to {port.size - 1}")
    if package.max_steps is not None and x.shape[1] > package.max_steps:
        raise UsageError(
            f"inputs: {x.shape[1]} steps; {package.name} takes at most {package.max_steps}"
        )
    return x.astype(port.dtype)


def differing_bytes(package: Package, sequences: list[Array], execution: Execution) -> int:
    """Return how many output bytes are not those of the NumPy runtime on the same inputs."""
    session = package.program.session()
    total = 0
    for x, steps, y in zip(sequences, execution.steps, execution.outputs, strict=False):
        session.reset()
        want = session.run(x[None, :steps])[0].reshape(y.shape)
        ours, theirs = (np.ascontiguousarray(a).view(np.uint8) for a in (y, want))
        total += int((ours != theirs).sum())
    return total


def _mean(values: tuple[int, ...]) -> float:
    mean = sum(values) / len(values)
    return int(mean) if mean.is_integer() else mean
