"""First states that an ``.onnx`` file keeps in its metadata, beside inputs for the states."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.arrays import F32
from edge_lstm.cells import Backward, Bidirectional, Dense, Gate, Gru, Lstm, Recurrent, Rnn
from edge_lstm.errors import UnreadableModel
from edge_lstm.spec import Layer, ModelSpec, Signal

onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
pytest.importorskip("onnxruntime", reason="onnxruntime not found: pip install onnxruntime")

from edge_lstm_converters.check import check  # noqa: E402
from edge_lstm_converters.read_onnx import read_onnx  # noqa: E402
from edge_lstm_converters.write_onnx import onnx_bytes  # noqa: E402

RNG = np.random.default_rng(0)


def gate(features: int, hidden: int) -> Gate:
    shapes = (hidden, features), (hidden, hidden), (hidden,)
    return Gate(*(RNG.normal(0, 0.6, shape).astype(np.float32) for shape in shapes))


def first(size: int) -> F32:
    return RNG.normal(0, 1, size).astype(np.float32)


def lstm(features: int, hidden: int, *, cell: bool = True) -> Lstm:
    gates = (gate(features, hidden),) * 4
    return Lstm("lstm", gates, first(hidden), first(hidden) if cell else None)


LAYERS: dict[str, tuple[Layer, ...]] = {
    "lstm": (lstm(3, 4),),
    "hidden state alone": (lstm(3, 4, cell=False),),
    "gru": (Gru("gru", (gate(3, 4),) * 3, initial_hidden=first(4)),),
    "rnn": (Rnn("rnn", gate(3, 4), first(4)),),
    "two, one from zero": (
        replace(lstm(3, 4), initial_hidden=None, initial_cell=None),
        replace(lstm(4, 5), name="second"),
        Dense("head", np.ones((2, 5), np.float32), np.zeros(2, np.float32)),
    ),
    "backward": (Backward("back", lstm(3, 4)),),
    "both directions": (Bidirectional("both", lstm(3, 4), lstm(3, 4)),),
}


def firsts(layers: tuple[Layer, ...]) -> list[object]:
    """Return all first states in order."""
    found: list[object] = []
    for layer in layers:
        if isinstance(layer, Bidirectional):
            found += firsts((layer.forward_layer, layer.backward_layer))
        elif isinstance(layer, Backward):
            found += firsts((layer.layer,))
        elif isinstance(layer, Recurrent):
            for word in ("initial_hidden", "initial_cell"):
                values = getattr(layer, word, None)
                found.append(None if values is None else values.tolist())
    return found


# What runs backward takes whole sequences, so no call carries its state to the next.
STREAMS = [name for name in LAYERS if name not in ("backward", "both directions")]


@pytest.mark.parametrize(
    ("name", "stateful"), [*((name, False) for name in LAYERS), *((name, True) for name in STREAMS)]
)
def test_first_states_come_back(name: str, stateful: bool, tmp_path: Path) -> None:
    spec = ModelSpec("m", Signal("sequence", 3), LAYERS[name])
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_bytes(spec, stateful=stateful))
    back = read_onnx(path)
    assert firsts(back.layers) == firsts(spec.layers)
    x = RNG.normal(0, 1, (2, 5, 3)).astype(np.float32)
    assert (float_reference.run(back, x) == float_reference.run(spec, x)).all()
    found = check(path, back)
    assert found["max_abs_error"] <= found["tolerance"]
    if stateful:
        assert back.source["state"].endswith("from the file's metadata at first")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON of numbers by input name"),
        ('{"lstm.hidden": "x"}', "is not JSON of numbers by input name"),
        ("[1]", "is not JSON of numbers by input name"),
        ('{"lstm.hidden": [[1]]}', "'lstm.hidden' has 2 axes; want finite numbers"),
        ('{"lstm.hidden": [NaN]}', "want finite numbers"),
        ('{"lstm.hidden": [1, 2]}', "'lstm.hidden' has 2 values; want 4"),
    ],
)
def test_damaged_first_states_are_refused(text: str, says: str, tmp_path: Path) -> None:
    model = onnx.load_from_string(
        onnx_bytes(ModelSpec("m", Signal("sequence", 3), LAYERS["lstm"]), stateful=True)
    )
    assert json.loads(model.metadata_props[0].value)["lstm.hidden"]
    model.metadata_props[0].value = text
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with pytest.raises(UnreadableModel, match=says) as info:
        read_onnx(path)
    assert str(path) in str(info.value)
