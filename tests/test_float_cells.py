"""Float layers beyond the plain LSTM: against PyTorch, and each row of a batch as if alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.arrays import F32, F64
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import (
    Backward,
    Bidirectional,
    Conv1d,
    Elementwise,
    Embedding,
    Function,
    Gate,
    GlobalPool,
    Gru,
    Layer,
    LayerNorm,
    Lstm,
    Parallel,
    PickStep,
    Pool1d,
    Recurrent,
    Reverse,
    Rnn,
    Scale,
    Steps,
)
from edge_lstm.cells.functions import HARD_SIGMOID, HARD_SIGMOID_6, NAMES, RELU, SIGMOID
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.quantize import quantize
from edge_lstm.spec import FloatRun, ModelSpec, Signal
from strategies import lstm_layer, uniform

FEATURES, HIDDEN, TIME = 5, 4, 9
# Both sides compute in float64; what is left is the order of sums.
CLOSE = 1e-12


def gate(random: np.random.Generator, features: int = FEATURES, hidden: int = HIDDEN) -> Gate:
    return Gate(
        uniform(random, hidden, features), uniform(random, hidden, hidden), uniform(random, hidden)
    )


def gru(random: np.random.Generator, **options: Any) -> Gru:
    return Gru("gru", (gate(random), gate(random), gate(random)), **options)


def rich_lstm(random: np.random.Generator) -> Lstm:
    """Return an LSTM with everything at once; its projection makes 3 features."""
    gates = tuple(
        Gate(uniform(random, HIDDEN, FEATURES), uniform(random, HIDDEN, 3), uniform(random, HIDDEN))
        for _ in range(4)
    )
    return Lstm(
        "rich",
        gates,  # type: ignore[arg-type]
        initial_hidden=uniform(random, 3),
        initial_cell=uniform(random, HIDDEN),
        peepholes=uniform(random, 3, HIDDEN),
        projection=uniform(random, 3, HIDDEN),
        projection_bias=uniform(random, 3),
        functions=(HARD_SIGMOID, Function("softsign"), RELU),
        coupled=True,
        clip=0.7,
        cell_clip=0.4,
        projection_clip=0.3,
    )


def layers_on_sequences(random: np.random.Generator) -> dict[str, Layer]:
    """Return one layer of each kind and option that is fed a sequence of FEATURES."""
    recurrent: list[Recurrent] = [
        lstm_layer(random, "lstm", FEATURES, HIDDEN),
        rich_lstm(random),
        gru(random, candidate_recurrent_bias=uniform(random, HIDDEN), clip=0.5),
        gru(random, reset_after=False, initial_hidden=uniform(random, HIDDEN)),
        Rnn("rnn", gate(random), uniform(random, HIDDEN), RELU),
    ]
    lstm, _, first_gru, second_gru, rnn = recurrent
    found: list[Layer] = [
        *recurrent,
        *(Backward("backward", layer) for layer in recurrent),
        Bidirectional("both", lstm, first_gru),
        Bidirectional("both", first_gru, second_gru, "mul", final=True),
        Bidirectional("both", rnn, lstm, "ave"),
        Bidirectional("both", lstm, lstm, "sum", final=True),
        Reverse("reverse"),
        Scale("scale", uniform(random, FEATURES), uniform(random, FEATURES)),
        LayerNorm("norm", uniform(random, FEATURES), uniform(random, FEATURES), 1e-3),
        Elementwise("elu", Function("elu")),
        GlobalPool("max", "max"),
        GlobalPool("mean", "average"),
        GlobalPool("sum", "sum"),
        PickStep("first", 0),
        PickStep("pick", -2),
        Steps("steps", 1, -1),
        Steps("steps", -3),
        Parallel("residual", ((), (replace(lstm_layer(random, "a", FEATURES, FEATURES)),)), "sum"),
        Parallel("joined", ((lstm,), (Reverse("r"),))),
    ]
    paddings: tuple[Any, ...] = ((0, 0), (2, 0), (1, 2), "same")
    for padding in paddings:
        for stride, dilation in ((1, 1), (2, 1), (1, 2), (3, 1)):
            weights = uniform(random, 6, FEATURES, 2)
            bias = uniform(random, 6)
            found.append(Conv1d("conv", weights, bias, stride, dilation, padding))
        found += [
            Pool1d("pool", "max", 3, 2, padding),
            Pool1d("pool", "average", 3, 1, padding),
            Pool1d("pool", "average", 3, 2, padding, count_padding=True),
        ]
    return {f"{k}: {layer.type_name}": layer for k, layer in enumerate(found)}


SEQUENCE_LAYERS = layers_on_sequences(np.random.default_rng(3))


@pytest.mark.parametrize("word", SEQUENCE_LAYERS)
def test_a_padded_row_gives_what_it_gives_alone(word: str) -> None:
    layer = SEQUENCE_LAYERS[word]
    random = np.random.default_rng(4)
    lengths = np.array([TIME, 3, 6, 4])
    x = random.normal(0, 1, (4, TIME, FEATURES))
    x[np.arange(TIME)[None, :] >= lengths[:, None]] = 1e6  # poison: it must not be read
    run = FloatRun(4, lengths)
    whole = layer.forward(x, run)
    for row, length in enumerate(lengths):
        alone_run = FloatRun(1)
        alone = layer.forward(x[row : row + 1, :length], alone_run)[0]
        found = whole[row]
        if alone.ndim == 2:
            assert run.lengths is not None
            assert run.lengths[row] == len(alone)
            found = found[: len(alone)]
        np.testing.assert_allclose(found, alone, rtol=CLOSE, atol=CLOSE)
        for name, state in alone_run.state.items():
            np.testing.assert_allclose(run.state[name][row], state[0], rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("word", SEQUENCE_LAYERS)
def test_the_output_has_the_shape_of_the_output_signal(word: str) -> None:
    layer = SEQUENCE_LAYERS[word]
    signal = layer.output_signal(Signal("sequence", FEATURES))
    y = layer.forward(np.ones((2, TIME, FEATURES)), FloatRun(2))
    assert y.ndim == (3 if signal.kind == "sequence" else 2)
    assert y.shape[-1] == signal.size


@pytest.mark.parametrize("word", SEQUENCE_LAYERS)
def test_what_is_fed_the_wrong_thing_refuses(word: str) -> None:
    layer = SEQUENCE_LAYERS[word]
    on_vectors = isinstance(layer, Scale | LayerNorm | Elementwise)
    wrong = Signal("tokens" if on_vectors else "vector", FEATURES)
    with pytest.raises(UnsupportedModel, match=f"is fed {wrong.kind}"):
        layer.output_signal(wrong)


@pytest.mark.parametrize(
    "word", [w for w, k in SEQUENCE_LAYERS.items() if isinstance(k, Recurrent)]
)
def test_steps_continue_where_the_sequence_before_ended(word: str) -> None:
    layer = SEQUENCE_LAYERS[word]
    x = np.random.default_rng(5).normal(0, 1, (2, TIME, FEATURES))
    whole = layer.forward(x, FloatRun(2))
    run = FloatRun(2)
    parts = [layer.forward(part, run) for part in (x[:, :4], x[:, 4:5], x[:, 5:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=CLOSE, atol=CLOSE)


def torch_or_skip() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    torch.set_num_threads(1)
    return torch


def assert_like_torch(layer: Layer, function: Callable[[Any, Any], Any]) -> None:
    """Check a layer with PyTorch's function of a float64 tensor [batch, features, time]."""
    torch = torch_or_skip()
    x = np.random.default_rng(6).normal(0, 2, (3, TIME, FEATURES))
    want = function(torch, torch.from_numpy(x).transpose(1, 2)).transpose(1, 2).numpy()
    np.testing.assert_allclose(layer.forward(x, FloatRun(3)), want, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
def test_conv1d_is_pytorchs(stride: int, dilation: int, padding: int) -> None:
    random = np.random.default_rng(7)
    weights, bias = uniform(random, 6, FEATURES, 3), uniform(random, 6)
    assert_like_torch(
        Conv1d("conv", weights, bias, stride, dilation, (padding, padding)),
        lambda torch, x: torch.nn.functional.conv1d(
            x,
            torch.from_numpy(weights).double(),
            torch.from_numpy(bias).double(),
            stride=stride,
            padding=padding,
            dilation=dilation,
        ),
    )


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 1, 1), (4, 3, 2)])
def test_pooling_is_pytorchs(size: int, stride: int, padding: int, count_padding: bool) -> None:
    assert_like_torch(
        Pool1d("pool", "average", size, stride, (padding, padding), count_padding),
        lambda torch, x: torch.nn.functional.avg_pool1d(
            x, size, stride, padding, count_include_pad=count_padding
        ),
    )
    assert_like_torch(
        Pool1d("pool", "max", size, stride, (padding, padding)),
        lambda torch, x: torch.nn.functional.max_pool1d(x, size, stride, padding),
    )


