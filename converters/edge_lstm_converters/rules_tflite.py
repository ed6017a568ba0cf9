"""What an integer LSTM in a ``.tflite`` file must be like, one rule a function.

Behind each rule stands a kernel that refuses the file, or worse, runs it wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_lstm.cells.lstm_integer import TFLITE_PROFILES
from edge_lstm.program import Profile
from edge_lstm_converters.tflite_schema import ABSENT, TfliteModel, TfliteOperator, TfliteTensor
from edge_lstm_converters.tflite_tables import TANH, SequenceLstmOptions

# Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM by position; gates in the order input, forget, cell,
# output, peepholes without cell.
INPUT_COUNT = 24
INPUT_COUNT_WITHOUT_LAYER_NORM = 20
INPUT_WEIGHTS = (1, 2, 3, 4)
RECURRENT_WEIGHTS = (5, 6, 7, 8)
PEEPHOLES = (9, 10, 11)
BIASES = (12, 13, 14, 15)
PROJECTION_WEIGHTS, PROJECTION_BIAS = 16, 17
HIDDEN_STATE, CELL_STATE = 18, 19
LAYER_NORMS = (20, 21, 22, 23)
HIDDEN_INTERMEDIATE = 4

# Products and quotients of three scales in here stay far from the ends of float32.
LEAST_SCALE, GREATEST_SCALE = 1e-12, 1e12
# A cell state of 16 bits reaches 2^(power + 15); the kernels shift by 30 + power.
CELL_POWERS = (-30, 0)


def is_scale(value: float) -> bool:
    """Whether a real number can be a scale; NaN cannot."""
    return LEAST_SCALE <= value <= GREATEST_SCALE


@dataclass(frozen=True)
class TfliteLstm:
    """An LSTM as the rules see it.

    Args:
        model: the file.
        operator: the LSTM in it.
        profile: whose kernels shall run it.
    """

    model: TfliteModel
    operator: TfliteOperator
    profile: Profile

    @property
    def options(self) -> SequenceLstmOptions:
        """The operator's options; their defaults where the file has none."""
        options = self.operator.options
        return options if isinstance(options, SequenceLstmOptions) else SequenceLstmOptions()

    def tensor(self, position: int) -> TfliteTensor | None:
        """Return an input of the operator; None where it is absent."""
        inputs = self.operator.inputs
        if position >= len(inputs) or inputs[position] == ABSENT:
            return None
        return self.model.tensors[inputs[position]]

    def intermediate(self, position: int) -> TfliteTensor | None:
        """Return an intermediate of the operator; None where it is absent."""
        found = self.operator.intermediates
        if position >= len(found) or found[position] == ABSENT:
            return None
        return self.model.tensors[found[position]]

    @property
    def coupled(self) -> bool:
        """Whether it is a CIFG: no weights for the input gate."""
        return self.tensor(INPUT_WEIGHTS[0]) is None

    @property
    def parameters(self) -> Iterator[tuple[int, TfliteTensor]]:
        """Weights, biases and coefficients that are there, with their positions."""
        for position in (*range(1, HIDDEN_STATE), *LAYER_NORMS):
            tensor = self.tensor(position)
            if tensor is not None:
                yield position, tensor

    @property
    def scaled_parameters(self) -> Iterator[tuple[int, TfliteTensor]]:
        """Those whose scale the kernels read; a bias' scale they do not."""
        return ((k, t) for k, t in self.parameters if t.dtype not in ("int32", "int64"))

    @property
    def gates(self) -> range:
        """The gates that have weights of their own."""
        return range(1, 4) if self.coupled else range(4)


def integer_activations(lstm: TfliteLstm) -> str | None:
    """LSTM in a .tflite must be fed int8, or int16; a float model is converted from its source."""
    tensor = lstm.tensor(0)
    if tensor is None:
        return "input 0 is absent"
    return None if tensor.dtype in ("int8", "int16") else f"input is {tensor.dtype}"


def all_inputs(lstm: TfliteLstm) -> str | None:
    """LSTM in a .tflite must have 24 inputs; the first 20 are enough for the TFLite profiles."""
    count = len(lstm.operator.inputs)
    enough = lstm.profile in TFLITE_PROFILES and count == INPUT_COUNT_WITHOUT_LAYER_NORM
    return None if count == INPUT_COUNT or enough else f"has {count} inputs"


def tanh_activation(lstm: TfliteLstm) -> str | None:
    """LSTM in a .tflite must have the fused activation TANH (4).

    TFLite computes tanh whatever stands there, TFLM none, CMSIS-NN a sigmoid.
    """
    found = lstm.options.fused_activation
    return None if found == TANH else f"has fused activation {found}"


