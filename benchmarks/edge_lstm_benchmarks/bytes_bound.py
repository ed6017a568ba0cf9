"""How near a compiled step is to the time that reading its weights once takes.

A step of one row must read every weight, so that no kernel with these weights can be faster. The
time is measured: a loop that sums the bytes of the weights and nothing else, compiled for this
processor, in the same place in memory at every pass. The step is called from C too.
"""

from __future__ import annotations

import ctypes
import statistics
from typing import Any

import numpy as np

from edge_lstm.cells import EdgeLstmOp
from edge_lstm.errors import MissingTool
from edge_lstm.native import NativeLibrary
from edge_lstm.program import Program
from edge_lstm_converters.native_build import build, build_library, compiler

ROUNDS = 31
SLICE_NS = 10_000_000
INPUTS = 64
SOURCE = """
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <time.h>
#define API __attribute__((visibility("default")))

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The nanoseconds of some passes over bytes; their sum keeps the compiler from leaving them out. */
API int64_t read_ns(const uint64_t *words, int64_t count, int64_t passes, uint64_t *sum)
{
    uint64_t a = 0, b = 0, c = 0, d = 0; /* no sum waits for another */
    const int64_t start = now(), part = count / 4;
    const uint64_t *second = words + part, *third = second + part, *fourth = third + part;
    for (int64_t pass = 0; pass < passes; pass++) {
        for (int64_t k = 0; k < part; k++) {
            a ^= words[k];
            b ^= second[k];
            c ^= third[k];
            d ^= fourth[k];
        }
        __asm__ volatile("" ::: "memory");
    }
    *sum += a ^ b ^ c ^ d;
    return now() - start;
}

/* The nanoseconds of some steps. */
API int64_t step_ns(int32_t (*step)(void *, const void *, void *), void *session,
    const uint8_t *x, int64_t x_bytes, int64_t inputs, int64_t steps, void *y)
{
    const int64_t start = now();
    for (int64_t k = 0; k < steps; k++) {
        step(session, x + (k % inputs) * x_bytes, y);
    }
    return now() - start;
}
"""


def bound_of(shape: str, program: Program) -> dict[str, Any]:
    """Return the bytes of the weights, and medians in microseconds, interleaved.

    Args:
        shape: for the record.
        program: of profile edge, that runs step by step.
    """
    weights = sum(op.weights.nbytes for op in program.ops if isinstance(op, EdgeLstmOp))
    try:
        compiler()
    except MissingTool as error:
        return {"shape": shape, "weight_bytes": weights, "skipped": str(error)}
    flags = ("-march=native", "-O3")
    timer = ctypes.CDLL(str(build(lambda: SOURCE, SOURCE, "bytes_bound", flags)))
    calls = NativeLibrary(build_library(program)).calls
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for function in (timer.read_ns, timer.step_ns):
        function.restype = number
    timer.read_ns.argtypes = [pointer, number, number, pointer]
    timer.step_ns.argtypes = [pointer, pointer, pointer, number, number, number, pointer]

    tensor = program.input_tensor
    draw = np.random.default_rng(0)
    x = draw.integers(-128, 128, (INPUTS, tensor.signal.size)).astype(tensor.dtype)
    y = np.empty(program.output_tensor.signal.size, program.output_tensor.dtype)
    words = draw.integers(0, 1 << 62, -(-weights // 32) * 4).astype(np.uint64)
    total = np.zeros(1, np.uint64)
    step = ctypes.cast(calls.el_step, pointer)
    session = calls.el_new(1, -1)

    def read(passes: int) -> int:
        return int(timer.read_ns(words.ctypes.data, len(words), passes, total.ctypes.data))

    def steps(count: int) -> int:
        row = tensor.signal.size * x.itemsize
        return int(timer.step_ns(step, session, x.ctypes.data, row, INPUTS, count, y.ctypes.data))

    found: dict[str, list[float]] = {"bound_us": [], "step_us": []}
    counts = {"bound_us": _enough(read), "step_us": _enough(steps)}
    for _ in range(ROUNDS):
        for key, measure in (("bound_us", read), ("step_us", steps)):
            found[key].append(measure(counts[key]) / counts[key] / 1000)
    calls.el_delete(session)
    medians = {key: statistics.median(values) for key, values in found.items()}
    return {"shape": shape, "weight_bytes": weights, **medians}


def _enough(measure: Any) -> int:
    """Return how many repetitions fill a slice."""
    count = 1
    while measure(count) < SLICE_NS:
        count *= 2
    return count
