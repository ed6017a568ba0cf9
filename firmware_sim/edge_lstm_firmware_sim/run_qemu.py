"""Runs a package as whole firmware on a board of QEMU: start-up code, vector table, semihosting.

Counts instructions with a plugin of ours, built once with the host's compiler or zig.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import MismatchError, MissingTool
from edge_lstm_firmware_sim.build import FIRMWARE, Memory, Target, build_elf, cached, digest
from edge_lstm_firmware_sim.elf import Image, read_image
from edge_lstm_firmware_sim.execution import COUNTED_STEPS, Execution
from edge_lstm_firmware_sim.footprint import measure_footprint
from edge_lstm_firmware_sim.package import Package
from edge_lstm_firmware_sim.toolchain import find_host_compiler, run_tool

NEEDS_QEMU = "qemu-system-arm not found; apt install qemu-system-arm (Debian)"
SECONDS = 300
CHUNK_BYTES = 2048  # of inputs or outputs in a board's RAM; the micro:bit has 16 kB in all
PAINTED_WORDS = 1024
ENDS = {  # of firmware/main.c and startup.c
    3: "run() refused a number of steps",
    64: "it touched memory that is not there, or ran an instruction that the core lacks",
}
FIRMWARE_BYTES = 8 << 10  # our own code; our buffers and the stack

# Code, and RAM: the secure aliases on the boards with TrustZone.
BOARDS = {
    "microbit": Memory(0, 256 << 10, 0x2000_0000, 16 << 10),
    "mps2-an385": Memory(0, 4 << 20, 0x2000_0000, 4 << 20),
    "mps2-an386": Memory(0, 4 << 20, 0x2000_0000, 4 << 20),
    "mps2-an500": Memory(0, 4 << 20, 0x2000_0000, 4 << 20),
    "mps2-an505": Memory(0x1000_0000, 4 << 20, 0x3800_0000, 4 << 20),
    # Constants in the board's DDR memory: 512 kB hold no large model.
    "mps3-an547": Memory(0x1000_0000, 512 << 10, 0x3000_0000, 512 << 10, (0x7000_0000, 64 << 20)),
}


def execute(
    package: Package, target: Target, sequences: list[Array], instructions: int
) -> Execution:
    """Run sequences, each from the first state; count the first steps of the first.

    Args:
        package: what to run.
        target: for which core, built with what.
        sequences: ``[steps, ...]`` each, of the package's input type.
        instructions: how many to run at most, about; what does not fit is left out.

    Raises:
        MissingTool: there is no QEMU, or no compiler for its plugin.
        MismatchError: the firmware crashed.
    """
    qemu, version = _qemu()
    board = target.core.board
    if board is None:
        raise MissingTool(f"QEMU's qemu-system-arm has no board with {target.core.name}")
    _check_room(package, target, board)
    path, image = _firmware(package, target, BOARDS[board])
    plugin = _plugin(version)

    def run(chosen: list[Array]) -> Execution:
        with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
            work = Path(folder)
            (work / "x.bin").write_bytes(
                b"".join(np.int32(len(x)).tobytes() + x.tobytes() for x in chosen)
            )
            counting = {
                "file": str(plugin),
                "begin": image.symbols["edge_lstm_code_begin"],
                "end": image.symbols["edge_lstm_code_end"],
                "mark": image.symbols["edge_lstm_mark"] & ~1,
                "out": "counts.txt",
            }
            _run_qemu(qemu, board, path, counting, work, package.name)
            return _findings(package, chosen, work, f"qemu {version}")

    first = run([sequences[0][:COUNTED_STEPS] if package.streams else sequences[0]])
    return run(_within(sequences, instructions, first))


def _check_room(package: Package, target: Target, board: str) -> None:
    """Raise MissingTool where the board is too small: no other one with this core exists."""
    used, memory = measure_footprint(package, target), BOARDS[board]
    flash = used.flash.total + FIRMWARE_BYTES
    if memory.constants is not None:
        flash -= used.flash.weights
    ram = used.ram_bytes + FIRMWARE_BYTES
    if flash > memory.flash_bytes or ram > memory.ram_bytes:
        raise MissingTool(
            f"QEMU's board {board} has {memory.flash_bytes:,} bytes for code and"
            f" {memory.ram_bytes:,} for data; the firmware needs {flash:,} and {ram:,}"
        )


def _within(sequences: list[Array], instructions: int, first: Execution) -> list[Array]:
    """Return as much of the sequences as fits into a number of instructions."""
    left = max(COUNTED_STEPS, instructions // max(1, max(first.instructions)))
    chosen = []
    for x in sequences:
        chosen.append(x[:left])
        left -= len(chosen[-1])
        if left <= 0:
            break
    return chosen


def _firmware(package: Package, target: Target, memory: Memory) -> tuple[Path, Image]:
    """Return the firmware of a board and what is in it."""
    item = max(package.input.step_bytes, package.output.step_bytes)
    chunk = package.max_steps or max(1, CHUNK_BYTES // item)
    defines = {
        "CHUNK": chunk,
        "COUNTED": COUNTED_STEPS,
        "INPUT_VALUES": package.input.values,
        "OUTPUT_VALUES": package.output.values,
        "PAINTED_WORDS": PAINTED_WORDS,
        "STREAMS": int(package.streams),
        "WRITES_EVERY_STEP": int(package.writes_every_step),
    }
    path = build_elf(
        package,
        target,
        ("Reset_Handler",),
        memory,
        (FIRMWARE / "startup.c", FIRMWARE / "main.c"),
        tuple(f"{name}={value}" for name, value in defines.items()),
    )
    return path, read_image(path.read_bytes())


def _run_qemu(
    qemu: Path, board: str, image: Path, counting: dict[str, object], folder: Path, name: str
) -> None:
    command = [str(qemu), "-M", board, "-kernel", str(image), "-display", "none"]
    command += ["-monitor", "none", "-serial", "none", "-parallel", "none", "-no-reboot"]
    command += ["-semihosting-config", "enable=on,target=native"]
    command += ["-plugin", ",".join(f"{key}={value}" for key, value in counting.items())]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MismatchError(f"{board}: {name} did not end within {SECONDS} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[0] if said else f"the firmware ended with code {done.returncode}"
        why = ENDS.get(done.returncode, why)
        raise MismatchError(f"{board}: {name} failed: {why}")


def _findings(package: Package, sequences: list[Array], folder: Path, emulator: str) -> Execution:
    port = package.output
    rows = [len(x) if package.writes_every_step else 1 for x in sequences]
    y = np.frombuffer((folder / "y.bin").read_bytes(), port.dtype).reshape(-1, port.values)
    if len(y) != sum(rows):
        raise MismatchError(f"{package.name}: wrote {len(y)} outputs; want {sum(rows)}")
    marks = [int(line) for line in (folder / "counts.txt").read_text(encoding="utf8").split()]
    selftest, stack = np.frombuffer((folder / "found.bin").read_bytes(), np.uint32)
    counts = [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]
    if not package.streams:
        counts = [round(counts[0] / len(sequences[0]))]
    return Execution(
        outputs=tuple(np.split(y, np.cumsum(rows)[:-1])),
        steps=tuple(len(x) for x in sequences),
        instructions=tuple(counts),
        cycles=None,
        stack_bytes=int(stack),
        selftest=int(selftest) == 0,
        emulator=emulator,
    )


@functools.cache
def _qemu() -> tuple[Path, str]:
    found = shutil.which("qemu-system-arm")
    if found is None:
        raise MissingTool(NEEDS_QEMU)
    said = run_tool([found, "--version"])
    version = re.search(r"version (\d+\.\d+\.\d+)", said)
    if version is None:
        raise MissingTool(f"{found}: says no version of QEMU: {said[:80]!r}")
    return Path(found), version[1]


def _plugin_version(qemu: str) -> int:
    """Return the version of QEMU's plugin interface; the functions that we use are in all."""
    release = tuple(int(part) for part in qemu.split(".")[:2])
    return 1 if release < (8, 2) else 2 if release < (9, 1) else 3


def _plugin(qemu: str) -> Path:
    """Return the counting plugin, in the cache."""
    source = FIRMWARE / "count_plugin.c"
    flags = ["-shared", "-fPIC", "-O2", "-std=c99", f"-DPLUGIN_VERSION={_plugin_version(qemu)}"]
    key = digest(source.read_bytes(), repr(flags))

    def compile_to(folder: Path, output: Path) -> None:
        run_tool([*find_host_compiler(), *flags, str(source), "-o", str(output)], folder)

    return cached(f"{key}.so", compile_to)
