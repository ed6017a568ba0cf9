"""Random modules of PyTorch for the round trips: every option that the readers take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

Rng = np.random.Generator
BATCH, TIME = 3, 11
CELLS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Chain(nn.Module):
    """Runs parts one after the other, each a module and what it does with it."""

    def __init__(self, parts: list[tuple[nn.Module, Callable[[Any, Any], Any]]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(module for module, _ in parts)
        self.uses = [use for _, use in parts]

    def forward(self, x: Any) -> Any:
        for part, use in zip(self.parts, self.uses, strict=True):
            x = use(part, x)
        return x


Part = tuple[nn.Module, Callable[[Any, Any], Any]]


def called(module: Any, x: Any) -> Any:
    return module(x)


def features_first(module: Any, x: Any) -> Any:
    """Run a module that wants [batch, features, time]."""
    return module(x.transpose(1, 2)).transpose(1, 2)


def per_step(rng: Rng, size: int) -> tuple[list[Part], int]:
    """Return a layer that treats every step alike, or none, and the features behind it."""
    after = int(rng.integers(2, 6))
    choices: list[Callable[[], tuple[list[Part], int]]] = [
        lambda: ([], size),
        lambda: ([(nn.Dropout(0.3), called)], size),
        lambda: ([(nn.Linear(size, after), called), (nn.ReLU(), called)], after),
        lambda: ([(nn.Linear(size, after, bias=False), called), (nn.Tanh(), called)], after),
        lambda: ([(nn.LayerNorm(size, eps=float(rng.choice([1e-5, 1e-3]))), called)], size),
        lambda: ([(nn.BatchNorm1d(size, affine=bool(rng.random() < 0.7)), features_first)], size),
        lambda: ([(nn.LeakyReLU(0.2), called)], size),
        lambda: ([(nn.ELU(0.7), called)], size),
        lambda: ([(nn.Sigmoid(), called)], size),
        lambda: ([(nn.Hardtanh(0.0, 6.0), called)], size),
    ]
    return choices[int(rng.integers(len(choices)))]()


def front(rng: Rng, size: int) -> tuple[list[Part], int]:
    """Return a convolution along time, and pooling, as in front of the LSTM of a CNN-LSTM."""
    after, kernel = 2 * int(rng.integers(1, 4)), int(rng.integers(1, 4))
    conv = nn.Conv1d(
        size,
        after,
        kernel,
        stride=int(rng.integers(1, 3)),
        padding=int(rng.integers(0, 2)),
        dilation=int(rng.integers(1, 3)),
        bias=bool(rng.random() < 0.8),
    )
    parts: list[Part] = [(conv, features_first), (nn.ReLU(), called)]
    if rng.random() < 0.6:
        pool = nn.MaxPool1d(2, 1) if rng.random() < 0.5 else nn.AvgPool1d(2, 1)
        parts.append((pool, features_first))
    return parts, after


def joined_state(module: Any, x: Any) -> Any:
    """Return the last layer's final hidden state, both directions joined."""
    state = module(x)[1]
    state = state[0] if isinstance(state, tuple) else state
    return torch.cat([state[-2], state[-1]], dim=1) if module.bidirectional else state[-1]


def every_step(module: Any, x: Any) -> Any:
    return module(x)[0]


def last_step(module: Any, x: Any) -> Any:
    return module(x)[0][:, -1]


def turned(use: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a use of a module with batch_first=False for values with the batch first."""

    def used(module: Any, x: Any) -> Any:
        y = module(x.transpose(0, 1))
        steps = y[0].transpose(0, 1)
        return use(lambda _: (steps, y[1]), x) if use is not joined_state else _state(module, y)

    return used


def _state(module: Any, y: Any) -> Any:
    state = y[1][0] if isinstance(y[1], tuple) else y[1]
    return torch.cat([state[-2], state[-1]], dim=1) if module.bidirectional else state[-1]


def recurrent(rng: Rng, size: int, *, every: bool, projections: bool) -> tuple[Part, int]:
    """Return a recurrent module with random options, and the features behind it."""
    kind = str(rng.choice(list(CELLS)))
    hidden = int(rng.integers(2, 6))
    options: dict[str, Any] = {
        "num_layers": int(rng.choice([1, 1, 2, 3])),
        "bidirectional": bool(rng.random() < 0.4),
        "bias": bool(rng.random() < 0.7),
        "batch_first": bool(rng.random() < 0.7),
    }
    options["dropout"] = 0.2 if options["num_layers"] > 1 else 0.0
    after = hidden
    if kind == "lstm" and projections and rng.random() < 0.3:
        after = options["proj_size"] = int(rng.integers(1, hidden))
    if kind == "rnn":
        options["nonlinearity"] = str(rng.choice(["tanh", "relu"]))
    module = CELLS[kind](size, hidden, **options)
    use: Callable[[Any, Any], Any]
    use = every_step if every else (last_step if rng.random() < 0.4 else joined_state)
    if not options["batch_first"]:
        use = turned(use)
    return (module, use), after * (1 + options["bidirectional"])


def random_net(seed: int, *, projections: bool = True) -> tuple[Any, Any]:
    """Return a module in eval mode and an input, [batch, time, features] or token ids.

    Args:
        seed: of all choices and weights.
        projections: whether an LSTM may have one.
    """
    rng = np.random.default_rng([7, seed])
    torch.manual_seed(seed)
    parts: list[Part] = []
    if rng.random() < 0.25:
        size = int(rng.integers(2, 5))
        x = torch.randint(0, 9, (BATCH, TIME))
        parts.append((nn.Embedding(9, size), called))
    else:
        size = int(rng.integers(1, 6))
        x = torch.randn(BATCH, TIME, size)
        if rng.random() < 0.3:
            more, size = front(rng, size)
            parts += more
    vector = bool(rng.random() < 0.6)
    count = int(rng.integers(1, 3))
    for number in range(count):
        more, size = per_step(rng, size)
        parts += more
        every = number < count - 1 or not vector
        part, size = recurrent(rng, size, every=every, projections=projections)
        parts.append(part)
    if not vector:
        more, size = per_step(rng, size)
        parts += more
        if rng.random() < 0.3:
            parts.append((nn.Identity(), lambda _, y: y.mean(1)))
    head = nn.Linear(size, int(rng.integers(1, 4)))
    parts.append((head, called))
    if rng.random() < 0.4:
        parts.append((nn.Softmax(-1), called))
    net = Chain(parts).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):  # statistics that training leaves
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for name, parameter in net.named_parameters():
        if "weight_" in name:
            parameter.data *= 1.5  # as PyTorch starts them, no gate leaves its straight part
    return net, x
