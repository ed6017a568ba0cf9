"""Sound as the speech models hear it."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.errors import UsageError
from edge_lstm_benchmarks import speech


def write_wav(path: Path, rate: int, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        file.writeframes((tone * 32767).astype("<i2").tobytes())


def test_speech_read_at_8_khz_is_the_same_tone_at_16_khz(tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", 8000)
    found = speech.read_wav(tmp_path / "tone.wav")
    want = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    # 16 bits are 3e-5; the window's side lobes, over 64 samples, stay below 1e-3.
    assert np.abs(found - want)[200:-200].max() < 1e-3


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (16_000, 2)])
def test_other_sound_is_refused_in_one_line(tmp_path: Path, rate: int, channels: int) -> None:
    write_wav(tmp_path / "tone.wav", rate, channels)
    with pytest.raises(UsageError, match=f"{rate} Hz, 16 bits, {channels} channels; want 16-bit"):
        speech.read_wav(tmp_path / "tone.wav")


def test_mel_bands_cover_the_spectrum_with_unit_area() -> None:
    bands = speech.mel_bands()
    assert bands.shape == (40, 201)
    # Slaney's norm: each triangle has area 1 over hertz; a bin is 40 Hz. Narrow ones are coarse.
    assert np.allclose(bands[20:].sum(axis=1) * 40, 1, atol=0.02)


def test_mel_powers_of_a_tone_stand_in_its_band() -> None:
    sound = np.sin(2 * np.pi * 1000 * np.arange(3 * speech.RATE) / speech.RATE).astype(np.float32)
    powers = speech.mel_powers(0.001 * sound)
    assert powers.shape == (160, 40)
    peak = int(np.abs(speech.mel_bands()[:, 25]).argmax())  # 1,000 Hz is bin 25 of 40 Hz
    assert (powers.argmax(axis=1) == peak).all()
    # Quiet clips are raised to one loudness.
    assert np.allclose(powers, speech.mel_powers(0.01 * sound), rtol=1e-4)


def test_named_counts_the_unknown_clips_alone() -> None:
    voices = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]]
    speakers, known = np.array([0, 0, 1, 1, 1]), np.array([1, 0, 1, 0, 0], bool)
    assert speech.named(voices, speakers, known) == pytest.approx(2 / 3)
