"""SUPPORTED.md says what the rules say."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")

from edge_lstm.cells import LAYERS, Dropout, Parallel
from edge_lstm.spec import Layer
from edge_lstm_converters import rules, rules_keras, rules_onnx, rules_tflite
from edge_lstm_converters.supported import _samples, text

SUPPORTED = Path(__file__).parents[1] / "SUPPORTED.md"
said = cache(text)  # each layer is converted for it, which takes a second


def test_supported_md_is_what_the_rules_say() -> None:
    assert SUPPORTED.read_text(encoding="utf-8") == said(), "run `make supported`"


def test_every_rule_is_in_it() -> None:
    found = said()
    keras: list[Callable[..., object]] = [
        rule for asked in rules_keras.RULES.values() for rule in asked
    ]
    asked: list[Callable[..., object]] = [
        *rules_onnx.RECURRENT_RULES,
        *rules_tflite.LSTM_RULES,
        *keras,
    ]
    for rule in asked:
        assert rules.sentence(rule) in found


def inside(layers: tuple[Layer, ...]) -> set[type[Layer]]:
    kinds = {type(layer) for layer in layers}
    for layer in layers:
        if isinstance(layer, Parallel):
            for branch in layer.branches:
                kinds |= inside(branch)
    return kinds


def test_every_layer_is_tried() -> None:
    tried = set[type[Layer]]().union(*(inside(layers) for layers in _samples().values()))
    assert set(LAYERS) - tried == {Dropout}  # which does nothing


def test_the_table_says_yes_and_no() -> None:
    lines = {line.split("|")[1].strip(): line for line in said().splitlines() if "|" in line}
    assert lines["LSTM"] == "| LSTM | yes | yes | yes | every profile |"
    assert lines["LSTM with a projection"].count("yes, in other words") == 2
    assert lines["LSTM with peepholes"] == "| LSTM with peepholes | yes | no | no | no |"
    assert lines["LSTM with a clip of its cell state"].split("|")[2:4] == [" no ", " yes "]
