"""`edge-lstm simulate`: every kind of model, every option, every refusal."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c_packages import program_of
from edge_lstm import cli
from edge_lstm.cells import Dense, Embedding, Flatten, LastStep
from edge_lstm.errors import MissingTool
from edge_lstm.program import PROFILES, Program
from edge_lstm.program_file import save
from edge_lstm.spec import Layer, Signal
from edge_lstm_converters.write_c import write_c
from edge_lstm_firmware_sim import simulate as simulating
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.simulate import count
from firmware_packages import Hand
from strategies import lstm_layer, uniform

pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")
pytest.importorskip("ziglang", reason="ziglang not found: pip install 'edge-lstm[firmware]'")
pytest.importorskip("unicorn", reason="unicorn not found: pip install 'edge-lstm[firmware]'")
pytest.importorskip("elftools", reason="pyelftools not found: pip install 'edge-lstm[firmware]'")

MODELS = Path(cli.__file__).parents[1] / "benchmarks" / "edge_lstm_benchmarks" / "models"
WEATHER = MODELS / "weather"
FIELDS = {
    "device", "core", "emulator", "profile", "differing_bytes", "instructions_per_step",
    "instructions_per_mac", "estimated_cycles_per_step", "flash_bytes", "ram_bytes",
    "stack_bytes", "fits", "skipped_reason",
}  # fmt: skip

FEW = ("cortex-m4", "cortex-m55", "rv32imc")

Simulate = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is built here out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_LSTM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def simulate(capsys: pytest.CaptureFixture[str]) -> Simulate:
    """Give a function that runs the command here; it returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(["simulate", *(str(a) for a in arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def of(result: tuple[int, str, str], code: int = 0) -> list[dict[str, Any]]:
    """Return the devices of a JSON document, and check the exit code."""
    found, out, err = result
    assert found == code, err
    devices: list[dict[str, Any]] = json.loads(out)["devices"]
    return devices


def refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    """Check that the command ended with ``code`` and one line that has all ``words``."""
    found, out, err = result
    assert found == code, err
    assert out == ""
    assert err.startswith("edge-lstm: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


@pytest.fixture(scope="module")
def random() -> np.random.Generator:
    """Give the source of this module's weights."""
    return np.random.default_rng(5)


def _streaming(profile: str) -> Program:
    random = np.random.default_rng(1)
    layers: tuple[Layer, ...] = (
        lstm_layer(random, "first", 6, 9),
        lstm_layer(random, "second", 9, 5),
        LastStep("last"),
        Dense("dense", uniform(random, 4, 5), uniform(random, 4)),
    )
    return program_of(layers, Signal("sequence", 6), profile)


def _whole(profile: str) -> Program:
    random = np.random.default_rng(2)
    layers = (
        lstm_layer(random, "lstm", 3, 4),
        Flatten("flat", 5),
        Dense("dense", uniform(random, 2, 20), uniform(random, 2)),
    )
    return program_of(layers, Signal("sequence", 3), profile, 5)


def _tokens(profile: str) -> Program:
    random = np.random.default_rng(3)
    table = random.normal(0, 1, (9, 4)).astype(np.float32)
    layers = (Embedding("words", table), lstm_layer(random, "lstm", 4, 6))
    return program_of(layers, Signal("tokens", 9), profile)


def _vectors(profile: str) -> Program:
    random = np.random.default_rng(4)
    layers = (Dense("dense", uniform(random, 3, 7), uniform(random, 3)),)
    return program_of(layers, Signal("vector", 7), profile)


KINDS = {"streaming": _streaming, "whole": _whole, "tokens": _tokens, "vectors": _vectors}


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a handwritten package that is right."""
    return Hand().write(tmp_path_factory.mktemp("hand"))


@pytest.mark.parametrize(
    ("profile", "kind", "core"),
    [
        *((p, "streaming", core) for p in ("edge", "tflm") for core in CORES),
        *(("edge", kind, core) for kind in ("whole", "tokens", "vectors") for core in FEW),
        *((p, "streaming", "cortex-m4") for p in PROFILES if p not in ("edge", "tflm")),
    ],
)
def test_no_byte_differs(tmp_path: Path, profile: str, kind: str, core: str) -> None:
    try:
        package = write_c(KINDS[kind](profile), tmp_path)
        found = count(package, core)
    except MissingTool as missing:
        pytest.skip(str(missing))
    assert found.differing_bytes == 0
    assert found.compared_bytes > 0
    assert found.selftest_passed


@pytest.mark.parametrize("core", CORES)
def test_no_byte_differs_where_built_for_size(tmp_path: Path, core: str) -> None:
    try:
        found = count(write_c(_streaming("edge"), tmp_path), core, opt="-Os")
    except MissingTool as missing:
        pytest.skip(str(missing))
    assert found.differing_bytes == 0
    assert found.selftest_passed


def test_json_has_every_field_for_every_device(simulate: Simulate, hand: Path) -> None:
    names = ["nrf52840", "rp2040", "esp32-c3", "cortex-m7", "corstone-300"]
    devices = of(simulate(hand, "--device", ",".join(names), "--json"))
    assert [d["device"] for d in devices] == names
    for device in devices:
        assert set(device) >= FIELDS
        if device["skipped_reason"] is None:
            assert device["differing_bytes"] == 0
            assert set(device["flash_bytes"]) == {"code", "weights", "total"}
            flash = device["flash_bytes"]
            assert flash["total"] == flash["code"] + flash["weights"]
            assert device["instructions_per_mac"] == device["instructions_per_step"] / 6
            assert device["fits"] is (None if device["device"] == "cortex-m7" else True)
        else:
            assert device["device"] == "corstone-300"
            assert "apt install qemu-system-arm" in device["skipped_reason"]


def test_json_is_the_same_each_time(simulate: Simulate, hand: Path) -> None:
    first, second = (simulate(hand, "--device", "rp2040,cortex-m4", "--json")[1] for _ in range(2))
    assert first == second


def test_figures_of_a_device_follow_from_its_clock_and_memory(
    simulate: Simulate, hand: Path
) -> None:
    (m4,) = of(simulate(hand, "--device", "nrf52840", "--frame-ms", "0.5", "--json"))
    assert m4["estimated_steps_per_second"] == 64e6 / m4["estimated_cycles_per_step"]
    share = m4["estimated_cycles_per_step"] / 64e6 / 0.5e-3
    assert m4["estimated_share_of_frame"] == pytest.approx(share)
    assert m4["flash_left_bytes"] == (1 << 20) - m4["flash_bytes"]["total"]
    assert m4["ram_left_bytes"] == (256 << 10) - m4["ram_bytes"] - m4["stack_bytes"]


def test_table_compares_devices(simulate: Simulate, hand: Path) -> None:
    code, out, _ = simulate(hand, "--device", "nrf52840,rp2040,cortex-m3", "--frame-ms", "10")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "hand: profile tflm, 6 MACs a step"
    for name in ("nrf52840", "rp2040", "cortex-m3"):
        assert sum(line.startswith(f"{name} ") for line in lines) == 1
    assert "of 10 ms, est." in lines[2]
    assert "bytes of flash left" in out
    assert "Instructions are exact" in out
    assert "Cycles on cortex-m4, cortex-m3" not in out
    assert "are estimated: table of the core's TRM" in out


@pytest.mark.parametrize("suffix", [".elstm", ".tflite"])
def test_model_file_is_simulated_from_beginning_to_end(
    simulate: Simulate, tmp_path: Path, suffix: str
) -> None:
    program = _streaming("tflm")
    path = tmp_path / f"net{suffix}"
    if suffix == ".elstm":
        save(program, path)
    else:
        from edge_lstm_converters.write_tflite import write_tflite

        write_tflite(program, path)
    (m4,) = of(simulate(path, "--device", "cortex-m4", "--profile", "litert", "--json"))
    assert (m4["profile"], m4["differing_bytes"]) == ("litert", 0)


def test_float_model_is_scaled_by_samples_and_runs_them(simulate: Simulate, tmp_path: Path) -> None:
    arguments = [WEATHER / "model.pt", "--layers", WEATHER / "layers.toml"]
    arguments += ["--calib", WEATHER / "calibration.npz", "--device", "nrf52840"]
    (m4,) = of(simulate(*arguments, "--json"))
    assert (m4["profile"], m4["differing_bytes"], m4["fits"]) == ("edge", 0, True)
    with np.load(WEATHER / "test.npz") as test:
        np.savez(tmp_path / "x.npz", x=test["x"][:100])
    (m4,) = of(simulate(*arguments, "--data", tmp_path / "x.npz", "--json"))
    assert (m4["steps"], m4["differing_bytes"]) == (100 * 24, 0)


def test_float_model_without_samples_is_refused(simulate: Simulate) -> None:
    arguments = [WEATHER / "model.pt", "--layers", WEATHER / "layers.toml"]
    refused(simulate(*arguments, "--device", "cortex-m4"), 2, "model.pt: holds floats", "--calib")


def test_sequences_run_as_far_as_they_are_valid(
    simulate: Simulate, hand: Path, tmp_path: Path
) -> None:
    x = np.arange(24).reshape(3, 8) % 11
    np.savez(tmp_path / "x.npz", x=x, lengths=np.array([8, 3, 5]))
    (m4,) = of(simulate(hand, "--device", "cortex-m4", "--data", tmp_path / "x.npz", "--json"))
    assert (m4["steps"], m4["compared_bytes"], m4["differing_bytes"]) == (16, 48, 0)


def test_steps_that_are_left_out_are_told(
    simulate: Simulate, hand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulating, "MOST_INSTRUCTIONS", 200)  # of 20 instructions a step
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 8), np.int32))
    code, out, _ = simulate(hand, "--device", "cortex-m4", "--data", tmp_path / "x.npz")
    assert code == 0
    assert "the outputs of the first 10 of 24 steps were compared with NumPy's" in out


def test_samples_of_a_whole_sequence_model_are_run(simulate: Simulate, tmp_path: Path) -> None:
    save(_whole("edge"), tmp_path / "net.elstm")
    x = np.random.default_rng(0).normal(0, 1, (7, 5, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    arguments = [tmp_path / "net.elstm", "--data", tmp_path / "x.npz", "--json", "--device"]
    (m4,) = of(simulate(*arguments, "cortex-m4"))
    assert (m4["steps"], m4["compared_bytes"], m4["differing_bytes"]) == (35, 14, 0)


def test_rows_of_a_vector_model_are_run(simulate: Simulate, tmp_path: Path) -> None:
    save(_vectors("edge"), tmp_path / "net.elstm")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(0, 1, (30, 7)))
    arguments = [tmp_path / "net.elstm", "--data", tmp_path / "x.npz", "--json", "--device"]
    (m4,) = of(simulate(*arguments, "cortex-m4"))
    assert (m4["steps"], m4["compared_bytes"], m4["differing_bytes"]) == (30, 90, 0)


@pytest.mark.parametrize(
    ("x", "lengths", "words"),
    [
        (np.zeros((2, 4, 3), np.int32), None, "x has shape [2, 4, 3]; want [sequences, steps]"),
        (np.full((2, 4), 11), None, "ids are 11 to 11; want 0 to 10"),
        (np.zeros((2, 0), np.int32), None, "x has shape [2, 0]"),
        (np.zeros((2, 4), np.float32), None, "x is float32; want int32"),
        (np.zeros((2, 4), np.int32), np.array([4, 5]), "lengths; want 2 numbers from 1 to 4"),
        (np.zeros((2, 4), np.int32), np.array([4]), "lengths; want 2 numbers from 1 to 4"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    simulate: Simulate, hand: Path, tmp_path: Path, x: Any, lengths: Any, words: str
) -> None:
    arrays = {"x": x} if lengths is None else {"x": x, "lengths": lengths}
    np.savez(tmp_path / "x.npz", **arrays)
    result = simulate(hand, "--device", "cortex-m4", "--data", tmp_path / "x.npz")
    refused(result, 2, f"{tmp_path / 'x.npz'}: {words}")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--device", "abacus"], 2, "device 'abacus': unknown; there are cortex-m0plus"),
        (["--device", " , "], 2, "--device: names no device"),
        (["--device", "cortex-m4", "--compiler", "tcc"], 2, "compiler 'tcc': unknown"),
        (["--device", "cortex-m4", "--optimize", "O9"], 2, "optimization '-O9': unknown"),
        (["--device", "cortex-m4", "--emulator", "bochs"], 2, "emulator 'bochs': unknown"),
        (["--device", "cortex-m4", "--profile", "edge"], 2, "has profile tflm, not edge"),
        (["--device", "cortex-m4", "--profile", "mine"], 2, "mine"),
        (["--device", "cortex-m4", "--frame-ms", "0"], 2, "--frame-ms 0: must be above 0"),
        (["--device", "cortex-m4", "--frame-ms", "nan"], 2, "--frame-ms nan: must be above 0"),
        (["--device", "cortex-m4", "--plot", "p.gif"], 2, "p.gif: suffix '.gif'; want .png or"),
        (["--device", "cortex-m4", "--data", "none.npz"], 2, "none.npz: cannot be read"),
    ],
)
def test_wrong_option_is_refused(
    simulate: Simulate, hand: Path, arguments: list[str], code: int, words: str
) -> None:
    refused(simulate(hand, *arguments), code, words)


def test_folder_without_a_package_is_refused(simulate: Simulate, tmp_path: Path) -> None:
    refused(simulate(tmp_path, "--device", "cortex-m4"), 3, "holds 0 C packages")


def test_path_that_leads_nowhere_is_refused(simulate: Simulate, tmp_path: Path) -> None:
    missing = tmp_path / "net_c"
    refused(simulate(missing, "--device", "cortex-m4"), 3, f"{missing}: is not there; give a")


def test_package_that_does_not_compile_is_refused(simulate: Simulate, tmp_path: Path) -> None:
    package = Hand("no_such_thing = 1;").write(tmp_path)
    refused(simulate(package, "--device", "cortex-m4"), 1, "no_such_thing")


def test_differing_bytes_fail(simulate: Simulate, tmp_path: Path) -> None:
    package = Hand("static const int8_t other[3]; y = (hand_output_t *)state->room; (void)other;")
    result = simulate(package.write(tmp_path), "--device", "cortex-m4", "--json")
    (m4,) = of(result, 1)
    assert m4["differing_bytes"] > 0


def test_failed_selftest_fails(simulate: Simulate, tmp_path: Path) -> None:
    package = Hand(selftest="(void)state; return 1;").write(tmp_path)
    code, out, _ = simulate(package, "--device", "cortex-m4")
    assert code == 1
    assert "cortex-m4: THE PACKAGE'S OWN TEST FAILED" in out


def test_model_that_does_not_fit_fails_and_says_by_how_much(
    simulate: Simulate, tmp_path: Path
) -> None:
    big = "static const int8_t big[70000] = {1};"
    package = Hand(big + "state->room[0] = ((volatile const int8_t *)big)[x[0]];").write(tmp_path)
    (small, large) = of(simulate(package, "--device", "stm32f103c8,nrf52840", "--json"), 1)
    assert (small["fits"], large["fits"]) == (False, True)
    assert small["flash_left_bytes"] == (64 << 10) - small["flash_bytes"]["total"] < 0
    code, out, _ = simulate(package, "--device", "stm32f103c8")
    assert code == 1
    assert f"{-small['flash_left_bytes']:,} of 65,536 bytes of flash short" in out


def test_missing_tool_skips_its_devices_only(
    simulate: Simulate, hand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_lstm_firmware_sim import run_qemu

    run_qemu._qemu.cache_clear()
    find = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name: None if name == "qemu-system-arm" else find(name)
    )
    m4, m55 = of(simulate(hand, "--device", "cortex-m4,cortex-m55", "--json"))
    assert (m4["skipped_reason"], m4["differing_bytes"]) == (None, 0)
    assert (
        m55["skipped_reason"] == "qemu-system-arm not found; apt install qemu-system-arm (Debian)"
    )
    assert m55["instructions_per_step"] is None
    code, out, _ = simulate(hand, "--device", "corstone-300")
    assert code == 4
    assert "corstone-300: not run: qemu-system-arm not found" in out
    run_qemu._qemu.cache_clear()


def test_missing_packages_say_how_to_get_them(
    simulate: Simulate, hand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "unicorn", None)
    (m4,) = of(simulate(hand, "--device", "cortex-m4", "--json"), 4)
    assert m4["skipped_reason"] == (
        "package unicorn is not installed; pip install 'edge-lstm[firmware]'"
    )


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture_is_drawn_and_the_same_each_time(
    simulate: Simulate, hand: Path, tmp_path: Path, suffix: str
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    pictures = []
    for number in range(2):
        path = tmp_path / f"{number}.{suffix}"
        assert simulate(hand, "--device", "nrf52840,cortex-m3", "--plot", path)[0] == 0
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_missing_matplotlib_is_said(
    simulate: Simulate, hand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = tmp_path / "p.png"
    refused(simulate(hand, "--device", "cortex-m4", "--plot", path), 4, "pip install matplotlib")
    assert not path.exists()
