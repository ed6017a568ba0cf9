"""An ``.onnx`` file in onnxruntime, for ``check``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.check_worker import canonical, laid_out

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def open_model(path: Path, job: Mapping[str, Any]) -> OnnxRunner:
    """Return the model, ready to run."""
    return OnnxRunner(path, job)


def _model(path: Path, source: Mapping[str, Any]) -> str | bytes:
    """Return the file's name; of a part, its bytes."""
    if "part_start" not in source:
        return str(path)
    import onnx

    from edge_lstm_converters.part_onnx import cut_for

    return bytes(cut_for(source, onnx.load(path)).SerializeToString())


def _in_16_bits(graph: Any) -> bool:
    """Return whether values, not weights alone, are of 16 bits: far from what was read."""
    halves = (10, 16)  # TensorProto.FLOAT16, BFLOAT16
    fed = any(port.type.tensor_type.elem_type in halves for port in graph.input)
    casts = (a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute)
    return fed or any(to in halves for to in casts)


class OnnxRunner:
    """A session; states that the file wants are fed, zeros or what its metadata say."""

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        import onnx
        import onnxruntime

        if _in_16_bits(onnx.load(path, load_external_data=False).graph):
            raise ValueError("computes in 16 bits")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            _model(path, job["source"]), options, providers=["CPUExecutionProvider"]
        )
        self.version = str(onnxruntime.__version__)
        self.job = job
        source = job["source"]
        self.words: list[str] = []
        sizes: dict[str, int] = {}
        for axis in source["input_layout"].split(", "):
            word, _, size = axis.partition(" ")
            if word == "input":  # "input axis 0 1": of one element, and nothing tells what it is
                word, size = axis, ""
            self.words.append(word)
            if size:
                sizes[word] = int(size)
        # An axis that the file does not have has size 1.
        gone = {word: 1 for word in ("batch", "time") if word not in self.words}
        self.rows = {**sizes, **gone}.get("batch")
        self.time_steps = {**sizes, **gone}.get("time")
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.first: dict[str, list[float]] = json.loads(metadata.get("initial_state", "{}"))

    def run(self, x: Array) -> Array:
        """Return [rows, time, features] or [rows, features]."""
        source = self.job["source"]
        feeds = {}
        for port in self.session.get_inputs():
            dtype = TYPES[port.type]
            if port.name == source["input"]:
                feeds[port.name] = laid_out(x, self.words).astype(dtype)
            elif np.issubdtype(dtype, np.integer):
                feeds[port.name] = np.full(len(x), x.shape[1], dtype)  # lengths
            else:
                shape = [n if isinstance(n, int) else len(x) for n in port.shape]
                first = np.array(self.first.get(port.name, 0), dtype)
                feeds[port.name] = np.broadcast_to(first, shape).copy()
        (y,) = self.session.run([source["output"]], feeds)
        words = source["output_layout"].split(", ")
        return canonical(np.asarray(y), words, len(x), self.job)
