"""Every row of BACKENDS, on the same models: integers equal their profile's, floats the meaning."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.arrays import F32, Array
from edge_lstm.backend import Backend, BenchModel, CallShape, CountingSession, bench_model
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import (
    Activation,
    Dense,
    DenseOp,
    Embedding,
    Flatten,
    Gate,
    LastStep,
    Layer,
    Lstm,
)
from edge_lstm.errors import EdgeLstmError
from edge_lstm.program import EDGE, Program
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_benchmarks import BACKENDS, open_backend
from edge_lstm_benchmarks.backends import tflite_runtime, tflm, torch
from edge_lstm_benchmarks.backends.onnx_graph import graph_bytes, parse_graph
from edge_lstm_benchmarks.backends.onnxruntime import CPU, nodes_of, placement
from edge_lstm_benchmarks.remote import Worker, WorkerFailed, WorkerSession, load_session
from edge_lstm_benchmarks.verify_runners import COMPILED, READS_TFLITE, interpreter_names

TIME_STEPS = 5
ROWS = 3
# Float32 sums of some tens of products of values below 1, in another order and through five
# recurrent steps; approximate tanh in onnxruntime and LiteRT is good to a few 1e-7.
FLOAT_TOLERANCE = 1e-5
# Of the largest output. A weight in int8 is off by at most 1/254 of its tensor's largest, and what
# it multiplies by 1/254 to 1/508 of the largest there: 0.8 % where all errors point the same way,
# and five recurrent steps and a head add some up. bfloat16 has 8 bits, so 1/512 for each rounding.
COARSE = {"dynamic-int8": 0.03, "bfloat16": 0.01}


class Sample(NamedTuple):
    model: BenchModel
    x: Array  # float or tokens
    int_x: Array


def _lstm(rng: np.random.Generator, name: str, features: int, size: int, *, first: bool) -> Lstm:
    def values(*shape: int) -> F32:
        return rng.normal(0, 0.6, shape).astype(np.float32)

    gates = [Gate(values(size, features), values(size, size), values(size)) for _ in range(4)]
    start = (values(size), values(size)) if first else (None, None)
    return Lstm(name, (gates[0], gates[1], gates[2], gates[3]), *start)


@cache
def sample(kind: str) -> Sample:
    rng = np.random.default_rng(len(kind))
    dense = Dense(
        "head",
        rng.normal(0, 0.5, (3, 20 if kind == "flatten" else 4)).astype(np.float32),
        rng.normal(0, 0.5, 3).astype(np.float32),
    )
    wide = Dense(
        "head",
        rng.normal(0, 2, (40, 4)).astype(np.float32),
        rng.normal(0, 1, 40).astype(np.float32),
    )
    layers: dict[str, list[Layer]] = {
        "last": [_lstm(rng, "a", 6, 4, first=False), LastStep("last"), dense],
        "sequence": [_lstm(rng, "a", 6, 4, first=False), dense, Activation("act", "sigmoid")],
        "stacked": [
            _lstm(rng, "a", 6, 7, first=False),
            _lstm(rng, "b", 7, 4, first=False),
            LastStep("last"),
            dense,
            Activation("act", "softmax"),
        ],
        "tokens": [
            Embedding("table", rng.normal(size=(9, 6)).astype(np.float32)),
            _lstm(rng, "a", 6, 4, first=False),
            dense,
        ],
        "flatten": [_lstm(rng, "a", 6, 4, first=False), Flatten("flat", TIME_STEPS), dense],
        "wide": [_lstm(rng, "a", 6, 4, first=False), wide],
        "ties": [_lstm(rng, "a", 6, 4, first=False), wide],
        "initial": [_lstm(rng, "a", 6, 4, first=True), LastStep("last"), dense],
    }
    signal = Signal("tokens", 9) if kind == "tokens" else Signal("sequence", 6)
    steps = TIME_STEPS if kind == "flatten" else None
    spec = ModelSpec(kind, signal, tuple(layers[kind]), steps)
    x: Array
    if kind == "tokens":
        x = rng.integers(0, 9, (30, TIME_STEPS)).astype(np.int32)
    else:
        x = rng.normal(size=(30, TIME_STEPS, 6)).astype(np.float32)
    model = bench_model(kind, spec, calibrate(spec, x))
    if kind == "ties":
        assert model.program is not None
        model = BenchModel(kind, None, with_ties(model.program))
    assert model.program is not None
    tensor = model.program.input_tensor
    int_x = tensor.quantize(x[:ROWS]) if tensor.is_quantized else x[:ROWS]
    return Sample(model, x[:ROWS], int_x)


def with_ties(program: Program) -> Program:
    """Return integers whose head multiplies by 2**-3, so that one sum in 8 ends in a half."""
    lstm, head = program.ops
    assert isinstance(head, DenseOp)
    head = replace(
        head,
        weights=(head.weights // 32).astype(np.int8),
        bias=np.zeros_like(head.bias),
        weight_scales=np.array([2.0**-3], np.float32),
    )
    tensors = list(program.tensors)
    scale = tensors[head.inputs[0]].scale
    tensors[head.output] = replace(tensors[head.output], scale=scale, zero_point=0)
    return replace(program, ops=(lstm, head), tensors=tuple(tensors))


KINDS = ("last", "sequence", "stacked", "tokens", "flatten", "initial", "wide", "ties")
# tests/test_native.py has the others, and compiles less often.
FEW_KINDS: dict[str, tuple[str, ...]] = {
    "c-host:edge": ("last", "stacked"),
    "c-host:tflm": ("last", "ties"),
    "c-host:litert": ("last", "wide"),
    **dict.fromkeys(("torch-compiled", "torch-cuda-compiled"), ("last",)),  # seconds for each
    # As onnxruntime, on another part of a machine that few have.
    **{name: ("stacked", "tokens") for name in BACKENDS if name.startswith("onnxruntime:")},
    "torch-cuda": ("stacked", "tokens"),
    # tests/test_firmware_machine.py runs every core; here one of each emulator.
    **{name: () for name in BACKENDS if name.startswith("emulated:")},
    **dict.fromkeys(("emulated:cortex-m4", "emulated:cortex-m55"), ("last",)),
}
ESTIMATES = [name for name in BACKENDS if hasattr(open_backend(name), "estimates")]
RUNS = [name for name in BACKENDS if name not in ESTIMATES]
# Integers chosen for their ties have no float model, and with it no form in profile edge.
CASES = [
    (name, kind)
    for name in RUNS
    for kind in FEW_KINDS.get(name, KINDS)
    if kind != "ties"
    or (open_backend(name).precision == "int8" and open_backend(name).profile != EDGE)
]
NO_INITIAL_STATE = ("litert", "litert-ref", "litert-float", "tflm", "tflite-runtime")
"""Backends whose file starts its state at zero; ``build`` must refuse another start."""
JOINS_STEPS = ("numpy-float", "torch", "torch-compiled", "torch-dynamic-int8", "torch-cuda")
"""Backends that multiply the inputs of all steps of a call at once."""


def usable(name: str) -> Backend:
    backend = open_backend(name)
    reason = backend.available()
    if reason is not None:
        pytest.skip(reason)
    return backend


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Worker]]:
    """One process for each backend, for all tests here."""
    started: dict[str, Worker] = {}
    yield started
    for worker in started.values():
        worker.release()
    for worker in started.values():
        worker.close()


def session(
    workers: dict[str, Worker],
    backend: Backend,
    model: BenchModel,
    batch_size: int,
    time_steps: int,
) -> WorkerSession:
    if backend.name not in workers:
        workers[backend.name] = Worker(backend.name, backend, None, 60.0)
    shape = CallShape(batch_size, time_steps, model.output.kind == "sequence")
    return load_session(workers[backend.name], backend, model, shape, "it")[0]


def feed(backend: Backend, case: Sample) -> Array:
    return case.int_x if backend.precision == "int8" else case.x


def check(backend: Backend, case: Sample, got: Array) -> None:
    """Integers must be the profile's, every one; floats must be near the meaning."""
    if backend.precision == "int8":
        assert backend.profile is not None
        want = case.model.integers(backend.profile).predict(case.int_x)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    else:
        assert case.model.spec is not None
        want = float_reference.run(case.model.spec, case.x)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(backend, want))


