"""Readers by file suffix and writers by name; each is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.program import Program
from edge_lstm.spec import ModelSpec

# suffix: (module, function, the keywords of ``read`` that the function takes)
READERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    ".onnx": ("edge_lstm_converters.read_onnx", "read_onnx", ("layers", "name")),
    ".tflite": ("edge_lstm_converters.read_tflite_float", "read_any_tflite", ("profile",)),
    ".pt": ("edge_lstm_converters.read_torch", "read_torch", ("layers", "name")),
    ".pth": ("edge_lstm_converters.read_torch", "read_torch", ("layers", "name")),
    ".pt2": ("edge_lstm_converters.read_torch", "read_torch", ("layers", "name")),
    ".safetensors": ("edge_lstm_converters.read_torch", "read_torch", ("layers", "name")),
    ".keras": ("edge_lstm_converters.read_keras", "read_keras", ("layers", "name")),
    ".h5": ("edge_lstm_converters.read_keras", "read_keras", ("layers", "name")),
    ".hdf5": ("edge_lstm_converters.read_keras", "read_keras", ("layers", "name")),
}

# name: (module, function)
WRITERS: dict[str, tuple[str, str]] = {
    "onnx": ("edge_lstm_converters.write_onnx", "write_onnx"),
    "tflite": ("edge_lstm_converters.write_tflite", "write_tflite"),
    "c": ("edge_lstm_converters.write_c", "write_c"),
    "tflm": ("edge_lstm_converters.write_tflm", "write_tflm"),
}


def read(
    path: Path, *, profile: str | None = None, layers: Path | None = None, name: str | None = None
) -> ModelSpec | Program:
    """Read a model file; the suffix says its format.

    Args:
        path: the file.
        profile: whose arithmetic a quantized file gets; None: ``tflm``. Float files have none.
        layers: layer configuration for files that hold weights only; see ``layer_config``.
        name: of the model; None: made from the file's name.

    Raises:
        ModelError: the file is damaged, or holds what has no counterpart here.
        UsageError: ``layers`` was given for a format that says it all, or is wrong itself.
        MissingTool: the format's package is not installed.
    """
    row = READERS.get(path.suffix.lower())
    if row is None:
        raise UnsupportedModel(
            f"{path}: suffix {path.suffix!r}; edge-lstm reads {', '.join(sorted(READERS))}"
        )
    module, function, takes = row
    if layers is not None and "layers" not in takes:
        raise UsageError(
            f"{path}: --layers is for files that hold weights only (.pt, .pth, .safetensors, .h5)"
            f" and for a part of an .onnx file; a {path.suffix} file says its layers itself"
        )
    given = {"profile": profile or "tflm", "layers": layers, "name": name}
    reader: Callable[..., Any] = getattr(importlib.import_module(module), function)
    result = reader(path, **{key: given[key] for key in takes})
    assert isinstance(result, ModelSpec | Program)
    return result if name is None or "name" in takes else replace(result, name=name)
