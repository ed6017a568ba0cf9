"""Program -> a folder ``NAME_tflm`` for firmware that has TensorFlow Lite Micro.

The ``.tflite`` as an aligned array, the operators that it needs and no other, and the arena as
tflite-micro itself measures it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import edge_lstm
from edge_lstm.errors import EdgeLstmError
from edge_lstm.files import make_folder, write_atomically
from edge_lstm.program import Program
from edge_lstm_converters.arena_tflm import measure
from edge_lstm_converters.c_package import filled
from edge_lstm_converters.tflite_schema import TfliteModel, parse
from edge_lstm_converters.write_tflite import tflite_bytes

ADDERS = {
    "ADD": "AddAdd",
    "CONCATENATION": "AddConcatenation",
    "DEQUANTIZE": "AddDequantize",
    "FULLY_CONNECTED": "AddFullyConnected",
    "GATHER": "AddGather",
    "LOGISTIC": "AddLogistic",
    "MUL": "AddMul",
    "QUANTIZE": "AddQuantize",
    "RELU": "AddRelu",
    "RELU6": "AddRelu6",
    "RESHAPE": "AddReshape",
    "REVERSE_V2": "AddReverseV2",
    "SOFTMAX": "AddSoftmax",
    "STRIDED_SLICE": "AddStridedSlice",
    "SUB": "AddSub",
    "TANH": "AddTanh",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
"""Methods of MicroMutableOpResolver, for every operator that ``write_tflite`` writes."""
BYTES_A_LINE = 16
TEMPLATES = ("model.h", "model.cc", "README.md")


def write_tflm(program: Program, folder: Path, time_steps: int | None = None) -> Path:
    """Write the model for TensorFlow Lite Micro: ``folder/NAME_tflm``, which is returned.

    Args:
        program: of an interchange profile.
        folder: where to put it.
        time_steps: of one call; None: the program's own.

    Raises:
        UnsupportedModel: the program has no form in ``.tflite``.
        OutputError: the folder cannot be written.
    """
    package = make_folder(folder / f"{program.name}_tflm")
    for path, data in tflm_files(program, time_steps).items():
        write_atomically(package / path, data)
    return package


def tflm_files(program: Program, time_steps: int | None = None) -> dict[str, bytes]:
    """Return the files of the folder, by name."""
    name = program.name
    data = tflite_bytes(program, time_steps or program.time_steps or 1)
    words = {
        "name": name,
        "version": edge_lstm.__version__,
        "bytes": str(len(data)),
        "array": _array(data),
        **_operators(parse(data, f"{name}.tflite")),
        **_arena(name, data),
    }
    templates = files("edge_lstm_converters") / "package_tflm"
    found = {
        path if path == "README.md" else f"{name}_{path}": filled(
            (templates / path).read_text(encoding="utf8"), words
        ).encode()
        for path in TEMPLATES
    }
    return {f"{name}.tflite": data, **found}


def _array(data: bytes) -> str:
    lines = (data[k : k + BYTES_A_LINE] for k in range(0, len(data), BYTES_A_LINE))
    return "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in line) for line in lines)


def _operators(model: TfliteModel) -> dict[str, str]:
    codes = sorted({operator.code for operator in model.operators})
    lines = " \\\n".join(f"  (resolver).{ADDERS[code]}();" for code in codes)
    return {"operator_count": str(len(codes)), "operators": lines}


def _arena(name: str, data: bytes) -> dict[str, str]:
    """Return the arena's macro, or why it has not been measured."""
    try:
        arena = measure(data)
    except EdgeLstmError as reason:
        return {
            "arena": f"// The arena has not been measured: {reason}.",
            "arena_text": f"The arena has not been measured: {reason}.",
            "arena_bytes": "16 * 1024",
        }
    return {
        "arena": f"#define {name}_ARENA_BYTES {arena.bytes}",
        "arena_text": f"The arena takes {arena.bytes:,} bytes, measured in {arena.measured_on}.",
        "arena_bytes": f"{name}_ARENA_BYTES",
    }
