"""Recurrent layers as what ONNX's LSTM, GRU and RNN nodes hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.arrays import F32
from edge_lstm.cells import Backward, Bidirectional, Function, Gru, Lstm, Recurrent, Rnn
from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters.layouts import gru_gates_to_onnx, lstm_gates_to_onnx, peepholes_to_onnx
from edge_lstm_converters.rules_onnx import DEFAULT_ACTIVATIONS, FUNCTIONS

NAMES = {ours: theirs for theirs, ours in FUNCTIONS.items()}


@dataclass(frozen=True)
class OnnxNode:
    """One node.

    Args:
        op: LSTM, GRU or RNN.
        weights: W, R and B.
        peepholes: P, or None.
        first: first states by name, [directions, hidden] each.
    """

    name: str
    op: str
    attributes: dict[str, Any]
    weights: tuple[F32, F32, F32]
    peepholes: F32 | None
    first: dict[str, F32]


def recurrent_nodes(layer: Recurrent | Backward | Bidirectional) -> list[OnnxNode]:
    """Return the nodes of a layer: one, or two if its directions have no node in common.

    Raises:
        UnsupportedModel: ONNX has no such cell.
    """
    if isinstance(layer, Recurrent):
        return [_node(layer.name, layer, "forward")]
    if isinstance(layer, Backward):
        return [_node(layer.name, layer.layer, "reverse")]
    ahead = _node(f"{layer.name}.forward", layer.forward_layer, "forward")
    back = _node(f"{layer.name}.backward", layer.backward_layer, "reverse")
    both = _joined(layer.name, ahead, back)
    return [ahead, back] if both is None else [both]


def _joined(name: str, ahead: OnnxNode, back: OnnxNode) -> OnnxNode | None:
    """Return one node with both directions, or None if they differ in what they share."""
    lists = ("activations", "activation_alpha", "activation_beta", "direction")
    shared = [{k: v for k, v in n.attributes.items() if k not in lists} for n in (ahead, back)]
    same_shape = ahead.weights[0].shape == back.weights[0].shape
    if ahead.op != back.op or shared[0] != shared[1] or not same_shape:
        return None
    attributes = {**shared[0], "direction": "bidirectional"}
    if "activations" in ahead.attributes or "activations" in back.attributes:
        defaults = DEFAULT_ACTIVATIONS[ahead.op]
        for key, default in zip(lists[:3], (defaults, [], []), strict=True):
            values = [v for n in (ahead, back) for v in n.attributes.get(key, default)]
            if values:
                attributes[key] = values
    w, r, b = (np.concatenate(pair) for pair in zip(ahead.weights, back.weights, strict=True))
    peepholes = None
    if ahead.peepholes is not None or back.peepholes is not None:
        zeros = np.zeros((1, 3 * w.shape[1] // 4), np.float32)
        peepholes = np.concatenate(
            [zeros if n.peepholes is None else n.peepholes for n in (ahead, back)]
        )
    first = {word: np.concatenate([ahead.first[word], back.first[word]]) for word in ahead.first}
    return OnnxNode(name, ahead.op, attributes, (w, r, b), peepholes, first)


def _node(name: str, layer: Recurrent, direction: str) -> OnnxNode:
    attributes: dict[str, Any] = {"hidden_size": layer.output_size}
    if direction != "forward":
        attributes["direction"] = direction
    if isinstance(layer, Lstm):
        _check_lstm(layer)
        attributes |= _activations("LSTM", layer.functions) | _clip(layer.clip)
        if layer.coupled:
            attributes["input_forget"] = 1
        peepholes = None if layer.peepholes is None else peepholes_to_onnx(layer.peepholes)[None]
        first = {
            "hidden": _first(layer, layer.initial_hidden),
            "cell": _first(layer, layer.initial_cell),
        }
        return OnnxNode(name, "LSTM", attributes, lstm_gates_to_onnx(layer.gates), peepholes, first)
    if isinstance(layer, Gru):
        attributes |= _activations("GRU", layer.functions) | _clip(layer.clip)
        if layer.reset_after:
            attributes["linear_before_reset"] = 1
        weights = gru_gates_to_onnx(layer.gates, layer.candidate_recurrent_bias)
        first = {"hidden": _first(layer, layer.initial_hidden)}
        return OnnxNode(name, "GRU", attributes, weights, None, first)
    if isinstance(layer, Rnn):
        attributes |= _activations("RNN", (layer.function,)) | _clip(layer.clip)
        w, r, bias = layer.gate.arrays()
        b = np.concatenate([bias, np.zeros_like(bias)])
        first = {"hidden": _first(layer, layer.initial_hidden)}
        return OnnxNode(name, "RNN", attributes, (w[None], r[None], b[None]), None, first)
    raise UnsupportedModel(f"layer {name!r} ({layer.type_name}): has no form in ONNX here")


def _check_lstm(layer: Lstm) -> None:
    """An LSTM written to ONNX must be without cell clip and projection clip."""
    if layer.cell_clip is not None or layer.projection is not None:
        found = (
            "a cell_clip" if layer.cell_clip is not None else "a projection that cannot be split"
        )
        raise UnsupportedModel(
            f"layer {layer.name!r} (lstm): has {found}, which ONNX's LSTM does not have; want an"
            " LSTM without, or write .tflite"
        )


def _first(layer: Recurrent, values: F32 | None) -> F32:
    return np.zeros((1, layer.output_size), np.float32) if values is None else values[None]


def _clip(clip: float | None) -> dict[str, Any]:
    return {} if clip is None else {"clip": clip}


def _activations(op: str, functions: tuple[Function, ...]) -> dict[str, Any]:
    """Return the attributes that name activations; none for the defaults."""
    names = [NAMES[function.name] for function in functions]
    if names == DEFAULT_ACTIVATIONS[op]:
        return {}
    alphas = [function.alpha for function in functions if function.alpha is not None]
    betas = [function.beta for function in functions if function.beta is not None]
    found: dict[str, Any] = {"activations": names}
    if alphas:
        found["activation_alpha"] = alphas
    if betas:
        found["activation_beta"] = betas
    return found
