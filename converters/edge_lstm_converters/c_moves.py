"""Ops that look values up, in C."""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import ActivationOp, EmbeddingOp, QuantizeOp
from edge_lstm_converters.c_parts import C_TYPES, COp, Place, array, fill


def emit_embedding(op: EmbeddingOp, place: Place) -> COp:
    """Return the copy of a row; a token outside the table reads its first or last row."""
    tokens, features = op.table.shape
    table = f"{place.name}_table"
    step = f"""\
int32_t token = x[0] < 0 ? 0 : (x[0] > {tokens - 1} ? {tokens - 1} : x[0]);
{fill("y", features, f"{table}[token * {features} + k]")}"""
    return COp(step=step, constants=array(C_TYPES[op.table.dtype.name], table, op.table))


def emit_elementwise(op: ActivationOp | QuantizeOp, place: Place) -> COp:
    """Return the op's own kernel as a table of its 256 results."""
    every = np.arange(-128, 128, dtype=np.int8)
    x: Array = np.broadcast_to(every[:, None, None], (256, 1, place.source.signal.size))
    table = op.prepare(place.program, 256).run([x], None)[:, 0, 0]
    name = f"{place.name}_table"
    step = f"""\
for (int32_t k = 0; k < {place.source.signal.size}; k++) {{
    y[k] = {name}[x[k] + 128];
}}"""
    return COp(step=step, constants=array(C_TYPES[place.output.dtype], name, table))
