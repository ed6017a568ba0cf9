"""tract, in float32: the state goes in and comes out at every step."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm_benchmarks.backends.installed import Installed
from edge_lstm_benchmarks.backends.onnx_graph import graph_bytes, parse_graph, session_of


class Tract(Installed):
    """``tract``: it has no threads of its own."""

    package = "tract"
    precision: Precision = "float32"

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        return graph_bytes(model, shape)

    def load(self, data: bytes, shape: CallShape) -> Session:
        import tract

        graph = parse_graph(data)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(graph.data)
            model = tract.onnx().load(path)
        _, _, *rest = str(model.input_fact(0)).split(",")  # batch,time,features,f32
        model.set_input_fact(0, ",".join([str(shape.batch_size), str(shape.time_steps), *rest]))
        for number, first in enumerate(graph.first.values(), start=1):
            model.set_input_fact(number, f"1,{shape.batch_size},{first.shape[-1]},f32")
        run = model.into_model().into_runnable().run

        def call(inputs: list[Array]) -> list[Array]:
            return [tensor.to_numpy() for tensor in run(inputs)]

        return session_of(graph, call, shape)
