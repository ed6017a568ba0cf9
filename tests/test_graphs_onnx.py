"""Graphs around recurrent layers: directions, branches, windows, normalization; each as a twin.

Each graph is run by onnxruntime and, read, by the float reference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters.read_onnx import read_onnx
from onnx_graphs import FLOAT32, graph_file, onnxruntime_says, relative_error

R = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return R.normal(0, 0.6, shape).astype(np.float32)


WEIGHTS: dict[str, Array] = {
    "W2": normal(2, 8, 3),
    "R2": normal(2, 8, 2),
    "B2": normal(2, 16),
    "WG": normal(2, 6, 3),
    "RG": normal(2, 6, 2),
    "BG": normal(2, 12),
    "W3": normal(1, 8, 4),
    "R3": normal(1, 8, 2),
    "WN": normal(1, 2, 4),
    "RN": normal(1, 2, 2),
    "V": normal(5, 3, 3),
    "VB": normal(5),
    "VG": normal(6, 1, 2),
    "W5": normal(1, 8, 5),
    "W6": normal(1, 8, 6),
    "head": normal(4, 3),
    "two": normal(2, 2),
    "s3": np.abs(normal(3)) + 0.5,
    "b3": normal(3),
    "m3": normal(3),
    "v3": np.abs(normal(3)) + 0.5,
    "s4": normal(4),
    "b4": normal(4),
    "half": np.array(0.5, np.float32),
    "row": np.repeat(normal(2, 1, 2), 4, axis=1),
}
WEIGHTS["V4"] = WEIGHTS["V"][:, :, None]
BOTH = 'q, h, c = LSTM <hidden_size = 2, direction = "bidirectional"> (x, W2, R2, B2)'
JOIN = """t = Transpose <perm = [0, 2, 1, 3]> (q) j = Constant <value_ints = [0, 0, -1]> ()
u = Reshape (t, j)"""
AXES = "a0 = Constant <value_ints=[0]> () a1 = Constant <value_ints=[1]> ()"
ENDS = """a2 = Constant <value_ints=[2]> () a4 = Constant <value_ints=[4]> ()
am1 = Constant <value_ints=[-1]> () big = Constant <value_ints=[9223372036854775807]> ()
k0 = Constant <value_int=0> () k1 = Constant <value_int=1> () km1 = Constant <value_int=-1> ()"""
TURN = "z = Transpose <perm = [1, 2, 0]> (x)"
BACK = "y = Transpose <perm = [2, 0, 1]> (w)"

# Name: nodes from x [time, batch, 3] to y, what the layers must be, and the layout of y: t for
# [time, batch, f], b for [batch, f], 4 for [time, directions, batch, f], s for [directions, b, f].
GRAPHS: dict[str, tuple[str, str, str]] = {
    "both directions as they come": (BOTH.replace("q,", "y,"), "bidirectional", "4"),
    "both directions joined": (f"{BOTH} {JOIN} y = Identity (u)", "bidirectional", "t"),
    "both directions into a head": (
        f"{BOTH} {JOIN} y = MatMul (u, head)",
        "bidirectional dense",
        "t",
    ),
    "stacked": (
        f"{BOTH} {JOIN} y = LSTM <hidden_size = 2> (u, W3, R3)",
        "bidirectional lstm",
        "4",
    ),
    "final states as they come": (BOTH.replace("h,", "y,"), "bidirectional", "s"),
    "final states joined by index": (
        f"""{BOTH} {ENDS} i = Gather (h, k0) j = Gather (h, km1) y = Concat <axis = 1> (i, j)""",
        "bidirectional",
        "b",
    ),
    "final states the other way round": (
        f"""{BOTH} {ENDS} i = Gather (h, k1) j = Gather (h, k0) y = Concat <axis = 1> (i, j)""",
        "parallel",
        "b",
    ),
    "final states joined by slices": (
        f"""{BOTH} {AXES} {ENDS} i = Slice (h, a0, a1, a0) j = Slice (h, a1, a2, a0)
        y3 = Concat <axis = 2> (i, j) y = Squeeze (y3, a0)""",
        "bidirectional",
        "b",
    ),
    "final states split": (
        f"""{BOTH} {AXES} i, j = Split (h) y3 = Concat <axis = 2> (i, j) y = Squeeze (y3, a0)""",
        "bidirectional",
        "b",
    ),
    "ends of both directions": (
        f"""{BOTH} {JOIN} {AXES} {ENDS} e = Gather (u, km1) f = Slice (e, a0, a2, a1)
        g = Gather (u, k0) b = Slice (g, a2, a4, a1) y = Concat <axis = 1> (f, b)""",
        "bidirectional",
        "b",
    ),
    "last step of both directions": (
        f"{BOTH} {JOIN} {ENDS} y = Gather (u, km1)",
        "bidirectional last_step",
        "b",
    ),
    "one direction": (
        f"{BOTH} {AXES} {ENDS} r = Relu (q) y = Slice (r, a1, a2, a1)",
        "backward_lstm relu",
        "4",
    ),
    "sum of directions": (
        f"{BOTH} {ENDS} i = Gather <axis = 1> (q, k0) j = Gather <axis = 1> (q, k1) y = Add (i, j)",
        "bidirectional",
        "t",
    ),
    "mean of directions": (
        f"""{BOTH} {ENDS} i = Gather <axis = 1> (q, k0) j = Gather <axis = 1> (q, k1)
        s = Add (j, i) y = Mul (s, half)""",
        "bidirectional scale",
        "t",
    ),
    "product of directions": (
        f"{BOTH} {ENDS} i = Gather <axis = 1> (q, k0) j = Gather <axis = 1> (q, k1) y = Mul (i, j)",
        "bidirectional",
        "t",
    ),
    "two nodes, one direction each": (
        """p = LSTM <hidden_size = 2> (x, W, R, B)
        q = LSTM <hidden_size = 2, direction = "reverse"> (x, W, R)
        j = Concat <axis = 3> (p, q) k = Constant <value_ints=[1]> () y = Squeeze (j, k)""",
        "bidirectional",
        "t",
    ),
    "both directions of a gru, its first states in the file": (
        """y = GRU <hidden_size = 2, direction = "bidirectional", linear_before_reset = 1>
        (x, WG, RG, BG, , row)""",
        "bidirectional",
        "4",
    ),
    "gru and rnn": (
        f"""q = GRU <hidden_size = 2, direction = "bidirectional"> (x, WG, RG, BG) {JOIN}
        y = RNN <hidden_size = 2, activations = ["Relu"]> (u, WN, RN)""",
        "bidirectional rnn",
        "4",
    ),
    "reverse and its final state": (
        'q, h = LSTM <hidden_size = 2, direction = "reverse"> (x, W, R, B)'
        " k = Constant <value_ints=[0]> () y = Squeeze (h, k)",
        "backward_lstm first_step",
        "b",
    ),
    "time reversed by a slice": (
        f"""{AXES} {ENDS} far = Constant <value_ints=[-9223372036854775807]> ()
        q = LSTM <hidden_size = 2> (x, W, R, B) f = Slice (q, am1, far, a0, am1)
        z = Squeeze (f, a1) y = LSTM <hidden_size = 2> (z, R, R)""",
        "lstm reverse lstm_1",
        "4",
    ),
    "all steps but one": (
        f"{AXES} {ENDS} q = LSTM <hidden_size = 2> (x, W, R, B) y = Slice (q, a0, am1, a0)",
        "lstm steps",
        "4",
    ),
    "two steps, then more layers": (
        f"""{AXES} {ENDS} q = LSTM <hidden_size = 2> (x, W, R, B) s = Slice (q, a1, a4, a0)
        z = Squeeze (s, a1) y = LSTM <hidden_size = 2> (z, R, R)""",
        "lstm steps lstm_1",
        "4",
    ),
    "first step": (
        f"{AXES} {ENDS} q = LSTM <hidden_size = 2> (x, W, R, B) z = Slice (q, a0, a1, a0)"
        " y3 = Squeeze (z, a0) y = Squeeze (y3, a0)",
        "lstm first_step",
        "b",
    ),
    "third step": (
        "q = LSTM <hidden_size = 2> (x, W, R, B) k = Constant <value_int=2> () s = Gather (q, k)"
        " a = Constant <value_ints=[0]> () y = Squeeze (s, a)",
        "lstm pick_step",
        "b",
    ),
    "residual": (
        f"{AXES} q = LSTM <hidden_size = 2> (x, W, R, B) z = Squeeze (q, a1)"
        " r = MatMul (z, two) t = Tanh (r) y = Add (t, z)",
        "lstm parallel",
        "t",
    ),
    "twice the same": (
        "q = LSTM <hidden_size = 2> (x, W, R, B) y = Add (q, q)",
        "lstm parallel",
        "4",
    ),
    "mean over time": (
        f"{AXES} q = LSTM <hidden_size = 2> (x, W, R, B) z = Squeeze (q, a1)"
        " y = ReduceMean <axes = [0], keepdims = 0> (z)",
        "lstm global_average_pool",
        "b",
    ),
    "greatest over time": (
        f"{AXES} q = LSTM <hidden_size = 2> (x, W, R, B) z = Squeeze (q, a1)"
        " y = ReduceMax <axes = [0], keepdims = 0> (z)",
        "lstm global_max_pool",
        "b",
    ),
    "sum and mean joined": (
        f"""{AXES} q = LSTM <hidden_size = 2> (x, W, R, B) z = Squeeze (q, a1)
        s = ReduceSum <keepdims = 0> (z, a0) m = ReduceMean <axes = [0], keepdims = 0> (z)
        y = Concat <axis = -1> (s, m)""",
        "lstm parallel",
        "b",
    ),
    "convolution in front": (
        f"""{AXES} {TURN} w = Conv <kernel_shape = [3], pads = [1, 1]> (z, V, VB)
        r = Relu (w) p = MaxPool <kernel_shape = [2], strides = [2]> (r)
        f = Transpose <perm = [2, 0, 1]> (p) y = LSTM <hidden_size = 2> (f, W5, R)""",
        "conv1d relu max_pool lstm",
        "4",
    ),
    "causal dilated convolution": (
        f"{TURN} w = Conv <kernel_shape = [3], pads = [4, 0], dilations = [2]> (z, V) {BACK}",
        "conv1d",
        "t",
    ),
    "convolution and pooling of two axes, as tf2onnx writes them": (
        f"""{AXES} {ENDS} a3 = Constant <value_ints=[3]> () {TURN} z4 = Unsqueeze (z, a2)
        c4 = Conv <kernel_shape = [1, 3], pads = [0, 1, 0, 0], strides = [1, 2]> (z4, V4, VB)
        c = Squeeze (c4, a2) u4 = Unsqueeze (c, a3)
        p4 = AveragePool <kernel_shape = [2, 1], pads = [1, 0, 0, 0]> (u4)
        w = Squeeze (p4, a3) {BACK}""",
        "conv1d average_pool",
        "t",
    ),
    "steps reversed by their number, as tf2onnx writes it": (
        f"""{AXES} {ENDS} s = Shape (x) n = Gather (s, k0) b = Gather (s, a1) l = Expand (n, b)
        r = ReverseSequence <time_axis = 0, batch_axis = 1> (x, l)
        y = LSTM <hidden_size = 2> (r, W, R)""",
        "reverse lstm",
        "4",
    ),
    "strided same convolution": (
        f'{TURN} w = Conv <kernel_shape=[3], auto_pad="SAME_UPPER", strides=[2]> (z, V, VB) {BACK}',
        "conv1d",
        "t",
    ),
    "grouped convolution": (
        f"{TURN} w = Conv <kernel_shape = [2], group = 3> (z, VG) {BACK}",
        "conv1d",
        "t",
    ),
    "pooling": (
        f"""{TURN} p = AveragePool <kernel_shape = [3], pads = [1, 1], strides = [2]> (z)
        w = AveragePool <kernel_shape = [2], pads = [1, 0], count_include_pad = 1> (p) {BACK}""",
        "average_pool average_pool_1",
        "t",
    ),
    "zeros put at the ends, and none": (
        f"""no = Constant <value_ints = [0, 0, 0, 0, 0, 0]> () n = Pad (x, no)
        {TURN.replace("x", "n")} ends = Constant <value_ints = [0, 0, 2, 0, 0, 1]> ()
        p = Pad (z, ends) w = Conv <kernel_shape = [3]> (p, V, VB) {BACK}""",
        "conv1d conv1d_1",
        "t",
    ),
    "global pooling": (
        f"{TURN} w = GlobalMaxPool (z) a = Constant <value_ints=[2]> () y = Squeeze (w, a)",
        "global_max_pool",
        "b",
    ),
    "batch normalization": (
        f"""{TURN} n = BatchNormalization <epsilon = 0.01> (z, s3, b3, m3, v3)
        f = Transpose <perm = [2, 0, 1]> (n) y = LSTM <hidden_size = 2> (f, W, R)""",
        "scale lstm",
        "4",
    ),
    "layer normalization": (
        f"{BOTH} {JOIN} y = LayerNormalization <epsilon = 0.001> (u, s4, b4)",
        "bidirectional layer_norm",
        "t",
    ),
    "input less its mean over its deviation": (
        "d = Sub (x, m3) n = Div (d, v3) y = LSTM <hidden_size = 2> (n, W, R)",
        "scale lstm",
        "4",
    ),
    "functions": (
        """q = LSTM <hidden_size = 2> (x, W, R, B) e = Elu <alpha = 0.3> (q)
        l = LeakyRelu <alpha = 0.2> (e) h = HardSigmoid (l) s = Softsign (h) p = Softplus (s)
        y = ThresholdedRelu <alpha = 0.9> (p)""",
        "lstm elu leaky_relu hard_sigmoid softsign softplus thresholded_relu",
        "4",
    ),
}


def laid_out(found: Array, layout: str, directions: int) -> Array:
    """Return [batch, time, f] or [batch, f] as the graph lays it out."""
    if layout == "b":
        return found
    if layout == "t":
        return found.swapaxes(0, 1)
    split = found.reshape(*found.shape[:-1], directions, -1)
    return split.transpose(1, 0, 2) if layout == "s" else split.transpose(1, 2, 0, 3)


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "fixed"])
@pytest.mark.parametrize("word", GRAPHS)
def test_a_graph_means_what_onnxruntime_computes(tmp_path: Path, word: str, is_open: bool) -> None:
    nodes, kinds, layout = GRAPHS[word]
    inputs = "float[time, batch, 3] x" if is_open else "float[9, 4, 3] x"
    shape = {"b": "batch, f", "t": "time, batch, f", "4": "time, d, batch, f", "s": "d, batch, f"}
    outputs = f"float[{shape[layout]}] y"
    path = graph_file(tmp_path / "m.onnx", nodes, WEIGHTS, inputs=inputs, outputs=outputs)
    spec = read_onnx(path)
    assert " ".join(layer.name for layer in spec.layers) == kinds
    x = R.normal(0, 1, (9, 4, 3)).astype(np.float32)
    (want,) = onnxruntime_says(path, {"x": x})
    found = float_reference.run(spec, x.swapaxes(0, 1))
    directions = want.shape[{"4": 1, "s": 0}.get(layout, 0)]
    assert relative_error(laid_out(found, layout, directions), want) < FLOAT32


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("k = Constant <value_float = 1.0> () p = Pad (x, n, k)", "want zeros along time"),
        ("p = Pad (x, n)", "want zeros along time"),
        ('p = Pad <mode = "edge"> (x, e)', "mode edge; want zeros along time"),
        ("s = Sub (x, x) p = Pad (x, s)", "joins two computed values|steered by computed values"),
    ],
)
def test_other_padding_is_refused(tmp_path: Path, nodes: str, message: str) -> None:
    pads = {"n": np.array([0, 1, 0, 0, 0, 0]), "e": np.array([0, 0, 1, 0, 0, 0])}
    text = f"{nodes} y = LSTM <hidden_size = 2> (p, W, R)"
    path = graph_file(tmp_path / "m.onnx", text, pads, inputs="float[9, 4, 3] x")
    with pytest.raises(UnsupportedModel, match=message):
        read_onnx(path)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("w = Conv <kernel_shape = [3], pads = [1099511627776, 1]> (z, V)", "padding is .*16,384"),
        (
            "w = Conv <kernel_shape = [3], dilations = [1099511627776]> (z, V)",
            "sees 2,199,.* steps",
        ),
        (
            'w = MaxPool <kernel_shape = [1099511627776], auto_pad = "SAME_UPPER"> (z)',
            "sees 1,099,511,627,776 steps; want at most 16,384",
        ),
    ],
)
def test_a_window_that_would_fill_memory_is_refused(
    tmp_path: Path, node: str, message: str
) -> None:
    path = graph_file(tmp_path / "m.onnx", f"{TURN} {node} {BACK}", WEIGHTS)
    with pytest.raises(UnsupportedModel, match=message):
        read_onnx(path)


def test_a_part_of_the_steps_reversed_is_refused(tmp_path: Path) -> None:
    nodes = "r = ReverseSequence (x, n) y = LSTM <hidden_size = 2> (r, W, R)"
    lengths = {"n": np.array([9, 9, 8, 9])}
    path = graph_file(tmp_path / "m.onnx", nodes, lengths, inputs="float[9, 4, 3] x")
    with pytest.raises(UnsupportedModel, match="reverses a part of the steps; want lengths that"):
        read_onnx(path)


def test_lengths_that_are_fed_are_the_runtimes(tmp_path: Path) -> None:
    nodes = """
        n = Cast <to = 6> (lengths)
        q, h = LSTM <hidden_size = 2, direction = "bidirectional"> (x, W2, R2, B2, n)
        t = Transpose <perm = [0, 2, 1, 3]> (q) j = Constant <value_ints = [0, 0, -1]> ()
        u = Reshape (t, j) y, last = GRU <hidden_size = 2> (u, WN3, RN3, , n)
        k = Constant <value_ints=[0]> () z = Squeeze (last, k) w = MatMul (z, two)
    """
    weights = {**WEIGHTS, "WN3": normal(1, 6, 4), "RN3": normal(1, 6, 2)}
    inputs = "float[time, batch, 3] x, int64[batch] lengths"
    path = graph_file(tmp_path / "m.onnx", nodes, weights, inputs=inputs, outputs="float[b, 2] w")
    spec = read_onnx(path)
    assert spec.source["lengths"] == "input lengths of the file"
    x, lengths = R.normal(0, 1, (9, 4, 3)).astype(np.float32), np.array([9, 1, 4, 7])
    (want,) = onnxruntime_says(path, {"x": x, "lengths": lengths})
    assert relative_error(float_reference.run(spec, x.swapaxes(0, 1), lengths), want) < FLOAT32


LENGTHS = "q, h = LSTM <hidden_size = 2> (x, W, R, B, lengths)"
REFUSED_WITH_LENGTHS = {
    "last step": (f"{LENGTHS} k = Constant <value_int=-1> () y = Gather (q, k)", "the final state"),
    "mean": (f"{LENGTHS} y = ReduceMean <axes = [0]> (q)", "a global_average_pool that works on"),
    "one of two": (
        f"{LENGTHS} k = Constant <value_ints=[1]> () z = Squeeze (q, k)"
        " y = LSTM <hidden_size = 2> (z, R, R)",
        "differs from another recurrent layer in having sequence_lens",
    ),
    "computed": (
        """q = LSTM <hidden_size = 2> (x, W, R, B) k = Constant <value_ints=[1]> ()
        z = Squeeze (q, k) y = LSTM <hidden_size = 2> (z, R, R, , z)""",
        "sequence_lens is computed",
    ),
}


@pytest.mark.parametrize("word", REFUSED_WITH_LENGTHS)
def test_what_would_read_past_the_lengths_refuses(tmp_path: Path, word: str) -> None:
    nodes, message = REFUSED_WITH_LENGTHS[word]
    inputs = "float[time, batch, 3] x, int32[batch] lengths"
    path = graph_file(tmp_path / "m.onnx", nodes, inputs=inputs, outputs="float y")
    with pytest.raises(UnsupportedModel, match=message):
        read_onnx(path)
