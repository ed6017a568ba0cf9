"""Instruction lengths, kinds and cycles, against assembled code and sums made by hand."""

import subprocess
from pathlib import Path

import pytest

from edge_lstm.errors import MissingTool
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.cycles import Kind, classify, measure_block
from edge_lstm_firmware_sim.toolchain import find_compiler

# Assembly, the registers that it moves if several, and its kind by the reference manuals.
KINDS: list[tuple[str, int, Kind]] = [
    ("adds r0, r1, r2", 0, "other"),
    ("movs r0, #255", 0, "other"),
    ("muls r0, r1, r0", 0, "multiply"),
    ("ldr r0, [r1, #4]", 0, "load"),
    ("ldr r0, [sp, #8]", 0, "load"),
    ("ldrb r0, [r1, r2]", 0, "load"),
    ("ldrsb r0, [r1, r2]", 0, "load"),
    ("ldrsh r0, [r1, r2]", 0, "load"),
    ("ldrh r0, [r1, #2]", 0, "load"),
    ("str r0, [r1, #4]", 0, "store"),
    ("strb r0, [r1, r2]", 0, "store"),
    ("strh r0, [r1, #2]", 0, "store"),
    ("str r0, [sp, #8]", 0, "store"),
    ("push {r4, r5, lr}", 3, "store_multiple"),
    ("pop {r4, r5}", 2, "load_multiple"),
    ("pop {r4, r5, pc}", 3, "return"),
    ("ldm r0!, {r1, r2, r3}", 3, "load_multiple"),
    ("stm r0!, {r1, r2}", 2, "store_multiple"),
    ("bl target", 0, "call"),
    ("bx lr", 0, "other"),
    ("ldm.w r0, {r1, r4, r8}", 3, "load_multiple"),
    ("stmdb sp!, {r4, r8, r9, lr}", 4, "store_multiple"),
    ("ldm.w sp!, {r4, r8, pc}", 3, "return"),
    ("ldrd r0, r1, [r2], #8", 2, "load_multiple"),
    ("strd r0, r1, [r2]", 2, "store_multiple"),
    ("ldr.w r0, [r1, #400]", 0, "load"),
    ("ldrsh.w r0, [r1], #2", 0, "load"),
    ("strb.w r0, [r1, #400]", 0, "store"),
    ("mul r0, r1, r8", 0, "multiply"),
    ("mla r0, r1, r2, r3", 0, "multiply_add"),
    ("mls r0, r1, r2, r3", 0, "multiply_add"),
    ("smlad r0, r1, r2, r3", 0, "other"),
    ("smulwb r0, r1, r2", 0, "other"),
    ("smull r0, r1, r2, r3", 0, "long_multiply"),
    ("umull r0, r1, r2, r3", 0, "long_multiply"),
    ("smlal r0, r1, r2, r3", 0, "long_multiply_add"),
    ("sdiv r0, r1, r2", 0, "divide"),
    ("udiv r0, r1, r2", 0, "divide"),
    ("tbb [pc, r0]", 0, "table_branch"),
    ("sxtb16 r0, r1", 0, "other"),
    ("usat r0, #8, r1, asr #4", 0, "other"),
    ("movw r0, #4660", 0, "other"),
    ("b.w target", 0, "other"),
    ("beq.w target", 0, "other"),
]


@pytest.fixture(scope="module")
def halfwords(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """Give each instruction above as the assembler of zig encodes it for a Cortex-M4."""
    folder = tmp_path_factory.mktemp("kinds")
    return dict(zip([text for text, *_ in KINDS], _assembled(folder), strict=True))


def _assembled(folder: Path) -> list[tuple[int, int]]:
    try:
        compiler = find_compiler("zig", CORES["cortex-m4"])
    except MissingTool as missing:
        pytest.skip(str(missing))
    # A section each, so that the length is seen.
    source = ".syntax unified\n.thumb\ntarget: nop\n" + "".join(
        f'.section .text.{number},"ax"\n.thumb_func\nf{number}: {text}\n'
        for number, (text, *_) in enumerate(KINDS)
    )
    (folder / "kinds.s").write_text(source)
    command = [str(compiler.program), "cc", *compiler.core.zig, "-c", "kinds.s", "-o", "kinds.o"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    elffile = pytest.importorskip(
        "elftools.elf.elffile", reason="pyelftools not found: pip install 'edge-lstm[firmware]'"
    )
    found = []
    with (folder / "kinds.o").open("rb") as file:
        elf = elffile.ELFFile(file)
        for number in range(len(KINDS)):
            code = elf.get_section_by_name(f".text.{number}").data()
            second = int.from_bytes(code[2:4], "little") if len(code) == 4 else 0
            found.append((int.from_bytes(code[:2], "little"), second))
    return found


@pytest.mark.parametrize(("text", "registers", "kind"), KINDS, ids=[text for text, *_ in KINDS])
def test_thumb_instruction_is_told_by_its_bits(
    halfwords: dict[str, tuple[int, int]], text: str, registers: int, kind: Kind
) -> None:
    assert classify(*halfwords[text]) == (kind, registers)


def _code(*words: int) -> bytes:
    return b"".join(word.to_bytes(2, "little") for word in words)


def test_thumb_block_counts_halfwords_and_pairs() -> None:
    # movs; bl (a pair); ldr.w (a pair); bx lr
    code = _code(0x2000, 0xF000, 0xF801, 0xF8D1, 0x0190, 0x4770)
    assert measure_block(code, CORES["cortex-m4"]).instructions == 4


def test_riscv_block_counts_compressed_instructions_by_their_low_bits() -> None:
    # c.li a0, 1; addi a0, a0, 100; c.jr ra
    code = _code(0x4505) + (0x06450513).to_bytes(4, "little") + _code(0x8082)
    found = measure_block(code, CORES["rv32imc"])
    assert (found.instructions, found.cycles) == (3, 3)


@pytest.mark.parametrize(("core", "cycles"), [
    # ldr 2, ldr behind it 1, adds 1, ldm of four 1 + 4, str 1, smull 1
    ("cortex-m4", 2 + 1 + 1 + 5 + 1 + 1),
    # the same, and smull 3 to 5
    ("cortex-m3", 2 + 1 + 1 + 5 + 1 + 4),
    # no table: one each
    ("cortex-m7", 6),
])  # fmt: skip
def test_cycles_are_those_of_the_reference_manual(core: str, cycles: int) -> None:
    # ldr r0, [r1]; ldr r2, [r1]; adds r0, r0, r2; ldm r3!, {r4-r7}; str r0, [r1]; smull
    code = _code(0x6808, 0x680A, 0x1880, 0xCBF0, 0x6008, 0xFB84, 0x4505)
    found = measure_block(code, CORES[core])
    assert (found.instructions, found.cycles) == (6, cycles)


def test_cycles_of_the_smallest_core_do_not_overlap_loads() -> None:
    # ldr 2, ldr 2, muls 1, push of two 1 + 2, pop with pc 3 + N less the refill of a taken branch
    code = _code(0x6808, 0x680A, 0x4350, 0xB410 | 0x20, 0xBD10)
    assert measure_block(code, CORES["cortex-m0plus"]).cycles == 2 + 2 + 1 + 3 + 4
