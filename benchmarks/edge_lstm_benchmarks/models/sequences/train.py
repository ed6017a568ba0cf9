"""Train an LSTM, a GRU, a plain RNN and a Transformer on both tasks (about 7 minutes in all).

python benchmarks/edge_lstm_benchmarks/models/sequences/train.py [TASK [CELL]]

For each it writes the weights, in float16 for size, and TASK_CELL.json: the test scores of all
seeds, and how the gradient falls off with distance.
"""

import copy
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.models.causal_transformer import CausalTransformer
from edge_lstm_benchmarks.models.training import LastStepNet
from edge_lstm_benchmarks.sequence_cells import CELLS, shape_for
from edge_lstm_benchmarks.sequence_tasks import (
    DIGITS,
    OTHERS,
    TASKS,
    WEATHER,
    Task,
    kept_data,
    marked_digits,
    score,
)

FOLDER = Path(__file__).parent
PEAKS = {
    "weather": {"lstm": 1e-2, "gru": 1e-2, "rnn": 1e-2, "transformer": 3e-3},
    "digits": {"lstm": 6e-3, "gru": 6e-3, "rnn": 2e-3, "transformer": 3e-3},
}
"""Peak learning rates, from two tries or so; the weather's recurrent cells have their sample's."""
SEEDS = (0, 1, 2)
"""The first one's weights are kept."""
# Others behind the marked digit, and epochs: what comes soon is learnt before what comes late.
STAGES = ((0, 8), (1, 4), (3, 4), (7, 5), (15, 5), (OTHERS, 12))
WEATHER_EPOCHS = 6
DISTANCES = (1, 2, 5, 10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200)
GRADIENT_ITEMS = 100

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def main(arguments: list[str]) -> None:
    """Train the tasks and cells named; all of them if none is."""
    torch.set_num_threads(1)
    for task in arguments[:1] or list(TASKS):
        for cell in arguments[1:2] or list(CELLS):
            train(TASKS[task], cell)


def train(task: Task, cell: str) -> None:
    """Train one network with each seed; write the first one's weights and what all showed."""
    scores, gradients = [], {}
    for seed in SEEDS:
        torch.manual_seed(seed)
        net = new_net(task, cell)
        nets = {"default": copy.deepcopy(net)}
        if task is DIGITS:
            prepare(net, cell, task)
        nets["prepared"] = copy.deepcopy(net)
        count, batches = BATCHES[task.name](seed)
        loss = nn.functional.cross_entropy if task is DIGITS else nn.functional.mse_loss
        fit(net, batches, count, PEAKS[task.name][cell], loss)
        x, y, unit = kept_data(task, "test")
        with torch.no_grad():
            scores.append(score(task, net(torch.from_numpy(x)).numpy(), y, unit))
        print(f"{task.name} {cell} seed {seed}: {scores[-1]:.4f}", flush=True)
        if seed == SEEDS[0]:
            if task is DIGITS and cell != "transformer":
                nets["trained"] = net
                gradients = {name: fall_off(each, cell) for name, each in nets.items()}
            torch.save(net.half().state_dict(), FOLDER / f"{task.name}_{cell}.pt")
    found = {"seeds": list(SEEDS), "scores": scores, "gradients": gradients}
    path = FOLDER / f"{task.name}_{cell}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf8")


def new_net(task: Task, cell: str) -> nn.Module:
    """Return a network as PyTorch makes it, of the size that all cells' parameters agree at."""
    shape = shape_for(cell, task.inputs, task.outputs)
    if cell == "transformer":
        return CausalTransformer(task.inputs, shape.size, task.outputs)
    return LastStepNet(task.inputs, shape.size, task.outputs, cell)


def prepare(net: nn.Module, cell: str, task: Task) -> None:
    """Start a recurrent cell as the field does for long sequences.

    LSTM and GRU: the biases of what keeps the state are logs of uniform times (Tallec and Ollivier
    2018); RNN: orthogonal recurrent weights.
    """
    if cell == "transformer":
        return
    layer, size = getattr(net, cell), net.fc.in_features
    with torch.no_grad():
        if cell == "rnn":
            nn.init.orthogonal_(layer.weight_hh_l0)
        else:  # the second of PyTorch's gates keeps the state: forget in i f g o, update in r z n
            times = torch.empty(size).uniform_(1, task.steps - 1)
            layer.bias_hh_l0[size : 2 * size] = 0
            layer.bias_ih_l0[size : 2 * size] = torch.log(times)


def fit(
    net: nn.Module,
    batches: Batches,
    count: int,
    peak: float,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """Train under a one-cycle learning rate."""
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=count, pct_start=0.1
    )
    for x, y in batches:
        optimizer.zero_grad()
        loss(net(x), y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def digit_batches(seed: int) -> tuple[int, Batches]:
    """Return the number of batches, and sequences of digits drawn anew for each."""
    train, rng, size = datasets.digits().train, np.random.default_rng(seed), 32
    per_epoch = math.ceil(len(train.x) / size)

    def batches() -> Batches:
        for others, epochs in STAGES:
            for _ in range(epochs):
                for chosen in np.array_split(rng.permutation(len(train.x)), per_epoch):
                    x = marked_digits(train.x, chosen, others, rng)
                    yield torch.from_numpy(x), torch.from_numpy(train.y[chosen])

    return per_epoch * sum(epochs for _, epochs in STAGES), batches()


def weather_batches(seed: int) -> tuple[int, Batches]:
    """Return the number of batches, and the windows of the training set in a random order."""
    train, rng, size = datasets.weather().train, np.random.default_rng(seed), 128
    assert train.y.dtype == np.float32
    per_epoch = math.ceil(len(train.x) / size)

    def batches() -> Batches:
        for _ in range(WEATHER_EPOCHS):
            for chosen in np.array_split(rng.permutation(len(train.x)), per_epoch):
                yield torch.from_numpy(train.x[chosen]), torch.from_numpy(train.y[chosen])

    return per_epoch * WEATHER_EPOCHS, batches()


BATCHES = {WEATHER.name: weather_batches, DIGITS.name: digit_batches}


def fall_off(net: nn.Module, cell: str) -> list[tuple[int, float]]:
    """Return how large the loss's gradient is at states some steps back, over that one step back.

    The norm over all that the cell carries and over test sequences.
    """
    x, y, _ = kept_data(DIGITS, "test")
    inputs, wanted = torch.from_numpy(x[:GRADIENT_ITEMS]), torch.from_numpy(y[:GRADIENT_ITEMS])
    state, states = None, []
    for step in range(inputs.shape[1]):
        hidden, state = getattr(net, cell)(inputs[:, step : step + 1], state)
        carried = state if cell == "lstm" else (state,)
        states.append(carried)
    states.pop()  # the last one is read as the output alone
    leaves = [part for carried in states for part in carried]
    loss = nn.functional.cross_entropy(net.fc(hidden[:, -1]), wanted, reduction="sum")
    found = iter(torch.autograd.grad(loss, leaves))
    norms = [math.sqrt(sum(float(next(found).double().square().sum()) for _ in c)) for c in states]
    return [(distance, norms[-distance] / norms[-1]) for distance in DISTANCES]


if __name__ == "__main__":
    main(sys.argv[1:])
