"""The table of ops that have a form in C."""

from __future__ import annotations

from edge_lstm.cells import (
    ActivationOp,
    AddOp,
    DenseOp,
    EdgeDenseOp,
    EdgeGruOp,
    EdgeLstmOp,
    EdgeRnnOp,
    EmbeddingOp,
    LstmOp,
    MulOp,
    QuantizeOp,
    ReadStateOp,
    SubOp,
)
from edge_lstm.program import Op
from edge_lstm_converters.c_edge_dense import emit_edge_dense
from edge_lstm_converters.c_edge_gru import emit_edge_gru, emit_edge_rnn
from edge_lstm_converters.c_edge_lstm import emit_edge_lstm
from edge_lstm_converters.c_exact_activation import emit_activation, emit_quantize
from edge_lstm_converters.c_exact_dense import emit_dense
from edge_lstm_converters.c_exact_lstm import emit_lstm
from edge_lstm_converters.c_exact_pairs import emit_add, emit_mul
from edge_lstm_converters.c_moves import emit_embedding
from edge_lstm_converters.c_parts import COp, Emitter, Place
from edge_lstm_converters.c_state import emit_read_state

EMITTERS: dict[type[Op], Emitter] = {
    EdgeDenseOp: emit_edge_dense,
    EdgeLstmOp: emit_edge_lstm,
    EdgeGruOp: emit_edge_gru,
    EdgeRnnOp: emit_edge_rnn,
    EmbeddingOp: emit_embedding,
    LstmOp: emit_lstm,
    DenseOp: emit_dense,
    ActivationOp: emit_activation,
    QuantizeOp: emit_quantize,
    AddOp: emit_add,
    SubOp: emit_add,
    MulOp: emit_mul,
    ReadStateOp: emit_read_state,
}


def emit(place: Place) -> COp:
    """Return an op in C.

    Raises:
        UnsupportedModel: C has no form of it.
    """
    emitter = EMITTERS.get(type(place.op))
    if emitter is None:
        raise place.refuse("has no form in C", "run it with the NumPy runtime, or as .tflite")
    return emitter(place.op, place)
