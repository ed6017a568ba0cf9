"""The `edge` arithmetic: against plain Python integers of 32 bits, and against TFLite's error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Activation, Dense, Gate, Gru, LastStep, Lstm, Rnn, edge_lstm_fast
from edge_lstm.cells.edge_gru import EdgeGruKernel, EdgeGruOp, EdgeRnnKernel, EdgeRnnOp
from edge_lstm.cells.edge_lstm import EdgeLstmKernel, EdgeLstmOp
from edge_lstm.cells.edge_lstm_fast import CHUNK_VALUES, FastEdgeLstmKernel
from edge_lstm.cells.edge_rows import Rows, sigmoid_segments, sigmoid_table
from edge_lstm.cells.functions import Function
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.program import Kernel, Program
from edge_lstm.program_file import program_bytes, program_from_bytes
from edge_lstm.quantize import quantize
from edge_lstm.spec import Layer, ModelSpec, Signal
from strategies import seeds

CELLS = ("lstm", "gru", "gru reset before", "rnn")


def gate(random: np.random.Generator, hidden: int, features: int, gain: float) -> Gate:
    spread = gain / np.sqrt(hidden + features)
    return Gate(
        random.normal(0, spread, (hidden, features)).astype(np.float32),
        random.normal(0, spread, (hidden, hidden)).astype(np.float32),
        random.normal(0, 0.5, hidden).astype(np.float32),
    )


def layer(random: np.random.Generator, cell: str, features: int, hidden: int, gain: float) -> Layer:
    gates = [gate(random, hidden, features, gain) for _ in range(4)]
    if cell == "lstm":
        return Lstm("cell", (gates[0], gates[1], gates[2], gates[3]))
    if cell == "rnn":
        return Rnn("cell", gates[0])
    extra = gates[3].bias if cell == "gru" else None
    three = (gates[0], gates[1], gates[2])
    return Gru("cell", three, candidate_recurrent_bias=extra, reset_after=cell == "gru")


def edge_program(
    random: np.random.Generator, cell: str, features: int, hidden: int, gain: float = 1.0
) -> tuple[Program, ModelSpec, Array]:
    spec = ModelSpec(
        "m", Signal("sequence", features), (layer(random, cell, features, hidden, gain),)
    )
    x = random.normal(0, 1, (4, 30, features)).astype(np.float32)
    return quantize(spec, calibrate(spec, x), "edge"), spec, x


class Int32:
    """C's arithmetic on one number: every result must fit 32 bits."""

    @staticmethod
    def check(value: int) -> int:
        assert -(2**31) <= value < 2**31, "an int32 overflows"
        return value


check = Int32.check


def c_rows(rows: Rows, activations: list[int]) -> list[int]:
    """Return each row's requantized sum, as C computes it, step by step in 32 bits."""
    results = []
    for row in range(len(rows.bias)):
        acc = int(rows.bias[row])
        high = rows.paired and row % 2 == 0
        for column, value in enumerate(activations):
            weight = int(rows.weights[row, column])
            if high:
                weight = 256 * weight + int(rows.weights[row + 1, column])
            acc = check(acc + check(weight * value))
        product = acc * int(rows.multipliers[row])
        if high:  # SMULWB: the product's high 32 of 48 bits
            results.append(check(product >> 16) >> (rows.high_shift - 16))
        else:
            results.append(check(product) >> rows.shift)
    return results


def c_sigmoid(argument: int) -> int:
    u = min(max(argument, -(2**17)), 2**17 - 1)
    word, slope = (int(part[(u >> 11) + 64]) for part in sigmoid_segments())
    return check(word + check(slope * (u & 2047))) >> 16


def c_tanh(argument: int) -> int:
    return 2 * c_sigmoid(argument) - 32768


def clamp(value: int, bits: int) -> int:
    return min(max(value, -(1 << (bits - 1))), (1 << (bits - 1)) - 1)


def c_lstm(op: EdgeLstmOp, x: list[int], hidden: list[int], cell: list[int]) -> None:
    values = [check(v << op.input_shift) for v in x] + [v << op.hidden_shift for v in hidden]
    arguments = c_rows(op.rows, values)
    for unit in range(op.hidden_size):
        i, f, g, o = arguments[4 * unit : 4 * unit + 4]
        added = check(c_sigmoid(i) * c_tanh(g)) >> op.cell_bits
        total = check(check(c_sigmoid(f) * cell[unit]) + added + (1 << 14))
        cell[unit] = clamp(total >> 15, 16)
        squashed = c_tanh(check(cell[unit] << op.cell_bits))
        hidden[unit] = clamp(check(c_sigmoid(o) * squashed + (1 << 22)) >> 23, 8)


