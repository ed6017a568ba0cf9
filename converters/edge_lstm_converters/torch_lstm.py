"""The weights of one ``torch.nn.LSTM``, by PyTorch's names, as layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edge_lstm.arrays import Array
from edge_lstm.cells import Lstm
from edge_lstm.errors import UnreadableModel
from edge_lstm_converters import rules
from edge_lstm_converters.float_weights import as_float32, layer_name
from edge_lstm_converters.layouts import torch_lstm_gates

# weight_ih_l0, bias_hh_l1_reverse, weight_hr_l0; nn.LSTMCell's have no layer number.
WEIGHT_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(_l\d+)?(_reverse)?")


@dataclass(frozen=True, eq=False)
class TorchRecurrent:
    """One recurrent module of PyTorch: its weights by the names that its state dict gives them."""

    weights: Mapping[str, Array]

    def gates_per_cell(self) -> float:
        """Return the rows of the first recurrent weights for each of the module's cells."""
        names = sorted(n for n in self.weights if n.startswith("weight_hh"))
        first = self.weights[names[0]] if names else None
        if first is None or first.ndim != 2 or not first.shape[1]:
            return 0.0
        rows, cells = first.shape
        return float(rows / cells)


def must_not_be_bidirectional(module: TorchRecurrent) -> str | None:
    """LSTM must not be bidirectional."""
    found = [name for name in module.weights if name.endswith("_reverse")]
    return f"has {found[0]}" if found else None


def must_not_be_projected(module: TorchRecurrent) -> str | None:
    """LSTM must not have a projection (proj_size)."""
    found = [name for name in module.weights if name.startswith("weight_hr")]
    return f"has {found[0]}" if found else None


def must_be_a_layer(module: TorchRecurrent) -> str | None:
    """A recurrent module must be torch.nn.LSTM, not an LSTMCell called in a loop."""
    return "has weight_ih, with no layer number" if "weight_ih" in module.weights else None


def must_be_an_lstm(module: TorchRecurrent) -> str | None:
    """A recurrent module must be torch.nn.LSTM, not a GRU or RNN."""
    kind = {3.0: "a GRU", 1.0: "an RNN"}.get(module.gates_per_cell())
    return f"has the weights of {kind}" if kind else None


RULES = (
    must_not_be_bidirectional,
    must_not_be_projected,
    must_be_a_layer,
    must_be_an_lstm,
)


def torch_lstm(
    where: str, prefix: str, weights: Mapping[str, Array], taken: Collection[str]
) -> tuple[Lstm, ...]:
    """Return the layers of one ``nn.LSTM``, first to last.

    Args:
        where: file and layer, for messages.
        prefix: of the weights in the state dict; makes the layers' names.
        weights: by the names without the prefix, as ``weight_ih_l0``.
        taken: names of other layers.

    Raises:
        ModelError: a variant that has no counterpart here, a wrong shape, a weight that is NaN.
    """
    rules.check(RULES, TorchRecurrent(weights), where)
    depth = sum(name.startswith("weight_hh") for name in weights)
    base = layer_name(prefix, "lstm", taken)
    layers = []
    for k in range(depth):
        for part in ("weight_ih", "weight_hh"):
            if f"{part}_l{k}" not in weights:
                raise UnreadableModel(
                    f"{where}: {part}_l{k} is missing; an LSTM of {depth} layers has it"
                )
        given = (
            None
            if f"{part}_l{k}" not in weights
            else as_float32(f"{where}, {part}_l{k}", weights[f"{part}_l{k}"])
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        weight_ih, weight_hh, bias_ih, bias_hh = given
        assert weight_ih is not None
        assert weight_hh is not None
        gates = torch_lstm_gates(f"{where}, layer {k}", weight_ih, weight_hh, bias_ih, bias_hh)
        name = base if depth == 1 else layer_name(f"{base}_l{k}", "lstm", taken)
        layers.append(Lstm(name, gates))
    return tuple(layers)
