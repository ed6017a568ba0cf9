"""The graph and the weights of a .pt2 file of ``torch.export.save``, read without PyTorch.

``torch.export.load`` unpickles parts of the file and evaluates its symbolic sizes, so it can run
code that the file brings. The graph itself is JSON and the weights are raw bytes; these are read
here, and nothing else of the file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edge_lstm.arrays import Array
from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel
from edge_lstm.files import read_bytes
from edge_lstm_converters.torch_checkpoint import (
    byte_order_of,
    from_bytes,
    open_archive,
    strided,
)

SCHEMA_MAJOR = 8  # torch._export.serde.schema.SCHEMA_VERSION

# torch._export.serde.schema.ScalarType
# fmt: off
DTYPES = {
    1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 6: "f2", 7: "f4", 8: "f8", 12: "?", 13: "bf2",
}
# fmt: on
STRIDED_LAYOUT = 7  # torch._export.serde.schema.Layout

SAVE_AGAIN = "save it again: torch.export.save(torch.export.export(model.eval(), (x,)), path)"


@dataclass(frozen=True)
class Ref:
    """A tensor as an argument, by its name in the graph."""

    name: str


class Open(NamedTuple):
    """A size that is not fixed: its expression, and what it was in the example."""

    expression: str
    example: int


Size = int | Open


@dataclass(frozen=True)
class TensorInfo:
    """Type and sizes of a tensor."""

    dtype: int
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Node:
    """One call of an operator.

    Args:
        name: in the graph, for messages.
        target: as ``aten.lstm.input``.
        arguments: by the names of the operator's schema; Ref, lists of Ref, numbers, None, or
            a text for a number that is not fixed.
        outputs: names of the tensors that it gives.
    """

    name: str
    target: str
    arguments: Mapping[str, Any]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ExportedGraph:
    """What a .pt2 computes.

    Args:
        nodes: in order of execution.
        constants: parameters, buffers and constants: graph name to (name in the module, array).
        inputs: names of the tensors that are fed.
        outputs: names of the tensors that come out.
        tensors: type and sizes of every tensor.
        torch_version: that wrote the file.
        hints: what each number that is not fixed was in the example, by its name.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, tuple[str, Array]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]
    torch_version: str
    hints: Mapping[str, int] = field(default_factory=dict)


def read_pt2(path: Path, data: bytes | None = None) -> ExportedGraph:
    """Read a .pt2 file.

    Args:
        path: the file.
        data: its bytes, if they are not to be read from there.

    Raises:
        UnreadableModel: the file is damaged, or no .pt2.
        UnsupportedModel: it is of another version, or changes its buffers.
    """
    data = read_bytes(path) if data is None else data
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise UnreadableModel(f"{path}: not a .pt2 file; {SAVE_AGAIN}")
    try:
        with open_archive(path, data) as archive:
            return _read(path, archive)
    except ModelError:
        raise
    # Whatever is missing or of another type in a damaged file's JSON.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableModel(f"{path}: damaged .pt2 file: {reason[:200]}; {SAVE_AGAIN}") from error


