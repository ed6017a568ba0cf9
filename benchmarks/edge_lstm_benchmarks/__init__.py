"""Compares runtimes on the same model and data: latency, size, accuracy and bytes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edge_lstm.errors import UsageError

if TYPE_CHECKING:
    from edge_lstm.backend import Backend

# A backend's name, and where its class is; imported on use. Names that differ only after the
# colon are one family, which the name before the colon selects where it is no row itself.
BACKENDS: dict[str, str] = {
    "numpy-int8:tflm": "edge_lstm_benchmarks.backends.numpy_int8:NumpyInt8",
    "numpy-int8:tflm-2026-08": "edge_lstm_benchmarks.backends.numpy_int8:NumpyInt8",
    "numpy-int8:cmsis-nn": "edge_lstm_benchmarks.backends.numpy_int8:NumpyInt8",
    "numpy-int8:litert": "edge_lstm_benchmarks.backends.numpy_int8:NumpyInt8",
    "numpy-int8:litert-ref": "edge_lstm_benchmarks.backends.numpy_int8:NumpyInt8",
    "numpy-int8:tflite-runtime": "edge_lstm_benchmarks.backends.numpy_int8:NumpyInt8",
    "numpy-int8:edge": "edge_lstm_benchmarks.backends.numpy_int8:NumpyInt8",
    "c-host:edge": "edge_lstm_benchmarks.backends.c_host:CHost",
    "c-host:tflm": "edge_lstm_benchmarks.backends.c_host:CHost",
    "c-host:litert": "edge_lstm_benchmarks.backends.c_host:CHost",
    "numpy-float": "edge_lstm_benchmarks.backends.numpy_float:NumpyFloat",
    "onnxruntime": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntime",
    "onnxruntime-dynamic-int8": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeDynamic",
    "litert": "edge_lstm_benchmarks.backends.litert:LiteRt",
    "litert-ref": "edge_lstm_benchmarks.backends.litert:LiteRt",
    "litert-float": "edge_lstm_benchmarks.backends.litert:LiteRt",
    "tflm": "edge_lstm_benchmarks.backends.tflm:Tflm",
    "tflite-runtime": "edge_lstm_benchmarks.backends.tflite_runtime:TfliteRuntime",
    "openvino": "edge_lstm_benchmarks.backends.openvino:OpenVino",
    "openvino:bf16": "edge_lstm_benchmarks.backends.openvino:OpenVino",
    "torch": "edge_lstm_benchmarks.backends.torch:Torch",
    "torch-compiled": "edge_lstm_benchmarks.backends.torch:Torch",
    "torch-dynamic-int8": "edge_lstm_benchmarks.backends.torch:Torch",
    "mnn": "edge_lstm_benchmarks.backends.mnn:Mnn",
    "ncnn": "edge_lstm_benchmarks.backends.ncnn:Ncnn",
    "tract": "edge_lstm_benchmarks.backends.tract:Tract",
    "emulated:cortex-m0plus": "edge_lstm_benchmarks.backends.emulated:Emulated",
    "emulated:cortex-m3": "edge_lstm_benchmarks.backends.emulated:Emulated",
    "emulated:cortex-m4": "edge_lstm_benchmarks.backends.emulated:Emulated",
    "emulated:cortex-m7": "edge_lstm_benchmarks.backends.emulated:Emulated",
    "emulated:cortex-m33": "edge_lstm_benchmarks.backends.emulated:Emulated",
    "emulated:cortex-m55": "edge_lstm_benchmarks.backends.emulated:Emulated",
    "emulated:rv32imc": "edge_lstm_benchmarks.backends.emulated:Emulated",
    "ethos-u55-128": "edge_lstm_benchmarks.backends.vela:Vela",
    "ethos-u55-128:unrolled": "edge_lstm_benchmarks.backends.vela:Vela",
    "ethos-u65-256": "edge_lstm_benchmarks.backends.vela:Vela",
    "ethos-u65-256:unrolled": "edge_lstm_benchmarks.backends.vela:Vela",
    "ethos-u85-256": "edge_lstm_benchmarks.backends.vela:Vela",
    "ethos-u85-256:unrolled": "edge_lstm_benchmarks.backends.vela:Vela",
    "onnxruntime:openvino": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeProvider",
    "onnxruntime:cuda": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeProvider",
    "onnxruntime:tensorrt": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeProvider",
    "onnxruntime:coreml": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeProvider",
    "onnxruntime:directml": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeProvider",
    "onnxruntime:qnn": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeProvider",
    "onnxruntime:xnnpack": "edge_lstm_benchmarks.backends.onnxruntime:OnnxRuntimeProvider",
    "torch-cuda": "edge_lstm_benchmarks.backends.torch:Torch",
    "torch-cuda-compiled": "edge_lstm_benchmarks.backends.torch:Torch",
}


def select_backends(names: list[str] | None) -> list[str]:
    """Return rows of BACKENDS for names and families, in the table's order; None: all.

    Raises:
        UsageError: a name is not in the table.
    """
    if names is None or "all" in names:
        return list(BACKENDS)
    for name in names:
        if not any(name in (row, row.split(":")[0]) for row in BACKENDS):
            raise UsageError(f"backend {name!r}: unknown; give some of {', '.join(BACKENDS)}")
    families = [name for name in names if name not in BACKENDS]
    return [row for row in BACKENDS if row in names or row.split(":")[0] in families]


def open_backend(name: str, target: str | None = None) -> Backend:
    """Return the backend called ``name``, from ``target`` or else from the table."""
    module, _, class_name = (target or BACKENDS[name]).partition(":")
    backend: Backend = getattr(importlib.import_module(module), class_name)(name)
    return backend
