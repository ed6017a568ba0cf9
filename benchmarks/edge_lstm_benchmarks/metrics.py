"""Task metrics, and how sure their difference from the float model is.

A metric is prepared once for some outputs, and then scored under weights of the rows: 1 for each
row gives its value, the multiplicities of a resample give one value of the bootstrap.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_lstm.arrays import F64, I64, Array
from edge_lstm.errors import UsageError
from edge_lstm.records import Accuracy

Score = Callable[[F64], float]
"""From the weight of each row, ``[rows]``, to the metric."""

RESAMPLES, OWN_RESAMPLES = 1000, 200
"""Of the bootstrap; fewer of a user's function, which may be slow."""
RESAMPLED_VALUES = 2e8
LEAST_PROBABILITY = 2.0**-9
"""Half a step of an int8 softmax: what it rounds to 0 counts as this, in float too."""


@dataclass(frozen=True)
class Metric:
    """One way to judge outputs.

    Args:
        name: as a user gives it.
        wants: what must be known of each row; ``any`` leaves it to the function.
        higher_is_better: which way it points.
        prepare: from outputs ``[rows, size]`` and labels ``[rows]`` or targets ``[rows, size]``.
        resamples: of the bootstrap, at most.
    """

    name: str
    wants: Literal["labels", "targets", "any"]
    higher_is_better: bool
    prepare: Callable[[F64, Array], Score]
    resamples: int = RESAMPLES


def labels_of(outputs: Array) -> I64:
    """Return the label of each row: the largest output, or whether the only one is >= 0.5."""
    if outputs.shape[-1] == 1:
        return (outputs[:, 0] >= 0.5).astype(np.int64)
    largest: I64 = outputs.argmax(axis=-1).astype(np.int64)
    return largest


def _mean(values: F64) -> Score:
    return lambda weights: float(values @ weights / weights.sum())


def _accuracy(outputs: F64, wanted: Array) -> Score:
    return _mean((labels_of(outputs) == wanted).astype(np.float64))


def _f1(outputs: F64, wanted: Array) -> Score:
    """Mean over classes of 2 TP / (2 TP + FP + FN); classes that never occur are left out."""
    found, want = labels_of(outputs), wanted.astype(np.int64)
    classes = int(max(found.max(), want.max())) + 1
    hit = found == want

    def score(weights: F64) -> float:
        true = np.bincount(want[hit], weights[hit], classes)
        both = np.bincount(found, weights, classes) + np.bincount(want, weights, classes)
        occurs = both > 0
        return float((2 * true[occurs] / both[occurs]).mean())

    return score


def _mae(outputs: F64, wanted: Array) -> Score:
    return _mean(np.abs(outputs - wanted).mean(axis=-1))


def _mape(outputs: F64, wanted: Array) -> Score:
    """Mean of ``|error / target|``, as a share; targets of 0 are left out."""
    known = wanted != 0
    shares = np.abs(outputs - wanted) / np.where(known, np.abs(wanted), 1.0)
    sums, counts = (shares * known).sum(axis=-1), known.sum(axis=-1).astype(np.float64)
    return lambda weights: float(sums @ weights / max(float(counts @ weights), 1.0))


def _perplexity(outputs: F64, wanted: Array) -> Score:
    """Exponential of the mean of -log p(label); what is no probability counts as a logit."""
    sums = outputs.sum(axis=-1)
    # An int8 softmax is off by up to half a step, 2**-9, for each class.
    reach = 0.01 + outputs.shape[-1] * LEAST_PROBABILITY
    if outputs.min() >= 0 and np.abs(sums - 1).max() <= reach:
        probability = outputs
    else:
        powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        probability = powers / powers.sum(axis=-1, keepdims=True)
    chosen = probability[np.arange(len(wanted)), wanted.astype(np.int64)]
    nats = _mean(-np.log(np.maximum(chosen, LEAST_PROBABILITY)))
    return lambda weights: float(np.exp(nats(weights)))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "labels", True, _accuracy),
        Metric("f1", "labels", True, _f1),
        Metric("perplexity", "labels", False, _perplexity),
        Metric("mae", "targets", False, _mae),
        Metric("mape", "targets", False, _mape),
    )
}


