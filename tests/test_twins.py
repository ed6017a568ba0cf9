"""GRU and RNN twins of the sample models: what int8 costs, through the installed command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge_lstm
import interpreters
from edge_lstm import float_reference
from edge_lstm.arrays import F64, Array
from edge_lstm.program import Program
from edge_lstm.samples import Samples, load_samples
from edge_lstm.spec import ModelSpec
from edge_lstm_converters import read

MODELS = Path(__file__).parent.parent / "benchmarks" / "edge_lstm_benchmarks" / "models"
TWINS = [(model, cell) for model in ("digits", "weather") for cell in ("gru", "rnn")]
POINT = 0.01
"""What issue C allows: a point of accuracy, a hundredth of an error."""


@pytest.fixture(scope="module", params=TWINS, ids="-".join)
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a converted twin; its name is the model's."""
    model, cell = request.param
    folder: Path = tmp_path_factory.mktemp(cell) / model
    source = MODELS / model
    command = [sys.executable, "-m", "edge_lstm.cli", "convert", str(source / f"{cell}.pt")]
    command += ["--layers", str(source / f"{cell}.toml"), "--name", "twin", "-o", str(folder)]
    command += ["--calib", str(source / "calibration.npz"), "--no-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    spec = read(source / f"{cell}.pt", layers=source / f"{cell}.toml")
    assert isinstance(spec, ModelSpec)
    samples = load_samples(source / "test.npz")
    np.save(folder / "float.npy", float_reference.run(spec, samples.x))
    return folder


def score(model: str, y: Array, samples: Samples) -> float:
    """Return the accuracy, or the mean absolute error."""
    assert samples.y is not None
    if model == "digits":
        return float((y.argmax(axis=-1) == samples.y).mean())
    return float(np.abs(y - samples.y).mean())


def held(folder: Path, y: Array) -> None:
    """Hold int8 outputs of the test data to the float model's."""
    model = folder.name
    samples = load_samples(MODELS / model / "test.npz")
    want: F64 = np.load(folder / "float.npy")
    exact, found = score(model, want, samples), score(model, y, samples)
    lost = exact - found if model == "digits" else found / exact - 1
    assert lost <= POINT, (exact, found)


def program_of(folder: Path) -> Program:
    return edge_lstm.load(folder / "twin_int8.tflite")


def test_int8_is_within_a_point_of_float_in_numpy(twin: Path) -> None:
    samples = load_samples(MODELS / twin.name / "test.npz")
    held(twin, program_of(twin).predict(samples.x))


@pytest.mark.parametrize("runtime", list(interpreters.IN_PROCESS))
def test_int8_is_within_a_point_of_float_in_the_interpreters(twin: Path, runtime: str) -> None:
    if reason := interpreters.missing(runtime):
        pytest.skip(reason)
    samples = load_samples(MODELS / twin.name / "test.npz")
    program = program_of(twin)
    integers = program.input_tensor.quantize(samples.x)
    steps = integers.shape[1]
    calls = integers.reshape(-1, 1, 1, integers.shape[-1])
    data = (twin / "twin_int8.tflite").read_bytes()
    y = interpreters.run(runtime, data, calls, np.arange(len(calls)) % steps == 0)
    last = y.reshape(len(integers), steps, -1)[:, -1]
    held(twin, program.output_tensor.dequantize(last))


def test_manifest_says_that_a_call_is_one_step(twin: Path) -> None:
    manifest = json.loads((twin / "twin.manifest.json").read_text())
    assert manifest["options"]["time_steps"] == 1
    assert manifest["files"]["tflite"]["file"] == "twin_int8.tflite"


def test_verify_takes_a_graph_with_a_state(twin: Path) -> None:
    if twin.name != "digits":
        pytest.skip("one model of each cell is enough: weather has the same graph")
    command = [sys.executable, "-m", "edge_lstm.cli", "verify", str(twin / "twin_int8.tflite")]
    command.append(str(twin / "twin.elstm"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "profile litert: 0 of" in done.stdout
