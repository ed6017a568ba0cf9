"""ModelSpec, the one float meaning of a model, and what its layers share."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from edge_lstm.arrays import F32, F64, I64, Array, Bool
from edge_lstm.errors import UnsupportedModel, UsageError

if TYPE_CHECKING:
    from edge_lstm.program import ProgramBuilder

SignalKind = Literal["tokens", "sequence", "vector"]


@dataclass(frozen=True)
class Signal:
    """What flows between two layers.

    ========== ======================= ==========================
    kind       array                   size
    ========== ======================= ==========================
    tokens     int32 [batch, time]     number of different tokens
    sequence   [batch, time, size]     features of a step
    vector     [batch, size]           features
    ========== ======================= ==========================
    """

    kind: SignalKind
    size: int

    def __str__(self) -> str:
        shape = {"tokens": "[time]", "sequence": f"[time, {self.size}]", "vector": f"[{self.size}]"}
        return f"{self.kind} {shape[self.kind]}"


class FloatRun:
    """One run of the float reference: lengths, state and who watches.

    Args:
        batch_size: rows in the batch.
        lengths: valid steps of each row, int64 [batch]; None: all steps.
        state: values carried between runs, by name; changed in place.
        observe: called with a tensor's name and its valid values, ``[rows, size]``.
    """

    def __init__(
        self,
        batch_size: int,
        lengths: I64 | None = None,
        state: dict[str, F64] | None = None,
        observe: Callable[[str, F64], None] | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.lengths = lengths
        self.state: dict[str, F64] = {} if state is None else state
        self.observe = observe

    def valid(self, time_steps: int) -> Bool:
        """Return which steps count, bool [batch, time]."""
        if self.lengths is None:
            return np.ones((self.batch_size, time_steps), bool)
        return np.arange(time_steps)[None, :] < self.lengths[:, None]

    def note(self, name: str, values: F64) -> None:
        """Show ``values``, [batch, time, size] or [batch, size], to the observer."""
        if self.observe is None:
            return
        if values.ndim == 3:
            values = values[self.valid(values.shape[1])]
        self.observe(name, values)


@dataclass(frozen=True, eq=False)
class Layer(abc.ABC):
    """One layer of a model, in float. Subclasses live in ``edge_lstm.cells``."""

    name: str

    @property
    def type_name(self) -> str:
        """The word for this layer in tables and messages."""
        return type(self).__name__.lower()

    @abc.abstractmethod
    def output_signal(self, signal: Signal) -> Signal:
        """Return what the layer gives for ``signal``, or raise UnsupportedModel."""

    @abc.abstractmethod
    def forward(self, x: F64, run: FloatRun) -> F64:
        """Compute the layer in float64; recurrent layers continue from ``run.state``."""

    @abc.abstractmethod
    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        """Add the layer's integer ops to ``builder``; return the output tensor's index."""

    def parameter_count(self) -> int:
        """Return the number of trained values."""
        return sum(v.size for v in self._arrays())

    def _arrays(self) -> Iterator[Array]:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                yield value

    def not_in_int8(self, what: str) -> UnsupportedModel:
        """Return the error that says that this layer has no integer form yet, and the way out."""
        return self._refuse(
            f"{what} is not in int8 yet", "convert it in float with --quant float32 --to onnx"
        )

    def _refuse(self, found: object, accepted: str) -> UnsupportedModel:
        return UnsupportedModel(f"layer {self.name!r} ({self.type_name}): {found}; {accepted}")


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """A trained model as a sequence of layers.

    Args:
        name: a C identifier; names files and symbols.
        input: what the model is fed.
        layers: in order; names are unique.
        time_steps: the one sequence length that the model takes, or None for any.
        source: where the model came from, for the manifest.

    Raises:
        UnsupportedModel: two neighbouring layers do not fit, or a weight is not finite.
    """

    name: str
    input: Signal
    layers: tuple[Layer, ...]
    time_steps: int | None = None
    source: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.name, re.ASCII):
            raise UsageError(
                f"model name {self.name!r}: must be a C identifier; give another with --name"
            )
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise UnsupportedModel(f"layer {layer.name!r}: the name appears twice")
            seen.add(layer.name)
            for weights in layer._arrays():
                if not np.isfinite(weights).all():
                    bad = int(np.size(weights) - np.isfinite(weights).sum())
                    raise UnsupportedModel(
                        f"layer {layer.name!r} ({layer.type_name}): {bad} of {weights.size} weights"
                        " are NaN or infinite; train the model again or choose another checkpoint"
                    )
        names = [layer.name for layer in _innermost(self.layers)]
        for name in names:
            # States are kept by name: two of one would share theirs.
            if names.count(name) > 1:
                raise UnsupportedModel(f"layer {name!r}: the name appears twice")
        if not self.layers:
            raise UnsupportedModel(f"model {self.name!r}: has no layers")
        self.signals()

    def signals(self) -> tuple[Signal, ...]:
        """Return the signal in front of each layer, then the output's."""
        signals = [self.input]
        for layer in self.layers:
            signals.append(layer.output_signal(signals[-1]))
        return tuple(signals)

    @property
    def output(self) -> Signal:
        """What the model gives."""
        return self.signals()[-1]

    def parameter_count(self) -> int:
        """Return the number of trained values in all layers."""
        return sum(layer.parameter_count() for layer in self.layers)

    def renamed(self, name: str) -> ModelSpec:
        """Return the same model under another name."""
        return replace(self, name=name)


def _innermost(value: object) -> Iterator[Layer]:
    """Yield the layers that a value holds and that hold no others."""
    if isinstance(value, tuple):
        for item in value:
            yield from _innermost(item)
    elif isinstance(value, Layer):
        inside = [*_innermost(tuple(vars(value).values()))]
        yield from inside or [value]


def identifier(text: str) -> str:
    """Return ``text`` as a C identifier: other characters become ``_``."""
    word = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "model"
    return word if not word[0].isdigit() else f"_{word}"


def check_shape(layer: str, what: str, found: Array | F32, want: tuple[int, ...]) -> None:
    """Raise UnsupportedModel unless ``found`` has the shape ``want``."""
    if found.shape != want:
        raise UnsupportedModel(
            f"layer {layer!r}, {what}: shape {list(found.shape)}; want {list(want)}"
        )
