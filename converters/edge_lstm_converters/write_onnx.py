"""Writes a ModelSpec as ``.onnx``, after the checker and onnxruntime have agreed to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from edge_lstm import float_reference
from edge_lstm.arrays import F32, Array
from edge_lstm.errors import MismatchError, MissingTool, UnsupportedModel
from edge_lstm.files import write_atomically
from edge_lstm.plain_form import without_projections
from edge_lstm.spec import ModelSpec
from edge_lstm_converters.check import check_inputs, tolerance
from edge_lstm_converters.graph_to_onnx import GraphWriter

BYTE_LIMIT = 1 << 31  # protobuf


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


def onnx_states(spec: ModelSpec) -> dict[str, F32]:
    """Return the first values, [hidden] each, that ``stateful`` inputs take, by name, in order."""
    graph = GraphWriter(without_projections(spec), stateful=True)
    graph.model()
    return graph.states


def check_against_reference(spec: ModelSpec, data: bytes, states: dict[str, F32]) -> None:
    """Raise MismatchError unless onnxruntime gives what the float reference gives.

    Args:
        spec: the meaning.
        data: the ``.onnx`` file's bytes.
        states: first values of the states that the graph is fed, [hidden] each, by input name.
    """
    x = check_inputs(spec)
    want = float_reference.run(spec, x)
    allowed = tolerance(spec, x, want)
    rows = {name: np.tile(values, (1, len(x), 1)) for name, values in states.items()}
    found = _run_onnxruntime(data, {"x": x, **rows}, spec.name)
    if found.shape != want.shape:
        raise MismatchError(
            f"model {spec.name!r} in ONNX: onnxruntime gives shape {list(found.shape)};"
            f" want {list(want.shape)}"
        )
    error = np.abs(found.astype(np.float64) - want).max()
    if not error <= allowed:
        raise MismatchError(
            f"model {spec.name!r} in ONNX: onnxruntime differs from the float reference by"
            f" {error:.3g}; want at most {allowed:.3g}"
        )


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
