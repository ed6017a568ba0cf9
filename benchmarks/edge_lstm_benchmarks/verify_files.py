"""Compares two model files on the same inputs: integers by bytes, real numbers by SNR.

Bytes are compared where both files are quantized and agree on the scales of input and output;
otherwise what they mean, as real numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.errors import EdgeLstmError, UsageError
from edge_lstm.program import Program, Tensor
from edge_lstm.samples import Samples, load_samples
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_benchmarks.accuracy import snr_db
from edge_lstm_benchmarks.verify import (
    Progress,
    VerifyOptions,
    open_model,
    profiles_of,
)
from edge_lstm_benchmarks.verify_difference import (
    Difference,
    cut_after,
    find_origin,
    first_difference,
)
from edge_lstm_benchmarks.verify_inputs import (
    ANY_LENGTH_STEPS,
    GENERATED,
    Batch,
    Form,
    Inputs,
    check_finite,
    check_shape,
    forms_of,
    generated_inputs,
    limited,
    user_inputs,
)
from edge_lstm_benchmarks.verify_report import FileComparison, LargestError, ProfileCount
from edge_lstm_benchmarks.verify_runners import NumpyRunner, Outputs, differing
from edge_lstm_benchmarks.worker import one_line

MIN_SNR_DB_FLOAT = 80.0
"""Two float files of the same weights; float32 arithmetic itself gives more than 100 dB."""
MIN_SNR_DB_INT8 = 10.0
"""A float file and its int8 form, fed extremes too; on real data 20 to 40 dB are usual."""


def compare_files(
    first: Path, second: Path, options: VerifyOptions, progress: Progress | None = None
) -> FileComparison:
    """Compare two model files.

    Raises:
        ModelError: a file cannot be read.
        UsageError: they do not take and give the same, or the data do not fit.
    """
    if options.against is not None:
        raise UsageError("--against: is for one model; two files are compared with each other")
    models = []
    for number, path in enumerate((first, second)):
        if progress is not None:
            progress(f"reading {path.name}", number, 2)
        models.append(open_model(path, options.layers, options.calibration)[0])
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    samples = None if options.data is None else load_samples(options.data)
    return compare_models(names, (models[0], models[1]), samples, options)


Model = ModelSpec | Program


def compare_models(
    names: tuple[str, str],
    models: tuple[Model, Model],
    samples: Samples | None,
    options: VerifyOptions | None = None,
) -> FileComparison:
    """Compare two models that were read; arguments as ``compare_files``."""
    options = options or VerifyOptions()
    for what, signals in (
        ("takes", [_input_signal(model) for model in models]),
        ("gives", [_output_signal(model) for model in models]),
        ("takes sequences of", [_time_steps(model) for model in models]),
    ):
        if signals[0] != signals[1] and None not in signals:
            raise UsageError(
                f"{names[1]}: {what} {signals[1]}; {names[0]} {what} {signals[0]}; two files to"
                " compare must take and give the same"
            )
    one, other = models
    if isinstance(one, Program) and isinstance(other, Program):
        reason = _why_not_bytes(one, other)
        if reason is None:
            return _compare_bytes(names, one, other, samples, options)
    else:
        reason = "a float file is compared as real numbers"
    return _compare_numbers(names, models, samples, options, reason)


def _input_signal(model: Model) -> Signal:
    return model.input if isinstance(model, ModelSpec) else model.input_tensor.signal


def _output_signal(model: Model) -> Signal:
    return model.output if isinstance(model, ModelSpec) else model.output_tensor.signal


def _time_steps(model: Model) -> int | None:
    return model.time_steps


def _why_not_bytes(one: Program, other: Program) -> str | None:
    if profiles_of(one) != profiles_of(other):
        return f"profiles are {one.profile} and {other.profile}: compared as real numbers"
    for what, a, b in (
        ("input", one.input_tensor, other.input_tensor),
        ("output", one.output_tensor, other.output_tensor),
    ):
        if (a.dtype, a.scale, a.zero_point) != (b.dtype, b.scale, b.zero_point):
            return f"{what}s are {_form(a)} and {_form(b)}: compared as real numbers"
    return None


def _form(tensor: Tensor) -> str:
    if not tensor.is_quantized:
        return tensor.dtype
    return f"{tensor.dtype} (scale {tensor.scale:.9g}, zero point {tensor.zero_point})"


class _OtherFile:
    """Runs, for a program that was cut, the other file cut at the same place."""

    def __init__(self, one: Program, other: Program, runner: NumpyRunner) -> None:
        self.name, self.profile = runner.name, None
        self._one, self._other, self._runner = one, other, runner

    def outputs(self, program: Program, form: Form, batches: Iterable[Batch]) -> Outputs:
        outputs = [op.output for op in self._one.ops]
        number = outputs.index(program.output)
        part = cut_after(self._other, self._other.ops[number])
        return self._runner.outputs(part, form, batches)


def _compare_bytes(
    names: tuple[str, str],
    one: Program,
    other: Program,
    samples: Samples | None,
    options: VerifyOptions,
) -> FileComparison:
    inputs = generated_inputs(one) if samples is None else user_inputs(one, samples)
    forms = forms_of(one, inputs, None)
    counts: list[ProfileCount] = []
    differences: list[Difference] = []
    for profile in profiles_of(one) if options.profile is None else (options.profile,):
        runner = NumpyRunner(profile)
        bad = total = 0
        try:
            for form in forms:
                want = runner.outputs(one, form, form.batches(inputs))
                got = runner.outputs(other, form, form.batches(inputs))
                count, size = differing(got, want)
                bad, total = bad + count, total + size
                if count and not any(d.got_from.endswith(profile) for d in differences):
                    difference = _explain(names, one, other, runner, form, inputs, got, want)
                    differences.append(difference)
        except EdgeLstmError as error:
            counts.append(ProfileCount(profile, None, 0, one_line(error)))
            continue
        counts.append(ProfileCount(profile, bad, total))
    if all(count.differing_bytes is None for count in counts):
        raise UsageError(f"{names[1]}: could not be run: {counts[0].reason}")
    return FileComparison(
        names, inputs, tuple(counts), differences=tuple(differences), notes=inputs.notes
    )


def _explain(
    names: tuple[str, str],
    one: Program,
    other: Program,
    runner: NumpyRunner,
    form: Form,
    inputs: Inputs,
    got: Outputs,
    want: Outputs,
) -> Difference:
    found = first_difference(other, form, got, want)
    assert found is not None
    row, place = found
    bad, total = differing(got, want)
    origin, notes = None, []
    if [op.type_name for op in one.ops] == [op.type_name for op in other.ops]:
        there = _OtherFile(other, one, runner)
        mine = other.with_profile(runner.profile)
        origin = find_origin(mine, form, inputs, row, runner, there)
    else:
        notes.append("no layer named: the files have other layers")
    return Difference(
        got_from=f"{names[1]}, {runner.name}",
        want_from=f"{names[0]}, {runner.name}",
        form=str(form),
        sequence=inputs.names[row],
        place=place,
        differing_bytes=bad,
        bytes=total,
        origin=origin,
        notes=tuple(notes),
    )


def _compare_numbers(
    names: tuple[str, str],
    models: tuple[Model, Model],
    samples: Samples | None,
    options: VerifyOptions,
    reason: str,
) -> FileComparison:
    inputs = _real_inputs(models, samples)
    want, got = (_real_outputs(model, inputs, options.profile) for model in models)
    both_float = all(isinstance(model, ModelSpec) for model in models)
    least = MIN_SNR_DB_FLOAT if both_float else MIN_SNR_DB_INT8
    if options.min_snr_db is not None:
        least = options.min_snr_db
    wanted = np.concatenate([y.reshape(-1) for y in want]).astype(np.float64)
    gotten = np.concatenate([y.reshape(-1) for y in got]).astype(np.float64)
    return FileComparison(
        names,
        inputs,
        snr_db=snr_db(gotten, wanted),
        min_snr_db=least,
        largest_error=_largest_error(inputs, got, want),
        notes=(*inputs.notes, reason),
    )


def _real_inputs(models: tuple[Model, Model], samples: Samples | None) -> Inputs:
    signal = _input_signal(models[0])
    if samples is not None:
        x = samples.x
        check_shape(x, signal.kind == "tokens", signal.size, samples.where)
        if signal.kind != "tokens":
            if not np.issubdtype(x.dtype, np.floating):
                raise UsageError(
                    f"{samples.where}: {x.dtype}; want float32, since the files do not share one"
                    " integer scale"
                )
            check_finite(x, samples.where)
        return limited(x, samples)
    steps = _time_steps(models[0]) or _time_steps(models[1]) or ANY_LENGTH_STEPS
    program = next((model for model in models if isinstance(model, Program)), None)
    if program is not None:
        made = generated_inputs(program)
        x = made.x[:, :steps]
        if program.input_tensor.is_quantized:
            x = program.input_tensor.dequantize(x)
        names = made.names
    else:
        x, names = _random_floats(signal, steps)
    return Inputs(x, np.full(len(x), x.shape[1]), names, GENERATED)


def _random_floats(signal: Signal, steps: int) -> tuple[Array, tuple[str, ...]]:
    random = np.random.default_rng(0)
    if signal.kind == "tokens":
        x: Array = random.integers(0, signal.size, (16, steps)).astype(np.int32)
        return x, tuple(f"uniform {k}" for k in range(len(x)))
    normal = random.normal(size=(16, steps, signal.size))
    still, loud = np.zeros((1, steps, signal.size)), 10 * normal[:4]
    names = ("still", *(f"normal {k}" for k in range(16)), *(f"loud {k}" for k in range(4)))
    return np.concatenate([still, normal, loud]).astype(np.float32), names


def _real_outputs(model: Model, inputs: Inputs, profile: str | None) -> list[Array]:
    """Return the real outputs of each sequence, [outputs, size]; valid steps only."""
    if isinstance(model, ModelSpec):
        y: Array = float_reference.run(model, inputs.x, inputs.lengths)
    else:
        program = model if profile is None else model.with_profile(profile)
        y = program.predict(inputs.x, inputs.lengths)
        if np.issubdtype(y.dtype, np.integer):  # the input was token ids
            y = program.output_tensor.dequantize(y)
    if y.ndim == 2:
        return list(y[:, None])
    return [row[:length] for row, length in zip(y, inputs.lengths, strict=True)]


def _largest_error(inputs: Inputs, got: list[Array], want: list[Array]) -> LargestError | None:
    errors = [np.abs(a.astype(np.float64) - b) for a, b in zip(got, want, strict=True)]
    row = int(np.argmax([error.max() for error in errors]))
    output, index = np.unravel_index(int(errors[row].argmax()), errors[row].shape)
    if errors[row][output, index] == 0.0:
        return None
    last = int(inputs.lengths[row]) - 1
    return LargestError(
        sequence=inputs.names[row],
        step=last if len(errors[row]) == 1 else int(output),
        index=int(index),
        got=float(got[row][output, index]),
        want=float(want[row][output, index]),
    )
