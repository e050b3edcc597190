"""The time breakdown from text to logits, step by step, from separate passes that give no samples.

Each step ends with device synchronisation, which a normal call does not have. So the steps together take longer than a
call.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.session import Event, Probe
from mrpcbench.data.batches import EncodedPairs
from mrpcbench.instruments.trace import TOP
from mrpcbench.schema.bench_results import Span, SpanName

T = TypeVar("T")
Rows = NDArray[np.int64]
Tokenise = Callable[[Rows], EncodedPairs]

# The number of calls with single pairs or requests. Their order is arbitrary, so the first ones are representative.
CALLS = 100
# A call of ModernBERT-base runs about a thousand operators, and a trace of more calls is slow to open.
PROFILED_CALLS = 10


@dataclass(frozen=True)
class Pipeline:
    """The steps from text to logits. `cut` lists the pairs of each batch; `tokenise` tokenises pairs.

    With `whole`, all pairs are tokenised at once, which sorting by length requires; otherwise each batch separately.
    With a fixed shape, `tokenise` is None and `tokens` are used as they are.
    """

    probe: Probe
    tokens: EncodedPairs
    tokenise: Tokenise | None
    cut: Sequence[Rows]
    whole: bool

    def spans(self) -> tuple[Span, ...]:
        """The times of each step. Steps that did not run are omitted."""
        cut = self.cut if self.whole else self.cut[:CALLS]
        self._run(cut[:1], Stopwatch(self.probe.wait))  # warm-up: a first call selects kernels and allocates memory
        watch = Stopwatch(self.probe.wait)
        self._run(cut, watch)
        return watch.spans()

    def events(self) -> list[Event]:
        """The steps of a few calls, evenly spread over all batches, and the engine's operators within them."""
        watch = Stopwatch(self.probe.wait)
        chosen = self.cut[:: -(-len(self.cut) // PROFILED_CALLS)]
        with self.probe.operators() as operators:
            self._run(chosen, watch)
        return [*watch.events, *operators]

    def _run(self, cut: Sequence[Rows], watch: "Stopwatch") -> None:
        for tokens, rows in self._tokens(cut, watch):
            batch = watch.time("batch", partial(tokens.batch_of, rows))
            inputs = watch.time("copy in", partial(self.probe.copy_in, batch))
            outputs = watch.time("compute", partial(self.probe.compute, inputs))
            watch.time("copy out", partial(self.probe.copy_out, outputs))

    def _tokens(self, cut: Sequence[Rows], watch: "Stopwatch") -> Iterator[tuple[EncodedPairs, Rows]]:
        """For each batch, encoded pairs and the rows among them that make up the batch."""
        if self.tokenise is None:
            yield from ((self.tokens, rows) for rows in cut)
        elif self.whole:
            tokens = watch.time("tokenise", partial(self.tokenise, np.concatenate(cut)))
            ends = np.cumsum([len(rows) for rows in cut])
            yield from ((tokens, np.arange(end - len(rows), end)) for rows, end in zip(cut, ends, strict=True))
        else:
            for rows in cut:
                yield watch.time("tokenise", partial(self.tokenise, rows)), np.arange(len(rows))


@dataclass
class Stopwatch:
    """Times steps, each until the device has finished it."""

    wait: Callable[[], None]
    events: list[Event] = field(default_factory=list)

    def time(self, name: SpanName, work: Callable[[], T]) -> T:
        """Run `work`, record its time under `name`, and return its result."""
        begin = time.perf_counter_ns()
        result = work()
        self.wait()
        self.events.append(Event(name=name, track=TOP, begin_ns=begin, end_ns=time.perf_counter_ns()))
        return result

    def spans(self) -> tuple[Span, ...]:
        """The times of each step, in pipeline order."""
        found = {
            name: tuple((event.end_ns - event.begin_ns) / 1e6 for event in self.events if event.name == name)
            for name in get_args(SpanName)
        }
        return tuple(Span(name=name, samples_ms=samples) for name, samples in found.items() if samples)
