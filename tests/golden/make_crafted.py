"""Makes the golden folders ``*crafted_*``: accumulators at which plausible mistakes show.

Random models do not reach them: exact ties in the cell update, a recurrent term that saturates
alone, a hidden product beside a rounding boundary, a dense accumulator half way between two
outputs. The models are made here; the vectors are what the real interpreters give for them.

    python tests/golden/make_crafted.py            (from the repository's root)

makes them again with whatever interpreters are installed; tests/golden/README.md says with which
versions they were made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import interpreters
from edge_lstm import activations
from edge_lstm.arrays import I16, Array
from edge_lstm.cells import DenseOp, LstmOp, QuantizeOp
from edge_lstm.fixed_point import quantize_multiplier, requantize, rounding_divide_by_pot
from edge_lstm.program import Op, Program, Tensor
from edge_lstm.spec import Signal
from edge_lstm_converters.write_tflite import tflite_bytes

FOLDER = Path(__file__).parent
KEYS = {
    "litert": "y_litert",
    "litert-ref": "y_litert_ref",
    "tflite-runtime": "y_tfr",
    "tflm": "y_tflm_2026_10",
    "tflm-2026-08": "y_tflm_2026_08",
}
CALLS = 8
RESET = np.array([1, 0, 1, 0, 0, 1, 1, 0], np.uint8)
INPUT, FORGET, CELL, OUTPUT = range(4)

Made = tuple[Program, Array, int]
"""A model, its inputs ``[calls, batch, ...]``, and the steps of a call."""


def lstm_program(
    random: np.random.Generator,
    features: int,
    cells: int,
    *,
    power: int,
    hidden_scale: float,
    hidden_zero_point: int = 0,
    input_scale: float = 2.0**-6,
    input_weight_scale: float = 2.0**-6,
    recurrent_weight_scale: float = 2.0**-6,
) -> tuple[Program, LstmOp]:
    """Return an LSTM of random integers and scales that the caller chooses."""
    tensors = (
        Tensor("input", Signal("sequence", features), "int8", input_scale, 3),
        Tensor("lstm.output", Signal("sequence", cells), "int8", hidden_scale, hidden_zero_point),
    )
    op = LstmOp(
        name="lstm",
        inputs=(0,),
        output=1,
        input_weights=random.integers(-127, 128, (4, cells, features)).astype(np.int8),
        recurrent_weights=random.integers(-127, 128, (4, cells, cells)).astype(np.int8),
        bias=random.integers(-2000, 2000, (4, cells)).astype(np.int32),
        input_weight_scales=np.full(4, input_weight_scale, np.float32),
        recurrent_weight_scales=np.full(4, recurrent_weight_scale, np.float32),
        hidden_scale=hidden_scale,
        hidden_zero_point=hidden_zero_point,
        product_scale=hidden_scale,
        product_zero_point=hidden_zero_point,
        cell_scale=2.0**power,
        initial_hidden=np.full(cells, hidden_zero_point, np.int8),
        initial_cell=np.zeros(cells, np.int16),
    )
    return Program("crafted", "tflm", tensors, (op,), 0, 1), op


def with_op(program: Program, op: Op) -> Program:
    return replace(program, ops=(op,))


def sequences(random: np.random.Generator, program: Program, batch: int, steps: int) -> Array:
    size = program.input_tensor.signal.size
    return random.integers(-128, 128, (CALLS, batch, steps, size)).astype(np.int8)


def cell_ties(random: np.random.Generator) -> Made:
    """Forget and output gate are exactly one half: f * c and o * tanh(c) end in ties.

    The cell state is coarse and the hidden state fine, so that one unit of c is many bytes apart;
    the hidden multiplier is a power of two.
    """
    program, op = lstm_program(random, 4, 24, power=-9, hidden_scale=2.0**-11)
    weights, recurrent, bias = op.input_weights, op.recurrent_weights // 8, op.bias.copy()
    weights = weights // 16
    for gate in (FORGET, OUTPUT):
        weights[gate], recurrent[gate], bias[gate] = 0, 0, 0
    bias[CELL] //= 4
    op = replace(op, input_weights=weights, recurrent_weights=recurrent, bias=bias)
    program = with_op(program, op)
    return program, sequences(random, program, 2, 12), 12


def coupled(random: np.random.Generator) -> Made:
    """CIFG on a coarse cell state and a fine hidden state: 32767 - f is not 32768 - f."""
    program, x, steps = cell_ties(random)
    (op,) = program.ops
    assert isinstance(op, LstmOp)
    # Not exactly one half, as the forget gate is there.
    bias = op.bias.copy()
    bias[FORGET] = random.integers(-9000, 9000, bias.shape[1])
    return with_op(program, replace(op, coupled=True, bias=bias)), x, steps


def recurrent_saturation(random: np.random.Generator) -> Made:
    """The recurrent term alone leaves int16, and the input pulls it back."""
    program, _ = lstm_program(
        random,
        6,
        20,
        power=-12,
        hidden_scale=2.0**-7,
        hidden_zero_point=-5,
        input_weight_scale=2.0**-6,
        recurrent_weight_scale=2.0**-3,
    )
    return program, sequences(random, program, 1, 10), 10


def cell_clip(random: np.random.Generator) -> Made:
    """A cell clip of 0.7, which most cells reach."""
    program, op = lstm_program(
        random, 5, 16, power=-12, hidden_scale=2.0**-8, input_weight_scale=2.0**-9
    )
    bias = op.bias.copy()
    bias[FORGET] += 20_000
    program = with_op(program, replace(op, cell_clip=0.7, bias=bias))
    return program, sequences(random, program, 1, 12), 12


def overflow(random: np.random.Generator) -> Made:
    """Accumulators beyond int32 (gates g, o), and gains whose left shift leaves it (i, f): wrap."""
    program, op = lstm_program(random, 8, 16, power=-11, hidden_scale=2.0**-7)
    bias = np.where(random.random((4, 16)) < 0.5, 2**31 - 2**14, -(2**31) + 2**14)
    bias[:2] = random.integers(-(2**24), 2**24, (2, 16))
    scales = np.array([24.0, 24.0, 2.0**-20, 2.0**-20], np.float32)
    op = replace(op, bias=bias.astype(np.int32), input_weight_scales=scales)
    program = with_op(program, op)
    return program, sequences(random, program, 1, 6), 6


def intermediate(random: np.random.Generator) -> Made:
    """The hidden vector's own scale (intermediate 4) is not that of the hidden state."""
    program, op = lstm_program(
        random, 5, 12, power=-12, hidden_scale=2.0**-7, input_weight_scale=2.0**-9
    )
    op = replace(op, product_scale=float(np.float32(0.006)), product_zero_point=9)
    program = with_op(program, op)
    return program, sequences(random, program, 1, 10), 10


