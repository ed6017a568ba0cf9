"""From the times of single calls, round by round, to a latency and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F64, Array
from edge_lstm.records import Latency, Timing

CONFIDENCE = 0.95
LEAST_ROUNDS = 6
"""Of fewer, not even the least and the greatest hold their median with 95 %: 1 - 2 * 2**-5."""
STABLE_WITHIN = 0.02
"""A median is stable when it is known to 2 % either way: a fifth of the 10 % that two runs of a
benchmark may be apart."""
NOISY_SPREAD = 0.10
"""Rounds that differ by more than this leave medians that another run may not give again."""
NOISY_SHARE = 0.95
"""Below this, others had the CPU for more than a twentieth of the time."""
BINS = 48


@dataclass(frozen=True)
class Round:
    """One visit of a backend.

    Args:
        ns: of each call, on the wall.
        wall_ns: of the whole visit; 0 where nobody measured it.
        processor_ns: of the process, over the same time.
    """

    ns: Array
    wall_ns: int = 0
    processor_ns: int = 0


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the confidence interval of the median, or None for fewer than ``LEAST_ROUNDS``.

    Between two order statistics, from the binomial distribution: it holds for any distribution.
    """
    count = len(values)
    if count < LEAST_ROUNDS:
        return None
    ordered = sorted(values)
    outside, rank = 0.0, 0
    while True:
        tail = outside + math.comb(count, rank) / 2**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        outside, rank = tail, rank + 1
    return ordered[rank - 1], ordered[count - rank]


def is_stable(rounds: Sequence[Round]) -> bool:
    """Return whether the median over rounds is known well enough."""
    medians = _medians_us(rounds)
    interval = median_interval(medians)
    if interval is None:
        return False
    low, high = interval
    return high - low <= 2 * STABLE_WITHIN * float(np.median(medians))


def latency_of(rounds: Sequence[Round]) -> Latency:
    """Return the latency over all calls of all rounds."""
    us = _all_us(rounds)
    p50, p90, p99 = np.percentile(us, (50, 90, 99))
    return Latency(float(us.min()), float(p50), float(p90), float(p99), len(us))


def timing_of(rounds: Sequence[Round], *, waits: bool = False) -> Timing:
    """Return how far the latency can be trusted.

    Args:
        rounds: all visits.
        waits: whether calls wait for another processor, so that an idle CPU is no disturbance.
    """
    medians = _medians_us(rounds)
    low, middle, high = np.percentile(medians, (10, 50, 90))
    spread = float((high - low) / max(middle, 1e-9))
    wall = sum(r.wall_ns for r in rounds)
    share = sum(r.processor_ns for r in rounds) / wall if wall else None
    stable = is_stable(rounds)
    edges, counts = _histogram(_all_us(rounds))
    return Timing(
        rounds=len(rounds),
        median_interval_us=median_interval(medians),
        spread=spread,
        processor_share=share,
        stable=stable,
        noise=_noise(spread, None if waits else share),
        edges_us=edges,
        counts=counts,
    )


def _noise(spread: float, share: float | None) -> str | None:
    """Return what disturbed a measurement, in words, or None."""
    found = []
    if share is not None and share < NOISY_SHARE:
        found.append(f"had the CPU for {100 * share:.0f} % of the time")
    if spread > NOISY_SPREAD:
        found.append(f"rounds differ by {100 * spread:.0f} %")
    return "; ".join(found) or None


def _medians_us(rounds: Sequence[Round]) -> list[float]:
    return [float(np.median(r.ns)) / 1000 for r in rounds]


def _all_us(rounds: Sequence[Round]) -> F64:
    return np.concatenate([r.ns for r in rounds]).astype(np.float64) / 1000


def _histogram(us: F64) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return edges in equal ratios over p0 to p99.5, and counts; the last bin has all above."""
    low = max(float(us.min()), 1e-3)
    high = max(float(np.percentile(us, 99.5)), low * 1.05)
    edges = np.geomspace(low, high, BINS + 1)
    counts, _ = np.histogram(np.clip(us, edges[0], edges[-1]), edges)
    return tuple(float(f"{e:.5g}") for e in edges), tuple(int(c) for c in counts)
