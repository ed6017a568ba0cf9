"""Computed values of an ONNX graph that come together: two directions, residuals, branches."""

from __future__ import annotations

from dataclasses import replace

from edge_lstm.cells import Backward, Bidirectional, LastStep, Parallel, PickStep, Recurrent
from edge_lstm.cells.recurrent import Merge
from edge_lstm.spec import Layer
from edge_lstm_converters.axes_onnx import Axes, RefusedError, Step, View

ONE_CHAIN = "layers must form one chain, or branches of one input that are joined by features"


def joined(axes: Axes, views: list[View], merge: Merge) -> View:
    """Return values that were computed from the same one, joined again.

    Args:
        axes: what is known of the axes.
        views: laid out alike; for concat, on the axis of the features.
        merge: how.
    """
    if any(v.step.layer is None or v.integers for v in views):
        views = [axes.with_features(v) for v in views]
    layouts = {tuple(axes.real(v, axis) for axis in v.axes) for v in views}
    if len(layouts) > 1 or len({v.step.vector for v in views}) > 1:
        words = " and ".join(axes.describe(v) for v in views)
        raise RefusedError(f"joins {words}", "want the same layout")
    fork, tails = _fork([v.step for v in views])
    sizes = [v.step.size for v in views]
    if merge != "concat" and len(set(sizes)) > 1:
        raise RefusedError(f"joins {' and '.join(map(str, sizes))} features", "want the same size")
    size = sum(sizes) if merge == "concat" else sizes[0]
    vector = views[0].step.vector
    step = _both_directions(fork, tails, merge, size, vector=vector)
    if step is None:
        branches = tuple(
            tuple(replace(layer, name=f"branch_{b}_{k}") for k, layer in enumerate(tail))
            for b, tail in enumerate(tails)
        )
        step = fork.then(Parallel("", branches, merge), size, vector=vector)
    return replace(views[0], step=step, final_state=False)


def _chain(step: Step) -> list[Step]:
    """Return the steps from the input on."""
    found = []
    at: Step | None = step
    while at is not None:
        found.append(at)
        at = at.parent
    return found[::-1]


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
    kinds = [[type(layer) for layer in rest] for rest in (after, behind)]
    if kinds == [[], []] or kinds == [[LastStep], [LastStep]]:
        step = fork.then(Bidirectional("", ahead, back.layer, merge), size)
        return step.then(LastStep(""), size, vector=True) if after else step
    first = behind[0] if behind else None
    if kinds == [[LastStep], [PickStep]] and isinstance(first, PickStep) and first.index == 0:
        return fork.then(Bidirectional("", ahead, back.layer, merge, True), size, vector=vector)
    return None
