"""Generated C under AddressSanitizer and UndefinedBehaviorSanitizer, over extremes: silent."""

from __future__ import annotations

import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from c_packages import STRICT, compile_c, gcc, program_of
from edge_lstm.arrays import F32, Array
from edge_lstm.cells import (
    Activation,
    Bidirectional,
    Dense,
    Embedding,
    Flatten,
    Gate,
    Gru,
    LastStep,
    Lstm,
    Rnn,
)
from edge_lstm.program import EDGE, PROFILES, Op, Program
from edge_lstm.spec import Layer, Signal
from edge_lstm_converters.c_selftest import expected_outputs
from edge_lstm_converters.c_source import CModel
from edge_lstm_converters.write_c import write_c

SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FEATURES, HIDDEN, STEPS, TOKENS = 5, 6, 12, 11
MAIN = """\
#include "net.h"

#include <stdio.h>
#include <stdlib.h>

/* Every array has a neighbour of its own, so that a step past its end is seen. */
int main(void)
{
    net_state_t *state = malloc(sizeof *state);
    net_input_t *x = malloc(IN);
    net_output_t *y = malloc(OUT);
    int wrong = net_selftest(state) != 0 || fread(x, IN, 1, stdin) != 1;
    wrong |= net_run(state, x, STEPS, y) != 0;
    wrong |= fwrite(y, OUT, 1, stdout) != 1;
    free(state);
    free(x);
    free(y);
    return wrong;
}
"""


