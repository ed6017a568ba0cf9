"""The real TFLite interpreters behind one function each, for tests.

Each takes a file's bytes, the inputs of its calls ``[calls, ...]`` and which calls start from
reset state, and returns the outputs ``[calls, ...]``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array

ROOT = Path(__file__).parent.parent
OTHER_PYTHONS = {
    name: Path(os.environ.get(variable, ROOT / folder / "bin" / "python"))
    for name, variable, folder in (
        ("tflite-runtime", "EDGE_LSTM_TFLITE_RUNTIME_PYTHON", ".venv-tflite-runtime"),
        ("tflm-2026-08", "EDGE_LSTM_TFLM_2026_08_PYTHON", ".venv-tflm-2026-08"),
    )
}
"""Where the runtimes are that cannot share an environment with the rest."""

ARENA = 8 << 20  # bytes; by default TFLM takes ten times the file
# tflite-runtime needs NumPy 1; two versions of tflite_micro exclude each other.
SCRIPT = """
import sys
import numpy as np

ARENA = int(sys.argv[4])

def tflite_runtime(data):
    from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]
    return (
        interpreter.reset_all_variables,
        lambda x: interpreter.set_tensor(source, x),
        interpreter.invoke,
        lambda: interpreter.get_tensor(output),
    )

def tflm(data):
    from tflite_micro import runtime
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=ARENA)
    return (
        interpreter.reset,
        lambda x: interpreter.set_input(x, 0),
        interpreter.invoke,
        lambda: interpreter.get_output(0),
    )

make = {"tflite-runtime": tflite_runtime, "tflm-2026-08": tflm}[sys.argv[1]]
given, results = np.load(sys.argv[2]), {}
for name in {key.rpartition(".")[0] for key in given}:
    start, feed, invoke, result = make(given[name + ".model"].tobytes())
    results[name] = []
    for x, reset in zip(given[name + ".x"], given[name + ".reset"]):
        if reset:
            start()
        feed(x)
        invoke()
        results[name].append(result().copy())
np.savez(sys.argv[3], **results)
"""


class Refused(Exception):
    """An interpreter does not take a file."""


def missing(runtime: str) -> str | None:
    """Return None, or why an interpreter cannot run and how to get it."""
    if runtime in OTHER_PYTHONS:
        if OTHER_PYTHONS[runtime].exists():
            return None
        return f"{OTHER_PYTHONS[runtime]} not found: make test-{runtime} sets it up"
    package = PACKAGES[runtime]
    if importlib.util.find_spec(package.replace("-", "_")) is not None:
        return None
    return f"{package.replace('-', '_')} not found: pip install {package}"


def version(runtime: str) -> str:
    """Return the version of the package behind an interpreter that is there."""
    package = PACKAGES[runtime]
    if runtime not in OTHER_PYTHONS:
        return importlib.metadata.version(package)
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.check_output([OTHER_PYTHONS[runtime], "-c", code], text=True).strip()


def litert(data: bytes, x: Array, reset: Array, *, reference: bool = False) -> Array:
    """Run in ai-edge-litert, with its default or its reference resolver."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter: Any = Interpreter(
        model_content=data, experimental_op_resolver_type=resolver, num_threads=1
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]
    results = []
    for values, starts in zip(x, reset, strict=True):
        if starts:
            interpreter.reset_all_variables()
        interpreter.set_tensor(source, values)
        interpreter.invoke()
        results.append(interpreter.get_tensor(output).copy())
    return np.stack(results)


def litert_ref(data: bytes, x: Array, reset: Array) -> Array:
    """Run in ai-edge-litert with its reference resolver."""
    return litert(data, x, reset, reference=True)


def tflm(data: bytes, x: Array, reset: Array) -> Array:
    """Run in TensorFlow Lite Micro."""
    from tflite_micro import runtime

    interpreter: Any = runtime.Interpreter.from_bytes(data, arena_size=ARENA)
    results = []
    for values, starts in zip(x, reset, strict=True):
        if starts:
            interpreter.reset()
        interpreter.set_input(values, 0)
        interpreter.invoke()
        results.append(interpreter.get_output(0).copy())
    return np.stack(results)


IN_PROCESS: dict[str, Callable[[bytes, Array, Array], Array]] = {
    "litert": litert,
    "litert-ref": litert_ref,
    "tflm": tflm,
}
"""By the profile that mirrors them."""


PACKAGES = {
    "litert": "ai-edge-litert",
    "litert-ref": "ai-edge-litert",
    "tflm": "tflite-micro",
    "tflm-2026-08": "tflite-micro",
    "tflite-runtime": "tflite-runtime",
}


def run(runtime: str, data: bytes, x: Array, reset: Array) -> Array:
    """Run one model in an interpreter that is there.

    Raises:
        Refused: it does not take the file.
    """
    try:
        if runtime in IN_PROCESS:
            return IN_PROCESS[runtime](data, x, reset)
        with tempfile.TemporaryDirectory() as folder:
            return elsewhere(runtime, {"model": (data, x, reset)}, Path(folder))["model"]
    except (RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        raise Refused(f"{runtime}: {error}") from error


def elsewhere(
    runtime: str, models: Mapping[str, tuple[bytes, Array, Array]], folder: Path
) -> dict[str, Array]:
    """Run several models in a runtime of ``OTHER_PYTHONS``, in one process of its own.

    Args:
        runtime: which.
        models: bytes, x and reset of each, by name.
        folder: for the arrays on their way.
    """
    given: dict[str, Array] = {}
    for name, (data, x, reset) in models.items():
        given[f"{name}.model"] = np.frombuffer(data, np.uint8)
        given[f"{name}.x"], given[f"{name}.reset"] = x, np.asarray(reset)
    np.savez(folder / "given.npz", **given)  # type: ignore[arg-type]
    script = folder / "script.py"
    script.write_text(SCRIPT)
    subprocess.run(
        [
            OTHER_PYTHONS[runtime],
            script,
            runtime,
            folder / "given.npz",
            folder / "results.npz",
            str(ARENA),
        ],
        check=True,
        stderr=sys.stderr,
    )
    with np.load(folder / "results.npz") as results:
        return {name: results[name] for name in models}


def tflite_runtime(
    models: Mapping[str, tuple[bytes, Array, Array]], folder: Path
) -> dict[str, Array]:
    """Run several models in tflite-runtime 2.14; arguments as ``elsewhere``."""
    return elsewhere("tflite-runtime", models, folder)
