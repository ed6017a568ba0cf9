"""Device files: all of them are whole, and a damaged one is refused in a line."""

from pathlib import Path

import pytest

from edge_lstm.errors import UsageError
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.device import FOLDER, SOURCED, device_named, devices

FILES = sorted(FOLDER.glob("*.toml"))
GOOD = """\
name = "Board of mine"
core = "cortex-m4"
clock_hz = 1_000_000
flash_bytes = 4096
ram_bytes = 1024
[sources]
core = "its data sheet"
clock_hz = "its data sheet"
flash_bytes = "its data sheet"
ram_bytes = "its data sheet"
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_device_file_is_whole_and_says_its_sources(path: Path) -> None:
    device = devices()[path.stem]
    assert path.stem == path.stem.lower()
    assert dict(device.sources).keys() == set(SOURCED)
    # Microcontrollers as they are: 16 kB to 4 MB of flash, 8 kB to 2 MB of RAM, 16 MHz to 1 GHz.
    assert 16 << 10 <= (device.flash_bytes or 0) <= 4 << 20
    assert 8 << 10 <= (device.ram_bytes or 0) <= 2 << 20
    assert 16_000_000 <= (device.clock_hz or 0) <= 1_000_000_000


def test_no_name_means_two_devices() -> None:
    names = [name for d in devices().values() for name in (d.name, *d.aliases)] + [*CORES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "core"),
    [
        ("nRF52840", "cortex-m4"), ("stm32l4", "cortex-m4"), ("STM32F4", "cortex-m4"),
        ("stm32f7", "cortex-m7"), ("stm32h7", "cortex-m7"), ("stm32u5", "cortex-m33"),
        ("rp2040", "cortex-m0plus"), ("rp2350", "cortex-m33"), ("samd21", "cortex-m0plus"),
        ("esp32-c3", "rv32imc"), ("esp32c3", "rv32imc"), ("corstone-300", "cortex-m55"),
    ],
)  # fmt: skip
def test_devices_that_people_use_are_known_by_their_common_names(name: str, core: str) -> None:
    assert device_named(name).core.name == core


@pytest.mark.parametrize("core", CORES)
def test_bare_core_is_a_device_without_memory_or_clock(core: str) -> None:
    device = device_named(core)
    assert (device.core.name, device.clock_hz, device.flash_bytes) == (core, None, None)


def test_unknown_device_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        device_named("abacus")
    assert str(caught.value).startswith("device 'abacus': unknown; there are cortex-m0plus, ")
    assert "nrf52840" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_device_file_of_the_user_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    device = device_named(str(path))
    assert (device.name, device.flash_bytes, device.aliases) == ("mine", 4096, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("clock_hz = 1_000_000\n", ""), "has no clock_hz"),
        (("clock_hz = 1_000_000", "clock_hz = -1"), "clock_hz = -1; want a positive integer"),
        (("ram_bytes = 1024", "ram_bytes = true"), "ram_bytes = True; want a positive integer"),
        (("cortex-m4", "z80"), "core = 'z80'; want one of cortex-m0plus"),
        (('name = "Board', 'colour = "red"\nname = "Board'), "'colour' is unknown"),
        (('name = "Board', 'aliases = "b"\nname = "Board'), "aliases = 'b'; want texts"),
        (('flash_bytes = "its data sheet"\n', ""), "[sources] wants a data sheet for each of"),
        (("clock_hz = 1_000_000", "clock_hz = = 1"), "is not TOML"),
    ],
)
def test_damaged_device_file_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = tmp_path / "mine.toml"
    assert change[0] in GOOD
    path.write_text(GOOD.replace(*change))
    with pytest.raises(UsageError) as caught:
        device_named(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_missing_device_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mine\.toml: cannot be read: no such file"):
        device_named(str(tmp_path / "mine.toml"))
