"""Random PyTorch models through each exporter and back: the reader's floats are PyTorch's."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")

import test_torch_joins as joins  # noqa: E402
import test_torch_loops as loops  # noqa: E402
from campaign import seeds  # noqa: E402
from edge_lstm import float_reference  # noqa: E402
from edge_lstm.errors import UnsupportedModel  # noqa: E402
from edge_lstm.spec import ModelSpec  # noqa: E402
from edge_lstm_converters import read  # noqa: E402
from torch_nets import relative_difference  # noqa: E402
from torch_zoo import random_net  # noqa: E402

torch.set_num_threads(1)
# PyTorch's words on its own speed.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
# The task's bound. PyTorch computes in float32: sums of some ten terms, eleven steps.
RELATIVE = 1e-5
# Softmax and ReLU may leave little; errors are measured against at least this.
LEAST = 1e-3


def assert_like_torch(path: Path, net: Any, x: Any, seed: int) -> None:
    spec = read(path)
    assert isinstance(spec, ModelSpec)
    with torch.no_grad():
        want = net(x).numpy()
    found = float_reference.run(spec, x.numpy())
    assert found.shape == want.shape, seed
    assert np.abs(found - want).max() <= RELATIVE * max(np.abs(want).max(), LEAST), seed


@pytest.mark.parametrize("first", seeds(48)[::12])
def test_models_survive_torch_export(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 12):
        net, x = random_net(seed)
        path = tmp_path / f"m{seed}.pt2"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of weights that nn.LSTM keeps in a list
            torch.export.save(torch.export.export(net, (x,)), path)
        assert_like_torch(path, net, x, seed)


def write_torchscript(net: Any, x: Any, path: Path, opset: int, axes: list[int]) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of its own end, of constants, of batch sizes
        torch.onnx.export(
            net,
            (x,),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": axes} if axes else None,
        )


@pytest.mark.parametrize("opset", [*range(9, 21)])
def test_models_survive_the_torchscript_exporter(tmp_path: Path, opset: int) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    for seed in (200 + 12 * opset + number for number in seeds(12)):
        net, x = random_net(seed, projections=False)  # which no exporter of PyTorch writes
        path = tmp_path / f"m{seed}.onnx"
        write_torchscript(net, x, path, opset, [[], [0], [1], [0, 1]][seed % 4])
        assert_like_torch(path, net, x, seed)


# The exporter takes seconds a model.
@pytest.mark.parametrize("seed", range(3))
def test_models_survive_the_dynamo_exporter(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript not found: pip install onnxscript")
    # It writes an RNN step by step, and an LSTM's projection not at all.
    net, x = random_net(300 + seed, projections=False)
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(path), dynamo=True, verbose=False)
    assert_like_torch(path, net, x, seed)


# Models that mean much, some of which no spec can hold.

MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    **{
        f"{word}: {name}": (
            partial(joins.Net, case[0]),
            (joins.BATCH, joins.TIME, joins.SIZE),
        )
        for word, cases in (("joins", joins.ACCEPTED), ("refused", joins.REFUSED))
        for name, case in cases.items()
    },
    **{
        f"loop: {name}": (
            partial(loops.Net, function, **loops.modules("gru", 1)),
            (loops.BATCH, loops.TIME, loops.FEATURES),
        )
        for name, function in loops.SHAPES.items()
    },
    # Rows, directions and features of one size: what is confused keeps its shape.
    "rows for directions": (
        lambda: joins.Net(lambda m, x: m.bi(x)[1][0].reshape(2, -1)),
        (2, joins.TIME, joins.SIZE),
    ),
    "rows for directions, turned": (
        lambda: joins.Net(lambda m, x: m.bi(x)[1][0].transpose(1, 2).reshape(2, -1)),
        (2, joins.TIME, joins.SIZE),
    ),
    "rows for steps": (
        lambda: joins.Net(lambda m, x: m.time_first(x)[0].reshape(4, -1)),
        (4, 4, joins.SIZE),
    ),
    "features for steps": (
        lambda: joins.Net(lambda m, x: m.a(x.transpose(1, 2))[0][:, -1]),
        (3, joins.SIZE, joins.SIZE),
    ),
}


def outcome(path: Path, net: Any, x: Any) -> str:
    """Return whether the file is read and means the same, or refused."""
    try:
        spec = read(path)
    except UnsupportedModel:
        return "refused"
    assert isinstance(spec, ModelSpec)
    words = spec.source["input_layout"].split(", ")
    axes = ", ".join(word.split(" ")[0] for word in words)
    spec.source.update(input_axes=axes)
    with torch.no_grad():
        want = net(x)
    names = [word.split(" ")[0] for word in spec.source["output_layout"].split(", ")]
    words = [{"1": "unit", "time*features": "features"}.get(name, name) for name in names]
    spec.source.update(output_axes=", ".join(words))
    assert len(names) == want.ndim
    assert relative_difference(spec, x, want) <= RELATIVE
    return "read"


@pytest.mark.parametrize("part", range(4))
def test_no_export_is_read_as_another_model(tmp_path: Path, part: int) -> None:
    """What the exporter makes of any of these is read rightly, or refused."""
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    outcomes = []
    for name in list(MODELS)[part::4]:
        make, shape = MODELS[name]
        torch.manual_seed(0)
        net, x = make().eval(), torch.randn(*shape)
        path = tmp_path / "m.onnx"
        try:
            write_torchscript(net, x, path, 17, [])
        except Exception:  # what the exporter itself cannot do is no matter of ours
            continue
        outcomes.append(outcome(path, net, x))
    assert outcomes.count("read") >= len(outcomes) // 3, outcomes
