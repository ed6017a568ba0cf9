"""``NAME_selftest.c``: known answers, step by step and in two runs.

What a head of one output makes of a layer's 128 cells hides most of what can go wrong in them. So
the values between ops are held to the NumPy runtime's too, by a sum over all of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.c_header import banner
from edge_lstm_converters.c_layout import Container, Spot, per_step
from edge_lstm_converters.c_parts import array, ctype
from edge_lstm_converters.c_source import CModel

STEPS = 16
STACK_BYTES = 1024
"""Outputs of a run stand on the stack; where a model has many, fewer steps are run."""
# FNV-1a, with whole values in the place of bytes.
SUM_START, SUM_FACTOR = 2166136261, 16777619


def selftest_inputs(model: CModel) -> Array:
    """Return steps over all of the input's range, [steps, size].

    Its ends come first and last. Every other step is near zero, where gates are open in part and
    show a wrong weight best.
    """
    size, tensor = per_step(model.input), model.input
    steps = model.fixed_steps or _steps(model)
    draw = np.random.default_rng(0)
    if tensor.signal.kind == "tokens":
        return draw.integers(0, tensor.signal.size, (steps, 1)).astype(np.int32)
    limits = np.iinfo(tensor.dtype)
    values = draw.integers(limits.min, limits.max + 1, (steps, size))
    values[::2] = values[::2] // 8 + tensor.zero_point
    values = np.clip(values, limits.min, limits.max)
    values[0], values[-1] = limits.min, limits.max
    return values.astype(tensor.dtype)


def _steps(model: CModel) -> int:
    steps = STEPS
    if model.every_step:
        width = per_step(model.output) * np.dtype(model.output.dtype).itemsize
        steps = max(2, min(steps, 2 * STACK_BYTES // width))
    return min(steps, model.max_steps or steps)


def values_of(model: CModel, tensor: int, x: Array) -> Array:
    """Return what the NumPy runtime gives of a tensor for one sequence, ``[steps, size]``.

    Of a vector, in a program that streams, that is its value behind each step; else ``[1, size]``.
    """
    # C takes any number of steps where the arithmetic does.
    program = replace(model.program, output=tensor, time_steps=None)
    kind = model.input.signal.kind
    batch = x[None, :, 0] if kind == "tokens" else x[None]
    if kind == "vector":
        return program.predict(x)
    session = program.session()
    if model.streams:
        each = [session.run(batch[:, t : t + 1]).reshape(1, -1) for t in range(len(x))]
        return np.concatenate(each)
    y: Array = session.run(batch).reshape(-1, per_step(program.output_tensor))
    return y


def expected_outputs(model: CModel, x: Array) -> Array:
    """Return what ``NAME_run`` gives for one sequence, ``[steps, size]`` or ``[size]``."""
    y = values_of(model, model.program.output, x)
    return y if model.every_step else y[-1]


def selftest(model: CModel) -> str:
    """Return ``NAME_selftest.c``."""
    x = selftest_inputs(model)
    expected = values_of(model, model.program.output, x)
    kept = model.layout.last_in_buffers()
    parts = [
        f'{banner(model)}#include "{model.name}.h"\n',
        array(ctype(model.input), "inputs", x),
        array(ctype(model.output), "expected", expected),
        _differs(model),
        _summed(model, kept, len(x)) if kept else "",
        _streaming(model, x, kept) if model.streams else _whole(model, x, len(expected), kept),
    ]
    return "\n".join(part for part in parts if part)


def _differs(model: CModel) -> str:
    return f"""\
static int differs(const {model.name}_output_t *y, int32_t first, int32_t values)
{{
    int wrong = 0;
    for (int32_t k = 0; k < values; k++) {{
        wrong |= y[k] != expected[first + k];
    }}
    return wrong;
}}
"""


def _summed(model: CModel, kept: list[Container], steps: int) -> str:
    loops = "\n".join(
        f"    for (int32_t k = 0; k < {model.values_in(container, steps)}; k++) {{\n"
        f"        const int32_t value = state->{container.name}[k];\n"
        f"        sum = (sum ^ (uint32_t)value) * {SUM_FACTOR}u;\n    }}"
        for container in kept
    )
    return f"""\
