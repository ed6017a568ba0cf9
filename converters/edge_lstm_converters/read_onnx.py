"""Reads ``.onnx`` files: follows the data from the input to the output and collects the layers.

What exporters put around the layers is understood by what it does: shape arithmetic is folded to
numbers (``simplify_onnx``), moves are tracked as layouts (``axes_onnx``), and what is left must
be a layer (``layers_onnx``) or is refused by its node's name.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_lstm.cells import (
    Conv1d,
    Embedding,
    Flatten,
    GlobalPool,
    Parallel,
    PickStep,
    Pool1d,
    Reverse,
    Steps,
)
from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel
from edge_lstm.spec import Layer, ModelSpec, Signal, identifier
from edge_lstm_converters import layers_onnx, moves_onnx, recurrent_onnx, window_onnx
from edge_lstm_converters.axes_onnx import (
    DIRECTION,
    FEATURES,
    PART,
    Axes,
    RefusedError,
    Role,
    SizeLearned,
    Stack,
    State,
    Value,
    Values,
    View,
)
from edge_lstm_converters.chains import Step, same_values
from edge_lstm_converters.fuse_onnx import fused
from edge_lstm_converters.load_onnx import Graph, Node, Port, load_graph
from edge_lstm_converters.part_onnx import read_part
from edge_lstm_converters.simplify_onnx import FOLDS, fold

# Two readings with other numbers for the open sizes must agree, so that none leaks into a weight.
FIRST_GUESSES = (1009, 4001)
ROLES: tuple[Role, ...] = ("batch", "time")
LAYER_NAMES = {"laststep": "last_step"}
WHOLE_SEQUENCES = (Conv1d, Flatten, GlobalPool, Pool1d, Reverse, Steps)
"""Layers that ONNX runs over what is past a row's length, too."""

LAYER_OPS: dict[str, Callable[[Axes, Node, Values], list[Value]]] = {
    "Add": layers_onnx.arithmetic,
    "AveragePool": window_onnx.pool,
    "BatchNormalization": window_onnx.batch_norm,
    "Clip": layers_onnx.activation,
    "Conv": window_onnx.conv,
    "Div": layers_onnx.arithmetic,
    "GRU": recurrent_onnx.recurrent,
    "Gemm": layers_onnx.gemm,
    "GlobalAveragePool": window_onnx.over_time,
    "GlobalMaxPool": window_onnx.over_time,
    "LSTM": recurrent_onnx.recurrent,
    "LayerNormalization": window_onnx.layer_norm,
    "MatMul": layers_onnx.matmul,
    "MaxPool": window_onnx.pool,
    "Mul": layers_onnx.arithmetic,
    "RNN": recurrent_onnx.recurrent,
    "Pad": window_onnx.pad,
    "ReduceMax": window_onnx.over_time,
    "ReduceMean": window_onnx.over_time,
    "ReduceSum": window_onnx.over_time,
    "Relu": layers_onnx.activation,
    "Sigmoid": layers_onnx.activation,
    "Softmax": layers_onnx.activation,
    "Sub": layers_onnx.arithmetic,
    "Tanh": layers_onnx.activation,
    **dict.fromkeys(layers_onnx.ELEMENTWISE, layers_onnx.activation),
}
NEED_TIME = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
"""Operators whose layout says what is time, as a recurrent one's does."""
MOVE_OPS: dict[str, Callable[[Axes, Node, Values], list[Value]]] = {
    "Cast": moves_onnx.cast,
    "Concat": moves_onnx.concat,
    "Dropout": moves_onnx.identity,
    "Expand": moves_onnx.expand,
    "Flatten": moves_onnx.flatten,
    "Gather": moves_onnx.gather,
    "Identity": moves_onnx.identity,
    "Reshape": moves_onnx.reshape,
    "ReverseSequence": moves_onnx.reverse_sequence,
    "Slice": moves_onnx.slice_,
    "Split": moves_onnx.split,
    "Squeeze": moves_onnx.squeeze,
    "Transpose": moves_onnx.transpose,
    "Unsqueeze": moves_onnx.unsqueeze,
}


