"""Generated C on emulated cores: bytes, instructions, flash, RAM: ``make firmware``.

Two tables are measured. *Costs*: an LSTM of random weights at four shapes, under ``edge`` and under
the arithmetic of TFLite Micro, on every core, built by zig and by gcc for speed and for size.
*Bytes*: models of every kind, random and trained, under every profile, on every core in every
emulator that has it, held to the NumPy runtime.

Counts are exact and the same on every machine, so what is kept in ``benchmarks/results`` is one
file, and a test fails where a step takes more instructions than it says.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge_lstm.errors import MissingTool
from edge_lstm.files import write_atomically
from edge_lstm.program import EDGE, PROFILES, Program
from edge_lstm_benchmarks.firmware_models import MODELS, lstm_program
from edge_lstm_benchmarks.results_page import ROOT, write_page
from edge_lstm_converters.write_c import write_c
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.inputs import random_inputs
from edge_lstm_firmware_sim.package import find_package
from edge_lstm_firmware_sim.simulate import EMULATORS, Measurement, Options, measure
from edge_lstm_firmware_sim.toolchain import COMPILERS

SCHEMA = "edge-lstm.firmware/1"
FILE = "firmware.json"
SHAPES = ((8, 16), (16, 32), (40, 64), (40, 128))
COST_PROFILES = (EDGE, "tflm")
OPTIMIZATIONS = ("-O3", "-Os")

Row = dict[str, Any]
Say = Callable[[str], None]


def costs(shapes: tuple[tuple[int, int], ...], cores: list[str], say: Say) -> Iterator[Row]:
    """Yield a row for each shape, profile, core and build."""
    for features, hidden in shapes:
        for profile in COST_PROFILES:
            program = lstm_program(features, hidden, profile)
            for core in cores:
                for compiler in COMPILERS:
                    for optimization in OPTIMIZATIONS:
                        row: Row = {
                            "shape": f"{features}x{hidden}",
                            "profile": profile,
                            "core": core,
                            "compiler": compiler,
                            "optimization": optimization,
                        }
                        options = Options(compiler, optimization)
                        row |= _measured(program, core, options)
                        say(" ".join(str(value) for value in row.values()))
                        yield row


def _measured(program: Program, core: str, options: Options) -> Row:
    """Return what a program costs on a core, or why that was not measured."""
    try:
        found = _measure(program, core, options)
    except MissingTool as missing:
        return {"skipped_reason": str(missing)}
    flash = found.footprint.flash
    return {
        "instructions": found.instructions_per_step,
        "cycles": found.cycles_per_step,
        "code": flash.code,
        "constants": flash.weights,
        "flash": flash.total,
        "ram": found.footprint.ram_bytes,
        "stack": found.stack_bytes,
        "differing_bytes": found.differing_bytes,
        "built_by": found.compiler,
        "run_by": found.emulator,
    }


def _measure(program: Program, core: str, options: Options) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        package = find_package(write_c(program, Path(folder), program.time_steps))
        return measure(package, CORES[core], random_inputs(package), options)


def conformance(models: list[str], cores: list[str], say: Say) -> Iterator[Row]:
    """Yield a row for each model, profile, core and emulator: how many bytes differ from NumPy."""
    for name in models:
        for profile in (EDGE, *PROFILES):
            program = MODELS[name](profile)
            if program is None:
                continue
            for core in cores:
                for emulator in EMULATORS:
                    if not _has(core, emulator):
                        continue
                    row: Row = {
                        "model": name,
                        "profile": profile,
                        "core": core,
                        "emulator": emulator,
                    }
                    try:
                        found = _measure(program, core, Options(emulator=emulator))
                    except MissingTool as missing:
                        row["skipped_reason"] = str(missing)
                    else:
                        row |= {
                            "steps": found.steps,
                            "bytes": found.compared_bytes,
                            "differing_bytes": found.differing_bytes,
                            "selftest_passed": found.selftest_passed,
                        }
                    say(" ".join(str(value) for value in row.values()))
                    yield row


def _has(core: str, emulator: str) -> bool:
    of = CORES[core]
    return (of.unicorn if emulator == "unicorn" else of.board) is not None


def failures(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with a document's results: bytes that differ, tests that failed."""
    wrong = []
    for row in [*document["costs"], *document["conformance"]]:
        if row.get("differing_bytes") or row.get("selftest_passed") is False:
            names = [str(row[key]) for key in ("shape", "model", "profile", "core") if key in row]
            what = f"{row['differing_bytes']} bytes differ"
            if row.get("selftest_passed") is False:
                what += ", and the package's own test fails"
            wrong.append(f"{' '.join(names)}: {what}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and render; return 1 if any byte differs."""
    parser = argparse.ArgumentParser(prog="python -m edge_lstm_benchmarks.firmware")
    parser.add_argument("--quick", action="store_true", help="one shape, two models, not kept")
    parser.add_argument("--cores", default=",".join(CORES), help="default: all")
    parser.add_argument("--folder", type=Path, default=ROOT, help="of results/ and RESULTS.md")
    given = parser.parse_args(arguments)
    cores = given.cores.split(",")
    for core in cores:
        if core not in CORES:
            parser.error(f"core {core!r}: unknown; there are {', '.join(CORES)}")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    shapes = SHAPES[:1] if given.quick else SHAPES
    models = list(MODELS)[:2] if given.quick else list(MODELS)
    document = {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "costs": list(costs(shapes, cores, say)),
        "conformance": list(conformance(models, cores, say)),
    }
    if not given.quick:
        (given.folder / "results").mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1) + "\n"
        write_atomically(given.folder / "results" / FILE, text.encode())
        write_page(given.folder)
    wrong = failures(document)
    for line in wrong:
        say(f"firmware: {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
