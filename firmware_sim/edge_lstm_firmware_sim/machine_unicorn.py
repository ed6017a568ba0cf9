"""Calls a package's functions in a CPU emulated by unicorn; the only file that knows unicorn.

There is no start-up code: arguments go to registers, the link register holds the address at which
to stop. The first steps run with a hook on every basic block, which sees what is executed; the rest
at the emulator's full speed.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from edge_lstm.errors import MismatchError, MissingTool
from edge_lstm_firmware_sim.cores import Core
from edge_lstm_firmware_sim.cycles import Block, classify, measure_block, taken_cycles
from edge_lstm_firmware_sim.elf import Image

NEEDS_UNICORN = "package unicorn is not installed; pip install 'edge-lstm[firmware]'"

PAGE = 4096
STOP = 0x0100_0000
STACK = 0x3000_0000
STACK_BYTES = 1 << 20
BUFFERS = 0x4000_0000
CALL_SECONDS = 60
"""Of one call; the largest models take a few. Then the code runs in circles."""
TRACED_BLOCKS = 1 << 20  # at once, in memory
PAINT = b"".join((0x5AFE_0000 ^ n * 0x9E37_79B1 & 0xFFFF_FFFF).to_bytes(4, "little")
                 for n in range(STACK_BYTES // 4))  # fmt: skip
"""A word for every place, each another: no program writes it by chance all along its stack."""


class Machine:
    """A CPU with an image in its memory.

    Args:
        image: linked, and with nothing in it that asks for a start-up.
        core: which CPU.

    Raises:
        MissingTool: unicorn is not installed, or has no such core.
    """

    def __init__(self, image: Image, core: Core) -> None:
        self.image = image
        self.core = core
        self._unicorn = _import_unicorn()
        if core.unicorn is None:
            raise MissingTool(f"unicorn has no {core.name}")
        self._cpu = self._new_cpu(core.unicorn)
        self._next_buffer = BUFFERS
        self._blocks: dict[tuple[int, int], Block] = {}
        self._pages: set[int] = set()
        for section in image.sections:
            self._map(section.address, section.size)
            self._cpu.mem_write(section.address, section.data)
        self._map(STOP, PAGE)
        self._map(STACK, STACK_BYTES)
        self._cpu.mem_write(STACK, PAINT)

    @property
    def version(self) -> str:
        """The emulator's name and version."""
        return f"unicorn {self._unicorn.__version__}"

    def _new_cpu(self, model: str) -> Any:
        unicorn = self._unicorn
        if self.core.architecture == "riscv32":
            registers = unicorn.riscv_const
            self._arguments = [getattr(registers, f"UC_RISCV_REG_A{n}") for n in range(4)]
            self._stack, self._link = registers.UC_RISCV_REG_SP, registers.UC_RISCV_REG_RA
            self._counter, self._thumb = registers.UC_RISCV_REG_PC, 0
            return unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        registers = unicorn.arm_const
        self._arguments = [getattr(registers, f"UC_ARM_REG_R{n}") for n in range(4)]
        self._stack, self._link = registers.UC_ARM_REG_SP, registers.UC_ARM_REG_LR
        self._counter, self._thumb = registers.UC_ARM_REG_PC, 1
        cpu = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        cpu.ctl_set_cpu_model(getattr(registers, f"UC_CPU_ARM_{model}"))
        return cpu

    def _map(self, address: int, size: int) -> None:
        """Map the pages of a range that are not mapped yet."""
        first, end = address // PAGE, -(-(address + size) // PAGE)
        for page in set(range(first, end)) - self._pages:
            self._cpu.mem_map(page * PAGE, PAGE)
            self._pages.add(page)

    def buffer(self, size: int, item: int) -> int:
        """Return the address of ``size`` new bytes of zeros, aligned to ``item`` and no better.

        A page that is not mapped lies right behind, so that reading past the end is seen.
        """
        pages = -(-(size + item) // PAGE) * PAGE
        self._cpu.mem_map(self._next_buffer, pages)
        end = self._next_buffer + pages
        self._next_buffer = end + PAGE
        start = end - size
        return start if start % (2 * item) else start - item

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into memory."""
        self._cpu.mem_write(address, data)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of memory."""
        return bytes(self._cpu.mem_read(address, size))

    def call(self, function: str, *arguments: int) -> int:
        """Call a C function at full speed; return what it returns.

        Raises:
            MismatchError: it touched memory that is not its own, ran an instruction that the core
                lacks, or did not come back.
        """
        cpu = self._cpu
        for register, value in zip(self._arguments, arguments, strict=False):
            cpu.reg_write(register, value)
        cpu.reg_write(self._stack, STACK + STACK_BYTES)
        cpu.reg_write(self._link, STOP | self._thumb)
        entry = self.image.symbols[function] | self._thumb
        try:
            cpu.emu_start(entry, STOP, timeout=int(CALL_SECONDS * 1e6))
        except self._unicorn.UcError as error:
            where = cpu.reg_read(self._counter)
            raise MismatchError(
                f"{self.core.name}: {function} failed at {where:#010x}: {error}"
            ) from error
        if cpu.reg_read(self._counter) & ~1 != STOP:
            raise MismatchError(f"{self.core.name}: {function} did not return")
        return int(cpu.reg_read(self._arguments[0])) & 0xFFFF_FFFF

    def count(self, function: str, *arguments: int) -> Block:
        """Call a C function and return the instructions and the estimated cycles of the call."""
        trace: list[tuple[int, int]] = []
        # Each pair of blocks that ran one behind the other, and how often.
        pairs: Counter[tuple[tuple[int, int], tuple[int, int]]] = Counter()

        def on_block(_cpu: Any, address: int, size: int, _data: Any) -> None:
            trace.append((address, size))
            if len(trace) == TRACED_BLOCKS:
                pairs.update(pairwise(trace))
                del trace[:-1]

        misaligned: list[str] = []

        def on_access(_cpu: Any, _kind: int, address: int, size: int, *_: Any) -> None:
            if address % size and not misaligned and self._traps():
                where = self._cpu.reg_read(self._counter)
                misaligned.append(f"at {where:#010x}: {size} bytes at {address:#010x}")

        uses = self._unicorn.UC_HOOK_MEM_READ | self._unicorn.UC_HOOK_MEM_WRITE
        hooks = [
            self._cpu.hook_add(self._unicorn.UC_HOOK_BLOCK, on_block),
            self._cpu.hook_add(uses, on_access),
        ]
        try:
            self.call(function, *arguments)
        finally:
            for hook in hooks:
                self._cpu.hook_del(hook)
        if misaligned:
            raise MismatchError(f"{self.core.name}: {function}, misaligned {misaligned[0]}")
        # The last one ends with the return to the caller.
        pairs.update(pairwise([*(block for block in trace if block[0] != STOP), (STOP, 0)]))
        return self._sum(pairs)

    def _traps(self) -> bool:
        """Return whether the instruction that accesses memory now traps if that is misaligned.

        unicorn lets all of them pass. Armv6-M traps on each, Armv7-M and Armv8-M on those that
        move several registers; what RISC-V does depends on the chip.
        """
        if self.core.name == "cortex-m0plus" or self.core.architecture == "riscv32":
            return True
        code = self.read(self._cpu.reg_read(self._counter), 4)
        first, second = (int.from_bytes(code[n : n + 2], "little") for n in (0, 2))
        kind, _ = classify(first, second if first >> 11 >= 0b11101 else 0)
        return kind in ("load_multiple", "store_multiple", "return")

    def _sum(self, pairs: Counter[tuple[tuple[int, int], tuple[int, int]]]) -> Block:
        instructions = cycles = 0
        for (block, (after, _)), times in pairs.items():
            if block not in self._blocks:
                self._blocks[block] = measure_block(self.read(*block), self.core)
            instructions += times * self._blocks[block].instructions
            cycles += times * self._blocks[block].cycles
            if sum(block) != after:
                cycles += times * taken_cycles(self.core)
        return Block(instructions, cycles)

    def stack_bytes(self) -> int:
        """Return how deep the stack has ever been: what is no longer painted."""
        stack = self.read(STACK, STACK_BYTES)
        if stack == PAINT:
            return 0
        words = (n for n in range(0, STACK_BYTES, 4) if stack[n : n + 4] != PAINT[n : n + 4])
        return STACK_BYTES - next(words)


def _import_unicorn() -> Any:
    try:
        import unicorn
        import unicorn.arm_const
        import unicorn.riscv_const
    except ImportError as error:
        raise MissingTool(NEEDS_UNICORN) from error
    return unicorn