def read_onnx(path: Path, name: str | None = None, layers: Path | None = None) -> ModelSpec:
    """Return the model in an ``.onnx`` file; external weights are read from beside it.

    Args:
        path: the file.
        name: of the model; None: the file's stem.
        layers: a file that says which part of the graph is wanted, see ``part_onnx``; None: all.

    Raises:
        UnreadableModel: the file is damaged, or not ONNX.
        UnsupportedModel: a node has no counterpart here; the message names it.
    """
    path = Path(path)
    part = None if layers is None else read_part(Path(layers))
    graph = fused(load_graph(path, part))
    name = identifier(path.stem) if name is None else name
    try:
        first, second = (_read(graph, name, guess) for guess in FIRST_GUESSES)
    except ModelError as error:
        hint = _unrolled(graph) if isinstance(error, UnsupportedModel) else ""
        raise type(error)(f"{path}: {error}{hint}") from error
    if not same_values((first.input, first.layers), (second.input, second.layers)):
        raise UnsupportedModel(
            f"{path}: its weights depend on the batch size or the sequence length; want constants"
        )
    if part is None:
        return first
    ends = ", ".join(port.name for port in graph.outputs)
    return replace(first, source={**first.source, "part_start": part.start, "part_end": ends})


def _read(graph: Graph, name: str, first_guess: int) -> ModelSpec:
    """Return the model, with primes from ``first_guess`` on standing for the open sizes."""
    states = _inputs_behind(graph, slice(5, 7))
    lengths = _inputs_behind(graph, slice(4, 5))
    fed = {**states, **lengths}
    sources = [p for p in graph.inputs if p.name not in fed]
    if len(sources) != 1:
        names = ", ".join(repr(p.name) for p in sources) or "none"
        raise UnsupportedModel(
            f"has {len(sources)} inputs ({names}); want 1, beside first states and lengths"
        )
    source = sources[0]
    if not 1 <= len(source.shape) <= 3:
        raise UnsupportedModel(
            f"input {source.name!r} has {len(source.shape)} axes; want batch, time and features"
        )
    primes = _primes(graph, first_guess)
    named: dict[str, int] = {}

    def size(n: int | str | None) -> int:
        if isinstance(n, str):
            return named[n] if n in named else named.setdefault(n, next(primes))
        return next(primes) if n is None else n

    sizes = {str(i): size(n) for i, n in enumerate(source.shape)}
    open_atoms = {str(i) for i, n in enumerate(source.shape) if not isinstance(n, int)}
    state_shapes = {p.name: tuple(size(n) for n in p.shape) for p in fed.values()}
    guesses = {n for n in [*sizes.values(), *named.values()] if n >= first_guess}
    guesses |= {n for shape in state_shapes.values() for n in shape if n >= first_guess}
    # Each round learns the size of one axis.
    for _ in range(len(sizes) + 1):
        walk = _Walk(graph, source, Axes(dict(sizes), set(open_atoms), guesses))
        try:
            return walk.spec(name, state_shapes, set(lengths))
        except SizeLearned as learned:
            sizes[learned.atom] = learned.size
            open_atoms.discard(learned.atom)
    raise UnsupportedModel("the sizes of its input contradict one another; want one size an axis")


