"""Program: a model in integers, and the parts that its cells are made of."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from edge_lstm.arrays import F32, F64, I64, Array
from edge_lstm.errors import CalibrationError, UsageError
from edge_lstm.fixed_point import saturate
from edge_lstm.spec import Layer, Signal

if TYPE_CHECKING:
    from pathlib import Path

    from edge_lstm.native import NativeSession
    from edge_lstm.runtime import Session

Profile = Literal[
    "tflm", "tflm-2026-08", "cmsis-nn", "litert", "litert-ref", "tflite-runtime", "edge"
]
PROFILES: tuple[Profile, ...] = (  # interchange: the same .tflite means the same bytes
    "tflm",
    "tflm-2026-08",
    "cmsis-nn",
    "litert",
    "litert-ref",
    "tflite-runtime",
)
EDGE: Profile = "edge"
"""Our own arithmetic; not expressible in a .tflite."""
DType = Literal["int8", "int16", "int32", "float32"]


def check_profile(profile: str) -> Profile:
    """Return ``profile``, or raise UsageError with the names that exist."""
    for known in (*PROFILES, EDGE):
        if profile == known:
            return known
    names = ", ".join((*PROFILES, EDGE))
    raise UsageError(f"profile {profile!r}: unknown; give one of {names}")


@dataclass(frozen=True)
class Range:
    """The least and the greatest value that calibration saw.

    Args:
        low: the least.
        high: the greatest.
        moments: of the values of one row, followed by 1, the mean products of each two,
            [size + 1, size + 1]: the last column is their means. None: not known.
        sample: of the model's input, a few sequences [sequences, time, size]; None elsewhere.
    """

    low: float
    high: float
    moments: F64 | None = field(default=None, compare=False, repr=False)
    sample: F64 | None = field(default=None, compare=False, repr=False)

    def union(self, other: Range) -> Range:
        """Return the range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))

    @property
    def magnitude(self) -> float:
        """The greatest absolute value."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class Tensor:
    """What flows between two ops: ``real = scale * (integer - zero_point)``.

    Args:
        name: unique in the program.
        signal: tokens, sequence or vector, and its size.
        dtype: of the integers; float32 and token ids have no scale.
        scale: exactly representable in float32.
        zero_point: in the range of ``dtype``.
    """

    name: str
    signal: Signal
    dtype: DType
    scale: float = 0.0
    zero_point: int = 0

    def __post_init__(self) -> None:
        if self.is_quantized and not (np.isfinite(self.scale) and self.scale > 0):
            raise UsageError(f"tensor {self.name!r}: scale {self.scale}; want a positive number")

    @property
    def is_quantized(self) -> bool:
        """Whether the values are integers with a scale."""
        return self.dtype in ("int8", "int16")

    def quantize(self, values: Array) -> Array:
        """Return float values as integers: ties away from zero, saturated.

        Mirrors: Quantize op, reference kernels (float32 division).
        """
        scaled = np.asarray(values, np.float32) / np.float32(self.scale)
        if np.isnan(scaled).any():
            raise UsageError(f"tensor {self.name!r}: {int(np.isnan(scaled).sum())} values are NaN")
        info = np.iinfo(self.dtype)
        whole = np.trunc(scaled)
        whole += np.sign(scaled) * (np.abs(scaled - whole) >= np.float32(0.5))
        low, high = float(info.min - self.zero_point), float(info.max - self.zero_point)
        integers = np.clip(whole, low, high).astype(np.int64) + self.zero_point
        quantized: Array = integers.astype(self.dtype)
        return quantized

    def dequantize(self, values: Array) -> F32:
        """Return integers as float32: ``(q - zero_point) * scale``."""
        centred = (values.astype(np.int32) - self.zero_point).astype(np.float32)
        return centred * np.float32(self.scale)


class Kernel(Protocol):
    """One op made ready for a batch size: its buffers and its state."""

    @property
    def state(self) -> dict[str, Array]:
        """What is carried between steps, ``[batch, ...]``, by name; a copy."""

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Set the state, of the shapes and types that ``state`` has."""

    def reset(self) -> None:
        """Set the state to its first value."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the output for whole inputs, ``[batch, time, ...]``; the state moves."""

    def step(self, x: Array) -> Array:
        """Return the output for one step of one input, ``[batch, ...]``; the state moves."""


