"""Makes ``float/``: Keras models through TensorFlow's converter in float, with their outputs.

    python -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu==2.15.1   # Python 3.9 to 3.11
    /tmp/tf/bin/python tests/golden/make_float_golden.py [NAME ...]

NAME.tflite is the file, NAME.npz what goes in and comes out: ``x`` [calls, ...], ``y_keras`` and
``y_tflite``, the latter from TensorFlow's own interpreter, and as JSON ``origin``.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent / "float"
CALLS = 4
SEED = 20261123

# The input's shape, rows, and the layers.
MODELS: dict[str, tuple[tuple[int, ...], int, Callable[[Any], list[Any]]]] = {
    "last_step": ((5, 3), 1, lambda k: [k.LSTM(4), k.Dense(2, activation="softmax")]),
    "stack_batch3": (
        (5, 3),
        3,
        lambda k: [k.LSTM(4, return_sequences=True), k.LSTM(3), k.Dense(2, activation="tanh")],
    ),
    "every_step": ((6, 3), 1, lambda k: [k.LSTM(4, return_sequences=True), k.Dense(2)]),
    "bidirectional": (
        (5, 3),
        2,
        lambda k: [k.Bidirectional(k.LSTM(4, return_sequences=True)), k.Dense(2)],
    ),
    "bidirectional_last": ((5, 3), 1, lambda k: [k.Bidirectional(k.LSTM(4)), k.Dense(2)]),
    "bidirectional_mean": (
        (5, 3),
        1,
        lambda k: [k.Bidirectional(k.LSTM(4, return_sequences=True), merge_mode="ave"), k.Dense(2)],
    ),
    "backwards": ((5, 3), 1, lambda k: [k.LSTM(4, go_backwards=True, return_sequences=True)]),
    "embedding": (
        (6,),
        1,
        lambda k: [k.Embedding(11, 4), k.LSTM(4), k.Dense(1, activation="sigmoid")],
    ),
    "flatten": (
        (5, 3),
        1,
        lambda k: [k.LSTM(4, return_sequences=True), k.Flatten(), k.Dense(2, activation="relu")],
    ),
    "normalized": (
        (5, 3),
        1,
        lambda k: [
            k.Normalization(mean=[1.0, -2.0, 3.0], variance=[1.0, 4.0, 9.0]),
            k.LSTM(4, return_sequences=True),
            k.BatchNormalization(),
            k.LSTM(3),
            k.Dense(2),
        ],
    ),
    "pooled": ((5, 3), 2, lambda k: [k.LSTM(4, return_sequences=True), k.GlobalAveragePooling1D()]),
    "gru_loop": ((5, 3), 1, lambda k: [k.GRU(4), k.Dense(2)]),
}


def make(name: str) -> None:
    """Write one model."""
    import tensorflow as tf

    shape, rows, layers = MODELS[name]
    y = x = tf.keras.Input(shape, batch_size=rows)
    for layer in layers(tf.keras.layers):
        y = layer(y)
    model = tf.keras.Model(x, y)
    random = np.random.default_rng(SEED)
    for variable in model.weights:
        low = 0.5 if "variance" in variable.name else -0.6
        if "count" not in variable.name:
            variable.assign(random.uniform(low, 1.2 + low, variable.shape))
    tokens = len(shape) == 1
    size = (CALLS, rows, *shape)
    drawn = random.integers(0, 11, size) if tokens else random.standard_normal(size)
    fed = drawn.astype(np.float32)
    with tempfile.TemporaryDirectory() as saved:
        model.save(saved, save_format="tf")
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        data = converter.convert()
    interpreter = tf.lite.Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for call in fed:
        interpreter.reset_all_variables()
        interpreter.set_tensor(given["index"], call)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(made["index"]).copy())
    HERE.mkdir(exist_ok=True)
    (HERE / f"{name}.tflite").write_bytes(data)
    origin = {
        "command": f"python tests/golden/make_float_golden.py {name}",
        "seed": SEED,
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
    }
    np.savez_compressed(
        HERE / f"{name}.npz",
        x=fed,
        y_keras=np.stack([model(call).numpy() for call in fed]),
        y_tflite=np.stack(outputs),
        origin=np.array(json.dumps(origin)),
    )


def main(names: list[str]) -> int:
    """Make the models named, or all, each in a process of its own."""
    if len(names) == 1:
        make(names[0])
        return 0
    for name in names or MODELS:
        subprocess.run([sys.executable, __file__, name], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
