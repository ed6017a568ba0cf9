"""One model with its data, and what the outputs of a backend are held against."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import F64, I64, Array
from edge_lstm.backend import Backend, BenchModel, CallShape
from edge_lstm.errors import EdgeLstmError, UsageError
from edge_lstm.program import Program
from edge_lstm.records import Accuracy, Analysis, Fidelity, ModelRecord, Result
from edge_lstm.samples import Samples
from edge_lstm_benchmarks import accuracy
from edge_lstm_benchmarks.inside import analyse
from edge_lstm_benchmarks.metrics import Judge, find_metric
from edge_lstm_benchmarks.worker import one_line

REFERENCE_FAMILY = "numpy-int8"


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
    """One model with its data in float and integers.

    Args:
        model: as backends take it.
        samples: with labels or targets where there are any; None: random inputs.
        scenario: how it is called.
        metric: a name of METRICS or ``module:function``; None: the usual one.
    """

    def __init__(
        self,
        model: BenchModel,
        samples: Samples | None,
        scenario: Scenario,
        metric: str | None = None,
    ) -> None:
        self.model, self.scenario, self._metric = model, scenario, metric
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
            self.float_rows = self.rows(float_reference.run(model.spec, self.float_x, self.lengths))
        self._unit, self._offset = (self._scale(name) for name in ("y_std", "y_mean"))
        self.wanted, self._judge = self._make_judge(metric)
        self._profiles: dict[str, Array] = {}

    def first(self, count: int) -> Case:
        """Return the case of the first sequences alone."""
        given = self.samples
        part = replace(
            given,
            x=given.x[:count],
            lengths=None if given.lengths is None else given.lengths[:count],
            y=None if given.y is None else given.y[:count],
        )
        return Case(self.model, part, self.scenario, self._metric)

    def _scale(self, name: str) -> F64:
        """Return what turns outputs into real units, one or one for each output."""
        neutral = 1.0 if name == "y_std" else 0.0
        value = np.asarray(self.samples.extra.get(name, neutral), np.float64)
        if value.size not in (1, self.model.output.size):
            size = self.model.output.size
            raise UsageError(f"{name}: {value.size} values; want 1 or {size}, as outputs")
        return value.reshape(-1)

    def _make_judge(self, metric: str | None) -> tuple[Array | None, Judge | None]:
        """Return what is wanted of each output row, and the metric that is taken with it."""
        given, signal = self.samples, self.model.output
        if given.y is None:
            if metric is not None:
                raise UsageError(f"metric {metric}: {given.where} has no y; give labels or targets")
            return None, None
        steps = (self.float_x.shape[1],) if signal.kind == "sequence" else ()
        shape = np.broadcast_to(np.int8(0), (len(given.x), *steps, signal.size))
        wanted = accuracy.wanted_rows(given.y, shape, self.lengths)
        sequences = np.arange(len(given.x))
        if steps:
            sequences = np.repeat(sequences, self.row_lengths)
        is_target = np.issubdtype(wanted.dtype, np.floating)
        return wanted, Judge(
            find_metric(metric, wanted),
            self._real_units(wanted) if is_target else wanted,
            None if self.float_rows is None else self._in_metric(self.float_rows, is_target),
            sequences,
        )

    def _real_units(self, values: Array) -> F64:
        return values.astype(np.float64) * self._unit + self._offset

    def _in_metric(self, outputs: Array, is_target: bool) -> Array:
        return self._real_units(outputs) if is_target else outputs

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
            input_checksum=accuracy.checksum(self.samples.x),
        )

    def analysis(self) -> Analysis | None:
        """Return what quantization costs inside the model; None without floats or integers."""
        spec, program = self.model.spec, self.model.program
        if spec is None or program is None:
            return None
        rows = np.flatnonzero(self.row_lengths == self.common_length)
        return analyse(spec, program, self.float_x[rows, : self.common_length])

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
        assert self.int_x is not None
        if profile not in self._profiles:
            program = self.model.integers(profile)
            self._profiles[profile] = self.rows(_predict(program, self.int_x, self.lengths))
        return self._profiles[profile]

    def judge(self, result: Result, outputs: Array) -> Result:
        """Return ``result`` with what ``outputs``, of all rows of data, are worth."""
        rows = self.rows(outputs)
        real, tensor = rows, None
        if result.precision == "int8" and self.model.program is not None:
            tensor = self.model.integers(result.profile).output_tensor
            tensor = tensor if tensor.is_quantized else None
        if tensor is not None:
            real = tensor.dequantize(rows)
        fidelity, warning = Fidelity(), result.warning
        if self.float_rows is not None:
            fidelity = accuracy.agreement(real, self.float_rows, self.wanted)
            if tensor is not None:
                steps = accuracy.steps_between(rows, tensor.quantize(self.float_rows))
                fidelity = replace(fidelity, steps_from_float=steps)
        is_reference = result.backend.split(":")[0] == REFERENCE_FAMILY
        if result.profile is not None and not is_reference:
            try:
                want = self.profile_rows(result.profile)
                fidelity = replace(
                    fidelity,
                    differing_bytes=accuracy.differing_bytes(rows, want),
                    steps_from_profile=accuracy.steps_between(rows, want),
                )
            except EdgeLstmError as error:
                warning = f"nothing to compare its bytes with: {one_line(error)}"
        return replace(
            result,
            warning=warning,
            accuracy=self._accuracy_of(real),
            fidelity=fidelity,
            output_bytes=rows.nbytes,
            output_checksum=accuracy.checksum(rows),
        )

    def _accuracy_of(self, real: Array) -> Accuracy | None:
        if self._judge is None or self.wanted is None:
            return None
        return self._judge.measure(
            self._in_metric(real, bool(np.issubdtype(self.wanted.dtype, np.floating)))
        )

    def rows(self, outputs: Array) -> Array:
        """Return every valid output as a row, ``[rows, size]``."""
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
