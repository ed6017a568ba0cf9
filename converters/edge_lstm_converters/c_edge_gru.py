"""The GRUs and the plain RNN of the `edge` profile in C."""

from __future__ import annotations

from itertools import chain

import numpy as np

from edge_lstm.arrays import I16
from edge_lstm.cells.edge_gru import EdgeGruOp, EdgeRnnOp, narrowed
from edge_lstm.cells.edge_rows import Rows
from edge_lstm_converters.c_edge_lstm import KERNELS as LSTM_KERNELS
from edge_lstm_converters.c_edge_rows import (
    QUAD,
    activations_member,
    column_step,
    padded_columns,
    quad_words,
    reset_values,
    widen,
    words_array,
)
from edge_lstm_converters.c_parts import COp, Member, Place

KERNELS = (*LSTM_KERNELS[:-1], "el_edge_gru.h")


def emit_edge_rnn(op: EdgeRnnOp, place: Place) -> COp:
    """Return the sums of four units at a time, and their tanh."""
    name, units, features = place.name, op.hidden_size, op.input_size
    end = features + units
    rows = padded_columns(op.rows, end, -end % column_step(op.rows))
    columns = rows.weights.shape[1]
    activations = f"state->{name}_activations"
    reset, values = _reset_activations(op, place, features, columns)
    step = f"""\
{widen(op, place.source, activations)}
el_edge_rnn({name}_words, {activations}, y, {units}, {columns}, {op.shift}, {op.high_shift});
el_edge_widen_s8(y, {activations} + {features}, {units}, {op.hidden_shift});"""
    return COp(
        step=step,
        kernels=KERNELS,
        constants=words_array(f"{name}_words", quad_words(rows)) + values,
        members=(activations_member(name, columns),),
        reset=reset,
        macs=op.weights.size,
    )


def emit_edge_gru(op: EdgeGruOp, place: Place) -> COp:
    """Return the gates and candidates, and how far they move the hidden state."""
    return _reset_after(op, place) if op.reset_after else _reset_before(op, place)


def _reset_after(op: EdgeGruOp, place: Place) -> COp:
    """Return the GRU whose reset multiplies the recurrent product: all rows of 4 units at once."""
    name, units, features = place.name, op.hidden_size, op.input_size
    # Sums over the input alone and over the hidden state alone, too, read whole words.
    inputs, kept = features + -features % QUAD, units + -units % QUAD
    columns = inputs + kept
    gates = padded_columns(op.rows, op.weights.shape[1], kept - units)
    gates = _whole_units(padded_columns(gates, features, inputs - features), units)
    words = zip(
        quad_words(gates)[0::2],
        quad_words(gates)[1::2],
        quad_words(padded_columns(op.candidate_rows, features, inputs - features)),
        quad_words(padded_columns(op.recurrent_rows, units, kept - units)),
        strict=True,
    )
    activations = f"state->{name}_activations"
    step = f"""\
{widen(op, place.source, activations)}
el_edge_gru({name}_words, {activations}, state->{name}_hidden, y, {units}, {inputs}, {columns},
    {op.shift}, {op.high_shift}, {op.candidate_shift}, {op.candidate_high_shift},
    {op.recurrent_shift}, {op.recurrent_high_shift});
el_edge_widen_s8(y, {activations} + {inputs}, {units}, {op.hidden_shift});"""
    reset, values = _reset_gru(op, place, inputs, columns)
    recurrent = op.recurrent_rows.weights
    return COp(
        step=step,
        kernels=KERNELS,
        constants=words_array(f"{name}_words", list(chain.from_iterable(words))) + values,
        members=(
            activations_member(name, columns),
            Member("int16_t", f"{name}_hidden", units),
        ),
        reset=reset,
        macs=op.weights.size + op.candidate_weights.size + recurrent.size,
    )


def _whole_units(gates: Rows, units: int) -> Rows:
    """Return the gates' rows, two a unit, with units of zeros up to a multiple of four."""
    missing = 2 * (-units % QUAD)
    if not missing:
        return gates
    return Rows(
        np.pad(gates.weights, ((0, missing), (0, 0))),
        np.pad(gates.bias, (0, missing)),
        np.pad(gates.multipliers, (0, missing)),
        gates.shift,
        gates.high_shift,
    )


def _reset_before(op: EdgeGruOp, place: Place) -> COp:
    """Return the GRU whose reset multiplies the hidden state: all gates, then all candidates."""
    name, units, features = place.name, op.hidden_size, op.input_size
    end = features + units
    columns = end + -end % QUAD
    gates = padded_columns(op.rows, end, columns - end)
    candidate = padded_columns(op.candidate_rows, end, columns - end)
    words: list[I16] = quad_words(gates) + quad_words(candidate)
    activations, hidden = f"state->{name}_activations", f"state->{name}_hidden"
    updates, shift = f"state->{name}_updates", op.hidden_shift
    keep = f"el_edge_widen_s8(y, {activations} + {features}, {units}, {shift});"
    step = f"""\
{widen(op, place.source, activations)}
const int16_t *words = el_edge_gru_reset({name}_words, {activations}, {hidden}, {updates}, y,
    {units}, {columns}, {op.shift}, {op.high_shift});
{keep}
el_edge_gru_update(words, {activations}, {hidden}, {updates}, y, {units}, {columns},
    {op.candidate_shift}, {op.candidate_high_shift});
{keep}"""
    reset, values = _reset_gru(op, place, features, columns)
    return COp(
        step=step,
        kernels=KERNELS,
        constants=words_array(f"{name}_words", words) + values,
        members=(
            activations_member(name, columns),
            Member("int16_t", f"{name}_hidden", units),
            Member("int16_t", f"{name}_updates", units),
        ),
        reset=reset,
        macs=op.weights.size + op.candidate_weights.size,
    )


def _reset_activations(
    op: EdgeGruOp | EdgeRnnOp, place: Place, inputs: int, columns: int
) -> tuple[str, str]:
    """Return how the activations are set before the first step; the input's are written later."""
    kept = narrowed(op.initial_hidden.astype(np.int64)) << op.hidden_shift
    first = np.concatenate([np.zeros(inputs, np.int64), kept])
    name = f"{place.name}_initial_activations"
    return reset_values(f"state->{place.name}_activations", first, columns, name)


def _reset_gru(op: EdgeGruOp, place: Place, inputs: int, columns: int) -> tuple[str, str]:
    """Return how both forms of the hidden state are set before the first step."""
    loop, values = _reset_activations(op, place, inputs, columns)
    name = f"{place.name}_initial_hidden"
    own, more = reset_values(f"state->{place.name}_hidden", op.initial_hidden, op.hidden_size, name)
    return f"{loop}\n{own}", values + more
