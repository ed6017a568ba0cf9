"""Keras layers as our layers, one after the other; one function a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from edge_lstm.arrays import F32, F64
from edge_lstm.cells import (
    Activation,
    Backward,
    Bidirectional,
    Conv1d,
    Dense,
    Dropout,
    Elementwise,
    Embedding,
    Flatten,
    GlobalPool,
    LastStep,
    LayerNorm,
    Parallel,
    PickStep,
    Pool1d,
    Reverse,
    Scale,
    Steps,
)
from edge_lstm.cells.activation import KINDS, Kind
from edge_lstm.cells.functions import Function
from edge_lstm.cells.recurrent import Merge
from edge_lstm.errors import UnsupportedModel
from edge_lstm.spec import Layer, Signal
from edge_lstm_converters.float_weights import layer_name
from edge_lstm_converters.keras_archive import IN_A_CELL, KerasFile, KerasLayer
from edge_lstm_converters.keras_graph import LAST_STEP, Join, Step
from edge_lstm_converters.keras_recurrent import function, function_name, recurrent_cell
from edge_lstm_converters.rules import check
from edge_lstm_converters.rules_keras import COMMON, RULES, Fed


class Chain:
    """Collects layers, and follows what flows between them.

    Args:
        file: where the weights are.
        signal: what the chain is fed.
        time_steps: of the sequence; None: any.
        taken: names that layers of the model have already.
    """

    def __init__(
        self, file: KerasFile, signal: Signal, time_steps: int | None, taken: list[str]
    ) -> None:
        self.file, self.signal, self.time_steps, self.taken = file, signal, time_steps, taken
        self.layers: list[Layer] = []
        self.notes: dict[str, str] = {}
        self.mask: str | None = None
        self.repeats = False

    def name(self, layer: KerasLayer, suffix: str = "") -> str:
        """Return a name for one of our layers that no other has."""
        wanted = layer_name(layer.name + (f"_{suffix}" if suffix else ""), "layer", self.taken)
        self.taken.append(wanted)
        return wanted

    def add(self, layer: Layer) -> None:
        """Append a layer; what it gives must fit what it is fed."""
        self.signal = layer.output_signal(self.signal)
        if self.signal.kind != "sequence":
            self.time_steps, self.mask = None, None
        self.layers.append(layer)

    def fed(self, layer: KerasLayer, signal: Signal | None = None) -> Fed:
        """Return what the rules of a layer judge."""
        return Fed(
            layer,
            signal or self.signal,
            self.time_steps,
            self.mask,
            self.repeats,
            self.file.version,
        )

    def step(self, step: Step) -> None:
        """Append one Keras layer, or branches that are joined."""
        if isinstance(step, Join):
            _add_join(self, step)
            return
        if step.class_name == LAST_STEP:
            self.add(LastStep(self.name(step)))
            return
        if step.class_name not in RULES:
            raise _unknown(step)
        check((*COMMON, *RULES[step.class_name]), self.fed(step), step.where)
        _BUILDERS[step.class_name](self, step)

    def branch(self) -> Chain:
        """Return an empty chain that starts where this one ends."""
        other = Chain(self.file, self.signal, self.time_steps, self.taken)
        other.mask, other.repeats, other.notes = self.mask, self.repeats, self.notes
        return other


def _unknown(layer: KerasLayer) -> UnsupportedModel:
    if layer.class_name == "Lambda":
        return layer.refuse(
            "holds Python code, which is never run", "want a layer of Keras that does the same"
        )
    return layer.refuse(
        f"{layer.class_name} has no counterpart here",
        f"want {', '.join(RULES)}, Add,"
        " Concatenate, Multiply or Average; cut the model in front of it, or train without it",
    )


def _add_join(chain: Chain, join: Join) -> None:
    name = layer_name(join.layer.name, "join", chain.taken)
    chain.taken.append(name)
    merge: Merge = join.merge  # type: ignore[assignment]
    pair = _pair(join)
    if pair is not None:
        forward, backward = pair
        for layer in pair:
            check((*COMMON, *RULES[layer.class_name]), chain.fed(layer), layer.where)
        chain.add(
            Bidirectional(
                name,
                recurrent_cell(chain.file, forward, name),
                recurrent_cell(chain.file, backward, name),
                merge,
                final=True,
            )
        )
        return
    branches = []
    for steps in join.branches:
        branch = chain.branch()
        for step in steps:
            branch.step(step)
        branches.append(branch)
    ends = {(b.time_steps, b.mask) for b in branches}
    if len(ends) > 1:
        steps_found = ", ".join(
            str(b.time_steps or "any number") + (" masked" if b.mask else "") for b in branches
        )
        raise join.layer.refuse(
            f"joins sequences of {steps_found} steps", "want the same steps in each branch"
        )
    try:
        chain.add(Parallel(name, tuple(tuple(b.layers) for b in branches), merge))
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{join.layer.where}: {error}") from error
    chain.time_steps, chain.mask = branches[0].time_steps, branches[0].mask
    chain.repeats = all(b.repeats for b in branches)


def _pair(join: Join) -> tuple[KerasLayer, KerasLayer] | None:
    """Return two layers that together are one Bidirectional, or None."""
    if len(join.branches) != 2 or any(len(branch) != 1 for branch in join.branches):
        return None
    (first,), (second,) = join.branches
    if isinstance(first, Join) or isinstance(second, Join) or first.class_name not in IN_A_CELL:
        return None
    turned = [layer.get("go_backwards", False) for layer in (first, second)]
    every = [layer.get("return_sequences", False) for layer in (first, second)]
    alike = first.class_name == second.class_name
    return (first, second) if alike and turned == [False, True] and not any(every) else None


def _add_recurrent(chain: Chain, layer: KerasLayer) -> None:
    name = chain.name(layer)
    cell = recurrent_cell(chain.file, layer, name)
    _note_state(chain, layer)
    every = layer.get("return_sequences", False)
    if layer.get("go_backwards", False):
        chain.add(Backward(name, cell))
        chain.repeats = False
        # Keras leaves the steps in the order in which it computed them.
        if every:
            chain.add(Reverse(chain.name(layer, "reverse")))
        else:
            chain.add(PickStep(chain.name(layer, "last"), 0))
        return
    chain.add(cell)
    chain.repeats = chain.mask is not None and not layer.get("zero_output_for_mask", False)
    if not every:
        chain.add(LastStep(chain.name(layer, "last")))


def _add_bidirectional(chain: Chain, layer: KerasLayer) -> None:
    forward, backward = layer.branches
    name = chain.name(layer)
    _note_state(chain, forward)
    chain.add(
        Bidirectional(
            name,
            recurrent_cell(chain.file, forward, name),
            recurrent_cell(chain.file, backward, name),
            layer.config.get("merge_mode", "concat"),
            final=not forward.get("return_sequences", False),
        )
    )
    chain.repeats = False


def _note_state(chain: Chain, layer: KerasLayer) -> None:
    if layer.get("stateful", False):
        chain.notes["stateful"] = (
            f"{layer.name} carries its state from call to call in Keras; do the same here by"
            " not calling reset()"
        )


def _add_time_distributed(chain: Chain, layer: KerasLayer) -> None:
    (inner,) = layer.branches
    one_step = Signal("vector", chain.signal.size)
    check((*COMMON, *RULES[inner.class_name]), chain.fed(inner, one_step), inner.where)
    if inner.class_name != "Flatten":  # one step is flat
        _BUILDERS[inner.class_name](chain, inner)


def _add_embedding(chain: Chain, layer: KerasLayer) -> None:
    table = chain.file.variables(layer)["embeddings"]
    if table.ndim != 2 or len(table) != chain.signal.size:
        raise layer.refuse(
            f"embeddings have shape {list(table.shape)}", f"want [{chain.signal.size}, features]"
        )
    name = chain.name(layer)
    steps = chain.time_steps
    chain.add(Embedding(name, table))
    chain.time_steps = steps
    if layer.get("mask_zero", False):
        chain.mask, chain.repeats = layer.name, False
        chain.notes["mask"] = (
            f"{layer.name} has mask_zero=True: give lengths, and put the zeros after each"
            " sequence's end; Keras also skips zeros that stand inside or in front"
        )


def _add_masking(chain: Chain, layer: KerasLayer) -> None:
    chain.add(Dropout(chain.name(layer)))
    chain.mask, chain.repeats = layer.name, False
    chain.notes["mask"] = (
        f"{layer.name} masks steps of {layer.get('mask_value', 0.0)}: give lengths, and put those"
        " steps after each sequence's end; Keras also skips them inside or in front"
    )


def _add_dense(chain: Chain, layer: KerasLayer) -> None:
    weights = chain.file.variables(layer)
    kernel = weights["kernel"]
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise layer.refuse(f"kernel has shape {list(kernel.shape)}", "want [inputs, outputs]")
    bias = weights.get("bias", np.zeros(kernel.shape[1], np.float32))
    dense = Dense(chain.name(layer), np.ascontiguousarray(kernel.T), bias)
    kind = function_name(layer, "activation", "linear")
    if kind in ("relu", "relu6"):
        _fits(chain, layer, replace(dense, activation=kind))  # type: ignore[arg-type]
        return
    _fits(chain, layer, dense)
    _add_function(chain, layer, "activation")


def _add_function(chain: Chain, layer: KerasLayer, key: str) -> None:
    """Append the activation that stands at a key of a layer; linear: nothing."""
    kind = function_name(layer, key, "linear")
    if kind == "linear":
        return
    name = chain.name(layer, "" if layer.class_name == "Activation" else kind)
    if kind in KINDS:
        if kind == "softmax" and chain.mask is not None and layer.class_name == "Softmax":
            raise layer.refuse(f"has the mask of {chain.mask!r}", "want it without a mask")
        chain.add(Activation(name, _kind(kind)))
        return
    chain.add(Elementwise(name, function(layer, key, "linear", chain.file.version)))


def _kind(text: str) -> Kind:
    assert text in get_args(Kind)
    return text  # type: ignore[return-value]


def _fits(chain: Chain, layer: KerasLayer, ours: Layer) -> None:
    """Append a layer; a misfit is a damaged file's, and told with its name."""
    try:
        chain.add(ours)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{layer.where}: {error}") from error


