"""Arm's Ethos-U NPUs, by the estimate of their compiler Vela: cycles, no outputs."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import EdgeLstmError, UsageError
from edge_lstm.records import Counted
from edge_lstm_benchmarks.backends.litert import int8_file

MAIN = "from ethosu.vela.vela import main; main()"
SECONDS = 100


class Vela:
    """``ethos-u55-128`` and others, one step a call; with ``:unrolled``, a whole sequence a call.

    Vela writes a sequence out step by step: the weights are read once for each, as in single
    calls, and the commands take flash for each.
    """

    precision: Precision = "int8"
    profile: str | None = None
    fixed_shape = True
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self._accelerator, _, variant = name.partition(":")
        self.estimates = "sequence" if variant == "unrolled" else "step"

    def available(self) -> str | None:
        if importlib.util.find_spec("ethosu") is None:
            return "ethos-u-vela is not installed; pip install ethos-u-vela"
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return importlib.metadata.version("ethos-u-vela")

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        return int8_file(model, shape)

    def load(self, data: bytes, shape: CallShape) -> Session:
        return Estimate(data, shape, self._accelerator, self.version())


class Estimate:
    """What Vela says of a ``.tflite``; it runs nothing."""

    def __init__(self, data: bytes, shape: CallShape, accelerator: str, version: str) -> None:
        self._steps, self._version = shape.time_steps, version
        with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(data)
            where = ["--accelerator-config", accelerator, "--output-dir", folder]
            done = subprocess.run(
                [sys.executable, "-c", MAIN, str(path), *where],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            summaries = list(Path(folder).glob("*_summary_*.csv"))
            if done.returncode or not summaries:
                lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
                raise EdgeLstmError(f"Vela refuses the model: {lines[-1]}")
            with summaries[0].open(encoding="utf8", newline="") as file:
                (self._summary,) = csv.DictReader(file)
            left = re.search(r"CPU operators = ([1-9]\d*)", done.stdout)
            self._flash_bytes = (Path(folder) / "model_vela.tflite").stat().st_size
        self.ran_on = (
            f"estimated for {self._summary['system_config']}, memory mode"
            f" {self._summary['memory_mode']}, {float(self._summary['core_clock']) / 1e6:g} MHz"
        )

        self.warning: str | None = None
        if left is not None:
            self.warning = f"{left[1]} operators are left to the CPU, and not in the estimate"

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def step(self, x: Array) -> Array:
        """Refuse."""
        raise UsageError("Vela estimates and runs nothing")

    def run(self, x: Array) -> Array:
        """Refuse."""
        raise UsageError("Vela estimates and runs nothing")

    def outputs(self, x: Array) -> Array:
        """Refuse."""
        raise UsageError("Vela estimates and runs nothing")

    def counted(self) -> Counted:
        """Return the cycles of the NPU for a step, and the flash and SRAM of the model."""
        steps = "1 step" if self._steps == 1 else f"{self._steps} steps"
        return Counted(
            f"estimated by Vela {self._version}, {steps} a call",
            "cycles",
            float(self._summary["cycles_total"]) / self._steps,
            self._flash_bytes,
            round(1024 * float(self._summary["sram_memory_used"])),
        )
