"""A ModelSpec as a ``torch.nn.Module``, and the session that carries its states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Activation, Dense, Embedding, Flatten, LastStep, Layer, Lstm
from edge_lstm.errors import EdgeLstmError, UnsupportedModel, UsageError
from edge_lstm.spec import ModelSpec

ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softmax": lambda: nn.Softmax(dim=-1),
}


class Pick(nn.Module):
    """Takes the last step of ``[batch, time, features]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[batch, features]``."""
        return x[:, -1]


class Net(nn.Module):
    """The layers in order; each LSTM is given a pair of states and gives one back."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        modules = [module for layer in spec.layers for module in _modules(layer)]
        self.layers = nn.ModuleList(modules)
        self.recurrent = [isinstance(module, nn.LSTM) for module in modules]

    def forward(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs of all steps and the states after them, hidden then cell."""
        left, new = list(states), []
        for layer, is_recurrent in zip(self.layers, self.recurrent, strict=True):
            if is_recurrent:
                x, (hidden, cell) = layer(x, (left.pop(0), left.pop(0)))
                new += [hidden, cell]
            else:
                x = layer(x)
        return x, new


def _modules(layer: Layer) -> list[nn.Module]:
    """Return what a layer is in PyTorch."""
    if isinstance(layer, Lstm):
        return [_lstm(layer)]
    if isinstance(layer, Dense):
        linear = nn.Linear(layer.weights.shape[1], layer.weights.shape[0])
        _set(linear, weight=layer.weights, bias=layer.bias)
        return [linear, *([] if layer.activation == "none" else [ACTIVATIONS[layer.activation]()])]
    if isinstance(layer, Activation):
        return [ACTIVATIONS[layer.kind]()]
    if isinstance(layer, Embedding):
        return [nn.Embedding.from_pretrained(torch.tensor(layer.table))]
    if isinstance(layer, Flatten):
        return [nn.Flatten()]
    if isinstance(layer, LastStep):
        return [Pick()]
    raise UnsupportedModel(f"layer {layer.name!r}: {layer.type_name} has no form in torch here")


def _lstm(layer: Lstm) -> nn.LSTM:
    hidden, size = layer.gates[0].input_weights.shape
    module = nn.LSTM(size, hidden, batch_first=True)
    # PyTorch stacks i, f, g, o, as we do; of its two biases the second is 0.
    _set(
        module,
        weight_ih_l0=np.concatenate([gate.input_weights for gate in layer.gates]),
        weight_hh_l0=np.concatenate([gate.recurrent_weights for gate in layer.gates]),
        bias_ih_l0=np.concatenate([gate.bias for gate in layer.gates]),
        bias_hh_l0=np.zeros(4 * hidden, np.float32),
    )
    return module


def _set(module: nn.Module, **values: F32) -> None:
    module.load_state_dict({name: torch.tensor(value) for name, value in values.items()})


def first_states(spec: ModelSpec) -> list[F32]:
    """Return the first hidden and cell of each LSTM, [hidden] each."""
    found = []
    for layer in spec.layers:
        if isinstance(layer, Lstm):
            zeros = np.zeros(len(layer.gates[0].bias), np.float32)
            for values in (layer.initial_hidden, layer.initial_cell):
                found.append(zeros if values is None else values)
    return found


class TorchSession:
    """Runs the module without gradients; states stay on the device.

    Args:
        spec: the model.
        batch_size: rows.
        device: ``cpu`` or ``cuda``.
        how: ``eager``, ``compiled`` or ``int8``.
    """

    def __init__(self, spec: ModelSpec, batch_size: int, device: str, how: str) -> None:
        self._batch_size, self._device = batch_size, device
        net: Any = Net(spec).eval().to(device)
        self.ran_on: str | None = None
        if how == "compiled":
            net = torch.compile(net)
            if not torch._dynamo.config.allow_rnn:
                self.ran_on = "torch.compile leaves the LSTM as it is, and compiles the rest"
        elif how == "int8":
            net = _quantized(net)
        self._net = net
        self._first = [
            torch.tensor(values).expand(1, batch_size, -1).contiguous().to(device)
            for values in first_states(spec)
        ]
        self.reset()

    def reset(self) -> None:
        """Set the state to its first value."""
        self._states = self._first

    def step(self, x: Array) -> Array:
        """Run one step."""
        return self._call(x[:, None]).reshape(self._batch_size, -1)

    def run(self, x: Array) -> Array:
        """Run steps of any number in one call."""
        return self._call(x)

    def _call(self, x: Array) -> Array:
        if len(x) != self._batch_size:
            raise UsageError(f"input: {len(x)} rows; want {self._batch_size}, as the session has")
        with torch.inference_mode():
            y, self._states = self._net(torch.from_numpy(x).to(self._device), self._states)
            outputs: Array = y.cpu().numpy()
        return outputs


def _quantized(net: Net) -> Any:
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError as error:
        raise EdgeLstmError(f"torch {torch.__version__}: has no quantize_dynamic") from error
    return quantize_dynamic(net, {nn.LSTM, nn.Linear})
