"""Continue an interrupted benchmark: only the same run on the same machine, or its rows would not be comparable."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mrpcbench import store
from mrpcbench.errors import UsageError
from mrpcbench.lanes import Lane
from mrpcbench.schema import RunRecord

# What of the environment a time depends on; the code of this project is part of it.
SAME = ("machine_sha256", "cpu_cores", "gpu", "gpu_driver", "python", "packages", "settings", "source_sha256")


def continue_from(path: Path, now: RunRecord, lanes: list[Lane]) -> RunRecord:
    """The record in `path`, of which `now` is the same run begun again, with its rows handed back to `lanes`.

    Raises `UsageError` that names what differs, or where `path` holds no benchmark.
    """
    earlier = _loaded(path)
    assert earlier.bench is not None
    assert now.bench is not None
    if changed := "; ".join(_changes(earlier, now, lanes)):
        raise UsageError(f"--resume: {path} was made with {changed}; only the same run can be continued")
    rows = {row.id: row for row in earlier.bench.rows}
    for lane in lanes:
        lane.earlier = rows.get(lane.key)
    if earlier.complete:
        return earlier
    resumed = (*earlier.bench.resumed_after, earlier.bench.rounds_done)
    return replace(earlier, bench=replace(earlier.bench, resumed_after=resumed))


def rounds_of(path: Path) -> int:
    """Rounds of the run whose record is in `path`: as many as it was asked for. Raises `UsageError` as above."""
    bench = _loaded(path).bench
    assert bench is not None
    return bench.plan.rounds


def _loaded(path: Path) -> RunRecord:
    earlier = store.load(path)
    if earlier.bench is None:
        raise UsageError(f"--resume: {path} is a record of {earlier.command}; name one of bench with --results")
    return earlier


def _changes(earlier: RunRecord, now: RunRecord, lanes: list[Lane]) -> Iterator[str]:
    assert earlier.bench is not None
    assert now.bench is not None
    yield from _differences(asdict(earlier.bench.plan), asdict(now.bench.plan), "--")
    was, present = asdict(earlier.environment), asdict(now.environment)
    yield from _differences({name: was[name] for name in SAME}, {name: present[name] for name in SAME}, "")
    if earlier.data != now.data:
        yield "other pairs"
    lane_of = {lane.key: lane for lane in lanes}
    for row in earlier.bench.rows:
        lane = lane_of.get(row.id)
        if lane is None:  # another plan, or an optional contender that is not there now
            yield f"a row of {row.case}"
            continue
        yield from _differences(asdict(row.spec), asdict(lane.public_spec), "--")
        yield from _differences(asdict(row.placement), asdict(lane.session.placement), f"{row.case} ")
        if row.model != lane.session.model:
            yield f"another model for {row.case}"


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in was:
        if was[name] != now[name]:
            shown = name.replace("_", "-") if prefix == "--" else name
            if isinstance(was[name], dict):  # package versions and settings: only those that differ
                keys = [key for key in {**was[name], **now[name]} if was[name].get(key) != now[name].get(key)]
                yield ", ".join(f"{key} {was[name].get(key)} (now {now[name].get(key)})" for key in keys)
            else:
                yield f"{prefix}{shown} {was[name]} (now {now[name]})"
