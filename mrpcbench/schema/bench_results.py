"""The results of `bench` and `ab`. Standard library only."""

from typing import Literal

from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.fields import about, described
from mrpcbench.schema.gate_requests import AbPlan
from mrpcbench.schema.identity import ModelIdentity, Placement
from mrpcbench.schema.requests import BackendSpec, Order, Scenario
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import Comparison

Stage = Literal["opening", "warm-up", "measurement"]
SpanName = Literal["tokenise", "batch", "copy in", "compute", "copy out"]


@described
class LoadPoint:
    """One load of the server scenario: requests arrive at random times, at a fixed mean rate."""

    rate_per_s: float = about("Mean rate at which requests were scheduled.")
    sent: int = about("Requests sent, each with one pair.")
    failed: int = about("Requests that the engine failed to answer.")
    latencies_ms: tuple[float, ...] = about(
        "Latency of each answered request, from its scheduled arrival to its answer, in the order of arrival."
    )
    batch_sizes: tuple[int, ...] = about("Number of requests in each forward pass, in the order run.")
    duration_s: float = about("Time from the first scheduled arrival to the last answer.")
    meets_slo: bool = about("Whether nothing failed and the 99th percentile of the latencies is within the target.")


@described
class ServerResult:
    """The server scenario of one row: latency against load, and the largest load that meets the target."""

    slo_ms: float = about("Target for the 99th percentile of the latency.")
    window_ms: float = about("How long the first request of a batch waits to fill a batch.")
    max_batch: int = about("Largest number of requests in one forward pass.")
    seed: int = about("Seed of the arrivals.")
    curve: tuple[LoadPoint, ...] = about("The loads that were tried, in the order tried.")
    best_rate_per_s: float | None = about("Largest rate tried that meets the target; null if none did.")


@described
class Work:
    """The work that any implementation must do for one round of a row. Padding is not work."""

    flops: float = about("Floating-point operations on the real tokens: matrix products and attention.")
    moved_bytes: float = about("Bytes that must cross main or GPU memory: all weights once per forward pass.")


@described
class Ceilings:
    """Peak compute and bandwidth of a device in one precision, measured in the same run."""

    device: str = about("Device that was measured.")
    dtype: str = about("Precision of the matrix product.")
    flops_per_s: float = about("Best rate of a large matrix product.")
    bytes_per_s: float = about("Best rate of a large copy, counting reads and writes.")


@described
class Resources:
    """What a row used while it was timed. A field is null without a sensor."""

    metered_s: float | None = about(
        "Seconds over which the sensors were read: the timed rounds or loads.", default=None
    )
    rss_bytes: int | None = about("Main memory of the process at the end of the row.")
    cpu_utilisation: float | None = about("Mean number of cores that the process kept busy.")
    cpu_waits: tuple[float, ...] | None = about(
        "For each round, the mean number of threads of the process that waited for a core that another program used; "
        "for server, one value over all loads. Null if the system does not report it, and with more threads than "
        "cores, because these wait for each other.",
        default=None,
    )
    gpu_memory_process_bytes: int | None = about("GPU memory of the process.")
    gpu_clock_mhz: float | None = about("Mean clock of the GPU's multiprocessors.")
    gpu_temperature_c: float | None = about("Highest temperature of the GPU.")
    gpu_power_w: float | None = about("Mean power of the GPU.")
    gpu_energy_j: float | None = about("Energy of the GPU over the row.")
    gpu_throttle_reasons: tuple[str, ...] | None = about("Why the GPU slowed itself down; empty if it did not.")
    gpu_foreign_processes: int | None = about("Other processes seen computing on the GPU.")


@described
class Span:
    """One part of the pipeline from text to logits, timed in a separate pass with device synchronisation."""

    name: SpanName = about(
        "tokenise: text to tokens; batch: tokens to padded arrays; copy in: arrays to the device; compute: the forward "
        "pass; copy out: logits to the host."
    )
    samples_ms: tuple[float, ...] = about("Time of each run, in the order run.")


@described
class RowSummary:
    """The main figures of a row, computed from its samples as for the tables, and again whenever a record is read.

    Each is null without enough samples.
    """

    pairs_per_s: float | None = about(
        "Pairs per second: over all calls (single-stream), of the median pass (offline), or the best load's rate "
        "(server).",
        default=None,
    )
    p50_ms: float | None = about(
        "Median time of one pair (single-stream), or of a request at the best load (server); null for offline, whose "
        "samples are whole passes.",
        default=None,
    )
    p90_ms: float | None = about("90th percentile of the same; single-stream needs 64 samples.", default=None)
    p99_ms: float | None = about("99th percentile of the same; single-stream needs 662 samples.", default=None)
    speedup: float | None = about(
        "Speedup over `reference`: the median over the rounds of the ratio of both times; for server, of the rates. "
        "Null for the reference itself.",
        default=None,
    )
    reference: str | None = about(
        "The reference row: the fastest row of the scenario's first case; null for that row.",
        default=None,
    )


