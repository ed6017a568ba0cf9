"""Our runtimes, in NumPy and compiled, against the engines, at seven shapes: ``make bench``.

The models are random: weights uniform within +-1/sqrt(hidden), the forget bias 1 higher, inputs
N(0, 1), calibrated with carried state. Each engine has a process of its own, one thread, all on
one CPU; in a round each is visited once, in shuffled order, is warmed up and timed for a slice.
A figure is the median over rounds of a slice's mean of processor time, which equals the time on
the wall while nothing else uses the CPU; the time on the wall is kept too. Before that, each
engine's outputs are compared: int8 with the bytes of its profile, float with the float64
reference.

Results are kept for each machine in ``benchmarks/results``, and ``benchmarks/RESULTS.md`` is made
from them.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import platform
import random
import re
import statistics
import sys
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import F32, Array
from edge_lstm.backend import Backend, BenchModel, CallShape, bench_model
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Gate, Layer, Lstm
from edge_lstm.errors import EdgeLstmError
from edge_lstm.files import write_atomically
from edge_lstm.program import EDGE
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_benchmarks import BACKENDS, open_backend
from edge_lstm_benchmarks.bytes_bound import bound_of
from edge_lstm_benchmarks.machine import cpu_name, describe_host, timing_cpu
from edge_lstm_benchmarks.native_costs import native_costs
from edge_lstm_benchmarks.remote import Worker, load_session
from edge_lstm_benchmarks.results_page import ROOT, write_page
from edge_lstm_benchmarks.runtimes_report import GOALS
from edge_lstm_benchmarks.worker import one_line

SHAPES: dict[str, tuple[int, int, int]] = {
    "8x16": (8, 16, 1),
    "16x32": (16, 32, 1),
    "40x64": (40, 64, 1),
    "40x128": (40, 128, 1),
    "64x256": (64, 256, 1),
    "40x64x2": (40, 64, 2),
    "40x256x3": (40, 256, 3),
}
"""Input size, hidden size, layers."""


@dataclass(frozen=True)
class Mode:
    """How a model is called.

    Args:
        batch_size: rows of a call.
        time_steps: steps of a call; 1: streaming, through ``step``.
        calls: different calls that the timed loop goes through.
    """

    batch_size: int
    time_steps: int
    calls: int

    @property
    def stepwise(self) -> bool:
        """Whether a call is one step with carried state."""
        return self.time_steps == 1


MODES: dict[str, Mode] = {
    "stream": Mode(1, 1, 64),
    "T100": Mode(1, 100, 4),
    "T1000": Mode(1, 1000, 2),
    "batch32": Mode(32, 20, 2),
    "batch256": Mode(256, 20, 1),
    "batch32xT100": Mode(32, 100, 1),
}


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Args:
        backend: its name in BACKENDS.
        target: another class of the same backend.
        modes: where it takes part; empty: in all.
        time_major: it is fed [time, batch, features].
    """

    backend: str
    target: str | None = None
    modes: tuple[str, ...] = ()
    time_major: bool = False