def find_metric(name: str | None, wanted: Array) -> Metric:
    """Return the metric of that name, a user's ``module:function``, or the usual one for None.

    A user's function takes outputs ``[rows, size]`` and labels or targets, and returns a number;
    higher is better unless it has an attribute ``higher_is_better`` that is False.

    Raises:
        UsageError: there is none of that name, or it wants labels where there are targets.
    """
    has_labels = not np.issubdtype(wanted.dtype, np.floating)
    if name is None:
        return METRICS["accuracy" if has_labels else "mae"]
    if ":" in name:
        return _own_metric(name)
    if name not in METRICS:
        raise UsageError(
            f"metric {name!r}: unknown; give one of {', '.join(METRICS)}, or module:function"
        )
    metric = METRICS[name]
    if metric.wants != ("labels" if has_labels else "targets"):
        found = "integer labels" if has_labels else "float targets"
        raise UsageError(f"metric {name}: y holds {found}; want {metric.wants}")
    return metric


def _own_metric(name: str) -> Metric:
    module, _, attribute = name.partition(":")
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module), attribute)
        inspect.signature(function).bind(None, None)
    except Exception as error:  # importing runs the user's code
        why = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"metric {name!r}: {why}; give module:function with function(outputs, wanted)"
        ) from error

    def prepare(outputs: F64, wanted: Array) -> Score:
        def score(weights: F64) -> float:
            rows = np.repeat(np.arange(len(outputs)), weights.astype(np.int64))
            try:
                return float(function(outputs[rows], wanted[rows]))
            except Exception as error:
                raise UsageError(f"metric {name}: {type(error).__name__}: {error}") from error

        return score

    better = bool(getattr(function, "higher_is_better", True))
    return Metric(name, "any", better, prepare, OWN_RESAMPLES)


class Judge:
    """A metric with what it is taken against; the float model is scored once for all backends.

    Args:
        metric: which.
        wanted: labels ``[rows]``, or targets ``[rows, size]`` in real units.
        reference: the float model's outputs in real units, ``[rows, size]``, or None.
        sequences: the number of each row's sequence, from 0: rows of one are no independent
            samples, so that whole sequences are drawn.
    """

    def __init__(
        self, metric: Metric, wanted: Array, reference: Array | None, sequences: I64
    ) -> None:
        self.metric, self._wanted, self._sequences = metric, wanted, sequences
        self._ones = np.ones(len(wanted))
        self._value: float | None = None
        self._resampled: list[float] = []
        if reference is not None:
            score = metric.prepare(reference.astype(np.float64), wanted)
            self._value = score(self._ones)
            self._resampled = [score(weights) for weights in self._resamples()]

    def measure(self, outputs: Array) -> Accuracy:
        """Return the metric of outputs ``[rows, size]``, with its paired bootstrap interval."""
        score = self.metric.prepare(outputs.astype(np.float64), self._wanted)
        value = score(self._ones)
        interval = None
        if self._resampled:
            pairs = zip(self._resamples(), self._resampled, strict=True)
            differences = [score(w) - before for w, before in pairs]
            if np.isfinite(differences).all():
                low, high = np.percentile(differences, (2.5, 97.5))
                interval = float(low), float(high)
        return Accuracy(
            self.metric.name,
            value,
            None if self._value is None else value - self._value,
            interval,
            self.metric.higher_is_better,
        )

    def _resamples(self) -> Iterator[F64]:
        """Yield the weight of each row in each resample, the same at every call."""
        count = int(self._sequences.max()) + 1
        if count < 2:
            return
        rng = np.random.default_rng(0)
        most = int(np.clip(RESAMPLED_VALUES / len(self._sequences), 100, self.metric.resamples))
        for _ in range(most):
            drawn = np.bincount(rng.integers(0, count, count), minlength=count)
            yield drawn[self._sequences].astype(np.float64)
