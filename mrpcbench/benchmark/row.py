"""The measurement of one benchmark row: its engine, workload, clock and samples."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.session import Event, PeakMemory, Session, computed_padding, first_of_each_shape, probe_of
from mrpcbench.benchmark.scoring import Answers, Labels, accuracy_and_f1, agreement
from mrpcbench.benchmark.server import FEWEST_REQUESTS, MOST_LOADS, Load, arrivals, find_rate, requests_at, serve
from mrpcbench.data.batches import Batch, EncodedPairs, in_order
from mrpcbench.environment.redaction import public
from mrpcbench.instruments.clock import Clock, WallClock, timed
from mrpcbench.instruments.spans import Pipeline, Tokenise
from mrpcbench.instruments.telemetry import Meter
from mrpcbench.progress import Observer
from mrpcbench.records.figures import bracket
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.bench_results import BenchRow, LoadPoint, ServerResult, Span, Work
from mrpcbench.schema.cases import Case
from mrpcbench.schema.requests import Order
from mrpcbench.schema.rows import RowId

# The search does not try rates at which a load would take longer than this. Otherwise it would keep halving the rate
# for an engine that never meets the target.
LONGEST_LOAD_S = 30.0
# How many loads a search usually takes: a few to bracket the rate, then four halvings of a factor of two down to 10%.
USUAL_LOADS = 6


@dataclass(frozen=True)
class Workload:
    """The input of a row: the tokens of all pairs, cut into `batches`. `order` is None if the scenario fixes it.

    `tokenise` tokenises some pairs again, for the time breakdown; None with a fixed shape. `work` is the minimum work
    of the model for all batches; None if unknown. `label_order` is that of `ModelSource.label_order`.
    """

    tokens: EncodedPairs
    tokenise: Tokenise | None
    batches: list[Batch]
    order: Order | None
    work: Work | None
    label_order: tuple[int, int] = (0, 1)


@dataclass
class RowMeasurement(ABC):
    """A row that is being measured. `open_ms` is the time to load the model into `session`; rows may share one.

    `call_ms` is the mean time of a warm-up call; without any, the time of the first call.
    """

    id: RowId
    case: Case
    session: Session
    open_ms: float
    workload: Workload
    meter: Meter
    first_ms: float = 0.0
    cold_ms: float | None = None
    call_ms: float = 0.0
    samples_ms: list[float] = field(default_factory=list)
    answers: Answers | None = None
    peak: PeakMemory = field(default_factory=PeakMemory)
    spans: tuple[Span, ...] | None = None

    def warm_up(self, calls: int) -> None:
        """Time the first call, then one call of each other shape that the engine prepares; then make `calls` more.

        These are spread over the pass, whose batches differ in length.
        """
        batches = self.workload.batches
        _, self.first_ms = timed(partial(self.session.infer, batches[0]))
        if firsts := first_of_each_shape(self.session, batches):
            self.cold_ms = self.first_ms + self._ms_of(firsts[1:])
        spread = [batches[(2 * index + 1) * len(batches) // (2 * calls)] for index in range(calls)]
        _, total_ms = timed(partial(self._logits, spread))
        self.call_ms = total_ms / calls if calls else self.first_ms

    @abstractmethod
    def expected_s(self, plan: BenchPlan) -> float:
        """About how many seconds the row will take, according to the warm-up calls."""

    def _logits(self, batches: list[Batch]) -> list[NDArray[np.float32]]:
        """The logits of `batches`, by the same calls as the row's samples."""
        return [self.session.infer(batch) for batch in batches]

    def _ms_of(self, batches: list[Batch]) -> float:
        """Total time of one call per batch, in ms."""
        return timed(lambda: [self.session.infer(batch) for batch in batches])[1]

    @contextmanager
    def _metered(self) -> Iterator[None]:
        """Read the sensors during the context, and the engine's memory peak at its end."""
        probe = probe_of(self.session)
        if probe:
            probe.reset_peak_memory()
        with self.meter:
            yield
        if probe:
            self.peak = _larger(self.peak, probe.peak_memory())

    @property
    @abstractmethod
    def pipeline(self) -> Pipeline | None:
        """The steps from text to logits; None if the engine has no `Probe`."""

    def break_down(self) -> None:
        """Time each step of the pipeline in a separate pass."""
        if pipeline := self.pipeline:
            self.spans = pipeline.spans()

    def events(self) -> list[Event]:
        """The steps of a few calls, with the engine's operators; empty if the engine has no `Probe`."""
        pipeline = self.pipeline
        return pipeline.events() if pipeline else []

    def row(self, truth: Labels, reference: Labels | None, *, fixed_shape: bool) -> BenchRow:
        """The results so far, scored against the labels `truth` [pairs] and the `reference` answers [pairs].

        Answers with a fixed shape are meaningless, so they are not scored. Raises `ValueError` before the first round.
        """
        if self.answers is None:
            raise ValueError(f"{self.id} has not been measured")
        score = None if fixed_shape else accuracy_and_f1(self.answers, truth)
        batches = self.workload.batches
        return BenchRow(
            spec=public(self.case.spec),
            case=self.case.name,
            order=self.workload.order,
            placement=self.session.placement,
            model=self.session.model,
            scenario=self.id.scenario,
            batch_size=self.id.batch_size,
            pairs=len(truth),
            real_tokens=sum(batch.real_tokens for batch in batches),
            padding_tokens=computed_padding(self.session, batches),
            open_ms=self.open_ms,
            first_ms=self.first_ms,
            cold_ms=self.cold_ms,
            samples_ms=tuple(self.samples_ms),
            accuracy=score[0] if score else None,
            f1=score[1] if score else None,
            agreement=None if reference is None else agreement(self.answers, reference),
            failed=int((~self.answers.finite).sum()),
            peak_memory_bytes=self.peak.in_use,
            peak_reserved_bytes=self.peak.reserved,
            work=self.workload.work,
            resources=self.meter.resources(),
            spans=self.spans,
        )


