"""What the wheel claims and asks for: four names of ours, and on a device NumPy alone."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "edge_lstm": ROOT / "edge_lstm",
    "edge_lstm_converters": ROOT / "converters" / "edge_lstm_converters",
    "edge_lstm_firmware_sim": ROOT / "firmware_sim" / "edge_lstm_firmware_sim",
    "edge_lstm_benchmarks": ROOT / "benchmarks" / "edge_lstm_benchmarks",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Give the wheel, built from this tree with the backend that pip would call."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_wheel_claims_four_top_level_names(wheel: zipfile.ZipFile) -> None:
    names = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(PACKAGES)


def test_wheel_has_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    wanted = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - set(wheel.namelist()) == set()


def test_wheel_has_the_sample_models(wheel: zipfile.ZipFile) -> None:
    models = "edge_lstm_benchmarks/models/"
    suffixes = {Path(name).suffix for name in wheel.namelist() if name.startswith(models)}
    assert {".keras", ".pt", ".onnx", ".npz", ".toml"} <= suffixes


def test_wheel_asks_for_numpy_alone(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    assert [line for line in required if "extra ==" not in line] == ["numpy>=1.23"]


def test_wheel_offers_the_documented_extras(metadata: Message) -> None:
    extras = set(metadata.get_all("Provides-Extra", []))
    assert extras == {"tools", "firmware", "tflite-runtime", "dev"}


def test_wheel_carries_its_licence(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    (name,) = (name for name in wheel.namelist() if name.endswith("/licenses/LICENSE"))
    assert wheel.read(name) == (ROOT / "LICENSE").read_bytes()


def test_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "edge-lstm = edge_lstm.cli:main" in wheel.read(name).decode()
