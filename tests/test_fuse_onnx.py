"""What exporters take apart is put together again, and nothing else."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
pytest.importorskip("onnxruntime", reason="onnxruntime not found: pip install onnxruntime")

from edge_lstm import float_reference  # noqa: E402
from edge_lstm.errors import UnsupportedModel  # noqa: E402
from edge_lstm_converters.read_onnx import read_onnx  # noqa: E402
from onnx_graphs import FLOAT32, onnxruntime_says, relative_error  # noqa: E402

BATCH, TIME, FEATURES, HIDDEN = 2, 4, 3, 5
Nodes = list[Any]
make = onnx.helper.make_node


def constants(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"W": (FEATURES, HIDDEN), "R": (HIDDEN, HIDDEN), "b": (HIDDEN,), "c": (HIDDEN,)}
    found: dict[str, Any] = {
        name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()
    }
    found |= {f"n{k}": np.array([k]) for k in range(TIME + 1)}
    found |= {"minus": np.array([-1]), "begin": np.array([-(1 << 63)])}
    found["first"] = np.broadcast_to(found["c"], (1, BATCH, HIDDEN)).copy()
    found |= {"two": np.float32(2), "eps": np.float32(1e-3)}
    return found


def unrolled(function: str = "Tanh", backward: bool = False, steps: int = TIME) -> Nodes:
    """Return what PyTorch's exporter makes of an RNN; x is [time, batch, features]."""
    nodes = [make("MatMul", ["x", "W"], ["xw"]), make("Add", ["xw", "b"], ["forward"])]
    source = "forward"
    if backward:
        source = "flipped"
        nodes.append(make("Slice", ["forward", "minus", "begin", "n0", "minus"], [source]))
    for k in range(steps):
        nodes.append(make("Slice", [source, f"n{k}", f"n{k + 1}", "n0"], [f"cut{k}"]))
        nodes.append(make("Squeeze", [f"cut{k}", "n0"], [f"x{k}"]))
    before = "first"
    for k in range(steps):
        nodes.append(make("Add", [before, f"x{k}"], [f"sum{k}"]))
        nodes.append(make(function, [f"sum{k}"], [f"h{k}"]))
        nodes.append(make("MatMul", [f"h{k}", "R"], [f"hr{k}"]))
        nodes.append(make("Add", [f"hr{k}", "c"], [f"next{k}"]))
        before = f"next{k}"
    order = range(steps)[::-1] if backward else range(steps)
    return [*nodes, make("Concat", [f"h{k}" for k in order], ["y"], axis=0)]


def saved(folder: Path, nodes: Nodes, values: dict[str, Any], outputs: list[str]) -> Path:
    needed = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [TIME, BATCH, FEATURES])],
        [onnx.helper.make_tensor_value_info(name, 1, ["a", "b", "c"]) for name in outputs],
        [onnx.numpy_helper.from_array(v, name) for name, v in values.items() if name in needed],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


X = np.random.default_rng(1).standard_normal((TIME, BATCH, FEATURES)).astype(np.float32)


def assert_like_onnxruntime(path: Path, layers: str) -> None:
    (want,) = onnxruntime_says(path, {"x": X})
    spec = read_onnx(path)
    assert " ".join(layer.type_name for layer in spec.layers) == layers
    found = float_reference.run(spec, X.swapaxes(0, 1))
    want = want.swapaxes(0, 1) if found.ndim == 3 else want
    assert relative_error(found.reshape(want.shape), want) < FLOAT32


@pytest.mark.parametrize("function", ["Tanh", "Relu"])
@pytest.mark.parametrize("backward", [False, True])
def test_an_rnn_step_by_step_is_a_layer(tmp_path: Path, function: str, backward: bool) -> None:
    path = saved(tmp_path, unrolled(function, backward), constants(), ["y"])
    assert_like_onnxruntime(path, "backward rnn" if backward else "rnn")


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("index", range(1, TIME))
def test_each_steps_result_is_a_step_of_it(tmp_path: Path, index: int, backward: bool) -> None:
    nodes = unrolled(backward=backward)
    nodes[-1] = make("Identity", [f"h{index}"], ["y"])
    path = saved(tmp_path, nodes, constants(), ["y"])
    (want,) = onnxruntime_says(path, {"x": X})
    found = float_reference.run(read_onnx(path), X.swapaxes(0, 1))
    assert relative_error(found[None], want) < FLOAT32


def test_the_first_steps_of_a_longer_sequence_are_a_part_of_it(tmp_path: Path) -> None:
    path = saved(tmp_path, unrolled(steps=3), constants(), ["y"])
    assert_like_onnxruntime(path, "rnn steps")


def test_the_last_steps_run_backward_are_a_part_of_it(tmp_path: Path) -> None:
    path = saved(tmp_path, unrolled(backward=True, steps=3), constants(), ["y"])
    assert_like_onnxruntime(path, "backward rnn steps")


def other_weights(nodes: Nodes, values: dict[str, Any]) -> None:
    values["R2"] = values["R"] * 2
    nodes[:] = [
        make("MatMul", ["h1", "R2"], ["hr1"]) if list(n.output) == ["hr1"] else n for n in nodes
    ]


