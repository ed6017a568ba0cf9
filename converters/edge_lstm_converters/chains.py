"""Layers behind one another as a chain that can fork, and forks joined to branches again.

Readers of graphs share this: a value is the end of a chain, and two values that were computed from
the same one have a common beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.cells import (
    Activation,
    Backward,
    Bidirectional,
    Dropout,
    Elementwise,
    GlobalPool,
    LastStep,
    Parallel,
    PickStep,
    Pool1d,
    Recurrent,
    Reverse,
    Steps,
)
from edge_lstm.cells.recurrent import Merge
from edge_lstm.errors import UnsupportedModel
from edge_lstm.spec import Layer
from edge_lstm_converters.float_weights import layer_name

MOST_LAYERS = 4096  # branches of branches double at each join


@dataclass(frozen=True, eq=False)
class Step:
    """One layer in the chain, and the one in front of it.

    Args:
        layer: None at the input.
        size: features that come out.
        vector: whether time is gone.
    """

    layer: Layer | None
    parent: Step | None
    size: int
    vector: bool = False

    def then(self, layer: Layer, size: int, *, vector: bool | None = None) -> Step:
        """Return the next step of the chain."""
        return Step(layer, self, size, self.vector if vector is None else vector)

    def layers(self) -> list[Layer]:
        """Return the chain's layers from the input on."""
        found: list[Layer] = []
        step: Step | None = self
        while step is not None:
            found += [] if step.layer is None else [step.layer]
            step = step.parent
        return found[::-1]


def joined_steps(steps: list[Step], merge: Merge) -> Step:
    """Return values that were computed from the same one, joined again.

    Args:
        steps: all of them sequences, or all vectors; to add or multiply, of the same size.
        merge: how.

    Raises:
        UnsupportedModel: the branches hold too many layers.
    """
    fork, tails = _fork(steps)
    sizes = [step.size for step in steps]
    size = sum(sizes) if merge == "concat" else sizes[0]
    vector = steps[0].vector
    both = _both_directions(fork, tails, merge, size, vector=vector)
    if both is not None:
        return both
    count = sum(_count(layer) for tail in tails for layer in tail)
    if count > MOST_LAYERS:
        raise UnsupportedModel(f"joins branches of {count} layers; want at most {MOST_LAYERS}")
    branches = tuple(
        tuple(
            # A Parallel that holds others has another count than they, and so another name.
            replace(layer, name=f"{layer.name.partition(':')[0]}:{b}:{k}:{_count(layer)}")
            for k, layer in enumerate(tail)
        )
        for b, tail in enumerate(tails)
    )
    return fork.then(Parallel("", branches, merge), size, vector=vector)


def _chain(step: Step) -> list[Step]:
    """Return the steps from the input on."""
    found = []
    at: Step | None = step
    while at is not None:
        found.append(at)
        at = at.parent
    return found[::-1]


def _count(layer: Layer) -> int:
    """Return how many layers a layer holds, itself among them."""
    if not isinstance(layer, Parallel):
        return 1
    return 1 + sum(_count(inner) for branch in layer.branches for inner in branch)


def _fork(steps: list[Step]) -> tuple[Step, list[list[Layer]]]:
    """Return the last step that all chains share, and the layers of each behind it."""
    chains = [_chain(step) for step in steps]
    shared = 1  # the input
    while all(len(c) > shared and c[shared] is chains[0][shared] for c in chains):
        shared += 1
    # The input learns its features from the first layer, so chains may hold it twice.
    fork = max((c[shared - 1] for c in chains), key=lambda s: s.size)
    tails = [[s.layer for s in c[shared:] if s.layer is not None] for c in chains]
    return fork, tails


def _both_directions(
    fork: Step, tails: list[list[Layer]], merge: Merge, size: int, *, vector: bool
) -> Step | None:
    """Return a Bidirectional layer if that is what the branches are."""
    if len(tails) != 2 or not all(tails):
        return None
    if merge != "concat" and isinstance(tails[0][0], Backward):
        tails = tails[::-1]
    (ahead, *after), (back, *behind) = tails
    if not isinstance(ahead, Recurrent) or not isinstance(back, Backward):
        return None
    name = ahead.name.removesuffix("_forward")
    kinds = [[type(layer) for layer in rest] for rest in (after, behind)]
    if kinds == [[], []] or kinds == [[LastStep], [LastStep]]:
        step = fork.then(Bidirectional(name, ahead, back.layer, merge), size)
        return step.then(LastStep(""), size, vector=True) if after else step
    first = behind[0] if behind else None
    if kinds == [[LastStep], [PickStep]] and isinstance(first, PickStep) and first.index == 0:
        return fork.then(Bidirectional(name, ahead, back.layer, merge, True), size, vector=vector)
    return None


KEEP_DIRECTIONS = (
    Activation,
    Dropout,
    Elementwise,
    GlobalPool,
    LastStep,
    PickStep,
    Pool1d,
    Reverse,
    Steps,
)
"""Layers that treat every feature alike, so that they may come before a direction is picked."""


def one_direction(step: Step, index: int) -> Step | None:
    """Return the chain that gives one direction of a bidirectional layer; None: there is none.

    Args:
        step: a bidirectional layer, or one that treats its features alike behind it.
        index: 0 forward, 1 backward.
    """
    layer, parent = step.layer, step.parent
    if layer is None or parent is None:
        return None
    if isinstance(layer, Bidirectional) and layer.merge == "concat":
        inner = layer.backward_layer if index else layer.forward_layer
        chain = parent.then(Backward(inner.name, inner) if index else inner, inner.output_size)
        if layer.final:
            last = PickStep("", 0) if index else LastStep("")
            chain = chain.then(last, inner.output_size, vector=True)
        return chain
    softmax = isinstance(layer, Activation) and layer.kind == "softmax"
    if not isinstance(layer, KEEP_DIRECTIONS) or softmax:
        return None
    chain_before = one_direction(parent, index)
    if chain_before is None:
        return None
    return chain_before.then(layer, chain_before.size, vector=step.vector)


def named_layers(layers: Sequence[Layer], taken: list[str]) -> list[Layer]:
    """Return layers with names of their own; in branches, some may be there twice.

    A state is kept under its layer's name, so those inside a Bidirectional count, too.
    """
    named: list[Layer] = []
    for layer in layers:
        endings = ("", "_forward", "_backward") if isinstance(layer, Bidirectional) else ("",)
        # A join adds where a layer of a branch stands, "fc:0:1:1".
        base = layer.name.partition(":")[0]
        refused: list[str] = []
        while True:
            name = layer_name(base, layer.type_name, [*taken, *refused])
            if not any(name + ending in taken for ending in endings):
                break
            refused.append(name)
        taken += [name + ending for ending in endings]
        if isinstance(layer, Parallel):
            branches = tuple(tuple(named_layers(branch, taken)) for branch in layer.branches)
            layer = replace(layer, branches=branches)
        named.append(replace(layer, name=name))
    return named


def same_layer(first: Layer, second: Layer) -> bool:
    """Whether two layers compute the same, bit for bit, whatever their names."""
    return same_values({**vars(first), "name": ""}, {**vars(second), "name": ""}) and type(
        first
    ) is type(second)


def same_values(first: Any, second: Any) -> bool:
    """Whether two values, or all that they hold, are the same; arrays bit for bit."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(same_values, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            same_values(value, second[key]) for key, value in first.items()
        )
    if isinstance(first, Layer) and isinstance(second, Layer):
        return same_layer(first, second)
    if type(first) is type(second) and hasattr(first, "__dataclass_fields__"):
        return same_values(vars(first), vars(second))
    return bool(first == second)
