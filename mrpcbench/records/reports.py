"""What `report` says about records, without a format."""

from dataclasses import dataclass

from mrpcbench.records.recommendation import Recommendation
from mrpcbench.schema.gate_requests import ReportPlan
from mrpcbench.schema.records import BenchRecord, Record
from mrpcbench.schema.verdicts import WORST_FIRST, Outcome

# A record and its name: its file, with as many folders as needed to distinguish it.
Named = tuple[str, Record]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The records of one `report`, in the order of their files.

    `recommendations` has an entry for each record: None if it is not of `bench`, or the run did not end. Two records
    can have the same name, because names leave out folders that name a user.
    """

    records: tuple[Named, ...]
    recommendations: tuple[Recommendation | None, ...]
    plan: ReportPlan

    @property
    def benches(self) -> tuple[tuple[str, BenchRecord], ...]:
        """The records of `bench` and their names."""
        return tuple((name, record) for name, record in self.records if isinstance(record, BenchRecord))

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the recommendations; PASS without a limit, because nothing was asked."""
        if self.plan.max_f1_drop is None and self.plan.max_p99_ms is None:
            return "PASS"
        found = {
            one.outcome if one else "INCONCLUSIVE"
            for (_, record), one in zip(self.records, self.recommendations, strict=True)
            if isinstance(record, BenchRecord)
        }
        return next(outcome for outcome in WORST_FIRST if outcome in found)
