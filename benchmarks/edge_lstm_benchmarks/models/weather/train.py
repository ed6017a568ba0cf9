"""Train the temperature forecaster and its twins, and rewrite this folder's files (about 15 s).

python benchmarks/edge_lstm_benchmarks/models/weather/train.py
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edge_lstm_benchmarks import datasets
from edge_lstm_benchmarks.models import training

FOLDER = Path(__file__).parent


def main() -> None:
    """Train, print the test error in °C, write weights, ONNX model and data."""
    data = datasets.weather()
    # "As now": the last known temperature as the forecast. Feature 0 is the temperature.
    now = data.test.x[:, -1, :1] * data.x_std[0] + data.x_mean[0]
    naive = np.abs(now - (data.test.y * data.y_std + data.y_mean)).mean()
    print(f"{len(data.test.x)} windows; 'as now' errs by {naive:.3f} °C")
    net = trained(data, "lstm")
    training.save_weights(net, FOLDER)
    for cell in training.TWINS:
        training.save_weights(trained(data, cell), FOLDER, cell)
    training.save_data(data, FOLDER)
    save_onnx(net, FOLDER / "model.onnx")


def trained(data: datasets.Dataset, cell: str) -> training.LastStepNet:
    """Return the network with one kind of cell; print its test error."""
    training.make_repeatable()
    net = training.LastStepNet(input_size=7, hidden_size=32, outputs=1, cell=cell)
    training.fit(
        net,
        data.train,
        nn.functional.mse_loss,
        torch.optim.Adam(net.parameters()),
        epochs=6,
        batch_size=128,
    )
    test = training.as_stored(data.test)
    error = np.abs(training.predict(net, test) - test.y).mean() * data.y_std
    print(f"{cell}: mean absolute error {error:.3f} °C")
    return net


def save_onnx(net: nn.Module, path: Path) -> None:
    """Write the model as torch's default exporter gives it, batch and time left open."""
    # 2 items: an axis of size 1 would be exported as fixed.
    example = torch.zeros(2, 24, 7)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        torch.onnx.export(
            net,
            (example,),
            exported,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: "batch", 1: "time"},),
            external_data=False,
            verbose=False,
        )
        model = onnx.load(exported)
    # The exporter notes stack traces, with the paths of the machine that ran it.
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del item.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, path)


if __name__ == "__main__":
    main()
