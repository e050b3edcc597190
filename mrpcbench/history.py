"""A folder of records as series over time, with the points where a level changes: `mrpcbench history FOLDER`.

The detection is that of `ruptures` (Truong, Oudre & Vayatis 2020): PELT (Killick, Fearnhead & Eckley 2012) with squared
error about a mean for each level, and at least `LEAST_SEGMENT` points a level. A share is taken as it is; what is above
0 and has a unit (a speed, a time, a difference) by its logarithm, since its noise grows with it.

Values are divided by their noise, the root mean square of the steps between neighbours over the square root of two (von
Neumann 1941). A change of level is in one step only, so it hardly counts as noise. The median of the steps is the more
usual choice and the worse one here: at 10 points it varies so much, and under heavy tails it is so much too small, that
pure noise raised an alarm in 12 to 16% of the series, where this one did in 6 to 8% (penalty 3 log n).

A change point must gain `penalty(n)` = max(12, 3 log n), in squares of the noise: 12 is about the 98% quantile of what
pure noise gains at 8 to 50 points. Share of series in which at least one was found, in %, of 2000 series each, seed
20250102 (`tests/test_history.py` holds the simulation and compares):

    points                                           6     10     30    100
    false alarm, normal noise                      1.1    2.3    1.9    0.8
    false alarm, Laplace noise                     0.8    1.6    2.2    2.1
    false alarm, Student's t with 3 degrees        0.9    1.9    2.1    5.5
    false alarm, neighbours correlated by 0.3      2.2    7.1   20.2   32.8
    found, 2 sigma in the middle                  13.4   36.3   96.9  100.0
    found, 4 sigma in the middle                  37.8   92.8  100.0  100.0
    found, 2 sigma in the last 3 points           12.8   29.2   46.6   42.4
    found, 4 sigma in the last 3 points           39.0   84.9   99.8   99.6

So a series whose noise drifts, as that of a shared machine does from day to day, shows change points that are no change
of the code. A change point is a place to look at, and no verdict.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import ruptures

from mrpcbench import store
from mrpcbench.errors import UsageError
from mrpcbench.measures import Measure, measures
from mrpcbench.plans import HistoryPlan
from mrpcbench.progress import Observer
from mrpcbench.schema import Environment, RunRecord
from mrpcbench.trends import ChangePoint, History, Series, TrendPoint

LEAST_POINTS = 6
LEAST_SEGMENT = 3
LEAST_PENALTY = 12.0
# Steps this small beside the values are rounding, and no noise to measure a change by.
ROUNDING = 1e-12
COMMANDS = ("train", "evaluate", "export", "bench")


@dataclass(frozen=True)
class _Read:
    """A record that was read, with the name of its file."""

    name: str
    started: datetime
    record: RunRecord


@dataclass(frozen=True)
class _Sighting:
    """One figure of one record."""

    measure: Measure
    point: TrendPoint
    environment: Environment


def history(folder: Path, plan: HistoryPlan, observer: Observer) -> History:
    """The series of all records in `folder` and below it, by command and by what makes runs comparable.

    Raises `UsageError` where `folder` is no folder or holds no complete record. What is left out, `observer` hears.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; name a folder of records")
    found, left_out = _read_all(folder)
    for line in left_out:
        observer.say(line)
    if not found:
        raise UsageError(f"{folder}: no complete record in it" + (f" ({left_out[0]})" if left_out else ""))
    grouped: dict[tuple[str, ...], list[_Sighting]] = {}
    for item in sorted(found, key=lambda item: (item.started, item.name)):
        for measure in measures(item.record):
            key = (item.record.command, measure.metric, *measure.same.values())
            grouped.setdefault(key, []).append(_sighting(item, measure))
    series = [_series(key[0], sightings) for key, sightings in grouped.items()]
    series.sort(key=lambda item: (COMMANDS.index(item.command), item.metric, *item.same.values()))
    return History(
        records=len(found),
        left_out=tuple(left_out),
        least_points=LEAST_POINTS,
        series=tuple(item for item in series if item.changes or not plan.changed),
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_all(folder: Path) -> tuple[list[_Read], list[str]]:
    """The complete records below `folder`, each once, and a line for each reason to leave files out."""
    found: list[_Read] = []
    seen: set[str] = set()
    reasons: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.json")):
        below = path.relative_to(folder)
        if any(part.startswith(".") for part in below.parts) or not path.is_file():
            continue
        name = below.as_posix()
        try:
            record = store.load(path)
            started = _time(record.environment.started_at)
        except (UsageError, ValueError) as error:
            reason = str(error).removeprefix(f"{path}: ")
            reasons.setdefault("no record of this version", []).append(f"{name}: {reason}")
            continue
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        if not record.complete:
            reasons.setdefault("not complete", []).append(name)
        elif content in seen:
            reasons.setdefault("a copy of a record that was read", []).append(name)
        else:
            seen.add(content)
            found.append(_Read(name, started, record))
    return found, [f"left out, {reason}: {_counted(names)}" for reason, names in reasons.items()]


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} files, the first {names[0]}"


