"""Silero's voice activity detector: its LSTM part as int8, on your own sound.

    python examples/silero_vad.py [SOUND.wav ...]

Needs the tools (pip install 'edge-lstm[tools]') and, once, a package index: the model is read out
of the package silero-vad 6.2.3 (MIT). WAV files are 16-bit mono at 16 or 8 kHz; without any,
espeak-ng speaks a few sentences. The files are joined with pauses of 0.4 s; the first half of the
sound gives the scales, the second half is judged.

Measured with real speech, the 300 first files of Debian's asterisk-core-sounds-en-wav
(`apt-get download asterisk-core-sounds-en-wav; dpkg-deb -x asterisk-*.deb sounds`, then
`python examples/silero_vad.py $(find sounds -name '*.wav' | sort | head -300)`): of 15,323 frames,
490 s of which 74 % is speech, 99.90 % of the decisions are the float model's in TFLM and 99.88 % in
LiteRT; and each runtime gives the bytes of its profile.
"""

import sys
from pathlib import Path

import numpy as np
from speech import sounds_of

from edge_lstm import float_reference
from edge_lstm.backend import BenchModel
from edge_lstm.calibrate import calibrate
from edge_lstm.quantize import quantize
from edge_lstm.samples import Samples
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.harness import run_bench
from edge_lstm_benchmarks.speech import RATE, SILERO_FRAME, silero_features
from edge_lstm_converters import read

LAYERS = Path(__file__).parent / "layers" / "silero_vad.toml"  # the part from there on
PAUSE_S = 0.4
BENCH_FRAMES = 500


def main(paths: list[str]) -> int:
    """Print how many decisions are the same; return 1 below 99.5 %."""
    rng = np.random.default_rng(0)
    parts = []
    for sound in sounds_of(paths):
        parts += [sound, rng.normal(0, 1e-4, int(PAUSE_S * RATE)).astype(np.float32)]
    source = datasets.silero_vad_onnx()
    features, wanted = silero_features(source, np.concatenate(parts))
    spec = read(source, layers=LAYERS, name="silero_vad_lstm")
    assert isinstance(spec, ModelSpec)

    half = len(features) // 2
    first, second = features[None, :half], features[None, half:]
    found = float_reference.run(spec, features[None])[0, :, 0]
    print(f"{len(features):,} frames, {len(features) * SILERO_FRAME / RATE:.0f} s of sound")
    print(f"float part against the whole model in onnxruntime: {abs(found - wanted).max():.1e}")
    program = quantize(spec, calibrate(spec, first), "tflm")
    in_float = float_reference.run(spec, second)[0, :, 0]
    share = 0.0
    for profile in ("tflm", "litert"):
        in_int8 = program.with_profile(profile).predict(second)[0, :, 0]
        share = float(((in_int8 >= 0.5) == (in_float >= 0.5)).mean())
        speech = float((in_float >= 0.5).mean())
        print(f"{profile}: {100 * share:.2f} % of {len(in_float):,} decisions are the float model's"
              f" ({100 * speech:.0f} % of the frames are speech)")  # fmt: skip

    decisions = (in_float >= 0.5).astype(np.int64)[None, :BENCH_FRAMES, None]
    samples = Samples(second[:, :BENCH_FRAMES], y=decisions, where="speech, frame by frame")
    report = run_bench([BenchModel("silero_vad_lstm", spec, program)], samples, None, "stream")
    print("\nAccuracy here is the share of decisions that are the float model's.")
    print(report.text())
    return int(share < 0.995 or bool(report.mismatches()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
