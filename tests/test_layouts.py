import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_lstm.cells import Lstm
from edge_lstm.errors import UnsupportedModel
from edge_lstm.spec import FloatRun
from edge_lstm_converters.layouts import join_gates, split_gates, torch_lstm_gates

orders = st.permutations("ifgo").map("".join)


@given(order=orders, hidden=st.integers(1, 5))
def test_joining_split_gates_gives_the_same_array(order: str, hidden: int) -> None:
    stacked = np.arange(4 * hidden * 3, dtype=np.float32).reshape(4 * hidden, 3)
    assert (join_gates(split_gates(stacked, order), order) == stacked).all()


def test_gates_move_between_pytorch_and_onnx_by_the_known_index_lists() -> None:
    # The lists that are used wherever LSTMs move between the two: ifgo -> iofg is [0, 3, 1, 2].
    assert join_gates(split_gates(np.arange(4), "ifgo"), "iofg").tolist() == [0, 3, 1, 2]
    assert join_gates(split_gates(np.arange(4), "iofg"), "ifgo").tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize("bias", [True, False])
def test_torch_gates_compute_what_torch_computes(bias: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 5, batch_first=True, bias=bias)
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    gates = torch_lstm_gates(
        "test",
        weights["weight_ih_l0"],
        weights["weight_hh_l0"],
        weights.get("bias_ih_l0"),
        weights.get("bias_hh_l0"),
    )
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    with torch.no_grad():
        want = module(torch.from_numpy(x))[0].numpy()
    got = Lstm("lstm", gates).forward(x.astype(np.float64), FloatRun(2))
    # torch adds in float32: 7 steps of sums of 8 terms below 1 err by about 1e-7.
    assert np.abs(got - want).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "weight_hh",
            (9, 2),
            r"lstm, weight_hh: shape \[9, 2\]; want \[4\*hidden, hidden\]",
        ),
        ("weight_hh", (8,), r"weight_hh: shape \[8\]"),
        ("weight_hh", (0, 0), r"weight_hh: shape \[0, 0\]"),
        (
            "weight_ih",
            (7, 3),
            r"weight_ih: shape \[7, 3\]; want \[4\*hidden, input\] .* = 2",
        ),
        ("weight_ih", (8, 0), r"weight_ih: shape \[8, 0\]"),
        ("bias_ih", (7,), r"bias_ih: shape \[7\]; want \[8\]"),
        ("bias_hh", (8, 1), r"bias_hh: shape \[8, 1\]; want \[8\]"),
    ],
)
def test_torch_gates_refuse_a_wrong_shape(name: str, shape: tuple[int, ...], message: str) -> None:
    shapes = {"weight_ih": (8, 3), "weight_hh": (8, 2), "bias_ih": (8,), "bias_hh": (8,)}
    given = (shapes | {name: shape}).values()
    ih, hh, bias_ih, bias_hh = (np.zeros(s, np.float32) for s in given)
    with pytest.raises(UnsupportedModel, match=message):
        torch_lstm_gates("f.pt: lstm", ih, hh, bias_ih, bias_hh)
