"""The real TFLite interpreters behind one function each, for tests.

Each takes a file's bytes, the inputs of its calls ``[calls, ...]`` and which calls start from
reset state, and returns the outputs ``[calls, ...]``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array

ROOT = Path(__file__).parent.parent
TFLITE_RUNTIME = Path(
    os.environ.get(
        "EDGE_LSTM_TFLITE_RUNTIME_PYTHON", ROOT / ".venv-tflite-runtime" / "bin" / "python"
    )
)

# Runs in a Python of its own, since tflite-runtime needs NumPy 1.
TFLITE_RUNTIME_SCRIPT = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

given, results = np.load(sys.argv[1]), {}
for name in {key.rpartition(".")[0] for key in given}:
    interpreter = Interpreter(model_content=given[name + ".model"].tobytes())
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]
    results[name] = []
    for x, reset in zip(given[name + ".x"], given[name + ".reset"]):
        if reset:
            interpreter.reset_all_variables()
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        results[name].append(interpreter.get_tensor(output).copy())
np.savez(sys.argv[2], **results)
"""


def missing(runtime: str) -> str | None:
    """Return None, or why an interpreter cannot run and how to get it."""
    if runtime == "tflite-runtime":
        if TFLITE_RUNTIME.exists():
            return None
        return f"{TFLITE_RUNTIME} not found: make test-tflite-runtime sets it up"
    package = {"litert": "ai_edge_litert", "litert-ref": "ai_edge_litert", "tflm": "tflite_micro"}
    if importlib.util.find_spec(package[runtime]) is not None:
        return None
    return f"{package[runtime]} not found: pip install {package[runtime].replace('_', '-')}"


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

    interpreter: Any = runtime.Interpreter.from_bytes(data)
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


def tflite_runtime(
    models: Mapping[str, tuple[bytes, Array, Array]], folder: Path
) -> dict[str, Array]:
    """Run several models in tflite-runtime 2.14, in one process of its own.

    Args:
        models: bytes, x and reset of each, by name.
        folder: for the arrays on their way.
    """
    given: dict[str, Array] = {}
    for name, (data, x, reset) in models.items():
        given[f"{name}.model"] = np.frombuffer(data, np.uint8)
        given[f"{name}.x"], given[f"{name}.reset"] = x, np.asarray(reset)
    np.savez(folder / "given.npz", **given)  # type: ignore[arg-type]
    script = folder / "script.py"
    script.write_text(TFLITE_RUNTIME_SCRIPT)
    subprocess.run(
        [TFLITE_RUNTIME, script, folder / "given.npz", folder / "results.npz"],
        check=True,
        stderr=sys.stderr,
    )
    with np.load(folder / "results.npz") as results:
        return {name: results[name] for name in models}
