"""Where C keeps values: whatever moves and loops a program has, the bytes are NumPy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from c_packages import build, gcc, run
from edge_lstm.cells import (
    ConcatOp,
    EdgeDenseOp,
    FirstStepOp,
    FlattenOp,
    LastStepOp,
    ReadStateOp,
    ReverseOp,
    WriteStateOp,
)
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import Op, Program, Tensor
from edge_lstm.spec import Signal, SignalKind
from edge_lstm_converters.c_selftest import expected_outputs
from edge_lstm_converters.c_source import CModel

STEPS, MOST = 5, 40


class RandomProgram:
    """Draws ops that move, join, keep and multiply values.

    Args:
        seed: of the draw.
    """

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.sequences = [self.tensor("sequence", self.size())]
        self.vectors: list[int] = []
        moves: list[type[Op]] = [ReverseOp, LastStepOp, FirstStepOp, FlattenOp]
        for _ in range(self.draw.integers(1, 9)):
            kind = self.draw.integers(8)
            source = self.pick(self.sequences)
            if kind < 4:
                self.move(moves[kind], source)
            elif kind < 6:
                self.join(self.vectors if self.vectors and self.draw.random() < 0.5 else None)
            elif kind == 6:
                self.loop(source)
            else:
                self.sequences.append(self.dense(source))
        output = self.pick(self.sequences[-2:] + self.vectors[-2:])
        self.output = self.dense(output) if self.draw.random() < 0.4 else output

    def program(self) -> Program:
        fixed = STEPS if any(isinstance(op, FlattenOp) for op in self.ops) else None
        return Program("net", "edge", tuple(self.tensors), tuple(self.ops), 0, self.output, fixed)

    def size(self) -> int:
        return int(self.draw.integers(1, 4))

    def pick(self, among: list[int]) -> int:
        return among[self.draw.integers(len(among))]

    def tensor(self, kind: SignalKind, size: int) -> int:
        self.tensors.append(Tensor(f"t{len(self.tensors)}", Signal(kind, size), "int8", 0.5, 3))
        return len(self.tensors) - 1

    def move(self, kind: type[Op], source: int) -> None:
        size = self.tensors[source].signal.size * (STEPS if kind is FlattenOp else 1)
        output = self.tensor("sequence" if kind is ReverseOp else "vector", size)
        self.ops.append(kind(f"move{len(self.ops)}", (source,), output))
        (self.sequences if kind is ReverseOp else self.vectors).append(output)

    def join(self, vectors: list[int] | None) -> None:
        among = self.sequences if vectors is None else vectors
        inputs = tuple(self.pick(among) for _ in range(self.draw.integers(2, 4)))
        size = sum(self.tensors[index].signal.size for index in inputs)
        output = self.tensor("sequence" if vectors is None else "vector", size)
        self.ops.append(ConcatOp(f"join{len(self.ops)}", inputs, output))
        among.append(output)

    def loop(self, source: int) -> None:
        """A value that is kept from step to step."""
        state = self.tensor("sequence", self.size())
        size = self.tensors[state].signal.size
        initial = self.draw.integers(-5, 5, size).astype(np.int8)
        self.ops.append(ReadStateOp(f"state{len(self.ops)}", (), state, initial))
        both = self.tensor("sequence", self.tensors[source].signal.size + size)
        self.ops.append(ConcatOp(f"join{len(self.ops)}", (source, state), both))
        after = self.dense(both, size)
        self.ops.append(WriteStateOp(f"keep{len(self.ops)}", (after,), state))
        self.sequences.append(after)

    def dense(self, source: int, size: int = 2) -> int:
        signal = self.tensors[source].signal
        output = self.tensor(signal.kind, size)
        op = EdgeDenseOp(
            f"dense{len(self.ops)}",
            (source,),
            output,
            weights=self.draw.integers(-127, 128, (size, signal.size)).astype(np.int8),
            bias=self.draw.integers(-900, 900, size).astype(np.int32),
            multipliers=self.draw.integers(1, 60, size).astype(np.int16),
            shift=10,
            low=-128,
            high=127,
        )
        self.ops.append(op)
        return output


@gcc
@pytest.mark.parametrize("seed", range(30))
def test_random_moves_and_loops_give_the_bytes_of_numpy(seed: int, tmp_path: Path) -> None:
    program = RandomProgram(seed).program()
    x = np.random.default_rng(seed).integers(-128, 128, (STEPS, program.input_tensor.signal.size))
    library = build(program, tmp_path, "-O0", max_steps=MOST)
    y = run(library, program, x.astype(np.int8), max_steps=MOST)
    expected = expected_outputs(CModel(program, MOST), x.astype(np.int8))
    np.testing.assert_array_equal(y, expected)


def test_a_part_of_a_row_is_not_flattened_in_place() -> None:
    made = chain()
    made.sequences.append(made.dense(0))
    made.join(None)
    made.output = made.dense(made.ops[-1].output)
    made.move(FlattenOp, made.ops[-2].inputs[0])
    made.output = made.dense(made.vectors[-1])
    assert copies(CModel(made.program(), STEPS)) > 0


def chain(*kinds: type[Op]) -> RandomProgram:
    """A Dense, then moves."""
    made = RandomProgram(0)
    made.tensors, made.ops = made.tensors[:1], []
    made.sequences, made.vectors = [made.dense(0)], []
    for kind in kinds:
        made.move(kind, made.sequences[-1])
    made.output = (made.sequences + made.vectors)[-1]
    return made


def copies(model: CModel) -> int:
    return sum(run.op is None for run in model.runs)


def test_moves_cost_nothing() -> None:
    for kinds in ([ReverseOp], [LastStepOp], [FlattenOp], [ReverseOp, FlattenOp]):
        model = CModel(chain(*kinds).program(), STEPS)
        assert copies(model) == 0
        assert model.members == []


def test_both_directions_run_in_one_loop_and_write_where_they_are_joined() -> None:
    made = chain()
    forward = made.sequences[0]
    made.move(ReverseOp, 0)
    backward = made.dense(made.sequences[-1])
    made.move(ReverseOp, backward)
    made.sequences = [forward, made.sequences[-1]]
    made.output = made.tensor("sequence", 4)
    made.ops.append(ConcatOp("join", tuple(made.sequences), made.output))
    model = CModel(made.program(), STEPS)
    assert (len(model.layout.loops), copies(model), model.members) == (1, 0, [])


def test_a_value_read_in_its_own_loop_is_kept_for_one_step() -> None:
    made = chain()
    made.output = made.dense(made.dense(made.sequences[0]))
    model = CModel(made.program())
    # Three values in a row: the third may lie where the first was.
    assert [member.size for member in model.members] == [2, 2]
    made.move(ReverseOp, made.output)
    made.output = made.dense(made.sequences[-1])
    assert sorted(m.size for m in CModel(made.program(), STEPS).members) == [2, 2, 2 * STEPS]


def test_a_state_whose_every_step_is_read_is_refused() -> None:
    made = chain()
    made.loop(0)
    state = next(op.output for op in made.ops if isinstance(op, ReadStateOp))
    made.move(ReverseOp, state)
    made.output = made.dense(made.sequences[-1])
    with pytest.raises(UnsupportedModel, match="all steps of its state are read"):
        CModel(made.program(), STEPS)
