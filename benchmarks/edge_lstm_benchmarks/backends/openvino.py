"""OpenVINO on the CPU, in float32 or bfloat16: the state goes in and comes out at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import UnsupportedModel
from edge_lstm_benchmarks.backends.installed import Installed
from edge_lstm_benchmarks.backends.onnx_graph import (
    OnnxGraph,
    graph_bytes,
    parse_graph,
    session_of,
)


class OpenVino(Installed):
    """``openvino`` in float32; ``openvino:bf16``, its own choice where the CPU has bfloat16."""

    package = "openvino"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._hint = name.partition(":")[2] or "f32"
        self.precision: Precision = "bfloat16" if self._hint == "bf16" else "float32"

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        return graph_bytes(model, shape)

    def load(self, data: bytes, shape: CallShape) -> Session:
        graph = parse_graph(data)
        compiled = self._compile(graph, shape)
        session = session_of(graph, Requests(compiled), shape)
        session.ran_on = _precisions(compiled)
        return session

    def _compile(self, graph: OnnxGraph, shape: CallShape) -> Any:
        import openvino

        core = openvino.Core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._hint == "bf16" and "BF16" not in able:
            raise UnsupportedModel(f"openvino: this CPU has no bfloat16, only {', '.join(able)}")
        model = core.read_model(model=graph.data, weights=b"")
        x, *states = model.inputs
        sizes = [axis.get_length() for axis in list(x.partial_shape)[2:]]
        shapes = {x.any_name: [shape.batch_size, shape.time_steps, *sizes]}
        for state, first in zip(states, graph.first.values(), strict=True):
            shapes[state.any_name] = [1, shape.batch_size, first.shape[-1]]
        model.reshape(shapes)
        one_thread = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        return core.compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": self._hint, **one_thread}
        )


def _precisions(compiled: Any) -> str:
    """Return in what each recurrent layer computes, as the compiled model says."""
    told = [
        tuple(op.rt_info[key].value for key in ("layerType", "runtimePrecision"))
        for op in compiled.get_runtime_model().get_ops()
    ]
    return "CPU: " + ", ".join(
        f"{kind} in {precision}" for kind, precision in told if "RNN" in kind
    )


class Requests:
    """Two requests that read and write the state buffers in turn, so that no state is copied."""

    def __init__(self, compiled: Any) -> None:
        import openvino

        inputs, outputs = (
            [np.zeros(list(port.shape), port.element_type.to_dtype()) for port in ports]
            for ports in (compiled.inputs, compiled.outputs)
        )
        self._x, self._y = inputs[0], outputs[0]
        sides = inputs[1:], outputs[1:]
        self._requests = []
        for reads, writes in (sides, sides[::-1]):
            request = compiled.create_infer_request()
            for number, array in enumerate([self._x, *reads]):
                request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
            for number, array in enumerate([self._y, *writes]):
                request.set_output_tensor(number, openvino.Tensor(array, shared_memory=True))
            self._requests.append((request, reads, writes))
        self._turn = 0

    def __call__(self, inputs: list[Array]) -> list[Array]:
        """Run once; the states that come out are buffers that the next call may be fed."""
        request, reads, writes = self._requests[self._turn]
        self._turn = 1 - self._turn
        self._x[...] = inputs[0]
        for buffer, values in zip(reads, inputs[1:], strict=True):
            if buffer is not values:
                buffer[...] = values
        request.infer(share_inputs=True, share_outputs=True)  # in this thread
        return [self._y.copy(), *writes]
