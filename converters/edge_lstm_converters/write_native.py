"""Program -> a folder ``NAME_native``: a shared library for this machine, and doors to it.

With NumPy: ``edge_lstm.load("NAME.elstm").compile(library="libNAME.so")``, and ``el_call`` makes
its calls short in the version of Python that built it. Without: ``NAME.py``, which needs Python
alone. Neither needs a compiler.
"""

from __future__ import annotations

import keyword
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.resources import files
from pathlib import Path

import numpy as np

import edge_lstm
from edge_lstm.cells import QuantizeOp
from edge_lstm.errors import UsageError
from edge_lstm.files import make_folder, write_atomically
from edge_lstm.native import STEPPER
from edge_lstm.program import Program
from edge_lstm.program_file import program_bytes
from edge_lstm_converters.c_source import integer_part
from edge_lstm_converters.host_source import host_source
from edge_lstm_converters.native_build import build_call_module, build_library

ROUNDINGS = {"litert": "even", "tflite-runtime": "double"}
"""How a QUANTIZE rounds, where that is not in float32 and ties away from zero."""


def write_native(program: Program, folder: Path, max_steps: int | None = None) -> Path:
    """Build a program for this machine into ``folder/NAME_native``, which is returned.

    Args:
        program: any that has a form in C.
        folder: where to put it.
        max_steps: longest sequence of a program that cannot run step by step.

    Raises:
        UsageError: Python could not import a module of the program's name.
        MissingTool: there is no compiler.
        UnsupportedModel: an op has no form in C.
        OutputError: the folder cannot be written, or the compiler fails.
    """
    if keyword.iskeyword(program.name) or program.name in sys.stdlib_module_names:
        raise UsageError(f"model name {program.name!r}: is Python's; give another with --name")
    library = build_library(program, max_steps)
    package = folder / f"{program.name}_native"
    make_folder(package)
    # A library called NAME.so would stand before NAME.py in Python's search.
    contents = {
        f"lib{library.name}": library.read_bytes(),
        f"{program.name}.c": host_source(program, max_steps).encode(),
        f"{program.name}.elstm": program_bytes(program),
        f"{program.name}.py": module_text(program, f"lib{library.name}").encode(),
    }
    if (module := build_call_module()) is not None:
        contents[f"{STEPPER}{EXTENSION_SUFFIXES[0]}"] = module.read_bytes()
    for name, data in contents.items():
        write_atomically(package / name, data)
    return package


def module_text(program: Program, library: str) -> str:
    """Return the Python module, which needs nothing but Python."""
    inner, enters = integer_part(program)
    source, result = inner.input_tensor, inner.output_tensor
    rounding = "float"
    if isinstance(enters, QuantizeOp):
        rounding = ROUNDINGS.get(program.profile, rounding)
    tokens = source.signal.size if source.signal.kind == "tokens" else 0
    figures = {
        "LIBRARY": library,
        "FINGERPRINT": program.fingerprint(),
        "INPUT_SIZE": 1 if tokens else source.signal.size,
        "INPUT_TYPE": np.dtype(source.dtype).char,
        "INPUT_SCALE": source.scale,
        "INPUT_ZERO_POINT": source.zero_point,
        "OUTPUT_SIZE": result.signal.size,
        "OUTPUT_TYPE": np.dtype(result.dtype).char,
        "OUTPUT_SCALE": result.scale,
        "OUTPUT_ZERO_POINT": result.zero_point,
        "GIVES_SEQUENCE": result.signal.kind == "sequence",
        "TOKENS": tokens,
        "ROUNDING": rounding,
    }
    template = (files("edge_lstm_converters") / "native_door.py").read_text()
    head, _, body = template.partition("# begin\n")
    imports = head[head.index("from __future__") : head.index("LIBRARY = ")].strip()
    return "\n".join(
        [
            f'"""{program.name}, profile {program.profile}, in native code; needs Python alone.',
            "",
            f"Made by edge-lstm {edge_lstm.__version__}; do not edit.",
            '"""',
            "",
            imports,
            "",
            *(f"{name} = {value!r}" for name, value in figures.items()),
            "",
            body,
        ]
    )
