"""The demo: a weather forecaster is converted, proven, compared and drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import edge_lstm
from edge_lstm import float_reference
from edge_lstm.arrays import F64, Array
from edge_lstm.backend import BenchModel, CallShape
from edge_lstm.calibrate import calibrate
from edge_lstm.errors import MissingTool
from edge_lstm.files import write_atomically
from edge_lstm.inspection import columns
from edge_lstm.program import EDGE, PROFILES, Program
from edge_lstm.quantize import quantize
from edge_lstm.report import Report, Result
from edge_lstm.samples import Samples, load_samples
from edge_lstm_benchmarks import accuracy, datasets
from edge_lstm_benchmarks.backends.litert import int8_file
from edge_lstm_benchmarks.harness import REFERENCE_FAMILY, BenchOptions, run_bench
from edge_lstm_converters.convert import Converted, ConvertOptions, convert

MODEL = Path(__file__).parent / "models" / "weather"
SCHEMA = "edge-lstm.demo/1"
Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]

# Test windows 144 to 215: Newark, 23 April to 2 May, a forecast every three hours.
DRAWN = slice(144, 216)
INTERPRETERS = ("tflm", "litert", "litert-ref", "tflite-runtime")
COMPILED = ("c-host:edge", "c-host:tflm", "c-host:litert")
MEASURED = (*COMPILED, "numpy-int8", "numpy-float", "onnxruntime", "litert-float", *INTERPRETERS)
# One visit of each backend: enough to compare bytes.
ONCE = BenchOptions(rounds=1, slice_ms=1.0, warm_ms=0.0, cold_runs=0, inside=False)
QUICK = BenchOptions(rounds=8, slice_ms=12.0, cap_s=8.0, cold_runs=0, inside=False)


@dataclass(frozen=True)
class Equality:
    """Whether one runner gave the bytes of a profile; ``reason`` says why there is no answer."""

    runner: str
    profile: str | None
    how: str
    differing_bytes: int | None = None
    output_bytes: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors of the forecasts, °C."""

    forecasts: int
    as_now: float
    in_float: float
    in_int8: float

    @property
    def change(self) -> float:
        """Error of int8 over that of float, less one."""
        return self.in_int8 / self.in_float - 1


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found."""

    converted: Converted
    equality: tuple[Equality, ...]
    report: Report
    errors: Errors
    picture: Path | None
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """Whether the NumPy runtime ran and every byte that was compared is the same."""
        numpy_ran = all(
            result.skipped_reason is None
            for result in self.report.results
            if result.backend.startswith(REFERENCE_FAMILY)
        )
        different = any(row.differing_bytes for row in self.equality)
        return numpy_ran and not different and not self.report.mismatches()

    def document(self) -> dict[str, Any]:
        """Return the result as one JSON document."""
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "files": {kind: str(path) for kind, path in self.converted.files.items()},
            "manifest": self.converted.manifest,
            "equality": [asdict(row) for row in self.equality],
            "bench": self.report.document(),
            "mean_absolute_error_celsius": asdict(self.errors),
            "picture": None if self.picture is None else str(self.picture),
            "notes": list(self.notes),
        }


def run_demo(folder: Path, say: Say | None, progress: Progress | None = None) -> DemoResult:
    """Run the whole road on the weather forecaster and write its files into ``folder``.

    Args:
        folder: made if it is not there.
        say: is given the text of each part; None: nothing is said.
        progress: called with what is being done, how much is done, and of how much.

    Raises:
        MissingTool: a package that converting needs is not installed.
        OutputError: ``folder`` cannot be written.
    """
    tell = say or (lambda text: None)
    tell("edge-lstm: the temperature in New York six hours ahead, as integers\n")
    converted = _convert(folder, progress)
    # Said without the folder of this installation.
    test = replace(load_samples(MODEL / "test.npz"), where="models/weather/test.npz")
    spec = converted.spec
    assert spec is not None
    tell(_convert_text(converted))

    # From here on the model is what was written, not what is in memory.
    program = edge_lstm.load(converted.files["elstm"])
    seen = load_samples(MODEL / "calibration.npz")
    edge = quantize(spec, calibrate(spec, seen.x, seen.lengths), EDGE)
    model = BenchModel("weather", spec, program, edge)
    whole = run_bench([model], test, [*COMPILED, *INTERPRETERS], "sequence", progress, ONCE)
    report = run_bench([model], test, list(MEASURED), "stream", progress, QUICK)
    equality = (
        *_files_equal(converted, model, test),
        *(row for result in whole.results for row in _row(result, "whole windows")),
        *(row for result in report.results for row in _row(result, "step by step")),
    )
    tell(_equality_text(equality))
    tell("3. Every runtime on this machine, one step a call\n")
    tell(report.text() + "\n")

    truth, in_float, in_int8 = _celsius(model, program, test)
    errors = _errors(test, truth, in_float, in_int8)
    tell(_errors_text(errors))
    picture, notes = _draw(folder / "forecast.png", truth, in_float, in_int8)
    tell("\n".join(["5. Picture", "", *(f"   {n}" for n in notes)]))
    if picture is not None:
        tell(f"   {picture}  the forecast over nine days, in float and in int8\n")
    result = DemoResult(converted, equality, report, errors, picture, notes)
    tell("Passed: no byte differs." if result.passed else "FAILED: see parts 2 and 3.")
    return result


def _convert(folder: Path, progress: Progress | None) -> Converted:
    options = ConvertOptions(
        calibration=MODEL / "calibration.npz", layers=MODEL / "layers.toml", name="weather"
    )
    return convert(MODEL / "model.pt", folder, options, progress)


def _convert_text(converted: Converted) -> str:
    spec, program = converted.spec, converted.program
    assert spec is not None
    assert program is not None
    seen = converted.manifest["calibration"]
    rows = [("tensor", "type", "range seen", "scale", "zero point")]
    for tensor in program.tensors:
        low_high = seen["ranges"].get(tensor.name)
        rows.append(
            (
                tensor.name,
                tensor.dtype,
                "-" if low_high is None else f"{low_high[0]:.3f} .. {low_high[1]:.3f}",
                f"{tensor.scale:.6g}",
                str(tensor.zero_point),
            )
        )
    files = [
        (kind, str(path), f"{path.stat().st_size:,} bytes")
        for kind, path in converted.files.items()
    ]
    layers = " -> ".join(f"{layer.type_name}" for layer in spec.layers)
    lines = [
        "1. Convert",
        "",
        f"   model.pt, trained with PyTorch: {layers}, {spec.parameter_count():,} parameters",
        f"   {4 * spec.parameter_count():,} bytes of float weights became"
        f" {program.weight_bytes():,} bytes of integers, scaled on {seen['sequences']:,} windows"
        f" of {seen['steps'] // seen['sequences']} hours",
        "",
        *(f"   {line}" for line in columns([("file", "path", "size"), *files])),
        "",
        *(f"   {line}" for line in columns(rows)),
        *(f"   warning: {note}" for note in converted.notes),
        "",
    ]
    return "\n".join(lines)


def _files_equal(converted: Converted, model: BenchModel, test: Samples) -> list[Equality]:
    """Hold the files that were written against each other."""
    program = model.program
    assert program is not None
    written = converted.files["tflite"].read_bytes()
    steps = converted.manifest["options"]["time_steps"]
    ran = int8_file(model, CallShape(1, steps, False))
    different = sum(a != b for a, b in zip(written, ran, strict=False))
    different += abs(len(written) - len(ran))
    rows = [
        Equality("the .tflite that interpreters ran", None, "the file written", different, len(ran))
    ]
    x = program.input_tensor.quantize(test.x)
    for profile in PROFILES:
        again = edge_lstm.load(converted.files["tflite"], profile)
        want = program.with_profile(profile).predict(x)
        got = again.predict(x)
        rows.append(
            Equality(
                "NumPy, from the .tflite",
                profile,
                "whole windows",
                accuracy.differing_bytes(got, want),
                want.nbytes,
            )
        )
    return rows


def _row(result: Result, how: str) -> list[Equality]:
    """Return the row of an interpreter or of compiled C; none for other backends."""
    if result.backend not in (*COMPILED, *INTERPRETERS):
        return []
    if result.skipped_reason is not None:
        return [Equality(result.backend, result.profile, how, reason=result.skipped_reason)]
    assert result.fidelity is not None
    return [
        Equality(
            f"{result.backend} {result.version}",
            result.profile,
            how,
            result.fidelity.differing_bytes,
            result.output_bytes,
            result.warning,
        )
    ]


def _equality_text(rows: tuple[Equality, ...]) -> str:
    table = [("who ran it", "must equal", "fed", "bytes that differ")]
    for row in rows:
        if row.differing_bytes is None:
            count = f"not run: {row.reason}"
        else:
            count = f"{row.differing_bytes:,} of {row.output_bytes:,}"
        profile = "the file written" if row.profile is None else f"NumPy, {row.profile}"
        table.append((row.runner, profile, "-" if row.profile is None else row.how, count))
    # A reason with its install line may be long: it is the last column and is not cut.
    lines = ["2. The same bytes from the NumPy runtime, the generated C and each interpreter", ""]
    return "\n".join([*lines, *(f"   {line}" for line in columns(table)), ""])


def _celsius(model: BenchModel, program: Program, test: Samples) -> tuple[F64, F64, F64]:
    """Return truth, float forecast and int8 forecast, °C, ``[windows]``."""
    assert model.spec is not None
    assert test.y is not None
    std, mean = float(test.extra["y_std"]), float(test.extra["y_mean"])

    def celsius(y: Array) -> F64:
        return y[:, 0].astype(np.float64) * std + mean

    in_float = float_reference.run(model.spec, test.x)
    return celsius(test.y), celsius(in_float), celsius(program.predict(test.x))


def _errors(test: Samples, truth: F64, in_float: F64, in_int8: F64) -> Errors:
    # Feature 0 is the temperature; the last step is now.
    now = test.x[:, -1, 0] * test.extra["x_std"][0] + test.extra["x_mean"][0]
    as_now, error_float, error_int8 = (
        float(np.abs(forecast - truth).mean()) for forecast in (now, in_float, in_int8)
    )
    return Errors(len(truth), as_now, error_float, error_int8)


def _errors_text(errors: Errors) -> str:
    return (
        "4. Accuracy\n\n"
        f"   mean absolute error over {errors.forecasts:,} test forecasts:"
        f" float {errors.in_float:.3f} °C, int8 {errors.in_int8:.3f} °C"
        f" ({100 * errors.change:+.2f} %); 'as now' {errors.as_now:.3f} °C\n"
    )


def _draw(
    path: Path, truth: F64, in_float: F64, in_int8: F64
) -> tuple[Path | None, tuple[str, ...]]:
    """Write the picture; return its path, or why there is none."""
    from edge_lstm_benchmarks.picture import forecast_png

    hours = [hour for _, hour in datasets.weather_test_targets()][DRAWN]
    try:
        png = forecast_png(
            "Newark, 2013: the temperature, forecast six hours ahead",
            hours,
            truth[DRAWN],
            in_float[DRAWN],
            in_int8[DRAWN],
        )
    except MissingTool as error:
        return None, (f"no picture: {error}",)
    write_atomically(path, png)
    return path, ()
