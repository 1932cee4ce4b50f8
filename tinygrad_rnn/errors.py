"""Every error that this project raises on purpose, and the exit code the `trnn` command gives it.

An error is written for its reader: what was wrong, the shapes or values that were seen, what to do.
Each class also derives from the built-in exception a Python programmer would expect to catch.
"""


class TinygradError(Exception):
    """The common base. `exit_code` is what `trnn` returns to the shell when this error ends it."""

    exit_code = 1


class ShapeError(TinygradError, ValueError):
    """Shapes, axes or sizes that do not fit together."""


class IndexingError(ShapeError, IndexError):
    """An index outside a tensor's shape."""


class DtypeError(TinygradError, TypeError):
    """A dtype or a Python type that the operation cannot take."""


class BackendError(TinygradError, RuntimeError):
    """An unknown or missing array library, or operands of two different ones."""


class GraphError(TinygradError, RuntimeError):
    """The graph cannot give the gradient asked for: freed, overwritten, cut, or never recorded."""


class GradcheckError(TinygradError, AssertionError):
    """An analytic gradient that differs from the numerical one."""


class AnomalyError(TinygradError, ArithmeticError):
    """A value or gradient that is not finite, found under `detect_anomaly`."""


class UsageError(TinygradError, ValueError):
    """Options or arguments that make no sense together."""

    exit_code = 2


class SettingError(UsageError):
    """A setting that makes no sense: its name, and what is wrong with it. On the command line it is an
    option."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem


class DataError(TinygradError, ValueError):
    """A corpus, or a piece of text, that cannot be used."""

    exit_code = 3


class FetchError(TinygradError, OSError):
    """A file that could not be fetched: no network, no such address, a connection that broke."""


class CheckpointError(TinygradError, ValueError):
    """A file that is no checkpoint, or is one of another model."""

    exit_code = 4


class StorageError(TinygradError, OSError):
    """A file of a run that could not be written."""


class InexactError(TinygradError, RuntimeError):
    """A run that would go on, but not with exactly the numbers that it would have had."""


class InUseError(TinygradError, RuntimeError):
    """Another process trains in this run folder."""

    exit_code = 5


class DivergedError(TinygradError, ArithmeticError):
    """Training met a loss or a gradient that is not finite."""

    exit_code = 6
