"""Charts as SVG text: readable without JavaScript, coloured by the page's CSS, light and dark.

Coordinates are in pixels of a drawing ``WIDTH`` wide, y downwards; the page scales it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860.0
LABEL = 190.0
"""Room for the names at the left of rows."""
CHARACTER = 6.7
"""Pixels of a character at 12 px, rounded up: labels must not touch."""

WRONG = "k-wrong"
"""CSS class of what gives wrong bytes."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Scale:
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 8) -> list[float]:
        """Return round values inside."""
        if self.is_log:
            return self._log_ticks(most)
        raw = (self.high - self.low) / max(most - 1, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(k * power for k in (1, 2, 5, 10) if k * power >= raw)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            every = [k * 10.0**p for p in powers for k in steps]
            found = [t for t in every if self.low * 0.999 <= t <= self.high * 1.001]
            if len(found) <= most:
                break
        return found


def log_scale(values: Sequence[float], start: float, end: float, room: float = 1.15) -> Scale:
    """Return a logarithmic scale with some room at both ends."""
    return Scale(min(values) / room, max(values) * room, start, end, True)


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def short(value: float) -> str:
    """Return three digits and a letter for thousands, as a rate is compared at a glance."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{number(value / size)}{letter}"
    return number(value)


def tick_label(value: float) -> str:
    """Return a round value as short as it can be."""
    return f"{value:,.10g}" if abs(value) >= 1 else f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, classes: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def _x_axis(scale: Scale, top: float, bottom: float, title: str) -> list[str]:
    parts = []
    for tick in scale.ticks():
        x = scale(tick)
        parts += [
            _line(x, top, x, bottom, "grid"),
            _text(x, bottom + 16, tick_label(tick), "tick", "middle"),
        ]
    parts.append(_text((scale.start + scale.end) / 2, bottom + 34, title, "axis", "middle"))
    return parts


def _y_axis(scale: Scale, left: float, right: float, shown: Callable[[float], str]) -> list[str]:
    parts = []
    for tick in scale.ticks(6):
        y = scale(tick)
        parts += [
            _line(left, y, right, y, "grid"),
            _text(left - 8, y + 4, shown(tick), "tick", "end"),
        ]
    return parts


@dataclass(frozen=True)
class Bubble:
    """One point of the Pareto plot.

    Args:
        label: drawn beside it.
        x: latency, above 0.
        y: accuracy.
        area: the size of the model.
        kind: CSS class of its colour.
        interval: of ``y``, or None.
        title: shown when pointed at.
    """

    label: str
    x: float
    y: float
    area: float
    kind: str
    interval: tuple[float, float] | None
    title: str


def pareto_front(bubbles: Sequence[Bubble], *, higher_is_better: bool) -> list[Bubble]:
    """Return those that no other beats in both, fastest first.

    What is less than a thousandth of the drawing better is not better.
    """
    sign = 1.0 if higher_is_better else -1.0
    least = 1e-3 * (max(b.y for b in bubbles) - min(b.y for b in bubbles))
    front: list[Bubble] = []
    for one in sorted(bubbles, key=lambda b: (b.x, -sign * b.y)):
        if not front or sign * (one.y - front[-1].y) > least:
            front.append(one)
    return front


def pareto(bubbles: Sequence[Bubble], x_title: str, y_title: str, *, higher_is_better: bool) -> str:
    """Return latency against accuracy: left is fast, up is good, a bubble's area the size."""
    left, right, top = 86.0, WIDTH - 14, 34.0
    bottom = 380.0 + 10 * max(0, len(bubbles) - 12)  # room for more names
    ends = [y for b in bubbles for y in (b.y, *(b.interval or ()))]
    low, high = min(ends), max(ends)
    pad = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    worst, best = (low - pad, high + pad) if higher_is_better else (high + pad, low - pad)
    y = Scale(low - pad, high + pad, *((bottom, top) if worst < best else (top, bottom)))
    x = log_scale([b.x for b in bubbles], left, right, 1.25)
    most = max(b.area for b in bubbles) or 1.0
    radii = [max(4.5, 17 * math.sqrt(b.area / most)) for b in bubbles]
    span = abs(y.high - y.low)
    decimals = max(0, 1 - math.floor(math.log10(span))) if span > 0 else 2
    parts = _x_axis(x, top, bottom, x_title)
    parts += _y_axis(y, left, right, lambda value: f"{value:.{decimals}f}")
    parts.append(_text(left - 60, top - 14, f"{y_title} (up is better)", "axis"))
    front = pareto_front(
        [b for b in bubbles if b.kind != WRONG] or bubbles, higher_is_better=higher_is_better
    )
    corners = [(x(front[0].x), bottom)]
    for one in front:
        corners += [(x(one.x), corners[-1][1]), (x(one.x), y(one.y))]
    corners.append((right, corners[-1][1]))
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    parts.append(f'<polyline points="{path}" class="front"/>')
    boxes: list[Box] = []
    for bubble, radius in zip(bubbles, radii, strict=True):
        cx, cy = x(bubble.x), y(bubble.y)
        boxes.append((cx - radius, cy - radius, cx + radius, cy + radius))
        if bubble.interval is not None:
            parts.append(_line(cx, y(bubble.interval[0]), cx, y(bubble.interval[1]), "whisker"))
    # The large ones first, so that none hides another.
    for k in sorted(range(len(bubbles)), key=lambda k: -radii[k]):
        bubble = bubbles[k]
        parts.append(
            f'<circle cx="{x(bubble.x):.1f}" cy="{y(bubble.y):.1f}" r="{radii[k]:.1f}"'
            f' class="bubble {bubble.kind}"><title>{escape(bubble.title)}</title></circle>'
        )
    frame = (left, top, right, bottom)
    names = {one.label for one in front}
    for bubble, radius in sorted(zip(bubbles, radii, strict=True), key=lambda pair: pair[0].x):
        classes = "name strong" if bubble.label in names else "name"
        at = x(bubble.x), y(bubble.y)
        box, end = place(bubble.label, at, radius, boxes, frame)
        parts += [] if end is None else [_line(*at, *end, "leader")]
        parts.append(_text(box[0], box[3] - 3, bubble.label, classes))
    return _svg(bottom + 44, f"{y_title} against {x_title}", parts)


def place(
    label: str, at: tuple[float, float], radius: float, boxes: list[Box], frame: Box
) -> tuple[Box, tuple[float, float] | None]:
    """Return where a bubble's label hides least, and the end of a line to it if it is far.

    Args:
        label: in 12 px.
        at: the middle of the bubble.
        radius: of the bubble.
        boxes: of all bubbles and of the labels so far; the new one is added.
        frame: to stay inside of.
    """
    width, height = len(label) * CHARACTER, 14.0
    best: tuple[float, Box] | None = None
    for ring in range(14):
        distance = radius + 4 + 13 * ring
        for turn in range(16):
            angle = turn * math.pi / 8
            x, y = at[0] + distance * math.cos(angle), at[1] + distance * math.sin(angle)
            start = x if math.cos(angle) > 0.3 else x - width
            if abs(math.cos(angle)) <= 0.3:
                start = x - width / 2
            box = (start, y - height / 2, start + width, y + height / 2)
            beyond = (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3])
            outside = sum(max(0.0, d) for d in beyond)
            cost = distance + 50 * outside + sum(_overlap(box, other) for other in boxes)
            if best is None or cost < best[0]:
                best = cost, box
    assert best is not None
    box = best[1]
    boxes.append(box)
    nearest = min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3])
    return box, nearest if math.dist(nearest, at) > radius + 10 else None


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return 30 + 2 * width * height if width > 0 and height > 0 else 0.0


