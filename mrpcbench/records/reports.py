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

    `recommendations` has one for each record of `bench`, by its name; None if the run did not end.
    """

    records: tuple[Named, ...]
    recommendations: dict[str, Recommendation | None]
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
        found = {one.outcome if one else "INCONCLUSIVE" for one in self.recommendations.values()}
        return next(outcome for outcome in WORST_FIRST if outcome in found)