@dataclass
class SteadyRow(RowMeasurement):
    """A single-stream or offline row. It is measured in rounds, each over all pairs."""

    def expected_s(self, plan: BenchPlan) -> float:
        """The rounds of the plan, without added ones, and the time breakdown, which is one more pass at most."""
        return self.call_ms / 1e3 * len(self.workload.batches) * (plan.rounds + (self.pipeline is not None))

    def run_round(self) -> None:
        """Time one pass over all pairs, and keep the answers of the timed calls."""
        batches = self.workload.batches
        with self._metered():
            if self.id.scenario == "single-stream":
                results = [timed(partial(self.session.infer, batch)) for batch in batches]
                outputs, samples = [logits for logits, _ in results], [milliseconds for _, milliseconds in results]
            else:
                outputs, milliseconds = timed(partial(self._logits, batches))
                samples = [milliseconds]
        self.samples_ms += samples
        logits = in_order(outputs, batches)[:, self.workload.label_order]
        self.answers = Answers(logits, np.arange(len(logits)))

    def _logits(self, batches: list[Batch]) -> list[NDArray[np.float32]]:
        return list(self.session.infer_many(batches)) if self.id.scenario == "offline" else super()._logits(batches)

    @property
    def pipeline(self) -> Pipeline | None:
        """The steps from text to logits. An offline pass tokenises all pairs at once."""
        return _pipeline(self, whole=self.id.scenario == "offline")


