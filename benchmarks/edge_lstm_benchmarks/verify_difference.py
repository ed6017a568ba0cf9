"""Where two runs of a model part: the first layer, step, value, and what the gates held there.

A model that is cut after each of its ops is run by both sides; the first cut that differs is
named. Inside an LSTM only the NumPy runtime can be watched: if the other side's bytes are those
of another profile, the two profiles' intermediates are compared, which names the gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import DenseOp, LstmOp, ReadStateOp, WriteStateOp
from edge_lstm.cells.lstm_integer import LstmKernel, lstm_parameters
from edge_lstm.errors import EdgeLstmError
from edge_lstm.program import PROFILES, Op, Program
from edge_lstm_benchmarks.verify_inputs import Batch, Form, Inputs
from edge_lstm_benchmarks.verify_runners import NumpyRunner, Outputs, Runner

GATES = ("input", "forget", "cell", "output")


@dataclass(frozen=True)
class Place:
    """One value that differs: of ``step`` (from 0) of a sequence, at ``index`` of its features."""

    step: int
    index: int
    got: float
    want: float


@dataclass(frozen=True)
class Origin:
    """The first layer whose output differs, and what is known of its inside.

    Args:
        layer: its name.
        type: of its op.
        tensor: that it writes.
        place: the first value of that tensor that differs.
        inside: what the NumPy runtime held there: gates, states or the accumulator.
        same_as: another profile that gives the other side's bytes, or None.
        parts_at: where that profile first differs from this one: step, intermediate, index, values.
        notes: what else was found.
    """

    layer: str
    type: str
    tensor: str
    place: Place
    inside: dict[str, Any]
    same_as: str | None = None
    parts_at: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """The first difference between two runners on one form.

    Args:
        got_from: whose ``got`` values are.
        want_from: whose ``want`` values are.
        form: how the model was called.
        sequence: the first one that differs.
        place: its first value that differs, in the model's output.
        differing_bytes: of all sequences of the form.
        bytes: that were compared.
        origin: the layer that it comes from, or None where no cut shows it.
        notes: why there is no origin.
    """

    got_from: str
    want_from: str
    form: str
    sequence: str
    place: Place
    differing_bytes: int
    bytes: int
    origin: Origin | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    def document(self) -> dict[str, Any]:
        """Return the difference as JSON has it."""
        return asdict(self)


def first_place(got: Array, want: Array, steps_per_output: int) -> Place | None:
    """Return the first difference of two ``[outputs, size]``, or None."""
    if got.shape != want.shape:
        return Place(0, 0, float(got.shape[-1]), float(want.shape[-1]))
    where = np.argwhere(got != want)
    if not len(where):
        return None
    output, index = (int(n) for n in where[0])
    step = (output + 1) * steps_per_output - 1
    return Place(step, index, _number(got[output, index]), _number(want[output, index]))


def _number(value: Any) -> float:
    number: float = value.item()
    return number


def steps_per_output(program: Program, form: Form) -> int:
    """Return the steps that one output stands for: those of a call, where a model gives vectors."""
    return 1 if program.output_tensor.signal.kind == "sequence" else form.time_steps


def first_difference(
    program: Program, form: Form, got: Outputs, want: Outputs
) -> tuple[int, Place] | None:
    """Return the first sequence that differs and where, or None."""
    for row in sorted(got):
        place = first_place(got[row], want[row], steps_per_output(program, form))
        if place is not None:
            return row, place
    return None


def find_origin(
    program: Program, form: Form, inputs: Inputs, row: int, us: Runner, them: Runner
) -> Origin | None:
    """Return the first layer whose output differs between two runners, on one sequence.

    Args:
        program: under the profile of ``us``.
        form: in which the difference was seen.
        inputs: which hold the sequence.
        row: the sequence.
        us: a NumPy runner.
        them: whoever differs.

    Raises:
        EdgeLstmError: a cut program could not be run by ``them``.
    """
    batch = next(batch for batch in form.batches(inputs) if row in batch.rows)
    ours = replace(form, data=None)
    for op in program.ops:
        if isinstance(op, (ReadStateOp, WriteStateOp)):
            continue  # computes nothing
        part = cut_after(program, op)
        got = us.outputs(part, ours, [batch])
        want = them.outputs(part, ours, [batch])
        place = first_place(got[row], want[row], steps_per_output(part, ours))
        if place is not None:
            return _look_inside(part, op, ours, batch, row, place, want)
    return None


def cut_after(program: Program, last: Op) -> Program:
    """Return the program that ends with ``last`` and holds only what it needs.

    Of a program with a state, all: what comes behind ``last`` may be what it reads a step later.
    """
    if program.has_state_ops:
        return replace(program, output=last.output)
    needed, ops = {last.output}, []
    for op in reversed(program.ops[: program.ops.index(last) + 1]):
        if op.output in needed:
            ops.append(op)
            needed |= set(op.inputs)
    return replace(program, ops=tuple(reversed(ops)), output=last.output)


def _look_inside(
    part: Program, op: Op, form: Form, batch: Batch, row: int, place: Place, want: Outputs
) -> Origin:
    """Say what is known of the op at the place where it differs."""
    inside: dict[str, Any] = {}
    same_as = _same_profile(part, form, batch, row, want)
    parts_at, notes = None, []
    fed = _fed(part, op, form, batch)
    k = batch.rows.index(row)
    if isinstance(op, LstmOp) and fed is not None:
        traced = trace_lstm(op, part, fed)
        inside = _gates_at(op, traced, k, place)
        plain = inside.get("hidden_state")
        if plain is not None and plain != place.got:
            notes.append(
                f"the plain arithmetic gives {plain} there: the fast form of the NumPy runtime is"
                " wrong"
            )
        if same_as is not None:
            other = trace_lstm(op, part.with_profile(same_as), fed)
            parts_at = _first_parting(traced, other, k)
    elif isinstance(op, DenseOp) and fed is not None:
        weights = op.weights.astype(np.int64) - op.weight_zero_point
        centred = fed.astype(np.int64) - part.tensors[op.inputs[0]].zero_point
        acc = centred @ weights.T + op.bias
        rows = acc[k].reshape(-1, acc.shape[-1])
        output = (place.step + 1) // steps_per_output(part, form) - 1
        inside = {"accumulator": int(rows[output, place.index])}
    return Origin(
        layer=op.name,
        type=op.type_name,
        tensor=part.output_tensor.name,
        place=place,
        inside=inside,
        same_as=same_as,
        parts_at=parts_at,
        notes=tuple(notes),
    )


def _same_profile(part: Program, form: Form, batch: Batch, row: int, want: Outputs) -> str | None:
    """Return the profile that gives the other side's bytes on this sequence, or None."""
    for profile in PROFILES:
        if profile == part.profile:
            continue
        try:
            found = NumpyRunner(profile).outputs(part, form, [batch])
        except EdgeLstmError:
            continue
        if np.array_equal(found[row], want[row]):
            return profile
    return None


