"""The files around the C of a package, which build it: from make to Zephyr, in one folder.

The texts stand in ``package/``, with ``@words@`` for what differs between models.
"""

from __future__ import annotations

import re
from importlib.resources import files

import edge_lstm
from edge_lstm.program import Tensor
from edge_lstm_converters.c_source import CModel

FILES = {
    "Makefile": "Makefile",
    "CMakeLists.txt": "CMakeLists.txt",
    "README.md": "README.md",
    "library.properties": "library.properties",
    "library.json": "library.json",
    "idf_component.yml": "idf_component.yml",
    "package.pdsc": "edge-lstm.@name@.pdsc",
    "zephyr/module.yml": "zephyr/module.yml",
    "zephyr/Kconfig": "zephyr/Kconfig",
    "zephyr/CMakeLists.txt": "zephyr/CMakeLists.txt",
    "test/main.c": "test/main.c",
    "examples/selftest/selftest.ino": "examples/selftest/selftest.ino",
}
"""From a file in ``package/`` to its path in a package."""


def build_files(model: CModel) -> dict[str, str]:
    """Return the files around a model's C, by their path in the package."""
    words = _words(model)
    folder = files("edge_lstm_converters") / "package"
    return {
        filled(path, words): filled((folder / source).read_text(encoding="utf8"), words)
        for source, path in FILES.items()
    }


def filled(text: str, words: dict[str, str]) -> str:
    """Return a text with its ``@words@`` replaced."""
    return re.sub(r"@(\w+)@", lambda match: words[match[1]], text)


def _words(model: CModel) -> dict[str, str]:
    name, program = model.name, model.program
    when = "of every step" if model.every_step else "of the last step"
    symbol = re.sub(r"\W|^_+", "", name.upper())
    whole = "" if model.streams else str(model.fixed_steps or model.max_steps)
    return {
        "name": name,
        # Arduino and Zephyr want a letter first.
        "library": f"edge-lstm-{name}",
        "symbol": f"EDGE_LSTM_{symbol}",
        "version": edge_lstm.__version__,
        "profile": program.profile,
        "hash": program.fingerprint(),
        "sizes": f"Takes {_port(model.input)}, gives {_port(model.output)}.",
        "input": _port(model.input),
        "output": f"{_port(model.output)}, {when}",
        "weight_bytes": f"{program.weight_bytes():,}",
        "state_bytes": f"{model.state_bytes:,}",
        "macs": f"{model.macs:,}",
        "steps": whole or "1",
        "outputs": (whole or "1") if model.every_step else "1",
        "example": example(model),
        "window": _window(model),
    }


def _port(tensor: Tensor) -> str:
    if tensor.signal.kind == "tokens":
        return f"a token, 0 to {tensor.signal.size - 1}, as {tensor.dtype}"
    values = "value" if tensor.signal.size == 1 else "values"
    return f"{tensor.signal.size} {values} of {tensor.dtype}"


def _window(model: CModel) -> str:
    if model.streams:
        return ""
    number = "exactly" if model.fixed_steps is not None else "up to"
    return (
        "\nThe model needs the whole sequence before it can begin,"
        f" {number} {model.max_steps} steps, so there is no `{model.name}_step`.\n"
    )


def example(model: CModel) -> str:
    """Return a function that runs the model on a reading, as C."""
    name = model.name
    inputs, outputs = f"{name}_INPUT_SIZE", f"{name}_OUTPUT_SIZE"
    if not model.streams:
        inputs = f"{name}_MAX_STEPS * {inputs}"
        outputs = f"{name}_MAX_STEPS * {outputs}" if model.every_step else outputs
    quantizes, dequantizes = model.input.is_quantized, model.output.is_quantized
    real_in = "float" if quantizes else f"{name}_input_t"
    real_out = "float" if dequantizes else f"{name}_output_t"
    enter = f"{name}_quantize(reading[k])" if quantizes else "reading[k]"
    leave = f"{name}_dequantize(y[k])" if dequantizes else "y[k]"
    run = f"{name}_step(&state, x, y);"
    if not model.streams:
        run = f"{name}_run(&state, x, {name}_MAX_STEPS, y);"
    return f"""\
#include "{name}_float.h"

static {name}_state_t state;

void begin(void);
void on_reading(const {real_in} *reading, {real_out} *result);

/* Once; and again wherever a new sequence begins. */
void begin(void)
{{
    {name}_init(&state);
}}

void on_reading(const {real_in} *reading, {real_out} *result)
{{
    {name}_input_t x[{inputs}];
    {name}_output_t y[{outputs}];
    for (int k = 0; k < {inputs}; k++) {{
        x[k] = {enter};
    }}
    {run}
    for (int k = 0; k < {outputs}; k++) {{
        result[k] = {leave};
    }}
}}
"""
