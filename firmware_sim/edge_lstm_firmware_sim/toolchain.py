"""The compilers: finds them, says what is missing and how to get it, knows their flags."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_lstm.errors import MismatchError, MissingTool, UsageError
from edge_lstm_firmware_sim.cores import Core

CompilerName = Literal["zig", "gcc"]
COMPILERS: tuple[CompilerName, ...] = ("zig", "gcc")
OPTIMIZATIONS = ("-O3", "-O2", "-Os")
COMPILE_SECONDS = 300  # a large package on a slow machine; then something hangs

NEEDS_ZIG = "package ziglang is not installed; pip install 'edge-lstm[firmware]'"
NEEDS_GCC = {
    "arm-none-eabi-gcc": "apt install gcc-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "apt install gcc-riscv64-unknown-elf",
}

# As a careful project builds, and each section alone so that the linker can drop what is unused.
COMMON = (
    "-std=c99",
    "-ffunction-sections",
    "-fdata-sections",
    "-fomit-frame-pointer",  # zig keeps it otherwise
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
)
# zig adds checks for undefined behaviour unless told not to.
ZIG_ONLY = ("-fno-sanitize=all", "-Wno-unused-command-line-argument")

# Needs no C library's headers; yet knows what memcpy does, as a project with a library would.
GCC_ONLY = ("-ffreestanding", "-fbuiltin")


@dataclass(frozen=True)
class Compiler:
    """A compiler that is installed, for one core.

    Args:
        name: zig or gcc.
        version: as it says itself; budgets of instructions hold for one version.
        program: its path.
        core: what it builds for.
    """

    name: CompilerName
    version: str
    program: Path
    core: Core

    @property
    def compile_command(self) -> list[str]:
        """The command that turns C into an object; the caller adds -O, -c and files."""
        if self.name == "zig":
            return [str(self.program), "cc", *self.core.zig, *COMMON, *ZIG_ONLY]
        return [str(self.program), *self.core.gcc, *COMMON, *GCC_ONLY]

    def link_commands(self, script: Path, objects: list[Path], output: Path) -> list[list[str]]:
        """Return commands that link, to be tried in turn.

        zig builds its run-time library once for each core, which takes seconds: it is asked only
        where the code needs a function of that library (a 64-bit product on Armv6-M).
        """
        files = [*map(str, objects), "-o", str(output)]
        if self.name == "gcc":
            flags = [
                "-nostdlib",
                f"-Wl,-T,{script}",
                "-Wl,--gc-sections",
                "-Wl,--no-warn-rwx-segments",
            ]
            return [[str(self.program), *self.core.gcc, *flags, *files, "-lgcc"]]
        plain = [str(self.program), "ld.lld", "-T", str(script), "--gc-sections", *files]
        flags = ["-nostartfiles", "-O3", f"-Wl,-T,{script}", "-Wl,--gc-sections"]
        return [plain, [str(self.program), "cc", *self.core.zig, *ZIG_ONLY, *flags, *files]]


def find_compiler(name: str, core: Core) -> Compiler:
    """Return the compiler of that name.

    Raises:
        UsageError: no compiler has this name.
        MissingTool: it is not installed.
    """
    if name == "zig":
        program, version = _zig()
        return Compiler("zig", version, program, core)
    if name == "gcc":
        program, version = _gcc(core.gcc_program)
        return Compiler("gcc", version, program, core)
    raise UsageError(f"compiler {name!r}: unknown; there are {', '.join(COMPILERS)}")


def find_host_compiler() -> list[str]:
    """Return the command of a C compiler for this machine: cc, or zig.

    Raises:
        MissingTool: neither is installed.
    """
    found = shutil.which("cc") or shutil.which("gcc")
    return [found] if found else [str(_zig()[0]), "cc"]


@functools.cache
def _zig() -> tuple[Path, str]:
    try:
        import ziglang
    except ImportError as error:
        raise MissingTool(NEEDS_ZIG) from error
    program = Path(str(ziglang.__file__)).with_name("zig")
    return program, run_tool([str(program), "version"]).strip()


@functools.cache
def _gcc(name: str) -> tuple[Path, str]:
    found = shutil.which(name)
    if found is None:
        raise MissingTool(f"{name} not found; {NEEDS_GCC[name]} (Debian)")
    return Path(found), run_tool([found, "-dumpfullversion"]).strip()


def run_tool(command: list[str], folder: Path | None = None) -> str:
    """Run a compiler or linker and return what it printed.

    Raises:
        MismatchError: it failed; its first complaint is in the message.
    """
    tool = Path(command[0]).name
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=COMPILE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MismatchError(f"{tool}: no answer within {COMPILE_SECONDS} s") from error
    except OSError as error:
        raise MissingTool(f"{command[0]}: cannot be run: {error.strerror}") from error
    if done.returncode:
        raise MismatchError(f"{tool}: {_complaint(done.stderr.decode(errors='replace'))}")
    return done.stdout.decode(errors="replace")


def _complaint(text: str) -> str:
    """Return the line that says what is wrong: the first of the compiler or the linker itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = ("error", "undefined reference", "will not fit")
    wrong = [line for line in lines if any(word in line for word in words)]
    return (wrong or lines or ["failed without a word"])[0]
