"""A float ``.tflite`` graph on its way to a ModelSpec.

``tflite_graph`` follows the axes, as it does for integers. Each operator leaves a layer behind, and
at the end the layers are chained, and joined where the file joins values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from edge_lstm.arrays import F32
from edge_lstm.cells import (
    Activation,
    Backward,
    ConcatOp,
    FirstStepOp,
    Flatten,
    FlattenOp,
    LastStep,
    LastStepOp,
    PickStep,
    Recurrent,
    Reverse,
    ReverseOp,
)
from edge_lstm.cells.recurrent import Merge
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.program import Kernel, Op, Program, Tensor
from edge_lstm.spec import Layer, ModelSpec, Signal, identifier
from edge_lstm_converters.chains import Step, joined_steps, named_layers, one_direction
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.tflite_axes import Axis, Layout, Value, axes_text
from edge_lstm_converters.tflite_graph import TfliteGraph
from edge_lstm_converters.tflite_schema import ABSENT, TfliteModel, TfliteOperator
from edge_lstm_converters.tflite_tables import ACTIVATIONS


@dataclass(frozen=True, eq=False, repr=False)
class LayerOp(Op):
    """A float layer in the place that an integer op has in a graph.

    Args:
        layer: None: the inputs are joined, or one direction is taken.
        merge: how they are.
        direction: which is taken.
    """

    type_name: ClassVar[str] = "layer"

    layer: Layer | None = None
    merge: Merge = "concat"
    direction: int | None = None

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        raise AssertionError("a float layer has no integers")


MOVES: dict[type[Op], Callable[[Op], Layer]] = {
    LastStepOp: lambda op: LastStep(op.name),
    FirstStepOp: lambda op: PickStep(op.name, 0),
    ReverseOp: lambda op: Reverse(op.name),
}


class FloatGraph(TfliteGraph):
    """The layers made so far; arguments as ``TfliteGraph``."""

    def __init__(self, model: TfliteModel, where: str, layout: Layout) -> None:
        super().__init__(model, where, "litert", layout)

    def integer(self, operator: TfliteOperator, value: Value) -> None:
        """Check that a value is a number."""
        if self.tensors[value.index].dtype != "float32":
            raise self.refuse(operator, f"is fed {value.signal}", "want float32")

    def spec(
        self, operators: Mapping[str, Callable[[FloatGraph, TfliteOperator], None]]
    ) -> ModelSpec:
        """Return the model; ``operators`` says what becomes of each."""
        for operator in self.model.operators:
            if operator.code not in operators:
                raise UnsupportedModel(
                    f"{self.where}: operator {operator.code} has no counterpart here; operators of"
                    f" a float model must be of {', '.join(sorted(operators))}"
                )
            if not operator.outputs or ABSENT in operator.outputs:
                raise self.damaged(operator, f"has {len(operator.outputs)} outputs")
            operators[operator.code](self, operator)
        last = self.model.outputs[0]
        if last not in self.values:
            raise UnreadableModel(f"{self.where}: no operator writes the output; get it again")
        result = self.settled(last)
        layers = named_layers(self.chain(result.index).layers(), [])
        return ModelSpec(
            name=identifier(Path(self.where).stem),
            input=self.tensors[0].signal,
            layers=tuple(layers),
            time_steps=self.time_steps,
            source={
                "format": "tflite",
                "description": self.model.description,
                "batch_size": str(self.layout.batch_size),
                "time_steps": str(self.layout.time_steps),
                "input_axes": axes_text(self.layout.order),
                "output_axes": axes_text(result.order),
            },
        )

    def chain(self, result: int) -> Step:
        """Return the layers up to a tensor, as a chain."""
        steps = {0: Step(None, None, self.tensors[0].signal.size)}
        for op in self.ops:
            signal = self.tensors[op.output].signal
            sources = [steps[index] for index in op.inputs]
            size, vector = signal.size, signal.kind == "vector"
            layer: Layer | None = op.layer if isinstance(op, LayerOp) else None
            if isinstance(op, FlattenOp):
                layer = Flatten(op.name, self.layout.time_steps)
            elif type(op) in MOVES:
                layer = MOVES[type(op)](op)
            if layer is not None:
                steps[op.output] = _then(sources[0], layer, size, vector=vector)
            elif isinstance(op, LayerOp) and op.direction is not None:
                taken = one_direction(sources[0], op.direction)
                assert taken is not None  # it follows the layer
                steps[op.output] = taken
            else:
                merge = op.merge if isinstance(op, LayerOp) else "concat"
                assert isinstance(op, LayerOp | ConcatOp)
                steps[op.output] = joined_steps(sources, merge)
        return steps[result]

    def layer(
        self,
        operator: TfliteOperator,
        value: Value,
        signal: Signal,
        order: tuple[Axis, ...],
        make: Callable[[str], Layer],
        word: str,
    ) -> None:
        """Add a layer that ``make`` returns for a name."""
        self.add(
            operator, signal, order,
            lambda name, index: LayerOp(name, (value.index,), index, make(name)), word,
        )  # fmt: skip

    def activated(self, operator: TfliteOperator, code: int) -> None:
        """Put the fused activation behind what the operator gives."""
        kind = ACTIVATIONS.get(code, str(code))
        if kind == "none":
            return
        if kind not in ("relu", "relu6"):
            raise self.refuse(operator, f"has fused activation {kind}", "want none, relu or relu6")
        value = self.values[operator.outputs[0]]
        index = len(self.tensors)
        name = self.unused(kind)
        self.tensors.append(replace(self.tensors[value.index], name=f"{name}.output"))
        layer = Activation(name, "relu" if kind == "relu" else "relu6")
        self.ops.append(LayerOp(name, (value.index,), index, layer))
        self.values[operator.outputs[0]] = replace(value, index=index)

    def numbers(self, operator: TfliteOperator, position: int, what: str) -> F32:
        """Return constant float32 numbers."""
        tensor = self.constant(operator, position, what)
        if tensor.dtype != "float32":
            raise self.refuse(
                operator,
                f"{what} are {tensor.dtype}",
                "want float32: convert the model without quantizing its weights",
            )
        return as_float32(f"{self.label(operator)}: {what}", tensor.array())

    def float_tensor(self, name: str, signal: Signal) -> int:
        """Add a tensor of the graph alone."""
        self.tensors.append(Tensor(f"{name}.output", signal, "float32", 0.0, 0))
        return len(self.tensors) - 1


def _then(step: Step, layer: Layer, size: int, *, vector: bool) -> Step:
    """Return the next step; a layer between two reversals is one that runs backward."""
    inner, before = step.layer, step.parent
    if isinstance(inner, Recurrent) and before is not None and isinstance(before.layer, Reverse):
        assert before.parent is not None
        back = before.parent.then(Backward(inner.name, inner), inner.output_size)
        if isinstance(layer, Reverse):
            return back
        if isinstance(layer, LastStep):
            return back.then(PickStep(layer.name, 0), size, vector=True)
    return step.then(layer, size, vector=vector)
