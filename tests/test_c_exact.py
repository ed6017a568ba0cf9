"""Exact C: a model of an interchange profile gives its interpreter's bytes without it.

Golden vectors come from the interpreters themselves; random graphs are held to the NumPy runtime,
which tests/test_graph_conformance.py holds to them: without a warning, under
UndefinedBehaviorSanitizer, and every second with the multiplication of cores that have no long
one.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from c_packages import STRICT, compile_c, gcc
from edge_lstm import activations
from edge_lstm.arrays import Array
from edge_lstm.cells import ActivationOp, DenseOp, LstmOp
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import round_half_away
from edge_lstm.program import PROFILES, Profile, Program, Tensor
from edge_lstm.spec import Signal
from edge_lstm_converters.c_exact_dense import float_factor
from edge_lstm_converters.c_gemmlowp import gemmlowp_table
from edge_lstm_converters.c_source import CModel, integer_part
from edge_lstm_converters.read_tflite import read_tflite
from edge_lstm_converters.write_c import write_c
from random_graphs import RandomGraph
from strategies import lstm_op, random_program
from test_step_graph import KINDS
from test_step_graph import model as step_graph

GOLDEN = Path(__file__).parent / "golden"
KERNELS = Path(write_c.__code__.co_filename).parent / "c"
KEYS: dict[Profile, str] = {
    "tflm": "y_tflm_2026_10",
    "tflm-2026-08": "y_tflm_2026_08",
    "litert": "y_litert",
    "litert-ref": "y_litert_ref",
    "tflite-runtime": "y_tfr",
}
FIRST = {p: KEYS["tflm" if p.startswith("tflm") else "litert"] for p in KEYS}
WIDE: tuple[Profile, ...] = ("tflm", "tflm-2026-08", "cmsis-nn")
GRAPHS = 4
"""Of each profile and type."""
MODELS = int(os.environ.get("EDGE_LSTM_GOLDEN", "4"))
"""Of the golden ones, under each profile."""
SEED = int(os.environ.get("EDGE_LSTM_SEED", "0"))
SANITIZED = ["-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
NO_LONG_MULTIPLY = "-DEL_NO_LONG_MULTIPLY"


@dataclass(frozen=True, eq=False)
class Case:
    """A program, and streams of calls that each continue the state of the one before.

    Args:
        calls: input and output, and whether the state begins anew.
    """

    program: Program
    streams: list[list[tuple[Array, Array, bool]]]
    max_steps: int


def check(cases: list[Case], folder: Path, *flags: str) -> int:
    """Compile the programs as one library; hold each to its outputs. Returns the values seen."""
    sources = []
    for case in cases:
        package = write_c(case.program, folder, case.max_steps)
        sources += [str(path) for path in sorted((package / "src").glob("*.c"))]
    library = folder / f"{cases[0].program.name}.so"
    compile_c(["gcc", "-shared", "-fPIC", *STRICT, *flags, *sources, "-o", str(library)])
    loaded = ctypes.CDLL(str(library))
    values = 0
    for case in cases:
        name = case.program.name
        run = {what: getattr(loaded, f"{name}_{what}") for what in ("reset", "run", "selftest")}
        size = CModel(case.program, case.max_steps).state_bytes
        for stream in case.streams:
            state = ctypes.create_string_buffer(size + 16)
            assert run["selftest"](state) == 0, name
            for x, want, resets in stream:
                if resets:
                    run["reset"](state)
                x, y = np.ascontiguousarray(x), np.zeros_like(want)
                places = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y)]
                steps = len(x) if case.program.input_tensor.signal.kind != "vector" else 1
                assert run["run"](state, places[0], steps, places[1]) == 0
                kinds = [op.type_name for op in case.program.ops]
                np.testing.assert_array_equal(y, want, err_msg=f"{name}: {kinds}", strict=True)
                values += y.size
    return values


def against_numpy(program: Program, x: Array, max_steps: int) -> Case:
    """Return a program and what the NumPy runtime makes of ``x`` [streams, time, ...]."""
    want = program.predict(x)
    return Case(program, [[(a, b, True)] for a, b in zip(x, want, strict=True)], max_steps)


def graphs(profile: Profile, dtype: Literal["int8", "int16"]) -> Iterator[Case]:
    for number in range(GRAPHS):
        random = np.random.default_rng([number, PROFILES.index(profile), dtype == "int16"])
        graph = RandomGraph(random, profile, dtype, int(random.integers(1, 10)))
        program = replace(graph.program(), name=f"graph_{number}")
        yield against_numpy(program, graph.inputs(program, 1, 2)[0], graph.steps)


@gcc
@pytest.mark.parametrize("profile", PROFILES)
def test_random_graphs_in_c_give_the_bytes_of_the_numpy_runtime(
    profile: Profile, tmp_path: Path
) -> None:
    cases = list(graphs(profile, "int8"))
    assert check(cases[0::2], tmp_path, *SANITIZED) > 0
    assert check(cases[1::2], tmp_path, *SANITIZED, NO_LONG_MULTIPLY) > 0


@gcc
@pytest.mark.parametrize("profile", WIDE)
def test_random_graphs_of_int16_in_c_give_the_bytes_of_the_numpy_runtime(
    profile: Profile, tmp_path: Path
) -> None:
    cases = list(graphs(profile, "int16"))
    assert check(cases[0::2], tmp_path, *SANITIZED) > 0
    assert check(cases[1::2], tmp_path, *SANITIZED, NO_LONG_MULTIPLY) > 0


@gcc
def test_larger_models_of_extremes_give_the_bytes_of_the_numpy_runtime(tmp_path: Path) -> None:
    """Optimized, as on a target; rows that are too heavy for pairs among them."""
    random, cases = np.random.default_rng(0), []
    for number, profile in enumerate(PROFILES):
        program = random_program(random, profile, largest=60)
        size = program.input_tensor.signal.size
        lstm = program.ops[0]
        assert isinstance(lstm, LstmOp)
        if number % 2:
            heavy = np.where(lstm.recurrent_weights < 0, -128, 127).astype(np.int8)
            program = replace(
                program, ops=(replace(lstm, recurrent_weights=heavy), *program.ops[1:])
            )
        x = random.integers(-128, 128, (3, 20, size))
        x[1], x[2] = np.where(x[1] < 0, -128, 127), -128
        named = replace(program, name=f"large_{number}")
        cases.append(against_numpy(named, x.astype(np.int8), 20))
    assert check(cases, tmp_path, "-O2") > 0


@gcc
@pytest.mark.parametrize("kind", KINDS)
def test_gru_and_rnn_in_c_give_the_bytes_of_the_numpy_runtime(kind: str, tmp_path: Path) -> None:
    cases = []
    for number, (profile, dtype) in enumerate(
        [("tflm", "int8"), ("litert", "int8"), ("litert-ref", "int16"), ("cmsis-nn", "int16")]
    ):
        _, program, x = step_graph(number, kind, dtype, profile)  # type: ignore[arg-type]
        integers = program.input_tensor.quantize(x)
        named = replace(program, name=f"cell_{number}")
        cases.append(against_numpy(named, integers, integers.shape[1]))
    assert check(cases, tmp_path, *SANITIZED) > 0


@gcc
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_dense_of_many_rows_and_offset_weights_gives_the_bytes_of_the_numpy_runtime(
    dtype: Literal["int8", "int16"], tmp_path: Path
) -> None:
    """Rows four by four and what is left of them; an odd number of columns."""
    random, cases = np.random.default_rng(2), []
    profiles = PROFILES if dtype == "int8" else WIDE
    for number, (profile, rows, offset) in enumerate(
        (profile, rows, offset) for profile in profiles for rows in (7, 23) for offset in (0, -9)
    ):
        source = Tensor("x", Signal("sequence", 13), dtype, 0.02, 3 if dtype == "int8" else 0)
        output = Tensor("y", Signal("sequence", rows), dtype, 0.3, -7 if dtype == "int8" else 0)
        weights = random.integers(-128, 128, (rows, 13)).astype(np.int8)
        weights[:4] = np.maximum(weights[:4], -127)
        bias = random.integers(-999, 999, rows).astype("int32" if dtype == "int8" else "int64")
        scales = random.uniform(0.001, 0.02, rows).astype(np.float32)
        op = DenseOp("head", (0,), 1, weights, bias, scales, "none", offset)
        program = Program(f"dense_{number}", profile, (source, output), (op,), 0, 1)
        info = np.iinfo(dtype)
        x = random.integers(info.min, info.max + 1, (2, 9, 13)).astype(dtype)
        cases.append(against_numpy(program, x, 9))
    assert check(cases, tmp_path, *SANITIZED) > 0


def golden(profile: Profile) -> Iterator[Case]:
    """Yield the golden models that take and give integers, row by row of their batches.

    Of a runtime that shares its kernels with another, those at which the two differ.
    """
    for number, folder in enumerate(sorted(GOLDEN.glob("*/model.tflite"))):
        with np.load(folder.parent / "vectors.npz") as vectors:
            keys = [KEYS[profile], FIRST[profile]]
            x, reset, *known = (vectors.get(key) for key in ("x", "reset", *keys))
        want, first = known
        if want is None or "float32" in (x.dtype.name, want.dtype.name):
            continue
        if keys[0] != keys[1] and first is not None and (want == first).all():
            continue
        program = replace(read_tflite(folder, profile), name=f"golden_{number}")
        if any(isinstance(op, LstmOp) and op.time_major for op in program.ops):
            x, want = x.swapaxes(1, 2), want.swapaxes(1, 2)
        streams = [
            list(zip(x[:, row], want[:, row], reset, strict=True)) for row in range(x.shape[1])
        ]
        yield Case(program, streams, x.shape[2] if x.ndim > 2 else 1)


@gcc
@pytest.mark.parametrize("profile", KEYS)
def test_golden_models_in_c_give_the_bytes_of_their_interpreters(
    profile: Profile, tmp_path: Path
) -> None:
    assert check(list(golden(profile)), tmp_path, "-O0") > 0


def golden_by_numpy(profile: Profile) -> Iterator[Case]:
    """Yield golden models that a profile runs, with what the NumPy runtime makes of their calls."""
    paths = sorted(GOLDEN.glob("*/model.tflite"))
    chosen = np.random.default_rng(SEED).permutation(len(paths))[:MODELS]
    for number in chosen.tolist():
        with np.load(paths[number].parent / "vectors.npz") as vectors:
            x, reset = vectors["x"], vectors["reset"]
        try:
            read = read_tflite(paths[number], profile)
            program = replace(integer_part(read)[0], name=f"golden_{number}")
            program.session()
        except UnsupportedModel:
            continue
        if x.dtype == "float32":
            x = program.input_tensor.quantize(x)
        if any(isinstance(op, LstmOp) and op.time_major for op in program.ops):
            x = x.swapaxes(1, 2)
        want = []
        for call, resets in zip(x, reset, strict=True):
            if resets:
                session = program.session(x.shape[1])
            want.append(session.run(call))
        streams = [
            [(a[row], y[row], bool(r)) for a, y, r in zip(x, want, reset, strict=True)]
            for row in range(x.shape[1])
        ]
        yield Case(program, streams, x.shape[2] if x.ndim > 2 else 1)


@gcc
@pytest.mark.parametrize("profile", PROFILES)
def test_golden_models_in_c_give_the_bytes_of_the_numpy_runtime(
    profile: Profile, tmp_path: Path
) -> None:
    """A few; `make fuzz` takes all."""
    assert check(list(golden_by_numpy(profile)), tmp_path, "-O1") > 0


def library(folder: Path, text: str, *flags: str) -> ctypes.CDLL:
    """Compile functions over the kernels."""
    source, shared = folder / "functions.c", folder / "functions.so"
    source.write_text(text)
    include = ["-I", str(KERNELS)]
    command = ["gcc", "-shared", "-fPIC", *STRICT, *SANITIZED, *flags, *include, str(source)]
    compile_c([*command, "-o", str(shared)])
    return ctypes.CDLL(str(shared))


def call(function: object, *arrays: Array) -> Array:
    """Return what a C function makes of arrays of one length, int32."""
    arguments = [np.ascontiguousarray(a) for a in arrays]
    out = np.empty(len(arguments[0]), np.int32)
    places = [a.ctypes.data_as(ctypes.c_void_p) for a in (*arguments, out)]
    function(len(out), *places)  # type: ignore[operator]
    return out


@gcc
@pytest.mark.parametrize("level", ["-O1", "-Os"])
def test_sigmoid_and_tanh_in_c_equal_the_tables_at_every_word(level: str, tmp_path: Path) -> None:
    """Looked up; and built for size, computed."""
    tanhs = [f"el_gemmlowp_tanh(x[k], {bits})" for bits in range(7)]
    calls = [
        "el_gemmlowp_sigmoid(x[k])",
        "el_interpolated_sigmoid(3 * x[k])",
        "el_interpolated_tanh(3 * x[k])",
        *tanhs,
    ]
    text = f"#include <stdint.h>\n{gemmlowp_table()}"
    text += '#include "el_gemmlowp_s16.h"\n#include "el_interpolated.h"\n'
    for number, expression in enumerate(calls):
        text += f"void f{number}(int n, const int32_t *x, int32_t *y);\n"
        text += f"void f{number}(int n, const int32_t *x, int32_t *y)\n"
        text += f"{{ for (int k = 0; k < n; k++) {{ y[k] = {expression}; }} }}\n"
    compiled = library(tmp_path, text, level)
    tables = [
        activations.gemmlowp_sigmoid(),
        activations.interpolated_sigmoid(),
        activations.interpolated_tanh(0),
        *map(activations.gemmlowp_tanh, range(7)),
    ]
    words = np.arange(-32768, 32768).astype(np.int32)
    for number, table in enumerate(tables):
        got = call(getattr(compiled, f"f{number}"), words)
        np.testing.assert_array_equal(got, table[words & 0xFFFF], err_msg=calls[number])


def near_ties(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Return accumulators of every size, and factors that bring most of them close to a half."""
    acc = random.integers(1, 2**31, count) >> random.integers(0, 31, count)
    acc = np.maximum(acc, 1)
    factor = (random.integers(0, 256, count) + 0.5) / acc
    elsewhere = random.random(count) < 0.3
    factor[elsewhere] = np.exp2(random.uniform(-30, 0, elsewhere.sum()))
    return (acc * random.choice([-1, 1], count)).astype(np.int32), factor


