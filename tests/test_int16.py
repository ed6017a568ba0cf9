"""int16 activations: every operator against TensorFlow Lite Micro, and the road from a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interpreters
from edge_lstm.arrays import Array
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.program import Profile, Program
from edge_lstm.quantize import quantize
from edge_lstm.samples import load_samples
from edge_lstm_converters.convert import ConvertOptions, convert
from edge_lstm_converters.read_tflite import program_from_bytes
from edge_lstm_converters.tflite_schema import TfliteModel, TfliteOperator, TfliteTensor, serialize
from edge_lstm_converters.tflite_tables import SoftmaxOptions

ALL_WORDS = np.arange(-32768, 32768).astype(np.int16).reshape(1, 1, -1)
ALL_BYTES = np.arange(-128, 128).astype(np.int8).reshape(1, 1, -1)
MODEL = Path(__file__).parent.parent / "benchmarks" / "edge_lstm_benchmarks" / "models" / "weather"
NEEDS_TFLM = pytest.mark.skipif(
    interpreters.missing("tflm") is not None, reason=str(interpreters.missing("tflm"))
)


def tensor(name: str, x: Array, scale: float, zero_point: int = 0) -> TfliteTensor:
    return TfliteTensor(name, x.shape[1:], x.dtype.name, (scale,), (zero_point,))


def model(code: str, source: TfliteTensor, output: TfliteTensor, options: Any = None) -> bytes:
    operator = TfliteOperator(code, (0,), (1,), options, (), 3)
    return serialize(TfliteModel((source, output), (operator,), (0,), (1,)))


def check(data: bytes, x: Array) -> None:
    want = interpreters.tflm(data, x, np.ones(len(x)))
    got = np.stack([program_from_bytes(data, "m.tflite", "tflm").predict(v) for v in x])
    np.testing.assert_array_equal(got, want, strict=True)


def scales(count: int) -> list[float]:
    """Return scales of all sizes, powers of two among them: the kernels treat those apart."""
    rng = np.random.default_rng(3)
    drawn = np.exp(rng.uniform(np.log(1e-6), np.log(0.05), count))
    return [*(2.0**-k for k in range(9, 16)), *(float(np.float32(s)) for s in drawn)]


@NEEDS_TFLM
@pytest.mark.parametrize("code", ["LOGISTIC", "TANH"])
def test_sigmoid_and_tanh_equal_tflm_on_all_words(code: str) -> None:
    for scale in scales(15):
        output = tensor("y", ALL_WORDS, 2.0**-15)
        check(model(code, tensor("x", ALL_WORDS, scale), output), ALL_WORDS)


@NEEDS_TFLM
@pytest.mark.parametrize("code", ["RELU", "RELU6", "QUANTIZE"])
def test_rescaling_operators_equal_tflm_on_all_words(code: str) -> None:
    """Random scales show the double quotient of scales: int16 needs more of its bits."""
    rng = np.random.default_rng(4)
    for scale in scales(15):
        output = tensor("y", ALL_WORDS, float(np.float32(scale * np.exp(rng.uniform(-2, 2)))))
        check(model(code, tensor("x", ALL_WORDS, scale), output), ALL_WORDS)


@NEEDS_TFLM
def test_quantize_equals_tflm_between_the_widths() -> None:
    rng = np.random.default_rng(5)
    for scale in scales(15):
        narrow = float(np.float32(scale * 256 * np.exp(rng.uniform(-2, 2))))
        zero_point = int(rng.integers(-128, 128))
        wide = tensor("wide", ALL_WORDS, scale)
        output = TfliteTensor("y", wide.shape, "int8", (narrow,), (zero_point,))
        check(model("QUANTIZE", wide, output), ALL_WORDS)
        source = tensor("narrow", ALL_BYTES, narrow, zero_point)
        output = TfliteTensor("y", source.shape, "int16", (scale,), (0,))
        check(model("QUANTIZE", source, output), ALL_BYTES)


@NEEDS_TFLM
def test_float_ends_equal_tflm() -> None:
    rng = np.random.default_rng(6)
    for scale in scales(10):
        x = (rng.standard_normal((3, 1, 2000)) * scale * 12_000).astype(np.float32)
        x[1] = (rng.integers(-40_000, 40_000, x[1].shape) + 0.5) * np.float32(scale)  # ties
        output = TfliteTensor("y", (1, 2000), "int16", (scale,), (0,))
        check(model("QUANTIZE", TfliteTensor("x", (1, 2000), "float32"), output), x)
        words = tensor("x", ALL_WORDS, scale)
        check(model("DEQUANTIZE", words, TfliteTensor("y", words.shape, "float32")), ALL_WORDS)


@NEEDS_TFLM
def test_softmax_equals_tflm() -> None:
    rng = np.random.default_rng(7)
    for number, scale in enumerate(scales(40)):
        classes, beta = int(rng.integers(1, 60)), (1.0, 0.5, 2.0)[number % 3]
        x = rng.integers(-32768, 32768, (4, 20, classes))
        x[1], x[2] = x[1] // 16, x[2] // 256
        x[3] = rng.choice([-32768, 32767], x[3].shape)
        x = x.astype(np.int16)
        output = tensor("y", x, 2.0**-15)
        check(model("SOFTMAX", tensor("x", x, scale), output, SoftmaxOptions(beta)), x)


@pytest.mark.parametrize("code", ["LOGISTIC", "TANH", "RELU", "QUANTIZE"])
@pytest.mark.parametrize("profile", ["litert", "litert-ref"])
def test_litert_equals_tflm_on_all_words(profile: Profile, code: str) -> None:
    """But for sigmoid and tanh of power-of-two scales in the optimized kernels."""
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    for scale in scales(8):
        fixed = code in ("LOGISTIC", "TANH")
        if profile == "litert" and fixed and np.frexp(scale)[0] == 0.5:
            continue
        output = tensor("y", ALL_WORDS, 2.0**-15 if fixed else scale * 1.5)
        data = model(code, tensor("x", ALL_WORDS, scale), output)
        want = interpreters.run(profile, data, ALL_WORDS, np.ones(1))
        got = program_from_bytes(data, "m.tflite", profile).predict(ALL_WORDS[0])
        np.testing.assert_array_equal(got, want[0], strict=True)


@pytest.mark.parametrize(
    ("code", "profile"),
    [
        ("TANH", "litert"),
        ("TANH", "tflite-runtime"),
        ("RELU6", "litert-ref"),
        ("SOFTMAX", "litert-ref"),
        ("QUANTIZE", "tflite-runtime"),
    ],
)
def test_int16_that_is_computed_otherwise_is_refused_by_name(code: str, profile: str) -> None:
    options = SoftmaxOptions(1.0) if code == "SOFTMAX" else None
    data = model(code, tensor("x", ALL_WORDS, 2.0**-12), tensor("y", ALL_WORDS, 2.0**-15), options)
    with pytest.raises(UnsupportedModel, match=r"(of|with) int16"):
        program_from_bytes(data, "m.tflite", profile).session()


# ------------------------------------------------------------------- from a trained model


def converted(folder: Path, **options: Any) -> tuple[Program, Path]:
    asked = ConvertOptions(calibration=MODEL / "calibration.npz", quant="int16x8", **options)
    result = convert(MODEL / "model.onnx", folder, asked)
    assert result.program is not None
    return result.program, result.files["tflite"]


def test_a_trained_model_becomes_16x8_and_loses_less(tmp_path: Path) -> None:
    program, path = converted(tmp_path)
    assert path.name == "model_int16x8.tflite"
    assert (tmp_path / "model.elstm").exists()
    assert {t.dtype for t in program.tensors} == {"int16"}
    from edge_lstm import float_reference
    from edge_lstm.calibrate import calibrate
    from edge_lstm_converters import read

    spec = read(MODEL / "model.onnx")
    samples = load_samples(MODEL / "test.npz")
    x = samples.x[:40]
    calibration = load_samples(MODEL / "calibration.npz")
    narrow = quantize(spec, calibrate(spec, calibration.x, calibration.lengths))  # type: ignore[arg-type]
    want = float_reference.run(spec, x)  # type: ignore[arg-type]
    errors = [np.square(p.predict(x) - want).mean() for p in (program, narrow)]
    assert errors[0] < errors[1] / 10
    if interpreters.missing("tflm") is None:
        data = path.read_bytes()
        integers = program.input_tensor.quantize(x)[:, None]
        got = interpreters.tflm(data, integers, np.ones(len(x)))
        np.testing.assert_array_equal(got[:, 0], program.predict(integers[:, 0]), strict=True)


def test_tflite_profiles_cannot_have_16x8(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kernel of profile litert takes int16"):
        converted(tmp_path, profile="litert")
