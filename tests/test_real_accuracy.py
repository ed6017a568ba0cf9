"""`make accuracy`: what is kept of trained models, its goals, and its pages."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from edge_lstm_benchmarks import accuracy_report, results_page
from edge_lstm_benchmarks.real_cases import all_cases, letter_windows
from edge_lstm_benchmarks.real_models import FILE, KINDS, RANDOM_MODELS, measure, random_models

KEPT = results_page.ROOT / "results" / FILE


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf8"))
    return document


def test_every_model_is_kept(kept: dict[str, Any]) -> None:
    assert list(kept["accuracy"]) == [name for name, _ in all_cases()]
    assert len(kept["random"]) == RANDOM_MODELS


@pytest.mark.parametrize("name", ["weather-gru", "digits-lstm"])
def test_what_is_kept_is_what_is_measured(kept: dict[str, Any], name: str) -> None:
    found = measure(dict(all_cases())[name]())
    before = kept["accuracy"][name]
    # BLAS libraries add in other orders, so that a weight near a tie may be rounded otherwise.
    assert found["float"] == pytest.approx(before["float"], abs=1e-3)
    for one, other in zip(found["forms"], before["forms"], strict=True):
        assert (one["profile"], one["dtype"]) == (other["profile"], other["dtype"])
        assert one["relative_error"] == pytest.approx(other["relative_error"], rel=0.05)


def test_random_models_are_measured_as_kept(kept: dict[str, Any]) -> None:
    for one, other in zip(random_models(4), kept["random"][:4], strict=True):
        assert one["kind"] == other["kind"]
        assert one["edge"] == pytest.approx(other["edge"], rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_edge_errs_less_than_the_tflite_scheme_on_random_models(
    kept: dict[str, Any], kind: str
) -> None:
    rows = [row for row in kept["random"] if row["kind"] == kind]
    assert np.mean([row["edge"] for row in rows]) < np.mean([row["tflm"] for row in rows])


def test_goals_of_trained_models_are_met_by_what_is_kept(kept: dict[str, Any]) -> None:
    met = {
        goal: value >= bound if least else value <= bound
        for goal, value, bound, least in accuracy_report.goals(kept)
        if "error of edge" not in goal
    }
    for word in ("textgenrnn", "Resemblyzer", "Silero", "weather, GRU", "digits, RNN", "snippets"):
        assert any(word in goal for goal in met)
    assert all(met.values()), met


def test_a_missed_goal_is_shown_as_missed(kept: dict[str, Any]) -> None:
    worse = copy.deepcopy(kept)
    for form in worse["accuracy"]["textgenrnn"]["forms"]:
        form["scores"] = dict.fromkeys(form["scores"], 50.0)
        form["rms_error"] = 1.0
    rendered = [accuracy_report.render([document]) for document in (kept, worse)]
    before, after = (page.count("**missed**") for page in rendered)
    # The scheme's letters and edge's; as both err alike, no other goal is touched.
    assert after == before + 2


def test_the_page_and_the_readme_hold_what_is_kept(kept: dict[str, Any]) -> None:
    assert accuracy_report.render([kept]) in (results_page.ROOT / "RESULTS.md").read_text("utf8")
    readme = (results_page.ROOT.parent / "README.md").read_text("utf8")
    assert accuracy_report.short_table(kept) in readme


def test_letters_are_padded_in_front_and_followed_by_the_next() -> None:
    texts = [list(range(1, 60)), [7, 8]]
    x, following = letter_windows(texts, 3, seed=0)
    assert x.shape == (3, 40)
    for row, letter in zip(x, following, strict=True):
        letters = [int(v) for v in row if v]
        assert letters == list(range(letter - len(letters), letter))
        assert row[-1] == letter - 1
