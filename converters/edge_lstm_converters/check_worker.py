"""The far side of ``check``: runs a model in its own framework, in a process of its own."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge_lstm.arrays import Array

AXES = ("batch", "time", "features")
# Where the parts of an output go: [batch, time, features], a bidirectional layer's two directions
# one behind the other.
RANKS = {"batch": 0, "time": 1, "direction": 2, "features": 3, "features of a direction": 3}


class Runner(Protocol):
    """A model in its framework. The module's ``open_model(path, job)`` returns one.

    Args:
        version: of the framework.
        rows: that one call takes; None: any number.
        time_steps: that one call takes; None: any number.
    """

    version: str
    rows: int | None
    time_steps: int | None

    def run(self, x: Array) -> Array:
        """Return what the model gives from its first state on.

        Args:
            x: [rows, time, features], or token ids [rows, time].

        Returns:
            [rows, time, features] or [rows, features].
        """


class NotTheSameShapeError(ValueError):
    """The framework gives values that cannot be those of the float reference."""


def main(folder: str) -> None:
    """Do the job in ``folder``: x.npy, job.json -> x.npy as it was fed, y.npy, answer.json."""
    place = Path(folder)
    job: dict[str, Any] = json.loads((place / "job.json").read_text(encoding="utf-8"))
    try:
        module = importlib.import_module(job["module"])
        runner: Runner = module.open_model(Path(job["model"]), job)
        x = fitted(np.load(place / "x.npy"), runner.rows, runner.time_steps)
        rows = runner.rows or len(x)
        y = [runner.run(x[k : k + rows]) for k in range(0, len(x), rows)]
        np.save(place / "x.npy", x)
        np.save(place / "y.npy", np.concatenate(y))
        answer = {"version": runner.version}
    except NotTheSameShapeError as error:
        answer = {"differs": str(error), "version": runner.version}
    # A framework raises whatever it likes at a model that it does not take.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        answer = {"failed": " ".join(lines[0].split())[:200]}
    (place / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def fitted(x: Array, rows: int | None, time_steps: int | None) -> Array:
    """Return ``x`` with a multiple of ``rows``, and ``time_steps``; what is short is repeated."""
    count = len(x) if rows is None else rows * math.ceil(len(x) / rows)
    steps = x.shape[1] if time_steps is None else time_steps
    return x[np.arange(count) % len(x)][:, np.arange(steps) % x.shape[1]]


def laid_out(x: Array, words: Sequence[str]) -> Array:
    """Return ``x`` with its axes as the file has them; an axis that it has not must be of size 1.

    Args:
        x: [batch, time, features], or [batch, time].
        words: batch, time, features in the file's order; any other: an axis of size 1.
    """
    names = AXES[: x.ndim]
    order = [names.index(word) for word in words if word in names]
    order += [k for k in range(x.ndim) if k not in order]
    sizes = [x.shape[names.index(word)] if word in names else 1 for word in words]
    return np.ascontiguousarray(x.transpose(order).reshape(sizes))


def canonical(values: Array, words: Sequence[str], rows: int, job: Mapping[str, Any]) -> Array:
    """Return an output as [batch, time, features] or [batch, features].

    Args:
        values: as the framework gives them.
        words: what each axis is; one that joins several has them with ``*`` between.
        rows: of the batch.
        job: says what the float reference gives.
    """
    size = int(job["size"])
    known = {"batch": rows, "direction": 2, "features": size, "features of a direction": size // 2}
    parts: list[str] = []
    shape: list[int] = []
    for word, length in zip(words, values.shape, strict=True):
        joined = word.split("*")
        parts += joined
        shape += [known.get(part, -1) for part in joined] if len(joined) > 1 else [length]
    wanted = [rows, -1, size] if job["kind"] == "sequence" else [rows, size]
    try:
        spread = values.reshape(shape)
        order = sorted(range(len(parts)), key=lambda k: RANKS.get(parts[k], 1))
        return spread.transpose(order).reshape(wanted)
    except ValueError:
        raise NotTheSameShapeError(
            f"gives shape {list(values.shape)} for {rows} rows; want {size} features"
        ) from None
