"""The results table of the README: the sample models on the backends of this machine.

python -m edge_lstm_benchmarks.results [README.md]
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from edge_lstm.backend import BenchModel, bench_model
from edge_lstm.calibrate import calibrate
from edge_lstm.errors import EdgeLstmError, MismatchError, UsageError
from edge_lstm.files import write_atomically
from edge_lstm.report import Fidelity, Report, Result
from edge_lstm.samples import Samples, load_samples
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks.harness import BenchOptions, run_bench
from edge_lstm_converters import read

START = "<!-- results: written by `make results` -->"
END = "<!-- end of results -->"
MODELS = Path(__file__).parent / "models"
# Those whose data ship; what each errs in.
UNITS = {"weather": "error, °C", "digits": "right, % (labels as float)"}
BACKENDS = [
    *("c-host:edge", "c-host:tflm", "c-host:litert"),
    *("numpy-int8:edge", "numpy-int8:tflm", "numpy-int8:litert", "numpy-float"),
    *("onnxruntime", "litert"),
    *("litert-ref", "litert-float", "tflm", "tflite-runtime"),
]
LATENCY = BenchOptions(cold_runs=0, inside=False)
HEADER = ("backend", "one step, µs", "whole sequence, µs", "file, bytes", "bytes that differ")


def sample_model(name: str) -> tuple[BenchModel, Samples]:
    """Return a model that ships, in float and in integers, and its test data."""
    folder = MODELS / name
    spec = read(folder / "model.pt", layers=folder / "layers.toml", name=name)
    assert isinstance(spec, ModelSpec)
    samples = load_samples(folder / "calibration.npz")
    ranges = calibrate(spec, samples.x, samples.lengths)
    return bench_model(name, spec, ranges), load_samples(folder / "test.npz")


def results_markdown(day: datetime.date, options: BenchOptions = LATENCY) -> str:
    """Measure and return the block that stands from START to END.

    Raises:
        MismatchError: a runtime gives other bytes than it must.
    """
    parts = [START, ""]
    host = ""
    for name, unit in UNITS.items():
        model, samples = sample_model(name)
        stream = run_bench([model], samples, BACKENDS, "stream", options=options)
        sequence = run_bench([model], samples, BACKENDS, "sequence", options=options)
        if different := stream.mismatches() + sequence.mismatches():
            raise MismatchError("; ".join(different))
        parts += [_table(stream, sequence, unit), ""]
        about = stream.host
        host = (
            f"{about['cpu']}, {about['cpus']} CPUs, {str(about['system']).split()[0]},"
            f" Python {about['python']}, NumPy {about['numpy']}; one thread; {day.isoformat()}."
        )
    parts += [
        "Times are medians of calls from Python, array in and array out. *Bytes that differ*: from"
        " the NumPy runtime under that interpreter's profile, over all test outputs.",
        f"Machine: {host}",
        "",
        END,
    ]
    return "\n".join(parts)


def _table(stream: Report, sequence: Report, unit: str) -> str:
    (record,) = stream.models
    lines = [
        f"**{record.name}**: {record.parameters:,} parameters, {record.sequences:,} test sequences"
        f" of {record.time_steps} steps",
        "",
        "| " + " | ".join((*HEADER[:3], unit, *HEADER[3:])) + " |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    pairs = zip(stream.results, sequence.results, strict=True)
    rows = [(one, whole) for one, whole in pairs if one.latency_us and whole.latency_us]
    rows.sort(key=lambda pair: pair[0].latency_us.p50 if pair[0].latency_us else 0.0)
    lines += ["| " + " | ".join(_cells(one, whole)) + " |" for one, whole in rows]
    missing = {r.backend: r.skipped_reason for r in stream.results if r.skipped_reason}
    lines += [f"| {name} | not run: {reason} | | | | |" for name, reason in missing.items()]
    return "\n".join(lines)


def _cells(one: Result, whole: Result) -> tuple[str, ...]:
    assert one.latency_us is not None
    assert whole.latency_us is not None
    assert one.accuracy is not None
    scored = f"{one.accuracy.value:.3f}"
    if one.accuracy.metric == "accuracy":
        same = (one.fidelity or Fidelity()).labels_same or 0.0
        scored = f"{100 * one.accuracy.value:.1f} ({100 * same:.1f})"
    differing = [(r.fidelity or Fidelity()).differing_bytes for r in (one, whole)]
    total = (one.output_bytes or 0) + (whole.output_bytes or 0)
    is_int8 = one.precision == "int8"
    differ = "-" if None in differing else f"{sum(n or 0 for n in differing):,} of {total:,}"
    return (
        one.backend if is_int8 or "float" in one.backend else f"{one.backend} (float)",
        f"{one.latency_us.p50:.1f}",
        f"{whole.latency_us.p50:,.0f}",
        scored,
        f"{whole.size_bytes or 0:,}",
        differ,
    )


def replace_block(text: str, block: str, start_line: str = START, end_line: str = END) -> str:
    """Return ``text`` with ``block`` in place of what stands between two lines.

    Raises:
        UsageError: the text has no such place.
    """
    before, start, rest = text.partition(start_line)
    _, end, after = rest.partition(end_line)
    if not start or not end:
        raise UsageError(f"no place for results: want a line {start_line!r} and {end_line!r}")
    return before + block + after


def main(arguments: list[str]) -> int:
    """Rewrite the block in the file that is named, else in README.md."""
    path = Path(arguments[0] if arguments else "README.md")
    try:
        text = path.read_text(encoding="utf8")
        replace_block(text, "")
        block = results_markdown(datetime.datetime.now(datetime.timezone.utc).date())
        write_atomically(path, replace_block(text, block).encode())
    except (EdgeLstmError, OSError) as error:
        print(f"results: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, EdgeLstmError) else UsageError.exit_code
    print(block)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