def other_bias(nodes: Nodes, values: dict[str, Any]) -> None:
    values["c2"] = values["c"] * 2
    nodes[:] = [
        make("Add", ["hr1", "c2"], ["next1"]) if list(n.output) == ["next1"] else n for n in nodes
    ]


def first_state(nodes: Nodes, values: dict[str, Any]) -> None:
    values["first"] = values["first"] + np.float32(0.5)


def skipped_step(nodes: Nodes, values: dict[str, Any]) -> None:
    nodes[:] = [
        make("Add", ["next0", "x2"], ["sum1"]) if list(n.output) == ["sum1"] else n for n in nodes
    ]


def other_function(nodes: Nodes, values: dict[str, Any]) -> None:
    nodes[:] = [make("Relu", ["sum2"], ["h2"]) if list(n.output) == ["h2"] else n for n in nodes]


def two_axes(nodes: Nodes, values: dict[str, Any]) -> None:
    values["first"] = values["first"][0]


@pytest.mark.parametrize(
    "change", [other_weights, other_bias, first_state, skipped_step, other_function, two_axes]
)
def test_what_only_looks_like_an_rnn_is_refused(
    tmp_path: Path, change: Callable[[Nodes, dict[str, Any]], None]
) -> None:
    nodes, values = unrolled(), constants()
    change(nodes, values)
    with pytest.raises(UnsupportedModel) as caught:
        read_onnx(saved(tmp_path, nodes, values, ["y"]))
    assert "\n" not in str(caught.value)


def layer_norm(weight: bool = True, bias: bool = True) -> Nodes:
    """Return an LSTM, then what PyTorch's exporter makes of a LayerNorm below opset 17."""
    nodes = [
        make("RNN", ["x", "W1", "R1"], ["steps", ""], hidden_size=HIDDEN),
        make("Squeeze", ["steps", "n1"], ["h"]),
        make("ReduceMean", ["h"], ["mean"], axes=[-1]),
        make("Sub", ["h", "mean"], ["d"]),
        make("Pow", ["d", "two"], ["square"]),
        make("ReduceMean", ["square"], ["variance"], axes=[-1]),
        make("Add", ["variance", "eps"], ["above"]),
        make("Sqrt", ["above"], ["root"]),
        make("Div", ["d", "root"], ["n"]),
    ]
    if weight:
        nodes.append(make("Mul", ["n", "b"], ["w"]))
    if bias:
        nodes.append(make("Add", ["w", "c"], ["wb"]))
    return [*nodes, make("Relu", [nodes[-1].output[0]], ["y"])]


def norm_constants() -> dict[str, Any]:
    values = constants()
    return {**values, "W1": values["W"].T[None].copy(), "R1": values["R"][None]}


@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, False)])
def test_a_layer_normalization_in_parts_is_one(tmp_path: Path, weight: bool, bias: bool) -> None:
    path = saved(tmp_path, layer_norm(weight, bias), norm_constants(), ["y"])
    assert_like_onnxruntime(path, "rnn layer_norm relu")


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("ReduceMean", ["square"], {"axes": [-2]}),
        ("ReduceMean", ["square"], {"axes": [-1], "keepdims": 0}),
        ("ReduceMean", ["h"], {"axes": [-1]}),
    ],
)
def test_another_mean_is_no_layer_normalization(
    tmp_path: Path, op: str, inputs: list[str], attributes: dict[str, Any]
) -> None:
    nodes = [
        make(op, inputs, ["variance"], **attributes) if list(n.output) == ["variance"] else n
        for n in layer_norm()
    ]
    with pytest.raises(UnsupportedModel, match="ReduceMean"):
        read_onnx(saved(tmp_path, nodes, norm_constants(), ["y"]))


NETS: dict[str, Callable[[Any], Any]] = {
    "every step": lambda y: y[0],
    "last state of two layers": lambda y: y[1][-1],
    "last step": lambda y: y[0][:, -1],
}


@pytest.mark.parametrize("use", NETS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_rnn_of_pytorchs_newer_exporter_is_read(
    tmp_path: Path, use: str, bidirectional: bool
) -> None:
    torch = pytest.importorskip("torch", reason="torch not found: pip install torch onnxscript")
    pytest.importorskip("onnxscript", reason="onnxscript not found: pip install onnxscript")
    torch.manual_seed(0)
    options = {"batch_first": True, "bidirectional": bidirectional, "nonlinearity": "relu"}
    rnn = torch.nn.RNN(FEATURES, HIDDEN, 2, **options)

    class Net(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = rnn

        def forward(self, x: Any) -> Any:
            return NETS[use](self.rnn(x))

    x = torch.from_numpy(X.swapaxes(0, 1).copy())
    rows = torch.export.Dim("rows", min=2, max=99) if bidirectional else None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Net().eval(),
            (x,),
            str(tmp_path / "m.onnx"),
            dynamo=True,
            verbose=False,
            dynamic_shapes={"x": {0: rows}} if rows is not None else None,
        )
    with torch.no_grad():
        want = Net()(x).numpy()
    spec = read_onnx(tmp_path / "m.onnx")
    if use == "last state of two layers" and bidirectional:
        assert [layer.type_name for layer in spec.layers][-1] == "first_step"
    assert relative_error(float_reference.run(spec, x.numpy()), want) < FLOAT32
