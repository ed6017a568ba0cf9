"""PyTorch, on the CPU or an NVIDIA GPU: as it is, compiled, or with int8 weights."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import EdgeLstmError
from edge_lstm_benchmarks.backends.numpy_float import NumpyFloat, spec_from_bytes

CUDA_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")


class Torch:
    """``torch``, ``torch-compiled``, ``torch-dynamic-int8``; ``torch-cuda``, ``-cuda-compiled``.

    One thread. ``torch-dynamic-int8`` is ``quantize_dynamic``: int8 weights, inputs quantized by a
    scale that each call finds, floats in and out.
    """

    profile: str | None = None
    fixed_shape = False

    def __init__(self, name: str) -> None:
        self.name = name
        _, *words = name.split("-")
        self._device = "cuda" if "cuda" in words else "cpu"
        self._how = "compiled" if "compiled" in words else "int8" if "int8" in words else "eager"
        self.precision: Precision = "dynamic-int8" if self._how == "int8" else "float32"
        self.rows_at_once = 1 if self._how == "int8" else 256  # rows in a call share a scale
        self.waits = self._device == "cuda"

    def available(self) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed; pip install torch"
        if self._device == "cuda" and not _has_gpu():
            return f"{self.name}: no NVIDIA GPU found; with one, pip install torch built for CUDA"
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return importlib.metadata.version("torch")

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        return NumpyFloat(self.name).build(model, shape)

    def load(self, data: bytes, shape: CallShape) -> Session:
        # Else the compiler starts processes, which outlive what they were started for.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        import torch

        from edge_lstm_benchmarks.backends.torch_net import TorchSession

        torch.set_num_threads(1)
        if self._device == "cuda" and not torch.cuda.is_available():
            raise EdgeLstmError(
                f"{self.name}: torch {torch.__version__} finds no GPU; pip install torch built for"
                " CUDA"
            )
        return TorchSession(spec_from_bytes(data), shape.batch_size, self._device, self._how)


def _has_gpu() -> bool:
    """Return whether NVIDIA's driver is there and has a GPU."""
    for name in CUDA_LIBRARIES:
        try:
            return int(ctypes.CDLL(name).cuInit(0)) == 0
        except OSError:
            continue
    return False
