"""Native sessions: the bytes and the contract of the NumPy runtime, whatever the processor."""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import PROFILES, Program, Tensor
from edge_lstm.arrays import Array
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Activation, Dense, Embedding, Gate, LastStep, Lstm, LstmOp
from edge_lstm.errors import MissingTool, OutputError, UnreadableModel, UsageError
from edge_lstm.native import NativeLibrary, NativeSession
from edge_lstm.program import Profile
from edge_lstm.quantize import quantize
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters import native_build
from edge_lstm_converters.host_source import host_source

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc; apt-get install gcc")
BUILD_SECONDS = 600
MODELS = int(os.environ.get("EDGE_LSTM_NATIVE", "8"))
SEED = int(os.environ.get("EDGE_LSTM_SEED", "0"))
LEVELS = (0, 1, 2)
"""Portable, AVX2, AVX-512; a processor without one takes the best that it has."""


@pytest.fixture(autouse=True, scope="module")
def own_cache(shared_cache: Path) -> Iterator[None]:
    """Build nothing twice, and nothing into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_LSTM_CACHE", str(shared_cache))
        yield


def lstm(draw: np.random.Generator, name: str, inputs: int, hidden: int, gain: float) -> Lstm:
    gates = tuple(
        Gate(
            (draw.normal(0, gain, (hidden, inputs)) / np.sqrt(hidden)).astype(np.float32),
            (draw.normal(0, gain, (hidden, hidden)) / np.sqrt(hidden)).astype(np.float32),
            draw.normal(0, 1, hidden).astype(np.float32),
        )
        for _ in range(4)
    )
    first = draw.uniform(-0.9, 0.9, (2, hidden)).astype(np.float32)
    return Lstm(name, gates, initial_hidden=first[0], initial_cell=first[1])  # type: ignore[arg-type]


def random_program(seed: int) -> Program:
    """A program of one to three layers, of any profile and size; weights up to the extremes."""
    draw = np.random.default_rng([seed, 20261123])
    profile = draw.choice(["edge", "edge", *PROFILES])
    sizes = tuple(
        int(draw.integers(1, draw.choice([12, 40, 80]))) for _ in range(draw.integers(2, 5))
    )
    head = int(draw.choice([0, 0, 1, 5]))
    dtypes = ["int8", "int8", "tokens"] + ["int16"] * (profile in ("edge", "tflm", "cmsis-nn"))
    dtype = str(draw.choice(dtypes))
    last = bool(draw.integers(2))
    return program_of(seed, sizes, head, dtype, last=last, profile=str(profile))


def program_of(
    seed: int,
    sizes: tuple[int, ...],
    head: int = 0,
    dtype: str = "int8",
    *,
    last: bool = False,
    profile: str = "edge",
) -> Program:
    """A stack of random LSTMs, from the first size through the others."""
    draw = np.random.default_rng(seed)
    layers: list[Layer] = []
    if dtype == "tokens":
        layers.append(Embedding("table", draw.normal(size=(30, sizes[0])).astype(np.float32)))
    for number, (inputs, hidden) in enumerate(pairwise(sizes)):
        layers.append(lstm(draw, f"lstm_{number}", inputs, hidden, draw.choice([0.5, 2.0, 8.0])))
    if last:
        layers.append(LastStep("last"))
    if head:
        weights = draw.normal(size=(head, sizes[-1])).astype(np.float32)
        layers.append(Dense("head", weights, np.zeros(head, np.float32)))
        layers.append(Activation("squash", "sigmoid"))
    signal = Signal("tokens", 30) if dtype == "tokens" else Signal("sequence", sizes[0])
    spec = ModelSpec("net", signal, tuple(layers))
    ranges = calibrate(spec, inputs_of(draw, spec.input, None, 6, 30))
    return quantize(spec, ranges, profile, "int16" if dtype == "int16" else "int8")


def inputs_of(
    draw: np.random.Generator, signal: Signal, dtype: str | None, rows: int, steps: int
) -> Array:
    if signal.kind == "tokens":
        return draw.integers(0, signal.size, (rows, steps)).astype(np.int32)
    shape = (rows, steps, signal.size)
    if dtype is None:
        return draw.normal(size=shape).astype(np.float32)
    limits = np.iinfo(dtype)
    values = draw.integers(limits.min, limits.max + 1, shape)
    values[:, :1], values[:, -1:] = limits.min, limits.max
    return values.astype(dtype)


CASES = {
    "one": program_of(1, (8, 16)),
    "odd sizes": program_of(2, (7, 33)),
    "one unit": program_of(3, (1, 1)),
    "wider than a block": program_of(4, (40, 70)),
    "stack": program_of(5, (9, 20, 31, 5)),
    "head of the last step": program_of(6, (5, 18), 3, last=True),
    "head of every step": program_of(7, (5, 18, 12), 4),
    "16-bit input": program_of(8, (6, 21, 16), 2, "int16", last=True),
    "tokens": program_of(9, (12, 17), 2, "tokens", last=True),
    "tflm": program_of(10, (9, 20, 17), 3, last=True, profile="tflm"),
    "cmsis-nn": program_of(11, (5, 33), profile="cmsis-nn"),
    "litert": program_of(12, (9, 20, 17), 3, last=True, profile="litert"),
    "tflite-runtime": program_of(13, (12, 40), profile="tflite-runtime"),
    "16-bit activations": program_of(14, (6, 10), 2, "int16", profile="tflm"),
}


@pytest.mark.parametrize("number", range(MODELS))
def test_random_programs_give_the_bytes_of_the_numpy_runtime(number: int) -> None:
    program = random_program(SEED + number)
    draw = np.random.default_rng(SEED + number)
    signal, dtype = program.input_tensor.signal, program.input_tensor.dtype
    for rows, steps in ((1, 40), (int(draw.integers(2, 10)), int(draw.integers(1, 36)))):
        x = inputs_of(draw, signal, dtype, rows, steps)
        want = program.predict(x)
        for level in LEVELS:
            session = program.compile(rows, level=level)
            np.testing.assert_array_equal(session.run(x), want, err_msg=f"level {level}")
            session.reset()
            for t in range(steps):
                y = session.step(x[:, t])
            end = want if program.output_tensor.signal.kind != "sequence" else want[:, -1]
            np.testing.assert_array_equal(y, end, err_msg=f"level {level}, step by step")


@pytest.mark.parametrize("name", CASES)
def test_every_kernel_gives_the_bytes_of_the_numpy_runtime(name: str) -> None:
    program = CASES[name]
    draw = np.random.default_rng(0)
    signal, dtype = program.input_tensor.signal, program.input_tensor.dtype
    for rows, steps in ((1, 1), (1, 3), (1, 16), (1, 50), (3, 20), (4, 20), (9, 17), (33, 5)):
        x = inputs_of(draw, signal, dtype, rows, steps)
        want = program.predict(x)
        for level in LEVELS:
            session = program.compile(rows, level=level)
            np.testing.assert_array_equal(session.run(x), want, err_msg=f"level {level}")


@pytest.mark.parametrize("clip", [0.0, 0.6])
@pytest.mark.parametrize("profile", PROFILES)
def test_extreme_lstms_keep_their_bytes_in_every_profile(profile: Profile, clip: float) -> None:
    """Weights at both ends, saturated states, cells of every scale that TFLite takes."""
    seed = PROFILES.index(profile) + (100 if clip else 0)
    op = extreme_lstm(seed, clip)
    signal = Signal("sequence", op.input_size)
    tensors = (
        Tensor("x", signal, "int8", 2.0**-5, 17),
        Tensor("h", Signal("sequence", op.output_size), "int8", op.hidden_scale, -3),
    )
    program = Program("net", "tflm", tensors, (op,), 0, 1).with_profile(profile)
    x = inputs_of(np.random.default_rng(seed), signal, "int8", 5, 40)
    want = program.predict(x)
    assert len(np.unique(want)) > 20  # not all of it is saturated
    for level in LEVELS:
        got = program.compile(5, level=level).run(x)
        np.testing.assert_array_equal(got, want, err_msg=f"level {level}")


def extreme_lstm(seed: int, clip: float) -> LstmOp:
    draw = np.random.default_rng(seed)
    inputs, hidden = int(draw.integers(1, 20)), int(draw.integers(1, 40))
    weights = draw.choice([-127, 127, -5, 3, 0], (4, hidden, inputs + hidden)).astype(np.int8)
    scale = 2.0 ** -int(draw.integers(9, 16))
    return LstmOp(
        name="lstm",
        inputs=(0,),
        output=1,
        input_weights=weights[:, :, :inputs],
        recurrent_weights=weights[:, :, inputs:],
        bias=draw.integers(-60000, 60000, (4, hidden)).astype(np.int32),
        input_weight_scales=draw.choice([0.0007, 0.003, 0.02], 4).astype(np.float32),
        recurrent_weight_scales=draw.choice([0.0007, 0.003, 0.02], 4).astype(np.float32),
        hidden_scale=float(np.float32(0.0071)),
        hidden_zero_point=-3,
        product_scale=float(np.float32(0.0071)),
        product_zero_point=-3,
        cell_scale=scale,
        cell_clip=clip,
        initial_hidden=draw.integers(-128, 128, hidden).astype(np.int8),
        initial_cell=draw.integers(-32768, 32768, hidden).astype(np.int16),
    )


@pytest.mark.parametrize("name", CASES)
def test_steps_runs_and_states_agree_with_the_numpy_session(name: str) -> None:
    program = CASES[name]
    draw = np.random.default_rng(1)
    signal, dtype = program.input_tensor.signal, program.input_tensor.dtype
    x = inputs_of(draw, signal, dtype, 2, 40)
    for level in LEVELS:
        native, numpy = program.compile(2, level=level), program.session(2)
        for step in range(12):
            np.testing.assert_array_equal(native.step(x[:, step]), numpy.step(x[:, step]))
        np.testing.assert_array_equal(native.run(x[:, 12:25]), numpy.run(x[:, 12:25]))
        kept = native.state
        first = native.run(x[:, 25:])
        native.state = kept
        np.testing.assert_array_equal(native.run(x[:, 25:]), first)
        native.reset()
        np.testing.assert_array_equal(native.run(x), program.predict(x))


def test_a_state_moves_between_the_runtimes() -> None:
    program = CASES["stack"]
    x = inputs_of(np.random.default_rng(2), program.input_tensor.signal, "int8", 3, 30)
    native, numpy = program.compile(3), program.session(3)
    native.run(x[:, :11])
    numpy.state = native.state
    np.testing.assert_array_equal(numpy.run(x[:, 11:20]), native.run(x[:, 11:20]))
    native.state = numpy.state
    np.testing.assert_array_equal(numpy.run(x[:, 20:]), native.run(x[:, 20:]))


@pytest.mark.parametrize("name", ["head of every step", "head of the last step", "tokens"])
def test_lengths_mean_what_they_mean_in_numpy(name: str) -> None:
    program = CASES[name]
    tensor = program.input_tensor
    x = inputs_of(np.random.default_rng(3), tensor.signal, tensor.dtype, 5, 30)
    lengths = np.array([30, 1, 7, 7, 29])
    got = program.compile(5).run(x, lengths)
    np.testing.assert_array_equal(got, program.predict(x, lengths))


def test_floats_go_in_and_come_out_as_with_numpy() -> None:
    program = CASES["head of the last step"]
    x = inputs_of(np.random.default_rng(4), program.input_tensor.signal, None, 2, 9)
    native, numpy = program.compile(2), program.session(2)
    assert native.run(x).dtype == np.float32
    native.reset()
    np.testing.assert_array_equal(native.run(x), numpy.run(x))
    np.testing.assert_array_equal(native.step(x[:, 0]), numpy.step(x[:, 0]))


def test_results_that_are_kept_do_not_change() -> None:
    program = CASES["one"]
    x = inputs_of(np.random.default_rng(5), program.input_tensor.signal, "int8", 1, 20)
    session, numpy = program.compile(), program.session()
    kept = [session.step(x[:, t]) for t in range(20)]
    views = [y[0, :4] for y in kept]
    again = [numpy.step(x[:, t]) for t in range(20)]
    np.testing.assert_array_equal(kept, again)
    del kept
    for t in range(20):
        session.step(x[:, t])
    np.testing.assert_array_equal(views, [y[0, :4] for y in again])


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 7), np.int8),
        np.zeros((2, 8), np.int8),
        np.zeros(8, np.int8),
        np.zeros((1, 8), np.uint8),
        np.zeros((1, 4), np.int16),
        np.full((1, 8), np.nan, np.float32),
    ],
    ids=str,
)
def test_a_wrong_input_is_refused_and_moves_no_state(x: Array) -> None:
    session = CASES["one"].compile()
    before = session.state
    with pytest.raises(UsageError):
        session.step(x)
    for name, value in session.state.items():
        np.testing.assert_array_equal(value, before[name])


def test_a_step_takes_any_memory_order() -> None:
    program = CASES["one"]
    x = inputs_of(np.random.default_rng(6), program.input_tensor.signal, "int8", 3, 16)
    native, numpy = program.compile(3), program.session(3)
    apart = np.asfortranarray(x[:, 0])
    np.testing.assert_array_equal(native.step(apart), numpy.step(apart))
    np.testing.assert_array_equal(native.run(x[:, ::2]), numpy.run(x[:, ::2]))


def test_tokens_outside_the_table_are_refused() -> None:
    session = CASES["tokens"].compile()
    with pytest.raises(UsageError, match="0 to 29"):
        session.step(np.array([30], np.int32))


def test_a_session_that_nobody_holds_is_freed() -> None:
    session = CASES["one"].compile()
    session.step(np.zeros((1, 8), np.int8))
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("door", ["el_call", "ctypes"])
def test_a_step_holds_its_session(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if door == "ctypes":
        monkeypatch.setattr(native_build, "build_call_module", lambda: None)
    program = CASES["one"]
    x = inputs_of(np.random.default_rng(6), program.input_tensor.signal, "int8", 1, 3)
    step, numpy = program.compile().step, program.session()
    gc.collect()
    others = [program.compile() for _ in range(3)]  # take the memory if it is free
    for t in range(3):
        np.testing.assert_array_equal(step(x[:, t]), numpy.step(x[:, t]))
    real = x[:, 0].astype(np.float32)
    np.testing.assert_array_equal(step(real), numpy.step(real))
    assert len(others) == 3


def test_streams_on_threads_do_not_disturb_each_other() -> None:
    program = CASES["wider than a block"]
    x = inputs_of(np.random.default_rng(7), program.input_tensor.signal, "int8", 1, 400)
    want = program.predict(x)
    found: list[bool] = []

    def work() -> None:
        session = program.compile()
        found.append(bool((session.run(x) == want).all()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def _build_in_a_process(cache: str, gate: object) -> str:
    import os

    os.environ["EDGE_LSTM_CACHE"] = cache
    gate.wait(30)  # type: ignore[attr-defined]
    return str(native_build.build_library(CASES["one"]))


def test_two_processes_that_build_at_once_both_get_a_whole_library(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(2) as pool:
        gate = manager.Barrier(2)
        jobs = [pool.apply_async(_build_in_a_process, (str(tmp_path), gate)) for _ in range(2)]
        paths = [job.get(120) for job in jobs]
    assert paths[0] == paths[1]
    NativeSession(CASES["one"], NativeLibrary(paths[0]))
    assert [path.name for path in Path(paths[0]).parent.iterdir()] == [
        "net" + Path(paths[0]).suffix
    ]


def test_a_built_library_is_used_again_and_needs_no_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = CASES["one"]
    library = native_build.build_library(program)
    stamp = library.stat().st_mtime_ns
    assert native_build.build_library(program) == library
    assert library.stat().st_mtime_ns == stamp
    monkeypatch.setattr(native_build, "compiler", lambda: pytest.fail("asked for a compiler"))
    x = inputs_of(np.random.default_rng(8), program.input_tensor.signal, "int8", 1, 5)
    session = program.compile(library=library)
    np.testing.assert_array_equal(session.run(x), program.predict(x))
    np.testing.assert_array_equal(session.step(x[:, 0]).shape, (1, 16))


def test_a_library_of_another_program_is_refused() -> None:
    library = native_build.build_library(CASES["one"])
    with pytest.raises(UsageError, match="another program"):
        CASES["odd sizes"].compile(library=library)


@pytest.mark.parametrize("content", [b"", b"not a library", b"\x7fELF" + bytes(100)])
def test_what_is_no_library_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.so"
    path.write_bytes(content)
    with pytest.raises(UnreadableModel, match=r"no library of edge-lstm"):
        NativeLibrary(path)


def test_without_a_compiler_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native_build.compiler.cache_clear()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingTool, match="install gcc or clang"):
        CASES["one"].compile()
    native_build.compiler.cache_clear()


@pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None,
    reason="no zig; pip install 'edge-lstm[firmware]'",
)
def test_zig_builds_where_there_is_no_other_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    native_build.compiler.cache_clear()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    program = CASES["one unit"]
    x = inputs_of(np.random.default_rng(13), program.input_tensor.signal, "int8", 2, 9)
    try:
        assert native_build.compiler()[1:] == ("-m", "ziglang", "cc")
        np.testing.assert_array_equal(program.compile(2).run(x), program.predict(x))
    finally:
        native_build.compiler.cache_clear()


def test_a_compiler_that_is_named_and_not_there_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    native_build.compiler.cache_clear()
    monkeypatch.setenv("CC", "/no/cc -O1")
    with pytest.raises(MissingTool, match="CC names /no/cc, which is not there"):
        CASES["one"].compile()
    native_build.compiler.cache_clear()


def test_a_compiler_that_fails_is_quoted_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"cannot compile it: .*error") as caught:
        native_build.build(lambda: "int main( {", "", "broken")
    assert "\n" not in str(caught.value)


def test_without_the_extension_module_ctypes_is_the_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native_build, "build_call_module", lambda: None)
    program = CASES["one"]
    session, numpy = program.compile(), program.session()
    x = inputs_of(np.random.default_rng(9), program.input_tensor.signal, "int8", 1, 4)
    for t in range(4):
        np.testing.assert_array_equal(session.step(x[:, t]), numpy.step(x[:, t]))


def main_program(program: Program, x: Array, folder: Path, levels: int) -> Path:
    """Write C that runs ``x`` at every level and prints the outputs; return its path."""
    (folder / "x.bin").write_bytes(x.tobytes())
    rows, steps = x.shape[:2]
    main = f"""