@dataclass(frozen=True)
class Distribution:
    """One row of latencies: a histogram with its median and 99th percentile."""

    label: str
    kind: str
    edges: Sequence[float]
    counts: Sequence[int]
    p50: float
    p99: float


def distributions(rows: Sequence[Distribution], x_title: str) -> str:
    """Return a histogram for each row over one logarithmic axis."""
    step, top, left, right = 34.0, 10.0, LABEL, WIDTH - 90
    bottom = top + step * len(rows) + 6
    x = log_scale([e for row in rows for e in (*row.edges, row.p99)], left, right, 1.05)
    parts = _x_axis(x, top, bottom, x_title)
    for number_of_row, row in enumerate(rows):
        base = top + step * (number_of_row + 1)
        most = max(row.counts) or 1
        corners = [(x(row.edges[0]), base)]
        for k, count in enumerate(row.counts):
            height = base - (step - 6) * count / most
            corners += [(x(row.edges[k]), height), (x(row.edges[k + 1]), height)]
        corners.append((x(row.edges[-1]), base))
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        parts += [
            f'<polygon points="{path}" class="area {row.kind}"/>',
            _line(left, base, right, base, "base"),
            _line(x(row.p50), base - step + 8, x(row.p50), base, "median"),
            _line(x(row.p99), base - 8, x(row.p99), base, "p99"),
            _text(left - 10, base - 4, row.label, "name", "end"),
            _text(right + 10, base - 4, f"{number(row.p50)} µs", "value"),
        ]
    return _svg(bottom + 44, f"distribution of {x_title}", parts)


