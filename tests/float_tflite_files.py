"""Float ``.tflite`` files with one recurrent operator and random options, for tests."""

from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.tflite_schema import (
    ABSENT,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    serialize,
)
from edge_lstm_converters.tflite_tables import (
    BidirectionalLstmOptions,
    BidirectionalRnnOptions,
    SequenceLstmOptions,
    SequenceRnnOptions,
)

Rng = np.random.Generator
NONE, RELU, TANH = 0, 1, 4


class Builder:
    """The tensors of a file, and its operators."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.tensors: list[TfliteTensor] = []
        self.operators: list[TfliteOperator] = []

    def tensor(self, *shape: int, dtype: str = "float32", variable: bool = False) -> int:
        name = f"t{len(self.tensors)}"
        self.tensors.append(TfliteTensor(name, shape, dtype, is_variable=variable))
        return len(self.tensors) - 1

    def constant(self, values: Array) -> int:
        data = np.ascontiguousarray(values).tobytes()
        name = f"t{len(self.tensors)}"
        self.tensors.append(TfliteTensor(name, values.shape, values.dtype.name, data=data))
        return len(self.tensors) - 1

    def weights(self, *shape: int) -> int:
        return self.constant(self.rng.uniform(-0.7, 0.7, shape).astype(np.float32))

    def add(
        self, code: str, inputs: list[int], outputs: list[int], options: Any = None
    ) -> list[int]:
        self.operators.append(TfliteOperator(code, tuple(inputs), tuple(outputs), options))
        return outputs

    def model(self, source: int, result: int) -> TfliteModel:
        return TfliteModel(tuple(self.tensors), tuple(self.operators), (source,), (result,))

    def file(self, source: int, result: int) -> bytes:
        return serialize(self.model(source, result))


def lstm_weights(
    b: Builder,
    features: int,
    cells: int,
    outputs: int,
    *,
    cifg: bool,
    peephole: bool,
    project: bool,
) -> list[int]:
    """Return inputs 1 to 17 of a UNIDIRECTIONAL_SEQUENCE_LSTM."""
    own = [ABSENT if cifg and gate == 0 else gate for gate in range(4)]
    found = [ABSENT if k == ABSENT else b.weights(cells, features) for k in own]
    found += [ABSENT if k == ABSENT else b.weights(cells, outputs) for k in own]
    for gate in (0, 1, 3):
        there = peephole and not (cifg and gate == 0)
        found.append(b.weights(cells) if there else ABSENT)
    found += [ABSENT if k == ABSENT else b.weights(cells) for k in own]
    found.append(b.weights(outputs, cells) if project else ABSENT)
    found.append(b.weights(outputs) if project and b.rng.random() < 0.5 else ABSENT)
    return found


def random_lstm(seed: int, *, both: bool) -> bytes:
    """Return a file with one LSTM, or one of two directions, and what is drawn for it."""
    rng = np.random.default_rng(seed)
    b = Builder(rng)

    def flip() -> bool:
        return bool(rng.random() < 0.5)

    batch, steps, features, cells = (int(rng.integers(1, 5)) for _ in range(4))
    project, time_major, merge = flip(), flip(), flip()
    outputs = int(rng.integers(1, 5)) if project else cells
    variants = {"cifg": flip(), "peephole": flip(), "project": project}
    shape = (steps, batch) if time_major else (batch, steps)
    x = b.tensor(*shape, features)
    clip, projection_clip = (float(rng.choice([0.0, 0.4])) for _ in range(2))
    squash = int(rng.choice([TANH, TANH, RELU]))
    inputs = [x]
    for _ in range(2 if both else 1):
        inputs += lstm_weights(b, features, cells, outputs, **variants)
    for _ in range(2 if both else 1):
        inputs += [b.tensor(batch, n, variable=True) for n in (outputs, cells)]
    if not both:
        options = SequenceLstmOptions(squash, clip, projection_clip, time_major)
        y = b.tensor(*shape, outputs)
        inputs += [ABSENT] * (4 if flip() else 0)
        b.add("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], options)
        return b.file(x, y)
    inputs += [ABSENT] * 9
    merge = merge and (time_major or batch == 1)
    both_options = BidirectionalLstmOptions(squash, clip, projection_clip, merge, time_major)
    if merge:
        made = [b.tensor(*shape, 2 * outputs)]
    else:
        made = [b.tensor(*shape, outputs), b.tensor(*shape, outputs)]
    b.add("BIDIRECTIONAL_SEQUENCE_LSTM", inputs, made, both_options)
    return b.file(x, joined(b, made, shape, outputs))


def joined(b: Builder, made: list[int], shape: tuple[int, ...], size: int) -> int:
    """Return one tensor: the only one, or the sum of two."""
    if len(made) == 1:
        return made[0]
    return b.add("ADD", made, [b.tensor(*shape, size)])[0]


def random_rnn(seed: int, *, both: bool) -> bytes:
    """Return a file with one RNN, or one of two directions."""
    rng = np.random.default_rng(seed)
    b = Builder(rng)
    batch, steps, features, hidden = (int(rng.integers(1, 5)) for _ in range(4))
    time_major, merge = (bool(rng.random() < 0.5) for _ in range(2))
    shape = (steps, batch) if time_major else (batch, steps)
    x = b.tensor(*shape, features)
    squash = int(rng.choice([TANH, RELU, NONE]))
    inputs = [x]
    for _ in range(2 if both else 1):
        inputs += [b.weights(hidden, features), b.weights(hidden, hidden), b.weights(hidden)]
        inputs.append(b.tensor(batch, hidden, variable=True))
    if not both:
        y = b.tensor(*shape, hidden)
        options = SequenceRnnOptions(time_major, squash)
        b.add("UNIDIRECTIONAL_SEQUENCE_RNN", inputs, [y], options)
        return b.file(x, y)
    made = [b.tensor(*shape, 2 * hidden if merge else hidden) for _ in range(1 if merge else 2)]
    inputs += [ABSENT] * 3
    both_options = BidirectionalRnnOptions(time_major, squash, merge)
    b.add("BIDIRECTIONAL_SEQUENCE_RNN", inputs, made, both_options)
    return b.file(x, joined(b, made, shape, hidden))
