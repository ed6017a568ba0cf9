"""The layer configuration that would complete a state dict, guessed from names and shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_lstm.arrays import Array
from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters import rules
from edge_lstm_converters.torch_lstm import RULES, WEIGHT_NAME, TorchRecurrent


@dataclass
class _Module:
    """The weights under one prefix."""

    prefix: str
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def recurrent(self) -> bool:
        return any(re.fullmatch(WEIGHT_NAME, name) for name in self.weights)

    @property
    def kind(self) -> str:
        """The type of a recurrent layer."""
        return TorchRecurrent(self.weights).kind or "lstm"

    @property
    def bidirectional(self) -> bool:
        return TorchRecurrent(self.weights).bidirectional

    @property
    def output_size(self) -> int:
        """Features that a recurrent module gives."""
        directions = 2 if self.bidirectional else 1
        return directions * int(self.weights["weight_hh_l0"].shape[1])

    @property
    def matrix(self) -> Array | None:
        """The weight of a Linear or Embedding."""
        weight = self.weights.get("weight")
        return weight if weight is not None and weight.ndim == 2 else None

    @property
    def where(self) -> str:
        return self.prefix or "the LSTM"


def suggest(where: str, weights: Mapping[str, Array]) -> str:
    """Return a configuration to be looked through and saved.

    Args:
        where: the file of the weights, for messages.
        weights: the state dict.

    Raises:
        UnsupportedModel: there is no LSTM, or a module that has no counterpart here.
    """
    modules: dict[str, _Module] = {}
    for name, values in weights.items():
        prefix, _, rest = name.rpartition(".")
        modules.setdefault(prefix, _Module(prefix)).weights[rest] = values
    recurrent = [m for m in modules.values() if m.recurrent]
    if not recurrent:
        raise UnsupportedModel(
            f"{where}: has no recurrent weights (weight_ih_l0 ...) among {len(weights)} tensors;"
            " want the state dict of a model with an LSTM, GRU or RNN"
        )
    for module in recurrent:
        rules.check(RULES, TorchRecurrent(module.weights), f"{where}: {module.where}")
        _check_matrices(where, module)
    layers, unplaced = _in_order(recurrent, [m for m in modules.values() if not m.recurrent])
    lines = ["# Guessed from names and shapes: check the order and each line that has a comment."]
    if unplaced:
        names = json.dumps([f"{m.prefix}.{n}" if m.prefix else n for m, n in unplaced])
        lines += [f"# ignore = {names}  # fits no layer; remove the # if the model runs without"]
    for number, (kind, module) in enumerate(layers):
        lines += ["", "[[layers]]", f'type = "{kind}"', f"weights = {json.dumps(module.prefix)}"]
        if module.recurrent:
            more = any(later.recurrent for _, later in layers[number + 1 :])
            word = "true" if more else "false"
            lines += [f"return_sequences = {word}  # true: every step; false: the last step"]
            if module.bidirectional and not more:
                lines += ["final_states = true  # true: h_n of both directions; false: last step"]
            if kind == "rnn":
                lines += ['nonlinearity = "tanh"  # or relu']
        elif kind == "dense":
            lines += ['activation = "linear"  # or relu, relu6, sigmoid, tanh, softmax']
    return "\n".join(lines) + "\n"


def _check_matrices(where: str, module: _Module) -> None:
    for name in ("weight_ih_l0", "weight_hh_l0"):
        if name not in module.weights:
            raise UnsupportedModel(
                f"{where}: {module.where} has no {name}; a recurrent layer has it"
            )
    for name, values in module.weights.items():
        if name.startswith("weight") and (values.ndim != 2 or 0 in values.shape):
            raise UnsupportedModel(
                f"{where}: {module.where}.{name}: shape {list(values.shape)}; want 2 axes"
            )


def _in_order(
    recurrent: list[_Module], others: list[_Module]
) -> tuple[list[tuple[str, _Module]], list[tuple[_Module, str]]]:
    """Return (type, module) in a likely order, and the weights that fit nowhere.

    A .safetensors file lists names by the alphabet, so sizes decide: each layer is fed what the
    layer before it gives.
    """
    layers: list[tuple[str, _Module]] = []
    waiting = list(others)
    first = recurrent[0].weights["weight_ih_l0"].shape[1]
    last = recurrent[-1].output_size
    for module in others:
        matrix = module.matrix
        if matrix is None or not _is_alone(module):
            continue
        # An embedding [tokens, features] has no bias; a dense layer in front rarely lacks one.
        if "bias" not in module.weights and matrix.shape[1] == first:
            layers.append(("embedding", module))
        elif matrix.shape[0] == first and matrix.shape[1] != last:
            layers.append(("dense", module))
        else:
            continue
        waiting.remove(module)
        break
    layers += [(module.kind, module) for module in recurrent]
    size = last
    while True:
        fits = (m for m in waiting if m.matrix is not None and m.matrix.shape[1] == size)
        module_next = next((m for m in fits if _is_alone(m)), None)
        if module_next is None or module_next.matrix is None:
            break
        waiting.remove(module_next)
        layers.append(("dense", module_next))
        size = len(module_next.matrix)
    return layers, [(module, name) for module in waiting for name in module.weights]


def _is_alone(module: _Module) -> bool:
    """Whether the module holds what a Linear or Embedding holds, and nothing else."""
    return set(module.weights) in ({"weight"}, {"weight", "bias"})
