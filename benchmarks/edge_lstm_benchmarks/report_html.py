"""A report as one HTML page that needs no other file, no network and no JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from edge_lstm_benchmarks import charts
from edge_lstm_benchmarks.html_costs import cost_sections, latency_section, pareto_section
from edge_lstm_benchmarks.html_fidelity import inside_sections, matrix_section, steps_sections
from edge_lstm_benchmarks.html_parts import (
    Document,
    count_text,
    is_wrong,
    kind_class,
    metric_text,
    table,
)

STYLE = Path(__file__).with_name("report.css")


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
    ran = [r for r in results if r["latency_us"] is not None]
    ran.sort(key=lambda r: r["latency_us"]["p50"])
    counted = [r for r in results if r.get("counted") is not None]
    skipped = [r for r in results if r["skipped_reason"] is not None]
    sizes = [f"{model['sequences']:,} sequences of up to {model['time_steps']} steps"]
    if model["parameters"] is not None:
        sizes.insert(0, f"{model['parameters']:,} parameters")
    scenario = ", ".join(sorted({r["scenario"] for r in results}))
    yield f"<h2>{escape(model['name'])}</h2>"
    digits = model.get("input_checksum") or "unknown"
    about = f"{'; '.join(sizes)} ({model['data']}, checksum {digits}); scenario {scenario}"
    yield f'<p class="soft">{escape(about)}</p>'
    if not ran and not counted:
        yield "<p>No backend ran.</p>"
    if ran:
        yield from _cards(ran, skipped)
        yield from pareto_section(ran)
        yield from _results_table(ran)
        yield from latency_section(ran)
        yield from cost_sections(ran)
    yield from _counted(counted)
    yield from _places(results)
    yield from inside_sections(model.get("analysis"))
    yield from steps_sections([*ran, *counted])
    yield from matrix_section(model.get("bit_exactness"))
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

    right = [r for r in ran if not is_wrong(r)]
    in_int8 = [r for r in right if r["precision"] == "int8"]
    fastest("fastest", right)
    fastest("fastest in int8", in_int8)
    costs = [r for r in in_int8 if r["accuracy"]]
    if costs and costs[0]["accuracy"]["delta_vs_float"] is not None:
        accuracy = costs[0]["accuracy"]
        value, delta = metric_text(accuracy)
        cards.append((f"{accuracy['metric']} in int8", value, f"{delta} against float"))
    held = [r for r in ran if (r["fidelity"] or {}).get("differing_bytes") is not None]
    wrong = [r["backend"] for r in held if is_wrong(r)]
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
            f'<span class="dot {kind_class(r)}"></span>{escape(r["backend"])}'
            f' <span class="soft">{escape(r["version"] or "")}</span>',
            charts.number(latency["p50"]) + mark,
            charts.number(latency["p90"]),
            charts.number(latency["p99"]),
            charts.short(r["steps_per_s"]),
        ]
        row += [charts.short(r["real_time"] or 0)] if has_rate else []
        row += [] if metric is None else [escape(text) for text in metric_text(r["accuracy"])]
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
    yield table(header, rows)
    for r in ran:
        if r["warning"]:
            warning = f"{r['backend']}: {r['warning']}"
            yield f'<p><span class="bad">warning</span> {escape(warning)}</p>'


def _places(results: list[Document]) -> Iterator[str]:
    """Yield which parts of an engine ran what, and in what, where engines tell."""
    told = [[escape(r["backend"]), escape(r["ran_on"])] for r in results if r.get("ran_on")]
    if told:
        yield "<h3>Ran on</h3>"
        yield table(["backend", "as it says"], told, "prose")


def _share_run(result: Document) -> str:
    """Return how much of the data was run."""
    if result["output_checksum"] is None:
        return "none"
    return "all" if result["sequences"] is None else f"first {result['sequences']:,} sequences"


def _counted(rows: list[Document]) -> Iterator[str]:
    """Yield what has no clock: emulated devices, estimates."""
    if not rows:
        return
    yield "<h3>Counted, not timed</h3>"
    yield "<p>Under emulation and in estimates there is no time: what one step takes, counted.</p>"
    header = ["backend", "how", "a step", "unit", "flash, bytes", "RAM, bytes", "metric"]
    header += ["bytes differ", "over"]
    yield table(
        header,
        [
            [
                escape(r["backend"]),
                escape(r["counted"]["how"]),
                count_text(r["counted"]["per_step"]),
                escape(r["counted"]["unit"]),
                count_text(r["counted"]["flash_bytes"]),
                count_text(r["counted"]["ram_bytes"]),
                escape(metric_text(r["accuracy"])[0]),
                count_text((r["fidelity"] or {}).get("differing_bytes")),
                _share_run(r),
            ]
            for r in rows
        ],
    )


def _skipped(skipped: list[Document]) -> Iterator[str]:
    if not skipped:
        return
    yield "<h3>Not run</h3>"
    rows = [
        [escape(r["backend"]), f'<td class="wrap">{escape(r["skipped_reason"])}</td>']
        for r in skipped
    ]
    yield table(["backend", "why, and what to do"], rows, "prose")


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
        yield table(names, [[escape(str(one[name])) for name in names] for one in found["worse"]])
    yield from (f"<p>{escape(note)}</p>" for note in found["notes"])
