"""A quick comparison of the time of one pair: the graph and the original model, in turn."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from statistics import median

from mrpcbench.backends.session import Session
from mrpcbench.data.batches import Batch
from mrpcbench.instruments.clock import WallClock, timed
from mrpcbench.schema.results import PairSpeed
from mrpcbench.statistics import median_interval

# Both engines measure a block of pairs in turn. ONNX Runtime's threads still wait actively after a call, and would slow
# the next call of the other engine; in a block, they sleep after the first pairs.
BLOCK = 8
# No block begins after this time, in seconds.
BUDGET_S = 1.0


def pair_speed(graph: Session, original: Session, batches: Sequence[Batch]) -> PairSpeed:
    """Time one pair at a time in `graph` and in `original`; each of `batches` holds one pair.

    Each block of pairs runs in both engines, in alternating order, until the time is up or no pair is left. The second
    of two calls is timed, because an engine may prepare for a new shape in the first.
    """
    clock, graph_ms, original_ms = WallClock(), list[float](), list[float]()
    end = clock.now() + BUDGET_S
    for number in count():
        block = batches[number * BLOCK : (number + 1) * BLOCK]
        if not block or (number and clock.now() >= end):
            break
        turns = [(graph, graph_ms), (original, original_ms)]
        for session, samples in turns if number % 2 == 0 else reversed(turns):
            samples.extend(_times_ms(session, block))
    logs = [math.log(theirs / ours) for ours, theirs in zip(graph_ms, original_ms, strict=True)]
    found = median_interval(logs)
    return PairSpeed(
        pairs=len(logs),
        graph_ms=median(graph_ms),
        original_ms=median(original_ms),
        speedup=math.exp(median(logs)),
        interval=replace(found, low=math.exp(found.low), high=math.exp(found.high)),
    )


def _times_ms(session: Session, block: Sequence[Batch]) -> list[float]:
    session.infer(block[0])
    times = []
    for batch in block:
        session.infer(batch)
        _, milliseconds = timed(partial(session.infer, batch))
        times.append(milliseconds)
    return times
