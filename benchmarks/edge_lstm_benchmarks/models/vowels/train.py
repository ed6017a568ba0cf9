"""Train the speaker classifier and rewrite this folder's weights (about 10 s).

python benchmarks/edge_lstm_benchmarks/models/vowels/train.py
"""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.models import training

FOLDER = Path(__file__).parent


def main() -> None:
    """Train, print the test accuracy, write the weights; the data's terms are not known."""
    data = datasets.japanese_vowels()
    training.make_repeatable()
    net = training.LastStepNet(input_size=12, hidden_size=32, outputs=9)
    # 270 utterances are few: noise, weight decay and soft labels keep it from learning them by
    # heart.
    training.fit(
        net,
        data.train,
        partial(nn.functional.cross_entropy, label_smoothing=0.05),
        torch.optim.Adam(net.parameters(), weight_decay=1e-4),
        epochs=100,
        batch_size=32,
        input_noise=0.1,
    )
    print(f"accuracy {training.accuracy(net, data.test):.4f} of {len(data.test.x)} utterances")
    training.save_weights(net, FOLDER)


if __name__ == "__main__":
    main()
