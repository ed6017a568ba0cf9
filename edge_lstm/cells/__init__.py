"""The table of cell types: float layers, and the integer ops they become."""

from edge_lstm.cells.activation import Activation, ActivationOp
from edge_lstm.cells.add_op import AddOp, SubOp
from edge_lstm.cells.dense import Dense, DenseOp
from edge_lstm.cells.edge_dense import EdgeDenseOp, quantize_edge_dense
from edge_lstm.cells.edge_gru import EdgeGruOp, EdgeRnnOp, quantize_edge_gru, quantize_edge_rnn
from edge_lstm.cells.edge_lstm import EdgeLstmOp, quantize_edge_lstm
from edge_lstm.cells.embedding import Embedding, EmbeddingOp
from edge_lstm.cells.functions import Function
from edge_lstm.cells.gru import Gru
from edge_lstm.cells.lstm import Gate, Lstm
from edge_lstm.cells.lstm_integer import LstmOp
from edge_lstm.cells.mul_op import MulOp
from edge_lstm.cells.normalize import Elementwise, LayerNorm, Scale
from edge_lstm.cells.parallel import Parallel
from edge_lstm.cells.quantize_op import DequantizeOp, QuantizeOp
from edge_lstm.cells.recurrent import Backward, Bidirectional, Recurrent, Reverse
from edge_lstm.cells.rnn import Rnn
from edge_lstm.cells.shape import (
    ConcatOp,
    Dropout,
    FirstStepOp,
    Flatten,
    FlattenOp,
    LastStep,
    LastStepOp,
    ReverseOp,
)
from edge_lstm.cells.state_op import ReadStateOp, WriteStateOp
from edge_lstm.cells.window import Conv1d, GlobalPool, PickStep, Pool1d, Steps
from edge_lstm.program import Op, QuantizationRule
from edge_lstm.spec import Layer

LAYERS: tuple[type[Layer], ...] = (
    Lstm,
    Dense,
    Activation,
    Embedding,
    LastStep,
    Flatten,
    Dropout,
    Gru,
    Rnn,
    Backward,
    Bidirectional,
    Reverse,
    Scale,
    LayerNorm,
    Elementwise,
    Conv1d,
    Pool1d,
    GlobalPool,
    PickStep,
    Steps,
    Parallel,
)
OPS: tuple[type[Op], ...] = (
    LstmOp,
    DenseOp,
    ActivationOp,
    EmbeddingOp,
    LastStepOp,
    FirstStepOp,
    FlattenOp,
    ReverseOp,
    ConcatOp,
    AddOp,
    SubOp,
    MulOp,
    ReadStateOp,
    WriteStateOp,
    QuantizeOp,
    DequantizeOp,
    EdgeLstmOp,
    EdgeGruOp,
    EdgeRnnOp,
    EdgeDenseOp,
)
EDGE_RULES: dict[type[Layer], QuantizationRule] = {
    Lstm: quantize_edge_lstm,
    Gru: quantize_edge_gru,
    Rnn: quantize_edge_rnn,
    Dense: quantize_edge_dense,
}
"""Layers whose integers differ in the profile `edge`."""

__all__ = [
    "EDGE_RULES",
    "LAYERS",
    "OPS",
    "Activation",
    "ActivationOp",
    "AddOp",
    "Backward",
    "Bidirectional",
    "ConcatOp",
    "Conv1d",
    "Dense",
    "DenseOp",
    "DequantizeOp",
    "Dropout",
    "EdgeDenseOp",
    "EdgeGruOp",
    "EdgeLstmOp",
    "EdgeRnnOp",
    "Elementwise",
    "Embedding",
    "EmbeddingOp",
    "FirstStepOp",
    "Flatten",
    "FlattenOp",
    "Function",
    "Gate",
    "GlobalPool",
    "Gru",
    "LastStep",
    "LastStepOp",
    "Layer",
    "LayerNorm",
    "Lstm",
    "LstmOp",
    "MulOp",
    "Op",
    "Parallel",
    "PickStep",
    "Pool1d",
    "QuantizeOp",
    "ReadStateOp",
    "Recurrent",
    "Reverse",
    "ReverseOp",
    "Rnn",
    "Scale",
    "Steps",
    "SubOp",
    "WriteStateOp",
]
