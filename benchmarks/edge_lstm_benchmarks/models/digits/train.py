"""Train the digit classifier and rewrite this folder's files (about 5 s).

python benchmarks/edge_lstm_benchmarks/models/digits/train.py
"""

from pathlib import Path

import torch
from torch import nn

from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.models import training

FOLDER = Path(__file__).parent


def main() -> None:
    """Train, print the test accuracy, write weights and data."""
    data = datasets.digits()
    training.make_repeatable()
    net = training.LastStepNet(input_size=8, hidden_size=32, outputs=10)
    training.fit(
        net,
        data.train,
        nn.functional.cross_entropy,
        torch.optim.AdamW(net.parameters()),
        epochs=40,
        batch_size=32,
    )
    print(f"accuracy {training.accuracy(net, data.test):.3f} of {len(data.test.x)} digits")
    training.save_weights(net, FOLDER)
    training.save_data(data, FOLDER)


if __name__ == "__main__":
    main()
