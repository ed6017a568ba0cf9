"""Train the digit classifier and its twins, and rewrite this folder's files (about 15 s).

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
    training.save_weights(trained(data, "lstm"), FOLDER)
    for cell in training.TWINS:
        training.save_weights(trained(data, cell), FOLDER, cell)
    training.save_data(data, FOLDER)


def trained(data: datasets.Dataset, cell: str) -> training.LastStepNet:
    """Return the network with one kind of cell; print its test accuracy."""
    training.make_repeatable()
    net = training.LastStepNet(input_size=8, hidden_size=32, outputs=10, cell=cell)
    training.fit(
        net,
        data.train,
        nn.functional.cross_entropy,
        torch.optim.AdamW(net.parameters()),
        epochs=40,
        batch_size=32,
    )
    print(f"{cell}: accuracy {training.accuracy(net, data.test):.3f} of {len(data.test.x)} digits")
    return net


if __name__ == "__main__":
    main()
