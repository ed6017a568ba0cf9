"""edge-lstm: trained recurrent networks as integers, the same to the last bit everywhere.

>>> import edge_lstm
>>> program = edge_lstm.load("model.elstm")     # doctest: +SKIP
>>> session = program.session(batch_size=1)     # doctest: +SKIP
>>> y = session.step(x_t)                       # doctest: +SKIP
"""

from edge_lstm.errors import EdgeLstmError
from edge_lstm.float_runtime import FloatSession
from edge_lstm.load import load, save
from edge_lstm.program import PROFILES, Program, Tensor
from edge_lstm.runtime import Session

__version__ = "0.1.0"

__all__ = [
    "PROFILES",
    "EdgeLstmError",
    "FloatSession",
    "Program",
    "Session",
    "Tensor",
    "__version__",
    "load",
    "save",
]
