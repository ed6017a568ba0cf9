"""`verify`: that it passes where everything is right, and that it cannot where something is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_lstm
import edge_lstm_benchmarks
import interpreters
from edge_lstm import cli, fixed_point
from edge_lstm.arrays import Array
from edge_lstm.cells import DenseOp, LstmOp
from edge_lstm.cells.lstm_integer import LstmKernel
from edge_lstm.fixed_point import Factor
from edge_lstm.program import PROFILES, Program
from edge_lstm.program_file import program_bytes
from edge_lstm.samples import Samples
from edge_lstm_benchmarks import BACKENDS
from edge_lstm_benchmarks.backends.litert import LiteRt
from edge_lstm_benchmarks.backends.tflm import Tflm
from edge_lstm_benchmarks.verify import VerifyOptions, run_verify, verify_program
from edge_lstm_benchmarks.verify_difference import cut_after, difference_lines, trace_lstm
from edge_lstm_benchmarks.verify_files import compare_models
from edge_lstm_benchmarks.verify_inputs import Form, forms_of, generated_inputs
from edge_lstm_benchmarks.verify_report import SCHEMA, VerifyReport
from edge_lstm_benchmarks.verify_runners import NumpyRunner
from edge_lstm_converters.write_tflite import tflite_bytes
from strategies import random_program, random_spec

pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")

GOLDEN = Path(__file__).parent / "golden"
WEATHER = Path(edge_lstm_benchmarks.__file__).parent / "models" / "weather"
COMPILED = ("stack2_T16_I8_H12_O3",)
"""Compiled too; tests/test_native.py has more."""
ENGINES = ("litert", "litert-ref", "tflm", "tflite-runtime")
PLANTED = ("right", "wrong", "missing", "segfaults", "raises")

Cli = Callable[..., tuple[int, str, str]]


def golden(name: str) -> Path:
    return GOLDEN / name / "model.tflite"


def installed(*names: str) -> list[str]:
    return [name for name in names if interpreters.missing(name) is None]


def needs(name: str) -> None:
    if reason := interpreters.missing(name):
        pytest.skip(reason)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Give a function that runs the command here; it returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add backends that misbehave to the table."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    rows = BACKENDS | dict.fromkeys(PLANTED, "planted_backends:Planted")
    for module in ("", ".remote", ".verify_runners"):
        monkeypatch.setattr(f"edge_lstm_benchmarks{module}.BACKENDS", rows)


@pytest.fixture
def plain_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the NumPy runtime use its plain LSTM and Dense, so that a mutation reaches them."""
    monkeypatch.setattr("edge_lstm.cells.lstm_tables.shared_tables", lambda op, program: None)
    monkeypatch.setattr("edge_lstm.cells.dense.DenseKernel._step_tape", lambda self, *_: None)


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the weather model in every format."""
    folder = tmp_path_factory.mktemp("weather")
    arguments = ["convert", WEATHER / "model.pt", "--layers", WEATHER / "layers.toml"]
    arguments += ["-o", folder, "--calib", WEATHER / "calibration.npz", "--name", "weather"]
    arguments += ["--to", "tflite,elstm"]
    assert cli.run([str(a) for a in arguments]) == 0
    return folder


def cell(report: VerifyReport, first: str, second: str) -> tuple[int, int] | None:
    names = [record.name for record in report.runners]
    return report.matrix[names.index(first)][names.index(second)]


# What is equal


@pytest.mark.parametrize(
    "name",
    [
        "batch3_T6_I5_H9_O0",
        "flat_T10_I3_H8_O4",
        "hand_quirk_cell16",
        "hand_straddle_fc",
        "softmax_T20_I5_H20_O6",
        "stack2_T16_I8_H12_O3",
        "tf_bidirectional_stack",
        "tf_words",
        "tfliteonly_peephole",
        "timemajor_T8_I4_H10_O0",
        "tflmonly_16x8",
    ],
)
def test_golden_files_are_equal_in_every_interpreter_that_takes_them(name: str) -> None:
    takes = ["tflm"] if name.startswith("tflmonly") else list(ENGINES)
    if name.startswith("tfliteonly"):
        takes.remove("tflm")
    report = run_verify(
        golden(name), VerifyOptions([*ENGINES, "c"] if name in COMPILED else list(ENGINES))
    )
    assert report.passed
    assert report.differences == ()
    assert {c.want_from for c in report.checks if c.kind == "c" and c.bytes} == (
        {f"c {profile}" for profile in PROFILES} if name in COMPILED else set()
    )
    held = {c.want_from for c in report.checks if c.kind == "interpreter" and c.bytes}
    assert held == set(installed(*takes))
    assert report.interpreters_held == len(held)


def test_interpreters_run_the_very_file_and_give_its_golden_outputs() -> None:
    needs("litert")
    name = "hand_batch_timemajor"
    with np.load(GOLDEN / name / "vectors.npz") as vectors:
        x, reset, want = vectors["x"], vectors["reset"], vectors["y_litert"]
    first = int(np.flatnonzero(reset)[1]) if reset[1:].any() else len(x)
    program = edge_lstm.load(golden(name), "litert")
    # The file is [time, batch, features]; verify takes [sequences, steps, features].
    rows = x[:first].transpose(2, 0, 1, 3).reshape(x.shape[2], -1, x.shape[3])
    report = verify_program(
        name, program, golden(name).read_bytes(), Samples(rows, where="golden"), ["litert"]
    )
    assert report.passed
    assert report.forms[0].data is not None
    runner = NumpyRunner("litert")
    found = runner.outputs(program, report.forms[0], report.forms[0].batches(report.inputs))
    got = np.stack([found[row] for row in range(len(rows))])
    np.testing.assert_array_equal(got, want[:first].transpose(2, 0, 1, 3).reshape(got.shape))


def test_converted_model_passes_and_says_who_equals_whom(command: Cli, weather: Path) -> None:
    code, out, err = command("verify", weather / "weather_int8.tflite")
    assert (code, err) == (0, "")
    assert "called as file: 1 row, 24 steps a call" in out
    assert "called as steps: 1 row, 1 step a call" in out
    assert "equal: step by step = whole calls, under" in out
    engines = installed(*ENGINES)
    for name in engines:
        assert f"equal: numpy {name} = {name}: 0 of 900 bytes differ" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("Passed" if engines else "Nothing proven")


def test_user_data_of_different_lengths_is_run_whole_and_step_by_step(
    weather: Path, tmp_path: Path
) -> None:
    x = np.load(WEATHER / "test.npz")["x"][:6]
    data = tmp_path / "data.npz"
    np.savez(data, x=x, lengths=np.array([24, 24, 7, 24, 24, 1]))
    options = VerifyOptions(installed("litert"), data=data)
    report = run_verify(weather / "weather_int8.tflite", options)
    assert report.passed
    # One output byte a call: four whole windows, and every single step.
    assert cell(report, "numpy tflm", "numpy cmsis-nn") == (0, 4 + 4 * 24 + 7 + 1)


def test_elstm_file_runs_as_whole_sequences_and_as_a_stream(weather: Path) -> None:
    report = run_verify(weather / "weather.elstm", VerifyOptions(installed("litert")))
    assert [str(form) for form in report.forms] == [
        "whole: 1 row, 16 steps a call",
        "steps: 1 row, 1 step a call",
    ]
    assert report.passed


def test_float_model_is_quantized_with_the_calibration_data(command: Cli) -> None:
    arguments = ["--layers", WEATHER / "layers.toml", "--calib", WEATHER / "calibration.npz"]
    code, out, err = command("verify", WEATHER / "model.pt", *arguments)
    assert (code, err) == (0, "")
    assert "model.pt: 12 sequences" in out


def test_generated_inputs_go_to_the_extremes_and_carry_the_state() -> None:
    program = edge_lstm.load(golden("hand_plain"))
    inputs = generated_inputs(program)
    assert inputs.names[:3] == ("all -128", "all 127", "alternating")
    assert (inputs.x[0] == -128).all()
    assert (inputs.x[1] == 127).all()
    assert set(inputs.x[2].reshape(-1).tolist()) == {-128, 127}
    forms = forms_of(program, inputs, golden("hand_plain").read_bytes())
    batch = next(forms[0].batches(inputs))
    assert batch.x.shape[1] == 3 * forms[0].time_steps
    again = generated_inputs(program)
    np.testing.assert_array_equal(inputs.x, again.x)


def test_batches_are_filled_up_with_copies_that_are_not_counted() -> None:
    program = edge_lstm.load(golden("batch3_T6_I5_H9_O0"))
    inputs = generated_inputs(program)
    rows = [batch.rows for batch in Form("file", 5, 6).batches(inputs)]
    assert rows == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11)]
    assert all(len(b.x) == 5 for b in Form("file", 5, 6).batches(inputs))


def test_differences_between_runtimes_are_information_only() -> None:
    report = run_verify(golden("hand_quirk_cell16"), VerifyOptions([]))
    found = cell(report, "numpy tflm", "numpy litert")
    assert found is not None
    assert found[0] > 0
    assert report.passed


def test_profile_option_holds_one_profile_only() -> None:
    needs("tflm")
    options = VerifyOptions(["tflm"], profile="litert")
    report = run_verify(golden("hand_plain"), options)
    assert [check.kind for check in report.checks if check.kind == "interpreter"] == []
    assert report.exit_code == 0
    assert "Nothing proven about interpreters" in report.text()


# What is not


def single_rounding(acc: Array, factor: Factor) -> Array:
    shift = 31 - factor.shift
    rounded: Array = (np.asarray(acc, np.int64) * factor.multiplier + (1 << (shift - 1))) >> shift
    return rounded


@pytest.mark.usefixtures("plain_runtime")
def test_single_rounding_in_the_lstm_fails_and_names_the_first_step(
    monkeypatch: pytest.MonkeyPatch, command: Cli
) -> None:
    needs("tflm")
    name = "last_T12_I6_H16_O5"
    monkeypatch.setattr("edge_lstm.cells.lstm_integer.requantize", single_rounding)
    code, out, err = command("verify", golden(name), "--against", "tflm", "--json")
    assert (code, err) == (1, "")
    document = json.loads(out)
    assert document["passed"] is False
    (difference,) = [d for d in document["differences"] if d["want_from"] == "tflm"]
    origin, place = difference["origin"], difference["origin"]["place"]
    assert (origin["layer"], origin["type"]) == ("lstm", "lstm")

    # The same place, found without verify's code: LSTM alone, TFLM against the mutated kernel.
    program = edge_lstm.load(golden(name), "tflm")
    alone = cut_after(program, program.ops[0])
    inputs = generated_inputs(program)
    x = inputs.x[inputs.names.index(difference["sequence"])]
    steps = document["forms"][0]["time_steps"]
    calls = x.reshape(-1, 1, steps, x.shape[-1])
    reset = np.arange(len(calls)) == 0
    want = interpreters.tflm(tflite_bytes(alone, steps), calls, reset)
    got = alone.session(1).run(x[None])[0]
    step, index = np.argwhere(got != want.reshape(got.shape))[0]
    assert (place["step"], place["index"]) == (step, index)
    assert (place["got"], place["want"]) == (got[step, index], want.reshape(got.shape)[step, index])

    # The gates are those of the mutated kernel.
    inside = origin["inside"]
    seen = trace_lstm(program.ops[0], alone, x[None])[step]  # type: ignore[arg-type]
    for gate in ("input_gate", "forget_gate", "cell_gate", "output_gate"):
        assert inside[gate]["pre_activation"] == seen[gate][0, index]
    assert inside["hidden_state"] == place["got"]


@pytest.mark.usefixtures("plain_runtime")
def test_wrong_rounding_in_the_dense_layer_names_that_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs("tflm")
    monkeypatch.setattr(
        "edge_lstm.cells.dense.requantize", lambda acc, factor: single_rounding(acc, factor) + 1
    )
    report = run_verify(golden("last_T12_I6_H16_O5"), VerifyOptions(["tflm"]))
    assert report.exit_code == 1
    (difference,) = [d for d in report.differences if d.want_from == "tflm"]
    origin = difference.origin
    assert origin is not None
    assert (origin.layer, origin.type, origin.tensor) == ("dense", "dense", "dense.output")
    assert origin.place.got == origin.place.want + 1
    assert "accumulator" in origin.inside


def test_fast_form_that_is_wrong_is_told_from_a_wrong_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs("tflm")
    from edge_lstm.cells.lstm_fast import FastLstmKernel

    right = FastLstmKernel.run

    def wrong(self: FastLstmKernel, inputs: Any, lengths: Any) -> Array:
        y = right(self, inputs, lengths)
        y[..., -1, 0] ^= 1
        return y

    monkeypatch.setattr(FastLstmKernel, "run", wrong)
    report = run_verify(golden("seq_T14_I13_H33_O0"), VerifyOptions(["tflm"]))
    assert report.exit_code == 1
    (difference,) = [d for d in report.differences if d.want_from == "tflm"]
    assert difference.origin is not None
    assert any("the fast form" in note for note in difference.origin.notes)
    assert difference.place.step == 13
    # Step by step is right here, and whole calls are wrong.
    steps = [check for check in report.checks if check.kind == "steps"]
    assert all(check.differing_bytes for check in steps)


def test_interpreter_of_another_profile_is_recognised_with_the_intermediate_where_they_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs("litert")

    class Impostor(LiteRt):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.profile = "tflm"

    monkeypatch.setattr("edge_lstm_benchmarks.verify_runners.open_backend", Impostor)
    path = golden("stack2_T16_I8_H12_O3")
    program = edge_lstm.load(path, "tflm")
    report = verify_program("stack2", program, path.read_bytes(), None, ["litert"])
    (difference,) = [d for d in report.differences if d.want_from == "litert"]
    origin = difference.origin
    assert origin is not None
    assert (origin.layer, origin.same_as) == ("lstm", "litert")
    assert origin.parts_at is not None

    x = report.inputs.x[report.inputs.names.index(difference.sequence)][None]
    lstm = program.ops[0]
    assert isinstance(lstm, LstmOp)
    ours, theirs = (trace_lstm(lstm, program.with_profile(p), x) for p in ("tflm", "litert"))
    step, name, index = (origin.parts_at[k] for k in ("step", "intermediate", "index"))
    for before in range(step):
        for word in ours[before]:
            np.testing.assert_array_equal(ours[before][word], theirs[before][word])
    assert ours[step][name][0, index] == origin.parts_at["got"]
    assert theirs[step][name][0, index] == origin.parts_at["want"]
    assert step <= origin.place.step
    text = "\n".join(difference_lines(difference))
    assert "litert gives the bytes of profile litert there" in text
    assert f"profiles part first at step {step}, {name}" in text


def test_old_wheel_is_held_against_its_own_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that claims an older date is told apart by the crafted golden model only."""
    needs("tflm")
    monkeypatch.setattr(Tflm, "version", lambda self: "0.dev20260820164721")
    with np.load(GOLDEN / "hand_straddle" / "vectors.npz") as vectors:
        x = vectors["x"].reshape(1, -1, vectors["x"].shape[-1])
    path = golden("hand_straddle")
    program = edge_lstm.load(path)
    given = Samples(x, where="golden")
    report = verify_program("straddle", program, path.read_bytes(), given, ["tflm"])
    failed = [(c.got_from, c.want_from) for c in report.checks if c.differing_bytes]
    assert failed == [("numpy tflm-2026-08", "tflm")]
    (difference,) = report.differences
    assert difference.origin is not None
    assert difference.origin.same_as == "tflm"
    assert difference.origin.parts_at is not None
    assert difference.origin.parts_at["intermediate"].endswith("_gate")


