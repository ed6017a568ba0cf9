"""Rewrites a ModelSpec, exactly in float, into the layers that the integer kernels have.

The kernels of TFLM and CMSIS-NN run the textbook LSTM and Dense. A projection, coupled gates and
a batch normalization are those in other words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import F32, F64
from edge_lstm.cells import (
    Backward,
    Bidirectional,
    Dense,
    Dropout,
    Elementwise,
    Gate,
    Lstm,
    Recurrent,
    Scale,
)
from edge_lstm.cells.functions import SIGMOID
from edge_lstm.spec import Layer, ModelSpec

# The int8 kernels hold pre-activations as Q3.12: they saturate at 8 by themselves.
KERNEL_CLIP = 8.0
# Of the first hidden state, as far as float32 weights can tell.
SOLVED = 1e-5


def plain_form(spec: ModelSpec) -> tuple[ModelSpec, tuple[str, ...]]:
    """Return the model in the layers that quantize best, and what was rewritten, in words.

    The same function of the same inputs in float; what has no plain form stays as it is. A model
    that is in plain form already comes back unchanged.
    """
    layers: list[Layer] = []
    notes: list[str] = []
    for layer, signal in zip(spec.layers, spec.signals(), strict=False):
        layers += _rewritten(_as_scale(layer, signal.size), notes, _plain_lstm)
    while True:  # of two scales in a row, the second goes first
        known = len(notes)
        layers = _without_scales(layers, notes)
        if len(notes) == known:
            break
    if not notes:
        return spec, ()
    return replace(spec, layers=tuple(layers)), tuple(notes)


def without_projections(spec: ModelSpec) -> ModelSpec:
    """Return the model with each projection of an LSTM as a Dense; ONNX's LSTM has none."""
    layers = [new for layer in spec.layers for new in _rewritten(layer, [], _split_projection)]
    return replace(spec, layers=tuple(layers))


def _as_scale(layer: Layer, size: int) -> Layer:
    """Return a factor and an offset for all features as a Scale; any other layer as it is."""
    if not isinstance(layer, Elementwise) or layer.function.name != "affine":
        return layer
    alpha, beta = layer.function.alpha or 0.0, layer.function.beta or 0.0
    return Scale(layer.name, np.full(size, alpha, np.float32), np.full(size, beta, np.float32))


Rewrite = Callable[[Lstm, list[str]], tuple[Lstm, tuple[F64, F64] | None]]
"""From an LSTM to another one, and the weights and bias behind it."""


def _rewritten(layer: Layer, notes: list[str], rewrite: Rewrite) -> list[Layer]:
    """Return what takes the place of one layer."""
    if isinstance(layer, Lstm):
        lstm, projection = rewrite(layer, notes)
        return [lstm] if projection is None else [lstm, _projection(layer.name, *projection)]
    if isinstance(layer, Backward) and isinstance(layer.layer, Lstm):
        lstm, projection = rewrite(layer.layer, notes)
        backward = replace(layer, layer=lstm)
        return (
            [backward] if projection is None else [backward, _projection(layer.name, *projection)]
        )
    if isinstance(layer, Bidirectional):
        return _plain_bidirectional(layer, notes, rewrite)
    return [layer]


def _projection(name: str, weights: F64, bias: F64) -> Dense:
    return Dense(f"{name}_projection", _f32(weights), _f32(bias))


def _plain_bidirectional(layer: Bidirectional, notes: list[str], rewrite: Rewrite) -> list[Layer]:
    parts = (layer.forward_layer, layer.backward_layer)
    plain: list[Recurrent] = []
    blocks = []
    for part in parts:
        projection = None
        lstm = part
        # A product of projections is no projection.
        if isinstance(part, Lstm) and (layer.merge != "mul" or part.projection is None):
            lstm, projection = rewrite(part, notes)
        plain.append(lstm)
        size = lstm.output_size
        blocks.append((np.eye(size), np.zeros(size)) if projection is None else projection)
    if layer.merge == "ave":
        notes.append(f"layer {layer.name!r}: its mean is written as a Dense after a concatenation")
    elif not any(isinstance(p, Lstm) and p.projection is not None for p in parts) or all(
        isinstance(p, Lstm) and p.projection is not None for p in plain
    ):
        return [replace(layer, forward_layer=plain[0], backward_layer=plain[1])]
    both = replace(layer, forward_layer=plain[0], backward_layer=plain[1], merge="concat")
    (a, a_bias), (b, b_bias) = blocks
    if layer.merge != "concat":
        share = 0.5 if layer.merge == "ave" else 1.0
        total = _projection(layer.name, share * np.hstack([a, b]), share * np.add(a_bias, b_bias))
        return [both, total]
    corner = np.zeros((len(a), b.shape[1])), np.zeros((len(b), a.shape[1]))
    weights: F64 = np.block([[a, corner[0]], [corner[1], b]])
    return [both, _projection(layer.name, weights, np.concatenate([a_bias, b_bias]))]


