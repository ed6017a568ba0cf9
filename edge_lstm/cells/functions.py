"""The functions inside a recurrent cell, in float, by the names that ONNX gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F64
from edge_lstm.errors import UnsupportedModel


def sigmoid(x: F64) -> F64:
    """Return the logistic function without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _elu(x: F64, alpha: float) -> F64:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x)


def _softplus(x: F64) -> F64:
    return np.logaddexp(0.0, x)


_FORMULAS: dict[str, tuple[float | None, float | None, Callable[[F64, float, float], F64]]] = {
    # name: default alpha, default beta (None: takes none), formula. ONNX, operator RNN.
    "sigmoid": (None, None, lambda x, a, b: sigmoid(x)),
    "tanh": (None, None, lambda x, a, b: np.tanh(x)),
    "relu": (None, None, lambda x, a, b: np.maximum(x, 0.0)),
    "affine": (1.0, 0.0, lambda x, a, b: a * x + b),
    "leaky_relu": (0.01, None, lambda x, a, b: np.where(x < 0, a * x, x)),
    "thresholded_relu": (1.0, None, lambda x, a, b: np.where(x > a, x, 0.0)),
    "scaled_tanh": (1.0, 1.0, lambda x, a, b: a * np.tanh(b * x)),
    "hard_sigmoid": (0.2, 0.5, lambda x, a, b: np.clip(a * x + b, 0.0, 1.0)),
    "elu": (1.0, None, lambda x, a, b: _elu(x, a)),
    "softsign": (None, None, lambda x, a, b: x / (1.0 + np.abs(x))),
    "softplus": (None, None, lambda x, a, b: _softplus(x)),
}
NAMES = tuple(_FORMULAS)


@dataclass(frozen=True)
class Function:
    """A function of one number, comparable by value.

    ================= =============================== ==============
    name              formula                         alpha, beta
    ================= =============================== ==============
    sigmoid           1 / (1 + exp(-x))
    tanh              tanh(x)
    relu              max(x, 0)
    affine            alpha * x + beta                1, 0
    leaky_relu        x if x >= 0 else alpha * x      0.01
    thresholded_relu  x if x > alpha else 0           1
    scaled_tanh       alpha * tanh(beta * x)          1, 1
    hard_sigmoid      clip(alpha * x + beta, 0, 1)    0.2, 0.5
    elu               x if x >= 0 else alpha(e^x - 1) 1
    softsign          x / (1 + abs(x))
    softplus          log(1 + exp(x))
    ================= =============================== ==============

    Args:
        name: one of these.
        alpha: None: the default of the table.
        beta: likewise.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _FORMULAS:
            raise UnsupportedModel(
                f"function {self.name!r}: unknown; want one of {', '.join(NAMES)}"
            )
        for field, default in zip(("alpha", "beta"), _FORMULAS[self.name][:2], strict=True):
            # What a function does not take is dropped, so that equal functions compare equal.
            given = getattr(self, field)
            value = default if given is None or default is None else float(given)
            if value is not None and not np.isfinite(value):
                raise UnsupportedModel(f"function {self.name!r}: {field} is {value}; want a number")
            object.__setattr__(self, field, value)

    def __call__(self, x: F64) -> F64:
        """Return the function of each element, in float64."""
        formula = _FORMULAS[self.name][2]
        return np.asarray(formula(x, self.alpha or 0.0, self.beta or 0.0), np.float64)

    def __str__(self) -> str:
        values = [f"{v:g}" for v in (self.alpha, self.beta) if v is not None]
        return self.name + (f"({', '.join(values)})" if values else "")


SIGMOID, TANH, RELU = Function("sigmoid"), Function("tanh"), Function("relu")
HARD_SIGMOID = Function("hard_sigmoid")  # Keras 1 and 2, ONNX
HARD_SIGMOID_6 = Function("hard_sigmoid", 1 / 6, 0.5)  # Keras 3, PyTorch's hardsigmoid
