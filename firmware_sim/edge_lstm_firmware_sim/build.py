"""A package and a core become an image; what was built once is taken from the cache."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
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
CACHED_IMAGES = 400  # the oldest go first


@dataclass(frozen=True)
class Memory:
    """Where an image is linked to, and how much room the linker allows."""

    flash_address: int
    flash_bytes: int
    ram_address: int
    ram_bytes: int


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
    key = _key(package, target, script, extra, defines)
    path = make_folder(cache_folder()) / f"{key}.elf"
    if not path.is_file():
        with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
            write_atomically(path, _link(package, target, script, extra, defines, Path(folder)))
        _forget_the_oldest(path.parent)
    return path


def _linker_script(roots: tuple[str, ...], memory: Memory) -> str:
    text = (FIRMWARE / "link.ld.in").read_text(encoding="utf8")
    places = {
        "ENTRY": roots[0],
        "FLASH_ADDRESS": hex(memory.flash_address),
        "FLASH_BYTES": hex(memory.flash_bytes),
        "RAM_ADDRESS": hex(memory.ram_address),
        "RAM_BYTES": hex(memory.ram_bytes),
    }
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text + "".join(f"EXTERN({root})\n" for root in roots)


def _key(
    package: Package, target: Target, script: str, extra: tuple[Path, ...], defines: tuple[str, ...]
) -> str:
    """Return a hash over everything that decides the image."""
    digest = hashlib.sha256()
    compiler = target.compiler
    said = (compiler.version, compiler.compile_command, target.optimization, script, defines)
    digest.update(repr((package.name, target.core, *said)).encode())
    files = sorted(p for p in (package.folder / "src").rglob("*") if p.suffix in (".c", ".h"))
    for path in (*files, *sorted(FIRMWARE.glob("*.[ch]")), *extra):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _link(
    package: Package,
    target: Target,
    script: str,
    extra: tuple[Path, ...],
    defines: tuple[str, ...],
    folder: Path,
) -> bytes:
    """Compile every file into ``folder``, link, and return the ELF file."""
    script_path = folder / "link.ld"
    script_path.write_text(script, encoding="utf8")
    wants = [f"-DEDGE_LSTM_WANTS_{want}" for want in target.core.wants]
    features = [*wants, "-include", str(FIRMWARE / "features.h")]
    include = ["-I", str(package.folder.resolve() / "src")]
    named = [f"-DEDGE_LSTM_NAME={package.name}", f'-DEDGE_LSTM_HEADER="{package.name}.h"']
    # Else the compiler would make memcpy call itself.
    alone = ["-fno-builtin"]
    if target.compiler.name == "gcc":
        alone.append("-fno-tree-loop-distribute-patterns")
    jobs = [
        *((source, features) for source in package.sources),
        (FIRMWARE / "probe.c", named),
        *((source, [*named, *(f"-D{define}" for define in defines)]) for source in extra),
        (FIRMWARE / "memory.c", alone),
    ]
    objects = []
    for number, (source, flags) in enumerate(jobs):
        objects.append(folder / f"{number}.o")
        common = [*target.compiler.compile_command, target.optimization, *include, *flags]
        run_tool([*common, "-c", str(source.resolve()), "-o", str(objects[-1])], folder)
    output = folder / "image.elf"
    *first, last = target.compiler.link_commands(script_path, objects, output)
    for command in first:
        try:
            run_tool(command, folder)
            return output.read_bytes()
        except MismatchError:
            continue
    run_tool(last, folder)
    return output.read_bytes()


def _forget_the_oldest(folder: Path) -> None:
    """Delete what the cache holds beyond its limit."""
    images = sorted(folder.glob("*.elf"), key=lambda path: path.stat().st_mtime)
    for path in images[:-CACHED_IMAGES]:
        path.unlink(missing_ok=True)
