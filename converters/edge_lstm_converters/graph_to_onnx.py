"""The graph of a ModelSpec in ONNX: one function a layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edge_lstm
from edge_lstm.arrays import F32, Array
from edge_lstm.cells import (
    Activation,
    Backward,
    Bidirectional,
    Conv1d,
    Dense,
    Dropout,
    Elementwise,
    Embedding,
    Flatten,
    Function,
    GlobalPool,
    LastStep,
    LayerNorm,
    Parallel,
    PickStep,
    Pool1d,
    Recurrent,
    Reverse,
    Scale,
    Steps,
)
from edge_lstm.cells.recurrent import Merge
from edge_lstm.cells.window import Padding
from edge_lstm.errors import UnsupportedModel
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.recurrent_to_onnx import OnnxNode, recurrent_nodes
from edge_lstm_converters.rules_onnx import FUNCTIONS

# Opset 17 (2022) has all that we write and is read by TensorRT 8.5, OpenVINO 2022.3 and later.
OPSET = 17
IR_VERSION = 8  # the one that came with opset 17

OPERATORS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax", "relu": "Relu"}
ELEMENTWISE = {ours: theirs for theirs, ours in FUNCTIONS.items()}
POOLS = {"max": "MaxPool", "average": "AveragePool"}
REDUCTIONS = {"max": "ReduceMax", "average": "ReduceMean", "sum": "ReduceSum"}
FAR = np.iinfo(np.int64).max


class GraphWriter:
    """Collects nodes; between recurrent layers the values stay [time, batch, features].

    Args:
        spec: the model; no LSTM has a projection.
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

    def number(self, name: str, value: float) -> str:
        """Add a constant float32 without axes."""
        return self.constant(name, np.array(value, np.float32))

    def _transposed(self, time_major: bool, name: str) -> None:
        if self.signal.kind == "sequence" and self.time_major != time_major:
            self.value = self.add("Transpose", f"{name}.transpose", self.value, perm=[1, 0, 2])
            self.time_major = time_major

    @property
    def _time(self) -> int:
        return 0 if self.time_major else 1

    # Recurrent layers

    def recurrent(self, layer: Recurrent | Backward | Bidirectional) -> None:
        """Add the nodes of a recurrent layer, layout 0, and join its directions."""
        self._transposed(True, layer.name)
        nodes = recurrent_nodes(layer)
        if self.stateful and not isinstance(layer, Recurrent):
            raise UnsupportedModel(
                f"layer {layer.name!r} ({layer.type_name}): runs backward, which takes whole"
                " sequences; want no step form of it"
            )
        final = isinstance(layer, Bidirectional) and layer.final
        outputs = [self._recurrent_node(node, final=final) for node in nodes]
        name = layer.name
        if not isinstance(layer, Bidirectional):
            axes = self.constant(f"{name}.direction_axis", [1])
            self.value = self.add("Squeeze", f"{name}.squeeze", outputs[0][0], axes)
            return
        which = 1 if layer.final else 0  # Y_h, or Y
        axis = 0 if layer.final else 1  # of the directions
        if len(nodes) == 2:
            both = [pair[which] for pair in outputs]
            places = [0, 0]
        else:
            both, places = [outputs[0][which]] * 2, [0, 1]
        if layer.merge == "concat" and not layer.final and len(nodes) == 1:
            order = self.add("Transpose", f"{name}.directions", both[0], perm=[0, 2, 1, 3])
            shape = self.constant(f"{name}.shape", [0, 0, -1])
            self.value = self.add("Reshape", f"{name}.joined", order, shape)
            return
        parts = []
        for word, value, place in zip(("forward", "backward"), both, places, strict=True):
            index = self.constant(f"{name}.{word}_index", place)
            parts.append(self.add("Gather", f"{name}.{word}_part", value, index, axis=axis))
        self.value = self._merged(f"{name}.merged", parts, layer.merge)

    def _recurrent_node(self, node: OnnxNode, *, final: bool) -> tuple[str, str]:
        """Add one LSTM, GRU or RNN; return Y and Y_h, which is there if ``final``."""
        name = node.name
        arrays = zip(("W", "R", "B"), node.weights, strict=True)
        inputs = [self.value, *(self.constant(f"{name}.{k}", v) for k, v in arrays), ""]
        if self.stateful:
            for word, values in node.first.items():
                (row,) = values
                self.states[f"{name}.{word}"] = row
                inputs.append(f"{name}.{word}")
        else:
            inputs += [
                self._first_state(name, word, values) if values.any() else ""
                for word, values in node.first.items()
            ]
        if node.peepholes is not None:
            inputs += [""] * (7 - len(inputs))
            inputs.append(self.constant(f"{name}.P", node.peepholes))
        while inputs[-1] == "":
            inputs.pop()
        y = self.add(node.op, name, *inputs, **node.attributes)
        words = [f"{name}.new_{word}" for word in node.first]
        self.nodes[-1].output.extend(words if self.stateful else words[:1] if final else [])
        return y, words[0]

    def _first_state(self, layer: str, word: str, values: F32) -> str:
        """Add a first state, [directions, hidden], the same for each row of the batch."""
        name = f"{layer}.initial_{word}"
        state = self.constant(f"{name}.row", values[:, None])
        batch = self.add("Shape", f"{name}.batch", self.value, start=1, end=2)
        one = self.constant(f"{name}.one", [1])
        shape = self.add("Concat", f"{name}.shape", one, batch, one, axis=0)
        return self.add("Expand", name, state, shape)

    def _merged(self, name: str, parts: Sequence[str], merge: Merge) -> str:
        if merge == "concat":
            return self.add("Concat", name, *parts, axis=-1)
        op = "Mul" if merge == "mul" else "Add"
        total = parts[0]
        for k, part in enumerate(parts[1:]):
            total = self.add(op, f"{name}.{op.lower()}_{k}", total, part)
        if merge == "ave":
            total = self.add("Mul", name, total, self.number(f"{name}.share", 1 / len(parts)))
        return total

    # Layers on each step

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
            low, high = self.number(f"{name}.low", 0), self.number(f"{name}.high", 6)
            self.value = self.add("Clip", name, self.value, low, high)
        elif kind == "softmax":
            self.value = self.add("Softmax", name, self.value, axis=-1)
        else:
            self.value = self.add(OPERATORS[kind], name, self.value)

    def elementwise(self, name: str, function: Function) -> None:
        """Add a function of each value."""
        word = function.name
        alpha, beta = function.alpha or 0.0, function.beta or 0.0
        if word == "affine":
            product = self.add("Mul", f"{name}.mul", self.value, self.number(f"{name}.a", alpha))
            self.value = self.add("Add", name, product, self.number(f"{name}.b", beta))
        elif word == "scaled_tanh":
            inner = self.add("Mul", f"{name}.mul", self.value, self.number(f"{name}.b", beta))
            inner = self.add("Tanh", f"{name}.tanh", inner)
            self.value = self.add("Mul", name, inner, self.number(f"{name}.a", alpha))
        else:
            given = {"alpha": function.alpha, "beta": function.beta}
            attributes = {k: v for k, v in given.items() if v is not None}
            self.value = self.add(ELEMENTWISE[word], name, self.value, **attributes)

    def scale(self, layer: Scale) -> None:
        """Add Mul and Add."""
        factor = self.constant(f"{layer.name}.factor", layer.factor)
        offset = self.constant(f"{layer.name}.offset", layer.offset)
        product = self.add("Mul", f"{layer.name}.mul", self.value, factor)
        self.value = self.add("Add", layer.name, product, offset)

    def layer_norm(self, layer: LayerNorm) -> None:
        """Add a LayerNormalization over the features."""
        weight = self.constant(f"{layer.name}.weight", layer.weight)
        bias = self.constant(f"{layer.name}.bias", layer.bias)
        self.value = self.add(
            "LayerNormalization",
            layer.name,
            self.value,
            weight,
            bias,
            axis=-1,
            epsilon=layer.epsilon,
        )

    def embedding(self, layer: Embedding) -> None:
        """Add a Gather of a table's rows."""
        table = self.constant(f"{layer.name}.table", layer.table)
        self.value = self.add("Gather", layer.name, table, self.value, axis=0)

    # Layers along time

    def pick_step(self, name: str, index: int) -> None:
        """Add a Gather of one index of time."""
        place = self.constant(f"{name}.index", index)
        self.value = self.add("Gather", name, self.value, place, axis=self._time)

    def steps(self, name: str, start: int, end: int, stride: int = 1) -> None:
        """Add a Slice of time."""
        values = {"start": start, "end": end, "axis": self._time, "stride": stride}
        steer = [self.constant(f"{name}.{word}", [v]) for word, v in values.items()]
        self.value = self.add("Slice", name, self.value, *steer)

    def flatten(self, layer: Flatten) -> None:
        """Add a Flatten of all axes but the batch."""
        self._transposed(False, layer.name)
        self.value = self.add("Flatten", layer.name, self.value, axis=1)

    def _windowed(self, name: str, op: str, padding: Padding, *weights: str, **given: Any) -> None:
        """Add an operator that wants [batch, features, time]."""
        turn = [1, 2, 0] if self.time_major else [0, 2, 1]
        value = self.add("Transpose", f"{name}.turned", self.value, perm=turn)
        same = padding == "same"
        pads = {"auto_pad": "SAME_UPPER"} if same else {"pads": list(padding)}
        value = self.add(op, name, value, *weights, **given, **pads)
        self.value = self.add("Transpose", f"{name}.turned_back", value, perm=[0, 2, 1])
        self.time_major = False

    def conv1d(self, layer: Conv1d) -> None:
        """Add a Conv."""
        weights, dilation = layer.weights, layer.dilation
        if layer.padding == "same" and dilation > 1:  # onnxruntime has no auto_pad beside it
            weights = np.zeros((*weights.shape[:2], layer.reach), np.float32)
            weights[:, :, ::dilation], dilation = layer.weights, 1
        self._windowed(
            layer.name,
            "Conv",
            layer.padding,
            self.constant(f"{layer.name}.weights", weights),
            self.constant(f"{layer.name}.bias", layer.bias),
            kernel_shape=[weights.shape[2]],
            strides=[layer.stride],
            dilations=[dilation],
        )

    def pool1d(self, layer: Pool1d) -> None:
        """Add a MaxPool or AveragePool."""
        counts = {} if layer.kind == "max" else {"count_include_pad": int(layer.count_padding)}
        self._windowed(
            layer.name,
            POOLS[layer.kind],
            layer.padding,
            kernel_shape=[layer.size],
            strides=[layer.stride],
            **counts,
        )

    def global_pool(self, layer: GlobalPool) -> None:
        """Add a reduction over time."""
        name = layer.name
        if layer.kind == "sum":  # the first whose axes became an input
            axes = self.constant(f"{name}.axes", [self._time])
            self.value = self.add("ReduceSum", name, self.value, axes, keepdims=0)
        else:
            op = REDUCTIONS[layer.kind]
            self.value = self.add(op, name, self.value, axes=[self._time], keepdims=0)

    def parallel(self, layer: Parallel) -> None:
        """Add each branch, then what joins them."""
        self._transposed(False, layer.name)
        value, signal = self.value, self.signal
        parts: list[str] = []
        for branch in layer.branches:
            self.value, self.signal, self.time_major = value, signal, False
            for inner in branch:
                self.add_layer(inner)
            self._transposed(False, f"{layer.name}.branch_{len(parts)}")
            parts.append(self.value)
        self.signal, self.time_major = signal, False
        self.value = self._merged(layer.name, parts, layer.merge)

    # The whole

    def add_layer(self, layer: Layer) -> None:
        """Add one layer, and note what it gives."""
        if isinstance(layer, Recurrent | Backward | Bidirectional):
            self.recurrent(layer)
        elif isinstance(layer, Dense):
            self.dense(layer)
        elif isinstance(layer, Activation):
            self.activation(layer.name, layer.kind)
        elif isinstance(layer, Elementwise):
            self.elementwise(layer.name, layer.function)
        elif isinstance(layer, Scale):
            self.scale(layer)
        elif isinstance(layer, LayerNorm):
            self.layer_norm(layer)
        elif isinstance(layer, Embedding):
            self.embedding(layer)
        elif isinstance(layer, LastStep | PickStep):
            self.pick_step(layer.name, -1 if isinstance(layer, LastStep) else layer.index)
        elif isinstance(layer, Steps):
            self.steps(layer.name, layer.start, FAR if layer.end is None else layer.end)
        elif isinstance(layer, Reverse):
            self.steps(layer.name, -1, -FAR, -1)
        elif isinstance(layer, Flatten):
            self.flatten(layer)
        elif isinstance(layer, Conv1d):
            self.conv1d(layer)
        elif isinstance(layer, Pool1d):
            self.pool1d(layer)
        elif isinstance(layer, GlobalPool):
            self.global_pool(layer)
        elif isinstance(layer, Parallel):
            self.parallel(layer)
        elif not isinstance(layer, Dropout):
            raise UnsupportedModel(
                f"layer {layer.name!r} ({layer.type_name}): has no form in ONNX here;"
                " want the layers of edge_lstm.cells"
            )
        self.signal = layer.output_signal(self.signal)

    def model(self) -> onnx.ModelProto:
        """Return the whole model, from ``x`` to ``y``."""
        for layer in self.spec.layers:
            self.add_layer(layer)
        self._transposed(False, "output")
        for node in self.nodes:
            if self.value in node.output:
                places = list(node.output)
                node.output[places.index(self.value)] = "y"
                break
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

    def _state(self, name: str, prefix: str = "") -> onnx.ValueInfoProto:
        layer, _, word = name.rpartition(".")
        return helper.make_tensor_value_info(
            f"{layer}.{prefix}{word}", TensorProto.FLOAT, [1, "batch", len(self.states[name])]
        )

    def _port(self, name: str, signal: Signal) -> onnx.ValueInfoProto:
        time: str | int = "time" if self.spec.time_steps is None else self.spec.time_steps
        if name == "y" and any(isinstance(k, Conv1d | Pool1d | Steps) for k in self.spec.layers):
            time = "time_out"
        shape: dict[str, list[str | int]] = {
            "tokens": ["batch", time],
            "sequence": ["batch", time, signal.size],
            "vector": ["batch", signal.size],
        }
        kind = TensorProto.INT64 if signal.kind == "tokens" else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape[signal.kind])