/* The values between layers, for a sum over all of them. */
static uint32_t summed(uint32_t sum, const {model.name}_state_t *state)
{{
{loops}
    return sum;
}}
"""


def _streaming(model: CModel, x: Array, kept: list[Container]) -> str:
    name, steps, half = model.name, len(x), (len(x) + 1) // 2
    size_in, size_out = per_step(model.input), per_step(model.output)
    lines = [
        f"{name}_output_t y[{(half if model.every_step else 1) * size_out}];",
        "int wrong = 0;",
        *([f"uint32_t sum = {SUM_START}u;"] if kept else []),
        f"{name}_init(state);",
        f"for (int32_t t = 0; t < {steps}; t++) {{",
        f"    {name}_step(state, inputs + t * {size_in}, y);",
        f"    wrong |= differs(y, t * {size_out}, {size_out});",
        *(["    sum = summed(sum, state);"] if kept else []),
        "}",
        *([f"wrong |= sum != {_sum(model, kept, x)}u;"] if kept else []),
        f"{name}_reset(state);",
    ]
    for start, stop in ((0, half), (half, steps)):
        if start == stop:
            continue
        lines.append(f"wrong |= {name}_run(state, inputs + {start * size_in}, {stop - start}, y);")
        first = start if model.every_step else stop - 1
        lines.append(f"wrong |= differs(y, {first * size_out}, {(stop - first) * size_out});")
    return _function(model, "Step by step; then the same in two runs.", lines)


def _whole(model: CModel, x: Array, outputs: int, kept: list[Container]) -> str:
    name, values = model.name, outputs * per_step(model.output)
    lines = [
        f"{name}_output_t y[{values}];",
        "int wrong;",
        f"{name}_init(state);",
        f"wrong = {name}_run(state, inputs, {len(x)}, y);",
        f"wrong |= differs(y, 0, {values});",
    ]
    if kept:
        lines.append(f"wrong |= summed({SUM_START}u, state) != {_sum(model, kept, x)}u;")
    lines += [
        f"{name}_reset(state);",
        f"wrong |= {name}_run(state, inputs, {len(x)}, y);",
        f"wrong |= differs(y, 0, {values});",
    ]
    return _function(model, "The whole sequence; then the same from a new start.", lines)


def _function(model: CModel, what: str, lines: list[str]) -> str:
    name = model.name
    body = "\n".join(f"    {line}" for line in [*lines, f"{name}_reset(state);", "return wrong;"])
    return f"/* {what} */\nint {name}_selftest({name}_state_t *state)\n{{\n{body}\n}}\n"


def _sum(model: CModel, kept: list[Container], x: Array) -> int:
    """Return the sum over the buffers behind every step, or behind the whole sequence."""
    runs = [(run, values_of(model, run.index, x)) for run in model.runs]
    total = SUM_START
    for step in range(len(x) if model.streams else 1):
        for container in kept:
            memory = np.zeros(model.values_in(container, len(x)), np.int64)
            for run, values in runs:
                if run.target.container is container:
                    _fill(memory, run.target, values[step : step + 1] if model.streams else values)
            for value in memory.tolist():
                total = ((total ^ (value & 0xFFFFFFFF)) * SUM_FACTOR) & 0xFFFFFFFF
    return total


def _fill(memory: Array, spot: Spot, values: Array) -> None:
    """Write a tensor's steps where C leaves them: all, or the last over those before."""
    for step, value in enumerate(values):
        row = len(values) - 1 - step if spot.backward else step
        start = spot.offset + (row * spot.stride if spot.container.whole else 0)
        memory[start : start + len(value)] = value
