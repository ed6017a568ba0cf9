"""read_onnx against onnxruntime and ONNX's own operator tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.cells import Dense, Embedding, Lstm
from edge_lstm.errors import UnsupportedModel
from edge_lstm.spec import ModelSpec

onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
from onnx import TensorProto, helper  # noqa: E402

from edge_lstm_converters.read_onnx import read_onnx  # noqa: E402
from onnx_graphs import (  # noqa: E402
    FLOAT32,
    LSTM,
    MODELS,
    graph_file,
    onnxruntime_says,
    relative_error,
    small_lstm,
)

LAYOUTS: dict[str, tuple[str, str]] = {
    # nodes after `y`, and the axes that the answer has then
    "as it comes": ("z = Identity (y)", "t1bf"),
    "direction squeezed": ("i = Constant <value_ints = [1]> () z = Squeeze (y, i)", "tbf"),
    "batch first": ("z = Transpose <perm = [2, 0, 1, 3]> (y)", "bt1f"),
    "one row a step": ("s = Constant <value_ints = [-1, 2]> () z = Reshape (y, s)", "(tb)f"),
    "shape computed": (
        """
        m = Transpose <perm = [2, 0, 1, 3]> (y) s = Shape (m)
        i = Constant <value_ints = [0, 1]> () head = Gather (s, i)
        j = Constant <value_ints = [-1]> () s2 = Concat <axis = 0> (head, j)
        z = Reshape (m, s2)
        """,
        "btf",
    ),
    "last step by index": (
        """
        i = Constant <value_ints = [1]> () q = Squeeze (y, i)
        k = Constant <value_int = -1> () z = Gather <axis = 0> (q, k)
        """,
        "bf",
    ),
    "last step by length minus one": (
        """
        s = Shape (y) zero = Constant <value_int = 0> () n = Gather (s, zero)
        one = Constant <value_int = 1> () k = Sub (n, one)
        q = Gather <axis = 0> (y, k) z = Squeeze (q)
        """,
        "bf",
    ),
    "last step by slice": (
        """
        a = Constant <value_ints = [-1]> () b = Constant <value_ints = [9223372036854775807]> ()
        c = Constant <value_ints = [0]> () q = Slice (y, a, b, c)
        ax = Constant <value_ints = [0, 1]> () z = Squeeze (q, ax)
        """,
        "bf",
    ),
    "dense beside a conv of kernel 1": (
        """
        i = Constant <value_ints = [1]> () q = Squeeze (y, i)
        p = Transpose <perm = [1, 2, 0]> (q) r = Relu (p) v = Conv <kernel_shape = [1]> (r, K, KB)
        w = Transpose <perm = [0, 2, 1]> (v) mm = MatMul (w, M) z = Add (MB, mm)
        """,
        "btf",
    ),
    "gemm on joined axes": (
        """
        s = Constant <value_ints = [-1, 2]> () q = Reshape (y, s)
        g = Gemm <alpha = 0.5, beta = 2.0> (q, G, GB) z = Softmax <axis = 1> (g)
        """,
        "(tb)f",
    ),
    "scaled after the product": (
        """
        i = Constant <value_ints = [1]> () q = Squeeze (y, i) mm = MatMul (q, M)
        a = Add (mm, MB) b = Mul (a, MB) c = Div (b, MB2) d = Sub (MB, c) z = Tanh (d)
        """,
        "tbf",
    ),
    "clip to six": (
        """
        l = Constant <value_float = 0.0> () h = Constant <value_float = 6.0> ()
        i = Constant <value_ints = [1]> () q = Squeeze (y, i) mm = MatMul (q, M)
        z = Clip (mm, l, h)
        """,
        "tbf",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stands_around_the_lstm_is_understood_as_onnxruntime_runs_it(
    tmp_path: Path, layout: str
) -> None:
    nodes, letters = LAYOUTS[layout]
    rng = np.random.default_rng(1)
    shapes = {"K": (3, 2, 1), "KB": (3,), "M": (2, 4), "MB": (4,), "MB2": (4,), "G": (2, 3)}
    if "Conv" in nodes:
        shapes["M"] = (3, 4)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    weights["GB"] = rng.standard_normal((1, 3)).astype(np.float32)
    path = graph_file(tmp_path / "m.onnx", f"{LSTM} {nodes}", weights, outputs="float z")
    spec = read_onnx(path)
    x = rng.standard_normal((5, 4, 3)).astype(np.float32)
    (want,) = onnxruntime_says(path, {"x": x})
    y = float_reference.run(spec, x.swapaxes(0, 1))
    if letters == "bt1f":
        found = y[:, :, None]
    elif letters == "t1bf":
        found = y.swapaxes(0, 1)[:, None]
    elif letters == "(tb)f":
        found = y.swapaxes(0, 1).reshape(20, -1)
    else:
        found = y.swapaxes(0, 1) if letters == "tbf" else y
    assert relative_error(found, want) < FLOAT32


def test_an_axis_of_time_that_is_joined_to_the_features_becomes_a_flatten(tmp_path: Path) -> None:
    nodes = f"""
        {LSTM} p = Transpose <perm = [2, 0, 1, 3]> (y) q = Flatten <axis = 1> (p)
        z = Gemm <transB = 1> (q, G, GB)
    """
    rng = np.random.default_rng(0)
    weights = {"G": rng.standard_normal((3, 10)), "GB": rng.standard_normal(3)}
    path = graph_file(
        tmp_path / "m.onnx",
        nodes,
        {k: v.astype(np.float32) for k, v in weights.items()},
        outputs="float[batch, 3] z",
    )
    spec = read_onnx(path)
    # Nothing but the ten inputs of the Gemm says that there are 10 / 2 steps.
    assert spec.time_steps == 5
    x = rng.standard_normal((5, 4, 3)).astype(np.float32)
    (want,) = onnxruntime_says(path, {"x": x})
    assert relative_error(float_reference.run(spec, x.swapaxes(0, 1)), want) < FLOAT32


BOTH = 'y = LSTM <hidden_size = 2, direction = "bidirectional"> (x, WB, RB, BB)'


def random_moves(rng: np.random.Generator, shape: list[int]) -> tuple[str, list[int]]:
    """Return up to six operators that move, join, cut or pick ``y``, as ``v``; and v's shape."""
    nodes: list[str] = []
    value = "y"

    def add(text: str, new_shape: list[int], steer: list[int] | None = None) -> None:
        nonlocal value, shape
        new = f"v{len(nodes)}"
        if steer is not None:
            nodes.append(f"k{new} = Constant <value_ints = {steer}> ()")
        nodes.append(f"{new} = {text.format(value, k='k' + new)}")
        value, shape = new, new_shape

    for _ in range(int(rng.integers(1, 7))):
        rank = len(shape)
        axis = int(rng.integers(rank))
        kind = rng.choice(["turn", "shape", "one", "none", "pick", "cut", "flat"])
        if kind == "turn":
            order = rng.permutation(rank).tolist()
            add(f"Transpose <perm = {order}> ({{}})", [shape[i] for i in order])
        elif kind == "shape" and rank > 1:
            join = int(rng.integers(rank - 1))
            new = [*shape[:join], shape[join] * shape[join + 1], *shape[join + 2 :]]
            if rng.random() < 0.3:
                new = shape[::-1]
            steer = [-1 if i == rng.integers(9) else n for i, n in enumerate(new)]
            if steer.count(-1) <= 1:
                add("Reshape ({}, {k})", new, steer)
        elif kind == "one" and rank < 6:
            add("Unsqueeze ({}, {k})", [*shape[:axis], 1, *shape[axis:]], [axis])
        elif kind == "none" and shape[axis] == 1 and rank > 2:
            add("Squeeze ({}, {k})", [*shape[:axis], *shape[axis + 1 :]], [axis])
        elif kind == "pick" and rank > 2:
            index = int(rng.choice([-1, 0, shape[axis] - 1]))
            nodes.append(f"i{len(nodes)} = Constant <value_int = {index}> ()")
            steer_name = nodes[-1].split()[0]
            add(
                f"Gather <axis = {axis}> ({{}}, {steer_name})",
                [*shape[:axis], *shape[axis + 1 :]],
            )
        elif kind == "cut":
            nodes.append(f"a{len(nodes)} = Constant <value_ints = [{axis}]> ()")
            nodes.append(f"e{len(nodes)} = Constant <value_ints = [9999999999]> ()")
            a, e = nodes[-2].split()[0], nodes[-1].split()[0]
            start = int(rng.choice([-1, 0]))
            cut = [*shape[:axis], 1 if start else shape[axis], *shape[axis + 1 :]]
            add(f"Slice ({{}}, {{k}}, {e}, {a})", cut, [start])
        elif kind == "flat":
            front = int(np.prod(shape[:axis]))
            add(f"Flatten <axis = {axis}> ({{}})", [front, int(np.prod(shape[axis:]))])
    return f"{' '.join(nodes)} v = Identity ({value})", shape


