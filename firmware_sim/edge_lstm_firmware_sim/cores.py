"""The CPU cores that firmware is built for: compiler flags, emulator, cost of instructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_lstm.errors import UsageError

CostTable = Literal["cortex-m0plus", "cortex-m3", "cortex-m4"]


@dataclass(frozen=True)
class Core:
    """One CPU core as compilers and emulators name it.

    Args:
        name: as the user writes it.
        architecture: decides the calling convention and how long an instruction is.
        zig: target flags of ``zig cc``.
        gcc: target flags of ``arm-none-eabi-gcc`` or ``riscv64-unknown-elf-gcc``.
        wants: ``EDGE_LSTM_WANTS_...`` macros of ``firmware/features.h``: the compiler must have
            switched these instructions on. zig's ``cortex_m33`` has no DSP, its ``cortex_m55`` no
            Helium, and without a word the code is 2.8 times slower.
        unicorn: the model's name in unicorn, or None where unicorn has none.
        board: the QEMU board with this core, or None.
        costs: whose table of cycles; None: one cycle an instruction is all that can be said.
        accuracy: what the cycle estimate is worth, in words.
    """

    name: str
    architecture: Literal["thumb", "riscv32"]
    zig: tuple[str, ...]
    gcc: tuple[str, ...]
    wants: tuple[str, ...]
    unicorn: str | None
    board: str | None
    costs: CostTable | None
    accuracy: str

    @property
    def gcc_program(self) -> str:
        """The name of the GCC that builds for this core."""
        return "arm-none-eabi-gcc" if self.architecture == "thumb" else "riscv64-unknown-elf-gcc"


# Judged, not held against hardware.
FROM_TRM = "table of the core's TRM, judged good to 5 %"
ONE_EACH = "one cycle an instruction, for want of a public table; judged good to 30 %"


def _cortex_m(
    name: str,
    zig_cpu: str,
    wants: tuple[str, ...] = (),
    *,
    unicorn: str | None,
    board: str,
    costs: CostTable | None = None,
    accuracy: str = FROM_TRM,
    abi: str = "eabi",
    gcc: tuple[str, ...] | None = None,
) -> Core:
    return Core(
        name=name,
        architecture="thumb",
        zig=("-target", f"thumb-freestanding-{abi}", f"-mcpu={zig_cpu}"),
        gcc=gcc or (f"-mcpu={name}", "-mthumb", "-mfloat-abi=soft"),
        wants=wants,
        unicorn=unicorn,
        board=board,
        costs=costs,
        accuracy=accuracy,
    )


# Boards: QEMU has no Cortex-M0+; the micro:bit's Cortex-M0 has the same instructions.
_ALL = (
    _cortex_m(
        "cortex-m0plus", "cortex_m0plus", ("ARMV6M",),
        unicorn="CORTEX_M0", board="microbit", costs="cortex-m0plus",
    ),
    _cortex_m(
        "cortex-m3", "cortex_m3", ("ARMV7M",),
        unicorn="CORTEX_M3", board="mps2-an385", costs="cortex-m3",
    ),
    _cortex_m(
        "cortex-m4", "cortex_m4", ("DSP",),
        unicorn="CORTEX_M4", board="mps2-an386", costs="cortex-m4",
    ),
    _cortex_m(
        "cortex-m7", "cortex_m7", ("DSP",),
        unicorn="CORTEX_M7", board="mps2-an500", accuracy=ONE_EACH,
    ),
    _cortex_m(
        "cortex-m33", "cortex_m33+dsp", ("DSP",),
        unicorn="CORTEX_M33", board="mps2-an505", costs="cortex-m4",
        accuracy="the Cortex-M4's table, for want of a public one; judged good to 20 %",
    ),
    # Helium passes its vectors in FPU registers: the hard-float ABI.
    _cortex_m(
        "cortex-m55", "cortex_m55+mve", ("DSP", "MVE"),
        unicorn=None, board="mps3-an547", accuracy=ONE_EACH, abi="eabihf",
        gcc=("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
    ),
    Core(
        name="rv32imc",
        architecture="riscv32",
        zig=("-target", "riscv32-freestanding-ilp32", "-mcpu=generic_rv32+m+c", "-mabi=ilp32"),
        gcc=("-march=rv32imc", "-mabi=ilp32"),
        wants=("RV32IMC",),
        unicorn="ANY",
        board=None,
        costs=None,
        accuracy="one cycle an instruction, for want of a public table: the least it can be",
    ),
)  # fmt: skip

CORES: dict[str, Core] = {core.name: core for core in _ALL}


def core_named(name: str) -> Core:
    """Return a core.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in CORES:
        raise UsageError(f"core {name!r}: unknown; there are {', '.join(CORES)}")
    return CORES[name]
