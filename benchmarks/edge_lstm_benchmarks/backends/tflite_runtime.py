"""tflite-runtime 2.14, the last release; it needs NumPy 1, so it lives in a Python of its own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path

from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm_benchmarks.backends.litert import int8_file
from edge_lstm_benchmarks.backends.tflite_session import TfliteSession

PYTHON_VARIABLE = "EDGE_LSTM_TFLITE_RUNTIME_PYTHON"
FOLDER = ".venv-tflite-runtime"
HOW_TO_INSTALL = (
    f"python3.11 -m venv {FOLDER} && {FOLDER}/bin/pip install tflite-runtime==2.14.0 'numpy<2'"
)


class TfliteRuntime:
    """``tflite-runtime``: the default kernels, one thread."""

    precision: Precision = "int8"
    fixed_shape = True
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.profile: str | None = "tflite-runtime"

    def available(self) -> str | None:
        given = os.environ.get(PYTHON_VARIABLE)
        python = _find_python()
        if python is None:
            found = f"{PYTHON_VARIABLE}={given} is not a file" if given else "has no environment"
            return f"tflite-runtime: {found}; {HOW_TO_INSTALL}"
        check = "import sys; assert sys.version_info >= (3, 10); import numpy, tflite_runtime"
        try:
            result = subprocess.run(
                [str(python), "-c", check], capture_output=True, text=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"tflite-runtime: {python} does not start ({error}); {HOW_TO_INSTALL}"
        if result.returncode != 0:
            lines = result.stderr.strip().splitlines() or ["no reason given"]
            return f"tflite-runtime: {python} does not have it ({lines[-1]}); {HOW_TO_INSTALL}"
        return None

    def python(self) -> str:
        return str(_find_python() or "")

    def version(self) -> str:
        return importlib.metadata.version("tflite-runtime")

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        return int8_file(model, shape)

    def load(self, data: bytes, shape: CallShape) -> Session:
        from tflite_runtime import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            interpreter,
        )

        return TfliteSession(interpreter.Interpreter(model_content=data, num_threads=1), shape)


def _find_python() -> Path | None:
    """Return the Python that the variable names, or that of an environment near by."""
    given = os.environ.get(PYTHON_VARIABLE)
    if given:
        return Path(given) if Path(given).is_file() else None
    # Where the command runs, and beside the folder ``benchmarks`` of a source checkout.
    for folder in (Path.cwd(), Path(__file__).resolve().parents[3]):
        for python in ("bin/python", "Scripts/python.exe"):
            if (folder / FOLDER / python).is_file():
                return folder / FOLDER / python
    return None
