"""Random specs, programs and inputs, and Hypothesis strategies over them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Activation, Dense, DenseOp, Gate, LastStep, LastStepOp, Lstm, LstmOp
from edge_lstm.cells.activation import KINDS
from edge_lstm.cells.dense import FusedActivation
from edge_lstm.program import PROFILES, Op, Profile, Program, Tensor
from edge_lstm.spec import Layer, ModelSpec, Signal

FUSED: tuple[FusedActivation, ...] = ("none", "relu", "relu6")
GAINS = (0.3, 1.0, 5.0, 30.0)
"""From quiet gates to full saturation, and beyond what int32 holds once it is shifted."""

seeds = st.integers(0, 2**32 - 1)
profiles: st.SearchStrategy[Profile] = st.sampled_from(PROFILES)


def uniform(random: np.random.Generator, *shape: int) -> F32:
    """Return float32 weights of the size that training leaves."""
    bound = 1 / np.sqrt(shape[-1])
    return random.uniform(-bound, bound, shape).astype(np.float32)


def lstm_layer(random: np.random.Generator, name: str, features: int, hidden: int) -> Lstm:
    """Return a float LSTM with random weights."""
    gates = [
        Gate(uniform(random, hidden, features), uniform(random, hidden, hidden), bias)
        for bias in random.normal(0, 0.5, (4, hidden)).astype(np.float32)
    ]
    return Lstm(name, (gates[0], gates[1], gates[2], gates[3]))


def random_spec(random: np.random.Generator) -> ModelSpec:
    """Return one or two LSTMs, the last step or all, and a head."""
    features, hidden = int(random.integers(1, 12)), int(random.integers(1, 24))
    layers: list[Layer] = [lstm_layer(random, "lstm_0", features, hidden)]
    if random.random() < 0.4:
        wider = int(random.integers(1, 24))
        layers.append(lstm_layer(random, "lstm_1", hidden, wider))
        hidden = wider
    if random.random() < 0.7:
        layers.append(LastStep("last"))
    outputs = int(random.integers(1, 7))
    layers.append(Dense("dense", uniform(random, outputs, hidden), uniform(random, outputs)))
    kind = int(random.integers(0, len(KINDS) + 1))
    if kind < len(KINDS):
        layers.append(Activation("head", KINDS[kind]))
    return ModelSpec("random_model", Signal("sequence", features), tuple(layers))


def random_scale(random: np.random.Generator, low: float, high: float) -> float:
    """Return a scale that float32 holds exactly."""
    return float(np.float32(np.exp(random.uniform(np.log(low), np.log(high)))))


def lstm_op(
    random: np.random.Generator,
    name: str,
    source: Tensor,
    output: Tensor,
    indices: tuple[int, int],
    cell_power: int | None = None,
) -> LstmOp:
    """Return an integer LSTM from random integers: any weights, scales and zero points."""
    features, cells = source.signal.size, output.signal.size
    wide = source.dtype == "int16"
    gain = float(random.choice(GAINS))
    power = int(random.integers(-15, -8)) if cell_power is None else cell_power
    usual = source.scale * (25_600 if wide else 100)
    input_scales = random.uniform(0.3, 1.5, 4) * gain / (127 * usual)
    recurrent_scales = random.uniform(0.3, 1.5, 4) * gain / 127
    input_scales = (input_scales / np.sqrt(features)).astype(np.float32)
    recurrent_scales = (recurrent_scales / np.sqrt(cells)).astype(np.float32)
    bias = random.normal(0, 1, (4, cells)) / (input_scales[:, None] * source.scale)
    return LstmOp(
        name=name,
        inputs=(indices[0],),
        output=indices[1],
        input_weights=random.integers(-127, 128, (4, cells, features)).astype(np.int8),
        recurrent_weights=random.integers(-127, 128, (4, cells, cells)).astype(np.int8),
        bias=np.clip(bias, -(2**28), 2**28).astype(np.int64 if wide else np.int32),
        input_weight_scales=input_scales,
        recurrent_weight_scales=recurrent_scales,
        hidden_scale=output.scale,
        hidden_zero_point=output.zero_point,
        product_scale=output.scale,
        product_zero_point=output.zero_point,
        cell_scale=2.0**power,
        initial_hidden=np.full(cells, output.zero_point, source.dtype),
        initial_cell=np.zeros(cells, np.int16),
        cell_clip=float(random.choice([0.0, 10.0])),
    )


def random_program(
    random: np.random.Generator,
    profile: Profile = "tflm",
    *,
    head: bool | None = None,
    largest: int = 64,
) -> Program:
    """Return an LSTM of random integers, with or without a Dense head."""
    features, cells = int(random.integers(1, 2 * largest)), int(random.integers(1, largest + 1))
    power_of_two = random.random() < 0.2
    tensors = [
        Tensor(
            "input",
            Signal("sequence", features),
            "int8",
            random_scale(random, 0.003, 0.1),
            int(random.integers(-128, 128)),
        ),
        Tensor(
            "lstm.output",
            Signal("sequence", cells),
            "int8",
            2.0**-7 if power_of_two else random_scale(random, 0.002, 0.009),
            0 if power_of_two else int(random.integers(-128, 128)),
        ),
    ]
    ops: list[Op] = [lstm_op(random, "lstm", tensors[0], tensors[1], (0, 1))]
    with_head = random.random() < 0.5 if head is None else head
    if with_head:
        tensors.append(
            Tensor(
                "last.output",
                Signal("vector", cells),
                "int8",
                tensors[1].scale,
                tensors[1].zero_point,
            )
        )
        ops.append(LastStepOp("last", (1,), 2))
        outputs = int(random.integers(1, 20))
        weight_scale = np.array([random_scale(random, 0.001, 0.02)], np.float32)
        reach = float(weight_scale[0]) * 127 * np.sqrt(cells) * tensors[1].scale * 60
        tensors.append(
            Tensor(
                "dense.output",
                Signal("vector", outputs),
                "int8",
                float(np.float32(reach / 127)),
                int(random.integers(-128, 128)),
            )
        )
        bias = random.integers(-2000, 2000, outputs).astype(np.int32)
        weights = random.integers(-127, 128, (outputs, cells)).astype(np.int8)
        activation = FUSED[int(random.integers(0, 3))]
        ops.append(DenseOp("dense", (2,), 3, weights, bias, weight_scale, activation))
    return Program("random_model", profile, tuple(tensors), tuple(ops), 0, len(tensors) - 1)


def random_bytes(random: np.random.Generator, program: Program, batch: int, steps: int) -> Array:
    """Return int8 inputs: uniform over the type, or all extremes."""
    x = random.integers(-128, 128, (batch, steps, program.input_tensor.signal.size))
    if random.random() < 0.3:
        x = np.where(x >= 0, 127, -128)
    return x.astype(np.int8)
