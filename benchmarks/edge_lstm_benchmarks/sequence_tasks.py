"""The two tasks that sequence models are compared on, from the data of the sample models.

==========  ==========  =====  =============================================================
task        features    steps  asked
==========  ==========  =====  =============================================================
weather     7           24     the temperature in New York six hours after the last step
digits      8 pixels,   216    which digit the first image was: 27 handwritten digits follow
            a mark             each other row by row, and the first alone bears a mark
==========  ==========  =====  =============================================================

Behind the first digit's last row come 26 others, so what is asked lies 208 steps back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_lstm.arrays import F32, F64, I64, Array

MODELS = Path(__file__).parent / "models"
ROWS = 8
"""Steps of an image."""
OTHERS = 26
"""Digits behind the one that is asked."""


@dataclass(frozen=True)
class Task:
    """What is fed and asked.

    Args:
        name: of the task, and of the folder with its data.
        inputs: features of a step.
        outputs: of the last step.
        steps: that models are trained on.
    """

    name: str
    inputs: int
    outputs: int
    steps: int


WEATHER = Task("weather", 7, 1, 24)
DIGITS = Task("digits", ROWS + 1, 10, ROWS * (1 + OTHERS))
TASKS = {task.name: task for task in (WEATHER, DIGITS)}


def marked_digits(images: F32, first: I64, others: int, rng: np.random.Generator) -> F32:
    """Return sequences of digits, the first of each marked, [items, 8 * (1 + others), 9].

    Args:
        images: [images, 8, 8].
        first: which image each sequence begins with, [items].
        others: images behind the first, drawn from all.
        rng: draws them.
    """
    drawn = rng.integers(0, len(images), (len(first), others))
    shown = np.concatenate([first[:, None], drawn], axis=1)
    x = np.zeros((*shown.shape, ROWS, ROWS + 1), np.float32)
    x[..., :ROWS] = images[shown]
    x[:, 0, :, ROWS] = 1.0
    return x.reshape(len(first), -1, ROWS + 1)


def kept_data(task: Task, name: str, others: int = OTHERS) -> tuple[F32, Array, float]:
    """Return inputs, what is asked, and what 1 of a target is worth, from a file in ``models``.

    Args:
        task: which.
        name: ``test`` or ``calibration``.
        others: digits behind the first one.
    """
    with np.load(MODELS / task.name / f"{name}.npz") as kept:
        x, y = kept["x"].astype(np.float32), kept["y"]
        unit = float(kept["y_std"]) if "y_std" in kept else 1.0
    if task is DIGITS:
        x = marked_digits(x, np.arange(len(x)), others, np.random.default_rng(0))
    return x, y, unit


def score(task: Task, outputs: Array, wanted: Array, unit: float) -> float:
    """Return the share of labels found, or the mean absolute error in °C."""
    if task is DIGITS:
        return float((outputs.argmax(axis=1) == wanted).mean())
    errors: F64 = np.abs(outputs.astype(np.float64) - wanted)
    return float(errors.mean()) * unit
