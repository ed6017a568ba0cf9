"""Straight-line NumPy code from a list of calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

try:
    # np.clip takes 7 times as long
    clip: Any = np._core.umath.clip  # type: ignore[attr-defined]
except AttributeError:  # NumPy 1
    clip = np.core.umath.clip  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Parameter:
    """An argument of a tape that differs from call to call.

    Args:
        name: of the argument, or an expression of one, such as ``x.T``.
    """

    name: str


Call = tuple[object, tuple[object, ...]]
Tape = list[Call]
SET = "set"
"""``(SET, (target, source))`` stands for ``target[...] = source``."""
PICK = "pick"
"""``(PICK, (table, index))``, as a result, stands for ``table[index]``."""


@dataclass(frozen=True)
class Guard:
    """What an argument must be; anything else goes to ``otherwise``, whose value is returned."""

    parameter: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    otherwise: Callable[[Any], Any]

    def refuses(self, value: Any) -> bool:
        """Return whether ``value`` is anything else."""
        return (
            value.__class__ is not np.ndarray
            or value.dtype is not self.dtype
            or value.shape != self.shape
        )


def compile_tape(
    tape: Tape,
    parameters: Sequence[str],
    *,
    loop: bool = False,
    result: Call | None = None,
    guard: Guard | None = None,
) -> Callable[..., Any]:
    """Return one function that makes the calls of ``tape`` in order.

    Written out, a call costs no loop, no unpacking and no look-up of names: half a microsecond
    a step. Functions and constant arguments are closed over; as keyword-only defaults each would
    cost another 10 ns a call.

    Args:
        tape: functions and their arguments; arguments of type Parameter are the caller's.
        parameters: names of the function's arguments, in order.
        loop: the arguments are sequences, and the tape runs for each row of them.
        result: a last call, whose value the function returns; None: it returns nothing.
        guard: checks an argument first.
    """
    names: dict[int, str] = {}
    values: list[object] = []

    def name(value: object) -> str:
        if isinstance(value, Parameter):
            return value.name
        if id(value) not in names:
            names[id(value)] = f"c{len(values)}"
            values.append(value)
        return names[id(value)]

    def text(call: Call) -> str:
        function, arguments = call
        words = [name(argument) for argument in arguments]
        if function is SET:
            return f"{words[0]}[...] = {words[1]}"
        if function is PICK:
            return f"{words[0]}[{words[1]}]"
        return f"{name(function)}({', '.join(words)})"

    signature = [f"all_{p}" for p in parameters] if loop else list(parameters)
    lines = []
    if guard is not None:
        p = guard.parameter
        lines = [
            f"if {p}.__class__ is not {name(np.ndarray)} or {p}.dtype is not {name(guard.dtype)}"
            f" or {p}.shape != {name(guard.shape)}:",
            f"    return {name(guard.otherwise)}({p})",
        ]
    if loop:
        lines.append(f"for {', '.join(parameters)} in zip({', '.join(signature)}):")
        lines += [f"    {text(call)}" for call in tape]
    else:
        lines += [text(call) for call in tape]
    if result is not None:
        lines.append(f"return {text(result)}")
    source = "\n".join(
        [
            f"def make({', '.join(names.values())}):",
            f"    def tape({', '.join(signature)}):",
            *(f"        {line}" for line in lines),
            "    return tape",
        ]
    )
    function: Callable[..., Any] = _maker(source)(*values)
    return function


def play(tape: Tape) -> None:
    """Make the calls of a tape without parameters once."""
    for function, arguments in tape:
        if function is SET:
            target: Any = arguments[0]
            target[...] = arguments[1]
        else:
            assert callable(function)
            function(*arguments)


@lru_cache(maxsize=256)
def _maker(source: str) -> Callable[..., Any]:
    """Return the function that ``source`` defines; sessions of one model share its code."""
    scope: dict[str, Any] = {}
    exec(compile(source, "<tape>", "exec"), scope)
    maker: Callable[..., Any] = scope["make"]
    return maker
