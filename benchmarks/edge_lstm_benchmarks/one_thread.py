"""Runs a benchmark that measures in its own process with one thread."""

from __future__ import annotations

import os
import subprocess
import sys

from edge_lstm_benchmarks.remote import ONE_THREAD


def rerun(module: str, arguments: list[str]) -> int | None:
    """Run a module anew where libraries would start threads, and return its exit status.

    They read these variables when they are loaded. None: this process is the one to measure in.
    """
    if all(os.environ.get(name) == value for name, value in ONE_THREAD.items()):
        return None
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=False).returncode
