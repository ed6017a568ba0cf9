"""The examples run: what they need beyond this repository is skipped with its reason."""

import importlib.util
import subprocess
import sys
import wave
from pathlib import Path
from types import ModuleType

import numpy as np
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


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return an example as a module, with the others beside it as Python finds them."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    from edge_lstm_benchmarks import datasets

    for wanted in (datasets.VOWELS_TRAIN, datasets.VOWELS_TEST):
        path = datasets.cache_folder() / f"{wanted.package}-{wanted.version}" / wanted.name
        if not path.is_file():
            pytest.skip("data not here yet: python examples/japanese_vowels.py fetches them")
    done = python(EXAMPLES / "japanese_vowels.py", tmp_path)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if "numpy-int8:tflm " in line).split()
    # Of backend, p50, p90, p99, steps/s, accuracy, delta, SNR, labels the same, differ, check.
    assert "98.11%" in row
    assert "100.00%" in row


def test_speech_read_at_8_khz_is_the_same_tone_at_16_khz(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = load("speech", monkeypatch)
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    found = speech.read_wav(tmp_path / "tone.wav")
    want = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    # 16 bits are 3e-5; the window's side lobes, over 64 samples, stay below 1e-3.
    assert np.abs(found - want)[200:-200].max() < 1e-3


def test_mel_bands_cover_the_spectrum_with_unit_area(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    bands = load("resemblyzer", monkeypatch).mel_bands()
    assert bands.shape == (40, 201)
    # Slaney's norm: each triangle has area 1 over hertz; a bin is 40 Hz. Narrow ones are coarse.
    assert np.allclose(bands[20:].sum(axis=1) * 40, 1, atol=0.02)
