"""Exit codes, and the exceptions that carry them to the command line.

Every error that a user can cause or fix is a `MrpcbenchError`. Its message is one line that says what is wrong, where,
and which option or command fixes it. Any other exception that reaches the command line is shown as an internal error.
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit codes of the commands; a CI job branches on these."""

    OK = 0
    FAILED = 1
    USAGE = 2
    MISSING = 3
    INCOMPARABLE = 4
    REGRESSION = 5
    INCONCLUSIVE = 6
    INTERRUPTED = 130


class MrpcbenchError(Exception):
    """The command failed (exit code 1)."""

    status = ExitStatus.FAILED


class UsageError(MrpcbenchError):
    """An option, a file or a folder is invalid or does not exist (exit code 2)."""

    status = ExitStatus.USAGE


class InterruptedRunError(MrpcbenchError):
    """The user interrupted the command (exit code 130).

    `record` holds the finished part, or None. `view` says how to show the record of a benchmark.
    """

    status = ExitStatus.INTERRUPTED

    def __init__(self, message: str, record: object = None, view: object = None) -> None:
        super().__init__(message)
        self.record = record
        self.view = view


class MissingError(MrpcbenchError):
    """A required device, provider or optional package is not available (exit code 3)."""

    status = ExitStatus.MISSING


class ReportedError(MrpcbenchError):
    """Another process of the run reports the error, so this one ends silently with `status`."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__("reported by another process")
        self.status = status


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line: the message of an error of ours, else the class of `error` and its message."""
    if isinstance(error, MrpcbenchError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line of the message of `error`; the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
