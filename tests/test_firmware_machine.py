"""Emulated cores on packages written by hand: counts known in advance, stack, faults."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.errors import MismatchError, MissingTool, UsageError
from edge_lstm_firmware_sim import machine_unicorn, run_qemu, simulate
from edge_lstm_firmware_sim.cores import CORES
from edge_lstm_firmware_sim.footprint import measure_footprint
from edge_lstm_firmware_sim.package import find_package
from edge_lstm_firmware_sim.simulate import Measurement, Options, count
from firmware_packages import WORDS, Hand, naked

ARM = [name for name, core in CORES.items() if core.architecture == "thumb"]
UNICORN = [name for name, core in CORES.items() if core.unicorn]

# Ten times round: 1 + 10 * 2 + 1 instructions.
ARM_LOOP = "movs r3, #10\n1: subs r3, #1\nbne 1b\nbx lr"
RISCV_LOOP = "li t0, 10\n1: addi t0, t0, -1\nbnez t0, 1b\nret"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is built here out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_LSTM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def counted(
    folder: Path, core: str, emulator: str = "auto", compiler: str = "zig", opt: str = "-O3"
) -> Measurement:
    """Count a package's step; skip where a tool is missing."""
    try:
        return count(folder, core, None, compiler, opt, emulator)
    except MissingTool as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("emulator", ["unicorn", "qemu"])
@pytest.mark.parametrize("core", CORES)
def test_loop_of_known_length_is_counted_to_the_instruction(
    tmp_path: Path, core: str, emulator: str
) -> None:
    step = naked(ARM_LOOP) if core in ARM else naked(RISCV_LOOP, syntax="")
    found = counted(Hand(step=step).write(tmp_path), core, emulator)
    assert found.instructions == (22,) * 6
    assert found.instructions_per_step == 22
    assert found.stack_bytes == 0


@pytest.mark.parametrize("emulator", ["unicorn", "qemu"])
def test_instructions_whose_condition_fails_are_counted(tmp_path: Path, emulator: str) -> None:
    # They take a cycle on hardware. One of the two behind ITE is never executed.
    body = "movs r3, #1\ncmp r3, #0\nite eq\nmoveq r2, #1\nmovne r2, #2\nbx lr"
    found = counted(Hand(step=naked(body)).write(tmp_path), "cortex-m4", emulator)
    assert found.instructions == (6,) * 6


@pytest.mark.parametrize(
    ("core", "cycles"),
    [
        ("cortex-m4", 1 + 10 * 2 + 9 * 2 + 1 + 2),  # a refill of 2 for nine branches and the return
        ("cortex-m3", 1 + 10 * 2 + 9 * 2 + 1 + 2),
        ("cortex-m33", 1 + 10 * 2 + 9 * 2 + 1 + 2),
        ("cortex-m0plus", 1 + 10 * 2 + 9 * 1 + 1 + 1),
        ("cortex-m7", 22),
    ],
)
def test_cycles_of_a_loop_count_the_branches_that_are_taken(
    tmp_path: Path, core: str, cycles: int
) -> None:
    found = counted(Hand(step=naked(ARM_LOOP)).write(tmp_path), core)
    assert found.cycles_per_step == cycles


def test_cycles_of_a_core_without_a_table_are_its_instructions_in_qemu_too(tmp_path: Path) -> None:
    package = Hand().write(tmp_path)
    assert counted(package, "cortex-m7", "qemu").cycles_per_step == 20
    assert counted(package, "cortex-m4", "qemu").cycles_per_step is None


@pytest.mark.parametrize("emulator", ["unicorn", "qemu"])
@pytest.mark.parametrize("core", CORES)
def test_stack_is_measured_to_the_byte(tmp_path: Path, core: str, emulator: str) -> None:
    arm = "sub sp, #96\nstr r0, [sp]\nadd sp, #96\nbx lr"
    riscv = "addi sp, sp, -96\nsw a0, 0(sp)\naddi sp, sp, 96\nret"
    step = naked(arm) if core in ARM else naked(riscv, syntax="")
    found = counted(Hand(step=step).write(tmp_path), core, emulator)
    assert found.stack_bytes == 96


@pytest.mark.parametrize("compiler", ["zig", "gcc"])
@pytest.mark.parametrize("core", CORES)
def test_handwritten_package_gives_the_bytes_of_numpy(
    tmp_path: Path, core: str, compiler: str
) -> None:
    package = Hand().write(tmp_path)
    for optimization in ("-O3", "-Os"):
        found = counted(package, core, compiler=compiler, opt=optimization)
        assert found.differing_bytes == 0
        assert found.compared_bytes == 64 * 3
        assert found.steps == 64
        assert found.selftest_passed