@pytest.mark.parametrize("sizes", [(5, 3, 2), (2, 2, 2), (4, 1, 2), (1, 3, 2), (1, 1, 2)])
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "fixed"])
@pytest.mark.parametrize("directions", [1, 2])
def test_random_moves_are_understood_or_refused_never_misread(
    tmp_path: Path, sizes: tuple[int, int, int], is_open: bool, directions: int
) -> None:
    steps, rows, hidden = sizes
    rng = np.random.default_rng(0)
    accepted, messages = 0, set()
    first = LSTM if directions == 1 else BOTH
    for _ in range(80):
        nodes, shape = random_moves(rng, [steps, directions, rows, hidden])
        weights = {"M": rng.standard_normal((shape[-1], 3)).astype(np.float32)}
        both = small_lstm()
        weights |= {f"{n}B": np.concatenate([a, a[:, ::-1]]) for n, a in both.items()}
        inputs = "float[time, batch, 3] x" if is_open else f"float[{steps}, {rows}, 3] x"
        text = f"{first} {nodes} z = MatMul (v, M)"
        if len(shape) == 3 and rng.random() < 0.5:
            second = small_lstm(shape[-1], 2)
            weights |= {f"{name}2": array for name, array in second.items()}
            text = f"{first} {nodes} z = LSTM <hidden_size = 2> (v, W2, R2, B2)"
        path = graph_file(tmp_path / "m.onnx", text, weights, inputs=inputs, outputs="float z")
        x = rng.standard_normal((steps, rows, 3)).astype(np.float32)
        (want,) = onnxruntime_says(path, {"x": x})
        try:
            spec = read_onnx(path)
        except UnsupportedModel as error:
            messages.add(str(error))
            continue
        accepted += 1
        found = float_reference.run(spec, x.swapaxes(0, 1))
        # The layout of the answer is the file's own, its values are not.
        assert relative_error(np.sort(found, axis=None), np.sort(want, axis=None)) < FLOAT32, text
    assert accepted >= 3
    assert not [m for m in messages if "1009" in m or "1013" in m or "\n" in m]


