"""A part of an ONNX graph, as a file for ``--layers`` names it: from one tensor to others.

A whole detector has more around its LSTM than a spec can hold. The file says where to start::

    start = "/Transpose_output_0"   # the tensor that becomes the input
    end = ["speech_probs"]          # optional; else all outputs that the file has
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm_converters.layer_config import parse_toml

KEYS = {"start": str, "end": list}


@dataclass(frozen=True)
class Part:
    """Where a part starts and ends.

    Args:
        path: the file that says so, for messages.
        start: tensor that becomes the input.
        end: tensors that become the outputs; empty: those that the file has.
    """

    path: Path
    start: str
    end: tuple[str, ...] = ()


def read_part(path: Path) -> Part:
    """Read the file for ``--layers``.

    Raises:
        UsageError: it is no TOML file, or says something else.
    """
    table = parse_toml(path)
    for key, value in table.items():
        if key not in KEYS or not isinstance(value, KEYS[key]):
            raise UsageError(
                f"{path}: {key} = {reprlib.repr(value)}; of an .onnx file, --layers may say"
                ' start = "tensor" and end = ["tensor"], the layers are in the file'
            )
    end = table.get("end", [])
    if "start" not in table or not all(isinstance(name, str) for name in end):
        raise UsageError(f'{path}: want start = "tensor", and names of tensors in end = [...]')
    return Part(path, table["start"], tuple(end))


def cut(model: onnx.ModelProto, part: Part, where: str) -> onnx.ModelProto:
    """Return a model of the nodes between the part's tensors.

    Args:
        model: with its functions inlined.
        part: what is wanted.
        where: the file of the model, for messages.

    Raises:
        UsageError: the graph has no such tensor.
        UnsupportedModel: its sizes are not known.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output if name}
    end = part.end or tuple(port.name for port in graph.output)
    for name in (part.start, *end):
        if name not in made and name not in {port.name for port in graph.input}:
            near = difflib.get_close_matches(name, sorted(made), 3, 0.0)
            raise UsageError(
                f"{part.path}: {name!r} is no tensor of {where}; it has"
                f" {', '.join(map(repr, near))} ..."
            )
    needed, nodes = set(end), []
    for node in reversed(graph.node):
        if needed.intersection(node.output) - {part.start}:
            nodes.append(node)
            needed.update(node.input)
    if part.start not in needed:
        raise UsageError(f"{part.path}: {', '.join(end)} do not depend on {part.start!r}")
    known = _described(model, {part.start, *end})
    inputs = [p for p in graph.input if p.name in needed and p.name != part.start]
    cut_graph = onnx.helper.make_graph(
        nodes[::-1],
        graph.name,
        [_port(known, part.start, where), *inputs],
        [_port(known, name, where) for name in end],
        [t for t in graph.initializer if t.name in needed],
    )
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.CopyFrom(cut_graph)
    return result


def _described(model: onnx.ModelProto, names: set[str]) -> dict[str, onnx.ValueInfoProto]:
    """Return type and sizes of tensors, inferred where the file does not say them."""
    graph = model.graph
    known = {p.name: p for p in (*graph.input, *graph.value_info, *graph.output)}
    if not names <= known.keys():
        inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
        known = {**{p.name: p for p in inferred}, **known}
    return known


def _port(known: Mapping[str, onnx.ValueInfoProto], name: str, where: str) -> onnx.ValueInfoProto:
    if name not in known:
        raise UnsupportedModel(
            f"{where}: the file does not say the sizes of {name!r}; run onnx.shape_inference on it"
        )
    return known[name]


def cut_for(source: Mapping[str, Any], model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the part that ``ModelSpec.source`` says was read; all of it if it says none."""
    if "part_start" not in source:
        return model
    part = Part(Path(), source["part_start"], tuple(source["part_end"].split(", ")))
    return cut(model, part, "the model")
