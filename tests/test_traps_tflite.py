"""Each trap on a golden file that was changed to fall into it, and on one that was not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interpreters
from edge_lstm.errors import UnsupportedModel
from edge_lstm.inspection import describe_program, program_text
from edge_lstm_converters.read_tflite import program_from_bytes, read_tflite
from edge_lstm_converters.rules import sentence
from edge_lstm_converters.rules_tflite import CELL_STATE, HIDDEN_STATE
from edge_lstm_converters.tflite_schema import ABSENT, TfliteModel, parse, serialize
from edge_lstm_converters.traps_tflite import (
    CONCAT_TRAPS,
    LSTM_TRAPS,
    REVERSE_TRAPS,
    cell_scale_without_tanh,
    halves_in_two_scales,
    mislabelled_output,
    no_hidden_intermediate,
    one_step_a_call,
    recurrent_term_beyond_8,
    reversed_into_another_scale,
    two_hidden_scales,
)

GOLDEN = Path(__file__).parent / "golden"
Change = Callable[[TfliteModel], TfliteModel]


def golden(name: str) -> TfliteModel:
    return parse((GOLDEN / name / "model.tflite").read_bytes(), name)


def with_tensor(model: TfliteModel, index: int, **change: Any) -> TfliteModel:
    tensors = list(model.tensors)
    tensors[index] = replace(tensors[index], **change)
    return replace(model, tensors=tuple(tensors))


def operator(model: TfliteModel, code: str) -> int:
    return next(k for k, o in enumerate(model.operators) if o.code == code)


def lstm_tensor(position: int, **change: Any) -> Change:
    def changed(model: TfliteModel) -> TfliteModel:
        lstm = model.operators[operator(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")]
        return with_tensor(model, lstm.inputs[position], **change)

    return changed


def lstm_output(**change: Any) -> Change:
    def changed(model: TfliteModel) -> TfliteModel:
        lstm = model.operators[operator(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")]
        following = model.operators[operator(model, "STRIDED_SLICE")]
        for index in (lstm.outputs[0], following.outputs[0]):
            model = with_tensor(model, index, **change)
        return model

    return changed


def without_intermediate(model: TfliteModel) -> TfliteModel:
    first = operator(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")
    lstm = model.operators[first]
    operators = list(model.operators)
    operators[first] = replace(lstm, intermediates=(*lstm.intermediates[:4], ABSENT))
    return replace(model, operators=tuple(operators))


def with_intermediate(model: TfliteModel) -> TfliteModel:
    lstm = model.operators[operator(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")]
    return with_tensor(model, lstm.intermediates[4], scales=(0.004,), zero_points=(1,))


def one_step(model: TfliteModel) -> TfliteModel:
    lstm = model.operators[operator(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")]
    for index in (model.inputs[0], lstm.outputs[0]):
        batch, _, size = model.tensors[index].shape
        model = with_tensor(model, index, shape=(batch, 1, size))
    return model


def loud(model: TfliteModel) -> TfliteModel:
    lstm = model.operators[operator(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")]
    weights = model.tensors[lstm.inputs[8]]
    return with_tensor(model, lstm.inputs[8], scales=(60 * weights.scales[0],))


def reverse_relabelled(model: TfliteModel) -> TfliteModel:
    reverse = model.operators[operator(model, "REVERSE_V2")]
    return with_tensor(model, reverse.outputs[0], scales=(0.05,))


TRAPS: list[tuple[Callable[[Any], str | None], str, Change, str]] = [
    (cell_scale_without_tanh, "hand_plain", lstm_tensor(CELL_STATE, scales=(2.0**-16,)),
     "cell state has scale 2^-16"),
    (no_hidden_intermediate, "hand_plain", without_intermediate, "has no intermediate 4"),
    (two_hidden_scales, "hand_plain", with_intermediate,
     "intermediate 4 has scale 0.00400000019, zero point 1, the hidden state scale 0.0"),
    (mislabelled_output, "hand_plain", lstm_output(scales=(0.004,)),
     "the output that it becomes scale 0.00400000019, zero point"),
    (one_step_a_call, "hand_plain", one_step, "the file takes one step a call"),
    (recurrent_term_beyond_8, "hand_plain", loud,
     "the recurrent term of the output gate can reach "),
    (reversed_into_another_scale, "tf_backwards", reverse_relabelled,
     "into a tensor with scale 0.0500000007, zero point"),
    (halves_in_two_scales, "tf_parallel", lstm_tensor(HIDDEN_STATE, scales=(0.004,)),
     "joins an LSTM's values in scale 0.0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("trap", "name", "change", "found"), TRAPS, ids=[row[0].__name__ for row in TRAPS]
)
def test_a_file_in_a_trap_is_warned_of_by_its_sentence(
    trap: Callable[[Any], str | None], name: str, change: Change, found: str
) -> None:
    program = program_from_bytes(serialize(change(golden(name))), "m.tflite", "tflm")
    said = sentence(trap)
    warned = [w for w in program.warnings if w.endswith(said[1:])]
    assert len(warned) >= 1
    assert any(found in w for w in warned)
    assert "layer '" in warned[0]
    assert warned[0] in program_text(program)
    assert warned[0] in describe_program(program)["warnings"]


def test_every_trap_has_a_file_that_falls_into_it() -> None:
    assert {row[0] for row in TRAPS} == {*LSTM_TRAPS, *REVERSE_TRAPS, *CONCAT_TRAPS}


@pytest.mark.parametrize(
    "name", ["hand_plain", "tf_backwards", "tf_words", "timemajor_T8_I4_H10_O0"]
)
def test_a_file_in_no_trap_has_no_warnings(name: str) -> None:
    quiet = {sentence(recurrent_term_beyond_8)[1:]}  # a bound: random weights may exceed it
    warnings = read_tflite(GOLDEN / name / "model.tflite").warnings
    assert not [w for w in warnings if not any(w.endswith(q) for q in quiet)]


def test_every_trap_names_a_runtime() -> None:
    for trap, *_ in TRAPS:
        words = sentence(trap)
        assert any(word in words for word in ("TFLite", "TFLM", "CMSIS-NN", "every runtime"))


def test_the_bound_of_the_recurrent_term_is_one() -> None:
    """Driven hard, the term comes near it and never passes it."""
    from edge_lstm.cells.lstm_integer import LstmKernel, LstmOp, dot

    program = program_from_bytes(serialize(loud(golden("hand_plain"))), "m.tflite")
    (warning,) = [w for w in program.warnings if "recurrent term of" in w]
    bound = float(warning.partition("can reach ")[2].partition(";")[0])
    op = program.ops[0]
    assert isinstance(op, LstmOp)
    kernel = LstmKernel(op, program, 50)
    kernel.reset()
    random = np.random.default_rng(0)
    seen = 0.0
    for _ in range(20):
        hidden = kernel.step(random.choice([-128, 127], (50, op.input_size)).astype(np.int8))
        term = dot(
            hidden.astype(np.int64) - op.hidden_zero_point, op.recurrent_weights[3].astype(float)
        )
        seen = max(
            seen, float(np.abs(term).max()) * op.hidden_scale * op.recurrent_weight_scales[3]
        )
    assert 0.1 * bound < seen <= bound + 0.05  # the message rounds to a tenth


@pytest.mark.parametrize("profile", ["tflm", "litert"])
def test_a_file_in_a_trap_still_runs_as_the_interpreter_does(profile: str) -> None:
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    random = np.random.default_rng(1)
    for trap, name, change, _ in TRAPS:
        if trap in (no_hidden_intermediate, one_step_a_call):
            continue  # LiteRT refuses the first; the second changes shapes of the slice behind
        data = serialize(change(golden(name)))
        program = program_from_bytes(data, "m.tflite", profile)
        model = parse(data, name)
        x = random.integers(-128, 128, (3, *model.tensors[model.inputs[0]].shape)).astype(np.int8)
        want = interpreters.run(profile, data, x, np.ones(3))
        got = np.stack([program.predict(values) for values in x])
        np.testing.assert_array_equal(got, want, err_msg=trap.__name__)


def test_what_cannot_run_is_refused_and_not_warned_of() -> None:
    """The other known traps are rules; tests/test_read_tflite.py breaks each of them."""
    model = golden("hand_plain")
    for change in (
        lstm_tensor(6, scales=(0.1,) * 14, zero_points=(0,) * 14),
        lstm_tensor(6, zero_points=(1,)),
        lstm_tensor(CELL_STATE, scales=(0.0003,)),
    ):
        with pytest.raises(UnsupportedModel, match="TFLM"):
            program_from_bytes(serialize(change(model)), "m.tflite")
