"""What a whole book's stream showed, as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from edge_lstm_benchmarks.markdown import table

Document = dict[str, Any]

HEAD = """\
## Streams: a whole book, one character a step

Made by `make streams`. The King James Bible ({book}) runs through
textgenrnn's Embedding and two LSTMs of 128: {characters:,} characters, a verse a line. The model
has no token for {unknown_characters:,} of them, the ends of lines among them; they are padding.

Native code reads the book from the first character to the last without a break, {chunk:,}
characters a call. At equal distances its state is saved, as the bytes of an `.npz`. Then all
stretches are read again side by side, as rows of a batch, by the NumPy session and by native code,
each row restored from what was saved. Both must give the outputs of the unbroken stream, and each
row must end in the state that was saved for the next: so NumPy read without a break gives these
bytes too. At the start of each stretch {stepped} characters are also read one by one.
"""


def render(kept: list[Document]) -> str:
    """Return the page's section for the documents of ``streams.py`` of all machines."""
    return HEAD.format(**kept[0]) + "".join(_machine(document) for document in kept)


def _machine(document: Document) -> str:
    host, runs = document["host"], document["streams"]
    return (
        f"\n### {host['cpu']}\n\n"
        f"One thread, Python {host['python']}, NumPy {host['numpy']}; {document['date']}."
        f" {_busy(host)}\n\n"
        f"{_bytes(runs)}\n{_costs(runs)}\n"
        f"![Time and memory over the characters read](results/{document['picture']})\n"
    )


def _busy(host: Document) -> str:
    """Return what the times are, and how busy the machine was."""
    said = "Times are processor time."
    if host.get("load_average") is not None:
        said += f" {host['load_average']:.1f} processes wanted its {host['cpus']} CPUs."
    return said


def _bytes(runs: list[Document]) -> str:
    """Return a table of what was compared, and what differs."""
    lines = []
    for name, engine in (("numpy", "NumPy"), ("native", "native code")):
        found = [run["restored"][name] for run in runs]
        lines += [
            [
                f"{engine}, restored: stretches unlike the unbroken stream",
                *(_of(row["stretches_unlike_unbroken"], run) for row, run in _pairs(found, runs)),
            ],
            [
                f"{engine}, restored: end states unlike what was saved",
                *(_of(row["ends_unlike_unbroken"], run) for row, run in _pairs(found, runs)),
            ],
        ]
    bytes_of = [run["restored"]["native"] for run in runs]
    lines.append(
        [
            "bytes in which native code and NumPy differ",
            *(f"{row['differing_bytes']:,} of {row['compared_bytes']:,}" for row in bytes_of),
        ]
    )
    single = [sum(call["differing_bytes"] for call in run["calls"]) for run in runs]
    lines.append(["bytes in which single steps differ from a call", *(f"{n:,}" for n in single)])
    return table(["what differs", *_profiles(runs)], lines)


def _pairs(found: list[Document], runs: list[Document]) -> list[tuple[Document, Document]]:
    return list(zip(found, runs, strict=True))


def _of(count: int, run: Document) -> str:
    return f"{count} of {run['stretches']}"


def _profiles(runs: list[Document]) -> list[str]:
    return [f"profile {run['profile']}" for run in runs]


def _costs(runs: list[Document]) -> str:
    """Return a table of time and memory at the first stretch and at the last."""
    lines = [
        ["state, bytes, at every character", *(f"{run['state_bytes']:,}" for run in runs)],
        ["the same saved as .npz, bytes", *(_span(run, "unbroken", _saved, "") for run in runs)],
    ]
    for name, engine in (("numpy", "NumPy"), ("native", "native code")):
        lines += [
            [
                f"{engine}: µs a character, median over the book",
                *(f"{statistics.median(c['us'][name] for c in run['calls']):.1f}" for run in runs),
            ],
            [
                f"{engine}: most memory of a call, KiB, first and last stretch",
                *(
                    _span(run, "calls", lambda c, n=name: c["traced_peak_bytes"][n] / 1024, ".1f")
                    for run in runs
                ),
            ],
        ]
    lines += [
        [
            "native code, unbroken: µs a character, whole book",
            *(
                f"{statistics.mean(r['us_per_character'] for r in run['unbroken']):.2f}"
                for run in runs
            ),
        ],
        [
            "native code: memory of the process, MiB, first and last stretch",
            *(_span(run, "unbroken", _resident, ".1f") for run in runs),
        ],
    ]
    return table(["what it takes", *_profiles(runs)], lines)


def _saved(row: Document) -> float | None:
    size: int = row["snapshot_bytes"]
    return size


def _resident(row: Document) -> float | None:
    held = row["resident_bytes"]
    return None if held is None else held / 2**20


def _span(run: Document, rows: str, value: Any, form: str) -> str:
    """Return a value of the first row and of the last."""
    ends = [value(run[rows][k]) for k in (0, -1)]
    return " and ".join("-" if end is None else format(end, form or ",") for end in ends)
