"""Holds the NumPy runtime against the real interpreters on the user's own model, byte for byte.

Every interchange profile, the C that is generated for it, and every interpreter of this machine run
the same inputs. A profile forbids any difference from its C and from the interpreter that it
mirrors; between different runtimes a difference is information.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import EdgeLstmError, UsageError
from edge_lstm.program import EDGE, PROFILES, Profile, Program, check_profile
from edge_lstm.samples import Samples, load_samples
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks.verify_difference import (
    Difference,
    find_origin,
    first_difference,
    steps_per_output,
)
from edge_lstm_benchmarks.verify_inputs import (
    Inputs,
    forms_of,
    generated_inputs,
    user_inputs,
)
from edge_lstm_benchmarks.verify_report import Check, FileComparison, RunnerRecord, VerifyReport
from edge_lstm_benchmarks.verify_runners import (
    COMPILED,
    CompiledRunner,
    Contender,
    Interpreter,
    NumpyRunner,
    Outputs,
    checksum,
    differing,
    interpreter_names,
)
from edge_lstm_benchmarks.worker import one_line

WEIGHTS_ONLY = (".pt", ".pth", ".safetensors")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class VerifyOptions:
    """What to hold against what.

    Args:
        against: interpreters, and ``c`` for generated C; None: all that there are.
        data: file with the inputs; None: generated ones.
        calibration: file that a float model is quantized with; None: ``data``.
        profile: the only one that must hold; None: all.
        layers: layer configuration of a file that holds weights only.
        min_snr_db: least signal to noise of two files that cannot be compared by bytes; None: by
            the kind of the files.
    """

    against: list[str] | None = None
    data: Path | None = None
    calibration: Path | None = None
    profile: str | None = None
    layers: Path | None = None
    min_snr_db: float | None = None


def verify_files(
    paths: list[Path], options: VerifyOptions, progress: Progress | None = None
) -> VerifyReport | FileComparison:
    """Verify one model file, or compare two.

    Raises:
        ModelError: a file cannot be read.
        UsageError: an option or the data do not fit.
    """
    from edge_lstm_benchmarks.verify_files import compare_files

    if options.profile is not None:
        check_profile(options.profile)
    if options.min_snr_db is not None and not math.isfinite(options.min_snr_db):
        raise UsageError(f"--min-snr {options.min_snr_db}: want a number of decibels")
    if len(paths) > 2:
        raise UsageError(f"{len(paths)} model files; give one, or two to compare")
    if len(paths) == 2:
        return compare_files(paths[0], paths[1], options, progress)
    if options.min_snr_db is not None:
        raise UsageError("--min-snr: is for two files; the bytes of one must be equal")
    return run_verify(paths[0], options, progress)


def run_verify(
    path: Path, options: VerifyOptions, progress: Progress | None = None
) -> VerifyReport:
    """Verify one model file.

    Raises:
        ModelError: the file cannot be read.
        UsageError: an option or the data do not fit.
    """
    names = interpreter_names(options.against)
    model, own = open_model(
        path, options.layers, options.calibration or options.data, options.profile
    )
    if isinstance(model, ModelSpec):
        raise UsageError(
            f"{path}: is a float model; give --calib (.npz with x) to quantize it, or compare it"
            " with another file: verify MODEL OTHER"
        )
    samples = None if options.data is None else load_samples(options.data)
    return verify_program(path.name, model, own, samples, names, options, progress)


def open_model(
    path: Path, layers: Path | None, calibration: Path | None, profile: str | None = None
) -> tuple[ModelSpec | Program, bytes | None]:
    """Read a model, quantized where there is calibration data; and the bytes of a ``.tflite``.

    A float model is quantized for ``profile`` edge, else by the TFLite scheme.
    """
    suffix = path.suffix.lower()
    layers = layers if suffix in WEIGHTS_ONLY else None
    if suffix == ".elstm":
        from edge_lstm.load import load

        found: ModelSpec | Program = load(path)
    else:
        from edge_lstm_converters import read

        found = read(path, layers=layers)
    if isinstance(found, Program):
        if suffix != ".tflite":
            return found, None
        from edge_lstm.files import read_bytes

        return found, read_bytes(path)
    if calibration is None:
        return found, None
    from edge_lstm.calibrate import calibrate
    from edge_lstm.quantize import quantize

    given = load_samples(calibration)
    ranges = calibrate(found, given.x, given.lengths)
    return quantize(found, ranges, EDGE if profile == EDGE else "tflm"), None


def verify_program(
    name: str,
    program: Program,
    own_file: bytes | None,
    samples: Samples | None,
    interpreters: list[str],
    options: VerifyOptions | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Run a program everywhere and compare.

    Args:
        name: for the report.
        program: what is verified.
        own_file: the ``.tflite`` that it was read from, which the interpreters run as it is.
        samples: the inputs; None: generated ones.
        interpreters: rows of BACKENDS, and ``c``.
        options: ``profile`` counts, and whether interpreters were asked for by name.
        progress: called with what is being done, how much is done, and of how much.
    """
    options = options or VerifyOptions()
    inputs = generated_inputs(program) if samples is None else user_inputs(program, samples)
    with ExitStack() as stack:
        others: list[Contender] = []
        for interpreter in interpreters:
            if interpreter == COMPILED:
                others += map(CompiledRunner, profiles_of(program))
            else:
                others.append(engine := Interpreter(interpreter))
                stack.callback(engine.close)
        return _Verification(name, program, own_file, inputs, others, options, progress).report()