@pytest.mark.parametrize("core", ARM)
def test_emulators_agree_on_counts_stack_and_bytes(tmp_path: Path, core: str) -> None:
    # Branches that depend on data, a call, a product of 64 bits: what generated code may hold.
    planted = (
        "volatile int64_t a = state->calls; for (int i = 0; i < x[0]; i++) { a = a * (x[0] + i); }"
        "y[0] = (int8_t)a;"
    )
    package = Hand(planted).write(tmp_path)
    unicorn, qemu = (counted(package, core, emulator) for emulator in ("unicorn", "qemu"))
    assert len(set(unicorn.instructions)) > 1
    assert unicorn.instructions == qemu.instructions
    assert unicorn.stack_bytes == qemu.stack_bytes
    assert (unicorn.differing_bytes, qemu.differing_bytes) == (0, 0)


@pytest.mark.parametrize("emulator", ["unicorn", "qemu"])
@pytest.mark.parametrize("core", ["cortex-m4", "rv32imc", "cortex-m55"])
def test_wrong_byte_of_one_step_is_found(tmp_path: Path, core: str, emulator: str) -> None:
    # Only run() is right: what step() spoils lies in the first, counted steps.
    step = naked("bx lr") if core in ARM else naked("ret", syntax="")
    found = counted(Hand(step=step).write(tmp_path), core, emulator)
    assert 0 < found.differing_bytes <= 6 * 3
    assert not found.bytes_equal


@pytest.mark.parametrize("emulator", ["unicorn", "qemu"])
def test_failing_selftest_is_told(tmp_path: Path, emulator: str) -> None:
    package = Hand(selftest="(void)state; return 3;").write(tmp_path)
    assert not counted(package, "cortex-m4", emulator).selftest_passed


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0plus", "rv32imc"])
@pytest.mark.parametrize(
    ("planted", "why"),
    [
        ("*(volatile int8_t *)0x09000000 = 1;", "Invalid memory write"),
        ("y[0] = *(volatile int8_t *)0x09000000;", "Invalid memory read"),
        ("((volatile int8_t *)y)[3] = 1;", "Invalid memory write"),  # one past the output
        ("y[0] = (hand_output_t)((volatile const int32_t *)x)[1];", "Invalid memory read"),
        ("((void (*)(void))0x09000001)();", "Invalid memory fetch"),
        ('__asm volatile(".word 0xde01de01");', "Invalid instruction|Unhandled CPU exception"),
    ],
)
def test_fault_is_one_line(tmp_path: Path, core: str, planted: str, why: str) -> None:
    package = Hand(planted).write(tmp_path)
    if "asm" in planted and core == "rv32imc":
        package = Hand('__asm volatile(".word 0xffffffff");').write(tmp_path / "riscv")
    with pytest.raises(MismatchError, match=rf"{core}: hand_step failed at 0x\w+: .*({why})"):
        counted(package, core)


WORD = "y[0] = (hand_output_t)*(volatile const int32_t *)((uintptr_t)x - 1);"
TWO_WORDS = '__asm volatile("ldm %0, {r2, r3}" : : "r"(state->room + 1) : "r2", "r3", "memory");'


@pytest.mark.parametrize(
    ("core", "planted", "traps"),
    [
        ("cortex-m0plus", WORD, True),
        ("rv32imc", WORD, True),
        ("cortex-m4", WORD, False),
        ("cortex-m33", WORD, False),
        ("cortex-m4", TWO_WORDS, True),
        ("cortex-m7", TWO_WORDS, True),
    ],
)
def test_access_that_traps_for_its_alignment_is_told(
    tmp_path: Path, core: str, planted: str, traps: bool
) -> None:
    package = Hand(planted).write(tmp_path)
    if traps:
        with pytest.raises(
            MismatchError, match=rf"{core}: hand_step, misaligned at 0x\w+: 4 bytes"
        ):
            counted(package, core)
    else:
        assert counted(package, core).bytes_equal


def test_run_that_refuses_steps_is_told(tmp_path: Path) -> None:
    package = Hand(run="1").write(tmp_path)
    with pytest.raises(MismatchError, match="hand_run: refused 58 steps"):
        counted(package, "cortex-m4")
    with pytest.raises(MismatchError, match=r"hand failed: run\(\) refused a number of steps"):
        counted(package, "cortex-m4", "qemu")


def test_fault_on_a_board_is_one_line(tmp_path: Path) -> None:
    package = Hand("*(volatile int8_t *)0x90000000 = 1;").write(tmp_path)
    with pytest.raises(MismatchError, match="mps2-an386: hand failed: it touched memory"):
        counted(package, "cortex-m4", "qemu")


@pytest.mark.parametrize("core", ["cortex-m4", "rv32imc"])
def test_code_that_runs_in_circles_is_stopped(
    tmp_path: Path, core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_unicorn, "CALL_SECONDS", 0.2)
    package = Hand("for (;;) { state->calls = *(volatile int32_t *)state; }").write(tmp_path)
    with pytest.raises(MismatchError, match=f"{core}: hand_step did not return"):
        counted(package, core)


