"""The records, one class per command. Standard library only.

`records.store` generates the JSON Schema and docs/results-format.md from these classes and their fields. Names end with
their unit: `_ms`, `_s`, `_bytes`, `_per_s`.
"""

from collections.abc import Mapping
from typing import Literal

from mrpcbench.schema.bench_results import AbSection, BenchRow, BenchSection
from mrpcbench.schema.fields import about, described
from mrpcbench.schema.identity import Command, DataIdentity, Environment, ModelIdentity
from mrpcbench.schema.requests import Launcher, TrainRecipe
from mrpcbench.schema.results import EvalScore, EvaluateSection, ExportSection, TrainSection
from mrpcbench.schema.verdicts import Interval, Verdict
from mrpcbench.schema.version import SCHEMA_VERSION

SeedMetric = Literal["accuracy", "f1", "loss"]


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


# --- study ------------------------------------------------------------------------------------------------------------


@described
class StudyTrial:
    """One run of `train` in a study. Its record is also in its folder, next to its log."""

    seed: int = about("The seed of the run.")
    folder: str = about("The folder of the run, in that of the study.")
    record: TrainRecord | None = about("The record; null until the run has finished.", default=None)
    error: tuple[str, ...] = about("The last lines of the log, if the run failed.", default=())


@described
class SeedSummary:
    """One metric of one setting over the seeds: its value at the best epoch of each finished trial."""

    metric: SeedMetric = about("accuracy, f1 or loss, on the validation pairs.")
    seeds: tuple[int, ...] = about("The seeds.")
    values: tuple[float, ...] = about("The value of each seed.")
    median: float = about("The median.")
    median_interval: Interval | None = about(
        "Distribution-free interval of the median, with the level that it reaches; null for one seed."
    )
    mean: float = about("The mean.")
    standard_deviation: float | None = about("The sample standard deviation; null for one seed.")
    smallest: float = about("The smallest value.")
    largest: float = about("The largest value.")
    majority: float | None = about("The value of always answering the majority class; null for the loss.")
    at_or_below_majority: int | None = about("Seeds that are not above that value; null for the loss.")


@described
class StudySetting:
    """The trials of one setting: the recipe of the study with other values of some of its fields."""

    name: str = about("The values, such as learning_rate=5e-05; 'default' if the recipe is unchanged.")
    values: dict[str, str] = about("The fields of the recipe that were set, and their values.")
    trials: tuple[StudyTrial, ...] = about("One trial for each seed.")
    summaries: tuple[SeedSummary, ...] = about("One for each metric that a finished trial has.", default=())


@described
class SettingComparison:
    """One metric of two settings, paired by the seeds that both have."""

    metric: SeedMetric = about("The metric.")
    a: str = about("Name of the first setting.")
    b: str = about("Name of the second setting.")
    seeds: tuple[int, ...] = about("The seeds that both have.")
    difference: float = about("Mean of b minus a over these seeds.")
    p_value: float = about("Two-sided p-value of the paired permutation test.")
    adjusted_p: float = about("The p-value after Holm's correction over the pairs of settings.")
    smallest_p: float = about("The smallest corrected p-value that this many seeds can give.")
    smallest_difference: float | None = about(
        "The smallest mean difference with this spread that would be significant at 5% after Bonferroni's correction; "
        "null if none would, or for more than 16 seeds."
    )


@described
class StudySection:
    """Results of `study`."""

    recipe: TrainRecipe = about("The requested recipe, without seed and settings.")
    seeds: tuple[int, ...] = about("The requested seeds.")
    launcher: Launcher = about("What ran the trials: local or ray.")
    threads: int = about("CPU threads of each process of a trial.")
    processes: int = about("Processes of each trial.")
    settings: tuple[StudySetting, ...] = about("The settings, with their trials.")
    comparisons: tuple[SettingComparison, ...] = about("Each metric of each pair of settings.", default=())


@described
class StudyRecord(RunRecord):
    """One `study`: many runs of `train`."""

    command: Literal["study"] = about("The command that ran.", default="study")
    study: StudySection = about("Its result.")


Record = TrainRecord | EvaluateRecord | ExportRecord | BenchRecord | AbRecord | StudyRecord
RECORDS: Mapping[str, type[Record]] = {
    "train": TrainRecord,
    "evaluate": EvaluateRecord,
    "export": ExportRecord,
    "bench": BenchRecord,
    "ab": AbRecord,
    "study": StudyRecord,
}
