"""``load`` and ``save``: a Program from and to a file.

What reads and writes files is imported on use, so that ``import edge_lstm`` stays light.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge_lstm.errors import MissingTool, UnsupportedModel
from edge_lstm.program import Program, check_profile

if TYPE_CHECKING:
    from pathlib import Path


def load(path: Path | str, profile: str | None = None) -> Program:
    """Read a quantized model.

    Args:
        path: an ``.elstm`` file of ours, or a full-integer ``.tflite`` of anybody's.
        profile: whose arithmetic to run; None: the file's own, or ``tflm`` for a ``.tflite``.

    Raises:
        UnreadableModel: the file is damaged or not of its suffix's format.
        UnsupportedModel: it holds something that has no counterpart here, or no integers.
        MissingTool: a ``.tflite`` needs the ``flatbuffers`` package.
    """
    suffix = os.path.splitext(path)[1]  # noqa: PTH122  # pathlib is slow to import
    if profile is not None:
        check_profile(profile)
    if suffix == ".tflite":
        try:
            from edge_lstm_converters.read_tflite import read_tflite
        except ModuleNotFoundError as error:
            raise MissingTool(
                f"{path}: reading .tflite needs the package {error.name};"
                " pip install 'edge-lstm[tools]'"
            ) from error
        return read_tflite(path, profile or "tflm")
    if suffix == ".elstm":
        from edge_lstm.program_file import load_elstm

        program = load_elstm(path)
        return program if profile is None else program.with_profile(profile)
    raise UnsupportedModel(
        f"{path}: suffix {suffix or 'none'!r}; load() takes .elstm and full-integer .tflite;"
        " convert other models with 'edge-lstm convert'"
    )


def save(program: Program, path: Path | str) -> None:
    """Write a Program to an ``.elstm`` file; equal programs give equal bytes.

    Raises:
        OutputError: the file cannot be written; none is left half done.
    """
    from edge_lstm import program_file

    program_file.save(program, path)
