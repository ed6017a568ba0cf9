"""Layers that look at several steps at once: Conv1d, Pool1d, GlobalPool; and pick some: Steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_lstm.arrays import F32, F64, I64
from edge_lstm.cells.recurrent import moved
from edge_lstm.cells.shape import FirstStepOp
from edge_lstm.errors import UsageError
from edge_lstm.program import ProgramBuilder
from edge_lstm.spec import FloatRun, Layer, Signal, check_shape

Padding = tuple[int, int] | Literal["same"]


LONGEST = 2**14
"""Steps that a window may see or put in front: what a damaged file says must not fill memory."""


@dataclass(frozen=True, eq=False, repr=False)
class _Window(Layer):
    """A window that moves along time; rows with lengths are treated as if they were alone."""

    @property
    def reach(self) -> int:
        """Steps from the first to the last that one output sees."""
        raise NotImplementedError

    def _padding(self, padding: Padding, stride: int, steps: I64) -> tuple[I64, I64]:
        """Return steps of padding before and after each row, [batch]."""
        if padding == "same":
            total = np.maximum((-(-steps // stride) - 1) * stride + self.reach - steps, 0)
            return total // 2, total - total // 2  # Keras: the odd one goes after
        return np.full_like(steps, padding[0]), np.full_like(steps, padding[1])

    def windows(
        self, x: F64, run: FloatRun, padding: Padding, stride: int, dilation: int, fill: float
    ) -> F64:
        """Return what each output sees, [batch, time, reach, size]; ``run`` gets the new lengths.

        Steps of padding hold ``fill``.
        """
        batch, time = x.shape[:2]
        steps = np.full(batch, time, np.int64) if run.lengths is None else run.lengths
        before, after = self._padding(padding, stride, steps)
        counts = (steps + before + after - self.reach) // stride + 1
        if counts.min() < 1:
            raise UsageError(
                f"layer {self.name!r} ({self.type_name}): a sequence of {steps.min()} steps is"
                f" shorter than its window of {self.reach}; give longer ones"
            )
        first = np.arange(counts.max())[None, :, None] * stride - before[:, None, None]
        index = first + np.arange(0, self.reach, dilation)[None, None, :]
        inside = (index >= 0) & (index < steps[:, None, None])
        rows = np.arange(batch)[:, None, None]
        seen: F64 = x[rows, np.clip(index, 0, time - 1)]
        if run.lengths is not None:
            run.lengths = counts
        return np.where(inside[..., None], seen, fill)

    def _sequence(self, signal: Signal, size: int | None = None) -> None:
        if signal.kind != "sequence" or size not in (None, signal.size):
            features = "features" if size is None else size
            raise self._refuse(f"is fed {signal}", f"it must be fed a sequence [time, {features}]")

    def _check_window(self, padding: Padding) -> None:
        if padding != "same" and not 0 <= min(padding) <= max(padding) <= LONGEST:
            raise self._refuse(f"padding is {list(padding)}", f"want 0 to {LONGEST:,}")
        if self.reach > LONGEST:
            raise self._refuse(f"sees {self.reach:,} steps", f"want at most {LONGEST:,}")


@dataclass(frozen=True, eq=False, repr=False)
class Conv1d(_Window):
    """A convolution along time, as frameworks mean it (the kernel is not turned round).

    Args:
        weights: [output, input, kernel].
        bias: [output].
        stride: steps from one output to the next.
        dilation: steps from one weight to the next.
        padding: zeros before and after; causal is ``(dilation * (kernel - 1), 0)``; same: as
            many as give ceil(time / stride) outputs, Keras's and ONNX's SAME_UPPER.
    """

    weights: F32
    bias: F32
    stride: int = 1
    dilation: int = 1
    padding: Padding = (0, 0)

    def __post_init__(self) -> None:
        if self.weights.ndim != 3 or 0 in self.weights.shape:
            raise self._refuse(f"weights have shape {list(self.weights.shape)}", "want 3 axes")
        check_shape(self.name, "bias", self.bias, (len(self.weights),))
        if self.stride < 1 or self.dilation < 1:
            found = f"stride {self.stride} and dilation {self.dilation}"
            raise self._refuse(found, "want at least 1")
        self._check_window(self.padding)

    @property
    def reach(self) -> int:
        return self.dilation * (int(self.weights.shape[2]) - 1) + 1

    def output_signal(self, signal: Signal) -> Signal:
        self._sequence(signal, int(self.weights.shape[1]))
        return Signal("sequence", len(self.weights))

    def forward(self, x: F64, run: FloatRun) -> F64:
        seen = self.windows(x, run, self.padding, self.stride, self.dilation, 0.0)
        y: F64 = np.einsum("btki,oik->bto", seen, self.weights.astype(np.float64), optimize=True)
        y += self.bias.astype(np.float64)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8("a convolution")


@dataclass(frozen=True, eq=False, repr=False)
class Pool1d(_Window):
    """The greatest or the mean value of a window that moves along time.

    Args:
        kind: max or average.
        size: steps of the window.
        stride: steps from one output to the next.
        padding: as in Conv1d; it never is the greatest.
        count_padding: whether an average divides by ``size`` where it sees padding (PyTorch's
            default), or by the steps that it sees (Keras, ONNX's default).
    """

    kind: Literal["max", "average"]
    size: int
    stride: int
    padding: Padding = (0, 0)
    count_padding: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or self.stride < 1:
            raise self._refuse(f"size {self.size}, stride {self.stride}", "want at least 1")
        self._check_window(self.padding)
        if self.padding != "same" and max(self.padding) >= self.size:
            raise self._refuse(f"padding is {list(self.padding)}", f"want less than {self.size}")

    @property
    def type_name(self) -> str:
        return f"{self.kind}_pool"

    @property
    def reach(self) -> int:
        return self.size

    def output_signal(self, signal: Signal) -> Signal:
        self._sequence(signal)
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        fill = -np.inf if self.kind == "max" else np.nan
        seen = self.windows(x, run, self.padding, self.stride, 1, fill)
        y: F64
        if self.kind == "max":
            y = seen.max(axis=2)
        else:
            is_padding = np.isnan(seen)
            count = self.size if self.count_padding else (~is_padding).sum(axis=2)
            y = np.where(is_padding, 0.0, seen).sum(axis=2) / np.maximum(count, 1)
        # Past a row's new length a window may hold padding alone.
        y = np.where(run.valid(y.shape[1])[:, :, None], y, 0.0)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8("pooling")


@dataclass(frozen=True, eq=False, repr=False)
class GlobalPool(Layer):
    """The greatest, the mean or the sum of all valid steps: a vector."""

    kind: Literal["max", "average", "sum"]

    @property
    def type_name(self) -> str:
        return f"global_{self.kind}_pool"

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind != "sequence":
            raise self._refuse(f"is fed {signal}", "only a sequence can be pooled")
        return Signal("vector", signal.size)

    def forward(self, x: F64, run: FloatRun) -> F64:
        valid = run.valid(x.shape[1])[:, :, None]
        y: F64
        if self.kind == "max":
            y = np.where(valid, x, -np.inf).max(axis=1)
        else:
            y = np.where(valid, x, 0.0).sum(axis=1)
            y = y / valid.sum(axis=1) if self.kind == "average" else y
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8("pooling over time")


@dataclass(frozen=True, eq=False, repr=False)
class PickStep(Layer):
    """Keeps one step: [batch, time, size] to [batch, size].

    Args:
        index: from the first step, 0; or from the last valid one, -1. LastStep is -1 in integers.
    """

    index: int

    @property
    def type_name(self) -> str:
        return "first_step" if self.index == 0 else "pick_step"

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind != "sequence":
            raise self._refuse(f"is fed {signal}", "only a sequence has steps")
        return Signal("vector", signal.size)

    def forward(self, x: F64, run: FloatRun) -> F64:
        steps = np.full(len(x), x.shape[1], np.int64) if run.lengths is None else run.lengths
        index = steps + self.index if self.index < 0 else np.full_like(steps, self.index)
        if (index < 0).any() or (index >= steps).any():
            raise UsageError(
                f"layer {self.name!r} ({self.type_name}): a sequence of {steps.min()} steps has no"
                f" step {self.index}; give longer ones"
            )
        picked: F64 = x[np.arange(len(x)), index]
        return picked

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        if self.index != 0:
            raise self.not_in_int8(f"step {self.index} of a sequence")
        return moved(builder, source, FirstStepOp, self.name, vector=True)


@dataclass(frozen=True, eq=False, repr=False)
class Steps(Layer):
    """Keeps a run of steps.

    Args:
        start: the first; below 0 from the end.
        end: the one after the last; None: to the end; below 0 from the end.
    """

    start: int
    end: int | None = None

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind == "vector":
            raise self._refuse(f"is fed {signal}", "only a sequence has steps")
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        steps = np.full(len(x), x.shape[1], np.int64) if run.lengths is None else run.lengths
        first = np.clip(self.start + steps * (self.start < 0), 0, steps)
        last = steps if self.end is None else np.clip(self.end + steps * (self.end < 0), 0, steps)
        counts = last - first
        if counts.min() < 1:
            raise UsageError(
                f"layer {self.name!r} (steps): nothing is left of a sequence of {steps.min()}"
                " steps; give longer ones"
            )
        index = np.minimum(first[:, None] + np.arange(counts.max())[None, :], x.shape[1] - 1)
        if run.lengths is not None:
            run.lengths = counts
        kept: F64 = x[np.arange(len(x))[:, None], index]
        return kept

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8("a part of a sequence")
