"""The recurrent cells of the `edge` profile in C: the NumPy bytes, and no sanitizer complains."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from c_packages import STRICT, compile_c, gcc, program_of
from edge_lstm.arrays import Array
from edge_lstm.cells import Bidirectional, Dense, Gate, Gru, LastStep, Lstm, Rnn
from edge_lstm.cells.edge_rows import sigmoid_table
from edge_lstm.errors import MissingTool
from edge_lstm.fixed_point import wrap16, wrap32
from edge_lstm.program import Program
from edge_lstm.spec import Layer, Signal
from edge_lstm_converters.c_source import CModel
from edge_lstm_converters.write_c import write_c
from edge_lstm_firmware_sim.simulate import count

SANITIZED = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MAIN = """\
#include <stdio.h>
#include <string.h>
#include "net.h"

static net_input_t x[STEPS][net_INPUT_SIZE];
static net_output_t y[STEPS][net_OUTPUT_SIZE];

int main(void)
{
    net_state_t state;
    memset(&state, 0x5a, sizeof state);
    if (net_selftest(&state) != 0 || fread(x, sizeof x, 1, stdin) != 1) {
        return 1;
    }
    net_run(&state, &x[0][0], STEPS, &y[0][0]);
    return fwrite(y, sizeof y, 1, stdout) != 1;
}
"""


def gate(random: np.random.Generator, hidden: int, features: int, gain: float) -> Gate:
    spread = gain / np.sqrt(hidden + features)
    return Gate(
        random.normal(0, spread, (hidden, features)).astype(np.float32),
        random.normal(0, spread, (hidden, hidden)).astype(np.float32),
        random.normal(0, 0.5, hidden).astype(np.float32),
    )


def cell(
    kind: str, features: int, hidden: int, gain: float, *, name: str = "cell", started: bool = False
) -> Lstm | Gru | Rnn:
    random = np.random.default_rng(features * hidden)
    gates = [gate(random, hidden, features, gain) for _ in range(4)]
    first = random.uniform(-1, 1, hidden).astype(np.float32) if started else None
    if kind == "lstm":
        four = (gates[0], gates[1], gates[2], gates[3])
        return Lstm(
            name, four, initial_hidden=first, initial_cell=None if first is None else -first
        )
    if kind == "rnn":
        return Rnn(name, gates[0], initial_hidden=first)
    three = (gates[0], gates[1], gates[2])
    extra = gates[3].bias if kind == "gru" else None
    after = kind == "gru"
    return Gru(name, three, candidate_recurrent_bias=extra, reset_after=after, initial_hidden=first)


def in_c(program: Program, x: Array, folder: Path, *flags: str) -> Array:
    """Return what a sanitized build gives for a sequence, [steps, size]."""
    package = write_c(program, folder, len(x))
    main = folder / "main.c"
    main.write_text(MAIN)
    sources = [str(path) for path in sorted((package / "src").glob("*.c"))]
    command = ["gcc", "-O1", *STRICT, *SANITIZED, *flags, f"-DSTEPS={len(x)}"]
    binary = folder / "model"
    compile_c([*command, f"-I{package / 'src'}", *sources, str(main), "-o", str(binary)])
    done = subprocess.run([binary], input=x.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    output = CModel(program, len(x)).output
    return np.frombuffer(done.stdout, output.dtype).reshape(len(x), output.signal.size)


def extreme_inputs(program: Program, steps: int = 60) -> Array:
    """Return random integers over the whole range of the input, and its ends."""
    tensor = program.input_tensor
    limits = np.iinfo(tensor.dtype)
    x = np.random.default_rng(3).integers(limits.min, limits.max + 1, (steps, tensor.signal.size))
    x[:8], x[8:16] = limits.min, limits.max
    x[16:24] = np.where(x[16:24] > 0, limits.max, limits.min)
    return x.astype(tensor.dtype)


def assert_same_bytes(program: Program, folder: Path) -> None:
    x = extreme_inputs(program)
    np.testing.assert_array_equal(in_c(program, x, folder), program.predict(x[None])[0])


@gcc
@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru reset before", "rnn"])
@pytest.mark.parametrize(("features", "hidden", "gain"), [(3, 7, 1.0), (8, 6, 30.0)])
def test_a_cell_in_c_gives_the_bytes_of_the_numpy_kernel(
    kind: str,
    dtype: Literal["int8", "int16"],
    features: int,
    hidden: int,
    gain: float,
    tmp_path: Path,
) -> None:
    layer = cell(kind, features, hidden, gain, started=gain > 1)
    program = program_of((layer,), Signal("sequence", features), "edge", dtype=dtype)
    assert_same_bytes(program, tmp_path)


@gcc
@pytest.mark.parametrize("hidden", [1, 4])
def test_few_units_and_whole_quads_in_c(hidden: int, tmp_path: Path) -> None:
    layers: tuple[Layer, ...] = (
        cell("lstm", 4, hidden, 1.0, name="first"),
        cell("gru", hidden, 4, 1.0, name="second"),
        cell("rnn", 4, hidden, 1.0, name="third"),
    )
    assert_same_bytes(program_of(layers, Signal("sequence", 4), "edge"), tmp_path)


@gcc
def test_both_directions_in_c(tmp_path: Path) -> None:
    layers: tuple[Layer, ...] = (
        Bidirectional("both", cell("lstm", 4, 5, 1.0), cell("gru", 4, 5, 1.0)),
        cell("gru reset before", 10, 6, 1.0, name="top"),
    )
    assert_same_bytes(program_of(layers, Signal("sequence", 4), "edge", time_steps=60), tmp_path)


@gcc
def test_rows_that_are_not_in_pairs_in_c(tmp_path: Path) -> None:
    """With 2,000 columns of equal weights the paired sum would leave 32 bits."""
    wide = cell("lstm", 2000, 2, 30.0)
    assert isinstance(wide, Lstm)
    ones = [replace(g, input_weights=np.ones((2, 2000), np.float32)) for g in wide.gates]
    wide = replace(wide, gates=(ones[0], ones[1], ones[2], ones[3]))
    program = program_of((wide,), Signal("sequence", 2000), "edge")
    assert program.ops[0].constants()["high_shift"] == 0
    assert_same_bytes(program, tmp_path)


@gcc
def test_a_head_behind_the_last_step_in_c(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, 6)).astype(np.float32)
    layers: tuple[Layer, ...] = (
        cell("lstm", 4, 6, 1.0),
        LastStep("last"),
        Dense("head", weights, np.zeros(3, np.float32)),
    )
    program = program_of(layers, Signal("sequence", 4), "edge")
    x = extreme_inputs(program)
    np.testing.assert_array_equal(in_c(program, x, tmp_path)[0], program.predict(x[None])[0])


CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33", "cortex-m55", "rv32imc")


def assert_same_bytes_on(core: str, program: Program, folder: Path, opt: str) -> None:
    package = write_c(program, folder)
    try:
        found = count(package, core, None, "zig", opt)
    except MissingTool as error:
        pytest.skip(str(error))
    assert found.differing_bytes == 0
    assert found.selftest_passed


@pytest.mark.parametrize("core", CORES)
def test_each_core_s_assembler_gives_the_bytes_of_the_numpy_kernel(
    core: str, tmp_path: Path
) -> None:
    """An odd number of columns, more than a block of them, and gates that saturate."""
    layers: tuple[Layer, ...] = (
        cell("lstm", 21, 18, 8.0, name="first", started=True),
        cell("lstm", 18, 5, 30.0, name="second"),
        cell("gru", 5, 6, 1.0, name="third"),
        cell("gru reset before", 6, 7, 1.0, name="fourth"),
        cell("rnn", 7, 3, 1.0, name="fifth"),
    )
    program = program_of(layers, Signal("sequence", 21), "edge")
    assert_same_bytes_on(core, program, tmp_path, "-O3")


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4", "cortex-m55", "rv32imc"])
def test_sixteen_bit_inputs_give_the_same_bytes_on_each_core(core: str, tmp_path: Path) -> None:
    layer = cell("lstm", 6, 7, 2.0)
    program = program_of((layer,), Signal("sequence", 6), "edge", dtype="int16")
    assert_same_bytes_on(core, program, tmp_path, "-Os")


@pytest.mark.parametrize(("which", "bits"), [(0, 16), (1, 32)])
def test_the_tables_in_c_are_the_table_of_the_numpy_kernel(which: int, bits: int) -> None:
    """The slope multiplies the low 16 bits of the argument, or all of them."""
    text = (files("edge_lstm_converters") / "c" / "el_edge_sigmoid.h").read_text()
    body = re.findall(r"el_sigmoid_words\[128\] = \{(.*?)\};", text, re.DOTALL)[which]
    words = np.array([int(word) for word in body.replace("\n", " ").split(",") if word.strip()])
    u = np.arange(-(2**17), 2**17)
    word = words[(u >> 11) + 64]
    slope, position = wrap16(word), wrap16(u) if bits == 16 else u
    np.testing.assert_array_equal(wrap32(word + slope * position) >> 16, sigmoid_table())
