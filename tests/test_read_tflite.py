"""Every golden model through the reader and the NumPy runtime, byte for byte; and refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import interpreters
from edge_lstm.arrays import Array
from edge_lstm.cells import DenseOp, FlattenOp, LastStepOp, LstmOp
from edge_lstm.errors import EdgeLstmError, UnreadableModel, UnsupportedModel, UsageError
from edge_lstm.fixed_point import quantize_multiplier, requantize
from edge_lstm.program import PROFILES, Program
from edge_lstm.program_file import program_bytes
from edge_lstm.program_file import program_from_bytes as load_program
from edge_lstm_converters.read_tflite import program_from_bytes, read_tflite
from edge_lstm_converters.rules import sentence
from edge_lstm_converters.rules_tflite import (
    CELL_STATE,
    HIDDEN_STATE,
    LSTM_RULES,
    TfliteLstm,
    all_inputs,
    all_weights,
    cell_scale,
    clips,
    constant_weights,
    full_matrices,
    hidden_intermediate,
    integer_activations,
    one_scale_a_matrix,
    tanh_activation,
    variable_states,
    weights_around_zero,
)
from edge_lstm_converters.tflite_schema import (
    ABSENT,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    parse,
    serialize,
)
from edge_lstm_converters.tflite_tables import (
    DequantizeOptions,
    FullyConnectedOptions,
    QuantizeOptions,
    StridedSliceOptions,
)
from edge_lstm_converters.traps_tflite import two_hidden_scales
from edge_lstm_converters.write_tflite import tflite_bytes

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = sorted(path.parent for path in GOLDEN.glob("*/model.tflite"))

PROFILE_OF_OUTPUT = {
    "y_litert": ["litert"],
    "y_litert_ref": ["litert-ref"],
    "y_tfr": ["tflite-runtime"],
    "y_tflm_2026_08": ["tflm-2026-08"],
    "y_tflm_2026_10": ["tflm"],
}
PROFILES_OF_LSTM = {
    "tflite": ["litert", "litert-ref", "tflite-runtime"],
    "tflm_2026_08": ["tflm-2026-08"],
    "tflm_2026_10": ["tflm"],
    "cmsis_stateless": ["cmsis-nn"],
}


def cases() -> list[Any]:
    """Return (folder, key, profile) for every vector there is."""
    found = []
    for folder in FOLDERS:
        with np.load(folder / "vectors.npz") as vectors:
            keys = sorted(set(vectors.files) - {"x", "reset"})
        for key in keys:
            if key == "y_litert_noxnn":
                reason = "LiteRT without its default delegate (ruy's rounding) is not a profile"
                skip = pytest.mark.skip(reason=reason)
                found.append(pytest.param(folder, key, "", marks=skip, id=f"{folder.name}-{key}"))
                continue
            what = key.partition("_")[2]
            profiles = PROFILE_OF_OUTPUT.get(key) or PROFILES_OF_LSTM[what]
            found += [pytest.param(folder, key, p, id=f"{folder.name}-{key}-{p}") for p in profiles]
    return found


def up_to_lstm(program: Program, number: int) -> Program:
    """Return the program that ends with its LSTM of this number."""
    lstm = [op for op in program.ops if isinstance(op, LstmOp)][number]
    ops = program.ops[: program.ops.index(lstm) + 1]
    return replace(program, ops=ops, output=lstm.output, time_steps=None)


def is_time_major(program: Program) -> bool:
    return any(isinstance(op, LstmOp) and op.time_major for op in program.ops)


@pytest.mark.parametrize(("folder", "key", "profile"), cases())
def test_golden_vectors_are_reproduced_byte_for_byte(folder: Path, key: str, profile: str) -> None:
    with np.load(folder / "vectors.npz") as vectors:
        x, reset, want = vectors["x"], vectors["reset"], vectors[key]
    program = read_tflite(folder / "model.tflite", profile)
    if key.startswith("lstm"):
        program = up_to_lstm(program, int(key[4]))
    swapped = is_time_major(program)
    if swapped:
        x, want = x.swapaxes(1, 2), want.swapaxes(1, 2)
    session = program.session(x.shape[1])
    got = []
    for values, starts in zip(x, reset, strict=True):
        if starts or key.endswith("_stateless"):
            session.reset()
        got.append(session.run(values))
    np.testing.assert_array_equal(np.stack(got), want, strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("key", "profile"),
    [("y_litert", "litert"), ("y_litert_ref", "litert-ref"), ("y_tflm_2026_10", "tflm")],
)
def test_the_installed_interpreter_still_makes_the_golden_vectors(
    folder: Path, key: str, profile: str
) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    with np.load(folder / "vectors.npz") as vectors:
        if key not in vectors:
            pytest.skip(f"{profile} refuses this model; the golden folder has no {key}")
        x, reset, want = vectors["x"], vectors["reset"], vectors[key]
    data = (folder / "model.tflite").read_bytes()
    got = interpreters.IN_PROCESS[profile](data, x, reset)
    np.testing.assert_array_equal(got, want, strict=True)


def test_every_profile_has_golden_vectors() -> None:
    assert {case.values[2] for case in cases()} - {""} == set(PROFILES)


def test_straddle_vectors_tell_the_vintages_of_tflm_apart() -> None:
    for folder in (GOLDEN / "hand_straddle", GOLDEN / "hand_straddle_fc"):
        with np.load(folder / "vectors.npz") as vectors:
            x = vectors["x"]
        runs = {
            profile: np.stack([read_tflite(folder / "model.tflite", profile).predict(v) for v in x])
            for profile in ("tflm", "tflm-2026-08")
        }
        assert (runs["tflm"] != runs["tflm-2026-08"]).any()


def test_flatten_binds_the_number_of_steps() -> None:
    program = read_tflite(GOLDEN / "flat_T10_I3_H8_O4" / "model.tflite")
    assert [type(op) for op in program.ops] == [LstmOp, FlattenOp, DenseOp]
    assert program.time_steps == 10


def test_last_step_leaves_the_number_of_steps_free() -> None:
    program = read_tflite(GOLDEN / "last_T12_I6_H16_O5" / "model.tflite")
    assert [type(op) for op in program.ops] == [LstmOp, LastStepOp, DenseOp]
    assert program.time_steps is None
    assert program.source["time_steps"] == "12"


# ------------------------------------------------------------------- what other files look like

PLAIN = GOLDEN / "hand_plain" / "model.tflite"


def plain() -> TfliteModel:
    """Return LSTM, last step, Dense; 1 x 15 x 10 in, 1 x 4 out."""
    return parse(PLAIN.read_bytes(), "m.tflite")


def read(model: TfliteModel, profile: str = "tflm") -> Program:
    return program_from_bytes(serialize(model), "m.tflite", profile)


def with_tensor(model: TfliteModel, index: int, **change: Any) -> TfliteModel:
    tensors = list(model.tensors)
    tensors[index] = replace(tensors[index], **change)
    return replace(model, tensors=tuple(tensors))


def with_operator(model: TfliteModel, index: int, **change: Any) -> TfliteModel:
    operators = list(model.operators)
    operators[index] = replace(operators[index], **change)
    return replace(model, operators=tuple(operators))


def with_operators(
    model: TfliteModel, operators: tuple[TfliteOperator, ...], *tensors: TfliteTensor
) -> TfliteModel:
    return replace(model, operators=operators, tensors=(*model.tensors, *tensors))


def sample(program: Program) -> Array:
    rng = np.random.default_rng(5)
    return rng.integers(-128, 128, (6, 15, program.input_tensor.signal.size)).astype(np.int8)


def shape_constant(name: str, *values: int) -> TfliteTensor:
    return TfliteTensor(name, (len(values),), "int32", data=np.array(values, "<i4").tobytes())


def test_axes_that_are_moved_and_moved_back_vanish() -> None:
    model = plain()
    x = model.tensors[model.inputs[0]]
    count = len(model.tensors)
    lstm, *rest = model.operators
    # [1, 15, 10] as [15, 10] as [15, 1, 10] as [1, 15, 10].
    noisy = with_operators(
        model,
        (
            TfliteOperator("RESHAPE", (0, count), (count + 1,)),
            TfliteOperator("EXPAND_DIMS", (count + 1, count + 2), (count + 3,)),
            TfliteOperator("TRANSPOSE", (count + 3, count + 4), (count + 5,)),
            replace(lstm, inputs=(count + 5, *lstm.inputs[1:])),
            *rest,
        ),
        shape_constant("shape", 15, 10),
        replace(x, name="flat", shape=(15, 10)),
        shape_constant("axis", 1),
        replace(x, name="grown", shape=(15, 1, 10)),
        shape_constant("permutation", 1, 0, 2),
        replace(x, name="turned", shape=(1, 15, 10)),
    )
    program = read(noisy)
    assert [op.type_name for op in program.ops] == ["lstm", "last_step", "dense"]
    np.testing.assert_array_equal(
        program.predict(sample(program)), read(model).predict(sample(program))
    )


def test_a_transposed_input_is_read_in_canonical_axes() -> None:
    """A file fed [time, batch, features] that turns them itself for a batch-major LSTM."""
    model = plain()
    batch = 3
    shapes = {
        0: (15, batch, 10), 13: (batch, 14), 14: (batch, 14), 20: (batch, 15, 14),
        24: (batch, 14), 27: (batch, 4),
    }  # fmt: skip
    for index, shape in shapes.items():
        model = with_tensor(model, index, shape=shape)
    count = len(model.tensors)
    lstm, *rest = model.operators
    turned = with_operators(
        model,
        (
            TfliteOperator("TRANSPOSE", (0, count), (count + 1,)),
            replace(lstm, inputs=(count + 1, *lstm.inputs[1:])),
            *rest,
        ),
        shape_constant("permutation", 1, 0, 2),
        replace(model.tensors[0], name="turned", shape=(batch, 15, 10)),
    )
    program = read(turned)
    assert program.source["batch_size"] == "3"
    np.testing.assert_array_equal(
        program.predict(sample(program)), read(plain()).predict(sample(program))
    )


def float_ends() -> TfliteModel:
    """Return the plain model with float32 input and output."""
    model = plain()
    count = len(model.tensors)
    lstm, *rest = model.operators
    operators = (
        TfliteOperator("QUANTIZE", (count,), (0,), QuantizeOptions()),
        lstm,
        *rest,
        TfliteOperator("DEQUANTIZE", (27,), (count + 1,), DequantizeOptions(), version=2),
    )
    model = with_operators(
        model,
        operators,
        TfliteTensor("float_in", (1, 15, 10), "float32"),
        TfliteTensor("float_out", (1, 4), "float32"),
    )
    return replace(model, inputs=(count,), outputs=(count + 1,))


@pytest.mark.parametrize("profile", ["litert", "litert-ref", "tflm"])
def test_float_ends_are_quantized_as_the_interpreter_does(profile: str) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    data = serialize(float_ends())
    program = program_from_bytes(data, "m.tflite", profile)
    scale = program.tensors[1].scale
    rng = np.random.default_rng(11)
    x = rng.normal(0, 60 * scale, (20, 1, 15, 10)).astype(np.float32)
    # Ties, where the interpreters' roundings part.
    x[10:] = (rng.integers(-300, 300, x[10:].shape) + 0.5) * np.float32(scale)
    reset = np.ones(len(x))
    want = interpreters.IN_PROCESS[profile](data, x, reset)
    got = np.stack([program.predict(values) for values in x])
    np.testing.assert_array_equal(got, want, strict=True)
    np.testing.assert_array_equal(program.predict(x[0].astype(np.float64)), want[0], strict=True)


def test_a_model_with_float_ends_refuses_nan() -> None:
    program = read(float_ends())
    x = np.zeros((1, 15, 10), np.float32)
    x[0, 3, 4] = np.nan
    with pytest.raises(UsageError, match=r"tensor 'quantize\.output': 1 values are NaN"):
        program.predict(x)


def test_a_model_with_float_ends_is_saved_and_written_back() -> None:
    program = read(float_ends())
    assert load_program(program_bytes(program), "m.elstm").fingerprint() == program.fingerprint()
    assert read(parse(tflite_bytes(program, 15), "m")).fingerprint() == program.fingerprint()


# ------------------------------------------------------------------- single operators


def one_operator(
    code: str, source: TfliteTensor, output: TfliteTensor, options: Any = None, version: int = 2
) -> TfliteModel:
    return TfliteModel(
        (source, output), (TfliteOperator(code, (0,), (1,), options, (), version),), (0,), (1,)
    )


def elementwise(seed: int) -> dict[str, TfliteModel]:
    """Return models that map all 256 int8 values, with random scales."""
    rng = np.random.default_rng(seed)
    scale = float(np.float32(np.exp(rng.uniform(np.log(0.002), np.log(0.3)))))
    other = float(np.float32(scale * rng.uniform(0.5, 1.5)))
    zero, other_zero = int(rng.integers(-128, 128)), int(rng.integers(-128, 60))
    x = TfliteTensor("input", (1, 256), "int8", (scale,), (zero,))
    free = replace(x, name="y", scales=(other,), zero_points=(other_zero,))
    unit = replace(x, name="y", scales=(1 / 256,), zero_points=(-128,))
    return {
        "LOGISTIC": one_operator("LOGISTIC", x, unit),
        "TANH": one_operator("TANH", x, replace(unit, scales=(1 / 128,), zero_points=(0,))),
        "RELU": one_operator("RELU", x, free),
        "RELU6": one_operator("RELU6", x, free),
        "QUANTIZE": one_operator("QUANTIZE", x, free, QuantizeOptions()),
    }


@pytest.mark.parametrize("profile", ["litert", "litert-ref", "tflm"])
@pytest.mark.parametrize("code", ["LOGISTIC", "TANH", "RELU", "RELU6", "QUANTIZE"])
def test_elementwise_operators_equal_the_interpreter_on_all_values(code: str, profile: str) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    x = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    for seed in range(8):
        data = serialize(elementwise(seed)[code])
        got = program_from_bytes(data, "m.tflite", profile).predict(x[0])
        want = interpreters.IN_PROCESS[profile](data, x, np.ones(1))
        np.testing.assert_array_equal(got[None], want, strict=True)


def straddling_scales(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Return scales whose quotients, in float32 and in double, round some byte differently."""
    found: list[tuple[float, float]] = []
    values = np.arange(256)
    while len(found) < count:
        scale = float(np.float32(rng.uniform(0.001, 0.01)))
        # The quotient times a byte lies at a tie, as nearly as float32 can say.
        tie = int(rng.integers(1, 120)) + 0.5
        other = float(np.float32(int(rng.integers(1, 255)) * scale / tie))
        in_float = quantize_multiplier(float(np.float32(scale) / np.float32(other)))
        in_double = quantize_multiplier(scale / other)
        if (requantize(values, in_float) != requantize(values, in_double)).any():
            found.append((scale, other))
    return found


