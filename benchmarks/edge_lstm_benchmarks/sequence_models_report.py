"""What LSTM, GRU, plain RNN and Transformer of equal size showed, as Markdown."""

from __future__ import annotations

import math
from typing import Any

from edge_lstm_benchmarks.markdown import table
from edge_lstm_benchmarks.sequence_tasks import DIGITS, OTHERS, ROWS

Document = dict[str, Any]
NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "plain RNN", "transformer": "Transformer"}
STARTS = {
    "default": "as PyTorch starts it",
    "prepared": "started for long sequences",
    "trained": "trained",
}
TRAINED_STEPS = ROWS * OTHERS
SHOWN_DISTANCES = (1, 10, 20, 40, 100, 200)

HEAD = """\
## Sequence models at the edge: LSTM, GRU, plain RNN, Transformer

Made by `make sequences`, from the weights in `edge_lstm_benchmarks/models/sequences`, whose
`train.py` trains them anew. All have as many parameters as an LSTM of 32, within 2 %; the
Transformer is causal, of two blocks of width 16 with two heads, and keeps the keys and values of
all steps (KV cache). Two tasks on real data:

- *weather*: 24 hours of 7 features, the temperature six hours on (`models/weather`);
- *digits*: 27 handwritten digits, a row of 8 pixels and a mark a step; asked is the first, which
  alone is marked: what is asked ends 208 steps before the answer.

Recurrent cells start the digits' task as the field does for long sequences: biases of the gate that
keeps the state are logs of times up to the length (LSTM, GRU), orthogonal recurrent weights (RNN).
Sequences grow while they train, from 8 to 216 steps. Learning rates are from two tries or so each;
more tuning could move the ranking. In integers: profile edge; the Transformer has none here.
"""

SCALING = """\
Processor time of a step, medians over interleaved rounds; what is carried to the next step (of the
compiled GRU and RNN all that their sessions keep); multiplications with a weight, key or value.
NumPy float32 is plain NumPy for all four, written alike. The recurrent models took every step; the
Transformer's cache was filled with what it kept of its first 100, over and over, and timed there.
"""


def render(kept: list[Document]) -> str:
    """Return the page's section for the documents of ``sequence_models.py`` of all machines."""
    newest = max(kept, key=lambda document: str(document["date"]))
    parts = [HEAD, f"\n### What the numbers say\n\n{claims(newest)}", f"\n{_scores(newest)}"]
    parts.append(f"\n### Accuracy over distance\n\n{_distances(newest)}")
    parts.append(f"\n### Gradient over distance\n\n{_gradients(newest)}")
    return "".join(parts) + "".join(_machine(document) for document in kept)


def claims(document: Document) -> str:
    """Return what the figures say on the classic claims, a line each."""
    lines = (_long(document), _beyond(document), _vanishing(document), _cost(document))
    return "".join(f"- {line}\n" for line in (*lines, _short(document)))


def _long(document: Document) -> str:
    rows = [row for row in document["sequence_models"] if row["task"] == DIGITS.name]
    rows.sort(key=lambda row: -float(row["scores"]["float32"]))
    said, widths = [], []
    for row in rows:
        share, seeds = row["scores"]["float32"], row["seeds"]
        widths.append(1.96 * math.sqrt(share * (1 - share) / row["items"]))
        said.append(
            f"{NAMES[row['cell']]} {100 * share:.1f} %{_spread([100 * s for s in seeds], 1)}"
        )
    return (
        f"**Long dependencies.** {TRAINED_STEPS} steps later they still name the digit:"
        f" {', '.join(said)}; by chance 10 %. Of {rows[0]['items']} sequences, so"
        f" ±{100 * max(widths):.1f} points at most (95 %)."
    )


def _spread(scores: list[float], digits: int) -> str:
    """Return the least and the greatest score of several runs, in brackets."""
    if len(scores) < 2:
        return " (one run)"
    return f" ({min(scores):.{digits}f} to {max(scores):.{digits}f} over {len(scores)} runs)"


def _ranked(shares: dict[str, float]) -> str:
    ordered = sorted(shares, key=lambda cell: -shares[cell])
    return ", ".join(f"{NAMES[cell]} {100 * shares[cell]:.1f} %" for cell in ordered)


def _beyond(document: Document) -> str:
    rows = document["distances"]
    last = max(rows[0]["steps"])
    twice = min(step for step in rows[0]["steps"] if step > TRAINED_STEPS)
    said = []
    for step in (twice, last):
        index = rows[0]["steps"].index(step)
        shares = {row["cell"]: row["shares"][index] for row in rows}
        said.append(f"after {step} steps {_ranked(shares)}")
    return f"**Beyond the length that was trained**: {'; '.join(said)}."


