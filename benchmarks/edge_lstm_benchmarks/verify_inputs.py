"""What ``verify`` feeds a model: the user's data, or sequences that go to the extremes.

Inputs are ``[sequences, steps, ...]``. A ``Form`` is one way to call a model with them: so many
rows and steps a call, the state carried from call to call and reset between sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.errors import UsageError
from edge_lstm.program import Program, Tensor
from edge_lstm.samples import Samples

ANY_LENGTH_STEPS = 16
"""Steps of a whole sequence where the model takes any number."""
CALLS = 3
"""Whole sequences in a generated input: all but the first start from a carried state."""
LIMIT_STEPS = 200_000
"""Steps of the user's data, all sequences together, that are used."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Sequences in the type that the model takes.

    Args:
        x: ``[sequences, steps, features]``, or token ids ``[sequences, steps]``.
        lengths: valid steps of each sequence.
        names: of the sequences.
        where: where they come from.
        notes: what was left out.
    """

    x: Array
    lengths: I64
    names: tuple[str, ...]
    where: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows that are run together from reset state; the last one may be there several times."""

    rows: tuple[int, ...]
    x: Array
    """[batch, steps, ...]; a whole number of calls."""


@dataclass(frozen=True)
class Form:
    """One way to call a model.

    Args:
        name: ``file`` (as the file says), ``whole`` sequences, or ``steps`` (one step a call).
        batch_size: rows of a call.
        time_steps: steps of a call.
        data: bytes of the user's own ``.tflite``; None: the interpreters' files are written here.
    """

    name: str
    batch_size: int
    time_steps: int
    data: bytes | None = None

    def __str__(self) -> str:
        rows = "1 row" if self.batch_size == 1 else f"{self.batch_size} rows"
        steps = "1 step" if self.time_steps == 1 else f"{self.time_steps} steps"
        return f"{self.name}: {rows}, {steps} a call"

    def batches(self, inputs: Inputs) -> Iterator[Batch]:
        """Yield all sequences, cut to a whole number of calls; too short ones are left out."""
        steps = inputs.lengths // self.time_steps * self.time_steps
        for count in np.unique(steps[steps > 0]):
            rows = np.flatnonzero(steps == count)
            for first in range(0, len(rows), self.batch_size):
                real = rows[first : first + self.batch_size]
                filled = np.resize(real, self.batch_size)
                filled[len(real) :] = real[-1]
                x = np.ascontiguousarray(inputs.x[filled, :count])
                yield Batch(tuple(int(r) for r in real), x)


def forms_of(program: Program, inputs: Inputs, data: bytes | None) -> list[Form]:
    """Return the ways to call a program: as its file says, whole sequences, and one step a call.

    Args:
        program: what is run.
        inputs: decide the length of whole sequences that come from the user.
        data: bytes of the program's own ``.tflite`` file, or None.

    Raises:
        UsageError: no sequence is long enough for the file.
    """
    forms = []
    if data is not None:
        own = program.source
        forms.append(Form("file", int(own["batch_size"]), int(own["time_steps"]), data))
    elif program.input_tensor.signal.kind != "vector":
        forms.append(Form("whole", 1, whole_steps(program, inputs)))
    lengths = {(form.batch_size, form.time_steps) for form in forms}
    if program.streams and (1, 1) not in lengths:
        forms.append(Form("steps", 1, 1))
    for form in forms:
        if form.time_steps > inputs.lengths.max():
            raise UsageError(
                f"{inputs.where}: sequences of up to {inputs.lengths.max()} steps; the model takes"
                f" {form.time_steps}"
            )
    return forms


def whole_steps(program: Program, inputs: Inputs) -> int:
    """Return the steps of one call with a whole sequence."""
    if program.time_steps is not None:
        return program.time_steps
    if inputs.where == GENERATED:
        return int(inputs.lengths.max()) // CALLS
    return int(np.bincount(inputs.lengths).argmax())


GENERATED = "generated sequences"


def generated_inputs(program: Program, seed: int = 0) -> Inputs:
    """Return sequences that go to the extremes, and some as a calibrated model meets them."""
    own = int(program.source.get("time_steps") or 1)
    steps = CALLS * (program.time_steps or (own if own > 1 else ANY_LENGTH_STEPS))
    tensor = program.input_tensor
    random = np.random.default_rng(seed)
    if tensor.signal.kind == "tokens":
        sequences = _token_sequences(random, steps, tensor.signal.size)
    elif tensor.is_quantized:
        sequences = _integer_sequences(random, (steps, tensor.signal.size), tensor)
    else:
        sequences = _float_sequences(random, (steps, tensor.signal.size), _entrance(program))
    x = np.stack(list(sequences.values()))
    return Inputs(x, np.full(len(x), steps), tuple(sequences), GENERATED)