def tolerance(backend: Backend, want: Array) -> float:
    """Return how far outputs may be off."""
    if backend.precision in COARSE:
        return COARSE[backend.precision] * float(np.abs(want).max())
    return FLOAT_TOLERANCE


def skip_or_expect_refusal(backend: Backend, case: Sample, time_steps: int) -> bool:
    """Return whether the backend must refuse this model; check that it does, in one line."""
    if case.model.name != "initial" or backend.name not in NO_INITIAL_STATE:
        return False
    with pytest.raises(EdgeLstmError, match="initial"):
        backend.build(case.model, CallShape(1, time_steps, False))
    return True


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_whole_sequences_of_a_batch(workers: dict[str, Worker], name: str, kind: str) -> None:
    backend, case = usable(name), sample(kind)
    if skip_or_expect_refusal(backend, case, TIME_STEPS):
        return
    runner = session(workers, backend, case.model, ROWS, TIME_STEPS)
    for _ in range(2):  # the second time from a state that was moved and reset
        runner.reset()
        check(backend, case, runner.run(feed(backend, case)))


STEPWISE = [
    (name, kind) for name, kind in CASES if kind != "flatten" and not name.startswith("emulated:")
]


@pytest.mark.parametrize(("name", "kind"), STEPWISE)
def test_step_by_step_row_by_row(workers: dict[str, Worker], name: str, kind: str) -> None:
    backend, case = usable(name), sample(kind)
    if skip_or_expect_refusal(backend, case, 1):
        return
    x = feed(backend, case)
    outputs = []
    runner = session(workers, backend, case.model, 1, 1)
    for row in range(ROWS):
        runner.reset()
        steps = [runner.step(x[row : row + 1, t]) for t in range(TIME_STEPS)]
        whole = np.stack(steps, axis=1) if case.model.output.kind == "sequence" else steps[-1]
        runner.reset()
        again = runner.run(x[row : row + 1])
        if name in JOINS_STEPS:
            # A product for all steps at once sums in another order than one for each; and where
            # a call finds its own scale, in another scale.
            np.testing.assert_allclose(again, whole, rtol=0, atol=tolerance(backend, whole))
        else:
            np.testing.assert_array_equal(again, whole)
        outputs.append(whole)
    check(backend, case, np.concatenate(outputs))


