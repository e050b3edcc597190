"""One row of a benchmark while it is measured: a session, its batches, its clock and what it has shown so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.base import Session, unlike
from mrpcbench.batches import Batch, EncodedPairs, in_order
from mrpcbench.clock import Clock, WallClock, timed
from mrpcbench.contenders import Contender
from mrpcbench.metrics import accuracy_of, confusion, f1_of
from mrpcbench.plans import BackendSpec, BenchPlan, Scenario
from mrpcbench.redaction import public
from mrpcbench.rows import RowId
from mrpcbench.schema import (
    BenchRow,
    LoadPoint,
    ServerResult,
    Span,
    Work,
)
from mrpcbench.sensors import Meter
from mrpcbench.server import FEWEST_REQUESTS, Load, arrivals, bracket, find_rate, requests_at, serve
from mrpcbench.spans import Road, Tokenise

# A search that halves the rate of hopeless loads would take for ever; slower ones than this are not tried.
LONGEST_LOAD_S = 30.0


@dataclass
class Lane:
    """A contender in one scenario at one batch size."""

    contender: Contender
    session: Session
    open_ms: float
    scenario: Scenario
    batch_size: int
    tokens: EncodedPairs
    tokenise: Tokenise | None
    batches: list[Batch]
    work: Work | None
    meter: Meter
    first_ms: float = 0.0
    cold_ms: float | None = None
    samples_ms: list[float] = field(default_factory=list)
    logits: NDArray[np.float32] | None = None
    answered_rows: NDArray[np.int64] | None = None
    server: ServerResult | None = None
    peak_memory_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    spans: tuple[Span, ...] | None = None

    @property
    def name(self) -> str:
        """The text form of its row's identity."""
        return str(self.key)

    @property
    def public_spec(self) -> BackendSpec:
        """What was asked, without a path."""
        return public(self.contender.spec)

    @property
    def key(self) -> RowId:
        """What identifies its row."""
        return RowId(case=self.contender.name, scenario=self.scenario, batch_size=self.batch_size)

    @property
    def has_row(self) -> bool:
        """Whether anything has been measured."""
        return self.logits is not None

    @property
    def rounds(self) -> int:
        """Rounds that it has run."""
        a_round = len(self.batches) if self.scenario == "single-stream" else 1
        return len(self.samples_ms) // a_round

    @property
    def road(self) -> Road:
        """Its way from text to logits."""
        cut = [batch.rows for batch in self.batches]
        return Road(self.session, self.tokens, self.tokenise, cut, whole=self.scenario == "offline")

    def warm_up(self, calls: int) -> None:
        """The first call, timed by itself, one of each other shape that the engine prepares for, then `calls` more."""
        _, self.first_ms = timed(partial(self.session.infer, self.batches[0]))
        if shapes := unlike(self.session, self.batches):
            self.cold_ms = self.first_ms + self._ms_of(shapes[1:])
        for index in range(calls):
            self.session.infer(self.batches[index % len(self.batches)])

    def _ms_of(self, batches: list[Batch]) -> float:
        """Time of a call of each."""
        return timed(lambda: [self.session.infer(batch) for batch in batches])[1]

    def run_round(self) -> None:
        """Once over all pairs; the answers of the timed calls themselves are kept."""
        self.session.reset_peak_memory()
        with self.meter:
            if self.scenario == "single-stream":
                results = [timed(partial(self.session.infer, batch)) for batch in self.batches]
                outputs = [logits for logits, _ in results]
                self.samples_ms += [milliseconds for _, milliseconds in results]
            else:
                outputs, milliseconds = timed(lambda: list(self.session.infer_many(self.batches)))
                self.samples_ms.append(milliseconds)
        self.logits = in_order(outputs, self.batches)
        self._note_peak()

    def find_rate(self, plan: BenchPlan, told: Callable[[LoadPoint], None], clock: Clock | None = None) -> None:
        """Search the largest load of the server scenario that keeps the target; the best load's answers are kept."""
        clock = clock or WallClock()
        loads: dict[float, Load] = {}

        def run_at(rate: float) -> LoadPoint:
            schedule = arrivals(rate, requests_at(rate, slo_ms=plan.slo_ms), plan.seed)
            load = serve(
                self.session.infer,
                self.tokens,
                schedule,
                rate_per_s=rate,
                window_ms=plan.window_ms,
                max_batch=self.batch_size,
                slo_ms=plan.slo_ms,
                clock=clock,
            )
            loads[rate] = load
            told(load.point)
            return load.point

        self.session.reset_peak_memory()
        start_rate = self._warm_up_every_size()
        with self.meter:
            curve = find_rate(
                run_at, slo_ms=plan.slo_ms, start_rate=start_rate, least_rate=FEWEST_REQUESTS / LONGEST_LOAD_S
            )
        best, _ = bracket(curve)
        self.server = ServerResult(
            slo_ms=plan.slo_ms,
            window_ms=plan.window_ms,
            max_batch=self.batch_size,
            seed=plan.seed,
            curve=curve,
            best_rate_per_s=best,
        )
        kept = loads[best if best is not None else min(loads)]
        self.logits, self.answered_rows = kept.logits, kept.rows
        self._note_peak()

    def _warm_up_every_size(self) -> float:
        """Call the engine once with every number of requests that may arrive together; return its rate at the most."""
        count = len(self.tokens.lengths)
        if self.cold_ms is not None:
            # Request i is pair i mod `count`, so these are all the batches that there can be.
            sizes = range(1, self.batch_size + 1)
            rows = (np.arange(first, first + size) % count for size in sizes for first in range(count))
            self.cold_ms += self._ms_of(unlike(self.session, map(self.tokens.batch_of, rows)))
        for size in range(1, self.batch_size + 1):
            _, milliseconds = timed(partial(self.session.infer, self.tokens.batch_of(np.arange(size) % count)))
        return self.batch_size * 1e3 / milliseconds

    def _note_peak(self) -> None:
        self.peak_memory_bytes = _larger(self.session.peak_memory_bytes, self.peak_memory_bytes)
        self.peak_reserved_bytes = _larger(self.session.peak_reserved_bytes, self.peak_reserved_bytes)

    def predicted(self, pairs: int) -> NDArray[np.int64] | None:
        """Label [`pairs`] of each pair's timed answer, -1 where that is not finite or there is none; None where no
        answer is at hand.
        """
        if self.logits is None:
            return None
        found = np.full(pairs, -1, dtype=np.int64)
        answered = np.isfinite(self.logits).all(axis=1)
        rows = np.arange(pairs) if self.answered_rows is None else self.answered_rows
        found[rows[answered]] = self.logits.argmax(axis=1)[answered]
        return found

    def row(
        self, labels: NDArray[np.int64], *, fixed_shape: bool, reference: NDArray[np.int64] | None = None
    ) -> BenchRow:
        """What has been measured, against `labels` [N] and the `reference` [N], -1 where that is not known; a fixed
        shape has answers that mean nothing.
        """
        assert self.logits is not None
        truth = labels if self.answered_rows is None else labels[self.answered_rows]
        answered = np.isfinite(self.logits).all(axis=1)
        scored = confusion(np.where(answered, self.logits.argmax(axis=1), 1 - truth), truth) if len(truth) else None
        lost = sum(point.failed for point in self.server.curve) if self.server else 0
        return BenchRow(
            spec=self.public_spec,
            case=self.contender.name,
            order=self.contender.order if self.scenario == "offline" else None,
            placement=self.session.placement,
            model=self.session.model,
            scenario=self.scenario,
            batch_size=self.batch_size,
            pairs=len(labels),
            real_tokens=sum(batch.real_tokens for batch in self.batches),
            padding_tokens=sum(batch.padding_tokens for batch in self.batches),
            open_ms=self.open_ms,
            first_ms=self.first_ms,
            cold_ms=self.cold_ms,
            samples_ms=tuple(self.samples_ms),
            server=self.server,
            accuracy=None if fixed_shape or scored is None else accuracy_of(scored),
            f1=None if fixed_shape or scored is None else f1_of(scored),
            agreement=None if reference is None else self._agreement(reference),
            failed=int((~answered).sum()) + lost,
            peak_memory_bytes=self.peak_memory_bytes,
            peak_reserved_bytes=self.peak_reserved_bytes,
            work=self.work,
            resources=self.meter.resources(),
            spans=self.spans,
        )

    def _agreement(self, reference: NDArray[np.int64]) -> float | None:
        """Share of the pairs asked for, of those that `reference` [N] answers, with its label."""
        assert self.logits is not None
        held = reference if self.answered_rows is None else reference[self.answered_rows]
        known = held >= 0
        answered = np.isfinite(self.logits).all(axis=1)
        same = answered & (self.logits.argmax(axis=1) == held)
        return float(same[known].mean()) if known.any() else None


def _larger(peak: int | None, before: int | None) -> int | None:
    return peak if peak is None else max(peak, before or 0)
