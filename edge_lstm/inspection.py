"""What is in a model, as a JSON-able document and as text: enough to port it elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import Op, Program
from edge_lstm.spec import ModelSpec

Document = dict[str, Any]

FACTOR_FORMAT = "multiplier * 2**(shift - 31)"


def describe_spec(spec: ModelSpec) -> Document:
    """Return a float model as a document."""
    signals = spec.signals()
    return {
        "stage": "spec",
        "name": spec.name,
        "input": str(signals[0]),
        "output": str(signals[-1]),
        "time_steps": spec.time_steps,
        "parameters": spec.parameter_count(),
        "source": spec.source,
        "layers": [
            {
                "name": layer.name,
                "type": layer.type_name,
                "input": str(before),
                "output": str(after),
                "parameters": layer.parameter_count(),
            }
            for layer, before, after in zip(spec.layers, signals, signals[1:], strict=False)
        ],
    }


def describe_program(program: Program) -> Document:
    """Return a quantized model as a document: every scale, factor and effective bias."""
    return {
        "stage": "program",
        "name": program.name,
        "profile": program.profile,
        "input": program.input_tensor.name,
        "output": program.output_tensor.name,
        "time_steps": program.time_steps,
        "streams": program.streams,
        "weight_bytes": program.weight_bytes(),
        "fingerprint": program.fingerprint(),
        "factor_format": FACTOR_FORMAT,
        "source": program.source,
        "warnings": list(program.warnings),
        "tensors": [
            {
                "name": tensor.name,
                "signal": str(tensor.signal),
                "dtype": tensor.dtype,
                "scale": tensor.scale,
                "zero_point": tensor.zero_point,
            }
            for tensor in program.tensors
        ],
        "ops": [
            {
                "name": op.name,
                "type": op.type_name,
                "inputs": [program.tensors[i].name for i in op.inputs],
                "output": program.tensors[op.output].name,
                "weight_bytes": op.weight_bytes(),
                "constants": op.constants(),
                "derived": _derived(op, program),
            }
            for op in program.ops
        ],
    }


def _derived(op: Op, program: Program) -> Document:
    """Return what the profile's runtime computes, or why it has no such kernel."""
    try:
        return op.derived(program)
    except UnsupportedModel as error:
        return {"unsupported": str(error)}


def as_json(value: object) -> object:
    """Return ``value`` with arrays and NumPy numbers as plain lists and numbers."""
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def spec_text(spec: ModelSpec) -> str:
    """Return a float model as readable text."""
    document = describe_spec(spec)
    rows = [("layer", "type", "input", "output", "parameters")]
    rows += [
        (e["name"], e["type"], e["input"], e["output"], f"{e['parameters']:,}")
        for e in document["layers"]
    ]
    steps = "any" if spec.time_steps is None else spec.time_steps
    lines = [
        f"{spec.name}: float model, {document['parameters']:,} parameters, time steps: {steps}",
        *(f"{key}: {value}" for key, value in spec.source.items()),
        "",
        *columns(rows),
    ]
    return "\n".join(lines)


def program_text(program: Program) -> str:
    """Return a quantized model as readable text; long arrays are shortened."""
    document = describe_program(program)
    rows = [("tensor", "signal", "dtype", "scale", "zero point")]
    rows += [
        (t["name"], t["signal"], t["dtype"], f"{t['scale']:.9g}", str(t["zero_point"]))
        for t in document["tensors"]
    ]
    lines = [
        f"{program.name}: profile {program.profile}, {program.weight_bytes():,} bytes of constants",
        *(f"{key}: {value}" for key, value in program.source.items()),
        *(f"warning: {text}" for text in program.warnings),
        "",
        *columns(rows),
        "",
        f"multiplier and shift, or [multiplier, shift], stand for {FACTOR_FORMAT};"
        " every value of long arrays: --json",
    ]
    for op in document["ops"]:
        lines += ["", f"{op['name']} ({op['type']}): {', '.join(op['inputs'])} -> {op['output']}"]
        entries = [*op["constants"].items(), *op["derived"].items()]
        lines += [f"  {name:<28} {_short(value)}" for name, value in entries]
    return "\n".join(lines)


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows as aligned text, the first one underlined."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for number, row in enumerate(rows):
        yield "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * w for w in widths)


def _short(value: object) -> str:
    if isinstance(value, np.ndarray):
        text = np.array2string(
            value, threshold=8, edgeitems=3, max_line_width=10_000, floatmode="unique"
        )
        text = " ".join(text.split())
        if len(text) > 72:
            text = f"{value.min()} .. {value.max()}"
        return f"{value.dtype} {list(value.shape)}: {text}"
    if isinstance(value, float):
        return f"{value:.9g}"
    return str(value)