@pytest.mark.parametrize(
    "profile",
    [
        *("litert", "litert-ref", "tflm"),
        pytest.param("tflite-runtime", marks=pytest.mark.tflite_runtime),
        pytest.param("tflm-2026-08", marks=pytest.mark.tflm_2026_08),
    ],
)
@pytest.mark.parametrize("code", ["RELU", "QUANTIZE"])
def test_quotients_of_scales_are_as_precise_as_the_interpreters(code: str, profile: str) -> None:
    """RELU divides in float32, but in TFLM since 2026-10-13; QUANTIZE in double everywhere."""
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    x = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    for scale, other in straddling_scales(np.random.default_rng(9), 6):
        source = TfliteTensor("input", (1, 256), "int8", (scale,), (-128,))
        output = replace(source, name="y", scales=(other,))
        data = serialize(one_operator(code, source, output))
        got = program_from_bytes(data, "m.tflite", profile).predict(x[0])
        np.testing.assert_array_equal(got[None], interpreters.run(profile, data, x, np.ones(1)))


@pytest.mark.parametrize("profile", ["litert", "litert-ref", "tflm"])
def test_requantizing_equals_the_interpreter_for_every_ratio_of_scales(profile: str) -> None:
    """Both sides of 2^-8 and 2^7, where LiteRT changes from XNNPACK to a kernel of its own."""
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    rng = np.random.default_rng(8)
    x = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    edges = [side * (1 + k * 2.0**-22) for side in (2.0**-8, 2.0**7) for k in range(-3, 4)]
    ratios = [*edges, *np.exp(rng.uniform(np.log(1 / 900), np.log(400), 150))]
    for ratio in ratios:
        scale = float(np.float32(np.exp(rng.uniform(np.log(1e-4), np.log(1)))))
        zero, other_zero = (int(z) for z in rng.integers(-128, 128, 2))
        source = TfliteTensor("input", (1, 256), "int8", (scale,), (zero,))
        other = float(np.float32(scale / ratio))
        output = replace(source, name="y", scales=(other,), zero_points=(other_zero,))
        data = serialize(one_operator("QUANTIZE", source, output, QuantizeOptions()))
        got = program_from_bytes(data, "m.tflite", profile).predict(x[0])
        want = interpreters.IN_PROCESS[profile](data, x, np.ones(1))
        np.testing.assert_array_equal(got[None], want, err_msg=f"ratio {ratio}", strict=True)


