"""`make firmware`: its models, its page, and the counts that no change may raise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.errors import MissingTool
from edge_lstm.program import EDGE
from edge_lstm_benchmarks import firmware
from edge_lstm_benchmarks.firmware import COST_PROFILES, FILE, SHAPES, failures
from edge_lstm_benchmarks.firmware_models import (
    MODELS,
    TEST_SEQUENCES,
    lstm_program,
    trained_samples,
)
from edge_lstm_benchmarks.firmware_report import GOALS, best, least, macs, render
from edge_lstm_benchmarks.results_page import ROOT, TITLE
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.simulate import Options

KEPT = ROOT / "results" / FILE


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is built here out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_LSTM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """Give the counts that are kept in the repository."""
    document: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf8"))
    return document


def test_kept_counts_cover_every_core_shape_and_profile(kept: dict[str, Any]) -> None:
    for core in CORES:
        for profile in COST_PROFILES:
            for features, hidden in SHAPES:
                assert best(kept["costs"], core, profile, f"{features}x{hidden}") is not None


def test_no_byte_differs_in_what_is_kept(kept: dict[str, Any]) -> None:
    assert failures(kept) == []
    assert {row["model"] for row in kept["conformance"]} == set(MODELS)
    assert {row["core"] for row in kept["conformance"]} == {"host", *CORES}
    assert sum(row.get("bytes", 0) for row in kept["conformance"]) > 100_000


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.core}-{goal.profile}-{goal.shape}")
def test_goal_is_met_by_what_is_kept(kept: dict[str, Any], goal: Any) -> None:
    row = best(kept["costs"], goal.core, goal.profile, goal.shape)
    assert row is not None
    assert row["instructions"] <= goal.most


@pytest.mark.parametrize("shape", [f"{features}x{hidden}" for features, hidden in SHAPES])
def test_flash_beyond_weights_is_small_in_what_is_kept(kept: dict[str, Any], shape: str) -> None:
    row = least(kept["costs"], shape, "flash", "-Os")
    assert row is not None
    hidden = int(shape.partition("x")[2])
    assert row["flash"] - macs(shape) <= 1000 + 24 * hidden


@pytest.mark.parametrize(("shape", "most"), [("8x16", 130), ("40x128", 650)])
def test_ram_and_stack_are_small_in_what_is_kept(
    kept: dict[str, Any], shape: str, most: int
) -> None:
    row = least(kept["costs"], shape, "memory", "-Os")
    assert row is not None
    assert row["ram"] + row["stack"] <= most


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("profile", COST_PROFILES)
def test_step_takes_no_more_than_what_is_kept(
    kept: dict[str, Any], core: str, profile: str
) -> None:
    """Counts are exact for one version of a compiler, so the tolerance is 0."""
    (row,) = (
        row
        for row in kept["costs"]
        if (row["shape"], row["core"], row["profile"]) == ("8x16", core, profile)
        and (row["compiler"], row["optimization"]) == ("zig", "-O3")
    )
    try:
        found = firmware._measure(lstm_program(8, 16, profile), core, Options("zig", "-O3"))
    except MissingTool as missing:
        pytest.skip(str(missing))
    if found.compiler != row["built_by"]:
        pytest.skip(f"built by {found.compiler}; the counts are of {row['built_by']}")
    assert found.differing_bytes == 0
    assert found.instructions_per_step <= row["instructions"]
    assert found.footprint.ram_bytes + found.stack_bytes <= row["ram"] + row["stack"]
    assert found.footprint.flash.total <= row["flash"]


def test_page_shows_what_is_kept(kept: dict[str, Any]) -> None:
    page = render([kept])
    assert page in (ROOT / "RESULTS.md").read_text(encoding="utf8")
    for core in CORES:
        assert f"| {core} |" in page
    for name in MODELS:
        assert f"| {name} | {EDGE} |" in page


def _document() -> dict[str, Any]:
    row = {
        "shape": "8x16", "profile": "edge", "core": "cortex-m4", "compiler": "zig",
        "optimization": "-Os", "instructions": 2400, "cycles": 3000.0, "code": 500,
        "constants": 2400, "flash": 2900, "ram": 80, "stack": 44, "differing_bytes": 0,
        "built_by": "zig 1.2.3 -Os", "run_by": "unicorn 4.5",
    }  # fmt: skip
    other = {**row, "optimization": "-O3", "instructions": 2500, "flash": 3000}
    skipped = {key: row[key] for key in ("shape", "profile", "compiler", "optimization")}
    ran = {
        "model": "LSTM", "profile": "edge", "core": "cortex-m4", "emulator": "unicorn",
        "steps": 4, "bytes": 64, "differing_bytes": 0, "selftest_passed": True,
    }  # fmt: skip
    return {
        "date": "2026-01-02",
        "costs": [row, other, {**skipped, "core": "rv32imc", "skipped_reason": "no gcc"}],
        "conformance": [ran],
    }


def test_page_says_which_goals_are_met() -> None:
    document = _document()
    page = render([document])
    assert "| cortex-m4 | 2,400 (1.56) | 3,000 | zig -Os |" in page
    assert "| rv32imc | - | - | - |" in page
    assert "| cortex-m4, edge, 8x16: instructions | 2,400 | 2,450 | met |" in page
    assert "| cortex-m4, edge, 8x16: flash beyond weights | 1,364 | 1,384 | met |" in page
    assert "| cortex-m4, edge, 8x16: RAM and stack | 124 | 130 | met |" in page
    assert "Measured 2026-01-02 with zig 1.2.3, unicorn 4.5." in page
    for row in document["costs"][:2]:
        row["instructions"] += 100
    assert "| 2,500 | 2,450 | **missed** |" in render([document])


def test_page_says_where_bytes_differ_and_where_nothing_ran() -> None:
    document = _document()
    (ran,) = document["conformance"]
    document["conformance"] += [
        {**ran, "core": "host", "emulator": "none"},
        {**ran, "core": "rv32imc", "differing_bytes": 2},
        {**ran, "profile": "tflm"},
        {key: ran[key] for key in ("model", "profile", "emulator")}
        | {"core": "cortex-m3", "skipped_reason": "no compiler"},
    ]
    page = render([document])
    assert "| model | profile | unicorn, 3 cores | this machine |" in page
    assert (
        "| LSTM | edge | 2 of 128; **differ on rv32imc**; not run on cortex-m3 | 0 of 64 |" in page
    )
    assert "Places: this machine; cortex-m4, rv32imc, cortex-m3 in unicorn." in page


def test_trained_models_are_run_on_test_data() -> None:
    for model in MODELS:
        samples = trained_samples(model)
        if model.startswith(("weather", "digits")):
            assert samples is not None
            assert len(samples.x) == TEST_SEQUENCES
        else:
            assert samples is None


def test_wrong_bytes_and_failed_selftests_are_failures() -> None:
    document = _document()
    assert failures(document) == []
    document["costs"][0]["differing_bytes"] = 3
    document["conformance"][0]["selftest_passed"] = False
    assert failures(document) == [
        "8x16 edge cortex-m4: 3 bytes differ",
        "LSTM edge cortex-m4: 0 bytes differ, and the package's own test fails",
    ]


def test_command_keeps_its_results_and_renders_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firmware, "SHAPES", ((3, 4),))
    monkeypatch.setattr(firmware, "MODELS", {"RNN": MODELS["RNN"]})
    monkeypatch.setattr(firmware, "EXACT_PROFILES", ("litert",))
    one = ["--workers", "1", "--cores", "cortex-m4"]
    assert firmware.main([*one, "--folder", str(tmp_path)]) == 0
    path = tmp_path / "results" / FILE
    document = json.loads(path.read_text(encoding="utf8"))
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf8") == f"{TITLE}\n{render([document])}"
    assert {row["profile"] for row in document["conformance"]} == {EDGE}
    assert {(row["core"], row["emulator"]) for row in document["conformance"]} == {
        ("host", "none"), ("cortex-m4", "unicorn"), ("cortex-m4", "qemu"),
    }  # fmt: skip
    monkeypatch.setattr(firmware, "COST_PROFILES", (EDGE,))
    assert firmware.main([*one, "--only", "costs", "--folder", str(tmp_path)]) == 0
    again = json.loads(path.read_text(encoding="utf8"))
    assert again["conformance"] == document["conformance"]
    assert again["costs"] == [row for row in document["costs"] if row["profile"] != "tflm"]
    assert firmware.main([*one, "--quick", "--folder", str(tmp_path / "2")]) == 0
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cores", "z80"], "core 'z80': unknown; there are cortex-m0plus"),
        (["--only", "costs", "--folder", "nowhere"], "nothing is kept in nowhere yet"),
    ],
)
def test_wrong_option_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit):
        firmware.main(arguments)
    assert words in capsys.readouterr().err
