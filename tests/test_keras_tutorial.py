"""The Keras tutorial's model on real reviews: from .keras to int8 .tflite by the command alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge_lstm
import interpreters
from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.samples import load_samples
from edge_lstm.spec import ModelSpec
from edge_lstm_converters import read

FOLDER = Path(__file__).parent.parent / "benchmarks/edge_lstm_benchmarks/models/snippets"
ALLOWED = 0.005
"""Half a point of accuracy, on 1,901 reviews: what issue C allows int8."""


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the int8 file that the command writes; Keras, if there is one, is not asked."""
    folder = tmp_path_factory.mktemp("snippets")
    command = [sys.executable, "-m", "edge_lstm.cli", "convert", str(FOLDER / "model.keras")]
    command += ["--calib", str(FOLDER / "calibration.npz"), "--name", "snippets", "--no-check"]
    command += ["--to", "tflite", "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "snippets_int8.tflite"


def accuracy(probability: Array) -> float:
    """Return the share of test reviews told rightly by the probability of being positive."""
    y = load_samples(FOLDER / "test.npz").y
    assert y is not None
    return float(((probability.reshape(-1) >= 0.5) == y.reshape(-1)).mean())


@pytest.fixture(scope="module")
def in_float() -> float:
    spec = read(FOLDER / "model.keras")
    assert isinstance(spec, ModelSpec)
    found = accuracy(float_reference.run(spec, load_samples(FOLDER / "test.npz").x))
    # One answer for all is right for at most 51 %; the model's README says 77 %.
    assert found > 0.75
    return found


@pytest.mark.parametrize("runtime", list(interpreters.IN_PROCESS))
def test_int8_is_within_half_a_point_of_float(tflite: Path, in_float: float, runtime: str) -> None:
    if reason := interpreters.missing(runtime):
        pytest.skip(reason)
    x = load_samples(FOLDER / "test.npz").x.astype(np.int32)[:, None]
    y = interpreters.run(runtime, tflite.read_bytes(), x, np.ones(len(x), np.bool_))
    output = edge_lstm.load(tflite).output_tensor
    assert abs(accuracy(output.dequantize(y)) - in_float) <= ALLOWED


def test_numpy_says_what_the_file_says(tflite: Path, in_float: float) -> None:
    x = load_samples(FOLDER / "test.npz").x
    program = edge_lstm.load(tflite)
    y = program.output_tensor.dequantize(program.predict(x.astype(np.int32)))
    assert abs(accuracy(y) - in_float) <= ALLOWED