@described
class BenchRow:
    """One benchmark case in one scenario at one batch size."""

    case: str = about("Name of the benchmark case: the backend, or the name that the preset gives it.")
    spec: BackendSpec = about("What was requested of the engine.")
    placement: Placement = about("What really ran.")
    model: ModelIdentity = about("The weights and the graph.")
    scenario: Scenario = about(
        "single-stream: a sample is one pair; offline: a sample is one pass over all pairs; server: see `server`."
    )
    batch_size: int = about("Pairs in one forward pass.")
    pairs: int = about("Pairs in one round.")
    real_tokens: int = about("Tokens that are not padding, in one round.")
    padding_tokens: int = about(
        "Padding that the engine computes in one round, in tokens; with CUDA graphs, also what fills a captured shape."
    )
    open_ms: float = about("Time to load the model into the engine, in milliseconds.")
    first_ms: float = about(
        "Time of the row's first call, which is not a sample; an engine's first row also includes its start-up."
    )
    cold_ms: float | None = about(
        "Time of the calls that prepare the engine for every shape of the row, including the first call, for an engine "
        "that compiles, captures CUDA graphs or plans its kernels at the first call per shape; null for any other.",
        default=None,
    )
    summary: RowSummary | None = about(
        "Throughput, latency and speedup; null in a file of an older version, and filled in when it is read.",
        default=None,
    )
    samples_ms: tuple[float, ...] = about("Time of each timed sample, in the order taken.")
    order: Order | None = about("Order of the offline pairs; null for the other scenarios.", default=None)
    server: ServerResult | None = about("Latency against load; null for the other scenarios.", default=None)
    accuracy: float | None = about(
        "Accuracy of the timed predictions; a failed pair counts as wrong; null for a fixed shape."
    )
    f1: float | None = about("F1 of the timed predictions; null for a fixed shape.")
    agreement: float | None = about(
        "Label agreement with the reference answers (see `reference`), as a share of the timed pairs; a failed pair "
        "never agrees; null for a fixed shape, and while there are no reference answers.",
        default=None,
    )
    failed: int = about(
        "Pairs of the last round whose logits were not finite, or requests that were not answered.", default=0
    )
    peak_memory_bytes: int | None = about(
        "Peak GPU memory that the engine had in use during the row; null if the engine does not report it."
    )
    peak_reserved_bytes: int | None = about(
        "Peak GPU memory that the engine reserved during the row; null if the engine does not report it.",
        default=None,
    )
    spans: tuple[Span, ...] | None = about("The time breakdown; null until its pass has run.", default=None)
    work: Work | None = about(
        "The least work of the model for one round; null if its architecture or precision is unknown.",
        default=None,
    )
    resources: Resources | None = about("What the row used.", default=None)
    broken_rules: tuple[str, ...] | None = about(
        "Validity rules that the row fails (docs/bench.md); null until they are checked.", default=None
    )

    def __post_init__(self) -> None:
        # Fail early for a row without a text form, which no policy or option could name.
        _ = self.id

    @property
    def id(self) -> RowId:
        """The identity of the row within its record."""
        return RowId(case=self.case, scenario=self.scenario, batch_size=self.batch_size)


@described
class FailedCase:
    """A benchmark case that was left out because its engine failed; it has no rows."""

    case: str = about("Name of the benchmark case.")
    stage: Stage = about(
        "When it failed. opening: the model was loaded; warm-up: the untimed calls; measurement: the timed calls."
    )
    reason: str = about("The reason, in one line.")


@described
class ReferenceAnswers:
    """The answers with which those of the other rows are compared."""

    row: str = about("The row that gave the answers, such as 'onnx offline batch 32'.")
    labels: str = about("Label of each pair in the order of the run: 0, 1, or - for a missing or non-finite answer.")


@described
class BenchSection:
    """What `bench` measured."""

    plan: BenchPlan = about("The requested workload; the preset chooses any empty field.")
    rows: tuple[BenchRow, ...] = about("One for each case, scenario and batch size.")
    failed: tuple[FailedCase, ...] = about("The cases that were left out because their engine failed.", default=())
    rounds_done: int = about("Rounds finished.")
    ceilings: tuple[Ceilings, ...] = about(
        "Peak compute and bandwidth of the machine in this run; empty until its end.", default=()
    )
    reference: ReferenceAnswers | None = about(
        "The timed answers of the first case, from its last offline round if it has one; null until there are any, "
        "and if there is only one case.",
        default=None,
    )
    control_us: tuple[float, ...] = about(
        "Time of a fixed small operation on all threads before each round, in microseconds; it shows the state of the "
        "machine. Empty unless all engines run on the CPU.",
        default=(),
    )
    peak_rss_bytes: int = about("Peak main memory of the process, with all engines.")


@described
class AbSide:
    """One side of a live comparison, as its processes really ran."""

    spec: BackendSpec = about("What was requested of the engine.")
    placement: Placement = about("What really ran.")
    model: ModelIdentity = about("The weights and the graph.")
    python: str = about("Python version.")
    packages: dict[str, str] = about("Installed version of each package that can change a result.")


@described
class AbPair:
    """A pair of processes, one per side. Its result is the median of ln(B / A) over blocks of four calls, A B B A."""

    first: Literal["a", "b"] = about("Side that ran first.")
    a_samples_ms: tuple[float, ...] = about("Time of each timed call of side A, in the order run.")
    b_samples_ms: tuple[float, ...] = about("Time of each timed call of side B, in the order run.")
    disturbances: tuple[str, ...] = about("What disturbed either process; a disturbed pair does not count.", default=())


@described
class AbSection:
    """What `ab` measured, and its verdict."""

    plan: AbPlan = about("The requested comparison.")
    a: AbSide = about("Side A, the reference.")
    b: AbSide = about("Side B, which is judged.")
    pairs: tuple[AbPair, ...] = about("The pairs of processes, in the order run.")
    confirmation: tuple[AbPair, ...] = about("As many pairs again, run only if B looked slower.", default=())
    comparison: Comparison | None = about("The verdict; null until the run ends.", default=None)
