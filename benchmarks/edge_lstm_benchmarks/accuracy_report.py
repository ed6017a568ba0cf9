"""What trained models lose in integers, as Markdown: the page's section and the README's table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge_lstm.program import EDGE
from edge_lstm_benchmarks.markdown import table

Document = dict[str, Any]

START = "<!-- accuracy: written by `make accuracy` -->"
END = "<!-- end of accuracy -->"
SCHEME = "tflm"
"""Whose int8 form stands for the TFLite scheme where one figure is wanted."""

HEAD = """\
## Accuracy: trained models on real data

Made by `make accuracy` ({date}, NumPy {numpy}). *float* is the float reference; a column is the
NumPy runtime under a profile, whose bytes are its interpreter's. `tflm int16` is TFLite's 16x8
form; `edge int16` has 16-bit input and nothing else in 16 bits. *As float*: the share of decisions
that are the float model's. In brackets: test sequences.
"""
ERRORS = """
### Error against float

Root mean square error of the outputs, over that of the outputs themselves.

"""
RANDOM = """
### Random models

{count} models of random weights, 2 to 40 inputs, 4 to 64 units, inputs N(0, 1): root mean square
error of their outputs, the mean over models.

"""
GOALS = """
### Goals

"""
FORMS = (("tflm", "int8"), ("litert", "int8"), ("tflm", "int16"), (EDGE, "int8"), (EDGE, "int16"))
HEADINGS = [f"{profile} {dtype}" if dtype == "int16" else profile for profile, dtype in FORMS]


def render(kept: list[Document]) -> str:
    """Return the page's section for the document of ``real_models.py``."""
    document = kept[0]
    models = list(document["accuracy"].values())
    lines = [line for model in models for line in _scores(model)]
    page = HEAD.format(**document) + "\n"
    page += table(["model", "float", *HEADINGS, "int8 elsewhere"], lines)
    page += ERRORS + table(["model", *HEADINGS], [_errors(model) for model in models])
    page += RANDOM.format(count=len(document["random"])) + _random(document["random"])
    page += GOALS + table(["goal", "measured", "wanted", ""], _goals(document))
    return page + _reasons(models)


def form(model: Document, profile: str, dtype: str = "int8") -> Document | None:
    """Return one form of a model, where it was measured."""
    for found in model["forms"]:
        if (found["profile"], found["dtype"]) == (profile, dtype) and "scores" in found:
            return dict(found)
    return None


def _scores(model: Document) -> list[list[str]]:
    """Return a line for each score of a model."""
    lines = []
    for number, (score, exact) in enumerate(model["float"].items()):
        forms = [form(model, *which) for which in FORMS]
        cells = [_number(f["scores"][score]) if f else "-" for f in forms]
        told = model["told"] if number == 0 else ""
        name = f"{model['model']} ({model['sequences']:,}): {score}" if number == 0 else score
        lines.append([name, _number(exact), *cells, told])
    return lines


def _number(value: float) -> str:
    if value < 20:
        return f"{value:.3f}"
    # 99.96 is not 100.
    return f"{value:.2f}" if 99 < value < 100 else f"{value:.1f}"


def _errors(model: Document) -> list[str]:
    forms = [form(model, *which) for which in FORMS]
    return [model["model"], *(f"{100 * f['relative_error']:.2f} %" if f else "-" for f in forms)]


def _random(drawn: list[Document]) -> str:
    head = ["kind", "models", "edge", "TFLite's int8", "edge at or below in", "most above"]
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in drawn):
        rows = [row for row in drawn if row["kind"] == kind]
        edge, scheme = (np.array([row[name] for row in rows]) for name in (EDGE, SCHEME))
        above = max(0.0, float((edge / scheme).max()) - 1)
        lines.append(
            [
                kind,
                str(len(rows)),
                f"{edge.mean():.5f}",
                f"{scheme.mean():.5f}",
                f"{int((edge <= scheme).sum())} of {len(rows)}",
                f"{100 * above:.1f} %",
            ]
        )
    return table(head, lines)


