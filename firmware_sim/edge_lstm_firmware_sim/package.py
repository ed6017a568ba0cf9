"""A generated C package: its name, what goes in and out, and the program that it must equal."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from edge_lstm.errors import UnreadableModel
from edge_lstm.files import read_bytes
from edge_lstm.program import Program

SCHEMA = "edge-lstm.c/1"
ITEM_BYTES = {"int8": 1, "int16": 2, "int32": 4}
KINDS = ("tokens", "sequence", "vector")


@dataclass(frozen=True)
class Port:
    """What one step reads or writes.

    Args:
        kind: tokens (one id a step), sequence, or vector. An output vector is that of the last
            step; a model that is fed vectors takes one after the other, each with its output.
        size: values of one step.
        dtype: of each value.
    """

    kind: Literal["tokens", "sequence", "vector"]
    size: int
    dtype: Literal["int8", "int16", "int32"]

    @property
    def values(self) -> int:
        """Values of one step in memory: one for token ids, whose size is the vocabulary's."""
        return 1 if self.kind == "tokens" else self.size

    @property
    def item_bytes(self) -> int:
        """Bytes of one value."""
        return ITEM_BYTES[self.dtype]

    @property
    def step_bytes(self) -> int:
        """Bytes of one step in memory."""
        return self.values * self.item_bytes


@dataclass(frozen=True)
class Package:
    """A C package in a folder.

    Args:
        folder: with ``src/`` in it.
        name: what its functions' names begin with.
        profile: whose arithmetic it has.
        input: of one step.
        output: of one step.
        streams: whether there is ``NAME_step``; else ``NAME_run`` takes the whole sequence.
        max_steps: what ``NAME_run`` takes at most, where it does not stream.
        macs_per_step: multiply-accumulates, or None where the package does not say.
    """

    folder: Path
    name: str
    profile: str
    input: Port
    output: Port
    streams: bool
    max_steps: int | None
    macs_per_step: int | None

    @property
    def sources(self) -> list[Path]:
        """Every C file, in the order of their names."""
        return sorted(self.folder.glob("src/**/*.c"))

    @property
    def writes_every_step(self) -> bool:
        """Whether each step has an output; else only the last one has."""
        return self.output.kind == "sequence" or self.input.kind == "vector"

    @cached_property
    def program(self) -> Program:
        """The program that the package was generated from.

        Raises:
            UnreadableModel: its file is not beside the package.
        """
        from edge_lstm.program_file import load_elstm

        file = f"{self.name}.elstm"
        for path in (self.folder / file, self.folder.parent / file):
            if path.is_file():
                return load_elstm(path)
        raise UnreadableModel(
            f"{self.folder}: has no {file}, so there is nothing to compare with; generate the"
            " package anew with 'edge-lstm convert --to c'"
        )


def find_package(folder: Path | str) -> Package:
    """Read a package's description; ``folder`` is the package, or holds just that one.

    Raises:
        UnreadableModel: there is no package, or its description is damaged.
    """
    folder = Path(folder)
    found = sorted(folder.glob("*_model.json")) or sorted(folder.glob("*_c/*_model.json"))
    if len(found) != 1:
        raise UnreadableModel(
            f"{folder}: holds {len(found)} C packages (NAME_model.json beside src/); want one"
        )
    (path,) = found
    try:
        document = json.loads(read_bytes(path).decode())
        return _package(path, document)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise UnreadableModel(f"{path}: is no description of a C package: {what}") from error


def _package(path: Path, document: dict[str, Any]) -> Package:
    _check(document["schema"] == SCHEMA, f"schema {document['schema']!r}; want {SCHEMA!r}")
    name = document["name"]
    _check(
        isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) is not None,
        f"name {name!r}; want a C identifier",
    )
    streams, steps, macs = document["streams"], document["max_steps"], document["macs_per_step"]
    _check(isinstance(streams, bool), f"streams {streams!r}; want true or false")
    _check(streams or _is_count(steps), f"max_steps {steps!r}; want a number of steps")
    _check(macs is None or _is_count(macs), f"macs_per_step {macs!r}; want a number or null")
    package = Package(
        folder=path.parent,
        name=name,
        profile=str(document["profile"]),
        input=_port("input", document["input"]),
        output=_port("output", document["output"]),
        streams=streams,
        max_steps=steps,
        macs_per_step=macs,
    )
    header = package.folder / "src" / f"{name}.h"
    _check(header.is_file() and bool(package.sources), f"no src/{name}.h with src/*.c beside it")
    return package


def _port(what: str, entry: dict[str, Any]) -> Port:
    kind, size, dtype = entry["kind"], entry["size"], entry["dtype"]
    _check(kind in KINDS, f"{what}: kind {kind!r}; want one of {', '.join(KINDS)}")
    _check(dtype in ITEM_BYTES, f"{what}: dtype {dtype!r}; want one of {', '.join(ITEM_BYTES)}")
    _check(_is_count(size), f"{what}: size {size!r}; want a number of values")
    return Port(kind, size, dtype)


def _is_count(value: object) -> bool:
    # Far above any microcontroller, far below what would make us run out of memory.
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
