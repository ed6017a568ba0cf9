"""ncnn, in float32: one row a call, the state goes in and comes out."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.cells import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    LastStep,
    Layer,
    Lstm,
)
from edge_lstm.errors import EdgeLstmError, UnsupportedModel
from edge_lstm_benchmarks.backends.installed import Installed
from edge_lstm_benchmarks.backends.onnx_graph import OnnxGraph, join, parse_graph, session_of

MAGIC = 7767517  # of a .param file
FLOAT32 = bytes(4)  # stands before weights that are neither packed nor quantized
ACTIVATIONS = {
    "relu": "ReLU",
    "relu6": "Clip 0=0 1=6",
    "sigmoid": "Sigmoid",
    "tanh": "TanH",
    "softmax": "Softmax 0=-1 1=1",  # over the last axis
}
COARSE = ("fp16_storage", "fp16_packed", "fp16_arithmetic", "bf16_storage")
"""What ncnn would compute in by itself where the CPU can."""


class Ncnn(Installed):
    """``ncnn``: one thread; the rows of a batch one after the other, since it has no batches."""

    package = "ncnn"
    precision: Precision = "float32"

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        """Return ncnn's ``.param``, a zero, and its ``.bin``; the states as ``join`` puts them."""
        if model.spec is None:
            raise UnsupportedModel(f"{model.name}: has no floats; give the float model")
        graph = Graph(shape)
        for layer in model.spec.layers:
            graph.add(layer)
        return join(OnnxGraph(graph.param().encode() + b"\0" + bytes(graph.weights), graph.first))

    def load(self, data: bytes, shape: CallShape) -> Session:
        graph = parse_graph(data)
        return session_of(graph, Rows(graph, shape), shape)


class Graph:
    """A model as the lines of a ``.param`` and the weights of a ``.bin``."""

    def __init__(self, shape: CallShape) -> None:
        self._steps, self._blob = shape.time_steps, "x"
        self._lines: list[str] = []
        self._blobs = ["x"]
        self.weights = bytearray()
        self.first: dict[str, F32] = {}

    def param(self) -> str:
        """Return the text; its output is ``y``."""
        inputs = [f"Input {name} 0 1 {name}" for name in ("x", *self.first)]
        lines = [*inputs, *self._lines, f"Noop y 1 1 {self._blob} y"]
        return "\n".join([str(MAGIC), f"{len(lines)} {len(self._blobs) + 1}", *lines, ""])

    def add(self, layer: Layer) -> None:
        """Add a layer."""
        if isinstance(layer, Lstm) and not layer.variants:
            self._add_lstm(layer)
        elif isinstance(layer, Dense):
            self._line(f"InnerProduct 0={len(layer.bias)} 1=1 2={layer.weights.size}")
            self._hold(layer.weights)
            self.weights += layer.bias.tobytes()
            if layer.activation != "none":
                self._line(ACTIVATIONS[layer.activation])
        elif isinstance(layer, Activation):
            self._line(ACTIVATIONS[layer.kind])
        elif isinstance(layer, Embedding):
            words, size = layer.table.shape
            self._line(f"Embed 0={size} 1={words} 2=0 3={layer.table.size}")
            self._hold(layer.table)
        elif isinstance(layer, Flatten):
            self._line("Flatten")
        elif isinstance(layer, LastStep):
            # From where, to where, of which axis.
            self._line(f"Crop -23309=1,{self._steps - 1} -23310=1,{self._steps} -23311=1,0")
        elif not isinstance(layer, Dropout):
            raise UnsupportedModel(
                f"layer {layer.name!r}: {layer.type_name} has no form in ncnn here"
            )

    def _add_lstm(self, layer: Lstm) -> None:
        hidden, size = layer.gates[0].input_weights.shape
        starts = {"hidden": layer.initial_hidden, "cell": layer.initial_cell}
        names = tuple(f"{layer.name}.{word}" for word in starts)
        for name, values in zip(names, starts.values(), strict=True):
            start = np.zeros(hidden, np.float32) if values is None else values
            self.first[name] = start.reshape(1, 1, -1)
        self._line(f"LSTM 0={hidden} 1={4 * hidden * size} 2=0", names)
        i, f, g, o = layer.gates
        for part in ("input_weights", "bias", "recurrent_weights"):
            self._hold(*(getattr(gate, part) for gate in (i, f, o, g)))  # ncnn's order

    def _line(self, what: str, states: tuple[str, ...] = ()) -> None:
        kind, *options = what.split()
        sources, self._blob = [self._blob, *states], f"b{len(self._lines)}"
        targets = [self._blob, *map(_new, states)]
        self._blobs += [*targets, *states]
        words = [kind, self._blob, len(sources), len(targets), *sources, *targets, *options]
        self._lines.append(" ".join(map(str, words)))

    def _hold(self, *arrays: F32) -> None:
        self.weights += FLOAT32 + b"".join(array.tobytes() for array in arrays)


class Rows:
    """Calls ncnn once for each row."""

    def __init__(self, graph: OnnxGraph, shape: CallShape) -> None:
        import ncnn

        self._gives_sequence = shape.returns_sequence
        self._mat, self._net, self._first = ncnn.Mat, ncnn.Net(), graph.first
        self._net.opt.num_threads = 1
        for name in COARSE:
            setattr(self._net.opt, f"use_{name}", False)
        param, _, weights = graph.data.partition(b"\0")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.bin"
            path.write_bytes(weights)
            if self._net.load_param_mem(param.decode()) or self._net.load_model(str(path)):
                raise EdgeLstmError("ncnn refuses the model")

    def __call__(self, inputs: list[Array]) -> list[Array]:
        """Run x [batch, time, ...] from states [1, batch, hidden], or from the first ones."""
        x, *states = inputs
        if not states:
            states = [np.repeat(v, len(x), axis=1) for v in self._first.values()]
        rows = [self._row(x[k], [state[:, k] for state in states]) for k in range(len(x))]
        y, *new = (np.stack(values) for values in zip(*rows, strict=True))
        y = y if self._gives_sequence else y.reshape(len(x), -1)
        return [y, *(v.swapaxes(0, 1) for v in new)]

    def _row(self, x: Array, states: list[Array]) -> list[Array]:
        # Mat does not keep its array alive: these names do.
        arrays = [np.ascontiguousarray(x if x.dtype == np.float32 else x.astype(np.int32))]
        arrays += [np.ascontiguousarray(state) for state in states]
        extractor = self._net.create_extractor()
        for name, array in zip(("x", *self._first), arrays, strict=True):
            extractor.input(name, self._mat(array))
        found = [extractor.extract(name) for name in ("y", *map(_new, self._first))]
        if any(code for code, _ in found):
            raise EdgeLstmError("ncnn fails to run the model")
        return [np.array(mat) for _, mat in found]


def _new(state: str) -> str:
    """Return the name under which a state comes out."""
    return f"{state}.new"
