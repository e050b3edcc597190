"""Overhead of the harness: `python docs/benchmarks/overhead.py [--output FILE]`, with mrpcbench installed.

An engine of a known cost records when each call begins and ends; all other time between the first and the last call is
overhead. Five rounds of the bundled validation pairs, one at a time. `inside` is the part of a sample that is not the
engine's own time, `between` is the time between two engine calls, which lowers the throughput. The arrays of a batch,
which any server must make, are listed separately; the other scenarios make them before the clock starts.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mrpcbench.benchmark.row import SteadyRow, Workload
from mrpcbench.benchmark.server import serve
from mrpcbench.data import loading
from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.environment.capture import capture
from mrpcbench.instruments.clock import WallClock, timed
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.instruments.telemetry import Meter
from mrpcbench.models import sources
from mrpcbench.records.store import to_json, write_text
from mrpcbench.schema.cases import Case
from mrpcbench.schema.requests import QUICKSTART, BackendSpec, Scenario

COST_MS, ROUNDS = 1.0, 5


class Watched(FakeSession):
    """An engine that records the begin and the end of each call."""

    def __init__(self) -> None:
        super().__init__(cost_ms=COST_MS)
        self.calls: list[tuple[int, int]] = []

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2], as of `FakeSession`."""
        begin = time.perf_counter_ns()
        logits = super().infer(batch)
        self.calls.append((begin, time.perf_counter_ns()))
        return logits

    def between_ms(self) -> float:
        """Median of the times from the end of a call to the begin of the next."""
        gaps = [after[0] - before[1] for before, after in zip(self.calls, self.calls[1:], strict=False)]
        return median(gaps) / 1e6

    def own_ms(self) -> list[float]:
        """The time of each call."""
        return [(end - begin) / 1e6 for begin, end in self.calls]


def steady(scenario: Scenario, tokens: EncodedPairs) -> dict[str, float]:
    """The overhead in a scenario of rounds, in milliseconds per call."""
    inside, between = [], []
    for _ in range(ROUNDS):
        session = Watched()
        cut = tokens.batches(1, order="given")
        fake = Case(name="fake", spec=BackendSpec(backend="fake"), scenarios=(scenario,), batch_sizes=(1,))
        (name,) = fake.rows()
        row = SteadyRow(name, fake, session, 0.0, Workload(tokens, None, cut, None, None), Meter(None))
        row.run_round()
        own = session.own_ms()
        if scenario == "single-stream":
            inside += [sample - mine for sample, mine in zip(row.samples_ms, own, strict=True)]
        else:
            inside.append((row.samples_ms[0] - sum(own)) / len(own))
        between.append(session.between_ms())
    return {"inside_ms": median(inside), "between_ms": median(between)}


class TimedPairs(EncodedPairs):
    """Pairs that record how long the arrays of each batch took."""

    made_ms: ClassVar[list[float]] = []

    def batch_of(self, rows: NDArray[np.int64], multiple_of: int = 1) -> Batch:
        """The pairs `rows` [B] as one batch."""
        batch, milliseconds = timed(lambda: EncodedPairs.batch_of(self, rows, multiple_of))
        self.made_ms.append(milliseconds)
        return batch


def served(tokens: EncodedPairs) -> dict[str, float]:
    """The overhead in the server scenario if requests always wait; a batch's arrays are made between two calls."""
    between, pairs = [], TimedPairs(columns=tokens.columns, padding=tokens.padding)
    for _ in range(ROUNDS):
        session = Watched()
        due = np.zeros(len(tokens.lengths))
        clock = WallClock()
        serve(session.infer, pairs, due, rate_per_s=1, window_ms=0, max_batch=1, slo_ms=1e9, clock=clock)
        between.append(session.between_ms())
    arrays = median(pairs.made_ms)
    return {"arrays_ms": arrays, "between_ms": median(between) - arrays}


def main() -> None:
    """Measure, print the results, and write them with the environment."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--output", type=Path, help="file for the results with the environment")
    asked = options.parse_args()
    pairs = loading.load(QUICKSTART)["validation"]
    tokens = sources.weights_source(QUICKSTART).reader.encode(pairs)
    found = {
        "single-stream": steady("single-stream", tokens),
        "offline": steady("offline", tokens),
        "server": served(tokens),
    }
    for scenario, costs in found.items():
        for name, milliseconds in costs.items():
            print(
                f"{scenario:14} {name:11} {milliseconds:.5f}  {milliseconds / COST_MS:.2%} of a {COST_MS:g} ms forward"
            )
    if asked.output:
        report = {"cost_ms": COST_MS, "pairs": len(pairs), "rounds": ROUNDS, "overhead": found}
        write_text(asked.output, to_json({"environment": asdict(capture()), **report}) + "\n")
        print(f"written to {asked.output}")


if __name__ == "__main__":
    main()
