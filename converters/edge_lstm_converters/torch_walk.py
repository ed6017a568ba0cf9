"""The walk along a graph of torch.export: its values, what their axes are, and their layers.

A value is the end of a chain of layers, whose axes have names; the LSTM says which of the input's
axes are batch and time, so transposes before and after it need no layers of their own. Chains fork
where a value is used twice, and are joined to branches where sums and concatenations bring them
together. A step of time that is taken stays a note on the value (``Pick``) until its layer must be
there: so the same layer over every step of a loop is one layer over the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

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
    LastStep,
    LayerNorm,
    Parallel,
    PickStep,
    Recurrent,
    Reverse,
    Scale,
    Steps,
)
from edge_lstm.cells.recurrent import Merge
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.chains import Step, joined_steps, named_layers, same_layer
from edge_lstm_converters.float_weights import layer_name
from edge_lstm_converters.pt2_file import ExportedGraph, Node, Ref, Size, TensorInfo
from edge_lstm_converters.torch_values import (
    UNIT,
    Axis,
    CellState,
    Constant,
    Flow,
    Pick,
    Stack,
    Stale,
    Value,
    Zeros,
    ZerosView,
    as_flow,
    stack_of,
)

WANTED = (
    "LSTM, GRU, RNN and their cells, Linear, Embedding, Conv1d, pooling, LayerNorm, BatchNorm1d,"
    " activations, Flatten, Dropout, sums and concatenations"
)
WAYS_OUT = {
    "aten.log_softmax": "want the model without it, or with softmax: the greatest is the same"
}
A_STATE = (
    "want h_n[-1], the last layer's, or torch.cat((h_n[-2], h_n[-1]), dim=1) of two directions"
)

READ_WHOLE = "want each step of time written once, then all read; or torch.stack(steps, dim=1)"


class Walk:
    """Reads one graph, node after node.

    Args:
        graph: what torch.export saved.
        where: the file, for messages.
    """

    def __init__(self, graph: ExportedGraph, where: str) -> None:
        self.graph, self.where = graph, where
        self.names: list[str] = []  # of all layers
        self.roles: dict[Axis, str] = {}
        self.values: dict[str, Value] = {
            name: Constant(full, values) for name, (full, values) in graph.constants.items()
        }
        for name in graph.inputs:
            self.values[name] = Flow(self.input_axes(name), Step(None, None, 0), name)
        self.following: dict[Step, list[Step]] = {}
        self.joins: dict[tuple[Merge, tuple[Step, ...]], Step] = {}
        self.memory: dict[str, list[str]] = {}  # tensors that may share it, by any one's name
        self.states: dict[str, list[Pick | None]] = {}  # inputs that are initial states
        self.time_steps: int | None = None
        self.axis_sizes: dict[str, Size] = {}
        self.node = Node("", "", {}, ())

    def read(
        self, name: str, operators: Mapping[str, Handler], moves: Mapping[str, Handler]
    ) -> ModelSpec:
        """Return the model under ``name``.

        Args:
            name: a C identifier.
            operators: that compute, by their names without the overload, as ``aten.lstm``.
            moves: operators whose results may share memory with what they are given.
        """
        needed = self._needed()
        nodes = [n for n in self.graph.nodes if not needed.isdisjoint(n.outputs) or _is_in_place(n)]
        handlers = {**operators, **moves}
        for node in nodes:
            self.node = node
            if base_name(node) not in handlers:
                raise self.refuse(
                    "has no counterpart here", WAYS_OUT.get(base_name(node), f"want {WANTED}")
                )
        for node in nodes:
            self.node = node
            results = handlers[base_name(node)](self)
            if base_name(node) in moves:
                self._share_memory(node)
            for output, value in zip(node.outputs, results, strict=False):
                self.values[output] = value
            if _is_in_place(node):
                self._changed_in_place(node, results[0])
        return self._spec(name)

    def _share_memory(self, node: Node) -> None:
        source = self.argument("self", self.argument("input"))
        if isinstance(source, Ref):
            group = self.memory.setdefault(source.name, [source.name])
            group += node.outputs
            self.memory.update(dict.fromkeys(node.outputs, group))

    def _changed_in_place(self, node: Node, result: Value) -> None:
        """Give the changed tensor its new value; no other name for its memory may be read."""
        changed = self.argument("self", self.argument("input"))
        if not isinstance(changed, Ref) or isinstance(result, Zeros):
            return
        for name in self.memory.get(changed.name, []):
            if name not in (changed.name, *node.outputs):
                self.values[name] = Stale(node.name)
        self.values[changed.name] = result

    def input_axes(self, name: str) -> tuple[Axis, ...]:
        """Return the names of an input's axes, in its own order."""
        return tuple(f"{name}:{i}" for i in range(len(self.graph.tensors[name].sizes)))

    # What the handlers ask.

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
        """Return what a tensor argument holds; of zeros that were written to, what was written."""
        value = self.in_memory(argument)
        content = value.content() if isinstance(value, ZerosView) else value
        if content is None:
            raise self.refuse("reads a part of zeros that were written to", READ_WHOLE)
        return (
            self.collected(content) if isinstance(content, Zeros) and content.written else content
        )

    def in_memory(self, argument: object) -> Value:
        """Return what a tensor argument is; zeros that were written to as such."""
        if not isinstance(argument, Ref) or argument.name not in self.values:
            raise UnreadableModel(
                f"{self.where}: node {self.node.name!r}, {self.node.target}: reads {argument!r},"
                " which no node gives"
            )
        value = self.values[argument.name]
        if isinstance(value, Stale):
            raise self.refuse(
                f"reads a tensor whose memory {value.changed_by!r} changed in place",
                "want operators that return a new tensor, relu(x) for relu_(x)",
            )
        return value

    def collected(self, zeros: Zeros) -> Value:
        """Return steps of time that were written to zeros one by one."""
        axes = {axis for axis, _ in zeros.written}
        count = len(zeros.written)
        steps = [zeros.written.get((axis, k)) for axis in axes for k in range(count)]
        flows = [step for step in steps if isinstance(step, Flow)]
        if len(axes) != 1 or len(flows) != count or zeros.size not in (None, count):
            raise self.refuse(f"reads zeros of which {count} places were written", READ_WHOLE)
        return self.stacked(flows, axes.pop())

    def flow(self, name: str = "self") -> Flow:
        """Return an argument that must be values of the model."""
        return self.as_flow(self.value(self.argument(name)), name)

    def as_flow(self, value: Value, name: str = "self") -> Flow:
        """Return a value that must be one of the model."""
        if isinstance(value, Stack):
            part = as_flow(value)
            if part is None:
                raise self.refuse(
                    f"works on the states of {value.parts.size} layers or directions at once",
                    A_STATE,
                )
            value = part
        if isinstance(value, CellState):
            raise self.refuse("reads the final cell state", "want the output or h_n")
        if not isinstance(value, Flow):
            raise self.refuse(f"{name} is a constant", "want values of the model there")
        return value

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

    def axis(self, rank: int, name: str = "dim", default: int | None = None) -> int:
        """Return an argument that numbers one of ``rank`` axes, counted from 0."""
        number = self.number(name, default)
        if not -rank <= number < rank:
            raise self.refuse(f"{name} = {number}", f"the tensor has {rank} axes")
        return number % rank

    def name(self, prefix: str, fallback: str) -> str:
        """Return a new layer's name."""
        return layer_name(prefix, fallback, self.names)

    # Chains.

    def then(self, step: Step, layer: Layer, *, vector: bool | None = None) -> Step:
        """Return the step behind ``step``; the same layer behind the same step is one."""
        known = self.following.setdefault(step, [])
        for other in known:
            if other.layer is not None and same_layer(other.layer, layer):
                return other
        self.names.append(layer.name)
        known.append(step.then(layer, _output_size(layer, step.size), vector=vector))
        return known[-1]

    def emit(
        self, flow: Flow, axes: Sequence[Axis], layer: Layer, *, vector: bool | None = None
    ) -> Flow:
        """Return the values behind another layer; ``vector``: time is gone, or is not."""
        step = self.then(flow.step, layer, vector=vector)
        return replace(flow, axes=tuple(axes), step=step, state=False)

    def whole(self, flow: Flow) -> Flow:
        """Return values for a layer that looks at whole sequences; no single step of time."""
        flow = self.settled(flow)
        if flow.step.vector:
            raise self.refuse("is fed a single step, or a result of all of them", "want a sequence")
        return flow

    def settled(self, flow: Flow) -> Flow:
        """Return values with the layer that takes their step of time.

        It stands before the layers that treat every step alike: they need to run once only.
        """
        pick = flow.pick
        if pick is None:
            return flow
        role = self.role(pick.axis)
        if role not in ("time", UNIT):
            what = "an axis that no LSTM has named" if role is None else f"the {role} axis"
            raise self.refuse(f"takes a part of {what}", "only time steps can be taken")
        if pick.counted:
            self.set_time_steps(self.input_steps(flow.origin))
        tail = []
        step = flow.step
        while step.parent is not None and step.layer is not None and _is_alike(step.layer):
            tail.append(step.layer)
            step = step.parent
        layer = (
            LastStep(self.name("last_step", "last_step"))
            if pick.is_last
            else PickStep(self.name("pick_step", "pick_step"), pick.index)
        )
        step = self.then(step, layer, vector=True)
        for behind in reversed(tail):
            step = self.then(step, behind)
        return replace(flow, step=step, pick=None)

    def joined(self, flows: Sequence[Flow], merge: Merge, dim: int) -> Flow:
        """Return values joined on their features, or combined element by element.

        Args:
            flows: with the same axes but for the sizes of features.
            merge: how.
            dim: where the features are.
        """
        first = flows[0]
        for flow in flows:
            if flow.origin != first.origin:
                raise self.refuse(f"reads a second input, {flow.origin!r}", "want one input")
            self.set_role(flow.axes[dim], "features")
        layouts = {tuple(self.role(axis) or axis for axis in flow.axes) for flow in flows}
        if len(layouts) > 1:
            words = " and ".join(f"[{self.described(flow.axes)}]" for flow in flows)
            raise self.refuse(f"joins {words}", "want the same axes")
        if not all(f.pick is first.pick or (f.pick and f.pick.same_as(first.pick)) for f in flows):
            flows = [self.settled(flow) for flow in flows]
        if len({flow.step.vector for flow in flows}) > 1:
            raise self.refuse("joins a sequence and a single step", "want both over time, or none")
        key = merge, tuple(flow.step for flow in flows)
        if key not in self.joins:
            self.joins[key] = joined_steps([flow.step for flow in flows], merge)
        axes = [*first.axes[:dim], self.new_features(), *first.axes[dim + 1 :]]
        return replace(flows[0], axes=tuple(axes), step=self.joins[key], state=False)

    def stacked(self, parts: Sequence[Flow | CellState], dim: int) -> Flow | Stack:
        """Return values stacked on a new axis ``dim``: a sequence again if they are its steps."""
        flows = [part for part in parts if isinstance(part, Flow)]
        picks = [flow.pick for flow in flows if flow.pick is not None]
        first = parts[0]
        one_chain = len({flow.step for flow in flows}) == len({pick.axis for pick in picks}) == 1
        several = len(parts) > 1 or (picks and picks[0].steps == 1)
        if not isinstance(first, Flow) or len(picks) != len(parts) or not one_chain or not several:
            return stack_of(list(parts), dim)
        steps = [pick.position for pick in picks]
        axes = [*first.axes[:dim], picks[0].axis, *first.axes[dim:]]
        flow = replace(first, axes=tuple(axes), pick=None, state=False)
        whole = picks[0].steps
        if steps == list(range(len(steps))) and whole == len(steps):
            return flow
        if steps == list(range(len(steps)))[::-1] and whole == len(steps):
            return self.emit(flow, axes, Reverse(self.name("reverse", "reverse")))
        if not isinstance(whole, int) or steps != list(range(steps[0], steps[0] + len(steps))):
            raise self.refuse(f"puts the steps {steps[:5]} ... in a row", "want steps in order")
        axes[dim] = self.new_time()
        layer = Steps(self.name("steps", "steps"), steps[0], steps[-1] + 1)
        return self.emit(flow, axes, layer)

    # Axes.

    def new_features(self, index: int = 0) -> str:
        """Return a name for a feature axis that the present node makes."""
        axis = f"{self.node.name}:features{index or ''}"
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

    def input_steps(self, name: str) -> int:
        """Return the sequence length of the example, which must not be left open."""
        for axis, size in zip(self.input_axes(name), self.graph.tensors[name].sizes, strict=True):
            if self.role(axis) == "time" and isinstance(size, int):
                return size
        raise self.refuse("joins time and features", "export with a fixed number of time steps")

    def described(self, axes: Sequence[Axis]) -> str:
        """Return axes as text: ``batch, time, features``."""
        words = []
        for axis in axes:
            parts = axis if isinstance(axis, tuple) else (axis,)
            words.append("*".join(self.role(part) or "time" for part in parts))
        return ", ".join(words)

    # The ends of the graph.

    def _needed(self) -> set[str]:
        """Return the tensors that the outputs depend on."""
        needed = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if not needed.isdisjoint(node.outputs) or _is_in_place(node):
                for argument in node.arguments.values():
                    items = argument if isinstance(argument, list) else [argument]
                    needed.update(item.name for item in items if isinstance(item, Ref))
        return needed

    def _spec(self, name: str) -> ModelSpec:
        self.node = Node("output", "output", {}, ())
        output, found = self._result()
        result = self.settled(found)
        if result.origin in self.states:
            raise UnsupportedModel(
                f"{self.where}: input {result.origin!r} is also an initial state; want them apart"
            )
        for axis in result.axes:
            if isinstance(axis, tuple) and "features" in map(self.role, axis):
                raise UnsupportedModel(
                    f"{self.where}: the result is laid out [{self.described(result.axes)}]; want"
                    " features on an axis of their own, or time and features joined in this order"
                )
        layers = named_layers(result.step.layers(), [])
        if not any(isinstance(k, Recurrent | Bidirectional | Backward) for k in _inside(layers)):
            raise UnsupportedModel(
                f"{self.where}: the graph has no aten.lstm, aten.gru or aten.rnn; want one"
            )
        signal = first_signal(layers)
        if signal is None:
            raise UnsupportedModel(f"{self.where}: no layer says how many features the input has")
        source = {
            "format": "torch.export",
            "torch": self.graph.torch_version,
            "output": output,
            "input_axes": self.described(self.input_axes(result.origin)),
            "output_axes": self.described(result.axes),
        }
        if self.states:
            # The runtime carries them from step to step, from zero on.
            source["state_inputs"] = ", ".join(sorted(self.states))
        return ModelSpec(name, signal, tuple(layers), self.time_steps, source)

    def _result(self) -> tuple[str, Flow]:
        """Return the one output that is no state and its name; a state if there is nothing else."""
        values = [self.value(Ref(name)) for name in self.graph.outputs]
        states: list[Value | None] = [*values]
        results = [v for v in values if isinstance(v, Flow) and not v.state]
        if not results:
            states = [as_flow(v) if isinstance(v, Stack) else v for v in values]
            results = _deepest([v for v in states if isinstance(v, Flow)])
        if not results and any(isinstance(v, CellState) for v in states):
            raise UnsupportedModel(
                f"{self.where}: the model gives nothing but the final cell state; {A_STATE}"
            )
        if len(results) != 1:
            accepted = "want one" if results else A_STATE
            raise UnsupportedModel(
                f"{self.where}: the model gives {len(results)} results besides states of recurrent"
                f" layers; {accepted}"
            )
        position = next(k for k, value in enumerate(states) if value is results[0])
        return self.graph.outputs[position], results[0]


