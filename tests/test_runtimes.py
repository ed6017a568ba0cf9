"""The benchmark of the NumPy runtimes: what it compares, its goals, and what it writes."""

from __future__ import annotations

import copy
import json
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.backend import CallShape
from edge_lstm_benchmarks import bytes_bound, native_costs, open_backend
from edge_lstm_benchmarks.remote import Worker, load_session
from edge_lstm_benchmarks.runtimes import (
    MODES,
    PEERS,
    SHAPES,
    Contestant,
    Options,
    main,
    measure,
    merged,
    random_model,
)
from edge_lstm_benchmarks.runtimes_report import GOALS, TITLES, render

SHORT = Options(rounds=2, least_rounds=1, slice_ms=0.5, warm_ms=0.1, cap_s=5.0)
OURS = ["numpy-int8:litert", "numpy-float"]


@pytest.fixture
def contestants() -> Iterator[list[Contestant]]:
    made = [Contestant(name, SHORT) for name in OURS]
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize("mode", ["stream", "T100", "batch32"])
def test_a_run_has_figures_and_no_wrong_byte(contestants: list[Contestant], mode: str) -> None:
    found = measure(contestants, "8x16", mode, SHORT)
    for row in found["peers"].values():
        assert 0 < row["us_least"] <= row["us_per_step"] <= row["us_greatest"] < 10_000
        assert row["rounds"] == 2
    assert found["peers"]["numpy-int8:litert"]["differing_bytes"] == 0
    # float32 rounds sums of some tens of products of values below 1 by 2**-24 each.
    assert found["peers"]["numpy-float"]["max_error"] < 1e-5


def test_a_wrong_output_is_seen(contestants: list[Contestant]) -> None:
    integers, floats = contestants
    model, mode = random_model("8x16"), MODES["T100"]
    x = np.random.default_rng(1).normal(size=(2, 1, 100, 8)).astype(np.float32)
    assert model.program is not None
    y = model.program.with_profile("litert").predict(model.program.input_tensor.quantize(x[0]))
    right = integers._judge(model, mode, x, y[None])
    wrong = y[None].copy()
    wrong[0, 0, 50, 3] ^= 1
    seen = integers._judge(model, mode, x, wrong)
    assert (right["differing_bytes"], seen["differing_bytes"]) == (0, 1)
    assert right["checksum"] != seen["checksum"]
    assert floats._judge(model, mode, x, np.ones((1, 1, 100, 16)))["max_error"] > 0.5


def test_models_are_the_same_every_time() -> None:
    random_model.cache_clear()
    first = random_model("16x32").program
    random_model.cache_clear()
    second = random_model("16x32").program
    assert first is not None
    assert second is not None
    assert first.fingerprint() == second.fingerprint()


def test_other_ways_to_call_an_engine_give_the_same_outputs() -> None:
    """LiteRT fed time-major, and onnxruntime through session.run."""
    model = random_model("40x64x2")
    assert model.program is not None
    x = np.random.default_rng(2).normal(size=(2, 3, 40)).astype(np.float32)
    for first, second, fed in (
        ("litert", "litert-time-major", model.program.input_tensor.quantize(x)),
        ("onnxruntime", "onnxruntime-run", x),
    ):
        outputs = []
        for name in (first, second):
            peer = PEERS[name]
            backend = open_backend(peer.backend, peer.target)
            if (reason := backend.available()) is not None:
                pytest.skip(reason)
            worker = Worker(peer.backend, backend, None, 60.0, peer.target)
            shape = CallShape(2, 3 if name.startswith("litert") else 1, True)
            session = load_session(worker, backend, model, shape, "it")[0]
            y = session.run(fed.swapaxes(0, 1) if peer.time_major else fed)
            outputs.append(y.swapaxes(0, 1) if peer.time_major else y)
            worker.close()
        np.testing.assert_array_equal(outputs[0], outputs[1])


def run_of(shape: str, mode: str, **us: float) -> dict[str, Any]:
    peers = {name.replace("_", "-"): {"us_per_step": value} for name, value in us.items()}
    peers["numpy-int8:litert"] = peers.pop("int8")
    return {"shape": shape, "mode": mode, "peers": peers}


def test_a_goal_is_the_ratio_to_the_fastest_of_its_peers() -> None:
    run = run_of("64x256", "batch32", int8=10.0, litert=50.0, litert_time_major=40.0)
    batch = next(goal for goal in GOALS if "batch32" in goal.modes)
    assert (batch.target(run), batch.ratio(run)) == (3, 4.0)
    del run["peers"]["litert"]["us_per_step"]
    assert batch.ratio(run) == 4.0
    del run["peers"]["numpy-int8:litert"]
    assert batch.ratio(run) is None
    sequence = next(goal for goal in GOALS if "T1000" in goal.modes)
    targets = [sequence.target({"shape": s, "mode": "T1000"}) for s in SHAPES]
    assert targets == [1.5, 1.5, 1.5, 1.5, 3, 1.5, 1.5]
    assert sequence.target(run) is None