class StatelessKernel:
    """Base of kernels that carry nothing between calls and treat every step alike."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the output for whole inputs."""
        raise NotImplementedError

    def step(self, x: Array) -> Array:
        """Return the output for one step."""
        return self.run([x], None)

    @property
    def state(self) -> dict[str, Array]:
        """Nothing."""
        return {}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Nothing to set."""

    def reset(self) -> None:
        """Nothing to reset."""


@dataclass(frozen=True, eq=False)
class Op(abc.ABC):
    """One integer operation: tensors in, one tensor out. Subclasses live in ``edge_lstm.cells``."""

    type_name: ClassVar[str]
    streams: ClassVar[bool] = True
    """Whether the op can run step by step; Flatten, for one, needs the whole sequence."""

    name: str
    inputs: tuple[int, ...]
    output: int

    @abc.abstractmethod
    def prepare(self, program: Program, batch_size: int) -> Kernel:
        """Return the kernel that runs this op under the program's profile."""

    def weight_bytes(self) -> int:
        """Return the bytes of all constant arrays."""
        return sum(v.nbytes for v in vars(self).values() if isinstance(v, np.ndarray))

    def constants(self) -> dict[str, object]:
        """Return what the file holds for this op, by name."""
        shared = {"name", "inputs", "output"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in shared}
        return {name: value for name, value in values.items() if value is not None}

    def derived(self, program: Program) -> dict[str, object]:
        """Return what the profile's runtime computes from it when it loads the file."""
        del program
        return {}

    def warnings(self, program: Program) -> list[str]:
        """Return what will go wrong with this op, on which runtime; usually nothing."""
        del program
        return []


@dataclass(frozen=True, eq=False)
class Program:
    """A model in integers, with the arithmetic of one profile.

    Args:
        name: a C identifier.
        profile: whose arithmetic; see ``PROFILES``.
        tensors: every value between ops.
        ops: in order of execution; each reads tensors that are already there.
        input: index of the tensor that is fed.
        output: index of the tensor that comes out.
        time_steps: the one sequence length that the model takes, or None for any.
        source: where it came from, for the manifest.
        warnings: known traps met when the file was read.
    """

    name: str
    profile: Profile
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    input: int
    output: int
    time_steps: int | None = None
    source: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_profile(self.profile)
        ready = {self.input}
        for op in self.ops:
            missing = [i for i in op.inputs if i not in ready]
            if missing or not 0 <= op.output < len(self.tensors):
                raise UsageError(f"op {op.name!r}: reads or writes a tensor that is not there")
            ready.add(op.output)
        if self.output not in ready:
            raise UsageError(f"program {self.name!r}: no op writes the output")

    @property
    def input_tensor(self) -> Tensor:
        """The tensor that is fed."""
        return self.tensors[self.input]

    @property
    def output_tensor(self) -> Tensor:
        """The tensor that comes out."""
        return self.tensors[self.output]

    @property
    def streams(self) -> bool:
        """Whether the program can run step by step."""
        return all(op.streams for op in self.ops)

    @property
    def has_state_ops(self) -> bool:
        """Whether ops of one step keep a state; a ``.tflite`` then takes one step a call."""
        return any(op.type_name == "read_state" for op in self.ops)

    @property
    def uses_xnnpack(self) -> bool:
        """Whether LiteRT gives the int8 ops to XNNPACK.

        It gives up where a state is written behind the ops that read it: to its delegates such a
        graph has a cycle.
        """
        return self.profile == "litert" and not self.has_state_ops

    def with_profile(self, profile: str) -> Program:
        """Return the same integers under another interchange profile's arithmetic."""
        if (profile == EDGE) != (self.profile == EDGE):
            raise UsageError(
                f"program {self.name!r}: has the integers of profile {self.profile}, which"
                f" {check_profile(profile)} does not share; convert the model again with"
                f" --profile {profile}"
            )
        return replace(self, profile=check_profile(profile))

    def session(self, batch_size: int = 1) -> Session:
        """Return a Session with zero state for ``batch_size`` rows."""
        from edge_lstm.runtime import Session

        return Session(self, batch_size)

    def compile(
        self,
        batch_size: int = 1,
        *,
        max_steps: int | None = None,
        library: Path | str | None = None,
        level: int | None = None,
    ) -> NativeSession:
        """Return a Session of native code with zero state: the same bytes, much faster.

        Args:
            batch_size: rows, each with a state of its own.
            max_steps: longest sequence of a program that cannot run step by step.
            library: a shared library that was built before; None: build it with the compiler at
                hand, or take it from the cache. Needs the package's converters.
            level: kernels to use at most: 0 portable, 1 AVX2 or NEON, 2 AVX-512 or
                SVE; None: the best.

        Raises:
            MissingTool: there is no compiler.
            UnsupportedModel: an op has no form in C.
        """
        from edge_lstm.native import compiled

        return compiled(self, batch_size, max_steps, library, level)

    def predict(self, x: Array, lengths: Array | None = None) -> Array:
        """Run whole sequences from zero state.

        Args:
            x: ``[batch, time, ...]``, integers of the input tensor, or float32.
            lengths: valid steps of each row, ``[batch]``; None: all.

        Returns:
            Integers for integers, float32 for float32. Steps past a row's length hold zero.
        """
        return self.session(len(x)).run(x, lengths)

    def weight_bytes(self) -> int:
        """Return the bytes of all constants."""
        return sum(op.weight_bytes() for op in self.ops)

    def fingerprint(self) -> str:
        """Return a SHA-256 over everything that decides the output."""
        import hashlib

        digest = hashlib.sha256()
        digest.update(repr((self.profile, self.tensors, self.input, self.output)).encode())
        for op in self.ops:
            for item in fields(op):
                value = getattr(op, item.name)
                digest.update(f"{op.type_name}.{item.name}".encode())
                if isinstance(value, np.ndarray):
                    digest.update(f"{value.dtype.str}{value.shape}".encode())
                    digest.update(np.ascontiguousarray(value).tobytes())
                else:
                    digest.update(repr(value).encode())
        return digest.hexdigest()