def c_gru(op: EdgeGruOp, x: list[int], hidden: list[int]) -> None:
    narrow = [clamp((h + 128) >> 8, 8) for h in hidden]
    fresh = [check(v << op.input_shift) for v in x]
    kept = [v << op.hidden_shift for v in narrow]
    arguments = c_rows(op.rows, fresh + kept)
    update = [c_sigmoid(a) for a in arguments[0::2]]
    reset = [c_sigmoid(a) for a in arguments[1::2]]
    if op.reset_after:
        from_input = c_rows(op.candidate_rows, fresh)
        from_hidden = c_rows(op.recurrent_rows, kept)
        candidate = [
            c_tanh((clamp(a, 16) + (check(r * clamp(b, 16) + (1 << 14)) >> 15)) << 3)
            for a, b, r in zip(from_input, from_hidden, reset, strict=True)
        ]
    else:
        gated = [
            clamp(check(r * h + (1 << 22)) >> 23, 8) << op.hidden_shift
            for r, h in zip(reset, hidden, strict=True)
        ]
        candidate = [c_tanh(a) for a in c_rows(op.candidate_rows, fresh + gated)]
    for unit, (z, n) in enumerate(zip(update, candidate, strict=True)):
        hidden[unit] = clamp(n + (check(z * (hidden[unit] - n) + (1 << 14)) >> 15), 16)


def c_rnn(op: EdgeRnnOp, x: list[int], hidden: list[int]) -> None:
    narrow = [clamp((h + 128) >> 8, 8) << op.hidden_shift for h in hidden]
    hidden[:] = [c_tanh(a) for a in c_rows(op.rows, [v << op.input_shift for v in x] + narrow)]


def test_the_sigmoid_table_is_within_5_units_and_monotonic() -> None:
    u = np.arange(1 << 18)
    exact = 32768 / (1 + np.exp(-(u - 2**17) / 2**14))
    # 128 segments of 1/8: (1/8)**2 / 16 * max|sigmoid''| = 3 units, and the roundings.
    assert np.abs(sigmoid_table() - exact).max() < 5
    assert (np.diff(sigmoid_table().astype(int)) >= -1).all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("gain", [0.3, 1.0, 8.0])
def test_the_kernel_equals_c_in_32_bits(cell: str, gain: float) -> None:
    random = np.random.default_rng(5)
    program, _, _ = edge_program(random, cell, 5, 6, gain)
    op = program.ops[0]
    x = random.integers(-128, 128, (12, 5))
    x[:4] = np.where(x[:4] > 0, 127, -128)
    session = program.session()
    got = np.stack([session.step(row[None].astype(np.int8))[0] for row in x])
    hidden, cells = [0] * 6, [0] * 6
    want = []
    for row in x.tolist():
        if isinstance(op, EdgeLstmOp):
            c_lstm(op, row, hidden, cells)
            want.append(list(hidden))
            continue
        if isinstance(op, EdgeGruOp):
            c_gru(op, row, hidden)
        else:
            assert isinstance(op, EdgeRnnOp)
            c_rnn(op, row, hidden)
        want.append([clamp((h + 128) >> 8, 8) for h in hidden])
    np.testing.assert_array_equal(got, want)


@given(seed=seeds)
def test_the_fast_lstm_equals_the_plain_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    features, hidden, batch = (int(v) for v in random.integers(1, 24, 3))
    program, _, _ = edge_program(random, "lstm", features, hidden, float(random.choice([0.3, 4])))
    op = program.ops[0]
    assert isinstance(op, EdgeLstmOp)
    batch = batch % 3 + 1
    plain = EdgeLstmKernel(op, batch)
    wide = bool(random.integers(2))  # float64 throughout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_lstm_fast, "MANY_BYTES", 0)
        fast = FastEdgeLstmKernel(op, batch, wide=wide)
    plain.reset()
    fast.reset()
    x = random.integers(-128, 128, (batch, 9, features)).astype(np.int8)
    want = plain.run([x], None)
    np.testing.assert_array_equal(fast.run([x], None), want)
    for name, value in plain.state.items():
        np.testing.assert_array_equal(fast.state[name], value, name)
    fast.reset()
    steps = np.stack([fast.step(x[:, t]) for t in range(9)], axis=1)
    np.testing.assert_array_equal(steps, want)
    fast.set_state(plain.state)
    np.testing.assert_array_equal(fast.step(x[:, 0]), plain.step(x[:, 0]))


