"""Programs that are no straight chain: streaming, lengths and batches, by the laws they keep."""

from collections.abc import Iterator

import numpy as np
import pytest

import interpreters
from edge_lstm.arrays import Array
from edge_lstm.cells import (
    AddOp,
    ConcatOp,
    FirstStepOp,
    FlattenOp,
    LastStepOp,
    QuantizeOp,
    ReverseOp,
)
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.program import Op, Profile, Program, Tensor
from edge_lstm.program_file import program_bytes, program_from_bytes
from edge_lstm.spec import Signal
from edge_lstm_converters.write_tflite import tflite_bytes
from random_graphs import RandomGraph

STEPS = 6


def graphs(count: int, *, streams: bool | None = None) -> Iterator[tuple[Program, Array]]:
    """Yield random programs with inputs of 4 rows."""
    seed = found = 0
    while found < count:
        seed += 1
        graph = RandomGraph(np.random.default_rng(seed), "tflm", "int8", STEPS)
        program = graph.program()
        if streams is None or program.streams == streams:
            found += 1
            yield program, graph.inputs(program, 1, 4)[0]


def single(op_type: type[Op]) -> Program:
    """Return a program of one op on a sequence of three features."""
    sequence, vector = Signal("sequence", 3), Signal("vector", 3)
    moved = {FirstStepOp: vector, LastStepOp: vector}.get(op_type, sequence)
    tensors = (Tensor("input", sequence, "int8", 0.1, 5), Tensor("y", moved, "int8", 0.1, 5))
    return Program("single", "tflm", tensors, (op_type("op", (0,), 1),), 0, 1)


def test_reverse_turns_only_the_valid_steps() -> None:
    x = np.arange(2 * 4 * 3).astype(np.int8).reshape(2, 4, 3)
    program = single(ReverseOp)
    np.testing.assert_array_equal(program.predict(x), x[:, ::-1])
    turned = program.predict(x, np.array([2, 4]))
    np.testing.assert_array_equal(turned[0, :2], x[0, 1::-1])
    np.testing.assert_array_equal(turned[1], x[1, ::-1])
    assert (turned[0, 2:] == 5).all()  # the zero point


def test_first_and_last_step_are_those_of_each_row() -> None:
    x = np.arange(2 * 4 * 3).astype(np.int8).reshape(2, 4, 3)
    lengths = np.array([2, 4])
    np.testing.assert_array_equal(single(FirstStepOp).predict(x, lengths), x[:, 0])
    np.testing.assert_array_equal(single(LastStepOp).predict(x, lengths), x[[0, 1], [1, 3]])


def test_concat_joins_features_in_order() -> None:
    tensors = (
        Tensor("input", Signal("sequence", 3), "int8", 0.1, 0),
        Tensor("turned", Signal("sequence", 3), "int8", 0.1, 0),
        Tensor("y", Signal("sequence", 9), "int8", 0.1, 0),
    )
    ops = (ReverseOp("turn", (0,), 1), ConcatOp("join", (1, 0, 1), 2))
    x = np.arange(4 * 3).astype(np.int8).reshape(1, 4, 3)
    y = Program("joined", "tflm", tensors, ops, 0, 2).predict(x)
    np.testing.assert_array_equal(y, np.concatenate([x[:, ::-1], x, x[:, ::-1]], axis=2))


def test_concat_refuses_values_of_two_scales() -> None:
    tensors = (
        Tensor("input", Signal("sequence", 3), "int8", 0.1, 0),
        Tensor("y", Signal("sequence", 6), "int8", 0.2, 0),
    )
    program = Program("joined", "tflm", tensors, (ConcatOp("join", (0, 0), 1),), 0, 1)
    with pytest.raises(UnsupportedModel, match="layer 'join': joins values of 2 scales"):
        program.session()


def adding(profile: Profile, ratios: tuple[float, float]) -> Program:
    """Return a program that adds its input, reversed and in another scale, to itself."""
    signal, scale = Signal("sequence", 50), 0.01
    other = float(np.float32(scale * ratios[1] / ratios[0]))
    tensors = (
        Tensor("input", signal, "int8", float(np.float32(scale)), 7),
        Tensor("turn.output", signal, "int8", float(np.float32(scale)), 7),
        Tensor("rescale.output", signal, "int8", other, -30),
        Tensor("add.output", signal, "int8", float(np.float32(scale / ratios[0])), 11),
    )
    ops = (
        ReverseOp("turn", (0,), 1),
        QuantizeOp("rescale", (1,), 2),
        AddOp("add", (0, 2), 3),
    )
    return Program("adding", profile, tensors, ops, 0, 3)


