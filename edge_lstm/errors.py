"""Every exception of edge-lstm, split by whose move it is.

::

    EdgeLstmError                 exit code
    ├── UsageError                2   a wrong argument
    │   └── CalibrationError      2   data that cannot be used
    ├── ModelError                3
    │   ├── UnreadableModel       3   the file is damaged, or not what its suffix says
    │   └── UnsupportedModel      3   the model holds something that has no counterpart here
    ├── MissingTool               4   a package or program is not installed
    ├── OutputError               2   a result could not be written
    ├── DoesNotFit                1   a model is larger than the device
    └── MismatchError             1   two things that must be equal are not

Each message is one line: where, what was found, what is accepted or what to do.
"""


class EdgeLstmError(Exception):
    """Base of all errors that edge-lstm raises on purpose."""

    exit_code = 5


class UsageError(EdgeLstmError, ValueError):
    """An argument or a data file does not fit the model or the command."""

    exit_code = 2


class CalibrationError(UsageError):
    """The calibration data cannot give ranges."""


class OutputError(EdgeLstmError, OSError):
    """A result could not be written; nothing partial was left."""

    exit_code = 2


class ModelError(EdgeLstmError, ValueError):
    """A model file cannot be used."""

    exit_code = 3


class UnreadableModel(ModelError):
    """The file is damaged, truncated, or not of the format that its suffix names."""


class UnsupportedModel(ModelError):
    """The model is well formed but holds something that has no counterpart here."""


class MissingTool(EdgeLstmError):
    """A package or program is not installed; the message says how to get it."""

    exit_code = 4


class DoesNotFit(EdgeLstmError):
    """The model needs more flash or RAM than the device has."""

    exit_code = 1


class MismatchError(EdgeLstmError, AssertionError):
    """Two results that must be equal differ."""

    exit_code = 1