def run_sanitized(program: Program, x: Array, folder: Path, like: Array) -> Array:
    """Run [steps, size] in C with every check that the compiler has; ``like`` has y's shape."""
    source = write_c(program, folder, len(x)) / "src"
    (source / "main.c").write_text(MAIN)
    sizes = [f"-DSTEPS={len(x)}", f"-DIN={x.nbytes}", f"-DOUT={like.nbytes}"]
    binary = str(folder / "main")
    files = [str(path) for path in source.glob("*.c")]
    compile_c(["gcc", *STRICT, *SANITIZERS, *sizes, *files, "-o", binary])
    done = subprocess.run(
        [binary], input=np.ascontiguousarray(x).tobytes(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, like.dtype).reshape(like.shape)


def weights(*shape: int, gain: float) -> F32:
    """Return weights of few values, the greatest ones all over."""
    draw = np.random.default_rng(len(shape))
    return (gain * draw.choice([-1.0, -1.0, 1.0, 0.01], shape)).astype(np.float32)


def gate(features: int, gain: float) -> Gate:
    return Gate(
        weights(HIDDEN, features, gain=gain),
        weights(HIDDEN, HIDDEN, gain=gain),
        weights(HIDDEN, gain=gain),
    )


def lstm(name: str, features: int, gain: float) -> Lstm:
    a = gate(features, gain)
    return Lstm(name, (a, replace(a, bias=-a.bias), a, a))


def dense(name: str, rows: int, columns: int, gain: float) -> Dense:
    return Dense(name, weights=weights(rows, columns, gain=gain), bias=weights(rows, gain=gain))


def models(gain: float) -> dict[str, tuple[Layer, ...]]:
    """Return layers by name; each begins with features."""
    a = gate(FEATURES, gain)
    first = lstm("first", FEATURES, gain)
    return {
        "stack": (
            first,
            lstm("second", HIDDEN, gain),
            dense("head", 3, HIDDEN, gain),
            Activation("squash", "tanh"),
            Activation("likely", "softmax"),
        ),
        "both": (Bidirectional("both", first, first, final=True), dense("head", 3, 12, gain)),
        "flat": (first, Flatten("flat", STEPS), dense("head", 2, STEPS * HIDDEN, gain)),
        "gru": (Gru("gru", (a, a, a), weights(HIDDEN, gain=gain)), LastStep("last")),
        "early": (Gru("gru", (a, a, a), reset_after=False), Activation("gate", "sigmoid")),
        "rnn": (Rnn("rnn", a), dense("head", 3, HIDDEN, gain), Activation("cut", "relu6")),
    }


def extremes(program: Program) -> Array:
    """Return steps at the ends of the input's range, and between."""
    limits = np.iinfo(program.input_tensor.dtype)
    draw = np.random.default_rng(3)
    x = draw.choice([limits.min, limits.max, 0, -1], (STEPS, program.input_tensor.signal.size))
    x[:3], x[3:6] = limits.min, limits.max
    return x.astype(limits.dtype)


def check(program: Program, x: Array, folder: Path) -> None:
    expected = expected_outputs(CModel(program, len(x)), x)
    np.testing.assert_array_equal(run_sanitized(program, x, folder, expected), expected)


@gcc
@pytest.mark.parametrize("name", models(1.0))
@pytest.mark.parametrize(("profile", "gain"), [(EDGE, 40.0), ("tflm", 2.0)])
def test_extreme_weights_and_inputs(profile: str, name: str, gain: float, tmp_path: Path) -> None:
    steps = STEPS if name == "flat" else None
    program = program_of(models(gain)[name], Signal("sequence", FEATURES), profile, steps)
    check(program, extremes(program), tmp_path)


@gcc
@pytest.mark.parametrize("profile", [EDGE, "tflm"])
def test_extremes_of_16_bits(profile: str, tmp_path: Path) -> None:
    dtype: Literal["int16"] = "int16"
    layers = (lstm("lstm", FEATURES, 8.0), dense("head", 3, HIDDEN, 8.0))
    program = program_of(layers, Signal("sequence", FEATURES), profile, dtype=dtype)
    check(program, extremes(program), tmp_path)


@gcc
def test_tokens_outside_the_table_read_inside_it(tmp_path: Path) -> None:
    layers = (Embedding("table", table=weights(TOKENS, FEATURES, gain=1.0)),)
    program = program_of(layers, Signal("tokens", TOKENS), EDGE)
    wild = np.array([[-(2**31)], [-1], [0], [TOKENS - 1], [TOKENS], [2**31 - 1]], np.int32)
    expected = expected_outputs(CModel(program), np.clip(wild, 0, TOKENS - 1))
    np.testing.assert_array_equal(run_sanitized(program, wild, tmp_path, expected), expected)


def hostile(program: Program) -> Program:
    """Return a program as a damaged file could have it: every array at its type's ends."""
    draw = np.random.default_rng(5)

    def wild(op: Op) -> Op:
        changed = {}
        for item in fields(op):
            value = getattr(op, item.name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "i":
                limits = np.iinfo(value.dtype)
                changed[item.name] = draw.choice(
                    np.array([limits.min, limits.max], value.dtype), value.shape
                )
        return replace(op, **changed)

    return replace(program, ops=tuple(wild(op) for op in program.ops))


@gcc
@pytest.mark.parametrize(("name", "profile"), [*(("stack", p) for p in PROFILES), ("rnn", "tflm")])
def test_a_damaged_file_cannot_make_the_arithmetic_undefined(
    name: str, profile: str, tmp_path: Path
) -> None:
    program = hostile(program_of(models(1.0)[name], Signal("sequence", FEATURES), profile))
    check(program, extremes(program), tmp_path)


@gcc
def test_the_sanitizers_see_what_is_wrong(tmp_path: Path) -> None:
    program = program_of(models(1.0)["rnn"], Signal("sequence", FEATURES), EDGE)
    source = write_c(program, tmp_path) / "src" / "net.c"
    text = source.read_text()
    for wrong, report in (("y[3 * steps] = 0;", "AddressS"), ("steps += 2147483647;", "overflow")):
        source.write_text(text.replace("if (steps < 1)", f"{wrong}\n    if (steps < 1)"))
        assert source.read_text() != text
        (source.parent / "main.c").write_text(MAIN)
        sizes = [f"-DSTEPS={STEPS}", f"-DIN={STEPS * FEATURES}", f"-DOUT={STEPS * 3}"]
        files = [str(path) for path in source.parent.glob("*.c")]
        compile_c(["gcc", *SANITIZERS, *sizes, *files, "-o", str(tmp_path / "main")])
        done = subprocess.run([str(tmp_path / "main")], capture_output=True, timeout=60, input=b"")
        assert report in done.stderr.decode()
