"""The same integer LSTM in few NumPy calls.

A step in NumPy costs its number of calls, about 0.25 us each, until the matrix products weigh
more. So whatever can be computed once is: it goes into the weights, into their columns of biases
and into tables. Every array is float64 and holds exact integers or exact fractions; the bytes are
those of ``lstm_integer``, which is the readable form of what happens here. One step, with its
tricks by number:

    dot        [input | recurrent] weights times [x, 1, hidden, 1]                   (1)
    floor      first rounding of the requantization                                  (1)
    multiply   by 2**-shift, nudged away from zero                                   (2)
    clip       only where the weights do not exclude saturation                      (3)
    add        magic: second rounding, table offset, and float to integer            (4)
    subtract   input half minus negated recurrent half: the table index              (4)
    take       all four gates from one table                                         (5)
    multiply   [i, f] * [g, c]
    ceil, multiply   first rounding, where the runtime has it                        (6)
    add        magic: second rounding and float to integer                           (4)
    subtract   the sum of both products: the index of the cell state                 (4)
    take       the saturated cell state, its tanh, and the rounding of the output    (5)
    multiply   o * tanh(c), scaled
    add, set   both roundings of the hidden state, and float to integer              (7)
    take, pick the saturated hidden state, for the next step and for the caller      (5)

(1) ``multiplier / 2**31`` is folded into the weights and half a unit into the bias, so that
    ``floor`` is SaturatingRoundingDoublingHighMul. Exact below 2**53 units of the last bit.
    Large layers keep their weights in float32, half the bytes: exact sums below 2**24, then a
    multiplication by ``multiplier / 2**31``, and ``rint`` where no product can end in a half;
    very large ones do both roundings as in (7).
(2) ``v * 2**-s`` has exact ties; the factor ``1 + 2**-40`` moves them away from zero and reaches
    nothing else, so rounding to nearest is RoundingDivideByPOT.
(3) A bound on each row's sum, from the weights at hand, tells.
(4) ``1.5 * 2**52 + n`` keeps the integer n in the low bits of the float64: the addition rounds,
    and the difference of two such words, seen as int64, is the difference of their integers.
(5) A table over every index that can occur, with saturation and the next step's scale in it.
(6) ``p / 2`` of an integer p has the fraction 0 or 1/2: rounding up is ``ceil``.
(7) ``round(round(p * m) * 2**-s)`` is one rounding of ``p * m * 2**-s``, moved away from zero by
    ``2**-(s+1)``. ``output_is_decided`` proves for each of the 256 results that float64 decides
    it as the integers do; without the proof the plain form runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F64, I64, Array
from edge_lstm.cells.lstm_integer import LstmOp
from edge_lstm.cells.lstm_tables import FastTables, Half
from edge_lstm.tape import PICK, SET, Call, Parameter, Tape, clip, compile_tape, play

TOGETHER_VALUES = 8192
"""Below this size one block-diagonal product is faster than two."""
_HALF = np.array(0.5)
CHUNK_VALUES = 1 << 15
"""Gate values of a sequence that are prepared at once: bounds the working memory."""
CHUNK_STEPS = 128
"""Steps that are prepared at once, at most: the views of their rows are made only once."""


class FastLstmKernel:
    """The integer LSTM in few calls; the bytes of ``LstmKernel``.

    Args:
        op: a plain int8 LSTM.
        tables: from ``fast_tables`` of the same op; all that is large, shared among sessions.
        batch_size: rows.
    """

    def __init__(self, op: LstmOp, tables: FastTables, batch_size: int) -> None:
        self.op, self.tables, self.batch_size = op, tables, batch_size
        cells, features = op.cell_count, op.input_size
        self._lead = () if batch_size == 1 else (batch_size,)
        # One vector [x, 1, hidden, 1] feeds both matrix products.
        kind = tables.recurrent.weights.dtype
        self._fed = np.ones((*self._lead, features + 1 + cells + 1), kind)
        self._x_fed, self._hidden_fed = (
            self._fed[..., : features + 1],
            self._fed[..., features + 1 :],
        )
        slot = self._hidden_fed[..., :-1]
        # take() writes to contiguous arrays only.
        self._hidden = slot if batch_size == 1 else np.empty((batch_size, cells), kind)
        self._index = np.empty((*self._lead, 4 * cells), np.int64)
        if batch_size == 1:
            # [i f o g c tanh rounding]: one multiplication makes i * g and f * c.
            values = np.zeros(7 * cells)
            self._gates, self._after = values[: 4 * cells], values[4 * cells :].reshape(3, cells)
            self._pairs = [(values[: 2 * cells], values[3 * cells : 5 * cells], slice(None))]
        else:
            self._gates = np.empty((batch_size, 4 * cells))
            self._after = np.zeros((3, batch_size, cells))
            entrance, forget = self._gates[:, :cells], self._gates[:, cells : 2 * cells]
            self._pairs = [
                (entrance, self._gates[:, 3 * cells :], slice(0, cells)),
                (forget, self._after[0], slice(cells, None)),
            ]
        self._cell = self._after[0]
        self._hidden_index = np.empty(self._cell.shape, np.int64)
        advance = self._advance_tape()
        self.tape = [*self._step_tape(), *advance, self._hidden_call(self._hidden)]
        self.last = (PICK, (tables.hidden_bytes, self._hidden_index.reshape(batch_size, cells)))
        if batch_size > 1:
            self.tape.append((SET, (slot, self._hidden)))
        self._advance = advance
        self._step = compile_tape(self.tape, ["x"], result=self.last)
        self._sequence: _Sequence | None = None
        self.result = self._hidden.reshape(batch_size, cells)

    def reset(self) -> None:
        """Set hidden and cell state to their first values."""
        self._set(self.op.initial_hidden, self.op.initial_cell)

    @property
    def state(self) -> dict[str, Array]:
        """Hidden state int8 and cell state int16, ``[batch, cells]``; a copy."""
        cell = np.rint(self._cell / self.tables.cell_unit).astype(np.int16)
        return {
            "hidden": self.result.astype(np.int8),
            "cell": cell.reshape(self.batch_size, -1),
        }

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Set the state."""
        self._set(
            state["hidden"].reshape(self._cell.shape), state["cell"].reshape(self._cell.shape)
        )

    def _set(self, hidden: Array, cell: Array) -> None:
        self._hidden[...] = hidden
        self._hidden_fed[..., :-1] = hidden
        self._cell[...] = cell * self.tables.cell_unit

    def step(self, x: Array) -> Array:
        """Run one step: ``x`` int8 [batch, input] to int8 [batch, cells]."""
        y: Array = self._step(x)
        return y

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return every step's hidden state, int8 [batch, time, cells]."""
        del lengths  # a row's state past its end is never read
        (x,) = inputs
        cells, steps = self.op.cell_count, x.shape[1]
        outputs = np.empty((self.batch_size, steps, cells), np.int8)
        most = max(1, min(CHUNK_STEPS, CHUNK_VALUES // (4 * cells * self.batch_size)))
        if self._sequence is None or len(self._sequence.prepared) < min(most, steps):
            self._sequence = self._make_sequence(min(most, steps))
        chunk = len(self._sequence.prepared)
        for first in range(0, steps, chunk):
            self._run_chunk(
                self._sequence, x[:, first : first + chunk], outputs[:, first : first + chunk]
            )
        return outputs

    def _make_sequence(self, steps: int) -> _Sequence:
        """Return the buffers and the code for ``steps`` steps at once."""
        width, tables = 4 * self.op.cell_count, self.tables
        prepared = np.empty((steps, *self._lead, width))
        bits = list(prepared.view(np.int64))
        before: tuple[object, object]
        if self.batch_size == 1:
            # Each step leaves its hidden state where the next one reads it.
            rows = np.ones((steps + 1, self._hidden_fed.size), self._fed.dtype)
            fed, written = list(rows[:-1]), list(rows[1:, :-1])
            before = (Parameter("fed"), Parameter("out"))
            after: Tape = []
        else:
            rows = np.empty((steps + 1, *self._hidden.shape), self._fed.dtype)
            fed, written = [], list(rows[1:])
            before = (self._hidden_fed, Parameter("out"))
            after = [(SET, (self._hidden_fed[..., :-1], Parameter("out")))]
        sums = np.empty((*self._lead, width))
        recurrent = tables.recurrent
        tape = [
            *_product_tape(sums, tables, (recurrent, before[0])),
            *self._rounding_tape(sums, recurrent),
            (np.subtract, (Parameter("bits"), sums.view(np.int64), self._index)),
            *self._advance,
            self._hidden_call(before[1]),
            *after,
        ]
        lists = {"bits": bits, "out": written, **({"fed": fed} if fed else {})}
        return _Sequence(
            prepared=prepared,
            x_fed=np.ones((steps, *self._x_fed.shape), self._fed.dtype),
            rows=rows,
            lists=list(lists.values()),
            loop=compile_tape(tape, list(lists), loop=True),
        )

    def _run_chunk(self, sequence: _Sequence, x: Array, outputs: Array) -> None:
        """Run some steps with the input half of all gates prepared at once."""
        tables, width, steps = self.tables, 4 * self.op.cell_count, x.shape[1]
        fed, prepared = sequence.x_fed[:steps], sequence.prepared[:steps]
        fed[..., :-1] = x[0] if self.batch_size == 1 else x.swapaxes(0, 1)
        flat = prepared.reshape(-1, width)
        play(
            [
                *_product_tape(flat, tables, (tables.from_input, fed.reshape(-1, fed.shape[-1]))),
                *self._rounding_tape(flat, tables.from_input),
            ]
        )
        rows = sequence.rows
        rows[0, ..., : self.op.cell_count] = self._hidden
        lists = sequence.lists
        sequence.loop(*(lists if steps == len(lists[0]) else [each[:steps] for each in lists]))
        self._hidden[...] = rows[steps, ..., : self.op.cell_count]
        written = rows[1 : steps + 1, ..., : self.op.cell_count]
        outputs[...] = written if self.batch_size == 1 else written.swapaxes(0, 1)

    def _step_tape(self) -> Tape:
        """Return the calls from x to the gates' table index."""
        width, tables = 4 * self.op.cell_count, self.tables
        sums = np.empty((*self._lead, 2 * width))
        tape: Tape = [(SET, (self._x_fed[..., :-1], Parameter("x")))]
        small = tables.from_input.form == "folded" and 2 * width * self._fed.size <= TOGETHER_VALUES
        if self.batch_size == 1 and small:
            tape.append((tables.block_diagonal.dot, (self._fed, sums)))
        else:
            tape += _product_tape(
                sums, tables, (tables.from_input, self._x_fed), (tables.recurrent, self._hidden_fed)
            )
        tape += self._rounding_tape(sums, tables.from_input, tables.recurrent)
        bits = sums.view(np.int64)
        tape.append((np.subtract, (bits[..., :width], bits[..., width:], self._index)))
        return tape

    def _rounding_tape(self, sums: Array, *halves: Half) -> Tape:
        """Return the calls that round ``sums``, of the halves side by side, to Q3.12."""
        width, tables = 4 * self.op.cell_count, self.tables
        both = len(halves) == 2
        tape: Tape = []
        if halves[0].form == "displaced":
            moved = np.empty_like(sums)
            shift = tables.both_shifts if both else halves[0].shift
            tape += [(np.copysign, (shift, sums, moved)), (np.add, (sums, moved, sums))]
        else:
            ties = any(half.ties for half in halves)
            if halves[0].form == "rounded" and ties:
                tape.append((np.add, (sums, _HALF, sums)))
            first = np.floor if halves[0].form == "folded" or ties else np.rint
            scale = tables.both_scales if both else halves[0].scale
            tape += [(first, (sums, sums)), (np.multiply, (sums, scale, sums))]
        for k, half in enumerate(halves):
            if half.bounds is not None:
                part = sums[..., k * width : (k + 1) * width]
                low, high = (np.array(bound) for bound in half.bounds)
                tape.append((clip, (part, low, high, part)))
        single = tables.input_magic if halves[0] is tables.from_input else tables.recurrent_magic
        return [*tape, (np.add, (sums, tables.both_magics if both else single, sums))]

    def _advance_tape(self) -> Tape:
        """Return the calls from the gates' table index to the hidden state's."""
        tables, cells = self.tables, self.op.cell_count
        products = np.empty((*self._lead, 2 * cells))
        bits = products.view(np.int64)
        cell_index = np.empty(self._cell.shape, np.int64)
        output = np.empty(self._cell.shape)
        tape: Tape = [(tables.gates.take, (self._index, None, self._gates, "clip"))]
        tape += [(np.multiply, (a, b, products[..., part])) for a, b, part in self._pairs]
        if tables.product_scale is not None:
            tape += [
                (np.ceil, (products, products)),
                (np.multiply, (products, tables.product_scale, products)),
            ]
        exit_, (_, squashed, rounding) = self._gates[..., 2 * cells : 3 * cells], self._after
        return [
            *tape,
            (np.add, (products, tables.cell_magic, products)),
            (np.subtract, (bits[..., :cells], bits[..., cells:], cell_index)),
            (tables.cell.take, (cell_index, 1, self._after, "clip")),
            (np.multiply, (exit_, squashed, output)),
            (np.add, (output, rounding, output)),
            (SET, (self._hidden_index, output)),
        ]

    def _hidden_call(self, out: object) -> Call:
        """Return the call that looks up the saturated hidden state."""
        return (self.tables.hidden.take, (self._hidden_index, None, out, "clip"))


@dataclass(frozen=True, eq=False, repr=False)
class _Sequence:
    """What a kernel keeps once it has run a sequence."""

    prepared: F64
    """The input half of all gates, [steps, (batch,) 4 * cells]."""
    x_fed: Array
    """The inputs with their column of ones."""
    rows: Array
    """The hidden state before each step and after the last."""
    lists: list[list[Array]]
    """Views of ``prepared`` and ``rows`` for each step: making one costs 0.1 us."""
    loop: Callable[..., None]


def _product_tape(sums: Array, tables: FastTables, *factors: tuple[Half, object]) -> Tape:
    """Return the calls that fill ``sums`` with weights times vectors, half beside half."""
    weights = factors[0][0].weights
    narrow = factors[0][0].form != "folded"
    single = sums.ndim == 1
    # dot() writes to contiguous arrays of its own type only.
    direct = not narrow and (single or len(factors) == 1)
    width = len(weights)
    products = sums if direct else np.empty(sums.shape, weights.dtype)
    tape: Tape = []
    for k, (half, fed) in enumerate(factors):
        part = products[..., k * width : (k + 1) * width]
        if single:
            tape.append((half.weights.dot, (fed, part)))
        elif len(factors) == 1:
            tape.append((np.dot, (fed, half.weights.T, part)))
        else:
            block = np.empty((*part.shape,), part.dtype)
            tape += [(np.dot, (fed, half.weights.T, block)), (SET, (part, block))]
    if narrow:
        factor = tables.both_factors if len(factors) == 2 else factors[0][0].factor
        # One call with mixed types goes through a buffer and takes longer than these two.
        tape += [(SET, (sums, products)), (np.multiply, (sums, factor, sums))]
    elif not direct:
        tape.append((SET, (sums, products)))
    return tape
