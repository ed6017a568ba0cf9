"""What an LSTM of an ONNX file must be like. Each docstring is a rule as users read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.axes_onnx import Value
from edge_lstm_converters.load_onnx import Node

DEFAULT_ACTIVATIONS = ["Sigmoid", "Tanh", "Tanh"]


@dataclass(frozen=True)
class OnnxLstm:
    """An LSTM node with its inputs as far as they are constant."""

    node: Node
    weights: Array | None
    recurrent: Array | None
    bias: Array | None
    lengths: Value | None
    peepholes: bool
    time_steps: int


def is_float(values: Array) -> bool:
    """Whether an array holds floating-point numbers; bfloat16 is one that NumPy does not know."""
    return values.dtype.kind == "f" or values.dtype.name == "bfloat16"


def constant_weights(lstm: OnnxLstm) -> str | None:
    """LSTM weights W, R and B must be constants of the file, in floating point."""
    given = (*lstm.node.inputs[1:4], "")
    for word, name, value in zip(
        "WRB", given, (lstm.weights, lstm.recurrent, lstm.bias), strict=False
    ):
        if name and value is None:
            return f"input {word} is {name!r}, which is computed or fed"
        if value is not None and not is_float(value):
            return f"input {word} is {name!r}, of {value.dtype}"
    return None


def runs_forward(lstm: OnnxLstm) -> str | None:
    """LSTM must run forward (direction 'forward')."""
    direction = lstm.node.get("direction", "forward")
    return None if direction == "forward" else f"direction is {direction!r}"


def no_peepholes(lstm: OnnxLstm) -> str | None:
    """LSTM must not have peephole weights (input P)."""
    return "has peephole weights (input P)" if lstm.peepholes else None


def default_activations(lstm: OnnxLstm) -> str | None:
    """LSTM activations must be the defaults, Sigmoid, Tanh, Tanh."""
    names = [
        v.decode("utf-8", "replace") if isinstance(v, bytes) else v
        for v in lstm.node.get("activations") or DEFAULT_ACTIVATIONS
    ]
    return None if names == DEFAULT_ACTIVATIONS else f"activations are {', '.join(names)}"


def no_clip(lstm: OnnxLstm) -> str | None:
    """LSTM must not clip its gates (attribute clip)."""
    clip = lstm.node.get("clip")
    return None if clip is None else f"clip is {clip:g}"


def no_coupled_gates(lstm: OnnxLstm) -> str | None:
    """LSTM input and forget gates must not be coupled (attribute input_forget)."""
    return "input_forget is 1" if lstm.node.get("input_forget", 0) else None


def no_lengths(lstm: OnnxLstm) -> str | None:
    """LSTM must read whole sequences (no input sequence_lens, or all of them the whole length)."""
    lengths = lstm.lengths
    if lengths is None:
        return None
    if isinstance(lengths, np.ndarray) and bool(np.all(lengths == lstm.time_steps)):
        return None
    return "has sequence_lens"


def lstm_shapes(lstm: OnnxLstm) -> str | None:
    """LSTM weights must be W [1, 4*hidden, input], R [1, 4*hidden, hidden] and B [1, 8*hidden]."""
    assert lstm.weights is not None
    assert lstm.recurrent is not None
    w, r = lstm.weights.shape, lstm.recurrent.shape
    hidden = r[-1] if len(r) == 3 else 0
    fits = hidden > 0 and r == (1, 4 * hidden, hidden) and len(w) == 3 and w[2] > 0
    fits = fits and w[:2] == (1, 4 * hidden) and lstm.node.get("hidden_size", hidden) == hidden
    b = None if lstm.bias is None else lstm.bias.shape
    if fits and b in (None, (1, 8 * hidden)):
        return None
    size = lstm.node.get("hidden_size", "not said")
    shapes = f"W is {list(w)}, R is {list(r)}" + ("" if b is None else f", B is {list(b)}")
    return f"{shapes}, hidden_size is {size}"


LSTM_RULES: tuple[Callable[[OnnxLstm], str | None], ...] = (
    runs_forward,
    no_peepholes,
    default_activations,
    no_clip,
    no_coupled_gates,
    no_lengths,
    constant_weights,
    lstm_shapes,
)