#include <stdio.h>
int main(void)
{{
    static unsigned char x[{x.nbytes}], y[{program.predict(x).nbytes}];
    FILE *file = fopen("{folder / "x.bin"}", "rb");
    if (fread(x, 1, sizeof x, file) != sizeof x) return 1;
    fclose(file);
    for (int level = 0; level < {levels}; level++) {{
        void *session = el_new({rows}, level);
        for (int t = 0; t < {steps}; t++) if (el_step(session, x, y)) return 1;
        el_reset(session);
        if (el_run(session, x, {steps}, y)) return 1;
        el_delete(session);
        fwrite(y, 1, sizeof y, stdout);
    }}
    fprintf(stderr, "%d", el_level());
    return el_level() > {levels - 1};
}}
"""
    source = folder / "main.c"
    source.write_text(host_source(program) + main)
    return source


@pytest.mark.skipif(sys.platform != "linux", reason="sanitizers are linked as on Linux")
@pytest.mark.parametrize("name", ["16-bit input", "tflm"])
def test_the_sanitizers_find_nothing_in_any_kernel(name: str, tmp_path: Path) -> None:
    program = CASES[name]
    tensor = program.input_tensor
    x = inputs_of(np.random.default_rng(10), tensor.signal, tensor.dtype, 6, 21)
    source, built = main_program(program, x, tmp_path, 3), tmp_path / "main"
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["gcc", "-std=gnu99", *flags, str(source), "-o", str(built)]
    subprocess.run(command, check=True, timeout=BUILD_SECONDS)
    done = subprocess.run([str(built)], capture_output=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    assert done.stdout == program.predict(x).tobytes() * 3


@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizer is linked as on Linux")
def test_sessions_of_several_threads_share_nothing_that_is_written(tmp_path: Path) -> None:
    program = CASES["stack"]
    x = inputs_of(np.random.default_rng(12), program.input_tensor.signal, "int8", 1, 30)
    want = program.predict(x)
    (tmp_path / "x.bin").write_bytes(x.tobytes())
    main = f"""
