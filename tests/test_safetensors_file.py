import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.arrays import Array
from edge_lstm.errors import ModelError
from edge_lstm_converters.safetensors_file import read_safetensors

MODELS = Path(__file__).parent / "models"


def written(tmp_path: Path, header: Any, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_every_type_reads_as_the_safetensors_package_wrote_it(tmp_path: Path) -> None:
    reason = "safetensors not found: pip install safetensors"
    package = pytest.importorskip("safetensors.numpy", reason=reason)
    saved: dict[str, Array] = {
        dtype: np.arange(6).astype(dtype).reshape(2, 3)
        for dtype in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1")
    }
    saved |= {"scalar": np.array(3, np.float32), "empty": np.zeros((0, 4), np.float32)}
    package.save_file(saved, tmp_path / "model.safetensors", metadata={"format": "np"})
    got = read_safetensors(tmp_path / "model.safetensors")
    assert set(got) == set(saved)
    for name, values in saved.items():
        assert got[name].dtype == values.dtype
        assert got[name].shape == values.shape
        assert (got[name] == values).all()


def test_bfloat16_reads_as_the_same_float32(tmp_path: Path) -> None:
    # The upper halves of 1.0, -2.5 and infinity in float32.
    body = struct.pack("<HHH", 0x3F80, 0xC020, 0x7F80)
    path = written(tmp_path, {"w": entry("BF16", [3], 0, 6)}, body)
    assert read_safetensors(path)["w"].tolist() == [1.0, -2.5, float("inf")]


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b"{", b"", "header is not JSON"),
        (b"[" * 100_000, b"", "header is not JSON"),
        (b"\xff", b"", "header is not JSON"),
        ([1], b"", "header is not a JSON object"),
        ({"w": 1}, b"", "tensor 'w': want dtype, shape and data_offsets"),
        ({"w": {"dtype": "F32", "shape": [1]}}, b"", "want dtype, shape and data_offsets"),
        ({"w": entry("F32", [-1], 0, 4)}, b"1234", "want dtype, shape and data_offsets"),
        ({"w": entry("F32", [True], 0, 4)}, b"1234", "want dtype, shape and data_offsets"),
        ({"w": entry("F32", [1] * 40, 0, 4)}, b"1234", "want dtype, shape and data_offsets"),
        ({"w": entry("F8_E4M3", [1], 0, 1)}, b"1", "type F8_E4M3; want one of F64, F32"),
        ({"w": entry("F32", [2], 0, 8)}, b"1234", "bytes 0 to 8; want 0 on, of 4"),
        ({"w": entry("F32", [2**30, 2**30], 0, 4)}, b"1234", "4 bytes for F32"),
        ({"w": entry("F32", [1], 4, 8)}, b"12345678", "bytes 4 to 8; want 0 on"),
        (
            {"v": entry("F32", [1], 0, 4), "w": entry("F32", [1], 2, 6)},
            b"123456",
            "tensor 'w': bytes 2 to 6; want 4 on",
        ),
        ({"w": entry("F32", [1], 0, 4)}, b"12345", "1 bytes after the last tensor"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, header: Any, body: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_safetensors(written(tmp_path, header, body))
    assert "\n" not in str(caught.value)


def test_a_header_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ModelError, match="header claims 1,152,921,504,606,846,976 bytes"):
        read_safetensors(path)
    path.write_bytes(b"1234")
    with pytest.raises(ModelError, match="4 bytes; a safetensors file has at least 8"):
        read_safetensors(path)


def test_every_truncation_is_one_line(tmp_path: Path) -> None:
    data = (MODELS / "stacked.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for size in range(0, len(data), 53):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError) as caught:
            read_safetensors(path)
        assert "\n" not in str(caught.value)
