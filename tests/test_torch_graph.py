"""Modules through torch.export, each held against torch's own answer."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters.pt2_file import read_pt2
from edge_lstm_converters.read_torch import read_module
from edge_lstm_converters.torch_graph import graph_to_spec
from torch_nets import relative_difference

torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
nn = torch.nn

# torch computes in float32, the reference in float64: sums of some ten terms of either sign and
# 6 steps leave a relative difference of about 1e-6.
RELATIVE = 1e-5


class Case(NamedTuple):
    """What a module does with its parts, and the layers that it must become."""

    forward: Callable[..., Any]
    parts: dict[str, Any]
    inputs: tuple[Any, ...]
    layers: str = ""


class Module(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]  # Any to mypy
    def __init__(self, case: Case) -> None:
        super().__init__()
        for name, part in case.parts.items():
            setattr(self, name, part)
        self.case = case

    def forward(self, *inputs: Any) -> Any:
        return self.case.forward(self, *inputs)


def lstm(inputs: int, hidden: int, depth: int = 1, **options: Any) -> Any:
    return nn.LSTM(inputs, hidden, depth, **({"batch_first": True} | options))


def linear(inputs: int, outputs: int) -> Any:
    return nn.Linear(inputs, outputs)


def zeros(x: Any) -> Any:
    return torch.zeros(1, x.size(0), 5)


torch.set_num_threads(1)
torch.manual_seed(0)
X = torch.randn(3, 6, 4)
STATE = torch.zeros(1, 3, 5)
ACCEPTED = {
    "last step": Case(
        lambda m, x: m.fc(m.lstm(x)[0][:, -1]),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm laststep dense",
    ),
    "last step by its number": Case(
        lambda m, x: m.lstm(x)[0][:, x.shape[1] - 1], {"lstm": lstm(4, 5)}, (X,), "lstm laststep"
    ),
    "last step as a slice": Case(
        lambda m, x: m.lstm(x)[0][:, -1:, :].squeeze(1), {"lstm": lstm(4, 5)}, (X,), "lstm laststep"
    ),
    "h_n of the last layer": Case(
        lambda m, x: torch.relu(m.fc(m.lstm(x)[1][0][-1])),
        {"lstm": lstm(4, 5, 2), "fc": linear(5, 3)},
        (X,),
        "lstm lstm laststep dense",
    ),
    "h_n squeezed": Case(
        lambda m, x: m.fc(m.lstm(x)[1][0].squeeze(0)),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm laststep dense",
    ),
    "h_n squeezed anyhow": Case(
        lambda m, x: m.fc(m.lstm(x)[1][0].squeeze()),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm laststep dense",
    ),
    "h_n viewed": Case(
        lambda m, x: m.fc(m.lstm(x)[1][0].view(-1, 5)),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm laststep dense",
    ),
    "h_n viewed, one row": Case(
        lambda m, x: m.fc(m.lstm(x)[1][0].view(-1, 5)),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X[:1],),
        "lstm laststep dense",
    ),
    "head on all of h_n": Case(
        lambda m, x: m.fc(m.lstm(x)[1][0])[0],
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm laststep dense",
    ),
    "time first": Case(
        lambda m, x: m.fc(m.lstm(x)[0]),
        {"lstm": nn.LSTM(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm dense",
    ),
    "time first inside": Case(
        lambda m, x: m.fc(m.lstm(x.transpose(0, 1))[0][-1]),
        {"lstm": nn.LSTM(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm laststep dense",
    ),
    "features first": Case(
        lambda m, x: m.lstm(x.permute(0, 2, 1))[0], {"lstm": lstm(6, 5)}, (X,), "lstm"
    ),
    "zeros made in forward": Case(
        lambda m, x: torch.softmax(m.fc(m.lstm(x, (zeros(x), zeros(x).to(x.device)))[0]), -1),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm dense softmax",
    ),
    "learned initial state": Case(
        lambda m, x: m.lstm(
            x, (m.h.expand(-1, x.size(0), -1).contiguous(), m.c.repeat(1, x.size(0), 1))
        )[0],
        {
            "lstm": lstm(4, 5, 2),
            "h": nn.Parameter(torch.randn(2, 1, 5)),
            "c": nn.Parameter(torch.randn(2, 1, 5)),
        },
        (X,),
        "lstm lstm",
    ),
    "state in and out": Case(
        lambda m, x, h, c: m.lstm(x, (h, c)), {"lstm": lstm(4, 5)}, (X, STATE, STATE + 0), "lstm"
    ),
    "state arranged anew": Case(
        lambda m, x, h, c: m.lstm(torch.tanh(m.fc(x)), (h.unsqueeze(0), c.unsqueeze(0))),
        {"lstm": lstm(7, 5), "fc": linear(4, 7)},
        (X, STATE[0], STATE[0] + 0),
        "dense tanh lstm",
    ),
    "output and state out": Case(
        lambda m, x: m.lstm(x), {"lstm": lstm(4, 5, 2)}, (X,), "lstm lstm"
    ),
    "only h_n out": Case(lambda m, x: m.lstm(x)[1][0], {"lstm": lstm(4, 5)}, (X,), "lstm laststep"),
    "steps joined with rows": Case(
        lambda m, x: m.fc(m.lstm(x)[0].reshape(-1, 5)).view(x.size(0), -1, 3).sigmoid(),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm dense sigmoid",
    ),
    "flattened": Case(
        lambda m, x: m.fc(m.lstm(x)[0].flatten(1)),
        {"lstm": lstm(4, 5), "fc": linear(30, 3)},
        (X,),
        "lstm flatten dense",
    ),
    "two LSTMs, dropout, no bias": Case(
        lambda m, x: m.fc(m.d(m.b(torch.nn.functional.relu6(m.a(x)[0]))[0][:, -1])).squeeze(-1),
        {
            "a": lstm(4, 5, 2, dropout=0.5),
            "b": lstm(5, 7, bias=False),
            "d": nn.Dropout(),
            "fc": linear(7, 1),
        },
        (X,),
        "lstm lstm relu6 lstm laststep dense",
    ),
    "embedding": Case(
        lambda m, x: m.fc(m.lstm(m.e(x))[0][:, -1]),
        {"e": nn.Embedding(9, 4, padding_idx=0), "lstm": lstm(4, 5), "fc": linear(5, 3)},
        (torch.randint(0, 9, (3, 6)),),
        "embedding lstm laststep dense",
    ),
    "one value a step": Case(
        lambda m, x: m.fc(m.lstm(x.unsqueeze(-1))[0][:, -1]),
        {"lstm": lstm(1, 5), "fc": linear(5, 1)},
        (X[:, :, 0],),
        "lstm laststep dense",
    ),
    "one step": Case(
        lambda m, x: m.lstm(x.unsqueeze(1))[0].squeeze(1), {"lstm": lstm(4, 5)}, (X[:, 0],), "lstm"
    ),
    "without batch": Case(
        lambda m, x: m.fc(m.lstm(x)[0]),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X[0],),
        "lstm dense",
    ),
    "product and sum": Case(
        lambda m, x: torch.tanh(m.lstm(x)[0] @ m.fc.weight.T + m.fc.bias),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm dense tanh",
    ),
    "clamped": Case(
        lambda m, x: m.fc(m.lstm(x)[0]).clamp(0, 6),
        {"lstm": lstm(4, 5), "fc": linear(5, 3)},
        (X,),
        "lstm dense",
    ),
    "rectified in place": Case(
        lambda m, x: (lambda y: (torch.relu_(y), y)[1])(m.lstm(x)[0]),
        {"lstm": lstm(4, 5)},
        (X,),
        "lstm relu",
    ),
    "float64": Case(
        lambda m, x: m.lstm(x)[0], {"lstm": lstm(4, 5).double()}, (X.double(),), "lstm"
    ),
    "one direction of two": Case(
        lambda m, x: m.lstm(x)[1][0][-1],
        {"lstm": lstm(4, 5, bidirectional=True)},
        (X,),
        "backward lstm first_step",
    ),
    "a half of the features": Case(
        lambda m, x: m.lstm(x)[0][:, :, :5], {"lstm": lstm(4, 5, bidirectional=True)}, (X,), "lstm"
    ),
    "h_n of the first layer": Case(
        lambda m, x: m.lstm(x)[1][0][0], {"lstm": lstm(4, 5, 2)}, (X,), "lstm laststep"
    ),
    "the same weights twice": Case(
        lambda m, x: m.lstm(m.lstm(x)[0])[0], {"lstm": lstm(4, 4)}, (X,), "lstm lstm"
    ),
    "a head that is used twice": Case(
        lambda m, x: (m.fc(m.lstm(x)[0]), m.lstm(x)[1]),
        {"lstm": lstm(4, 5), "fc": linear(5, 5)},
        (X,),
        "lstm dense",
    ),
}
REFUSED = {
    "rectified and not": (
        Case(
            lambda m, x: (torch.relu(m.fc(m.lstm(x)[0])), m.fc(m.lstm(x)[0])),
            {"lstm": lstm(4, 5), "fc": linear(5, 5)},
            (X,),
        ),
        "gives 2 results besides states",
    ),
    "a view changed in place": (
        Case(
            lambda m, x: (lambda y: (torch.relu_(y.transpose(0, 1)), y)[1])(m.lstm(x)[0]),
            {"lstm": lstm(4, 5)},
            (X,),
        ),
        r"reads a tensor whose memory 'relu_' changed in place; want .* relu\(x\) for relu_\(x\)",
    ),
    "cell state": (
        Case(lambda m, x: m.lstm(x)[1][1][-1], {"lstm": lstm(4, 5)}, (X,)),
        r"gives nothing but the final cell state; want h_n\[-1\]",
    ),
    "head on the cell state": (
        Case(
            lambda m, x: m.fc(m.lstm(x)[1][1][-1]), {"lstm": lstm(4, 5), "fc": linear(5, 5)}, (X,)
        ),
        "reads the final cell state; want the output or h_n",
    ),
    "h_n of all layers": (
        Case(lambda m, x: m.lstm(x)[1][0], {"lstm": lstm(4, 5, 2)}, (X,)),
        r"gives 0 results besides states of recurrent layers; want h_n\[-1\]",
    ),
    "head on all layers": (
        Case(lambda m, x: m.fc(m.lstm(x)[1][0]), {"lstm": lstm(4, 5, 2), "fc": linear(5, 5)}, (X,)),
        r"works on the states of 2 layers or directions at once; want h_n\[-1\]",
    ),
    "state kept in a buffer": (
        Case(
            lambda m, x: (lambda y: (m.b.copy_(y[:, -1]), y)[1])(m.lstm(x)[0]),
            {"lstm": lstm(4, 5), "b": nn.Buffer(torch.zeros(3, 5))},
            (X,),
        ),
        "writes into the weight or buffer 'b'; want a state that is an input|buffer_mutation",
    ),
    "mean of the features": (
        Case(lambda m, x: m.lstm(x)[0].mean(2), {"lstm": lstm(4, 5)}, (X,)),
        "works along the features axis; want time alone",
    ),
    "transposed convolution": (
        Case(
            lambda m, x: m.lstm(m.c(x.transpose(1, 2)).transpose(1, 2))[0],
            {"c": nn.ConvTranspose1d(4, 4, 2), "lstm": lstm(4, 5)},
            (X,),
        ),
        r"aten\.conv_transpose1d\.default: has no counterpart here",
    ),
    "first row": (
        Case(lambda m, x: m.lstm(x)[0][-1], {"lstm": lstm(4, 5)}, (X,)),
        "takes a part of the batch axis",
    ),
    "softmax over time": (
        Case(lambda m, x: m.lstm(x)[0].softmax(1), {"lstm": lstm(4, 5)}, (X,)),
        "takes the time axis for its features axis",
    ),
    "two results": (
        Case(
            lambda m, x: (lambda y: (y, torch.relu(y)))(m.fc(m.lstm(x)[0])),
            {"lstm": lstm(4, 5), "fc": linear(5, 5)},
            (X,),
        ),
        "gives 2 results besides states of recurrent layers; want one",
    ),
    "two inputs": (
        Case(
            lambda m, x, y: m.lstm(x)[0] + m.fc(y),
            {"lstm": lstm(4, 5), "fc": linear(4, 5)},
            (X, X + 1),
        ),
        "reads a second input, 'inputs_1'; want one input",
    ),
    "view in place of transpose": (
        Case(lambda m, x: m.lstm(x.view(6, 3, 4))[0], {"lstm": nn.LSTM(4, 5)}, (X,)),
        r"makes \[6, 3, 4\] of \[3, 6, 4\]; axes can be kept",
    ),
    "flattened by features first": (
        Case(
            lambda m, x: m.fc(m.lstm(x)[0].transpose(1, 2).flatten(1)),
            {"lstm": lstm(4, 5), "fc": linear(30, 3)},
            (X,),
        ),
        "takes several axes in one for its features axis",
    ),
    "log_softmax": (
        Case(lambda m, x: torch.log_softmax(m.lstm(x)[0], -1), {"lstm": lstm(4, 5)}, (X,)),
        r"aten\.log_softmax\.int: .* want the model without it, or with softmax: the greatest",
    ),
    "random state": (
        Case(lambda m, x: m.lstm(x, (torch.randn(1, 3, 5), STATE))[0], {"lstm": lstm(4, 5)}, (X,)),
        r"aten\.randn\.default: has no counterpart here",
    ),
    "state from the input": (
        Case(lambda m, x: m.lstm(x, (x.transpose(0, 2), x))[0], {"lstm": lstm(4, 4)}, (X,)),
        "input 'inputs_0' is also an initial state|cannot trace",
    ),
    "state that differs by row": (
        Case(
            lambda m, x: m.lstm(x, (m.h, m.h))[0],
            {"lstm": lstm(4, 5), "h": nn.Parameter(torch.randn(1, 3, 5))},
            (X,),
        ),
        "initial_hidden differs by batch row",
    ),
    "lengths inside": (
        Case(
            lambda m, x, n: m.lstm(x)[0][torch.arange(x.size(0)), n - 1],
            {"lstm": lstm(4, 5)},
            (X, torch.tensor([6, 3, 2])),
        ),
        r"aten\.(arange|index|sub)\.\w+: has no counterpart here",
    ),
    "no LSTM": (
        Case(lambda m, x: m.fc(x), {"fc": linear(4, 5)}, (X,)),
        r"the graph has no aten\.lstm",
    ),
    "data-dependent": (
        Case(lambda m, x: m.fc(x) if x.sum() > 0 else x, {"fc": linear(4, 4)}, (X,)),
        r"Module: torch\.export cannot trace it: ",
    ),
    "a part of the input": (
        Case(lambda m, x: m.lstm(x[:, :, :2])[0], {"lstm": lstm(2, 5)}, (X,)),
        "takes 0 to 2 of axis 2; only time steps can be taken",
    ),
    "bounds of its own": (
        Case(lambda m, x: m.lstm(x)[0].clamp(-1, 1), {"lstm": lstm(4, 5)}, (X,)),
        r"bounds -1 and 1; want 0 and none \(ReLU\)",
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_module_computes_what_torch_computes(name: str) -> None:
    case = ACCEPTED[name]
    module = Module(case).eval()
    spec = read_module(module, case.inputs)
    assert " ".join(layer.type_name for layer in spec.layers) == case.layers
    with torch.no_grad():
        output = module(*case.inputs)
    output = output[0] if isinstance(output, tuple) else output
    assert relative_difference(spec, case.inputs[0], output) <= RELATIVE


@pytest.mark.parametrize("name", REFUSED)
def test_a_module_that_means_something_else_is_refused_in_one_line(name: str) -> None:
    case, message = REFUSED[name]
    with pytest.raises(UnsupportedModel, match=message) as caught:
        read_module(Module(case).eval(), case.inputs)
    assert "\n" not in str(caught.value)


def test_a_module_in_training_is_read_as_in_use_and_left_in_training() -> None:
    case = ACCEPTED["two LSTMs, dropout, no bias"]
    module = Module(case).train()
    spec = read_module(module, case.inputs, "net")
    assert module.training
    assert module.d.training
    assert spec.name == "net"
    assert "dropout" not in [layer.type_name for layer in spec.layers]


def test_the_source_says_how_the_modules_own_axes_and_states_lie() -> None:
    case = ACCEPTED["time first"]
    source = read_module(Module(case).eval(), case.inputs).source
    assert (source["input_axes"], source["output_axes"]) == ("time, batch, features",) * 2
    assert "state_inputs" not in source
    case = ACCEPTED["state in and out"]
    source = read_module(Module(case).eval(), case.inputs).source
    assert source["state_inputs"] == "inputs_1, inputs_2"


@pytest.mark.parametrize("axes", ["batch", "time", "both"])
def test_open_axes_are_followed_through_reshapes(axes: str) -> None:
    case = Case(
        lambda m, x: m.fc(m.e(x).relu().reshape(-1, 4)).view(x.size(0), -1, 3),
        {"e": linear(4, 4), "fc": linear(4, 3)},
        (X,),
    )
    dims = {"batch": {0: "b"}, "time": {1: "t"}, "both": {0: "b", 1: "t"}}[axes]
    shapes = {"inputs": ({k: torch.export.Dim(v, min=2, max=99) for k, v in dims.items()},)}
    program = torch.export.export(Module(case).eval(), (X,), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    # The chain is followed to its end: all that is missing is an LSTM.
    with pytest.raises(UnsupportedModel, match=r"the graph has no aten\.lstm"):
        graph_to_spec(read_pt2(Path("m.pt2"), file.getvalue()), "m.pt2", "m")
