"""A report as one HTML page that needs no other file, no network and no JavaScript."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edge_lstm_benchmarks import charts

Document = dict[str, Any]

STYLE = Path(__file__).with_name("report.css")
PERCENT = ("accuracy", "f1", "mape")
"""Metrics that are shares."""
ROLES = {
    "input_gate": "c1",
    "forget_gate": "c2",
    "cell_gate": "c3",
    "output_gate": "c4",
    "cell_state": "c5",
    "output": "c6",
}
"""Signals of a recurrent layer, and their colours."""


def html_page(document: Document) -> str:
    """Return the page of a ``edge-lstm.bench/1`` document."""
    parts = [
        "<h1>edge-lstm bench</h1>",
        f'<p class="soft">{escape(_host(document["host"]))}</p>',
    ]
    for model in document["models"]:
        results = [r for r in document["results"] if r["model"] == model["name"]]
        parts += _model(model, results)
    parts += _comparison(document.get("comparison"))
    remarks = [f"<li>{escape(note)}</li>" for note in document["notes"]]
    if remarks:
        parts.append(f"<h2>Notes</h2><ul>{''.join(remarks)}</ul>")
    if document.get("command"):
        parts.append(f"<h2>Again</h2><pre>{escape(document['command'])}</pre>")
    names = ", ".join(model["name"] for model in document["models"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>edge-lstm bench: {escape(names)}</title>\n"
        f"<style>\n{STYLE.read_text(encoding='utf8')}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _host(host: Document) -> str:
    load, governor, pinned = (host.get(k) for k in ("load_average", "governor", "pinned_cpu"))
    said = [
        f"{host.get('cpu')}, {host.get('cpus')} CPUs on {host.get('cores') or 'unknown'} cores",
        str(host.get("system")),
        f"Python {host.get('python')}, NumPy {host.get('numpy')}",
        f"edge-lstm {host.get('edge_lstm')}",
        f"{host.get('threads')} thread" + ("" if pinned is None else f" pinned to CPU {pinned}"),
        *([] if load is None else [f"load {load:.2f} at the start"]),
        *([] if governor is None else [f"governor {governor}"]),
        f"clock {host.get('clock')} ({host.get('clock_cost_ns')} ns in every call)",
    ]
    return " · ".join(said)


def _model(model: Document, results: list[Document]) -> Iterator[str]:
    """Yield the sections of one model."""
    ran = [r for r in results if r["skipped_reason"] is None]
    ran.sort(key=lambda r: r["latency_us"]["p50"])
    skipped = [r for r in results if r["skipped_reason"] is not None]
    sizes = [f"{model['sequences']:,} sequences of up to {model['time_steps']} steps"]
    if model["parameters"] is not None:
        sizes.insert(0, f"{model['parameters']:,} parameters")
    scenario = ", ".join(sorted({r["scenario"] for r in results}))
    yield f"<h2>{escape(model['name'])}</h2>"
    about = f"{'; '.join(sizes)} ({model['data']}); scenario {scenario}"
    yield f'<p class="soft">{escape(about)}</p>'
    if not ran:
        yield "<p>No backend ran.</p>"
    else:
        yield from _cards(ran, skipped)
        yield from _pareto(ran)
        yield from _results_table(ran)
        yield from _latencies(ran)
        yield from _costs(ran)
    yield from _inside(model.get("analysis"))
    yield from _steps(ran)
    yield from _matrix(model.get("bit_exactness"))
    yield from _skipped(skipped)


def _cards(ran: list[Document], skipped: list[Document]) -> Iterator[str]:
    """Yield what a reader in a hurry wants to know."""
    cards = []

    def fastest(title: str, rows: list[Document]) -> None:
        if rows:
            first = rows[0]
            about = f"{charts.number(first['latency_us']['p50'])} µs a call"
            if first["real_time"] is not None:
                about += f", {charts.short(first['real_time'])} × real time"
            cards.append((title, first["backend"], about))

    fastest("fastest", ran)
    fastest("fastest in int8", [r for r in ran if r["precision"] == "int8" and not _wrong(r)])
    costs = [r for r in ran if r["precision"] == "int8" and r["accuracy"] and not _wrong(r)]
    if costs and costs[0]["accuracy"]["delta_vs_float"] is not None:
        accuracy = costs[0]["accuracy"]
        value, delta = _metric(accuracy)
        cards.append((f"{accuracy['metric']} in int8", value, f"{delta} against float"))
    held = [r for r in ran if (r["fidelity"] or {}).get("differing_bytes") is not None]
    wrong = [r["backend"] for r in held if _wrong(r)]
    if held:
        about = f"differ: {', '.join(wrong)}" if wrong else "give the bytes of their profile"
        cards.append(("bytes", f"{len(held) - len(wrong)} of {len(held)} backends", about))
    if skipped:
        cards.append(("not run", f"{len(skipped)} backends", "with their reasons below"))
    yield '<div class="cards">'
    for title, value, about in cards:
        yield (
            f'<div class="card"><span class="soft">{escape(title)}</span>'
            f'<b>{escape(value)}</b><span class="soft">{escape(about)}</span></div>'
        )
    yield "</div>"


def _wrong(result: Document) -> bool:
    return bool((result["fidelity"] or {}).get("differing_bytes"))


def _kind(result: Document) -> str:
    known = result["precision"] if result["precision"] in ("float32", "int8") else "other"
    return f"k-{known}"


def _metric(accuracy: Document | None) -> tuple[str, str]:
    """Return the metric and its difference from float, as a reader wants them."""
    if accuracy is None or accuracy["value"] is None:
        return "-", "-"
    factor, unit = (100.0, " %") if accuracy["metric"] in PERCENT else (1.0, "")
    value = factor * accuracy["value"]
    decimals = 2
    if not unit and value:
        decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    shown, delta = f"{value:.{decimals}f}{unit}", accuracy["delta_vs_float"]
    if delta is None:
        return shown, "-"
    said, interval = f"{factor * delta:+.{decimals}f}", accuracy.get("delta_interval")
    if interval is not None:
        low, high = (f"{factor * end:+.{decimals}f}" for end in interval)
        said += f" [{low}, {high}]"
    return shown, said


def _pareto(ran: list[Document]) -> Iterator[str]:
    """Yield latency against the task metric, or against the agreement with float."""
    judged = [r for r in ran if r["accuracy"] and r["accuracy"]["value"] is not None]
    by_snr = not judged
    if by_snr:
        judged = [r for r in ran if (r["fidelity"] or {}).get("snr_db") is not None]
    if not judged:
        return
    first = judged[0]["accuracy"] or {}
    title = "signal to noise against float, dB" if by_snr else first["metric"]
    factor = 100.0 if first.get("metric") in PERCENT else 1.0
    higher = by_snr or bool(first.get("higher_is_better", True))
    bubbles = []
    for r in judged:
        value: float = (r["fidelity"] or {}).get("snr_db") or 0.0
        interval = None
        if not by_snr:
            accuracy = r["accuracy"]
            value, ends = factor * accuracy["value"], accuracy.get("delta_interval")
            if ends is not None:
                in_float = accuracy["value"] - accuracy["delta_vs_float"]
                interval = (factor * (in_float + ends[0]), factor * (in_float + ends[1]))
        p50, size = r["latency_us"]["p50"], r["size"]["model_bytes"] or 0
        about = f"{r['backend']}: {charts.number(p50)} µs, {value:.6g}, {size:,} bytes"
        bubbles.append(
            charts.Bubble(r["backend"], max(p50, 1e-3), value, size, _kind(r), interval, about)
        )
    yield "<h3>Latency against accuracy</h3>"
    yield (
        "<p>Left is faster, up is better; a bubble's area is the size of the model's file. "
        f"{_legend(ran)} The dashed line joins what no other beats in both; the bars are the 95 % "
        "interval of the difference from float (paired bootstrap over sequences).</p>"
    )
    shown = "µs for one call, median"
    title += " (%)" if factor == 100.0 and not by_snr else ""
    yield f"<figure>{charts.pareto(bubbles, shown, title, higher_is_better=higher)}</figure>"


def _legend(ran: list[Document]) -> str:
    seen = dict.fromkeys(r["precision"] for r in ran)
    kinds = {p: _kind({"precision": p}) for p in seen}
    return ", ".join(f'<span class="dot {kinds[p]}"></span>{escape(p)}' for p in seen) + "."


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> str:
    """Return a table; cells are HTML already, those that bring their own ``<td`` as they are."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{classes}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _results_table(ran: list[Document]) -> Iterator[str]:
    has_rate = any(r["real_time"] is not None for r in ran)
    metric = next((r["accuracy"]["metric"] for r in ran if r["accuracy"]), None)
    has_labels = any((r["fidelity"] or {}).get("labels_same") is not None for r in ran)
    header = ["backend", "p50 µs", "p90 µs", "p99 µs", "steps/s"]
    header += ["× real time"] if has_rate else []
    header += [] if metric is None else [metric, "against float [95 %]"]
    header += ["SNR dB", *(["labels same"] if has_labels else []), "bytes differ", "checksum"]
    rows = []
    for r in ran:
        latency, fidelity = r["latency_us"], r["fidelity"] or {}
        noise = (r["timing"] or {}).get("noise")
        mark = f' <span class="bad" title="{escape(noise)}">~</span>' if noise else ""
        row = [
            f'<span class="dot {_kind(r)}"></span>{escape(r["backend"])}'
            f' <span class="soft">{escape(r["version"] or "")}</span>',
            charts.number(latency["p50"]) + mark,
            charts.number(latency["p90"]),
            charts.number(latency["p99"]),
            charts.short(r["steps_per_s"]),
        ]
        row += [charts.short(r["real_time"] or 0)] if has_rate else []
        row += [] if metric is None else [escape(text) for text in _metric(r["accuracy"])]
        row.append("-" if fidelity.get("snr_db") is None else f"{fidelity['snr_db']:.1f}")
        if has_labels:
            share = fidelity.get("labels_same")
            row.append("-" if share is None else f"{100 * share:.2f} %")
        different, total = fidelity.get("differing_bytes"), r["output_bytes"]
        shown = "-" if different is None else f"{different:,}"
        mark = "bad" if different else "soft"
        row.append(f'<span class="{mark}" title="of {total:,}">{shown}</span>')
        digits = r["output_checksum"] or "-"
        row.append(f'<code title="{escape(digits)}">{escape(digits[:6])}</code>')
        rows.append(row)
    yield "<h3>Results</h3>"
    yield _table(header, rows)
    for r in ran:
        if r["warning"]:
            warning = f"{r['backend']}: {r['warning']}"
            yield f'<p><span class="bad">warning</span> {escape(warning)}</p>'