#include <pthread.h>
#include <stdio.h>
static unsigned char x[{x.nbytes}], y[4][{want.nbytes}];
static void *work(void *number)
{{
    void *session = el_new(1, -1);
    el_run(session, x, 30, y[(long)number]);
    el_delete(session);
    return NULL;
}}
int main(void)
{{
    pthread_t threads[4];
    FILE *file = fopen("{tmp_path / "x.bin"}", "rb");
    if (fread(x, 1, sizeof x, file) != sizeof x) return 1;
    fclose(file);
    for (long n = 0; n < 4; n++) pthread_create(threads + n, NULL, work, (void *)n);
    for (long n = 0; n < 4; n++) pthread_join(threads[n], NULL);
    return fwrite(y, 1, sizeof y, stdout) != sizeof y;
}}
"""
    source, built = tmp_path / "main.c", tmp_path / "main"
    source.write_text(host_source(program) + main)
    command = ["gcc", "-std=gnu99", "-O1", "-fsanitize=thread", str(source), "-o", str(built)]
    subprocess.run([*command, "-pthread"], check=True, timeout=BUILD_SECONDS)
    done = subprocess.run([str(built)], capture_output=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    assert done.stdout == want.tobytes() * 4


ARM_COMPILERS = {
    "zig": [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl"],
    "gcc": ["aarch64-linux-gnu-gcc"],
}


@pytest.mark.skipif(
    shutil.which("qemu-aarch64-static") is None,
    reason="no emulator of 64-bit Arm; apt-get install qemu-user-static",
)
@pytest.mark.parametrize("compiler", ARM_COMPILERS)
@pytest.mark.parametrize("name", ["16-bit input", "litert"])
def test_arm_gives_the_same_bytes_with_and_without_dot_products(
    name: str, compiler: str, tmp_path: Path
) -> None:
    if compiler == "zig" and importlib.util.find_spec("ziglang") is None:
        pytest.skip("no cross-compiler; pip install 'edge-lstm[firmware]'")
    if compiler == "gcc" and shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no cross-compiler; apt-get install gcc-aarch64-linux-gnu")
    program = CASES[name]
    tensor = program.input_tensor
    x = inputs_of(np.random.default_rng(11), tensor.signal, tensor.dtype, 3, 21)
    source, built = main_program(program, x, tmp_path, 3), tmp_path / "main"
    flags = ["-static", "-std=gnu99", "-O2"]
    command = [*ARM_COMPILERS[compiler], *flags, str(source), "-o", str(built)]
    subprocess.run(command, check=True, timeout=BUILD_SECONDS)
    levels = {
        "max,sve256=on": 2,
        "max,sve384=on": 2,
        "max,sve128=on,sve256=off": 1,
        "max,sve=off": 1,
        "cortex-a53": 0,  # the last has no dot products either
    }
    for cpu, level in levels.items():
        emulated = ["qemu-aarch64-static", "-cpu", cpu, str(built)]
        done = subprocess.run(emulated, capture_output=True, timeout=BUILD_SECONDS)
        assert done.returncode == 0, done.stderr.decode()[:2000]
        assert int(done.stderr) == level, cpu
        assert done.stdout == program.predict(x).tobytes() * 3
