"""Recurrent modules of PyTorch with every option, and what stands around them, against PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
from torch import nn  # noqa: E402

from edge_lstm import float_reference  # noqa: E402
from edge_lstm.arrays import Array  # noqa: E402
from edge_lstm.spec import ModelSpec  # noqa: E402
from edge_lstm_converters.read_torch import read_module, read_torch  # noqa: E402
from edge_lstm_converters.suggest_layers import suggest  # noqa: E402

torch.set_num_threads(1)
# PyTorch's word on its own speed.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
BATCH, TIME, FEATURES = 3, 9, 5
# The task's bound; PyTorch computes in float32, a few tens of products a sum.
RELATIVE = 1e-5
KINDS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Net(nn.Module):
    """Runs a function over named modules."""

    def __init__(self, forward: Callable[[Any, Any], Any], **modules: Any) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def assert_like_torch(spec: ModelSpec, net: Any, x: Any, batch_first: bool = True) -> None:
    with torch.no_grad():
        want: Array = net.eval()(x).numpy()
    rows = x.numpy() if batch_first else x.numpy().swapaxes(0, 1)
    found = float_reference.run(spec, rows)
    if not batch_first and found.ndim == 3:
        found = found.swapaxes(0, 1)
    assert found.shape == want.shape
    assert np.abs(found - want).max() <= RELATIVE * np.abs(want).max()


def random_module(rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
    """Return kind, module and options: each at a chance of its own."""
    kind = str(rng.choice(list(KINDS)))
    hidden = int(rng.integers(2, 7))
    options: dict[str, Any] = {
        "num_layers": int(rng.integers(1, 4)),
        "bidirectional": bool(rng.random() < 0.5),
        "bias": bool(rng.random() < 0.7),
        "batch_first": bool(rng.random() < 0.7),
    }
    if kind == "lstm" and rng.random() < 0.4:
        options["proj_size"] = int(rng.integers(1, hidden))
    if kind == "rnn":
        options["nonlinearity"] = str(rng.choice(["tanh", "relu"]))
    return kind, KINDS[kind](FEATURES, hidden, **options), options


def final_states(net: Any, x: Any) -> Any:
    """Return the last layer's h_n, both directions joined."""
    state = net.cell(x)[1]
    state = state[0] if isinstance(state, tuple) else state
    return torch.cat([state[-2], state[-1]], dim=1) if net.cell.bidirectional else state[-1]


def every_step(net: Any, x: Any) -> Any:
    return net.cell(x)[0]


def last_step(net: Any, x: Any) -> Any:
    y = net.cell(x)[0]
    return y[:, -1] if net.cell.batch_first else y[-1]


USES = {"every step": every_step, "last step": last_step, "final states": final_states}


