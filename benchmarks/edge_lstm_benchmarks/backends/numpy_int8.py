"""The NumPy int8 runtime of edge-lstm, one row for each profile."""

from __future__ import annotations

import sys

import edge_lstm
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.program import check_profile
from edge_lstm.program_file import program_bytes, program_from_bytes


class NumpyInt8:
    """``numpy-int8:PROFILE``."""

    precision: Precision = "int8"
    fixed_shape = False
    # Every row has bytes of its own whatever the batch: one by one is only slower.
    rows_at_once = 256

    def __init__(self, name: str) -> None:
        self.name = name
        self.profile: str | None = check_profile(name.partition(":")[2])

    def available(self) -> str | None:
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return edge_lstm.__version__

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        del shape
        return program_bytes(model.integers(self.profile))

    def load(self, data: bytes, shape: CallShape) -> Session:
        return program_from_bytes(data).session(shape.batch_size)
