"""What the numbers were taken on."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import edge_lstm


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


def core_count() -> int | None:
    """Return the processor's cores; two CPUs of one core share it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf8")
    except OSError:
        return None
    places = set()
    for block in text.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        if "core id" in fields:
            places.add((fields.get("physical id"), fields["core id"]))
    return len(places) or None


def governor(cpu: int | None) -> str | None:
    """Return how the system sets a CPU's clock, where it says so."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
    try:
        return path.read_text(encoding="utf8").strip()
    except OSError:
        return None


def load_average() -> float | None:
    """Return how many processes wanted a CPU over the last minute, where the system says it."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def clock_cost_ns() -> int:
    """Return the least time between two readings of the clock; every latency includes it."""
    readings = [time.perf_counter_ns() for _ in range(1000)]
    return int(np.diff(readings).min())


def describe_host() -> dict[str, Any]:
    """Return the machine, the system and the conditions of a run."""
    return {
        "cpu": cpu_name(),
        "cpus": len(usable_cpus()) or os.cpu_count(),
        "cores": core_count(),
        "governor": governor(timing_cpu()),
        "load_average": load_average(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "numpy": np.__version__,
        "edge_lstm": edge_lstm.__version__,
        "threads": 1,
        "pinned_cpu": timing_cpu(),
        "clock": "time.perf_counter_ns",
        "clock_cost_ns": clock_cost_ns(),
    }
