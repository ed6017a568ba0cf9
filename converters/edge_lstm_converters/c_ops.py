"""The table of ops that have a form in C."""

from __future__ import annotations

from edge_lstm.cells import (
    ActivationOp,
    ConcatOp,
    EdgeDenseOp,
    EmbeddingOp,
    FirstStepOp,
    FlattenOp,
    LastStepOp,
    QuantizeOp,
    ReverseOp,
)
from edge_lstm.program import Op
from edge_lstm_converters.c_edge_dense import emit_edge_dense
from edge_lstm_converters.c_moves import (
    emit_concat,
    emit_elementwise,
    emit_embedding,
    emit_first_step,
    emit_flatten,
    emit_last_step,
    emit_reverse,
)
from edge_lstm_converters.c_parts import COp, Emitter, Place

EMITTERS: dict[type[Op], Emitter] = {
    EdgeDenseOp: emit_edge_dense,
    EmbeddingOp: emit_embedding,
    ActivationOp: emit_elementwise,
    QuantizeOp: emit_elementwise,
    ConcatOp: emit_concat,
    ReverseOp: emit_reverse,
    FlattenOp: emit_flatten,
    FirstStepOp: emit_first_step,
    LastStepOp: emit_last_step,
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
