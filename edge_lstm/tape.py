"""Straight-line NumPy code from a list of calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    # np.clip takes 7 times as long
    clip: Any = np._core.umath.clip  # type: ignore[attr-defined]
except AttributeError:  # NumPy 1
    clip = np.core.umath.clip  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Parameter:
    """An argument of a tape that differs from call to call."""

    name: str


Tape = list[tuple[object, tuple[object, ...]]]
SET = "set"


def compile_tape(
    tape: Tape, parameters: Sequence[str], *, loop: bool = False
) -> Callable[..., None]:
    """Return one function that makes the calls of ``tape`` in order.

    Written out, a call costs no loop, no unpacking and no look-up of names: half a microsecond
    a step. ``(SET, (target, source))`` stands for ``target[...] = source``.

    Args:
        tape: functions and their arguments; arguments of type Parameter are the caller's.
        parameters: names of the function's arguments, in order.
        loop: the arguments are sequences, and the tape runs for each row of them.
    """
    names: dict[str, object] = {}
    lines = []

    def name(value: object) -> str:
        if isinstance(value, Parameter):
            return value.name
        names.setdefault(f"c{id(value)}", value)
        return f"c{id(value)}"

    for function, arguments in tape:
        words = [name(argument) for argument in arguments]
        if function is SET:
            lines.append(f"{words[0]}[...] = {words[1]}")
        else:
            lines.append(f"{name(function)}({', '.join(words)})")
    bound = ", ".join(f"{word}={word}" for word in names)
    if loop:
        head = (
            f"    for {', '.join(parameters)} in zip({', '.join('all_' + p for p in parameters)}):"
        )
        signature = ", ".join(f"all_{p}" for p in parameters)
        body = [head, *(f"        {line}" for line in lines)]
    else:
        signature = ", ".join(parameters)
        body = [f"    {line}" for line in lines]
    source = "\n".join([f"def tape({signature}, *, {bound}):", *body])
    exec(compile(source, "<tape>", "exec"), names)
    function = names["tape"]
    assert callable(function)
    return function