def dense(seed: int, activation: int, *, per_channel: bool) -> TfliteModel:
    rng = np.random.default_rng(seed)
    depth, outputs = int(rng.integers(1, 80)), int(rng.integers(2, 40))
    weights = rng.integers(-127, 128, (outputs, depth)).astype(np.int8)
    scales = rng.uniform(0.001, 0.05, outputs if per_channel else 1).astype(np.float32)
    in_scale = np.float32(rng.uniform(0.005, 0.1))
    out_scale = np.float32(np.sqrt(depth) * 74 * 74 * in_scale * scales.mean() * 0.02)
    bias = rng.integers(-20000, 20000, outputs).astype(np.int32)
    zeros = (0,) * len(scales)
    zero, out_zero = int(rng.integers(-128, 128)), int(rng.integers(-128, 0))
    tensors = (
        TfliteTensor("input", (8, depth), "int8", (float(in_scale),), (zero,)),
        TfliteTensor(
            "w", weights.shape, "int8", tuple(scales.tolist()), zeros, data=weights.tobytes()
        ),
        TfliteTensor(
            "b", bias.shape, "int32", tuple((in_scale * scales).tolist()), zeros,
            data=bias.tobytes(),
        ),
        TfliteTensor("y", (8, outputs), "int8", (float(out_scale),), (out_zero,)),
    )  # fmt: skip
    options = FullyConnectedOptions(activation)
    operator = TfliteOperator("FULLY_CONNECTED", (0, 1, 2), (3,), options, version=4)
    return TfliteModel(tensors, (operator,), (0,), (3,))


