"""Latency and its trustworthiness, from times made by hand; memory and packages of a process."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from edge_lstm_benchmarks.footprint import imported_packages, installed_size, normal
from edge_lstm_benchmarks.timing import (
    LEAST_ROUNDS,
    Round,
    is_stable,
    latency_of,
    median_interval,
    timing_of,
)


def rounds(*medians_us: float, share: float = 1.0) -> list[Round]:
    return [
        Round(np.full(5, int(us * 1000)), wall_ns=10_000, processor_ns=int(share * 10_000))
        for us in medians_us
    ]


def test_latency_is_over_all_calls_of_all_rounds() -> None:
    found = latency_of([Round(np.arange(1, 51) * 1000), Round(np.arange(51, 102) * 1000)])
    assert (found.min, found.p50, found.p90, found.p99, found.n) == (1.0, 51.0, 91.0, 100.0, 101)


@pytest.mark.parametrize(
    # Ranks of Conover, Practical Nonparametric Statistics: 95 % intervals of a median.
    ("count", "low", "high"),
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (15, 4, 12), (20, 6, 15), (25, 8, 18)],
)
def test_interval_of_a_median_is_between_the_ranks_of_the_binomial(
    count: int, low: int, high: int
) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, count + 1)).tolist()
    assert median_interval(values) == (low, high)


def test_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for values in rng.exponential(size=(2000, 12)):
        interval = median_interval(values.tolist())
        assert interval is not None
        held += interval[0] <= np.log(2) <= interval[1]
    # At least 95 %, less three standard deviations of 2,000 draws.
    assert held / 2000 >= 0.95 - 3 * (0.95 * 0.05 / 2000) ** 0.5


def test_too_few_rounds_are_never_stable() -> None:
    assert median_interval([5.0] * (LEAST_ROUNDS - 1)) is None
    assert not is_stable(rounds(*[5.0] * (LEAST_ROUNDS - 1)))
    assert is_stable(rounds(*[5.0] * LEAST_ROUNDS))


def test_rounds_that_differ_are_not_stable_and_are_called_noise() -> None:
    found = timing_of(rounds(10, 10, 10, 14, 14, 14, 10, 14))
    assert not found.stable
    assert found.noise == "rounds differ by 33 %"
    assert timing_of(rounds(*[10.0] * 8)).noise is None


def test_a_cpu_that_others_had_is_called_noise() -> None:
    found = timing_of(rounds(*[10.0] * 8, share=0.8))
    assert found.processor_share == pytest.approx(0.8)
    assert found.noise == "had the CPU for 80 % of the time"
    assert timing_of(rounds(*[10.0] * 8, share=0.99)).noise is None
    waiting = timing_of(rounds(*[10.0] * 8, share=0.1), waits=True)
    assert waiting.processor_share == pytest.approx(0.1)
    assert waiting.noise is None


def test_histogram_holds_every_call_and_its_edges_rise_in_equal_ratios() -> None:
    ns = np.random.default_rng(2).lognormal(9, 0.3, 5000)
    found = timing_of([Round(ns)])
    assert sum(found.counts) == 5000
    assert len(found.edges_us) == len(found.counts) + 1
    ratios = [b / a for a, b in pairwise(found.edges_us)]
    # Edges are kept to five digits.
    assert max(ratios) / min(ratios) == pytest.approx(1, abs=1e-3)


def test_peak_memory_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    kept = np.ones(30_000_000)  # 240 MB here
    code = "from edge_lstm_benchmarks.footprint import peak_memory_bytes as p; print(p())"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert kept.nbytes > 200e6
    assert 1e6 < int(said) < 150e6


def test_peak_memory_counts_what_was_given_back() -> None:
    code = (
        "from edge_lstm_benchmarks.footprint import peak_memory_bytes as p\n"
        "before = p(); big = bytearray(50_000_000); big[::4096] = b'1' * len(big[::4096])\n"
        "del big; print(p() - before)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert 40e6 < int(said) < 80e6


def test_installed_size_counts_what_a_package_requires() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    found = installed_size(frozenset(["matplotlib"]))
    assert found is not None
    size, names = found
    assert {"matplotlib", "numpy", "pillow", "python-dateutil"} <= set(names)
    alone = installed_size(frozenset(["numpy"]))
    assert alone is not None
    assert alone[1] == ("numpy",)
    assert size > alone[0] > 1e6


def test_edge_lstm_itself_and_the_standard_library_are_not_counted() -> None:
    assert installed_size(frozenset(["edge_lstm", "json", "no_such_module"])) == (0, ())
    assert {"json", "numpy"} - imported_packages() <= {"json"}
    assert normal("Foo_Bar.baz") == "foo-bar-baz"
