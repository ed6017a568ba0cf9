"""Tables in Markdown."""

from __future__ import annotations


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table: the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
