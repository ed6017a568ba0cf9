"""What one op of a Program is in C: its constants, its state and one step of its arithmetic.

An emitter makes a ``COp`` of an op. ``write_c`` puts them together: the kernels of ``c/`` that
they call, once each; their constants; one static function an op; and the model's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import Op, Program, Tensor

C_TYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t"}
ACTIVATION = "EL_ALIGNED el_activation_t"
"""The type of a member that quads of rows multiply; ``el_activation.h`` defines it."""
LINE_WIDTH = 96


@dataclass(frozen=True)
class Member:
    """An array in the model's state.

    Args:
        ctype: such as ``int16_t``.
        name: unique in the model.
        size: number of elements.
    """

    ctype: str
    name: str
    size: int


@dataclass(frozen=True)
class COp:
    """An op in C.

    Args:
        step: statements for one step. They read ``x`` (``x0``, ``x1`` ... where there are several
            inputs), write ``y`` and reach the state's members through ``state``. An op that
            needs the whole sequence also has ``steps``, and ``x`` and ``y`` are whole.
        kernels: names of files in ``c/`` that the statements call, in order of dependence.
        constants: definitions of constant data.
        members: what the op keeps in the state.
        reset: statements that set the members to their first values.
        macs: multiplications with weights in one step.
    """

    step: str
    kernels: tuple[str, ...] = ()
    constants: str = ""
    members: tuple[Member, ...] = ()
    reset: str = ""
    macs: int = 0


@dataclass(frozen=True)
class Place:
    """Where an op stands: what its emitter needs to know of the Program.

    Args:
        program: the whole.
        op: the op.
        name: a C identifier, unique in the model; begins the names of the op's data.
    """

    program: Program
    op: Op
    name: str

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that are read."""
        return [self.program.tensors[index] for index in self.op.inputs]

    @property
    def source(self) -> Tensor:
        """The one tensor that is read."""
        (tensor,) = self.inputs
        return tensor

    @property
    def output(self) -> Tensor:
        """The tensor that is written."""
        return self.program.tensors[self.op.output]

    def refuse(self, found: str, way_out: str) -> UnsupportedModel:
        """Return the error for an op that has no form in C."""
        return UnsupportedModel(f"layer {self.op.name!r} ({self.op.type_name}): {found}; {way_out}")


Emitter = Callable[[Any, Place], COp]


def ctype(tensor: Tensor) -> str:
    """Return the C type of a tensor's integers."""
    return C_TYPES[tensor.dtype]


def array(ctype: str, name: str, values: Array) -> str:
    """Return the definition of a constant array, 1-D, in decimal."""
    flat = np.asarray(values).ravel()
    # The most negative integers of 32 and of 64 bits have no literals of their own types.
    least = (-(2**31), -(2**63))
    words = [f"({v + 1} - 1)" if v in least else str(v) for v in flat.tolist()]
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) + 2 > LINE_WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += f"{word}, "
    lines.append(line.rstrip())
    body = "\n    ".join(lines)
    return f"static const {ctype} {name}[{len(flat)}] = {{\n    {body}\n}};\n"


def fill(target: str, size: int, value: str) -> str:
    """Return a loop over ``k`` that sets an array and that no compiler makes a call of."""
    return f"for (int32_t k = 0; k < {size}; k++) {{\n    EL_LOOP;\n    {target}[k] = {value};\n}}"


@cache
def kernel(name: str) -> str:
    """Return the text of a file in ``c/``, without its includes and guard.

    The files compile on their own too; in a package they stand in one file.
    """
    text = (files("edge_lstm_converters") / "c" / name).read_text()
    _, _, body = text.partition("/* begin */\n")
    body, _, _ = body.partition("/* end */\n")
    return body.strip("\n") + "\n"
