"""ModelSpec and ranges become a Program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from edge_lstm.cells import EDGE_RULES, Activation, Dense, Dropout
from edge_lstm.cells.edge_dense import told_by_sigmoid
from edge_lstm.cells.edge_embedding import even_embedding
from edge_lstm.plain_form import plain_form
from edge_lstm.program import EDGE, Program, ProgramBuilder, Range, Tensor, check_profile
from edge_lstm.spec import Layer, ModelSpec


def fuse(
    layers: tuple[Layer, ...], ranges: Mapping[str, Range]
) -> tuple[tuple[Layer, ...], dict[str, Range]]:
    """Return the layers as the kernels run them, ReLU inside its Dense and no dropout.

    A Dense that swallowed its ReLU takes the range seen behind the ReLU.
    """
    result: list[Layer] = []
    known = dict(ranges)
    for layer in layers:
        before = result[-1] if result else None
        if isinstance(layer, Dropout):
            continue
        if (
            isinstance(layer, Activation)
            and (layer.kind == "relu" or layer.kind == "relu6")
            and isinstance(before, Dense)
            and before.activation == "none"
        ):
            result[-1] = replace(before, activation=layer.kind)
            if f"{layer.name}.output" in known:
                known[f"{before.name}.output"] = known[f"{layer.name}.output"]
        else:
            result.append(layer)
    return tuple(result), known


def quantize(
    spec: ModelSpec,
    ranges: Mapping[str, Range],
    profile: str = "tflm",
    activation_dtype: Literal["int8", "int16"] = "int8",
) -> Program:
    """Return the model in integers, by the TFLite scheme that all interpreters share.

    Args:
        spec: the model.
        ranges: from ``calibrate`` of the same spec.
        profile: whose arithmetic the Program has.
        activation_dtype: of the values between ops; of the input alone in profile edge.

    Raises:
        CalibrationError: a tensor has no usable range.
    """
    spec, rewritten = plain_form(spec)
    layers, known = fuse(spec.layers, ranges)
    if profile == EDGE:
        layers, known = even_embedding(layers, told_by_sigmoid(layers, known))
    rules = EDGE_RULES if profile == EDGE else None
    builder = ProgramBuilder(known, activation_dtype, rules)
    if spec.input.kind == "tokens":
        source = builder.add_tensor(Tensor("input", spec.input, "int32"))
    else:
        source = builder.activation("input", spec.input)
    if profile == EDGE:
        # 16 bits are for what comes in; behind the first layer, 8 hold what the weights can use.
        builder.activation_dtype = "int8"
    tensor = source
    for layer in layers:
        tensor = builder.add_layer(layer, tensor)
    return Program(
        name=spec.name,
        profile=check_profile(profile),
        tensors=tuple(builder.tensors),
        ops=tuple(builder.ops),
        input=source,
        output=tensor,
        time_steps=spec.time_steps,
        source=dict(spec.source),
        warnings=(*rewritten, *builder.notes),
    )
