"""Whatever the user names becomes a C package: a package already, a program, or a float model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.calibrate import calibrate
from edge_lstm.errors import UnreadableModel, UsageError
from edge_lstm.program import EDGE, Program
from edge_lstm.quantize import quantize
from edge_lstm.samples import Samples
from edge_lstm.spec import ModelSpec
from edge_lstm_firmware_sim.package import Package, find_package


@dataclass(frozen=True)
class Given:
    """What the user gave beside the model.

    Args:
        profile: whose arithmetic; None: the file's own, and edge for a float model.
        calibration: samples to scale a float model by.
        samples: what will be run; they scale a float model where ``calibration`` is missing.
    """

    profile: str | None = None
    calibration: Samples | None = None
    samples: Samples | None = None


def open_model(
    path: Path, given: Given, read: Callable[[Path, str | None], ModelSpec | Program], folder: Path
) -> Package:
    """Return the C package of a model; made in ``folder`` unless ``path`` is one.

    Args:
        path: a folder with a C package, or a model file.
        given: beside it.
        read: reads a model file, under a profile if it holds integers.
        folder: to generate into.

    Raises:
        UsageError: a float model without samples, or a profile that the package does not have.
        UnreadableModel: there is no such file or folder.
        UnsupportedModel: the model has no form in C.
    """
    if path.is_dir():
        package = find_package(path)
        if given.profile not in (None, package.profile):
            raise UsageError(
                f"{path}: has profile {package.profile}, not {given.profile}; generate it with"
                f" 'edge-lstm convert --to c --profile {given.profile}'"
            )
        return package
    if not path.exists():
        raise UnreadableModel(f"{path}: is not there; give a model file, or a C package's folder")
    from edge_lstm_converters.write_c import write_c  # not needed for a package that is there

    found = read(path, given.profile)
    program = found if isinstance(found, Program) else _quantized(path, found, given)
    steps = None
    if not program.streams and program.time_steps is None and given.samples is not None:
        steps = given.samples.x.shape[1]
    return find_package(write_c(program, folder, steps))


def _quantized(path: Path, spec: ModelSpec, given: Given) -> Program:
    samples = given.calibration or given.samples
    if samples is None:
        raise UsageError(f"{path}: holds floats; give samples to scale by with --calib X.npz")
    return quantize(spec, calibrate(spec, samples.x, samples.lengths), given.profile or EDGE)