@pytest.mark.parametrize("seed", range(100))
def test_random_modules_equal_pytorch(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    kind, cell, options = random_module(rng)
    use = str(rng.choice(list(USES)))
    net = Net(USES[use], cell=cell)
    shape = (BATCH, TIME) if options["batch_first"] else (TIME, BATCH)
    x = torch.randn(*shape, FEATURES)
    assert_like_torch(read_module(net, x), net, x, options["batch_first"])
    # The same from the weights alone, and a configuration.
    torch.save(net.state_dict(), tmp_path / "m.pt")
    lines = ["[[layers]]", f'type = "{kind}"', 'weights = "cell"']
    lines.append(f"return_sequences = {str(use == 'every step').lower()}")
    if options["bidirectional"] and use != "every step":
        lines.append(f"final_states = {str(use == 'final states').lower()}")
    if kind == "rnn":
        lines.append(f'nonlinearity = "{options["nonlinearity"]}"')
    (tmp_path / "m.toml").write_text("\n".join(lines))
    spec = read_torch(tmp_path / "m.pt", tmp_path / "m.toml")
    assert_like_torch(spec, net, x, options["batch_first"])


def turned(net: Any, x: Any) -> Any:
    """Return x through conv, which wants [batch, features, time]."""
    return net.conv(x.transpose(1, 2)).transpose(1, 2)


NETS: dict[str, Callable[[], Any]] = {
    "h_n reshaped": lambda: Net(
        lambda m, x: m.fc(m.cell(x)[1].permute(1, 0, 2).reshape(x.shape[0], -1)),
        cell=nn.GRU(FEATURES, 4, batch_first=True, bidirectional=True),
        fc=nn.Linear(8, 2),
    ),
    "h_n cut and turned": lambda: Net(
        lambda m, x: m.fc(m.cell(x)[1][-2:].transpose(0, 1).reshape(x.shape[0], -1)),
        cell=nn.GRU(FEATURES, 4, 2, batch_first=True, bidirectional=True),
        fc=nn.Linear(8, 2),
    ),
    "layer norm": lambda: Net(
        lambda m, x: m.n(m.cell(x)[0]),
        cell=nn.LSTM(FEATURES, 4, batch_first=True),
        n=nn.LayerNorm(4, eps=1e-3),
    ),
    "layer norm without weights": lambda: Net(
        lambda m, x: m.n(m.cell(x)[0]),
        cell=nn.LSTM(FEATURES, 4, batch_first=True),
        n=nn.LayerNorm(4, elementwise_affine=False),
    ),
    "batch norm in front": lambda: Net(
        lambda m, x: m.cell(m.n(x.transpose(1, 2)).transpose(1, 2))[0],
        cell=nn.RNN(FEATURES, 4, batch_first=True),
        n=nn.BatchNorm1d(FEATURES),
    ),
    "batch norm of a vector": lambda: Net(
        lambda m, x: m.n(m.cell(x)[0][:, -1]),
        cell=nn.RNN(FEATURES, 4, batch_first=True),
        n=nn.BatchNorm1d(4, affine=False),
    ),
    "convolution, pooling, lstm": lambda: Net(
        lambda m, x: m.cell(m.pool(torch.relu(turned(m, x)).transpose(1, 2)).transpose(1, 2))[0],
        conv=nn.Conv1d(FEATURES, 6, 3, padding=1),
        pool=nn.MaxPool1d(2),
        cell=nn.LSTM(6, 4, batch_first=True),
    ),
    "grouped, strided, dilated": lambda: Net(
        lambda m, x: m.cell(m.next(m.conv(x.transpose(1, 2))).transpose(1, 2))[0][:, -1],
        conv=nn.Conv1d(FEATURES, 10, 3, groups=5, dilation=2, bias=False),
        next=nn.Conv1d(10, 4, 2, stride=2),
        cell=nn.GRU(4, 4, batch_first=True),
    ),
    "same padding": lambda: Net(
        lambda m, x: m.cell(turned(m, x))[0],
        conv=nn.Conv1d(FEATURES, 6, 4, padding="same"),
        cell=nn.LSTM(6, 4, batch_first=True),
    ),
    "average pooling behind": lambda: Net(
        lambda m, x: m.pool(m.cell(x)[0].transpose(1, 2)).transpose(1, 2),
        pool=nn.AvgPool1d(3, 2, 1),
        cell=nn.LSTM(FEATURES, 4, batch_first=True),
    ),
    "adaptive pooling": lambda: Net(
        lambda m, x: m.pool(m.cell(x)[0].transpose(1, 2)).squeeze(2),
        pool=nn.AdaptiveAvgPool1d(1),
        cell=nn.LSTM(FEATURES, 4, batch_first=True),
    ),
    "mean over time": lambda: Net(
        lambda m, x: m.fc(m.cell(x)[0].mean(1)),
        cell=nn.GRU(FEATURES, 4, batch_first=True, bidirectional=True),
        fc=nn.Linear(8, 2),
    ),
    "greatest over time": lambda: Net(
        lambda m, x: m.cell(x)[0].amax(dim=1),
        cell=nn.GRU(FEATURES, 4, batch_first=True),
    ),
    "first step": lambda: Net(
        lambda m, x: m.cell(x)[0][:, 0], cell=nn.LSTM(FEATURES, 4, batch_first=True)
    ),
    "last but one": lambda: Net(
        lambda m, x: m.cell(x)[0][:, -2], cell=nn.LSTM(FEATURES, 4, batch_first=True)
    ),
    "some steps": lambda: Net(
        lambda m, x: m.cell(x)[0][:, 2:-1], cell=nn.LSTM(FEATURES, 4, batch_first=True)
    ),
    "turned round": lambda: Net(
        lambda m, x: m.next(m.cell(x)[0].flip(1))[0],
        cell=nn.LSTM(FEATURES, 4, batch_first=True),
        next=nn.LSTM(4, 4, batch_first=True),
    ),
    "functions": lambda: Net(
        lambda m, x: nn.functional.softplus(
            nn.functional.hardsigmoid(
                nn.functional.elu(nn.functional.leaky_relu(m.cell(x)[0], 0.2), 0.7)
            )
        ),
        cell=nn.LSTM(FEATURES, 4, batch_first=True),
    ),
    "learned first states": lambda: Net(
        lambda m, x: m.cell(x, m.h.expand(-1, x.shape[0], -1).contiguous())[0],
        cell=nn.GRU(FEATURES, 4, 2, batch_first=True, bidirectional=True),
        h=nn.Parameter(torch.randn(4, 1, 4)),
    ),
    "flattened behind a convolution": lambda: Net(
        lambda m, x: m.fc(m.pool(m.cell(x)[0].transpose(1, 2)).transpose(1, 2).flatten(1)),
        pool=nn.MaxPool1d(2),
        cell=nn.LSTM(FEATURES, 4, batch_first=True),
        fc=nn.Linear(16, 3),
    ),
}


@pytest.mark.parametrize("word", NETS)
def test_what_stands_around_equals_pytorch(word: str) -> None:
    torch.manual_seed(0)
    net = NETS[word]()
    for module in net.modules():  # statistics that training leaves
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(BATCH, TIME, FEATURES)
    assert_like_torch(read_module(net, x), net, x)


CONFIG = """
[[layers]]
type = "batch_norm"
weights = "norm"
[[layers]]
type = "conv1d"
weights = "conv"
padding = 1
activation = "relu"
[[layers]]
type = "max_pool"
size = 2
[[layers]]
type = "average_pool"
size = 3
stride = 1
padding = 1
[[layers]]
type = "gru"
weights = "cell"
return_sequences = true
[[layers]]
type = "layer_norm"
weights = "after"
epsilon = 0.001
[[layers]]
type = "global_average_pool"
[[layers]]
type = "dense"
weights = "fc"
activation = "tanh"
"""


def test_a_configuration_says_what_stands_around(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Net(
        lambda m, x: torch.tanh(
            m.fc(
                m.after(
                    m.cell(
                        nn.functional.avg_pool1d(
                            nn.functional.max_pool1d(
                                torch.relu(m.conv(m.norm(x.transpose(1, 2)))), 2
                            ),
                            3,
                            1,
                            1,
                        ).transpose(1, 2)
                    )[0]
                ).mean(1)
            )
        ),
        norm=nn.BatchNorm1d(FEATURES),
        conv=nn.Conv1d(FEATURES, 6, 3, padding=1),
        cell=nn.GRU(6, 4, batch_first=True, bidirectional=True),
        after=nn.LayerNorm(8, eps=1e-3),
        fc=nn.Linear(8, 2),
    )
    net.norm.running_mean.normal_()
    torch.save(net.state_dict(), tmp_path / "m.pt")
    (tmp_path / "m.toml").write_text(CONFIG)
    x = torch.randn(BATCH, TIME, FEATURES)
    assert_like_torch(read_torch(tmp_path / "m.pt", tmp_path / "m.toml"), net, x)
    assert_like_torch(read_module(net, x), net, x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_guess_for_a_state_dict_builds_the_model(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(2)
    cell = KINDS[kind](FEATURES, 4, 2, batch_first=True, bidirectional=True)
    net = Net(lambda m, x: m.fc(final_states(m, x)), cell=cell, fc=nn.Linear(8, 2))
    torch.save(net.state_dict(), tmp_path / "m.pt")
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    (tmp_path / "m.toml").write_text(suggest("m.pt", weights))
    x = torch.randn(BATCH, TIME, FEATURES)
    assert_like_torch(read_torch(tmp_path / "m.pt", tmp_path / "m.toml"), net, x)


# --- through ONNX


def exported(net: Any, x: Any, path: Path, dynamo: bool) -> Path:
    """Write what torch.onnx makes of a module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants, of deprecation, of batch sizes
        torch.onnx.export(net.eval(), (x,), str(path), dynamo=dynamo, verbose=False)
    return path


@pytest.mark.parametrize("seed", range(20))
def test_random_modules_survive_the_export_to_onnx(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    from edge_lstm_converters.read_onnx import read_onnx

    torch.manual_seed(seed)
    rng = np.random.default_rng([2, seed])
    _, cell, options = random_module(rng)
    if "proj_size" in options:  # which no exporter of PyTorch writes
        del options["proj_size"]
        cell = nn.LSTM(FEATURES, 4, **options)
    use = str(rng.choice(list(USES)))
    net = Net(USES[use], cell=cell)
    first = options["batch_first"]
    x = torch.randn(*((BATCH, TIME) if first else (TIME, BATCH)), FEATURES)
    spec = read_onnx(exported(net, x, tmp_path / "m.onnx", dynamo=False))
    assert_like_torch(spec, net, x, first)


NOT_THROUGH_ONNX = {"h_n cut and turned"}  # refused: computes with the states of several layers


@pytest.mark.parametrize("word", [word for word in NETS if word not in NOT_THROUGH_ONNX])
def test_what_stands_around_survives_the_export_to_onnx(tmp_path: Path, word: str) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    from edge_lstm_converters.read_onnx import read_onnx

    torch.manual_seed(0)
    net = NETS[word]()
    x = torch.randn(BATCH, TIME, FEATURES)
    assert_like_torch(read_onnx(exported(net, x, tmp_path / "m.onnx", dynamo=False)), net, x)


# The exporter takes seconds a model.
@pytest.mark.parametrize("word", ["h_n reshaped", "convolution, pooling, lstm", "adaptive pooling"])
def test_a_dynamo_export_is_read(tmp_path: Path, word: str) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript not found: pip install onnxscript")
    from edge_lstm_converters.read_onnx import read_onnx

    torch.manual_seed(0)
    net = NETS[word]()
    x = torch.randn(BATCH, TIME, FEATURES)
    assert_like_torch(read_onnx(exported(net, x, tmp_path / "m.onnx", dynamo=True)), net, x)
