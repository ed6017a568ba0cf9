"""Reads the ELF files that the compilers made; the only file that knows pyelftools."""

from __future__ import annotations

import io
from dataclasses import dataclass

from edge_lstm.errors import MissingTool

NEEDS_PYELFTOOLS = "package pyelftools is not installed; pip install 'edge-lstm[firmware]'"


@dataclass(frozen=True)
class Section:
    """A section that is in the device's memory.

    Args:
        name: such as ``.text``.
        address: where the program sees it.
        size: in bytes.
        data: its bytes in the file; empty for zeroed memory.
        writable: in RAM.
    """

    name: str
    address: int
    size: int
    data: bytes
    writable: bool


@dataclass(frozen=True)
class Image:
    """A linked program: what is in memory, and where its symbols are."""

    sections: tuple[Section, ...]
    symbols: dict[str, int]

    def section(self, name: str) -> Section | None:
        """Return a section, or None where the image has none of that name."""
        return next((s for s in self.sections if s.name == name), None)

    def size(self, name: str) -> int:
        """Return a section's bytes, 0 where there is none."""
        section = self.section(name)
        return 0 if section is None else section.size

    def word(self, symbol: str) -> int:
        """Return the 32-bit constant that stands at ``symbol``."""
        address = self.symbols[symbol]
        for section in self.sections:
            offset = address - section.address
            if 0 <= offset < len(section.data):
                return int.from_bytes(section.data[offset : offset + 4], "little")
        raise KeyError(symbol)


def read_image(data: bytes) -> Image:
    """Return the image of an ELF file that a linker of ours made."""
    try:
        from elftools.elf.constants import SH_FLAGS
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection
    except ImportError as error:
        raise MissingTool(NEEDS_PYELFTOOLS) from error
    file = ELFFile(io.BytesIO(data))
    sections, symbols = [], {}
    for section in file.iter_sections():
        flags = section["sh_flags"]
        if isinstance(section, SymbolTableSection):
            symbols = {s.name: int(s["st_value"]) for s in section.iter_symbols() if s.name}
        elif flags & SH_FLAGS.SHF_ALLOC and section["sh_size"]:
            stored = section["sh_type"] != "SHT_NOBITS"
            sections.append(
                Section(
                    name=section.name,
                    address=int(section["sh_addr"]),
                    size=int(section["sh_size"]),
                    data=section.data() if stored else b"",
                    writable=bool(flags & SH_FLAGS.SHF_WRITE),
                )
            )
    return Image(tuple(sections), symbols)