def _fed(part: Program, op: Op, form: Form, batch: Batch) -> Array | None:
    """Return what the op is fed over the whole sequence, or None where its steps are joined."""
    before = op.inputs[0]
    if before == part.input:
        return batch.x
    producer = next(o for o in part.ops if o.output == before)
    cut = cut_after(part, producer)
    found = NumpyRunner(part.profile).outputs(cut, form, [batch])
    # The last batch may be filled up; the rows beyond are copies.
    rows = [found[batch.rows[min(k, len(batch.rows) - 1)]] for k in range(form.batch_size)]
    return np.stack(rows)


Trace = list[dict[str, Array]]


def trace_lstm(op: LstmOp, program: Program, x: Array) -> Trace:
    """Return every intermediate of every step, in the order of computation, ``[batch, cells]``.

    Args:
        op: of ``program``.
        program: whose profile is meant.
        x: ``[batch, steps, input]``, from the first state.
    """
    seen: dict[str, Array] = {}
    parameters = lstm_parameters(op, program)

    def note(name: str, values: Array) -> None:
        seen[name] = np.array(values)
        if name.endswith("_gate"):
            table = parameters.gate_tanh if name == "cell_gate" else parameters.sigmoid
            seen[f"{name}_value"] = table[np.asarray(values, np.int64) & 0xFFFF]

    kernel = LstmKernel(op, program, len(x), note)
    kernel.reset()
    steps: Trace = []
    for step in range(x.shape[1]):
        kernel.step(x[:, step])
        steps.append(dict(seen))
    return steps


def _gates_at(op: LstmOp, traced: Trace, k: int, place: Place) -> dict[str, Any]:
    """Return the gates and states of one cell at one step."""
    at = traced[place.step]
    inside: dict[str, Any] = {"hidden_state": int(at["hidden_state"][k, place.index])}
    if op.projection_weights is not None:
        return inside  # a projected value belongs to no one cell
    for word in GATES:
        name = f"{word}_gate"
        if name in at:
            inside[name] = {
                "pre_activation": int(at[name][k, place.index]),
                "value": int(at[f"{name}_value"][k, place.index]),
            }
    before = traced[place.step - 1] if place.step else None
    if before is not None:
        inside["cell_state_before"] = int(before["cell_state"][k, place.index])
    inside["cell_state"] = int(at["cell_state"][k, place.index])
    return inside


def _first_parting(ours: Trace, others: Trace, k: int) -> dict[str, Any] | None:
    """Return the first intermediate of one row that differs between two traces."""
    for step, (mine, theirs) in enumerate(zip(ours, others, strict=True)):
        for name, values in mine.items():
            a, b = values[k], theirs[name][k]
            where = np.flatnonzero(a != b)
            if len(where):
                index = int(where[0])
                return {
                    "step": step,
                    "intermediate": name,
                    "index": index,
                    "got": int(a[index]),
                    "want": int(b[index]),
                }
    return None


def difference_lines(difference: Difference) -> Iterator[str]:
    """Yield the difference as text."""
    d, place = difference, difference.place
    yield (
        f"{d.got_from} differs from {d.want_from} in {d.differing_bytes:,} of {d.bytes:,} bytes"
        f" ({d.form})"
    )
    yield f"  first: {d.sequence}, {_at(place)}"
    origin = d.origin
    if origin is not None:
        yield (
            f"  from: layer {origin.layer!r} ({origin.type}), tensor {origin.tensor},"
            f" {_at(origin.place)}"
        )
        for name, value in origin.inside.items():
            if isinstance(value, dict):
                value = f"pre-activation {value['pre_activation']}, value {value['value']}"
            yield f"    {name:<18} {value}"
        if origin.same_as is not None:
            yield f"  {d.want_from} gives the bytes of profile {origin.same_as} there"
        if origin.parts_at is not None:
            p = origin.parts_at
            yield (
                f"  profiles part first at step {p['step']}, {p['intermediate']}, index"
                f" {p['index']}: got {p['got']}, want {p['want']}"
            )
        yield from (f"  {note}" for note in origin.notes)
    yield from (f"  {note}" for note in d.notes)


def _at(place: Place) -> str:
    return f"step {place.step}, index {place.index}: got {place.got:g}, want {place.want:g}"