def _add_activation(chain: Chain, layer: KerasLayer) -> None:
    _add_function(chain, layer, "activation")


def _add_relu(chain: Chain, layer: KerasLayer) -> None:
    top = layer.config.get("max_value")
    slope, threshold = layer.get("negative_slope", 0.0), layer.get("threshold", 0.0)
    if threshold == 0 and slope == 0 and top in (None, 6):
        chain.add(Activation(chain.name(layer), "relu" if top is None else "relu6"))
    elif threshold == 0 and top is None:
        chain.add(Elementwise(chain.name(layer), Function("leaky_relu", _number(layer, slope))))
    else:
        raise layer.refuse(
            f"max_value {top}, negative_slope {slope}, threshold {threshold}",
            "want max_value None or 6, a negative_slope only without it, and threshold 0",
        )


def _add_leaky_relu(chain: Chain, layer: KerasLayer) -> None:
    # Keras 2 calls it alpha; both default to 0.3.
    slope = layer.get("negative_slope", layer.get("alpha", 0.3))
    chain.add(Elementwise(chain.name(layer), Function("leaky_relu", _number(layer, slope))))


def _add_elu(chain: Chain, layer: KerasLayer) -> None:
    alpha = _number(layer, layer.get("alpha", 1.0))
    chain.add(Elementwise(chain.name(layer), Function("elu", alpha)))


