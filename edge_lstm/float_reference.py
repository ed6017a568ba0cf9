"""Runs a ModelSpec in float64: the meaning of the model, which accuracy is measured from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_lstm.arrays import F32, F64, Array
from edge_lstm.errors import UsageError
from edge_lstm.spec import FloatRun, ModelSpec


def check_samples(
    spec: ModelSpec, x: Array, lengths: Array | None = None, where: str = "x"
) -> tuple[Array, Array | None]:
    """Return ``x`` and ``lengths`` as the model takes them, or raise UsageError.

    Args:
        spec: the model.
        x: ``[batch, time, features]``, or token ids ``[batch, time]``.
        lengths: valid steps of each row, or None.
        where: the file or argument, for messages.
    """
    x = np.asarray(x)
    want: list[int | str] = [
        "batch",
        "time" if spec.time_steps is None else spec.time_steps,
    ]
    if spec.input.kind != "tokens":
        want.append(spec.input.size)
    fits = x.ndim == len(want) and all(
        isinstance(w, str) or w == n for w, n in zip(want, x.shape, strict=True)
    )
    if not fits or 0 in x.shape:
        shape = ", ".join(str(w) for w in want)
        raise UsageError(f"{where}: shape {list(x.shape)}; want [{shape}]")
    if spec.input.kind == "tokens":
        if not np.issubdtype(x.dtype, np.integer):
            raise UsageError(f"{where}: {x.dtype}; want token ids as int32")
        if x.min() < 0 or x.max() >= spec.input.size:
            raise UsageError(
                f"{where}: token ids {x.min()} to {x.max()}; want 0 to {spec.input.size - 1}"
            )
    elif not np.issubdtype(x.dtype, np.number) or np.issubdtype(x.dtype, np.complexfloating):
        raise UsageError(f"{where}: {x.dtype}; want float32")
    elif not np.isfinite(x).all():
        count = int(np.size(x) - np.isfinite(x).sum())
        raise UsageError(f"{where}: {count} of {x.size} values are NaN or infinite")
    if lengths is None:
        return x, None
    lengths = np.asarray(lengths)
    if lengths.shape != (len(x),) or not np.issubdtype(lengths.dtype, np.integer):
        raise UsageError(
            f"lengths: {lengths.dtype} {list(lengths.shape)}; want integers [{len(x)}]"
        )
    if lengths.min() < 1 or lengths.max() > x.shape[1]:
        raise UsageError(
            f"lengths: {lengths.min()} to {lengths.max()}; want 1 to {x.shape[1]} time steps"
        )
    return x, lengths.astype(np.int64)


def run(
    spec: ModelSpec,
    x: Array,
    lengths: Array | None = None,
    state: dict[str, F64] | None = None,
    observe: Callable[[str, F64], None] | None = None,
) -> F32:
    """Run the model in float64 and return float32.

    Args:
        spec: the model.
        x: ``[batch, time, features]``, or token ids ``[batch, time]``.
        lengths: valid steps of each row; None: all.
        state: carried between calls by the caller, changed in place; None: from the first state.
        observe: called with each tensor's name and valid values, ``[rows, size]``.

    Returns:
        ``[batch, time, size]`` or ``[batch, size]``; steps past a row's length are 0.
    """
    x, lengths = check_samples(spec, x, lengths)
    context = FloatRun(len(x), lengths, state, observe)
    value = x.astype(np.float64)
    if spec.input.kind != "tokens":
        context.note("input", value)
    for layer in spec.layers:
        value = layer.forward(value, context)
    if value.ndim == 3:
        value = np.where(context.valid(value.shape[1])[:, :, None], value, 0.0)
    return value.astype(np.float32)
