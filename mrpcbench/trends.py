"""What many records show together: a metric over time with its change points, and the baselines that are kept.

Standard library only.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mrpcbench.plans import STRICT, about


@dataclass(frozen=True, kw_only=True)
class TrendPoint:
    """One record's value of a metric."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    value: float = about("The value, in the unit of the series.")
    started_at: str = about("Start of the run in UTC.")
    file: str = about("The record's file, below the folder that was read.")
    git_commit: str | None = about("Commit of the mrpcbench source; null where it was no checkout.")
    git_dirty: bool | None = about("Whether that checkout had uncommitted changes.")
    model: str = about("Name of the model.")
    valid: bool = about("False for a row of bench that breaks a rule of validity.", True)


@dataclass(frozen=True, kw_only=True)
class ChangePoint:
    """Where the level of a series changes: between two records, of which the later one is named."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    index: int = about("Index of the first point of the new level.")
    before: float = about("Mean of the points since the change point before this one, in the unit of the series.")
    after: float = about("Mean of the points up to the next change point, in the unit of the series.")
    change: float | None = about("From the one to the other, in the change unit of the series; null from a mean of 0.")
    better: bool = about("Whether the new level is the better one.")
    first: TrendPoint = about("The first point of the new level.")
    differs: tuple[str, ...] = about("What of the software differs between this point's run and the one before it.")


@dataclass(frozen=True, kw_only=True)
class Series:
    """A metric over time, of runs that are alike in all that the metric depends on but the code and the weights."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    command: str = about("The command whose records these are.")
    metric: str = about("What is followed, such as accuracy or 'onnx offline batch 32'.")
    unit: str = about("Unit of the values: 'share', 'logit', 'ms' or 'pairs/s'.")
    change_unit: str = about("Unit of a change: 'points' of a share, or '%'.")
    better: Literal["higher", "lower"] = about("Which way is better.")
    same: dict[str, str] = about("What all points have in common; a run that differs in it is in another series.")
    points: tuple[TrendPoint, ...] = about("One a record, in the order of their starts.")
    judged: bool = about("False where there are too few points to look for a change.")
    noise: float | None = about(
        "Standard deviation of a point about its level, estimated from the steps between neighbours, in the change "
        "unit; null where it was not judged, or has no such unit."
    )
    changes: tuple[ChangePoint, ...] = about("Where the level changes, in order.", ())


@dataclass(frozen=True, kw_only=True)
class History:
    """What a folder of records shows over time."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    schema_version: int = about("Version of this format.", 1)
    records: int = about("Records that were read.")
    left_out: tuple[str, ...] = about("What was not read, and why: a line for each reason.", ())
    least_points: int = about("Fewest points that are judged.")
    series: tuple[Series, ...] = about("One a metric and kind of run, by command.", ())


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A record of a baseline."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    file: str = about("Name of the record's file.")
    command: str = about("The command that made it.")
    model: str = about("Model, with its size and where its weights come from.")
    model_sha256: str = about("Hash of the weights.")
    started_at: str = about("Start of the run in UTC.")
    git_commit: str | None = about("Commit of the mrpcbench source; null where it was no checkout.")
    machine: str = about("Processor, and GPU where there is one.")
    metric: str | None = about("Its most telling figure, of bench the fastest row's; null where it has none.")
    value: float | None = about("Value of that figure.")
    unit: str | None = about("Unit of that value: 'share', 'logit', 'ms' or 'pairs/s'.")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A named set of records that later ones are held against."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str = about("Name, which is that of its folder.")
    records: tuple[Kept, ...] = about("Its records, by file name.")
    problems: tuple[str, ...] = about("What is wrong with its files; nothing where it can be compared with.", ())
