"""LSTMs packed for the host's vector kernels (``c/el_host.h``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import I8, I16, I32, I64, Array
from edge_lstm.cells import EdgeLstmOp, LstmOp
from edge_lstm.cells.lstm_integer import TFLITE_PROFILES, lstm_parameters, table_digest
from edge_lstm.fixed_point import wrap32
from edge_lstm.program import Op, Program
from edge_lstm_converters.c_parts import array

UNITS = 16
"""Units of a block: the lanes of a 512-bit vector of 32-bit sums."""
COLUMNS = 32
"""Columns that the portable kernel's rows are padded to."""


def aligned(kind: str, name: str, values: Array) -> str:
    """Return the definition of a constant array that begins a cache line."""
    return array(kind, name, values).replace("static const", "static const EL_LINE", 1)


@dataclass(frozen=True)
class PackedLstm:
    """What all LSTMs share: weights by blocks and by rows, and the first state.

    Args:
        inputs: int8 [4, hidden, input].
        recurrent: int8 [4, hidden, hidden].
        wide: whether the input is int16.
        initial_hidden: int8 [hidden].
        initial_cell: int16 [hidden].
    """

    inputs: I8
    recurrent: I8
    wide: bool
    initial_hidden: Array
    initial_cell: Array

    @property
    def hidden(self) -> int:
        """Number of units."""
        return int(self.recurrent.shape[1])

    @property
    def units(self) -> int:
        """Units with those that fill the last block."""
        return -(-self.hidden // UNITS) * UNITS

    def by_block(self, values: I64) -> I32:
        """Return numbers [4, hidden] as [block, gate, unit]."""
        padded = np.zeros((4, self.units), np.int64)
        padded[:, : self.hidden] = values
        blocks = padded.reshape(4, -1, UNITS).transpose(1, 0, 2)
        return wrap32(blocks).astype(np.int32)

    def _packed(self, weights: I8, columns: int) -> I8:
        """Return weights as [block, group of columns, gate, unit, column]."""
        groups = -(-weights.shape[2] // columns)
        padded = np.zeros((4, self.units, groups * columns), np.int8)
        padded[:, : self.hidden, : weights.shape[2]] = weights
        return padded.reshape(4, -1, UNITS, groups, columns).transpose(1, 3, 0, 2, 4)

    def _rows(self, weights: I8) -> I8:
        width = weights.shape[2]
        return np.pad(weights, ((0, 0), (0, 0), (0, -width % COLUMNS)))

    def _first(self) -> Array:
        """Return one stream's first state, uint8: cells as int16, then the hidden state."""
        cell, hidden = np.zeros(self.units, np.int16), np.zeros(self.units, np.int8)
        cell[: self.hidden], hidden[: self.hidden] = self.initial_cell, self.initial_hidden
        return np.frombuffer(cell.tobytes() + hidden.tobytes(), np.uint8)

    def define(self, name: str, extra: dict[str, I32], exact: str, numbers: list[int]) -> str:
        """Return the constants in C, with ``NAME`` of type ``el_host_lstm_t``.

        Args:
            name: of the definition.
            extra: bias, bias_raised and multipliers, by block.
            exact: pointer to what the interchange profiles need, or NULL.
            numbers: input_shift, hidden_shift, shift, cell_bits, high_shift.
        """
        packed = self._packed(self.inputs, 2 if self.wide else 4)
        recurrent = self._packed(self.recurrent, 4)
        arrays: dict[str, tuple[str, Array]] = {
            "input_weights": ("int8_t", packed),
            "hidden_weights": ("int8_t", recurrent),
            "input_rows": ("int8_t", self._rows(self.inputs)),
            "hidden_rows": ("int8_t", self._rows(self.recurrent)),
            **{part: ("int32_t", values) for part, values in extra.items()},
        }
        text = "".join(aligned(kind, f"{name}_{part}", v) for part, (kind, v) in arrays.items())
        text += aligned("uint8_t", f"{name}_first", self._first())
        fields = [f"{name}_{part}" for part in arrays] + [exact]
        sizes = [self.inputs.shape[2], self.hidden, self.units // UNITS]
        sizes += [packed.shape[1], recurrent.shape[1], *numbers, int(self.wide)]
        fields += [str(size) for size in sizes]
        return f"{text}static const el_host_lstm_t {name} = {{{', '.join(fields)}}};\n"


def pack(program: Program, op: Op) -> PackedLstm | None:
    """Return an op packed, or None where the host kernels do not have its form."""
    source = program.tensors[op.inputs[0]]
    if isinstance(op, EdgeLstmOp):
        gates = op.weights.reshape(op.hidden_size, 4, -1).transpose(1, 0, 2)
        inputs, recurrent = gates[:, :, : op.input_size], gates[:, :, op.input_size :]
        wide = source.dtype == "int16"
        return PackedLstm(inputs, recurrent, wide, op.initial_hidden, op.initial_cell)
    if isinstance(op, LstmOp) and source.dtype == "int8" and not op.variants:
        if lstm_parameters(op, program).cell_tanh is None:
            return None
        return PackedLstm(
            op.input_weights, op.recurrent_weights, False, op.initial_hidden, op.initial_cell
        )
    return None


def tables(program: Program, ops: Iterable[Op]) -> str:
    """Return the tables of the interchange profiles that the ops read, each once."""
    found: dict[str, I16] = {}
    for op in ops:
        if isinstance(op, LstmOp):
            found |= {_table_name(table): table for table in _tables(program, op)}
    # One value more than 2**16: a vector load of the last one reads 32 bits.
    return "".join(
        aligned("int16_t", name, np.append(np.roll(table, 1 << 15), 0))
        for name, table in found.items()
    )


def _tables(program: Program, op: LstmOp) -> list[I16]:
    parameters = lstm_parameters(op, program)
    assert parameters.cell_tanh is not None
    return [parameters.sigmoid, parameters.gate_tanh, parameters.cell_tanh]


def _table_name(table: I16) -> str:
    return f"el_table_{table_digest(table)[:16]}"


def definition(program: Program, op: Op, packed: PackedLstm, name: str) -> str:
    """Return a packed op's constants in C; those of the interchange profiles need ``tables``."""
    if isinstance(op, EdgeLstmOp):
        return _edge_definition(op, packed, name)
    assert isinstance(op, LstmOp)
    return _exact_definition(program, op, packed, name)


def _edge_definition(op: EdgeLstmOp, packed: PackedLstm, name: str) -> str:
    rows = op.rows.effective_weights()
    raised = rows[:, op.input_size :].sum(axis=1) << op.hidden_shift
    if not packed.wide:
        raised = raised + (rows[:, : op.input_size].sum(axis=1) << op.input_shift)
    bias = op.bias.astype(np.int64)
    extra = {
        "bias": packed.by_block(bias.reshape(-1, 4).T),
        # Sums wrap at 32 bits on the way; their end is in range, so it is exact.
        "bias_raised": packed.by_block((bias - 128 * raised).reshape(-1, 4).T),
        "multipliers": packed.by_block(op.multipliers.astype(np.int64).reshape(-1, 4).T * 65537),
    }
    numbers = [op.input_shift, op.hidden_shift, op.shift, op.cell_bits, op.high_shift]
    return packed.define(name, extra, "NULL", numbers)


def _exact_definition(program: Program, op: LstmOp, packed: PackedLstm, name: str) -> str:
    parameters = lstm_parameters(op, program)
    tflite = program.profile in TFLITE_PROFILES

    def raised(bias: I64, weights: I8) -> I32:
        return packed.by_block(bias - 128 * weights.astype(np.int64).sum(axis=2))

    hidden_bias = parameters.recurrent_bias
    text = aligned("int32_t", f"{name}_hidden_bias", packed.by_block(hidden_bias))
    hidden_raised = raised(hidden_bias, op.recurrent_weights)
    text += aligned("int32_t", f"{name}_hidden_raised", hidden_raised)
    factors = [parameters.input_factors, parameters.recurrent_factors]
    lists = [
        "{" + ", ".join(str(value) for value in column) + "}"
        for factor in factors
        for column in zip(*factor, strict=True)
    ]
    # The factors of the products are powers of two: half of one in Q0.31, and a shift.
    power = parameters.cell_power
    flags = [
        int(program.profile.startswith("tflm")),
        int(not tflite),
        int(program.profile.startswith("tflm")),
        15 if tflite else 14,
        30 + power if tflite else 29 + power,
        *parameters.hidden_factor,
        op.product_zero_point if tflite else op.hidden_zero_point,
        parameters.cell_clip,
    ]
    fields = [f"{name}_hidden_bias", f"{name}_hidden_raised"]
    fields += [f"{_table_name(table)} + 32768" for table in _tables(program, op)]
    fields += [*lists, *map(str, flags)]
    text += f"static const el_host_exact_t {name}_exact = {{{', '.join(fields)}}};\n"
    extra = {
        "bias": packed.by_block(parameters.input_bias),
        "bias_raised": raised(parameters.input_bias, op.input_weights),
        "multipliers": np.zeros(1, np.int32),
    }
    return text + packed.define(name, extra, f"&{name}_exact", [0] * 5)