def full_matrices(lstm: TfliteLstm) -> str | None:
    """LSTM in a .tflite must have full recurrent matrices, not diagonals."""
    return "has diagonal_recurrent_tensors" if lstm.options.diagonal_recurrent_tensors else None


def clips(lstm: TfliteLstm) -> str | None:
    """Clips of an LSTM in a .tflite must be positive, or 0 for none."""
    options = lstm.options
    for what, value in (("cell", options.cell_clip), ("projection", options.projection_clip)):
        if not 0 <= value <= GREATEST_SCALE:
            return f"{what} clip is {value}"
    return None


def all_weights(lstm: TfliteLstm) -> str | None:
    """LSTM in a .tflite must have weights and a bias for each gate; a CIFG has no input gate.

    Without a bias LiteRT and TFLM crash.
    """
    for gate in range(4):
        for what, positions in (
            ("input weights", INPUT_WEIGHTS),
            ("recurrent weights", RECURRENT_WEIGHTS),
            ("bias", BIASES),
        ):
            there = lstm.tensor(positions[gate]) is not None
            if there != (gate in lstm.gates):
                return f"{what} (input {positions[gate]}) {'is there' if there else 'is absent'}"
    return None


def constant_weights(lstm: TfliteLstm) -> str | None:
    """Weights of an LSTM in a .tflite must be constants in the file."""
    for position, tensor in lstm.parameters:
        if tensor.data is None:
            return f"input {position} ({tensor.name!r}) has no data"
    return None


def one_scale_a_matrix(lstm: TfliteLstm) -> str | None:
    """Each weight matrix of an LSTM must have one scale.

    Of several, TFLite takes the first for all, and TFLM computes garbage.
    """
    for position, tensor in lstm.scaled_parameters:
        if len(tensor.scales) != 1 or not is_scale(tensor.scales[0]):
            found = f"scale {tensor.scales[0]}" if len(tensor.scales) == 1 else None
            return (
                f"input {position} ({tensor.name!r}) has {found or f'{len(tensor.scales)} scales'}"
            )
    return None


def weights_around_zero(lstm: TfliteLstm) -> str | None:
    """Weights of an LSTM must have zero point 0; TFLite ignores another one, TFLM applies it."""
    for position, tensor in lstm.scaled_parameters:
        if any(tensor.zero_points):
            return f"input {position} ({tensor.name!r}) has zero point {tensor.zero_points[0]}"
    return None


def variable_states(lstm: TfliteLstm) -> str | None:
    """States of an LSTM in a .tflite must be variable tensors without data, [batch, size]."""
    for what, position in (("hidden state", HIDDEN_STATE), ("cell state", CELL_STATE)):
        tensor = lstm.tensor(position)
        if tensor is None:
            return f"{what} (input {position}) is absent"
        if not tensor.is_variable or tensor.data is not None:
            kind = "has data" if tensor.is_variable else "is not variable"
            return f"{what} (input {position}) {kind}"
        if len(tensor.shape) != 2 and lstm.profile not in TFLITE_PROFILES:
            return f"{what} (input {position}) has shape {list(tensor.shape)}"
    return None


def cell_scale(lstm: TfliteLstm) -> str | None:
    """Cell state of an LSTM in a .tflite must be int16, its scale 2^-30 to 2^0, zero point 0.

    With a scale that is no power of two LiteRT computes garbage, and TFLM with one nearby.
    """
    tensor = lstm.tensor(CELL_STATE)
    assert tensor is not None
    found = f"cell state is {tensor.dtype} with scales {list(tensor.scales)}"
    if tensor.dtype != "int16" or len(tensor.scales) != 1 or any(tensor.zero_points):
        return found
    scale = tensor.scales[0]
    power = round(math.log2(scale)) if is_scale(scale) else 1
    fits = CELL_POWERS[0] <= power <= CELL_POWERS[1] and scale == 2.0**power
    return None if fits else found


def hidden_intermediate(lstm: TfliteLstm) -> str | None:
    """LSTM in a .tflite must have five intermediates for the TFLite profiles."""
    if lstm.profile not in TFLITE_PROFILES or lstm.intermediate(HIDDEN_INTERMEDIATE) is not None:
        return None
    return f"has {len(lstm.operator.intermediates)} intermediates"


LSTM_RULES: tuple[Callable[[TfliteLstm], str | None], ...] = (
    integer_activations,
    all_inputs,
    tanh_activation,
    full_matrices,
    clips,
    all_weights,
    constant_weights,
    one_scale_a_matrix,
    weights_around_zero,
    variable_states,
    cell_scale,
    hidden_intermediate,
)
"""In the order in which they are asked; a later one relies on those before it."""