def test_layer_norm_is_pytorchs() -> None:
    random = np.random.default_rng(8)
    weight, bias = uniform(random, FEATURES), uniform(random, FEATURES)
    assert_like_torch(
        LayerNorm("norm", weight, bias, 1e-3),
        lambda torch, x: torch.nn.functional.layer_norm(
            x.transpose(1, 2),
            (FEATURES,),
            torch.from_numpy(weight).double(),
            torch.from_numpy(bias).double(),
            1e-3,
        ).transpose(1, 2),
    )


TORCH_FUNCTIONS: dict[Function, Callable[[Any, Any], Any]] = {
    SIGMOID: lambda torch, x: torch.sigmoid(x),
    Function("tanh"): lambda torch, x: torch.tanh(x),
    RELU: lambda torch, x: torch.relu(x),
    Function("affine", 2.0, -1.0): lambda torch, x: 2 * x - 1,
    Function("leaky_relu", 0.2): lambda torch, x: torch.nn.functional.leaky_relu(x, 0.2),
    Function("thresholded_relu", 0.5): lambda torch, x: torch.nn.functional.threshold(x, 0.5, 0),
    Function("scaled_tanh", 1.7, 0.6): lambda torch, x: 1.7 * torch.tanh(0.6 * x),
    HARD_SIGMOID: lambda torch, x: torch.clamp(0.2 * x + 0.5, 0, 1),
    HARD_SIGMOID_6: lambda torch, x: torch.nn.functional.hardsigmoid(x),
    Function("elu", 0.7): lambda torch, x: torch.nn.functional.elu(x, 0.7),
    Function("softsign"): lambda torch, x: torch.nn.functional.softsign(x),
    Function("softplus"): lambda torch, x: torch.nn.functional.softplus(x, threshold=100),
}


