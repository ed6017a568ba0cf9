"""How much memory TensorFlow Lite Micro takes for a model, measured in its Python interpreter.

An arena that is too small can end the process, so each try has one of its own:
``python -m edge_lstm_converters.arena_tflm MODEL BYTES``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_lstm.errors import MismatchError, MissingTool

INSTALL = "pip install --pre tflite-micro"
GRANULE = 16  # the arena's own alignment
MOMENTARY = 128
"""Granules that may be needed for a moment; the recorded total leaves them out."""
SECONDS = 120


@dataclass(frozen=True)
class Arena:
    """What a model needs, and what that was measured on."""

    bytes: int
    measured_on: str


def measure(model: bytes) -> Arena:
    """Return the least arena, in steps of 16 bytes, in which a model runs.

    Raises:
        MissingTool: tflite-micro is not installed.
        MismatchError: it does not run the model.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        raise MissingTool(f"tflite-micro is not installed; {INSTALL}")
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(model)
        code, said = _try(path, 10 * len(model) + (1 << 20))
        total = re.search(r"Arena allocation total (\d+) bytes", said)
        if code != 0 or total is None:
            reason = (said.strip().splitlines() or ["no word"])[-1]
            raise MismatchError(f"tflite-micro does not run the model: {reason}")
        size = _least(path, -(-int(total[1]) // GRANULE))
    version = importlib.metadata.version("tflite-micro")
    machine = f"{platform.system()} {platform.machine()}"
    return Arena(size, f"tflite-micro {version}, reference kernels, {machine}")


def _least(path: Path, low: int) -> int:
    """Return the bytes of the least arena that a model runs in; ``low`` granules are recorded."""
    high = low + MOMENTARY
    if _try(path, high * GRANULE)[0] != 0:
        raise MismatchError(f"tflite-micro does not run the model in {high * GRANULE:,} bytes")
    while low < high:
        middle = (low + high) // 2
        runs = _try(path, middle * GRANULE)[0] == 0
        low, high = (low, middle) if runs else (middle + 1, high)
    return high * GRANULE


def _try(path: Path, arena_bytes: int) -> tuple[int, str]:
    command = [sys.executable, "-m", "edge_lstm_converters.arena_tflm", str(path), str(arena_bytes)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"ran for more than {SECONDS} s"
    return done.returncode, done.stdout + done.stderr


def run(path: Path, arena_bytes: int) -> None:
    """Run a model of zeros once and print what it allocated."""
    from tflite_micro import runtime  # type: ignore[import-untyped,unused-ignore]

    interpreter = runtime.Interpreter.from_bytes(path.read_bytes(), arena_size=arena_bytes)
    found = interpreter.get_input_details(0)
    interpreter.set_input(np.zeros(found["shape"], found["dtype"]), 0)
    interpreter.invoke()
    interpreter.print_allocations()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
