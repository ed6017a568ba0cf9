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
    *,
    projected: bool = False,
) -> Gates:
    """Return the gates of one layer of ``torch.nn.LSTM``.

    Args:
        where: file and layer, for messages.
        weight_ih: [4 * hidden, input].
        weight_hh: [4 * hidden, hidden].
        bias_ih: [4 * hidden]; None, as with ``bias=False``: zeros.
        bias_hh: the same; the two are summed.
        projected: whether the recurrent weights are [4 * cells, projected hidden].

    Raises:
        UnsupportedModel: a shape is not one of an LSTM.
    """
    hidden = weight_hh.shape[-1] if weight_hh.ndim == 2 else 0
    if projected and weight_hh.ndim == 2 and hidden and len(weight_hh) % 4 == 0:
        hidden = len(weight_hh) // 4
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


def peepholes_from_onnx(peepholes: Array) -> F32:
    """Return P of one direction, [3 * hidden] in the order i, o, f, as [3, hidden] in i, f, o."""
    i, o, f = np.split(peepholes, 3)
    return np.ascontiguousarray(np.stack([i, f, o]), np.float32)


def peepholes_to_onnx(peepholes: F32) -> F32:
    """Return P of one direction, [3 * hidden]."""
    i, f, o = peepholes
    return np.concatenate([i, o, f])


GRU_OUR_ORDER = "zrn"
GRU_ONNX_ORDER = "zrn"  # ONNX writes zrh
GRU_TORCH_ORDER = "rzn"
GruGates = tuple[Gate, Gate, Gate]


def gru_gates(
    weights: Array,
    recurrent: Array,
    biases: tuple[Array, Array],
    order: str,
    *,
    reset_after: bool,
) -> tuple[GruGates, F32 | None]:
    """Return the gates z, r, n of a GRU with stacked weights, and the candidate's second bias.

    Args:
        weights: [3 * hidden, input].
        recurrent: [3 * hidden, hidden].
        biases: of the input and of the hidden state, [3 * hidden] each.
        order: how the blocks lie in them.
        reset_after: whether the reset acts on the candidate's second bias, so that the two
            cannot be summed.
    """
    inputs, recurrents, first, second = (
        [np.split(stacked, 3)[order.index(letter)] for letter in GRU_OUR_ORDER]
        for stacked in (weights, recurrent, *biases)
    )
    summed = [first[0] + second[0], first[1] + second[1], first[2]]
    if not reset_after:
        summed[2] = first[2] + second[2]
    z, r, n = (
        Gate(*(np.ascontiguousarray(part, np.float32) for part in parts))
        for parts in zip(inputs, recurrents, summed, strict=True)
    )
    keep = reset_after and bool(second[2].any())
    return (z, r, n), np.ascontiguousarray(second[2], np.float32) if keep else None


def gru_gates_to_onnx(gates: GruGates, candidate_bias: F32 | None) -> tuple[F32, F32, F32]:
    """Return W [1, 3 * hidden, input], R [1, 3 * hidden, hidden] and B [1, 6 * hidden]."""
    weights, recurrent, bias = (
        np.concatenate([getattr(gate, field) for gate in gates]).astype(np.float32)
        for field in ("input_weights", "recurrent_weights", "bias")
    )
    second = np.zeros_like(bias)
    if candidate_bias is not None:
        second[-len(candidate_bias) :] = candidate_bias
    return weights[None], recurrent[None], np.concatenate([bias, second])[None]


KERAS_ORDER = "ifgo"  # Keras writes i, f, c, o
KERAS_GRU_ORDER = "zrn"  # Keras writes z, r, h; ours is update, reset, candidate


