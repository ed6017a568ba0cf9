"""Make the small Keras files in this folder, with what Keras computes for them.

Run it once with each generation of Keras; both write what no test could write itself::

    pip install tensorflow==2.15.1 edge-lstm && python make_keras_models.py     # keras2_*
    pip install keras==3.15.1 torch && KERAS_BACKEND=torch python make_keras_models.py  # keras3_*
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras import layers

FOLDER = Path(__file__).parent
GENERATION = f"keras{keras.__version__.split('.')[0]}"


def randomize(model: Any, rng: np.random.Generator) -> None:
    """Set every weight to a small random number; variances stay above 0."""
    values = [rng.uniform(-0.6, 0.6, w.shape).astype(np.float32) for w in model.get_weights()]
    names = [getattr(w, "path", w.name) for w in model.weights]
    model.set_weights(
        [np.abs(v) + 0.5 if "variance" in n else v for n, v in zip(names, values, strict=True)]
    )


def keep(model: Any, name: str, suffix: str, x: np.ndarray) -> None:
    """Save a model with inputs and outputs."""
    path = FOLDER / f"{GENERATION}_{name}{suffix}"
    if name == "weights":
        model.save_weights(path)
    else:
        model.save(path)
    y = np.asarray(model.predict(x, verbose=0), np.float32)
    np.savez_compressed(FOLDER / f"{GENERATION}_{name}.npz", x=x, y=y)


def chain() -> Any:
    """Return a chain with a hard_sigmoid, which Keras 3 gave another meaning."""
    return keras.Sequential(
        [
            keras.Input((8, 3), name="frames"),
            layers.Conv1D(4, 3, padding="causal", activation="relu", name="conv"),
            layers.MaxPooling1D(2, name="pool"),
            layers.Bidirectional(
                layers.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid"),
                merge_mode="ave",
                name="both",
            ),
            layers.BatchNormalization(name="norm"),
            layers.GRU(3, reset_after=False, return_sequences=True, name="old_gru"),
            layers.TimeDistributed(layers.Dense(3, activation="tanh"), name="each_step"),
            layers.Dropout(0.5, name="dropout"),
            layers.GRU(2, recurrent_activation="hard_sigmoid", go_backwards=True, name="gru"),
            layers.Dense(2, activation="softmax", name="answer"),
        ]
    )


def branches() -> Any:
    """Return a functional model with a model inside, a residual, and two directions."""
    entry = keras.Input((None, 3), name="frames")
    inner = keras.Sequential(
        [keras.Input((None, 3)), layers.Dense(4, name="up"), layers.LayerNormalization(name="ln")],
        name="inner",
    )
    y = inner(entry)
    y = layers.Add(name="residual")([y, layers.SimpleRNN(4, return_sequences=True, name="rnn")(y)])
    forward = layers.LSTM(3, return_state=True, name="ahead")(y)[0]
    backward = layers.LSTM(3, go_backwards=True, name="back")(y)
    y = layers.Concatenate(name="join")([forward, backward])
    return keras.Model(entry, layers.Dense(1, activation="sigmoid", name="answer")(y))


def weights() -> Any:
    """Return a model whose weights are saved alone."""
    # A weights file of Keras 3 does not say its version, so which hard_sigmoid it is.
    gate = "hard_sigmoid" if GENERATION == "keras2" else "sigmoid"
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(7, 3, name="embedding"),
            layers.Bidirectional(layers.GRU(2, return_sequences=True), name="bidirectional"),
            layers.LSTM(3, recurrent_activation=gate, use_bias=False, name="lstm"),
            layers.Dense(2, name="dense"),
        ]
    )


def steps() -> Any:
    """Return a model with a backward layer that is turned round by hand; PyTorch cannot do it."""
    entry = keras.Input((8, 3), name="frames")
    ahead = layers.LSTM(2, return_sequences=True, name="ahead")(entry)
    back = layers.LSTM(2, return_sequences=True, go_backwards=True, name="back")(entry[:, 1:])
    both = layers.Concatenate(name="both")([ahead[:, 1:], back[:, ::-1]])
    return keras.Model(entry, layers.GRU(2, return_sequences=True, name="gru")(both)[:, -1])


def keep_cudnn(rng: np.random.Generator, x: np.ndarray) -> None:
    """Save CuDNN layers, which run on NVIDIA alone, and answers of those they are loaded as."""
    import tensorflow

    old = tensorflow.compat.v1.keras.layers
    models = [
        keras.Sequential(
            [
                keras.Input((8, 3), name="frames"),
                gru(4, return_sequences=True, name="gru"),
                lstm(2, name="lstm"),
            ]
        )
        for gru, lstm in ((old.CuDNNGRU, old.CuDNNLSTM), (layers.GRU, layers.LSTM))
    ]
    randomize(models[0], rng)
    models[0].save(FOLDER / "keras2_cudnn.h5")
    with tempfile.TemporaryDirectory() as folder:
        models[0].save_weights(f"{folder}/weights.h5")
        models[1].load_weights(f"{folder}/weights.h5")
    np.savez_compressed(FOLDER / "keras2_cudnn.npz", x=x, y=models[1].predict(x, verbose=0))


def keep_textgenrnn() -> None:
    """Save what Keras 2, which knows CuDNN's layout, makes of textgenrnn's weights, in float64."""
    from edge_lstm_benchmarks.datasets import textgenrnn_weights

    keras.backend.set_floatx("float64")
    entry = keras.Input((40,))
    y = layers.Embedding(465, 100, name="embedding")(entry)
    for name in ("rnn_1", "rnn_2"):
        y = layers.LSTM(128, return_sequences=True, name=name)(y)
    model = keras.Model(entry, y)
    model.load_weights(textgenrnn_weights(), by_name=True)
    x = np.random.default_rng(0).integers(0, 465, (4, 40)).astype(np.int32)
    last = model.predict(x, verbose=0)[:, -1].astype(np.float32)
    np.savez_compressed(FOLDER / "keras2_textgenrnn.npz", x=x, y=last)


def main() -> None:
    """Write all files."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8, 3)).astype(np.float32)
    tokens = rng.integers(0, 7, (3, 6)).astype(np.int32)
    cases = [(chain(), "chain", x), (branches(), "branches", x), (weights(), "weights", tokens)]
    suffixes = {"keras2": (".h5", ".keras", ".h5"), "keras3": (".keras", ".h5", ".weights.h5")}
    for (model, name, data), suffix in zip(cases, suffixes[GENERATION], strict=True):
        randomize(model, rng)
        keep(model, name, suffix, data)
    if GENERATION == "keras2":
        model = steps()
        randomize(model, rng)
        keep(model, "steps", ".h5", x)
        keep_cudnn(rng, x)
        keep_textgenrnn()


if __name__ == "__main__":
    main()
