"""What the axes of a ``.tflite`` file's tensors mean: batch, time or features.

A file says shapes and no meaning, and may be batch-major or time-major. So each value carries
the canonical axes in the order in which they lie in memory; RESHAPE leaves that order alone,
TRANSPOSE changes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edge_lstm.errors import UnsupportedModel
from edge_lstm.spec import Signal
from edge_lstm_converters.tflite_schema import ABSENT, TfliteModel

Axis = Literal["batch", "time", "size"]
CANONICAL: tuple[Axis, ...] = ("batch", "time", "size")
TIME_MAJOR: tuple[Axis, ...] = ("time", "batch", "size")


def axes_text(order: tuple[Axis, ...]) -> str:
    """Return axes in memory order as text: ``"batch, time, features"``."""
    return ", ".join("features" if axis == "size" else axis for axis in order)


class LayoutMismatch(UnsupportedModel):
    """The axes do not mean what they were taken for."""


@dataclass(frozen=True)
class Value:
    """A tensor of the file as the Program sees it.

    Args:
        index: of the Program's tensor.
        signal: of the Program's tensor.
        order: the canonical axes in the order in which they lie in memory.
        shape: the file's own, of the same number of elements.
    """

    index: int
    signal: Signal
    order: tuple[Axis, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """One way to understand the model's input, and with it every value after it."""

    batch_size: int
    time_steps: int
    signal: Signal
    order: tuple[Axis, ...]

    def sizes(self, signal: Signal) -> dict[Axis, int]:
        """Return the size of each axis of a signal."""
        sizes: dict[Axis, int] = {"batch": self.batch_size}
        if signal.kind != "vector":
            sizes["time"] = self.time_steps
        if signal.kind != "tokens":
            sizes["size"] = signal.size
        return sizes

    def count(self, signal: Signal) -> int:
        """Return the number of elements of a signal."""
        return math.prod(self.sizes(signal).values())

    def lies_as(self, value: Value, order: tuple[Axis, ...]) -> bool:
        """Whether the memory of ``value`` has this order; axes of size 1 lie anywhere."""
        sizes = self.sizes(value.signal)
        large = [axis for axis in value.order if sizes[axis] > 1]
        return large == [axis for axis in order if axis in large]

    def file_axes(self, value: Value, where: str) -> list[tuple[Axis, ...]]:
        """Return which canonical axes each axis of the file's shape holds, in memory order."""
        sizes = self.sizes(value.signal)
        left = list(value.order)
        if value.shape == tuple(sizes[axis] for axis in left):
            return [(axis,) for axis in left]
        axes: list[tuple[Axis, ...]] = []
        for size in value.shape:
            held: list[Axis] = []
            while left and math.prod(sizes[axis] for axis in held) < size:
                held.append(left.pop(0))
            # An axis of size 1 goes with what precedes it, but the last one stays by itself.
            while held and len(left) > 1 and sizes[left[0]] == 1:
                held.append(left.pop(0))
            if math.prod(sizes[axis] for axis in held) != size:
                raise LayoutMismatch(
                    f"{where}: shape {list(value.shape)} cuts through {value.signal}; axes may be"
                    " joined and parted only between batch, time and features"
                )
            axes.append(tuple(held))
        if axes and left:
            axes[-1] += tuple(left)
        return axes


def possible_layouts(model: TfliteModel, where: str) -> list[Layout]:
    """Return what the model's input may be, the likeliest first."""
    for what, indices in (("input", model.inputs), ("output", model.outputs)):
        if len(indices) != 1 or indices[0] == ABSENT:
            raise UnsupportedModel(f"{where}: has {len(indices)} {what}s; a model must have one")
    tensor = model.tensors[model.inputs[0]]
    shape = tensor.shape
    if math.prod(shape) == 0:
        raise UnsupportedModel(
            f"{where}: input has shape {list(shape)}; want every size known and at least 1"
        )
    tokens = tensor.dtype in ("int32", "int64")
    if tokens and len(shape) == 2:
        # The number of tokens becomes known at the GATHER.
        signal = Signal("tokens", 0)
        return [
            Layout(shape[0], shape[1], signal, CANONICAL[:2]),
            Layout(shape[1], shape[0], signal, TIME_MAJOR[:2]),
        ]
    if tokens and len(shape) == 1:
        return [Layout(1, shape[0], Signal("tokens", 0), CANONICAL[:2])]
    if not tokens and len(shape) == 3:
        signal = Signal("sequence", shape[2])
        return [
            Layout(shape[0], shape[1], signal, CANONICAL),
            Layout(shape[1], shape[0], signal, TIME_MAJOR),
        ]
    if not tokens and len(shape) == 2:
        return [
            Layout(shape[0], 1, Signal("vector", shape[1]), ("batch", "size")),
            Layout(1, shape[0], Signal("sequence", shape[1]), CANONICAL),
        ]
    raise UnsupportedModel(
        f"{where}: input is {tensor.dtype} {list(shape)}; want [batch, time, features],"
        " [batch, features], or token ids [batch, time]"
    )