def asymmetric_scale(values: Range, what: str) -> tuple[float, int]:
    """Return the int8 scale and zero point of a range, widened to hold 0.

    Mirrors: the TFLite post-training quantizer: scale (max - min) / 255 in float32.
    """
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    if not scale >= np.finfo(np.float32).tiny:
        raise CalibrationError(
            f"{what}: all calibration samples are 0.0; give samples that move the model"
        )
    zero_point = saturate(np.array(round(-128 - low / float(scale))), -128, 127)
    return float(scale), int(zero_point)


def symmetric_scale(magnitude: float, levels: int, what: str) -> float:
    """Return the scale that maps ``magnitude`` to ``levels``, rounded to float32."""
    scale = np.float32(np.float32(magnitude) / np.float32(levels))
    if not scale >= np.finfo(np.float32).tiny:
        raise CalibrationError(
            f"{what}: all calibration samples are 0.0; give samples that move the model"
        )
    return float(scale)


QuantizationRule = Callable[[Any, "ProgramBuilder", int], int]
"""From a layer, its builder and the index of its input tensor to that of its output."""


class ProgramBuilder:
    """Collects tensors and ops while the layers of a ModelSpec are quantized.

    Args:
        ranges: what calibration saw, by tensor name.
        activation_dtype: of the values between ops.
        rules: how layers of a type are quantized, where not by their own method.
    """

    def __init__(
        self,
        ranges: Mapping[str, Range],
        activation_dtype: Literal["int8", "int16"] = "int8",
        rules: Mapping[type[Layer], QuantizationRule] | None = None,
    ) -> None:
        self.ranges = ranges
        self.rules = {} if rules is None else rules
        self.activation_dtype = activation_dtype
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.notes: list[str] = []

    def add_tensor(self, tensor: Tensor) -> int:
        """Add a tensor and return its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def range(self, name: str) -> Range:
        """Return what calibration saw under ``name``."""
        if name not in self.ranges:
            raise CalibrationError(f"{name}: calibration gave no range")
        return self.ranges[name]

    def activation(self, name: str, signal: Signal, values: Range | None = None) -> int:
        """Add an activation tensor scaled for ``values``, or for the range seen under ``name``."""
        seen = self.range(name) if values is None else values
        if self.activation_dtype == "int16":
            scale, zero_point = symmetric_scale(seen.magnitude, 32767, name), 0
        else:
            scale, zero_point = asymmetric_scale(seen, name)
        return self.add_tensor(Tensor(name, signal, self.activation_dtype, scale, zero_point))

    def add_layer(self, layer: Layer, source: int) -> int:
        """Add a layer's ops behind the tensor ``source``; return the output tensor's index."""
        rule = self.rules.get(type(layer))
        return layer.quantize(self, source) if rule is None else rule(layer, self, source)

    def add_op(self, op: Op) -> int:
        """Add an op and return its output's index."""
        self.ops.append(op)
        return op.output