def _add_softmax(chain: Chain, layer: KerasLayer) -> None:
    chain.add(Activation(chain.name(layer), "softmax"))


def _add_batch_norm(chain: Chain, layer: KerasLayer) -> None:
    weights = chain.file.variables(layer)
    mean, variance = (weights[k].astype(np.float64) for k in ("moving_mean", "moving_variance"))
    _check_vectors(chain, layer, weights)
    epsilon = _number(layer, layer.get("epsilon", 1e-3))
    if variance.min(initial=0.0) + epsilon <= 0:
        raise layer.refuse(f"moving_variance is {variance.min()}", "want variances of at least 0")
    factor: F64 = weights.get("gamma", np.ones_like(mean)).astype(np.float64)
    factor = factor / np.sqrt(variance + epsilon)
    offset = weights.get("beta", np.zeros_like(mean)).astype(np.float64) - mean * factor
    chain.add(Scale(chain.name(layer), factor.astype(np.float32), offset.astype(np.float32)))


def _add_normalization(chain: Chain, layer: KerasLayer) -> None:
    """Add ``(x - mean) / sqrt(variance)``, of values that adapt() found or that were given."""
    given = [layer.get(word) for word in ("mean", "variance")]
    if given == [None, None]:
        weights = chain.file.variables(layer)
        _check_vectors(chain, layer, weights)
        mean, variance = weights["mean"], weights["variance"]
    else:
        mean, variance = (_row(chain, layer, value) for value in given)
    # Keras holds the deviation to at least its epsilon().
    deviation = np.maximum(np.sqrt(np.maximum(variance.astype(np.float64), 0.0)), 1e-7)
    factor, offset = 1 / deviation, -mean / deviation
    if layer.get("invert", False):
        factor, offset = deviation, mean.astype(np.float64)
    chain.add(Scale(chain.name(layer), factor.astype(np.float32), offset.astype(np.float32)))


