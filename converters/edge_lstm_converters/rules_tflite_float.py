"""What a recurrent operator in a float ``.tflite`` file must be like, one rule a function."""

from __future__ import annotations

from collections.abc import Callable

from edge_lstm_converters.rules_tflite import (
    HIDDEN_STATE,
    LAYER_NORMS,
    TfliteLstm,
    all_inputs,
    all_weights,
    clips,
    constant_weights,
    full_matrices,
    variable_states,
)
from edge_lstm_converters.tflite_tables import ACTIVATIONS

FUNCTIONS = ("relu", "tanh")


def known_activation(lstm: TfliteLstm) -> str | None:
    """LSTM in a float .tflite must have the fused activation TANH or RELU.

    With NONE, LiteRT multiplies the output gate by memory that it has not written.
    """
    found = lstm.options.fused_activation
    return None if ACTIVATIONS.get(found) in FUNCTIONS else f"has fused activation {found}"


def float_weights(lstm: TfliteLstm) -> str | None:
    """LSTM in a float .tflite must have float32 weights; with int8 ones kernels round its inputs.

    Such hybrid files are made by dynamic-range quantization; convert the float model instead.
    """
    for position, tensor in lstm.parameters:
        if tensor.dtype != "float32":
            return f"input {position} ({tensor.name!r}) is {tensor.dtype}"
    return None


def no_layer_normalization(lstm: TfliteLstm) -> str | None:
    """LSTM in a float .tflite must have no layer normalization inside its gates."""
    for position in LAYER_NORMS:
        tensor = lstm.tensor(position)
        if tensor is not None:
            return f"input {position} ({tensor.name!r}) is a layer normalization"
    return None


def float_states(lstm: TfliteLstm) -> str | None:
    """States of an LSTM in a float .tflite must be float32."""
    for position in (HIDDEN_STATE, HIDDEN_STATE + 1):
        tensor = lstm.tensor(position)
        if tensor is not None and tensor.dtype != "float32":
            return f"input {position} ({tensor.name!r}) is {tensor.dtype}"
    return None


FLOAT_LSTM_RULES: tuple[Callable[[TfliteLstm], str | None], ...] = (
    all_inputs,
    known_activation,
    full_matrices,
    clips,
    all_weights,
    constant_weights,
    float_weights,
    no_layer_normalization,
    variable_states,
    float_states,
)
"""In the order in which they are asked; a later one relies on those before it."""
