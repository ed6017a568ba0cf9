"""Task metrics against their definitions and scikit-learn, and the bootstrap against theory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm.arrays import Array
from edge_lstm.errors import UsageError
from edge_lstm.records import Accuracy
from edge_lstm_benchmarks.metrics import LEAST_PROBABILITY, METRICS, Judge, find_metric


def measure(
    name: str | None, outputs: Array, wanted: Array, reference: Array | None = None
) -> Accuracy:
    metric = find_metric(name, wanted)
    return Judge(metric, wanted, reference, np.arange(len(outputs))).measure(outputs)


def test_the_usual_metric_is_accuracy_for_labels_and_mae_for_targets() -> None:
    outputs = np.array([[0.9], [0.4], [0.5], [-1.0]])
    assert measure(None, outputs, np.array([1, 0, 0, 0])) == Accuracy("accuracy", 0.75)
    found = measure(None, outputs, np.array([[1.0], [0.0], [0.0], [0.0]]))
    assert (found.metric, found.higher_is_better) == ("mae", False)
    assert found.value == pytest.approx((0.1 + 0.4 + 0.5 + 1.0) / 4)
    assert measure(None, np.eye(3), np.array([0, 1, 1])).value == pytest.approx(2 / 3)


def test_f1_is_that_of_scikit_learn() -> None:
    scores = pytest.importorskip(
        "sklearn.metrics", reason="scikit-learn not found: pip install scikit-learn"
    )
    rng = np.random.default_rng(3)
    outputs, wanted = rng.normal(size=(200, 5)), rng.integers(0, 6, 200)
    want = scores.f1_score(wanted, outputs.argmax(axis=1), average="macro")
    assert measure("f1", outputs, wanted).value == pytest.approx(want)


def test_mape_leaves_targets_of_zero_out() -> None:
    wanted = np.array([[2.0, 0.0], [4.0, 5.0]])
    outputs = np.array([[1.0, 9.0], [4.0, 6.0]])
    assert measure("mape", outputs, wanted).value == pytest.approx((0.5 + 0.0 + 0.2) / 3)


def test_perplexity_of_probabilities_and_of_their_logits_is_the_same() -> None:
    rng = np.random.default_rng(4)
    logits, wanted = rng.normal(size=(50, 7)), rng.integers(0, 7, 50)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    want = np.exp(-np.log(probabilities[np.arange(50), wanted]).mean())
    assert measure("perplexity", logits, wanted).value == pytest.approx(want)
    assert measure("perplexity", probabilities, wanted).value == pytest.approx(want)


def test_a_probability_that_rounded_to_zero_leaves_perplexity_finite() -> None:
    outputs, wanted = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])
    assert measure("perplexity", outputs, wanted).value == pytest.approx(LEAST_PROBABILITY**-0.5)


def test_interval_of_a_difference_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(5)
    wanted = rng.normal(size=(2000, 1))
    reference = wanted + 1.0
    outputs = reference + rng.normal(0, 0.1, wanted.shape)  # |error| differs by N(0, 0.1)
    found = measure("mae", outputs, wanted, reference)
    assert found.delta_vs_float is not None
    assert found.delta_interval is not None
    low, high = found.delta_interval
    assert low < found.delta_vs_float < high
    # 2 * 1.96 * 0.1 / sqrt(2000); quantiles of 1,000 resamples are off by some 5 %.
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 2000**0.5, rel=0.15)


def test_rows_of_one_sequence_are_drawn_together() -> None:
    rng = np.random.default_rng(6)
    sequences = np.repeat(np.arange(40), 25)
    error = rng.normal(0, 0.1, 40)[sequences][:, None]  # the same for all rows of a sequence
    wanted = np.zeros((1000, 1))
    metric = METRICS["mae"]
    judges = (Judge(metric, wanted, wanted + 1, s) for s in (sequences, np.arange(1000)))
    together, alone = (judge.measure(wanted + 1 + error).delta_interval for judge in judges)
    assert together is not None
    assert alone is not None
    # Forty independent values instead of a thousand: sqrt(25) times as wide.
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(5, rel=0.25)


def test_outputs_equal_to_float_differ_by_exactly_nothing() -> None:
    wanted = np.random.default_rng(7).normal(size=(30, 2))
    found = measure("mae", wanted + 0.5, wanted, wanted + 0.5)
    assert (found.delta_vs_float, found.delta_interval) == (0.0, (0.0, 0.0))


def test_one_sequence_has_no_interval() -> None:
    judge = Judge(METRICS["mae"], np.zeros((9, 1)), np.ones((9, 1)), np.zeros(9, np.int64))
    found = judge.measure(np.full((9, 1), 2.0))
    assert (found.delta_vs_float, found.delta_interval) == (1.0, None)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "el_own_metric.py").write_text(
        "import numpy as np\n"
        "def rmse(outputs, wanted):\n"
        "    return np.sqrt(((outputs - wanted) ** 2).mean())\n"
        "rmse.higher_is_better = False\n"
        "def share(outputs, wanted):\n"
        "    return (outputs > wanted).mean()\n"
        "def broken(outputs, wanted):\n"
        "    raise KeyError('speaker')\n"
        "def log_share(outputs, wanted):\n"
        "    return np.log(outputs.sum()) if outputs.sum() else float('nan')\n"
        "def one(outputs):\n"
        "    return 0\n"
    )
    (tmp_path / "el_own_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("own_module")
def test_a_users_function_is_a_metric() -> None:
    wanted = np.zeros((8, 1))
    found = measure("el_own_metric:rmse", wanted + 3, wanted, wanted + 1)
    assert (found.metric, found.value, found.delta_vs_float) == ("el_own_metric:rmse", 3.0, 2.0)
    assert found.delta_interval == (2.0, 2.0)
    assert not found.higher_is_better
    assert measure("el_own_metric:share", wanted + 3, wanted).higher_is_better


@pytest.mark.usefixtures("own_module")
def test_a_metric_that_some_resamples_do_not_have_has_no_interval() -> None:
    outputs = np.eye(8)[:, :1]  # some resamples draw none of the first row
    found = measure("el_own_metric:log_share", outputs, np.zeros((8, 1)), outputs)
    assert (found.value, found.delta_vs_float, found.delta_interval) == (0.0, 0.0, None)


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("el_own_metric:absent", "has no attribute 'absent'; give module:function"),
        ("el_no_module:f", "No module named 'el_no_module'; give module:function"),
        ("el_own_broken:f", "division by zero; give module:function"),
        ("el_own_metric:one", "too many positional arguments; give module:function"),
        ("el_own_metric:broken", "metric el_own_metric:broken: KeyError: 'speaker'"),
        ("bleu", "unknown; give one of accuracy, f1, perplexity, mae, mape, or module:function"),
        ("accuracy", "metric accuracy: y holds float targets; want labels"),
    ],
)
def test_a_metric_that_cannot_be_taken_is_refused_in_one_line(name: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        measure(name, np.zeros((4, 1)), np.zeros((4, 1)))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