def hidden_factor(random: np.random.Generator) -> Made:
    """Products o * tanh(c) that a multiplier rounded to float32 puts on the other byte."""
    # A scale whose inverse is as far from a float32 as it can be.
    candidates = np.float32(2.0**-8) * (1 + np.arange(1, 4000, dtype=np.float32) * 2.0**-13)
    real = 2.0**-30 / candidates.astype(np.float64)
    error = np.abs(real.astype(np.float32) / real - 1)
    scale = float(candidates[int(error.argmax())])
    exact = quantize_multiplier(2.0**-30 / scale)
    rounded = quantize_multiplier(float(np.float32(2.0**-15 / scale * 2.0**-15)))

    def is_told_apart(product: Array) -> Array:
        one, other = requantize(product, exact), requantize(product, rounded)
        told: Array = (one != other) & (np.abs(one) < 120)
        return told

    return _chosen_products(random, scale, is_told_apart, (GEMMLOWP, INTERPOLATED))


def hidden_ties(random: np.random.Generator) -> Made:
    """Products o * tanh(c) whose first rounding makes an exact tie of the second.

    For TFLM's tables only: TFLite's tanh is a multiple of 4, and such products must be odd.
    """
    scale = 2.0**-9
    # 2**-30 / scale = 2**-21: p becomes (p + 1) >> 1, which is then divided by 2**20.

    def is_tie(product: Array) -> Array:
        first = (product + 1) >> 1
        tie: Array = (product % 2 == 1) & (first % 2**20 == 2**19) & (np.abs(first) < 120 << 20)
        return tie

    return _chosen_products(random, scale, is_tie, (INTERPOLATED,))


