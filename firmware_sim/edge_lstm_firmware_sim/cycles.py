"""Counts the instructions of a block of machine code, and estimates their cycles.

Instructions are exact. Cycles are a model: the tables of the cores' technical reference manuals
(DDI0484 for Cortex-M0+, DDI0337 for M3, DDI0439 for M4), memory without wait states, the middle of
a range where the manual gives one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edge_lstm_firmware_sim.cores import Core, CostTable

Kind = Literal[
    "other", "load", "store", "load_multiple", "store_multiple", "multiply", "multiply_add",
    "long_multiply", "long_multiply_add", "divide", "call", "return", "table_branch",
]  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """Cycles by kind of instruction; what is not listed takes one.

    Args:
        by_kind: for ``load_multiple`` and ``store_multiple``: beyond one for each register.
        load_after_load: of a load right behind another load or a store, pipelined with it.
        taken: added for each branch that is taken: refilling the pipeline.
    """

    by_kind: dict[Kind, int]
    load_after_load: int
    taken: int


TABLES: dict[CostTable, Costs] = {
    # Branches: 2 taken; BL 3; POP with PC 3 + N.
    "cortex-m0plus": Costs(
        {"load": 2, "store": 2, "load_multiple": 1, "store_multiple": 1, "call": 2, "return": 2},
        load_after_load=2,
        taken=1,
    ),
    # Products of 64 bits take 3 to 5 and 4 to 7, SDIV and UDIV 2 to 12, a refill 1 to 3.
    "cortex-m3": Costs(
        {
            "load": 2, "load_multiple": 1, "store_multiple": 1, "return": 1, "multiply_add": 2,
            "long_multiply": 4, "long_multiply_add": 5, "divide": 7, "table_branch": 2,
        },
        load_after_load=1,
        taken=2,
    ),
    "cortex-m4": Costs(
        {
            "load": 2, "load_multiple": 1, "store_multiple": 1, "return": 1, "divide": 7,
            "table_branch": 2,
        },
        load_after_load=1,
        taken=2,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """What one straight run of machine code costs, without the branch at its end if taken."""

    instructions: int
    cycles: int


def measure_block(code: bytes, core: Core) -> Block:
    """Return the instructions in ``code`` and their cycles on ``core``."""
    if core.architecture == "riscv32":
        count = sum(1 for _ in _riscv_lengths(code))
        return Block(count, count)
    instructions = list(_thumb(code))
    if core.costs is None:
        return Block(len(instructions), len(instructions))
    return Block(len(instructions), _cycles(instructions, TABLES[core.costs]))


def taken_cycles(core: Core) -> int:
    """Return what a taken branch adds on ``core``."""
    return 0 if core.costs is None else TABLES[core.costs].taken


def _cycles(instructions: list[tuple[int, int]], costs: Costs) -> int:
    total = 0
    before: Kind = "other"
    for first, second in instructions:
        kind, registers = classify(first, second)
        cost = costs.by_kind.get(kind, 0 if registers else 1) + registers
        if kind == "load" and before in ("load", "store"):
            cost = costs.load_after_load
        total += cost
        before = kind
    return total


def _riscv_lengths(code: bytes) -> Iterator[int]:
    """Yield each instruction's bytes: 4 where the lowest two bits are both set, else 2."""
    position = 0
    while position < len(code):
        length = 4 if code[position] & 3 == 3 else 2
        yield length
        position += length


def _thumb(code: bytes) -> Iterator[tuple[int, int]]:
    """Yield each instruction's halfwords, the second 0 where there is none.

    A first halfword whose upper five bits are 0b11101, 0b11110 or 0b11111 has a second.
    """
    position = 0
    while position < len(code):
        first = int.from_bytes(code[position : position + 2], "little")
        position += 2
        second = 0
        if first >> 11 >= 0b11101:
            second = int.from_bytes(code[position : position + 2], "little")
            position += 2
        yield first, second


# Mask, value, kind; the first row that fits. Encodings: Armv7-M Architecture Reference Manual, A5.
_NARROW: tuple[tuple[int, int, Kind], ...] = (
    (0xFFC0, 0x4340, "multiply"),
    (0xF800, 0x4800, "load"),  # LDR from the literal pool
    (0xFE00, 0x5600, "load"),  # LDRSB with a register offset
    (0xF800, 0x5000, "store"),
    (0xFC00, 0x5400, "store"),
    (0xF000, 0x5000, "load"),
    (0xE800, 0x6800, "load"),  # LDR and LDRB with an immediate offset
    (0xE800, 0x6000, "store"),
    (0xF800, 0x8800, "load"),
    (0xF800, 0x8000, "store"),
    (0xF800, 0x9800, "load"),
    (0xF800, 0x9000, "store"),
    (0xFE00, 0xB400, "store_multiple"),
    (0xFF00, 0xBC00, "load_multiple"),
    (0xFF00, 0xBD00, "return"),  # POP with PC
    (0xF800, 0xC000, "store_multiple"),
    (0xF800, 0xC800, "load_multiple"),
)
_WIDE: tuple[tuple[int, int, Kind], ...] = (
    (0xFE50, 0xE800, "store_multiple"),
    (0xFE50, 0xE810, "load_multiple"),
    (0xFFF0, 0xE8D0, "table_branch"),
    (0xFE50, 0xE840, "store_multiple"),  # STRD
    (0xFE50, 0xE850, "load_multiple"),  # LDRD
    (0xFE10, 0xF800, "store"),
    (0xFE10, 0xF810, "load"),
    (0xFFF0, 0xFB00, "multiply_add"),  # MUL where the addend is register 15
    (0xFFD0, 0xFB80, "long_multiply"),
    (0xFFD0, 0xFB90, "divide"),
    (0xFF90, 0xFB80, "long_multiply_add"),
)


def classify(first: int, second: int) -> tuple[Kind, int]:
    """Return the kind of a Thumb instruction, and the registers that a multiple one moves."""
    if second == 0 and first >> 11 < 0b11101:
        kind = _find(_NARROW, first)
        if kind in ("load_multiple", "store_multiple", "return"):
            listed = first & (0x01FF if first & 0xF000 == 0xB000 else 0x00FF)
            return kind, bin(listed).count("1")
        return kind, 0
    if first & 0xF800 == 0xF000 and second & 0xD000 == 0xD000:
        return "call", 0
    kind = _find(_WIDE, first)
    if kind == "multiply_add" and second & 0xF000 == 0xF000:
        return "multiply", 0
    if first & 0xFE40 == 0xE840 and kind != "table_branch":
        return kind, 2
    if kind == "load_multiple" and second & 0x8000:
        return "return", bin(second).count("1")
    if kind in ("load_multiple", "store_multiple"):
        return kind, bin(second).count("1")
    return kind, 0


def _find(rows: tuple[tuple[int, int, Kind], ...], halfword: int) -> Kind:
    return next((kind for mask, value, kind in rows if halfword & mask == value), "other")