@gcc
@pytest.mark.parametrize("flag", ["", NO_LONG_MULTIPLY])
def test_float_products_in_integers_round_as_floats_do(flag: str, tmp_path: Path) -> None:
    text = """\
#include "el_product_f32.h"
#include "el_product_f64.h"
void f32(int n, const int32_t *a, const int32_t *w, const int32_t *r, int32_t *y);
void f64(int n, const int32_t *a, const uint32_t *h, const uint32_t *l, const int32_t *r,
    int32_t *y);
void f32(int n, const int32_t *a, const int32_t *w, const int32_t *r, int32_t *y)
{ for (int k = 0; k < n; k++) { y[k] = el_round_product_f32(a[k], w[k], r[k]); } }
void f64(int n, const int32_t *a, const uint32_t *h, const uint32_t *l, const int32_t *r,
    int32_t *y)
{ for (int k = 0; k < n; k++) { y[k] = el_round_product_f64(a[k], h[k], l[k], r[k]); } }
"""
    compiled = library(tmp_path, text, *([flag] if flag else []))
    random = np.random.default_rng(0)
    acc, factor = near_ties(random, 50_000)
    nudge = random.integers(-2, 3, len(acc))
    narrow = (factor.astype(np.float32).view(np.int32) + nudge.astype(np.int32)).view(np.float32)
    wide = (factor.view(np.int64) + nudge).view(np.float64)

    whole, right = np.array([float_factor(float(f), 24) for f in narrow]).T.astype(np.int32)
    want = np.rint(acc.astype(np.float32) * narrow)
    limit = 2**22
    got = call(compiled.f32, acc, whole, right)
    np.testing.assert_array_equal(np.clip(got, -limit, limit), np.clip(want, -limit, limit))

    parts = [float_factor(float(f), 53) for f in wide]
    high = np.array([w >> 21 for w, _ in parts], np.uint32)
    low = np.array([w & (2**21 - 1) for w, _ in parts], np.uint32)
    shift = np.array([r - 21 for _, r in parts], np.int32)
    want, limit = round_half_away(acc * wide), 2**20
    got = call(compiled.f64, acc, high, low, shift)
    np.testing.assert_array_equal(got, np.clip(want, -limit, limit))
    ties = np.abs(np.abs(acc * wide) % 1 - 0.5) < 1e-12
    assert ties.sum() > 1000  # else the test would not see a wrong tie


@pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None,
    reason="no arm-none-eabi-gcc; apt-get install gcc-arm-none-eabi",
)
def test_exact_c_needs_no_library_on_v6m(tmp_path: Path) -> None:
    """No division, no 64-bit product or shift, no memcpy: nothing is left to link."""
    for profile, dtype in (("tflm", "int16"), ("litert", "int8"), ("litert-ref", "int8")):
        for case in list(graphs(profile, dtype))[:2]:  # type: ignore[arg-type]
            package = write_c(case.program, tmp_path, case.max_steps)
            name, output = case.program.name, tmp_path / "model.o"
            command = ["arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb", "-ffreestanding"]
            source = str(package / "src" / f"{name}.c")
            compile_c([*command, "-Os", *STRICT, "-c", source, "-o", str(output)])
            missing = subprocess.run(
                ["arm-none-eabi-nm", "-u", str(output)], capture_output=True, text=True, check=True
            )
            assert missing.stdout == ""


def lone(op_inputs: Tensor, output: Tensor, op: object, profile: Profile) -> Program:
    return Program("lone", profile, (op_inputs, output), (op,), 0, 1)  # type: ignore[arg-type]


def test_c_refuses_by_name_what_it_cannot_do_exactly(tmp_path: Path) -> None:
    def refuses(program: Program, message: str) -> None:
        with pytest.raises(UnsupportedModel, match=message):
            write_c(program, tmp_path, 4)

    many = Signal("sequence", 5000)
    source, output = Tensor("x", many, "int8", 0.1), Tensor("y", many, "int8", 1 / 256, -128)
    softmax = ActivationOp("classes", (0,), 1, "softmax")
    refuses(lone(source, output, softmax, "tflm"), "'classes' .* 5000 classes; .* 4095 at most")

    wide = Signal("sequence", 140_000)
    rows = np.full((1, 140_000), -128, np.int8)
    dense = DenseOp("huge", (0,), 1, rows, np.zeros(1, np.int32), np.ones(1, np.float32))
    source, output = Tensor("x", wide, "int8", 0.1), Tensor("y", Signal("sequence", 1), "int8", 1.0)
    refuses(lone(source, output, dense, "tflm"), "'huge' .* 140000 products may leave 32 bits")

    loud = Tensor("x", Signal("sequence", 3), "int16", 8.0)
    squashed = replace(loud, name="y", scale=2.0**-15)
    tanh = ActivationOp("squash", (0,), 1, "tanh")
    refuses(lone(loud, squashed, tanh, "tflm"), "'squash' .* steps of 8.0; .* below 2")

    source = Tensor("x", Signal("sequence", 3), "int8", 0.1)
    lstm = lstm_op(np.random.default_rng(0), "cell", source, replace(source, name="y"), (0, 1), -40)
    refuses(lone(source, replace(source, name="y"), lstm, "tflm"), "'cell' .* steps of 2\\*\\*-40")
    coupled = replace(lstm, cell_scale=2.0**-11, coupled=True)
    refuses(lone(source, replace(source, name="y"), coupled, "tflm"), "CIFG is not in the kernels")
    assert math.log2(lstm.cell_scale) == -40
