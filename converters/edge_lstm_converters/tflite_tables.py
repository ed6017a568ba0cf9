"""The tables of a ``.tflite`` file that are read and written, slot by slot.

Slot numbers and codes are those of TFLite's schema.fbs, version 3; what is not named here is
skipped when read and left out when written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DTYPES: dict[int, str] = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}
"""TensorType, those with a NumPy type."""

_OPERATOR_NAMES = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE "
    "EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D "
    "LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU "
    "RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH "
    "CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD "
    "UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB "
    "DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP "
    "TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX "
    "MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV "
    "SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN "
    "FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK "
    "REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE "
    "RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL "
    "REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE "
    "MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 "
    "SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES "
    "CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE "
    "HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE "
    "READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE "
    "RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD "
    "UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST "
    "BITWISE_XOR RIGHT_SHIFT "
)
OPERATORS = tuple(_OPERATOR_NAMES.split())
"""BuiltinOperator, by code."""

TANH = 4  # ActivationFunctionType
ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh"}


def slot(index: int, kind: str, default: Any) -> Any:
    """Declare a field of a table: its slot, its kind, its value where the file has none.

    Kinds: a ``struct`` letter for a scalar; ``[letter]`` for a vector of them; ``str``;
    ``Table`` for a table, ``[Table]`` for a vector of tables; ``options`` for the union of
    operator options, whose type lies in the slot before.
    """
    return field(default=default, metadata={"slot": index, "kind": kind})


@dataclass(frozen=True)
class FullyConnectedOptions:
    fused_activation: int = slot(0, "b", 0)
    weights_format: int = slot(1, "b", 0)
    keep_num_dims: bool = slot(2, "?", False)


@dataclass(frozen=True)
class SoftmaxOptions:
    beta: float = slot(0, "f", 0.0)


@dataclass(frozen=True)
class ConcatenationOptions:
    axis: int = slot(0, "i", 0)
    fused_activation: int = slot(1, "b", 0)


@dataclass(frozen=True)
class AddOptions:
    fused_activation: int = slot(0, "b", 0)
    pot_scale_int16: bool = slot(1, "?", True)


@dataclass(frozen=True)
class SubOptions:
    fused_activation: int = slot(0, "b", 0)
    pot_scale_int16: bool = slot(1, "?", True)


@dataclass(frozen=True)
class MulOptions:
    fused_activation: int = slot(0, "b", 0)


@dataclass(frozen=True)
class ReshapeOptions:
    new_shape: tuple[int, ...] = slot(0, "[i]", ())


@dataclass(frozen=True)
class GatherOptions:
    axis: int = slot(0, "i", 0)
    batch_dims: int = slot(1, "i", 0)


@dataclass(frozen=True)
class TransposeOptions:
    pass


@dataclass(frozen=True)
class SqueezeOptions:
    squeeze_dims: tuple[int, ...] = slot(0, "[i]", ())


@dataclass(frozen=True)
class StridedSliceOptions:
    begin_mask: int = slot(0, "i", 0)
    end_mask: int = slot(1, "i", 0)
    ellipsis_mask: int = slot(2, "i", 0)
    new_axis_mask: int = slot(3, "i", 0)
    shrink_axis_mask: int = slot(4, "i", 0)


@dataclass(frozen=True)
class ExpandDimsOptions:
    pass


@dataclass(frozen=True)
class SequenceLstmOptions:
    fused_activation: int = slot(0, "b", 0)
    cell_clip: float = slot(1, "f", 0.0)
    projection_clip: float = slot(2, "f", 0.0)
    time_major: bool = slot(3, "?", False)
    asymmetric_quantize_inputs: bool = slot(4, "?", False)
    diagonal_recurrent_tensors: bool = slot(5, "?", False)


@dataclass(frozen=True)
class BidirectionalLstmOptions:
    fused_activation: int = slot(0, "b", 0)
    cell_clip: float = slot(1, "f", 0.0)
    projection_clip: float = slot(2, "f", 0.0)
    merge_outputs: bool = slot(3, "?", False)
    time_major: bool = slot(4, "?", True)
    asymmetric_quantize_inputs: bool = slot(5, "?", False)


@dataclass(frozen=True)
class SequenceRnnOptions:
    time_major: bool = slot(0, "?", False)
    fused_activation: int = slot(1, "b", 0)
    asymmetric_quantize_inputs: bool = slot(2, "?", False)


@dataclass(frozen=True)
class BidirectionalRnnOptions:
    time_major: bool = slot(0, "?", False)
    fused_activation: int = slot(1, "b", 0)
    merge_outputs: bool = slot(2, "?", False)
    asymmetric_quantize_inputs: bool = slot(3, "?", False)


@dataclass(frozen=True)
class DivOptions:
    fused_activation: int = slot(0, "b", 0)


@dataclass(frozen=True)
class LeakyReluOptions:
    alpha: float = slot(0, "f", 0.0)


@dataclass(frozen=True)
class ReducerOptions:
    keep_dims: bool = slot(0, "?", False)


@dataclass(frozen=True)
class ReverseV2Options:
    pass


@dataclass(frozen=True)
class QuantizeOptions:
    pass


@dataclass(frozen=True)
class DequantizeOptions:
    pass


OPTIONS: dict[int, type[Any]] = {
    8: FullyConnectedOptions,
    9: SoftmaxOptions,
    10: ConcatenationOptions,
    11: AddOptions,
    17: ReshapeOptions,
    21: MulOptions,
    23: GatherOptions,
    26: TransposeOptions,
    27: ReducerOptions,
    28: SubOptions,
    29: DivOptions,
    30: SqueezeOptions,
    31: SequenceRnnOptions,
    32: StridedSliceOptions,
    38: DequantizeOptions,
    52: ExpandDimsOptions,
    69: BidirectionalLstmOptions,
    70: BidirectionalRnnOptions,
    71: SequenceLstmOptions,
    75: LeakyReluOptions,
    81: ReverseV2Options,
    89: QuantizeOptions,
}
"""BuiltinOptions, those that are read and written."""


@dataclass(frozen=True)
class QuantizationTable:
    scale: tuple[float, ...] = slot(2, "[f]", ())
    zero_point: tuple[int, ...] = slot(3, "[q]", ())
    details_type: int = slot(4, "B", 0)
    quantized_dimension: int = slot(6, "i", 0)


@dataclass(frozen=True)
class SparsityTable:
    pass


@dataclass(frozen=True)
class TensorTable:
    shape: tuple[int, ...] = slot(0, "[i]", ())
    type: int = slot(1, "b", 0)
    buffer: int = slot(2, "I", 0)
    name: str = slot(3, "str", "")
    quantization: QuantizationTable | None = slot(4, "QuantizationTable", None)  # noqa: RUF009
    is_variable: bool = slot(5, "?", False)
    sparsity: SparsityTable | None = slot(6, "SparsityTable", None)  # noqa: RUF009
    external_buffer: int = slot(10, "I", 0)


@dataclass(frozen=True)
class OperatorTable:
    opcode_index: int = slot(0, "I", 0)
    inputs: tuple[int, ...] = slot(1, "[i]", ())
    outputs: tuple[int, ...] = slot(2, "[i]", ())
    options_type: int = slot(3, "B", 0)
    options: Any = slot(4, "options", None)  # noqa: RUF009
    intermediates: tuple[int, ...] = slot(8, "[i]", ())


@dataclass(frozen=True)
class OperatorCodeTable:
    deprecated_builtin_code: int = slot(0, "b", 0)
    custom_code: str = slot(1, "str", "")
    version: int = slot(2, "i", 1)
    builtin_code: int = slot(3, "i", 0)


@dataclass(frozen=True)
class SubGraphTable:
    tensors: tuple[TensorTable, ...] = slot(0, "[TensorTable]", ())
    inputs: tuple[int, ...] = slot(1, "[i]", ())
    outputs: tuple[int, ...] = slot(2, "[i]", ())
    operators: tuple[OperatorTable, ...] = slot(3, "[OperatorTable]", ())
    name: str = slot(4, "str", "")


@dataclass(frozen=True)
class BufferTable:
    data: bytes = slot(0, "[B]", b"")
    offset: int = slot(1, "Q", 0)
    size: int = slot(2, "Q", 0)


@dataclass(frozen=True)
class ModelTable:
    version: int = slot(0, "I", 0)
    operator_codes: tuple[OperatorCodeTable, ...] = slot(1, "[OperatorCodeTable]", ())
    subgraphs: tuple[SubGraphTable, ...] = slot(2, "[SubGraphTable]", ())
    description: str = slot(3, "str", "")
    buffers: tuple[BufferTable, ...] = slot(4, "[BufferTable]", ())


TABLES: dict[str, type[Any]] = {
    table.__name__: table
    for table in (
        QuantizationTable,
        SparsityTable,
        TensorTable,
        OperatorTable,
        OperatorCodeTable,
        SubGraphTable,
        BufferTable,
    )
}