def test_the_samples_tell_the_profiles_apart() -> None:
    # Without this, a backend that ran the kernels of another profile would not be seen. The two
    # vintages of tflm differ on chosen weights only; golden vectors hold those.
    outputs = {}
    for profile in ("tflm", "litert", "litert-ref", "tflite-runtime"):
        outputs[profile] = b""
        for kind in ("wide", "ties"):
            program = sample(kind).model.program
            assert program is not None
            y = program.with_profile(profile).predict(sample(kind).int_x)
            outputs[profile] += y.tobytes()
    assert len(set(outputs.values())) == len(outputs)


@pytest.mark.parametrize("name", RUNS)
def test_a_batch_of_another_size_is_refused(workers: dict[str, Worker], name: str) -> None:
    backend, case = usable(name), sample("last")
    runner = session(workers, backend, case.model, ROWS, 1)
    with pytest.raises(WorkerFailed):
        runner.run(feed(backend, case)[:2])


@pytest.mark.parametrize("name", RUNS)
def test_every_backend_says_its_version_and_what_it_is(
    workers: dict[str, Worker], name: str
) -> None:
    backend = usable(name)
    assert backend.name == name
    assert (backend.profile is None) == (backend.precision != "int8")
    model, shape = sample("last").model, CallShape(1, 1, False)
    session(workers, backend, model, 1, 1)
    _, version, size = load_session(workers[name], backend, model, shape, "it")
    assert version[0].isdigit()
    assert size > 100


@pytest.mark.parametrize("name", [n for n in BACKENDS if open_backend(n).precision in COARSE])
def test_what_is_said_to_be_coarse_is(workers: dict[str, Worker], name: str) -> None:
    # A backend that ran floats after all would be within FLOAT_TOLERANCE.
    backend, case = usable(name), sample("wide")
    assert case.model.spec is not None
    runner = session(workers, backend, case.model, ROWS, TIME_STEPS)
    runner.reset()
    want = float_reference.run(case.model.spec, case.x)
    assert np.abs(runner.run(case.x) - want).max() > 100 * FLOAT_TOLERANCE


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_is_labelled_and_not_below_what_the_multipliers_allow(name: str) -> None:
    backend, model = usable(name), sample("last").model
    steps = TIME_STEPS if name.endswith(":unrolled") else 1
    shape = CallShape(1, steps, False)
    estimate = backend.load(backend.build(model, shape), shape)
    assert isinstance(estimate, CountingSession)
    counted = estimate.counted()
    assert counted.how == (
        f"estimated by Vela {backend.version()}, {steps} step{'s' * (steps > 1)} a call"
    )
    # Products of a step of 6 inputs and 4 units; the name ends in how many a cycle can do.
    macs = 4 * 4 * (6 + 4)
    assert counted.per_step > macs / int(name.partition(":")[0].rpartition("-")[2])
    assert counted.unit == "cycles"
    assert model.program is not None
    assert counted.flash_bytes is not None
    assert counted.flash_bytes > model.program.weight_bytes()
    with pytest.raises(EdgeLstmError, match="runs nothing"):
        estimate.outputs(sample("last").int_x)


