"""A long stream: its snapshots, what is compared, and what the page says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.arrays import I32
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import Embedding, Gate, Lstm
from edge_lstm.errors import MissingTool
from edge_lstm.program import Program
from edge_lstm.quantize import quantize
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_benchmarks import streams
from edge_lstm_benchmarks.book import book_tokens
from edge_lstm_benchmarks.streams_report import render

TOKENS, FEATURES, HIDDEN = 20, 6, 8


@pytest.fixture(scope="module")
def tokens() -> I32:
    return np.random.default_rng(0).integers(0, TOKENS, 4400).astype(np.int32)


@pytest.fixture(scope="module", params=["edge", "tflm"])
def program(request: pytest.FixtureRequest, tokens: I32) -> Program:
    rng = np.random.default_rng(1)

    def random(*shape: int) -> Any:
        return rng.normal(0, 0.5, shape).astype(np.float32)

    def gate(features: int) -> Gate:
        return Gate(random(HIDDEN, features), random(HIDDEN, HIDDEN), random(HIDDEN))

    layers = (
        Embedding("embedding", random(TOKENS, FEATURES)),
        Lstm("lstm", (gate(FEATURES), gate(FEATURES), gate(FEATURES), gate(FEATURES))),
    )
    spec = ModelSpec("small", Signal("tokens", TOKENS), layers)
    return quantize(spec, calibrate(spec, tokens[None, :500]), request.param)


def test_a_snapshot_is_restored_as_rows_and_goes_on_with_the_same_bytes(
    program: Program, tokens: I32
) -> None:
    session = program.session()
    session.run(tokens[None, :100])
    early = streams.snapshot(session.state)
    session.run(tokens[None, 100:300])
    late = streams.snapshot(session.state)
    want = session.run(tokens[None, 300:350])
    both = program.session(2)
    both.state = streams.restored([early, late])
    np.testing.assert_array_equal(both.run(np.stack([tokens[100:150], tokens[300:350]]))[1:], want)
    assert streams.snapshot(session.state) != late


@pytest.mark.parametrize(("characters", "rows"), [(4_137_452, 44), (64, 64), (7, 7), (127, 1)])
def test_stretches_are_of_one_length(characters: int, rows: int) -> None:
    assert streams.equal_stretches(characters) == rows


def test_a_stream_has_the_same_bytes_however_it_is_read(
    program: Program, tokens: I32, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHUNK", 32)
    monkeypatch.setattr(streams, "STEPPED", 5)
    said: list[str] = []
    try:
        run = streams.stream_book(program, tokens, said.append)
    except MissingTool as missing:
        pytest.skip(str(missing))
    assert streams.failures({"streams": [run]}) == []
    assert run["stretches"] == 55
    assert run["state_bytes"] == 3 * HIDDEN  # int8 hidden, int16 cell
    for row in run["restored"].values():
        assert row["compared_bytes"] == len(tokens) * HIDDEN
    assert run["unbroken"][-1]["stop"] == len(tokens)
    # A chunk's output is 256 bytes; the loops hold some buffers of its size.
    assert max(call["traced_peak_bytes"]["numpy"] for call in run["calls"]) < 100_000
    assert said


def test_memory_of_the_process_grows_with_what_it_holds() -> None:
    before = streams.resident_bytes()
    if before is None:
        pytest.skip("this system does not say what a process holds: no /proc/self/status")
    held = np.ones(1 << 23)  # 64 MiB, written to
    after = streams.resident_bytes()
    assert after is not None
    # Other memory may be given back meanwhile: half is enough to tell.
    assert after - before > held.nbytes / 2


def test_a_wrong_snapshot_and_a_wrong_byte_are_seen(program: Program, tokens: I32) -> None:
    stretches = tokens.reshape(44, -1)
    snapshots, rows = streams.unbroken(program.session(), stretches, lambda line: None)
    want = [row["sha256"] for row in rows]
    state = streams.restored([snapshots[7]])
    state["lstm.cell"] = state["lstm.cell"] + np.int16(9999)
    broken = [*snapshots[:7], streams.snapshot(state), *snapshots[8:]]
    found = {
        name: streams.side_by_side(
            {"numpy": program.session(44)}, stretches, given, hashes, lambda line: None
        )["numpy"]
        for name, given, hashes in (
            ("right", snapshots, want),
            ("snapshot", broken, want),
            ("bytes", snapshots, ["0", *want[1:]]),
        )
    }
    unlike = {name: row["stretches_unlike_unbroken"] for name, row in found.items()}
    assert unlike == {"right": 0, "snapshot": 1, "bytes": 1}
    # The stretch before the broken one ends in what was saved, and not in that.
    assert found["right"]["ends_unlike_unbroken"] == 0
    assert found["snapshot"]["ends_unlike_unbroken"] >= 1


def test_letters_that_the_model_never_met_are_padding() -> None:
    try:
        ids = book_tokens("ab a☃")
    except MissingTool as missing:
        pytest.skip(str(missing))
    assert ids[0] == ids[3] != ids[1]
    assert (ids[:4] > 0).all()
    assert ids[4] == 0


def _document() -> dict[str, Any]:
    restored = {
        "compared_bytes": 1000,
        "differing_bytes": 0,
        "stretches_unlike_unbroken": 0,
        "ends_unlike_unbroken": 0,
    }
    run = {
        "profile": "edge",
        "stretches": 2,
        "state_bytes": 768,
        "unbroken": [
            {"stop": stop, "us_per_character": 2.0, "sha256": "", "snapshot_bytes": 2000}
            | {"resident_bytes": mib * 2**20}
            for stop, mib in ((50, 100), (100, 101))
        ],
        "calls": [
            {"first": first, "differing_bytes": 0}
            | {"us": {"numpy": 40.0 + first, "native": 3.0}}
            | {"traced_peak_bytes": {"numpy": 2048, "native": 1024}}
            for first in (0, 50)
        ],
        "restored": {"numpy": dict(restored), "native": dict(restored)},
    }
    return {
        "date": "2026-01-02",
        "host": {"cpu": "Some CPU", "cpus": 2, "python": "3", "numpy": "2", "load_average": 0.5},
        "book": "a book",
        "characters": 100,
        "unknown_characters": 0,
        "chunk": 32,
        "stepped": 5,
        "streams": [run],
    }


def test_the_page_says_what_was_kept(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    streams.keep(_document(), tmp_path)
    (path,) = (tmp_path / "results").glob("*.json")
    kept = json.loads(path.read_text(encoding="utf8"))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf8")
    assert page.endswith(render([kept]))
    assert "| NumPy, restored: stretches unlike the unbroken stream | 0 of 2 |" in page
    assert "| NumPy: µs a character, median over the book | 65.0 |" in page
    assert (
        "| native code: memory of the process, MiB, first and last stretch | 100.0 and 101.0 |"
        in page
    )
    assert (tmp_path / "results" / kept["picture"]).read_bytes().startswith(b"\x89PNG")


def test_a_profile_that_was_not_run_again_stays(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib not found: pip install matplotlib")
    first, second = _document(), _document()
    second["streams"][0]["profile"] = "tflm"
    streams.keep(first, tmp_path)
    streams.keep(second, tmp_path)
    (path,) = (tmp_path / "results").glob("*.json")
    kept = json.loads(path.read_text(encoding="utf8"))
    assert [run["profile"] for run in kept["streams"]] == ["edge", "tflm"]


def test_whatever_differs_is_a_failure() -> None:
    document = _document()
    assert streams.failures(document) == []
    document["streams"][0]["restored"]["native"]["differing_bytes"] = 3
    document["streams"][0]["restored"]["numpy"]["ends_unlike_unbroken"] = 1
    document["streams"][0]["calls"][1]["differing_bytes"] = 2
    assert streams.failures(document) == [
        "edge, numpy: ends unlike unbroken: 1",
        "edge, native: differing bytes: 3",
        "edge: single steps: differing bytes: 2",
    ]
