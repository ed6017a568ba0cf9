"""The `edge` LSTM in few NumPy calls; the bytes of ``edge_lstm``.

As in ``lstm_fast``, every value is an exact integer or fraction in float64, and what can be
computed once is in the weights and tables. Here one sum feeds one rounding, which a cast to an
index does; no value needs a second one:

    set        x into [x, hidden, 1]; the shifts are in the weights
    dot        weights * multiplier * 2**-shift, the bias as a column
    set        float to index: the floor of ``>>``; negative ones are clipped by take
    take, take sigmoid for i, f, o; tanh for g, scaled for the product
    multiply   [i, f] * [g, c]
    add, add   their sum, half a unit, and the table's offset
    set, take  the saturated cell state, and its tanh scaled for the output
    multiply, add, floor, clip   the hidden state

``floor((n + floor(a)) / m)`` is ``floor((n + a) / m)`` for integers n and m, so the shift of
i * g needs no rounding of its own.

Where the weights are many, and no sum can reach 2**24, the product is one of float32, which reads
half as many bytes; multipliers, the low row of each pair in the high one, and bias follow in
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from edge_lstm.arrays import F32, F64, I64, Array
from edge_lstm.cells.edge_lstm import EdgeLstmOp
from edge_lstm.cells.edge_rows import ARGUMENT_MIN, sigmoid_table, tanh_of
from edge_lstm.tape import SET, Call, Parameter, Tape, clip, compile_tape

GATE_ORDER = (0, 1, 3, 2)  # i, f, o, g: i and f face g and c in one product
HIGH, LOW = slice(0, None, 3), slice(1, 3)
"""Of the gates in that order: i and g, and f and o, on which their rows stand where paired."""
EXACT_IN_FLOAT32 = 1 << 24
MANY_BYTES = 1_000_000
"""Of float64 weights: from here on reading half is worth four calls more."""
CHUNK_VALUES = 1 << 16
"""Gate values of a sequence that are prepared at once: bounds the working memory."""


@dataclass(frozen=True, eq=False, repr=False)
class Narrow:
    """The product in float32, for int8 activations; rows in the order of ``EdgeTables.weights``.

    Args:
        weights: [4 * hidden, input + hidden], integers; no sum of products leaves float32.
        scale: [4 * hidden]: of a row's sum.
        low: [2, hidden]: of the sum of a low row in the high row of its pair, i's of f's and g's of
            o's; None: rows are not in pairs.
    """

    weights: F32
    scale: F64
    low: F64 | None


@dataclass(frozen=True, eq=False, repr=False)
class EdgeTables:
    """What a Program's LSTM shares among its sessions."""

    weights: F64
    """[4 * hidden, input + hidden + 1], gate after gate in ``GATE_ORDER``; the bias last."""
    sigmoid: F64
    candidate: F64
    cell: F64
    """[2, 65536], for all cell states from -32768: scaled for the product; tanh for the output."""


_TABLES: WeakKeyDictionary[EdgeLstmOp, EdgeTables] = WeakKeyDictionary()
_NARROW: WeakKeyDictionary[EdgeLstmOp, Narrow | None] = WeakKeyDictionary()


def edge_tables(op: EdgeLstmOp) -> EdgeTables:
    """Return the tables of ``op``, made once for all sessions."""
    if op in _TABLES:
        return _TABLES[op]
    rows = op.rows
    scaled = np.column_stack([rows.effective_weights(), rows.bias]) * _factor(op)[:, None]
    scaled[:, : op.input_size] *= 2.0**op.input_shift
    scaled[:, op.input_size : -1] *= 2.0**op.hidden_shift
    scaled[:, -1] -= ARGUMENT_MIN  # where the table begins
    cell = np.arange(-32768, 32768)
    sigmoid = sigmoid_table().astype(np.float64)
    _TABLES[op] = EdgeTables(
        weights=np.asfortranarray(_by_gate(scaled)),
        sigmoid=sigmoid,
        candidate=(2 * sigmoid - 32768) * 2.0 ** -(15 + op.cell_bits),
        cell=np.stack([cell * 2.0**-15, tanh_of(cell << op.cell_bits) * 2.0**-23]),
    )
    return _TABLES[op]


def _by_gate(rows: Array) -> Array:
    """Return rows that stand unit after unit gate after gate, in ``GATE_ORDER``."""
    gates: Array = rows.reshape(-1, 4, rows.shape[1])[:, list(GATE_ORDER)].swapaxes(0, 1)
    return gates.reshape(rows.shape)


