"""Session: a Program with buffers and state for some rows of streams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.errors import UsageError
from edge_lstm.step_loop import in_loops
from edge_lstm.tape import Guard, Parameter, Tape, compile_tape

if TYPE_CHECKING:
    from edge_lstm.program import Kernel, Program

CHUNK_VALUES = 1 << 16
"""Values of the widest tensor that a long sequence is run in pieces of: bounds the memory."""


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
        self._parts = in_loops(program, self._kernels)
        sizes = [t.signal.size for t in program.tensors if t.signal.kind != "tokens"]
        widest = max(sizes, default=1)
        self._chunk_steps = max(1, CHUNK_VALUES // (widest * batch_size))
        self._join_steps()
        self.reset()

    def _join_steps(self) -> None:
        """Make ``step`` a straight line of calls where the program is a chain of ops.

        Between two taped kernels no integer is narrowed and widened again, and each call of a
        Python function that is saved is 0.1 us.
        """
        program, tensor = self.program, self.program.input_tensor
        sources = [program.input, *(op.output for op in program.ops)]
        chained = all(
            op.inputs == (before,) for op, before in zip(program.ops, sources, strict=False)
        )
        if not (chained and program.streams and tensor.signal.kind == "sequence"):
            return
        kernels = [
            kernel
            for op, kernel in zip(program.ops, self._kernels, strict=True)
            if op.type_name != "last_step"
        ]
        if not kernels:  # nothing but the last step is taken
            return
        guard = Guard(
            "x",
            (self.batch_size, tensor.signal.size),
            np.dtype(tensor.dtype),
            self._checked_step,
        )
        if all(map(_is_taped, kernels)):
            # In the instance: looking up and calling a method costs 0.1 us.
            self.__dict__["step"] = _joined(kernels, guard)
            return
        steps: list[Callable[[Array], Array]] = []
        for taped, together in itertools.groupby(kernels, _is_taped):
            group = list(together)
            steps += [_joined(group)] if taped else [kernel.step for kernel in group]

        def step(x: Array) -> Array:
            if guard.refuses(x):
                return self._checked_step(x)
            for each in steps:
                x = each(x)
            return x

        self.__dict__["step"] = step

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
        self._check_state(self.state, state)
        for op, kernel in zip(self.program.ops, self._kernels, strict=True):
            own = {name: np.asarray(state[f"{op.name}.{name}"]) for name in kernel.state}
            kernel.set_state(own)

    def _check_state(self, targets: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """Raise UsageError unless ``state`` has the names, shapes and types of ``targets``."""
        if set(targets) != set(state):
            raise UsageError(f"state: has {sorted(state)}; want {sorted(targets)}")
        for name, target in targets.items():
            value = np.asarray(state[name])
            if value.shape != target.shape or value.dtype != target.dtype:
                raise UsageError(
                    f"state {name!r}: {value.dtype} {list(value.shape)};"
                    f" want {target.dtype} {list(target.shape)}"
                )

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
        x = np.asarray(x)
        self._check(x, sequence=True)
        time_axis = self.program.input_tensor.signal.kind != "vector"
        steps = x.shape[1] if time_axis else 1
        valid = None if lengths is None else self._check_lengths(lengths, steps)
        if self.program.streams and time_axis and steps > self._chunk_steps:
            y = self._run_in_chunks(x, valid)
        else:
            y = self._leave(self._forward(self._enter(x), valid), x)
        if valid is not None and self.program.output_tensor.signal.kind == "sequence":
            tensor = self.program.output_tensor
            past = np.arange(y.shape[1])[None, :] >= valid[:, None]
            y[past] = 0 if np.issubdtype(y.dtype, np.floating) else tensor.zero_point
        return y

    def _run_in_chunks(self, x: Array, lengths: I64 | None) -> Array:
        """Run some steps at a time, so that memory beyond input and output is bounded."""
        steps, chunk = x.shape[1], self._chunk_steps
        starts = range(0, steps, chunk)
        if np.issubdtype(x.dtype, np.floating):
            # Refused before a state has moved.
            for start in starts:
                self._enter(x[:, start : start + chunk])
        is_sequence = self.program.output_tensor.signal.kind == "sequence"
        y: Array | None = None
        for start in starts:
            part = x[:, start : start + chunk]
            stop = start + part.shape[1]
            # A row that ended before or ends later is read at some step of this chunk, and its
            # result is not kept.
            local = None if lengths is None else np.clip(lengths - start, 1, stop - start)
            out = self._leave(self._forward(self._enter(part), local), x)
            if y is None:
                shape = (steps, *out.shape[2:]) if is_sequence else out.shape[1:]
                y = np.empty((self.batch_size, *shape), out.dtype)
            if is_sequence:
                y[:, start:stop] = out
            elif lengths is None:
                y[...] = out
            else:
                ends_here = (lengths > start) & (lengths <= stop)
                y[ends_here] = out[ends_here]
        assert y is not None
        return y

    def step(self, x: Array) -> Array:
        """Run one step.

        Args:
            x: ``[batch, ...]``: one step of each row.

        Returns:
            ``[batch, size]``.
        """
        return self._checked_step(x)

    def _checked_step(self, x: Array) -> Array:
        if not self.program.streams:
            blocking = [op.name for op in self.program.ops if not op.streams]
            raise UsageError(f"op {blocking[0]!r} needs the whole sequence; use run(), not step()")
        x = np.asarray(x)
        self._check(x, sequence=False)
        vector = self.program.input_tensor.signal.kind == "vector"
        integers = self._enter(x)
        y = self._forward(integers if vector else integers[:, None], None)
        if self.program.output_tensor.signal.kind == "sequence":
            y = y[:, 0]
        return self._leave(y, x)

    def _forward(self, x: Array, lengths: I64 | None) -> Array:
        values: dict[int, Array] = {self.program.input: x}
        for part in self._parts:
            part.run(values, lengths)
        return values[self.program.output]

    def _check(self, x: Array, *, sequence: bool) -> None:
        """Raise UsageError unless the input has the shape and a type that the program takes."""
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
            size = tensor.signal.size
            if not np.issubdtype(x.dtype, np.integer):
                raise UsageError(f"input tokens: {x.dtype}; want int32")
            if x.size and (x.min() < 0 or x.max() >= size):
                raise UsageError(f"input tokens: {x.min()} to {x.max()}; want 0 to {size - 1}")
        elif x.dtype != tensor.dtype and not np.issubdtype(x.dtype, np.floating):
            raise UsageError(f"input {tensor.name!r}: {x.dtype}; want {tensor.dtype} or float32")

    def _enter(self, x: Array) -> Array:
        """Return a checked input as the program's integers."""
        tensor = self.program.input_tensor
        if tensor.signal.kind == "tokens":
            return x.astype(np.int32, copy=False)
        if x.dtype == tensor.dtype:
            return x
        # Without a scale, the model has a QUANTIZE of its own.
        return tensor.quantize(x) if tensor.is_quantized else x.astype(np.float32)

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

    def _leave(self, y: Array, x: Array) -> Array:
        """Return the output as integers for integers ``x``, as float32 for floats."""
        source, output = self.program.input_tensor, self.program.output_tensor
        as_float = source.is_quantized and x.dtype != source.dtype
        return output.dequantize(y) if as_float and output.is_quantized else y


def _is_taped(kernel: Kernel) -> bool:
    return getattr(kernel, "tape", None) is not None


def _joined(kernels: list[Any], guard: Guard | None = None) -> Callable[[Array], Array]:
    """Return one function for a step of taped kernels: each reads the buffer of the one before."""
    tape: Tape = []
    source: object = Parameter("x")
    for kernel in kernels:
        tape += [
            (function, tuple(source if isinstance(a, Parameter) else a for a in arguments))
            for function, arguments in kernel.tape
        ]
        source = kernel.result
    return compile_tape(tape, ["x"], result=kernels[-1].last, guard=guard)
