"""Sound for the two speech examples: WAV files at 16 kHz, or a sentence that espeak-ng speaks."""

import io
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
RATE = 16_000
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "How many sheets of paper are left in the printer downstairs?",
    "A cold wind blew from the north, and nobody was on the street.",
    "Please call again after eight o'clock; the office is closed now.",
    "She sells sea shells, he said, but I have never seen one of them.",
    "Forty two degrees, the thermometer said, in the shade of the old wall.",
)


def read_wav(path: Path) -> F32:
    """Return mono sound in [-1, 1] at 16 kHz, from 16-bit PCM at 8 or 16 kHz."""
    with wave.open(str(path), "rb") as file:
        rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
        if rate not in (8_000, RATE) or width != 2 or channels != 1:
            sys.exit(f"{path}: {rate} Hz, {8 * width} bits, {channels} channels; want 16-bit mono"
                     " at 8,000 or 16,000 Hz")  # fmt: skip
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    sound = (data / 32768).astype(np.float32)
    return sound if rate == RATE else resample(sound, rate)


def resample(sound: F32, rate: int) -> F32:
    """Return ``sound`` at 16 kHz: sinc interpolation, 32 samples each side, Hann window."""
    step = rate / RATE
    cutoff = min(1.0, 1 / step)
    padded = np.pad(sound, 64)
    parts = [np.empty(0, np.float32)]
    for first in range(0, int(len(sound) / step), RATE):  # a second at a time, for the memory
        places = np.arange(first, min(first + RATE, int(len(sound) / step))) * step
        at = np.floor(places).astype(np.int64)[:, None] + np.arange(-31, 33)
        away = places[:, None] - at
        weights = cutoff * np.sinc(cutoff * away) * np.cos(np.pi * away / 66) ** 2
        parts.append((weights * padded[at + 64]).sum(axis=1).astype(np.float32))
    return np.concatenate(parts)


def spoken() -> list[F32]:
    """Return a few sentences of espeak-ng at 16 kHz: half in a man's voice, half in a woman's."""
    program = shutil.which("espeak-ng")
    if program is None:
        sys.exit("no sound: name WAV files, or install espeak-ng (Debian: apt install espeak-ng)")
    sounds = []
    for number, sentence in enumerate(SENTENCES):
        voice = "m1" if number < len(SENTENCES) // 2 else "f2"
        command = [program, "-v", f"en-us+{voice}", "--stdout", sentence]
        said = subprocess.run(command, capture_output=True, check=True).stdout
        # The header lies about the length, since espeak-ng writes to a pipe.
        with wave.open(io.BytesIO(said), "rb") as file:
            rate = file.getframerate()
        data = np.frombuffer(said[44 : len(said) - len(said) % 2], "<i2")
        sounds.append(resample((data / 32768).astype(np.float32), rate))
    return sounds


def sounds_of(paths: list[str]) -> list[F32]:
    """Return the sound of each file, or spoken sentences where none is named."""
    return [read_wav(Path(path)) for path in paths] or spoken()
