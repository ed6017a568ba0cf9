"""Rows of the `edge` arithmetic as the words that the C kernels read, one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import I16, I64, Array
from edge_lstm.cells.edge_lstm import EdgeRecurrentOp
from edge_lstm.cells.edge_rows import Rows
from edge_lstm.program import Tensor
from edge_lstm_converters.c_parts import ACTIVATION, Member, array, fill

QUAD = 4


def whole_quads(rows: Rows) -> Rows:
    """Return the rows and, up to a multiple of four, rows of zeros."""
    missing = -len(rows.bias) % QUAD
    return replace(
        rows,
        weights=np.pad(rows.weights, ((0, missing), (0, 0))),
        bias=np.pad(rows.bias, (0, missing)),
        multipliers=np.pad(rows.multipliers, (0, missing)),
    )


def padded_columns(rows: Rows, at: int, count: int) -> Rows:
    """Return the rows with ``count`` columns of zeros before column ``at``."""
    return replace(rows, weights=np.insert(rows.weights, [at] * count, 0, axis=1))


def quad_words(rows: Rows) -> list[I16]:
    """Return the words of each four rows, as ``el_edge_quad`` reads them.

    Columns: a multiple of 4; of 2 where the rows are packed in pairs.
    """
    rows = whole_quads(rows)
    columns = rows.weights.shape[1]
    if rows.paired:
        # Of two columns, the words of the first pair, then those of the second.
        words = rows.effective_weights()[0::2].reshape(-1, 2, columns // 2, 2)
        weights = words.swapaxes(1, 2)
    else:
        low, high = np.split(rows.weights.astype(np.int64).reshape(-1, QUAD, columns // 4, 4), 2, 3)
        weights = (256 * high + (low & 255)).swapaxes(1, 2)
    quads = len(rows.bias) // QUAD
    parts: list[Array] = [_halves(rows.bias), weights, rows.multipliers]
    flat = np.concatenate([part.reshape(quads, -1) for part in parts], axis=1)
    return list(flat.astype(np.int16))


def _halves(values: Array) -> I64:
    """Return int32 values in two words each, the low half first."""
    wide = values.astype(np.int64)
    return np.stack([wide & 0xFFFF, wide >> 16], axis=-1)


def byte_rows(rows: Rows, inputs: int) -> Array:
    """Return the weights as Helium reads them: of eight rows each, 16 columns at a time.

    The chunks of the input come first, then those of the hidden state; the last of each has what
    is left. A load of 16 bytes may reach behind the last row.
    """
    columns = rows.weights.shape[1]
    starts = [*range(0, inputs, 16), *range(inputs, columns, 16)]
    parts = np.split(rows.weights.reshape(-1, 8, columns), starts[1:], axis=2)
    quads = [part.reshape(len(part), -1) for part in parts]
    return np.concatenate([np.concatenate(quads, axis=1).ravel(), np.zeros(16, np.int8)])


def column_step(rows: Rows) -> int:
    """Return what the number of columns must be a multiple of."""
    return 2 if rows.paired else 4


def words_array(name: str, words: list[I16]) -> str:
    """Return the definition of a constant array that is read in words of 32 bits."""
    return array("EL_ALIGNED int16_t", name, np.concatenate(words))


def activations_member(name: str, columns: int) -> Member:
    """Return the state's array of activations."""
    return Member(ACTIVATION, f"{name}_activations", columns)


def widen(op: EdgeRecurrentOp, source: Tensor, activations: str) -> str:
    """Return the statement that puts the input among the activations."""
    kind = "s8" if source.dtype == "int8" else "s16"
    return f"el_edge_widen_{kind}(x, {activations}, {op.input_size}, {op.input_shift});"


def reset_values(target: str, values: Array, size: int, name: str) -> tuple[str, str]:
    """Return the statements that set an array, and the constants that they read.

    Args:
        target: the array.
        values: its first values; what is behind them is 0.
        size: of the array.
        name: of the constants.
    """
    if not values.any():
        return fill(target, size, "0"), ""
    padded = np.pad(values, (0, size - len(values)))
    return fill(target, size, f"{name}[k]"), array("int16_t", name, padded)
