"""Helpers for tests of generated C: make a program, compile its package, run it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edge_lstm.arrays import Array
from edge_lstm.calibrate import calibrate
from edge_lstm.program import Program
from edge_lstm.quantize import quantize
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.c_selftest import expected_outputs
from edge_lstm_converters.c_source import CModel
from edge_lstm_converters.write_c import write_c

gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc; apt-get install gcc")
gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++; apt-get install g++")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]


def program_of(
    layers: tuple[Layer, ...],
    signal: Signal,
    profile: str,
    time_steps: int | None = None,
    dtype: Literal["int8", "int16"] = "int8",
) -> Program:
    """Quantize layers, calibrated with random data."""
    spec = ModelSpec("net", signal, layers, time_steps)
    draw = np.random.default_rng(1)
    steps = time_steps or 12
    if signal.kind == "tokens":
        x: Array = draw.integers(0, signal.size, (8, steps))
    else:
        x = draw.normal(size=(8, steps, signal.size)).astype(np.float32)
    return quantize(spec, calibrate(spec, x), profile, dtype)


def compile_c(command: list[str]) -> None:
    """Run a compiler; its complaints are the failure's text."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def build(program: Program, folder: Path, *flags: str, max_steps: int | None = None) -> ctypes.CDLL:
    """Compile a package as a shared library."""
    package = write_c(program, folder, max_steps)
    library = package / "model.so"
    sources = sorted(str(path) for path in (package / "src").glob("*.c"))
    compile_c(["gcc", "-O2", "-shared", "-fPIC", *STRICT, *flags, *sources, "-o", str(library)])
    return ctypes.CDLL(str(library))


def run(library: ctypes.CDLL, program: Program, x: Array, max_steps: int | None = None) -> Array:
    """Run a sequence [steps, size] in C from its first state, after the package's own test."""
    model = CModel(program, max_steps)
    # What must not be read, shows.
    state = ctypes.create_string_buffer(b"\x5a" * (model.state_bytes + 16))
    assert getattr(library, f"{program.name}_selftest")(state) == 0
    y = np.zeros_like(expected_outputs(model, x))
    x = np.ascontiguousarray(x)
    run_c = getattr(library, f"{program.name}_run")
    places = (array.ctypes.data_as(ctypes.c_void_p) for array in (x, y))
    assert run_c(state, next(places), len(x), next(places)) == 0
    return y
