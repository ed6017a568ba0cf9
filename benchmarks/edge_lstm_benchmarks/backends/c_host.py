"""The C that edge-lstm generates, compiled for this machine, one row for a profile."""

from __future__ import annotations

import sys

import edge_lstm
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import MissingTool
from edge_lstm.program import check_profile
from edge_lstm.program_file import program_bytes, program_from_bytes
from edge_lstm_converters.native_build import build_library, compiler


class CHost:
    """``c-host:PROFILE``."""

    precision: Precision = "int8"
    fixed_shape = False
    rows_at_once = 256

    def __init__(self, name: str) -> None:
        self.name = name
        self.profile: str | None = check_profile(name.partition(":")[2])

    def available(self) -> str | None:
        try:
            compiler()
        except MissingTool as error:
            return str(error)
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return edge_lstm.__version__

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        program = model.integers(self.profile)
        # Compiled once, before anything is measured; what is loaded finds it in the cache.
        build_library(program, None if program.streams else shape.time_steps)
        return program_bytes(program)

    def load(self, data: bytes, shape: CallShape) -> Session:
        program = program_from_bytes(data)
        steps = None if program.streams else shape.time_steps
        return program.compile(shape.batch_size, max_steps=steps)
