"""What an emulated package is fed, and whether it answers as the NumPy runtime does."""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import UsageError
from edge_lstm.samples import Samples
from edge_lstm_firmware_sim.execution import Execution
from edge_lstm_firmware_sim.package import Package

RANDOM_STEPS = 64


def random_inputs(package: Package) -> list[Array]:
    """Return sequences for a package: random, with some steps of extremes; always the same.

    Where only the last step has an output, shorter ones follow the first, for their ends.
    """
    port = package.input
    random = np.random.default_rng(0)
    steps = package.program.time_steps or package.max_steps or RANDOM_STEPS
    if port.kind == "tokens":
        x: Array = random.integers(0, port.size, steps).astype(np.int32)
    else:
        info = np.iinfo(port.dtype)
        x = random.integers(info.min, info.max, (steps, port.size), endpoint=True)
        # Where sums are largest: all values at one end.
        x[steps // 2 : steps // 2 + 4] = info.max
        x[steps // 2 + 4 : steps // 2 + 8] = info.min
        x = x.astype(port.dtype)
    if not package.streams:
        return [x, x[::-1], *(np.roll(x, by, axis=0) for by in range(1, min(steps, 8)))]
    if package.writes_every_step:
        return [x]
    return [x, *(x[start : start + start + 1] for start in range(0, steps // 2, 2))]


def sequences_of(package: Package, samples: Samples) -> list[Array]:
    """Return samples as the package's integers, each sequence as long as it is valid.

    Raises:
        UsageError: they do not fit the package.
    """
    x, where = samples.x, samples.where
    tensor = package.program.input_tensor
    if np.issubdtype(x.dtype, np.floating) and tensor.is_quantized:
        x = tensor.quantize(x)
    x = check_inputs(package, x, where)
    if samples.lengths is None:
        return list(x)
    lengths = np.asarray(samples.lengths)
    if lengths.shape != (len(x),) or lengths.min() < 1 or lengths.max() > x.shape[1]:
        raise UsageError(f"{where}: lengths; want {len(x)} numbers from 1 to {x.shape[1]}")
    return [row[:steps] for row, steps in zip(x, lengths.tolist(), strict=True)]


def check_inputs(package: Package, x: Array, where: str = "inputs") -> Array:
    """Return integers ``[sequences, steps, ...]`` as the package's type.

    Raises:
        UsageError: they are of another shape or type.
    """
    port = package.input
    shape = () if port.kind == "tokens" else (port.size,)
    if port.kind == "vector":
        x = x[None]  # one row after the other
    if x.ndim != 2 + len(shape) or x.shape[2:] != shape or 0 in x.shape:
        axes = ["rows"] if port.kind == "vector" else ["sequences", "steps"]
        found = list(x.shape[1:] if port.kind == "vector" else x.shape)
        want = ", ".join([*axes, *map(str, shape)])
        raise UsageError(f"{where}: x has shape {found}; want [{want}]")
    if x.dtype != port.dtype and not (port.kind == "tokens" and x.dtype.kind in "iu"):
        raise UsageError(f"{where}: x is {x.dtype}; want {port.dtype}, or float32 to quantize")
    if port.kind == "tokens" and (x.min() < 0 or x.max() >= port.size):
        raise UsageError(f"{where}: ids are {x.min()} to {x.max()}; want 0 to {port.size - 1}")
    steps = package.program.time_steps
    if steps is not None and x.shape[1] != steps:
        raise UsageError(f"{where}: x has {x.shape[1]} steps; the model takes {steps}")
    if package.max_steps is not None and x.shape[1] > package.max_steps:
        raise UsageError(f"{where}: x has {x.shape[1]} steps; at most {package.max_steps} fit")
    return x.astype(port.dtype, copy=False)


def differing_bytes(package: Package, sequences: list[Array], execution: Execution) -> int:
    """Return how many output bytes are not those of the NumPy runtime on the same inputs."""
    alike: dict[int, list[int]] = {}  # sequences of one length make a batch
    for number, steps in enumerate(execution.steps):
        alike.setdefault(steps, []).append(number)
    total = 0
    for steps, numbers in alike.items():
        ours = np.stack([execution.outputs[n] for n in numbers])
        if package.input.kind == "vector":
            x = np.concatenate([sequences[n][:steps] for n in numbers])
        else:
            x = np.stack([sequences[n][:steps] for n in numbers])
        theirs = package.program.predict(x).reshape(ours.shape)
        if theirs.dtype != ours.dtype:
            raise UsageError(
                f"{package.name}: gives {ours.dtype}, its program {theirs.dtype}; generate it anew"
            )
        total += int((_bytes(ours) != _bytes(theirs)).sum())
    return total


def _bytes(values: Array) -> Array:
    return np.ascontiguousarray(values).view(np.uint8)