def _latencies(ran: list[Document]) -> Iterator[str]:
    rows = [
        charts.Distribution(
            r["backend"],
            _kind(r),
            r["timing"]["edges_us"],
            r["timing"]["counts"],
            r["latency_us"]["p50"],
            r["latency_us"]["p99"],
        )
        for r in ran
        if r["timing"] and r["timing"]["counts"]
    ]
    if not rows:
        return
    yield "<h3>Latency of single calls</h3>"
    yield (
        "<p>Every timed call, in rounds that visit all backends in turns; the thick mark is the "
        "median, the thin one the 99th percentile.</p>"
    )
    yield f"<figure>{charts.distributions(rows, 'µs for one call')}</figure>"
    noisy = [f"{r['backend']}: {r['timing']['noise']}" for r in ran if r["timing"]["noise"]]
    if noisy:
        lines = "".join(f"<li>{escape(line)}</li>" for line in noisy)
        yield (
            f'<details><summary><span class="bad">~</span> {len(noisy)} of {len(ran)} backends were'
            " disturbed; measure again on a quieter machine before deciding by these</summary>"
            f"<ul>{lines}</ul></details>"
        )


def _costs(ran: list[Document]) -> Iterator[str]:
    """Yield memory, cold start and sizes as bars."""
    memory = []
    for r in ran:
        peak, base = r["memory"]["peak_rss_bytes"], r["memory"]["base_rss_bytes"]
        if peak is not None and base is not None:
            held = (
                (base / 1e6, "pale", "Python and NumPy"),
                ((peak - base) / 1e6, "full", "engine and model"),
            )
            shown = f"{peak / 1e6:.0f} (+{(peak - base) / 1e6:.1f})"
            memory.append(charts.Bar(r["backend"], held, shown))
    if memory:
        yield "<h3>Memory</h3>"
        yield (
            "<p>Largest resident size of a fresh process after its first result: Python and NumPy "
            "(pale), and what the engine and the model added.</p>"
        )
        yield f"<figure>{charts.bars(memory, 'MB')}</figure>"
    cold = []
    for r in ran:
        start = r["cold_start"]
        if start is not None:
            rest = start["total_ms"] - start["load_ms"] - start["first_ms"]
            parts = (
                (max(rest, 0.0), "pale", "starting Python and NumPy"),
                (start["load_ms"], "middle", "importing the engine and loading the model"),
                (start["first_ms"], "full", "first call"),
            )
            added = start["load_ms"] + start["first_ms"]
            shown = f"{start['total_ms']:.0f} (+{charts.number(added)})"
            cold.append(charts.Bar(r["backend"], parts, shown))
    if cold:
        yield "<h3>Cold start</h3>"
        yield (
            "<p>From the start of a process to its first result: Python and NumPy (pale), import "
            "and load, first call.</p>"
        )
        yield f"<figure>{charts.bars(cold, 'ms')}</figure>"
    rows = [
        [
            escape(r["backend"]),
            _count(r["size"]["model_bytes"]),
            "-"
            if r["size"]["package_bytes"] is None
            else f"{r['size']['package_bytes'] / 1e6:.1f}",
            f'<td class="wrap soft">{escape(", ".join(r["size"]["packages"]))}</td>',
        ]
        for r in ran
    ]
    yield "<h3>Sizes</h3>"
    yield _table(["backend", "model, bytes", "installed, MB", "packages"], rows, "prose")


