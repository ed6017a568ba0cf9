"""`convert --to c` and `--to tflm`: folders for firmware, whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_lstm
from c_packages import STRICT, compile_c, gcc, gxx, program_of
from edge_lstm import cli
from edge_lstm.cells import Dense, Embedding, Reverse
from edge_lstm.errors import MissingTool, UsageError
from edge_lstm.program import EDGE, Program
from edge_lstm.spec import Layer, Signal
from edge_lstm_converters import arena_tflm, write_tflite, write_tflm
from edge_lstm_converters.c_package import FILES
from edge_lstm_converters.convert import ConvertOptions, convert
from edge_lstm_converters.tflite_tables import OPERATORS
from edge_lstm_converters.write_c import package_files, write_c
from edge_lstm_converters.write_tflm import ADDERS, tflm_files

pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")

WEATHER = Path(cli.__file__).parents[1] / "benchmarks/edge_lstm_benchmarks/models/weather"
CALIBRATION = WEATHER / "calibration.npz"
tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="no tflite-micro; pip install --pre tflite-micro",
)
FromWeather = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def weather(tmp_path: Path) -> FromWeather:
    """Give a function that converts the weather model with some options."""

    def run(**options: Any) -> tuple[Path, dict[str, Any]]:
        given = ConvertOptions(
            layers=WEATHER / "layers.toml",
            calibration=CALIBRATION,
            name="weather",
            check=False,
            **options,
        )
        return tmp_path, convert(WEATHER / "model.pt", tmp_path, given).manifest

    return run


def test_c_alone_has_the_edge_arithmetic(weather: FromWeather) -> None:
    folder, manifest = weather(targets=("c",))
    assert manifest["program"]["profile"] == EDGE
    described = json.loads((folder / "weather_c" / "weather_model.json").read_text())
    assert described["profile"] == EDGE
    assert described["streams"] is True
    program = edge_lstm.load(folder / "weather_c" / "weather.elstm")
    assert program.fingerprint() == described["fingerprint"]


def test_the_manifest_has_the_hash_of_every_file_of_the_package(weather: FromWeather) -> None:
    folder, manifest = weather(targets=("c", "elstm"), profile=EDGE)
    entry = manifest["files"]["c"]
    found = {
        path.relative_to(folder / "weather_c").as_posix(): path.read_bytes()
        for path in (folder / "weather_c").rglob("*")
        if path.is_file()
    }
    assert set(entry["contents"]) == set(found)
    assert entry["bytes"] == sum(map(len, found.values()))
    for name, data in found.items():
        assert entry["contents"][name]["sha256"] == hashlib.sha256(data).hexdigest()


def test_converting_again_keeps_what_a_user_put_beside_the_files(weather: FromWeather) -> None:
    folder, _ = weather(targets=("c",))
    mine, theirs = folder / "weather_c" / "src" / "mine.c", folder / "weather_c" / "src/weather.c"
    mine.write_text("/* mine */")
    before = theirs.read_bytes()
    theirs.write_text("")
    weather(targets=("c",))
    assert mine.read_text() == "/* mine */"
    assert theirs.read_bytes() == before


def test_a_package_that_cannot_be_written_leaves_nothing(
    weather: FromWeather, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "weather_c" / "zephyr" / "Kconfig"
    in_the_way.mkdir(parents=True)
    with pytest.raises(edge_lstm.errors.OutputError, match=r"Kconfig: cannot be written: is a"):
        weather(targets=("c",))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_16_bit_inputs_go_into_c(weather: FromWeather) -> None:
    folder, _ = weather(targets=("c",), profile=EDGE, quant="int16x8")
    header = (folder / "weather_c" / "src" / "weather.h").read_text()
    assert "typedef int16_t weather_input_t;" in header


def test_c_and_tflm_are_written_only_when_asked_for(weather: FromWeather) -> None:
    _, manifest = weather()
    assert set(manifest["files"]) == {"onnx", "tflite", "elstm"}


def test_c_of_a_tflite_file_takes_as_many_steps_as_its_input(tmp_path: Path) -> None:
    model = Path(__file__).parent / "golden/tf_bidirectional_stack/model.tflite"
    options = ConvertOptions(targets=("c",), profile="litert", check=False)
    convert(model, tmp_path, options)
    assert "#define model_MAX_STEPS 7\n" in (tmp_path / "model_c/src/model.h").read_text()


def test_float32_has_no_c(weather: FromWeather) -> None:
    with pytest.raises(UsageError, match="C hold integers, not float32"):
        weather(targets=("c",), quant="float32")


# The package's other files.


def some_program() -> Program:
    draw = np.random.default_rng(0)
    layers: tuple[Layer, ...] = (
        Dense(
            "head",
            weights=draw.normal(size=(2, 3)).astype(np.float32),
            bias=np.zeros(2, np.float32),
        ),
    )
    return program_of(layers, Signal("sequence", 3), EDGE)


def tokens_program() -> Program:
    table = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    return program_of((Embedding("table", table=table),), Signal("tokens", 9), EDGE)


def whole_program() -> Program:
    return program_of((Reverse("turn"),), Signal("sequence", 3), EDGE, time_steps=7)


PROGRAMS = [some_program, tokens_program, whole_program]


@gcc
@pytest.mark.parametrize("make", PROGRAMS)
def test_make_test_runs_the_selftest(make: Callable[[], Program], tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make; apt-get install make")
    package = write_c(make(), tmp_path)
    command = ["make", "-C", str(package), "test", "CFLAGS=-O1 -Werror"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "profile edge: passed" in done.stdout, done.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake; pip install cmake")
def test_cmake_builds_and_tests_the_package(tmp_path: Path) -> None:
    package, build = write_c(some_program(), tmp_path), tmp_path / "build"
    for command in (
        ["cmake", "-S", str(package), "-B", str(build)],
        ["cmake", "--build", str(build)],
        ["ctest", "--test-dir", str(build)],
    ):
        compile_c(command)


@gcc
@pytest.mark.parametrize("make", PROGRAMS)
def test_the_readme_of_a_package_shows_code_that_compiles(
    make: Callable[[], Program], tmp_path: Path
) -> None:
    package = write_c(make(), tmp_path)
    (code,) = re.findall(r"```c\n(.*?)```", (package / "README.md").read_text(), re.DOTALL)
    (package / "src" / "example.c").write_text(code)
    compile_c(["gcc", *STRICT, "-fsyntax-only", str(package / "src" / "example.c")])


@gcc
def test_c_of_our_readme_compiles(weather: FromWeather) -> None:
    folder, _ = weather(targets=("c",))
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf8")
    (code,) = re.findall(r"```c\n(.*?)```", readme, re.DOTALL)
    source = folder / "weather_c" / "src" / "example.c"
    source.write_text(code)
    compile_c(["gcc", *STRICT, "-fsyntax-only", str(source)])


@gcc
def test_the_example_in_c_gives_each_stream_its_own_forecasts(weather: FromWeather) -> None:
    folder, _ = weather(targets=("c",))
    source, binary = folder / "weather_c" / "src", str(folder / "two")
    example = Path(__file__).parents[1] / "examples" / "two_streams.c"
    files = [str(example), *map(str, source.glob("*.c"))]
    compile_c(["gcc", *STRICT, f"-I{source}", *files, "-o", binary])
    x = np.load(WEATHER / "test.npz")["x"][:2, :20].astype(np.float32)  # two stations
    readings = " ".join(repr(float(value)) for value in x.transpose(1, 0, 2).ravel())
    done = subprocess.run(
        [binary], input=readings, capture_output=True, text=True, timeout=20, check=True
    )
    found = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    session = edge_lstm.load(folder / "weather_c" / "weather.elstm").session(2)
    expected = np.stack([session.step(x[:, t])[:, 0] for t in range(20)])
    np.testing.assert_array_equal(found, expected)


@gxx
@pytest.mark.parametrize("make", PROGRAMS)
def test_the_arduino_sketch_compiles(make: Callable[[], Program], tmp_path: Path) -> None:
    package = write_c(make(), tmp_path)
    stub = tmp_path / "sketch.cpp"
    stub.write_text(
        "struct { void begin(long); operator bool(); void println(const char *);"
        " void print(unsigned long); } Serial;\n"
        "unsigned long micros(); void delay(int);\n"
        f'#include "{package}/examples/selftest/selftest.ino"\n'
    )
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{package}/src"]
    compile_c(["g++", *flags, str(stub)])


def test_every_form_of_the_package_names_files_that_are_there() -> None:
    files = package_files(some_program())
    assert json.loads(files["library.json"])["headers"] == "net.h"
    lines = files["library.properties"].decode().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    assert properties["includes"] == "net.h"
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph"} <= set(properties)
    description = ElementTree.fromstring(files["edge-lstm.net.pdsc"].decode())
    named = [element.attrib["name"] for element in description.iter("file")]
    assert [name for name in named if not name.endswith("/") and name not in files] == []
    assert description.findtext("name") == "net"
    zephyr = files["zephyr/CMakeLists.txt"].decode()
    for source in re.findall(r"\.\./(src/\S+?\.c)", zephyr):
        assert source in files
    symbol = re.search(r"config (\w+)", files["zephyr/Kconfig"].decode())
    assert symbol is not None
    assert f"CONFIG_{symbol[1]}" in zephyr


def test_yaml_of_the_package_is_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="no PyYAML; pip install pyyaml")
    files = package_files(some_program())
    assert yaml.safe_load(files["idf_component.yml"])["version"] == edge_lstm.__version__
    assert yaml.safe_load(files["zephyr/module.yml"])["build"]["kconfig"] == "zephyr/Kconfig"


def test_every_template_is_in_the_package() -> None:
    folder = Path(write_tflite.__file__).parent / "package"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == set(FILES)
    assert not [text for text in package_files(some_program()).values() if b"@name@" in text]


# TensorFlow Lite Micro.


def interchange() -> Program:
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(2, 3)).astype(np.float32)
    dense = Dense("head", weights=weights, bias=np.zeros(2, np.float32))
    return program_of((dense,), Signal("sequence", 3), "tflm")


@gxx
def test_the_array_is_the_tflite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arena = arena_tflm.Arena(4096, "nothing")
    monkeypatch.setattr(write_tflm, "measure", lambda data: arena)
    files = tflm_files(interchange(), 4)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    main = tmp_path / "main.cc"
    main.write_text(
        '#include "net_model.h"\n#include <cstdio>\n'
        "struct Resolver { int count = 0; void AddFullyConnected() { count++; }"
        " void AddReshape() { count++; } };\n"
        "int main() { Resolver r; net_ADD_OPERATORS(r)\n"
        "  fwrite(net_model, 1, net_model_bytes, stdout);\n"
        "  return r.count != net_OPERATORS || (unsigned long)net_model % 16; }\n"
    )
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror"]
    sources = [str(tmp_path / "net_model.cc"), str(main)]
    compile_c(["g++", *flags, *sources, "-o", str(tmp_path / "main")])
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, timeout=20, check=True)
    assert b"#define net_ARENA_BYTES 4096" in files["net_model.h"]
    assert done.stdout == files["net.tflite"] == write_tflite.tflite_bytes(interchange(), 4)


@tflm
def test_the_arena_is_the_least_in_which_the_model_runs(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(write_tflite.tflite_bytes(interchange(), 4))
    arena = arena_tflm.measure(path.read_bytes())
    command = [sys.executable, "-m", "edge_lstm_converters.arena_tflm", str(path)]
    for size, runs in ((arena.bytes, True), (arena.bytes - arena_tflm.GRANULE, False)):
        done = subprocess.run([*command, str(size)], capture_output=True, timeout=60, check=False)
        assert (done.returncode == 0) == runs


def test_without_tflite_micro_the_header_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingTool, match="pip install --pre tflite-micro"):
        arena_tflm.measure(b"")
    header = tflm_files(interchange())["net_model.h"].decode()
    assert "tflite-micro is not installed; pip install --pre tflite-micro" in header
    assert "ARENA_BYTES" not in header


def test_every_operator_that_is_written_can_be_added() -> None:
    source = Path(write_tflite.__file__).read_text()
    written = {word for word in re.findall(r'"([A-Z][A-Z0-9_]+)"', source) if word in OPERATORS}
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in written
    assert written <= set(ADDERS)
