"""``NAME_selftest.c``: known answers, and two half runs that equal one run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.c_header import banner
from edge_lstm_converters.c_layout import per_step
from edge_lstm_converters.c_parts import array, ctype
from edge_lstm_converters.c_source import CModel

STEPS = 8
STACK_BYTES = 1024
"""Outputs of a run stand on the stack; where a model has many, fewer steps are run."""


def selftest_inputs(model: CModel) -> Array:
    """Return steps that reach both ends of the input's range, [steps, size]."""
    size, tensor = per_step(model.input), model.input
    steps = model.fixed_steps or _steps(model)
    draw = np.random.default_rng(0)
    if tensor.signal.kind == "tokens":
        return draw.integers(0, tensor.signal.size, (steps, 1)).astype(np.int32)
    limits = np.iinfo(tensor.dtype)
    values = draw.integers(limits.min, limits.max + 1, (steps, size))
    values[0], values[-1] = limits.min, limits.max
    return values.astype(tensor.dtype)


def _steps(model: CModel) -> int:
    steps = STEPS
    if model.every_step:
        width = per_step(model.output) * np.dtype(model.output.dtype).itemsize
        steps = max(2, min(steps, STACK_BYTES // width))
    return min(steps, model.max_steps or steps)


def expected_outputs(model: CModel, x: Array) -> Array:
    """Return what the NumPy runtime gives for one sequence, integers."""
    kind = model.input.signal.kind
    # C takes any number of steps where the arithmetic does.
    program = replace(model.program, time_steps=None)
    if kind == "vector":
        return program.predict(x)
    y: Array = program.predict(x[None, :, 0] if kind == "tokens" else x[None])[0]
    return y


def selftest(model: CModel) -> str:
    """Return ``NAME_selftest.c``."""
    name = model.name
    x = selftest_inputs(model)
    expected = expected_outputs(model, x)
    steps, half = len(x), len(x) // 2
    after = half * per_step(model.output) if model.every_step else 0
    again, how = f"{name}_run(state, inputs, {steps}, y)", "again"
    if model.streams and half:
        how = "in two halves"
        again = (
            f"{name}_run(state, inputs, {half}, y);\n"
            f"    wrong |= {name}_run(state, inputs + {half * per_step(model.input)},"
            f" {steps - half}, y + {after})"
        )
    return f"""\
{banner(model)}#include "{name}.h"

{array(ctype(model.input), "inputs", x)}
{array(ctype(model.output), "expected", expected)}
static int differs(const {name}_output_t *y)
{{
    int wrong = 0;
    for (int32_t k = 0; k < {expected.size}; k++) {{
        wrong |= y[k] != expected[k];
    }}
    return wrong;
}}

/* All steps in one run; and from a new start {how}. */
int {name}_selftest({name}_state_t *state)
{{
    {name}_output_t y[{expected.size}];
    int wrong;
    {name}_init(state);
    wrong = {name}_run(state, inputs, {steps}, y);
    wrong |= differs(y);
    {name}_reset(state);
    wrong |= {again};
    wrong |= differs(y);
    {name}_reset(state);
    return wrong;
}}
"""
