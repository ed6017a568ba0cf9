"""One backend in a benchmark: its processes, what it is asked, and what it has shown so far."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.backend import CallShape
from edge_lstm.errors import EdgeLstmError, UsageError
from edge_lstm.records import ColdStart, Counted, Result
from edge_lstm_benchmarks import accuracy, open_backend
from edge_lstm_benchmarks.case import Case
from edge_lstm_benchmarks.machine import timing_cpu
from edge_lstm_benchmarks.remote import Loaded, Worker, cold_start, load_bytes
from edge_lstm_benchmarks.timing import Round, is_stable, latency_of, timing_of
from edge_lstm_benchmarks.worker import one_line


@dataclass(frozen=True)
class BenchOptions:
    """How long to measure, and what.

    Args:
        rounds: visits of each backend, at most; fewer where its median is known well enough.
        least_rounds: visits of each backend before that is asked.
        slice_ms: timed milliseconds of one visit.
        warm_ms: untimed milliseconds before them.
        cap_s: no round starts later than this, for one model.
        answer_limit_s: a backend that takes longer for one request is ended.
        timed_rows: rows of the data, times the batch, that the timed calls go through.
        cold_runs: fresh processes that are started for each backend; 0: none.
        cold_limit_s: after one that took longer, no more are started.
        inside: whether to look at the layers inside the model.
        metric: a name of METRICS or ``module:function``; None: the usual one.
        frame_ms: milliseconds of signal that one step stands for, or None.
        seed: of the order of the backends.
    """

    rounds: int = 100
    least_rounds: int = 10
    slice_ms: float = 15.0
    warm_ms: float = 3.0
    cap_s: float = 20.0
    answer_limit_s: float = 120.0
    timed_rows: int = 16
    cold_runs: int = 3
    cold_limit_s: float = 2.0
    inside: bool = True
    metric: str | None = None
    frame_ms: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Standing:
    """Where a backend is, for whoever watches.

    Args:
        backend: its name.
        doing: in a word or two.
        rounds: visits so far.
        p50_us: so far, or None.
        settled: whether nothing more will change it.
    """

    backend: str
    doing: str
    rounds: int
    p50_us: float | None
    settled: bool


class Contestant:
    """One backend on one case: its process, and what it has shown so far."""

    def __init__(self, name: str, case: Case, options: BenchOptions) -> None:
        self.case, self._options, self._counts = case, options, False
        self.worker: Worker | None = None
        self.rounds: list[Round] = []
        self.doing = "waits"
        self.outputs: Array | None = None
        self._loaded: dict[str, tuple[CallShape, bytes, Loaded]] = {}
        try:
            self.backend = open_backend(name)
            self._estimates: str | None = getattr(self.backend, "estimates", None)
            most: int = getattr(self.backend, "most_sequences", len(case.row_lengths))
            is_part = most < len(case.row_lengths)
            if is_part:
                self.case = case.first(most)
            self.result = Result(
                model=case.model.name,
                backend=name,
                profile=self.backend.profile,
                precision=self.backend.precision,
                scenario=case.scenario.name,
                sequences=most if is_part else None,
            )
        except Exception as error:
            self.result = Result(case.model.name, name, None, "-", case.scenario.name)
            self._fail(error)

    @property
    def runs(self) -> bool:
        """Whether it has not failed."""
        return self.result.skipped_reason is None

    @property
    def settled(self) -> bool:
        """Whether it needs no further visit."""
        enough = len(self.rounds) >= self._options.least_rounds
        return not self.runs or self._counts or (enough and is_stable(self.rounds))

    def standing(self) -> Standing:
        """Return where it is."""
        p50 = latency_of(self.rounds).p50 if self.rounds and self.runs else None
        doing = self.doing if self.runs else f"not run: {self.result.skipped_reason}"
        return Standing(self.result.backend, doing, len(self.rounds), p50, self.settled)

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
        self.worker = self._start_worker()

    def show_outputs(self) -> None:
        """Run all the data and judge the outputs."""
        if self._estimates is not None:
            return
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
        self.outputs = outputs
        self.result = case.judge(self.result, outputs)

    def prepare_timing(self) -> None:
        """Load the session that is timed, with the rows that it goes through."""
        if self._estimates is not None:
            steps = 1 if self._estimates == "step" else self.case.common_length
            gives_sequence = self.case.model.output.kind == "sequence"
            self._count(self._load_shape("all", CallShape(1, steps, gives_sequence)), steps)
            return
        stepwise, length = self.case.scenario.stepwise, self.case.common_length
        steps = 1 if stepwise else length
        if self._loaded["all"][2].counts:
            self._count(self._loaded["all"][1:], steps)
            return
        self._describe(self._load("timed", self.case.scenario.batch_size, length), steps)
        self._ask("prepare_timing", {"x": self._timed_x()}, session="timed", stepwise=stepwise)

    def _describe(self, loaded: tuple[bytes, Loaded], steps: int) -> None:
        """Keep what is known of a session before it is timed."""
        data, told = loaded
        self.result = replace(
            self.result,
            size_bytes=len(data),
            version=told.version,
            ran_on=told.ran_on,
            steps_per_call=steps,
        )
        if told.warning is not None:
            self._warn(told.warning)

    def _count(self, loaded: tuple[bytes, Loaded], steps: int) -> None:
        """Ask a session that has no clock what a step costs."""
        self._describe(loaded, steps)
        counted = Counted(**self._ask("counted", session="all")[0])
        self.result, self._counts = replace(self.result, counted=counted), True

    def start_cold(self) -> None:
        """Start fresh processes, load the model there and make one call.

        A second process may fail where the first runs, for one when a device takes but one: that
        is said, and the other figures are kept.
        """
        if self._options.cold_runs == 0 or self._counts:
            return
        try:
            self.result = self._cold_started()
        except EdgeLstmError as error:
            self._warn(f"no cold start: {one_line(error)}")

    def _cold_started(self) -> Result:
        """Return the result with what fresh processes took."""
        stepwise, batch = self.case.scenario.stepwise, self.case.scenario.batch_size
        data, shape = self._loaded["timed"][1], self.case.shape(batch, self.case.common_length)
        x = self._timed_x()[:batch]
        x = np.ascontiguousarray(x[:, 0] if stepwise else x)
        totals: list[float] = []
        costs: list[dict[str, Any]] = []
        while len(totals) < self._options.cold_runs:
            start = time.perf_counter()
            fresh = self._start_worker()
            try:
                answer, _ = cold_start(fresh, data, shape, stepwise, x)
                totals.append(time.perf_counter() - start)
            finally:
                fresh.close()
            costs.append(answer)
            if totals[-1] > self._options.cold_limit_s:
                break
        load, first = (
            statistics.median(cost[part] for cost in costs) / 1e6
            for part in ("load_ns", "first_ns")
        )
        last = costs[-1]
        return replace(
            self.result,
            cold_start=ColdStart(statistics.median(totals) * 1000, load, first, len(totals)),
            peak_memory_bytes=last["peak_bytes"],
            base_memory_bytes=last["base_bytes"],
            package_bytes=last["package_bytes"],
            packages=tuple(last["packages"]),
        )

    def time_slice(self) -> None:
        """Time one slice."""
        options = self._options
        fields, arrays = self._ask(
            "time", warm_ns=int(options.warm_ms * 1e6), slice_ns=int(options.slice_ms * 1e6)
        )
        self.rounds.append(Round(arrays["ns"], fields["wall_ns"], fields["processor_ns"]))

    def finish(self) -> None:
        """Check that the timed session gives the outputs that were judged; fill in the figures."""
        if self._counts:
            return
        rows = self._timed_row_numbers()
        again = self._run("timed", self._timed_x())
        assert self.outputs is not None
        known = self.outputs[rows]
        if known.ndim == 3:
            known = known[:, : self.case.common_length]
        if not np.array_equal(known, again):
            # Float sums may come out in another order when the batch is another.
            different = accuracy.differing_bytes(known, again)
            is_float = np.issubdtype(known.dtype, np.floating)
            if not (is_float and np.allclose(known, again, rtol=1e-5, atol=1e-6)):
                self._warn(
                    f"the timed session gives other outputs ({different:,} of {again.nbytes:,}"
                    " bytes) than those judged"
                )
        latency = latency_of(self.rounds)
        steps = self.result.steps_per_call or 1
        total_s = max(sum(int(r.ns.sum()) for r in self.rounds), 1) * 1e-9
        frame_ms = self._options.frame_ms
        self.result = replace(
            self.result,
            latency_us=latency,
            timing=timing_of(self.rounds, waits=getattr(self.backend, "waits", False)),
            steps_per_s=latency.n * steps * self.case.scenario.batch_size / total_s,
            real_time=None if frame_ms is None else frame_ms * steps * 1000 / latency.p50,
        )

    def release(self) -> None:
        """Let the process end, which ``close`` waits for."""
        if self.worker is not None:
            self.worker.release()

    def close(self) -> None:
        """End the process."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def _warn(self, text: str) -> None:
        before = self.result.warning
        self.result = replace(self.result, warning=text if before is None else f"{before}; {text}")

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

    def _start_worker(self) -> Worker:
        limit = self._options.answer_limit_s
        return Worker(self.result.backend, self.backend, timing_cpu(), limit)

    def _load(self, session: str, batch_size: int, length: int) -> tuple[bytes, Loaded]:
        """Load a session, unless the one of that name will do; return the file and what it is."""
        shape = self.case.shape(batch_size, length)
        return self._load_shape(session, shape)

    def _load_shape(self, session: str, shape: CallShape) -> tuple[bytes, Loaded]:
        assert self.worker is not None
        need = shape if self.backend.fixed_shape else replace(shape, time_steps=1)
        if session in self._loaded and self._loaded[session][0] == need:
            return self._loaded[session][1:]
        data = self.backend.build(self.case.model, shape)
        loaded = load_bytes(self.worker, data, shape, session)
        self._loaded[session] = need, data, loaded
        return data, loaded

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