def test_chunks_of_a_long_sequence_do_not_show() -> None:
    random = np.random.default_rng(1)
    program, _, _ = edge_program(random, "lstm", 2, 3)
    steps = CHUNK_VALUES // 12 + 5
    x = random.integers(-128, 128, (1, steps, 2)).astype(np.int8)
    session = program.session()
    want = np.concatenate([session.run(part) for part in np.array_split(x, 7, axis=1)], axis=1)
    np.testing.assert_array_equal(program.predict(x), want)


@pytest.mark.parametrize("cell", CELLS)
def test_state_moves_between_sessions(cell: str) -> None:
    program, _, x = edge_program(np.random.default_rng(2), cell, 4, 5)
    session, other = program.session(4), program.session(4)
    whole = session.run(x)
    session.reset()
    session.run(x[:, :11])
    other.state = session.state
    np.testing.assert_array_equal(other.run(x[:, 11:]), whole[:, 11:])


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_saved_is_what_is_loaded(cell: str) -> None:
    program, _, x = edge_program(np.random.default_rng(3), cell, 4, 5)
    again = program_from_bytes(program_bytes(program))
    assert again.profile == "edge"
    np.testing.assert_array_equal(again.predict(x), program.predict(x))


@pytest.mark.parametrize("cell", CELLS)
def test_the_error_is_that_of_an_8_bit_hidden_state(cell: str) -> None:
    """Rounding h to 1/128 alone has an RMS of 1/128/sqrt(12) = 0.0023; 8-bit weights add theirs."""
    errors = []
    for seed in range(6):
        program, spec, x = edge_program(np.random.default_rng(seed), cell, 8, 16)
        errors.append(np.mean((program.predict(x) - float_reference.run(spec, x)) ** 2))
    assert np.sqrt(np.mean(errors)) < (0.012 if cell == "rnn" else 0.008)


@pytest.mark.parametrize(("features", "hidden"), [(8, 16), (16, 32), (40, 64), (40, 128)])
def test_the_lstm_s_error_is_below_that_of_tflite_s_scheme(features: int, hidden: int) -> None:
    """The mean of 8 seeds, 200 steps of a slow random walk: the comparison of the design."""
    edge: list[float] = []
    tflite: list[float] = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        lstm = layer(random, "lstm", features, hidden, 1.0)
        assert isinstance(lstm, Lstm)
        gates = list(lstm.gates)
        gates[1] = replace(gates[1], bias=np.ones(hidden, np.float32))
        lstm = replace(lstm, gates=(gates[0], gates[1], gates[2], gates[3]))
        spec = ModelSpec("m", Signal("sequence", features), (lstm,))
        x = np.zeros((1, 200, features), np.float32)
        for step in range(1, 200):
            x[0, step] = 0.9 * x[0, step - 1] + 0.44 * random.normal(0, 1, features)
        ranges, want = calibrate(spec, x), float_reference.run(spec, x)
        for errors, profile in ((edge, "edge"), (tflite, "tflm")):
            got = quantize(spec, ranges, profile).predict(x)
            errors.append(float(np.sqrt(np.mean((got - want) ** 2))))
    assert np.mean(edge) < np.mean(tflite)


def test_sixteen_bit_inputs_hold_what_eight_bits_lose() -> None:
    """One feature spans four decades; the others are small."""
    random = np.random.default_rng(6)
    spec = ModelSpec("m", Signal("sequence", 3), (layer(random, "lstm", 3, 8, 2.0),))
    x = random.normal(0, 1, (8, 20, 3)).astype(np.float32)
    x[0, 3, 0] = 3000.0
    ranges, want = calibrate(spec, x), float_reference.run(spec, x)
    errors = {}
    for dtype in ("int8", "int16"):
        program = quantize(spec, ranges, "edge", dtype)
        assert program.input_tensor.dtype == dtype
        assert program.output_tensor.dtype == "int8"
        errors[dtype] = np.sqrt(np.mean((program.predict(x) - want) ** 2))
    assert errors["int16"] < errors["int8"] / 5


def test_heads_run_behind_every_cell() -> None:
    random = np.random.default_rng(7)
    for cell in CELLS:
        dense = Dense(
            "dense",
            random.normal(0, 1, (4, 6)).astype(np.float32),
            random.normal(0, 1, 4).astype(np.float32),
        )
        spec = ModelSpec(
            "m",
            Signal("sequence", 5),
            (
                layer(random, cell, 5, 6, 1.0),
                LastStep("last"),
                dense,
                Activation("head", "softmax"),
            ),
        )
        x = random.normal(0, 1, (30, 10, 5)).astype(np.float32)
        got = quantize(spec, calibrate(spec, x), "edge").predict(x)
        # A step of the softmax's argument is 0.03, one of its output 1/256.
        assert np.abs(got - float_reference.run(spec, x)).max() < 0.04


