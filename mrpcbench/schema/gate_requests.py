"""The requests of `compare`, `ab`, `baseline set` and `report`. Standard library only."""

from mrpcbench.schema.fields import about, described
from mrpcbench.schema.requests import DATA_HELP, DEFAULT_MODEL_DIR, SPLIT_HELP, Device, Dtype, Split

# Upper bounds of two limits, which both `compare` and the policy file can set. Both limits must also be above 0.
MARGIN_BELOW = 1
# As a share. A larger limit of stored speed would let a real slowdown pass.
LARGEST_SLOWDOWN = 0.5

B_HELP = " of side B; default: the same as side A."


@described
class AbPlan:
    """Two sides, A and B, and how `ab` compares the speed of B with A."""

    a_model: str = about(
        "Model of side A, the reference: a folder, an ONNX folder or a hub id.",
        default=DEFAULT_MODEL_DIR,
        group="Model and data",
        location="name or path",
    )
    b_model: str | None = about("Model" + B_HELP, default=None, group="Model and data", location="name or path")
    a_backend: str = about("Engine of side A.", default="torch", engine=True, group="Model and data")
    b_backend: str | None = about("Engine" + B_HELP, default=None, engine=True, group="Model and data")
    a_device: Device = about("Device of side A; 'auto' uses CUDA if it works.", default="auto", group="Model and data")
    b_device: Device | None = about("Device" + B_HELP, default=None, group="Model and data")
    a_dtype: Dtype = about("Precision of side A.", default="auto", group="Model and data")
    b_dtype: Dtype | None = about("Precision" + B_HELP, default=None, group="Model and data")
    a_threads: int = about(
        "CPU threads of side A; 0: OMP_NUM_THREADS, or the usable cores.",
        default=0,
        minimum=0,
        maximum=4096,
        group="Advanced",
    )
    b_threads: int | None = about("CPU threads" + B_HELP, default=None, minimum=0, maximum=4096, group="Advanced")
    a_python: str | None = about(
        "Python interpreter of side A, with the libraries of its environment; default: this one.",
        default=None,
        group="Model and data",
        location="file",
    )
    b_python: str | None = about(
        "Python interpreter of side B, with the libraries of its environment; default: this one.",
        default=None,
        group="Model and data",
        location="file",
    )
    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path", metavar="DIR|NAME")
    split: Split = about(SPLIT_HELP, default="validation", group="Model and data")
    batch_size: int = about("Pairs in one forward pass.", default=1, minimum=1, group="Timing")
    calls: int = about(
        "Timed calls of each process, alternating with the other side's.", default=50, minimum=50, group="Timing"
    )
    warmup: int = about("Untimed calls of each process before the timed ones.", default=10, minimum=0, group="Advanced")
    process_pairs: int = about(
        "Pairs of processes, one of each side; their order alternates.", default=10, minimum=1, group="Timing"
    )
    seed: int = about("Seed of the pairs' order.", default=0, minimum=0, group="Advanced")
    policy: str | None = about(
        "File with the limits (TOML); default: the bundled gate.toml.", default=None, group="Limits", location="file"
    )


@described
class ComparePlan:
    """The limits of `compare`."""

    policy: str | None = about(
        "File with the limits (TOML); default: the bundled gate.toml.", default=None, group="Limits", location="file"
    )
    margin: float | None = about(
        "evaluate records: require proof that accuracy fell by less than this share (non-inferiority test); 0.02 is "
        "two points. INCONCLUSIVE without that proof.",
        default=None,
        minimum=0,
        maximum=MARGIN_BELOW,
        group="Limits",
    )
    max_slowdown: float | None = about(
        "bench records: largest slowdown per pair that passes, as a share above 0; default: the policy's, 0.1.",
        default=None,
        minimum=0,
        maximum=LARGEST_SLOWDOWN,
        group="Limits",
    )
    min: tuple[str, ...] = about(
        "Smallest value that passes, such as f1=0.9; needs no baseline. Repeatable.",
        default=(),
        group="Limits",
        metavar="[ROW:]METRIC=NUMBER",
    )
    max: tuple[str, ...] = about(
        "Largest value that passes, such as p99_ms=2 or 'onnx single-stream:p99_ms=1'; needs no baseline. Repeatable.",
        default=(),
        group="Limits",
        metavar="[ROW:]METRIC=NUMBER",
    )
    allow_missing_baseline: bool = about(
        "Exit with 0 if the baseline does not exist yet and no limit is set; show the command that creates it.",
        default=False,
        group="Limits",
    )


@described
class BaselineFolder:
    """Where baselines are kept."""

    folder: str = about(
        "Folder of the baselines; each has its own folder in it.",
        default="results/baselines",
        group="Output",
        location="folder",
    )


@described
class BaselineRequest:
    """Whether an existing baseline is replaced."""

    overwrite: bool = about("Replace the baseline of that name.", default=False, group="Output")


@described
class Publish:
    """Where to write a verdict, besides the terminal and, in GitHub Actions, the job's summary and annotations."""

    markdown: str | None = about(
        "Write the verdict to this file as Markdown.", default=None, group="Output", location="file"
    )
    junit: str | None = about(
        "Write the verdict to this file as JUnit XML, with a test case for each gated metric.",
        default=None,
        group="Output",
        location="file",
    )


@described
class ReportPlan:
    """What `report` must know to recommend a benchmark case, and what it writes."""

    max_f1_drop: float | None = about(
        "Largest loss of F1, in points, against the reference case; the bound of the 95% interval counts.",
        default=None,
        minimum=0,
        maximum=100,
        group="Limits",
    )
    max_p99_ms: float | None = about(
        "Largest 99th percentile of the time of one pair, in milliseconds; the case needs a VALID single-stream row.",
        default=None,
        minimum=0,
        group="Limits",
    )
    output: str | None = about(
        "Write all records to this file as a web page with figures; it ends in .html. Needs mrpcbench[report].",
        default=None,
        group="Output",
        location="file",
    )
    price_per_hour: float | None = about(
        "Price of this machine for an hour, above 0; adds the cost of a million pairs in its currency.",
        default=None,
        minimum=0,
    )
    csv: str | None = about(
        "Write the benchmark rows to this file as CSV, a line for each row.",
        default=None,
        group="Output",
        location="file",
    )
