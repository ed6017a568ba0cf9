"""The weights of one ``torch.nn.LSTM``, ``GRU`` or ``RNN``, by PyTorch's names, as layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Bidirectional, Gate, Gru, Lstm, Recurrent, Rnn
from edge_lstm.cells.functions import RELU, TANH
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm_converters import rules
from edge_lstm_converters.float_weights import as_float32, layer_name
from edge_lstm_converters.layouts import GRU_TORCH_ORDER, gru_gates, torch_lstm_gates

# weight_ih_l0, bias_hh_l1_reverse, weight_hr_l0; nn.LSTMCell's have no layer number.
WEIGHT_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(_l\d+)?(_reverse)?")
Kind = Literal["lstm", "gru", "rnn"]
GATE_COUNTS: dict[Kind, int] = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True, eq=False)
class TorchRecurrent:
    """One recurrent module of PyTorch: its weights by the names that its state dict gives them."""

    weights: Mapping[str, Array]

    @property
    def kind(self) -> Kind | None:
        """What the shapes say it is."""
        if any(name.startswith("weight_hr") for name in self.weights):
            return "lstm"
        kinds = {count: kind for kind, count in GATE_COUNTS.items()}
        names = sorted(n for n in self.weights if n.startswith("weight_hh"))
        first = self.weights[names[0]] if names else None
        if first is None or first.ndim != 2 or not first.shape[1] or len(first) % first.shape[1]:
            return None
        return kinds.get(len(first) // first.shape[1])

    @property
    def depth(self) -> int:
        """How many layers it stacks."""
        return sum(re.fullmatch(r"weight_hh_l\d+", name) is not None for name in self.weights)

    @property
    def bidirectional(self) -> bool:
        """Whether it runs in both directions."""
        return any(name.endswith("_reverse") for name in self.weights)


def must_be_a_layer(module: TorchRecurrent) -> str | None:
    """A state dict must hold torch.nn.LSTM, GRU or RNN; of an LSTMCell in a loop, give the .pt2."""
    return "has weight_ih, with no layer number" if "weight_ih" in module.weights else None


RULES = (must_be_a_layer,)


def torch_recurrent(
    where: str,
    prefix: str,
    weights: Mapping[str, Array],
    taken: Collection[str],
    kind: Kind = "lstm",
    nonlinearity: str = "tanh",
) -> tuple[Recurrent | Bidirectional, ...]:
    """Return the layers of one recurrent module, first to last.

    Args:
        where: file and layer, for messages.
        prefix: of the weights in the state dict; makes the layers' names.
        weights: by the names without the prefix, as ``weight_ih_l0``.
        taken: names of other layers.
        kind: what the module is.
        nonlinearity: of an RNN, tanh or relu.

    Raises:
        ModelError: a variant that has no counterpart here, a wrong shape, a weight that is NaN.
    """
    module = TorchRecurrent(weights)
    rules.check(RULES, module, where)
    if module.kind not in (None, kind):
        raise UnsupportedModel(
            f"{where}: has the weights of {_article(module.kind)}; want those of {_article(kind)}"
        )
    base = layer_name(prefix, kind, taken)
    layers: list[Recurrent | Bidirectional] = []
    for k in range(module.depth):
        name = base if module.depth == 1 else layer_name(f"{base}_l{k}", kind, taken)
        ahead = _one_direction(where, name, weights, f"_l{k}", kind, nonlinearity)
        if module.bidirectional:
            back = _one_direction(where, name, weights, f"_l{k}_reverse", kind, nonlinearity)
            layers.append(Bidirectional(name, ahead, back))
        else:
            layers.append(ahead)
    return tuple(layers)


def _article(kind: Kind | None) -> str:
    return {"lstm": "an LSTM", "gru": "a GRU", "rnn": "an RNN"}.get(kind or "", "another module")


def _one_direction(
    where: str,
    name: str,
    weights: Mapping[str, Array],
    suffix: str,
    kind: Kind,
    nonlinearity: str,
) -> Recurrent:
    """Return one layer in one direction; ``suffix`` as ``_l0_reverse``."""
    given: dict[str, F32] = {}
    for part in ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh"):
        if part + suffix in weights:
            given[part] = as_float32(f"{where}, {part}{suffix}", weights[part + suffix])
    for part in ("weight_ih", "weight_hh"):
        if part not in given:
            raise UnreadableModel(
                f"{where}: {part}{suffix} is missing; each layer and direction has it"
            )
    words = suffix.removeprefix("_l").replace("_reverse", ", backward")
    at = f"{where}, layer {words}"
    if kind == "lstm":
        return _lstm(at, name, given)
    w, r = given["weight_ih"], given["weight_hh"]
    rows = _check_shapes(at, w, r, GATE_COUNTS[kind])
    biases = tuple(_bias(at, part, given.get(part), rows) for part in ("bias_ih", "bias_hh"))
    if kind == "gru":
        pair = (biases[0], biases[1])
        gates, extra = gru_gates(w, r, pair, GRU_TORCH_ORDER, reset_after=True)
        return Gru(name, gates, extra)
    bias = np.ascontiguousarray(biases[0] + biases[1], np.float32)
    gate = Gate(np.ascontiguousarray(w, np.float32), np.ascontiguousarray(r, np.float32), bias)
    return Rnn(name, gate, function=RELU if nonlinearity == "relu" else TANH)


def _lstm(at: str, name: str, given: Mapping[str, F32]) -> Lstm:
    """Return an LSTM, with or without projection."""
    w, r, projection = given["weight_ih"], given["weight_hh"], given.get("weight_hr")
    gates = torch_lstm_gates(
        at, w, r, given.get("bias_ih"), given.get("bias_hh"), projected=projection is not None
    )
    if projection is not None:
        projection = np.ascontiguousarray(projection, np.float32)
    return Lstm(name, gates, projection=projection)


def _check_shapes(at: str, w: F32, r: F32, count: int) -> int:
    """Return the rows of the weights of ``count`` gates."""
    hidden = r.shape[-1] if r.ndim == 2 else 0
    if r.ndim != 2 or hidden == 0 or len(r) != count * hidden:
        raise UnsupportedModel(
            f"{at}, weight_hh: shape {list(r.shape)}; want [{count}*hidden, hidden]"
        )
    if w.ndim != 2 or w.shape[1] == 0 or len(w) != count * hidden:
        raise UnsupportedModel(
            f"{at}, weight_ih: shape {list(w.shape)}; want [{count}*hidden, input] with"
            f" hidden = {hidden}"
        )
    return count * hidden


def _bias(at: str, part: str, values: F32 | None, rows: int) -> F32:
    """Return a bias; with ``bias=False``: zeros."""
    if values is None:
        return np.zeros(rows, np.float32)
    if values.shape != (rows,):
        raise UnsupportedModel(f"{at}, {part}: shape {list(values.shape)}; want [{rows}]")
    return values
