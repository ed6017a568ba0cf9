"""`make gpu`: where a GPU overtakes, drawn and said; without one, why there is no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_lstm_benchmarks import gpu
from edge_lstm_benchmarks.gpu_report import GPU, overtakes, render
from edge_lstm_benchmarks.picture_gpu import gpu_png
from edge_lstm_benchmarks.runtimes import Contestant, Options, Peer

SHORT = Options(rounds=1, least_rounds=1, slice_ms=0.5, warm_ms=0.0, cap_s=5.0)


def document(*pairs: tuple[float, float]) -> dict[str, Any]:
    rows = [
        {"batch": 2**k, "us_per_call": {"c-host:edge": cpu, "torch-cuda": there}, "skipped": {}}
        for k, (cpu, there) in enumerate(pairs)
    ]
    return {"host": {"cpu": "Some CPU"}, "shape": "40x128", "gpu_batches": rows}


def test_gpu_overtakes_from_the_batch_after_which_it_stays_faster() -> None:
    assert overtakes(document((1, 50), (60, 50), (40, 50), (80, 60), (160, 70))) == 8
    assert overtakes(document((1, 50), (2, 50))) is None
    assert overtakes(document((60, 50), (70, 50))) == 1


def test_page_says_who_is_faster() -> None:
    page = render([document((90, 5000), (80000, 6000))])
    assert "Some CPU, 40x128, 100 steps: from 2 rows on the GPU" in page
    assert "| 2 | 80,000 | 6,000 |" in page
    assert "the CPU is faster throughout" in render([document((1, 2))])


def test_picture_is_drawn() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    assert gpu_png(document((90, 5000), (80000, 6000))).startswith(b"\x89PNG\r\n")


def test_rows_that_run_are_timed_and_others_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SHAPE", "8x16")
    monkeypatch.setattr(gpu, "CPU", ("numpy-float",))
    (row,) = gpu.run((2,), SHORT)["gpu_batches"]
    assert row["batch"] == 2
    assert set(row["us_per_call"]) | set(row["skipped"]) == {"numpy-float", *GPU}
    assert row["us_per_call"]["numpy-float"] > 0


def test_without_a_gpu_nothing_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not all(Contestant(name, SHORT, Peer(name)).absent for name in GPU):
        pytest.skip("this machine has a GPU")
    assert gpu.main(["--folder", str(tmp_path)]) == gpu.NO_GPU
    said = capsys.readouterr().err
    assert all(f"{name}: " in said for name in GPU)
    assert list(tmp_path.iterdir()) == []
