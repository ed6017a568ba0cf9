"""load_onnx and broken, hostile or foreign files: one line each, no other error, no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel

onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
from onnx import TensorProto, helper  # noqa: E402

from edge_lstm_converters.read_onnx import read_onnx  # noqa: E402
from onnx_graphs import LSTM, MODELS, WEATHER, graph_file, small_lstm  # noqa: E402


def weather_proto() -> Any:
    """Return a sound model to be broken."""
    return onnx.load(WEATHER)


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"this is not a model\n" * 10,
    "zeros": bytes(1000),
    "an html page": b"<!DOCTYPE html><html><body>not found</body></html>",
    "a zip": b"PK\x03\x04" + bytes(100),
    "a gzip": b"\x1f\x8b\x08\x00" + bytes(100),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_of_another_kind_is_unreadable_in_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(BROKEN[case])
    with pytest.raises(UnreadableModel, match=r"is empty|not ONNX") as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="no such file"):
        read_onnx(tmp_path / "m.onnx")


def test_a_truncated_file_is_unreadable(tmp_path: Path) -> None:
    data = WEATHER.read_bytes()
    path = tmp_path / "m.onnx"
    for count in (1, 10, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:count])
        with pytest.raises(UnreadableModel) as caught:
            read_onnx(path)
        assert "\n" not in str(caught.value)


def test_flipped_bytes_never_raise_another_kind_of_error(tmp_path: Path) -> None:
    data = (MODELS / "stacked_torchscript.onnx").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "m.onnx"
    outcomes: set[type] = set()
    lines: set[int] = set()
    for _ in range(150):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), 8):
            broken[position] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            outcomes.add(type(read_onnx(path)))
        except ModelError as error:
            outcomes.add(type(error))
            lines.add(str(error).count("\n"))
    assert outcomes & {UnreadableModel, UnsupportedModel}  # the bytes did break something
    assert lines == {0}


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    weights = small_lstm()
    weights["R"][0, 0, 0] = np.nan
    path = graph_file(tmp_path / "m.onnx", LSTM, weights)
    with pytest.raises(UnsupportedModel, match=r"m\.onnx: layer 'lstm'.* 1 of 4 weights are NaN"):
        read_onnx(path)


def test_huge_sizes_are_refused_without_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = weather_proto()
    proto.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UnreadableModel, match="want at most"):
        read_onnx(path)
    huge = "n = Constant <value_ints = [1099511627776]> () h = ConstantOfShape (n)"
    graph_file(path, f"{huge} y = LSTM <hidden_size = 2> (x, W, R, B, , h)")
    with pytest.raises(UnreadableModel, match="ConstantOfShape"):
        read_onnx(path)
    graph_file(path, LSTM, inputs="float[time, batch, 1099511627776] x")
    with pytest.raises(UnsupportedModel, match="want at most 2,147,483,648 values"):
        read_onnx(path)


def with_external_data(path: Path, location: str, data: bytes | None = None) -> Path:
    """Write a model whose W lies in another file."""
    weights = small_lstm()
    graph_file(path, LSTM, weights)
    proto = onnx.load(path)
    (tensor,) = (t for t in proto.graph.initializer if t.name == "W")
    if data is None:
        data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(proto.SerializeToString())
    if "/" not in location:
        (path.parent / location).write_bytes(data)
    return path


def test_weights_in_a_file_beside_the_model_are_read(tmp_path: Path) -> None:
    spec = read_onnx(with_external_data(tmp_path / "m.onnx", "m.onnx.data"))
    plain = read_onnx(graph_file(tmp_path / "plain.onnx", LSTM))
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    assert (float_reference.run(spec, x) == float_reference.run(plain, x)).all()


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", ""])
def test_weights_elsewhere_are_not_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    (tmp_path / "models").mkdir()
    path = with_external_data(tmp_path / "models" / "m.onnx", location or "x")
    if not location:
        proto = onnx.load(path, load_external_data=False)
        (tensor,) = (t for t in proto.graph.initializer if t.name == "W")
        del tensor.external_data[:]
        path.write_bytes(proto.SerializeToString())
    with pytest.raises(UnreadableModel, match="want a file in the model's own folder"):
        read_onnx(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    path = with_external_data(tmp_path / "models" / "m.onnx", "link.bin")
    (tmp_path / "models" / "link.bin").unlink()
    (tmp_path / "models" / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(UnreadableModel, match="want a file in the model's own folder"):
        read_onnx(path)


def test_external_weights_that_are_too_short_are_unreadable(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "m.onnx", "m.data", b"123")
    with pytest.raises(UnreadableModel, match=r"'m\.data' holds 3 bytes of it; want 96"):
        read_onnx(path)


def test_a_constant_node_cannot_read_another_file(tmp_path: Path) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    path = graph_file(tmp_path / "m.onnx", LSTM)
    proto = onnx.load(path)
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], "k", value=tensor))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UnreadableModel, match="its constant is in another file"):
        read_onnx(path)


def test_an_opset_that_onnx_does_not_know_is_refused(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "m.onnx", LSTM, opset=6)
    with pytest.raises(UnsupportedModel, match="opset 6; want opset 7 to"):
        read_onnx(path)
    graph_file(path, LSTM, opset=999)
    with pytest.raises(UnsupportedModel, match="opset 999; want opset 7 to"):
        read_onnx(path)
