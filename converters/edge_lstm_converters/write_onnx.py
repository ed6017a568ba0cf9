"""Writes a ModelSpec as ``.onnx``, after the checker and onnxruntime have agreed to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edge_lstm
from edge_lstm import float_reference
from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Activation, Dense, Dropout, Embedding, Flatten, LastStep, Lstm
from edge_lstm.errors import MismatchError, MissingTool, UnsupportedModel
from edge_lstm.files import write_atomically
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.layouts import lstm_gates_to_onnx

# Opset 17 (2022) has all that we write and is read by TensorRT 8.5, OpenVINO 2022.3 and later.
OPSET = 17
IR_VERSION = 8  # the one that came with opset 17
BYTE_LIMIT = 1 << 31  # protobuf

CHECK_BATCH, CHECK_STEPS = 3, 7
# onnxruntime computes in float32 with approximations of sigmoid and tanh that are good to some
# 1e-7; a chain of layers adds up a few tens of such errors.
RELATIVE_TOLERANCE = 1e-5
# Weights may amplify what is lost in float32 without bound, so the model's own answer to this
# relative change of its input, 16 units in float32's last place, is allowed on top.
NUDGE = 2.0**-20

OPERATORS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax", "relu": "Relu"}


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
        stateful: with the states [1, batch, hidden] of each LSTM, hidden then cell, as further
            inputs and, in the same order, further outputs; first values that are not zero are
            in the metadata ``initial_state``, as JSON by input name.
    """
    size = 4 * spec.parameter_count()
    if size >= BYTE_LIMIT:
        raise UnsupportedModel(f"model {spec.name!r}: weights of {size:,} bytes; ONNX holds 2 GiB")
    graph = _GraphWriter(spec, stateful)
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    check_against_reference(spec, data, graph.states)
    return data