class _Walk:
    """One walk over a graph, from its input to its outputs."""

    def __init__(self, graph: Graph, source: Port, axes: Axes) -> None:
        self.graph, self.source, self.axes = graph, source, axes
        self.values: dict[str, Value] = dict(graph.constants)
        says_time = (*recurrent_onnx.RECURRENT_OPS, *NEED_TIME)
        self.knows_time = any(n.op in says_time for n in graph.nodes)

    def spec(
        self, name: str, state_shapes: dict[str, tuple[int, ...]], lengths: set[str]
    ) -> ModelSpec:
        """Give every node's outputs a meaning and return the chain that leads to the result."""
        count = len(self.source.shape)
        integers = bool(np.issubdtype(self.source.dtype, np.integer))
        if not self.knows_time:
            if count != (2 if integers else 3):
                raise UnsupportedModel(
                    f"has no recurrent layer, and an input of {count} axes; want an LSTM, GRU or"
                    " RNN, or an input [batch, time, features]"
                )
            self.axes.roles.update({str(i): role for i, role in enumerate(ROLES)})
        self.values[self.source.name] = View(
            Step(None, None, 0), tuple((str(i),) for i in range(count)), integers
        )
        for state, shape in state_shapes.items():
            first = self.graph.first_states.get(state, np.zeros(1, np.float32))
            if len(first) not in (1, *shape[-1:]):
                raise UnreadableModel(
                    f"metadata 'initial_state': {state!r} has {len(first)} values; want {shape[-1]}"
                )
            is_length = state in lengths
            words = "the lengths" if is_length else "a state"
            self.values[state] = State(
                np.broadcast_to(first, shape), f"input {state!r}, {words}", True, is_length
            )
        for node in self.graph.nodes:
            self._visit(node)
        name_of_output, view = self._main_output()
        output = {"output": name_of_output, "output_layout": self.axes.describe(view)[1:-1]}
        view = self._settled(view)
        layers = _named(view.step.layers())
        if not layers:
            raise UnsupportedModel("computes nothing; want at least one layer")
        self._check_lengths(layers)
        return ModelSpec(
            name=name,
            input=self._input_signal(layers[0]),
            layers=layers,
            time_steps=self._time_steps(layers),
            source=self._source(output, set(state_shapes) - lengths, lengths),
        )

    def _time_steps(self, layers: tuple[Layer, ...]) -> int | None:
        """Return the one sequence length of a model that joins time and features."""
        if not any(isinstance(layer, Flatten) for layer in _inside(layers)):
            return None
        axes = self.axes
        inputs = [str(i) for i in range(len(self.source.shape))]
        fixed = [a for a in inputs if axes.roles.get(a) == "time" and a not in axes.open_atoms]
        return axes.sizes[fixed[0]] if fixed else None

    def _check_lengths(self, layers: tuple[Layer, ...]) -> None:
        """Refuse layers that mean something else once rows have lengths."""
        if not self.axes.lengths:
            return
        for layer in _inside(layers):
            late = isinstance(layer, PickStep) and layer.index != 0
            if isinstance(layer, WHOLE_SEQUENCES) or late:
                raise UnsupportedModel(
                    f"has sequence_lens, and a {layer.type_name} that works on what is past them;"
                    " want recurrent layers, their final states and layers on single steps"
                )

    def _visit(self, node: Node) -> None:
        inputs = [self.values.get(name) if name else None for name in node.inputs]
        for name, value in zip(node.inputs, inputs, strict=True):
            if name and value is None:
                raise UnreadableModel(f"{node}: reads {name!r}; nothing makes that")
        try:
            results = self._results(node, inputs)
        except RefusedError as error:
            raise UnsupportedModel(f"{node}: {error.found}; {error.accepted}") from error
        except ModelError as error:
            raise type(error)(f"{node}: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise UnreadableModel(
                f"{node}: its inputs do not fit it ({error}); export the model again"
            ) from error
        self.values.update(zip(node.outputs, results, strict=False))

    def _results(self, node: Node, inputs: Values) -> list[Value]:
        given = [v for v in inputs if v is not None]
        if node.op in ("Shape", "Size") and len(given) == 1:
            shape = np.broadcast_to(np.float32(0), self.axes.shape_of(given[0]))
            return [*fold(node, [shape])]
        if node.op in recurrent_onnx.RECURRENT_OPS:
            return recurrent_onnx.recurrent(self.axes, node, inputs)
        if all(isinstance(v, np.ndarray) for v in given) and node.op in FOLDS:
            return [*fold(node, inputs)]  # type: ignore[arg-type]
        if node.op in LAYER_OPS and any(isinstance(v, View) for v in given):
            return LAYER_OPS[node.op](self.axes, node, inputs)
        if node.op in MOVE_OPS and any(isinstance(v, View) for v in given):
            return MOVE_OPS[node.op](self.axes, node, inputs)
        if any(isinstance(v, Stack) for v in given):
            return moves_onnx.stacked(self.axes, node, inputs)
        if any(isinstance(v, State) for v in given):
            return moves_onnx.state(self.axes, node, inputs)
        if given and all(isinstance(v, np.ndarray) for v in given):
            accepted = "want them folded, as torch.onnx.export does, and onnxsim"
            raise RefusedError("computes with constants alone", accepted)
        known = ", ".join([*LAYER_OPS, *MOVE_OPS])
        raise RefusedError("has no counterpart here", f"want {known}{self._way_out(node)}")

    def _way_out(self, refused: Node) -> str:
        """Return what to do about a node that stands before a recurrent layer, or behind all."""
        recurrent = [n for n in self.graph.nodes if n.op in recurrent_onnx.RECURRENT_OPS]
        for node in recurrent:
            if node.inputs[0] not in self.values:
                return f"; or the part from {node.inputs[0]!r} on, as start of a file for --layers"
        if not recurrent:
            return ""
        start, end = self.source.name, refused.inputs[0]
        return f"; or the part from {start!r} to {end!r}, as start and end of a file for --layers"

    def _main_output(self) -> tuple[str, View]:
        """Return the one result; final states beside it are the runtime's."""
        results: list[tuple[str, View]] = []
        states: list[tuple[str, View]] = []
        for port in self.graph.outputs:
            value = self.values.get(port.name)
            if value is None or isinstance(value, np.ndarray):
                raise UnsupportedModel(
                    f"output {port.name!r} does not depend on the input; want one that does"
                )
            if isinstance(value, Stack):
                states += [(port.name, part) for part in value.parts]
            elif isinstance(value, View):
                (states if value.final_state else results).append((port.name, value))
        candidates = results or states
        if len(candidates) != 1:
            names = ", ".join(repr(name) for name, _ in candidates) or "none"
            raise UnsupportedModel(
                f"has {len(candidates)} results ({names}); want 1, beside the final states"
            )
        return candidates[0]

    def _settled(self, view: View) -> View:
        """Return the result; where it joins time and features, after a Flatten."""
        for i, axis in enumerate(view.axes):
            atoms = self.axes.real(view, axis)
            if len(atoms) > 1 and {FEATURES, PART, DIRECTION}.intersection(atoms):
                try:
                    return self.axes.as_features(view, i)
                except RefusedError as error:
                    raise UnsupportedModel(
                        f"the result is laid out {self.axes.describe(view)};"
                        " want features on an axis of their own"
                    ) from error
        return view

    def _input_signal(self, first: Layer) -> Signal:
        if isinstance(first, Embedding):
            return Signal("tokens", len(first.table))
        if self.axes.features is None:
            raise UnsupportedModel("nothing works on its features; want at least one layer")
        return Signal("sequence", self.axes.sizes[self.axes.features])

    def _source(
        self, output: dict[str, str], states: set[str], lengths: set[str]
    ) -> dict[str, str]:
        words = []
        for atom in map(str, range(len(self.source.shape))):
            word, size = self.axes.word_of_atom(atom), self.axes.sizes[atom]
            words.append(word if atom in self.axes.open_atoms else f"{word} {size}")
        source = {
            "format": "onnx",
            "input": self.source.name,
            "input_layout": ", ".join(words),
            **output,
        }
        if self.graph.producer:
            source["producer"] = self.graph.producer
        if states:
            known = states & self.graph.first_states.keys()
            first = "from the file's metadata" if known else "zero"
            source["state"] = f"an input of the file; held by the runtime here, {first} at first"
        if lengths:
            source["lengths"] = f"input {', '.join(sorted(lengths))} of the file"
        return source


