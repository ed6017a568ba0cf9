"""The walk along a graph of torch.export: its values, what their axes are, and the layers so far.

A model is a chain here: each result is used by the next layer only. The walk holds the chain's head
as a Flow, whose axes have names; the LSTM says which of the input's axes are batch and time, so
transposes before and after it need no layers of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_lstm.arrays import Array
from edge_lstm.cells import (
    Backward,
    Bidirectional,
    Conv1d,
    Dense,
    Embedding,
    LastStep,
    LayerNorm,
    Recurrent,
    Scale,
)
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.float_weights import layer_name
from edge_lstm_converters.pt2_file import ExportedGraph, Node, Ref, Size, TensorInfo

UNIT = "unit"  # an axis of size 1 that unsqueeze or h_n brought
WANTED = (
    "LSTM, GRU, RNN, Linear, Embedding, Conv1d, pooling, LayerNorm, BatchNorm1d, activations,"
    " Flatten and Dropout"
)

LOOP_CELLS = ("aten.lstm_cell", "aten.gru_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell")

# An axis by name, or several joined by a reshape.
Axis = str | tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """The values between two layers.

    Args:
        axes: what each axis is.
        version: how many steps of the chain made it.
        origin: the input that it is a mere view of, or None.
    """

    axes: tuple[Axis, ...]
    version: int
    origin: str | None = None


@dataclass(frozen=True)
class Final:
    """The state after the last step, h_n or c_n: [layers * directions, batch, hidden]."""

    what: str
    layers: int
    batch: Axis
    features: Axis
    version: int
    directions: int = 1


@dataclass(frozen=True)
class Half:
    """One direction's final state of a bidirectional layer.

    Args:
        axes: with its own features.
        index: 0 forward, 1 backward.
        direction: the axis that it was picked from.
    """

    axes: tuple[Axis, ...]
    index: int
    direction: Axis
    version: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A weight, or a view of one."""

    name: str
    values: Array


class Zeros:
    """A tensor of zeros of any shape, as initial states are."""


Value = Flow | Final | Half | Constant | Zeros