def _add_rescaling(chain: Chain, layer: KerasLayer) -> None:
    factor, offset = (_row(chain, layer, layer.get(word, 0.0)) for word in ("scale", "offset"))
    chain.add(Scale(chain.name(layer), factor, offset))


def _row(chain: Chain, layer: KerasLayer, value: object) -> F32:
    """Return a number, or one a feature, as one a feature."""
    try:
        row = np.array(value, np.float32)
        return np.array(np.broadcast_to(row.reshape(row.size), chain.signal.size))
    except (ValueError, TypeError) as error:
        raise layer.refuse(
            f"holds {value!r} for {chain.signal.size} features", "want a number, or one a feature"
        ) from error


def _add_layer_norm(chain: Chain, layer: KerasLayer) -> None:
    weights = chain.file.variables(layer)
    _check_vectors(chain, layer, weights)
    size = chain.signal.size
    chain.add(
        LayerNorm(
            chain.name(layer),
            weights.get("gamma", np.ones(size, np.float32)),
            weights.get("beta", np.zeros(size, np.float32)),
            _number(layer, layer.get("epsilon", 1e-3)),
        )
    )


def _check_vectors(chain: Chain, layer: KerasLayer, weights: dict[str, F32]) -> None:
    for name, values in weights.items():
        if values.shape != (chain.signal.size,):
            raise layer.refuse(
                f"{name} has shape {list(values.shape)}", f"want [{chain.signal.size}]"
            )


def _add_conv(chain: Chain, layer: KerasLayer) -> None:
    weights = chain.file.variables(layer)
    kernel, groups = weights["kernel"], _whole(layer, "groups", 1)
    if kernel.ndim != 3 or 0 in kernel.shape or kernel.shape[2] % groups:
        raise layer.refuse(
            f"kernel has shape {list(kernel.shape)} with {groups} groups",
            "want [steps, inputs / groups, outputs]",
        )
    stride, dilation = _whole(layer, "strides", 1), _whole(layer, "dilation_rate", 1)
    padding = layer.get("padding", "valid")
    if padding not in ("valid", "same", "causal"):
        raise layer.refuse(f"padding is {padding!r}", "want valid, same or causal")
    reach = dilation * (len(kernel) - 1) + 1
    spread = _ungrouped(kernel.transpose(2, 1, 0), groups)
    kind = "same" if padding == "same" else (reach - 1 if padding == "causal" else 0, 0)
    conv = Conv1d(
        chain.name(layer),
        spread,
        weights.get("bias", np.zeros(len(spread), np.float32)),
        stride,
        dilation,
        kind,  # type: ignore[arg-type]
    )
    _windowed(chain, layer, conv, reach, stride, padding)
    _add_function(chain, layer, "activation")


