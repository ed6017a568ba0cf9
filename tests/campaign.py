"""How many random models the round trips make, and which."""

from __future__ import annotations

import os

COUNT = int(os.environ.get("EDGE_LSTM_ROUND_TRIPS", "0"))
FIRST = int(os.environ.get("EDGE_LSTM_SEED", "0"))


def seeds(usual: int) -> range:
    """Return seeds: ``usual`` ones, or as many new ones as `make fuzz` asks for."""
    return range(FIRST, FIRST + (COUNT or usual))
