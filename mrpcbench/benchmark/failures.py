"""The rows of a suite that still run: a case whose engine fails is reported and left out, and the others finish."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from mrpcbench.backends.session import Session
from mrpcbench.benchmark.row import RowMeasurement
from mrpcbench.environment.redaction import public_text
from mrpcbench.errors import MissingError, UsageError, reason_of
from mrpcbench.progress import Observer
from mrpcbench.schema.bench_requests import BenchView
from mrpcbench.schema.bench_results import BenchSection, FailedCase, Stage
from mrpcbench.schema.cases import Case
from mrpcbench.schema.rows import RowSelector

T = TypeVar("T")


class RunningRows:
    """The rows of the `cases` that have not failed. `failed` are the other cases, in the order in which they failed.

    `is_preset` is whether a preset chose the cases: the user then cannot change the options of a single case.
    """

    def __init__(self, cases: Sequence[Case], observer: Observer, *, is_preset: bool) -> None:
        self.rows: list[RowMeasurement] = []
        self.failed: list[FailedCase] = []
        self._cases = {case.name: case for case in cases}
        self._observer = observer
        self._is_preset = is_preset

    def attempt(self, case: Case, stage: Stage, work: Callable[[], T]) -> T | None:
        """The result of `work` for `case`; None if the case has failed, now or before.

        An interrupt is always raised. So is the failure of the only case, and an invalid request for an engine that
        the user named. Raises `MissingError` when the last case has failed.
        """
        if any(item.case == case.name for item in self.failed):
            return None
        try:
            return work()
        except Exception as error:  # an engine may raise anything
            is_invalid = stage == "opening" and isinstance(error, UsageError) and not self._is_preset
            if len(self._cases) == 1 or is_invalid:
                raise
            self._leave_out(case, stage, error)
            if len(self.failed) == len(self._cases):
                raise MissingError(f"no case could be measured: {_reasons(self.failed)}") from error
            self._observer.warn(f"{case.name} failed during {stage} and is left out: {reason_of(error)}")
            return None

    def _leave_out(self, case: Case, stage: Stage, error: Exception) -> None:
        reason = reason_of(error)
        self.failed.append(FailedCase(case=case.name, stage=stage, reason=public_text(reason, [case.spec.model])))
        before = self._sessions()
        self.rows = [row for row in self.rows if row.case.name != case.name]
        for key in before.keys() - self._sessions().keys():
            with suppress(Exception):  # a session that failed may also fail to close
                before[key].close()

    def close(self) -> None:
        """Close the sessions of all rows."""
        for session in self._sessions().values():
            session.close()

    def _sessions(self) -> dict[int, Session]:
        """The sessions of all rows, each once."""
        return {id(row.session): row.session for row in self.rows}


def check_required(section: BenchSection, view: BenchView) -> None:
    """Raise `MissingError` if a case failed that is not optional.

    A case is optional if a preset chose it, and no speedup in `view` is relative to it. The observer has got the reason
    when the case failed, and the record has it.
    """
    required = {*section.plan.backend, *(RowSelector.parse(text).case for text in view.relative_to)}
    if failed := [item.case for item in section.failed if item.case in required]:
        raise MissingError(f"failed and left out: {', '.join(failed)}; the other rows are complete")


def _reasons(failed: Sequence[FailedCase]) -> str:
    """The reasons with the cases that they apply to, each reason once."""
    cases: dict[str, list[str]] = {}
    for item in failed:
        cases.setdefault(item.reason, []).append(item.case)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in cases.items())
