"""Random Keras models for ``test_read_keras.py``: every option that the reader takes."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import F32, I64, Array

os.environ.setdefault("KERAS_BACKEND", "torch")

Rng = np.random.Generator
TIME = 9


def keras() -> Any:
    """Return the Keras package; it is noisy when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras as package
    return package


def randomize(model: Any, rng: Rng) -> None:
    """Give every weight a value that is not its first one; variances stay above 0."""
    for variable in model.variables:
        if variable.dtype != "float32":
            continue  # of a dropout
        shape = tuple(variable.shape)
        values = rng.uniform(-0.6, 0.6, shape)
        if "variance" in variable.path:
            values = rng.uniform(0.5, 2.0, shape)
        variable.assign(values.astype(np.float32))


def recurrent(rng: Rng, every: bool, **fixed: Any) -> Any:
    """Return a recurrent layer with random arguments."""
    layers = keras().layers
    kind = fixed.pop("kind", None) or rng.choice(["LSTM", "GRU", "SimpleRNN"])
    options: dict[str, Any] = {
        "units": int(rng.integers(1, 6)),
        "return_sequences": every,
        "use_bias": bool(rng.random() < 0.8),
        "activation": str(rng.choice(["tanh", "tanh", "sigmoid", "softsign", "linear", "relu"])),
        "dropout": 0.3,
        "recurrent_dropout": float(rng.choice([0.0, 0.2])),
        "unroll": False,
    }
    if kind != "SimpleRNN":
        options["recurrent_activation"] = str(rng.choice(["sigmoid", "sigmoid", "hard_sigmoid"]))
    if kind == "LSTM":
        options["unit_forget_bias"] = bool(rng.random() < 0.5)
    if kind == "GRU":
        options["reset_after"] = bool(rng.random() < 0.5)
    return getattr(layers, kind)(**{**options, **fixed})


def a_recurrent_layer(rng: Rng, every: bool, backward_steps: bool = True) -> Any:
    """Return one, one that runs backward, or both directions."""
    layers = keras().layers
    choice = rng.random()
    if choice < 0.35:
        merge = str(rng.choice(["concat", "sum", "mul", "ave"]))
        return layers.Bidirectional(recurrent(rng, every), merge_mode=merge)
    backward = choice < 0.55 and (backward_steps or not every)
    return recurrent(rng, every, go_backwards=bool(backward))


def per_step(rng: Rng) -> list[Any]:
    """Return a layer that acts on every step alone, or none."""
    layers = keras().layers
    size = int(rng.integers(1, 6))
    choices: list[Callable[[], list[Any]]] = [
        list,
        lambda: [layers.Dropout(0.2)],
        lambda: [layers.SpatialDropout1D(0.2), layers.GaussianNoise(0.1)],
        lambda: [layers.BatchNormalization(scale=bool(rng.random() < 0.7))],
        lambda: [layers.BatchNormalization(center=bool(rng.random() < 0.7), epsilon=0.01)],
        lambda: [layers.LayerNormalization(center=bool(rng.random() < 0.7))],
        lambda: [layers.Dense(size, activation=str(rng.choice(["relu", "tanh", "elu"])))],
        lambda: [layers.TimeDistributed(layers.Dense(size, use_bias=bool(rng.random() < 0.5)))],
        lambda: [layers.TimeDistributed(layers.LayerNormalization())],
        lambda: [layers.Activation(str(rng.choice(["relu6", "sigmoid", "leaky_relu"])))],
        lambda: [layers.ReLU(max_value=6.0)],
        lambda: [layers.ReLU(negative_slope=0.2)],
        lambda: [layers.LeakyReLU(negative_slope=0.1)],
        lambda: [layers.ELU(alpha=0.7)],
    ]
    return choices[int(rng.integers(len(choices)))]()


