"""Sound for the two speech examples: WAV files at 16 kHz, or a sentence that espeak-ng speaks."""

import io
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np

from edge_lstm.arrays import F32
from edge_lstm.errors import UsageError
from edge_lstm_benchmarks import speech as speech_of_models
from edge_lstm_benchmarks.speech import resample

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "How many sheets of paper are left in the printer downstairs?",
    "A cold wind blew from the north, and nobody was on the street.",
    "Please call again after eight o'clock; the office is closed now.",
    "She sells sea shells, he said, but I have never seen one of them.",
    "Forty two degrees, the thermometer said, in the shade of the old wall.",
)


def read_wav(path: Path) -> F32:
    """Return mono sound in [-1, 1] at 16 kHz, or end with what is wrong with the file."""
    try:
        return speech_of_models.read_wav(path)
    except UsageError as error:
        sys.exit(str(error))


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
