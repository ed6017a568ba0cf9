"""MNN, in float32: the state goes in and comes out at every step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import UnsupportedModel
from edge_lstm_benchmarks.backends.installed import Installed
from edge_lstm_benchmarks.backends.onnx_graph import graph_bytes, join, parse_graph, session_of

# The converter itself: MNN's command for it installs a package that reports home.
CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
SECONDS = 60


class Mnn(Installed):
    """``mnn``: one thread, through its Module interface."""

    package = "MNN"
    precision: Precision = "float32"

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        graph = parse_graph(graph_bytes(model, shape))
        return join(graph._replace(data=_converted(graph.data, model.name)))

    def load(self, data: bytes, shape: CallShape) -> Session:
        import MNN

        graph = parse_graph(data)
        expr = MNN.expr
        one_thread = {"backend": "CPU", "numThread": 1, "precision": "high"}
        manager = MNN.nn.create_runtime_manager((one_thread,))
        names = ["x", *graph.first], ["y", *map(_new, graph.first)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.mnn"
            path.write_bytes(graph.data)
            module = MNN.nn.load_module_from_file(str(path), *names, runtime_manager=manager)

        def variable(values: Array) -> object:
            if values.dtype != np.float32:
                return expr.const(values.astype(np.int32), list(values.shape), expr.NCHW, expr.int)
            return expr.const(values, list(values.shape), expr.NCHW, expr.float)

        def call(inputs: list[Array]) -> list[Array]:
            return [np.array(v.read()) for v in module.forward([variable(v) for v in inputs])]

        return session_of(graph, call, shape)


def _new(state: str) -> str:
    """Return the name under which a state comes out."""
    layer, _, word = state.rpartition(".")
    return f"{layer}.new_{word}"


def _converted(onnx: bytes, name: str) -> bytes:
    """Return an ``.onnx`` as a ``.mnn``, by MNN's converter in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "model.mnn"
        source.write_bytes(onnx)
        files = ["--modelFile", str(source), "--MNNModel", str(target)]
        how = ["-f", "ONNX", "--bizCode", "edge-lstm", "--useOriginRNNImpl"]
        done = subprocess.run(
            [sys.executable, "-c", CONVERT, *how, *files],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if not target.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise UnsupportedModel(f"{name}: MNN's converter refuses it: {lines[-1]}")
        return target.read_bytes()
