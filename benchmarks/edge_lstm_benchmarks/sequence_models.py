"""LSTM, GRU, plain RNN and a Transformer of equal size: ``make sequences``.

Nothing is trained here: ``models/sequences`` holds the weights and how the gradient fell off, from
its ``train.py``. Measured are accuracy on the test data, in float and in the integers of profile
edge, and what a step takes of time and memory as the sequence grows to 10**6 steps.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge_lstm import float_reference
from edge_lstm.arrays import F32, Array
from edge_lstm.calibrate import calibrate
from edge_lstm.errors import EdgeLstmError, MissingTool
from edge_lstm.files import write_atomically
from edge_lstm.program import EDGE, Program
from edge_lstm.quantize import quantize
from edge_lstm.runtime import Session
from edge_lstm.spec import ModelSpec
from edge_lstm_benchmarks import one_thread
from edge_lstm_benchmarks.machine import describe_host
from edge_lstm_benchmarks.picture_sequences import sequences_png
from edge_lstm_benchmarks.results_page import ROOT, write_page
from edge_lstm_benchmarks.runtimes import machine_name
from edge_lstm_benchmarks.sequence_cells import (
    CELLS,
    Steps,
    TransformerSteps,
    recurrent_steps,
    shape_for,
)
from edge_lstm_benchmarks.sequence_tasks import (
    DIGITS,
    MODELS,
    OTHERS,
    TASKS,
    Task,
    kept_data,
    score,
)
from edge_lstm_benchmarks.timing import median_interval
from edge_lstm_converters import read
from edge_lstm_converters.read_torch import read_weights

SCHEMA = "edge-lstm.sequences/1"
FOLDER = MODELS / "sequences"
LAYERS = {"lstm": "layers.toml", "gru": "gru.toml", "rnn": "rnn.toml"}
"""Files of the weather's sample models, whose layers have the same names."""
DISTANCES = (0, 1, 3, 7, 15, OTHERS, 52, 104)
"""Digits behind the one that is asked; models were trained on at most ``OTHERS``."""
POSITIONS = (100, 1_000, 10_000, 100_000, 1_000_000)
ROUNDS, SLICE_NS = 9, 3_000_000

Outputs = Callable[[F32], Array]
"""From whole sequences, ``[items, time, features]``, to ``[items, outputs]``."""


def model_spec(task: Task, cell: str) -> ModelSpec:
    """Return a trained recurrent model."""
    name = f"{task.name}_{cell}"
    layers = MODELS / "weather" / LAYERS[cell]
    spec = read(FOLDER / f"{name}.pt", layers=layers, name=name)
    assert isinstance(spec, ModelSpec)
    return spec


def in_integers(task: Task, spec: ModelSpec) -> Program:
    """Return a recurrent model in the integers of profile edge."""
    return quantize(spec, calibrate(spec, kept_data(task, "calibration")[0]), EDGE)


def transformer(task: Task, batch_size: int = 1) -> TransformerSteps:
    """Return the trained Transformer, its cache empty."""
    weights = read_weights(FOLDER / f"{task.name}_transformer.pt")
    return TransformerSteps(weights, batch_size)


def forms(task: Task, cell: str) -> dict[str, Outputs]:
    """Return the ways to run a trained model, by precision."""
    if cell == "transformer":
        return {"float32": lambda x: _last(transformer(task, len(x)), x)}
    spec = model_spec(task, cell)
    program = in_integers(task, spec)
    return {
        "float32": lambda x: float_reference.run(spec, x),
        "int8 edge": lambda x: program.predict(x),
    }


def _last(steps: Steps, x: F32) -> F32:
    """Return the outputs behind the last step."""
    for k in range(x.shape[1]):
        y = steps.step(x[:, k])
    return y


