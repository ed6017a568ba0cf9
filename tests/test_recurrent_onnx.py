"""LSTM, GRU and RNN nodes with every attribute: ONNX's operator tests, and onnxruntime."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from campaign import seeds
from edge_lstm import float_reference
from edge_lstm.arrays import F64, Array
from edge_lstm.cells import Bidirectional
from edge_lstm.spec import ModelSpec
from edge_lstm_converters.check import NUDGE
from edge_lstm_converters.read_onnx import read_onnx
from edge_lstm_converters.rules_onnx import DEFAULT_ACTIVATIONS, FUNCTIONS, GATE_COUNTS
from onnx_graphs import FLOAT32, onnxruntime_says, relative_error

OPERATORS = tuple(GATE_COUNTS)
NO_DEFAULT = ("Affine", "ScaledTanh", "ThresholdedRelu")
GROWN = 100.0  # values beyond it have lost float32's digits on the way


def run_states(
    spec: ModelSpec, x: Array, lengths: Array | None = None, first: dict[str, F64] | None = None
) -> tuple[Array, dict[str, F64]]:
    """Return the output, and the final states by name."""
    state = {} if first is None else dict(first)
    return float_reference.run(spec, x, lengths, state), state


def stacked(state: dict[str, F64], word: str, directions: int) -> F64:
    """Return a state of all directions, [directions, batch, hidden]."""
    found = [state[name] for name in sorted(state, reverse=True) if name.endswith(f".{word}")]
    assert len(found) == directions  # sorted: forward before backward
    return np.stack(found)


# --- the operator tests that ship with ONNX


def operator_tests() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, from making the cases of other operators
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    return [
        case
        for case in cases
        if case.model is not None and any(n.op_type in OPERATORS for n in case.model.graph.node)
    ]


OPERATOR_TESTS = operator_tests()


def test_the_operator_tests_are_there() -> None:
    # 18 in onnx 1.15 to 1.21: a change of onnx's loader must not empty the list.
    names = [c.name for c in OPERATOR_TESTS]
    assert len(names) == len(set(names)) >= 13
    for operator in ("lstm", "gru", "rnn"):
        assert sum(operator in name for name in names) >= 4


@pytest.mark.parametrize("case", OPERATOR_TESTS, ids=lambda c: c.name)
def test_every_onnx_operator_test_passes(tmp_path: Path, case: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    ((inputs, outputs),) = case.data_sets
    # These cases feed the weights; a file has them as constants.
    ports = list(model.graph.input)
    del model.graph.input[1:]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), port.name)
        for port, value in zip(ports[1:], inputs[1:], strict=True)
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (node,) = model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    in_batches = attributes.get("layout", 0) == 1
    directions = 2 if attributes.get("direction") == b"bidirectional" else 1
    x = inputs[0] if in_batches else inputs[0].swapaxes(0, 1)
    found, state = run_states(read_onnx(path), x)
    for name, want in zip([n for n in node.output if n], outputs, strict=True):
        if name == "Y":
            every = found.reshape(*found.shape[:2], directions, -1)  # [batch, time, directions, h]
            got = every if in_batches else every.transpose(1, 2, 0, 3)
        else:
            got = stacked(state, "hidden" if name == "Y_h" else "cell", directions)
            got = got.swapaxes(0, 1) if in_batches else got
        assert relative_error(got, want) < FLOAT32
        if name == "Y_h" and len([n for n in node.output if n]) == 1:
            # Y_h is what the model gives.
            last = found.reshape(len(found), directions, -1)
            assert relative_error(last if in_batches else last.swapaxes(0, 1), want) < FLOAT32


# --- random nodes, against onnxruntime


@dataclass
class Case:
    """A random node: what it is, what it is fed, and what the runtime is to be told."""

    operator: str
    attributes: dict[str, Any]
    constants: dict[str, Array]
    feeds: dict[str, Array] = field(default_factory=dict)

    def model(self, *, layout: int, opset: int) -> onnx.ModelProto:
        """Return the model; layout 1 is batch-major."""
        names = ["x", "W", "R", "B", "lengths", "h", "c", "P"]
        names = names if self.operator == "LSTM" else names[:6]
        known = {"x", *self.constants, *self.feeds}
        inputs = [n if n in known else "" for n in names]
        outputs = ["y", "yh", "yc"] if self.operator == "LSTM" else ["y", "yh"]
        attributes = {**self.attributes, **({"layout": 1} if layout else {})}
        node = helper.make_node(self.operator, inputs, outputs, "cell", **attributes)
        shapes = {n: list(turned(n, a, layout).shape) for n, a in self.feeds.items()}
        types = {n: TensorProto.INT32 if n == "lengths" else TensorProto.FLOAT for n in self.feeds}
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info(n, types[n], s) for n, s in shapes.items()],
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * (4 if n == "y" else 3))
                for n in outputs
            ],
            [numpy_helper.from_array(turned(n, a, layout), n) for n, a in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, ir_version=8, opset_imports=opsets)


def turned(name: str, array: Array, layout: int) -> Array:
    """Return x or a state with the batch first."""
    turn = layout == 1 and name in ("x", "h", "c")
    return np.ascontiguousarray(array.swapaxes(0, 1)) if turn else array


def random_case(rng: np.random.Generator, operator: str) -> Case:
    """Return a node with each attribute and input at a chance of its own."""
    directions = ("forward", "reverse", "bidirectional")
    direction = str(rng.choice(directions))
    count = 2 if direction == "bidirectional" else 1
    size, hidden = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    steps, batch = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    rows = GATE_COUNTS[operator] * hidden

    def normal(*shape: int) -> Array:
        return rng.normal(0, 0.8, shape).astype(np.float32)

    attributes: dict[str, Any] = {"hidden_size": hidden}
    if direction != "forward" or rng.random() < 0.5:
        attributes["direction"] = direction
    constants = {"W": normal(count, rows, size), "R": normal(count, rows, hidden)}
    feeds = {"x": normal(steps, batch, size)}
    if rng.random() < 0.7:
        constants["B"] = normal(count, 2 * rows)
    if rng.random() < 0.4:
        attributes["clip"] = float(np.float32(rng.uniform(0.3, 3)))
    if operator == "LSTM" and rng.random() < 0.4:
        constants["P"] = normal(count, 3 * hidden)
    if operator == "LSTM" and rng.random() < 0.4:
        attributes["input_forget"] = 1
    if operator == "GRU" and rng.random() < 0.6:
        attributes["linear_before_reset"] = 1
    if rng.random() < 0.5:
        attributes |= random_activations(rng, operator, count)
    for word in ("h", "c") if operator == "LSTM" else ("h",):
        chance = rng.random()
        if chance < 0.3:
            constants[word] = np.repeat(normal(count, 1, hidden), batch, axis=1)
        elif chance < 0.6:
            feeds[word] = normal(count, batch, hidden)
    if rng.random() < 0.4:
        feeds["lengths"] = rng.integers(1, steps + 1, batch).astype(np.int32)
    elif rng.random() < 0.3:
        constants["lengths"] = np.full(batch, steps, np.int32)
    return Case(operator, attributes, constants, feeds)


def random_activations(rng: np.random.Generator, operator: str, directions: int) -> dict[str, Any]:
    """Return activations with alphas and betas for the first few of those that take them."""
    names = rng.choice(list(FUNCTIONS), len(DEFAULT_ACTIVATIONS[operator]) * directions).tolist()
    alphas = {"Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"}
    betas = {"Affine", "ScaledTanh", "HardSigmoid"}
    found: dict[str, Any] = {"activations": names}
    for word, taking in (("alpha", alphas), ("beta", betas)):
        most = sum(name in taking for name in names)
        # Only these have no default that all agree on; after the last of them, any may be left out.
        strict = [k for k, n in enumerate(names) if n in NO_DEFAULT]
        least = sum(name in taking for name in names[: strict[-1] + 1]) if strict else 0
        given = int(rng.integers(least, most + 1))
        if given:
            values = rng.uniform(0.1, 0.9, given).astype(np.float32)
            found[f"activation_{word}"] = values.tolist()
    return found


def check_case(case: Case, folder: Path, opset: int, layout: int) -> bool:
    """Check Y, Y_h and Y_c with onnxruntime, which takes layout 0 alone.

    Returns whether the case says something: not if its values grow without bound.
    """
    path = folder / "m.onnx"
    path.write_bytes(case.model(layout=0, opset=opset).SerializeToString())
    wants = onnxruntime_says(path, case.feeds)
    if not all(np.abs(want).max() < GROWN for want in wants):
        return False
    path.write_bytes(case.model(layout=layout, opset=opset).SerializeToString())
    spec = read_onnx(path)
    (layer,) = spec.layers
    both = isinstance(layer, Bidirectional)
    names = [f"{layer.name}_{d}" for d in ("forward", "backward")] if both else [layer.name]
    first = {
        f"{name}.{word}": case.feeds[letter][k].astype(np.float64)
        for k, name in enumerate(names)
        for letter, word in (("h", "hidden"), ("c", "cell"))
        if letter in case.feeds
    }
    x = case.feeds["x"].swapaxes(0, 1)

    def outputs(x: Array) -> list[Array]:
        found, state = run_states(spec, x, case.feeds.get("lengths"), first)
        finals = ("hidden", "cell")[: len(wants) - 1]
        return [
            found.reshape(*found.shape[:2], len(names), -1).transpose(1, 2, 0, 3),
            *(np.stack([state[f"{n}.{word}"] for n in names]) for word in finals),
        ]

    # Gates without bounds amplify what float32 loses: what they make of so small a change of the
    # input is allowed on top, as in ``check``.
    signs = np.random.default_rng(0).choice([-1, 1], x.shape)
    moved = outputs(x.astype(np.float64) * (1 + NUDGE * signs))
    for want, value, other in zip(wants, outputs(x), moved, strict=True):
        allowed = FLOAT32 * max(1.0, float(np.abs(want).max())) + np.abs(other - value).max()
        np.testing.assert_allclose(value, want, atol=allowed, err_msg=str(case.attributes))
    return True


@pytest.mark.parametrize("seed", seeds(4))
@pytest.mark.parametrize("operator", OPERATORS)
def test_random_nodes_equal_onnxruntime(tmp_path: Path, operator: str, seed: int) -> None:
    rng = np.random.default_rng([seed, OPERATORS.index(operator)])
    checked = 0
    for _ in range(36):
        opset = int(rng.choice([7, 9, 11, 13, 14, 17, 21, 22]))
        layout = int(rng.integers(0, 2)) if opset >= 14 else 0
        checked += check_case(random_case(rng, operator), tmp_path, opset, layout)
    assert checked >= 30
