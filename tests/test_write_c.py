"""The C package of a model: its bytes are the NumPy runtime's, and no compiler complains."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from c_packages import STRICT, build, compile_c, gcc, gxx, program_of, run
from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Activation, Dense, Embedding, Flatten, Gate, LastStep, Lstm, Reverse
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.program import Program, Tensor
from edge_lstm.spec import Signal
from edge_lstm_converters.c_header import float_header, header
from edge_lstm_converters.c_selftest import expected_outputs
from edge_lstm_converters.c_source import CModel
from edge_lstm_converters.write_c import package_files, source, write_c

DRAW = np.random.default_rng(0)


def normal(*shape: int) -> F32:
    return DRAW.normal(size=shape).astype(np.float32)


HEAD = Dense("head", weights=normal(5, 8), bias=normal(5))
TABLE = Embedding("table", table=normal(50, 8))
TOKENS = Signal("tokens", 50)
LSTM = Lstm(
    "lstm",
    (
        Gate(normal(40, 8), normal(40, 40), normal(40)),
        Gate(normal(40, 8), normal(40, 40), normal(40)),
        Gate(normal(40, 8), normal(40, 40), normal(40)),
        Gate(normal(40, 8), normal(40, 40), normal(40)),
    ),
)
WORDS = DRAW.integers(0, 50, (40, 1)).astype(np.int32)


@pytest.fixture(scope="module")
def words() -> Program:
    """A model that embeds tokens."""
    return program_of((TABLE, HEAD), TOKENS, "edge")


@gcc
def test_embedding_and_dense_in_c_give_the_bytes_of_the_numpy_runtime(
    words: Program, tmp_path: Path
) -> None:
    y = run(build(words, tmp_path), words, WORDS)
    np.testing.assert_array_equal(y, expected_outputs(CModel(words), WORDS))


@gcc
def test_a_model_of_16_bit_inputs_runs_in_c(tmp_path: Path) -> None:
    program = program_of((HEAD,), Signal("sequence", 8), "edge", dtype="int16")
    x = DRAW.integers(-(2**15), 2**15, (20, 8)).astype(np.int16)
    y = run(build(program, tmp_path), program, x)
    np.testing.assert_array_equal(y, expected_outputs(CModel(program), x))


@gcc
def test_a_model_of_vectors_takes_one_row_after_the_other(tmp_path: Path) -> None:
    program = program_of((HEAD,), Signal("vector", 8), "edge")
    x = DRAW.integers(-128, 128, (20, 8)).astype(np.int8)
    y = run(build(program, tmp_path), program, x)
    np.testing.assert_array_equal(y, program.predict(x))


@gcc
def test_names_of_layers_and_of_the_model_never_meet(tmp_path: Path) -> None:
    layers = (
        replace(TABLE, name="int"),
        replace(HEAD, name="net"),
        Activation("net_step", "sigmoid"),
        Dense("x", weights=normal(5, 5), bias=normal(5)),
        Dense("x_weights", weights=normal(3, 5), bias=normal(3)),
    )
    program = program_of(layers, TOKENS, "edge")
    y = run(build(program, tmp_path), program, WORDS)
    np.testing.assert_array_equal(y, expected_outputs(CModel(program), WORDS))


@gxx
def test_the_package_compiles_as_cpp(words: Program, tmp_path: Path) -> None:
    source = write_c(words, tmp_path) / "src"
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-xc++", "-fsyntax-only"]
    compile_c(["g++", *flags, *map(str, source.glob("*.c")), str(source / "net_float.h")])


def test_clang_has_nothing_to_complain_of(words: Program, tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="no ziglang; pip install 'edge-lstm[firmware]'")
    source = write_c(words, tmp_path) / "src"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    for path in source.glob("*.c"):
        out = str(tmp_path / f"{path.stem}.o")
        compile_c([*zig, "-mcpu=cortex_m4", *STRICT, "-c", str(path), "-o", out])


@pytest.mark.parametrize("profile", ["edge", "tflm", "litert"])
@pytest.mark.parametrize("core", ["", "cortex-m0plus", "cortex-m4", "cortex-m55"])
def test_the_object_has_no_data_and_needs_no_library(
    core: str, profile: str, tmp_path: Path
) -> None:
    """Compilers like to make calls of memset and memcpy out of loops."""
    compiler = ["arm-none-eabi-gcc", f"-mcpu={core}", "-mthumb"] if core else ["gcc"]
    if core == "cortex-m55":
        compiler.append("-mfloat-abi=hard")
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]}; apt-get install gcc{'-arm-none-eabi' if core else ''}")
    program = program_of((TABLE, LSTM, Activation("likely", "softmax")), TOKENS, profile)
    source = write_c(program, tmp_path) / "src" / "net.c"
    for level in ("-O3", "-Os"):
        compile_c([*compiler, level, "-c", *STRICT, str(source), "-o", str(tmp_path / "net.o")])
        listing = subprocess.run(
            ["nm", str(tmp_path / "net.o")], capture_output=True, text=True, check=True
        )
        symbols = [line.split()[-2:] for line in listing.stdout.splitlines()]
        symbols.remove(["T", "net_step"])
        allowed = ("net_init", "net_reset", "net_run", "_GLOBAL_OFFSET_TABLE_")
        assert [s for s in symbols if s[0] not in "tra" and s[1] not in allowed] == []


def test_there_is_no_float_in_the_core(words: Program) -> None:
    source = package_files(words)["src/net.c"].decode()
    code = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc|free)\b|\d\.\d|#include <", code)


@gcc
def test_two_models_and_several_instances_live_in_one_program(
    words: Program, tmp_path: Path
) -> None:
    other = replace(words, name="other")
    main = tmp_path / "main.c"
    main.write_text(
        '#include "net.h"\n#include "other.h"\n'
        "int main(void)\n{\n    static net_state_t a, b;\n    static other_state_t c;\n"
        "    net_init(&b);\n"
        "    return net_selftest(&a) | other_selftest(&c) | net_selftest(&b);\n}\n"
    )
    folders = [write_c(program, tmp_path) / "src" for program in (words, other)]
    sources = [str(path) for folder in folders for path in folder.glob("*.c")]
    includes = [f"-I{folder}" for folder in folders]
    compile_c(["gcc", *STRICT, *includes, *sources, str(main), "-o", str(tmp_path / "main")])
    subprocess.run([str(tmp_path / "main")], check=True, timeout=20)


def lstm_program(profile: str) -> Program:
    """A LSTM behind whose one output many cells hide."""
    gates = [Gate(normal(12, 4), normal(12, 12), normal(12)) for _ in range(4)]
    layers = (
        Lstm("lstm", (gates[0], gates[1], gates[2], gates[3])),
        LastStep("last"),
        Dense("head", weights=normal(1, 12), bias=normal(1)),
    )
    return program_of(layers, Signal("sequence", 4), profile)


@gcc
@pytest.mark.parametrize(("profile", "field"), [("edge", "weights"), ("tflm", "input_weights")])
def test_the_selftest_finds_a_wrong_weight(profile: str, field: str, tmp_path: Path) -> None:
    program = lstm_program(profile)
    folder = write_c(program, tmp_path) / "src"
    state = ctypes.create_string_buffer(CModel(program).state_bytes + 16)
    draw = np.random.default_rng(0)
    for attempt in range(6):
        lstm = program.ops[0]
        weights = getattr(lstm, field).copy()
        weights[tuple(draw.integers(size) for size in weights.shape)] ^= 64
        wrong = {} if attempt == 0 else {field: weights}
        ops = (replace(lstm, **wrong), *program.ops[1:])
        (folder / "net.c").write_text(source(CModel(replace(program, ops=ops))))
        library = str(tmp_path / f"{attempt}.so")
        compile_c(["gcc", "-shared", "-fPIC", *map(str, folder.glob("*.c")), "-o", library])
        assert ctypes.CDLL(library).net_selftest(state) == int(attempt > 0)


@gcc
def test_a_number_of_steps_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    layers = (replace(HEAD, weights=normal(5, 3)), Flatten("flat", 4))
    program = program_of(layers, Signal("sequence", 3), "edge", time_steps=4)
    library = build(program, tmp_path)
    x = DRAW.integers(-128, 128, (4, 3)).astype(np.int8)
    np.testing.assert_array_equal(run(library, program, x), expected_outputs(CModel(program), x))
    buffers = [ctypes.create_string_buffer(1000) for _ in range(3)]
    assert library.net_run(buffers[0], buffers[1], 3, buffers[2]) == 1
    assert library.net_run(buffers[0], buffers[1], 5, buffers[2]) == 1
    assert buffers[2].raw == bytes(1000)


def test_a_whole_sequence_needs_its_greatest_length() -> None:
    layers = (HEAD, Reverse("turn"), LastStep("last"))
    program = program_of(layers, Signal("sequence", 8), "edge")
    with pytest.raises(UnsupportedModel, match="give --time-steps, the longest"):
        package_files(program)
    with pytest.raises(UnsupportedModel, match="bytes of state; want at most 268,435,456"):
        package_files(program, 2**30)
    assert package_files(program, 30)


def test_a_name_that_c_cannot_have_is_refused(words: Program) -> None:
    with pytest.raises(UsageError, match=r"'Math': Math\.h would hide another header"):
        package_files(replace(words, name="Math"))
    with pytest.raises(UsageError, match=r"'\.\./a b': must be a C identifier, such as a_b"):
        package_files(replace(words, name="../a b"))


# Floats at the ends.

VALUES = np.concatenate(
    [
        np.array([0.0, -0.0, np.inf, -np.inf, 1e30, -1e30, 1e-40], np.float32),
        np.arange(-600, 600).astype(np.float32) / 8,  # with ties, for a scale of 1/4
        np.random.default_rng(0).normal(0, 20, 4000).astype(np.float32),
    ]
)


@gcc
@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize(("scale", "zero_point"), [(0.25, 3), (0.0322150737, -29)])
def test_quantize_and_dequantize_give_the_bits_of_the_program(
    dtype: Literal["int8", "int16"], scale: float, zero_point: int, tmp_path: Path
) -> None:
    program = program_of((HEAD,), Signal("sequence", 8), "edge", dtype=dtype)
    end = Tensor("end", program.input_tensor.signal, dtype, float(np.float32(scale)), zero_point)
    model = CModel(program)
    tensors = list(model.program.tensors)
    tensors[model.program.input] = tensors[model.program.output] = end
    model.program = replace(model.program, tensors=tuple(tensors))
    source = write_c(program, tmp_path) / "src"
    (source / "net.h").write_text(header(model))
    (source / "net_float.h").write_text(float_header(model))
    (source / "ends.c").write_text(
        '#include "net_float.h"\nvoid ends(const float *x, net_input_t *q, float *y, int n);\n'
        "void ends(const float *x, net_input_t *q, float *y, int n)\n{\n"
        "    for (int k = 0; k < n; k++) {\n        q[k] = net_quantize(x[k]);\n"
        "        y[k] = net_dequantize(q[k]);\n    }\n}\n"
    )
    library = tmp_path / "ends.so"
    flags = ["-O2", "-shared", "-fPIC"]
    compile_c(["gcc", *flags, *STRICT, str(source / "ends.c"), "-o", str(library)])
    q, y = np.zeros(len(VALUES), dtype), np.zeros(len(VALUES), np.float32)
    arrays: list[Array] = [VALUES, q, y]
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
    ctypes.CDLL(str(library)).ends(*pointers, len(VALUES))
    with np.errstate(invalid="ignore"):  # inf - inf
        np.testing.assert_array_equal(q, end.quantize(VALUES))
    np.testing.assert_array_equal(y, end.dequantize(q))
