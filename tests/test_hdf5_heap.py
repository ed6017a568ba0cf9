"""Texts of HDF5 files that claim to be longer than their file."""

import re
import struct
import zipfile
from pathlib import Path

import pytest

from edge_lstm.errors import UnreadableModel
from edge_lstm_converters.hdf5_file import Hdf5File
from edge_lstm_converters.hdf5_heap import claimed_too_long
from edge_lstm_converters.read_keras import read_keras

pytest.importorskip("h5py", reason="h5py not found: pip install 'edge-lstm[tools]'")

MODELS = Path(__file__).parent / "models"
FILES = sorted([*MODELS.glob("*.h5"), *MODELS.glob("*.keras")])


def references(data: bytes) -> list[int]:
    """Return where the lengths of texts stand: those before a heap's address and a small number."""
    found = []
    for heap in re.finditer(b"GCOL", data):
        for place in re.finditer(re.escape(struct.pack("<Q", heap.start())), data):
            length, number = struct.unpack_from("<I8xI", data, place.start() - 4)
            if 0 < length < len(data) and 0 < number < 100:
                found.append(place.start() - 4)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_whole_files_claim_nothing_too_long(path: Path) -> None:
    data = path.read_bytes()
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            data = archive.read("model.weights.h5")
    assert claimed_too_long(data) is None
    if path.suffix == ".h5":
        assert claimed_too_long(path) is None


@pytest.mark.parametrize("length", [2**17, 2**30, 2**32 - 1])
def test_a_text_longer_than_its_file_is_refused_before_it_is_read(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (MODELS / "keras3_branches.h5").read_bytes()
    places = references(whole)
    assert len(places) > 3

    def forbidden(*_: object) -> None:
        raise AssertionError("HDF5 allocates what an attribute claims")

    monkeypatch.setattr(Hdf5File, "_attribute", forbidden)
    path = tmp_path / "m.h5"
    for place in places:
        path.write_bytes(whole[:place] + struct.pack("<I", length) + whole[place + 4 :])
        says = f"m.h5: a text claims {length:,} bytes; the file has {len(whole):,}"
        with pytest.raises(UnreadableModel, match=re.escape(says)):
            read_keras(path)
    with pytest.raises(UnreadableModel, match="a text claims"):
        Hdf5File("m.keras: model.weights.h5", path.read_bytes())


def test_a_user_block_is_refused(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "m.h5", "w", userblock_size=512) as file:
        file.attrs["model_config"] = "{}"
    with pytest.raises(UnreadableModel, match="has a user block of 512 bytes"):
        read_keras(tmp_path / "m.h5")
