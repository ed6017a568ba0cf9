"""C packages and compilers: what is refused, and what the cache keeps."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_lstm.errors import MismatchError, MissingTool, UnreadableModel, UsageError
from edge_lstm_firmware_sim import build as building
from edge_lstm_firmware_sim import toolchain
from edge_lstm_firmware_sim.build import Target, build
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.elf import Image
from edge_lstm_firmware_sim.package import find_package
from edge_lstm_firmware_sim.simulate import Options, count
from edge_lstm_firmware_sim.simulate import _target as find_target
from edge_lstm_firmware_sim.toolchain import run_tool
from firmware_packages import Hand, naked

ROOTS = ("hand_init", "hand_step")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what is built here out of the user's cache; give the folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_LSTM_CACHE", str(folder))
        yield folder


def target(core: str, compiler: str = "zig", optimization: str = "-Os") -> Target:
    """Return a target; skip where its compiler is missing."""
    try:
        return Target.of(CORES[core], compiler, optimization)
    except MissingTool as missing:
        pytest.skip(str(missing))


def built(folder: Path, core: str, compiler: str = "zig") -> Image:
    return build(find_package(folder), target(core, compiler), ROOTS)


def test_package_is_found_from_the_folder_above_it_too(tmp_path: Path) -> None:
    package = Hand().write(tmp_path)
    for folder in (package, tmp_path):
        found = find_package(folder)
        assert (found.name, found.folder, found.streams) == ("hand", package, True)
        assert found.program.fingerprint() == find_package(package).program.fingerprint()


def test_program_is_found_beside_the_package_too(tmp_path: Path) -> None:
    package = Hand().write(tmp_path)
    (package / "hand.elstm").rename(tmp_path / "hand.elstm")
    assert find_package(package).program.name == "hand"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edge-lstm.c/9"}, "schema 'edge-lstm.c/9'; want 'edge-lstm.c/1'"),
        ({"name": "a b; rm"}, "name 'a b; rm'; want a C identifier"),
        ({"name": "../hand"}, "want a C identifier"),
        ({"name": "other"}, "no src/other.h with src/*.c beside it"),
        ({"streams": 1}, "streams 1; want true or false"),
        ({"streams": False}, "max_steps None; want a number of steps"),
        ({"macs_per_step": -5}, "macs_per_step -5; want a number or null"),
        ({"macs_per_step": 1 << 40}, "want a number or null"),
        ({"input": {"kind": "tokens", "size": 3}}, "has no 'dtype'"),
        ({"input": {"kind": "picture", "size": 3, "dtype": "int8"}}, "input: kind 'picture'"),
        ({"output": {"kind": "vector", "size": 3, "dtype": "int64"}}, "output: dtype 'int64'"),
        ({"output": {"kind": "vector", "size": 0, "dtype": "int8"}}, "output: size 0"),
        ({"output": []}, "is no description of a C package"),
    ],
)
def test_damaged_description_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    package = Hand().write(tmp_path, **change)
    with pytest.raises(UnreadableModel) as caught:
        find_package(package)
    assert str(caught.value).startswith(f"{package / 'hand_model.json'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", "\xff", "[" * 100_000])
def test_description_that_is_no_json_document_is_refused(tmp_path: Path, text: str) -> None:
    package = Hand().write(tmp_path)
    (package / "hand_model.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UnreadableModel, match=r"hand_model\.json: "):
        find_package(package)


def test_folder_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="holds 0 C packages"):
        find_package(tmp_path)


def test_folder_of_two_packages_is_refused(tmp_path: Path) -> None:
    Hand().write(tmp_path).rename(tmp_path / "first_c")
    Hand().write(tmp_path)
    with pytest.raises(UnreadableModel, match="holds 2 C packages"):
        find_package(tmp_path)


def test_package_without_its_program_is_refused(tmp_path: Path) -> None:
    package = Hand().write(tmp_path)
    (package / "hand.elstm").unlink()
    with pytest.raises(UnreadableModel, match=r"has no hand\.elstm, so there is nothing to"):
        count(package, "cortex-m4")


def test_types_that_contradict_the_description_are_refused(tmp_path: Path) -> None:
    package = Hand(output="int16_t").write(tmp_path)
    target("cortex-m4")
    with pytest.raises(MismatchError, match=r"input and output items have \(4, 2\) bytes"):
        count(package, "cortex-m4")


@pytest.mark.parametrize("compiler", ["zig", "gcc"])
def test_complaint_of_the_compiler_is_one_line(tmp_path: Path, compiler: str) -> None:
    with pytest.raises(MismatchError) as caught:
        built(Hand("no_such_thing = 1;").write(tmp_path), "cortex-m4", compiler)
    assert "hand.c:" in str(caught.value)
    assert "no_such_thing" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compiler", ["zig", "gcc"])
def test_function_that_is_missing_is_said(tmp_path: Path, compiler: str) -> None:
    package = Hand("extern void hand_missing(void); hand_missing();").write(tmp_path)
    with pytest.raises(MismatchError, match=r"undefined (symbol|reference).*hand_missing"):
        built(package, "cortex-m4", compiler)


@pytest.mark.parametrize("core", CORES)
def test_core_without_its_instructions_is_refused(
    tmp_path: Path, core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Cortex-M23 has neither DSP, nor Helium, and is neither Armv6-M nor Armv7-M.
    plain = ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m23")
    crippled = CORES[core].__class__(**{**vars(CORES[core]), "zig": plain})
    monkeypatch.setitem(CORES, core, crippled)
    with pytest.raises(MismatchError, match=r"not switched on|does not build for"):
        built(Hand().write(tmp_path), core)


@pytest.mark.parametrize("compiler", ["zig", "gcc"])
def test_products_and_divisions_of_64_bits_find_the_run_time_library(
    tmp_path: Path, compiler: str
) -> None:
    planted = "state->calls = (int32_t)((int64_t)state->calls * x[0] / (state->calls + 3));"
    image = built(Hand(planted).write(tmp_path), "cortex-m0plus", compiler)
    assert "__aeabi_lmul" in image.symbols
    assert image.size(".text") > 200  # the library's functions are counted as the model's code


@pytest.mark.parametrize("compiler", ["zig", "gcc"])
@pytest.mark.parametrize("core", CORES)
def test_copies_that_compilers_make_calls_of_are_linked(
    tmp_path: Path, core: str, compiler: str
) -> None:
    planted = (
        "int8_t room[300]; for (int i = 0; i < 300; i++) { room[i] = 0; }"
        "for (int i = 0; i < x[0]; i++) { room[i] = state->room[i]; }"
        "y[0] = ((volatile int8_t *)room)[x[0]];"
    )
    assert built(Hand(planted).write(tmp_path), core, compiler).size(".text") > 0


def test_functions_that_are_not_used_are_dropped(tmp_path: Path) -> None:
    image = built(Hand().write(tmp_path), "cortex-m4")
    assert "hand_step" in image.symbols
    assert "hand_selftest" not in image.symbols
    assert image.size(".rodata") == 33


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that grows by each command that is run."""
    commands: list[list[str]] = []

    def run(command: list[str], folder: Path) -> str:
        commands.append(command)
        return run_tool(command, folder)

    monkeypatch.setattr(building, "run_tool", run)
    return commands


