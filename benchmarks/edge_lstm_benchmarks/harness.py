"""Runs every backend on the same model and data, in turns, and collects the results.

Each backend has a process of its own, with one thread, pinned to one CPU; all are alive at once
and idle but one. First each gives its outputs for all the data, which accuracy and bytes are
taken from. Then the rounds: in each, every backend is visited once, in a shuffled order, is warmed
up and timed for a slice, so that a slow moment of the machine falls on all of them alike.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import I64, Array
from edge_lstm.backend import Backend, BenchModel, CallShape
from edge_lstm.errors import EdgeLstmError, UsageError
from edge_lstm.program import Program
from edge_lstm.report import Fidelity, Latency, ModelRecord, Report, Result
from edge_lstm.samples import Samples
from edge_lstm_benchmarks import accuracy, open_backend, select_backends
from edge_lstm_benchmarks.machine import describe_host, timing_cpu
from edge_lstm_benchmarks.remote import Worker, load_session
from edge_lstm_benchmarks.worker import one_line

__all__ = ["BenchModel", "BenchOptions", "Scenario", "parse_scenario", "run_bench"]

Progress = Callable[[str, int, int], None]
REFERENCE_FAMILY = "numpy-int8"


@dataclass(frozen=True)
class BenchOptions:
    """How long to measure.

    Args:
        rounds: visits of each backend.
        slice_ms: timed milliseconds of one visit.
        warm_ms: untimed milliseconds before them.
        cap_s: no round starts later than this, for one model.
        answer_limit_s: a backend that takes longer for one request is ended.
        timed_rows: rows of the data, times the batch, that the timed calls go through.
        seed: of the order of the backends.
    """

    rounds: int = 15
    slice_ms: float = 15.0
    warm_ms: float = 3.0
    cap_s: float = 20.0
    answer_limit_s: float = 120.0
    timed_rows: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Scenario:
    """``stream`` (one step a call, state carried), ``sequence``, or ``batch:N`` sequences."""

    name: str
    stepwise: bool
    batch_size: int


def parse_scenario(text: str) -> Scenario:
    """Return the scenario that ``text`` names, or raise UsageError."""
    if text in ("stream", "sequence"):
        return Scenario(text, text == "stream", 1)
    match = re.fullmatch(r"batch:([1-9]\d{0,5})", text)
    if match is None:
        raise UsageError(f"scenario {text!r}: unknown; give stream, sequence or batch:N")
    return Scenario(text, False, int(match[1]))


def run_bench(
    models: list[BenchModel],
    samples: Samples | None,
    backends: list[str] | None = None,
    scenario: str = "stream",
    progress: Progress | None = None,
    options: BenchOptions | None = None,
) -> Report:
    """Measure every chosen backend on every model.

    Args:
        models: as the backends take them.
        samples: data for all models, with labels or targets where there are any; None: random.
        backends: names or families of BACKENDS; None: all.
        scenario: ``stream``, ``sequence`` or ``batch:N``.
        progress: called with what is being done, how much is done, and of how much.
        options: how long to measure.

    Raises:
        UsageError: a name is unknown, or the data do not fit a model.
    """
    chosen, kind = select_backends(backends), parse_scenario(scenario)
    if len({model.name for model in models}) != len(models):
        raise UsageError("models: two have the same name; give each a name of its own")
    results: list[Result] = []
    records = []
    for model in models:
        case = Case(model, samples, kind)
        records.append(case.record())
        results += _measure(case, chosen, options or BenchOptions(), progress)
    return Report(describe_host(), tuple(records), tuple(results))


def random_samples(model: BenchModel) -> Samples:
    """Return 64 random sequences: normal where the model takes floats, or any tokens."""
    rng = np.random.default_rng(0)
    time_steps = model.time_steps or 32
    if model.input.kind == "tokens":
        x: Array = rng.integers(0, model.input.size, (64, time_steps)).astype(np.int32)
    else:
        x = rng.normal(size=(64, time_steps, model.input.size)).astype(np.float32)
    return Samples(x, where="random inputs")


class Case:
    """One model with its data in float and integers, and what outputs are held against."""

    def __init__(self, model: BenchModel, samples: Samples | None, scenario: Scenario) -> None:
        self.model, self.scenario = model, scenario
        given = random_samples(model) if samples is None else samples
        self.samples = given
        self.float_x, self.int_x = _inputs(model, given)
        self.lengths = _lengths(given)
        if model.spec is not None:
            float_reference.check_samples(model.spec, self.float_x, self.lengths, given.where)
        time_steps = self.float_x.shape[1]
        row_lengths = np.full(len(given.x), time_steps) if self.lengths is None else self.lengths
        self.row_lengths: I64 = row_lengths.astype(np.int64)
        counts = np.bincount(self.row_lengths)
        self.common_length = int(counts.argmax())
        self.float_rows: Array | None = None
        if model.spec is not None:
            self.float_rows = self._rows(
                float_reference.run(model.spec, self.float_x, self.lengths)
            )
        self.unit = float(given.extra["y_std"]) if "y_std" in given.extra else 1.0
        self.wanted: Array | None = None
        if given.y is not None:
            signal = model.output
            steps = (time_steps,) if signal.kind == "sequence" else ()
            shape = np.broadcast_to(np.int8(0), (len(given.x), *steps, signal.size))
            self.wanted = accuracy.wanted_rows(given.y, shape, self.lengths)
        self._profiles: dict[str, Array] = {}

    def record(self) -> ModelRecord:
        """Return what was measured, for the report."""
        spec, program = self.model.spec, self.model.program
        return ModelRecord(
            name=self.model.name,
            parameters=None if spec is None else spec.parameter_count(),
            weight_bytes=None if program is None else program.weight_bytes(),
            sequences=len(self.row_lengths),
            time_steps=int(self.row_lengths.max()),
            data=self.samples.where,
        )

    def x(self, backend: Backend) -> Array:
        """Return all inputs as the backend takes them.

        Raises:
            UsageError: the model has no such form.
        """
        x = self.int_x if backend.precision == "int8" else self.float_x
        wanted = self.model.program if backend.precision == "int8" else self.model.spec
        if x is None or wanted is None:
            what = "calibration data" if backend.precision == "int8" else "the float model"
            raise UsageError(f"the model has no {backend.precision} form here; give {what}")
        return x

    def shape(self, batch_size: int, length: int) -> CallShape:
        """Return the shape of a call on rows of ``length`` steps."""
        steps = 1 if self.scenario.stepwise else length
        return CallShape(batch_size, steps, self.model.output.kind == "sequence")

    def profile_rows(self, profile: str) -> Array:
        """Return the outputs of the NumPy runtime under ``profile``, run whole."""
        assert self.model.program is not None
        assert self.int_x is not None
        if profile not in self._profiles:
            program = self.model.program.with_profile(profile)
            self._profiles[profile] = self._rows(_predict(program, self.int_x, self.lengths))
        return self._profiles[profile]

    def judge(self, result: Result, outputs: Array) -> Result:
        """Return ``result`` with what ``outputs``, of all rows of data, are worth."""
        rows = self._rows(outputs)
        real, program = rows, self.model.program
        if result.precision == "int8" and program is not None:
            tensor = program.output_tensor
            real = tensor.dequantize(rows) if tensor.is_quantized else rows
        fidelity = Fidelity()
        if self.float_rows is not None:
            fidelity = accuracy.agreement(real, self.float_rows, self.wanted)
        is_reference = result.backend.split(":")[0] == REFERENCE_FAMILY
        warning = result.warning
        if result.profile is not None and not is_reference:
            try:
                different = accuracy.differing_bytes(rows, self.profile_rows(result.profile))
                fidelity = replace(fidelity, differing_bytes=different)
            except EdgeLstmError as error:
                warning = f"nothing to compare its bytes with: {one_line(error)}"
        return replace(
            result,
            warning=warning,
            accuracy=accuracy.measure(real, self.wanted, self.unit, self.float_rows),
            fidelity=fidelity,
            output_bytes=rows.nbytes,
            output_checksum=accuracy.checksum(rows),
        )

    def _rows(self, outputs: Array) -> Array:
        return accuracy.valid_rows(outputs, self.lengths)


def _inputs(model: BenchModel, samples: Samples) -> tuple[Array, Array | None]:
    """Return the data in float (or tokens) and as the program's integers."""
    x, program = samples.x, model.program
    signal = model.input
    wanted_axes = 2 if signal.kind == "tokens" else 3
    if x.ndim != wanted_axes or 0 in x.shape or (wanted_axes == 3 and x.shape[2] != signal.size):
        features = "" if wanted_axes == 2 else f", {signal.size}"
        raise UsageError(f"{samples.where}: shape {list(x.shape)}; want [rows, time{features}]")
    if model.time_steps not in (None, x.shape[1]):
        raise UsageError(
            f"{samples.where}: has {x.shape[1]} time steps; the model takes {model.time_steps}"
        )
    if signal.kind == "tokens":
        ids = x.astype(np.int32)
        return ids, ids
    if program is None:
        return x.astype(np.float32), None
    tensor = program.input_tensor
    if x.dtype == tensor.dtype:
        return tensor.dequantize(x), x
    return x.astype(np.float32), tensor.quantize(x)