def _inside(analysis: Document | None) -> Iterator[str]:
    """Yield each layer, gate and state against float, and the error over time."""
    if analysis is None or not analysis["signals"]:
        return
    yield "<h3>Inside the model</h3>"
    yield (
        f"<p>NumPy int8 under profile {escape(analysis['profile'])} against the float reference, "
        f"over {analysis['sequences']:,} sequences. Gates are compared after sigmoid or tanh.</p>"
    )
    yield _table(
        ["signal", "kind", "SNR dB", "cosine", "saturated", "share"],
        [
            [
                escape(s["name"]),
                escape(s["kind"]),
                f"{s['snr_db']:.1f}",
                f"{s['cosine']:.6f}",
                f"{s['saturated']:,} of {s['values']:,}",
                f"{100 * s['saturated'] / s['values']:.3f} %",
            ]
            for s in analysis["signals"]
        ],
    )
    layers: dict[str, list[charts.Curve]] = {}
    for s in analysis["signals"]:
        layer, _, role = s["name"].rpartition(".")
        if role in ROLES and s["error_over_time"]:
            over = [100 * error for error in s["error_over_time"]]
            curve = charts.Curve(role.replace("_", " "), ROLES[role], analysis["steps"], over)
            layers.setdefault(layer, []).append(curve)
    if layers:
        yield "<h3>Error over time</h3>"
        yield (
            "<p>At each time step, the root mean square of integers minus float, in percent of the "
            "signal's own.</p>"
        )
    for layer, rows in layers.items():
        drawing = charts.curves(rows, f"time step, layer {layer}", "error, %")
        yield f"<figure>{drawing}</figure>"