STATES = {
    "constants for each row": ("", np.full((1, 4, 2), 0.5, np.float32)),
    "expanded to the batch": (
        """
        s = Shape (x) i = Constant <value_ints = [1]> () b = Gather (s, i)
        one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> ()
        sh = Concat <axis = 0> (one, b, two) h = Expand (row, sh)
        """,
        None,
    ),
    # The chain that tf2onnx writes for a Keras LSTM.
    "filled as by tf2onnx": (
        """
        s = Shape (x) s32 = Cast <to = 6> (s) i = Constant <value_ints = [1]> ()
        j = Constant <value_ints = [2]> () b1 = Slice (s32, i, j)
        z0 = Constant <value_ints = [0]> ()
        b = Squeeze (b1, z0) u = Unsqueeze (b, z0) one = Constant <value_ints = [1]> ()
        one32 = Cast <to = 6> (one) two = Constant <value_ints = [2]> ()
        two32 = Cast <to = 6> (two) sh32 = Concat <axis = 0> (one32, u, two32)
        sh = Cast <to = 7> (sh32) h1 = ConstantOfShape <value = float[1] {0.25}> (sh)
        k = Constant <value = float {2}> () h = Mul (h1, k)
        """,
        None,
    ),
    "filled": (
        """
        s = Shape (x) i = Constant <value_ints = [1]> () b = Gather (s, i)
        one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> ()
        sh = Concat <axis = 0> (one, b, two)
        h = ConstantOfShape <value = float[1] {0.5}> (sh)
        """,
        None,
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_initial_states_that_are_constant_are_kept(tmp_path: Path, kind: str) -> None:
    nodes, constant = STATES[kind]
    weights: dict[str, Array] = {"row": np.full((1, 1, 2), 0.5, np.float32)}
    if constant is not None:
        weights["h"] = constant
    nodes += "y = LSTM <hidden_size = 2> (x, W, R, B, , h)"
    path = graph_file(tmp_path / "m.onnx", nodes, weights)
    spec = read_onnx(path)
    (layer,) = spec.layers
    assert isinstance(layer, Lstm)
    assert layer.initial_hidden is not None
    assert layer.initial_hidden.tolist() == [0.5, 0.5]
    assert layer.initial_cell is None
    x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
    (want,) = onnxruntime_says(path, {"x": x})
    found = float_reference.run(spec, x.swapaxes(0, 1)).swapaxes(0, 1)[:, None]
    assert relative_error(found, want) < FLOAT32


def test_states_that_are_fed_are_the_runtimes(tmp_path: Path) -> None:
    path = graph_file(
        tmp_path / "m.onnx",
        "y, hn, cn = LSTM <hidden_size = 2> (x, W, R, B, , h, c)",
        inputs="float[time, batch, 3] x, float[1, batch, 2] h, float[1, batch, 2] c",
        outputs="float[time, 1, batch, 2] y, float[1, batch, 2] hn, float[1, batch, 2] cn",
    )
    spec = read_onnx(path)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 4, 3)).astype(np.float32)
    h, c = (rng.standard_normal((1, 4, 2)).astype(np.float32) for _ in range(2))
    y, hn, cn = onnxruntime_says(path, {"x": x, "h": h, "c": c})
    state = {"lstm.hidden": h[0].astype(np.float64), "lstm.cell": c[0].astype(np.float64)}
    found = float_reference.run(spec, x.swapaxes(0, 1), state=state)
    assert relative_error(found.swapaxes(0, 1)[:, None], y) < FLOAT32
    assert relative_error(state["lstm.hidden"][None], hn) < FLOAT32
    assert relative_error(state["lstm.cell"][None], cn) < FLOAT32
    assert "state" in spec.source


