"""A table on the terminal that follows what a long command does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Show = Callable[[str, int, int], None]
Rows = Callable[[Sequence[tuple[str, ...]]], None]


@contextmanager
def live_table(header: tuple[str, ...], quiet: bool) -> Iterator[tuple[Show, Rows]]:
    """Yield ``show(what, done, total)`` and ``rows(cells)``: a table with a bar under it.

    On a terminal's stderr, gone when the work is done; elsewhere nothing is shown.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None, lambda cells: None
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import Progress
    from rich.table import Table

    console = Console(stderr=True)
    bars = Progress(console=console)
    bar = bars.add_task("", total=None)
    shared = sys.stdout.isatty()
    with Live(bars, console=console, transient=True, redirect_stdout=shared) as live:

        def show(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=total)

        def rows(cells: Sequence[tuple[str, ...]]) -> None:
            table = Table(box=None, pad_edge=False)
            for number, name in enumerate(header):
                table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
            for row in cells:
                table.add_row(*row)
            live.update(Group(table, bars))

        yield show, rows
