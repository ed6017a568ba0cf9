"""C for a host -> a shared library, with whatever compiler there is, built once.

Libraries are kept in a folder of the user's cache under the hash of their source, compiler and
flags. Each is compiled beside its place and moved there, so two builders cannot meet.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import edge_lstm
from edge_lstm.errors import MissingTool, OutputError
from edge_lstm.files import cache_folder
from edge_lstm.program import Program
from edge_lstm_converters.host_source import host_source

FLAGS = ("-std=c99", "-O3", "-fvisibility=hidden", "-fPIC", "-shared")
BUILD_SECONDS = 600


@cache
def compiler() -> tuple[str, ...]:
    """Return the command of a C compiler: ``$CC``, cc, gcc, clang, or zig from its wheel.

    Raises:
        MissingTool: there is none.
    """
    if own := os.environ.get("CC", "").split():
        if shutil.which(own[0]) is None:
            raise MissingTool(
                f"compile: CC names {own[0]}, which is not there; install or unset it"
            )
        return tuple(own)
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path:
            return (path,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    raise MissingTool(
        "compile: no C compiler; install gcc or clang, or pip install 'edge-lstm[firmware]'"
    )


def build_library(
    program: Program, max_steps: int | None = None, flags: tuple[str, ...] = ()
) -> Path:
    """Return the shared library of a program, built if it is not there yet.

    Args:
        program: any that has a form in C.
        max_steps: longest sequence of a program that cannot run step by step.
        flags: for the compiler, after our own.

    Raises:
        MissingTool: there is no compiler.
        UnsupportedModel: an op has no form in C.
        OutputError: the cache cannot be written, or the compiler fails.
    """
    most = None if program.streams else max_steps
    identity = f"{program.fingerprint()} {most} {_generator()}"
    return build(lambda: host_source(program, max_steps), identity, program.name, flags)


@cache
def _generator() -> str:
    """Return a hash of all that decides what source is made of a program."""
    digest = hashlib.sha256(edge_lstm.__version__.encode())
    ours = files("edge_lstm_converters")
    for folder, suffixes in ((ours, (".py",)), (ours / "c", (".h",))):
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(suffixes):
                digest.update(entry.read_bytes())
    return digest.hexdigest()


def build(source: Callable[[], str], identity: str, name: str, flags: tuple[str, ...] = ()) -> Path:
    """Return the shared library of a C source.

    Args:
        source: makes it; called if the library is not there yet.
        identity: what decides the source.
        name: of the library.
        flags: for the compiler, after our own.

    Raises:
        MissingTool: there is no compiler.
        OutputError: the cache cannot be written, or the compiler fails.
    """
    command = [*compiler(), *FLAGS, *flags]
    digest = hashlib.sha256("\0".join([identity, name, _identity(compiler()), *command]).encode())
    folder = cache_folder() / digest.hexdigest()[:32]
    library = folder / f"{name}{_suffix()}"
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            text, made = Path(draft) / f"{name}.c", Path(draft) / library.name
            text.write_text(source())
            _compile([*command, str(text), "-o", str(made)], name)
            made.replace(library)
    except OutputError:  # the compiler's; it is an OSError too
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"{folder}: cannot be written: {reason}; set EDGE_LSTM_CACHE to a folder that can"
        ) from error
    return library


def _suffix() -> str:
    return {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def _compile(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise OutputError(f"{name}: the compiler took over {BUILD_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        found = next((line for line in lines if "error" in line), lines[0])
        raise OutputError(f"{name}: {Path(command[0]).name} cannot compile it: {found.strip()}")


@cache
def _identity(command: tuple[str, ...]) -> str:
    """Return what a compiler says of its version."""
    try:
        asked = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(f"compile: {' '.join(command)} does not run: {error}") from error
    return asked.stdout


def build_call_module() -> Path | None:
    """Return the extension module ``el_call`` for this Python, or None where it cannot be built.

    It is a faster door into any library of ours; without it, ctypes is the door.
    """
    include = Path(sysconfig.get_paths()["include"])
    if not (include / "Python.h").exists() or sys.implementation.name != "cpython":
        return None
    source = (files("edge_lstm_converters") / "c" / "el_call.c").read_text()
    flags = [f"-I{include}", f"-DEL_PYTHON={sys.hexversion}"]
    if sys.platform == "darwin":
        flags.append("-Wl,-undefined,dynamic_lookup")
    try:
        return build(lambda: source, source, "el_call", tuple(flags))
    except (MissingTool, OutputError):
        return None
