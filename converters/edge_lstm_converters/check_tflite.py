"""A float ``.tflite`` file in LiteRT, for ``check``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.check_worker import canonical, laid_out


def open_model(path: Path, job: Mapping[str, Any]) -> TfliteRunner:
    """Return the model, ready to run."""
    return TfliteRunner(path, job)


class TfliteRunner:
    """An interpreter with one thread; each run starts from zero states."""

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        self.version = importlib.metadata.version("ai-edge-litert")
        self.job = job
        self.rows = int(job["source"]["batch_size"])
        self.time_steps = int(job["source"]["time_steps"])

    def run(self, x: Array) -> Array:
        """Return [rows, time, features] or [rows, features]."""
        source = self.job["source"]
        (given,) = self.interpreter.get_input_details()
        (made, *_) = self.interpreter.get_output_details()
        self.interpreter.reset_all_variables()
        values = laid_out(x, source["input_axes"].split(", "))
        self.interpreter.set_tensor(
            given["index"], values.reshape(given["shape"]).astype(given["dtype"])
        )
        self.interpreter.invoke()
        y = np.asarray(self.interpreter.get_tensor(made["index"]))
        words = source["output_axes"].split(", ")
        # The file may have axes of size 1 beside those that mean something, or join some.
        sizes = {"batch": len(x), "features": int(self.job["size"])}
        shape = [sizes.get(word, -1) for word in words]
        return canonical(y.reshape(shape), words, len(x), self.job)