def _deepest(states: list[Flow]) -> list[Flow]:
    """Return the state that all others lead to, if there is one; else all."""
    for state in states:
        chain = set()
        step: Step | None = state.step
        while step is not None:
            chain.add(step)
            step = step.parent
        others = [s for s in states if s.step is not state.step]
        same_step = all(s.pick == state.pick for s in states if s.step is state.step)
        if same_step and all(s.step in chain for s in others):
            return [state]
    return states


def _is_alike(layer: Layer) -> bool:
    """Whether a layer treats every step of time alike, whatever comes before and after it."""
    if isinstance(layer, Parallel):
        return all(_is_alike(inner) for branch in layer.branches for inner in branch)
    return isinstance(layer, Activation | Dense | Dropout | Elementwise | LayerNorm | Scale)


def _output_size(layer: Layer, size: int) -> int:
    """Return the features behind a layer; those of the input may not be known (0)."""
    if isinstance(layer, Dense | Conv1d):
        return len(layer.weights)
    if isinstance(layer, Embedding):
        return int(layer.table.shape[1])
    if isinstance(layer, Backward):
        return layer.layer.output_size
    if isinstance(layer, Bidirectional):
        both = layer.merge == "concat"
        return layer.forward_layer.output_size + both * layer.backward_layer.output_size
    if isinstance(layer, Recurrent):
        return layer.output_size
    return size * layer.time_steps if isinstance(layer, Flatten) else size


def _inside(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers, and those in their branches."""
    found: list[Layer] = []
    for layer in layers:
        found.append(layer)
        if isinstance(layer, Parallel):
            for branch in layer.branches:
                found += _inside(branch)
    return found


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
        if isinstance(layer, Parallel):
            found = [s for s in map(first_signal, layer.branches) if s is not None]
            if found:
                return found[0]
    return None


def base_name(node: Node) -> str:
    """Return an operator's name without its overload, as ``aten.lstm``."""
    return node.target.rsplit(".", 1)[0]


def _is_in_place(node: Node) -> bool:
    """Whether the operator works in place, as aten.relu_ does: later nodes see its result."""
    return base_name(node).endswith("_")


Handler = Callable[[Walk], list[Value]]