def _plain_lstm(lstm: Lstm, notes: list[str]) -> tuple[Lstm, tuple[F64, F64] | None]:
    """Return the LSTM without what can be said otherwise, and the weights and bias after it."""
    where = f"layer {lstm.name!r}"
    if lstm.clip is not None and lstm.clip >= KERNEL_CLIP:
        notes.append(f"{where}: clip {lstm.clip:g} is left out; int8 kernels saturate at 8")
        lstm = replace(lstm, clip=None)
    if lstm.coupled and lstm.functions[0] == SIGMOID:
        # 1 - sigmoid(a) = sigmoid(-a)
        i, _, g, o = lstm.gates
        lstm = replace(lstm, coupled=False, gates=(i, Gate(*(-a for a in i.arrays())), g, o))
        if lstm.peepholes is not None:
            kept = lstm.peepholes
            lstm = replace(lstm, peepholes=np.stack([kept[0], -kept[0], kept[2]]))
        notes.append(f"{where}: its coupled gates are written as an LSTM with four gates")
    return _split_projection(lstm, notes)


def _split_projection(lstm: Lstm, notes: list[str]) -> tuple[Lstm, tuple[F64, F64] | None]:
    """Return the LSTM without its projection, and the projection's weights and bias."""
    if lstm.projection is None or lstm.projection_clip is not None:
        return lstm, None
    weights = lstm.projection.astype(np.float64)
    bias = np.zeros(len(weights))
    if lstm.projection_bias is not None:
        bias = lstm.projection_bias.astype(np.float64)
    first = _unprojected(lstm, weights, bias)
    if first is None:
        return lstm, None
    gates = tuple(
        Gate(
            gate.input_weights,
            _f32(gate.recurrent_weights.astype(np.float64) @ weights),
            _f32(gate.bias.astype(np.float64) + gate.recurrent_weights.astype(np.float64) @ bias),
        )
        for gate in lstm.gates
    )
    notes.append(
        f"layer {lstm.name!r}: its projection is folded into the recurrent weights, and a Dense"
        " after"
    )
    plain = replace(
        lstm,
        gates=gates,  # type: ignore[arg-type]
        projection=None,
        projection_bias=None,
        initial_hidden=_f32(first) if first.any() else None,
    )
    return plain, (weights, bias)


def _unprojected(lstm: Lstm, weights: F64, bias: F64) -> F64 | None:
    """Return a first state whose projection is the LSTM's; None: there is none."""
    wanted = -bias if lstm.initial_hidden is None else lstm.initial_hidden - bias
    if not wanted.any():
        return np.zeros(weights.shape[1])
    first: F64 = np.asarray(np.linalg.lstsq(weights, wanted, rcond=None)[0], np.float64)
    missed = np.abs(weights @ first - wanted).max()
    return first if missed <= SOLVED * np.abs(wanted).max() else None


def _without_scales(layers: list[Layer], notes: list[str]) -> list[Layer]:
    """Return the layers with each Scale inside the Dense before it, or the layer behind it."""
    found: list[Layer] = []
    rest = [layer for layer in layers if not isinstance(layer, Dropout)]
    if not any(isinstance(layer, Scale) for layer in rest):
        return layers
    for number, layer in enumerate(rest):
        if isinstance(layer, Scale):
            factor, offset = layer.factor.astype(np.float64), layer.offset.astype(np.float64)
            before = found[-1] if found else None
            behind = rest[number + 1] if number + 1 < len(rest) else None
            if isinstance(before, Dense) and before.activation == "none":
                found[-1] = replace(
                    before,
                    weights=_f32(before.weights * factor[:, None]),
                    bias=_f32(before.bias * factor + offset),
                )
            elif behind is not None and (folded := _scaled_input(behind, factor, offset)):
                rest[number + 1] = folded
            else:
                found.append(layer)
                continue
            notes.append(f"layer {layer.name!r}: is folded into the layer beside it")
        else:
            found.append(layer)
    return found


def _scaled_input(layer: Layer, factor: F64, offset: F64) -> Layer | None:
    """Return the layer with the scale of its input inside its weights; None: it has no such."""
    if isinstance(layer, Dense):
        weights = layer.weights.astype(np.float64)
        bias = _f32(layer.bias + weights @ offset)
        return replace(layer, weights=_f32(weights * factor), bias=bias)
    if isinstance(layer, Lstm):
        gates = tuple(
            Gate(
                _f32(gate.input_weights * factor),
                gate.recurrent_weights,
                _f32(gate.bias + gate.input_weights.astype(np.float64) @ offset),
            )
            for gate in layer.gates
        )
        return replace(layer, gates=gates)  # type: ignore[arg-type]
    if isinstance(layer, Backward) and (inner := _scaled_input(layer.layer, factor, offset)):
        return replace(layer, layer=inner)  # type: ignore[arg-type]
    if isinstance(layer, Bidirectional):
        ahead = _scaled_input(layer.forward_layer, factor, offset)
        back = _scaled_input(layer.backward_layer, factor, offset)
        if ahead is not None and back is not None:
            return replace(layer, forward_layer=ahead, backward_layer=back)  # type: ignore[arg-type]
    return None


def _f32(values: F64) -> F32:
    return np.ascontiguousarray(values, np.float32)
