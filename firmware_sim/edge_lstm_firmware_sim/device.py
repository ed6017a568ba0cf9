"""Devices: microcontrollers by name, from the files beside this one, and bare cores."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge_lstm.errors import MissingTool, UsageError
from edge_lstm_firmware_sim.cores import CORES, Core, core_named

FOLDER = Path(__file__).parent / "devices"
FIGURES = ("clock_hz", "flash_bytes", "ram_bytes")
SOURCED = ("core", *FIGURES)
KEYS = ("name", "aliases", *SOURCED, "note", "sources")


@dataclass(frozen=True)
class Device:
    """A microcontroller, or a bare core, which has neither clock nor memory.

    Args:
        name: as the user writes it.
        title: what it is.
        core: its CPU core.
        clock_hz: at most; None for a bare core.
        flash_bytes: for code and constants; None for a bare core.
        ram_bytes: for data; None for a bare core.
        note: what the figures leave out.
        aliases: other names.
        sources: of each figure, the data sheet that it is from.
    """

    name: str
    title: str
    core: Core
    clock_hz: int | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    note: str = ""
    aliases: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()


def device_named(name: str) -> Device:
    """Return a device by one of its names in any case, or from a ``.toml`` file of the user's.

    Raises:
        UsageError: there is none, or the file is no device file.
    """
    if name.endswith(".toml"):
        return read_device(Path(name))
    wanted = name.strip().lower()
    if wanted in CORES:
        return Device(wanted, f"bare {wanted}", core_named(wanted))
    for device in devices().values():
        if wanted in (device.name, *device.aliases):
            return device
    known = ", ".join([*CORES, *devices()])
    raise UsageError(f"device {name!r}: unknown; there are {known}, or a .toml file of your own")


@cache
def devices() -> dict[str, Device]:
    """Return every microcontroller that comes with edge-lstm, by the name of its file."""
    return {path.stem: read_device(path) for path in sorted(FOLDER.glob("*.toml"))}


def read_device(path: Path) -> Device:
    """Read a device file.

    Raises:
        UsageError: it is damaged, or a figure or its source is missing.
    """
    document = _document(path)
    unknown = set(document) - set(KEYS)
    missing = set(KEYS) - {"note", "aliases"} - set(document)
    if unknown or missing:
        wrong = [f"has no {key}" for key in sorted(missing)]
        wrong += [f"{key!r} is unknown" for key in sorted(unknown)]
        raise UsageError(f"{path}: {', '.join(wrong)}; want {', '.join(KEYS)}")
    for figure in FIGURES:
        value = document[figure]
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise UsageError(f"{path}: {figure} = {value!r}; want a positive integer")
    aliases, sources = document.get("aliases", []), document["sources"]
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise UsageError(f'{path}: aliases = {aliases!r}; want texts, as ["pico"]')
    if not isinstance(sources, dict) or set(sources) != set(SOURCED) or not all(sources.values()):
        raise UsageError(f"{path}: [sources] wants a data sheet for each of {', '.join(SOURCED)}")
    if document["core"] not in CORES:
        raise UsageError(f"{path}: core = {document['core']!r}; want one of {', '.join(CORES)}")
    return Device(
        name=path.stem,
        title=str(document["name"]),
        core=core_named(document["core"]),
        clock_hz=document["clock_hz"],
        flash_bytes=document["flash_bytes"],
        ram_bytes=document["ram_bytes"],
        note=str(document.get("note", "")),
        aliases=tuple(aliases),
        sources=tuple((figure, str(sources[figure])) for figure in SOURCED),
    )


def _document(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingTool(
                "device files need tomli on Python 3.10: pip install tomli"
            ) from error
    try:
        return tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: cannot be read: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not TOML: {' '.join(str(error).split())}") from error
