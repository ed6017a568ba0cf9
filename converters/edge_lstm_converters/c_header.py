"""The headers of a C package: the model's, and the one that knows floats."""

from __future__ import annotations

import numpy as np

import edge_lstm
from edge_lstm.program import Tensor
from edge_lstm_converters.c_layout import per_step
from edge_lstm_converters.c_parts import ACTIVATION, ctype, kernel
from edge_lstm_converters.c_source import CModel


def banner(model: CModel) -> str:
    """Return the first line of every file."""
    return f"/* {model.name}: made by edge-lstm {edge_lstm.__version__}; do not edit. */\n"


def macros(model: CModel) -> dict[str, object]:
    """Return the constants of the header, by name without the model's."""
    found: dict[str, object] = {
        "VERSION": f'"{edge_lstm.__version__}"',
        "PROFILE": f'"{model.program.profile}"',
        "MODEL_HASH": f'"{model.program.fingerprint()}"',
        "INPUT_SIZE": per_step(model.input),
        "OUTPUT_SIZE": per_step(model.output),
    }
    if model.max_steps is not None:
        found["MAX_STEPS"] = model.max_steps
    if model.input.signal.kind == "tokens":
        found["TOKENS"] = model.input.signal.size
    for end, tensor in (("INPUT", model.input), ("OUTPUT", model.output)):
        if tensor.is_quantized:
            # The shortest decimal of the double; as a float it is the same number.
            found[f"{end}_SCALE"] = f"{tensor.scale!r}f"
            found[f"{end}_ZERO_POINT"] = f"({tensor.zero_point})"
    return found


def header(model: CModel) -> str:
    """Return ``NAME.h``."""
    name = model.name
    members = "\n".join(f"    {m.ctype} {m.name}[{m.size}];" for m in model.members)
    lines = "\n".join(f"#define {name}_{key} {value}" for key, value in macros(model).items())
    guard = f"EDGE_LSTM_{name}_H"
    wide = any(member.ctype == ACTIVATION for member in model.members)
    types = f"\n{kernel('el_activation.h')}" if wide else ""
    return f"""\
{banner(model)}#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

{lines}

typedef {ctype(model.input)} {name}_input_t;
typedef {ctype(model.output)} {name}_output_t;
{types}
/* The state and the working memory of one stream; the caller owns it. */
typedef struct {{
{members or "    int8_t unused;"}
}} {name}_state_t;

/* Prepare a state; once, before anything else. */
void {name}_init({name}_state_t *state);

/* Begin a new sequence. */
void {name}_reset({name}_state_t *state);

{_running(model)}
/* Return 0 if this build computes what it should; the state is reset. */
int {name}_selftest({name}_state_t *state);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _running(model: CModel) -> str:
    name = model.name
    step = f"""\
/* Run one step: {name}_INPUT_SIZE values in, {name}_OUTPUT_SIZE out. */
void {name}_step({name}_state_t *state, const {name}_input_t *x, {name}_output_t *y);

"""
    how = "from the present state" if model.streams else f"of a whole sequence, 1 to {_most(model)}"
    if model.fixed_steps is not None:
        how = f"of a whole sequence, {name}_MAX_STEPS of them"
    what = "that of every step" if model.every_step else "that of the last step"
    return f"""\
{step if model.streams else ""}\
/* Run steps, {how}; y holds the output, {what}.
 * Return 0, or 1 for a number of steps that cannot be run; then nothing is. */
int {name}_run({name}_state_t *state, const {name}_input_t *x, int32_t steps,
    {name}_output_t *y);
"""


def _most(model: CModel) -> str:
    return f"{model.name}_MAX_STEPS"


def float_header(model: CModel) -> str:
    """Return ``NAME_float.h``."""
    name = model.name
    guard = f"EDGE_LSTM_{name}_FLOAT_H"
    functions = []
    if model.input.is_quantized:
        functions.append(_quantize(model))
    if model.output.is_quantized:
        functions.append(_dequantize(model))
    return f"""\
{banner(model)}#ifndef {guard}
#define {guard}

#include "{name}.h"

{chr(10).join(functions)}
#endif
"""


def _quantize(model: CModel) -> str:
    """Mirrors: ``Tensor.quantize``, or the QUANTIZE that the model begins with."""
    name, tensor = model.name, model.input
    profile = None if model.enters is None else model.program.profile
    info = np.iinfo(tensor.dtype)
    low, high = info.min - tensor.zero_point, info.max - tensor.zero_point
    real, scaled = "float", f"value / {name}_INPUT_SCALE"
    up, down = "part >= 0.5{f}", "part <= -0.5{f}"
    if profile == "litert":
        inverse = np.float32(1) / np.float32(tensor.scale)
        scaled = f"value * {float(inverse)!r}f"
        up = "part > 0.5{f} || (part >= 0.5{f} && (whole & 1) != 0)"
        down = "part < -0.5{f} || (part <= -0.5{f} && (whole & 1) != 0)"
    elif profile == "tflite-runtime":
        real, scaled = "double", f"(double)value / (double){name}_INPUT_SCALE"
    rounding = "ties to even" if profile == "litert" else "ties away from zero"
    f = "f" if real == "float" else ""
    return f"""\
/* Return a value as the model's integer: {rounding}, held to its range; NaN is taken for 0. */
static inline {name}_input_t {name}_quantize(float value)
{{
    const {real} scaled = {scaled};
    int32_t whole = 0;
    if (scaled >= {_real(high, f)}) {{
        whole = {high};
    }} else if (scaled <= {_real(low, f)}) {{
        whole = {low};
    }} else if (scaled > {_real(low, f)}) {{
        {real} part;
        whole = (int32_t)scaled;
        part = scaled - ({real})whole;
        if ({up.format(f=f)}) {{
            whole++;
        }} else if ({down.format(f=f)}) {{
            whole--;
        }}
    }}
    return ({name}_input_t)(whole + {name}_INPUT_ZERO_POINT);
}}
"""


def _real(value: int, suffix: str) -> str:
    return f"{float(value)}{suffix}"


def _dequantize(model: CModel) -> str:
    name = model.name
    return f"""\
/* Return the value of an integer of the model. */
static inline float {name}_dequantize({name}_output_t value)
{{
    return (float)(value - {name}_OUTPUT_ZERO_POINT) * {name}_OUTPUT_SCALE;
}}
"""


def describes(tensor: Tensor) -> dict[str, object]:
    """Return what a tool must know of one end of the model."""
    return {
        "kind": tensor.signal.kind,
        "size": tensor.signal.size,
        "dtype": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }
