"""One step of an RNN, a GRU, an LSTM and a causal Transformer, in plain NumPy float32.

All four are written alike, plain NumPy calls for a step, so that their times can be compared.
What a recurrent cell carries is its state; what the Transformer carries is the keys and values of
all steps so far (the KV cache), so that a step attends to them without computing them again.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Dense, Gru, Lstm, Rnn
from edge_lstm.spec import ModelSpec

CELLS = ("lstm", "gru", "rnn", "transformer")
LSTM_SIZE = 32
WIDTH, BLOCKS, HEADS = 16, 2, 2
"""The Transformer's: features of a step, blocks, heads of a block."""
EPSILON = 1e-5  # PyTorch's LayerNorm
ROOM = 1000


@dataclass(frozen=True)
class Shape:
    """What decides a network's parameters.

    Args:
        cell: one of ``CELLS``.
        inputs: features of a step.
        outputs: of the Dense at the end.
        size: hidden size; of a Transformer, the width of its feed-forward layers.
    """

    cell: str
    inputs: int
    outputs: int
    size: int

    def parameters(self) -> int:
        """Return the number of trained values; two biases that are only ever added count once."""
        inputs, size = self.inputs, self.size
        if self.cell == "transformer":
            norm = 2 * WIDTH
            attention = 4 * WIDTH * (WIDTH + 1)
            forward = WIDTH * size + size + size * WIDTH + WIDTH
            blocks = BLOCKS * (2 * norm + attention + forward)
            return (inputs + 1) * WIDTH + blocks + norm + (WIDTH + 1) * self.outputs
        gates = {"lstm": 4, "gru": 3, "rnn": 1}[self.cell]
        # The GRU's reset gate stands between its candidate's two biases.
        biases = size * (gates + (self.cell == "gru"))
        return gates * size * (inputs + size) + biases + (size + 1) * self.outputs

    def products(self, position: int) -> int:
        """Return the multiplications with a weight, key or value in the step after ``position``."""
        if self.cell != "transformer":
            gates = {"lstm": 4, "gru": 3, "rnn": 1}[self.cell]
            return gates * self.size * (self.inputs + self.size) + self.size * self.outputs
        blocks = BLOCKS * (4 * WIDTH * WIDTH + 2 * WIDTH * self.size)
        attended = BLOCKS * 2 * WIDTH * (position + 1)
        return self.inputs * WIDTH + blocks + attended + WIDTH * self.outputs


def shape_for(cell: str, inputs: int, outputs: int) -> Shape:
    """Return the shape whose parameters are nearest those of an LSTM of ``LSTM_SIZE``."""
    budget = Shape("lstm", inputs, outputs, LSTM_SIZE).parameters()
    shapes = [Shape(cell, inputs, outputs, size) for size in range(1, 200)]
    return min(shapes, key=lambda shape: abs(shape.parameters() - budget))


class Steps(abc.ABC):
    """A network that takes one step at a time, from the state that the step before left."""

    @abc.abstractmethod
    def step(self, x: F32) -> F32:
        """Return the outputs, [batch, outputs], behind one more step, [batch, features]."""

    @property
    @abc.abstractmethod
    def state_bytes(self) -> int:
        """What is carried to the next step, of all rows."""


class RecurrentSteps(Steps):
    """A recurrent cell and the Dense behind it.

    Args:
        cell: the layer.
        head: the Dense.
        batch_size: rows, each with a state of its own.
    """

    def __init__(self, cell: Rnn | Gru | Lstm, head: Dense, batch_size: int = 1) -> None:
        gates = (cell.gate,) if isinstance(cell, Rnn) else cell.gates
        self.input_weights = np.concatenate([gate.input_weights for gate in gates]).T
        self.recurrent_weights = np.concatenate([gate.recurrent_weights for gate in gates]).T
        self.bias = np.concatenate([gate.bias for gate in gates])
        self.head = head
        self.hidden = np.zeros((batch_size, cell.output_size), np.float32)

    def step(self, x: F32) -> F32:
        self.advance(x @ self.input_weights + self.bias)
        y: F32 = self.hidden @ self.head.weights.T + self.head.bias
        return y

    @abc.abstractmethod
    def advance(self, from_input: F32) -> None:
        """Move the state by what the input gives to the gates, [batch, gates * hidden]."""

    @property
    def state_bytes(self) -> int:
        return self.hidden.nbytes


class RnnSteps(RecurrentSteps):
    """``h = tanh(W x + R h + b)``."""

    def advance(self, from_input: F32) -> None:
        self.hidden = np.tanh(from_input + self.hidden @ self.recurrent_weights)


class GruSteps(RecurrentSteps):
    """``h = (1 - z) * n + z * h``, the reset behind the product as in PyTorch."""

    def __init__(self, cell: Gru, head: Dense, batch_size: int = 1) -> None:
        super().__init__(cell, head, batch_size)
        self.candidate_bias = np.zeros(cell.hidden_size, np.float32)
        if cell.candidate_recurrent_bias is not None:
            self.candidate_bias = cell.candidate_recurrent_bias

    def advance(self, from_input: F32) -> None:
        size = self.hidden.shape[1]
        products = self.hidden @ self.recurrent_weights
        gates = sigmoid(from_input[:, : 2 * size] + products[:, : 2 * size])
        update, reset = gates[:, :size], gates[:, size:]
        recurrent = products[:, 2 * size :] + self.candidate_bias
        candidate = np.tanh(from_input[:, 2 * size :] + reset * recurrent)
        self.hidden = candidate + update * (self.hidden - candidate)


