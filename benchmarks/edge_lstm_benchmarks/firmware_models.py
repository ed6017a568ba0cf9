"""The models that generated C is held to NumPy with: every kind of layer, random and trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import (
    Activation,
    Bidirectional,
    Dense,
    Embedding,
    Flatten,
    Gate,
    Gru,
    LastStep,
    Lstm,
    Rnn,
)
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import EDGE, Program
from edge_lstm.quantize import quantize
from edge_lstm.samples import Samples, load_samples
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters import read

FOLDER = Path(__file__).parent / "models"


class _Weights:
    """Random weights, the same for one seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def values(self, *size: int) -> F32:
        return self.random.normal(0, size[-1] ** -0.5, size).astype(np.float32)

    def gate(self, features: int, hidden: int, bias: float = 0.0) -> Gate:
        return Gate(
            self.values(hidden, features),
            self.values(hidden, hidden),
            self.values(hidden) + np.float32(bias),
        )

    def lstm(self, name: str, features: int, hidden: int) -> Lstm:
        i, f, g, o = (self.gate(features, hidden, bias) for bias in (0, 1, 0, 0))
        return Lstm(name, (i, f, g, o))

    def gru(self, name: str, features: int, hidden: int, reset_after: bool) -> Gru:
        z, r, n = (self.gate(features, hidden) for _ in range(3))
        bias = self.values(hidden) if reset_after else None
        return Gru(name, (z, r, n), bias, reset_after)

    def rnn(self, name: str, features: int, hidden: int) -> Rnn:
        return Rnn(name, self.gate(features, hidden))

    def dense(self, name: str, features: int, outputs: int) -> Dense:
        return Dense(name, self.values(outputs, features), self.values(outputs))


def lstm_program(features: int, hidden: int, profile: str) -> Program:
    """Return one LSTM of random weights, scaled by inputs N(0, 1)."""
    layers = (_Weights(features * hidden).lstm("lstm", features, hidden),)
    return _program(f"lstm_{features}x{hidden}", Signal("sequence", features), layers, profile)


def _program(
    name: str,
    signal: Signal,
    layers: tuple[Layer, ...],
    profile: str,
    time_steps: int | None = None,
    wide: bool = False,
) -> Program:
    spec = ModelSpec(name, signal, layers, time_steps)
    random = np.random.default_rng(7)
    steps = time_steps or 100
    x: Array = random.normal(0, 1, (8, steps, signal.size)).astype(np.float32)
    if signal.kind == "tokens":
        x = random.integers(0, signal.size, (8, steps)).astype(np.int32)
    return quantize(spec, calibrate(spec, x), profile, "int16" if wide else "int8")


def _lstm(profile: str) -> Program | None:
    return lstm_program(13, 21, profile)


def _stack(profile: str) -> Program | None:
    weights = _Weights(1)
    layers = (weights.lstm("first", 10, 24), weights.lstm("second", 24, 17))
    return _program("stack", Signal("sequence", 10), layers, profile)


def _head(kind: str) -> Callable[[str], Program | None]:
    def program(profile: str) -> Program | None:
        weights = _Weights(2)
        layers = (
            weights.lstm("lstm", 6, 18),
            LastStep("last"),
            weights.dense("dense", 18, 5),
            Activation("head", kind),  # type: ignore[arg-type]
        )
        return _program(f"head_{kind}", Signal("sequence", 6), layers, profile)

    return program


def _tokens(profile: str) -> Program | None:
    weights = _Weights(3)
    layers = (
        Embedding("words", weights.values(30, 8)),
        weights.lstm("lstm", 8, 12),
        weights.dense("dense", 12, 30),
        Activation("softmax", "softmax"),
    )
    return _program("tokens", Signal("tokens", 30), layers, profile)


def _flat(profile: str) -> Program | None:
    weights = _Weights(4)
    layers = (
        weights.lstm("lstm", 5, 9),
        Flatten("flat", 12),
        weights.dense("dense", 9 * 12, 7),
    )
    return _program("flat", Signal("sequence", 5), layers, profile, 12)


def _bidirectional(profile: str) -> Program | None:
    weights = _Weights(5)
    pair = Bidirectional("pair", weights.lstm("ahead", 7, 10), weights.lstm("back", 7, 10))
    return _edge_only("bidirectional", Signal("sequence", 7), (pair,), profile, 15)


def _gru(reset_after: bool) -> Callable[[str], Program | None]:
    def program(profile: str) -> Program | None:
        layers = (_Weights(6).gru("gru", 11, 19, reset_after),)
        name = "gru" if reset_after else "gru_reset_before"
        return _edge_only(name, Signal("sequence", 11), layers, profile)

    return program


def _rnn(profile: str) -> Program | None:
    layers = (_Weights(7).rnn("rnn", 9, 22),)
    return _edge_only("rnn", Signal("sequence", 9), layers, profile)


def _wide(profile: str) -> Program | None:
    layers = (_Weights(8).lstm("lstm", 12, 20),)
    return _edge_only("wide", Signal("sequence", 12), layers, profile, wide=True)


def _edge_only(
    name: str,
    signal: Signal,
    layers: tuple[Layer, ...],
    profile: str,
    time_steps: int | None = None,
    wide: bool = False,
) -> Program | None:
    """Return a program of what the interchange profiles have no integers for, or None."""
    if profile != EDGE:
        return None
    return _program(name, signal, layers, profile, time_steps, wide)


def _trained(name: str, cell: str = "lstm") -> Callable[[str], Program | None]:
    def program(profile: str) -> Program | None:
        if cell != "lstm" and profile != EDGE:
            return None
        folder = FOLDER / name
        weights, layers = ("model", "layers") if cell == "lstm" else (cell, cell)
        spec = read(folder / f"{weights}.pt", layers=folder / f"{layers}.toml", name=name)
        if not isinstance(spec, ModelSpec):
            raise UnsupportedModel(f"{folder}: holds no floats")
        samples = load_samples(folder / "calibration.npz")
        return quantize(spec, calibrate(spec, samples.x, samples.lengths), profile)

    return program


# From a profile to a program, or to None where the profile has no integers for the layers.
MODELS: dict[str, Callable[[str], Program | None]] = {
    "LSTM": _lstm,
    "stack of two LSTMs": _stack,
    "LSTM, softmax": _head("softmax"),
    "LSTM, sigmoid": _head("sigmoid"),
    "LSTM, ReLU": _head("relu"),
    "embedding, LSTM, softmax": _tokens,
    "LSTM, flatten": _flat,
    "bidirectional LSTM": _bidirectional,
    "LSTM, 16-bit input": _wide,
    "GRU": _gru(True),
    "GRU, reset before": _gru(False),
    "RNN": _rnn,
    "weather": _trained("weather"),
    "weather GRU": _trained("weather", "gru"),
    "weather RNN": _trained("weather", "rnn"),
    "digits": _trained("digits"),
    "digits GRU": _trained("digits", "gru"),
    "digits RNN": _trained("digits", "rnn"),
}
TEST_SEQUENCES = 100


def trained_samples(model: str) -> Samples | None:
    """Return the first test sequences of a trained model; None for one of random weights."""
    path = FOLDER / model.partition(" ")[0] / "test.npz"
    if not path.is_file():
        return None
    samples = load_samples(path)
    return replace(samples, x=samples.x[:TEST_SEQUENCES])