def test_the_page_says_how_near_the_bound_a_step_is() -> None:
    bounds = [
        {"shape": "40x64", "weight_bytes": 26624, "bound_us": 0.1, "step_us": 0.25},
        {"shape": "40x256x3", "weight_bytes": 1339392, "bound_us": 8.0, "step_us": 14.0},
    ]
    host = {"cpu": "Some CPU", "cpus": 2, "architecture": "x", "system": "y"}
    host |= {"python": "3", "numpy": "2"}
    page = render([{"date": "2026-01-01", "host": host, "runs": [], "bounds": bounds}])
    assert "| 40x64 | 26,624 | 0.1 | 0.25 | 2.50 (3: met) |" in page
    assert "| 40x256x3 | 1,339,392 | 8 | 14 | 1.75 (1.5: **missed**) |" in page


def test_the_page_says_how_native_code_starts_and_what_threads_bring() -> None:
    bounds = [
        {
            "shape": "40x64",
            "weight_bytes": 26624,
            "bound_us": 0.1,
            "step_us": 0.25,
            "first_step_ms": 12.34,
            "python_alone_ms": 9.0,
            "sequences_per_s": {"1": 1000.0, "16": 15500.0},
        }
    ]
    host = {"cpu": "Some CPU", "cpus": 16, "architecture": "x", "system": "y"}
    host |= {"python": "3", "numpy": "2"}
    page = render([{"date": "2026-01-01", "host": host, "runs": [], "bounds": bounds}])
    assert "| 40x64 | 12.3 (15: met) | 9.0 | 1,000 | 15,500 by 16: 15.50 times |" in page


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc; apt-get install gcc")
def test_starts_and_threads_are_timed(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LSTM_CACHE", str(shared_cache))
    for name, value in (("STARTS", 1), ("ROUNDS", 1), ("SLICE_S", 0.01)):
        monkeypatch.setattr(native_costs, name, value)
    found = native_costs.native_costs("8x16", random_model("8x16").integers("edge"))
    assert found["python_alone_ms"] > 0
    assert found["first_step_ms"] > 0
    assert "1" in found["sequences_per_s"]
    assert all(speed > 0 for speed in found["sequences_per_s"].values())


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc; apt-get install gcc")
def test_reading_the_weights_is_timed_beside_the_step(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_LSTM_CACHE", str(shared_cache))
    monkeypatch.setattr(bytes_bound, "ROUNDS", 3)
    monkeypatch.setattr(bytes_bound, "SLICE_NS", 100_000)
    found = bytes_bound.bound_of("16x32", random_model("16x32").integers("edge"))
    assert found["weight_bytes"] == 4 * 32 * (16 + 32)
    assert 0 < found["bound_us"] < found["step_us"]


def test_the_page_says_met_and_missed() -> None:
    runs = [
        run_of("8x16", "stream", int8=5.0, litert=6.0, onnxruntime=4.0, numpy_float=2.0),
        run_of("40x64", "stream", int8=5.0, litert=6.0, onnxruntime=4.0),
    ]
    host = {"cpu": "Some CPU", "cpus": 2, "architecture": "x", "system": "y"}
    host |= {"python": "3", "numpy": "2"}
    page = render([{"date": "2026-01-01", "host": host, "runs": runs}])
    assert "### Some CPU" in page
    assert "| int8 / LiteRT int8 | 1.20 (1: met) | 1.20 (2.5: **missed**) |" in page
    assert "| int8 / ORT IO binding | 0.80 (1: **missed**) | 0.80 |" in page
    assert "| float / ORT IO binding | 2.00 (2.5: **missed**) | not measured (2.5) |" in page
    assert "differ from the plain profile, over 0 compared runs: none" in page
    runs[1]["peers"]["numpy-int8:litert"]["differing_bytes"] = 7
    page = render([{"date": "2026-01-01", "host": host, "runs": runs}])
    assert "over 1 compared runs: numpy-int8:litert at 40x64 stream: 7" in page


def test_a_second_run_replaces_only_what_it_repeats() -> None:
    old = {"runs": [run_of("16x32", "stream", int8=1.0), run_of("8x16", "stream", int8=1.0)]}
    bounds = [{"shape": "8x16"}]
    new = {"date": "d", "runs": [run_of("16x32", "stream", int8=2.0)], "bounds": bounds}
    both = merged(copy.deepcopy(old), new)
    assert both["bounds"] == bounds
    assert [r["shape"] for r in both["runs"]] == ["8x16", "16x32"]
    assert both["runs"][1] == new["runs"][0]
    assert set(TITLES) == set(MODES)


def test_the_command_keeps_results_by_processor_and_no_name_of_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = ["--peers", ",".join(OURS), "--folder", str(tmp_path)]
    assert main(["--quick", "--modes", "stream", *peers]) == 0
    assert list(tmp_path.iterdir()) == []
    assert "8x16 stream, us/step: numpy-int8:litert" in capsys.readouterr().out
    given = ["--shapes", "8x16", "--modes", "stream", "--rounds", "1", *peers]
    assert main(given) == 0
    (kept,) = (tmp_path / "results").iterdir()
    data = json.loads(kept.read_text(encoding="utf8"))
    assert data["runs"][0]["peers"]["numpy-float"]["rounds"] == 1
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf8")
    assert data["host"]["cpu"] in page
    name = platform.node()
    assert len(name) < 4 or name not in page + kept.read_text(encoding="utf8")
    (tmp_path / "RESULTS.md").write_text("old", encoding="utf8")
    assert main(["--render", "--folder", str(tmp_path)]) == 0
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf8") == page


@pytest.mark.parametrize("option", ["--shapes", "--modes", "--peers"])
def test_unknown_names_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([option, "nothing"])
    assert refused.value.code == 2
    assert "'nothing': unknown; give some of" in capsys.readouterr().err
