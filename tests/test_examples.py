"""The examples run: what they need beyond this repository is skipped with its reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_lstm import cli

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
WEATHER = ROOT / "benchmarks" / "edge_lstm_benchmarks" / "models" / "weather"

pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_stream_on_device_forecasts_with_numpy_alone(tmp_path: Path) -> None:
    arguments = ["convert", WEATHER / "model.pt", "--layers", WEATHER / "layers.toml"]
    arguments += ["--calib", WEATHER / "calibration.npz", "--to", "elstm", "--name", "weather"]
    assert cli.run([str(a) for a in [*arguments, "-o", tmp_path]]) == 0
    blocked = "import runpy, sys\n"
    for package in ("onnx", "onnxruntime", "flatbuffers", "typer", "torch"):
        blocked += f"sys.modules[{package!r}] = None\n"
    script = EXAMPLES / "stream_on_device.py"
    blocked += f"sys.argv = ['', {str(tmp_path / 'weather.elstm')!r},"
    blocked += f" {str(WEATHER / 'test.npz')!r}]\n"
    done = python("-c", f"{blocked}runpy.run_path({str(script)!r}, run_name='__main__')")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("in six hours" in line for line in lines) == 24
    assert "96 bytes kept" in done.stdout
    assert "microseconds a step" in lines[-1]


def test_stream_on_device_without_arguments_says_how_to_run_it() -> None:
    done = python(EXAMPLES / "stream_on_device.py")
    assert done.returncode == 1
    assert "edge-lstm convert" in done.stderr


def test_japanese_vowels_keeps_every_label(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    from edge_lstm.files import cache_folder
    from edge_lstm_benchmarks import datasets

    for wanted in (datasets.VOWELS_TRAIN, datasets.VOWELS_TEST):
        path = cache_folder() / f"{wanted.package}-{wanted.version}" / wanted.name
        if not path.is_file():
            pytest.skip("data not here yet: python examples/japanese_vowels.py fetches them")
    done = python(EXAMPLES / "japanese_vowels.py", tmp_path)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if "numpy-int8:tflm " in line).split()
    # Of backend, p50, p90, p99, steps/s, accuracy, delta, SNR, labels the same, differ, check.
    assert "98.11%" in row
    assert "100.00%" in row
