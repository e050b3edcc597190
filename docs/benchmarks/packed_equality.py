"""Results of `train --engine packed` and `trainer` in bf16, compared: `python docs/benchmarks/packed_equality.py`.

Both engines fine-tune the bundled checkpoint on the bundled pairs with the default recipe, on the CPU, in bf16. A seed
sets the new head and the order of the pairs, so runs are paired by seed. The differences, packed minus trainer, of the
last epoch's figures get a paired t interval. They are equal if that interval lies within the margins of `MARGINS`.

For scale, the Trainer in float32 is compared with the Trainer in bf16 in the same way. The records stay in --work, so
an interrupted measurement goes on where it stopped.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from scipy import stats

from mrpcbench.environment.capture import capture
from mrpcbench.records.store import load_as, to_json, write_text
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import QUICKSTART

LEVEL = 0.95
# A point of accuracy or F1, the smallest loss that the accuracy gate reports, and 0.02 nats.
MARGINS = {"eval_loss": 0.02, "eval_accuracy_score": 0.01, "eval_f1_score": 0.01}


@dataclass(frozen=True)
class Way:
    """How to train: the values of --engine and --precision."""

    engine: str
    precision: str

    @property
    def name(self) -> str:
        """Its name in the record."""
        return f"{self.engine} {self.precision}"


TRAINER, PACKED, FLOAT32 = Way("trainer", "bf16"), Way("packed", "bf16"), Way("trainer", "fp32")


@dataclass(frozen=True)
class Difference:
    """Differences of a figure between two ways, one a seed, with the paired t interval of their mean."""

    figure: str
    by_seed: tuple[float, ...]
    mean: float
    low: float
    high: float
    margin: float

    @property
    def equal(self) -> bool:
        """Whether the interval lies within the margin."""
        return -self.margin < self.low and self.high < self.margin


def trained(way: Way, seed: int, work: Path) -> TrainRecord:
    """The record of a training in a process of its own; read from `work` if it is there and finished."""
    record = work / f"{way.engine}-{way.precision}-{seed}.json"
    if not (record.exists() and load_as(TrainRecord, record).train.best_step is not None):
        options = {"--engine": way.engine, "--precision": way.precision, "--seed": seed, "--device": "cpu"}
        places = {"--model": QUICKSTART, "--data": QUICKSTART, "--output-dir": work / record.stem, "--results": record}
        given = [str(part) for option in {**options, **places}.items() for part in option]
        subprocess.run([sys.executable, "-m", "mrpcbench", "train", "--overwrite", *given], check=True)
    return load_as(TrainRecord, record)


def figures(record: TrainRecord) -> dict[str, float]:
    """The figures of the last epoch."""
    last = record.train.epochs[-1]
    return {name: float(getattr(last, name)) for name in MARGINS}


def differences(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> list[Difference]:
    """`ours` minus `theirs`, which have the same seeds in the same order."""
    found = []
    for name, margin in MARGINS.items():
        one, other = ([figures[name] for figures in side] for side in (ours, theirs))
        low, high = stats.ttest_rel(one, other).confidence_interval(LEVEL)
        by_seed = tuple(mine - yours for mine, yours in zip(one, other, strict=True))
        found.append(Difference(name, by_seed, fmean(by_seed), float(low), float(high), margin))
    return found


def main() -> None:
    """Train, print the differences, and write them with the environment."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6], help="seeds, at least two")
    options.add_argument("--work", type=Path, default=Path("packed-equality"), help="folder of models and records")
    options.add_argument("--output", type=Path, help="file for the results with the environment")
    asked = options.parse_args()
    if len(asked.seeds) < 2:
        options.error("--seeds: a paired interval needs at least two")
    asked.work.mkdir(parents=True, exist_ok=True)
    runs: dict[Way, list[dict[str, float]]] = {way: [] for way in (TRAINER, PACKED, FLOAT32)}
    for seed in asked.seeds:
        for way, done in runs.items():
            done.append(figures(trained(way, seed, asked.work)))
    compared = {}
    for one, other in ((PACKED, TRAINER), (FLOAT32, TRAINER)):
        title = f"{one.name} minus {other.name}"
        compared[title] = differences(runs[one], runs[other])
        for found in compared[title]:
            verdict = "equal" if found.equal else "not shown to be equal"
            print(f"{title}, {found.figure}: {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}), ", end="")
            print(f"margin {found.margin:g}: {verdict}")
    if asked.output:
        report = {
            "seeds": asked.seeds,
            "level": LEVEL,
            "runs": {way.name: done for way, done in runs.items()},
            "differences": {title: [asdict(found) for found in each] for title, each in compared.items()},
        }
        write_text(asked.output, to_json({"environment": asdict(capture()), **report}) + "\n")
        print(f"written to {asked.output}")


if __name__ == "__main__":
    main()
