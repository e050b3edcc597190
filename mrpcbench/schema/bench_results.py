"""The results of `bench`. Standard library only."""

from typing import Literal

from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.fields import about, described
from mrpcbench.schema.gate_requests import AbPlan
from mrpcbench.schema.identity import ModelIdentity, Placement
from mrpcbench.schema.requests import BackendSpec, Order, Scenario
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import Comparison

SpanName = Literal["tokenise", "batch", "copy in", "compute", "copy out"]


@described
class LoadPoint:
    """One load of the server scenario: requests arrive at random moments, at a fixed mean rate."""

    rate_per_s: float = about("Mean rate at which requests were scheduled.")
    sent: int = about("Requests sent; each is a pair.")
    failed: int = about("Requests that the engine failed to answer.")
    latencies_ms: tuple[float, ...] = about(
        "Time from the scheduled arrival of each answered request to its answer, in the order of arrival."
    )
    batch_sizes: tuple[int, ...] = about("Requests in each forward pass, in the order run.")
    duration_s: float = about("From the first scheduled arrival to the last answer.")
    meets_slo: bool = about("Whether nothing failed and the 99th percentile of the latencies is within the target.")


@described
class ServerResult:
    """The server scenario of one row: latency against load, and the largest load that meets the target."""

    slo_ms: float = about("Target for the 99th percentile of the latency.")
    window_ms: float = about("How long the first request of a batch waits to fill a batch.")
    max_batch: int = about("Most requests in one forward pass.")
    seed: int = about("Seed of the arrivals.")
    curve: tuple[LoadPoint, ...] = about("The loads that were tried, in the order tried.")
    best_rate_per_s: float | None = about("Largest rate tried that meets the target; null if none did.")


@described
class Work:
    """The least work of a model for one round of a row, whatever the implementation. Padding is not work."""

    flops: float = about("Floating-point operations on the real tokens: matrix products and attention.")
    moved_bytes: float = about("Bytes that must cross main or GPU memory: all weights once per forward pass.")


@described
class Ceilings:
    """Peak compute and bandwidth of the device, measured in the same run, in the arithmetic of a row."""

    device: str = about("Device that was measured.")
    dtype: str = about("Arithmetic of the matrix product.")
    flops_per_s: float = about("Best rate of a large matrix product.")
    bytes_per_s: float = about("Best rate of a large copy, counting reads and writes.")


@described
class Resources:
    """What a row used while it was timed; null without a sensor."""

    metered_s: float | None = about(
        "Seconds over which the sensors were read: those of the timed rounds or loads.", default=None
    )
    rss_bytes: int | None = about("Main memory of the process at the end of the row.")
    cpu_utilisation: float | None = about("Mean number of cores that the process kept busy.")
    cpu_waits: tuple[float, ...] | None = about(
        "For each round, mean number of the process's threads that were ready and waited for a core, because another "
        "program used it; for a server, one value over its loads. Null if the system does not report it, and with "
        "more threads than cores, which wait for each other.",
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
        "tokenise: text to tokens; batch: tokens to padded arrays; copy in: to where the engine computes; compute: the "
        "forward pass; copy out: logits back to the host."
    )
    samples_ms: tuple[float, ...] = about("Time of each run, in the order run.")


@described
class BenchRow:
    """One benchmark case in one scenario at one batch size. Medians and percentiles are computed when it is read."""

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
    padding_tokens: int = about("Tokens that are padding, in one round.")
    open_ms: float = about("Time to load the model into the engine, in milliseconds.")
    first_ms: float = about(
        "Time of the row's first call, which is not a sample; an engine's first row also includes its start-up."
    )
    cold_ms: float | None = about(
        "Time of the calls that prepare the engine for every shape of the row, including the first call: an engine "
        "that compiles, or records CUDA graphs, does so at the first call per shape; null for any other engine.",
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
        "Share of the timed answers whose label is that of the reference's timed answers (see `reference`); a failed "
        "pair never agrees; null for a fixed shape, and while the reference has no answers.",
        default=None,
    )
    failed: int = about(
        "Pairs of the last round whose logits were not finite, or requests that were not answered.", default=0
    )
    peak_memory_bytes: int | None = about(
        "Peak of the engine's own GPU memory in use during the row; null if the engine does not report it."
    )
    peak_reserved_bytes: int | None = about(
        "Peak of the GPU memory that the engine reserved during the row; null if the engine does not report it.",
        default=None,
    )
    spans: tuple[Span, ...] | None = about("Where the time goes; null until that pass has run.", default=None)
    work: Work | None = about(
        "The least work of the model in a round; null if its architecture or arithmetic is unknown.",
        default=None,
    )
    resources: Resources | None = about("What the row used.", default=None)
    broken_rules: tuple[str, ...] | None = about(
        "Rules of validity that the row breaks (docs/bench.md); null until it is judged.", default=None
    )

    def __post_init__(self) -> None:
        # Raises if the row has no text form, because policies, messages and options could not name it.
        _ = self.id

    @property
    def id(self) -> RowId:
        """What identifies the row within its record."""
        return RowId(case=self.case, scenario=self.scenario, batch_size=self.batch_size)


@described
class ReferenceAnswers:
    """The answers that those of the other rows are compared with."""

    row: str = about("The row that gave them, such as 'onnx offline batch 32'.")
    labels: str = about(
        "Label of each pair in the run's order, 0 or 1; - without an answer, or with one that is not finite."
    )


@described
class BenchSection:
    """What `bench` measured."""

    plan: BenchPlan = about("The requested workload; its preset chooses what is empty.")
    rows: tuple[BenchRow, ...] = about("One for each case, scenario and batch size.")
    rounds_done: int = about("Rounds finished.")
    ceilings: tuple[Ceilings, ...] = about(
        "Peak compute and bandwidth of the machine in this run; empty until its end.", default=()
    )
    reference: ReferenceAnswers | None = about(
        "The first case's timed answers, of its last offline round if it has one; null until there are any, and for "
        "a single case.",
        default=None,
    )
    control_us: tuple[float, ...] = about(
        "Microseconds of a fixed small operation on all threads before each round, which show the state of the "
        "machine; empty unless all engines run on the CPU.",
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
    """Two paired processes, one of each side. The result is the median of ln(B / A) over blocks of two turns."""

    first: Literal["a", "b"] = about("Side that ran first.")
    a_samples_ms: tuple[float, ...] = about("Time of each timed call of side A, in the order run.")
    b_samples_ms: tuple[float, ...] = about("Time of each timed call of side B, in the order run.")
    disturbances: tuple[str, ...] = about("What disturbed either process; a disturbed pair does not count.", default=())


@described
class AbSection:
    """What `ab` measured, and its verdict."""

    plan: AbPlan = about("The requested comparison.")
    a: AbSide = about("The reference side.")
    b: AbSide = about("The side that is judged.")
    pairs: tuple[AbPair, ...] = about("The pairs of processes, in the order run.")
    confirmation: tuple[AbPair, ...] = about("As many pairs again, run if the first looked slower.", default=())
    comparison: Comparison | None = about("The verdict; null until the run ends.", default=None)
