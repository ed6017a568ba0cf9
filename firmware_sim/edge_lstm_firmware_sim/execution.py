"""What a run of firmware under emulation gives."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lstm.arrays import Array

COUNTED_STEPS = 6
"""The first steps of the first sequence, each counted alone."""


@dataclass(frozen=True, eq=False)
class Execution:
    """A package's outputs and costs on one core.

    Args:
        outputs: of each sequence that was run: ``[steps, size]``, or ``[1, size]`` for a vector.
        steps: run of each sequence, from its start.
        instructions: of each counted step; exact.
        cycles: of the same steps; estimated, or None where the emulator cannot tell.
        stack_bytes: in use below the caller, by init, reset and the counted steps.
        selftest: whether the package's own test passed.
        emulator: name and version.
    """

    outputs: tuple[Array, ...]
    steps: tuple[int, ...]
    instructions: tuple[int, ...]
    cycles: tuple[int, ...] | None
    stack_bytes: int
    selftest: bool
    emulator: str
