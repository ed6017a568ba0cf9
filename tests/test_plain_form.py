"""Layers in other words: the same function in float, and what comes of it in integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import interpreters
from edge_lstm import float_reference
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import (
    Backward,
    Bidirectional,
    Dense,
    Dropout,
    Elementwise,
    Gate,
    Gru,
    LastStep,
    Layer,
    Lstm,
    Parallel,
    PickStep,
    Reverse,
    Rnn,
    Scale,
)
from edge_lstm.cells.functions import HARD_SIGMOID, TANH, Function
from edge_lstm.cells.recurrent import MERGES
from edge_lstm.errors import UnsupportedModel
from edge_lstm.float_runtime import FloatSession
from edge_lstm.plain_form import plain_form
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec, Signal
from strategies import lstm_layer, uniform

FEATURES, HIDDEN, TIME = 6, 8, 12
R = np.random.default_rng(1)


def projected(name: str, hidden: int = 3, *, first: bool = False) -> Lstm:
    gates = [
        Gate(uniform(R, HIDDEN, FEATURES), uniform(R, HIDDEN, hidden), uniform(R, HIDDEN))
        for _ in range(4)
    ]
    return Lstm(
        name,
        (gates[0], gates[1], gates[2], gates[3]),
        projection=uniform(R, hidden, HIDDEN),
        projection_bias=uniform(R, hidden) if first else None,
        initial_hidden=uniform(R, hidden) if first else None,
        initial_cell=uniform(R, HIDDEN) if first else None,
    )


def plain(name: str = "lstm", features: int = FEATURES) -> Lstm:
    return lstm_layer(R, name, features, HIDDEN)


def scale(name: str, size: int) -> Scale:
    return Scale(name, R.uniform(0.5, 2, size).astype(np.float32), uniform(R, size))


def dense(name: str, size: int) -> Dense:
    return Dense(name, uniform(R, 4, size), uniform(R, 4))


def spec_of(*layers: Layer) -> ModelSpec:
    return ModelSpec("m", Signal("sequence", FEATURES), layers)


REWRITTEN: dict[str, ModelSpec] = {
    "projection": spec_of(projected("p")),
    "projection with first states": spec_of(projected("p", first=True)),
    "coupled": spec_of(replace(plain(), coupled=True)),
    "coupled with peepholes": spec_of(replace(plain(), coupled=True, peepholes=uniform(R, 3, 8))),
    "wide clip": spec_of(replace(plain(), clip=50.0)),
    "backward projection": spec_of(Backward("b", projected("p"))),
    "bidirectional projection": spec_of(Bidirectional("b", projected("p"), projected("q"))),
    "mean of projections": spec_of(Bidirectional("b", projected("p"), projected("q"), "ave")),
    "mean": spec_of(Bidirectional("b", plain(), plain(), "ave")),
    "mean of final states": spec_of(Bidirectional("b", plain(), plain(), "ave", final=True)),
    "sum with one projection": spec_of(
        Bidirectional("b", projected("p", HIDDEN), plain(), "sum", final=True)
    ),
    "one projection of two": spec_of(Bidirectional("b", projected("p"), plain(), final=True)),
    "scale before an LSTM": spec_of(scale("s", FEATURES), Dropout("d"), plain()),
    "scale before both directions": spec_of(
        scale("s", FEATURES), Bidirectional("b", plain(), replace(plain(), coupled=True))
    ),
    "scale before a backward LSTM": spec_of(scale("s", FEATURES), Backward("b", plain())),
    "scale behind a dense": spec_of(dense("a", FEATURES), scale("s", 4)),
    "scale before a dense": spec_of(plain(), scale("s", HIDDEN), dense("a", HIDDEN)),
    "one factor for all features": spec_of(
        Elementwise("s", Function("affine", 0.1, -0.5)), plain(), dense("a", HIDDEN)
    ),
    "two scales": spec_of(scale("s", FEATURES), scale("t", FEATURES), dense("a", FEATURES)),
}
AS_IT_IS: dict[str, ModelSpec] = {
    "plain": spec_of(plain(), LastStep("last"), dense("a", HIDDEN)),
    "narrow clip": spec_of(replace(plain(), clip=2.0)),
    "projection with clip": spec_of(replace(projected("p"), projection_clip=0.1)),
    # More outputs than cells: no cell state gives a first state of any value.
    "first state out of reach": spec_of(projected("p", HIDDEN + 4, first=True)),
    "product of projections": spec_of(Bidirectional("b", projected("p"), projected("q"), "mul")),
    "coupled hard sigmoid": spec_of(
        replace(plain(), coupled=True, functions=(HARD_SIGMOID, TANH, TANH))
    ),
    "scale behind an LSTM": spec_of(plain(), scale("s", HIDDEN)),
    "scale behind a relu": spec_of(replace(dense("a", FEATURES), activation="relu"), scale("s", 4)),
}


def x_of(batch: int = 5) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(2).normal(0, 1, (batch, TIME, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("word", REWRITTEN)
def test_the_plain_form_computes_the_same(word: str) -> None:
    spec = REWRITTEN[word]
    rewritten, notes = plain_form(spec)
    assert notes
    lengths = np.array([TIME, 3, 1, 7, TIME])
    want = float_reference.run(spec, x_of(), lengths)
    found = float_reference.run(rewritten, x_of(), lengths)
    # New weights are rounded to float32, 6e-8 of each; sums of a hundred products, twelve steps.
    np.testing.assert_allclose(found, want, atol=3e-6)


@pytest.mark.parametrize("word", REWRITTEN)
def test_the_plain_form_is_plain(word: str) -> None:
    rewritten, _ = plain_form(REWRITTEN[word])
    again, notes = plain_form(rewritten)
    assert again is rewritten
    assert notes == ()
    kept = ("peepholes",) if "peepholes" in word else ()
    for layer in rewritten.layers:
        assert not isinstance(layer, Scale)
        if isinstance(layer, Lstm):
            assert layer.variants == kept


@pytest.mark.parametrize("word", AS_IT_IS)
def test_what_has_no_plain_form_stays(word: str) -> None:
    spec = AS_IT_IS[word]
    assert plain_form(spec) == (spec, ())


QUANTIZED = {word: spec for word, spec in REWRITTEN.items() if "peepholes" not in word} | {
    "backward": spec_of(Backward("b", plain())),
    "backward, its first step": spec_of(Backward("b", plain()), PickStep("f", 0)),
    "reverse": spec_of(plain(), Reverse("r")),
    "bidirectional": spec_of(Bidirectional("b", plain(), plain()), dense("a", 2 * HIDDEN)),
    "bidirectional, final": spec_of(Bidirectional("b", plain(), plain(), final=True)),
    "sum": spec_of(Bidirectional("b", plain(), plain(), "sum"), dense("a", HIDDEN)),
    "sum of final states": spec_of(Bidirectional("b", plain(), plain(), "sum", final=True)),
    "product": spec_of(Bidirectional("b", plain(), plain(), "mul")),
    "residual": spec_of(
        plain(), Parallel("p", ((), (plain("x", HIDDEN),)), "sum"), dense("a", HIDDEN)
    ),
    "branches": spec_of(Parallel("p", ((dense("a", FEATURES),), (plain(),), ()))),
    "gate": spec_of(Parallel("p", ((plain("x"),), (plain("y"),)), "mul")),
    "stacked": spec_of(
        Bidirectional("b", plain(), plain()),
        Bidirectional("c", plain("x", 2 * HIDDEN), plain("y", 2 * HIDDEN), final=True),
    ),
    "cell clip": spec_of(replace(plain(), cell_clip=0.2)),
}


NO_CELL_CLIP = ("cell clip", "edge")  # which refuses it


@pytest.mark.parametrize(
    ("word", "profile"),
    [
        (word, profile)
        for word in QUANTIZED
        for profile in ("tflm", "litert", "edge")
        if (word, profile) != NO_CELL_CLIP
    ],
)
def test_integers_follow_the_floats(word: str, profile: str) -> None:
    spec = QUANTIZED[word]
    x = x_of(64)
    program = quantize(spec, calibrate(spec, x), profile)
    lengths = np.random.default_rng(3).integers(1, TIME + 1, len(x))
    want = float_reference.run(spec, x, lengths)
    found = program.predict(x, lengths)
    signal = np.square(want).mean()
    noise = np.square(found - want).mean()
    # 8 bits of which the sign and the state's range take two: 20 dB is what a mix-up of gates,
    # directions or steps cannot reach.
    assert 10 * np.log10(signal / noise) > 20


def test_the_program_says_what_was_rewritten() -> None:
    spec = REWRITTEN["bidirectional projection"]
    program = quantize(spec, calibrate(spec, x_of()))
    assert program.warnings == (
        "layer 'b_forward': its projection is folded into the recurrent weights, and a Dense after",
        "layer 'b_backward': its projection is folded into the recurrent weights,"
        " and a Dense after",
    )


VARIANTS = [
    replace(plain(), peepholes=uniform(R, 3, HIDDEN)),
    projected("p"),
    replace(plain(), coupled=True),
    replace(plain(), clip=1.0),
    replace(plain(), cell_clip=1.0),
    replace(plain(), functions=(HARD_SIGMOID, TANH, TANH)),
]


@pytest.mark.parametrize("layer", VARIANTS, ids=lambda layer: layer.variants[0])
def test_what_runs_the_textbook_lstm_only_refuses_the_others(layer: Lstm) -> None:
    from edge_lstm_benchmarks.backends.numpy_float import spec_bytes
    from edge_lstm_converters.write_tflite import float_tflite_bytes

    spec = spec_of(layer)
    with pytest.raises(UnsupportedModel, match="is not in the float runtime"):
        FloatSession(spec, 1)
    if layer.cell_clip is None:  # which TFLite's operator has
        with pytest.raises(UnsupportedModel, match=r"not written to a float \.tflite; write \.on"):
            float_tflite_bytes(spec, TIME)
    with pytest.raises(UnsupportedModel, match="is not in numpy-float"):
        spec_bytes(spec)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (replace(plain(), peepholes=uniform(R, 3, HIDDEN)), "an LSTM with peepholes is not"),
        (replace(plain(), clip=1.0, coupled=True), "an LSTM with clip 1.0 is not"),
        (
            replace(plain(), functions=(HARD_SIGMOID, TANH, TANH)),
            r"with the activations hard_sigmoid\(0.2, 0.5\), tanh, tanh is not",
        ),
        (scale("s", FEATURES), r"a scale \(batch normalization\) with no Dense or LSTM beside"),
    ],
    ids=lambda v: v.type_name if isinstance(v, Layer) else "",
)
def test_what_the_kernels_lack_refuses_with_the_way_out(layer: Layer, words: str) -> None:
    spec = spec_of(layer)
    ranges = calibrate(spec, x_of())
    with pytest.raises(UnsupportedModel, match=f"{words}.*; .*--quant float32 --to onnx"):
        quantize(spec, ranges)


def test_gru_and_rnn_run_in_both_directions() -> None:
    gates = [
        Gate(uniform(R, HIDDEN, FEATURES), uniform(R, HIDDEN, HIDDEN), uniform(R, HIDDEN))
        for _ in range(3)
    ]
    gru = Gru("g", (gates[0], gates[1], gates[2]), uniform(R, HIDDEN))
    for layer in (gru, Rnn("r", gates[0])):
        for merge in MERGES:
            spec = spec_of(Bidirectional("b", layer, layer, merge))
            ranges = calibrate(spec, x_of(64))
            want = float_reference.run(spec, x_of())
            for profile in ("tflm", "litert", "edge"):
                found = quantize(spec, ranges, profile).predict(x_of())
                # As above.
                assert 10 * np.log10(np.square(want).mean() / np.square(found - want).mean()) > 20


# A .tflite has no place for first states.
@pytest.mark.parametrize("profile", ["tflm", "litert", "litert-ref"])
@pytest.mark.parametrize("word", [word for word in QUANTIZED if "first states" not in word])
def test_the_interpreters_give_the_same_integers(word: str, profile: str) -> None:
    reason = interpreters.missing(profile)
    if reason is not None:
        pytest.skip(reason)
    pytest.importorskip("flatbuffers", reason="not found: pip install 'edge-lstm[tools]'")
    from edge_lstm_converters.write_tflite import tflite_bytes

    spec = QUANTIZED[word]
    program = quantize(spec, calibrate(spec, x_of(64)), profile)
    x = program.input_tensor.quantize(x_of(6))
    rows = np.ones(len(x), bool)
    found = interpreters.run(profile, tflite_bytes(program, TIME), x[:, None], rows)
    want = program.predict(x)
    assert (found.reshape(want.shape) == want).all()
