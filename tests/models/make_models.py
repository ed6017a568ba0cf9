"""Make the small model files that the reader tests open, with torch's own answers beside them.

python tests/models/make_models.py

Made with torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2 and safetensors 0.8.0, seed 0. Each ``.onnx``
has an ``.npz`` of the same name: its inputs and outputs by the names they have in the graph.
``stacked.pt`` and ``stacked.safetensors`` are the network of both ``stacked_*.onnx``.
"""

import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import save
from torch import nn

from edge_lstm.arrays import Array

FOLDER = Path(__file__).parent

STACKED_LAYERS = """\
[[layers]]
type = "embedding"
weights = "embedding"

# Both layers of the nn.LSTM: the state dict has lstm.*_l0 and lstm.*_l1.
[[layers]]
type = "lstm"
weights = "lstm"
return_sequences = false

[[layers]]
type = "dense"
weights = "fc"
activation = "linear"
"""


class Stacked(nn.Module):  # torch is Any to mypy
    """Token ids ``[batch, time]`` to 3 numbers, by an embedding and two LSTM layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, 3]``."""
        result: torch.Tensor = self.fc(self.lstm(self.embedding(x))[0][:, -1])
        return result


class Stateful(nn.Module):  # torch is Any to mypy
    """An LSTM whose state comes in and goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(
        self, x: torch.Tensor, h0: torch.Tensor, c0: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``[batch, time, 8]`` and the two states, ``[1, batch, 8]``."""
        y, (hn, cn) = self.lstm(x, (h0, c0))
        return y, hn, cn


class SequenceHead(nn.Module):  # torch is Any to mypy
    """An answer at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, time, 2]``."""
        return torch.sigmoid(self.fc(self.lstm(x)[0]))


class Payload:
    """Pickles as a call of ``os.system``, which does nothing that can be seen."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo executed > /dev/null",)


def main() -> None:
    """Write every file of this folder but this script."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stacked, stateful, sequence_head = Stacked(), Stateful(), SequenceHead()
    for net in (stacked, stateful, sequence_head):
        spread_weights(net)

    torch.save(stacked.state_dict(), FOLDER / "stacked.pt")
    (FOLDER / "stacked.safetensors").write_bytes(save(stacked.state_dict()))
    (FOLDER / "stacked_layers.toml").write_text(STACKED_LAYERS, encoding="utf8")

    open_axes = {"x": {0: "batch", 1: "time"}}
    ids = {"x": torch.randint(0, 20, (4, 10))}
    for exporter in ("dynamo", "torchscript"):
        save_onnx(stacked, f"stacked_{exporter}", ids, ["y"], open_axes, exporter == "dynamo")

    # torch 2.13 cannot leave the time axis open when all steps come out: it reads it as 12.
    x = torch.randn(3, 12, 4)
    save_onnx(sequence_head, "sequence_head", {"x": x}, ["y"], {"x": {0: "batch"}})

    states = {"h0": 0.5 * torch.randn(1, 3, 8), "c0": torch.randn(1, 3, 8)}
    save_onnx(
        stateful,
        "stateful",
        {"x": x, **states},
        ["y", "hn", "cn"],
        {"x": {0: "batch"}, "h0": {1: "batch"}, "c0": {1: "batch"}},
    )
    save_malicious(FOLDER / "malicious.pt")


def spread_weights(net: nn.Module) -> None:
    """Triple the weights: as torch starts them, no gate leaves the straight part of its curve."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not name.startswith("embedding"):
                parameter.mul_(3.0)
    net.eval()


def save_onnx(
    net: nn.Module,
    name: str,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    open_axes: Mapping[str, Mapping[int, str]],
    dynamo: bool = True,
) -> None:
    """Write ``name.onnx`` as torch exports it, and ``name.npz`` with torch's own answers."""
    arguments = tuple(inputs.values())
    with torch.no_grad():
        answers = net(*arguments)
    named = dict(zip(outputs, answers if isinstance(answers, tuple) else (answers,), strict=True))
    # dynamo takes the axes of each argument by position, torchscript by name.
    axes: dict[str, object] = (
        {"dynamic_shapes": tuple(dict(open_axes[key]) for key in inputs), "external_data": False}
        if dynamo
        else {"dynamic_axes": {key: dict(open_axes[key]) for key in inputs}}
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The torchscript exporter is deprecated; the files it wrote are everywhere.
        warnings.simplefilter("ignore")
        exported = Path(folder) / "model.onnx"
        torch.onnx.export(
            net,
            arguments,
            exported,
            dynamo=dynamo,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
            **axes,
        )
        model = onnx.load(exported)
    # dynamo notes stack traces, with the paths of the machine that ran it.
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del item.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, FOLDER / f"{name}.onnx")
    arrays: dict[str, Array] = {key: t.numpy() for key, t in {**inputs, **named}.items()}
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def save_malicious(path: Path) -> None:
    """Write a checkpoint of torch's zip form that runs a command when it is unpickled."""
    state_dict = {"lstm.weight_ih_l0": Payload()}
    files = {
        "data.pkl": pickle.dumps(state_dict, protocol=2),
        "byteorder": b"little",
        "version": b"3\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            # ZipInfo's own date is 1980, so that the file is the same each time.
            archive.writestr(zipfile.ZipInfo(f"malicious/{name}"), data)


if __name__ == "__main__":
    main()
