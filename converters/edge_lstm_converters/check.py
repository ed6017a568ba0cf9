"""Holds a float model against its own framework: ``convert --check``.

The framework runs in a process of its own (``check_worker``), so that nothing of it stays behind
and a hang ends; what it gives is compared with the float reference.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.cells import Embedding
from edge_lstm.errors import EdgeLstmError, MismatchError, MissingTool, UsageError
from edge_lstm.samples import Samples
from edge_lstm.spec import ModelSpec

LIMIT_S = 180.0  # importing PyTorch takes 2 s here, Keras 5 s
ROWS, STEPS = 4, 16
LONGEST = 4096  # steps, for models whose windows need many

# Frameworks compute in float32 with approximations of sigmoid and tanh that are good to some
# 1e-7; a chain of layers adds up a few tens of such errors.
RELATIVE_TOLERANCE = 1e-5
# Weights may amplify what is lost in float32 without bound, so the model's own answer to this
# relative change of its input, 16 units in float32's last place, is allowed on top.
NUDGE = 2.0**-20

# As in edge_lstm's own search path, and nothing from the folder that the user stands in.
BOOT = """
import json, sys
sys.path[:], folder = json.loads(sys.argv[1])
from edge_lstm_converters.check_worker import main
main(folder)
"""


@dataclass(frozen=True)
class Framework:
    """Who made a model.

    Args:
        package: as it is imported.
        module: that runs a model in it.
        install: how to get it.
    """

    package: str
    module: str
    install: str


ONNX = Framework("onnxruntime", "edge_lstm_converters.check_onnx", "pip install onnxruntime")
TORCH = Framework("torch", "edge_lstm_converters.check_torch", "pip install torch")
KERAS = Framework("keras", "edge_lstm_converters.check_keras", "pip install keras torch")
TFLITE = Framework(
    "ai_edge_litert", "edge_lstm_converters.check_tflite", "pip install ai-edge-litert"
)
FRAMEWORKS = {
    "onnx": ONNX,
    "torch.export": TORCH,
    "pytorch state dict": TORCH,
    "keras": KERAS,
    "tflite": TFLITE,
}
"""By ``ModelSpec.source["format"]``, without a version."""


class NotCheckedError(EdgeLstmError):
    """A model cannot be held against its framework here; the message is the reason."""


def check(
    model: Path, spec: ModelSpec, samples: Samples | None = None, layers: Path | None = None
) -> dict[str, Any]:
    """Run the model in its framework and in the float reference; return how far they differ.

    Args:
        model: the file.
        spec: what was read from it.
        samples: to run with some of; None: random values.
        layers: the layer configuration of a state dict.

    Raises:
        MismatchError: they differ by more than float32 explains.
        MissingTool: the framework is not installed.
        NotCheckedError: it does not run the model, for the reason said.
    """
    kind = spec.source.get("format", "")
    framework = FRAMEWORKS.get(kind.rstrip("0123456789. "))
    if framework is None:
        raise NotCheckedError(f"a file of {kind or 'this kind'} does not say all that would run")
    if importlib.util.find_spec(framework.package) is None:
        raise MissingTool(f"{framework.package} is not installed; {framework.install}")
    x = check_inputs(spec, samples)
    answer, x, found = _run_framework(framework, model, spec, x, layers)
    name = f"{framework.package} {answer['version']}"
    if "differs" in answer:
        raise _mismatch(str(model), name, answer["differs"])
    return {
        "runtime": framework.package,
        "version": answer["version"],
        **compare(str(model), name, spec, x, found),
        "inputs": {
            "from": "random" if samples is None else "calibration data",
            "sequences": len(x),
            "steps": x.shape[1],
        },
    }


def compare(
    where: str, framework: str, spec: ModelSpec, x: Array, found: Array
) -> dict[str, float]:
    """Return how far a framework's outputs are from the float reference's.

    Args:
        where: the model, for messages.
        framework: its name and version.
        spec: what was read.
        x: what both were fed.
        found: what the framework gave, as the float reference lays it out.

    Raises:
        MismatchError: by more than float32 explains.
    """
    want = float_reference.run(spec, x)
    allowed = tolerance(spec, x, want)
    error = np.abs(found.astype(np.float64) - want).max() if found.shape == want.shape else np.inf
    peak = float(np.abs(want).max())
    if not error <= allowed:
        said = f"gives other values than the float reference, by up to {error:.3g} of {peak:.3g}"
        raise _mismatch(where, framework, f"{said}; want at most {allowed:.3g}")
    return {
        "max_abs_error": _short(error),
        "max_rel_error": _short(error / peak if peak else 0.0),
        "tolerance": _short(allowed),
    }


def check_inputs(spec: ModelSpec, samples: Samples | None = None) -> Array:
    """Return a few sequences for the model, [rows, steps, features] or token ids [rows, steps].

    Args:
        spec: the model.
        samples: to take them from; None: random ones, the same each time.

    Raises:
        UsageError: the samples do not fit the model.
    """
    rng = np.random.default_rng(0)
    steps = least_steps(spec)
    masked = "mask" in spec.source
    tokens = spec.input.kind == "tokens"
    if samples is None:
        if tokens:
            return rng.integers(min(masked, spec.input.size - 1), spec.input.size, (ROWS, steps))
        return rng.standard_normal((ROWS, steps, spec.input.size)).astype(np.float32)
    x, lengths = float_reference.check_samples(spec, samples.x, samples.lengths, samples.where)
    rows = np.unique(np.linspace(0, len(x) - 1, ROWS).astype(int))
    whole = x.shape[1] if lengths is None else int(lengths[rows].min())
    if masked and not tokens:
        # A step that the mask leaves out would have to be known here.
        low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
        return rng.uniform(low, high, (ROWS, steps, spec.input.size)).astype(np.float32)
    part = x[rows, : steps if spec.time_steps is not None else max(1, min(whole, steps))]
    return np.maximum(part, min(masked, spec.input.size - 1)) if tokens else part


def least_steps(spec: ModelSpec) -> int:
    """Return a sequence length that is long enough for the model's windows."""
    if spec.time_steps is not None:
        return spec.time_steps
    steps = STEPS
    while True:
        shape = (1, steps) if spec.input.kind == "tokens" else (1, steps, spec.input.size)
        try:
            float_reference.run(spec, np.zeros(shape, np.int32))
        except UsageError:
            if steps >= LONGEST:
                raise
            steps *= 2
        else:
            return steps