_BACKENDS = "edge_lstm_benchmarks.backends"
_C_HOST = f"{_BACKENDS}.c_host"
_SHORT = tuple(mode for mode in MODES if mode != "batch32xT100")
_NO_BATCH = ("stream", "T100")
_NO_THOUSAND = tuple(mode for mode in MODES if mode != "T1000")
PEERS: dict[str, Peer] = {
    "numpy-int8:litert": Peer("numpy-int8:litert", modes=_SHORT),
    "numpy-int8:tflm": Peer("numpy-int8:tflm", modes=_SHORT),
    "numpy-int8:edge": Peer("numpy-int8:edge", modes=_SHORT),
    "numpy-float": Peer("numpy-float", modes=_SHORT),
    "c-host:edge": Peer("c-host:edge"),
    "c-host:litert": Peer("c-host:litert", modes=_NO_BATCH),
    "c-host:tflm": Peer("c-host:tflm", modes=_NO_BATCH),
    "c-host:ctypes": Peer("c-host:edge", f"{_C_HOST}:CHostCtypes", ("stream",)),
    "c-host:portable": Peer("c-host:edge", f"{_C_HOST}:CHostPortable", ("stream",)),
    "c-host:portable-native": Peer("c-host:edge", f"{_C_HOST}:CHostPortableNative", ("stream",)),
    "litert": Peer("litert", modes=_SHORT),
    "litert-time-major": Peer(
        "litert", f"{_BACKENDS}.litert:LiteRtTimeMajor", ("batch32", "batch256"), True
    ),
    "litert-float": Peer("litert-float", modes=_SHORT),
    "tflm": Peer("tflm", modes=_NO_BATCH),
    "onnxruntime": Peer("onnxruntime"),
    "onnxruntime-run": Peer("onnxruntime", f"{_BACKENDS}.onnxruntime:OnnxRuntimeRun", ("stream",)),
    "onnxruntime-dynamic-int8": Peer("onnxruntime-dynamic-int8", modes=_NO_THOUSAND),
    "openvino": Peer("openvino", modes=_NO_THOUSAND),
    "openvino:bf16": Peer("openvino:bf16", modes=_NO_THOUSAND),
    "tflite-runtime": Peer("tflite-runtime", modes=_NO_BATCH),
}
"""In streaming ``onnxruntime`` is IO binding and ``onnxruntime-run`` is ``session.run``."""


@dataclass(frozen=True)
class Options:
    """How long to measure."""

    rounds: int = 21
    least_rounds: int = 11
    slice_ms: float = 18.0
    warm_ms: float = 2.0
    cap_s: float = 40.0
    answer_limit_s: float = 180.0


@functools.cache
def random_model(shape: str) -> BenchModel:
    """Return the model of a shape, the same on every machine."""
    features, hidden, count = SHAPES[shape]
    rng = np.random.default_rng(20261123)
    bound = hidden**-0.5

    def values(*size: int) -> F32:
        return rng.uniform(-bound, bound, size).astype(np.float32)

    layers: list[Layer] = []
    size = features
    for number in range(count):
        i, f, g, o = (
            Gate(values(hidden, size), values(hidden, hidden), values(hidden) + forget)
            for forget in np.array([0, 1, 0, 0], np.float32)
        )
        layers.append(Lstm(f"lstm_{number}", (i, f, g, o)))
        size = hidden
    spec = ModelSpec(f"lstm_{shape}", Signal("sequence", features), tuple(layers))
    x = rng.normal(size=(8, 200, features)).astype(np.float32)
    return bench_model(spec.name, spec, calibrate(spec, x))


