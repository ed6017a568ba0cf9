"""What backends share whose engine is a package in this Python."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from typing import ClassVar


class Installed:
    """An engine that ``pip install PACKAGE`` brings, fed one row of one shape."""

    package: ClassVar[str]
    """Its name, to pip and to Python."""
    profile: str | None = None
    fixed_shape = True
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def available(self) -> str | None:
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed; pip install {self.package}"
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return importlib.metadata.version(self.package)
