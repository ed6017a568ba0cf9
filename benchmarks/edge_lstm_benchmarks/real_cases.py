"""The trained models whose accuracy is measured, with the data and what their answers are worth."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edge_lstm import float_reference
from edge_lstm.arrays import F32, F64, I64, Array
from edge_lstm.errors import MissingTool
from edge_lstm.files import cache_folder
from edge_lstm.samples import load_samples
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import datasets, speech
from edge_lstm_converters import read
from edge_lstm_converters.hdf5_file import Hdf5File

MODELS = Path(__file__).parent / "models"
LAYERS = Path(__file__).resolve().parents[2] / "examples" / "layers"
SPEAKERS, CLIPS, SILERO_SOUNDS, PAUSE_S = ("en", "fr", "it", "ru"), 40, 300, 0.4
LETTERS, WINDOWS, CALIBRATION_WINDOWS = 40, 2000, 600

Scores = dict[str, float]
"""What answers are worth, by its name; the first is the one to look at."""


@dataclass(frozen=True, eq=False)
class Case:
    """A trained model and how it is judged.

    Args:
        name: of the model.
        told: what known figures say of its int8 form, for the page.
        spec: in float.
        x: of the test, ``[sequences, time, ...]``.
        calibration: the same of other data.
        judge: from outputs and the float model's outputs to their scores.
        lengths: valid steps of the test's sequences, or None.
        calibration_lengths: of calibration's.
        tensors: the outputs are these, joined by feature; none: the model's own.
    """

    name: str
    told: str
    spec: ModelSpec
    x: Array
    calibration: Array
    judge: Callable[[Array, Array], Scores]
    lengths: Array | None = None
    calibration_lengths: Array | None = None
    tensors: tuple[str, ...] = ()

    def in_float(self) -> Array:
        """Return the outputs of the float reference."""
        if not self.tensors:
            return float_reference.run(self.spec, self.x, self.lengths)
        seen: dict[str, F64] = {}
        float_reference.run(self.spec, self.x, observe=seen.__setitem__)
        parts = [seen[name].reshape(*self.x.shape[:2], -1) for name in self.tensors]
        return np.concatenate(parts, axis=-1).astype(np.float32)


def spec_of(path: Path, layers: Path | None = None, name: str | None = None) -> ModelSpec:
    """Return the float model of a file."""
    spec = read(path, layers=layers, name=name or path.stem)
    assert isinstance(spec, ModelSpec)
    return spec


def as_labels(y: Array) -> Callable[[Array, Array], Scores]:
    """Return a judge of classes: how many are right, and how many are the float model's."""

    def judge(outputs: Array, in_float: Array) -> Scores:
        found, before = outputs.argmax(axis=-1), in_float.argmax(axis=-1)
        return {
            "right, %": 100 * float((found == y).mean()),
            "as float, %": 100 * float((found == before).mean()),
        }

    return judge


def weather(cell: str) -> Case:
    """Return the temperature forecaster with a cell."""
    folder = MODELS / "weather"
    test = load_samples(folder / "test.npz")
    y, std = test.y, float(test.extra["y_std"])
    assert y is not None

    def judge(outputs: Array, in_float: Array) -> Scores:
        del in_float
        return {"error, °C": float(np.abs(outputs - y).mean()) * std}

    told = "TFLite's scheme 1.642, float 1.639 (another training)" if cell == "lstm" else ""
    spec = _trained(folder, cell)
    calibration = load_samples(folder / "calibration.npz").x
    return Case(f"weather, {cell.upper()}", told, spec, test.x, calibration, judge)


def digits(cell: str) -> Case:
    """Return the reader of digits with a cell."""
    folder = MODELS / "digits"
    test = load_samples(folder / "test.npz")
    assert test.y is not None
    told = "TFLite's scheme 98.0, float 98.0 (another training)" if cell == "lstm" else ""
    spec = _trained(folder, cell)
    calibration = load_samples(folder / "calibration.npz").x
    return Case(f"digits, {cell.upper()}", told, spec, test.x, calibration, as_labels(test.y))


