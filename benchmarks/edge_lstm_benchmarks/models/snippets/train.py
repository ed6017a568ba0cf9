"""Train the review classifier of the Keras tutorial and rewrite this folder's files (about 30 s).

KERAS_BACKEND=torch python benchmarks/edge_lstm_benchmarks/models/snippets/train.py
"""

from pathlib import Path

import keras  # type: ignore[import-untyped,unused-ignore]
import numpy as np
import torch

from edge_lstm_benchmarks import datasets

FOLDER = Path(__file__).parent
WORDS, FEATURES, TIME_STEPS = 1500, 16, 40
CALIBRATION_ITEMS = 800
SEED = 2


def main() -> None:
    """Train, print the test accuracy, write the model and data."""
    torch.set_num_threads(1)
    keras.utils.set_random_seed(SEED)
    train, test = datasets.review_snippets(WORDS, TIME_STEPS)
    model = keras.Sequential(
        [
            keras.Input((TIME_STEPS,), dtype="int32"),
            keras.layers.Embedding(WORDS, FEATURES),
            keras.layers.Dropout(0.5),
            keras.layers.LSTM(64),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    optimizer = keras.optimizers.AdamW(2e-3, weight_decay=0.05)
    model.compile(optimizer, loss="binary_crossentropy")
    model.fit(train.x, train.y.astype(np.float32), batch_size=64, epochs=5, verbose=0)
    positive = model.predict(test.x, verbose=0)[:, 0] >= 0.5
    print(f"accuracy {(positive == test.y).mean():.3f} of {len(test.x)} snippets")
    # The layers alone: what the optimizer kept is twice as large again.
    layers = [keras.Input((TIME_STEPS,), dtype="int32"), *model.layers]
    keras.Sequential(layers).save(FOLDER / "model.keras")
    chosen = np.linspace(0, len(train.x) - 1, CALIBRATION_ITEMS).round().astype(np.int64)
    # Ids below 1,500 fit int16; small files.
    np.savez_compressed(FOLDER / "calibration.npz", x=train.x[chosen].astype(np.int16))
    np.savez_compressed(FOLDER / "test.npz", x=test.x.astype(np.int16), y=test.y)


if __name__ == "__main__":
    main()
