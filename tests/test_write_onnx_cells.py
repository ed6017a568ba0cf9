"""Every cell that a ModelSpec can hold, written to ONNX, run by onnxruntime and read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
pytest.importorskip("onnxruntime", reason="onnxruntime not found: pip install 'edge-lstm[tools]'")

from campaign import seeds
from edge_lstm import float_reference
from edge_lstm.cells import (
    LAYERS,
    Backward,
    Bidirectional,
    Conv1d,
    Dense,
    Elementwise,
    Function,
    Gate,
    GlobalPool,
    Gru,
    Layer,
    LayerNorm,
    Lstm,
    Parallel,
    Pool1d,
    Recurrent,
    Reverse,
    Rnn,
    Scale,
)
from edge_lstm.cells.functions import NAMES
from edge_lstm.errors import MismatchError, UnsupportedModel
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_converters.read_onnx import read_onnx
from edge_lstm_converters.write_onnx import onnx_bytes, write_onnx
from onnx_graphs import FLOAT32, onnxruntime_says, relative_error
from strategies import uniform
from test_float_cells import FEATURES, HIDDEN, SEQUENCE_LAYERS, TIME, gate, gru


def spec_of(*layers: Layer, features: int = FEATURES) -> ModelSpec:
    return ModelSpec("m", Signal("sequence", features), layers)


def check_round_trip(spec: ModelSpec, path: Path) -> ModelSpec:
    """Write (which checks with onnxruntime too), run, read and run again."""
    write_onnx(spec, path)
    x = np.random.default_rng(0).normal(0, 1, (3, TIME, spec.input.size)).astype(np.float32)
    want = float_reference.run(spec, x)
    (found,) = onnxruntime_says(path, {"x": x})
    assert relative_error(found, want) < FLOAT32
    again = read_onnx(path)
    assert relative_error(float_reference.run(again, x), want) < FLOAT32
    return again


def without_clips(layer: Any) -> Any:
    """Return the layer without what ONNX does not have."""
    if isinstance(layer, Lstm):
        return replace(layer, cell_clip=None, projection_clip=None)
    if isinstance(layer, Backward):
        return replace(layer, layer=without_clips(layer.layer))
    return layer


@pytest.mark.parametrize("word", SEQUENCE_LAYERS)
def test_a_layer_survives_writing_and_reading(tmp_path: Path, word: str) -> None:
    layer = without_clips(SEQUENCE_LAYERS[word])
    # A recurrent layer in front says which axis is time.
    first = Gru("front", (gate(R), gate(R), gate(R)))
    layers = (first, Dense("wider", uniform(R, FEATURES, HIDDEN), uniform(R, FEATURES)), layer)
    check_round_trip(spec_of(*layers), tmp_path / "m.onnx")


R = np.random.default_rng(7)


def random_function(rng: np.random.Generator) -> Function:
    return Function(
        str(rng.choice(NAMES)), float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, 0.9))
    )


def random_recurrent(rng: np.random.Generator, name: str, features: int, hidden: int) -> Recurrent:
    """Return an LSTM, GRU or RNN with each option at a chance of its own."""

    def maybe(*shape: int) -> Any:
        return uniform(rng, *shape) if rng.random() < 0.3 else None

    clip = float(np.float32(rng.uniform(0.3, 2))) if rng.random() < 0.3 else None
    kind = rng.choice(["lstm", "gru", "rnn"])
    functions = [random_function(rng) for _ in range(3)]
    own = rng.random() < 0.4
    if kind == "rnn":
        layer = Rnn(name, gate(rng, features, hidden), maybe(hidden), clip=clip)
        return replace(layer, function=functions[0]) if own else layer
    if kind == "gru":
        gates = [gate(rng, features, hidden) for _ in range(3)]
        after = bool(rng.random() < 0.5)
        extra = maybe(hidden) if after else None
        found = Gru(name, (gates[0], gates[1], gates[2]), extra, after, maybe(hidden), clip=clip)
        return replace(found, functions=(functions[0], functions[1])) if own else found
    cells = hidden
    projected = rng.random() < 0.3
    if projected:
        cells = hidden + int(rng.integers(1, 4))
    lstm_gates = [
        Gate(uniform(rng, cells, features), uniform(rng, cells, hidden), uniform(rng, cells))
        for _ in range(4)
    ]
    lstm = Lstm(
        name,
        (lstm_gates[0], lstm_gates[1], lstm_gates[2], lstm_gates[3]),
        maybe(hidden),
        maybe(cells),
        peepholes=maybe(3, cells),
        projection=uniform(rng, hidden, cells) if projected else None,
        projection_bias=maybe(hidden) if projected else None,
        coupled=bool(rng.random() < 0.3),
        clip=clip,
    )
    return replace(lstm, functions=(functions[0], functions[1], functions[2])) if own else lstm


def random_layer(rng: np.random.Generator, name: str, size: int) -> tuple[Layer, int]:
    """Return a layer that takes a sequence of ``size`` features, and what it gives."""
    hidden = int(rng.integers(1, 7))
    kind = rng.choice(["one", "back", "both", "conv", "pool", "norm", "scale", "f", "dense", "par"])
    if kind == "one":
        return random_recurrent(rng, name, size, hidden), hidden
    if kind == "back":
        return Backward(name, random_recurrent(rng, name, size, hidden)), hidden
    if kind == "both":
        pair = [random_recurrent(rng, name, size, hidden) for _ in range(2)]
        if rng.random() < 0.5:
            pair[1] = pair[0]
        merge = rng.choice(["concat", "sum", "ave"])
        layer = Bidirectional(name, pair[0], pair[1], merge)
        return layer, 2 * hidden if merge == "concat" else hidden
    if kind == "conv":
        weights, bias = uniform(rng, hidden, size, 2), uniform(rng, hidden)
        return Conv1d(name, weights, bias, padding=(1, int(rng.integers(2)))), hidden
    if kind == "pool":
        return Pool1d(name, rng.choice(["max", "average"]), 2, 1, (0, 1)), size
    if kind == "norm":
        return LayerNorm(name, uniform(rng, size), uniform(rng, size), 0.01), size
    if kind == "scale":
        return Scale(name, uniform(rng, size), uniform(rng, size)), size
    if kind == "f":
        return Elementwise(name, random_function(rng)), size
    if kind == "dense":
        return Dense(name, uniform(rng, hidden, size), uniform(rng, hidden)), hidden
    inner = Dense(f"{name}_inner", uniform(rng, size, size), uniform(rng, size))
    return Parallel(name, ((inner,), ()), "sum"), size


@pytest.mark.parametrize("seed", seeds(60))
def test_random_models_survive_writing_and_reading(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng([1, seed])
    size = FEATURES
    layers: list[Layer] = []
    for k in range(int(rng.integers(1, 5))):
        layer, size = random_layer(rng, f"layer_{k}", size)
        layers.append(layer)
    if rng.random() < 0.4:
        layers.append(GlobalPool("pool", rng.choice(["max", "average", "sum"])))
    layers.insert(0, random_recurrent(rng, "first", 4, FEATURES))
    try:
        check_round_trip(spec_of(*layers, features=4), tmp_path / "m.onnx")
    except MismatchError as error:
        if "nan" not in str(error):
            raise
        pytest.skip("its values grow without bound")


@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul"])
@pytest.mark.parametrize("size", [1, 3])
def test_one_direction_alone_may_have_a_projection(tmp_path: Path, size: int, merge: Any) -> None:
    plain = Lstm("b", tuple(gate(R, FEATURES, size) for _ in range(4)))  # type: ignore[arg-type]
    cells = size + 1
    gates = tuple(
        Gate(uniform(R, cells, FEATURES), uniform(R, cells, size), uniform(R, cells))
        for _ in range(4)
    )
    projected = Lstm("b", gates, projection=uniform(R, size, cells))  # type: ignore[arg-type]
    for pair in ((plain, projected), (projected, plain)):
        layer = Bidirectional("b", *pair, merge)
        if merge == "mul":
            with pytest.raises(UnsupportedModel, match="a projection that cannot be split"):
                onnx_bytes(spec_of(layer))
        else:
            check_round_trip(spec_of(layer), tmp_path / "m.onnx")


def test_every_cell_is_written_somewhere() -> None:
    seen = {type(layer) for layer in SEQUENCE_LAYERS.values()}
    elsewhere = {"Dense", "Activation", "Embedding", "LastStep", "Flatten", "Dropout"}
    assert {kind.__name__ for kind in set(LAYERS) - seen} == elsewhere


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell_clip": 1.0}, "has a cell_clip, which ONNX's LSTM does not have"),
        ({"projection_clip": 1.0, "cell_clip": None}, "has a projection that cannot be split"),
    ],
)
def test_what_onnx_does_not_have_refuses(change: dict[str, Any], message: str) -> None:
    layer: Any = SEQUENCE_LAYERS["1: lstm"]
    with pytest.raises(UnsupportedModel, match=message):
        onnx_bytes(spec_of(replace(layer, **change)))


def test_a_layer_that_runs_backward_has_no_step_form() -> None:
    layer = Backward("b", gru(R))
    with pytest.raises(UnsupportedModel, match=r"layer 'b' \(backward gru\): runs backward"):
        onnx_bytes(spec_of(layer), stateful=True)


def test_a_gru_can_be_fed_its_state(tmp_path: Path) -> None:
    spec = spec_of(gru(R, initial_hidden=uniform(R, HIDDEN)))
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_bytes(spec, stateful=True))
    x = R.normal(0, 1, (2, TIME, FEATURES)).astype(np.float32)
    layer: Any = spec.layers[0]
    state = np.tile(layer.initial_hidden, (1, 2, 1))
    found = []
    for step in range(TIME):
        y, state = onnxruntime_says(path, {"x": x[:, step : step + 1], "gru.hidden": state})
        found.append(y)
    assert relative_error(np.concatenate(found, axis=1), float_reference.run(spec, x)) < FLOAT32


def test_a_window_longer_than_the_check_is_checked(tmp_path: Path) -> None:
    spec = spec_of(Reverse("r"), Pool1d("p", "max", 20, 1), Rnn("rnn", gate(R)))
    write_onnx(spec, tmp_path / "m.onnx")
    x = R.normal(0, 1, (2, 30, FEATURES)).astype(np.float32)
    (found,) = onnxruntime_says(tmp_path / "m.onnx", {"x": x})
    assert relative_error(found, float_reference.run(spec, x)) < FLOAT32
