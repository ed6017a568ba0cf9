"""Program -> a folder ``NAME_c`` of C99 that computes the same integers.

No allocation, no libc, no float and no globals: the caller owns the state, and several
instances run side by side. Weights and sizes are constants.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import edge_lstm
from edge_lstm.errors import UsageError
from edge_lstm.files import make_folder, write_atomically
from edge_lstm.program import Program
from edge_lstm.program_file import program_bytes
from edge_lstm.spec import identifier
from edge_lstm_converters.c_header import banner, describes, float_header, header
from edge_lstm_converters.c_package import build_files
from edge_lstm_converters.c_selftest import selftest
from edge_lstm_converters.c_source import CModel, source_functions

SCHEMA = "edge-lstm.c/1"
# A model's header must not stand before one of these in a search for headers; file systems
# and Arduino's libraries do not tell upper from lower case.
TAKEN_HEADERS = """
arduino assert complex config core ctype errno fenv float inttypes iso646 limits locale main math
setjmp signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string
strings task tgmath threads time uchar unistd version wchar wctype
"""


def write_c(program: Program, folder: Path, max_steps: int | None = None) -> Path:
    """Write a C package for firmware: ``folder/NAME_c``, which is returned.

    Args:
        program: what to write.
        folder: where to put the package.
        max_steps: longest sequence of a program that cannot run step by step.

    Raises:
        UnsupportedModel: an op has no form in C.
        OutputError: the folder cannot be written.
    """
    package = folder / f"{program.name}_c"
    for name, data in package_files(program, max_steps).items():
        make_folder((package / name).parent)
        write_atomically(package / name, data)
    return package


def package_files(program: Program, max_steps: int | None = None) -> dict[str, bytes]:
    """Return the package's files, by their path in it.

    Raises:
        UnsupportedModel: an op has no form in C.
        UsageError: the program's name cannot be that of C's functions and headers.
    """
    if program.name != identifier(program.name):
        raise UsageError(
            f"model name {program.name!r}: must be a C identifier, such as"
            f" {identifier(program.name)}"
        )
    if program.name.lower() in TAKEN_HEADERS.split():
        raise UsageError(
            f"model name {program.name!r}: {program.name}.h would hide another header of that"
            " name; give another with --name"
        )
    model = CModel(program, max_steps)
    name = model.name
    texts = {
        f"src/{name}.h": header(model),
        f"src/{name}_float.h": float_header(model),
        f"src/{name}.c": source(model),
        f"src/{name}_selftest.c": selftest(model),
        f"{name}_model.json": json.dumps(describe(model), indent=2) + "\n",
        **build_files(model),
    }
    files = {path: text.encode() for path, text in texts.items()}
    return {**files, f"{name}.elstm": program_bytes(model.program)}


def describe(model: CModel) -> dict[str, Any]:
    """Return what a tool must know of the package to run it."""
    program = model.program
    return {
        "schema": SCHEMA,
        "name": model.name,
        "version": edge_lstm.__version__,
        "profile": program.profile,
        "fingerprint": program.fingerprint(),
        "input": describes(model.input),
        "output": describes(model.output),
        "streams": model.streams,
        "max_steps": model.max_steps,
        "fixed_steps": model.fixed_steps,
        "macs_per_step": model.macs,
        "state_bytes": model.state_bytes,
        "weight_bytes": program.weight_bytes(),
        "layers": [
            {"name": program.ops[k].name, "type": program.ops[k].type_name, "macs": op.macs}
            for k, op in model.ops.items()
        ],
    }


def source(model: CModel) -> str:
    """Return ``NAME.c``."""
    name = model.name
    init = f"void {name}_init({name}_state_t *state)\n{{\n    {name}_reset(state);\n}}\n"
    head = f'''{banner(model)}#include "{name}.h"

/* Of the kernels below, a model may need a part. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wunused-function"
#endif
'''
    parts = [head, *source_functions(model), init]
    return "\n".join(parts)
