"""A PyTorch model in PyTorch, for ``check``.

A ``.pt2`` is not loaded by ``torch.export.load``, which can run code that the file brings: the
graph that ``pt2_file`` reads goes through PyTorch's operators one by one. A state dict goes into
the modules that its layer configuration names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils import _pytree

from edge_lstm.arrays import Array
from edge_lstm.spec import ModelSpec
from edge_lstm_converters.check import check_inputs, compare
from edge_lstm_converters.check_worker import canonical, fitted, laid_out
from edge_lstm_converters.layer_config import read_config
from edge_lstm_converters.pt2_file import DTYPES, Node, Open, Ref, read_pt2
from edge_lstm_converters.read_torch import read_weights
from edge_lstm_converters.torch_graph import OPERATORS
from edge_lstm_converters.torch_lstm import WEIGHT_NAME, TorchRecurrent
from edge_lstm_converters.torch_moves import MOVE_OPERATORS

TORCH_DTYPES = {
    code: getattr(torch, np.dtype(name).name) for code, name in DTYPES.items() if name != "bf2"
}
HALF = ("f2", "bf2")
# Of operators that make tensors: where and how they lie in memory, which no value depends on.
PLACES = ("device", "layout", "pin_memory", "memory_format")


def open_model(path: Path, job: Mapping[str, Any]) -> ExportedRunner | StateDictRunner:
    """Return the model, ready to run."""
    torch.set_num_threads(1)
    exported = job["source"]["format"] == "torch.export"
    return ExportedRunner(path, job) if exported else StateDictRunner(path, job)


class ExportedRunner:
    """A program of torch.export, at the sizes of the example that it was exported with."""

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.graph, self.job = read_pt2(path), job
        if any(DTYPES.get(info.dtype) in HALF for info in self.graph.tensors.values()):
            raise ValueError("computes in 16 bits")
        self.version = str(torch.__version__)
        source = job["source"]
        states = source.get("state_inputs", "").split(", ")
        fed = [name for name in self.graph.inputs if name not in states]
        if len(fed) != 1:
            raise ValueError(f"has {len(fed)} inputs beside its states")
        self.fed, self.made = fed[0], source["output"]
        self.words = source["input_axes"].split(", ")
        sizes = dict(zip(self.words, self.sizes(self.fed), strict=True))
        self.rows, self.time_steps = sizes.get("batch", 1), sizes.get("time", 1)

    def sizes(self, name: str) -> list[int]:
        """Return the sizes of a tensor in the example."""
        found = self.graph.tensors[name].sizes
        return [size.example if isinstance(size, Open) else size for size in found]

    def run(self, x: Array) -> Array:
        """Return [rows, time, features] or [rows, features]."""
        values: dict[str, Any] = {
            name: torch.from_numpy(array.copy())
            for name, (_, array) in self.graph.constants.items()
        }
        for name in self.graph.inputs:
            dtype = TORCH_DTYPES[self.graph.tensors[name].dtype]
            values[name] = torch.zeros(self.sizes(name), dtype=dtype)
            if name == self.fed:
                values[name] = torch.from_numpy(laid_out(x, self.words)).to(dtype)
        with torch.no_grad():
            for node in self.graph.nodes:
                if node.target.rsplit(".", 1)[0] in {**OPERATORS, **MOVE_OPERATORS}:
                    results = self.call(node, values)
                    values.update(zip(node.outputs, results, strict=False))
        y = values[self.made].numpy()
        return canonical(y, self.job["source"]["output_axes"].split(", "), len(x), self.job)

    def call(self, node: Node, values: Mapping[str, Any]) -> Sequence[Any]:
        """Return the results of one operator."""
        _, name, overload = node.target.split(".")
        operator = getattr(getattr(torch.ops.aten, name), overload)
        given = []
        for argument in operator._schema.arguments:
            found = node.arguments.get(argument.name, argument.default_value)
            if argument.name in PLACES:
                found = argument.default_value
            elif argument.name == "dtype" and isinstance(found, int):
                found = TORCH_DTYPES[found]
            given.append(self.argument(found, values))
        # Arguments behind the star of a schema are given by name.
        named = {
            argument.name: value
            for argument, value in zip(operator._schema.arguments, given, strict=True)
            if argument.kwarg_only
        }
        result = operator(*given[: len(given) - len(named)], **named)
        return result if isinstance(result, tuple | list) else [result]

    def argument(self, found: Any, values: Mapping[str, Any]) -> Any:
        """Return an argument with tensors and open sizes in the place of their names."""
        if isinstance(found, list):
            return [self.argument(item, values) for item in found]
        if isinstance(found, Ref):
            return values[found.name]
        return self.graph.hints.get(found, found) if isinstance(found, str) else found


def check_module(module: Any, arguments: tuple[Any, ...], program: Any, spec: ModelSpec) -> None:
    """Hold a module in memory, in eval mode, against what was read of it.

    Args:
        module: the model.
        arguments: of the example.
        program: what torch.export made of both.
        spec: what was read.

    Raises:
        MismatchError: they differ by more than float32 explains.
    """
    given, layout = _pytree.tree_flatten(arguments)
    names = list(program.graph_signature.user_inputs)
    states = spec.source.get("state_inputs", "").split(", ")
    fed = [k for k, name in enumerate(names) if name not in states]
    halves = (torch.float16, torch.bfloat16)
    if len(fed) != 1 or any(v.dtype in halves for v in (*given, *module.state_dict().values())):
        return
    words = spec.source["input_axes"].split(", ")
    sizes = dict(zip(words, given[fed[0]].shape, strict=True))
    x = check_inputs(spec)
    x = fitted(x[: sizes.get("batch", 1)], sizes.get("batch", 1), sizes.get("time", 1))
    values = [torch.zeros_like(value) for value in given]
    values[fed[0]] = torch.from_numpy(laid_out(x, words)).to(given[fed[0]])
    with torch.no_grad():
        results = _pytree.tree_leaves(module(*_pytree.tree_unflatten(values, layout)))
    y = results[list(program.graph_signature.user_outputs).index(spec.source["output"])]
    job = {"kind": spec.output.kind, "size": spec.output.size}
    found = canonical(y.cpu().numpy(), spec.source["output_axes"].split(", "), len(x), job)
    compare(type(module).__name__, f"torch {torch.__version__}", spec, x, found)


class StateDictRunner:
    """The modules that a layer configuration makes of a state dict."""

    rows = None

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        config = read_config(Path(job["layers"]))
        weights = read_weights(path, config.state_dict)
        self.version, self.job = str(torch.__version__), job
        self.time_steps = config.time_steps
        self.layers = [
            (layer, _under(str(layer.get("weights", "")), weights)) for layer in config.layers
        ]

    def run(self, x: Array) -> Array:
        """Return [rows, time, features] or [rows, features]."""
        value = torch.from_numpy(x if np.issubdtype(x.dtype, np.integer) else x.astype(np.float32))
        with torch.no_grad():
            for layer, weights in self.layers:
                value = LAYERS[layer["type"]](value, layer, weights)
        y = value.numpy()
        words = ["batch", *["time"] * (y.ndim - 2), "features"]
        return canonical(y, words, len(x), self.job)


def _under(prefix: str, weights: Mapping[str, Array]) -> dict[str, Any]:
    start = f"{prefix}." if prefix else ""
    return {
        name.removeprefix(start): torch.from_numpy(values.copy()).float()
        for name, values in weights.items()
        if name.startswith(start)
    }


Layer = Mapping[str, Any]
Weights = Mapping[str, Any]
MODULES = {"lstm": (torch.nn.LSTM, 4), "gru": (torch.nn.GRU, 3), "rnn": (torch.nn.RNN, 1)}


def _recurrent(x: Any, layer: Layer, weights: Weights) -> Any:
    own = {name: values for name, values in weights.items() if WEIGHT_NAME.fullmatch(name)}
    seen = TorchRecurrent(own)
    module_class, gates = MODULES[layer["type"]]
    options: dict[str, Any] = {}
    if layer["type"] == "rnn":
        options["nonlinearity"] = layer["nonlinearity"]
    if "weight_hr_l0" in own:
        options["proj_size"] = len(own["weight_hr_l0"])
    module = module_class(
        own["weight_ih_l0"].shape[1],
        len(own["weight_ih_l0"]) // gates,
        seen.depth,
        bias="bias_ih_l0" in own,
        batch_first=True,
        bidirectional=seen.bidirectional,
        **options,
    )
    module.load_state_dict(own)
    y, state = module(x)
    if layer["return_sequences"]:
        return y
    if not layer.get("final_states"):
        return y[:, -1]
    hidden = state[0] if isinstance(state, tuple) else state
    return torch.cat([hidden[-2], hidden[-1]], dim=-1)


def _activated(x: Any, kind: str) -> Any:
    return x if kind == "linear" else FUNCTIONS[kind](x)


def _conv1d(x: Any, layer: Layer, weights: Weights) -> Any:
    options = {
        key: layer[key] for key in ("stride", "padding", "dilation", "groups") if key in layer
    }
    y = functional.conv1d(x.transpose(1, 2), weights["weight"], weights.get("bias"), **options)
    return _activated(y.transpose(1, 2), layer.get("activation", "linear"))


def _pool(x: Any, layer: Layer, weights: Weights) -> Any:
    del weights
    pool = functional.max_pool1d if layer["type"] == "max_pool" else functional.avg_pool1d
    options = {"stride": layer.get("stride", layer["size"]), "padding": layer.get("padding", 0)}
    return pool(x.transpose(1, 2), layer["size"], **options).transpose(1, 2)


def _dense(x: Any, layer: Layer, weights: Weights) -> Any:
    y = functional.linear(x, weights["weight"], weights.get("bias"))
    return _activated(y, layer.get("activation", "linear"))


def _layer_norm(x: Any, layer: Layer, weights: Weights) -> Any:
    options = {"eps": layer.get("epsilon", 1e-5)}
    weight = weights["weight"]
    return functional.layer_norm(x, weight.shape, weight, weights.get("bias"), **options)


def _batch_norm(x: Any, layer: Layer, weights: Weights) -> Any:
    turned = x.transpose(1, 2) if x.ndim == 3 else x
    y = functional.batch_norm(
        turned,
        weights["running_mean"],
        weights["running_var"],
        weights.get("weight"),
        weights.get("bias"),
        eps=layer.get("epsilon", 1e-5),
    )
    return y.transpose(1, 2) if x.ndim == 3 else y


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, dim=-1),
    "relu": functional.relu,
    "relu6": functional.relu6,
}
LAYERS: dict[str, Callable[[Any, Layer, Weights], Any]] = {
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn": _recurrent,
    "dense": _dense,
    "embedding": lambda x, layer, weights: functional.embedding(x, weights["weight"]),
    "activation": lambda x, layer, weights: FUNCTIONS[layer["kind"]](x),
    "flatten": lambda x, layer, weights: x.flatten(1),
    "dropout": lambda x, layer, weights: x,
    "last_step": lambda x, layer, weights: x[:, -1],
    "first_step": lambda x, layer, weights: x[:, 0],
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "conv1d": _conv1d,
    "max_pool": _pool,
    "average_pool": _pool,
    "global_max_pool": lambda x, layer, weights: x.amax(1),
    "global_average_pool": lambda x, layer, weights: x.mean(1),
}