class _GraphWriter:
    """Collects nodes; between LSTMs the values stay [time, batch, features].

    Args:
        spec: the model.
        stateful: whether states are inputs and outputs.
    """

    def __init__(self, spec: ModelSpec, stateful: bool) -> None:
        self.spec, self.stateful = spec, stateful
        self.states: dict[str, F32] = {}
        self.signal = spec.input
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.value = "x"
        self.time_major = False

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node called ``name`` and return its output."""
        self.nodes.append(helper.make_node(op, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"

    def constant(self, name: str, values: Array | list[int] | int) -> str:
        """Add a constant and return its name."""
        array = np.asarray(values)
        self.weights[name] = array.astype(np.int64) if array.dtype.kind == "i" else array
        return name

    def _transposed(self, time_major: bool, name: str) -> None:
        if self.signal.kind == "sequence" and self.time_major != time_major:
            self.value = self.add("Transpose", f"{name}.transpose", self.value, perm=[1, 0, 2])
            self.time_major = time_major

    def lstm(self, layer: Lstm) -> None:
        """Add one LSTM node, layout 0."""
        name = layer.name
        self._transposed(True, name)
        arrays = zip("WRB", lstm_gates_to_onnx(layer.gates), strict=True)
        inputs = [self.value, *(self.constant(f"{name}.{k}", v) for k, v in arrays)]
        first = {"hidden": layer.initial_hidden, "cell": layer.initial_cell}
        if self.stateful:
            for word, values in first.items():
                size = layer.hidden_size
                self.states[f"{name}.{word}"] = (
                    np.zeros(size, np.float32) if values is None else values
                )
            inputs += ["", *(f"{name}.{word}" for word in first)]
        elif any(v is not None for v in first.values()):
            inputs += ["", *(self._first_state(name, w, v) for w, v in first.items())]
        y = self.add("LSTM", name, *inputs, hidden_size=layer.hidden_size)
        if self.stateful:
            self.nodes[-1].output.extend(f"{name}.new_{word}" for word in first)
        axes = self.constant(f"{name}.direction_axis", [1])
        self.value = self.add("Squeeze", f"{name}.squeeze", y, axes)

    def _first_state(self, layer: str, word: str, values: F32 | None) -> str:
        """Add a first state, the same for each row of the batch."""
        if values is None:
            return ""
        name = f"{layer}.initial_{word}"
        state = self.constant(f"{name}.row", values.reshape(1, 1, -1))
        batch = self.add("Shape", f"{name}.batch", self.value, start=1, end=2)
        one = self.constant(f"{name}.one", [1])
        shape = self.add("Concat", f"{name}.shape", one, batch, one, axis=0)
        return self.add("Expand", name, state, shape)

    def dense(self, layer: Dense) -> None:
        """Add MatMul and Add, and the activation inside the layer."""
        weights = self.constant(f"{layer.name}.weights", np.ascontiguousarray(layer.weights.T))
        bias = self.constant(f"{layer.name}.bias", layer.bias)
        product = self.add("MatMul", f"{layer.name}.matmul", self.value, weights)
        self.value = self.add("Add", layer.name, product, bias)
        if layer.activation != "none":
            self.activation(f"{layer.name}.{layer.activation}", layer.activation)

    def activation(self, name: str, kind: str) -> None:
        """Add an activation."""
        if kind == "relu6":
            low = self.constant(f"{name}.low", np.zeros((), np.float32))
            high = self.constant(f"{name}.high", np.full((), 6, np.float32))
            self.value = self.add("Clip", name, self.value, low, high)
        elif kind == "softmax":
            self.value = self.add("Softmax", name, self.value, axis=-1)
        else:
            self.value = self.add(OPERATORS[kind], name, self.value)

    def embedding(self, layer: Embedding) -> None:
        """Add a Gather of a table's rows."""
        table = self.constant(f"{layer.name}.table", layer.table)
        self.value = self.add("Gather", layer.name, table, self.value, axis=0)

    def last_step(self, layer: LastStep) -> None:
        """Add a Gather of the last index of time."""
        last = self.constant(f"{layer.name}.index", -1)
        axis = 0 if self.time_major else 1
        self.value = self.add("Gather", layer.name, self.value, last, axis=axis)

    def flatten(self, layer: Flatten) -> None:
        """Add a Flatten of all axes but the batch."""
        self._transposed(False, layer.name)
        self.value = self.add("Flatten", layer.name, self.value, axis=1)

    def model(self) -> onnx.ModelProto:
        """Return the whole model, from ``x`` to ``y``."""
        for layer, signal in zip(self.spec.layers, self.spec.signals(), strict=False):
            self.signal = signal
            self._add_layer(layer)
        self.signal = self.spec.output
        self._transposed(False, "output")
        if self.nodes:
            self.nodes[-1].output[0] = "y"
        else:
            self.nodes.append(helper.make_node("Identity", ["x"], ["y"], "identity"))
        graph = helper.make_graph(
            self.nodes,
            self.spec.name,
            [self._port("x", self.spec.input), *(self._state(name) for name in self.states)],
            [self._port("y", self.spec.output), *(self._state(n, "new_") for n in self.states)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="edge-lstm",
            producer_version=edge_lstm.__version__,
        )
        first = {name: values.tolist() for name, values in self.states.items() if values.any()}
        if first:
            helper.set_model_props(model, {"initial_state": json.dumps(first)})
        return model

    def _add_layer(self, layer: Layer) -> None:
        if isinstance(layer, Lstm):
            self.lstm(layer)
        elif isinstance(layer, Dense):
            self.dense(layer)
        elif isinstance(layer, Activation):
            self.activation(layer.name, layer.kind)
        elif isinstance(layer, Embedding):
            self.embedding(layer)
        elif isinstance(layer, LastStep):
            self.last_step(layer)
        elif isinstance(layer, Flatten):
            self.flatten(layer)
        elif not isinstance(layer, Dropout):
            raise UnsupportedModel(
                f"layer {layer.name!r} ({layer.type_name}): has no form in ONNX here;"
                " want lstm, dense, activations, embedding, last step, flatten or dropout"
            )

    def _state(self, name: str, prefix: str = "") -> onnx.ValueInfoProto:
        layer, _, word = name.rpartition(".")
        return helper.make_tensor_value_info(
            f"{layer}.{prefix}{word}", TensorProto.FLOAT, [1, "batch", len(self.states[name])]
        )

    def _port(self, name: str, signal: Signal) -> onnx.ValueInfoProto:
        time = "time" if self.spec.time_steps is None else self.spec.time_steps
        shape: dict[str, list[str | int]] = {
            "tokens": ["batch", time],
            "sequence": ["batch", time, signal.size],
            "vector": ["batch", signal.size],
        }
        kind = TensorProto.INT64 if signal.kind == "tokens" else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape[signal.kind])


def check_against_reference(spec: ModelSpec, data: bytes, states: dict[str, F32]) -> None:
    """Raise MismatchError unless onnxruntime gives what the float reference gives.

    Args:
        spec: the meaning.
        data: the ``.onnx`` file's bytes.
        states: first values of the states that the graph is fed, [hidden] each, by input name.
    """
    rng = np.random.default_rng(0)
    steps = CHECK_STEPS if spec.time_steps is None else spec.time_steps
    shape = (CHECK_BATCH, steps)
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