@dataclass(frozen=True)
class Bar:
    """One row of bars: parts that add up, each with its CSS class and what it is."""

    label: str
    parts: Sequence[tuple[float, str, str]]
    value: str


def bars(rows: Sequence[Bar], x_title: str) -> str:
    """Return horizontal stacked bars from zero."""
    step, top, left, right = 24.0, 10.0, LABEL, WIDTH - 110
    bottom = top + step * len(rows) + 4
    most = max((sum(part[0] for part in row.parts) for row in rows), default=1.0) or 1.0
    x = Scale(0.0, most * 1.02, left, right)
    parts = _x_axis(x, top, bottom, x_title)
    for number_of_row, row in enumerate(rows):
        y = top + step * number_of_row + 5
        start = 0.0
        for value, kind, what in row.parts:
            parts.append(
                f'<rect x="{x(start):.1f}" y="{y:.1f}" width="{x(start + value) - x(start):.1f}"'
                f' height="{step - 8:g}" class="bar {kind}"><title>{escape(what)}</title></rect>'
            )
            start += value
        parts.append(_text(left - 10, y + 12, row.label, "name", "end"))
        parts.append(_text(x(start) + 6, y + 12, row.value, "value"))
    return _svg(bottom + 44, x_title, parts)


@dataclass(frozen=True)
class Curve:
    """One line of a chart over time."""

    label: str
    kind: str
    x: Sequence[float]
    y: Sequence[float]


def curves(rows: Sequence[Curve], x_title: str, y_title: str) -> str:
    """Return lines over a common axis from zero, each with its name at its end."""
    left, right, top, bottom = 64.0, WIDTH - 150, 30.0, 250.0
    most = max((max(row.y) for row in rows), default=1.0) or 1.0
    steps = [value for row in rows for value in row.x]
    x = Scale(min(steps), max(max(steps), min(steps) + 1), left, right)
    y = Scale(0.0, most * 1.08, bottom, top)
    parts = [*_x_axis(x, top, bottom, x_title), *_y_axis(y, left, right, tick_label)]
    parts.append(_text(left - 46, top - 12, y_title, "axis"))
    ends: list[float] = []
    for row in sorted(rows, key=lambda row: row.y[-1]):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(row.x, row.y, strict=True))
        end = y(row.y[-1]) + 4
        # From the lowest up, so that a name moves only away from the axis.
        end = min(end, ends[-1] - 14) if ends else end
        ends.append(end)
        parts += [
            f'<polyline points="{path}" class="curve {row.kind}"><title>{escape(row.label)}</title>'
            "</polyline>",
            _line(x(row.x[-1]), y(row.y[-1]), right + 10, end - 4, "leader"),
            _text(right + 14, end, row.label, f"name {row.kind}"),
        ]
    return _svg(bottom + 44, f"{y_title} over {x_title}", parts)
