"""Hypothesis profiles: ``ci`` repeats itself exactly, ``fuzz`` (`make fuzz`) searches long."""

from hypothesis import settings

# No deadline: the first example of a test may compile C or load an interpreter.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("fuzz", max_examples=5_000, deadline=None, print_blob=True)
settings.load_profile("ci")
