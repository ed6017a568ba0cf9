"""The comparison of sequence models: equal sizes, equal numbers, and what the page says of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm_benchmarks import results_page
from edge_lstm_benchmarks.sequence_cells import (
    BLOCKS,
    CELLS,
    HEADS,
    WIDTH,
    Shape,
    recurrent_steps,
    shape_for,
)
from edge_lstm_benchmarks.sequence_models import (
    FOLDER,
    TransformerWalker,
    Walker,
    keep,
    model_spec,
    scaling,
    transformer,
)
from edge_lstm_benchmarks.sequence_models_report import claims, render
from edge_lstm_benchmarks.sequence_tasks import (
    DIGITS,
    OTHERS,
    TASKS,
    WEATHER,
    Task,
    kept_data,
    marked_digits,
    score,
)
from edge_lstm_converters.read_torch import read_weights

RECURRENT = [cell for cell in CELLS if cell != "transformer"]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_all_cells_have_the_same_number_of_parameters(task: Task) -> None:
    counts = [shape_for(cell, task.inputs, task.outputs).parameters() for cell in CELLS]
    assert max(counts) <= 1.02 * counts[0]
    assert min(counts) >= 0.98 * counts[0]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_kept_weights_are_of_that_size(task: Task, cell: str) -> None:
    shape = shape_for(cell, task.inputs, task.outputs)
    if cell == "transformer":
        weights = read_weights(FOLDER / f"{task.name}_{cell}.pt")
        assert sum(w.size for w in weights.values()) == shape.parameters()
    else:
        assert model_spec(task, cell).parameter_count() == shape.parameters()


def test_all_weights_together_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.pt")) < 200_000


def test_transformer_with_a_cache_equals_full_attention_in_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    from edge_lstm_benchmarks.models.causal_transformer import CausalTransformer

    torch.set_num_threads(1)
    net = CausalTransformer(DIGITS.inputs, 46, DIGITS.outputs)
    weights = read_weights(FOLDER / "digits_transformer.pt")
    net.load_state_dict({name: torch.tensor(np.asarray(w)) for name, w in weights.items()})
    x = kept_data(DIGITS, "test")[0][:3, :140]
    steps = transformer(DIGITS, 3)
    for k in range(x.shape[1]):
        y = steps.step(x[:, k])
        if k in (0, 1, 63, 64, 139):  # the cache has room for 64 at first, then for 128, 256
            with torch.no_grad():
                want = net(torch.from_numpy(x[:, : k + 1])).numpy()
            # float32 logits of up to 20, sums of some hundred products in another order.
            np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
        assert steps.state_bytes == 3 * (k + 1) * BLOCKS * 2 * WIDTH * 4


@pytest.mark.parametrize("cell", RECURRENT)
def test_recurrent_steps_equal_the_float_reference(cell: str) -> None:
    spec = model_spec(WEATHER, cell)
    x = kept_data(WEATHER, "test")[0][:5]
    steps = recurrent_steps(spec, 5)
    for k in range(x.shape[1]):
        y = steps.step(x[:, k])
    # float32 against float64: 24 steps of sums of some tens of products of values of about 1.
    np.testing.assert_allclose(y, float_reference.run(spec, x), atol=1e-5)
    states = 2 if cell == "lstm" else 1
    assert steps.state_bytes == 5 * states * 4 * shape_for(cell, 7, 1).size


def test_a_filled_cache_holds_what_was_seen_over_and_over() -> None:
    steps = transformer(DIGITS)
    x = kept_data(DIGITS, "test")[0][:1]
    for k in range(10):
        steps.step(x[:, k])
    seen = steps.cache[..., :10, :].copy()
    steps.fill(1234)
    np.testing.assert_array_equal(steps.cache[..., 1220:1230, :], seen)
    assert steps.state_bytes == 1234 * BLOCKS * 2 * HEADS * (WIDTH // HEADS) * 4
    assert np.isfinite(steps.step(x[:, 10])).all()
    assert steps.length == 1235


def test_only_the_first_digit_is_marked_and_it_is_asked_for() -> None:
    images = np.random.default_rng(0).random((4, 8, 8)).astype(np.float32)
    first = np.array([2, 0])
    x = marked_digits(images, first, OTHERS, np.random.default_rng(1))
    assert x.shape == (2, DIGITS.steps, DIGITS.inputs)
    np.testing.assert_array_equal(x[:, :8, :8], images[first])
    np.testing.assert_array_equal(x[:, :, 8], np.arange(DIGITS.steps)[None] < 8 * np.ones((2, 1)))
    assert DIGITS.steps - 8 > 200


def test_scores_are_shares_and_degrees() -> None:
    assert score(DIGITS, np.eye(10)[[1, 2, 3]], np.array([1, 2, 4]), 1.0) == pytest.approx(2 / 3)
    assert score(WEATHER, np.zeros((2, 1)), np.array([[1.0], [-2.0]]), 10.0) == 15.0


def test_only_attention_takes_more_products_as_the_sequence_grows() -> None:
    for cell in CELLS:
        shape = shape_for(cell, DIGITS.inputs, DIGITS.outputs)
        more = shape.products(1000) - shape.products(999)
        assert more == (BLOCKS * 2 * WIDTH if cell == "transformer" else 0)
    # 4 gates of 32 rows over 9 inputs and 32 states; 10 outputs.
    assert Shape("lstm", 9, 10, 32).products(0) == 4 * 32 * (9 + 32) + 320


def test_state_grows_with_the_sequence_for_attention_alone() -> None:
    x = [row[None] for row in kept_data(DIGITS, "test")[0][0]]
    lstm = recurrent_steps(model_spec(DIGITS, "lstm"))
    chosen = [
        Walker("lstm", "here", lstm.step, x, lambda: lstm.state_bytes),
        TransformerWalker(transformer(DIGITS), x),
    ]
    rows = scaling(chosen, [100, 300], lambda line: None)
    assert [row["state_bytes"] for row in rows] == [[256, 256], [25600, 76800]]
    assert chosen[0].taken >= 300
    assert all(len(row["us"]) == 2 and min(row["us"]) > 0 for row in rows)


def test_gradient_falls_off_as_the_recurrent_weights_say() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")
    spec = importlib.util.spec_from_file_location("train_sequences", FOLDER / "train.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    net = train.new_net(DIGITS, "rnn")
    with torch.no_grad():
        for parameter in net.rnn.parameters():
            parameter.zero_()
        # States stay 0, where tanh has slope 1: each step back halves the gradient.
        net.rnn.weight_hh_l0.copy_(0.5 * torch.eye(66))
    found = dict(train.fall_off(net, "rnn"))
    for distance, ratio in found.items():
        if distance <= 100:  # 2**-100 is far above what float32 can hold
            assert ratio == pytest.approx(0.5 ** (distance - 1), rel=1e-5)


# What is said.


def _document() -> dict[str, Any]:
    shares = {"lstm": 0.9, "gru": 0.95, "rnn": 0.5, "transformer": 0.97}
    gradients = {"default": [[100, 1e-9]], "prepared": [[100, 0.5]], "trained": [[100, 0.25]]}
    for points in gradients.values():
        points += [[d, 0.1] for d in (1, 10, 20, 40, 200)]
    models = [
        {
            "task": task.name,
            "cell": cell,
            "size": 32,
            "parameters": 5000,
            "items": 500,
            "scores": {"float32": shares[cell], "int8 edge": shares[cell]},
            "seeds": [0.25, 0.75],
            "gradients": gradients if task is DIGITS and cell != "transformer" else {},
        }
        for task in TASKS.values()
        for cell in CELLS
    ]
    costs = {"lstm": ([10.0, 11.0], [256, 256]), "transformer": ([100.0, 9000.0], [25600, 256000])}
    scaling_rows = [
        {"cell": cell, "runtime": "NumPy float32", "us": us, "state_bytes": kept}
        for cell, (us, kept) in costs.items()
    ]
    return {
        "date": "2026-01-02",
        "host": {"cpu": "Some CPU", "cpus": 2, "python": "3", "numpy": "2", "load_average": 0.5},
        "sequence_models": models,
        "distances": [
            {"cell": cell, "steps": [208, 416, 832], "shares": [share, share / 2, share / 4]}
            for cell, share in shares.items()
        ],
        "positions": [100, 1000],
        "products": {cell: [10, 10 if cell == "lstm" else 20] for cell in CELLS},
        "scaling": scaling_rows,
        "picture": "it.png",
    }


def test_claims_are_the_figures() -> None:
    said = claims(_document())
    assert "the digit: Transformer 97.0 % (25.0 to 75.0 over 2 runs), GRU 95.0 %" in said
    assert "±4.4 points" in said  # 1.96 * sqrt(0.5 * 0.5 / 500)
    assert "after 832 steps Transformer 24.2 %, GRU 23.8 %, LSTM 22.5 %, plain RNN 12.5 %" in said
    assert "plain RNN 1e-09, 0.50 and 0.25" in said
    assert "carries 256 bytes" in said
    assert "1.10 times that at the start" in said
    assert "25,600 to 256,000 bytes, its step from 10 to 20 products, its time 90 times" in said
    assert "plain RNN 0.50 °C (0.25 to 0.75 over 2 runs), LSTM 0.90 °C" in said


def test_what_is_kept_is_rendered_and_only_that(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    document = _document()
    keep(document, tmp_path)
    (path,) = (tmp_path / "results").glob("*.json")
    kept = json.loads(path.read_text(encoding="utf8"))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf8")
    assert page.endswith(render([kept]))
    assert (tmp_path / "results" / kept["picture"]).read_bytes().startswith(b"\x89PNG")
    assert f"(results/{kept['picture']})" in page


def test_the_page_in_the_repository_is_that_of_its_results() -> None:
    if not any((results_page.ROOT / "results").glob("sequences-*.json")):
        pytest.skip("no results of sequence models are kept: make sequences")
    text = (results_page.ROOT / "RESULTS.md").read_text(encoding="utf8")
    kept = [
        json.loads(path.read_text(encoding="utf8"))
        for path in sorted((results_page.ROOT / "results").glob("sequences-*.json"))
    ]
    assert render(kept) in text