def test_file_that_means_something_else_to_the_interpreter_is_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs("litert")
    program = edge_lstm.load(golden("hand_plain"))
    (lstm,) = [op for op in program.ops if isinstance(op, LstmOp)]
    other = replace(lstm, bias=lstm.bias + np.int32(3000))
    ops = tuple(other if op is lstm else op for op in program.ops)
    changed = tflite_bytes(replace(program, ops=ops), 15)
    report = verify_program("plain", program, changed, None, ["litert"])
    (difference,) = [d for d in report.differences if d.want_from == "litert"]
    assert difference.origin is None
    assert any("does not read" in note for note in difference.notes)


@pytest.mark.usefixtures("planted")
def test_planted_backends_are_told_apart(command: Cli) -> None:
    path = golden("hand_plain")
    code, out, _ = command("verify", path, "--against", "right,wrong,segfaults,raises")
    assert code == 1
    assert "equal: numpy tflm = right: 0 of" in out
    assert "differs: numpy tflm = wrong:" in out
    assert "not run: segfaults: crashed: its process ended with SIGSEGV" in out
    assert "not run: raises: RuntimeError: kernel failed at node 3" in out
    assert out.strip().endswith("FAILED: a profile does not give the bytes of what it mirrors.")


@pytest.mark.usefixtures("planted")
def test_interpreter_that_is_missing_is_a_row_and_asking_for_it_by_name_fails(
    command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = golden("hand_plain")
    code, out, _ = command("verify", path, "--against", "missing,right")
    assert code == 4
    assert "not run: missing: planted is not installed; pip install planted" in out
    assert "equal: numpy tflm = right: 0 of" in out
    assert "NOT PROVEN: missing was asked for" in out
    report = verify_program("plain", edge_lstm.load(path), None, None, ["missing", "right"])
    assert report.exit_code == 0


# JSON


def test_json_document_has_its_schema(command: Cli) -> None:
    code, out, err = command("verify", golden("stack2_T16_I8_H12_O3"), "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["schema"] == SCHEMA == "edge-lstm.verify/1"
    assert document["compares"] == "runtimes"
    assert set(document) == {
        *("schema", "compares", "passed", "model", "inputs", "forms", "runners", "matrix"),
        *("interpreters_held", "checks", "differences", "warnings", "notes"),
    }
    runners = document["runners"]
    assert [r["name"] for r in runners][:2] == ["numpy tflm", "numpy tflm-2026-08"]
    assert len(document["matrix"]) == len(runners)
    for k, record in enumerate(runners):
        assert len(document["matrix"][k]) == len(runners)
        assert (record["reason"] is None) == (record["checksum"] is not None)
        own = document["matrix"][k][k]
        assert own is None or own["differing"] == 0
    for check in document["checks"]:
        assert set(check) == {
            *("kind", "got_from", "want_from", "differing_bytes", "bytes", "reason"),
        }
    assert document["interpreters_held"] == len(installed(*ENGINES))


# Two files


def changed(program: Program, amount: int) -> Program:
    """Return the program with one weight of its last Dense changed."""
    dense = next(op for op in reversed(program.ops) if isinstance(op, DenseOp))
    weights = dense.weights.copy()
    weights[0, 0] += np.int8(amount)
    ops = tuple(replace(op, weights=weights) if op is dense else op for op in program.ops)
    return replace(program, ops=ops)


def test_two_files_of_the_same_integers_are_equal_byte_for_byte(
    command: Cli, weather: Path
) -> None:
    code, out, err = command("verify", weather / "weather.elstm", weather / "weather_int8.tflite")
    assert (code, err) == (0, "")
    assert "profile tflm: 0 of" in out
    assert out.strip().endswith("Passed: equal byte for byte.")


def test_two_files_that_differ_fail_and_name_the_layer(
    command: Cli, weather: Path, tmp_path: Path
) -> None:
    program = edge_lstm.load(weather / "weather.elstm")
    other = tmp_path / "other.elstm"
    other.write_bytes(program_bytes(changed(program, 100)))
    code, out, err = command("verify", weather / "weather.elstm", other, "--json")
    assert (code, err) == (1, "")
    document = json.loads(out)
    assert (document["schema"], document["compares"], document["how"]) == (SCHEMA, "files", "bytes")
    assert document["passed"] is False
    origin = document["differences"][0]["origin"]
    assert origin["layer"] == program.ops[-1].name
    assert origin["type"] == "dense"
    code, out, _ = command("verify", weather / "weather.elstm", other, "--profile", "litert")
    assert code == 1
    assert "profile litert:" in out
    assert "profile tflm:" not in out


def test_two_files_that_differ_inside_the_lstm_name_step_and_gates() -> None:
    program = edge_lstm.load(golden("seq_T14_I13_H33_O0"))
    (lstm,) = program.ops
    assert isinstance(lstm, LstmOp)
    weights = lstm.recurrent_weights.copy()
    weights[1, 5] = -weights[1, 5]  # the forget gate of cell 5
    other = replace(program, ops=(replace(lstm, recurrent_weights=weights),))
    found = compare_models(("a", "b"), (program, other), None)
    assert found.exit_code == 1
    origin = found.differences[0].origin
    assert origin is not None
    assert origin.place.index == 5
    # From reset state the recurrent product of step 0 is 0 whatever the weights are.
    assert origin.place.step >= 1
    assert set(origin.inside) >= {"forget_gate", "cell_state", "cell_state_before"}


def test_float_files_are_compared_by_snr_with_a_threshold(command: Cli, weather: Path) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    files = [WEATHER / "model.onnx", WEATHER / "model.pt", "--layers", WEATHER / "layers.toml"]
    code, out, err = command("verify", *files)
    assert (code, err) == (0, "")
    assert "want at least 80 dB" in out
    both = [WEATHER / "model.onnx", weather / "weather.elstm"]
    data = ["--data", WEATHER / "test.npz"]
    code, out, _ = command("verify", *both, *data, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["how"] == "snr"
    assert document["min_snr_db"] < 30 < document["snr_db"] < 60
    assert document["largest_error"]["got"] != document["largest_error"]["want"]
    code, out, _ = command("verify", *both, *data, "--min-snr", 60)
    assert code == 1
    assert "FAILED: the files differ." in out


def test_quantized_files_of_different_scales_are_compared_as_real_numbers() -> None:
    program = edge_lstm.load(golden("last_T12_I6_H16_O5"))
    output = replace(program.output_tensor, scale=program.output_tensor.scale * 2)
    tensors = (*program.tensors[:-1], output)
    assert program.output == len(program.tensors) - 1
    # Quiet inputs, so that neither output saturates.
    x = np.random.default_rng(0).normal(0, 0.3, (20, 12, 6)).astype(np.float32)
    models = (program, replace(program, tensors=tensors))
    found = compare_models(("a", "b"), models, Samples(x, where="x"))
    assert found.snr_db is not None
    error = found.largest_error
    assert error is not None
    # Half a unit of either scale.
    assert abs(error.got - error.want) <= 0.75 * output.scale * (1 + 1e-6)
    assert any("compared as real numbers" in note for note in found.notes)


def test_random_float_models_equal_themselves_and_no_other() -> None:
    random = np.random.default_rng(5)
    spec = random_spec(random)
    same = compare_models(("a", "b"), (spec, spec), None)
    assert (same.snr_db, same.largest_error) == (999.0, None)
    other = replace(spec.layers[0], gates=spec.layers[0].gates[::-1])  # type: ignore[attr-defined, call-arg]
    wrong = compare_models(
        ("a", "b"), (spec, replace(spec, layers=(other, *spec.layers[1:]))), None
    )
    assert wrong.exit_code == 1


# Arguments and files that do not fit


def refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    found, out, err = result
    assert found == code, err
    assert out == ""
    assert err.startswith("edge-lstm: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["absent.tflite"], 3, ["absent.tflite", "no such file"]),
        (["{golden}", "--against", "tensorflow"], 2, ["--against tensorflow", "litert"]),
        (["{golden}", "--against", ""], 2, ["--against ''", "unknown"]),
        (["{golden}", "--against", "numpy-int8:tflm"], 2, ["numpy-int8:tflm"]),
        (["{golden}", "--profile", "cmsis"], 2, ["profile 'cmsis'", "cmsis-nn"]),
        (["{golden}", "--data", "absent.npz"], 2, ["absent.npz", "no such file"]),
        (["{golden}", "--min-snr", "20"], 2, ["--min-snr", "two files"]),
        (["{golden}", "{golden}", "{golden}"], 2, ["3 model files"]),
        (["{golden}", "{golden}", "--against", "tflm"], 2, ["--against", "one model"]),
        (["{golden}", "{golden}", "--min-snr", "nan"], 2, ["--min-snr nan"]),
        (["{golden}", "{other}"], 2, ["takes", "compare"]),
        (["{float}"], 2, ["float model", "--calib"]),
        ([], 2, ["argument"]),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    command: Cli, arguments: list[str], code: int, words: list[str]
) -> None:
    places = {
        "golden": golden("hand_plain"),
        "other": golden("hand_cell9"),
        "float": WEATHER / "model.onnx",
    }
    if "{float}" in arguments:
        pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    refused(command("verify", *(a.format(**places) for a in arguments)), code, *words)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 3, 4), np.float32)}, ["shape [2, 3, 4]"]),
        ({"x": np.zeros((0, 15, 10), np.float32)}, ["shape [0, 15, 10]"]),
        ({"x": np.full((2, 15, 10), np.nan, np.float32)}, ["300 of 300 values are NaN"]),
        ({"x": np.full((2, 15, 10), np.inf, np.float32)}, ["NaN or infinite"]),
        ({"x": np.zeros((2, 15, 10), np.int16)}, ["int16; want int8"]),
        ({"x": np.zeros((2, 15, 10), bool)}, ["bool; want int8"]),
        ({"x": np.zeros((2, 14, 10), np.float32)}, ["up to 14 steps", "takes 15"]),
        ({"x": np.zeros((2, 15, 10), np.int8), "lengths": np.array([15, 16])}, ["lengths: 15"]),
        ({"x": np.zeros((2, 15, 10), np.int8), "lengths": np.array([15.0, 3])}, ["float"]),
        ({"x": np.zeros((2, 15, 10), np.int8), "lengths": np.array([15])}, ["lengths"]),
        ({"y": np.zeros(3)}, ["an array named x"]),
    ],
)
def test_data_that_do_not_fit_are_refused_in_one_line(
    command: Cli, tmp_path: Path, arrays: dict[str, Any], words: list[str]
) -> None:
    size = edge_lstm.load(golden("hand_plain")).input_tensor.signal.size
    given = {k: v[..., :size] if v.ndim == 3 and v.shape[2] == 10 else v for k, v in arrays.items()}
    data = tmp_path / "data.npz"
    np.savez(data, **given)
    words = [w.replace("300 of 300", f"{30 * size} of {30 * size}") for w in words]
    words = [w.replace("15, 10]", f"15, {size}]") for w in words]
    refused(command("verify", golden("hand_plain"), "--data", data), 2, *words)


