"""`inspect` shows enough to port a model: a port made from its JSON alone gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_lstm
from edge_lstm import activations
from edge_lstm.arrays import Array
from edge_lstm.inspection import as_json, describe_program, program_text
from edge_lstm.program import PROFILES, Program

GOLDEN = Path(__file__).parent / "golden"
TFLITE = ("litert", "litert-ref", "tflite-runtime")


def load(name: str, profile: str) -> Program:
    return edge_lstm.load(GOLDEN / name / "model.tflite", profile)


def document(program: Program) -> dict[str, Any]:
    """Return what `inspect --json` prints, read back."""
    found: dict[str, Any] = json.loads(json.dumps(as_json(describe_program(program))))
    return found


# A port in plain integers, from the document and the formulas of ARITHMETIC.md


def requantize(acc: int, multiplier: int, shift: int, *, away: bool = True) -> int:
    high = ((acc << max(shift, 0)) * multiplier + 2**30) >> 31
    right = max(-shift, 0)
    if right == 0:
        return high
    half = 1 << (right - 1)
    return (high + half - (1 if away and high < 0 else 0)) >> right


def divide(value: int, exponent: int) -> int:
    return (value + (1 << (exponent - 1)) - (value < 0)) >> exponent


def clamp(value: int, low: int = -32768, high: int = 32767) -> int:
    return min(max(value, low), high)


class Port:
    """One LSTM, from its entry in the document."""

    def __init__(self, op: dict[str, Any], profile: str) -> None:
        self.c, self.d, self.profile = op["constants"], op["derived"], profile
        self.hidden = list(self.c["initial_hidden"])
        self.cell = list(self.c["initial_cell"])

    def sigmoid(self, x: int) -> int:
        if self.profile in TFLITE:
            return self.from_table(activations.gemmlowp_sigmoid(), "sigmoid", x)
        v, knots = 3 * x, self.d["table_knots"]
        j, rest = abs(v) >> 9, abs(v) & 511
        r = 32767 << 10 if j >= 255 else (knots[j] << 9) + rest * (knots[j + 1] - knots[j])
        return (r + 512) >> 10 if v >= 0 else ((1 << 25) - r + 511) >> 10

    def tanh(self, x: int, left_shift: int, what: str) -> int:
        if self.profile in TFLITE:
            integer_bits = 3 + left_shift
            return self.from_table(activations.gemmlowp_tanh(integer_bits), what, x)
        knots = self.d["table_knots"]
        right = -left_shift
        v = 3 * x << left_shift if left_shift >= 0 else (3 * x + (1 << (right - 1))) >> right
        j, rest = abs(v) >> 8, abs(v) & 255
        r = 65535 << 8 if j >= 255 else (knots[j] << 8) + rest * (knots[j + 1] - knots[j])
        return (r - 2**23 + 128) >> 8 if v >= 0 else (-r + 2**23 + 127) >> 8

    def from_table(self, table: Array, what: str, x: int) -> int:
        digest = hashlib.sha256(table.astype("<i2").tobytes()).hexdigest()
        assert digest == self.d[f"{what}_table_sha256"]
        return int(table[x & 0xFFFF])

    def gate(self, k: int, cell: int, x: list[int]) -> int:
        d = self.d
        first = sum(w * v for w, v in zip(self.c["input_weights"][k][cell], x, strict=True))
        second = sum(
            w * v for w, v in zip(self.c["recurrent_weights"][k][cell], self.hidden, strict=True)
        )
        first = requantize(
            first + d["effective_input_bias"][k][cell],
            d["input_multipliers"][k],
            d["input_shifts"][k],
        )
        second = requantize(
            second + d["effective_recurrent_bias"][k][cell],
            d["recurrent_multipliers"][k],
            d["recurrent_shifts"][k],
        )
        if d["recurrent_term"] == "saturated by itself, then added":
            second = clamp(second)
        return clamp(clamp(first) + second)

    def step(self, x: list[int]) -> list[int]:
        d, power = self.d, self.d["cell_power"]
        low, high = (-128, 127)
        hidden = []
        for cell in range(len(self.cell)):
            assert d["gate_order"] == ["input", "forget", "cell", "output"]
            i, f, g, o = (self.gate(k, cell, x) for k in range(4))
            i, f, o = self.sigmoid(i), self.sigmoid(f), self.sigmoid(o)
            g = self.tanh(g, 0, "gate_tanh")
            if self.profile in TFLITE:
                kept, added = divide(f * self.cell[cell], 15), divide(i * g, 30 + power)
            else:
                kept = clamp(requantize(f * self.cell[cell], *d["forget_cell_factor"]))
                added = clamp(requantize(i * g, *d["input_cell_factor"]))
            c = clamp(kept + added)
            bound = d["cell_clip_quantized"]
            c = clamp(c, -bound, bound) if bound else c
            self.cell[cell] = c
            product = o * self.tanh(c, 12 + power, "cell_tanh")
            byte = requantize(product, *d["hidden_factor"]) + d["hidden_factor_zero_point"]
            hidden.append(clamp(byte, low, high))
        self.hidden = hidden
        return hidden


def dense(op: dict[str, Any], x: list[int]) -> list[int]:
    c, d = op["constants"], op["derived"]
    out = []
    for row, (weights, bias) in enumerate(zip(c["weights"], d["effective_bias"], strict=True)):
        acc = sum(w * v for w, v in zip(weights, x, strict=True)) + bias
        k = row if len(c["weight_scales"]) > 1 else 0
        if d["rounding"] == "float32 product, ties to even":
            y = int(np.rint(np.float32(acc) * np.float32(d["float32_factors"][k])))
        elif d["rounding"] == "float64 product, ties away from zero":
            real = acc * d["float64_factors"][k]
            y = int(np.floor(abs(real) + 0.5) * np.sign(real))
        else:
            away = d["rounding"].endswith("away")
            y = requantize(acc, d["multipliers"][k], d["shifts"][k], away=away)
        out.append(clamp(y + d["output_zero_point"], *d["output_range"]))
    return out


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["stack2_T16_I8_H12_O3", "hand_plain", "crafted_cell_clip"])
def test_port_made_from_the_json_alone_gives_the_bytes_of_the_runtime(
    name: str, profile: str
) -> None:
    program = load(name, profile)
    found = document(program)
    x = np.load(GOLDEN / name / "vectors.npz")["x"][3, :1]
    values: list[list[int]] = [[int(v) for v in row] for row in x[0]]
    for op in found["ops"]:
        if op["type"] == "lstm":
            port = Port(op, profile)
            values = [port.step(row) for row in values]
        elif op["type"] == "last_step":
            values = values[-1:]
        else:
            assert op["type"] == "dense"
            values = [dense(op, row) for row in values]
    want = program.predict(x)[0]
    assert np.array_equal(np.array(values).reshape(want.shape), want)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", sorted(p.parent.name for p in GOLDEN.glob("*/model.tflite")))
def test_every_golden_model_can_be_shown_under_every_profile(name: str, profile: str) -> None:
    program = load(name, profile)
    found = document(program)
    text = program_text(program)
    tensors = {t["name"]: t for t in found["tensors"]}
    for tensor in tensors.values():
        if tensor["dtype"] in ("int8", "int16"):
            assert np.float32(tensor["scale"]) == tensor["scale"]
            assert f"{tensor['scale']:.9g}" in text
            assert isinstance(tensor["zero_point"], int)
    for op in found["ops"]:
        for key in (*op["constants"], *op["derived"]):
            assert re.search(rf"^  {key} ", text, re.MULTILINE), key
        if op["type"] in ("lstm", "dense", "activation", "quantize"):
            assert op["derived"], op["name"]


def test_text_shows_multipliers_shifts_and_float32_scales_in_full() -> None:
    program = load("stack2_T16_I8_H12_O3", "tflm")
    text, found = program_text(program), document(program)
    for op in found["ops"]:
        for key, value in op["derived"].items():
            if key.endswith(("multipliers", "shifts", "factor")):
                assert f"{value}" in text
    shown = re.findall(r"input_weight_scales +float32 \[4\]: \[(.*)\]", text)
    for line, op in zip(shown, found["ops"], strict=False):
        wanted = np.array(op["constants"]["input_weight_scales"], np.float32)
        assert np.array_equal(np.array(line.split(), np.float32), wanted)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("tfliteonly_cifg", ["coupled_input_gate"]),
        ("tfliteonly_peephole", ["peephole_factors"]),
        ("tfliteonly_layernorm", ["layer_norm_multipliers", "layer_norm_shifts"]),
        ("tfliteonly_projection", ["projection_factor", "effective_projection_bias"]),
        ("hand_quirk_cell16", ["cell_tanh_table"]),
    ],
)
def test_variants_show_their_own_factors(name: str, keys: list[str]) -> None:
    derived = document(load(name, "litert"))["ops"][0]["derived"]
    assert set(keys) <= set(derived)
    if name == "hand_quirk_cell16":
        assert derived["cell_tanh_table"] == "none: skipped for this cell scale"
        assert "cell_tanh_table_sha256" not in derived


def test_activation_shows_its_whole_table() -> None:
    program = load("sigmoid_T9_I4_H7_O2", "tflm")
    (op,) = [op for op in document(program)["ops"] if op["type"] == "activation"]
    source = next(t for t in document(program)["tensors"] if t["name"] == op["inputs"][0])
    table = np.array(op["derived"]["table"])
    q = np.arange(-128, 128)
    real = 1 / (1 + np.exp(-(q - source["zero_point"]) * source["scale"]))
    # To the nearest step of 1/256, or one beside it.
    assert np.abs(table - np.clip(np.round(real * 256) - 128, -128, 127)).max() <= 1


def test_softmax_shows_its_factor() -> None:
    program = load("softmax_T20_I5_H20_O6", "tflm")
    derived = document(program)["ops"][-1]["derived"]
    multiplier, shift = derived["softmax_factor"]
    scale = program.tensors[program.ops[-1].inputs[0]].scale
    # 31 bits of mantissa.
    assert multiplier * 2.0 ** (shift - 31) == pytest.approx(scale * 2.0**26, rel=2.0**-31)


def test_what_a_profile_has_no_kernel_for_is_said_and_the_rest_is_shown() -> None:
    program = load("tflmonly_16x8", "litert")
    assert document(program)["ops"][0]["derived"]


def test_rounding_of_quantize_is_said_for_each_profile() -> None:
    found = {
        profile: document(load("crafted_quantize_ties", profile))["ops"][0]["derived"]["rounding"]
        for profile in PROFILES
    }
    assert found["litert"] == "float32 product with 1 / scale, ties to even"
    assert found["tflite-runtime"].startswith("float64")
    assert len(set(found.values())) == 3


def test_arithmetic_page_explains_every_derived_number() -> None:
    page = (Path(__file__).parents[1] / "ARITHMETIC.md").read_text(encoding="utf-8")
    shown: set[str] = set()
    for path in GOLDEN.glob("*/model.tflite"):
        for profile in PROFILES:
            for op in document(load(path.parent.name, profile))["ops"]:
                shown |= set(op["derived"])
    assert len(shown) > 30
    # Words, not numbers, that explain themselves; what a profile lacks; the factor of a copy.
    shown -= {"gate_format", "sigmoid_table", "gate_tanh_table", "unsupported", "factor"}
    missing = {name for name in shown if name not in page}
    assert missing == set()
    for profile in PROFILES:
        assert f"`{profile}`" in page
