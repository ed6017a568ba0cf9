"""Measure what trained models lose in integers, in every profile: suite 3, `make accuracy`.

python -m edge_lstm_benchmarks.real_models [--render] [MODEL ...]

Keeps the figures in ``benchmarks/results/accuracy.json`` and writes their section of
``benchmarks/RESULTS.md`` and the table in ``README.md`` anew. Of named models only those are
measured again. They do not depend on the machine: the profiles' bytes are their interpreters'.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.calibrate import calibrate
from edge_lstm.errors import EdgeLstmError, UsageError
from edge_lstm.files import write_atomically
from edge_lstm.program import EDGE, Program, Range
from edge_lstm.quantize import quantize
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm.step_loop import all_values
from edge_lstm_benchmarks import accuracy_report, results, results_page
from edge_lstm_benchmarks.firmware_models import _Weights as RandomWeights
from edge_lstm_benchmarks.real_cases import Case, all_cases

FILE = "accuracy.json"
FORMS: tuple[tuple[str, Literal["int8", "int16"]], ...] = (
    ("tflm", "int8"),
    ("litert", "int8"),
    ("tflm", "int16"),
    (EDGE, "int8"),
    (EDGE, "int16"),
)
"""Profiles, and the dtype of activations; in profile edge of the input alone."""
RANDOM_MODELS = 200
KINDS = ("LSTM", "GRU", "RNN", "2 LSTMs")
ROWS = 500
"""Sequences at once: bounds the memory."""

Document = dict[str, Any]


def measure(case: Case) -> Document:
    """Return one model's scores in float and in every form that it has."""
    want = case.in_float()
    ranges = calibrate(case.spec, case.calibration, case.calibration_lengths)
    forms = [_form(case, ranges, want, *form) for form in FORMS]
    return {
        "model": case.name,
        "told": case.told,
        "parameters": case.spec.parameter_count(),
        "sequences": len(case.x),
        "float": case.judge(want, want),
        "forms": [form for form in forms if form],
    }


def _form(
    case: Case,
    ranges: dict[str, Range],
    want: Array,
    profile: str,
    dtype: Literal["int8", "int16"],
) -> Document | None:
    """Return the scores of one form; None where it is the same as with 8 bits."""
    if profile == EDGE and dtype == "int16" and case.spec.input.kind == "tokens":
        return None
    about = {"profile": profile, "dtype": dtype}
    try:
        program = quantize(case.spec, ranges, profile, dtype)
    except EdgeLstmError as error:
        return {**about, "reason": str(error)}
    found = outputs(case, program)
    rms = float(np.sqrt(np.square(found - want).mean()))
    share = rms / float(np.sqrt(np.square(want).mean()))
    return {**about, "scores": case.judge(found, want), "rms_error": rms, "relative_error": share}


def outputs(case: Case, program: Program) -> Array:
    """Return what a program answers to the test, as floats."""
    parts = []
    for first in range(0, len(case.x), ROWS):
        x = case.x[first : first + ROWS]
        lengths = None if case.lengths is None else case.lengths[first : first + ROWS]
        if case.tensors:
            named = {program.tensors[k].name: (k, program.tensors[k]) for k in _made(program)}
            values = all_values(program, x)
            wanted = [named[name] for name in case.tensors]
            joined = [tensor.dequantize(values[index]) for index, tensor in wanted]
            parts.append(np.concatenate(joined, axis=-1))
        else:
            answers = program.predict(x, lengths)
            # Token ids are integers, so that the answers are too.
            is_real = np.issubdtype(answers.dtype, np.floating)
            parts.append(answers if is_real else program.output_tensor.dequantize(answers))
    return np.concatenate(parts)


def _made(program: Program) -> list[int]:
    return [op.output for op in program.ops]


def random_models(count: int = RANDOM_MODELS) -> list[Document]:
    """Return the error of edge and of TFLite's scheme on random models, one seed each."""
    return [_random_model(seed) for seed in range(count)]


def _random_model(seed: int) -> Document:
    random, weights = np.random.default_rng(seed), RandomWeights(seed)
    features, hidden = int(random.integers(2, 41)), int(random.integers(4, 65))
    kind = KINDS[seed % len(KINDS)]
    layers: dict[str, tuple[Layer, ...]] = {
        "LSTM": (weights.lstm("lstm", features, hidden),),
        "GRU": (weights.gru("gru", features, hidden, reset_after=True),),
        "RNN": (weights.rnn("rnn", features, hidden),),
        "2 LSTMs": (weights.lstm("first", features, hidden), weights.lstm("last", hidden, hidden)),
    }
    spec = ModelSpec("random", Signal("sequence", features), layers[kind])
    x = random.normal(0, 1, (24, 60, features)).astype(np.float32)
    ranges, test = calibrate(spec, x[:16]), x[16:]
    want = float_reference.run(spec, test)
    errors: dict[str, float] = {
        profile: float(
            np.sqrt(np.square(quantize(spec, ranges, profile).predict(test) - want).mean())
        )
        for profile in (EDGE, "tflm")
    }
    return {"kind": kind, "features": features, "hidden": hidden, **errors}


def updated(kept: Document, names: list[str], path: Path) -> Document:
    """Return what is kept with the named models measured again; all for none.

    Each is written as it comes: some take minutes.
    """
    found = dict(kept.get("accuracy", {}))
    order = [name for name, _ in all_cases()]
    drawn = kept.get("random")
    if drawn is None or not names:
        print("random models", flush=True)
        drawn = random_models()
    for name, load in all_cases():
        if names and name not in names:
            continue
        print(name, flush=True)
        try:
            found[name] = measure(load())
        except EdgeLstmError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
        kept = {
            "schema": "edge-lstm.accuracy/1",
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "numpy": np.__version__,
            "accuracy": {name: found[name] for name in order if name in found},
            "random": drawn,
        }
        write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())
    return kept


def main(arguments: list[str]) -> int:
    """Measure, keep, and write both pages."""
    names = [name for name in arguments if name != "--render"]
    known = [name for name, _ in all_cases()]
    path = results_page.ROOT / "results" / FILE
    try:
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"model {unknown[0]!r}: unknown; give some of {', '.join(known)}")
        kept = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
        if "--render" not in arguments:
            kept = updated(kept, names, path)
        results_page.write_page()
        _write_readme(results_page.ROOT.parent / "README.md", kept)
    except (EdgeLstmError, OSError) as error:
        print(f"real_models: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, EdgeLstmError) else UsageError.exit_code
    return 0


def _write_readme(readme: Path, kept: Document) -> None:
    text = readme.read_text(encoding="utf8")
    start, end = accuracy_report.START, accuracy_report.END
    block = f"{start}\n\n{accuracy_report.short_table(kept)}\n{end}"
    write_atomically(readme, results.replace_block(text, block, start, end).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
