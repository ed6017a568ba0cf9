"""C packages written by hand: a table look-up whose program NumPy runs, with what a test plants."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Embedding
from edge_lstm.program import Program
from edge_lstm.program_file import save
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec, Signal

WORDS, WIDTH = 11, 3

HEADER = """\
#ifndef HAND_H
#define HAND_H
#include <stdint.h>
typedef int32_t hand_input_t;
typedef {output} hand_output_t;
typedef struct {{ int32_t calls; int8_t room[20]; }} hand_state_t;
void hand_init(hand_state_t *state);
void hand_reset(hand_state_t *state);
void hand_step(hand_state_t *state, const hand_input_t *x, hand_output_t *y);
int hand_run(hand_state_t *state, const hand_input_t *x, int32_t steps, hand_output_t *y);
int hand_selftest(hand_state_t *state);
#endif
"""

SOURCE = """\
#include "hand.h"
const int8_t hand_table[{values}] = {{{table}}};
void hand_init(hand_state_t *state) {{ hand_reset(state); }}
void hand_reset(hand_state_t *state) {{ state->calls = 0; }}
{step}
int hand_run(hand_state_t *state, const hand_input_t *x, int32_t steps, hand_output_t *y)
{{
    for (int32_t i = 0; i < steps; i++) {{
        state->calls++;
        for (int j = 0; j < {width}; j++) {{
            y[i * {width} + j] = hand_table[x[i] * {width} + j];
        }}
    }}
    return {run};
}}
int hand_selftest(hand_state_t *state) {{ {selftest} }}
"""

STEP = """\
void hand_step(hand_state_t *state, const hand_input_t *x, hand_output_t *y)
{
    {
        PLANTED
    }
    state->calls++;
    for (int j = 0; j < 3; j++) {
        y[j] = hand_table[x[0] * 3 + j];
    }
}
"""


def lookup_program() -> Program:
    """Return a program that looks words up in a table."""
    table = np.linspace(-1, 1, WORDS * WIDTH, dtype=np.float32).reshape(WORDS, WIDTH)
    spec = ModelSpec("hand", Signal("tokens", WORDS), (Embedding("words", table),))
    tokens = np.arange(WORDS, dtype=np.int32)[None]
    return quantize(spec, calibrate(spec, tokens))


@dataclass(frozen=True)
class Hand:
    """What a handwritten package has inside.

    Args:
        planted: C statements at the start of ``hand_step``.
        step: the whole of ``hand_step`` instead.
        selftest: body of ``hand_selftest``.
        output: C type of ``hand_output_t``.
        run: what ``hand_run`` returns.
    """

    planted: str = ""
    step: str | None = None
    selftest: str = "(void)state; return 0;"
    output: str = "int8_t"
    run: str = "0"

    def write(self, folder: Path, **description: object) -> Path:
        """Write the package into ``folder`` and return its folder."""
        program = lookup_program()
        y = program.predict(np.arange(WORDS, dtype=np.int32)[None])[0]
        package = folder / "hand_c"
        (package / "src").mkdir(parents=True)
        step = STEP.replace("PLANTED", self.planted) if self.step is None else self.step
        table = ", ".join(str(value) for value in y.ravel().tolist())
        source = SOURCE.format(
            values=y.size,
            table=table,
            width=WIDTH,
            step=step,
            selftest=self.selftest,
            run=self.run,
        )
        (package / "src" / "hand.h").write_text(HEADER.format(output=self.output))
        (package / "src" / "hand.c").write_text(source)
        document = {
            "schema": "edge-lstm.c/1",
            "name": "hand",
            "profile": program.profile,
            "input": {"kind": "tokens", "size": WORDS, "dtype": "int32"},
            "output": {"kind": "sequence", "size": WIDTH, "dtype": "int8"},
            "streams": True,
            "max_steps": None,
            "macs_per_step": 6,
        }
        (package / "hand_model.json").write_text(json.dumps(document | description))
        save(program, package / "hand.elstm")
        return package


def naked(body: str, syntax: str = ".syntax unified") -> str:
    """Return a ``hand_step`` of nothing but assembly, one instruction a line."""
    lines = " ".join(f'"{line.strip()}\\n"' for line in [syntax, *body.strip().splitlines()])
    return (
        "__attribute__((naked)) void hand_step(hand_state_t *state, const hand_input_t *x,"
        f" hand_output_t *y)\n{{\n    __asm volatile({lines});\n}}\n"
    )
