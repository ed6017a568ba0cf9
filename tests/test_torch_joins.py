"""Branches, sums, final states and directions of PyTorch models, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
from torch import nn  # noqa: E402

from edge_lstm.errors import UnsupportedModel  # noqa: E402
from edge_lstm_converters.read_torch import read_module  # noqa: E402
from torch_nets import relative_difference  # noqa: E402

torch.set_num_threads(1)
BATCH, TIME, SIZE = 3, 7, 4  # features and hidden are equal: what is confused keeps its shape
RELATIVE = 1e-5  # the task's bound; PyTorch computes in float32


class Net(nn.Module):
    """Runs a function over layers of every kind."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.function = function
        options: dict[str, Any] = {"batch_first": True}
        self.a, self.b = nn.LSTM(SIZE, SIZE, **options), nn.GRU(SIZE, SIZE, **options)
        self.deep = nn.GRU(SIZE, SIZE, 3, **options)
        self.bi = nn.LSTM(SIZE, SIZE, bidirectional=True, **options)
        self.deep_bi = nn.GRU(SIZE, SIZE, 2, bidirectional=True, **options)
        self.time_first = nn.RNN(SIZE, SIZE)
        self.p, self.q = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.conv = nn.Conv1d(SIZE, SIZE, 3, padding=1)
        self.mean, self.scale = nn.Parameter(torch.randn(SIZE)), nn.Parameter(torch.rand(SIZE) + 1)
        for parameter in self.parameters():
            parameter.data *= 2  # as PyTorch starts them, no gate leaves its straight part

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


class Case(NamedTuple):
    """What a module computes, and the layers that it must become."""

    function: Callable[[Any, Any], Any]
    layers: str


def chain_of_skips(m: Any, x: Any) -> Any:
    for layer in (m.a, m.b, m.time_first):
        y = layer(x.transpose(0, 1))[0].transpose(0, 1) if layer is m.time_first else layer(x)[0]
        x = x + y
    return x


def added_in_place(m: Any, x: Any) -> Any:
    y = m.a(x)[0]
    y += x
    y *= m.scale
    return y


