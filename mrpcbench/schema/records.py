"""The contents of a record: what really ran, and the results. Standard library only.

`store` makes the JSON Schema and its descriptions from these classes and from those of `plans` in their fields.
Units stand in names: `_ms`, `_s`, `_bytes`, `_per_s`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mrpcbench.records.upgrade import SCHEMA_VERSION
from mrpcbench.schema.requests import (
    AbPlan,
    BackendSpec,
    BenchPlan,
    Optimize,
    Order,
    Scenario,
    TrainRecipe,
    about,
    described,
)
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import Comparison, Interval, Verdict

Command = Literal["train", "evaluate", "export", "bench", "ab"]
SpanName = Literal["tokenise", "batch", "copy in", "compute", "copy out"]
Weights = Literal["pretrained", "fine-tuned", "random-init"]
Origin = Literal["pretrained", "random-init", "unknown"]


# --- what really ran --------------------------------------------------------------------------------------------------


@described
class Placement:
    """Where and how an engine really ran, read back from the engine itself."""

    engine: str = about("Library that ran the model, with its version.")
    device: str = about("Device that computed: cpu, or cuda with the GPU's name.")
    provider: str = about("The engine's kernels: torch's attention implementation, or ONNX Runtime's provider.")
    dtype: str = about(
        "Arithmetic: fp32, bf16, fp16 or int8, to which stored weights are widened; for training, that of autocast. "
        "bf16-autocast: products in bf16, by torch.autocast, with weights in fp32."
    )
    threads: int = about("CPU threads inside one operator.")

    def __str__(self) -> str:
        return f"{self.engine} {self.provider}"

    @property
    def in_words(self) -> str:
        """Engine, kernels, arithmetic and device."""
        return f"{self} {self.dtype} on {self.device}"

    @property
    def product_dtype(self) -> str:
        """Arithmetic of the matrix products, which determines work and limits: bf16 for bf16-autocast."""
        return self.dtype.removesuffix("-autocast")


@described
class Environment:
    """The machine and the software. No field names a person, a host or a folder."""

    started_at: str = about("Start in UTC, ISO 8601.")
    argv: tuple[str, ...] = about("The command as given; a path is cut to its last part.")
    machine_sha256: str = about("Hash that identifies the machine without naming it.")
    system: str = about("Operating system and processor architecture.")
    cpu: str = about("Processor model.")
    cpu_cores: int = about("Logical cores that this process may use.")
    memory_bytes: int = about("Main memory.")
    gpu: str | None = about("GPU model; null if there is none.")
    gpu_memory_bytes: int | None = about("GPU memory; null if there is none.")
    gpu_driver: str | None = about("GPU driver version; null if there is none.")
    cuda: str | None = about("CUDA version that torch was built for; null for a CPU build.")
    python: str = about("Python version.")
    packages: dict[str, str] = about("Installed version of each package that can change a result.")
    settings: dict[str, str] = about("Environment variables that were set and affect the libraries.")
    git_commit: str | None = about("Commit of the mrpcbench source; null if it is not a checkout.")
    git_dirty: bool | None = about("Whether that checkout had uncommitted changes.")
    source_sha256: str | None = about("Hash over the Python files of mrpcbench.", default=None)


@described
class ModelIdentity:
    """The weights and the graph of a record."""

    name: str = about("Hub id, or the folder's last part.")
    architecture: str = about("Class name in config.json.")
    parameters: int = about("Number of weights.")
    weights: Weights = about("pretrained (no classifier yet), fine-tuned, or random-init (never trained).")
    origin: Origin = about("What training began from; a classifier trained from random weights is not ModernBERT's.")
    model_sha256: str = about("Hash over the names, dtypes, shapes and bytes of all weights.")
    tokenizer_sha256: str = about("Hash of tokenizer.json, or of the vocabulary if there is none.")
    graph_sha256: str | None = about("Hash of the ONNX graph's files; null for torch.", default=None)
    optimize: Optimize | None = about(
        "What the ONNX graph was made for: none (Optimum's own), cpu, cuda, int8; or o3, o4 (Optimum's, by its own "
        "optimiser); null for torch or where unknown.",
        default=None,
    )
    proven: bool | None = about("Whether the graph passed the export gate; null for torch.", default=None)
    proven_on: str | None = about("Device on which the graph passed the export gate; null if it did not.", default=None)

    @property
    def graph_label(self) -> str:
        """The graph's form in words, unless it is Optimum's own: "cpu graph"."""
        return f"{self.optimize} graph" if self.optimize not in (None, "none") else ""

    @property
    def label(self) -> str:
        """Where the weights come from, and the graph's form."""
        return ", ".join(filter(None, (self.weights_label, self.graph_label)))

    @property
    def weights_label(self) -> str:
        """The words for a table, which always mention random weights."""
        if self.weights == "fine-tuned" and self.origin == "random-init":
            return "fine-tuned from random-init"
        return self.weights


