"""The table of cell types: float layers, and the integer ops they become."""

from edge_lstm.cells.activation import Activation, ActivationOp
from edge_lstm.cells.dense import Dense, DenseOp
from edge_lstm.cells.embedding import Embedding, EmbeddingOp
from edge_lstm.cells.lstm import Gate, Lstm
from edge_lstm.cells.lstm_integer import LstmOp
from edge_lstm.cells.quantize_op import DequantizeOp, QuantizeOp
from edge_lstm.cells.shape import Dropout, Flatten, FlattenOp, LastStep, LastStepOp
from edge_lstm.program import Op
from edge_lstm.spec import Layer

LAYERS: tuple[type[Layer], ...] = (
    Lstm,
    Dense,
    Activation,
    Embedding,
    LastStep,
    Flatten,
    Dropout,
)
OPS: tuple[type[Op], ...] = (
    LstmOp,
    DenseOp,
    ActivationOp,
    EmbeddingOp,
    LastStepOp,
    FlattenOp,
    QuantizeOp,
    DequantizeOp,
)

__all__ = [
    "LAYERS",
    "OPS",
    "Activation",
    "ActivationOp",
    "Dense",
    "DenseOp",
    "DequantizeOp",
    "Dropout",
    "Embedding",
    "EmbeddingOp",
    "Flatten",
    "FlattenOp",
    "Gate",
    "LastStep",
    "LastStepOp",
    "Layer",
    "Lstm",
    "LstmOp",
    "Op",
    "QuantizeOp",
]
