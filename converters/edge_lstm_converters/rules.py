"""The form of a rule: a limit on models as a function whose docstring is the sentence users read.

A rule gets what it judges (an operator of the file, a whole graph) and returns None, or what it
found instead. Its docstring says what is accepted, in one sentence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from edge_lstm.errors import UnsupportedModel

T = TypeVar("T")


def sentence(rule: Callable[..., object]) -> str:
    """Return a rule as users read it: its docstring on one line, without the full stop."""
    return " ".join(inspect.getdoc(rule).split()).removesuffix(".")  # type: ignore[union-attr]


def first_broken(rules: Iterable[Callable[[T], str | None]], subject: T) -> tuple[str, str] | None:
    """Return what the first broken rule found, and the rule's sentence; None: all are kept."""
    for rule in rules:
        found = rule(subject)
        if found is not None:
            return found, sentence(rule)
    return None


def check(rules: Iterable[Callable[[T], str | None]], subject: T, where: str) -> None:
    """Raise UnsupportedModel with the first rule that ``subject`` breaks.

    Args:
        rules: in the order in which they are asked.
        subject: what they judge.
        where: file and node or layer, for the message.
    """
    broken = first_broken(rules, subject)
    if broken is not None:
        raise UnsupportedModel(f"{where}: {broken[0]}; {broken[1]}")