def test_weights_behind_a_transpose_are_folded(tmp_path: Path) -> None:
    weights = {"Wt": small_lstm()["W"].transpose(0, 2, 1)}
    nodes = """
        Wf = Transpose <perm = [0, 2, 1]> (Wt) Wg = Identity (Wf)
        y = LSTM <hidden_size = 2> (x, Wg, R, B)
    """
    behind = read_onnx(graph_file(tmp_path / "a.onnx", nodes, weights))
    plain = read_onnx(graph_file(tmp_path / "b.onnx", LSTM))
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    assert (float_reference.run(behind, x) == float_reference.run(plain, x)).all()


REFUSED = {
    "direction": ('y = LSTM <hidden_size=2, direction="back"> (x, W, R)', "direction is 'back'"),
    "peepholes": ("y = LSTM <hidden_size=2> (x, W, R, , , , , R)", "P is"),
    "clip": ("y = LSTM <hidden_size=2, clip=0.0> (x, W, R)", "clip is 0"),
    "activations": (
        'y = LSTM <hidden_size=2, activations=["Gelu", "Tanh", "Tanh"]> (x, W, R)',
        "activations are Gelu, Tanh, Tanh",
    ),
    "too few activations": (
        'y = LSTM <hidden_size=2, activations=["Sigmoid", "Tanh"]> (x, W, R)',
        "activations are Sigmoid, Tanh; ",
    ),
    "too many alphas": (
        """y = LSTM <hidden_size=2, activations=["HardSigmoid", "Tanh", "Tanh"],
        activation_alpha=[0.2, 0.3]> (x, W, R)""",
        "activation_alpha has 2 values for HardSigmoid, Tanh, Tanh, which take 1",
    ),
    "no beta": (
        """y = LSTM <hidden_size=2, activations=["Affine", "Tanh", "Tanh"],
        activation_alpha=[0.2]> (x, W, R)""",
        "Affine is without beta",
    ),
    "lengths": ("y = LSTM <hidden_size=2> (x, W, R, , L)", r"sequence_lens is \[3, 2\]"),
    "gru of the shapes of an lstm": ("y = GRU <hidden_size=2> (x, W, R)", "W is .*R is"),
    "shapes": ("y = LSTM <hidden_size=2> (x, W, W)", "W is .*R is"),
    "recurrent weights computed": ("r = Exp (R) y = LSTM <hidden_size=2> (x, W, r)", "Exp"),
    "rows that differ": ("y = LSTM <hidden_size=2> (x, W, R, , , H)", "differs from row to row"),
    "backwards by slice": (
        f"""a = Constant <value_ints = [-1]> () b = Constant <value_ints = [-9999999]> ()
        c = Constant <value_ints = [0]> () z = Slice (x, a, b, c, a)
        {LSTM.replace("(x", "(z")}""",
        "takes -1:-9999999:-1 of input axis 0",
    ),
    "first row of the batch": (
        f"""{LSTM.replace("y =", "q =")} k = Constant <value_int = 0> ()
        y = Gather <axis = 2> (q, k)""",
        "takes index 0 of batch",
    ),
    "product of two": (f"{LSTM.replace('y =', 'q =')} y = Div (q, q)", "joins two computed values"),
    "one step added to all": (
        f"""{LSTM.replace("y =", "q, h =")} u = Constant <value_ints = [0]> ()
        k = Unsqueeze (h, u) y = Add (q, k)""",
        r"joins \[time, 1, batch, features\] and",
    ),
    "mean over the batch": (
        f"{LSTM.replace('y =', 'q =')} y = ReduceMean <axes=[2]> (q)",
        "works along batch",
    ),
    "softmax over time": (
        f"{LSTM.replace('y =', 'q =')} y = Softmax <axis = 0> (q)",
        r"works along time of \[time, 1, batch, features\]",
    ),
    "second lstm along the batch": (
        f"""{LSTM.replace("y =", "q =")} p = Transpose <perm = [2, 0, 1, 3]> (q)
        i = Constant <value_ints = [2]> () r = Squeeze (p, i)
        y = LSTM <hidden_size = 2> (r, R, R, B)""",
        "has time where batch is",
    ),
    "time and batch mixed": (
        f"""{LSTM.replace("y =", "q =")} s = Shape (q) i = Constant <value_ints = [2, 0, 3]> ()
        t = Gather (s, i) y = Reshape (q, t)""",
        "reshapes",
    ),
    "steps by their number": (f"{LSTM} z = Identity (y)", ""),
    "weights of the batch size": (
        f"""{LSTM.replace("y =", "q =")} mm = MatMul (q, M) s = Shape (x)
        k = Constant <value_int = 1> () b = Gather (s, k) f = Cast <to = 1> (b)
        y = Add (mm, f)""",
        "depend on the batch size",
    ),
    "cell as a result": (
        "y, h, c = LSTM <hidden_size = 2> (x, W, R) z = Sigmoid (c)",
        "",
    ),
    "quantized": ("y = DynamicQuantizeLinear (x)", "operator of quantized models"),
    "quantized elsewhere": ("y = com.microsoft.DynamicQuantizeLSTM (x)", "of quantized models"),
    "other domain": ("y = com.microsoft.FusedThing (x)", "domain 'com.microsoft'"),
    "no layer": ("y = Identity (x)", "has no recurrent|computes nothing|nothing works"),
}
del REFUSED["steps by their number"], REFUSED["cell as a result"]


