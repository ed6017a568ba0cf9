"""A framework for ``test_check.py`` that does what a real one does on a bad day."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def open_model(path: Path, job: Mapping[str, Any]) -> None:
    """Hang, crash or complain, as the file says."""
    word = path.read_text()
    if word == "hang":
        time.sleep(600)
    if word == "crash":
        os._exit(134)
    raise RuntimeError(f"cannot read {job['kind']}\nand a second line")
