"""Each framework's gate order, transposes and biases; the only code that reorders gates.

An order is written as letters: i input, f forget, g cell, o output. Ours is ``ifgo``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells.lstm import Gate
from edge_lstm.errors import UnsupportedModel

Gates = tuple[Gate, Gate, Gate, Gate]

OUR_ORDER = "ifgo"
TORCH_ORDER = "ifgo"


def split_gates(stacked: Array, order: str) -> tuple[Array, ...]:
    """Return the blocks of ``stacked``, cut along its first axis, in our order.

    Args:
        stacked: [4 * hidden, ...].
        order: how the blocks lie in it, as ``ifgo``.
    """
    blocks = np.split(stacked, len(order))
    return tuple(blocks[order.index(letter)] for letter in OUR_ORDER)


def join_gates(blocks: Sequence[Array], order: str) -> Array:
    """Return blocks that are in our order as one array in ``order``, joined on the first axis."""
    return np.concatenate([blocks[OUR_ORDER.index(letter)] for letter in order])


def torch_lstm_gates(
    where: str,
    weight_ih: F32,
    weight_hh: F32,
    bias_ih: F32 | None = None,
    bias_hh: F32 | None = None,
) -> Gates:
    """Return the gates of one layer of ``torch.nn.LSTM``.

    Args:
        where: file and layer, for messages.
        weight_ih: [4 * hidden, input].
        weight_hh: [4 * hidden, hidden].
        bias_ih: [4 * hidden]; None, as with ``bias=False``: zeros.
        bias_hh: the same; the two are summed.

    Raises:
        UnsupportedModel: a shape is not one of a plain LSTM.
    """
    hidden = weight_hh.shape[-1] if weight_hh.ndim == 2 else 0
    if weight_hh.ndim != 2 or hidden == 0 or len(weight_hh) != 4 * hidden:
        raise UnsupportedModel(
            f"{where}, weight_hh: shape {list(weight_hh.shape)}; want [4*hidden, hidden]"
        )
    if weight_ih.ndim != 2 or weight_ih.shape[1] == 0 or len(weight_ih) != 4 * hidden:
        raise UnsupportedModel(
            f"{where}, weight_ih: shape {list(weight_ih.shape)};"
            f" want [4*hidden, input] with hidden = {hidden}"
        )
    bias = np.zeros(4 * hidden, np.float32)
    for name, part in (("bias_ih", bias_ih), ("bias_hh", bias_hh)):
        if part is None:
            continue
        if part.shape != (4 * hidden,):
            raise UnsupportedModel(
                f"{where}, {name}: shape {list(part.shape)}; want [{4 * hidden}]"
            )
        bias = bias + part
    inputs, recurrents, biases = (
        split_gates(stacked, TORCH_ORDER) for stacked in (weight_ih, weight_hh, bias)
    )
    i, f, g, o = (
        Gate(*(np.ascontiguousarray(part, np.float32) for part in parts))
        for parts in zip(inputs, recurrents, biases, strict=True)
    )
    return i, f, g, o


ONNX_ORDER = "iofg"  # ONNX writes iofc


def lstm_gates_from_onnx(weights: Array, recurrent: Array, bias: Array | None = None) -> Gates:
    """Return the gates of one direction of an ONNX LSTM.

    Args:
        weights: W, [4 * hidden, input].
        recurrent: R, [4 * hidden, hidden].
        bias: B, [8 * hidden], the input half then the recurrent half; None: zeros.
    """
    total = len(recurrent)
    bias = np.zeros(2 * total, np.float32) if bias is None else bias
    inputs, recurrents, biases = (
        split_gates(stacked, ONNX_ORDER)
        for stacked in (weights, recurrent, bias[:total] + bias[total:])
    )
    i, f, g, o = (
        Gate(*(np.ascontiguousarray(part, np.float32) for part in parts))
        for parts in zip(inputs, recurrents, biases, strict=True)
    )
    return i, f, g, o


def lstm_gates_to_onnx(gates: Gates) -> tuple[F32, F32, F32]:
    """Return W [1, 4 * hidden, input], R [1, 4 * hidden, hidden] and B [1, 8 * hidden]."""
    weights, recurrent, bias = (
        join_gates([getattr(gate, field) for gate in gates], ONNX_ORDER).astype(np.float32)
        for field in ("input_weights", "recurrent_weights", "bias")
    )
    # The whole bias goes into the input half: summing two halves changes rounding only.
    return weights[None], recurrent[None], np.concatenate([bias, np.zeros_like(bias)])[None]