def _steps(ran: list[Document]) -> Iterator[str]:
    """Yield how many outputs are how many integers away, from the profile and from float."""
    for field, title in (
        ("steps_from_profile", "Integers away from the profile's bytes"),
        ("steps_from_float", "Integers away from the float model, rounded to the output's scale"),
    ):
        found = {
            r["backend"]: r["fidelity"][field] for r in ran if (r["fidelity"] or {}).get(field)
        }
        if not found:
            continue
        names = sorted({name for steps in found.values() for name in steps}, key=_step_order)
        rows = []
        for backend, steps in found.items():
            total = sum(steps.values())
            cells = [_heat(steps.get(name, 0), total) for name in names]
            rows.append([escape(backend), *cells])
        yield f"<h3>{title}</h3>"
        yield _table(["backend", *names], rows, "heat")


def _step_order(name: str) -> float:
    if name[0] in "<>":
        return -math.inf if name[0] == "<" else math.inf
    return int(name)


def _heat(count: int, total: int) -> str:
    share = 100 * count / total if total else 0.0
    ground = f"color-mix(in srgb, var(--float) {0.7 * share:.0f}%, transparent)"
    shown = "" if count == 0 else f"{share:.2f} %"
    return f'<td style="background:{ground}" title="{count:,} of {total:,}">{shown}</td>'


def _matrix(pairs: Document | None) -> Iterator[str]:
    """Yield which backends give the same bytes."""
    if pairs is None:
        return
    rows = []
    for backend, counts in zip(pairs["backends"], pairs["differing_bytes"], strict=True):
        cells = []
        for count in counts:
            classes = "" if count is None else ("same" if count == 0 else "differs")
            shown = "" if count is None else f"{count:,}"
            cells.append(f'<td class="{classes}">{shown}</td>')
        rows.append([escape(backend), *cells])
    yield "<h3>Bytes that differ, backend by backend</h3>"
    yield "<p>Green: every output byte is the same. Empty: the types differ.</p>"
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    rows = [[f"{n}&nbsp; {row[0]}", *row[1:]] for n, row in zip(numbers, rows, strict=True)]
    yield _table(["backend", *numbers], rows, "heat")


def _skipped(skipped: list[Document]) -> Iterator[str]:
    if not skipped:
        return
    yield "<h3>Not run</h3>"
    rows = [
        [escape(r["backend"]), f'<td class="wrap">{escape(r["skipped_reason"])}</td>']
        for r in skipped
    ]
    yield _table(["backend", "why, and what to do"], rows, "prose")


def _comparison(found: Document | None) -> Iterator[str]:
    if found is None:
        return
    yield f"<h2>Against {escape(found['base'])}</h2>"
    allowed = f"{100 * found['max_regress']:g} %"
    yield (
        f"<p>{found['rows']} rows stand in both; {len(found['worse'])} figures are worse by more"
        f" than {allowed}.</p>"
    )
    if found["worse"]:
        names = ("model", "backend", "scenario", "field", "reason")
        yield _table(names, [[escape(str(one[name])) for name in names] for one in found["worse"]])
    yield from (f"<p>{escape(note)}</p>" for note in found["notes"])