def _factor(op: EdgeLstmOp) -> F64:
    """Return what a sum of each row is multiplied by, [4 * hidden]."""
    factor: F64 = op.rows.multipliers * 2.0 ** -op.rows.shifts().astype(np.float64)
    return factor


def narrow_product(op: EdgeLstmOp) -> Narrow | None:
    """Return the product in float32, made once; None: sums would not be exact."""
    if op not in _NARROW:
        _NARROW[op] = _narrow(op)
    return _NARROW[op]


def _narrow(op: EdgeLstmOp) -> Narrow | None:
    common = min(op.input_shift, op.hidden_shift)
    weights = op.weights.astype(np.float64)
    weights[:, : op.input_size] *= 2.0 ** (op.input_shift - common)
    weights[:, op.input_size :] *= 2.0 ** (op.hidden_shift - common)
    if 128 * np.abs(weights).sum(axis=1).max() >= EXACT_IN_FLOAT32:
        return None
    scale = _by_gate(_factor(op)[:, None])[:, 0] * 2.0**common
    low = None
    if op.rows.paired:
        gates = scale.reshape(4, -1)
        low = gates[HIGH].copy()
        gates[HIGH] *= 256
    return Narrow(np.asfortranarray(_by_gate(weights).astype(np.float32)), scale, low)


