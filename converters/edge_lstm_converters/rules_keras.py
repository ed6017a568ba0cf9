"""What layers of a Keras file must be like. Each docstring is a rule as users read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_lstm.spec import Signal
from edge_lstm_converters.keras_archive import KerasLayer


@dataclass(frozen=True)
class Fed:
    """A layer and what it is fed.

    Args:
        layer: the layer.
        signal: in front of it.
        time_steps: of the sequence; None: any, or not a sequence.
        mask: the layer whose mask is in force, or None.
        repeats: whether steps that the mask leaves out repeat the step before them.
        version: of the Keras that saved the file.
    """

    layer: KerasLayer
    signal: Signal
    time_steps: int | None
    mask: str | None
    repeats: bool
    version: tuple[int, int] | None


Rule = Callable[[Fed], str | None]


def not_quantized(fed: Fed) -> str | None:
    """Layers must be in float: save the model before model.quantize()."""
    policy = fed.layer.get("dtype", "float32")
    if isinstance(policy, dict):
        inner = policy.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        policy = name or policy.get("class_name")
    quantized = isinstance(policy, str) and ("_from_" in policy or "Quantized" in policy)
    return f"is quantized already ({policy})" if quantized else None


def batch_major(fed: Fed) -> str | None:
    """Recurrent layers must take [batch, time, features] (time_major=False)."""
    return "time_major is true" if fed.layer.get("time_major", False) else None


def no_cell_state_output(fed: Fed) -> str | None:
    """Of what return_state=True adds, only the hidden state may be used, not the cell state."""
    output = fed.layer.output
    return f"its output {output}, a state, is used" if output > 1 else None


def directions_apart(fed: Fed) -> str | None:
    """In Bidirectional, the forward layer must run forward and the backward layer backward."""
    forward, backward = fed.layer.branches
    if forward.get("go_backwards", False) or not backward.get("go_backwards", False):
        return (
            f"go_backwards is {forward.get('go_backwards', False)} in its forward layer and"
            f" {backward.get('go_backwards', False)} in its backward layer"
        )
    return None


def directions_alike(fed: Fed) -> str | None:
    """Both layers of Bidirectional must be LSTM, GRU or SimpleRNN with equal return_sequences."""
    forward, backward = fed.layer.branches
    for branch in (forward, backward):
        if branch.class_name not in ("LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU"):
            return f"it wraps a {branch.class_name}"
    if forward.get("return_sequences", False) != backward.get("return_sequences", False):
        return "return_sequences differs"
    return None


def merged_directions(fed: Fed) -> str | None:
    """Bidirectional must merge by concat, sum, mul or ave, or both outputs must be joined."""
    merge = fed.layer.config.get("merge_mode", "concat")
    return None if merge in ("concat", "sum", "mul", "ave") else f"merge_mode is {merge!r}"


def no_mask_on_reversed_steps(fed: Fed) -> str | None:
    """A masked layer with go_backwards must not return sequences: padding would come first."""
    backward = fed.layer.get("go_backwards", False) and fed.layer.get("return_sequences", False)
    return f"has the mask of {fed.mask!r}" if fed.mask and backward else None


def no_mask(fed: Fed) -> str | None:
    """A layer that reads padding (mask_zero, Masking) has no counterpart; train without a mask."""
    return None if fed.mask is None else f"reads the steps that {fed.mask!r} masks"


def max_over_repeats(fed: Fed) -> str | None:
    """GlobalMaxPooling1D behind a mask must follow a recurrent layer that runs forward."""
    if fed.mask is None or fed.repeats:
        return None
    return f"reads the steps that {fed.mask!r} masks"


def is_fed_tokens(fed: Fed) -> str | None:
    """Embedding must be the first layer, fed token ids [time]."""
    return None if fed.signal.kind == "tokens" else f"is fed {fed.signal}"


def is_fed_a_sequence(fed: Fed) -> str | None:
    """Layers over time must be fed a sequence [time, features]."""
    return None if fed.signal.kind == "sequence" else f"is fed {fed.signal}"


def features_last(fed: Fed) -> str | None:
    """Data must be [batch, time, features] (data_format 'channels_last')."""
    form = fed.layer.get("data_format", "channels_last")
    return None if form == "channels_last" else f"data_format is {form!r}"


def normalizes_features(fed: Fed) -> str | None:
    """Normalization must be over the last axis, the features."""
    axis = fed.layer.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    last = (-1, 1 if fed.signal.kind == "vector" else 2)
    return None if axis in last else f"axis is {axis}"


def no_rms_scaling(fed: Fed) -> str | None:
    """LayerNormalization must subtract the mean (rms_scaling=False)."""
    return "rms_scaling is true" if fed.layer.get("rms_scaling", False) else None


def drops_the_axis(fed: Fed) -> str | None:
    """Global pooling must give [batch, features] (keepdims=False)."""
    return "keepdims is true" if fed.layer.get("keepdims", False) else None


def takes_steps(fed: Fed) -> str | None:
    """Of x[...] only steps may be taken: x[:, n], x[:, n:m] or x[:, ::-1]."""
    index = list(fed.layer.get("index", []))
    everything = (None, None, None)
    rest = [i for k, i in enumerate(index) if k != 1 and i not in (everything, (None, None, 1))]
    steps = index[1] if len(index) > 1 else None
    runs = isinstance(steps, tuple) and (steps[2] in (None, 1) or steps == (None, None, -1))
    if rest or len(index) > 3 or not (runs or isinstance(steps, int)):
        return f"takes {index}"
    return None


def known_length(fed: Fed) -> str | None:
    """Flatten and Reshape need a model with one sequence length, keras.Input((time, features))."""
    if fed.signal.kind == "sequence" and fed.time_steps is None:
        return "the sequence may have any length"
    return None


def of_one_step(fed: Fed) -> str | None:
    """TimeDistributed must wrap Dense, a normalization, an activation or a dropout."""
    inner = fed.layer.branches[0].class_name
    return None if inner in PER_STEP else f"it wraps {inner}"


PER_STEP = (
    "Dense",
    "BatchNormalization",
    "LayerNormalization",
    "Activation",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "Softmax",
    "Identity",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "Flatten",
)
RECURRENT: tuple[Rule, ...] = (
    is_fed_a_sequence,
    batch_major,
    no_cell_state_output,
    no_mask_on_reversed_steps,
)
# Of every class, before its own.
COMMON: tuple[Rule, ...] = (not_quantized,)
# By class; a class that is not here is refused by name. The order is the one of SUPPORTED.md.
RULES: dict[str, tuple[Rule, ...]] = {
    "LSTM": RECURRENT,
    "GRU": RECURRENT,
    "SimpleRNN": RECURRENT,
    "CuDNNLSTM": RECURRENT,
    "CuDNNGRU": RECURRENT,
    "Bidirectional": (
        is_fed_a_sequence,
        directions_alike,
        directions_apart,
        merged_directions,
        no_cell_state_output,
    ),
    "TimeDistributed": (is_fed_a_sequence, of_one_step),
    "Embedding": (is_fed_tokens,),
    "Masking": (is_fed_a_sequence,),
    "Dense": (),
    "Conv1D": (is_fed_a_sequence, no_mask, features_last),
    "MaxPooling1D": (is_fed_a_sequence, no_mask, features_last),
    "AveragePooling1D": (is_fed_a_sequence, no_mask, features_last),
    "GlobalMaxPooling1D": (is_fed_a_sequence, max_over_repeats, features_last, drops_the_axis),
    "GlobalAveragePooling1D": (is_fed_a_sequence, features_last, drops_the_axis),
    "Cropping1D": (is_fed_a_sequence, no_mask),
    "ZeroPadding1D": (is_fed_a_sequence, no_mask, features_last),
    "GetItem": (is_fed_a_sequence, no_mask, takes_steps),
    "Flatten": (no_mask, features_last, known_length),
    "Reshape": (no_mask, known_length),
    "BatchNormalization": (normalizes_features,),
    "LayerNormalization": (normalizes_features, no_rms_scaling),
    "Normalization": (no_mask, normalizes_features),
    "Rescaling": (no_mask,),
    "Activation": (),
    "ReLU": (),
    "LeakyReLU": (),
    "ELU": (),
    "Softmax": (no_mask, normalizes_features),
    "Identity": (),
    "Dropout": (),
    "SpatialDropout1D": (),
    "GaussianDropout": (),
    "GaussianNoise": (),
    "AlphaDropout": (),
    "ActivityRegularization": (),
}
