"""Program -> a folder ``NAME_c`` of C99 that computes the same integers.

No allocation, no libc, no float and no globals: the caller owns the state, and several
instances run side by side. Weights and sizes are constants.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import edge_lstm
from edge_lstm.arrays import Array
from edge_lstm.files import make_folder, write_atomically
from edge_lstm.program import Program
from edge_lstm.program_file import program_bytes
from edge_lstm_converters.c_parts import array, ctype
from edge_lstm_converters.c_source import (
    CModel,
    kernels,
    op_function,
    per_step,
    reset_function,
    step_functions,
    whole_function,
)

SCHEMA = "edge-lstm.c/1"
SELFTEST_STEPS = 8


def write_c(program: Program, folder: Path, max_steps: int | None = None) -> Path:
    """Write the package and return its folder, ``folder/NAME_c``.

    Args:
        program: integers in, integers out.
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
    """Return the package's files, by their path in it."""
    model = CModel(program, max_steps)
    name = model.name
    description = json.dumps(describe(model), indent=2) + "\n"
    return {
        f"src/{name}.h": header(model).encode(),
        f"src/{name}.c": source(model).encode(),
        f"src/{name}_selftest.c": selftest(model).encode(),
        f"{name}_model.json": description.encode(),
        f"{name}.elstm": program_bytes(program),
    }


def describe(model: CModel) -> dict[str, Any]:
    """Return what a tool must know of the package to run it."""

    def end(tensor: Any, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "size": tensor.signal.size,
            "dtype": tensor.dtype,
            "scale": tensor.scale,
            "zero_point": tensor.zero_point,
        }

    program = model.program
    return {
        "schema": SCHEMA,
        "name": model.name,
        "version": edge_lstm.__version__,
        "profile": program.profile,
        "fingerprint": program.fingerprint(),
        "input": end(model.input, model.input.signal.kind),
        "output": end(model.output, program.output_tensor.signal.kind),
        "streams": model.streams,
        "max_steps": model.max_steps,
        "macs_per_step": model.macs,
        "weight_bytes": program.weight_bytes(),
        "layers": [
            {"name": part.place.op.name, "type": part.place.op.type_name, "macs": part.op.macs}
            for part in model.parts
        ],
    }


def header(model: CModel) -> str:
    """Return ``NAME.h``."""
    name, program = model.name, model.program
    guard = f"{name.upper()}_H"
    members = "\n".join(f"    {m.ctype} {m.name}[{m.size}];" for m in model.members)
    macros = {
        "VERSION": f'"{edge_lstm.__version__}"',
        "PROFILE": f'"{program.profile}"',
        "MODEL_HASH": f'"{program.fingerprint()}"',
        "INPUT_SIZE": per_step(model.input),
        "OUTPUT_SIZE": per_step(model.output),
    }
    if model.max_steps is not None:
        macros["MAX_STEPS"] = model.max_steps
    for end, tensor in (("INPUT", model.input), ("OUTPUT", model.output)):
        if tensor.is_quantized:
            macros[f"{end}_SCALE"] = f"{tensor.scale!r}f"
            macros[f"{end}_ZERO_POINT"] = f"({tensor.zero_point})"
    lines = "\n".join(f"#define {name}_{key} {value}" for key, value in macros.items())
    step = f"""
/* Run one step: {name}_INPUT_SIZE values in, {name}_OUTPUT_SIZE out. */
void {name}_step({name}_state_t *state, const {name}_input_t *x, {name}_output_t *y);
"""
    what = "of every step" if model.output_is_sequence else "after the last step"
    return f"""\
/* {name}: made by edge-lstm {edge_lstm.__version__}; do not edit. */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

{lines}

typedef {ctype(model.input)} {name}_input_t;
typedef {ctype(model.output)} {name}_output_t;

/* One stream's state and working memory; the caller owns it. */
typedef struct {{
{members or "    int8_t unused;"}
}} {name}_state_t;

/* Prepare a state; once, before anything else. */
void {name}_init({name}_state_t *state);

/* Begin a new sequence. */
void {name}_reset({name}_state_t *state);
{step if model.streams else ""}
/* Run steps from the present state; y holds the output {what}. */
void {name}_run({name}_state_t *state, const {name}_input_t *x, int32_t steps,
    {name}_output_t *y);

/* Return 0 if this build computes what it should; leaves the state reset. */
int {name}_selftest({name}_state_t *state);

#ifdef __cplusplus
}}
#endif

#endif
"""


def source(model: CModel) -> str:
    """Return ``NAME.c``."""
    name = model.name
    functions = [part.op.constants + "\n" + op_function(model, part) for part in model.parts]
    running = step_functions(model) if model.streams else whole_function(model)
    init = f"void {name}_init({name}_state_t *state)\n{{\n    {name}_reset(state);\n}}\n"
    return "\n".join(
        [
            f"/* {name}: made by edge-lstm {edge_lstm.__version__}; do not edit. */\n"
            f'#include "{name}.h"\n',
            kernels(model),
            *functions,
            reset_function(model),
            init,
            running,
        ]
    )


def selftest_inputs(model: CModel) -> Array:
    """Return steps that reach both ends of the input's range, [steps, size]."""
    steps = SELFTEST_STEPS if model.max_steps is None else min(model.max_steps, SELFTEST_STEPS)
    if model.program.time_steps is not None:
        steps = model.program.time_steps
    size = per_step(model.input)
    draw = np.random.default_rng(0)
    if model.input.signal.kind == "tokens":
        return draw.integers(0, model.input.signal.size, (steps, 1)).astype(np.int32)
    limits = np.iinfo(model.input.dtype)
    values = draw.integers(limits.min, limits.max + 1, (steps, size))
    values[0], values[-1] = limits.min, limits.max
    return values.astype(model.input.dtype)


def expected_outputs(model: CModel, x: Array) -> Array:
    """Return what the NumPy runtime gives, integers."""
    batch = x[None, :, 0] if model.input.signal.kind == "tokens" else x[None]
    y: Array = model.program.predict(batch)[0]
    return y


def selftest(model: CModel) -> str:
    """Return ``NAME_selftest.c``: known answers, and two half runs that equal one run."""
    name = model.name
    x = selftest_inputs(model)
    expected = expected_outputs(model, x)
    steps, half = len(x), len(x) // 2
    size_in, size_out = per_step(model.input), per_step(model.output)
    values = expected.size
    again = f"{half} * {size_out}" if model.output_is_sequence else "0"
    halves = (
        f"""
    {name}_reset(state);
    {name}_run(state, inputs, {half}, y);
    {name}_run(state, inputs + {half} * {size_in}, {steps - half}, y + {again});
    wrong |= differs(y);"""
        if model.streams and half
        else ""
    )
    return f"""\
/* {name}: made by edge-lstm {edge_lstm.__version__}; do not edit. */
#include "{name}.h"

{array(ctype(model.input), "inputs", x)}
{array(ctype(model.output), "expected", expected)}
static int differs(const {name}_output_t *y)
{{
    int wrong = 0;
    for (int32_t k = 0; k < {values}; k++) {{
        wrong |= y[k] != expected[k];
    }}
    return wrong;
}}

int {name}_selftest({name}_state_t *state)
{{
    {name}_output_t y[{values}];
    int wrong;
    {name}_init(state);
    {name}_run(state, inputs, {steps}, y);
    wrong = differs(y);{halves}
    {name}_reset(state);
    return wrong;
}}
"""