def front(rng: Rng) -> list[Any]:
    """Return convolutions and pooling, as in front of the LSTM of a CNN-LSTM."""
    layers = keras().layers
    groups = 2 if rng.random() < 0.3 else 1
    stride = int(rng.integers(1, 3))
    found = [
        layers.Conv1D(
            2 * int(rng.integers(1, 3)),
            int(rng.integers(1, 4)),
            strides=stride,
            dilation_rate=int(rng.integers(1, 3)) if stride == 1 else 1,
            padding=str(rng.choice(["valid", "same", "causal"])),
            activation=str(rng.choice(["relu", "linear", "tanh"])),
            use_bias=bool(rng.random() < 0.8),
            groups=groups,
        )
    ]
    if rng.random() < 0.7:
        pool = layers.MaxPooling1D if rng.random() < 0.5 else layers.AveragePooling1D
        padding = str(rng.choice(["valid", "same"]))
        found.append(pool(2, strides=1 if rng.random() < 0.5 else None, padding=padding))
    return found


def head(rng: Rng, vector: bool, masked: bool) -> list[Any]:
    """Return what makes the answer of the last layer's steps or of its vector."""
    layers = keras().layers
    found: list[Any] = []
    if not vector:
        pools = [layers.GlobalAveragePooling1D]
        pools += [] if masked else [layers.GlobalMaxPooling1D, layers.Flatten]
        if rng.random() < 0.7:
            found.append(pools[int(rng.integers(len(pools)))]())
    kind = rng.choice(["linear", "softmax", "sigmoid", "relu", "relu6", "hard_sigmoid", "softplus"])
    found.append(layers.Dense(int(rng.integers(1, 5)), activation=str(kind)))
    if rng.random() < 0.2:
        found.append(layers.Softmax() if not masked else layers.Activation("softmax"))
    return found


def random_model(seed: int) -> Any:
    """Return a sequential or functional model that is one chain."""
    rng = np.random.default_rng(seed)
    package, layers = keras(), keras().layers
    package.utils.clear_session(free_memory=False)
    tokens, masked = bool(rng.random() < 0.35), False
    found: list[Any] = []
    if tokens:
        masked = bool(rng.random() < 0.5)
        entry = package.Input((TIME,), dtype="int32")
        found.append(layers.Embedding(11, int(rng.integers(2, 5)), mask_zero=masked))
    else:
        entry = package.Input((TIME, 2 * int(rng.integers(1, 3))))
        masked = bool(rng.random() < 0.2)
        found += [layers.Masking(0.0)] if masked else []
    if not tokens and not masked and rng.random() < 0.4:
        found += front(rng)
    vector = bool(rng.random() < 0.6)
    count = int(rng.integers(1, 4))
    for number in range(count):
        found += per_step(rng)
        last = number == count - 1
        found.append(a_recurrent_layer(rng, not (last and vector), not masked))
    if not vector:
        found += per_step(rng)
    found += head(rng, vector, masked)
    if rng.random() < 0.5:
        model = package.Sequential([entry, *found])
    else:
        y = entry
        for layer in found:
            y = layer(y)
        model = package.Model(entry, y)
    randomize(model, rng)
    model.masked = masked
    return model


def samples(model: Any, rng: Rng, batch: int = 4) -> tuple[Array, I64 | None]:
    """Return inputs for a model, and lengths where it masks the padding."""
    shape = tuple(TIME if n is None else n for n in model.inputs[0].shape[1:])
    x: Array
    if len(shape) == 1:
        x = rng.integers(1, 11, (batch, *shape)).astype(np.int32)
    else:
        x = rng.standard_normal((batch, *shape)).astype(np.float32)
    if not getattr(model, "masked", False):
        return x, None
    lengths = rng.integers(1, shape[0] + 1, batch)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 0
    return x, lengths


def answer(model: Any, x: Array) -> F32:
    """Return what Keras computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = model(x, training=False)
    return np.asarray(y.detach().cpu().numpy(), np.float32)


def save(model: Any, path: Path) -> Path:
    """Save a model; Keras warns that HDF5 is old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.name.endswith(".weights.h5"):
            model.save_weights(path)
        else:
            model.save(path)
    return path
