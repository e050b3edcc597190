"""How a command reports its progress; it does not know who reads it. Standard library only."""

from typing import Literal, Protocol

from mrpcbench.schema.records import RunRecord

# How much a command shows of its progress and its result.
Detail = Literal["quiet", "normal", "verbose"]


class Observer(Protocol):
    """Receives the progress of a command: the command line shows it on stderr, a test collects it."""

    def began(self, record: RunRecord) -> None:
        """The work is about to start; `record` holds its request, environment, model and data."""

    def say(self, text: str) -> None:
        """A line of information for the user."""

    def warn(self, text: str) -> None:
        """A warning for the user, without the prefix "warning: "."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """`task` has done `done` of `total` steps; `detail` is a short line of figures."""


class Silent:
    """An observer that ignores everything."""

    def began(self, record: RunRecord) -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""

    def warn(self, text: str) -> None:
        """Ignore it."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Ignore it."""
