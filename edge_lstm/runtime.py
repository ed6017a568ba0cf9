"""Session: a Program with buffers and state for some rows of streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.errors import UsageError

if TYPE_CHECKING:
    from edge_lstm.program import Program


class Session:
    """Runs a Program; the state moves with each call.

    Args:
        program: what to run.
        batch_size: rows, each with a state of its own.
    """

    def __init__(self, program: Program, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: must be at least 1")
        self.program = program
        self.batch_size = batch_size
        self._kernels = [op.prepare(program, batch_size) for op in program.ops]
        self._tensor = program.input_tensor
        features = () if self._tensor.signal.kind == "tokens" else (self._tensor.signal.size,)
        self._step_shape = (batch_size, *features)
        self._step_dtype = np.dtype(self._tensor.dtype)
        chained = all(
            len(op.inputs) == 1 and op.inputs[0] == before
            for op, before in zip(
                program.ops, [program.input, *(op.output for op in program.ops)], strict=False
            )
        )
        # A model of one input and a straight chain of ops needs no table of values per step.
        self._steps = (
            [
                kernel.step
                for op, kernel in zip(program.ops, self._kernels, strict=True)
                if op.type_name != "last_step"
            ]
            if chained and program.streams and features
            else None
        )
        self.reset()

    def reset(self) -> None:
        """Set every state to its first value."""
        for kernel in self._kernels:
            kernel.reset()

    @property
    def state(self) -> dict[str, Array]:
        """What is carried between steps, by name; a copy that can be saved and set again."""
        return {
            f"{op.name}.{name}": value
            for op, kernel in zip(self.program.ops, self._kernels, strict=True)
            for name, value in kernel.state.items()
        }

    @state.setter
    def state(self, state: Mapping[str, Array]) -> None:
        targets = self.state
        if set(targets) != set(state):
            raise UsageError(f"state: has {sorted(state)}; want {sorted(targets)}")
        for name, target in targets.items():
            value = np.asarray(state[name])
            if value.shape != target.shape or value.dtype != target.dtype:
                raise UsageError(
                    f"state {name!r}: {value.dtype} {list(value.shape)};"
                    f" want {target.dtype} {list(target.shape)}"
                )
        for op, kernel in zip(self.program.ops, self._kernels, strict=True):
            own = {name: np.asarray(state[f"{op.name}.{name}"]) for name in kernel.state}
            kernel.set_state(own)

    def run(self, x: Array, lengths: Array | None = None) -> Array:
        """Run steps of a sequence, continuing from the present state.

        Args:
            x: ``[batch, time, ...]``, integers of the input tensor, or float32.
            lengths: valid steps of each row; only a whole sequence from zero state has them,
                since the state past a row's end is of no use.

        Returns:
            ``[batch, time, size]``, or ``[batch, size]`` where the model reads one step:
            integers for integers, float32 for float32.
        """
        x, as_float = self._enter(np.asarray(x), sequence=True)
        valid = None if lengths is None else self._check_lengths(lengths, x.shape[1])
        y = self._forward(x, valid)
        if valid is not None and self.program.output_tensor.signal.kind == "sequence":
            past = np.arange(y.shape[1])[None, :] >= valid[:, None]
            y[past] = self.program.output_tensor.zero_point
        return self._leave(y, as_float)

    def step(self, x: Array) -> Array:
        """Run one step.

        Args:
            x: ``[batch, ...]``: one step of each row.

        Returns:
            ``[batch, size]``.
        """
        if (
            self._steps is not None
            and x.__class__ is np.ndarray
            and x.dtype is self._step_dtype
            and x.shape == self._step_shape
        ):
            for step in self._steps:
                x = step(x)
            return x
        return self._checked_step(x)

    def _checked_step(self, x: Array) -> Array:
        if not self.program.streams:
            blocking = [op.name for op in self.program.ops if not op.streams]
            raise UsageError(f"op {blocking[0]!r} needs the whole sequence; use run(), not step()")
        x, as_float = self._enter(np.asarray(x), sequence=False)
        vector = self.program.input_tensor.signal.kind == "vector"
        y = self._forward(x if vector else x[:, None], None)
        if self.program.output_tensor.signal.kind == "sequence":
            y = y[:, 0]
        return self._leave(y, as_float)

    def _forward(self, x: Array, lengths: I64 | None) -> Array:
        values: dict[int, Array] = {self.program.input: x}
        for op, kernel in zip(self.program.ops, self._kernels, strict=True):
            values[op.output] = kernel.run([values[i] for i in op.inputs], lengths)
        return values[self.program.output]

    def _enter(self, x: Array, *, sequence: bool) -> tuple[Array, bool]:
        """Check the input and return it as integers, and whether it came as floats."""
        tensor = self.program.input_tensor
        shape: list[int | str] = [self.batch_size]
        if sequence and tensor.signal.kind != "vector":
            shape.append("time" if self.program.time_steps is None else self.program.time_steps)
        if tensor.signal.kind != "tokens":
            shape.append(tensor.signal.size)
        fits = len(shape) == x.ndim and all(
            want in (found, "time") for want, found in zip(shape, x.shape, strict=True)
        )
        if not fits or (sequence and x.shape[1] == 0):
            wanted = ", ".join(str(n) for n in shape)
            raise UsageError(f"input {tensor.name!r}: shape {list(x.shape)}; want [{wanted}]")
        if tensor.signal.kind == "tokens":
            return self._check_tokens(x), False
        if x.dtype == tensor.dtype:
            return x, False
        if np.issubdtype(x.dtype, np.floating):
            if not tensor.is_quantized:  # the model has a QUANTIZE of its own
                return x.astype(np.float32), False
            return tensor.quantize(x), True
        raise UsageError(f"input {tensor.name!r}: {x.dtype}; want {tensor.dtype} or float32")

    def _check_tokens(self, x: Array) -> Array:
        size = self.program.input_tensor.signal.size
        if not np.issubdtype(x.dtype, np.integer):
            raise UsageError(f"input tokens: {x.dtype}; want int32")
        if x.size and (x.min() < 0 or x.max() >= size):
            raise UsageError(f"input tokens: {x.min()} to {x.max()}; want 0 to {size - 1}")
        return x.astype(np.int32, copy=False)

    def _check_lengths(self, lengths: Array, time_steps: int) -> I64:
        valid = np.asarray(lengths)
        if valid.shape != (self.batch_size,) or not np.issubdtype(valid.dtype, np.integer):
            raise UsageError(
                f"lengths: {valid.dtype} {list(valid.shape)}; want integers [{self.batch_size}]"
            )
        if valid.size and (valid.min() < 1 or valid.max() > time_steps):
            raise UsageError(
                f"lengths: {valid.min()} to {valid.max()}; want 1 to {time_steps} time steps"
            )
        return valid.astype(np.int64)

    def _leave(self, y: Array, as_float: bool) -> Array:
        tensor = self.program.output_tensor
        if as_float and tensor.is_quantized:
            return tensor.dequantize(y)
        return y
