"""The requests of `bench`. Standard library only."""

from mrpcbench.schema.fields import about, described
from mrpcbench.schema.requests import DATA_HELP, SPLIT_HELP, Order, Preset, Scenario, Split


@described
class BenchPlan:
    """The workload of `bench`: the same pairs, in the same order, for every engine."""

    backend: tuple[str, ...] = about(
        "Engine to measure; repeat for several, which run interleaved.",
        default=("torch",),
        engine=True,
        group="Model and data",
    )
    preset: Preset | None = about(
        "Measure a set of cases. peers: common baselines and ours, for this device. A preset sets --backend, --dtype "
        "and --order, which cannot be given too, and also --scenario, --batch-size and --rounds unless given.",
        default=None,
        group="Model and data",
    )
    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path", metavar="DIR|NAME")
    split: Split = about(SPLIT_HELP, default="validation", group="Model and data")
    scenario: tuple[Scenario, ...] = about(
        "single-stream: one pair at a time; offline: all pairs at once, in batches; server: requests at random times, "
        "and the largest rate that meets the target. Repeatable.",
        default=("single-stream", "offline"),
        group="Timing",
    )
    batch_size: tuple[int, ...] = about(
        "Pairs in one forward pass; for server, the maximum. Repeatable.",
        default=(8, 32),
        minimum=1,
        group="Timing",
    )
    order: Order = about(
        "Order of the offline pairs: 'length' batches pairs of similar length, 'given' keeps the seeded order.",
        default="length",
        group="Advanced",
    )
    seq_len: int | None = about(
        "Give every pair this many tokens and no padding, as other harnesses do. The answers are then meaningless.",
        default=None,
        minimum=2,
        group="Advanced",
    )
    slo_ms: float = about(
        "Server: target for the 99th percentile of the latency.", default=100.0, minimum=0.001, group="Timing"
    )
    window_ms: float = about(
        "Server: how long the first request of a batch waits to fill a batch.", default=2.0, minimum=0, group="Timing"
    )
    rounds: int = about(
        "Rounds; in each, every row runs once over the pairs, in alternating order. A preset with few --pairs adds "
        "rounds until p99 can be shown.",
        default=5,
        minimum=1,
        group="Timing",
    )
    max_s: float = about(
        "Time limit in seconds for extra rounds while a row is INVALID because of noise; 0: no extra rounds.",
        default=60.0,
        flags=("--max-seconds",),
        minimum=0,
        group="Timing",
    )
    warmup: int = about(
        "Untimed calls of each row before the first round, after its first call.",
        default=3,
        minimum=0,
        group="Advanced",
    )
    pairs: int | None = about(
        "Number of pairs, drawn with the seed; default: the whole split.",
        default=None,
        minimum=1,
        group="Model and data",
    )
    seed: int = about("Seed of the pairs' order.", default=0, minimum=0, group="Advanced")


@described
class BenchControl:
    """What `bench` writes besides the record."""

    profile: str | None = about(
        "Write a trace of spans and operators to this file, for ui.perfetto.dev or chrome://tracing.",
        default=None,
        group="Output",
        location="file",
    )


@described
class BenchView:
    """How to show the tables of a benchmark."""

    relative_to: tuple[str, ...] = about(
        "Show the speedup of each row over this one, with an interval: CASE, CASE:BATCH, or a row such as 'onnx "
        "offline batch 32'. CASE is a backend or a case of the preset. Repeatable.",
        default=(),
        group="Output",
        metavar="CASE",
    )
