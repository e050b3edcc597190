"""The full request of a benchmark, and the cases that it measures.

Standard library only, so that an invalid request fails before torch is loaded.
"""

from dataclasses import dataclass, replace

from mrpcbench.schema.bench_requests import BenchControl, BenchPlan, BenchView
from mrpcbench.schema.requests import BackendSpec, Order, Scenario
from mrpcbench.schema.rows import RowId


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """A benchmark as the user requests it.

    `given` names the fields of `plan` and `spec` that the user set, even to the default. A preset does not change them.
    `cases` names the cases of the preset to measure; None: all of them.
    """

    spec: BackendSpec = BackendSpec()
    plan: BenchPlan = BenchPlan()
    control: BenchControl = BenchControl()
    view: BenchView = BenchView()
    given: frozenset[str] = frozenset()
    cases: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A benchmark case: an engine with its scenarios, batch sizes, and order of the offline pairs.

    `name` is unique in a suite, and identifies the case in every table and record.
    """

    name: str
    spec: BackendSpec
    scenarios: tuple[Scenario, ...]
    batch_sizes: tuple[int, ...]
    order: Order = "length"

    def rows(self) -> list[RowId]:
        """The rows of the case, each once. Single-stream always has a batch size of one."""
        return [
            RowId(case=self.name, scenario=scenario, batch_size=size)
            for scenario in dict.fromkeys(self.scenarios)
            for size in ((1,) if scenario == "single-stream" else dict.fromkeys(self.batch_sizes))
        ]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """All cases of a run. The answers of the other cases are compared with those of the first.

    `relative_to` names the reference rows of the speedups, unless the user names others.
    """

    cases: tuple[Case, ...]
    relative_to: tuple[str, ...] = ()

    def rows(self) -> list[RowId]:
        """Every row of the run, in the order of the cases."""
        return [row for case in self.cases for row in case.rows()]


def suite_of_backends(spec: BackendSpec, plan: BenchPlan) -> Suite:
    """A suite with one case per backend of `plan`, named after it; `spec` holds the options that they share."""
    return Suite(
        cases=tuple(
            Case(
                name=backend,
                spec=replace(spec, backend=backend),
                scenarios=plan.scenario,
                batch_sizes=plan.batch_size,
                order=plan.order,
            )
            for backend in dict.fromkeys(plan.backend)
        )
    )