def _ungrouped(weights: F32, groups: int) -> F32:
    """Return weights [output, input, steps] for all inputs: zeros outside each group."""
    outputs, inputs, steps = weights.shape
    if groups == 1:
        return np.ascontiguousarray(weights)
    spread = np.zeros((outputs, inputs * groups, steps), np.float32)
    size = outputs // groups
    for g in range(groups):
        spread[g * size : (g + 1) * size, g * inputs : (g + 1) * inputs] = weights[
            g * size : (g + 1) * size
        ]
    return spread


def _add_pool(chain: Chain, layer: KerasLayer) -> None:
    size = _whole(layer, "pool_size", 2)
    stride = _whole(layer, "strides", size)
    padding = layer.get("padding", "valid")
    if padding not in ("valid", "same"):
        raise layer.refuse(f"padding is {padding!r}", "want valid or same")
    pool = Pool1d(
        chain.name(layer),
        "max" if layer.class_name.startswith("Max") else "average",
        size,
        stride,
        "same" if padding == "same" else (0, 0),
    )
    _windowed(chain, layer, pool, size, stride, padding)


def _windowed(
    chain: Chain, layer: KerasLayer, ours: Layer, reach: int, stride: int, padding: str
) -> None:
    """Append a window over time, and count the steps that it leaves."""
    steps = chain.time_steps
    _fits(chain, layer, ours)
    if steps is None:
        return
    valid = steps + (reach - 1 if padding == "causal" else 0) - reach
    chain.time_steps = -(-steps // stride) if padding == "same" else valid // stride + 1
    if chain.time_steps < 1:
        raise layer.refuse(f"is fed {steps} steps", f"want at least {reach}, its window")


def _add_global_pool(chain: Chain, layer: KerasLayer) -> None:
    kind = "max" if layer.class_name == "GlobalMaxPooling1D" else "average"
    chain.add(GlobalPool(chain.name(layer), kind))  # type: ignore[arg-type]


def _add_cropping(chain: Chain, layer: KerasLayer) -> None:
    start, end = _both_ends(layer, "cropping")
    steps = chain.time_steps
    chain.add(Steps(chain.name(layer), start, -end if end else None))
    chain.time_steps = None if steps is None else steps - start - end
    if chain.time_steps is not None and chain.time_steps < 1:
        raise layer.refuse(f"is fed {steps} steps", f"want more than {start + end}")


def _add_padding(chain: Chain, layer: KerasLayer) -> None:
    start, end = _both_ends(layer, "padding")
    size, steps = chain.signal.size, chain.time_steps
    # A convolution of one step that changes nothing, for what it puts at the ends.
    same, zeros = np.eye(size, dtype=np.float32)[:, :, None], np.zeros(size, np.float32)
    chain.add(Conv1d(chain.name(layer), same, zeros, padding=(start, end)))
    chain.time_steps = None if steps is None else start + steps + end


def _both_ends(layer: KerasLayer, key: str) -> tuple[int, int]:
    """Return how many steps a layer cuts or adds in front and behind."""
    value = layer.get(key, 1)
    both = [value, value] if isinstance(value, int) else value
    if not isinstance(both, list) or [type(n) for n in both] != [int, int]:
        raise layer.refuse(f"{key} is {value}", "want two whole numbers")
    if not 0 <= min(both) <= max(both) < 2**20:
        raise layer.refuse(f"{key} is {value}", "want two whole numbers")
    return both[0], both[1]


def _add_item(chain: Chain, layer: KerasLayer) -> None:
    steps, before = layer.config["index"][1], chain.time_steps
    name = chain.name(layer)
    if isinstance(steps, int):
        if before is not None and not -before <= steps < before:
            raise layer.refuse(f"takes step {steps} of {before}", "want one that there is")
        chain.add(LastStep(name) if steps == -1 else PickStep(name, steps))
        return
    start, end, stride = steps
    if stride == -1:
        chain.add(Reverse(name))
        return
    chain.add(Steps(name, start or 0, end))
    if before is not None:
        chain.time_steps = len(range(before)[start:end])
        if chain.time_steps < 1:
            raise layer.refuse(f"takes steps {start} to {end} of {before}", "want at least one")


def _add_flatten(chain: Chain, layer: KerasLayer) -> None:
    if chain.signal.kind == "sequence":
        assert chain.time_steps is not None
        chain.add(Flatten(chain.name(layer), chain.time_steps))


def _add_reshape(chain: Chain, layer: KerasLayer) -> None:
    size, steps = chain.signal.size, chain.time_steps
    target = layer.get("target_shape", [])
    now = [size] if steps is None else [steps, size]
    flat = size * (steps or 1)
    known = [n for n in target if n != -1]
    rest = flat // max(int(np.prod(known)), 1)
    wanted = [rest if n == -1 else n for n in target]
    if wanted == now:
        return
    if wanted == [flat]:
        _add_flatten(chain, layer)
        return
    raise layer.refuse(
        f"turns {now} into {wanted}",
        "want the same shape, or all steps joined; feed the model the shape behind it",
    )


def _add_dropout(chain: Chain, layer: KerasLayer) -> None:
    chain.add(Dropout(chain.name(layer)))


def _whole(layer: KerasLayer, key: str, default: int) -> int:
    """Return a size that Keras writes as a number or a list of one."""
    value: Any = layer.get(key, default)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if type(value) is not int or not 0 < value < 2**20:
        raise layer.refuse(f"{key} is {value}", "want one whole number of at least 1")
    return value


def _number(layer: KerasLayer, value: Any) -> float:
    """Return a number; Keras 2 writes some as arrays."""
    if isinstance(value, dict):
        value = value.get("config", value).get("value") if "config" in value else value.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise layer.refuse(f"{value!r} stands for a number", "want a finite number")
    return float(value)


_BUILDERS: dict[str, Callable[[Chain, KerasLayer], None]] = {
    "LSTM": _add_recurrent,
    "GRU": _add_recurrent,
    "SimpleRNN": _add_recurrent,
    "CuDNNLSTM": _add_recurrent,
    "CuDNNGRU": _add_recurrent,
    "Bidirectional": _add_bidirectional,
    "TimeDistributed": _add_time_distributed,
    "Embedding": _add_embedding,
    "Masking": _add_masking,
    "Dense": _add_dense,
    "Conv1D": _add_conv,
    "MaxPooling1D": _add_pool,
    "AveragePooling1D": _add_pool,
    "GlobalMaxPooling1D": _add_global_pool,
    "GlobalAveragePooling1D": _add_global_pool,
    "Cropping1D": _add_cropping,
    "ZeroPadding1D": _add_padding,
    "GetItem": _add_item,
    "Flatten": _add_flatten,
    "Reshape": _add_reshape,
    "BatchNormalization": _add_batch_norm,
    "Normalization": _add_normalization,
    "Rescaling": _add_rescaling,
    "LayerNormalization": _add_layer_norm,
    "Activation": _add_activation,
    "ReLU": _add_relu,
    "LeakyReLU": _add_leaky_relu,
    "ELU": _add_elu,
    "Softmax": _add_softmax,
    "Identity": _add_dropout,
    "Dropout": _add_dropout,
    "SpatialDropout1D": _add_dropout,
    "GaussianDropout": _add_dropout,
    "GaussianNoise": _add_dropout,
    "AlphaDropout": _add_dropout,
    "ActivityRegularization": _add_dropout,
}
