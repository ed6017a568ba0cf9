"""What the numbers were taken on."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("model name", "hardware", "cpu model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cpus() -> list[int]:
    """Return the CPUs that this process may use, or an empty list where the system hides them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return []


def timing_cpu() -> int | None:
    """Return the CPU that backends are pinned to: the last, since most else runs on the first."""
    cpus = usable_cpus()
    return cpus[-1] if cpus else None


def clock_cost_ns() -> int:
    """Return the least time between two readings of the clock; every latency includes it."""
    readings = [time.perf_counter_ns() for _ in range(1000)]
    return int(np.diff(readings).min())


def describe_host() -> dict[str, Any]:
    """Return the machine, the system and the conditions of a run."""
    return {
        "cpu": cpu_name(),
        "cpus": len(usable_cpus()) or os.cpu_count(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "numpy": np.__version__,
        "threads": 1,
        "pinned_cpu": timing_cpu(),
        "clock": "time.perf_counter_ns",
        "clock_cost_ns": clock_cost_ns(),
    }
