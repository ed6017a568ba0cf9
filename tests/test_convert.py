"""What ``convert`` writes of models that not every format can hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.errors import UnsupportedModel, UsageError

pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
from edge_lstm_converters.convert import Converted, ConvertOptions, convert
from edge_lstm_converters.tflite_schema import parse
from onnx_graphs import graph_file

STEPS = 9


def gru_file(folder: Path, direction: str) -> Path:
    """Return a GRU that takes nine steps and no other number."""
    rng = np.random.default_rng(0)
    count = 2 if direction == "bidirectional" else 1
    weights = {
        "gW": rng.normal(0, 0.5, (count, 6, 3)).astype(np.float32),
        "gR": rng.normal(0, 0.5, (count, 6, 2)).astype(np.float32),
    }
    return graph_file(
        folder / "m.onnx",
        f'y = GRU <hidden_size = 2, direction = "{direction}"> (x, gW, gR)',
        weights,
        inputs=f"float[{STEPS}, 1, 3] x",
        outputs=f"float[{STEPS}, {count}, 1, 2] y",
    )


def run(model: Path, folder: Path, *targets: str, time_steps: int | None = None) -> Converted:
    data = folder / "calib.npz"
    rng = np.random.default_rng(1)
    np.savez(data, x=rng.normal(0, 1, (8, STEPS, 3)).astype(np.float32))
    options = ConvertOptions(targets, data, time_steps=time_steps, check=False)
    return convert(model, folder / "out", options)


def test_a_gru_of_a_known_length_is_a_graph_of_one_step(tmp_path: Path) -> None:
    done = run(gru_file(tmp_path, "forward"), tmp_path)
    assert set(done.files) == {"onnx", "tflite", "elstm", "manifest"}
    assert not done.notes
    graph = parse(done.files["tflite"].read_bytes(), "m.tflite")
    assert graph.tensors[graph.inputs[0]].shape == (1, 1, 3)
    with pytest.raises(UsageError, match=r"--time-steps 9: the model takes 1 steps and no other"):
        run(gru_file(tmp_path, "forward"), tmp_path, time_steps=STEPS)


def test_what_a_format_cannot_hold_is_left_out_and_said(tmp_path: Path) -> None:
    model = gru_file(tmp_path, "bidirectional")
    done = run(model, tmp_path)
    assert set(done.files) == {"onnx", "elstm", "manifest"}
    (note,) = done.notes
    assert note.startswith("no tflite: ")
    assert "needs several steps at once" in note
    manifest = json.loads(done.files["manifest"].read_text())
    assert f"no tflite: {manifest['left_out']['tflite']}" == note


def test_what_was_asked_for_is_written_or_nothing_is(tmp_path: Path) -> None:
    model = gru_file(tmp_path, "bidirectional")
    with pytest.raises(UsageError, match="needs several steps at once"):
        run(model, tmp_path, "onnx", "tflite")
    options = ConvertOptions(("tflite",), quant="float32", check=False)
    with pytest.raises(UnsupportedModel, match=r"has no counterpart in \.tflite"):
        convert(model, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
