"""Contenders as lanes, ready to be measured, and the answers that the others' are held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mrpcbench import data
from mrpcbench.backends import open_session
from mrpcbench.backends.base import Session
from mrpcbench.batches import EncodedPairs, Reader
from mrpcbench.clock import timed
from mrpcbench.contenders import Contender, Field
from mrpcbench.errors import UsageError
from mrpcbench.lanes import Lane
from mrpcbench.limits import work_of
from mrpcbench.plans import BackendSpec, BenchPlan
from mrpcbench.progress import Observer
from mrpcbench.schema import ReferenceAnswers, Work
from mrpcbench.sensors import Meter, open_gpu_sensor
from mrpcbench.sources import ModelSource
from mrpcbench.spans import Tokenise

UNANSWERED = "-"


@dataclass
class _Engines:
    """Sessions by what was asked of them, each opened once, and how long that took."""

    observer: Observer
    sources: Mapping[BackendSpec, ModelSource]
    opened: dict[BackendSpec, tuple[Session, float]] = field(default_factory=dict)

    def session(self, contender: Contender) -> tuple[Session, float]:
        """The session of `contender`, and the milliseconds in which it was opened."""
        if contender.spec not in self.opened:
            self.observer.say(f"opening {contender.name}")
            self.opened[contender.spec] = timed(partial(open_session, contender.spec, self.sources[contender.spec]))
        return self.opened[contender.spec]


def open_lanes(
    entered: Field, sources: Mapping[BackendSpec, ModelSource], plan: BenchPlan, pairs: Dataset, observer: Observer
) -> list[Lane]:
    """The lanes of all contenders over `pairs`; two that ask the same of an engine share its session.

    Raises `UsageError` where a model has the labels the other way round, or takes fewer tokens than `--seq-len`;
    `MissingError` where an engine is not available.
    """
    lanes: list[Lane] = []
    engines = _Engines(observer, sources)
    texts = {name: list(pairs[name]) for name in ("sentence1", "sentence2")}
    for contender in entered.contenders:
        source = sources[contender.spec]
        source.check_labels(data.label_names(pairs))
        session, open_ms = engines.session(contender)
        tokens, tokenise = _tokens(plan, source.reader, texts)
        sensor = open_gpu_sensor(session.placement.device)
        for scenario, size in contender.rows():
            # One pair at a time arrives in no order; a pass over all pairs may choose its own.
            order = contender.order if scenario == "offline" else "given"
            cut = tokens.batches(size, order=order)
            work = _work(source, session, tokens, len(cut)) if scenario != "server" else None
            lanes.append(Lane(contender, session, open_ms, scenario, size, tokens, tokenise, cut, work, Meter(sensor)))
    return lanes


def _tokens(plan: BenchPlan, reader: Reader, texts: Mapping[str, list[str]]) -> tuple[EncodedPairs, Tokenise | None]:
    """The pairs as tokens, and what makes tokens of some of them; nothing does in a fixed shape."""
    if plan.seq_len is None:

        def tokenise(rows: NDArray[np.int64]) -> EncodedPairs:
            return reader.encode({name: [column[row] for row in rows] for name, column in texts.items()})

        return reader.encode(texts), tokenise
    if plan.seq_len > reader.longest_allowed:
        raise UsageError(f"--seq-len {plan.seq_len}: the model takes {reader.longest_allowed} tokens")
    return reader.encode(texts).of_length(plan.seq_len), None


def _work(source: ModelSource, session: Session, tokens: EncodedPairs, batches: int) -> Work | None:
    if not session.model.parameters:  # an engine without a model, which does no work
        return None
    return work_of(
        source.config,
        tokens.lengths,
        batches=batches,
        parameters=session.model.parameters,
        dtype=session.placement.product_dtype,
    )


def reference_of(lanes: Sequence[Lane], pairs: int) -> ReferenceAnswers | None:
    """The answers of the lane that runs first; None for one contender alone, and while there are none."""
    if len({lane.contender.name for lane in lanes}) == 1:
        return None
    first = next((lane for lane in lanes if lane.scenario != "server"), lanes[0])
    found = first.predicted(pairs)
    if found is None:
        return None
    labels = "".join(UNANSWERED if label < 0 else str(label) for label in found)
    return ReferenceAnswers(row=first.name, labels=labels)


def label_array(labels: str) -> NDArray[np.int64]:
    """Labels [N] of a record's string of them, -1 where there is no answer."""
    return np.array([-1 if label == UNANSWERED else int(label) for label in labels], dtype=np.int64)
