"""Makes golden folders: Keras models through TensorFlow's converter, then the interpreters' bytes.

Two steps, since TensorFlow 2.15.1 and the interpreters of today need environments of their own:

    python -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu==2.15.1   # Python 3.9 to 3.11
    /tmp/tf/bin/python tests/golden/make_golden.py convert [NAME ...]
    .venv/bin/python tests/golden/make_golden.py vectors [NAME ...]

``convert`` writes NAME/model.tflite and NAME/origin.json (versions, seed, command); ``vectors``
writes NAME/vectors.npz with the outputs of every interpreter that is installed (the keys are
explained in README.md) and adds their versions. TensorFlow gives the same file again on the same
machine; another CPU may round a calibrated scale differently.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CALLS = 8
SAMPLES = 30
SEED = 20261123
RESET = np.array([1, 1, 0, 0, 1, 1, 0, 1])


def bidirectional_sequence(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((9, 5), batch_size=1)
    return x, keras.layers.Bidirectional(keras.layers.LSTM(6, return_sequences=True))(x)


def bidirectional_last(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((8, 4), batch_size=1)
    y = keras.layers.Bidirectional(keras.layers.LSTM(7))(x)
    return x, keras.layers.Dense(5, activation="softmax")(y)


def bidirectional_stack(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((7, 6), batch_size=3)
    y = keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True))(x)
    y = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))(y)
    return x, keras.layers.TimeDistributed(keras.layers.Dense(3))(y)


def bidirectional_sum(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((8, 4), batch_size=1)
    return x, keras.layers.Bidirectional(keras.layers.LSTM(7), merge_mode="sum")(x)


def backwards(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((10, 3), batch_size=1)
    y = keras.layers.LSTM(8, go_backwards=True, return_sequences=True)(x)
    return x, keras.layers.LSTM(6)(y)


def parallel(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((11, 4), batch_size=1)
    y = keras.layers.concatenate([keras.layers.LSTM(6)(x), keras.layers.LSTM(9)(x)])
    y = keras.layers.Dense(8, activation="relu")(y)
    return x, keras.layers.Dense(3, activation="sigmoid")(y)


def words(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((12,), batch_size=1, dtype="int32")
    y = keras.layers.Embedding(20, 6)(x)
    y = keras.layers.LSTM(10)(y)
    return x, keras.layers.Dense(2, activation="softmax")(y)


def time_distributed(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((6, 5), batch_size=2)
    y = keras.layers.TimeDistributed(keras.layers.Dense(7, activation="relu6"))(x)
    y = keras.layers.LSTM(8, return_sequences=True)(y)
    return x, keras.layers.TimeDistributed(keras.layers.Dense(4, activation="softmax"))(y)


def tanh_head(keras: Any) -> tuple[Any, Any]:
    x = keras.Input((9, 3), batch_size=1)
    y = keras.layers.LSTM(6, return_sequences=True)(x)
    y = keras.layers.LSTM(5, return_sequences=True)(y)
    return x, keras.layers.Dense(3, activation="tanh")(keras.layers.Flatten()(y))


MODELS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    f"tf_{make.__name__}": make
    for make in (
        bidirectional_sequence,
        bidirectional_last,
        bidirectional_stack,
        bidirectional_sum,
        backwards,
        parallel,
        words,
        time_distributed,
        tanh_head,
    )
}
FLOAT_ENDS = ("tf_tanh_head",)
"""Models whose files take and give float32."""


def convert(name: str) -> None:
    """Write the ``.tflite`` file of a model with random weights."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    seed = SEED + list(MODELS).index(name)
    random = np.random.default_rng(seed)
    tf.keras.utils.set_random_seed(seed)
    model = tf.keras.Model(*MODELS[name](tf.keras))
    for layer in model.layers:
        layer.set_weights(
            [
                random.normal(0, 1.2 / np.sqrt(w.shape[0]) if w.ndim > 1 else 0.4, w.shape)
                for w in layer.get_weights()
            ]
        )
    shape, tokens = model.inputs[0].shape, model.inputs[0].dtype == tf.int32

    def samples() -> Iterator[list[Any]]:
        for _ in range(SAMPLES):
            x = random.integers(0, 20, shape) if tokens else random.standard_normal(shape)
            yield [x.astype(np.int32 if tokens else np.float32)]

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        model.save(saved, save_format="tf")
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if name not in FLOAT_ENDS:
            converter.inference_input_type = tf.int8  # token ids stay int32
            converter.inference_output_type = tf.int8
        (folder / "model.tflite").write_bytes(converter.convert())
    write_origin(
        folder,
        {
            "command": f"python tests/golden/make_golden.py convert {name}",
            "seed": seed,
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "numpy": np.__version__,
            },
        },
    )


