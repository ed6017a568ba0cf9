"""Runs a C package on this machine, built by its own compiler."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import MismatchError
from edge_lstm_firmware_sim.build import FIRMWARE
from edge_lstm_firmware_sim.execution import COUNTED_STEPS, Execution
from edge_lstm_firmware_sim.package import Package
from edge_lstm_firmware_sim.toolchain import find_host_compiler, run_tool


def execute(package: Package, sequences: list[Array]) -> Execution:
    """Run sequences as the emulators do: first steps one by one, the rest in one call.

    Raises:
        MissingTool: there is no compiler.
        MismatchError: it refuses the package.
    """
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        library = ctypes.CDLL(str(_compiled(package, Path(folder))))
        state_bytes = ctypes.c_uint.in_dll(library, "edge_lstm_state_bytes").value
        state = np.zeros(state_bytes // 8 + 1, np.int64)  # aligned for any type
        _function(library, package, "init")(_place(state))
        outputs = tuple(_run(library, package, state, x) for x in sequences)
        selftest = _function(library, package, "selftest")(_place(state)) == 0
    return Execution(
        outputs=outputs,
        steps=tuple(len(x) for x in sequences),
        instructions=(),
        cycles=None,
        stack_bytes=0,
        selftest=selftest,
        emulator="host",
    )


def _compiled(package: Package, folder: Path) -> Path:
    library = folder / "model.so"
    named = [f"-DEDGE_LSTM_NAME={package.name}", f"-DEDGE_LSTM_HEADER=<{package.name}.h>"]
    sources = [*map(str, package.sources), str(FIRMWARE / "probe.c")]
    flags = ["-std=c99", "-O2", "-shared", "-fPIC", "-I", str(package.folder / "src"), *named]
    run_tool([*find_host_compiler(), *flags, *sources, "-o", str(library)], folder)
    return library


def _function(library: ctypes.CDLL, package: Package, what: str) -> Any:
    return getattr(library, f"{package.name}_{what}")


def _place(values: Array) -> ctypes.c_void_p:
    return values.ctypes.data_as(ctypes.c_void_p)


def _run(library: ctypes.CDLL, package: Package, state: Array, x: Array) -> Array:
    x = np.ascontiguousarray(x)
    rows = len(x) if package.writes_every_step else 1
    y = np.zeros((rows, package.output.values), package.output.dtype)
    _function(library, package, "reset")(_place(state))
    single = COUNTED_STEPS if package.streams else 0
    for number in range(min(single, len(x))):
        row = y[number : number + 1] if package.writes_every_step else y
        step = _function(library, package, "step")
        step(_place(state), _place(x[number : number + 1]), _place(row))
    if len(x) > single:
        rest = y[single:] if package.writes_every_step else y
        run = _function(library, package, "run")
        if run(_place(state), _place(x[single:]), ctypes.c_int32(len(x) - single), _place(rest)):
            raise MismatchError(f"{package.name}_run: refused {len(x) - single} steps")
    return y
