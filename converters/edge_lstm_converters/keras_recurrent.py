"""Recurrent Keras layers as cells: LSTM, GRU, SimpleRNN, and the two around them."""

from __future__ import annotations

from edge_lstm.cells import Gru, Lstm, Rnn
from edge_lstm.cells.functions import HARD_SIGMOID, HARD_SIGMOID_6, Function
from edge_lstm.cells.recurrent import Recurrent
from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters.keras_archive import KerasFile, KerasLayer
from edge_lstm_converters.layouts import (
    gru_gates_from_keras,
    lstm_gates_from_keras,
    rnn_gate_from_keras,
)

# Keras's defaults: ELU 1, leaky_relu (Keras 3 only) 0.2.
FUNCTIONS: dict[str, Function] = {
    "linear": Function("affine"),
    "sigmoid": Function("sigmoid"),
    "tanh": Function("tanh"),
    "relu": Function("relu"),
    "elu": Function("elu"),
    "softplus": Function("softplus"),
    "softsign": Function("softsign"),
}
ACCEPTED = (*FUNCTIONS, "hard_sigmoid", "leaky_relu")


def function_name(layer: KerasLayer, key: str, default: str) -> str:
    """Return the name of an activation in a layer's arguments.

    Raises:
        UnsupportedModel: it is not one of Keras's functions.
    """
    value = layer.config.get(key, default)
    if value is None:
        return "linear"
    if isinstance(value, str):
        return value
    found = value.get("config") if isinstance(value, dict) else value
    if not isinstance(found, str):
        found = value.get("class_name", value) if isinstance(value, dict) else value
    raise layer.refuse(
        f"{key} is {found!r}, a function of your own", f"want one of {', '.join(ACCEPTED)}"
    )


def function(
    layer: KerasLayer, key: str, default: str, version: tuple[int, int] | None
) -> Function:
    """Return an activation; the version says which function ``hard_sigmoid`` is.

    Raises:
        UnsupportedModel: it has no counterpart here, or the file does not say its version.
    """
    name = function_name(layer, key, default)
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name not in ACCEPTED:
        raise layer.refuse(f"{key} is {name!r}", f"want one of {', '.join(ACCEPTED)}")
    if version is None:
        raise layer.refuse(
            f"{key} is {name!r}, and the file does not say which Keras saved it",
            "hard_sigmoid is one function in Keras 1 and 2 and another in Keras 3: save the whole"
            " model with model.save",
        )
    if name == "hard_sigmoid":
        return HARD_SIGMOID if version[0] < 3 else HARD_SIGMOID_6
    if version[0] < 3:
        raise layer.refuse(
            f"{key} is {name!r}, of Keras {version[0]}.{version[1]}",
            "want a LeakyReLU layer, which says its slope",
        )
    return Function("leaky_relu", 0.2)


def recurrent_cell(file: KerasFile, layer: KerasLayer, name: str) -> Recurrent:
    """Return one recurrent layer, forward in time; its caller turns it round.

    Raises:
        UnsupportedModel: an activation or a shape has no counterpart.
        UnreadableModel: weights are missing.
    """
    weights = file.variables(layer)
    where = layer.where
    kernel, recurrent, bias = weights["kernel"], weights["recurrent_kernel"], weights.get("bias")
    units = layer.get("units", None)
    if units is not None and recurrent.shape[:1] != (units,):
        raise UnsupportedModel(
            f"{where}: units = {units}; its recurrent_kernel has shape {list(recurrent.shape)}"
        )
    activation = function(layer, "activation", "tanh", file.version)
    if layer.class_name == "SimpleRNN":
        return Rnn(name, rnn_gate_from_keras(where, kernel, recurrent, bias), function=activation)
    # A CuDNN layer has no such arguments; it has the defaults.
    gate = function(layer, "recurrent_activation", "sigmoid", file.version)
    if layer.class_name in ("GRU", "CuDNNGRU"):
        after = bool(layer.config.get("reset_after", layer.class_name == "CuDNNGRU"))
        gates, extra = gru_gates_from_keras(where, kernel, recurrent, bias, reset_after=after)
        return Gru(name, gates, extra, after, functions=(gate, activation))
    return Lstm(
        name,
        lstm_gates_from_keras(where, kernel, recurrent, bias),
        functions=(gate, activation, activation),
    )
