"""Resemblyzer, who is speaking: a PyTorch checkpoint as int8, and an honest look at the loss.

    python examples/resemblyzer.py SPEAKER_A SPEAKER_B ... (folders of WAV files)
    python examples/resemblyzer.py                         (espeak-ng speaks)

Needs the tools (pip install 'edge-lstm[tools]'; no PyTorch) and, once, a package index: the
checkpoint is read out of the package resemblyzer 0.1.4 (Apache-2.0), by a reader that runs no
pickled code. WAV files are 16-bit mono at 16 or 8 kHz.

This model loses much in int8, and that is the point: mel powers span ten decades, so the 8 bits of
the input scale leave nothing for quiet sounds. Half of the clips give the scales and the mean voice
of each speaker; the other half are named by the nearest mean voice. Measured with 40 clips each of
four people (Debian's asterisk-core-sounds-en-wav, -fr-wav, -it-wav and -ru-wav, `apt-get download`
and `dpkg-deb -x`; the first 40 files of at least 1.7 s of each, in the order of their paths): named
rightly 1.000 in float, 0.787 in int8 under TFLM and 0.775 under LiteRT; the mean cosine between the
int8 and the float embedding is 0.545.
A 16-bit input and a scale for each row of weights would mend it; TFLite's int8 LSTM has neither.
"""

import sys
from pathlib import Path

import numpy as np
from speech import read_wav, spoken

from edge_lstm import float_reference
from edge_lstm.arrays import F32, I64
from edge_lstm.calibrate import calibrate
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.speech import long_enough, mel_powers, named, unit
from edge_lstm_converters import read

CLIPS = 40
LAYERS = Path(__file__).parent / "layers" / "resemblyzer.toml"


def main(folders: list[str]) -> None:
    """Print how near the int8 embeddings are to float, and who is named by each."""
    clips, speakers = read_clips(folders)
    x = np.stack([mel_powers(clip) for clip in clips])
    spec = read(datasets.resemblyzer_checkpoint(), layers=LAYERS, name="resemblyzer")
    assert isinstance(spec, ModelSpec)
    known = np.arange(len(x)) % 2 == 0  # every other clip is for the scales and the mean voices
    in_float = unit(float_reference.run(spec, x))
    print(f"{len(x)} clips of {speakers.max() + 1} speakers, {spec.parameter_count():,} parameters")
    print(f"named rightly in float: {named(in_float, speakers, known):.3f}")
    program = quantize(spec, calibrate(spec, x[known]))
    for profile in ("tflm", "litert"):
        in_int8 = unit(program.with_profile(profile).predict(x))
        cosines = (in_int8 * in_float).sum(axis=1)[~known]
        print(
            f"named rightly in int8, {profile}: {named(in_int8, speakers, known):.3f};"
            f" cosine to the float embedding {cosines.mean():.3f} (least {cosines.min():.3f})"
        )


def read_clips(folders: list[str]) -> tuple[list[F32], I64]:
    """Return clips long enough for 160 steps, and the number of each one's speaker."""
    if not folders:
        # The first half are a man's, the others a woman's.
        sounds = spoken()
        return sounds, np.arange(len(sounds)) * 2 // len(sounds)
    clips: list[F32] = []
    speakers = []
    for number, folder in enumerate(folders):
        found: list[F32] = []
        for path in sorted(Path(folder).rglob("*.wav")):
            sound = read_wav(path)
            if long_enough(sound):
                found.append(sound)
            if len(found) == CLIPS:
                break
        if len(found) < 2:
            sys.exit(f"{folder}: {len(found)} WAV files of 1.7 s or more; want 2 or more")
        clips += found
        speakers += [number] * len(found)
    return clips, np.array(speakers)


if __name__ == "__main__":
    main(sys.argv[1:])