@described
class Lineage:
    """The origin of a model, written next to it (`mrpcbench.json`)."""

    schema_version: str = about("Version of this format: major.minor.", default=SCHEMA_VERSION)
    model: ModelIdentity = about("The model in this folder.")
    base_model: str | None = about(
        "Hub id or folder name that training began from; null if it is unknown.", default=None
    )
    base_model_sha256: str | None = about("Hash of the weights that training began from.", default=None)
    train_data_sha256: str | None = about("Hash of the training pairs.", default=None)
    validation_data_sha256: str | None = about("Hash of the pairs by which the best epoch was chosen.", default=None)
    recipe: TrainRecipe | None = about("How it was trained; null if this project did not train it.", default=None)
    precision: str | None = about("Arithmetic in which it was trained.", default=None)
    dtype: str = about("Arithmetic of the stored weights.", default="fp32")


@described
class DataIdentity:
    """The pairs of a record."""

    source: str = about("Where the pairs came from.")
    split: str = about("Split name.")
    pairs: int = about("Number of pairs.")
    positives: int = about("Pairs labelled as equivalent.")
    label_names: tuple[str, str] = about("Names of labels 0 and 1.")
    data_sha256: str = about("Hash over the ordered pairs and labels, whatever format they came in.")


@dataclass(frozen=True, kw_only=True)
class EnvironmentReport:
    """The environment, and each engine on each device with None, or with the reason why it cannot run there."""

    environment: Environment
    problems: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class KeptBaseline:
    """What `baseline set` wrote: the baseline's name, the command of its records, and their files."""

    name: str
    command: Command
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PairAnswer:
    """A model's answer for one pair."""

    sentence1: str
    sentence2: str
    label: int
    label_name: str
    probability: float
    logits: tuple[float, float]
    weights: str
    placement: Placement


# --- results ----------------------------------------------------------------------------------------------------------


@described
class Confusion:
    """Counts of a binary classification; positive means equivalent."""

    true_positive: int = about("Equivalent, predicted so.")
    false_positive: int = about("Not equivalent, predicted equivalent.")
    false_negative: int = about("Equivalent, predicted not equivalent.")
    true_negative: int = about("Not equivalent, predicted so.")


@described
class EvalScore:
    """Scores of a classifier on labelled pairs, with those of always answering the larger class."""

    pairs: int = about("Pairs scored.")
    accuracy: float = about("Share predicted correctly.")
    accuracy_interval: Interval = about("Interval of the accuracy.")
    f1: float = about("F1 of the class 'equivalent' (GLUE's definition); 0 if it is undefined.")
    f1_interval: Interval = about("Interval of F1.")
    precision: float = about("Precision of 'equivalent'; 0 if nothing was predicted so.")
    recall: float = about("Recall of 'equivalent'.")
    loss: float | None = about("Mean cross-entropy in nats; null if it is not finite.")
    confusion: Confusion = about("The four counts.")
    majority_accuracy: float = about("Accuracy of always answering the larger class.")
    majority_f1: float = about("F1 of always answering the larger class.")


@described
class EpochMetrics:
    """One line of the training log: what the Trainer logged at the end of an epoch."""

    step: int = about("Optimiser steps so far.")
    train_loss: float | None = about(
        "Mean training loss of the steps since the last line, or since the run was resumed; null if it is not finite."
    )
    train_grad_norm: float | None = about("Gradient norm of the last step, before clipping.")
    train_learning_rate: float = about("Learning rate of the last step.")
    train_epoch: float = about("Epochs so far.")
    eval_loss: float | None = about("Validation loss; null if it is not finite.")
    eval_accuracy_score: float = about("Validation accuracy.")
    eval_f1_score: float = about("Validation F1.")


@described
class LoadReport:
    """Keys that did not match when the weights were loaded; the new classification head is not among them."""

    new_head: tuple[str, ...] = about("Weights of the classification head that were newly initialised.", default=())
    missing: tuple[str, ...] = about(
        "Weights of the encoder that the checkpoint lacks and that were newly initialised.", default=()
    )
    unexpected: tuple[str, ...] = about("Weights in the checkpoint that the classifier does not use.", default=())
    loaded_sha256: str | None = about(
        "Hash of the weights that came from the checkpoint, if others were newly initialised; null if none were.",
        default=None,
    )


@described
class TrainSection:
    """What `train` did."""

    recipe: TrainRecipe = about("The requested recipe.")
    placement: Placement = about("Where and in which arithmetic it trained.")
    base_model: ModelIdentity = about("The model that training began from.")
    load_report: LoadReport = about("Keys that did not match when that model was loaded.")
    aligned_tokens: dict[str, int | None] = about("Special tokens of the config that were aligned with the tokenizer.")
    total_steps: int = about("Optimiser steps of the whole run.")
    resumed_from_step: int | None = about("Step of the checkpoint that the run continued from; null for a fresh run.")
    epochs: tuple[EpochMetrics, ...] = about("One line per epoch.")
    best_step: int | None = about("Step whose weights were kept; null until the run ends.")
    train_s: float | None = about(
        "Wall-clock seconds of the training loop in this process, with its evaluations and saves; null if this "
        "process had no step left to train."
    )
    cold_s: float | None = about(
        "Part of train_s for one-time work: the first step, and later CUDA graph recordings of --engine packed.",
        default=None,
    )
    evaluate_s: float | None = about("Part of train_s for the evaluations.", default=None)
    save_s: float | None = about("Part of train_s for saving checkpoints.", default=None)
    real_tokens: int = about("Training tokens that are not padding, in this process.")
    padding_tokens: int = about("Training tokens that are padding, in this process.")


