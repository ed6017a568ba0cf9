"""What this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import edge_lstm
from edge_lstm.inspection import columns
from edge_lstm_benchmarks import BACKENDS, open_backend
from edge_lstm_benchmarks.machine import cpu_name, usable_cpus
from edge_lstm_benchmarks.worker import one_line

SCHEMA = "edge-lstm.doctor/1"
TOOLS = "pip install 'edge-lstm[tools]'"
FIRMWARE = "pip install 'edge-lstm[firmware]'"


class Package(NamedTuple):
    """A Python distribution, what it is for, and how to install it."""

    name: str
    purpose: str
    install: str


class Tool(NamedTuple):
    """A program on the path, what it is for, and how to install it."""

    command: str
    purpose: str
    install: str


PACKAGES = (
    Package("numpy", "everything", "pip install numpy"),
    Package("typer", "the command line", TOOLS),
    Package("rich", "progress bars", TOOLS),
    Package("onnx", "reading and writing .onnx", TOOLS),
    Package("onnxruntime", "running .onnx", TOOLS),
    Package("flatbuffers", "reading and writing .tflite", TOOLS),
    Package("ai-edge-litert", "running .tflite in LiteRT", TOOLS),
    Package("matplotlib", "pictures of demo and bench", TOOLS),
    Package("ziglang", "cross-compiling firmware", FIRMWARE),
    Package("unicorn", "emulating firmware", FIRMWARE),
    Package("pyelftools", "reading what was compiled", FIRMWARE),
    Package("tflite-micro", "running .tflite in TFLM", "pip install --pre tflite-micro"),
    Package("torch", "reading .pt2 and modules", "pip install torch"),
    Package("openvino", "running in OpenVINO", "pip install openvino"),
    Package("MNN", "running in MNN", "pip install MNN"),
    Package("ncnn", "running in ncnn", "pip install ncnn"),
    Package("tract", "running in tract", "pip install tract"),
    Package("ethos-u-vela", "compiling for an Ethos-U NPU", "pip install ethos-u-vela"),
)
# Beside the packages above, which need none of them.
PROGRAMS = (
    Tool("gcc", "C compiler of this machine", "Debian: apt install gcc"),
    Tool("arm-none-eabi-gcc", "C compiler for Cortex-M", "Debian: apt install gcc-arm-none-eabi"),
    Tool(
        "riscv64-unknown-elf-gcc",
        "C compiler for RISC-V",
        "Debian: apt install gcc-riscv64-unknown-elf",
    ),
    Tool("qemu-system-arm", "boards, and Helium", "Debian: apt install qemu-system-arm"),
)


def examine() -> dict[str, Any]:
    """Return what there is, as one JSON document."""
    return {
        "schema": SCHEMA,
        "edge-lstm": edge_lstm.__version__,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpus": len(usable_cpus()) or None,
        "packages": [_examine_package(package) for package in PACKAGES],
        "backends": [_examine_backend(name) for name in BACKENDS],
        "programs": [_examine_program(tool) for tool in PROGRAMS],
    }


def examine_text(findings: dict[str, Any]) -> str:
    """Return ``examine()``'s findings as tables."""
    missing = [p for p in findings["packages"] if p["version"] is None]
    blocked = [b for b in findings["backends"] if not b["available"]]
    lines = [
        f"edge-lstm {findings['edge-lstm']}, Python {findings['python']}"
        f" ({findings['implementation']}), {findings['system']}",
        f"{findings['cpu']}, {findings['cpus'] or 'an unknown number of'} CPUs",
        "",
        *_table(
            ("package", "version", "for", "to get it"),
            [
                (p["name"], p["version"] or "-", p["for"], p["install"] or "")
                for p in findings["packages"]
            ],
        ),
        "",
        *_table(
            ("backend", "version", "runs here", ""),
            [
                (
                    b["name"],
                    b["version"] or "-",
                    "yes" if b["available"] else "no",
                    b["reason"] or "",
                )
                for b in findings["backends"]
            ],
        ),
        "",
        *_table(
            ("program", "version", "for (optional)", "to get it"),
            [
                (t["command"], t["version"] or "-", t["for"], t["install"] or "")
                for t in findings["programs"]
            ],
        ),
        "",
        f"{len(findings['packages']) - len(missing)} of {len(findings['packages'])} packages,"
        f" {len(findings['backends']) - len(blocked)} of {len(findings['backends'])} backends",
    ]
    return "\n".join(lines)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [line.rstrip() for line in columns([header, *rows])]


def _examine_package(package: Package) -> dict[str, Any]:
    try:
        version = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return {
        "name": package.name,
        "version": version,
        "for": package.purpose,
        "install": None if version else package.install,
    }


def _examine_backend(name: str) -> dict[str, Any]:
    version = None
    try:
        backend = open_backend(name)
        reason = backend.available()
        # The version of an engine in another Python is known there only.
        if reason is None and backend.python() == sys.executable:
            version = backend.version()
    except Exception as error:  # a broken engine is a finding, not an end
        reason = one_line(error)
    return {"name": name, "available": reason is None, "version": version, "reason": reason}


def _examine_program(tool: Tool) -> dict[str, Any]:
    version = None
    path = shutil.which(tool.command)
    if path is not None:
        version = _program_version(path)
    return {
        "command": tool.command,
        "version": version,
        "for": tool.purpose,
        "install": None if version else tool.install,
    }


def _program_version(path: str) -> str:
    """Return the first number with dots that the program says about itself."""
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start: {one_line(error)}"
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "unknown version"
