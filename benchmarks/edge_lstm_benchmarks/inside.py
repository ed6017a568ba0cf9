"""What quantization costs inside a model: every layer, gate and state, integers against float."""

from __future__ import annotations

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import F64, Array
from edge_lstm.cells import EdgeGruOp, EdgeLstmOp, LstmOp
from edge_lstm.cells.edge_gru import EdgeGruKernel, narrowed
from edge_lstm.cells.edge_lstm import EdgeLstmKernel, EdgeRecurrentOp
from edge_lstm.cells.edge_rows import (
    ARGUMENT_MAX,
    ARGUMENT_MIN,
    accumulate,
    sigmoid_of,
    tanh_of,
)
from edge_lstm.cells.functions import sigmoid
from edge_lstm.plain_form import plain_form
from edge_lstm.program import Op, Program, Tensor
from edge_lstm.records import Analysis, SignalFidelity
from edge_lstm.spec import ModelSpec
from edge_lstm.step_loop import all_values
from edge_lstm_benchmarks.accuracy import cosine, snr_db
from edge_lstm_benchmarks.verify_difference import trace_lstm

GATES = ("input", "forget", "cell", "output")
GRU_GATES = ("update", "reset", "candidate")
TANH_GATES = ("cell", "candidate")
MOST_STEPS = 1000
"""Longer sequences are cut: the plain integer arithmetic takes its time."""
MOST_VALUES = 4e6
"""Of all signals together: 32 MB in float64."""
POINTS = 100
"""Of the curves over time."""
GATE_UNIT = 2.0**-15
"""Gates after sigmoid or tanh are Q0.15."""

Seen = tuple[F64, int]
"""Real values of a signal, ``[rows, steps, size]``, and how many integers are saturated."""


def analyse(spec: ModelSpec, program: Program, x: Array) -> Analysis:
    """Return how far each signal is from float, over rows that all have the same steps.

    Args:
        spec: the float model.
        program: its integers; runs under its profile.
        x: ``[rows, steps, features]`` in float, or token ids ``[rows, steps]``.
    """
    plain, _ = plain_form(spec)
    steps = x.shape[1] if program.time_steps else min(x.shape[1], MOST_STEPS)
    width = sum(_width(op, program) for op in program.ops)
    rows = int(np.clip(MOST_VALUES / (steps * width), 1, len(x)))
    x = x[:rows, :steps]
    wanted = _float_signals(plain, x)
    points = np.unique(np.linspace(0, steps - 1, min(steps, POINTS)).round().astype(np.int64))
    signals = [
        _compare(name, kind, seen, wanted[name], points)
        for name, kind, seen in _integer_signals(program, x)
        if name in wanted and wanted[name].shape == seen[0].shape
    ]
    return Analysis(program.profile, rows, tuple(int(p) for p in points), tuple(signals))


def _width(op: Op, program: Program) -> int:
    """Return how many values of an op are kept for each step."""
    inside = 0
    if isinstance(op, LstmOp):
        inside = 5 * op.cell_count
    elif isinstance(op, EdgeRecurrentOp):
        inside = 5 * op.hidden_size
    return program.tensors[op.output].signal.size + inside


def _float_signals(spec: ModelSpec, x: Array) -> dict[str, F64]:
    found: dict[str, F64] = {}

    def observe(name: str, values: F64) -> None:
        if name.endswith("_gate"):
            word = name.rpartition(".")[2].removesuffix("_gate")
            values = np.tanh(values) if word in TANH_GATES else sigmoid(values)
        found[name] = values.reshape(len(x), -1, values.shape[-1])

    float_reference.run(spec, x, observe=observe)
    return found


def _integer_signals(program: Program, x: Array) -> list[tuple[str, str, Seen]]:
    """Return name, kind and values of what is known inside, in order of computation."""
    source = program.input_tensor
    entered = source.quantize(x) if source.is_quantized else x
    values = all_values(program, entered)
    found = []
    if source.is_quantized:
        found.append(("input", "input", _seen(source, entered)))
    for op in program.ops:
        if isinstance(op, LstmOp):
            found += _lstm_signals(op, program, values[op.inputs[0]])
        elif isinstance(op, EdgeLstmOp):
            found += _edge_lstm_signals(op, values[op.inputs[0]])
        elif isinstance(op, EdgeGruOp):
            found += _edge_gru_signals(op, values[op.inputs[0]])
        tensor = program.tensors[op.output]
        if tensor.is_quantized:
            gate = _gate_of(tensor.name)
            kind = "output" if gate is None else "gate"
            found.append((gate or tensor.name, kind, _seen(tensor, values[op.output])))
    return found


