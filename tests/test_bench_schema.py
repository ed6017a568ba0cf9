"""What `bench --json` prints is what its JSON Schema says, and the schema finds what is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_lstm_benchmarks
from edge_lstm import cli
from edge_lstm.report import SCHEMA
from edge_lstm_benchmarks import BACKENDS

jsonschema = pytest.importorskip(
    "jsonschema", reason="jsonschema not found: pip install jsonschema"
)
PACKAGE = Path(str(edge_lstm_benchmarks.__file__)).parent
WEATHER = PACKAGE / "models" / "weather"
RULES: dict[str, Any] = json.loads((PACKAGE / "bench.schema.json").read_text(encoding="utf8"))
VALIDATOR = jsonschema.Draft202012Validator(RULES)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give the document of a run with a row that ran, a row in float and one that crashed."""
    pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")
    backends = "numpy-float,segfaults,wrong,counts"
    arguments = ["bench", WEATHER / "model.pt", "--layers", WEATHER / "layers.toml"]
    few = tmp_path_factory.mktemp("bench") / "few.npz"
    with np.load(WEATHER / "test.npz") as data:
        np.savez(few, x=data["x"][:40], y=data["y"][:40])
    arguments += ["--calib", WEATHER / "calibration.npz", "--data", few]
    arguments += ["--backends", backends, "--frame-ms", "3600000", "--seconds", "1", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        rows = BACKENDS | dict.fromkeys(
            ("segfaults", "wrong", "counts"), "planted_backends:Planted"
        )
        patch.setattr(edge_lstm_benchmarks, "BACKENDS", rows)
        patch.setattr("edge_lstm_benchmarks.remote.BACKENDS", rows)
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text="", **_: printed.append(text))
        code = cli.run([str(argument) for argument in arguments])
    assert code == 1, printed  # the wrong one's bytes differ
    found: dict[str, Any] = json.loads(printed[0])
    return found


def complaints(document: dict[str, Any]) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in VALIDATOR.iter_errors(document)]


def test_schema_is_a_schema_of_this_version() -> None:
    jsonschema.Draft202012Validator.check_schema(RULES)
    assert RULES["properties"]["schema"]["const"] == SCHEMA


def test_real_output_is_what_the_schema_says(document: dict[str, Any]) -> None:
    assert complaints(document) == []
    ran = [r for r in document["results"] if r["latency_us"] is not None]
    assert [r["backend"] for r in ran] == ["numpy-float", "wrong"]
    for result in ran:
        for field in ("latency_us", "timing", "cold_start", "accuracy", "fidelity", "real_time"):
            assert result[field] is not None, field
    (counted,) = [r for r in document["results"] if r["counted"] is not None]
    assert (counted["backend"], counted["sequences"]) == ("counts", 5)
    assert document["models"][0]["analysis"]["signals"]
    assert document["command"].startswith("edge-lstm bench ")


def of_first(field: str, value: object) -> Callable[[dict[str, Any]], None]:
    def spoil(document: dict[str, Any]) -> None:
        result = next(r for r in document["results"] if r["skipped_reason"] is None)
        result[field] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda d: d.pop("host"), "'host' is a required property"),
        (lambda d: d.update(schema="edge-lstm.bench/2"), "$.schema"),
        (of_first("latency_us", None), "is not valid under any of the given schemas"),
        (of_first("latency_us", {"min": 1, "p50": 1, "p90": 1, "p99": 1}), "latency_us"),
        (of_first("output_checksum", "f60cd0"), "output_checksum"),
        (of_first("scenario", "batch:0"), "scenario"),
        (of_first("skipped_reason", "gone"), "latency_us"),
        (of_first("speed", 1), "speed"),
        (lambda d: d["models"][0]["analysis"]["signals"][0].pop("snr_db"), "analysis"),
    ],
)
def test_schema_finds_what_is_not_as_it_says(
    document: dict[str, Any], spoil: Callable[[dict[str, Any]], None], where: str
) -> None:
    spoiled = copy.deepcopy(document)
    spoil(spoiled)
    assert any(where in complaint for complaint in complaints(spoiled))