def cell_double_rounding(random: np.random.Generator) -> Made:
    """Products f * c of the second step that two roundings take one unit higher than one does.

    For TFLM's tables only: TFLite rounds once. The cell state is coarse, so that the unit shows.
    """
    power, scale, count = -9, 2.0**-8, 16
    sigmoid, gate_tanh = activations.interpolated_sigmoid(), activations.interpolated_tanh(0)
    cell_tanh = activations.interpolated_tanh(12 + power)
    kept_factor = quantize_multiplier(2.0**-15)
    added_factor = quantize_multiplier(2.0 ** (-30 - power))
    hidden_factor = quantize_multiplier(2.0**-30 / scale)
    found: list[Array] = []
    while sum(part.shape[1] for part in found) < count:
        pre = random.integers(-20_000, 20_000, (4, 1_000_000))
        entrance, forget, exit_ = (
            sigmoid[pre[k] & 0xFFFF].astype(np.int64) for k in (INPUT, FORGET, OUTPUT)
        )
        added = requantize(entrance * gate_tanh[pre[CELL] & 0xFFFF], added_factor)
        product = forget * added
        cells = [
            added + kept
            for kept in (requantize(product, kept_factor), rounding_divide_by_pot(product, 15))
        ]
        twice, once = (
            requantize(exit_ * cell_tanh[cell & 0xFFFF], hidden_factor) for cell in cells
        )
        found.append(pre[:, (twice != once) & (np.abs(twice) < 120)])
    bias = np.concatenate(found, axis=1)[:, :count]
    program, op = lstm_program(random, 1, count, power=power, hidden_scale=scale)
    program = with_op(program, without_weights(op, bias))
    return program, sequences(random, program, 1, 2), 2


def without_weights(op: LstmOp, bias: Array) -> LstmOp:
    """Return the LSTM whose biases are its pre-activations: their scales make a unit 2**-12."""
    return replace(
        op,
        input_weights=np.zeros_like(op.input_weights),
        recurrent_weights=np.zeros_like(op.recurrent_weights),
        bias=bias.astype(np.int32),
    )


POWER = -12
GEMMLOWP, INTERPOLATED = 0, 1
FAMILIES: list[tuple[I16, I16, I16]] = [
    (
        activations.gemmlowp_sigmoid(),
        activations.gemmlowp_tanh(3),
        activations.gemmlowp_tanh(15 + POWER),
    ),
    (
        activations.interpolated_sigmoid(),
        activations.interpolated_tanh(0),
        activations.interpolated_tanh(12 + POWER),
    ),
]
"""Sigmoid, tanh of the gate, tanh of the cell: of TFLite, then of TFLM."""


def _chosen_products(
    random: np.random.Generator,
    scale: float,
    is_wanted: Callable[[Array], Array],
    families: tuple[int, ...],
) -> Made:
    """Return an LSTM without weights whose biases, as pre-activations, give wanted o * tanh(c)."""
    cells = 16
    found = [_search(random, family, is_wanted, cells) for family in families]
    program, op = lstm_program(random, 1, cells * len(families), power=POWER, hidden_scale=scale)
    program = with_op(program, without_weights(op, np.concatenate(found, axis=1)))
    return program, sequences(random, program, 1, 1), 1


def _search(
    random: np.random.Generator, family: int, is_wanted: Callable[[Array], Array], count: int
) -> Array:
    """Return pre-activations [4, count] whose first o * tanh(c) is wanted."""
    sigmoid, gate_tanh, cell_tanh = FAMILIES[family]
    kept: list[Array] = []
    for _ in range(400):
        pre = random.integers(-20_000, 20_000, (4, 1_000_000))
        entrance, exit_ = (sigmoid[pre[k] & 0xFFFF].astype(np.int64) for k in (INPUT, OUTPUT))
        product = entrance * gate_tanh[pre[CELL] & 0xFFFF]
        if family == GEMMLOWP:
            cell = rounding_divide_by_pot(product, 30 + POWER)
        else:
            cell = requantize(product, quantize_multiplier(2.0 ** (-30 - POWER)))
        kept.append(pre[:, is_wanted(exit_ * cell_tanh[cell & 0xFFFF])])
        if sum(part.shape[1] for part in kept) >= count:
            return np.concatenate(kept, axis=1)[:, :count]
    raise RuntimeError("no such products; choose another scale")


def dense_ties(random: np.random.Generator) -> Made:
    """Every eighth accumulator is half way between two outputs: each runtime rounds its own way."""
    tensors = (
        Tensor("input", Signal("vector", 4), "int8", 0.5, 0),
        Tensor("dense.output", Signal("vector", 8), "int8", 0.5, 0),
    )
    weights = random.integers(-3, 4, (8, 4)).astype(np.int8)
    bias = random.integers(-3, 4, 8).astype(np.int32)
    # acc * 0.5 * 0.125 / 0.5: a shift of two behind the multiplier of one half.
    op = DenseOp("dense", (0,), 1, weights, bias, np.array([0.125], np.float32))
    program = Program("crafted", "tflm", tensors, (op,), 0, 1)
    return program, random.integers(-60, 60, (CALLS, 16, 4)).astype(np.int8), 1


def quantize_ties(random: np.random.Generator) -> Made:
    """Floats half way between two integers, on a scale of 2**-3."""
    tensors = (
        Tensor("input", Signal("vector", 16), "float32"),
        Tensor("quantize.output", Signal("vector", 16), "int8", 0.125, 7),
    )
    program = Program("crafted", "tflm", tensors, (QuantizeOp("quantize", (0,), 1),), 0, 1)
    halves = random.integers(-100, 100, (CALLS, 2, 16)) + 0.5
    return program, (halves * 0.125).astype(np.float32), 1


CRAFTED: dict[str, Callable[[np.random.Generator], Made]] = {
    "crafted_cell_ties": cell_ties,
    "crafted_cell_double_rounding": cell_double_rounding,
    "tfliteonly_crafted_cifg": coupled,
    "crafted_recurrent_saturation": recurrent_saturation,
    "crafted_cell_clip": cell_clip,
    "crafted_overflow": overflow,
    "crafted_intermediate": intermediate,
    "crafted_hidden_factor": hidden_factor,
    "crafted_hidden_ties": hidden_ties,
    "crafted_dense_ties": dense_ties,
    "crafted_quantize_ties": quantize_ties,
}


def main() -> None:
    """Make every folder."""
    for name, make in CRAFTED.items():
        program, x, steps = make(np.random.default_rng(2026))
        data = tflite_bytes(program, steps, x.shape[1])
        vectors: dict[str, Array] = {"x": x, "reset": RESET}
        for runtime, key in KEYS.items():
            if reason := interpreters.missing(runtime):
                print(f"{name}: no {key}: {reason}")
                continue
            try:
                vectors[key] = interpreters.run(runtime, data, x, RESET)
            except interpreters.Refused as refusal:
                print(f"{name}: no {key}: {refusal}")
        folder = FOLDER / name
        folder.mkdir(exist_ok=True)
        (folder / "model.tflite").write_bytes(data)
        np.savez_compressed(folder / "vectors.npz", **vectors)  # type: ignore[arg-type]
        print(f"{name}: {sorted(vectors)}")


if __name__ == "__main__":
    main()