@described
class EvaluateSection:
    """Results of `evaluate`."""

    spec: BackendSpec = about("What was requested of the engine.")
    placement: Placement = about("What really ran.")
    batch_size: int = about("Pairs in one forward pass.")
    score: EvalScore = about("The score.")
    predictions_file: str = about("Name of the file of predictions, one JSON line per pair.")
    predictions_sha256: str = about("Hash of that file.")
    real_tokens: int = about("Tokens that are not padding.")
    padding_tokens: int = about("Tokens that are padding.")


@described
class ParityTrial:
    """Both models on every pair, at one batch size and padding."""

    batch_size: int = about("Pairs in one forward pass.")
    padding: str = about("Padding of the batches.")
    padding_tokens: int = about("Tokens that are padding.")
    flips: int = about("Pairs whose prediction differs.")
    max_abs_delta: float | None = about("Largest |difference| of a logit; null if a logit is not finite.")
    p99_abs_delta: float | None = about("99th percentile of the |differences|; null if a logit is not finite.")
    f1: float | None = about("F1 of the graph's predictions; null if the split has no labels.", default=None)


@described
class ExportGate:
    """Whether an exported graph gives the model's answers (the rule: docs/export.md)."""

    pairs: int = about("Pairs compared in each trial.")
    trials: tuple[ParityTrial, ...] = about("One for each batch size and padding.")
    flips_allowed: int = about("Largest number of flips that passes, in any trial.")
    delta_allowed: float | None = about("Largest |difference| of a logit that passes; null if only labels are judged.")
    f1_allowed: Interval | None = about(
        "Interval of the original's F1 that must contain every trial's; null if F1 is not judged: for an arithmetic "
        "other than int8, or because the split has no labels.",
        default=None,
    )
    smallest_margin: float | None = about(
        "Smallest |logit 1 - logit 0| of the original model over the pairs; null if one is not finite."
    )
    headroom: float | None = about(
        "Smallest margin divided by the largest |difference|: above 2 no label can change; "
        "null if the difference is 0 or not finite."
    )
    flip_rate_bound: float = about("Exact upper bound at 95% of the rate of flips on pairs like these.")
    verdict: Verdict = about("The outcome.")


@described
class ExportSection:
    """What `export` wrote, and whether it matches the model."""

    dtype: str = about("Arithmetic of the graph.")
    optimize: Optimize = about(
        "What the graph was made for; none is Optimum's own, o3 and o4 are that after Optimum's optimiser.",
        default="none",
    )
    opset: int = about("ONNX operator set of the graph.")
    nodes: int = about("Nodes of the graph.")
    files: dict[str, int] = about("Files of the ONNX model and their sizes in bytes.")
    placement: Placement = about("Where the graph ran for the export gate.")
    reference: Placement = about("Where the original ran for the export gate.")
    gate: ExportGate | None = about("The result of the export gate; null until it is done.")


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


@described
class RunRecord:
    """The fields that the record of every command has; each command has its own class with its result."""

    schema_version: str = about("Version of this format: major.minor.", default=SCHEMA_VERSION)
    command: Command = about("The command that ran, which names the field of its result.")
    complete: bool = about("False until the run ends; it stays false if the run was interrupted.")
    environment: Environment = about("The machine and the software.")
    model: ModelIdentity = about("The model that the record is about.")
    data: tuple[DataIdentity, ...] = about("The splits that were read.")


@described
class TrainRecord(RunRecord):
    """One run of `train`."""

    command: Literal["train"] = about("The command that ran.", default="train")
    train: TrainSection = about("Its result.")


@described
class EvaluateRecord(RunRecord):
    """One run of `evaluate`."""

    command: Literal["evaluate"] = about("The command that ran.", default="evaluate")
    evaluate: EvaluateSection = about("Its result.")


@described
class ExportRecord(RunRecord):
    """One run of `export`."""

    command: Literal["export"] = about("The command that ran.", default="export")
    export: ExportSection = about("Its result.")


@described
class BenchRecord(RunRecord):
    """One run of `bench`."""

    command: Literal["bench"] = about("The command that ran.", default="bench")
    bench: BenchSection = about("Its result.")


@described
class AbRecord(RunRecord):
    """One run of `ab`."""

    command: Literal["ab"] = about("The command that ran.", default="ab")
    ab: AbSection = about("Its result.")


Record = TrainRecord | EvaluateRecord | ExportRecord | BenchRecord | AbRecord
RECORDS: Mapping[str, type[Record]] = {
    "train": TrainRecord,
    "evaluate": EvaluateRecord,
    "export": ExportRecord,
    "bench": BenchRecord,
    "ab": AbRecord,
}
