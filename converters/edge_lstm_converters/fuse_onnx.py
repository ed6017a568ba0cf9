"""What exporters take apart, put together again: LayerNormalization, and an RNN step by step.

PyTorch's exporter writes LayerNormalization as eight operators below opset 17, and since it is
built on torch.export it writes an RNN as a product and a sum for each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.load_onnx import Graph, Node

STEP_FUNCTIONS = ("Tanh", "Relu")
TO_END = (1 << 63) - 1


def fused(graph: Graph) -> Graph:
    """Return the graph with operators for what others spell out; the rest as it is."""
    parts = _Parts(graph)
    if any(node.op == "ReduceMean" for node in graph.nodes):
        for node in graph.nodes:
            if node.op == "Div":
                _fuse_layer_norm(parts, node)
    for chain in _chains(parts):
        _fuse_rnn(parts, chain)
    return parts.graph() if parts.changed else graph


class _Parts:
    """The nodes of a graph by what they give, while some are replaced."""

    def __init__(self, graph: Graph) -> None:
        self.whole = graph
        self.constants = dict(graph.constants)
        self.makers = {name: node for node in graph.nodes for name in node.outputs if name}
        self.order = [node.outputs[0] for node in graph.nodes]
        self.changed = False

    def constant(self, name: str) -> Array | None:
        """Return a tensor that is constant, as a weight or a Constant node."""
        node = self.makers.get(name)
        if node is not None and node.op == "Constant" and "value" in node.attributes:
            from onnx import numpy_helper

            value: Array = numpy_helper.to_array(node.attributes["value"])
            return value
        return self.constants.get(name)

    def sides(self, name: str, op: str) -> Iterator[tuple[str, str]]:
        """Yield the two inputs of the node of this kind that gives ``name``, both ways round."""
        node = self.makers.get(name)
        if node is not None and node.op == op and len(node.inputs) == 2:
            yield node.inputs[0], node.inputs[1]
            yield node.inputs[1], node.inputs[0]

    def put(self, node: Node, before: str) -> None:
        """Give ``node`` the place of the node whose first output is ``before``."""
        self.order.insert(self.order.index(before), node.outputs[0])
        self.makers.update(dict.fromkeys(node.outputs, node))
        self.changed = True

    def swap(self, node: Node) -> None:
        """Replace the node that gives the same first output."""
        self.makers[node.outputs[0]] = node
        self.changed = True

    def graph(self) -> Graph:
        """Return the graph of the nodes that its outputs need."""
        needed = {port.name for port in self.whole.outputs}
        nodes = []
        for name in reversed(self.order):
            node = self.makers[name]
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                nodes.append(node)
        constants = {name: array for name, array in self.constants.items() if name in needed}
        return replace(self.whole, nodes=tuple(reversed(nodes)), constants=constants)


# LayerNormalization: (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias


def _fuse_layer_norm(parts: _Parts, node: Node) -> None:
    """Put one node for the eight, if ``node`` is their Div."""
    x, epsilon = _normalized(parts, node)
    if x is None:
        return
    weight = _vector_after(parts, node.outputs[0], "Mul")
    last = node.outputs[0] if weight is None else weight[0]
    bias = _vector_after(parts, last, "Add") if weight is not None else None
    end = last if bias is None else bias[0]
    inputs = [x, "" if weight is None else weight[1], "" if bias is None else bias[1]]
    normal = replace(
        node,
        op="LayerNormalization",
        inputs=tuple(inputs),
        outputs=(end,),
        attributes={"epsilon": epsilon, "axis": -1},
    )
    parts.swap(normal)


def _normalized(parts: _Parts, node: Node) -> tuple[str | None, float]:
    """Return what is normalized, and epsilon; or None."""
    centred, deviation = node.inputs
    root = parts.makers.get(deviation)
    subtraction = parts.makers.get(centred)
    if root is None or root.op != "Sqrt" or subtraction is None or subtraction.op != "Sub":
        return None, 0.0
    x, mean = subtraction.inputs
    for variance, small in parts.sides(root.inputs[0], "Add"):
        epsilon = parts.constant(small)
        square = _mean_of(parts, variance)
        if epsilon is None or epsilon.size != 1 or square is None or _mean_of(parts, mean) != x:
            continue
        power = parts.makers.get(square)
        if power is None or power.inputs[0] != centred:
            continue
        exponent = parts.constant(power.inputs[1]) if power.op == "Pow" else None
        is_square = power.op == "Mul" and power.inputs[1] == centred
        if is_square or (exponent is not None and exponent.size == 1 and exponent.item() == 2):
            return x, float(epsilon.item())
    return None, 0.0


def _mean_of(parts: _Parts, name: str) -> str | None:
    """Return of what ``name`` is the mean over the last axis, which is kept."""
    node = parts.makers.get(name)
    if node is None or node.op != "ReduceMean" or not node.get("keepdims", 1):
        return None
    given = parts.constant(node.inputs[1]) if len(node.inputs) > 1 else node.get("axes")
    return node.inputs[0] if given is not None and list(given) == [-1] else None


def _vector_after(parts: _Parts, name: str, op: str) -> tuple[str, str] | None:
    """Return output and constant of the one node that takes ``name`` and a value a feature."""
    users = [n for n in parts.makers.values() if name in n.inputs]
    if len(users) != 1 or users[0].op != op or name in {p.name for p in parts.whole.outputs}:
        return None
    (other,) = [i for i in users[0].inputs if i != name] or [""]
    value = parts.constant(other)
    return (users[0].outputs[0], other) if value is not None and value.ndim == 1 else None


# An RNN, step by step: h = tanh(s[k] + h_before @ R + bias), with s = x @ W + b


@dataclass(frozen=True)
class _Step:
    """One step.

    Args:
        node: its Tanh or Relu.
        source: the sequence [time, batch, hidden] that it takes one step of.
        index: which.
        before: the output of the step before; None: the first state, of zeros.
        weights: name of R; empty if the product with the first state was folded.
        bias: name of the bias behind the product, or empty.
        folded: what that product and the bias made, in a first step.
        rank: axes of the first state, in a first step.
    """

    node: Node
    source: str
    index: int
    before: str | None
    weights: str
    bias: str
    folded: Array | None = None
    rank: int = 0


def _chains(parts: _Parts) -> list[list[_Step]]:
    """Return steps that follow one another, first to last."""
    found = (_step(parts, node) for node in parts.whole.nodes if node.op in STEP_FUNCTIONS)
    steps = {step.node.outputs[0]: step for step in found if step is not None}
    after = {step.before: step for step in steps.values() if step.before is not None}
    chains = []
    for step in steps.values():
        if step.before is None and step.index == 0:
            chain = [step]
            while (following := after.get(chain[-1].node.outputs[0])) is not None:
                chain.append(following)
            chains.append(chain)
    return chains


def _step(parts: _Parts, node: Node) -> _Step | None:
    """Return what a Tanh or Relu is as a step of an RNN, or None."""
    for one, other in parts.sides(node.inputs[0], "Add"):
        place = _step_of(parts, one)
        if place is None:
            continue
        constant = parts.constant(other)
        if constant is not None:
            return _Step(node, *place, None, "", "", constant, constant.ndim)
        products = [(other, "")]
        products += [p for p in parts.sides(other, "Add") if parts.constant(p[1]) is not None]
        for product, bias in products:
            maker = parts.makers.get(product)
            if maker is not None and maker.op == "MatMul":
                state, weights = maker.inputs
                if parts.constant(weights) is not None:
                    rank = _rank_of_zeros(parts, state)
                    return _Step(node, *place, None if rank else state, weights, bias, rank=rank)
    return None


def _step_of(parts: _Parts, name: str) -> tuple[str, int] | None:
    """Return of which sequence ``name`` is one step, and of which index; time comes first."""
    squeeze = parts.makers.get(name)
    if squeeze is None or squeeze.op != "Squeeze" or len(squeeze.inputs) != 2:
        return None
    cut = parts.makers.get(squeeze.inputs[0])
    if cut is None or cut.op != "Slice" or len(cut.inputs) < 4:
        return None
    values = [parts.constant(n) for n in (squeeze.inputs[1], *cut.inputs[1:4])]
    if any(v is None or v.size != 1 for v in values) or len(cut.inputs) > 4:
        return None
    dropped, start, end, axis = (int(v.item()) for v in values if v is not None)
    return (cut.inputs[0], start) if (dropped, axis, end) == (0, 0, start + 1) else None


def _rank_of_zeros(parts: _Parts, name: str) -> int:
    """Return how many axes a tensor has that is zeros, of whatever size; 0 if it is not."""
    more = 0
    node = parts.makers.get(name)
    while node is not None and node.op in ("Slice", "Squeeze", "Unsqueeze"):
        axes = parts.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.op != "Slice":
            if axes is None:
                return 0
            more += axes.size if node.op == "Unsqueeze" else -axes.size
        node = parts.makers.get(node.inputs[0])
    if node is None or node.op != "Expand":
        return 0
    value, sizes = parts.constant(node.inputs[0]), parts.constant(node.inputs[1])
    maker = parts.makers.get(node.inputs[1])
    if value is None or value.any():
        return 0
    if sizes is not None:
        return sizes.size + more
    return len(maker.inputs) + more if maker is not None and maker.op == "Concat" else 0


def _fuse_rnn(parts: _Parts, chain: list[_Step]) -> None:
    """Put one RNN for all the steps, if they are all that there are."""
    first, later = chain[0], chain[1:]
    named = later[0] if later else first
    recurrent, bias = parts.constant(named.weights), parts.constant(named.bias)
    alike = all(
        (s.source, s.weights, s.bias, s.node.op, s.index)
        == (first.source, named.weights, named.bias, first.node.op, k + 1)
        for k, s in enumerate(later)
    )
    if not later or not alike or recurrent is None or recurrent.ndim != 2:
        return
    size = len(recurrent)
    bias = np.zeros(size, np.float32) if bias is None else bias
    if bias.shape != (size,) or recurrent.shape != (size, size):
        return
    # A state [1, batch, hidden], as nn.RNN has, so that each step's result has three axes, too.
    if first.rank != 3 or (first.folded is not None and len(first.folded) != 1):
        return
    if first.folded is None and (first.weights, first.bias) != (named.weights, named.bias):
        return
    if first.folded is not None and not np.array_equal(
        first.folded, np.broadcast_to(bias, first.folded.shape)
    ):
        return  # the product of a first state of its own
    x, weights, before, backward = _input_of(parts, first.source, size)
    base = first.node.outputs[0]
    made = {
        "W": np.ascontiguousarray(weights.T)[None],
        "R": np.ascontiguousarray(recurrent.T)[None],
        "B": np.concatenate([before, bias])[None],
        "one": np.array([1]),
    }
    parts.constants.update({f"{base}:{key}": value for key, value in made.items()})
    rnn = Node(
        name=first.node.name,
        op="RNN",
        domain="",
        inputs=(x, f"{base}:W", f"{base}:R", f"{base}:B"),
        outputs=(f"{base}:Y",),
        attributes={
            "hidden_size": size,
            "activations": [first.node.op.encode()],
            "direction": b"reverse" if backward else b"forward",
        },
        opset=first.node.opset,
    )
    squeeze = replace(
        rnn,
        name=f"{rnn.name}:squeeze",
        op="Squeeze",
        inputs=(f"{base}:Y", f"{base}:one"),
        outputs=(f"{base}:steps",),
        attributes={},
    )
    parts.put(rnn, base)
    parts.put(squeeze, base)
    _use_steps(parts, chain, squeeze, backward=backward)


def _input_of(parts: _Parts, source: str, size: int) -> tuple[str, Array, Array, bool]:
    """Return x, W, b of ``source`` = x @ W + b, and whether its time runs backward."""
    cut = parts.makers.get(source)
    backward = False
    if cut is not None and cut.op == "Slice" and len(cut.inputs) == 5:
        values = [parts.constant(n) for n in cut.inputs[1:]]
        numbers = [int(v.item()) for v in values if v is not None and v.size == 1]
        if len(numbers) == 4 and numbers[0] == -1 and numbers[1] < -(1 << 31):
            backward = numbers[2:] == [0, -1]
        source = cut.inputs[0] if backward else source
    none, same = np.zeros(size, np.float32), np.eye(size, dtype=np.float32)
    for product, name in [*parts.sides(source, "Add"), (source, "")]:
        maker, bias = parts.makers.get(product), parts.constant(name)
        if maker is None or maker.op != "MatMul" or (name and bias is None):
            continue
        weights = parts.constant(maker.inputs[1])
        bias = none if bias is None else bias
        if weights is not None and weights.ndim == 2 and bias.shape == (size,):
            return maker.inputs[0], weights, bias, backward
    return source, same, none, backward


def _use_steps(parts: _Parts, chain: list[_Step], squeeze: Node, *, backward: bool) -> None:
    """Take each step's result from the RNN's; all of them in a row are a run of its steps."""

    def taken(node: Node, start: int, end: int) -> None:
        names = []
        for word, number in {"from": start, "to": end or TO_END, "axis": 0}.items():
            names.append(f"{node.outputs[0]}:{word}")
            parts.constants[names[-1]] = np.array([number])
        inputs = (squeeze.outputs[0], *names)
        parts.swap(
            replace(squeeze, name=node.name, op="Slice", inputs=inputs, outputs=node.outputs)
        )

    count = len(chain)
    outputs = [step.node.outputs[0] for step in chain]
    in_order = tuple(outputs[::-1] if backward else outputs)
    for node in list(parts.makers.values()):
        if node.op == "Concat" and node.get("axis") == 0 and node.inputs == in_order:
            taken(node, *((-count, 0) if backward else (0, count)))
    for k, step in enumerate(chain):  # counted from the end where time runs backward
        taken(step.node, *((-1 - k, -k) if backward else (k, k + 1)))
