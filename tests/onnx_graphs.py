"""ONNX files made in tests, and what onnxruntime says to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser

from edge_lstm.arrays import Array

MODELS = Path(__file__).parent / "models"
WEATHER = Path(__file__).parents[1] / "benchmarks/edge_lstm_benchmarks/models/weather/model.onnx"

# float32 against float64: each sum of a few tens of products loses some 1e-7 of its size, and a
# few layers and steps add up.
FLOAT32 = 1e-5


def relative_error(found: Array, want: Array) -> float:
    """Return the greatest difference as a share of the greatest value; inf for other shapes.

    Of values that functions leave next to nothing of, as a share of 1e-3.
    """
    if found.shape != want.shape:
        return float("inf")
    greatest = max(float(np.abs(want).max()), 1e-3)
    return float(np.abs(found.astype(np.float64) - want).max() / greatest)


def small_lstm(input_size: int = 3, hidden: int = 2, seed: int = 0) -> dict[str, Array]:
    """Return W, R and B of an LSTM."""
    rng = np.random.default_rng(seed)
    shapes = {"W": (1, 4 * hidden, input_size), "R": (1, 4 * hidden, hidden), "B": (1, 8 * hidden)}
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def graph_file(
    path: Path,
    nodes: str,
    weights: dict[str, Array] | None = None,
    *,
    inputs: str = "float[time, batch, 3] x",
    outputs: str = "float[time, 1, batch, 2] y",
    opset: int = 17,
) -> Path:
    """Write an ONNX file from nodes in ONNX's text form; constants W, R, B and ``weights``."""
    graph = parser.parse_graph(f"g ({inputs}) => ({outputs}) {{ {nodes} }}")
    constants = {**small_lstm(), **(weights or {})}
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    path.write_bytes(model.SerializeToString())
    return path


def onnxruntime_says(path: Path, feeds: dict[str, Array]) -> list[Array]:
    """Return onnxruntime's outputs."""
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime not found: pip install 'edge-lstm[tools]'"
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, feeds)]


LSTM = "y = LSTM <hidden_size = 2> (x, W, R, B)"
