"""`convert --to native`: a library, its C, and a Python module that needs Python alone."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import edge_lstm
from edge_lstm.arrays import Array
from edge_lstm.errors import UsageError
from edge_lstm.program import Program
from edge_lstm_benchmarks.results import sample_model
from edge_lstm_converters import native_build
from edge_lstm_converters.write_native import write_native

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc; apt-get install gcc")
ALONE = """
import sys
sys.path.insert(0, {folder!r})
import weather
model = weather.Model()
data = {data!r}
made = [weather.dequantize(model.step(data[k : k + 7]))[0] for k in range(0, len(data), 7)]
model.reset()
assert weather.dequantize(model.run(data, len(data) // 7)) == made[-1:]
assert "numpy" not in sys.modules and "edge_lstm" not in sys.modules
print(made)
"""


@pytest.fixture(autouse=True, scope="module")
def own_cache(shared_cache: Path) -> Iterator[None]:
    """Build nothing twice, and nothing into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_LSTM_CACHE", str(shared_cache))
        yield


@pytest.fixture(scope="module")
def weather() -> tuple[Program, Array]:
    """The sample model in profile edge, and a window of its test data."""
    model, samples = sample_model("weather")
    return model.integers("edge"), samples.x[:1]


@pytest.fixture(scope="module")
def package(weather: tuple[Program, Array], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_native(weather[0], tmp_path_factory.mktemp("out"))


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_package_holds_what_a_device_needs(package: Path) -> None:
    assert package.name == "weather_native"
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    door = {f"el_call{EXTENSION_SUFFIXES[0]}"}
    expected = {f"libweather{suffix}", "weather.c", "weather.elstm", "weather.py"}
    found = {path.name for path in package.iterdir()}
    assert found - door == expected
    assert found - expected == (door if native_build.build_call_module() else set())


def test_module_runs_without_numpy(package: Path, weather: tuple[Program, Array]) -> None:
    program, x = weather
    integers = program.input_tensor.quantize(x)
    session = program.session()
    want = [session.step(integers[:, t])[0] for t in range(x.shape[1])]
    code = ALONE.format(folder=str(package), data=integers.tobytes())
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = np.array(json.loads(done.stdout))
    np.testing.assert_array_equal(got, program.output_tensor.dequantize(np.array(want))[:, 0])


def test_module_quantizes_as_the_runtime_does(
    package: Path, weather: tuple[Program, Array]
) -> None:
    program, module = weather[0], imported(package / "weather.py")
    tensor = program.input_tensor
    halves = (np.arange(-140, 140) + 0.5) * np.float32(tensor.scale)
    reals = np.concatenate([halves, np.linspace(-9, 9, 1999), [1e30, -1e30, 0.0]])
    reals = reals.astype(np.float32)
    assert module.quantize(reals.tolist()) == tensor.quantize(reals).tobytes()
    assert program.fingerprint() == module.FINGERPRINT
    with pytest.raises(ValueError, match="a value is NaN"):
        module.quantize([float("nan")])


def test_session_takes_the_library_without_a_compiler(
    package: Path, weather: tuple[Program, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    program = edge_lstm.load(package / "weather.elstm")
    (library,) = package.glob("libweather*")
    session = program.compile(library=library)
    np.testing.assert_array_equal(session.run(weather[1]), weather[0].predict(weather[1]))
    assert "step" in vars(session)


def test_module_refuses_what_does_not_fit(package: Path) -> None:
    module = imported(package / "weather.py")
    model = module.Model(streams=2)
    with pytest.raises(ValueError, match="input: 7 bytes; want 14"):
        model.step(bytes(7))
    with pytest.raises(ValueError, match=r"input: want integers -128\.\.127"):
        module.pack([0, 200])
    with pytest.raises(ValueError, match="input: 14 bytes of 2 steps; want 14 a step"):
        model.run(bytes(14), 2)


@pytest.mark.parametrize("name", ["class", "ctypes"])
def test_name_that_python_has_itself_is_refused(
    name: str, weather: tuple[Program, Array], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"model name '{name}': is Python's; give another"):
        write_native(replace(weather[0], name=name), tmp_path)
    assert list(tmp_path.iterdir()) == []
