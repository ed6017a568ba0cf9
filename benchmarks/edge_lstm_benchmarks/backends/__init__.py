"""One runtime a file; the engine is imported nowhere else, and only in ``load``."""