def test_board_that_runs_in_circles_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_qemu, "SECONDS", 1)
    package = Hand("for (;;) { state->calls = *(volatile int32_t *)state; }").write(tmp_path)
    with pytest.raises(MismatchError, match="mps2-an386: hand did not end within 1 s"):
        counted(package, "cortex-m4", "qemu")


def test_long_trace_is_summed_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_unicorn, "TRACED_BLOCKS", 4)
    found = counted(Hand(step=naked(ARM_LOOP)).write(tmp_path), "cortex-m4")
    assert (found.instructions_per_step, found.cycles_per_step) == (22, 42)


def test_steps_beyond_the_budget_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Hand().write(tmp_path)
    x = np.zeros((3, 40), np.int32)
    for emulator in ("unicorn", "qemu"):
        monkeypatch.setattr(simulate, "MOST_INSTRUCTIONS", 60 * 20)  # of 20 instructions a step
        found = count(package, "cortex-m4", x, emulator=emulator)
        assert found.differing_bytes == 0
        assert found.steps == 60, emulator
        monkeypatch.setattr(simulate, "MOST_INSTRUCTIONS", 1 << 30)
        assert count(package, "cortex-m4", x, emulator=emulator).steps == 120


def test_budget_that_ends_within_a_step_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "MOST_INSTRUCTIONS", 47 * 20 + 5)
    output = {"kind": "vector", "size": 3, "dtype": "int8"}
    package = Hand(step=naked("bx lr")).write(tmp_path, output=output)
    target = simulate._target(CORES["cortex-m4"], Options())
    x = [np.zeros(40, np.int32), np.zeros(7, np.int32), np.zeros(3, np.int32)]
    found = simulate._execute(find_package(package), target, x, "unicorn")
    assert found.instructions == (1,) * 6
    assert found.steps == (40, 7, 3)
    monkeypatch.setattr(simulate, "MOST_INSTRUCTIONS", 47)
    found = simulate._execute(find_package(package), target, x, "unicorn")
    assert (found.steps, len(found.outputs)) == ((40, 7), 2)


def test_missing_board_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match=r"no board with rv32imc|qemu-system-arm not found"):
        count(Hand().write(tmp_path), "rv32imc", emulator="qemu")


def test_core_that_unicorn_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="unicorn has no cortex-m55"):
        count(Hand().write(tmp_path), "cortex-m55", emulator="unicorn")


def test_model_too_large_for_a_board_is_said(tmp_path: Path) -> None:
    planted = "static const int8_t big[300000] = {1}; y[0] = ((volatile const int8_t *)big)[x[0]];"
    package = Hand(planted).write(tmp_path)
    with pytest.raises(MissingTool, match=r"microbit has 262,144 bytes|qemu-system-arm not found"):
        count(package, "cortex-m0plus", emulator="qemu")


def test_constants_beyond_the_fast_memory_of_helium_s_board_are_run(tmp_path: Path) -> None:
    planted = "static const int8_t big[700000] = {1};"
    planted += "state->room[0] = ((volatile const int8_t *)big)[x[0]];"
    found = counted(Hand(planted).write(tmp_path), "cortex-m55")
    assert found.differing_bytes == 0
    assert found.footprint.flash.weights > 700_000


def test_image_of_the_model_alone_is_what_a_firmware_grows_by(tmp_path: Path) -> None:
    # The same board firmware with the model's functions and with empty ones.
    hand, empty = Hand(), Hand(step=naked("bx lr"))
    sizes, models = [], []
    for number, each in enumerate((hand, empty)):
        package = find_package(each.write(tmp_path / str(number)))
        target = simulate._target(CORES["cortex-m4"], Options())
        try:
            _, image = run_qemu._firmware(package, target, run_qemu.BOARDS["mps2-an386"])
        except MissingTool as missing:
            pytest.skip(str(missing))
        sizes.append(sum(s.size for s in image.sections if not s.writable))
        models.append(measure_footprint(package, target).flash.total)
    # hand_table stays in both for hand_run, which the footprint of a step leaves out.
    table = WORDS * 3
    assert models[0] - models[1] - table == pytest.approx(sizes[0] - sizes[1], abs=8)  # alignment


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(compiler="tcc"), "compiler 'tcc': unknown; there are auto, zig, gcc"),
        (Options(optimization="-O9"), "optimization '-O9': unknown; there are -O3, -O2, -Os"),
        (Options(emulator="bochs"), "emulator 'bochs': unknown; there are auto, unicorn, qemu"),
    ],
)
def test_unknown_option_is_refused(options: Options, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.check()
    assert str(caught.value) == message