def _read(path: Path, archive: zipfile.ZipFile) -> ExportedGraph:
    names = archive.namelist()
    graphs = [name for name in names if name.endswith("models/model.json")]
    if "serialized_exported_program.json" in names:
        raise UnsupportedModel(
            f"{path}: a .pt2 file of an older PyTorch; with a newer, {SAVE_AGAIN}"
        )
    if len(graphs) != 1:
        raise UnreadableModel(
            f"{path}: a zip file with {len(graphs)} models/model.json; {SAVE_AGAIN}"
        )
    root = graphs[0].removesuffix("models/model.json")
    program = json.loads(archive.read(graphs[0]))
    version = str(program["torch_version"])[:40]
    if program["schema_version"]["major"] != SCHEMA_MAJOR:
        raise UnsupportedModel(
            f"{path}: schema {program['schema_version']['major']} of PyTorch {version}; want schema"
            f" {SCHEMA_MAJOR} (PyTorch 2.13)"
        )
    module = program["graph_module"]
    arrays = _arrays(path, archive, root)
    constants: dict[str, tuple[str, Array]] = {}
    inputs: list[str] = []
    for spec in module["signature"]["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input":
            name = value["arg"].get("as_tensor", {}).get("name")
            inputs += [] if name is None else [name]
        elif kind in ("parameter", "buffer", "tensor_constant"):
            full = value[f"{kind}_name"]
            if full not in arrays:
                raise UnreadableModel(f"{path}: weight {full!r} is not in the file; {SAVE_AGAIN}")
            constants[value["arg"]["name"]] = (full, arrays[full])
        elif kind != "constant_input":
            raise UnsupportedModel(f"{path}: an input of kind {kind}; want tensors only")
    outputs: list[str] = []
    for spec in module["signature"]["output_specs"]:
        ((kind, value),) = spec.items()
        if kind != "user_output":
            raise UnsupportedModel(
                f"{path}: the program has an output of kind {kind}; a model must not change its own"
                " buffers, weights or inputs"
            )
        name = value["arg"].get("as_tensor", {}).get("name")
        outputs += [] if name is None else [name]
    graph = module["graph"]
    tensors = {name: _info(meta) for name, meta in graph["tensor_values"].items()}
    for name in (*inputs, *outputs):
        if name not in tensors:
            raise UnreadableModel(f"{path}: tensor {name!r} has no sizes; {SAVE_AGAIN}")
    return ExportedGraph(
        nodes=tuple(_node(node) for node in graph["nodes"]),
        constants=constants,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        tensors=tensors,
        torch_version=version,
        hints={
            name: size
            for name, number in graph["sym_int_values"].items()
            if (size := _example(number)) is not None
        },
    )


def _arrays(path: Path, archive: zipfile.ZipFile, root: str) -> dict[str, Array]:
    """Return parameters, buffers and constants by their names in the module."""
    arrays: dict[str, Array] = {}
    byte_order = byte_order_of(path, archive, root)
    for folder, file in (
        (f"{root}data/weights/", "model_weights_config.json"),
        (f"{root}data/constants/", "model_constants_config.json"),
    ):
        if folder + file not in archive.namelist():
            raise UnsupportedModel(
                f"{path}: a .pt2 file of an older PyTorch; with a newer, {SAVE_AGAIN}"
            )
        for name, payload in json.loads(archive.read(folder + file))["config"].items():
            meta = payload["tensor_meta"]
            if payload["use_pickle"] or meta is None:
                raise UnsupportedModel(
                    f"{path}: {name!r} is a pickled object, which may hold code; want plain tensors"
                )
            if meta["dtype"] not in DTYPES or meta["layout"] != STRIDED_LAYOUT:
                raise UnsupportedModel(
                    f"{path}: {name!r} has type {meta['dtype']}, layout {meta['layout']}; want a"
                    " dense tensor of a usual type"
                )
            dtype = DTYPES[meta["dtype"]]
            storage = from_bytes(archive.read(folder + payload["path_name"]), dtype, byte_order)
            arrays[name] = strided(
                f"{path}: {name!r}",
                storage,
                meta["storage_offset"]["as_int"],
                [size["as_int"] for size in meta["sizes"]],
                [step["as_int"] for step in meta["strides"]],
            )
    return arrays


def _node(node: Mapping[str, Any]) -> Node:
    outputs = tuple(_output_names(node["outputs"]))
    return Node(
        name=str(node.get("name") or (outputs[0] if outputs else node["target"])),
        target=str(node["target"]).removeprefix("torch.ops."),
        arguments={given["name"]: _argument(given["arg"]) for given in node["inputs"]},
        outputs=outputs,
    )


def _output_names(outputs: list[Any]) -> list[str]:
    names: list[str] = []
    for output in outputs:
        ((kind, value),) = output.items()
        if kind == "as_tensor":
            names.append(str(value["name"]))
        elif kind == "as_tensors":
            names += [str(tensor["name"]) for tensor in value]
    return names


def _argument(argument: Mapping[str, Any]) -> Any:
    """Return one argument as a Python value."""
    ((kind, value),) = argument.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return Ref(str(value["name"]))
    if kind == "as_tensors":
        return [Ref(str(tensor["name"])) for tensor in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return _number(value)
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_number(item) for item in value]
    if kind in ("as_optional_tensor", "as_optional_tensors"):
        items = value if isinstance(value, list) else [value]
        refs = [Ref(str(i["as_tensor"]["name"])) if "as_tensor" in i else None for i in items]
        return refs if isinstance(value, list) else refs[0]
    return value


def _number(value: Mapping[str, Any]) -> Any:
    """Return a number, or the name of one that is not fixed, as text."""
    ((_, number),) = value.items()
    return number


def _info(meta: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(int(meta["dtype"]), tuple(_size(size) for size in meta["sizes"]))


def _size(size: Mapping[str, Any]) -> Size:
    value = _example(size)
    if value is None or value < 0:
        raise ValueError(f"a tensor has size {value!r}")
    return value if "as_int" in size else Open(str(size["as_expr"]["expr_str"]), value)


def _example(number: Mapping[str, Any]) -> int | None:
    """Return a number as it was in the example; None: it had to be computed there."""
    value = number if "as_int" in number else number["as_expr"]["hint"]
    found = None if value is None else value["as_int"]
    return found if isinstance(found, int) and not isinstance(found, bool) else None
