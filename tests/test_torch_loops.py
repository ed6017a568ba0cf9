"""Loops over LSTMCell, GRUCell and RNNCell through torch.export, against PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
from torch import nn  # noqa: E402

from edge_lstm.errors import UnsupportedModel  # noqa: E402
from edge_lstm_converters.pt2_file import read_pt2  # noqa: E402
from edge_lstm_converters.read_torch import read_module  # noqa: E402
from edge_lstm_converters.torch_graph import graph_to_spec  # noqa: E402
from torch_nets import relative_difference  # noqa: E402

torch.set_num_threads(1)
BATCH, TIME, FEATURES, HIDDEN = 3, 6, 5, 4
RELATIVE = 1e-5  # the task's bound; PyTorch computes in float32
CELLS: dict[str, Any] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


class Net(nn.Module):
    """Runs a function over named modules."""

    def __init__(self, function: Callable[..., Any], **modules: Any) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def hidden(state: Any) -> Any:
    return state[0] if isinstance(state, tuple) else state


def loop(cell: Any, steps: list[Any], state: Any = None) -> tuple[list[Any], Any]:
    """Return the hidden states, in the order they came, and the last state."""
    found = []
    for x in steps:
        state = cell(x, state)
        found.append(hidden(state))
    return found, state


def forward(m: Any, x: Any) -> Any:
    return torch.stack(loop(m.cell, [x[:, t] for t in range(TIME)])[0], 1)


def backward(m: Any, x: Any) -> Any:
    return torch.stack(loop(m.back, [x[:, t] for t in reversed(range(TIME))])[0][::-1], 1)


def written_in_place(m: Any, x: Any) -> Any:
    y, state = torch.zeros(BATCH, TIME, HIDDEN), None
    for t in range(TIME):
        state = m.cell(x[:, t], state)
        y[:, t] = hidden(state)
    return y


def two_cells(m: Any, x: Any) -> Any:
    first = second = None
    found = []
    for part in x.split(1, 1):
        first = m.cell(torch.tanh(m.before(part.squeeze(1))), first)
        second = m.next(m.norm(hidden(first)), second)
        found.append(m.after(hidden(second)).unsqueeze(1))
    return torch.cat(found, 1)


def residual(m: Any, x: Any) -> Any:
    found = loop(m.cell, list(x.unbind(1)))[0]
    return torch.stack([y + m.skip(x[:, t]) for t, y in enumerate(found)], 1)


SHAPES: dict[str, Callable[[Any, Any], Any]] = {
    "every step": forward,
    "last state": lambda m, x: m.after(hidden(loop(m.cell, list(x.unbind(1)))[1])),
    "time first": lambda m, x: torch.stack(loop(m.cell, list(x))[0]),
    "backward": backward,
    "both directions": lambda m, x: torch.cat([forward(m, x), backward(m, x)], 2),
    "both last states": lambda m, x: torch.cat([forward(m, x)[:, -1], backward(m, x)[:, 0]], 1),
    "written in place": written_in_place,
    "two cells with layers between": two_cells,
    "residual": residual,
    "the first steps": lambda m, x: forward(m, x)[:, :4],
    "mean of the steps": lambda m, x: forward(m, x).mean(1),
    "sum, step by step": lambda m, x: sum(loop(m.cell, list(x.unbind(1)))[0]),
    "in order of running": lambda m, x: backward(m, x).flip(1),
}


def modules(kind: str, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    cell = CELLS[kind]
    options: dict[str, Any] = {"bias": bool(seed % 2)}
    if kind == "rnn":
        options["nonlinearity"] = ("tanh", "relu")[seed // 2 % 2]
    return {
        "cell": cell(FEATURES, HIDDEN, **options),
        "back": cell(FEATURES, HIDDEN, **options),
        "next": cell(HIDDEN, HIDDEN, **options),
        "before": nn.Linear(FEATURES, FEATURES),
        "after": nn.Linear(HIDDEN, 2),
        "skip": nn.Linear(FEATURES, HIDDEN),
        "norm": nn.LayerNorm(HIDDEN),
    }


def assert_like_torch(net: Any, *inputs: Any) -> Any:
    spec = read_module(net, inputs)
    with torch.no_grad():
        output = net.eval()(*inputs)
    output = output[0] if isinstance(output, tuple) else output
    assert relative_difference(spec, inputs[0], output) <= RELATIVE
    return spec


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_loop_equals_pytorch(shape: str, kind: str) -> None:
    for seed in range(2):
        net = Net(SHAPES[shape], **modules(kind, 2 * seed + len(shape) % 2))
        assert_like_torch(net, torch.randn(BATCH, TIME, FEATURES))


def test_a_loop_is_one_layer() -> None:
    spec = assert_like_torch(
        Net(two_cells, **modules("lstm", 1)), torch.randn(BATCH, TIME, FEATURES)
    )
    assert [layer.name for layer in spec.layers] == [
        "before",
        "before_tanh",
        "cell",
        "norm",
        "next",
        "after",
    ]
    assert spec.time_steps is None
    # The same over another length, though the program was unrolled.
    net = Net(two_cells, **modules("lstm", 1))
    x = torch.randn(BATCH, 2 * TIME, FEATURES)
    with torch.no_grad():
        assert relative_difference(spec, x, net(x)) <= RELATIVE


@pytest.mark.parametrize("shape", ["two cells with layers between", "last state"])
def test_the_number_of_rows_may_be_open(shape: str) -> None:
    net = Net(SHAPES[shape], **modules("lstm", 1)).eval()
    rows = {"inputs": ({0: torch.export.Dim("rows", min=2, max=64)},)}
    x, more = (torch.randn(count, TIME, FEATURES) for count in (BATCH, 2 * BATCH))
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=rows), file)
    spec = graph_to_spec(read_pt2(Path("m.pt2"), file.getvalue()), "m.pt2", "m")
    with torch.no_grad():
        assert relative_difference(spec, more, net(more)) <= RELATIVE


def test_a_first_state_may_be_trained() -> None:
    parts = modules("lstm", 1)
    parts |= {"h": nn.Parameter(torch.randn(1, HIDDEN)), "c": nn.Parameter(torch.randn(HIDDEN))}

    def run(m: Any, x: Any) -> Any:
        state = (m.h.expand(x.shape[0], -1), m.c.unsqueeze(0).repeat(x.shape[0], 1))
        return torch.stack(loop(m.cell, list(x.unbind(1)), state)[0], 1)

    spec = assert_like_torch(Net(run, **parts), torch.randn(BATCH, TIME, FEATURES))
    assert np.array_equal(spec.layers[0].initial_cell, parts["c"].detach().numpy())


STEPS: dict[str, Callable[..., Any]] = {
    "one cell": lambda m, x, a: (lambda s: (m.after(hidden(s)), s))(m.cell(x, a)),
    "only the state": lambda m, x, a: m.cell(x, a),
    "its state in one tensor": lambda m, x, a: (
        lambda s: (m.after(hidden(s)), torch.stack(s) if isinstance(s, tuple) else s)
    )(m.cell(x, (a[0], a[1]) if isinstance(m.cell, nn.LSTMCell) else a[0])),
}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("shape", STEPS)
def test_a_model_of_one_step_runs_over_a_sequence(shape: str, kind: str) -> None:
    net = Net(STEPS[shape], **modules(kind, 3)).eval()
    zeros = torch.zeros(2, BATCH, HIDDEN)
    state = zeros if "tensor" in shape else tuple(zeros) if kind == "lstm" else zeros[0]
    if kind != "lstm" and "tensor" in shape:
        state = zeros[:1]
    x = torch.randn(BATCH, TIME, FEATURES)
    spec = read_module(net, (x[:, 0].clone(), state))
    assert spec.time_steps is None
    assert "state_inputs" in spec.source
    outputs = []
    with torch.no_grad():
        for t in range(TIME):  # the program, step by step, fed its own states
            result = net(x[:, t], state)
            y, state = result if "only" not in shape else (hidden(result), result)
            state = state[None] if "tensor" in shape and kind != "lstm" else state
            outputs.append(y)
    spec.source.update(output_axes="batch, time, features", input_axes="batch, time, features")
    assert relative_difference(spec, x, torch.stack(outputs, 1)) <= RELATIVE


def test_two_cells_of_one_step_have_a_state_each() -> None:
    def run(m: Any, x: Any, first: Any, second: Any) -> Any:
        first = m.cell(x, first)
        return m.next(first, second), first

    x, state = torch.randn(BATCH, FEATURES), torch.zeros(BATCH, HIDDEN)
    spec = assert_like_torch(Net(run, **modules("gru", 1)), x, state, state + 0)
    assert spec.source["state_inputs"] == "inputs_1, inputs_2"


def twice(m: Any, x: Any) -> Any:
    return m.cell(x[:, 0], m.cell(x[:, 0]))


def every_other(m: Any, x: Any) -> Any:
    return m.cell(x[:, 2], m.cell(x[:, 0]))


def normalised_state(m: Any, x: Any) -> Any:
    return m.cell(x[:, 1], m.norm(m.cell(x[:, 0])))


def from_the_middle(m: Any, x: Any) -> Any:
    return m.cell(x[:, 3], m.cell(x[:, 2]))


def other_weights(m: Any, x: Any) -> Any:
    return m.back(x[:, 1], m.cell(x[:, 0]))


def one_state_for_two(m: Any, x: Any, state: Any) -> Any:
    return m.next(m.cell(x[:, 0], state), state)


def state_of_another_sequence(m: Any, x: Any) -> Any:
    return m.cell(x[:, 1] * 2, m.cell(x[:, 0]))


def written_over(m: Any, x: Any) -> Any:
    y = torch.zeros(BATCH, 2, HIDDEN)
    y[:, 0] = m.cell(x[:, 0])
    y[:, 0] = m.cell(x[:, 1], m.cell(x[:, 0]))
    return y


def half_written(m: Any, x: Any) -> Any:
    y = torch.zeros(BATCH, 2, HIDDEN)
    y[:, 0] = m.cell(x[:, 0])
    return y


def kept_in_zeros(m: Any, x: Any) -> Any:
    state = torch.zeros(1, BATCH, HIDDEN)
    for t in range(TIME):
        state[0] = m.cell(x[:, t], state[0])
    return state[0]


REFUSED = {
    twice: "is fed the same step again|step 0 follows step 0; want steps one after the other",
    every_other: "step 2 follows step 0; want steps one after the other",
    normalised_state: "its state is computed by other layers, or from other values",
    from_the_middle: "starts at step 2; want a loop from the first step or the last",
    other_weights: "has other weights than the step before; want the same at every step",
    one_state_for_two: "takes the input 'inputs_1' for a state that has a place already",
    state_of_another_sequence: "its state is computed by other layers, or from other values",
    written_over: r"writes into a tensor; want steps collected in a list, then torch\.stack",
    half_written: "reads zeros of which 1 places were written; want each step of time written once",
    kept_in_zeros: r"writes into a tensor; want steps collected",
}


@pytest.mark.parametrize("function", REFUSED)
def test_what_is_no_layer_over_a_sequence_is_refused(function: Callable[..., Any]) -> None:
    net = Net(function, **modules("gru", 1))
    inputs = [torch.randn(BATCH, TIME, FEATURES)]
    if "state" in function.__code__.co_varnames[: function.__code__.co_argcount]:
        inputs.append(torch.zeros(BATCH, HIDDEN))
    with pytest.raises(UnsupportedModel, match=REFUSED[function]) as caught:
        read_module(net, tuple(inputs))
    assert "\n" not in str(caught.value)


def mixed_states(m: Any, x: Any) -> Any:
    first = m.cell(x[:, 0])
    second = m.cell(x[:, 1], first)
    return m.cell(x[:, 2], (second[0], first[1]))[0]


def one_for_both(m: Any, x: Any, state: Any) -> Any:
    return m.cell(x[:, 0], (state, state))[0]


def one_zero(m: Any, x: Any, state: Any) -> Any:
    return m.cell(x[:, 0], (state, torch.zeros(BATCH, HIDDEN)))[0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (mixed_states, r"its two states are not of one step; want \(h, c\)"),
        (one_for_both, "takes the input 'inputs_1' for a state that has a place already"),
        (one_zero, "is fed one of its two states; want both from inputs, or none"),
    ],
)
def test_the_two_states_of_an_lstm_belong_together(
    function: Callable[..., Any], message: str
) -> None:
    inputs = [torch.randn(BATCH, TIME, FEATURES), torch.zeros(BATCH, HIDDEN)]
    inputs = inputs[: function.__code__.co_argcount - 1]
    with pytest.raises(UnsupportedModel, match=message):
        read_module(Net(function, **modules("lstm", 1)), tuple(inputs))