@dataclass
class ServerRow(RowMeasurement):
    """A row of the server scenario: a search for the largest rate that meets the target."""

    server: ServerResult | None = None

    def expected_s(self, plan: BenchPlan) -> float:
        """`USUAL_LOADS` at the rate of the warm-up calls, which are of the largest batch."""
        rate = self.id.batch_size * 1e3 / max(self.call_ms, 1e-3)
        return USUAL_LOADS * requests_at(rate, slo_ms=plan.slo_ms) / rate

    def find_rate(self, plan: BenchPlan, observer: Observer, clock: Clock | None = None) -> None:
        """Search for the largest rate that meets the target, and keep the answers at that rate."""
        loads: dict[float, Load] = {}

        def run_at(rate: float) -> LoadPoint:
            requests = requests_at(rate, slo_ms=plan.slo_ms)
            detail = f"load {len(loads) + 1} of at most {MOST_LOADS}: {self.id}, {rate:.1f} requests/s"
            loads[rate] = serve(
                self.session.infer,
                self.workload.tokens,
                arrivals(rate, requests, plan.seed),
                rate_per_s=rate,
                window_ms=plan.window_ms,
                max_batch=self.id.batch_size,
                slo_ms=plan.slo_ms,
                clock=clock or WallClock(),
                progress=lambda answered: observer.advance("server", answered, requests, detail),
            )
            verdict = "meets" if loads[rate].point.meets_slo else "misses"
            observer.advance("server", requests, requests, f"{detail} {verdict} the target")
            if loads[rate].error:
                observer.warn(f"{self.id}: engine failed ({loads[rate].error})")
            return loads[rate].point

        start_rate, least_rate = self._warm_up_every_size(), FEWEST_REQUESTS / LONGEST_LOAD_S
        with self._metered():
            curve = find_rate(run_at, slo_ms=plan.slo_ms, start_rate=start_rate, least_rate=least_rate)
        best, _ = bracket(curve)
        self.server = ServerResult(
            slo_ms=plan.slo_ms,
            window_ms=plan.window_ms,
            max_batch=self.id.batch_size,
            seed=plan.seed,
            curve=curve,
            best_rate_per_s=best,
        )
        kept = loads[best if best is not None else min(loads)]
        self.answers = Answers(kept.logits[:, self.workload.label_order], kept.rows)

    def _warm_up_every_size(self) -> float:
        """Run one batch of every size up to the largest. Returns requests/s at the largest size."""
        tokens, largest = self.workload.tokens, self.id.batch_size
        count = len(tokens.lengths)
        if self.cold_ms is not None:
            # Request i is pair i mod `count`, so these are all possible batches.
            sizes = range(1, largest + 1)
            rows = (np.arange(first, first + size) % count for size in sizes for first in range(count))
            self.cold_ms += self._ms_of(first_of_each_shape(self.session, map(tokens.batch_of, rows)))
        for size in range(1, largest + 1):
            _, milliseconds = timed(partial(self.session.infer, tokens.batch_of(np.arange(size) % count)))
        return largest * 1e3 / milliseconds

    @property
    def pipeline(self) -> Pipeline | None:
        """The steps from text to logits. Each batch is tokenised separately."""
        return _pipeline(self, whole=False)

    def row(self, truth: Labels, reference: Labels | None, *, fixed_shape: bool) -> BenchRow:
        """The results so far, including the loads that were tried."""
        made = super().row(truth, reference, fixed_shape=fixed_shape)
        lost = sum(point.failed for point in self.server.curve) if self.server else 0
        return replace(made, server=self.server, failed=made.failed + lost)


def _pipeline(row: RowMeasurement, *, whole: bool) -> Pipeline | None:
    probe, workload = probe_of(row.session), row.workload
    if probe is None:
        return None
    return Pipeline(probe, workload.tokens, workload.tokenise, [batch.rows for batch in workload.batches], whole)


def _larger(one: PeakMemory, other: PeakMemory) -> PeakMemory:
    def larger(first: int | None, second: int | None) -> int | None:
        return second if first is None else first if second is None else max(first, second)

    return PeakMemory(in_use=larger(one.in_use, other.in_use), reserved=larger(one.reserved, other.reserved))