def _trained(folder: Path, cell: str) -> ModelSpec:
    weights, layers = ("model", "layers") if cell == "lstm" else (cell, cell)
    return spec_of(folder / f"{weights}.pt", folder / f"{layers}.toml", folder.name)


def vowels() -> Case:
    """Return the speaker classifier, whose sequences have lengths of their own."""
    folder, data = MODELS / "vowels", datasets.japanese_vowels()
    return Case(
        "vowels, LSTM",
        "TFLite's scheme 97.8, float 97.8 (another training)",
        _trained(folder, "lstm"),
        data.test.x,
        data.train.x,
        as_labels(data.test.y),
        data.test.lengths,
        data.train.lengths,
    )


def snippets() -> Case:
    """Return the Keras tutorial's model on real reviews."""
    folder = MODELS / "snippets"
    test = load_samples(folder / "test.npz")
    assert test.y is not None
    positive = test.y.reshape(-1) > 0

    def judge(outputs: Array, in_float: Array) -> Scores:
        found, before = outputs.reshape(-1) >= 0.5, in_float.reshape(-1) >= 0.5
        return {
            "right, %": 100 * float((found == positive).mean()),
            "as float, %": 100 * float((found == before).mean()),
        }

    told = "TFLite's scheme 79.1, float 79.0 (4,000 words)"
    spec, calibration = spec_of(folder / "model.keras"), load_samples(folder / "calibration.npz").x
    return Case("snippets, Embedding and LSTM", told, spec, test.x, calibration, judge)


def silero() -> Case:
    """Return the LSTM part of Silero's detector, on the second half of recorded prompts."""
    source, random = datasets.silero_vad_onnx(), np.random.default_rng(0)
    parts: list[F32] = []
    for path in sounds("en")[:SILERO_SOUNDS]:
        pause = random.normal(0, 1e-4, int(PAUSE_S * speech.RATE)).astype(np.float32)
        parts += [speech.read_wav(path), pause]
    features, _ = speech.silero_features(source, np.concatenate(parts))
    half = len(features) // 2

    def judge(outputs: Array, in_float: Array) -> Scores:
        return {"as float, %": 100 * float(((outputs >= 0.5) == (in_float >= 0.5)).mean())}

    spec = spec_of(source, LAYERS / "silero_vad.toml", "silero_vad")
    told = "TFLite's scheme 99.9"
    return Case(
        "Silero VAD, LSTM part", told, spec, features[None, half:], features[None, :half], judge
    )


def textgenrnn() -> Case:
    """Return Embedding and two LSTMs of textgenrnn; its head is run in float behind them."""
    source = datasets.textgenrnn_weights()
    spec = spec_of(source, LAYERS / "textgenrnn.toml", "textgenrnn")
    ids = json.loads(datasets.textgenrnn_letters().read_text(encoding="utf8"))
    texts = [[ids[c] for c in text if c in ids] for _, text in datasets.review_texts()]
    x, following = letter_windows(texts[:2000], WINDOWS, seed=2)
    calibration, _ = letter_windows(texts[2000:], CALIBRATION_WINDOWS, seed=1)
    with Hdf5File("textgenrnn", source) as file:
        attention = file.read("attention/attention/attention_W:0")
        kernel, bias = (file.read(f"output/output/{part}:0") for part in ("kernel", "bias"))
    embedding, *lstms = spec.layers
    looked_up = embedding.table[x]  # type: ignore[attr-defined]

    def logits(hidden: Array) -> F64:
        """Return the letters' logits from both hidden states, [windows, time, 256]."""
        joined = np.concatenate([looked_up, hidden], axis=-1)
        weights = np.exp(joined @ attention)
        mean = (joined * (weights / weights.sum(axis=1, keepdims=True))).sum(axis=1)
        answer: F64 = mean @ kernel + bias
        return answer

    def judge(outputs: Array, in_float: Array) -> Scores:
        found, before = logits(outputs), logits(in_float)
        shifted = found - found.max(axis=1, keepdims=True)
        nats = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(x)), following]
        same = found.argmax(axis=1) == before.argmax(axis=1)
        return {
            "letter as float, %": 100 * float(same.mean()),
            "perplexity": float(np.exp(nats.mean())),
        }

    told = "TFLite's scheme 87 (a scale a gate), 97 (weights alone rounded, a scale a row)"
    tensors = tuple(f"{layer.name}.output" for layer in lstms)
    return Case(
        "textgenrnn, Embedding and 2 LSTMs", told, spec, x, calibration, judge, tensors=tensors
    )