def _unrolled(graph: Graph) -> str:
    """Return what to do about a loop over cells that the exporter wrote out step by step."""
    weights = [n.inputs[1] for n in graph.nodes if n.op in ("Gemm", "MatMul") and len(n.inputs) > 1]
    again = [w for w, count in Counter(weights).items() if count > 1 and w in graph.constants]
    if not again or any(n.op in recurrent_onnx.RECURRENT_OPS for n in graph.nodes):
        return ""
    return (
        f"; it has no LSTM, GRU or RNN, and uses {again[0]!r} for several steps: of a loop over"
        " cells, convert the program of torch.export (.pt2)"
    )


def _inside(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield layers, and those in their branches."""
    for layer in layers:
        yield layer
        if isinstance(layer, Parallel):
            for branch in layer.branches:
                yield from _inside(branch)


def _named(layers: Iterable[Layer], seen: Counter[str] | None = None) -> tuple[Layer, ...]:
    """Return the layers with names of their own: lstm, dense, lstm_1."""
    seen = Counter() if seen is None else seen
    named = []
    for layer in layers:
        word = LAYER_NAMES.get(layer.type_name, layer.type_name).replace(" ", "_")
        name = f"{word}_{seen[word]}" if seen[word] else word
        seen[word] += 1
        if isinstance(layer, Parallel):
            branches = tuple(_named(branch, seen) for branch in layer.branches)
            layer = replace(layer, branches=branches)
        named.append(replace(layer, name=name))
    return tuple(named)


def _inputs_behind(graph: Graph, positions: slice) -> dict[str, Port]:
    """Return the graph inputs from which some inputs of recurrent nodes come, by name."""
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    ports = {p.name: p for p in graph.inputs}
    found: dict[str, Port] = {}
    recurrent = [n for n in graph.nodes if n.op in recurrent_onnx.RECURRENT_OPS]
    todo = [name for n in recurrent for name in n.inputs[positions]]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in ports:
            found[name] = ports[name]
        elif name in producers and producers[name].op in moves_onnx.LAYOUT_OPS:
            # Only what is moved, not the shapes and indices that steer the move.
            node = producers[name]
            todo += node.inputs if node.op == "Concat" else node.inputs[:1]
    return found


def _primes(graph: Graph, start: int) -> Iterator[int]:
    """Yield primes from ``start`` on that divide no size in the file."""
    sizes = {n for array in graph.constants.values() for n in array.shape}
    sizes |= {n for port in graph.inputs for n in port.shape if isinstance(n, int)}
    for p in itertools.count(start):
        if all(p % d for d in range(2, math.isqrt(p) + 1)) and all(n % p for n in sizes if n):
            yield p