class Contestant:
    """One peer's process, which stays for all shapes and modes."""

    def __init__(self, name: str, options: Options, peer: Peer | None = None) -> None:
        self.name, self.peer, self.options = name, peer or PEERS[name], options
        self.backend: Backend = open_backend(
            self.peer.backend, self.peer.target or BACKENDS[self.peer.backend]
        )
        self.worker: Worker | None = None
        self.absent = self.backend.available()
        self.times: list[float] = []
        self.walls: list[float] = []
        self.row: dict[str, Any] = {}
        self._slow = False

    def prepare(self, model: BenchModel, mode: Mode, x: Array) -> None:
        """Load the model; compare all outputs for ``x``, [calls, batch, time, features]."""
        self.times, self.walls, self.row, self._slow = [], [], {}, False
        try:
            if self.absent is not None:
                self.row = {"skipped": self.absent}
                return
            if self.worker is None:
                self.worker = Worker(
                    self.peer.backend,
                    self.backend,
                    timing_cpu(),
                    self.options.answer_limit_s,
                    self.peer.target,
                )
            shape = CallShape(mode.batch_size, mode.time_steps, True)
            _, version, size = load_session(self.worker, self.backend, model, shape, "it")
            assert model.program is not None
            fed = x if self.backend.profile is None else model.program.input_tensor.quantize(x)
            if mode.stepwise:
                fed = fed[:, :, 0]
            elif self.peer.time_major:
                fed = fed.swapaxes(1, 2)
            _, answer = self.worker.ask(
                "prepare_calls", {"x": fed}, session="it", stepwise=mode.stepwise
            )
            y = answer["y"]
            if mode.stepwise:
                y = y[:, :, None]
            elif self.peer.time_major:
                y = y.swapaxes(1, 2)
            self.row = {"version": version, "file_bytes": size, **self._judge(model, mode, x, y)}
        except EdgeLstmError as error:
            self.fail(error)

    def _judge(self, model: BenchModel, mode: Mode, x: Array, y: Array) -> dict[str, Any]:
        """Return a checksum, and differing bytes or the greatest error of ``y``."""
        found = {"checksum": f"{zlib.crc32(np.ascontiguousarray(y).tobytes()):08x}"}
        if mode.stepwise:  # 64 calls are one sequence
            x, y = x.transpose(2, 1, 0, 3), y.transpose(2, 1, 0, 3)
        if self.backend.profile is None:
            assert model.spec is not None
            want = float_reference.run(model.spec, x[0])
            return {**found, "max_error": float(np.abs(want - y[0]).max())}
        program = model.integers(self.backend.profile)
        want = program.predict(program.input_tensor.quantize(x[0]))
        return {**found, "differing_bytes": int((want != y[0]).sum())}

    def time_slice(self) -> None:
        """Time one slice."""
        if "skipped" in self.row:
            return
        assert self.worker is not None
        options = self.options
        warm = 0.0 if self._slow else options.warm_ms
        try:
            answer, _ = self.worker.ask(
                "time_calls", warm_ns=int(warm * 1e6), slice_ns=int(options.slice_ms * 1e6)
            )
        except EdgeLstmError as error:
            self.fail(error)
            return
        # A call longer than a slice warms the caches for itself.
        self._slow = answer["calls"] == 1
        self.times.append(answer["cpu_ns"] / answer["calls"] / 1000)
        self.walls.append(answer["wall_ns"] / answer["calls"] / 1000)

    def fail(self, error: EdgeLstmError) -> None:
        """Note why there is no figure."""
        self.row = {"skipped": one_line(error)}
        self.close()

    def result(self, steps: int) -> dict[str, Any]:
        """Return the row, in microseconds per step of one row."""
        if not self.times or "skipped" in self.row:
            return self.row
        each = sorted(value / steps for value in self.times)
        return {
            **self.row,
            "us_per_step": statistics.median(each),
            "wall_us_per_step": statistics.median(self.walls) / steps,
            "us_least": each[0],
            "us_greatest": each[-1],
            "rounds": len(each),
        }

    def close(self) -> None:
        """End the process."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None


def measure(
    contestants: list[Contestant], shape: str, mode_name: str, options: Options
) -> dict[str, Any]:
    """Return one run: every peer of a mode on one shape, interleaved."""
    chosen = [c for c in contestants if not c.peer.modes or mode_name in c.peer.modes]
    return {**measure_mode(chosen, shape, MODES[mode_name], options), "mode": mode_name}


def measure_mode(
    chosen: list[Contestant], shape: str, mode: Mode, options: Options
) -> dict[str, Any]:
    """Return the figures of some peers on one shape, called in one way, interleaved."""
    model = random_model(shape)
    rng = np.random.default_rng(1)
    features = SHAPES[shape][0]
    x = rng.normal(size=(mode.calls, mode.batch_size, mode.time_steps, features))
    inputs = x.astype(np.float32)
    for one in chosen:
        one.prepare(model, mode, inputs)
    order = random.Random(0)
    start = time.monotonic()
    for number in range(options.rounds):
        if number >= options.least_rounds and time.monotonic() - start > options.cap_s:
            break
        for one in order.sample(chosen, len(chosen)):
            one.time_slice()
    return {
        "shape": shape,
        "batch_size": mode.batch_size,
        "time_steps": mode.time_steps,
        "input_checksum": f"{zlib.crc32(inputs.tobytes()):08x}",
        "peers": {c.name: c.result(mode.batch_size * mode.time_steps) for c in chosen},
    }


def run(
    shapes: Iterable[str], modes: Iterable[str], peers: Iterable[str], options: Options
) -> dict[str, Any]:
    """Return all runs of this machine, and print each as it is done."""
    contestants = [Contestant(name, options) for name in peers]
    runs = []
    try:
        for mode in modes:
            for shape in shapes:
                found = measure(contestants, shape, mode, options)
                runs.append(found)
                print(_line(found), flush=True)
    finally:
        for one in contestants:
            one.close()
    bounds = []
    for shape in shapes:
        program = random_model(shape).integers(EDGE)
        bound = bound_of(shape, program)
        bounds.append(bound if "skipped" in bound else {**bound, **native_costs(shape, program)})
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    # Without the kernel's build, which says nothing about speed and much about the place.
    host = {**describe_host(), "system": platform.system()}
    return {"date": day, "host": host, "runs": runs, "bounds": bounds}


def _line(found: dict[str, Any]) -> str:
    """Return one run as one line."""
    figures = [
        f"{name} {row['us_per_step']:.3g}"
        for name, row in found["peers"].items()
        if "us_per_step" in row
    ]
    ratios = [
        f"{goal.title} {ratio:.2f} (goal {target:g})"
        for goal in GOALS
        if (target := goal.target(found)) is not None and (ratio := goal.ratio(found)) is not None
    ]
    return (
        f"{found['shape']} {found['mode']}, us/step: {', '.join(figures)}\n   {'; '.join(ratios)}"
    )


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return ``new`` with the runs of ``old`` that it did not repeat, in the tables' order."""
    runs = {(r["mode"], r["shape"]): r for r in (old or {"runs": []})["runs"]}
    runs.update({(r["mode"], r["shape"]): r for r in new["runs"]})
    order = [(mode, shape) for mode in MODES for shape in SHAPES]
    bounds = {b["shape"]: b for b in (old or {}).get("bounds", [])}
    bounds.update({b["shape"]: b for b in new["bounds"]})
    return {
        **new,
        "runs": [runs[key] for key in order if key in runs],
        "bounds": [bounds[shape] for shape in SHAPES if shape in bounds],
    }