class FastEdgeLstmKernel:
    """The `edge` LSTM for ``batch_size`` rows, with inputs of 8 bits or 16."""

    def __init__(self, op: EdgeLstmOp, batch_size: int, *, wide: bool = False) -> None:
        self.op, self.tables, self.batch_size = op, edge_tables(op), batch_size
        self._lead = () if batch_size == 1 else (batch_size,)
        many = batch_size > 1 or self.tables.weights.nbytes > MANY_BYTES
        self._narrow = narrow_product(op) if many and not wide else None
        size = op.input_size + op.hidden_size
        kind = np.float64 if self._narrow is None else np.float32
        self._fed = np.ones((*self._lead, size + (self._narrow is None)), kind)
        self._hidden = self._fed[..., op.input_size : size]
        self._after = np.zeros((2, *self._lead, op.hidden_size))
        self._sums = np.empty((*self._lead, 4 * op.hidden_size))
        tape: Tape = [(SET, (self._fed[..., : op.input_size], Parameter("x")))]
        if self._narrow is None:
            tape.append(self._product(self._fed, self.tables.weights, self._sums))
        else:
            tape += self._narrow_product(self._fed, self._narrow.weights)
            tape.append((np.add, (self._sums, self.tables.weights[:, -1].copy(), self._sums)))
        self._advance = self._advance_tape()
        self.tape = [*tape, *self._advance]
        self._sequence: Callable[..., None] | None = None
        self.result = self._hidden.reshape(batch_size, op.hidden_size)
        self.last: Call = (self.result.astype, (np.dtype(np.int8),))
        self._step = compile_tape(self.tape, ["x"], result=self.last)

    def _narrow_product(self, fed: Array, weights: F32) -> Tape:
        """Return the calls from activations to sums, but for the bias."""
        assert self._narrow is not None
        sums, low = np.empty(self._sums.shape, np.float32), self._narrow.low
        tape: Tape = [
            self._product(fed, weights, sums),
            (np.multiply, (sums, self._narrow.scale, self._sums)),
        ]
        if low is None:
            return tape
        shape = (*self._lead, 4, self.op.hidden_size)
        high, carried = self._sums.reshape(shape)[..., HIGH, :], np.empty((*self._lead, *low.shape))
        return [
            *tape,
            (np.multiply, (sums.reshape(shape)[..., LOW, :], low, carried)),
            (np.add, (high, carried, high)),
        ]

    def _product(self, fed: Array, weights: Array, out: Array) -> tuple[object, tuple[object, ...]]:
        if self._lead:
            return np.dot, (fed, weights.T, out)
        return weights.dot, (fed, out)

    def reset(self) -> None:
        """Set hidden and cell state to their first values."""
        self._set(self.op.initial_hidden, self.op.initial_cell)

    @property
    def state(self) -> dict[str, Array]:
        """Hidden state int8 and cell state int16, ``[batch, hidden]``; a copy."""
        shape = (self.batch_size, self.op.hidden_size)
        return {
            "hidden": self._hidden.reshape(shape).astype(np.int8),
            "cell": (self._after[0] * 2.0**15).reshape(shape).astype(np.int16),
        }

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Set the state."""
        shape = self._after.shape[1:]
        self._set(state["hidden"].reshape(shape), state["cell"].reshape(shape))

    def _set(self, hidden: Array, cell: Array) -> None:
        self._hidden[...] = hidden
        self._after[0] = cell * 2.0**-15

    def step(self, x: Array) -> Array:
        """Run one step: ``x`` [batch, input] to int8 [batch, hidden]."""
        y: Array = self._step(x)
        return y

    def _advance_tape(self) -> Tape:
        """Return the calls from the sums to the new hidden state."""
        size, tables = self.op.hidden_size, self.tables
        index = np.empty(self._sums.shape, np.int64)
        sigmoid_index, candidate_index = np.empty((*self._lead, 3 * size), np.int64), None
        gates = np.empty((*self._lead, 3 * size))
        candidate = np.empty((*self._lead, size))
        if self._lead:
            candidate_index = np.empty((*self._lead, size), np.int64)
            sets: Tape = [
                (SET, (sigmoid_index, self._sums[..., : 3 * size])),
                (SET, (candidate_index, self._sums[..., 3 * size :])),
            ]
        else:
            sets = [(SET, (index, self._sums))]
            sigmoid_index, candidate_index = index[: 3 * size], index[3 * size :]
        kept, added = np.empty((*self._lead, size)), np.empty((*self._lead, size))
        cell, squashed = self._after
        cell_index = np.empty(cell.shape, np.int64)
        multiply, add, half = np.multiply, np.add, np.array(0.5)
        return [
            *sets,
            (tables.sigmoid.take, (sigmoid_index, None, gates, "clip")),
            (tables.candidate.take, (candidate_index, None, candidate, "clip")),
            (multiply, (gates[..., :size], candidate, added)),
            (multiply, (gates[..., size : 2 * size], cell, kept)),
            (add, (kept, added, kept)),
            (add, (kept, np.array(32768.5), kept)),
            (SET, (cell_index, kept)),
            (tables.cell.take, (cell_index, 1, self._after, "clip")),
            (multiply, (gates[..., 2 * size :], squashed, kept)),
            (add, (kept, half, kept)),
            (np.floor, (kept, kept)),
            *self._saturated(kept),
        ]

    def _saturated(self, kept: Array) -> Tape:
        """Return the calls that make of ``kept`` the hidden state; none of them casts and clips."""
        limits = np.array(-128.0), np.array(127.0)
        if self._hidden.dtype == kept.dtype:
            return [(clip, (kept, *limits, self._hidden))]
        return [(clip, (kept, *limits, kept)), (SET, (self._hidden, kept))]

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return every step's hidden state, int8 [batch, time, hidden]."""
        del lengths  # a row's state past its end is never read
        (x,) = inputs
        outputs = np.empty((self.batch_size, x.shape[1], self.op.hidden_size), np.int8)
        chunk = max(1, CHUNK_VALUES // (4 * self.op.hidden_size * self.batch_size))
        for first in range(0, x.shape[1], chunk):
            self._run_chunk(x[:, first : first + chunk], outputs[:, first : first + chunk])
        return outputs

    def _run_chunk(self, x: Array, outputs: Array) -> None:
        """Run some steps with the input's part of all sums prepared at once."""
        features, weights = self.op.input_size, self.tables.weights
        rows = (x[0] if self.batch_size == 1 else x.swapaxes(0, 1)).astype(np.float64)
        prepared = rows @ weights[:, :features].T + weights[:, -1]
        if self._sequence is None:
            if self._narrow is None:
                wide = np.asfortranarray(weights[:, features:-1])
                tape: Tape = [self._product(self._hidden, wide, self._sums)]
            else:
                narrow = np.asfortranarray(self._narrow.weights[:, features:])
                tape = self._narrow_product(self._hidden, narrow)
            tape += [
                (np.add, (self._sums, Parameter("prepared"), self._sums)),
                *self._advance,
                (SET, (Parameter("out"), self._hidden)),
            ]
            self._sequence = compile_tape(tape, ["prepared", "out"], loop=True)
        self._sequence(prepared, outputs[0] if self.batch_size == 1 else outputs.swapaxes(0, 1))