def _vanishing(document: Document) -> str:
    cells = _gradients_of(document)
    distance = 100
    said = [
        f"{NAMES[cell]} {_at(cells[cell]['default'], distance)},"
        f" {_at(cells[cell]['prepared'], distance)} and {_at(cells[cell]['trained'], distance)}"
        for cell in ("rnn", "lstm", "gru")
    ]
    return (
        f"**Vanishing gradients.** The loss's gradient at the state {distance} steps back, over"
        f" that one step back, {STARTS['default']}, {STARTS['prepared']} and {STARTS['trained']}:"
        f" {'; '.join(said)}."
    )


def _cost(document: Document) -> str:
    lstm, transformer = (
        next(r for r in document["scaling"] if (r["cell"], r["runtime"]) == (c, "NumPy float32"))
        for c in ("lstm", "transformer")
    )
    first, last = document["positions"][0], document["positions"][-1]
    before, after = (
        {cell: counts[k] for cell, counts in document["products"].items()} for k in (0, -1)
    )
    return (
        f"**Cost against attention.** From {first:,} steps to {last:,} the LSTM carries"
        f" {_change(lstm['state_bytes'])} bytes and its step takes"
        f" {_change([before['lstm'], after['lstm']])} products; its time at the end is"
        f" {lstm['us'][-1] / lstm['us'][0]:.2f} times that at the start. The Transformer's cache"
        f" grows from {_change(transformer['state_bytes'])} bytes, its step from"
        f" {before['transformer']:,} to {after['transformer']:,} products, its time"
        f" {transformer['us'][-1] / transformer['us'][0]:,.0f} times."
    )


def _change(values: list[int]) -> str:
    """Return the first and the last value, or the one that both are."""
    first, last = values[0], values[-1]
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _short(document: Document) -> str:
    rows = [row for row in document["sequence_models"] if row["task"] == "weather"]
    rows.sort(key=lambda row: float(row["scores"]["float32"]))
    said = [
        f"{NAMES[r['cell']]} {r['scores']['float32']:.2f} °C{_spread(r['seeds'], 2)}" for r in rows
    ]
    return f"**Short sequences.** The weather, over 24 steps: {', '.join(said)}."


def _scores(document: Document) -> str:
    head = ["task, cell", "size", "parameters", "float32", "int8, edge"]
    lines = []
    for row in document["sequence_models"]:
        form = "{:.1%}" if row["task"] == DIGITS.name else "{:.3f} °C"
        scores = [row["scores"].get(name) for name in ("float32", "int8 edge")]
        lines.append(
            [
                f"{row['task']}, {NAMES[row['cell']]}",
                f"{row['size']}",
                f"{row['parameters']:,}",
                *("-" if s is None else form.format(s).replace("%", " %") for s in scores),
            ]
        )
    return table(head, lines)


def _distances(document: Document) -> str:
    rows = document["distances"]
    head = ["digits named, %, by steps since", *(str(step) for step in rows[0]["steps"])]
    lines = [[NAMES[r["cell"]], *(f"{100 * share:.1f}" for share in r["shares"])] for r in rows]
    return table(head, lines)


def _gradients_of(document: Document) -> dict[str, dict[str, dict[int, float]]]:
    return {
        row["cell"]: {name: dict(points) for name, points in row["gradients"].items()}
        for row in document["sequence_models"]
        if row["gradients"]
    }


def _at(points: dict[int, float], distance: int) -> str:
    ratio = points[distance]
    return f"{ratio:.2f}" if ratio >= 0.005 else f"{ratio:.0e}" if ratio else "below float32"


def _gradients(document: Document) -> str:
    head = ["gradient at a state, over that one step back", *map(str, SHOWN_DISTANCES)]
    lines = [
        [f"{NAMES[cell]}, {STARTS[name]}", *(_at(points, d) for d in SHOWN_DISTANCES)]
        for cell, found in _gradients_of(document).items()
        for name, points in found.items()
    ]
    return table(head, lines)


def _machine(document: Document) -> str:
    host, positions = document["host"], document["positions"]
    busy = host.get("load_average")
    said = "" if busy is None else f" {busy:.1f} processes wanted its {host['cpus']} CPUs."
    head = ["steps so far", *(f"{position:,}" for position in positions)]
    times = [
        [f"{NAMES[r['cell']]}, {r['runtime']}, µs", *(f"{us:,.3g}" for us in r["us"])]
        for r in document["scaling"]
    ]
    kept = [
        [f"{NAMES[r['cell']]}, {r['runtime']}, bytes", *(f"{n:,}" for n in r["state_bytes"])]
        for r in document["scaling"]
    ]
    products = [
        [f"{NAMES[cell]}, products", *(f"{n:,}" for n in counts)]
        for cell, counts in document["products"].items()
    ]
    return (
        f"\n### A step as the sequence grows: {host['cpu']}\n\n"
        f"One thread, Python {host['python']}, NumPy {host['numpy']}; {document['date']}.{said}"
        f" {SCALING}\n"
        f"{table(head, times)}\n{table(head, kept)}\n{table(head, products)}\n"
        f"![Accuracy, gradient, time and memory as the sequence grows]"
        f"(results/{document['picture']})\n"
    )
