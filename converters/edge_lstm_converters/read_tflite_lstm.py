"""UNIDIRECTIONAL_SEQUENCE_LSTM of a ``.tflite`` file to LstmOp."""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import LstmOp
from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters.rules import check
from edge_lstm_converters.rules_tflite import (
    BIASES,
    CELL_STATE,
    HIDDEN_INTERMEDIATE,
    HIDDEN_STATE,
    INPUT_WEIGHTS,
    LAYER_NORMS,
    LSTM_RULES,
    PEEPHOLES,
    PROJECTION_BIAS,
    PROJECTION_WEIGHTS,
    RECURRENT_WEIGHTS,
    TfliteLstm,
    is_scale,
)
from edge_lstm_converters.tflite_schema import TfliteTensor


def read_lstm(lstm: TfliteLstm, where: str, name: str) -> LstmOp:
    """Return the LstmOp that an operator states; the caller fills in its inputs and output.

    Args:
        lstm: the operator.
        where: its place in the file, for messages.
        name: of the layer.

    Raises:
        UnsupportedModel: it breaks a rule of the kernels, or its shapes do not fit.
    """
    check(LSTM_RULES, lstm, where)
    return _LstmReader(lstm, where, name).read()


class _LstmReader:
    def __init__(self, lstm: TfliteLstm, where: str, name: str) -> None:
        self.lstm, self.where, self.name = lstm, where, name

    def refuse(self, found: str, accepted: str) -> UnsupportedModel:
        return UnsupportedModel(f"{self.where}: {found}; {accepted}")

    def present(self, position: int) -> TfliteTensor:
        tensor = self.lstm.tensor(position)
        if tensor is None:
            raise self.refuse(f"input {position} is absent", "it must be there with its group")
        return tensor

    def constant(self, position: int, dtype: str, shape: tuple[int, ...]) -> tuple[Array, float]:
        """Return a constant and its one scale; 0 for biases."""
        tensor = self.present(position)
        if tensor.dtype != dtype or tensor.shape != shape:
            raise self.refuse(
                f"input {position} ({tensor.name!r}) is {tensor.dtype} {list(tensor.shape)}",
                f"want {dtype} {list(shape)}",
            )
        return tensor.array(), 0.0 if dtype in ("int32", "int64") else tensor.scales[0]

    def activation(self, tensor: TfliteTensor) -> tuple[float, int]:
        """Return scale and zero point of a value."""
        info = np.iinfo(tensor.dtype) if tensor.dtype in ("int8", "int16") else np.iinfo(np.int8)
        if (
            tensor.dtype not in ("int8", "int16")
            or len(tensor.scales) != 1
            or not is_scale(tensor.scales[0])
            or not info.min <= tensor.zero_points[0] <= info.max
        ):
            raise self.refuse(
                f"tensor {tensor.name!r} is {tensor.dtype} with scales {list(tensor.scales)}, zero"
                f" points {list(tensor.zero_points)}",
                "want int8 or int16 with one positive scale",
            )
        return tensor.scales[0], tensor.zero_points[0]

    def state(self, position: int, size: int) -> tuple[float, int]:
        tensor = self.present(position)
        if not tensor.shape or tensor.shape[-1] != size:
            raise self.refuse(
                f"input {position} ({tensor.name!r}) has shape {list(tensor.shape)}",
                f"want [batch, {size}]",
            )
        return self.activation(tensor)

    def read(self) -> LstmOp:
        lstm = self.lstm
        source = self.present(0)
        forget, recurrent = self.present(INPUT_WEIGHTS[1]), self.present(RECURRENT_WEIGHTS[1])
        if (
            len(forget.shape) != 2
            or len(recurrent.shape) != 2
            or 0 in (*forget.shape, *recurrent.shape)
        ):
            raise self.refuse(
                f"weights have shapes {list(forget.shape)} and {list(recurrent.shape)}",
                "want [cells, inputs] and [cells, outputs]",
            )
        cells, inputs = forget.shape
        outputs = recurrent.shape[1]
        weights, weight_scales = self.gates(INPUT_WEIGHTS, "int8", (cells, inputs))
        recurrents, recurrent_scales = self.gates(RECURRENT_WEIGHTS, "int8", (cells, outputs))
        bias_dtype = "int64" if source.dtype == "int16" else "int32"
        bias, _ = self.gates(BIASES, bias_dtype, (cells,))
        hidden = self.state(HIDDEN_STATE, outputs)
        if self.present(HIDDEN_STATE).dtype != source.dtype:
            raise self.refuse(
                f"hidden state is {self.present(HIDDEN_STATE).dtype}", f"want {source.dtype}"
            )
        cell_scale, _ = self.state(CELL_STATE, cells)
        product = self.product(hidden)
        peephole, peephole_scales = self.peepholes(cells)
        norm, norm_scales, gate_scales = self.layer_norms(cells)
        projection, projection_bias, projection_scale = self.projection(outputs, cells)
        return LstmOp(
            name=self.name,
            inputs=(),
            output=0,
            input_weights=weights,
            recurrent_weights=recurrents,
            bias=bias,
            input_weight_scales=weight_scales,
            recurrent_weight_scales=recurrent_scales,
            hidden_scale=hidden[0],
            hidden_zero_point=hidden[1],
            product_scale=product[0],
            product_zero_point=product[1],
            cell_scale=cell_scale,
            initial_hidden=np.full(outputs, hidden[1], source.dtype),
            initial_cell=np.zeros(cells, np.int16),
            cell_clip=lstm.options.cell_clip,
            coupled=lstm.coupled,
            peephole=peephole,
            peephole_scales=peephole_scales,
            projection_weights=projection,
            projection_bias=projection_bias,
            projection_scale=projection_scale,
            projection_clip=lstm.options.projection_clip,
            layer_norm=norm,
            layer_norm_scales=norm_scales,
            gate_scales=gate_scales,
            time_major=lstm.options.time_major,
        )

    def gates(
        self, positions: tuple[int, ...], dtype: str, shape: tuple[int, ...]
    ) -> tuple[Array, F32]:
        """Return the gates' arrays as one, and their scales; a gate that is not there is 0."""
        arrays: list[Array] = []
        scales = []
        for position in positions:
            if self.lstm.coupled and position == positions[0]:
                arrays.append(np.zeros(shape, dtype))
                scales.append(1.0)
            else:
                array, scale = self.constant(position, dtype, shape)
                arrays.append(array)
                scales.append(scale)
        return np.stack(arrays), np.array(scales, np.float32)

    def product(self, hidden: tuple[float, int]) -> tuple[float, int]:
        """Return scale and zero point of intermediate 4, the output gate times tanh(cell)."""
        tensor = self.lstm.intermediate(HIDDEN_INTERMEDIATE)
        return hidden if tensor is None else self.activation(tensor)

    def peepholes(self, cells: int) -> tuple[Array | None, F32 | None]:
        if all(self.lstm.tensor(position) is None for position in PEEPHOLES):
            return None, None
        return self.gates(PEEPHOLES, "int16", (cells,))

    def layer_norms(self, cells: int) -> tuple[Array | None, F32 | None, F32 | None]:
        if all(self.lstm.tensor(position) is None for position in LAYER_NORMS):
            return None, None, None
        norm, scales = self.gates(LAYER_NORMS, "int16", (cells,))
        gate_scales = [1.0] * 4
        for gate in self.lstm.gates:
            tensor = self.lstm.intermediate(gate)
            if tensor is None or tensor.dtype != "int16":
                raise self.refuse(
                    f"intermediate {gate} is not int16",
                    "layer normalization must have the scale of its gate there",
                )
            gate_scales[gate], _ = self.activation(tensor)
        return norm, scales, np.array(gate_scales, np.float32)

    def projection(self, outputs: int, cells: int) -> tuple[Array | None, Array | None, float]:
        if self.lstm.tensor(PROJECTION_WEIGHTS) is None:
            if outputs != cells:
                raise self.refuse(
                    f"{cells} cells give {outputs} outputs", "only a projection can do that"
                )
            return None, None, 0.0
        weights, scale = self.constant(PROJECTION_WEIGHTS, "int8", (outputs, cells))
        bias: Array = np.zeros(outputs, np.int32)
        if self.lstm.tensor(PROJECTION_BIAS) is not None:
            bias, _ = self.constant(PROJECTION_BIAS, "int32", (outputs,))
        return weights, bias, scale