@pytest.mark.parametrize("function", TORCH_FUNCTIONS, ids=str)
def test_a_function_is_pytorchs(function: Function) -> None:
    assert_like_torch(
        Elementwise("f", function), lambda torch, x: TORCH_FUNCTIONS[function](torch, x)
    )


def test_every_function_is_compared() -> None:
    assert {f.name for f in TORCH_FUNCTIONS} == set(NAMES)


def test_functions_compare_by_what_they_compute() -> None:
    assert Function("hard_sigmoid") == Function("hard_sigmoid", 0.2, 0.5) != HARD_SIGMOID_6
    assert Function("tanh", 3.0) == Function("tanh")
    with pytest.raises(UnsupportedModel, match="function 'gelu': unknown; want one of sigmoid"):
        Function("gelu")
    with pytest.raises(UnsupportedModel, match="alpha is nan; want a number"):
        Function("elu", float("nan"))


def test_a_bidirectional_layer_names_its_parts() -> None:
    layer = SEQUENCE_LAYERS["10: bidirectional"]
    run = FloatRun(1)
    layer.forward(np.zeros((1, 2, FEATURES)), run)
    assert sorted(run.state) == ["both_backward.hidden", "both_forward.cell", "both_forward.hidden"]


def spec_of(*layers: Layer) -> ModelSpec:
    return ModelSpec("m", Signal("sequence", FEATURES), layers)