@pytest.mark.parametrize("profile", ["litert", "litert-ref", "tflm"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activation", [0, 1, 2, 3])
def test_dense_equals_the_interpreter(profile: str, per_channel: bool, activation: int) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    for seed in range(5):
        data = serialize(dense(seed, activation, per_channel=per_channel))
        program = program_from_bytes(data, "m.tflite", profile)
        size = program.input_tensor.signal.size
        rng = np.random.default_rng(seed)
        x = rng.integers(-128, 128, (10, 8, size)).astype(np.int8)
        want = interpreters.IN_PROCESS[profile](data, x, np.ones(10))
        got = np.stack([program.predict(values) for values in x])
        np.testing.assert_array_equal(got, want, strict=True)


# ------------------------------------------------------------------- refusals


def per_channel_weights(model: TfliteModel) -> TfliteModel:
    return with_tensor(model, 1, scales=(0.1,) * 14, zero_points=(0,) * 14)


def without(position: int) -> Callable[[TfliteModel], TfliteModel]:
    def change(model: TfliteModel) -> TfliteModel:
        inputs = list(model.operators[0].inputs)
        inputs[position] = ABSENT
        return with_operator(model, 0, inputs=tuple(inputs))

    return change


def lstm_options(**change: Any) -> Callable[[TfliteModel], TfliteModel]:
    def changed(model: TfliteModel) -> TfliteModel:
        options = replace(model.operators[0].options, **change)
        return with_operator(model, 0, options=options)

    return changed


def lstm_tensor(position: int, **change: Any) -> Callable[[TfliteModel], TfliteModel]:
    def changed(model: TfliteModel) -> TfliteModel:
        return with_tensor(model, model.operators[0].inputs[position], **change)

    return changed


BROKEN_LSTMS: list[tuple[Any, Callable[[TfliteModel], TfliteModel], str, str]] = [
    (integer_activations, lstm_tensor(0, dtype="uint8"), "values must be int8", "tflm"),
    (all_inputs, lambda m: with_operator(m, 0, inputs=m.operators[0].inputs[:20]),
     "has 20 inputs", "tflm"),
    (tanh_activation, lstm_options(fused_activation=1), "has fused activation 1", "tflm"),
    (full_matrices, lstm_options(diagonal_recurrent_tensors=True), "diagonal", "tflm"),
    (clips, lstm_options(cell_clip=-1.0), "cell clip is -1.0", "tflm"),
    (clips, lstm_options(projection_clip=float("nan")), "projection clip is nan", "tflm"),
    (all_weights, without(15), r"bias \(input 15\) is absent", "tflm"),
    (all_weights, without(1), r"recurrent weights \(input 5\) is there", "litert"),
    (constant_weights, lstm_tensor(6, data=None), "input 6 .* has no data", "tflm"),
    (one_scale_a_matrix, per_channel_weights, "has 14 scales", "tflm"),
    (weights_around_zero, lstm_tensor(7, zero_points=(3,)), "zero point 3", "tflm"),
    (one_scale_a_matrix, lstm_tensor(7, scales=(float("nan"),)), "scale nan", "tflm"),
    (variable_states, lstm_tensor(HIDDEN_STATE, is_variable=False), "not variable", "tflm"),
    (variable_states, lstm_tensor(CELL_STATE, data=bytes(28)), "has data", "tflm"),
    (variable_states, lstm_tensor(CELL_STATE, shape=(14,)), r"shape \[14\]", "tflm"),
    (cell_scale, lstm_tensor(CELL_STATE, scales=(0.0003,)), "cell state is int16", "tflm"),
    (cell_scale, lstm_tensor(CELL_STATE, dtype="int8"), "cell state is int8", "tflm"),
    (hidden_intermediate, lambda m: with_operator(m, 0, intermediates=(15, 16)),
     "has 2 intermediates", "litert"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change", "found", "profile"), BROKEN_LSTMS)
def test_an_lstm_that_breaks_a_rule_is_refused_by_it(
    rule: Callable[[TfliteLstm], str | None],
    change: Callable[[TfliteModel], TfliteModel],
    found: str,
    profile: str,
) -> None:
    with pytest.raises(UnsupportedModel, match=found) as caught:
        read(change(plain()), profile)
    if rule is not integer_activations:  # said of every value before the LSTM is looked at
        assert str(caught.value).endswith(sentence(rule))


def test_every_rule_has_a_model_that_breaks_it() -> None:
    assert {row[0] for row in BROKEN_LSTMS} == set(LSTM_RULES)


def test_twenty_inputs_are_enough_for_tflite() -> None:
    model = plain()
    short = with_operator(model, 0, inputs=model.operators[0].inputs[:20])
    want = read(model, "litert").predict(sample(read(model)))
    np.testing.assert_array_equal(read(short, "litert").predict(sample(read(model))), want)


def test_a_hidden_scale_of_its_own_is_told_and_kept() -> None:
    model = with_tensor(plain(), 19, scales=(0.004,), zero_points=(1,))
    program = read(model)
    assert any(sentence(two_hidden_scales) in w for w in program.warnings)
    lstm = program.ops[0]
    assert isinstance(lstm, LstmOp)
    assert lstm.product_scale == pytest.approx(0.004, rel=1e-7)  # as float32
    if reason := interpreters.missing("litert"):
        pytest.skip(reason)
    x = sample(program)[:, None]
    want = interpreters.litert(serialize(model), x, np.ones(len(x)))
    got = np.stack([read(model, "litert").predict(values) for values in x])
    np.testing.assert_array_equal(got, want)


REFUSALS: list[tuple[Callable[[TfliteModel], TfliteModel], str]] = [
    (
        lambda m: with_operator(m, 1, code="SVDF", options=None),
        r"m.tflite: operator SVDF has no counterpart here; operators must be of",
    ),
    (
        lambda m: with_operator(m, 1, options=StridedSliceOptions(5, 5, 0, 0, 0)),
        r"operator 1 \(STRIDED_SLICE\): takes \[\] of 15 on axis 1 of sequence",
    ),
    (
        lambda m: with_tensor(m, 21, data=np.array([0, 3, 0], "<i4").tobytes()),
        r"operator 1 \(STRIDED_SLICE\): takes \[3\] of 15 .*; want the last step or the first",
    ),
    (
        lambda m: with_tensor(m, 24, scales=(0.5,)),
        r"operator 1 \(STRIDED_SLICE\): changes the scale",
    ),
    (
        lambda m: with_operator(m, 2, options=FullyConnectedOptions(4)),
        r"operator 2 \(FULLY_CONNECTED\): has fused activation tanh",
    ),
    (
        lambda m: with_tensor(m, 25, zero_points=(1,)),
        r"operator 2 \(FULLY_CONNECTED\): weights have a zero point; it must be 0",
    ),
    (
        lambda m: with_tensor(m, 25, dtype="uint8"),
        r"operator 2 \(FULLY_CONNECTED\): weights are uint8 \[4, 14\]; want int8",
    ),
    (
        lambda m: with_tensor(m, 27, scales=()),
        r"tensor 'dense/out' has 0 scales; an activation must have one",
    ),
    (
        lambda m: with_tensor(m, 27, scales=(float("inf"),)),
        r"tensor 'dense/out' has scale inf",
    ),
    (lambda m: replace(m, inputs=(0, 1)), r"m.tflite: has 2 inputs; a model must have one"),
    (lambda m: replace(m, outputs=()), r"m.tflite: has 0 outputs; a model must have one"),
    (
        lambda m: with_tensor(m, 0, shape=(1, 1, 1, 15, 10)),
        r"input is int8 \[1, 1, 1, 15, 10\]; want \[batch, time, features\]",
    ),
    (
        lambda m: with_tensor(m, 0, shape=(1, 0, 10)),
        r"input has shape \[1, 0, 10\]; want every size known and at least 1",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_what_has_no_counterpart_is_refused_by_name(
    change: Callable[[TfliteModel], TfliteModel], message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message) as caught:
        read(change(plain()))
    assert "\n" not in str(caught.value)


def test_a_float_model_is_refused_with_what_to_do() -> None:
    float_model = TfliteModel(
        (TfliteTensor("x", (1, 8), "float32"), TfliteTensor("y", (1, 8), "float32")),
        (TfliteOperator("TANH", (0,), (1,)),),
        (0,),
        (1,),
    )
    with pytest.raises(UnsupportedModel, match="is fed float32; a full-integer model computes"):
        read(float_model)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_profiles_without_a_kernel_for_the_variant_refuse_it(folder: Path) -> None:
    for profile in PROFILES:
        program = read_tflite(folder / "model.tflite", "litert").with_profile(profile)
        only_tflite = folder.name.startswith("tfliteonly") and not profile.startswith("lite")
        only_tflm = folder.name.startswith("tflmonly") and "lite" in profile
        if (only_tflite and profile != "tflite-runtime") or only_tflm:
            with pytest.raises(UnsupportedModel, match="not in the kernels of profile"):
                program.session()
        else:
            program.session()


def test_files_that_cannot_be_read_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.tflite").write_bytes(b"")
    (tmp_path / "text.tflite").write_text("not a model at all")
    for name in ("missing.tflite", "empty.tflite", "text.tflite", "."):
        with pytest.raises(UnreadableModel) as caught:
            read_tflite(tmp_path / name)
        assert "\n" not in str(caught.value)


@given(st.integers(0, 2**32), st.sampled_from(PROFILES))
def test_a_damaged_file_runs_or_is_refused(seed: int, profile: str) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(FOLDERS[rng.integers(len(FOLDERS))].joinpath("model.tflite").read_bytes())
    extremes = [b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"]
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(data) - 4)) & ~3
        data[place : place + 4] = extremes[rng.integers(4)] if rng.random() < 0.5 else rng.bytes(4)
    try:
        program = program_from_bytes(bytes(data), "m.tflite", profile)
        tensor = program.input_tensor
        steps = program.time_steps or 2
        if tensor.signal.kind == "sequence" and steps * tensor.signal.size < 10_000:
            program.predict(np.zeros((1, steps, tensor.signal.size), tensor.dtype))
    except EdgeLstmError as error:
        assert "\n" not in str(error)  # noqa: PT017