def write_origin(folder: Path, origin: dict[str, Any]) -> None:
    (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")


def vectors(name: str) -> None:
    """Write the inputs and every interpreter's outputs."""
    sys.path.insert(0, str(HERE.parent))
    import interpreters
    from edge_lstm_converters.tflite_schema import parse

    folder = HERE / name
    data = (folder / "model.tflite").read_bytes()
    model = parse(data, name)
    source = model.tensors[model.inputs[0]]
    x = inputs(np.random.default_rng(SEED), (CALLS, *source.shape), source)
    found: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for key, profile, package in (
        ("y_litert", "litert", "ai-edge-litert"),
        ("y_litert_ref", "litert-ref", "ai-edge-litert"),
        ("y_tflm_2026_10", "tflm", "tflite-micro"),
        ("y_tflm_2026_08", "tflm-2026-08", "tflite-micro"),
        ("y_tfr", "tflite-runtime", "tflite-runtime"),
    ):
        if reason := interpreters.missing(profile):
            print(f"{name}: no {key}: {reason}")
            continue
        try:
            found[key] = interpreters.run(profile, data, x, RESET)
        except interpreters.Refused as error:
            print(f"{name}: no {key}: {error}")
            continue
        versions[key] = f"{package} {interpreters.version(profile)}"
    np.savez_compressed(folder / "vectors.npz", x=x, reset=RESET, **found)
    origin = json.loads((folder / "origin.json").read_text())
    origin["vectors"] = {
        "command": f"python tests/golden/make_golden.py vectors {name}",
        "seed": SEED,
        "versions": {"numpy": importlib.metadata.version("numpy"), **versions},
    }
    write_origin(folder, origin)


def inputs(random: np.random.Generator, shape: tuple[int, ...], source: Any) -> Any:
    """Return calls that are normal in real units, uniform over the type, and all extremes."""
    if source.dtype == "int32":
        return random.integers(0, 20, shape).astype(np.int32)
    normal = random.standard_normal(shape)
    if source.dtype == "float32":
        return (normal * np.array([1, 1, 3, 10, 0.1, 1, 2, 0])[:, None, None, None]).astype("f4")
    q = np.clip(np.rint(normal / source.scales[0]) + source.zero_points[0], -128, 127)
    q[2], q[4], q[7] = (random.integers(-128, 128, shape[1:]) for _ in range(3))
    q[3] = random.choice([-128, 127], shape[1:])
    return q.astype(np.int8)


def main(arguments: list[str]) -> int:
    """Run one of the two steps for the models named, or for all."""
    steps = {"convert": convert, "vectors": vectors}
    if not arguments or arguments[0] not in steps or set(arguments[1:]) - set(MODELS):
        print(f"usage: make_golden.py convert|vectors [{'|'.join(MODELS)}]", file=sys.stderr)
        return 2
    step, *names = arguments
    if step == "convert" and len(names) != 1:
        # Names in the file count what the process has made before.
        for name in names or MODELS:
            subprocess.run([sys.executable, __file__, "convert", name], check=True)
        return 0
    for name in names or MODELS:
        steps[step](name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
