"""LSTM of the `edge` profile packed for the host's vector kernels (``c/el_host.h``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import I8, I32, I64, Array
from edge_lstm.cells.edge_lstm import EdgeLstmOp
from edge_lstm.fixed_point import wrap32
from edge_lstm_converters.c_parts import array

UNITS = 16
"""Units of a block: the lanes of a 512-bit vector of 32-bit sums."""


@dataclass(frozen=True)
class PackedLstm:
    """An op's constants as the host kernels read them.

    Args:
        op: the op.
        wide: whether its input is int16.
    """

    op: EdgeLstmOp
    wide: bool

    @property
    def blocks(self) -> int:
        """Blocks of 16 units."""
        return -(-self.op.hidden_size // UNITS)

    @property
    def units(self) -> int:
        """Units with those that fill the last block."""
        return self.blocks * UNITS

    def weights(self) -> tuple[I8, I8]:
        """Return input and recurrent weights, [block, group, gate, unit, column of the group]."""
        op = self.op
        gates = op.weights.reshape(op.hidden_size, 4, -1).transpose(1, 0, 2)
        columns = 2 if self.wide else 4
        return (
            self._pack(gates[:, :, : op.input_size], columns),
            self._pack(gates[:, :, op.input_size :], 4),
        )

    def _pack(self, weights: I8, columns: int) -> I8:
        gates, units, size = weights.shape
        groups = -(-size // columns)
        padded = np.zeros((gates, self.units, groups * columns), np.int8)
        padded[:, :units, :size] = weights
        split = padded.reshape(gates, self.blocks, UNITS, groups, columns)
        return split.transpose(1, 3, 0, 2, 4)

    def biases(self) -> tuple[I32, I32]:
        """Return the bias, and the bias for activations that are raised by 128.

        Sums wrap at 32 bits on the way; their end is in range, so it is exact.
        """
        op, rows = self.op, self.op.rows.effective_weights()
        raised = rows[:, op.input_size :].sum(axis=1) << op.hidden_shift
        if not self.wide:
            raised = raised + (rows[:, : op.input_size].sum(axis=1) << op.input_shift)
        bias = op.bias.astype(np.int64)
        return self._by_block(bias), self._by_block(wrap32(bias - 128 * raised))

    def multipliers(self) -> I32:
        """Return each multiplier in both halves of a word."""
        return self._by_block(self.op.multipliers.astype(np.int64) * 65537)

    def _by_block(self, values: I64) -> I32:
        padded = np.zeros((4, self.units), np.int64)
        padded[:, : self.op.hidden_size] = values.reshape(-1, 4).T
        return padded.reshape(4, self.blocks, UNITS).transpose(1, 0, 2).astype(np.int32)

    def initial_state(self) -> Array:
        """Return one stream's first state, uint8: cells as int16, then the hidden state."""
        cell, hidden = np.zeros(self.units, np.int16), np.zeros(self.units, np.int8)
        cell[: self.op.hidden_size] = self.op.initial_cell
        hidden[: self.op.hidden_size] = self.op.initial_hidden
        return np.frombuffer(cell.tobytes() + hidden.tobytes(), np.uint8)

    def definition(self, name: str) -> str:
        """Return the constants in C, with ``NAME`` of type ``el_host_lstm_t``."""
        op = self.op
        inputs, hidden = self.weights()
        bias, raised = self.biases()
        groups, quads = inputs.shape[1], hidden.shape[1]
        fields = [
            op.input_size,
            op.hidden_size,
            self.blocks,
            groups,
            quads,
            op.input_shift,
            op.hidden_shift,
            op.shift,
            op.cell_bits,
            op.high_shift,
            int(self.wide),
        ]
        parts: dict[str, tuple[str, Array]] = {
            "input_weights": ("int8_t", inputs),
            "hidden_weights": ("int8_t", hidden),
            "bias": ("int32_t", bias),
            "bias_raised": ("int32_t", raised),
            "multipliers": ("int32_t", self.multipliers()),
            "first": ("uint8_t", self.initial_state()),
        }
        arrays = [
            array(kind, f"{name}_{part}", value).replace(
                "static const", "static const EL_ALIGNED", 1
            )
            for part, (kind, value) in parts.items()
        ]
        pointers = ", ".join(f"{name}_{part}" for part in list(parts)[:5])
        numbers = ", ".join(map(str, fields))
        return (
            "".join(arrays) + f"static const el_host_lstm_t {name} = {{{pointers}, {numbers}}};\n"
        )