def goals(document: Document) -> list[tuple[str, float, float, bool]]:
    """Return every goal: what, the figure, its bound, and whether it is a least or a most."""
    models = document["accuracy"]
    found: list[tuple[str, float, float, bool]] = []

    def add(name: str, score: str, which: tuple[str, str], bound: float, least: bool) -> None:
        at = form(models[name], *which) if name in models else None
        if at is not None:
            told = f"{models[name]['model']}, {' '.join(which)}: {score}"
            found.append((told, at["scores"][score], bound, least))

    for cell in ("gru", "rnn"):
        for profile in (SCHEME, EDGE):
            for name, score, lost in _TWINS:
                if (model := models.get(f"{name}-{cell}")) is not None:
                    exact = model["float"][score]
                    bound = lost(exact)
                    add(f"{name}-{cell}", score, (profile, "int8"), bound, bound < exact)
    for profile in (SCHEME, "litert", EDGE):
        if "snippets" in models:
            exact = models["snippets"]["float"]["right, %"]
            add("snippets", "right, %", (profile, "int8"), exact - 0.5, True)
    add("silero", "as float, %", (SCHEME, "int8"), 99.9, True)
    # Known as 87, in whole percent.
    add("textgenrnn", "letter as float, %", (SCHEME, "int8"), 86.5, True)
    add("textgenrnn", "letter as float, %", (EDGE, "int8"), 97.0, True)
    add("resemblyzer", "named rightly, %", (SCHEME, "int8"), 75.8, True)
    add("resemblyzer", "named rightly, %", (EDGE, "int16"), 98.0, True)
    for model in models.values():
        edge, scheme = form(model, EDGE), form(model, SCHEME)
        if edge is not None and scheme is not None:
            told = f"{model['model']}: error of edge, in parts of TFLite's int8"
            found.append((told, edge["rms_error"] / scheme["rms_error"], 1.0, False))
    for kind in dict.fromkeys(row["kind"] for row in document["random"]):
        rows = [row for row in document["random"] if row["kind"] == kind]
        ratio = sum(row[EDGE] for row in rows) / sum(row[SCHEME] for row in rows)
        found.append(
            (f"random {kind}: error of edge, in parts of TFLite's int8", ratio, 1.0, False)
        )
    return found


# A point of accuracy, a hundredth of an error.
_TWINS: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    ("weather", "error, °C", lambda exact: 1.01 * exact),
    ("digits", "right, %", lambda exact: exact - 1.0),
)


def _goals(document: Document) -> list[list[str]]:
    lines = []
    for told, value, bound, least in goals(document):
        met = value >= bound if least else value <= bound
        wanted = f"{'>=' if least else '<='} {_number(bound)}"
        lines.append([told, _number(value), wanted, "met" if met else "**missed**"])
    return lines


def _reasons(models: list[Document]) -> str:
    """Return why forms are missing, once for each reason."""
    found: dict[str, list[str]] = {}
    for model in models:
        for one in model["forms"]:
            if "reason" in one:
                what = f"{model['model']} {one['profile']} {one['dtype']}"
                found.setdefault(one["reason"], []).append(what)
    return "".join(f"\nNot there: {', '.join(what)}: {reason}\n" for reason, what in found.items())


def short_table(document: Document) -> str:
    """Return the README's table: the first score of each model."""
    head = ["model", "judged by", "float", "TFLite's int8 (TFLM)", EDGE]
    lines = []
    for model in document["accuracy"].values():
        score, exact = next(iter(model["float"].items()))
        forms = [form(model, SCHEME), form(model, EDGE)]
        cells = [_number(f["scores"][score]) if f else "-" for f in forms]
        wide = form(model, EDGE, "int16")
        if model["model"].startswith("Resemblyzer") and wide is not None:
            cells[1] += f" ({_number(wide['scores'][score])} with 16-bit input)"
        lines.append([model["model"], score, _number(exact), *cells])
    return table(head, lines)
