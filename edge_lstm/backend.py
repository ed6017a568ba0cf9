"""What can run a model: the Backend and Session protocols, and the model that they are given.

A backend works in two halves, so that an engine can run in a process, and even in a Python, of
its own: ``build`` turns the model into the bytes of a file, ``load`` turns those bytes into a
Session. Only ``load`` touches the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from edge_lstm.arrays import Array
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.program import EDGE, Program, Range
from edge_lstm.quantize import quantize
from edge_lstm.records import Counted
from edge_lstm.spec import ModelSpec, Signal

Precision = Literal["int8", "float32", "dynamic-int8", "bfloat16"]
"""What a backend computes in. All but int8 take and give floats: ``dynamic-int8`` has int8 weights,
scales that each call finds, and float gates."""


@dataclass(frozen=True, eq=False)
class BenchModel:
    """A model as backends take it: its float meaning, its integers, or both.

    Args:
        name: for reports.
        spec: for float backends; None when only integers are known.
        program: for int8 backends; None when nothing was quantized.
        edge: the same model in the arithmetic ``edge``, where it has that form.
    """

    name: str
    spec: ModelSpec | None
    program: Program | None
    edge: Program | None = None

    def __post_init__(self) -> None:
        if self.spec is None and self.program is None:
            raise UsageError(f"model {self.name!r}: has neither floats nor integers; give one")

    def integers(self, profile: str | None) -> Program:
        """Return the model in the arithmetic of a profile; None: as it was quantized.

        Raises:
            UnsupportedModel: it has no integers, or none of that profile.
        """
        if self.program is None:
            raise UnsupportedModel(f"{self.name}: has no integers; give calibration data")
        if profile == EDGE and self.program.profile != EDGE:
            if self.edge is None:
                raise UnsupportedModel(
                    f"{self.name}: has no integers of profile edge; give the float model and"
                    " calibration data"
                )
            return self.edge
        return self.program if profile is None else self.program.with_profile(profile)

    @property
    def input(self) -> Signal:
        """What the model is fed."""
        if self.spec is not None:
            return self.spec.input
        assert self.program is not None
        return self.program.input_tensor.signal

    @property
    def output(self) -> Signal:
        """What the model gives."""
        if self.spec is not None:
            return self.spec.output
        assert self.program is not None
        return self.program.output_tensor.signal

    @property
    def time_steps(self) -> int | None:
        """The one sequence length that the model takes, or None for any."""
        return (self.spec or self.program).time_steps  # type: ignore[union-attr]

    @property
    def streams(self) -> bool:
        """Whether the model can run step by step."""
        if self.program is not None:
            return self.program.streams
        assert self.spec is not None
        return all(layer.type_name != "flatten" for layer in self.spec.layers)


def bench_model(name: str, spec: ModelSpec, ranges: Mapping[str, Range]) -> BenchModel:
    """Return a float model with its integers, by the TFLite scheme and in profile edge.

    Raises:
        UnsupportedModel: the TFLite scheme has no form of a layer.
        CalibrationError: a tensor has no usable range.
    """
    edge: Program | None
    try:
        edge = quantize(spec, ranges, EDGE)
    except UnsupportedModel:
        edge = None
    return BenchModel(name, spec, quantize(spec, ranges), edge)


@dataclass(frozen=True)
class CallShape:
    """The shape of one call; an interpreter's file is written for it.

    Args:
        batch_size: rows, each with a state of its own.
        time_steps: steps of one call; 1 to run step by step.
        returns_sequence: whether the model gives every step, or one vector.
    """

    batch_size: int
    time_steps: int
    returns_sequence: bool


class Session(Protocol):
    """A model with state, for some rows of streams; ``edge_lstm.runtime.Session`` is one."""

    def reset(self) -> None:
        """Set the state to its first value."""

    def step(self, x: Array) -> Array:
        """Run one step: ``[batch, ...]`` to ``[batch, size]``; the state moves."""

    def run(self, x: Array) -> Array:
        """Run ``[batch, time, ...]`` to ``[batch, time, size]`` or ``[batch, size]``."""


@runtime_checkable
class CountingSession(Protocol):
    """What a Session has besides where there is no clock: an emulator, an estimate."""

    def outputs(self, x: Array) -> Array:
        """Run any number of sequences, each from the first state; not asked of an estimate."""

    def counted(self) -> Counted:
        """Return what a time step costs; asked after all data were run."""


class Backend(Protocol):
    """One runtime, as an engineer would pick it.

    Three attributes may be there besides. ``most_sequences``: one that is slow, such as an
    emulator, is run on so many sequences of the data, from the first on. ``estimates``: it runs
    nothing, and says what a step costs in calls of a ``step`` or of a ``sequence``. ``waits`` is
    True where calls wait for another processor, such as a GPU: the time that this one was idle is
    no disturbance then.
    """

    name: str
    precision: Precision
    fixed_shape: bool
    """Whether ``build`` depends on the shape: another batch or length needs other bytes."""
    rows_at_once: int
    """Rows of a whole data set that are run together; 1 where that is fast enough."""

    @property
    def profile(self) -> str | None:
        """The profile whose bytes this backend must give, or None."""

    def available(self) -> str | None:
        """Return None, or why the backend cannot run here and what to install."""

    def python(self) -> str:
        """Return the Python that has the engine."""

    def version(self) -> str:
        """Return the engine's version; asked in that Python."""

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        """Return the model in the engine's own format."""

    def load(self, data: bytes, shape: CallShape) -> Session:
        """Return a Session in its first state; called in the Python that has the engine."""


def check_multiple(x: Array, shape: CallShape) -> int:
    """Return how many calls of ``shape`` make up ``x`` [batch, time, ...].

    Raises:
        UsageError: the batch is another, or the time steps are no multiple of the shape's.
    """
    if len(x) != shape.batch_size or x.shape[1] % shape.time_steps:
        raise UsageError(
            f"input: {len(x)} rows of {x.shape[1]} steps; want {shape.batch_size} rows of a"
            f" multiple of {shape.time_steps}, as the model was built"
        )
    return int(x.shape[1]) // shape.time_steps