def test_a_sequence_shorter_than_a_window_refuses() -> None:
    spec = spec_of(Pool1d("pool", "max", 4, 1))
    with pytest.raises(UsageError, match="of 3 steps is shorter than its window of 4"):
        float_reference.run(spec, np.zeros((1, 3, FEATURES), np.float32))
    with pytest.raises(UsageError, match="of 3 steps has no step 5"):
        float_reference.run(spec_of(PickStep("p", 5)), np.zeros((1, 3, FEATURES), np.float32))
    with pytest.raises(UsageError, match="nothing is left of a sequence of 3"):
        float_reference.run(spec_of(Steps("s", 3)), np.zeros((1, 3, FEATURES), np.float32))


def test_wrong_shapes_and_options_refuse() -> None:
    random = np.random.default_rng(9)
    lstm = lstm_layer(random, "lstm", FEATURES, HIDDEN)
    wider = lstm_layer(random, "lstm", FEATURES, HIDDEN + 1)
    narrow: F32 = uniform(random, 3, HIDDEN - 1)
    bias = uniform(random, HIDDEN)
    cases: list[tuple[str, Callable[[], object]]] = [
        ("peepholes: shape", lambda: replace(lstm, peepholes=narrow)),
        ("projection_clip and no projection", lambda: replace(lstm, projection_clip=1.0)),
        ("sum it into", lambda: gru(random, reset_after=False, candidate_recurrent_bias=bias)),
        ("merges 4 and 5 features", lambda: Bidirectional("b", lstm, wider, "sum")),
        ("merges by 'max'", lambda: Bidirectional("b", lstm, lstm, "max")),  # type: ignore[arg-type]
        ("stride 0", lambda: Conv1d("c", uniform(random, 1, 1, 1), uniform(random, 1), 0)),
        ("padding is", lambda: Pool1d("p", "max", 2, 1, (2, 0))),
        ("has 1 branches", lambda: Parallel("p", ((),))),
        ("holds the name 'lstm' twice", lambda: Parallel("p", ((lstm,), (lstm,)))),
        ("joins sequence", lambda: spec_of(Parallel("p", ((lstm,), ()), "sum"))),
    ]
    for words, make in cases:
        with pytest.raises(UnsupportedModel, match=words):
            make()


def test_an_embedding_can_be_read_backward() -> None:
    random = np.random.default_rng(10)
    spec = ModelSpec(
        "m",
        Signal("tokens", 7),
        (Reverse("r"), Embedding("e", uniform(random, 7, 3))),
    )
    tokens = np.array([[1, 2, 3]], np.int32)
    table = spec.layers[1].table  # type: ignore[attr-defined]
    np.testing.assert_array_equal(float_reference.run(spec, tokens)[0], table[[3, 2, 1]])


UNQUANTIZED: list[Layer] = [
    SEQUENCE_LAYERS[w] for w in SEQUENCE_LAYERS if w.split()[1] == "layer_norm"
]


@pytest.mark.parametrize("layer", UNQUANTIZED, ids=lambda layer: layer.type_name)
def test_what_has_no_integers_yet_says_so_and_the_way_out(layer: Layer) -> None:
    spec = spec_of(layer)
    x: F64 = np.random.default_rng(11).normal(0, 1, (8, TIME, FEATURES))
    with pytest.raises(UnsupportedModel, match=r"is not in int8 yet; .*--quant float32 --to onnx"):
        quantize(spec, calibrate(spec, x))
