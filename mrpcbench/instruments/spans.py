"""Where the time between text and logits goes, part by part, in separate passes that no sample comes from.

Each part ends with a wait for the device, which a caller would not ask for: the parts of a call take longer than it.
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

# Calls of a pass over single pairs or requests, which come in no order, so that the first are as good as all.
CALLS = 100
# A call of ModernBERT-base runs some thousand operators; a trace of more calls is slow to open.
PROFILED_CALLS = 10


@dataclass(frozen=True)
class Pipeline:
    """The way from text to logits: `cut` says which pairs make each batch, `tokenise` makes tokens of pairs.

    With `whole` all pairs are tokenised at once, as sorting by length needs; else each batch by itself. Pairs of a
    fixed shape are not tokenised: `tokens` are there already.
    """

    probe: Probe
    tokens: EncodedPairs
    tokenise: Tokenise | None
    cut: Sequence[Rows]
    whole: bool

    def spans(self) -> tuple[Span, ...]:
        """The times of each part; a part that did not run is left out."""
        cut = self.cut if self.whole else self.cut[:CALLS]
        self._walk(cut[:1], Stopwatch(self.probe.wait))  # what a first call chooses or allocates is no part's time
        watch = Stopwatch(self.probe.wait)
        self._walk(cut, watch)
        return watch.spans()

    def events(self) -> list[Event]:
        """The parts of a few calls, evenly spread over all, with the engine's operators in them."""
        watch = Stopwatch(self.probe.wait)
        chosen = self.cut[:: -(-len(self.cut) // PROFILED_CALLS)]
        with self.probe.operators() as operators:
            self._walk(chosen, watch)
        return [*watch.events, *operators]

    def _walk(self, cut: Sequence[Rows], watch: "Stopwatch") -> None:
        for tokens, rows in self._tokens(cut, watch):
            batch = watch.time("batch", partial(tokens.batch_of, rows))
            inputs = watch.time("copy in", partial(self.probe.copy_in, batch))
            outputs = watch.time("compute", partial(self.probe.compute, inputs))
            watch.time("copy out", partial(self.probe.copy_out, outputs))

    def _tokens(self, cut: Sequence[Rows], watch: "Stopwatch") -> Iterator[tuple[EncodedPairs, Rows]]:
        """For each batch, tokens and which of them it is made of."""
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
    """Times parts, each until the device is done with it."""

    wait: Callable[[], None]
    events: list[Event] = field(default_factory=list)

    def time(self, name: SpanName, work: Callable[[], T]) -> T:
        """What `work` returns; its time is added to those of `name`."""
        begin = time.perf_counter_ns()
        result = work()
        self.wait()
        self.events.append(Event(name=name, track=TOP, begin_ns=begin, end_ns=time.perf_counter_ns()))
        return result

    def spans(self) -> tuple[Span, ...]:
        """The times of each part, in the order of the way."""
        found = {
            name: tuple((event.end_ns - event.begin_ns) / 1e6 for event in self.events if event.name == name)
            for name in get_args(SpanName)
        }
        return tuple(Span(name=name, samples_ms=samples) for name, samples in found.items() if samples)