class Walk:
    """Reads one graph, node after node.

    Args:
        graph: what torch.export saved.
        where: the file, for messages.
    """

    def __init__(self, graph: ExportedGraph, where: str) -> None:
        self.graph, self.where = graph, where
        self.layers: list[Layer] = []
        self.roles: dict[Axis, str] = {}
        self.values: dict[str, Value] = {
            name: Constant(full, values) for name, (full, values) in graph.constants.items()
        }
        for name in graph.inputs:
            self.values[name] = Flow(self.input_axes(name), 0, name)
        self.version = 0
        self.fed: str | None = None
        self.state_inputs: set[str] = set()
        self.time_steps: int | None = None
        self.axis_sizes: dict[str, Size] = {}
        self.halves: dict[Axis, Flow] = {}  # final states in both directions, by their features
        self.node = Node("", "", {}, ())

    def read(self, name: str, operators: Mapping[str, Handler]) -> ModelSpec:
        """Return the model under ``name``.

        Args:
            name: a C identifier.
            operators: by their names without the overload, as ``aten.lstm``.
        """
        needed = self._needed()
        steps: list[tuple[Node, Handler]] = []
        for node in self.graph.nodes:
            if needed.isdisjoint(node.outputs) and not _changes_its_input(node):
                continue
            self.node = node
            handler = operators.get(node.target.rsplit(".", 1)[0])
            if node.target.rsplit(".", 1)[0] in LOOP_CELLS:
                raise self.refuse(
                    "is one step of a loop over cells",
                    "want torch.nn.LSTM, GRU or RNN over the whole sequence, with its weights",
                )
            if handler is None:
                raise self.refuse("has no counterpart here", f"want a chain of {WANTED}")
            steps.append((node, handler))
        for node, handler in steps:
            self.node = node
            results = handler(self)
            for output, value in zip(node.outputs, results, strict=False):
                self.values[output] = value
            if _changes_its_input(node):
                changed = self.argument("self", self.argument("input"))
                if isinstance(changed, Ref):
                    self.values[changed.name] = results[0]
        output_axes = self._output()
        input_axes = () if self.fed is None else self.input_axes(self.fed)
        if not any(isinstance(k, Recurrent | Bidirectional) for k in self.layers):
            raise UnsupportedModel(
                f"{self.where}: the graph has no aten.lstm, aten.gru or aten.rnn; want one"
            )
        source = {
            "format": "torch.export",
            "torch": self.graph.torch_version,
            "input_axes": self._described(input_axes),
            "output_axes": self._described(output_axes),
        }
        if self.state_inputs:
            # The runtime carries them from step to step, from zero on.
            source["state_inputs"] = ", ".join(sorted(self.state_inputs))
        return ModelSpec(name, self._input(), tuple(self.layers), self.time_steps, source)

    def input_axes(self, name: str) -> tuple[Axis, ...]:
        """Return the names of an input's axes, in its own order."""
        return tuple(f"{name}:{i}" for i in range(len(self.graph.tensors[name].sizes)))

    # What the handlers use.

    def refuse(self, found: str, accepted: str) -> UnsupportedModel:
        """Return the error for the present node."""
        return UnsupportedModel(
            f"{self.where}: node {self.node.name!r}, {self.node.target}: {found}; {accepted}"
        )

    def argument(self, name: str, default: Any = None) -> Any:
        """Return an argument of the present node."""
        return self.node.arguments.get(name, default)

    def number(self, name: str, default: int | None = None) -> int:
        """Return an argument that must be a whole number."""
        value = self.argument(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse(f"{name} is {value!r}", f"{name} must be a fixed number")
        return value

    def value(self, argument: object) -> Value:
        """Return what a tensor argument holds."""
        if not isinstance(argument, Ref) or argument.name not in self.values:
            raise UnreadableModel(
                f"{self.where}: node {self.node.name!r}, {self.node.target}: reads {argument!r},"
                " which no node gives"
            )
        return self.values[argument.name]

    def flow(self, name: str = "self") -> Flow:
        """Return an argument that must be the chain's head."""
        value = self.value(self.argument(name))
        if isinstance(value, Final):
            value = self.last_hidden(value)
        if isinstance(value, Half):
            raise self.one_half(value)
        if not isinstance(value, Flow):
            raise self.refuse(f"{name} is a constant", "want it in a layer's place")
        self.check_head(value)
        return value

    def one_half(self, half: Half) -> UnsupportedModel:
        """Return the error for a final state of one direction that nothing joins to the other."""
        word = ("forward", "backward")[half.index]
        return self.refuse(
            f"reads the {word} state of a bidirectional layer alone", "want both, joined"
        )

    def view(self) -> Flow | Constant | Zeros:
        """Return the argument ``self`` of an operator that only arranges values anew."""
        value = self.value(self.argument("self"))
        if isinstance(value, Final):
            return self.last_hidden(value)
        if isinstance(value, Half):
            return self.flow()
        # An input that nothing has read yet may still turn out to be an initial state.
        if isinstance(value, Flow) and (value.version != 0 or value.origin == self.fed):
            self.check_head(value)
        return value

    def check_head(self, value: Flow | Final | Half) -> None:
        """Refuse values that are not the last that the chain made."""
        if value.version == self.version:
            return
        if isinstance(value, Flow) and value.origin not in (None, self.fed):
            raise self.refuse(f"reads a second input, {value.origin!r}", "want one input")
        raise self.refuse(
            "reads values that another layer has used already",
            "a model must be a chain, without branches or skip connections",
        )

    def constant(self, name: str) -> Constant:
        """Return an argument that must be a weight."""
        value = self.value(self.argument(name))
        if not isinstance(value, Constant):
            raise self.refuse(f"{name} is computed", f"{name} must be a trained weight")
        return value

    def info(self, argument: object) -> TensorInfo:
        """Return type and sizes of a tensor argument, or of an output by its name."""
        name = argument.name if isinstance(argument, Ref) else argument
        if not isinstance(name, str) or name not in self.graph.tensors:
            raise UnreadableModel(f"{self.where}: node {self.node.name!r}: a tensor has no sizes")
        return self.graph.tensors[name]

    def axis(self, flow: Flow, name: str, default: int | None = None) -> int:
        """Return an argument that numbers an axis, counted from 0."""
        number, rank = self.number(name, default), len(flow.axes)
        if not -rank <= number < rank:
            raise self.refuse(f"{name} = {number}", f"the tensor has {rank} axes")
        return number % rank

    def emit(self, flow: Flow, axes: Sequence[Axis], *layers: Layer) -> Flow:
        """Add layers to the chain and return its new head."""
        if self.fed is None:
            self.fed = flow.origin
        self.layers += layers
        self.version += 1
        return Flow(tuple(axes), self.version)

    def name(self, prefix: str, fallback: str) -> str:
        """Return a new layer's name."""
        return layer_name(prefix, fallback, [layer.name for layer in self.layers])

    def new_features(self) -> str:
        """Return a name for the feature axis that the present node makes."""
        axis = f"{self.node.name}:features"
        self.roles[axis] = "features"
        return axis

    def new_time(self) -> str:
        """Return a name for the time axis that the present node makes."""
        axis = f"{self.node.name}:time"
        self.roles[axis] = "time"
        return axis

    def set_role(self, axis: Axis, role: str) -> None:
        """Note what an axis is, or refuse if it is something else."""
        known = self.roles.get(axis, role)
        if isinstance(axis, tuple) or known != role:
            found = "several axes in one" if isinstance(axis, tuple) else f"the {known} axis"
            raise self.refuse(f"takes {found} for its {role} axis", "want the axes as they came")
        if axis != UNIT:
            self.roles[axis] = role

    def role(self, axis: Axis) -> str | None:
        """Return what an axis is, if that is known yet."""
        return UNIT if axis == UNIT else self.roles.get(axis)

    def set_time_steps(self, steps: int) -> None:
        """Note the one length that the model takes."""
        if self.time_steps not in (None, steps):
            raise self.refuse(f"takes {steps} steps", f"before, the model took {self.time_steps}")
        self.time_steps = steps

    def input_steps(self) -> int:
        """Return the sequence length of the example, which must not be left open."""
        name = self.fed or ""
        for axis, size in zip(self.input_axes(name), self.graph.tensors[name].sizes, strict=True):
            if self.role(axis) == "time" and isinstance(size, int):
                return size
        raise self.refuse("joins time and features", "export with a fixed number of time steps")

    def last_hidden(self, final: Final) -> Flow:
        """Return h_n of a module of one layer: [directions, batch, hidden]."""
        if final.layers != 1:
            raise self.refuse(
                f"reads the {final.what} state of {final.layers} layers at once",
                "want h_n[-1], the last layer's",
            )
        if final.directions == 2:
            return self.both_hidden(final)
        return self.take_hidden(final, (UNIT, final.batch, final.features))

    def take_hidden(self, final: Final, axes: tuple[Axis, ...]) -> Flow:
        """Return the last layer's final hidden state as the chain's head."""
        self._check_hidden(final)
        return self.emit(
            Flow((), self.version), axes, LastStep(self.name("last_step", "last_step"))
        )

    def both_hidden(self, final: Final) -> Flow:
        """Return the last layer's final states in both directions: [2, batch, hidden]."""
        self._check_hidden(final)
        layer = self.layers[-1]
        assert isinstance(layer, Bidirectional)
        self.layers[-1] = replace(layer, final=True)
        direction, part = f"{final.features}:direction", f"{final.features}:part"
        self.roles[direction], self.roles[part] = "direction", "part"
        return self.emit(Flow((), self.version), (direction, final.batch, part))

    def _check_hidden(self, final: Final) -> None:
        if final.what != "hidden":
            raise self.refuse("reads the final cell state", "want the output or h_n")
        self.check_head(final)

    # The ends of the graph.

    def _needed(self) -> set[str]:
        """Return the tensors that the outputs depend on."""
        needed = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if not needed.isdisjoint(node.outputs) or _changes_its_input(node):
                for argument in node.arguments.values():
                    items = argument if isinstance(argument, list) else [argument]
                    needed.update(item.name for item in items if isinstance(item, Ref))
        return needed

    def _output(self) -> tuple[Axis, ...]:
        """Return the axes of the one output that is no state."""
        self.node = Node("output", "output", {}, ())
        flows: list[Flow] = []
        finals: list[Final] = []
        for name in self.graph.outputs:
            value = self.value(Ref(name))
            if isinstance(value, Half):
                raise self.one_half(value)
            if isinstance(value, Flow):
                flows.append(value)
            elif isinstance(value, Final):
                finals.append(value)
        if not flows and finals and finals[0].what == "hidden":
            flows = [self.last_hidden(finals[0])]
        if len(flows) != 1:
            raise UnsupportedModel(
                f"{self.where}: the model gives {len(flows)} results besides LSTM states; want one"
            )
        self.check_head(flows[0])
        return flows[0].axes

    def _input(self) -> Signal:
        if self.fed in self.state_inputs:
            raise UnsupportedModel(
                f"{self.where}: input {self.fed!r} is also an initial state; want them apart"
            )
        signal = first_signal(self.layers)
        if signal is None:
            raise UnsupportedModel(f"{self.where}: no layer says how many features the input has")
        return signal

    def _described(self, axes: Sequence[Axis]) -> str:
        """Return axes as text: ``batch, time, features``."""
        words = []
        for axis in axes:
            parts = axis if isinstance(axis, tuple) else (axis,)
            words.append("*".join(self.role(part) or "time" for part in parts))
        return ", ".join(words)


def first_signal(layers: Sequence[Layer]) -> Signal | None:
    """Return what the first layer that has weights is fed; the ones before keep it."""
    for layer in layers:
        if isinstance(layer, Embedding):
            return Signal("tokens", len(layer.table))
        if isinstance(layer, Backward):
            layer = layer.layer
        if isinstance(layer, Bidirectional):
            layer = layer.forward_layer
        if isinstance(layer, Recurrent):
            return Signal("sequence", layer.input_size)
        if isinstance(layer, Dense | Conv1d):
            return Signal("sequence", int(layer.weights.shape[1]))
        if isinstance(layer, Scale):
            return Signal("sequence", len(layer.factor))
        if isinstance(layer, LayerNorm):
            return Signal("sequence", len(layer.weight))
    return None


def _changes_its_input(node: Node) -> bool:
    """Whether the operator works in place, as aten.relu_ does: later nodes see its result."""
    return node.target.rsplit(".", 1)[0].endswith("_")


Handler = Callable[[Walk], list[Value]]