def test_damaged_file_is_refused(command: Cli, tmp_path: Path) -> None:
    data = golden("hand_plain").read_bytes()
    for name, content in (("cut", data[: len(data) // 2]), ("noise", b"\x20\0\0\0TFL3" * 9)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        code, out, err = command("verify", path)
        assert (code, out) == (3, "")
        assert err.count("\n") == 1


# The parts


def test_cut_program_holds_only_what_its_last_op_needs() -> None:
    program = edge_lstm.load(golden("softmax_T20_I5_H20_O6"))
    assert [len(cut_after(program, op).ops) for op in program.ops] == [1, 2, 3, 4, 5]


def test_trace_ends_in_the_hidden_states_of_the_runtime() -> None:
    program = random_program(np.random.default_rng(3), "litert", head=False)
    (lstm,) = program.ops
    assert isinstance(lstm, LstmOp)
    x = generated_inputs(program).x[:4, :20]
    traced = trace_lstm(lstm, program, x)
    hidden = np.stack([step["hidden_state"] for step in traced], axis=1)
    np.testing.assert_array_equal(hidden, program.predict(x))
    kernel = LstmKernel(lstm, program, 4)
    assert {name.removesuffix("_value") for name in traced[0]} == {
        *("input_gate", "forget_gate", "cell_gate", "output_gate", "cell_state", "hidden_state"),
    }
    table = kernel.parameters.sigmoid
    gate = traced[7]["forget_gate"]
    np.testing.assert_array_equal(traced[7]["forget_gate_value"], table[gate & 0xFFFF])


def test_single_rounding_is_a_mutation_at_all() -> None:
    factor = Factor(1518500250, -3)
    acc = np.arange(-5000, 5000)
    assert (single_rounding(acc, factor) != fixed_point.requantize(acc, factor)).any()
