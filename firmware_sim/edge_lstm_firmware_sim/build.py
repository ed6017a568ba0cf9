"""A package and a core become an image; what was built once is taken from the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import MismatchError
from edge_lstm.files import make_folder, write_atomically
from edge_lstm_firmware_sim.cores import Core
from edge_lstm_firmware_sim.elf import Image, read_image
from edge_lstm_firmware_sim.package import Package
from edge_lstm_firmware_sim.toolchain import Compiler, find_compiler, run_tool

FIRMWARE = Path(__file__).parent / "firmware"
CACHE_VARIABLE = "EDGE_LSTM_CACHE"
CACHED_FILES = 2000  # the oldest go first
HALF_WRITTEN_SECONDS = 3600  # then nobody writes it any more


@dataclass(frozen=True)
class Memory:
    """Where an image is linked to, and how much room the linker allows.

    Args:
        flash_address: of code, and of constants unless they have a place of their own.
        flash_bytes: for them.
        ram_address: of variables and the stack.
        ram_bytes: for them.
        constants: address and bytes of another place for constants.
    """

    flash_address: int
    flash_bytes: int
    ram_address: int
    ram_bytes: int
    constants: tuple[int, int] | None = None


# No device's: as much as any model could want, so that what does not fit is measured, too.
ROOMY = Memory(0x0800_0000, 64 << 20, 0x2000_0000, 64 << 20)


@dataclass(frozen=True)
class Target:
    """What firmware is built for and with.

    Args:
        core: of the device.
        compiler: zig or gcc.
        optimization: ``-O3``, ``-O2`` or ``-Os``.
    """

    core: Core
    compiler: Compiler
    optimization: str

    @classmethod
    def of(cls, core: Core, compiler: str = "zig", optimization: str = "-O3") -> Target:
        """Return a target; raises MissingTool where the compiler is not installed."""
        return cls(core, find_compiler(compiler, core), optimization)


def cache_folder() -> Path:
    """Return the user's cache folder for built images; EDGE_LSTM_CACHE names another."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "edge-lstm" / "firmware"


def build(
    package: Package,
    target: Target,
    roots: tuple[str, ...],
    *,
    memory: Memory = ROOMY,
    extra: tuple[Path, ...] = (),
    defines: tuple[str, ...] = (),
) -> Image:
    """Compile and link a package.

    Args:
        package: what to build.
        target: for which core, with what.
        roots: symbols that are kept with all they need; everything else is dropped. The first
            is the entry.
        memory: where to.
        extra: C files to link along, such as a start-up.
        defines: macros for those files, ``NAME=VALUE``.

    Raises:
        MismatchError: the compiler or the linker refuses the package.
        OutputError: the cache folder cannot be written.
    """
    return read_image(build_elf(package, target, roots, memory, extra, defines).read_bytes())


def build_elf(
    package: Package,
    target: Target,
    roots: tuple[str, ...],
    memory: Memory = ROOMY,
    extra: tuple[Path, ...] = (),
    defines: tuple[str, ...] = (),
) -> Path:
    """Return the ELF file of ``build`` in the cache; made now if it is not there."""
    script = _linker_script(roots, memory)
    objects = _objects(package, target, extra, defines)
    compiler = target.compiler
    said = (script, compiler.version, compiler.link_commands(Path(), [], Path()))
    key = digest(repr(said), *(path.name for path in objects))

    def link(folder: Path, output: Path) -> None:
        script_path = folder / "link.ld"
        script_path.write_text(script, encoding="utf8")
        *first, last = compiler.link_commands(script_path, objects, output)
        for command in first:
            try:
                run_tool(command, folder)
                return
            except MismatchError:
                continue
        run_tool(last, folder)

    return cached(f"{key}.elf", link)


def _linker_script(roots: tuple[str, ...], memory: Memory) -> str:
    text = (FIRMWARE / "link.ld.in").read_text(encoding="utf8")
    places = {
        "ENTRY": roots[0],
        "FLASH_ADDRESS": hex(memory.flash_address),
        "FLASH_BYTES": hex(memory.flash_bytes),
        "RAM_ADDRESS": hex(memory.ram_address),
        "RAM_BYTES": hex(memory.ram_bytes),
    }
    places["CONSTANTS"] = 'REGION_ALIAS("CONSTANTS", FLASH)'
    if memory.constants is not None:
        origin, length = memory.constants
        places["CONSTANTS"] = (
            f"MEMORY {{ CONSTANTS (r) : ORIGIN = {origin:#x}, LENGTH = {length:#x} }}"
        )
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text + "".join(f"EXTERN({root})\n" for root in roots)


def _objects(
    package: Package, target: Target, extra: tuple[Path, ...], defines: tuple[str, ...]
) -> list[Path]:
    """Return the compiled files of a package and of our own, in the cache."""
    source_folder = package.folder.resolve() / "src"
    wants = [f"-DEDGE_LSTM_WANTS_{want}" for want in target.core.wants]
    features = [*wants, "-include", str(FIRMWARE / "features.h")]
    # In <>: a model may be called like one of our own headers.
    named = [f"-DEDGE_LSTM_NAME={package.name}", f"-DEDGE_LSTM_HEADER=<{package.name}.h>"]
    own = [*named, *(f"-D{define}" for define in defines)]
    # Else the compiler would make memcpy call itself.
    alone = ["-fno-builtin"]
    if target.compiler.name == "gcc":
        alone.append("-fno-tree-loop-distribute-patterns")
    headers = [*sorted(source_folder.rglob("*.h")), *sorted(FIRMWARE.glob("*.h"))]
    jobs: list[tuple[Path, list[str], list[Path]]] = [
        *((source.resolve(), features, headers) for source in package.sources),
        *((source, own, headers) for source in (FIRMWARE / "probe.c", *extra)),
        (FIRMWARE / "memory.c", alone, []),
    ]
    return [_object(target, source_folder, *job) for job in jobs]


def _object(
    target: Target, folder: Path, source: Path, flags: list[str], headers: list[Path]
) -> Path:
    """Return a source file compiled; the key is all that decides the result."""
    compiler = target.compiler
    command = [*compiler.compile_command, target.optimization, *flags]
    contents = [f"{path.name} {digest(path.read_bytes())}" for path in (source, *headers)]
    key = digest(compiler.version, repr(command), *contents)

    def compile_to(work: Path, output: Path) -> None:
        files = ["-I", str(folder), "-c", str(source), "-o", str(output)]
        run_tool([*command, *files], work)

    return cached(f"{key}.o", compile_to)


def digest(*parts: str | bytes) -> str:
    """Return a hash of some texts and contents of files."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()


def cached(name: str, make: Callable[[Path, Path], None]) -> Path:
    """Return a file of the cache; ``make(folder, output)`` makes it if it is not there."""
    path = make_folder(cache_folder()) / name
    if path.is_file():
        with contextlib.suppress(OSError):
            path.touch()  # used now: the last to be forgotten
        return path
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        output = Path(folder) / name
        make(Path(folder), output)
        write_atomically(path, output.read_bytes())
    _forget_the_oldest(path.parent)
    return path


def _forget_the_oldest(folder: Path) -> None:
    """Delete what the cache holds beyond its limit; other processes may do the same now.

    Names with a dot in front are being written, or were when their process was killed.
    """
    used = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            written = path.stat().st_mtime
            if not path.name.startswith("."):
                used.append((written, path))
            elif written < time.time() - HALF_WRITTEN_SECONDS:
                path.unlink()
    for _, path in sorted(used)[:-CACHED_FILES]:
        with contextlib.suppress(OSError):
            path.unlink()
