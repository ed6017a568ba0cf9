"""Who is speaking: sequences of 7 to 29 steps, converted and compared in every runtime.

    python examples/japanese_vowels.py [FOLDER]

Needs the tools (pip install 'edge-lstm[tools]') and, once, a package index: the data are read out
of the package aeon, whose licence does not name theirs, so they are not in this repository. Writes
the model's files to FOLDER, vowels-output if none is named.

Measured on 370 test utterances: 98.11 % right in float and in int8, in NumPy, LiteRT and TFLM, and
every label is the float model's.
"""

import sys
from pathlib import Path

import numpy as np

from edge_lstm.backend import BenchModel
from edge_lstm.samples import Samples
from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.harness import run_bench
from edge_lstm_converters.convert import ConvertOptions, convert

MODEL = Path(datasets.__file__).parent / "models" / "vowels"
BACKENDS = ["numpy-int8:tflm", "numpy-int8:litert", "numpy-float", "onnxruntime"]
BACKENDS += ["litert", "litert-ref", "tflm", "tflite-runtime"]


def main(folder: Path) -> int:
    """Convert the model, print the benchmark; return 1 if a runtime gives other bytes."""
    data = datasets.japanese_vowels()
    folder.mkdir(parents=True, exist_ok=True)
    calibration = folder / "calibration.npz"
    assert data.train.lengths is not None
    np.savez(calibration, x=data.train.x, lengths=data.train.lengths)
    options = ConvertOptions(calibration=calibration, layers=MODEL / "layers.toml", name="vowels")
    converted = convert(MODEL / "model.pt", folder, options)
    for path in converted.files.values():
        print(path)
    test = Samples(data.test.x, data.test.lengths, data.test.y, where="JapaneseVowels, test")
    model = BenchModel("vowels", converted.spec, converted.program)
    # The labels are the last true step's, so whole sequences are run, each at its own length.
    report = run_bench([model], test, BACKENDS, "sequence")
    print(report.text())
    return int(bool(report.mismatches()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "vowels-output")))
