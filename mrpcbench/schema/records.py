"""The records, one class per command. Standard library only.

`records.store` generates the JSON Schema and docs/results-format.md from these classes and their fields. Names end with
their unit: `_ms`, `_s`, `_bytes`, `_per_s`.
"""

from collections.abc import Mapping
from typing import Literal

from mrpcbench.schema.bench_results import AbSection, BenchRow, BenchSection
from mrpcbench.schema.fields import about, described
from mrpcbench.schema.identity import Command, DataIdentity, Environment, ModelIdentity
from mrpcbench.schema.results import EvalScore, EvaluateSection, ExportSection, TrainSection
from mrpcbench.schema.verdicts import Verdict
from mrpcbench.schema.version import SCHEMA_VERSION


@described
class RunRecord:
    """The fields that all records share. Each command has its own class, with one more field for its result."""

    schema_version: str = about("Version of this format: major.minor.", default=SCHEMA_VERSION)
    command: Command = about("The command that ran; its result is in the field of the same name.")
    complete: bool = about("False until the run ends; it stays false if the run was interrupted.")
    environment: Environment = about("The machine and the software.")
    model: ModelIdentity = about("The model that the record is about.")
    data: tuple[DataIdentity, ...] = about("The splits that were read.")


@described
class TrainRecord(RunRecord):
    """One run of `train`."""

    command: Literal["train"] = about("The command that ran.", default="train")
    train: TrainSection = about("Its result.")


@described
class EvaluateRecord(RunRecord):
    """One run of `evaluate`."""

    command: Literal["evaluate"] = about("The command that ran.", default="evaluate")
    evaluate: EvaluateSection = about("Its result.")

    @property
    def score(self) -> EvalScore:
        """Accuracy, F1 and the other scores."""
        return self.evaluate.score


@described
class ExportRecord(RunRecord):
    """One run of `export`."""

    command: Literal["export"] = about("The command that ran.", default="export")
    export: ExportSection = about("Its result.")

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the export gate; None until it has run."""
        return self.export.gate.verdict if self.export.gate else None


@described
class BenchRecord(RunRecord):
    """One run of `bench`."""

    command: Literal["bench"] = about("The command that ran.", default="bench")
    bench: BenchSection = about("Its result.")

    @property
    def rows(self) -> tuple[BenchRow, ...]:
        """The measured rows."""
        return self.bench.rows


@described
class AbRecord(RunRecord):
    """One run of `ab`."""

    command: Literal["ab"] = about("The command that ran.", default="ab")
    ab: AbSection = about("Its result.")

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the comparison; None until the run ends."""
        return self.ab.comparison.verdict if self.ab.comparison else None


Record = TrainRecord | EvaluateRecord | ExportRecord | BenchRecord | AbRecord
RECORDS: Mapping[str, type[Record]] = {
    "train": TrainRecord,
    "evaluate": EvaluateRecord,
    "export": ExportRecord,
    "bench": BenchRecord,
    "ab": AbRecord,
}
