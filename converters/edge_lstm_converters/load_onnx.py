"""An ONNX file as plain nodes and NumPy arrays, checked; nothing in it is trusted before that."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_lstm.arrays import F32, Array
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.files import read_bytes
from edge_lstm_converters.part_onnx import Part, cut
from edge_lstm_converters.rules import check

SIZE_LIMIT = 1 << 28  # elements of one array: 1 GiB of float32
VALUE_LIMIT = 1 << 31  # of what flows; no array of that size is made
OLDEST_OPSET = 7  # before it, LSTM and broadcasting meant other things
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
INTEGER_TYPES = (TensorProto.INT32, TensorProto.INT64)
SHOWN_CHARACTERS = 200  # of another tool's message

QUANTIZED = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


@dataclass(frozen=True)
class Node:
    """One operator of the file.

    Args:
        inputs: names; the empty string is an input that is left out.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def get(self, attribute: str, default: Any = None) -> Any:
        """Return an attribute, text as ``str``."""
        value = self.attributes.get(attribute, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.op})"


@dataclass(frozen=True)
class Port:
    """An input or output of the graph; unknown sizes are None, or the name that the file has."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Graph:
    """What matters of an ONNX file: the nodes that its outputs need, in order.

    ``first_states`` are values of inputs that a runtime feeds back, by name, [hidden] each: the
    metadata ``initial_state``, as ``write_onnx`` writes it.
    """

    path: Path
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    producer: str
    first_states: dict[str, F32] = field(default_factory=dict)


# Rules on a node of any kind.


def float_model(node: Node) -> str | None:
    """The ONNX model must be the float one; quantized operators are not taken."""
    return f"{node.op} is an operator of quantized models" if node.op in QUANTIZED else None


def no_control_flow(node: Node) -> str | None:
    """The ONNX graph must be without If, Loop and Scan; export a plain forward pass."""
    return f"{node.op} is control flow" if node.op in CONTROL_FLOW else None


def standard_domain(node: Node) -> str | None:
    """Operators must be of the standard ONNX domain."""
    return f"domain {node.domain!r}" if node.domain not in ("", "ai.onnx") else None


NODE_RULES: tuple[Callable[[Node], str | None], ...] = (
    float_model,
    no_control_flow,
    standard_domain,
)


def one_line(error: BaseException) -> str:
    """Return another tool's message on one short line."""
    text = " ".join(str(error).split())
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def load_graph(path: Path, part: Part | None = None) -> Graph:
    """Read and check an ``.onnx`` file.

    Args:
        path: the file.
        part: of the graph that is wanted; None: all of it.

    Raises:
        UnreadableModel: it is damaged, or not ONNX.
        UnsupportedModel: it is ONNX of a kind that no rule of ours covers.
    """
    model, data = onnx.ModelProto(), read_bytes(path)
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError; its package is onnx's affair
        raise UnreadableModel(
            f"{path}: is damaged or not ONNX ({one_line(error)}); export the model again"
        ) from error
    if not model.graph.node and not model.graph.input:
        raise UnreadableModel(f"{path}: is damaged or not ONNX (no graph); export the model again")
    _check_opset(path, model)
    if model.functions:
        model = _inlined(path, model)
    if part is not None:
        model = cut(model, part, str(path))
    _refuse_early(path, model)
    constants = _constants(path, model)
    _check(path, model)
    return _graph(path, model, constants)


def _check_opset(path: Path, model: onnx.ModelProto) -> None:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if not versions or not OLDEST_OPSET <= versions[0] <= newest:
        found = f"opset {versions[0]}" if versions else "no opset of ai.onnx"
        raise UnsupportedModel(f"{path}: {found}; want opset {OLDEST_OPSET} to {newest}")


