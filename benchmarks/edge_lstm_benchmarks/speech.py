"""Sound for the speech models: WAV files, and what each model hears of them."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from edge_lstm.arrays import F32, I64, Bool
from edge_lstm.errors import UsageError

RATE = 16_000
STEPS, HOP, WINDOW, BANDS = 160, 160, 400, 40
"""Of Resemblyzer."""
LOUDNESS_DB = -30.0
SILERO_FEATURES = "/Transpose_output_0"
"""What the convolutions give to the LSTM, [frames, 1, 128]."""
SILERO_FRAME, SILERO_CONTEXT = 512, 64


def read_wav(path: Path) -> F32:
    """Return mono sound in [-1, 1] at 16 kHz, from 16-bit PCM at 8 or 16 kHz.

    Raises:
        UsageError: it is of another kind.
    """
    with wave.open(str(path), "rb") as file:
        rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
        if rate not in (8_000, RATE) or width != 2 or channels != 1:
            raise UsageError(
                f"{path}: {rate} Hz, {8 * width} bits, {channels} channels; want 16-bit mono"
                " at 8,000 or 16,000 Hz"
            )
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    sound = (data / 32768).astype(np.float32)
    return sound if rate == RATE else resample(sound, rate)


def resample(sound: F32, rate: int) -> F32:
    """Return ``sound`` at 16 kHz: sinc interpolation, 32 samples each side, Hann window."""
    step = rate / RATE
    cutoff = min(1.0, 1 / step)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(sound, 64), 64)
    parts = [np.empty(0, np.float32)]
    for first in range(0, int(len(sound) / step), RATE):  # a second at a time, for the memory
        places = np.arange(first, min(first + RATE, int(len(sound) / step))) * step
        at = np.floor(places).astype(np.int64)
        # From 8 kHz a sample falls on one of the sound's or halfway between two.
        phases, phase = np.unique(places - at, return_inverse=True)
        away = phases[:, None] - np.arange(-31, 33)
        weights = cutoff * np.sinc(cutoff * away) * np.cos(np.pi * away / 66) ** 2
        near = windows[at + 33]
        parts.append((weights.astype(np.float32)[phase] * near).sum(axis=1).astype(np.float32))
    return np.concatenate(parts)


def silero_features(source: Path, sound: F32) -> tuple[F32, F32]:
    """Return what Silero's LSTM is fed, [frames, 128], and what it answers, [frames]."""
    import onnx
    import onnxruntime

    model = onnx.load(source)
    model.graph.output.append(onnx.helper.make_tensor_value_info(SILERO_FEATURES, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    count = len(sound) // SILERO_FRAME
    # A frame is the last 64 samples of the one before, and 512 new ones.
    padded = np.pad(sound[: count * SILERO_FRAME], (SILERO_CONTEXT, 0))
    starts = np.arange(count)[:, None] * SILERO_FRAME
    zero = np.zeros((1, 1, 128), np.float32)
    probabilities, _, _, features = session.run(
        None,
        {"input": padded[starts + np.arange(SILERO_CONTEXT + SILERO_FRAME)], "h": zero, "c": zero},
    )
    return features[:, 0], probabilities.reshape(-1)


def long_enough(sound: F32) -> bool:
    """Return whether a clip has all steps that Resemblyzer hears."""
    return len(sound) >= STEPS * HOP + WINDOW


def mel_powers(sound: F32) -> F32:
    """Return [160, 40] mel powers of the middle of a clip, as Resemblyzer computes them."""
    first = (len(sound) - STEPS * HOP - WINDOW) // 2
    sound = sound[first : first + STEPS * HOP + WINDOW]
    # Quiet clips are raised to -30 dBFS; loud ones stay.
    level = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2) + 1e-12)
    sound = sound * np.float32(10 ** (max(0.0, LOUDNESS_DB - level) / 20))
    starts = np.arange(STEPS)[:, None] * HOP
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum = np.fft.rfft(sound[starts + np.arange(WINDOW)] * hann)
    powers: F32 = (np.abs(spectrum) ** 2 @ mel_bands().T).astype(np.float32)
    return powers


def mel_bands() -> F32:
    """Return [40, 201]: triangles on Slaney's mel scale, each of area 1 over hertz."""

    def hertz(mel: F32) -> F32:
        linear = mel * 200 / 3
        above = 1000 * np.exp((mel - 15) * np.log(6.4) / 27)
        return np.where(mel < 15, linear, above).astype(np.float32)

    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = hertz(np.linspace(0, top, BANDS + 2))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    bands: F32 = (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return bands


def unit(rows: F32) -> F32:
    """Return each row scaled to length 1."""
    scaled: F32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return scaled


def named(voices: F32, speakers: I64, known: Bool) -> float:
    """Return the share of clips not ``known`` that the nearest mean voice names rightly."""
    means = np.stack(
        [unit(voices[known & (speakers == s)]).mean(axis=0) for s in range(speakers.max() + 1)]
    )
    guesses = (voices[~known] @ unit(means).T).argmax(axis=1)
    return float((guesses == speakers[~known]).mean())
