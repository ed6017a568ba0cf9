"""The small Keras files of ``models``, and copies of them that were changed."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters.read_keras import read_keras

MODELS = Path(__file__).parent / "models"
FILES = [
    "keras2_chain.h5",
    "keras2_branches.keras",
    "keras2_steps.h5",
    "keras2_cudnn.h5",
    "keras3_chain.keras",
    "keras3_branches.h5",
]
WEIGHTS = """
[[layers]]
type = "embedding"
weights = "embedding"

[[layers]]
type = "bidirectional"
cell = "gru"
weights = "bidirectional"
return_sequences = true
recurrent_activation = "sigmoid"

[[layers]]
type = "lstm"
weights = "lstm"
return_sequences = false
recurrent_activation = "{gate}"

[[layers]]
type = "dense"
weights = "dense"
"""


def save_suggestion(path: Path, folder: Path) -> Path:
    """Save the configuration at the end of the message about a file of weights alone."""
    with pytest.raises(
        UnsupportedModel, match="holds weights without the layers' argument"
    ) as info:
        read_keras(path)
    layers = folder / "suggested.toml"
    layers.write_text(str(info.value).partition("\n\n")[2], encoding="utf8")
    return layers


def rewritten(
    folder: Path,
    change: Callable[[dict[str, Any]], None],
    name: str = "keras3_chain.keras",
    version: str = "3.15.1",
) -> Path:
    """Copy a .keras file with another configuration."""
    path = folder / "changed.keras"
    with zipfile.ZipFile(MODELS / name) as old, zipfile.ZipFile(path, "w") as new:
        config = json.loads(old.read("config.json"))
        change(config)
        new.writestr("metadata.json", json.dumps({"keras_version": version}))
        new.writestr("config.json", json.dumps(config))
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    return path


def layer_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the entry of a layer in a model's configuration."""
    entries = [e for e in config["config"]["layers"] if e["config"]["name"] == name]
    assert len(entries) == 1
    entry: dict[str, Any] = entries[0]
    return entry