def letter_windows(texts: list[list[int]], count: int, seed: int) -> tuple[Array, I64]:
    """Return up to 40 letters in front of two places of each text, and the letter that follows."""
    random = np.random.default_rng(seed)
    x, following = np.zeros((count, LETTERS), np.int32), list[int]()
    for text in texts:
        for place in random.permutation(np.arange(1, len(text)))[:2]:
            if len(following) == count:
                break
            before = text[max(0, place - LETTERS) : place]
            x[len(following), LETTERS - len(before) :] = before
            following.append(text[place])
    return x[: len(following)], np.array(following, np.int64)


def resemblyzer() -> Case:
    """Return Resemblyzer on four speakers; every other clip gives scales and mean voices."""
    clips: list[F32] = []
    for language in SPEAKERS:
        heard = filter(speech.long_enough, map(speech.read_wav, sounds(language)))
        clips += [speech.mel_powers(clip) for clip, _ in zip(heard, range(CLIPS), strict=False)]
    x = np.stack(clips)
    speakers, known = np.repeat(np.arange(len(SPEAKERS)), CLIPS), np.arange(len(x)) % 2 == 0

    def judge(outputs: Array, in_float: Array) -> Scores:
        voices, before = speech.unit(outputs), speech.unit(in_float)
        cosines = (voices * before).sum(axis=1)[~known]
        return {
            "named rightly, %": 100 * speech.named(voices, speakers, known),
            "cosine to float": float(cosines.mean()),
        }

    spec = spec_of(datasets.resemblyzer_checkpoint(), LAYERS / "resemblyzer.toml", "resemblyzer")
    told = "TFLite 2.15's converter: 75.8 (int8), 91.7 (dynamic range), float 98.3"
    return Case("Resemblyzer, 3 LSTMs", told, spec, x, x[known], judge)


def sounds(language: str) -> list[Path]:
    """Return the recorded prompts of one person, from Debian's asterisk-core-sounds.

    Raises:
        MissingTool: they are not in the cache, and apt cannot download them.
    """
    package = f"asterisk-core-sounds-{language}-wav"
    folder = cache_folder() / package
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            _run(["apt-get", "download", package], folder.parent)
            (archive,) = folder.parent.glob(f"{package}_*.deb")
            _run(["dpkg-deb", "-x", archive.name, package], folder.parent)
        except (OSError, ValueError, subprocess.CalledProcessError) as cause:
            raise MissingTool(
                f"{package} could not be downloaded ({cause}); unpack that package of Debian's"
                f" into {folder}"
            ) from cause
    return sorted((folder / "usr/share/asterisk/sounds").rglob("*.wav"))


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def all_cases() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Yield the name of each model and what loads it."""
    for cell in ("lstm", "gru", "rnn"):
        yield f"weather-{cell}", partial(weather, cell)
        yield f"digits-{cell}", partial(digits, cell)
    yield "vowels", vowels
    yield "snippets", snippets
    yield "silero", silero
    yield "textgenrnn", textgenrnn
    yield "resemblyzer", resemblyzer
