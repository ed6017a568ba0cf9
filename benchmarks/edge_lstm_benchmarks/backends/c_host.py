"""The C that edge-lstm generates, compiled for this machine, one row for a profile."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np

import edge_lstm
from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import MissingTool
from edge_lstm.native import NativeLibrary, NativeSession, load_stepper
from edge_lstm.program import Program, check_profile
from edge_lstm.program_file import program_bytes, program_from_bytes
from edge_lstm_converters.native_build import build_call_module, build_library, compiler
from edge_lstm_converters.write_native import module_text


class CHost:
    """``c-host:PROFILE``."""

    precision: Precision = "int8"
    fixed_shape = False
    rows_at_once = 256
    flags: tuple[str, ...] = ()
    """For the compiler."""
    level: int | None = None
    """The kernels to use at most; None: the best that the processor has."""

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
        self.library(program, shape)
        return program_bytes(program)

    def library(self, program: Program, shape: CallShape) -> Path:
        """Return the shared library."""
        return build_library(program, shape.time_steps, self.flags)

    def load(self, data: bytes, shape: CallShape) -> Session:
        program = program_from_bytes(data)
        if not self.flags:
            return program.compile(shape.batch_size, max_steps=shape.time_steps, level=self.level)
        library, module = NativeLibrary(self.library(program, shape)), build_call_module()
        stepper = None if module is None else load_stepper(module)
        return NativeSession(program, library, shape.batch_size, self.level, stepper)


class CHostPortable(CHost):
    """Its portable kernels, for any processor of the kind."""

    level = 0


class CHostPortableNative(CHostPortable):
    """Its portable kernels, as a compiler vectorizes them for this processor."""

    flags = ("-march=native",)


class CHostCtypes(CHost):
    """Its library behind the module that a native package has for devices without NumPy."""

    def load(self, data: bytes, shape: CallShape) -> Session:
        program = program_from_bytes(data)
        return _ModuleSession(program, self.library(program, shape), shape.batch_size)


class _ModuleSession:
    """The module's Model; arrays go in as bytes, and its output is seen as an array."""

    def __init__(self, program: Program, library: Path, batch_size: int) -> None:
        module = ModuleType("model")
        module.__file__ = str(library)
        exec(compile(module_text(program, library.name), "model.py", "exec"), module.__dict__)
        self._model = module.Model(batch_size)
        self._shape = (batch_size, -1, program.output_tensor.signal.size)
        self._y = np.frombuffer(self._model.output, program.output_tensor.dtype)
        self._y = self._y.reshape(batch_size, -1)
        self.reset = self._model.reset

    def step(self, x: Array) -> Array:
        self._model.step(x.tobytes())
        return self._y

    def run(self, x: Array) -> Array:
        y = np.frombuffer(self._model.run(x.tobytes(), x.shape[1]), self._y.dtype)
        return y.reshape(self._shape)
