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

from edge_lstm.arrays import Array
from edge_lstm.errors import MissingTool
from edge_lstm.files import write_atomically
from edge_lstm.program import EDGE, PROFILES, Program
from edge_lstm_benchmarks import firmware_host
from edge_lstm_benchmarks.firmware_models import MODELS, lstm_program, trained_samples
from edge_lstm_benchmarks.results_page import ROOT, write_page
from edge_lstm_converters.write_c import write_c
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.inputs import differing_bytes, random_inputs, sequences_of
from edge_lstm_firmware_sim.package import Package, find_package
from edge_lstm_firmware_sim.simulate import EMULATORS, Measurement, Options, measure
from edge_lstm_firmware_sim.toolchain import COMPILERS

SCHEMA = "edge-lstm.firmware/1"
FILE = "firmware.json"
SHAPES = ((8, 16), (16, 32), (40, 64), (40, 128))
COST_PROFILES = (EDGE, "tflm")
# The other profiles, which differ from tflm in their gates alone, at the ends of SHAPES.
EXACT_CORE, EXACT_PROFILES = "cortex-m4", tuple(p for p in PROFILES if p not in COST_PROFILES)
OPTIMIZATIONS = ("-O3", "-Os")
PARTS = ("costs", "conformance")

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


def _measure(program: Program, core: str, options: Options, model: str = "") -> Measurement:
    with _package(program) as package:
        return measure(package, CORES[core], _inputs(package, model), options)


def _inputs(package: Package, model: str) -> list[Array]:
    """Return random sequences, and test data for a trained model."""
    samples = trained_samples(model)
    return random_inputs(package) + ([] if samples is None else sequences_of(package, samples))


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
        | _compared(program, model, core, emulator)
        for core, emulator in places
    ]


def _has(core: str, emulator: str) -> bool:
    of = CORES[core]
    return (of.unicorn if emulator == "unicorn" else of.board) is not None


def _compared(program: Program, model: str, core: str, emulator: str) -> Row:
    """Return how many bytes differ in one place, or why it was not run."""
    try:
        if core != "host":
            found = _measure(program, core, Options(emulator=emulator), model)
            compared, differing = found.compared_bytes, found.differing_bytes
            steps, passed = found.steps, found.selftest_passed
        else:
            with _package(program) as package:
                sequences = _inputs(package, model)
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
    given = _given(arguments)
    cores: list[str] = given.cores
    shapes = SHAPES[:1] if given.quick else SHAPES
    models = list(MODELS)[:2] if given.quick else list(MODELS)
    calls: dict[str, tuple[Callable[..., list[Row]], list[tuple[Any, ...]]]] = {
        "costs": (costs, _builds(shapes, cores)),
        "conformance": (conformance, [(m, p, cores) for m in models for p in (EDGE, *PROFILES)]),
    }
    document: dict[str, Any] = {}
    if given.only:
        document = json.loads((given.folder / "results" / FILE).read_text(encoding="utf8"))
    for part in [given.only] if given.only else PARTS:
        document[part] = run(*calls[part], given.workers)
    document["schema"] = SCHEMA
    document["date"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    if not given.quick:
        _keep(given.folder, document)
        write_page(given.folder)
    wrong = failures(document)
    for line in wrong:
        print(f"firmware: {line}", file=sys.stderr)
    return int(bool(wrong))


def _builds(
    shapes: tuple[tuple[int, int], ...], cores: list[str]
) -> list[tuple[tuple[int, int], str, str]]:
    """Return the arguments of ``costs``."""
    builds = [(shape, p, core) for shape in shapes for p in COST_PROFILES for core in cores]
    if EXACT_CORE in cores:
        ends = dict.fromkeys((shapes[0], shapes[-1]))
        builds += [(shape, p, EXACT_CORE) for shape in ends for p in EXACT_PROFILES]
    return builds


def _given(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edge_lstm_benchmarks.firmware")
    parser.add_argument("--quick", action="store_true", help="one shape, two models, not kept")
    parser.add_argument("--only", choices=PARTS, help="the other part stays as it is kept")
    parser.add_argument("--cores", default=",".join(CORES), help="default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--folder", type=Path, default=ROOT, help="of results/ and RESULTS.md")
    given = parser.parse_args(arguments)
    given.cores = given.cores.split(",")
    for core in given.cores:
        if core not in CORES:
            parser.error(f"core {core!r}: unknown; there are {', '.join(CORES)}")
    if given.only and not (given.folder / "results" / FILE).is_file():
        parser.error(f"--only {given.only}: nothing is kept in {given.folder} yet; measure all")
    return given


def _keep(folder: Path, document: dict[str, Any]) -> None:
    """Write a document, one row a line."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    heads = [f'"{key}": {json.dumps(document[key])}' for key in ("schema", "date")]
    for part in PARTS:
        rows = ",\n  ".join(json.dumps(row) for row in document[part])
        heads.append(f'"{part}": [\n  {rows}\n ]')
    text = "{\n " + ",\n ".join(heads) + "\n}\n"
    write_atomically(folder / "results" / FILE, text.encode())


if __name__ == "__main__":
    sys.exit(main())