def _gate_of(tensor: str) -> str | None:
    """Return the gate that a tensor of a GRU made of single ops holds, by its float name."""
    for word in GRU_GATES:
        layer = tensor.removesuffix(f"_{word}_gate.output")
        if layer != tensor:
            return f"{layer}.{word}_gate"
    return None


def _lstm_signals(op: LstmOp, program: Program, x: Array) -> list[tuple[str, str, Seen]]:
    trace = trace_lstm(op, program, x)

    def over_time(name: str) -> Array:
        return np.stack([step[name] for step in trace], axis=1)

    found = []
    for word in GATES:
        if f"{word}_gate" in trace[0]:
            value = over_time(f"{word}_gate_value").astype(np.float64) * GATE_UNIT
            saturated = _saturated(over_time(f"{word}_gate"), "int16")
            found.append((f"{op.name}.{word}_gate", "gate", (value, saturated)))
    cell = over_time("cell_state")
    real = cell.astype(np.float64) * op.cell_scale
    return [*found, (f"{op.name}.cell_state", "state", (real, _saturated(cell, "int16")))]


def _edge_lstm_signals(op: EdgeLstmOp, x: Array) -> list[tuple[str, str, Seen]]:
    kernel = EdgeLstmKernel(op, len(x))
    kernel.reset()
    hiddens, cells = [], []
    for step in range(x.shape[1]):
        hiddens.append(kernel.hidden.copy())
        kernel.step(x[:, step])
        cells.append(kernel.cell.copy())
    cell = np.stack(cells, axis=1)
    real = cell.astype(np.float64) * 2.0 ** (op.cell_bits - 15)
    state = (f"{op.name}.cell_state", "state", (real, _saturated(cell, "int16")))
    return [*_edge_gates(op, GATES, x, np.stack(hiddens, axis=1)), state]


def _edge_gru_signals(op: EdgeGruOp, x: Array) -> list[tuple[str, str, Seen]]:
    """Return the gates update and reset; the candidate is not seen."""
    kernel = EdgeGruKernel(op, len(x))
    kernel.reset()
    hiddens = []
    for step in range(x.shape[1]):
        hiddens.append(narrowed(kernel.hidden))
        kernel.step(x[:, step])
    return _edge_gates(op, GRU_GATES[:2], x, np.stack(hiddens, axis=1))


def _edge_gates(
    op: EdgeRecurrentOp, words: tuple[str, ...], x: Array, hidden: Array
) -> list[tuple[str, str, Seen]]:
    """Return the gates that the op's rows give for inputs and for the states before them."""
    rows, steps = x.shape[:2]
    fed = op.activations(x.reshape(rows * steps, -1), hidden.reshape(rows * steps, -1))
    argument = op.rows.requantize(accumulate(op.rows, fed))
    shaped = argument.reshape(rows, steps, op.hidden_size, len(words))
    found = []
    for number, word in enumerate(words):
        part = shaped[..., number]
        value = (tanh_of if word in TANH_GATES else sigmoid_of)(part).astype(np.float64)
        beyond = int(np.count_nonzero((part < ARGUMENT_MIN) | (part > ARGUMENT_MAX)))
        found.append((f"{op.name}.{word}_gate", "gate", (value * GATE_UNIT, beyond)))
    return found


def _seen(tensor: Tensor, integers: Array) -> Seen:
    real = tensor.dequantize(integers).astype(np.float64)
    shaped = real.reshape(len(real), -1, real.shape[-1])
    return shaped, _saturated(integers, tensor.dtype)


def _saturated(integers: Array, dtype: str) -> int:
    """Return how many values are the least or the greatest of their type."""
    info = np.iinfo(dtype)
    return int(np.count_nonzero((integers <= info.min) | (integers >= info.max)))


def _compare(name: str, kind: str, seen: Seen, want: F64, points: Array) -> SignalFidelity:
    got, saturated = seen
    over_time: tuple[float, ...] = ()
    if got.shape[1] > 1 and got.shape[1] > points[-1]:
        size = max(float(np.sqrt((want**2).mean())), np.finfo(np.float64).tiny)
        error = np.sqrt(((got - want) ** 2).mean(axis=(0, 2)))[points] / size
        over_time = tuple(float(f"{value:.4g}") for value in error)
    return SignalFidelity(
        name=name,
        kind=kind,
        snr_db=snr_db(got, want),
        cosine=cosine(got, want),
        saturated=saturated,
        values=got.size,
        error_over_time=over_time,
    )
