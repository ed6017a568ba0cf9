"""Writes a ModelSpec as ``.onnx``, after the checker and onnxruntime have agreed to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from edge_lstm import float_reference
from edge_lstm.arrays import F32, Array
from edge_lstm.errors import MismatchError, MissingTool, UnsupportedModel, UsageError
from edge_lstm.files import write_atomically
from edge_lstm.plain_form import without_projections
from edge_lstm.spec import ModelSpec
from edge_lstm_converters.graph_to_onnx import GraphWriter

BYTE_LIMIT = 1 << 31  # protobuf

CHECK_BATCH, CHECK_STEPS = 3, 7
LONGEST_CHECK = 4096  # steps, for models whose windows need many
# onnxruntime computes in float32 with approximations of sigmoid and tanh that are good to some
# 1e-7; a chain of layers adds up a few tens of such errors.
RELATIVE_TOLERANCE = 1e-5
# Weights may amplify what is lost in float32 without bound, so the model's own answer to this
# relative change of its input, 16 units in float32's last place, is allowed on top.
NUDGE = 2.0**-20


def write_onnx(spec: ModelSpec, path: Path) -> None:
    """Write the model; input ``x`` [batch, time, features] or int64 tokens, output ``y``.

    Raises:
        UnsupportedModel: a layer has no form in ONNX here.
        MismatchError: onnxruntime computes something else than the float reference.
        MissingTool: onnxruntime is not installed.
        OutputError: the file cannot be written.
    """
    write_atomically(path, onnx_bytes(spec))


def onnx_bytes(spec: ModelSpec, *, stateful: bool = False) -> bytes:
    """Return the model as an ``.onnx`` file's bytes, checked as by ``write_onnx``.

    Args:
        spec: the model.
        stateful: with the states [1, batch, hidden] of each recurrent layer, hidden then cell, as
            further inputs and, in the same order, further outputs; first values that are not
            zero are in the metadata ``initial_state``, as JSON by input name.
    """
    size = 4 * spec.parameter_count()
    if size >= BYTE_LIMIT:
        raise UnsupportedModel(f"model {spec.name!r}: weights of {size:,} bytes; ONNX holds 2 GiB")
    graph = GraphWriter(without_projections(spec), stateful)
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    check_against_reference(spec, data, graph.states)
    return data


def check_against_reference(spec: ModelSpec, data: bytes, states: dict[str, F32]) -> None:
    """Raise MismatchError unless onnxruntime gives what the float reference gives.

    Args:
        spec: the meaning.
        data: the ``.onnx`` file's bytes.
        states: first values of the states that the graph is fed, [hidden] each, by input name.
    """
    rng = np.random.default_rng(0)
    shape = (CHECK_BATCH, _check_steps(spec))
    x: Array
    nudged: Array
    if spec.input.kind == "tokens":
        x = nudged = rng.integers(0, spec.input.size, shape)
    else:
        x = rng.standard_normal((*shape, spec.input.size)).astype(np.float32)
        nudged = x.astype(np.float64) * (1 + NUDGE * rng.choice([-1, 1], x.shape))
    want = float_reference.run(spec, x)
    amplified = np.abs(float_reference.run(spec, nudged).astype(np.float64) - want).max()
    tolerance = RELATIVE_TOLERANCE * np.abs(want).max() + amplified
    rows = {name: np.tile(values, (1, CHECK_BATCH, 1)) for name, values in states.items()}
    found = _run_onnxruntime(data, {"x": x, **rows}, spec.name)
    if found.shape != want.shape:
        raise MismatchError(
            f"model {spec.name!r} in ONNX: onnxruntime gives shape {list(found.shape)};"
            f" want {list(want.shape)}"
        )
    error = np.abs(found.astype(np.float64) - want).max()
    if not error <= tolerance:
        raise MismatchError(
            f"model {spec.name!r} in ONNX: onnxruntime differs from the float reference by"
            f" {error:.3g}; want at most {tolerance:.3g}"
        )


def _check_steps(spec: ModelSpec) -> int:
    """Return a sequence length that is long enough for the model."""
    if spec.time_steps is not None:
        return spec.time_steps
    steps = CHECK_STEPS
    while True:
        shape = (1, steps) if spec.input.kind == "tokens" else (1, steps, spec.input.size)
        try:
            float_reference.run(spec, np.zeros(shape, np.int32))
        except UsageError:
            if steps >= LONGEST_CHECK:
                raise
            steps *= 2
        else:
            return steps


def _run_onnxruntime(data: bytes, feeds: dict[str, Array], name: str) -> Array:
    """Return the first output of a model."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingTool(
            f"model {name!r}: checking an .onnx before it is written needs the package"
            " onnxruntime; pip install 'edge-lstm[tools]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (y, *_) = session.run(None, feeds)
    return np.asarray(y)