def test_sums_that_cannot_be_packed_in_pairs_are_not() -> None:
    """With 2,000 columns of large weights the paired sum would leave 32 bits."""
    random = np.random.default_rng(8)
    wide = layer(random, "lstm", 2000, 2, 30.0)
    assert isinstance(wide, Lstm)
    ones = [replace(g, input_weights=np.ones((2, 2000), np.float32)) for g in wide.gates]
    wide = replace(wide, gates=(ones[0], ones[1], ones[2], ones[3]))
    spec = ModelSpec("m", Signal("sequence", 2000), (wide,))
    x = random.normal(0, 1, (2, 3, 2000)).astype(np.float32)
    op = quantize(spec, calibrate(spec, x), "edge").ops[0]
    assert isinstance(op, EdgeLstmOp)
    assert not op.rows.paired
    bound = np.abs(op.weights.astype(int)) @ np.full(2002, 128 << op.input_shift)
    assert (bound + np.abs(op.bias.astype(int)) < 2**31).all()


def wide_layer(weight: float) -> ModelSpec:
    random = np.random.default_rng(8)
    wide = layer(random, "lstm", 2000, 2, 1.0)
    assert isinstance(wide, Lstm)
    same = np.full((2, 2000), weight, np.float32)
    gates = [replace(g, input_weights=same) for g in wide.gates]
    wide = replace(wide, gates=(gates[0], gates[1], gates[2], gates[3]))
    return ModelSpec("m", Signal("sequence", 2000), (wide,))


def test_sums_of_very_many_columns_get_coarser_weights() -> None:
    """2,000 weights of 127 by 32,768 would leave 32 bits; what they lose is not seen in h."""
    spec = wide_layer(0.02)
    x = np.random.default_rng(8).normal(0, 1, (2, 12, 2000)).astype(np.float32)
    program = quantize(spec, calibrate(spec, x), "edge", "int16")
    op = program.ops[0]
    assert isinstance(op, EdgeLstmOp)
    assert np.abs(op.weights).max() < 127
    bound = np.abs(op.weights.astype(int)) @ np.full(2002, 32768)
    assert (bound + np.abs(op.bias.astype(int)) < 2**31).all()
    # An 8-bit hidden state alone is off by 0.002.
    assert np.sqrt(np.mean((program.predict(x) - float_reference.run(spec, x)) ** 2)) < 0.01


def test_sums_beyond_all_scales_are_refused() -> None:
    spec = wide_layer(1e6)
    x = np.random.default_rng(8).normal(0, 1, (2, 3, 2000)).astype(np.float32)
    with pytest.raises(UnsupportedModel, match=r"can reach 8\.\d+e\+09, .* choose another profile"):
        quantize(spec, calibrate(spec, x), "edge")


def test_the_profiles_do_not_share_integers() -> None:
    program, _, _ = edge_program(np.random.default_rng(9), "lstm", 3, 4)
    with pytest.raises(UsageError, match="convert the model again with --profile tflm"):
        program.with_profile("tflm")
    assert program.with_profile("edge").fingerprint() == program.fingerprint()


@pytest.mark.parametrize("profile", ["tflm", "edge"])
def test_cells_without_integers_are_refused_by_name(profile: str) -> None:
    random = np.random.default_rng(10)
    cell = layer(random, "gru", 3, 4, 1.0)
    assert isinstance(cell, Gru)
    odd = replace(cell, functions=(Function("hard_sigmoid"), cell.functions[1]))
    spec = ModelSpec("m", Signal("sequence", 3), (odd,))
    x = random.normal(0, 1, (2, 5, 3)).astype(np.float32)
    with pytest.raises(UnsupportedModel, match=r"layer 'cell' \(gru\).*--quant float32"):
        quantize(spec, calibrate(spec, x), profile)


def test_kernels_are_what_the_ops_prepare() -> None:
    for cell, kernel in zip(
        CELLS, (FastEdgeLstmKernel, EdgeGruKernel, EdgeGruKernel, EdgeRnnKernel), strict=True
    ):
        program, _, _ = edge_program(np.random.default_rng(4), cell, 3, 4)
        prepared: Kernel = program.ops[0].prepare(program, 1)
        assert isinstance(prepared, kernel)
