"""What a benchmark is asked, and the cases that it measures: engines with an order of the pairs and batch sizes.

Standard library only, so that a bad request is refused before anything heavy is loaded.
"""

from dataclasses import dataclass, replace

from mrpcbench.schema.bench_requests import BenchControl, BenchPlan, BenchView
from mrpcbench.schema.requests import BackendSpec, Order, Scenario
from mrpcbench.schema.rows import RowId


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """A benchmark as a user asks for it.

    `given` names the fields of `plan` and `spec` that the user gave a value, even the default: a preset may not replace
    those.
    """

    spec: BackendSpec = BackendSpec()
    plan: BenchPlan = BenchPlan()
    control: BenchControl = BenchControl()
    view: BenchView = BenchView()
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Case:
    """An engine as `spec` asks for it, and how it gets the pairs; `order` is that of the offline pairs.

    `name` is unique in a suite, and names the case in every table and record.
    """

    name: str
    spec: BackendSpec
    scenarios: tuple[Scenario, ...]
    batch_sizes: tuple[int, ...]
    order: Order = "length"

    def rows(self) -> list[RowId]:
        """Its rows, each once. One pair at a time is a batch of one, whatever the batch sizes."""
        return [
            RowId(case=self.name, scenario=scenario, batch_size=size)
            for scenario in dict.fromkeys(self.scenarios)
            for size in ((1,) if scenario == "single-stream" else dict.fromkeys(self.batch_sizes))
        ]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """All cases of a run. The answers of the first case are the reference for the others.

    `relative_to` names the rows to which the speed of the others is relative, unless the user names some.
    """

    cases: tuple[Case, ...]
    relative_to: tuple[str, ...] = ()

    def rows(self) -> list[RowId]:
        """Every row of the run, in the order of the cases."""
        return [row for case in self.cases for row in case.rows()]


def suite_of_backends(spec: BackendSpec, plan: BenchPlan) -> Suite:
    """A case for each backend of `plan`, named after it; `spec` holds what they share."""
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