def machine_name() -> str:
    """Return the processor's model as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-") or "unknown"


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and render; return 1 if any byte is not that of its profile."""
    parser = argparse.ArgumentParser(prog="python -m edge_lstm_benchmarks.runtimes")
    parser.add_argument("--quick", action="store_true", help="two shapes, few rounds, not kept")
    parser.add_argument("--render", action="store_true", help="only rewrite RESULTS.md")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="default: all")
    parser.add_argument("--modes", default=",".join(MODES), help="default: all")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: all")
    parser.add_argument("--rounds", type=int, default=Options.rounds)
    parser.add_argument("--folder", type=Path, default=ROOT, help="of results/ and RESULTS.md")
    given = parser.parse_args(arguments)
    shapes, modes, peers = (
        _chosen(parser, getattr(given, name), table)
        for name, table in (("shapes", SHAPES), ("modes", MODES), ("peers", PEERS))
    )
    results = given.folder / "results"
    failed = False
    if not given.render:
        if given.quick:
            shapes = [s for s in ("8x16", "40x64") if s in shapes]
            modes = [m for m in ("stream", "T100") if m in modes]
            found = run(shapes, modes, peers, Options(rounds=3, least_rounds=3, slice_ms=8.0))
        else:
            found = run(shapes, modes, peers, Options(rounds=given.rounds))
        failed = any(
            row.get("differing_bytes") for r in found["runs"] for row in r["peers"].values()
        )
        if given.quick:
            return int(failed)
        path = results / f"{machine_name()}.json"
        old = json.loads(path.read_text(encoding="utf8")) if path.exists() else None
        results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(merged(old, found), indent=1)
        write_atomically(path, f"{text}\n".encode())
    write_page(given.folder)
    return int(failed)


def _chosen(parser: argparse.ArgumentParser, text: str, table: dict[str, Any]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in table:
            parser.error(f"{name!r}: unknown; give some of {', '.join(table)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
