"""Exit codes, and the exceptions that carry them to the command line.

Every error that a user can cause or mend is a `MrpcbenchError`: one line that says what is wrong, where, and which
option or command fixes it. Anything else that reaches the command line is a bug and is shown as one.
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a command's exit code means; a CI job branches on these."""

    OK = 0
    FAILED = 1
    USAGE = 2
    MISSING = 3
    INCOMPARABLE = 4
    REGRESSION = 5
    INCONCLUSIVE = 6
    INTERRUPTED = 130


class MrpcbenchError(Exception):
    """The work could not be done (exit code 1)."""

    status = ExitStatus.FAILED


class UsageError(MrpcbenchError):
    """What was asked cannot be meant, or is not there: an option, a file or a folder is wrong (exit code 2)."""

    status = ExitStatus.USAGE


class InterruptedRunError(MrpcbenchError):
    """The user stopped the work (exit code 130); `record` is what was done so far, where that can be shown.

    `view` is how it is shown, if it is the record of a benchmark.
    """

    status = ExitStatus.INTERRUPTED

    def __init__(self, message: str, record: object = None, view: object = None) -> None:
        super().__init__(message)
        self.record = record
        self.view = view


class MissingError(MrpcbenchError):
    """A device, a provider or an optional package that the request needs is absent (exit code 3)."""

    status = ExitStatus.MISSING


def first_line(error: BaseException) -> str:
    """What `error` says, for use in a line of our own; the name of its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