def _inlined(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the C++ inliner raises RuntimeError and more
        raise UnreadableModel(f"{path}: its functions do not inline: {one_line(error)}") from error


def _refuse_early(path: Path, model: onnx.ModelProto) -> None:
    """Ask the rules that need no understanding, before the checker's longer words."""
    for index, proto in enumerate(model.graph.node):
        node = _node(proto, index, {})
        check(NODE_RULES, node, f"{path}: {node}")
        for attribute in proto.attribute:
            if attribute.t.data_location == TensorProto.EXTERNAL:
                raise UnreadableModel(
                    f"{path}: {node}: its constant is in another file; want it in the graph"
                )
    if model.graph.sparse_initializer:
        raise UnsupportedModel(f"{path}: has sparse weights; export them dense")


def _check(path: Path, model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, and what protobuf and C++ raise
        raise UnreadableModel(f"{path}: is not valid ONNX: {one_line(error)}") from error


def _constants(path: Path, model: onnx.ModelProto) -> dict[str, Array]:
    """Return the weights, and empty those parts of ``model`` that hold them outside the file."""
    constants = {}
    for proto in model.graph.initializer:
        constants[proto.name] = _array(path, proto)
        if proto.data_location == TensorProto.EXTERNAL:
            proto.CopyFrom(numpy_helper.from_array(constants[proto.name], proto.name))
    return constants


def _array(path: Path, proto: onnx.TensorProto) -> Array:
    where = f"{path}: constant {proto.name!r}"
    count = math.prod(proto.dims)
    if min(proto.dims, default=0) < 0 or count > SIZE_LIMIT:
        raise UnreadableModel(
            f"{where}: shape {list(proto.dims)}; want at most {SIZE_LIMIT:,} values"
        )
    if proto.data_location == TensorProto.EXTERNAL:
        proto = _with_external_data(path, proto, count)
    try:
        array = numpy_helper.to_array(proto)
    except Exception as error:  # NumPy's and protobuf's, by what the bytes are
        raise UnreadableModel(f"{where}: cannot be read: {one_line(error)}") from error
    if array.shape != tuple(proto.dims):
        raise UnreadableModel(f"{where}: shape {list(array.shape)}; want {list(proto.dims)}")
    return array


def _with_external_data(path: Path, proto: onnx.TensorProto, count: int) -> onnx.TensorProto:
    """Return the tensor with its bytes read from a file beside the model, and from nowhere else."""
    where = f"{path}: constant {proto.name!r}"
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    folder = path.resolve().parent
    target = (folder / location).resolve()
    if not location or folder not in target.parents:
        raise UnreadableModel(
            f"{where}: its data is in {location!r}; want a file in the model's own folder"
        )
    try:
        width = helper.tensor_dtype_to_np_dtype(proto.data_type).itemsize
        offset, length = int(entries.get("offset", 0)), count * width
        with target.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise UnreadableModel(f"{where}: its data in {location!r}: {one_line(error)}") from error
    if len(data) != length or int(entries.get("length", length)) != length:
        raise UnreadableModel(f"{where}: {location!r} holds {len(data)} bytes of it; want {length}")
    whole = onnx.TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims)
    whole.raw_data = data
    return whole


def _graph(path: Path, model: onnx.ModelProto, constants: dict[str, Array]) -> Graph:
    graph = model.graph
    opsets = {o.domain: o.version for o in model.opset_import}
    outputs = tuple(_port(path, value) for value in graph.output)
    needed, nodes = {port.name for port in outputs}, []
    for index in reversed(range(len(graph.node))):
        node = _node(graph.node[index], index, opsets)
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    return Graph(
        path=path,
        nodes=tuple(reversed(nodes)),
        constants={name: array for name, array in constants.items() if name in needed},
        inputs=tuple(
            _port(path, v) for v in graph.input if v.name in needed and v.name not in constants
        ),
        outputs=outputs,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        first_states=_first_states(path, model),
    )


def _first_states(path: Path, model: onnx.ModelProto) -> dict[str, F32]:
    text = {entry.key: entry.value for entry in model.metadata_props}.get("initial_state", "{}")
    where = f"{path}: metadata 'initial_state'"
    try:
        stated = json.loads(text)
        found = {str(name): np.array(values, np.float32) for name, values in stated.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableModel(f"{where}: is not JSON of numbers by input name") from error
    for name, values in found.items():
        if values.ndim != 1 or not np.isfinite(values).all():
            raise UnreadableModel(f"{where}: {name!r} has {values.ndim} axes; want finite numbers")
    return found


def _node(proto: onnx.NodeProto, index: int, opsets: dict[str, int]) -> Node:
    return Node(
        name=proto.name or f"#{index}",
        op=proto.op_type,
        domain=proto.domain,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={a.name: helper.get_attribute_value(a) for a in proto.attribute}
        if opsets
        else {},
        opset=opsets.get("", opsets.get("ai.onnx", 0)),
    )


def _port(path: Path, value: onnx.ValueInfoProto) -> Port:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedModel(f"{path}: {value.name!r} is a {kind}; want tensors")
    tensor = value.type.tensor_type
    shape: list[int | str | None] = []
    for axis in tensor.shape.dim:
        which = axis.WhichOneof("value")
        # Some exporters write an unknown size as -1 or 0.
        size = axis.dim_value if which == "dim_value" and axis.dim_value > 0 else None
        shape.append(axis.dim_param or None if which == "dim_param" else size)
    if math.prod(n for n in shape if isinstance(n, int)) > VALUE_LIMIT:
        raise UnsupportedModel(
            f"{path}: {value.name!r} has the shape {shape}; want at most {VALUE_LIMIT:,} values"
        )
    return Port(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type), tuple(shape))