ACCEPTED = {
    "skip": Case(lambda m, x: m.a(x)[0] + x, "parallel"),
    "chain of skips": Case(chain_of_skips, "parallel parallel parallel"),
    "joined with the input": Case(lambda m, x: torch.cat([m.a(x)[0], x], -1), "parallel"),
    "two layers, joined": Case(lambda m, x: torch.cat([m.a(x)[0], m.b(x)[0]], 2), "parallel"),
    "two layers, multiplied": Case(lambda m, x: m.a(x)[0] * m.b(x)[0], "parallel"),
    "three": Case(lambda m, x: m.p(m.a(x)[0]) + m.b(x)[0] * m.q(x), "parallel"),
    "gated": Case(lambda m, x: torch.sigmoid(m.p(x)) * m.a(x)[0], "parallel"),
    "last steps, joined": Case(
        lambda m, x: m.q(m.a(x)[0][:, -1] + m.b(x)[1][-1]), "parallel laststep dense"
    ),
    "steps of one layer, joined": Case(
        lambda m, x: torch.cat([m.a(x)[0][:, -1], m.a(x)[0][:, -2]], 1), "lstm parallel"
    ),
    "pooled and last": Case(
        lambda m, x: torch.cat([m.a(x)[0].mean(1), m.a(x)[0].amax(1), m.a(x)[0][:, -1]], 1),
        "lstm parallel",
    ),
    "convolution beside": Case(
        lambda m, x: m.a(x)[0] + m.conv(x.transpose(1, 2)).transpose(1, 2), "parallel"
    ),
    "convolution pooled beside": Case(
        lambda m, x: torch.cat([m.a(x)[0][:, -1], m.conv(x.transpose(1, 2)).amax(2)], 1),
        "parallel",
    ),
    "time first and second": Case(
        lambda m, x: m.a(x)[0].transpose(0, 1) + m.time_first(x.transpose(0, 1))[0], "parallel"
    ),
    "a dense layer of two branches": Case(
        lambda m, x: torch.relu(m.p(m.a(x)[0])) + m.p(m.a(x)[0]), "lstm parallel"
    ),
    "in place": Case(added_in_place, "parallel scale"),
    "final states of all layers": Case(
        lambda m, x: m.deep(x)[1].permute(1, 0, 2).reshape(BATCH, -1),
        "gru parallel laststep",
    ),
    "final states of all directions": Case(
        lambda m, x: m.deep_bi(x)[1].transpose(0, 1).flatten(1), "parallel"
    ),
    "final states by their numbers": Case(
        lambda m, x: torch.cat([m.deep_bi(x)[1][k] for k in (3, 0, 2)], 1), "parallel"
    ),
    "final states of the last layer": Case(
        lambda m, x: (
            m.deep_bi(x)[1].view(2, 2, BATCH, SIZE)[-1].permute(1, 0, 2).reshape(BATCH, -1)
        ),
        "bidirectional bidirectional",
    ),
    "final states taken apart": Case(
        lambda m, x: torch.cat(m.deep_bi(x)[1].unbind(0)[2:], -1), "bidirectional bidirectional"
    ),
    "final states, a slice": Case(
        lambda m, x: torch.cat([m.deep_bi(x)[1][-2, :, :], m.deep_bi(x)[1][-1, :, :]], 1),
        "bidirectional bidirectional",
    ),
    "final states, added": Case(lambda m, x: m.bi(x)[1][0].sum(0), "bidirectional"),
    "final states, their mean": Case(lambda m, x: m.deep(x)[1].mean(0), "gru parallel laststep"),
    "final states, the other way round": Case(
        lambda m, x: torch.cat([m.bi(x)[1][0][1], m.bi(x)[1][0][0]], 1), "parallel"
    ),
    "directions, added": Case(
        lambda m, x: (lambda y: y[..., :SIZE] + y[..., SIZE:])(m.bi(x)[0]), "bidirectional"
    ),
    "directions, chunked and multiplied": Case(
        lambda m, x: (lambda y: y[0] * y[1])(m.bi(x)[0].chunk(2, -1)), "bidirectional"
    ),
    "directions, on an axis": Case(
        lambda m, x: m.bi(x)[0].view(BATCH, TIME, 2, SIZE).mean(2), "bidirectional"
    ),
    "directions, each at its end": Case(
        lambda m, x: (lambda y: torch.cat([y[:, -1, :SIZE], y[:, 0, SIZE:]], 1))(m.bi(x)[0]),
        "bidirectional",
    ),
    "directions, each at its end, on an axis": Case(
        lambda m, x: (lambda y: torch.cat([y[:, -1, 0], y[:, 0, 1]], 1))(
            m.bi(x)[0].view(BATCH, TIME, 2, SIZE)
        ),
        "bidirectional",
    ),
    "the last step of both directions": Case(
        lambda m, x: m.bi(x)[0][:, -1], "bidirectional laststep"
    ),
    "backward alone": Case(lambda m, x: m.bi(x)[0][..., SIZE:], "backward lstm"),
    "normalised": Case(lambda m, x: m.a((x - m.mean) / m.scale)[0], "scale scale lstm"),
    "normalised, features first": Case(
        lambda m, x: m.a((x.transpose(1, 2) * m.scale[None, :, None]).transpose(1, 2))[0],
        "scale lstm",
    ),
    "numbers": Case(lambda m, x: 1 - m.a(2 * x - 1)[0] / 3, "affine affine lstm affine affine"),
    "the greatest": Case(lambda m, x: m.a(x)[0].max(1)[0], "lstm global_max_pool"),
    "the greatest, pooled": Case(
        lambda m, x: nn.functional.adaptive_max_pool1d(m.a(x)[0].transpose(1, 2), 1).squeeze(2),
        "lstm global_max_pool",
    ),
    "the last steps, flattened": Case(
        lambda m, x: m.a(x)[0][:, -3:].reshape(BATCH, -1), "lstm steps flatten"
    ),
    "zeros in front of a sum": Case(
        lambda m, x: sum([m.a(x)[0], m.b(x)[0]], torch.zeros(BATCH, TIME, SIZE)), "parallel"
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_model_with_branches_equals_pytorch(name: str) -> None:
    torch.manual_seed(0)
    net, x = Net(ACCEPTED[name].function).eval(), torch.randn(BATCH, TIME, SIZE)
    spec = read_module(net, x)
    assert " ".join(layer.type_name for layer in spec.layers) == ACCEPTED[name].layers
    with torch.no_grad():
        assert relative_difference(spec, x, net(x)) <= RELATIVE


REFUSED = {
    "rows for layers": (
        lambda m, x: m.bi(x)[1][0].reshape(BATCH, -1),
        r"makes \[3, 8\] of \[2, 3, 4\]; axes can be kept",
    ),
    "time added to the batch": (
        lambda m, x: m.a(x)[0].transpose(0, 1)[:BATCH] + m.a(x)[0][:, :BATCH],
        "takes 0 to 3 of axis|joins .time, batch, features. and .batch, time, features.",
    ),
    "features added to time": (
        lambda m, x: (lambda y: y + y.transpose(1, 2))(m.a(x)[0][:, :SIZE]),
        "takes the time axis for its features axis",
    ),
    "joined along time": (
        lambda m, x: torch.cat([m.a(x)[0], x], 1),
        "takes the time axis for its features axis",
    ),
    "a step added to all steps": (
        lambda m, x: m.a(x)[0] + m.a(x)[0][:, -1:],
        "repeats one of its values to fit the other; want the same sizes",
    ),
    "a sequence and its mean": (
        lambda m, x: m.a(x)[0] * m.a(x)[0].mean(1, keepdim=True),
        "repeats one of its values to fit the other",
    ),
    "attention": (
        lambda m, x: (torch.softmax(m.p(m.a(x)[0]), 1) * m.a(x)[0]).sum(1),
        "takes the time axis for its features axis",
    ),
    "a weight a step": (
        lambda m, x: m.a(x)[0] * torch.ones(TIME, 1) * m.conv.weight[0, :1, :1],
        r"aten\.ones\.default: has no counterpart here",
    ),
    "difference": (
        lambda m, x: m.a(x)[0] - x,
        "takes computed values apart; want a sum or a product of two",
    ),
    "divided by computed values": (
        lambda m, x: 1 / m.a(x)[0].exp(),
        r"aten\.(exp|reciprocal)\.default: has no counterpart here",
    ),
    "state of another layer": (
        lambda m, x: m.b(x, m.a(x)[1][0])[0],
        "its initial_hidden is computed; it must be zeros, a trained weight or an input",
    ),
    "repeated for every step": (
        lambda m, x: m.b(m.a(x)[0][:, -1:].repeat(1, TIME, 1))[0],
        "repeats values; only a trained initial state can be repeated",
    ),
    "a layer over one step": (
        lambda m, x: m.b(m.a(x)[0][:, -1:])[0],
        "is fed a single step, or a result of all of them; want a sequence",
    ),
    "some features": (
        lambda m, x: m.a(x)[0][..., 1:3],
        "of features, only one direction's of a bidirectional layer can be taken",
    ),
    "flattened features first": (
        lambda m, x: m.a(x)[0].transpose(1, 2).flatten(1),
        r"the result is laid out \[batch, features\*time\]; want features on an axis",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_spec_cannot_hold_is_refused_in_one_line(name: str) -> None:
    function, message = REFUSED[name]
    torch.manual_seed(0)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        read_module(Net(function), torch.randn(BATCH, TIME, SIZE))
    assert "\n" not in str(caught.value)


def doubled(m: Any, x: Any) -> Any:
    one, two = x, m.p(x)
    for _ in range(40):
        one, two = two, one + m.p(two)
    return m.a(one)[0]


def test_branches_that_hold_branches_have_an_end() -> None:
    with pytest.raises(UnsupportedModel, match=r"joins branches of \d+ layers; want at most 4096"):
        read_module(Net(doubled), torch.randn(BATCH, TIME, SIZE))


@pytest.mark.parametrize("seed", range(8))
def test_equal_sizes_of_all_axes_hide_nothing(seed: int) -> None:
    """With batch, time and features of one size, only their names tell axes apart."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(3, generator=generator).tolist()
    net = Net(lambda m, x: m.a(x.permute(order))[0]).eval()
    torch.manual_seed(seed)
    x = torch.randn(SIZE, SIZE, SIZE)
    spec = read_module(net, x)
    with torch.no_grad():
        assert relative_difference(spec, x, net(x)) <= RELATIVE
