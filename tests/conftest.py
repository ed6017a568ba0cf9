"""Hypothesis profiles, and what all test processes share.

``ci`` repeats itself exactly, ``fuzz`` (`make fuzz`) searches long.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: the first example of a test may compile C or load an interpreter.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("fuzz", max_examples=5_000, deadline=None, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for what is compiled, one for all workers of a run, and not the user's."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    return folder