def _lengths(samples: Samples) -> I64 | None:
    """Return the valid steps of each row, checked."""
    if samples.lengths is None:
        return None
    lengths, most = np.asarray(samples.lengths), samples.x.shape[1]
    if lengths.shape != samples.x.shape[:1] or not np.issubdtype(lengths.dtype, np.integer):
        found = f"{lengths.dtype} {list(lengths.shape)}"
        raise UsageError(f"{samples.where}, lengths: {found}; want integers [{len(samples.x)}]")
    if lengths.min() < 1 or lengths.max() > most:
        raise UsageError(
            f"{samples.where}, lengths: {lengths.min()} to {lengths.max()}; want 1 to {most}"
        )
    return lengths.astype(np.int64)


def _predict(program: Program, x: Array, lengths: I64 | None) -> Array:
    parts = []
    for first in range(0, len(x), 256):
        part = slice(first, first + 256)
        parts.append(program.predict(x[part], None if lengths is None else lengths[part]))
    return np.concatenate(parts)


class Contestant:
    """One backend on one case: its process, and what it has shown so far."""

    def __init__(self, name: str, case: Case, options: BenchOptions) -> None:
        self.case, self._options = case, options
        self.worker: Worker | None = None
        self.times: list[Array] = []
        self._outputs: Array | None = None
        self._loaded: dict[str, tuple[CallShape, int, str]] = {}
        try:
            self.backend = open_backend(name)
            self.result = Result(
                model=case.model.name,
                backend=name,
                profile=self.backend.profile,
                precision=self.backend.precision,
                scenario=case.scenario.name,
            )
        except Exception as error:
            self.result = Result(case.model.name, name, None, "-", case.scenario.name)
            self._fail(error)

    @property
    def runs(self) -> bool:
        """Whether it has not failed."""
        return self.result.skipped_reason is None

    def attempt(self, action: Callable[[], None]) -> None:
        """Do ``action``; whatever goes wrong becomes the reason why this backend has no row."""
        if not self.runs:
            return
        try:
            action()
        except Exception as error:
            self._fail(error)

    def start(self) -> None:
        """Start the process, unless the backend cannot run here or on this model."""
        reason = self.backend.available()
        if reason is not None:
            raise UsageError(reason)
        if self.case.scenario.stepwise and not self.case.model.streams:
            raise UsageError("the model needs the whole sequence; use --scenario sequence")
        self.case.x(self.backend)
        limit = self._options.answer_limit_s
        self.worker = Worker(self.result.backend, self.backend, timing_cpu(), limit)

    def show_outputs(self) -> None:
        """Run all the data and judge the outputs."""
        case, batch = self.case, self.case.scenario.batch_size
        x = case.x(self.backend)
        signal = case.model.output
        steps = (x.shape[1],) if signal.kind == "sequence" else ()
        outputs: Array | None = None
        for length in np.unique(case.row_lengths):
            rows = np.flatnonzero(case.row_lengths == length)
            at_once = max(batch, min(self.backend.rows_at_once, len(rows)))
            self._load("all", at_once, int(length))
            y = self._run("all", x[rows, :length])
            if outputs is None:
                outputs = np.zeros((len(x), *steps, signal.size), y.dtype)
            if steps:
                outputs[rows, :length] = y
            else:
                outputs[rows] = y
        assert outputs is not None
        self._outputs = outputs
        self.result = case.judge(self.result, outputs)

    def prepare_timing(self) -> None:
        """Load the session that is timed, with the rows that it goes through."""
        case, batch = self.case, self.case.scenario.batch_size
        size, version = self._load("timed", batch, case.common_length)
        steps = 1 if case.scenario.stepwise else case.common_length
        self.result = replace(self.result, size_bytes=size, version=version, steps_per_call=steps)
        self._ask(
            "prepare_timing",
            {"x": self._timed_x()},
            session="timed",
            stepwise=case.scenario.stepwise,
        )

    def time_slice(self) -> None:
        """Time one slice."""
        options = self._options
        answer = self._ask(
            "time", warm_ns=int(options.warm_ms * 1e6), slice_ns=int(options.slice_ms * 1e6)
        )
        self.times.append(answer[1]["ns"])

    def finish(self) -> None:
        """Check that the timed session gives the outputs that were judged; fill in the figures."""
        rows = self._timed_row_numbers()
        again = self._run("timed", self._timed_x())
        assert self._outputs is not None
        known = self._outputs[rows]
        if known.ndim == 3:
            known = known[:, : self.case.common_length]
        if not np.array_equal(known, again):
            # Float sums may come out in another order when the batch is another.
            different = accuracy.differing_bytes(known, again)
            is_float = np.issubdtype(known.dtype, np.floating)
            if not (is_float and np.allclose(known, again, rtol=1e-5, atol=1e-6)):
                warning = (
                    f"the timed session gives other outputs ({different:,} of {again.nbytes:,}"
                    " bytes) than those judged"
                )
                self.result = replace(self.result, warning=warning)
        ns = np.concatenate(self.times).astype(np.float64)
        steps = (self.result.steps_per_call or 1) * self.case.scenario.batch_size
        p50, p90, p99 = np.percentile(ns, (50, 90, 99)) / 1000
        self.result = replace(
            self.result,
            latency_us=Latency(float(ns.min()) / 1000, float(p50), float(p90), float(p99), len(ns)),
            steps_per_s=len(ns) * steps / (max(float(ns.sum()), 1.0) * 1e-9),
            peak_memory_bytes=self._ask("memory")[0]["peak_bytes"],
        )

    def close(self) -> None:
        """End the process."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def _timed_row_numbers(self) -> I64:
        case = self.case
        rows = np.flatnonzero(case.row_lengths == case.common_length)
        count = self._options.timed_rows * case.scenario.batch_size
        # A batch larger than the data repeats it.
        least = max(case.scenario.batch_size, min(count, len(rows)))
        whole = least - least % case.scenario.batch_size
        return np.resize(rows, whole)

    def _timed_x(self) -> Array:
        return self.case.x(self.backend)[self._timed_row_numbers(), : self.case.common_length]

    def _load(self, session: str, batch_size: int, length: int) -> tuple[int, str]:
        """Load a session, unless the one of that name will do; return file bytes and version."""
        assert self.worker is not None
        shape = self.case.shape(batch_size, length)
        need = shape if self.backend.fixed_shape else replace(shape, time_steps=1)
        if session in self._loaded and self._loaded[session][0] == need:
            return self._loaded[session][1:]
        _, version, size = load_session(self.worker, self.backend, self.case.model, shape, session)
        self._loaded[session] = need, size, version
        return size, version

    def _run(self, session: str, x: Array) -> Array:
        stepwise = self.case.scenario.stepwise
        return self._ask("outputs", {"x": x}, session=session, stepwise=stepwise)[1]["y"]

    def _ask(
        self, do: str, arrays: dict[str, Array] | None = None, **fields: Any
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        assert self.worker is not None
        return self.worker.ask(do, arrays, **fields)

    def _fail(self, error: Exception) -> None:
        # Numbers taken before a failure would look like a result.
        kept = self.result
        self.result = Result(
            kept.model,
            kept.backend,
            kept.profile,
            kept.precision,
            kept.scenario,
            version=kept.version,
            skipped_reason=one_line(error),
        )
        self.close()


def _measure(
    case: Case, names: list[str], options: BenchOptions, progress: Progress | None
) -> list[Result]:
    """Return a result for each name, in that order."""
    say = progress or (lambda text, done, total: None)
    contestants = [Contestant(name, case, options) for name in names]
    try:
        # All start before the first is asked, so that their imports overlap.
        for one in contestants:
            one.attempt(one.start)
        for number, one in enumerate(contestants):
            say(f"{case.model.name}: outputs of {one.result.backend}", number, len(contestants))
            one.attempt(one.show_outputs)
            one.attempt(one.prepare_timing)
        order = random.Random(options.seed)
        end = time.monotonic() + options.cap_s
        for number in range(options.rounds):
            if number and time.monotonic() > end:
                break
            say(f"{case.model.name}: timing", number, options.rounds)
            for one in order.sample(contestants, len(contestants)):
                one.attempt(one.time_slice)
        for one in contestants:
            one.attempt(one.finish)
        say(f"{case.model.name}: done", options.rounds, options.rounds)
        return [one.result for one in contestants]
    finally:
        for one in contestants:
            one.close()
