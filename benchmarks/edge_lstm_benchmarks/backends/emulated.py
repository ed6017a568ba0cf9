"""The C that edge-lstm generates, as firmware on an emulated core: instructions, no time."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import edge_lstm
from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import MissingTool, UnsupportedModel, UsageError
from edge_lstm.program import EDGE, Program
from edge_lstm.program_file import program_bytes, program_from_bytes
from edge_lstm.records import Counted
from edge_lstm_converters.write_c import write_c
from edge_lstm_firmware_sim.build import Target
from edge_lstm_firmware_sim.cores import Core, core_named
from edge_lstm_firmware_sim.execution import Execution
from edge_lstm_firmware_sim.footprint import measure_footprint
from edge_lstm_firmware_sim.machine_unicorn import NEEDS_UNICORN
from edge_lstm_firmware_sim.package import find_package
from edge_lstm_firmware_sim.run_qemu import NEEDS_QEMU
from edge_lstm_firmware_sim.simulate import EMULATORS, MOST_INSTRUCTIONS
from edge_lstm_firmware_sim.toolchain import find_compiler

COMPILER, OPTIMIZATION = "zig", "-O3"


class Emulated:
    """``emulated:CORE``, in profile edge; run on the first sequences of the data."""

    precision: Precision = "int8"
    profile: str | None = EDGE
    fixed_shape = False
    rows_at_once = 1
    most_sequences = 40

    def __init__(self, name: str) -> None:
        self.name = name
        self._core = core_named(name.partition(":")[2])

    def available(self) -> str | None:
        try:
            find_compiler(COMPILER, self._core)
        except MissingTool as error:
            return str(error)
        if self._core.unicorn is None:
            return None if shutil.which("qemu-system-arm") else NEEDS_QEMU
        return None if importlib.util.find_spec("unicorn") else NEEDS_UNICORN

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return edge_lstm.__version__

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        del shape
        return program_bytes(model.integers(EDGE))

    def load(self, data: bytes, shape: CallShape) -> Session:
        return EmulatedSession(program_from_bytes(data), self._core, shape)


class EmulatedSession:
    """Runs whole sequences, all in one run of the emulator; has no clock, and counts.

    Args:
        program: in profile edge.
        core: to build for.
        shape: of a call.
    """

    def __init__(self, program: Program, core: Core, shape: CallShape) -> None:
        self._shape, self._target = shape, Target.of(core, COMPILER, OPTIMIZATION)
        self._folder = tempfile.TemporaryDirectory(prefix="edge-lstm-")
        steps = None if program.streams else shape.time_steps
        self._package = find_package(write_c(program, Path(self._folder.name), steps))
        self._emulate = EMULATORS["unicorn" if core.unicorn else "qemu"]
        self._execution: Execution | None = None
        self._is_fresh = True

    def reset(self) -> None:
        """Allow the next sequences."""
        self._is_fresh = True

    def step(self, x: Array) -> Array:
        """Refuse: the firmware is run anew for every call."""
        raise UsageError("emulated firmware runs whole sequences; it steps through them itself")

    def run(self, x: Array) -> Array:
        """Run the sequences of a batch, each from the first state."""
        if not self._is_fresh or len(x) != self._shape.batch_size:
            want = f"{self._shape.batch_size} whole sequences after a reset"
            raise UsageError(f"emulated firmware: {len(x)} sequences; want {want}")
        self._is_fresh = False
        return self.outputs(x)

    def outputs(self, x: Array) -> Array:
        """Run any number of sequences, each from the first state."""
        sequences = [np.ascontiguousarray(row) for row in x]
        found = self._emulate(self._package, self._target, sequences, MOST_INSTRUCTIONS)
        if found.steps != tuple(map(len, sequences)):
            raise UnsupportedModel(
                f"{len(x)} sequences take more than {MOST_INSTRUCTIONS:,} instructions; give less"
            )
        if self._execution is None:
            self._execution = found
        y = np.stack(found.outputs)
        return y if self._shape.returns_sequence else y.reshape(len(x), -1)

    def counted(self) -> Counted:
        """Return the mean of the first steps, and what the model takes of flash and RAM."""
        assert self._execution is not None
        counts, size = self._execution.instructions, measure_footprint(self._package, self._target)
        built = f"{COMPILER} {self._target.compiler.version} {OPTIMIZATION}"
        return Counted(
            f"emulated by {self._execution.emulator}, {built}",
            "instructions",
            sum(counts) / len(counts),
            size.flash.total,
            size.ram_bytes,
        )
