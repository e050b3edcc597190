"""Who is measured: contenders by name, each an engine with an order of the pairs and batch sizes, and their rows.

Standard library only, so that what was asked can be refused before anything heavy is loaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mrpcbench.plans import BackendSpec, BenchPlan, Order, Scenario
from mrpcbench.rows import RowId


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One side of a benchmark: an engine as `spec` asks for it, and how it is given the pairs.

    `name` tells it from the others in every table and record. `order` is that of the offline pairs.
    """

    name: str
    spec: BackendSpec
    scenarios: tuple[Scenario, ...]
    batch_sizes: tuple[int, ...]
    order: Order = "length"

    def rows(self) -> Iterator[tuple[Scenario, int]]:
        """Scenario and batch size of each of its rows."""
        for scenario in dict.fromkeys(self.scenarios):
            # One pair at a time is a batch of one, whatever the others are.
            for size in (1,) if scenario == "single-stream" else dict.fromkeys(self.batch_sizes):
                yield scenario, size


@dataclass(frozen=True, kw_only=True)
class Field:
    """All that run against each other; the answers of the first are those that the others' are held against.

    `relative_to` names the rows whose speed the others' are shown in multiples of, unless the user names some.
    """

    contenders: tuple[Contender, ...]
    relative_to: tuple[str, ...] = ()

    def row_ids(self) -> list[RowId]:
        """Every row of the run, in the order of the cases."""
        return [
            RowId(case=contender.name, scenario=scenario, batch_size=size)
            for contender in self.contenders
            for scenario, size in contender.rows()
        ]


def backends_of(spec: BackendSpec, plan: BenchPlan) -> Field:
    """A contender for each backend of `plan`, by its name; `spec` says what they share."""
    made = (
        Contender(
            name=backend,
            spec=replace(spec, backend=backend),
            scenarios=plan.scenario,
            batch_sizes=plan.batch_size,
        )
        for backend in dict.fromkeys(plan.backend)
    )
    return Field(contenders=tuple(made))
