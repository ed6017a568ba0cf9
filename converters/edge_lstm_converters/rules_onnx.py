"""What an LSTM, GRU or RNN of an ONNX file must be like. Each docstring is a rule for users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells.functions import Function
from edge_lstm_converters.axes_onnx import State, Value
from edge_lstm_converters.load_onnx import Node

GATE_COUNTS = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTION_COUNTS = {"forward": 1, "reverse": 1, "bidirectional": 2}
DEFAULT_ACTIVATIONS = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}
FUNCTIONS = {
    "Affine": "affine",
    "Elu": "elu",
    "HardSigmoid": "hard_sigmoid",
    "LeakyRelu": "leaky_relu",
    "Relu": "relu",
    "ScaledTanh": "scaled_tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
    "ThresholdedRelu": "thresholded_relu",
}
"""ONNX's names of activations, and ours."""
NO_DEFAULT = ("affine", "scaledtanh", "thresholdedrelu")


@dataclass(frozen=True)
class OnnxRecurrent:
    """An LSTM, GRU or RNN node with its inputs as far as they are constant."""

    node: Node
    weights: Array | None
    recurrent: Array | None
    bias: Array | None
    lengths: Value | None
    peepholes: Array | None
    time_steps: int

    @property
    def direction(self) -> str:
        """The attribute of that name."""
        return str(self.node.get("direction", "forward"))

    @property
    def directions(self) -> int:
        """How many directions there are."""
        return DIRECTION_COUNTS.get(self.direction, 0)

    @property
    def activations(self) -> list[str]:
        """Names of all directions' activations."""
        given = self.node.get("activations")
        if not given:
            return DEFAULT_ACTIVATIONS[self.node.op] * self.directions
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in given]


def is_float(values: Array) -> bool:
    """Whether an array holds floating-point numbers; bfloat16 is one that NumPy does not know."""
    return values.dtype.kind == "f" or values.dtype.name == "bfloat16"


def known_direction(layer: OnnxRecurrent) -> str | None:
    """A recurrent layer's direction must be forward, reverse or bidirectional."""
    return None if layer.directions else f"direction is {layer.direction!r}"


def constant_weights(layer: OnnxRecurrent) -> str | None:
    """A recurrent layer's weights W, R, B and P must be constants of the file, in float."""
    names = [*layer.node.inputs, *[""] * 8]
    given = (names[1], names[2], names[3], names[7])
    values = (layer.weights, layer.recurrent, layer.bias, layer.peepholes)
    for word, name, value in zip("WRBP", given, values, strict=True):
        if name and value is None:
            return f"input {word} is {name!r}, which is computed or fed"
        if value is not None and not is_float(value):
            return f"input {word} is {name!r}, of {value.dtype}"
    return None


def known_activations(layer: OnnxRecurrent) -> str | None:
    """Activations must be those that ONNX names, one a function and direction."""
    names = layer.activations
    wanted = len(DEFAULT_ACTIVATIONS[layer.node.op]) * layer.directions
    ours = {name.lower() for name in FUNCTIONS}
    if len(names) != wanted or not all(name.lower() in ours for name in names):
        return f"activations are {', '.join(names)}"
    for attribute in ("activation_alpha", "activation_beta"):
        count = len(layer.node.get(attribute) or [])
        most = sum(takes(name, attribute[-5:].strip("_")) for name in names)
        if count > most:
            return f"{attribute} has {count} values for {', '.join(names)}, which take {most}"
    return None


def agreed_defaults(layer: OnnxRecurrent) -> str | None:
    """The activations Affine, ScaledTanh and ThresholdedRelu must state their alpha and beta."""
    for parameter in ("alpha", "beta"):
        count = len(layer.node.get(f"activation_{parameter}") or [])
        for name in layer.activations:
            if not takes(name, parameter):
                continue
            # onnxruntime's defaults for these are not those of ONNX's operators.
            if count == 0 and name.lower() in NO_DEFAULT:
                return f"{name} is without {parameter}"
            count = max(count - 1, 0)
    return None


def takes(activation: str, parameter: str) -> bool:
    """Whether ONNX's activation takes an ``alpha`` or a ``beta``."""
    return getattr(our_function(activation), parameter) is not None


def our_function(name: str, alpha: float | None = None, beta: float | None = None) -> Function:
    """Return one of ONNX's activations; onnxruntime ignores the case of its name."""
    ours = {theirs.lower(): word for theirs, word in FUNCTIONS.items()}
    return Function(ours[name.lower()], alpha, beta)


def positive_clip(layer: OnnxRecurrent) -> str | None:
    """A recurrent layer's clip must be above 0."""
    clip = layer.node.get("clip")
    return None if clip is None or clip > 0 else f"clip is {clip:g}"


def whole_lengths(layer: OnnxRecurrent) -> str | None:
    """sequence_lens must be an input of the graph, or constant and each the whole length."""
    lengths = layer.lengths
    if lengths is None or (isinstance(lengths, State) and lengths.fed):
        return None
    if not isinstance(lengths, np.ndarray):
        return "sequence_lens is computed"
    if bool(np.all(lengths == layer.time_steps)):
        return None
    return f"sequence_lens is {lengths.reshape(-1)[:8].tolist()}"


def recurrent_shapes(layer: OnnxRecurrent) -> str | None:
    """W must be [directions, gates*hidden, input], R the same with hidden, B twice gates*hidden.

    An LSTM's P must be [directions, 3*hidden].
    """
    assert layer.weights is not None
    assert layer.recurrent is not None
    w, r = layer.weights.shape, layer.recurrent.shape
    hidden = r[-1] if len(r) == 3 else 0
    count, rows = layer.directions, GATE_COUNTS[layer.node.op] * hidden
    fits = hidden > 0 and r == (count, rows, hidden) and len(w) == 3 and w[2] > 0
    fits = fits and w[:2] == (count, rows)
    fits = fits and layer.node.get("hidden_size", hidden) == hidden
    b = None if layer.bias is None else layer.bias.shape
    p = None if layer.peepholes is None else layer.peepholes.shape
    if fits and b in (None, (count, 2 * rows)) and p in (None, (count, 3 * hidden)):
        return None
    size = layer.node.get("hidden_size", "not said")
    shapes = f"W is {list(w)}, R is {list(r)}"
    shapes += "" if b is None else f", B is {list(b)}"
    shapes += "" if p is None else f", P is {list(p)}"
    return f"{shapes}, hidden_size is {size}"


RECURRENT_RULES: tuple[Callable[[OnnxRecurrent], str | None], ...] = (
    known_direction,
    constant_weights,
    known_activations,
    agreed_defaults,
    positive_clip,
    whole_lengths,
    recurrent_shapes,
)
