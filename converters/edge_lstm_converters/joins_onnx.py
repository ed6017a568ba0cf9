"""Computed values of an ONNX graph that come together: two directions, residuals, branches."""

from __future__ import annotations

from dataclasses import replace

from edge_lstm.cells.recurrent import Merge
from edge_lstm_converters.axes_onnx import FEATURES, Axes, RefusedError, View
from edge_lstm_converters.chains import joined_steps

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
    if merge == "concat" and len(layouts) > 1:  # one feature beside several has its axis, too
        layouts = {
            tuple(axis if axis == (FEATURES,) else axes.real(v, axis) for axis in v.axes)
            for v in views
        }
    if len(layouts) > 1 or len({v.step.vector for v in views}) > 1:
        words = " and ".join(axes.describe(v) for v in views)
        raise RefusedError(f"joins {words}", "want the same layout")
    sizes = [v.step.size for v in views]
    if merge != "concat" and len(set(sizes)) > 1:
        raise RefusedError(f"joins {' and '.join(map(str, sizes))} features", "want the same size")
    step = joined_steps([v.step for v in views], merge)
    return replace(views[0], step=step, final_state=False)