@pytest.mark.parametrize("profile", list(interpreters.IN_PROCESS))
def test_add_equals_the_interpreter_for_every_ratio_of_scales(profile: Profile) -> None:
    """Below 2^-10 LiteRT leaves XNNPACK for a kernel of its own."""
    if reason := interpreters.missing(profile):
        pytest.skip(reason)
    random = np.random.default_rng(3)
    reset = np.ones(4)
    for number in range(60):
        least = -13 if number % 3 == 0 else -3
        ratios = (2.0 ** random.uniform(-3, 2), 2.0 ** random.uniform(least, 2))
        program = adding(profile, ratios)
        x = random.integers(-128, 128, (4, 1, 20, 50)).astype(np.int8)
        want = interpreters.run(profile, tflite_bytes(program, 20), x, reset)
        np.testing.assert_array_equal(np.stack([program.predict(v) for v in x]), want, str(ratios))


def test_add_into_a_much_finer_scale_is_refused_for_litert() -> None:
    with pytest.raises(UnsupportedModel, match="layer 'add': ADD makes values 300 times finer"):
        adding("litert", (300.0, 1.0)).session()
    adding("litert-ref", (300.0, 1.0)).session()


def test_a_padded_batch_equals_its_rows_one_by_one() -> None:
    """Whatever lies past a row's end: the poison there must not be read."""
    random = np.random.default_rng(0)
    checked = 0
    for program, x in graphs(60):
        if any(isinstance(op, FlattenOp) for op in program.ops):
            continue
        lengths = random.integers(1, STEPS + 1, len(x))
        padded = x.copy()
        padded[np.arange(STEPS)[None] >= lengths[:, None]] = 0 if x.ndim == 2 else -128
        whole = program.predict(padded, lengths)
        for row, length in enumerate(lengths):
            alone = program.predict(x[row : row + 1, :length])
            valid = whole[row, :length] if whole.ndim == 3 else whole[row]
            np.testing.assert_array_equal(valid, alone[0])
        checked += any(isinstance(op, ReverseOp) for op in program.ops)
    assert checked > 10


def test_graphs_that_stream_give_the_same_step_by_step() -> None:
    parallel = 0
    for program, x in graphs(30, streams=True):
        whole = program.predict(x)
        session = program.session(len(x))
        steps = np.stack([session.step(x[:, t]) for t in range(STEPS)], axis=1)
        np.testing.assert_array_equal(steps if whole.ndim == 3 else steps[:, -1], whole)
        parallel += any(isinstance(op, ConcatOp) for op in program.ops)
    assert parallel > 3


@pytest.mark.parametrize("op_type", [ReverseOp, FirstStepOp])
def test_what_needs_the_whole_sequence_does_not_stream(op_type: type[Op]) -> None:
    program = single(op_type)
    assert not program.streams
    with pytest.raises(UsageError, match="op 'op' needs the whole sequence"):
        program.session().step(np.zeros((1, 3), np.int8))


def test_graphs_are_saved_and_loaded() -> None:
    for program, x in graphs(20):
        again = program_from_bytes(program_bytes(program))
        assert again.fingerprint() == program.fingerprint()
        np.testing.assert_array_equal(again.predict(x), program.predict(x))


def test_state_of_parallel_lstms_is_carried() -> None:
    for program, x in graphs(10, streams=True):
        if program.time_steps is not None:
            continue
        whole = program.predict(x)
        first, second = program.session(len(x)), program.session(len(x))
        first.run(x[:, :3])
        second.state = first.state
        end = second.run(x[:, 3:])
        np.testing.assert_array_equal(end, whole[:, 3:] if whole.ndim == 3 else whole)


def test_a_program_keeps_the_inputs_it_was_given() -> None:
    """Views of the input reach the output; what lies past a row's end is overwritten there."""
    x = np.arange(2 * 4 * 3).astype(np.int8).reshape(2, 4, 3)
    before = x.copy()
    single(ReverseOp).predict(x, np.array([1, 2]))
    np.testing.assert_array_equal(x, before)
