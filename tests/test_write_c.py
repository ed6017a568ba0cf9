"""The C package of a model: its bytes are the NumPy runtime's, and no compiler complains."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.arrays import Array
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Dense, Embedding
from edge_lstm.program import Program
from edge_lstm.quantize import quantize
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.c_source import CModel
from edge_lstm_converters.write_c import expected_outputs, write_c

compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc; apt-get install gcc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]


def program_of(layers: tuple[Layer, ...], signal: Signal, profile: str) -> Program:
    """Quantize layers, calibrated with random data."""
    spec = ModelSpec("net", signal, layers)
    draw = np.random.default_rng(1)
    if signal.kind == "tokens":
        x: Array = draw.integers(0, signal.size, (8, 12))
    else:
        x = draw.normal(size=(8, 12, signal.size)).astype(np.float32)
    return quantize(spec, calibrate(spec, x), profile)


def build(program: Program, folder: Path, *flags: str) -> ctypes.CDLL:
    """Compile a package as a shared library."""
    package = write_c(program, folder)
    library = package / "model.so"
    sources = sorted(str(path) for path in (package / "src").glob("*.c"))
    command = ["gcc", "-O2", "-shared", "-fPIC", *STRICT, *flags, *sources, "-o", str(library)]
    subprocess.run(command, check=True, timeout=120)
    return ctypes.CDLL(str(library))


def run(library: ctypes.CDLL, program: Program, x: Array) -> Array:
    """Run a sequence [steps, size] in C from its first state."""
    model = CModel(program)
    state = ctypes.create_string_buffer(sum(4 * member.size for member in model.members) + 16)
    y = np.zeros_like(expected_outputs(model, x))
    getattr(library, f"{program.name}_init")(state)
    x = np.ascontiguousarray(x)
    run_c = getattr(library, f"{program.name}_run")
    run_c(state, x.ctypes.data_as(ctypes.c_void_p), len(x), y.ctypes.data_as(ctypes.c_void_p))
    assert getattr(library, f"{program.name}_selftest")(state) == 0
    return y


@compiler
def test_embedding_and_dense_in_c_give_the_bytes_of_the_numpy_runtime(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    layers = (
        Embedding("table", table=draw.normal(size=(50, 8)).astype(np.float32)),
        Dense(
            "head",
            weights=draw.normal(size=(5, 8)).astype(np.float32),
            bias=draw.normal(size=5).astype(np.float32),
        ),
    )
    program = program_of(layers, Signal("tokens", 50), "edge")
    x = draw.integers(0, 50, (40, 1)).astype(np.int32)
    y = run(build(program, tmp_path), program, x)
    np.testing.assert_array_equal(y, expected_outputs(CModel(program), x))
