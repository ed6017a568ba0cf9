"""The .elstm file: what is saved is what is loaded, and damage is always seen."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

import edge_lstm
from edge_lstm.errors import EdgeLstmError, OutputError, UnreadableModel
from edge_lstm.program import Profile
from edge_lstm.program_file import program_bytes, program_from_bytes
from strategies import profiles, random_bytes, random_program, seeds

PROGRAM = random_program(np.random.default_rng(1), head=True, largest=6)


@given(seed=seeds, profile=profiles)
def test_what_is_saved_is_what_is_loaded(seed: int, profile: Profile) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random, profile, largest=10)
    again = program_from_bytes(program_bytes(program))
    assert again.fingerprint() == program.fingerprint()
    x = random_bytes(random, program, 2, 5)
    np.testing.assert_array_equal(again.predict(x), program.predict(x))


def test_equal_programs_give_equal_bytes(tmp_path: Path) -> None:
    edge_lstm.save(PROGRAM, tmp_path / "a.elstm")
    edge_lstm.save(edge_lstm.load(tmp_path / "a.elstm"), tmp_path / "b.elstm")
    assert (tmp_path / "a.elstm").read_bytes() == (tmp_path / "b.elstm").read_bytes()


def test_load_runs_another_profile_when_asked(tmp_path: Path) -> None:
    edge_lstm.save(PROGRAM, tmp_path / "a.elstm")
    assert edge_lstm.load(tmp_path / "a.elstm").profile == "tflm"
    assert edge_lstm.load(tmp_path / "a.elstm", profile="litert").profile == "litert"


def test_every_cut_is_refused_in_one_line() -> None:
    data = program_bytes(PROGRAM)
    for size in (1, 4, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(UnreadableModel) as refusal:
            program_from_bytes(data[:size])
        assert "\n" not in str(refusal.value)


def test_no_damage_changes_what_runs() -> None:
    """A flipped byte of an array is refused; elsewhere it is refused or nothing reads it."""
    data = program_bytes(PROGRAM)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = archive.infolist()[0]
        start = first.header_offset + 30 + len(first.filename) + 20  # and the zip64 field
        inside = range(start, start + first.compress_size)
    for position in range(0, len(data), 5):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        try:
            program = program_from_bytes(bytes(damaged))
        except EdgeLstmError:
            continue
        assert position not in inside
        assert program.fingerprint() == PROGRAM.fingerprint()


def rewritten(change: dict[str, object]) -> bytes:
    """Return the program's file with fields of its JSON document replaced."""
    with np.load(io.BytesIO(program_bytes(PROGRAM))) as archive:
        arrays = {name: archive[name] for name in archive.files}
    document = json.loads(arrays["program"].tobytes())
    document.update(change)
    arrays["program"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(UnreadableModel, match=r"program/99.*install the newest"):
        program_from_bytes(rewritten({"format": "edge-lstm.program/99"}))


def test_contents_that_do_not_match_their_fingerprint_are_refused() -> None:
    with pytest.raises(UnreadableModel, match="fingerprint"):
        program_from_bytes(rewritten({"profile": "litert"}))


def test_objects_are_never_unpickled() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, program=np.array([object()], dtype=object))
    with pytest.raises(UnreadableModel):
        program_from_bytes(buffer.getvalue())


def test_an_array_that_claims_more_than_its_bytes_is_not_allocated() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|i1", "fortran_order": False, "shape": (2**40,)}
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("program.npy", header.getvalue() + b"\x00" * 16)
    with pytest.raises(UnreadableModel, match="1099511627776"):
        program_from_bytes(buffer.getvalue())


def test_a_zip_bomb_is_not_inflated() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program.npy", b"\x00" * 200_000_000)
    assert len(buffer.getvalue()) < 200_000
    with pytest.raises(UnreadableModel, match="claims"):
        program_from_bytes(buffer.getvalue())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"hello", "not an .elstm file"), (None, "cannot be read")],
)
def test_files_that_are_none_are_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "m.elstm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableModel, match=message):
        edge_lstm.load(path)


def test_load_refuses_other_suffixes_and_profiles_by_name(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match=r"suffix '.onnx'; load\(\) takes"):
        edge_lstm.load(tmp_path / "m.onnx")
    with pytest.raises(EdgeLstmError, match="profile 'tflite': unknown; give one of tflm"):
        edge_lstm.load(tmp_path / "m.elstm", profile="tflite")


def test_saving_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: no such file"):
        edge_lstm.save(PROGRAM, tmp_path / "missing" / "m.elstm")
    assert not (tmp_path / "missing").exists()