@pytest.mark.parametrize("case", REFUSED)
def test_reader_refuses_by_node_what_would_mean_something_else(tmp_path: Path, case: str) -> None:
    nodes, message = REFUSED[case]
    weights = {
        "P": np.ones((1, 6), np.float32),
        "L": np.array([3, 2], np.int32),
        "H": np.arange(8, dtype=np.float32).reshape(1, 4, 2),
        "M": np.ones((2, 2), np.float32),
        "one": np.ones(3, np.float32),
    }
    path = graph_file(tmp_path / "m.onnx", nodes, weights, outputs="float y")
    with pytest.raises(UnsupportedModel, match=message) as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_reader_refuses_an_if_by_its_node(tmp_path: Path) -> None:
    branch = helper.make_graph([], "branch", [], [])
    node = helper.make_node("If", ["x"], ["y"], "choice", then_branch=branch, else_branch=branch)
    port = helper.make_tensor_value_info("x", TensorProto.BOOL, [])
    graph = helper.make_graph([node], "g", [port], [port])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(UnsupportedModel, match=r"node 'choice' \(If\): If is control flow"):
        read_onnx(tmp_path / "m.onnx")


# --- names and layers


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 14, 17, 22])
def test_attributes_of_old_opsets_are_read_as_inputs_of_new_ones(
    tmp_path: Path, opset: int
) -> None:
    steer = {
        "squeeze": "z = Squeeze <axes = [0, 1]> (q)",
        "slice": "q = Slice <axes = [0], starts = [-1], ends = [9223372036854775807]> (y)",
        "clip": "y2 = Clip <min = 0.0, max = 6.0> (z)",
    }
    if opset >= 10:
        steer["slice"] = """
            a = Constant <value = int64[1] {-1}> () c = Constant <value = int64[1] {0}> ()
            b = Constant <value = int64[1] {9223372036854775807}> () q = Slice (y, a, b, c)"""
    if opset >= 11:
        steer["clip"] = """
            l = Constant <value = float {0}> () h = Constant <value = float {6}> ()
            y2 = Clip (z, l, h)"""
    if opset >= 13:
        steer["squeeze"] = "i = Constant <value = int64[2] {0, 1}> () z = Squeeze (q, i)"
    path = graph_file(
        tmp_path / "m.onnx",
        f"{LSTM} {steer['slice']} {steer['squeeze']} {steer['clip']} w = Softmax <axis=1> (y2)",
        outputs="float[batch, 2] w",
        opset=opset,
    )
    x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
    (want,) = onnxruntime_says(path, {"x": x})
    assert relative_error(float_reference.run(read_onnx(path), x.swapaxes(0, 1)), want) < FLOAT32


def test_the_model_is_named_after_the_file(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "my net-2.onnx", LSTM)
    assert read_onnx(path).name == "my_net_2"
    assert read_onnx(path, name="other").name == "other"


def test_layers_carry_the_weights_of_the_file() -> None:
    spec: ModelSpec = read_onnx(MODELS / "stacked_torchscript.onnx")
    kinds = [type(layer) for layer in spec.layers]
    assert kinds[:3] == [Embedding, Lstm, Lstm]
    assert kinds[-1] is Dense
    assert len({layer.name for layer in spec.layers}) == len(spec.layers)