class LstmSteps(RecurrentSteps):
    """``c = i * g + f * c``, ``h = o * tanh(c)``."""

    def __init__(self, cell: Lstm, head: Dense, batch_size: int = 1) -> None:
        super().__init__(cell, head, batch_size)
        self.cell = np.zeros_like(self.hidden)

    def advance(self, from_input: F32) -> None:
        size = self.hidden.shape[1]
        total = from_input + self.hidden @ self.recurrent_weights
        opened = sigmoid(total[:, : 2 * size])
        candidate, output = np.tanh(total[:, 2 * size : 3 * size]), sigmoid(total[:, 3 * size :])
        self.cell = opened[:, :size] * candidate + opened[:, size:] * self.cell
        self.hidden = output * np.tanh(self.cell)

    @property
    def state_bytes(self) -> int:
        return self.hidden.nbytes + self.cell.nbytes


class TransformerSteps(Steps):
    """A causal Transformer that keeps the keys and values of every step it has seen.

    Blocks of attention and ReLU layers, normalised in front (pre-LN), positions as sines.

    Args:
        arrays: by the names of ``models/causal_transformer.py``.
        batch_size: rows, each with a cache of its own.
    """

    def __init__(self, arrays: Mapping[str, Array], batch_size: int = 1) -> None:
        self.arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}
        self.length = 0
        # [blocks, keys or values, batch, heads, steps, features of a head]; doubled when full.
        shape = (BLOCKS, 2, batch_size, HEADS, 64, WIDTH // HEADS)
        self.cache: F32 = np.zeros(shape, np.float32)

    def step(self, x: F32) -> F32:
        if self.length == self.cache.shape[4]:
            self.cache = np.concatenate([self.cache, np.zeros_like(self.cache)], axis=4)
        y = self._linear("enter", x) + position_code(self.length)
        for block in range(BLOCKS):
            y = y + self._attended(block, self._normal(f"blocks.{block}.before", y))
            inner = self._linear(f"blocks.{block}.up", self._normal(f"blocks.{block}.between", y))
            y = y + self._linear(f"blocks.{block}.down", np.maximum(inner, 0))
        self.length += 1
        return self._linear("fc", self._normal("norm", y))

    def _attended(self, block: int, x: F32) -> F32:
        """Return what a step takes from itself and all before, and keep its key and value."""
        parts = self._linear(f"blocks.{block}.qkv", x).reshape(len(x), 3, HEADS, -1)
        query, key, value = parts.swapaxes(0, 1)
        self.cache[block, 0, :, :, self.length] = key
        self.cache[block, 1, :, :, self.length] = value
        keys, values = self.cache[block, :, :, :, : self.length + 1]
        scores = (keys @ query[..., None])[..., 0] * np.float32((WIDTH // HEADS) ** -0.5)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (powers[..., None, :] @ values)[..., 0, :] / powers.sum(axis=-1, keepdims=True)
        return self._linear(f"blocks.{block}.out", mixed.reshape(len(x), -1))

    def _linear(self, name: str, x: F32) -> F32:
        y: F32 = x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"]
        return y

    def _normal(self, name: str, x: F32) -> F32:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(EPSILON))
        y: F32 = scaled * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]
        return y

    @property
    def state_bytes(self) -> int:
        return self.length * self.cache[..., 0, :].nbytes

    def fill(self, length: int) -> None:
        """Go on as if behind ``length`` steps: keys and values are those seen, over and over."""
        seen = self.cache[..., : self.length, :]
        # Room for steps behind them, so that none of these has to copy all.
        repeats = -(-(length + ROOM) // self.length)
        self.cache = np.tile(seen, (1, 1, 1, 1, repeats, 1))
        self.length = length


def position_code(position: int) -> F32:
    """Return the sines and cosines that tell a step's position, [WIDTH] (Vaswani et al. 2017)."""
    angles = position * 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
    code = np.empty(WIDTH, np.float32)
    code[0::2], code[1::2] = np.sin(angles), np.cos(angles)
    return code


def sigmoid(x: F32) -> F32:
    """Return 1 / (1 + exp(-x)), which cannot overflow in this form."""
    y: F32 = np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
    return y


def recurrent_steps(spec: ModelSpec, batch_size: int = 1) -> RecurrentSteps:
    """Return the steps of a model of one recurrent layer and a Dense."""
    layer, head = spec.layers[0], spec.layers[-1]
    assert isinstance(head, Dense)
    if isinstance(layer, Rnn):
        return RnnSteps(layer, head, batch_size)
    if isinstance(layer, Gru):
        return GruSteps(layer, head, batch_size)
    assert isinstance(layer, Lstm)
    return LstmSteps(layer, head, batch_size)