def keras_kernels(
    where: str, kernel: F32, recurrent: F32, bias: F32 | None, count: int
) -> tuple[F32, F32, tuple[F32, F32], bool]:
    """Return weights stacked along their first axis, the two biases, and whether CuDNN wrote them.

    A CuDNN layer keeps each gate's weights turned, and both biases one behind the other.

    Args:
        where: file and layer, for messages.
        kernel: [input, count * hidden].
        recurrent: [hidden, count * hidden].
        bias: [count * hidden], or two of them, [2, count * hidden]; CuDNN:
            [2 * count * hidden]; None: zeros.
        count: of gates.

    Raises:
        UnsupportedModel: a shape is not one of such a layer.
    """
    hidden = recurrent.shape[0] if recurrent.ndim == 2 else 0
    rows = count * hidden
    if hidden == 0 or recurrent.shape != (hidden, rows):
        raise UnsupportedModel(
            f"{where}, recurrent_kernel: shape {list(recurrent.shape)};"
            f" want [hidden, {count}*hidden]"
        )
    if kernel.ndim != 2 or kernel.shape[0] == 0 or kernel.shape[1] != rows:
        raise UnsupportedModel(
            f"{where}, kernel: shape {list(kernel.shape)}; want [input, {count}*hidden] with"
            f" hidden = {hidden}"
        )
    zeros = np.zeros(rows, np.float32)
    if bias is None:
        return kernel.T, recurrent.T, (zeros, zeros), False
    if bias.shape == (rows,):
        return kernel.T, recurrent.T, (bias, zeros), False
    if bias.shape == (2, rows):
        return kernel.T, recurrent.T, (bias[0], bias[1]), False
    if bias.shape != (2 * rows,):
        raise UnsupportedModel(
            f"{where}, bias: shape {list(bias.shape)}; want [{rows}], [2, {rows}] or, of a CuDNN"
            f" layer, [{2 * rows}]"
        )
    # Keras 2, _convert_rnn_weights: the memory of each gate's input weights is [hidden, input].
    inputs = np.concatenate([k.reshape(hidden, -1) for k in np.split(kernel, count, axis=1)])
    recurrents = np.concatenate(np.split(recurrent, count, axis=1))
    return inputs, recurrents, (bias[:rows], bias[rows:]), True


def lstm_gates_from_keras(where: str, kernel: F32, recurrent: F32, bias: F32 | None) -> Gates:
    """Return the gates of a Keras LSTM or CuDNNLSTM; see ``keras_kernels``."""
    inputs, recurrents, (first, second), _ = keras_kernels(where, kernel, recurrent, bias, 4)
    if bias is not None and bias.ndim == 2:
        raise UnsupportedModel(f"{where}, bias: shape {list(bias.shape)}; want 1 axis")
    i, f, g, o = (
        Gate(*(np.ascontiguousarray(part, np.float32) for part in parts))
        for parts in zip(
            *(
                split_gates(stacked, KERAS_ORDER)
                for stacked in (inputs, recurrents, first + second)
            ),
            strict=True,
        )
    )
    return i, f, g, o


def gru_gates_from_keras(
    where: str, kernel: F32, recurrent: F32, bias: F32 | None, *, reset_after: bool
) -> tuple[tuple[Gate, Gate, Gate], F32 | None]:
    """Return the gates z, r, n of a Keras GRU or CuDNNGRU, and the candidate's second bias."""
    inputs, recurrents, (first, second), cudnn = keras_kernels(where, kernel, recurrent, bias, 3)
    if bias is not None and (cudnn or bias.ndim == 2) != reset_after:
        raise UnsupportedModel(
            f"{where}, bias: shape {list(bias.shape)} beside reset_after={reset_after}; want two"
            " biases with reset_after and one without"
        )
    hidden = len(inputs) // 3
    summed = first + second
    if reset_after:
        # The reset acts on the candidate's second bias too.
        summed = np.concatenate([summed[: 2 * hidden], first[2 * hidden :]])
    z, r, n = (
        Gate(*(np.ascontiguousarray(part, np.float32) for part in parts))
        for parts in zip(*(np.split(s, 3) for s in (inputs, recurrents, summed)), strict=True)
    )
    extra = np.ascontiguousarray(second[2 * hidden :], np.float32)
    return (z, r, n), extra if reset_after and bias is not None else None


def rnn_gate_from_keras(where: str, kernel: F32, recurrent: F32, bias: F32 | None) -> Gate:
    """Return the one gate of a Keras SimpleRNN."""
    inputs, recurrents, (first, _), _ = keras_kernels(where, kernel, recurrent, bias, 1)
    if bias is not None and bias.shape != first.shape:
        raise UnsupportedModel(f"{where}, bias: shape {list(bias.shape)}; want [{len(first)}]")
    return Gate(*(np.ascontiguousarray(part, np.float32) for part in (inputs, recurrents, first)))


def ungrouped(weights: Array, groups: int) -> Array:
    """Return weights of a convolution with groups as those of one without: zeros between them.

    Args:
        weights: [output, input / groups, kernel].
        groups: a divisor of the outputs.
    """
    if groups == 1:
        return weights
    outputs, inputs, kernel = weights.shape
    whole = np.zeros((outputs, inputs * groups, kernel), weights.dtype)
    each = outputs // groups
    for k in range(groups):
        rows = slice(k * each, (k + 1) * each)
        whole[rows, k * inputs : (k + 1) * inputs] = weights[rows]
    return whole