def accuracies(say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return a row for each task and cell: parameters, and a score for each precision."""
    rows = []
    for task in TASKS.values():
        x, y, unit = kept_data(task, "test")
        for cell in CELLS:
            shape = shape_for(cell, task.inputs, task.outputs)
            trained = json.loads((FOLDER / f"{task.name}_{cell}.json").read_text(encoding="utf8"))
            found = {name: score(task, run(x), y, unit) for name, run in forms(task, cell).items()}
            rows.append(
                {
                    "task": task.name,
                    "cell": cell,
                    "size": shape.size,
                    "parameters": shape.parameters(),
                    "items": len(x),
                    "scores": found,
                    "seeds": trained["scores"],
                    "gradients": trained["gradients"],
                }
            )
            say(f"{task.name} {cell}: {found}")
    return rows


def distances(say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the share of first digits that each model still names, by steps since its last row."""
    rows: list[dict[str, Any]] = []
    for cell in CELLS:
        run = forms(DIGITS, cell)["float32"]
        shares = []
        for others in DISTANCES:
            x, y, unit = kept_data(DIGITS, "test", others)
            shares.append(score(DIGITS, run(x), y, unit))
        rows.append({"cell": cell, "steps": [8 * others for others in DISTANCES], "shares": shares})
        say(f"{cell}: {shares}")
    return rows


class Walker:
    """A model that takes one step after the other.

    Args:
        cell: which.
        runtime: what runs it.
        step: takes one step of the input.
        inputs: steps that are fed in turn, over and over.
        bytes_kept: what is carried to the next step.
    """

    def __init__(
        self,
        cell: str,
        runtime: str,
        step: Callable[[Array], Array],
        inputs: Sequence[Array],
        bytes_kept: Callable[[], int],
    ) -> None:
        self.cell, self.runtime, self.step, self.inputs = cell, runtime, step, inputs
        self.bytes_kept = bytes_kept
        self.taken = 0

    def take(self, steps: int) -> None:
        """Take steps."""
        step, inputs, count = self.step, self.inputs, len(self.inputs)
        for k in range(self.taken, self.taken + steps):
            step(inputs[k % count])
        self.taken += steps

    def move_to(self, position: int) -> None:
        """Take the steps that lie before a position."""
        self.take(max(0, position - self.taken))

    def time_slice(self, position: int) -> float:
        """Return the nanoseconds of processor time of a step behind a position."""
        self.move_to(position)
        start = time.process_time_ns()
        self.take(1)
        count = max(1, int(SLICE_NS / max(time.process_time_ns() - start, 1)))
        start = time.process_time_ns()
        self.take(count)
        return (time.process_time_ns() - start) / count


class TransformerWalker(Walker):
    """A Transformer, which does not take all steps: they would be hours at 10**6.

    Its cache is filled with the keys and values of the steps that it took, over and over; a step
    takes the same time whatever they are.
    """

    def __init__(self, steps: TransformerSteps, inputs: Sequence[Array]) -> None:
        super().__init__(
            "transformer", "NumPy float32", steps.step, inputs, lambda: steps.state_bytes
        )
        self.steps = steps
        self.filled = 0

    def move_to(self, position: int) -> None:
        """Be behind ``position`` steps, as if they had been taken."""
        if self.filled != position:
            self.take(max(0, POSITIONS[0] - self.taken))
            self.steps.fill(position)
            self.filled = position
        self.steps.length = self.taken = position


def walkers() -> Iterator[Walker]:
    """Yield every model of the digits' task in every runtime."""
    x = kept_data(DIGITS, "test")[0][0]
    floats = [row[None] for row in x]
    for cell in CELLS:
        if cell == "transformer":
            yield TransformerWalker(transformer(DIGITS), floats)
            continue
        spec = model_spec(DIGITS, cell)
        steps = recurrent_steps(spec)
        yield Walker(cell, "NumPy float32", steps.step, floats, partial(_kept, steps))
        program = in_integers(DIGITS, spec)
        integers = [program.input_tensor.quantize(row) for row in floats]
        for runtime, make in (("NumPy int8", program.session), ("compiled int8", program.compile)):
            try:
                session = make()
            except MissingTool as missing:
                print(f"{cell}, {runtime}: {missing}", file=sys.stderr)
                continue
            yield Walker(cell, runtime, session.step, integers, partial(_state_bytes, session))


def _kept(steps: Steps) -> int:
    return steps.state_bytes


def _state_bytes(session: Session) -> int:
    return sum(value.nbytes for value in session.state.values())


def scaling(
    chosen: Sequence[Walker], positions: Sequence[int], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return a row for each model, with a step's time and the state's bytes at each position.

    Rounds are interleaved: in each, every model gets a slice, in another order.
    """
    rows: list[dict[str, Any]] = [
        {"cell": w.cell, "runtime": w.runtime, "us": [], "interval_us": [], "state_bytes": []}
        for w in chosen
    ]
    order = random.Random(0)
    for position in positions:
        times: list[list[float]] = [[] for _ in chosen]
        for walker, row in zip(chosen, rows, strict=True):
            walker.move_to(position)
            row["state_bytes"].append(walker.bytes_kept())
        for _ in range(ROUNDS):
            for k in order.sample(range(len(chosen)), len(chosen)):
                times[k].append(chosen[k].time_slice(position) / 1000)
        for us, row in zip(times, rows, strict=True):
            row["us"].append(statistics.median(us))
            row["interval_us"].append(median_interval(us))
        say(f"position {position:,}: {[round(row['us'][-1], 1) for row in rows]}")
    return rows


def measured() -> dict[str, Any]:
    """Return the document of both tasks."""

    def say(line: str) -> None:
        print(line, flush=True)

    products = {}
    for cell in CELLS:
        shape = shape_for(cell, DIGITS.inputs, DIGITS.outputs)
        products[cell] = [shape.products(position) for position in POSITIONS]
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        # Without the kernel's build, which says nothing about speed and much about the place.
        "host": {**describe_host(), "system": platform.system()},
        "sequence_models": accuracies(say),
        "distances": distances(say),
        "positions": list(POSITIONS),
        "products": products,
        "scaling": scaling(list(walkers()), POSITIONS, say),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and render."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m edge_lstm_benchmarks.sequence_models")
    parser.add_argument("--folder", type=Path, default=ROOT, help="of results/ and RESULTS.md")
    options = parser.parse_args(given)
    status = one_thread.rerun("edge_lstm_benchmarks.sequence_models", given)
    if status is not None:
        return status
    try:
        keep(measured(), options.folder)
    except EdgeLstmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def keep(document: dict[str, Any], folder: Path) -> None:
    """Write the results, their picture and the page."""
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    name = f"sequences-{machine_name()}"
    document = {**document, "picture": f"{name}.png"}
    write_atomically(results / document["picture"], sequences_png(document))
    text = json.dumps(document, indent=1)
    write_atomically(results / f"{name}.json", f"{text}\n".encode())
    write_page(folder)


if __name__ == "__main__":
    sys.exit(main())