def _integer_sequences(
    random: np.random.Generator, shape: tuple[int, int], tensor: Tensor
) -> dict[str, Array]:
    info = np.iinfo(tensor.dtype)
    low, high = int(info.min), int(info.max)
    odd = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2

    def normal() -> Array:
        # Three standard deviations from the middle are the ends of the calibrated range.
        return random.normal((low + high) / 2, (high - low) / 6, shape)

    sequences: dict[str, Array] = {
        f"all {low}": np.full(shape, low),
        f"all {high}": np.full(shape, high),
        "alternating": np.where(odd == 0, low, high),
        "still": np.full(shape, tensor.zero_point),
        "extremes 1": random.choice([low, high], shape),
        "extremes 2": random.choice([low, high], shape),
        **{f"uniform {k}": random.integers(low, high + 1, shape) for k in (1, 2, 3)},
        **{f"normal {k}": np.rint(normal()) for k in (1, 2, 3)},
    }
    return {k: np.clip(v, low, high).astype(tensor.dtype) for k, v in sequences.items()}


def _float_sequences(
    random: np.random.Generator, shape: tuple[int, int], entrance: Tensor
) -> dict[str, Array]:
    """Return floats for a model that quantizes by itself: on its grid, between, and beyond."""
    sequences = {
        name: entrance.dequantize(values)
        for name, values in _integer_sequences(random, shape, entrance).items()
    }
    info, scale = np.iinfo(entrance.dtype), np.float32(entrance.scale)
    halves = random.integers(info.min, info.max, shape) - entrance.zero_point + 0.5
    sequences["halfway 1"] = halves.astype(np.float32) * scale
    sequences["beyond 1"] = random.uniform(-400, 400, shape).astype(np.float32) * scale
    return sequences


def _token_sequences(random: np.random.Generator, steps: int, size: int) -> dict[str, Array]:
    last = size - 1
    sequences: dict[str, Array] = {
        "all first": np.zeros(steps),
        "all last": np.full(steps, last),
        "alternating": np.where(np.arange(steps) % 2 == 0, 0, last),
        **{f"uniform {k}": random.integers(0, size, steps) for k in range(1, 6)},
    }
    return {name: values.astype(np.int32) for name, values in sequences.items()}


def _entrance(program: Program) -> Tensor:
    """Return the integers that a float input becomes."""
    for op in program.ops:
        if op.inputs[0] == program.input and program.tensors[op.output].is_quantized:
            return program.tensors[op.output]
    raise UsageError(f"{program.name}: its float input never becomes integers")


def user_inputs(program: Program, samples: Samples) -> Inputs:
    """Return the user's sequences in the program's input type.

    Raises:
        UsageError: they do not fit.
    """
    tensor, x, where = program.input_tensor, samples.x, samples.where
    check_shape(x, tensor.signal.kind == "tokens", tensor.signal.size, where)
    if tensor.signal.kind == "tokens":
        if not np.issubdtype(x.dtype, np.integer):
            raise UsageError(f"{where}: {x.dtype}; want token ids as int32")
        if x.min() < 0 or x.max() >= tensor.signal.size:
            raise UsageError(
                f"{where}: token ids {x.min()} to {x.max()}; want 0 to {tensor.signal.size - 1}"
            )
        x = x.astype(np.int32)
    elif np.issubdtype(x.dtype, np.floating):
        check_finite(x, where)
        x = tensor.quantize(x) if tensor.is_quantized else x.astype(np.float32)
    elif x.dtype != tensor.dtype:
        raise UsageError(f"{where}: {x.dtype}; want {tensor.dtype} or float32")
    return limited(x, samples)


def check_shape(x: Array, tokens: bool, size: int, where: str) -> None:
    """Raise UsageError unless ``x`` is ``[sequences, steps, size]``, or token ids."""
    want = 2 if tokens else 3
    if x.ndim != want or 0 in x.shape or (not tokens and x.shape[2] != size):
        features = "" if tokens else f", {size}"
        raise UsageError(f"{where}: shape {list(x.shape)}; want [sequences, steps{features}]")


def check_finite(x: Array, where: str) -> None:
    """Raise UsageError where a value is NaN or infinite."""
    if not np.isfinite(x).all():
        count = int(x.size - np.isfinite(x).sum())
        raise UsageError(f"{where}: {count} of {x.size} values are NaN or infinite")


def limited(x: Array, samples: Samples) -> Inputs:
    """Return the sequences with their lengths, no more than ``LIMIT_STEPS`` of steps."""
    where = samples.where
    lengths = np.full(len(x), x.shape[1])
    if samples.lengths is not None:
        given = np.asarray(samples.lengths)
        if given.shape != (len(x),) or not np.issubdtype(given.dtype, np.integer):
            found = f"{given.dtype} {list(given.shape)}"
            raise UsageError(f"{where}, lengths: {found}; want integers [{len(x)}]")
        if given.min() < 1 or given.max() > x.shape[1]:
            raise UsageError(
                f"{where}, lengths: {given.min()} to {given.max()}; want 1 to {x.shape[1]}"
            )
        lengths = given.astype(np.int64)
    count = max(1, int(np.searchsorted(np.cumsum(lengths), LIMIT_STEPS, side="right")))
    notes: tuple[str, ...] = ()
    if count < len(x):
        notes = (f"{where}: the first {count:,} of {len(x):,} sequences are used",)
    names = tuple(f"sequence {k}" for k in range(count))
    return Inputs(x[:count], lengths[:count].astype(np.int64), names, where, notes)