def profiles_of(program: Program) -> tuple[Profile, ...]:
    """Return the profiles that a program can have: all interchange profiles, or its own alone."""
    return PROFILES if program.profile in PROFILES else (program.profile,)


class _Verification:
    """One verification: the outputs of everybody, then who equals whom."""

    def __init__(
        self,
        name: str,
        program: Program,
        own_file: bytes | None,
        inputs: Inputs,
        others: list[Contender],
        options: VerifyOptions,
        progress: Progress | None,
    ) -> None:
        self.name, self.program, self.inputs, self.options = name, program, inputs, options
        self.forms = forms_of(program, inputs, own_file)
        self.numpy = [NumpyRunner(profile) for profile in profiles_of(program)]
        self.others = others
        self.runners: list[Contender] = [*self.numpy, *others]
        self.outputs: list[dict[str, Outputs]] = []
        self.reasons: list[dict[str, str]] = []
        self.say = progress or (lambda text, done, total: None)

    def report(self) -> VerifyReport:
        """Run everybody and compare."""
        for number, runner in enumerate(self.runners):
            self.say(f"{self.name}: {runner.name}", number, len(self.runners))
            self._run(runner)
        matrix = tuple(
            tuple(self._compare(a, b) for b in range(len(self.runners)))
            for a in range(len(self.runners))
        )
        checks, differences = [], []
        for check, pair in self._checks(matrix):
            checks.append(check)
            if check.differing_bytes and pair is not None:
                self.say(f"{self.name}: looking for the first difference", 0, 1)
                differences.append(self._explain(*pair, check))
        for check, difference in self._step_checks():
            checks.append(check)
            if difference is not None:
                differences.append(difference)
        notes = list(self.inputs.notes)
        if self.options.profile is not None:
            notes.append(
                f"only profile {self.options.profile} was held against its interpreter and its C"
            )
        return VerifyReport(
            model=self.name,
            inputs=self.inputs,
            forms=tuple(self.forms),
            runners=tuple(self._record(k) for k in range(len(self.runners))),
            matrix=matrix,
            checks=tuple(checks),
            differences=tuple(differences),
            warnings=self.program.warnings,
            notes=tuple(notes),
            missing=self._missing(),
        )

    def _run(self, runner: Contender) -> None:
        found: dict[str, Outputs] = {}
        reasons: dict[str, str] = {}
        for form in self.forms:
            try:
                found[form.name] = runner.outputs(self.program, form, form.batches(self.inputs))
            except EdgeLstmError as error:
                reasons[form.name] = one_line(error)
        self.outputs.append(found)
        self.reasons.append(reasons)

    def _missing(self) -> tuple[str, ...]:
        """Return who was asked for by name and is not installed."""
        asked = self.options.against
        if asked is None or "all" in asked:
            return ()
        return tuple(one.name for one in self.others if one.reason is not None)

    def _record(self, k: int) -> RunnerRecord:
        runner, reasons = self.runners[k], self.reasons[k]
        nothing = not self.outputs[k]
        reason = "; ".join(dict.fromkeys(reasons.values())) if nothing else None
        partly = tuple(f"{form}: {why}" for form, why in reasons.items()) if not nothing else ()
        return RunnerRecord(
            name=runner.name,
            kind=runner.kind,
            profile=runner.profile,
            version=runner.version,
            checksum=None if nothing else checksum(self.outputs[k].values()),
            reason=reason,
            partly=partly,
        )

    def _compare(self, a: int, b: int) -> tuple[int, int] | None:
        """Return how many bytes of two runners differ, over the forms that both ran."""
        shared = [form for form in self.outputs[a] if form in self.outputs[b]]
        if not shared:
            return None
        counts = [differing(self.outputs[a][form], self.outputs[b][form]) for form in shared]
        return sum(bad for bad, _ in counts), sum(total for _, total in counts)

    def _checks(
        self, matrix: tuple[tuple[tuple[int, int] | None, ...], ...]
    ) -> Iterator[tuple[Check, tuple[int, int] | None]]:
        """Yield what each profile owes to its interpreter, with the runners' numbers."""
        for k, other in enumerate(self.others, len(self.numpy)):
            profile = other.profile
            own = next((n for n, runner in enumerate(self.numpy) if runner.profile == profile), -1)
            if own < 0 or self.options.profile not in (None, profile):
                continue
            cell = matrix[own][k]
            names = self.runners[own].name, other.name
            if cell is None:
                reasons = [*self.reasons[own].values(), *self.reasons[k].values()]
                why = "; ".join(dict.fromkeys(reasons))
                yield Check(other.kind, *names, None, 0, why), None
            else:
                yield Check(other.kind, *names, *cell), (own, k)

    def _step_checks(self) -> Iterator[tuple[Check, Difference | None]]:
        """Yield whether each profile gives the same step by step as over whole calls."""
        if len(self.forms) < 2:
            return
        whole, steps = self.forms
        stride = steps_per_output(self.program, whole)
        for k, runner in enumerate(self.numpy):
            found = self.outputs[k]
            if whole.name not in found or steps.name not in found:
                continue
            want = found[whole.name]
            got = {
                row: found[steps.name][row][stride - 1 :: stride][: len(y)]
                for row, y in want.items()
            }
            names = f"{runner.name}, step by step", f"{runner.name}, whole calls"
            bad, total = differing(got, want)
            difference = None
            first = first_difference(self.program, whole, got, want)
            if first is not None:
                row, place = first
                sequence = self.inputs.names[row]
                difference = Difference(*names, str(whole), sequence, place, bad, total)
            yield Check("steps", *names, bad, total), difference

    def _explain(self, own: int, other: int, check: Check) -> Difference:
        us, them = self.numpy[own], self.runners[other]
        program = self.program.with_profile(us.profile)
        for form in self.forms:
            if form.name not in self.outputs[own] or form.name not in self.outputs[other]:
                continue
            got, want = self.outputs[own][form.name], self.outputs[other][form.name]
            first = first_difference(program, form, got, want)
            if first is None:
                continue
            row, place = first
            bad, total = differing(got, want)
            origin, notes = None, []
            try:
                origin = find_origin(program, form, self.inputs, row, us, them)
                if origin is None:
                    notes.append(
                        "the same model written anew shows no difference: the file holds something"
                        " that edge-lstm does not read"
                    )
            except EdgeLstmError as error:
                notes.append(f"no layer named: {one_line(error)}")
            return Difference(
                got_from=us.name,
                want_from=them.name,
                form=str(form),
                sequence=self.inputs.names[row],
                place=place,
                differing_bytes=bad,
                bytes=total,
                origin=origin,
                notes=tuple(notes),
            )
        raise AssertionError(f"{check}: no form differs")