def tolerance(spec: ModelSpec, x: Array, want: Array) -> float:
    """Return how far a float32 framework may be from the float reference's ``want``."""
    rng = np.random.default_rng(0)
    first = spec.layers[0]
    if isinstance(first, Embedding):
        table = first.table * (1 + NUDGE * rng.choice([-1, 1], first.table.shape))
        nudged = replace(first, table=table.astype(np.float32))
        spec = replace(spec, layers=(nudged, *spec.layers[1:]))
    elif spec.input.kind != "tokens":
        x = x.astype(np.float64) * (1 + NUDGE * rng.choice([-1, 1], x.shape))
    amplified = np.abs(float_reference.run(spec, x).astype(np.float64) - want).max()
    return float(RELATIVE_TOLERANCE * np.abs(want).max() + amplified)


def _run_framework(
    framework: Framework, model: Path, spec: ModelSpec, x: Array, layers: Path | None
) -> tuple[dict[str, Any], Array, Array]:
    """Return the worker's answer, ``x`` as it was fed, and the outputs."""
    try:
        with tempfile.TemporaryDirectory(prefix="edge-lstm-check-") as name:
            return _run_in(Path(name), framework, model, spec, x, layers)
    except OSError as error:
        why = error.strerror or str(error)
        raise NotCheckedError(f"no temporary file can be written: {why}") from error


def _run_in(
    folder: Path, framework: Framework, model: Path, spec: ModelSpec, x: Array, layers: Path | None
) -> tuple[dict[str, Any], Array, Array]:
    job = {
        "module": framework.module,
        "model": str(model.resolve()),
        "layers": None if layers is None else str(layers.resolve()),
        "source": spec.source,
        "kind": spec.output.kind,
        "size": spec.output.size,
    }
    np.save(folder / "x.npy", x)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    paths = [path for path in sys.path if path]
    try:
        done = subprocess.run(
            [sys.executable, "-c", BOOT, json.dumps([paths, str(folder)])],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotCheckedError(
            f"{framework.package} gave no answer in {LIMIT_S:g} s; its process was ended"
        ) from None
    except OSError as error:
        raise NotCheckedError(f"{sys.executable} does not start: {error.strerror}") from error
    if not (folder / "answer.json").exists():
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        raise NotCheckedError(
            f"{framework.package} ended with exit status {done.returncode}: {said[-1][:200]}"
        )
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    if "failed" in answer:
        raise NotCheckedError(f"{framework.package} does not run it: {answer['failed']}")
    if "differs" in answer:
        return answer, x, x
    return answer, np.load(folder / "x.npy"), np.load(folder / "y.npy")


def _mismatch(where: str, framework: str, found: str) -> MismatchError:
    return MismatchError(
        f"{where}: {framework} {found}; report the model, or give --no-check (check=False)"
    )


def _short(value: float) -> float:
    """Return a number with three digits, which say enough of an error."""
    return float(f"{value:.3g}")
