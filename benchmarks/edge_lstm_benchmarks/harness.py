"""Runs every backend on the same model and data, in turns, and collects the results.

Each backend has a process of its own, with one thread, pinned to one CPU; all are alive at once
and idle but one. First each gives its outputs for all the data, which accuracy and bytes are
taken from. Then each starts cold a few times, in processes that have done nothing else. Then the
rounds: in each, every backend whose median is not known well enough is visited once, in a shuffled
order, is warmed up and timed for a slice, so that a slow moment of the machine falls on all alike.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_lstm.backend import BenchModel
from edge_lstm.errors import UsageError
from edge_lstm.records import BitExactness, ModelRecord, Result
from edge_lstm.report import Report
from edge_lstm.samples import Samples
from edge_lstm_benchmarks import accuracy, select_backends
from edge_lstm_benchmarks.case import REFERENCE_FAMILY, Case, Scenario, parse_scenario
from edge_lstm_benchmarks.contestant import BenchOptions, Contestant, Standing
from edge_lstm_benchmarks.machine import describe_host

__all__ = [
    "REFERENCE_FAMILY",
    "BenchModel",
    "BenchOptions",
    "Scenario",
    "Standing",
    "parse_scenario",
    "run_bench",
]

Progress = Callable[[str, int, int], None]
CLOCK_SHARE = 0.05
"""Of a latency; half of what two runs may be apart."""


Watch = Callable[[Sequence[Standing]], None]


def run_bench(
    models: list[BenchModel],
    samples: Samples | None,
    backends: list[str] | None = None,
    scenario: str = "stream",
    progress: Progress | None = None,
    options: BenchOptions | None = None,
    watch: Watch | None = None,
) -> Report:
    """Measure every chosen backend on every model.

    Args:
        models: as the backends take them.
        samples: data for all models, with labels or targets where there are any; None: random.
        backends: names or families of BACKENDS; None: all.
        scenario: ``stream``, ``sequence`` or ``batch:N``.
        progress: called with what is being done, how much is done, and of how much.
        options: how long to measure, and what.
        watch: called with where all backends of a model are.

    Raises:
        UsageError: a name is unknown, or the data do not fit a model.
    """
    chosen, kind = select_backends(backends), parse_scenario(scenario)
    options = options or BenchOptions()
    if len({model.name for model in models}) != len(models):
        raise UsageError("models: two have the same name; give each a name of its own")
    host = describe_host()
    results: list[Result] = []
    records = []
    for model in models:
        case = Case(model, samples, kind, options.metric)
        record, found = _measure(case, chosen, options, progress, watch)
        records.append(record)
        results += found
    notes = _clock_notes(results, host["clock_cost_ns"])
    return Report(host, tuple(records), tuple(results), notes)


def _clock_notes(results: Sequence[Result], clock_ns: int) -> tuple[str, ...]:
    """Return where reading the clock is a part of the latency that shows."""
    shares = [
        f"{100 * clock_ns / (1000 * r.latency_us.p50):.0f} % of {r.backend}'s"
        for r in results
        if r.latency_us is not None and clock_ns > CLOCK_SHARE * 1000 * r.latency_us.p50
    ]
    if not shares:
        return ()
    return (f"reading the clock takes {clock_ns} ns of every call: {', '.join(shares)} median",)


def _measure(
    case: Case,
    names: list[str],
    options: BenchOptions,
    progress: Progress | None,
    watch: Watch | None,
) -> tuple[ModelRecord, list[Result]]:
    """Return what was measured, and a result for each name, in that order."""
    model = case.model.name
    contestants = [Contestant(name, case, options) for name in names]

    def say(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"{model}: {what}", done, total)
        if watch is not None:
            watch([one.standing() for one in contestants])

    def visit(one: Contestant, doing: str, *actions: Callable[[], None]) -> None:
        one.doing = doing
        say(f"{doing} of {one.result.backend}", contestants.index(one), len(contestants))
        for action in actions:
            one.attempt(action)
        one.doing = "waits"

    try:
        # All start before the first is asked, so that their imports overlap.
        for one in contestants:
            one.attempt(one.start)
        for one in contestants:
            visit(one, "outputs", one.show_outputs, one.prepare_timing)
        for one in contestants:
            visit(one, "cold start", one.start_cold)
        _time_in_turns(contestants, options, say)
        for one in contestants:
            one.attempt(one.finish)
            one.doing = "done"
        record = case.record()
        if options.inside:
            say("layers, gates and states", options.rounds, options.rounds)
            record = replace(record, analysis=case.analysis())
        say("done", options.rounds, options.rounds)
        record = replace(record, bit_exactness=_bit_exactness(contestants))
        return record, [one.result for one in contestants]
    finally:
        for one in contestants:
            one.release()
        for one in contestants:
            one.close()


def _time_in_turns(contestants: list[Contestant], options: BenchOptions, say: Progress) -> None:
    """Visit every backend in every round, until its median is stable or the time is up."""
    order = random.Random(options.seed)
    end = time.monotonic() + options.cap_s
    for number in range(options.rounds):
        left = [one for one in contestants if not one.settled]
        if not left or (number and time.monotonic() > end):
            return
        say("timing", number, options.rounds)
        for one in order.sample(left, len(left)):
            one.doing = "timing"
            one.attempt(one.time_slice)


def _bit_exactness(contestants: list[Contestant]) -> BitExactness | None:
    """Return how many bytes of each pair of backends differ, over what both ran."""
    ran = [one for one in contestants if one.runs and one.outputs is not None]
    if len(ran) < 2:
        return None
    rows = [one.case.rows(one.outputs) for one in ran if one.outputs is not None]
    return BitExactness(
        tuple(one.result.backend for one in ran),
        tuple(
            tuple(
                accuracy.differing_bytes(a[: len(b)], b[: len(a)]) if a.dtype == b.dtype else None
                for b in rows
            )
            for a in rows
        ),
    )
