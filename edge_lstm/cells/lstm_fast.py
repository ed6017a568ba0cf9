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
    take       the saturated hidden state                                            (5)

(1) ``multiplier / 2**31`` is folded into the weights and half a unit into the bias, so that
    ``floor`` is SaturatingRoundingDoublingHighMul. Exact while ``|acc| * multiplier < 2**52``.
    Large layers keep their weights in float32, half the bytes: exact sums below 2**24, then a
    multiplication, and both roundings as in (7).
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

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.cells.lstm_integer import LstmOp
from edge_lstm.cells.lstm_tables import MAGIC, FastTables, Half
from edge_lstm.tape import SET, Parameter, Tape, clip, compile_tape

TOGETHER_VALUES = 8192
"""Below this size one block-diagonal product is faster than two."""
CHUNK_VALUES = 1 << 16
"""Gate values of a sequence that are prepared at once: bounds the working memory."""


class FastLstmKernel:
    """The integer LSTM in few calls; the bytes of ``LstmKernel``.

    Args:
        op: a plain int8 LSTM.
        tables: from ``fast_tables`` of the same op.
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
        advance = self._advance_tape()
        if batch_size > 1:
            advance.append((SET, (slot, self._hidden)))
        self._advance = advance
        self._step = compile_tape(self._step_tape() + advance, ["x"])
        self._sequence: Callable[..., None] | None = None
        self._result = self._hidden.reshape(batch_size, cells)

    def reset(self) -> None:
        """Set hidden and cell state to their first values."""
        self._set(self.op.initial_hidden, self.op.initial_cell)

    @property
    def state(self) -> dict[str, Array]:
        """Hidden state int8 and cell state int16, ``[batch, cells]``; a copy."""
        cell = np.rint(self._cell / self.tables.cell_unit).astype(np.int16)
        return {
            "hidden": self._result.astype(np.int8),
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
        self._step(x)
        return self._result.astype(np.int8)

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return every step's hidden state, int8 [batch, time, cells]."""
        del lengths  # a row's state past its end is never read
        (x,) = inputs
        cells, batch = self.op.cell_count, self.batch_size
        outputs = np.empty((batch, x.shape[1], cells), np.int8)
        chunk = max(1, CHUNK_VALUES // (4 * cells * batch))
        for first in range(0, x.shape[1], chunk):
            self._run_chunk(x[:, first : first + chunk], outputs[:, first : first + chunk])
        return outputs

    def _run_chunk(self, x: Array, outputs: Array) -> None:
        """Run some steps with the input half of all gates prepared at once."""
        tables, width, steps = self.tables, 4 * self.op.cell_count, x.shape[1]
        fed = np.ones((steps, *self._x_fed.shape), self._fed.dtype)
        prepared = np.empty((steps, *self._lead, width))
        rows = x[0] if self.batch_size == 1 else x.swapaxes(0, 1)
        fed[..., :-1] = rows
        flat_fed, flat = fed.reshape(-1, fed.shape[-1]), prepared.reshape(-1, width)
        tape = [
            *_product_tape(flat, (tables.from_input, flat_fed)),
            *self._rounding_tape(flat, tables.from_input),
        ]
        for function, arguments in tape:
            assert callable(function)
            function(*arguments)
        if self._sequence is None:
            self._sequence = compile_tape(self._sequence_tape(), ["bits", "out"], loop=True)
        out_rows = outputs[0] if self.batch_size == 1 else outputs.swapaxes(0, 1)
        self._sequence(prepared.view(np.int64), out_rows)

    def _step_tape(self) -> Tape:
        """Return the calls from x to the gates' table index."""
        width, tables = 4 * self.op.cell_count, self.tables
        sums = np.empty((*self._lead, 2 * width))
        tape: Tape = [(SET, (self._x_fed[..., :-1], Parameter("x")))]
        small = tables.from_input.shift is None and 2 * width * self._fed.size <= TOGETHER_VALUES
        if self.batch_size == 1 and small:
            both = np.zeros((2 * width, self._fed.size), order="F")
            both[:width, : self._x_fed.size] = tables.from_input.weights
            both[width:, self._x_fed.size :] = tables.recurrent.weights
            tape.append((both.dot, (self._fed, sums)))
        else:
            tape += _product_tape(
                sums, (tables.from_input, self._x_fed), (tables.recurrent, self._hidden_fed)
            )
        tape += self._rounding_tape(sums, tables.from_input, tables.recurrent)
        bits = sums.view(np.int64)
        tape.append((np.subtract, (bits[..., :width], bits[..., width:], self._index)))
        return tape

    def _sequence_tape(self) -> Tape:
        """Return the calls of one step whose input half is prepared: parameters bits, out."""
        recurrent = self.tables.recurrent
        sums = np.empty((*self._lead, 4 * self.op.cell_count))
        return [
            *_product_tape(sums, (recurrent, self._hidden_fed)),
            *self._rounding_tape(sums, recurrent),
            (np.subtract, (Parameter("bits"), sums.view(np.int64), self._index)),
            *self._advance,
            (SET, (Parameter("out"), self._hidden)),
        ]

    def _rounding_tape(self, sums: Array, *halves: Half) -> Tape:
        """Return the calls that round ``sums``, of the halves side by side, to Q3.12."""
        width = 4 * self.op.cell_count
        tape: Tape = []
        if halves[0].shift is None:
            scale = np.concatenate([half.scale for half in halves])
            tape += [(np.floor, (sums, sums)), (np.multiply, (sums, scale, sums))]
        else:
            shift = np.concatenate([half.shift for half in halves if half.shift is not None])
            moved = np.empty_like(sums)
            tape += [(np.copysign, (shift, sums, moved)), (np.add, (sums, moved, sums))]
        for k, half in enumerate(halves):
            if half.bounds is not None:
                part = sums[..., k * width : (k + 1) * width]
                low, high = (np.array(bound) for bound in half.bounds)
                tape.append((clip, (part, low, high, part)))
        magic = [
            self.tables.input_magic if half is self.tables.from_input else np.full(width, MAGIC)
            for half in halves
        ]
        return [*tape, (np.add, (sums, np.concatenate(magic), sums))]

    def _advance_tape(self) -> Tape:
        """Return the calls from the gates' table index to the new hidden state."""
        tables, cells = self.tables, self.op.cell_count
        products = np.empty((*self._lead, 2 * cells))
        bits = products.view(np.int64)
        cell_index = np.empty(self._cell.shape, np.int64)
        output, hidden_index = np.empty(self._cell.shape), np.empty(self._cell.shape, np.int64)
        tape: Tape = [(tables.gates.take, (self._index, None, self._gates, "clip"))]
        tape += [(np.multiply, (a, b, products[..., part])) for a, b, part in self._pairs]
        if tables.product_scale is not None:
            tape += [
                (np.ceil, (products, products)),
                (np.multiply, (products, tables.product_scale, products)),
            ]
        magic = MAGIC + np.repeat([32768.0, 0.0], cells)
        exit_, (_, squashed, rounding) = self._gates[..., 2 * cells : 3 * cells], self._after
        return [
            *tape,
            (np.add, (products, magic, products)),
            (np.subtract, (bits[..., :cells], bits[..., cells:], cell_index)),
            (tables.cell.take, (cell_index, 1, self._after, "clip")),
            (np.multiply, (exit_, squashed, output)),
            (np.add, (output, rounding, output)),
            (SET, (hidden_index, output)),
            (tables.hidden.take, (hidden_index, None, self._hidden, "clip")),
        ]


def _product_tape(sums: Array, *factors: tuple[Half, Array]) -> Tape:
    """Return the calls that fill ``sums`` with weights times vectors, half beside half."""
    narrow = factors[0][0].shift is not None
    single = factors[0][1].ndim == 1
    # dot() writes to contiguous arrays of its own type only.
    direct = not narrow and (single or len(factors) == 1)
    width = sums.shape[-1] // len(factors)
    products = sums if direct else np.empty(sums.shape, factors[0][1].dtype)
    tape: Tape = []
    for k, (half, fed) in enumerate(factors):
        part = products[..., k * width : (k + 1) * width]
        if single:
            tape.append((half.weights.dot, (fed, part)))
        elif len(factors) == 1:
            tape.append((fed.dot, (half.weights.T, part)))
        else:
            block = np.empty((*part.shape,), part.dtype)
            tape += [(fed.dot, (half.weights.T, block)), (SET, (part, block))]
    if narrow:
        scale = np.concatenate([half.scale for half, _ in factors])
        tape.append((np.multiply, (products, scale, sums)))
    elif not direct:
        tape.append((SET, (sums, products)))
    return tape
