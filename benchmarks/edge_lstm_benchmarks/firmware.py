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
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge_lstm.errors import MissingTool
from edge_lstm.files import write_atomically
from edge_lstm.program import EDGE, PROFILES, Program
from edge_lstm_benchmarks import firmware_host
from edge_lstm_benchmarks.firmware_models import MODELS, lstm_program
from edge_lstm_benchmarks.results_page import ROOT, write_page
from edge_lstm_converters.write_c import write_c
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.inputs import differing_bytes, random_inputs
from edge_lstm_firmware_sim.package import Package, find_package
from edge_lstm_firmware_sim.simulate import EMULATORS, Measurement, Options, measure
from edge_lstm_firmware_sim.toolchain import COMPILERS

SCHEMA = "edge-lstm.firmware/1"
FILE = "firmware.json"
SHAPES = ((8, 16), (16, 32), (40, 64), (40, 128))
COST_PROFILES = (EDGE, "tflm")
OPTIMIZATIONS = ("-O3", "-Os")

Row = dict[str, Any]


def costs(shape: tuple[int, int], profile: str, core: str) -> list[Row]:
    """Return a row for each build of an LSTM."""
    features, hidden = shape
    program = lstm_program(features, hidden, profile)
    about: Row = {"shape": f"{features}x{hidden}", "profile": profile, "core": core}
    return [
        about
        | {"compiler": compiler, "optimization": optimization}
        | _measured(program, core, Options(compiler, optimization))
        for compiler in COMPILERS
        for optimization in OPTIMIZATIONS
    ]


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
    with _package(program) as package:
        return measure(package, CORES[core], random_inputs(package), options)


@contextmanager
def _package(program: Program) -> Iterator[Package]:
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        yield find_package(write_c(program, Path(folder), program.time_steps))


def conformance(model: str, profile: str, cores: list[str]) -> list[Row]:
    """Return a row for each place: how many bytes differ from NumPy.

    Places are this machine, and each core in each emulator that has it.
    """
    program = MODELS[model](profile)
    if program is None:
        return []
    places = [("host", "none")]
    places += [(core, emulator) for core in cores for emulator in EMULATORS if _has(core, emulator)]
    return [
        {"model": model, "profile": profile, "core": core, "emulator": emulator}
        | _compared(program, core, emulator)
        for core, emulator in places
    ]


def _has(core: str, emulator: str) -> bool:
    of = CORES[core]
    return (of.unicorn if emulator == "unicorn" else of.board) is not None


def _compared(program: Program, core: str, emulator: str) -> Row:
    """Return how many bytes differ in one place, or why it was not run."""
    try:
        if core != "host":
            found = _measure(program, core, Options(emulator=emulator))
            compared, differing = found.compared_bytes, found.differing_bytes
            steps, passed = found.steps, found.selftest_passed
        else:
            with _package(program) as package:
                sequences = random_inputs(package)
                execution = firmware_host.execute(package, sequences)
                compared = sum(y.nbytes for y in execution.outputs)
                differing = differing_bytes(package, sequences, execution)
                steps, passed = sum(execution.steps), execution.selftest
    except MissingTool as missing:
        return {"skipped_reason": str(missing)}
    return {
        "steps": steps,
        "bytes": compared,
        "differing_bytes": differing,
        "selftest_passed": passed,
    }


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


def run(
    function: Callable[..., list[Row]], calls: list[tuple[Any, ...]], workers: int
) -> list[Row]:
    """Return the rows of every call, in order; each is said as it is there."""
    rows = []
    with ExitStack() as stack:
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, context))
            found = pool.map(function, *zip(*calls, strict=True))
        else:
            found = (function(*call) for call in calls)
        for some in found:
            rows += some
            for row in some:
                print(*row.values(), file=sys.stderr, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and render; return 1 if any byte differs."""
    parser = argparse.ArgumentParser(prog="python -m edge_lstm_benchmarks.firmware")
    parser.add_argument("--quick", action="store_true", help="one shape, two models, not kept")
    parser.add_argument("--cores", default=",".join(CORES), help="default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--folder", type=Path, default=ROOT, help="of results/ and RESULTS.md")
    given = parser.parse_args(arguments)
    cores = given.cores.split(",")
    for core in cores:
        if core not in CORES:
            parser.error(f"core {core!r}: unknown; there are {', '.join(CORES)}")
    shapes = SHAPES[:1] if given.quick else SHAPES
    models = list(MODELS)[:2] if given.quick else list(MODELS)
    builds = [(shape, p, core) for shape in shapes for p in COST_PROFILES for core in cores]
    checks = [(model, p, cores) for model in models for p in (EDGE, *PROFILES)]
    document = {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "costs": run(costs, builds, given.workers),
        "conformance": run(conformance, checks, given.workers),
    }
    if not given.quick:
        (given.folder / "results").mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1) + "\n"
        write_atomically(given.folder / "results" / FILE, text.encode())
        write_page(given.folder)
    wrong = failures(document)
    for line in wrong:
        print(f"firmware: {line}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