def test_verify_asks_interpreters_and_neither_emulators_nor_estimates() -> None:
    assert set(interpreter_names(None)) == {*READS_TFLITE, COMPILED}


PROVIDERS = [name for name in BACKENDS if name.startswith("onnxruntime:")]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_that_the_build_lacks_is_told_with_the_way_to_get_it(name: str) -> None:
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime not found: pip install 'edge-lstm[tools]'"
    )
    reason = open_backend(name).available()
    if reason is None:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} has {name}")
    assert f"is not in the installed onnxruntime {onnxruntime.__version__}; " in reason
    assert "install" in reason


def test_nodes_that_fell_back_to_the_cpu_are_told() -> None:
    cpu = "CPUExecutionProvider"
    assert placement({"X": ["X_0"]}, "X") == ("X: 1 X_0", None)
    assert placement({"X": ["MatMul", "MatMul"], cpu: ["LSTM", "Add"]}, "X") == (
        "X: 2 MatMul; CPUExecutionProvider: 1 LSTM, 1 Add",
        "LSTM fell back to CPUExecutionProvider",
    )
    assert placement({cpu: ["LSTM"]}, "X")[1] == (
        "every node fell back to CPUExecutionProvider: these are its figures"
    )


def test_the_profile_names_the_provider_of_each_node() -> None:
    pytest.importorskip(
        "onnxruntime", reason="onnxruntime not found: pip install 'edge-lstm[tools]'"
    )
    for steps in (1, TIME_STEPS):
        shape = CallShape(ROWS, steps, False)
        graph = parse_graph(graph_bytes(sample("stacked").model, shape))
        assert nodes_of(graph, None, shape)[CPU].count("LSTM") == 2


def test_cuda_rows_say_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch not found: pip install torch")
    monkeypatch.setattr(torch, "CUDA_LIBRARIES", ("libnone.so",))
    for name in ("torch-cuda", "torch-cuda-compiled"):
        assert open_backend(name).available() == (
            f"{name}: no NVIDIA GPU found; with one, pip install torch built for CUDA"
        )


def test_the_date_of_the_tflm_wheel_decides_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = tflm.Tflm("tflm")
    monkeypatch.setattr(tflm.Tflm, "available", lambda self: None)
    for version, profile in {
        "0.dev20260820164721": "tflm-2026-08",
        "0.dev20261013214359": "tflm-2026-08",
        "0.dev20261013214400": "tflm",
        "0.dev20261023182759": "tflm",
        "1.0.0": "tflm",
    }.items():
        monkeypatch.setattr(tflm.Tflm, "version", lambda self, version=version: version)
        assert backend.profile == profile, version


def test_tflite_runtime_says_how_to_install_it_and_which_python_it_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    backend = tflite_runtime.TfliteRuntime("tflite-runtime")
    monkeypatch.setenv(tflite_runtime.PYTHON_VARIABLE, f"{tmp_path}/python")
    reason = backend.available()
    assert reason is not None
    assert f"{tmp_path}/python is not a file" in reason
    assert "pip install tflite-runtime==2.14.0 'numpy<2'" in reason


def test_a_python_without_tflite_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    if importlib.util.find_spec("tflite_runtime") is not None:
        pytest.skip("tflite_runtime is installed in this environment too")
    monkeypatch.setenv(tflite_runtime.PYTHON_VARIABLE, sys.executable)
    reason = tflite_runtime.TfliteRuntime("tflite-runtime").available()
    assert reason is not None
    assert "No module named 'tflite_runtime'" in reason
