"""What a backend's process takes: resident memory, and the packages that it needs on disk.

Runs beside the engine, in whatever Python has it: Python 3.9 is enough.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

OURS = "edge-lstm"


def peak_memory_bytes() -> int | None:
    """Return the largest resident size of this process so far, where the system says it."""
    try:
        # ru_maxrss would start at the size of the process that started this one.
        for line in Path("/proc/self/status").read_text(encoding="utf8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def imported_packages() -> frozenset[str]:
    """Return the top-level names of all modules that are imported."""
    return frozenset(name.partition(".")[0] for name in sys.modules)


def installed_size(imports: frozenset[str]) -> tuple[int, tuple[str, ...]] | None:
    """Return the bytes on disk, and the names, of the distributions behind some imports.

    What they require, as far as it is installed and no extra, is counted with them; edge-lstm
    itself is left out. None where this Python cannot tell.
    """
    owners = getattr(importlib.metadata, "packages_distributions", None)
    if owners is None:
        return None
    by_import = owners()
    waiting = [normal(name) for top in imports for name in by_import.get(top, ())]
    needed: dict[str, int] = {}
    while waiting:
        name = waiting.pop()
        if name in needed or name == OURS:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        needed[name] = _size(distribution)
        waiting += [
            normal(re.split(r"[\s;<>=!~\[(@]", requirement, maxsplit=1)[0])
            for requirement in distribution.requires or ()
            if "extra ==" not in requirement
        ]
    return sum(needed.values()), tuple(sorted(needed))


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _size(distribution: importlib.metadata.Distribution) -> int:
    total = 0
    for file in distribution.files or ():
        try:
            total += Path(str(distribution.locate_file(file))).stat().st_size
        except OSError:  # listed, and removed since
            continue
    return total