def _time(text: str) -> datetime:
    """A start; one without a zone is UTC, as all that this project writes are."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _sighting(item: _Read, measure: Measure) -> _Sighting:
    environment = item.record.environment
    point = TrendPoint(
        value=measure.value,
        started_at=environment.started_at,
        file=item.name,
        git_commit=environment.git_commit,
        git_dirty=environment.git_dirty,
        model=measure.model,
        valid=measure.valid,
    )
    return _Sighting(measure, point, environment)


# --- detection --------------------------------------------------------------------------------------------------------


def penalty(points: int) -> float:
    """What one more level must take off the squared error, in squares of the noise, to be believed."""
    return max(LEAST_PENALTY, 3 * math.log(points))


def noise_of(values: Sequence[float]) -> float:
    """Standard deviation of `values` about their level, from the steps between neighbours (von Neumann 1941).

    A step of two values with independent noise has twice its variance. 0 where the steps are mere rounding.
    """
    steps = math.sqrt(math.fsum((b - a) ** 2 for a, b in pairwise(values)) / (2 * (len(values) - 1)))
    return steps if steps > ROUNDING * max(map(abs, values)) else 0.0


def change_points(values: Sequence[float]) -> list[int]:
    """Indices of `values` at which a new level begins, in order; ValueError for fewer than `LEAST_POINTS` of them.

    Only differences count, in units of the noise, so that `values` may be in any unit.
    """
    if len(values) < LEAST_POINTS:
        raise ValueError(f"{len(values)} points, and {LEAST_POINTS} are the fewest that can be judged")
    noise = noise_of(values)
    if noise == 0:
        return []
    scaled = (np.asarray(values, dtype=np.float64) - values[0]) / noise
    # KernelCPD's linear kernel is squared error about the mean: PELT in C, a thousandth of the time of ruptures.Pelt.
    search = ruptures.KernelCPD(kernel="linear", min_size=LEAST_SEGMENT).fit(scaled.reshape(-1, 1))
    return [int(index) for index in search.predict(pen=penalty(len(values)))[:-1]]  # its last is the end


def _series(command: str, sightings: Sequence[_Sighting]) -> Series:
    """One series, in the order of time, with its change points."""
    measure, points = sightings[0].measure, tuple(item.point for item in sightings)
    values = [point.value for point in points]
    judged = len(points) >= LEAST_POINTS
    by_log = measure.unit != "share" and min(values) > 0
    scaled = [math.log(value) for value in values] if by_log else values
    has_unit = by_log or measure.unit == "share"
    return Series(
        command=command,
        metric=measure.metric,
        unit=measure.unit,
        change_unit="points" if measure.unit == "share" else "%",
        better=measure.better,
        same=measure.same,
        points=points,
        judged=judged,
        noise=100 * noise_of(scaled) if judged and has_unit else None,
        changes=_changes(sightings, change_points(scaled)) if judged else (),
    )


def _changes(sightings: Sequence[_Sighting], starts: Sequence[int]) -> tuple[ChangePoint, ...]:
    measure = sightings[0].measure
    bounds = [0, *starts, len(sightings)]
    means = [math.fsum(item.point.value for item in sightings[a:b]) / (b - a) for a, b in pairwise(bounds)]
    found = []
    for index, (before, after) in zip(starts, pairwise(means), strict=True):
        if measure.unit == "share":
            change: float | None = 100 * (after - before)
        else:
            change = 100 * (after / before - 1) if before else None
        found.append(
            ChangePoint(
                index=index,
                before=before,
                after=after,
                change=change,
                better=(after > before) == (measure.better == "higher"),
                first=sightings[index].point,
                differs=_differs(sightings[index - 1].environment, sightings[index].environment),
            )
        )
    return tuple(found)


def _differs(was: Environment, now: Environment) -> tuple[str, ...]:
    """What of the software differs between two runs on one machine, each as `name old -> new`."""
    before = {"python": was.python, "driver": was.gpu_driver, **was.packages, **was.settings}
    after = {"python": now.python, "driver": now.gpu_driver, **now.packages, **now.settings}
    return tuple(
        f"{name} {before.get(name) or 'none'} -> {after.get(name) or 'none'}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    )
