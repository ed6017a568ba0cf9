"""What a model takes of a device's flash and RAM."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lstm_firmware_sim.build import Target, build
from edge_lstm_firmware_sim.package import Package


@dataclass(frozen=True)
class Flash:
    """Bytes of flash.

    Args:
        code: machine code, with the constants inside it.
        weights: all constant data: weights, biases, scales and tables.
        total: both, and first values of variables if there are any.
    """

    code: int
    weights: int
    total: int


@dataclass(frozen=True)
class Footprint:
    """What a model adds to firmware that calls it step by step.

    Args:
        flash: by what it holds.
        ram_bytes: the state, and static variables if there are any; without the stack.
    """

    flash: Flash
    ram_bytes: int


def measure_footprint(package: Package, target: Target) -> Footprint:
    """Return the sizes of an image that holds nothing but the model.

    Linked are the functions that firmware needs to set up and run the model, with all that they
    use, be it of the compiler's run-time library: just what an image shrinks by when its step does
    nothing.
    """
    name = package.name
    roots = (f"{name}_init", f"{name}_reset", f"{name}_step" if package.streams else f"{name}_run")
    image = build(package, target, roots)
    code, weights, first_values = (image.size(s) for s in (".text", ".rodata", ".data"))
    flash = Flash(code, weights, code + weights + first_values)
    state = image.word("edge_lstm_state_bytes")
    return Footprint(flash, state + first_values + image.size(".bss"))