def test_what_was_built_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _counting(monkeypatch)
    hand = Hand("state->room[1] = 77;")
    first = built(hand.write(tmp_path / "1"), "cortex-m4")
    assert commands
    commands.clear()
    # Another folder, the same contents.
    assert built(hand.write(tmp_path / "2"), "cortex-m4") == first
    assert commands == []


@pytest.mark.parametrize("name", ["hand.c", "hand.h"])
def test_changed_file_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    package = Hand("state->room[2] = 78;").write(tmp_path)
    built(package, "cortex-m4")
    path = package / "src" / name
    path.write_text(path.read_text().replace("room[20]", "room[24]").replace("78", "79"))
    commands = _counting(monkeypatch)
    built(package, "cortex-m4")
    assert any(command[-3].endswith("hand.c") for command in commands)


def test_other_flags_are_another_build(tmp_path: Path) -> None:
    package = find_package(Hand().write(tmp_path))
    sizes = {
        build(package, target("cortex-m4", optimization=o), ROOTS).size(".text")
        for o in ("-O3", "-Os")
    }
    assert len(sizes) == 2


def test_cache_keeps_the_newest_files(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "CACHED_FILES", 3)
    built(Hand("state->room[3] = 80;").write(tmp_path), "cortex-m4")
    assert len(list(cache.iterdir())) == 3
    built(Hand("state->room[3] = 81;").write(tmp_path / "2"), "cortex-m4")
    assert len(list(cache.iterdir())) == 3


def _write(_folder: Path, output: Path) -> None:
    output.write_bytes(b"made")


def test_file_that_another_process_writes_is_left_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "CACHED_FILES", 1)
    half_written = cache / ".1.o.abcd"
    half_written.write_bytes(b"ha")
    assert building.cached("2.o", _write).read_bytes() == b"made"
    assert half_written.exists()
    os.utime(half_written, (0, 0))
    building.cached("3.o", _write)
    assert [path.name for path in cache.iterdir()] == ["3.o"]


def test_many_write_to_a_full_cache_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CACHED_FILES", 1)
    with ThreadPoolExecutor(8) as threads:
        for path in threads.map(lambda n: building.cached(f"{n % 20}.o", _write), range(200)):
            assert path.suffix == ".o"


def test_missing_zig_falls_back_to_gcc(monkeypatch: pytest.MonkeyPatch) -> None:
    target("cortex-m4", "gcc")
    _without_zig(monkeypatch)
    assert find_target(CORES["cortex-m4"], Options()).compiler.name == "gcc"


def _without_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain._zig.cache_clear()
    monkeypatch.setitem(sys.modules, "ziglang", None)


def test_missing_compilers_say_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_zig(monkeypatch)
    toolchain._gcc.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    want = r"ziglang is not installed; pip install 'edge-lstm\[firmware\]'"
    with pytest.raises(MissingTool, match=want):
        find_target(CORES["cortex-m4"], Options())
    with pytest.raises(MissingTool, match="gcc not found; apt install gcc-arm-none-eabi"):
        find_target(CORES["cortex-m4"], Options(compiler="gcc"))
    with pytest.raises(MissingTool, match="apt install gcc-riscv64-unknown-elf"):
        find_target(CORES["rv32imc"], Options(compiler="gcc"))


def test_unknown_compiler_is_refused() -> None:
    with pytest.raises(UsageError, match="compiler 'tcc': unknown; there are zig, gcc"):
        Target.of(CORES["cortex-m4"], "tcc")


def test_count_of_a_naked_step_needs_no_weights(tmp_path: Path) -> None:
    image = built(Hand(step=naked("bx lr")).write(tmp_path), "cortex-m4")
    assert image.size(".rodata") == 0


def test_cache_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_LSTM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert building.cache_folder() == Path("/somewhere/edge-lstm/firmware")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert building.cache_folder() == Path.home() / "Library" / "Caches" / "edge-lstm" / "firmware"


def test_description_names_every_key_it_needs(tmp_path: Path) -> None:
    package = Hand().write(tmp_path)
    path = package / "hand_model.json"
    whole = json.loads(path.read_text())
    for key in whole:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(UnreadableModel, match=f"has no '{key}'"):
            find_package(package)
