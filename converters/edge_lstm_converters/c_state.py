"""A value that is kept from step to step, in C: a member of the state."""

from __future__ import annotations

from edge_lstm.cells import ReadStateOp
from edge_lstm_converters.c_parts import COp, Member, Place, array, ctype, fill


def emit_read_state(op: ReadStateOp, place: Place) -> COp:
    """Return where the value is kept; it is read there, and ``c_layout`` copies into it."""
    member = Member(ctype(place.output), f"{place.name}_value", len(op.initial))
    first, constants = "0", ""
    if op.initial.any():
        first = f"{place.name}_initial[k]"
        constants = array(member.ctype, f"{place.name}_initial", op.initial)
    reset = fill(f"state->{member.name}", member.size, first)
    return COp(step="", constants=constants, members=(member,), reset=reset)
