"""The vocabulary: what a user can ask for, what really ran, and what a record holds. Standard library only.

Every default of the project lives in exactly one of these classes. The command line makes its options from the request
classes (`TrainRequest`, `TrainRecipe`, `BackendSpec`, `EvaluatePlan`, `ExportPlan`, `BenchPlan`), and `store` makes the
JSON Schema and its descriptions from the record classes. Units stand in names: `_ms`, `_s`, `_bytes`, `_per_s`.
"""

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Literal

from mrpcbench.errors import UsageError

SCHEMA_VERSION = 1

DEFAULT_MODEL = "answerdotai/ModernBERT-base"
DEFAULT_MODEL_DIR = "aai_ModernBERT_mrpc_ft"
QUICKSTART = "quickstart"

Command = Literal["train", "evaluate", "export", "bench"]
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Backend = Literal["torch", "onnx", "fake"]
Scenario = Literal["single-stream", "offline", "server"]
Split = Literal["train", "validation", "test"]
Weights = Literal["pretrained", "fine-tuned", "random-init"]
Origin = Literal["pretrained", "random-init", "unknown"]
Outcome = Literal["PASS", "REGRESSION", "INCONCLUSIVE", "INCOMPARABLE"]

# pydantic reads this from a plain dataclass, so that the classes themselves need nothing but the standard library:
# an unknown field is an error, and "3" is not 3.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


def about(text: str, default: Any = MISSING, *, flags: tuple[str, ...] = (), least: float | None = None) -> Any:
    """A dataclass field with its meaning: the option's help, or the record field's description.

    `flags` replaces the option's name, which is otherwise the field's name with dashes; `least` is the smallest value
    that can be meant.
    """
    return field(default=default, metadata={"about": text, "flags": flags, "least": least})


def flags_of(item: Field[Any]) -> tuple[str, ...]:
    """The option names of a request's field."""
    return item.metadata["flags"] or (f"--{item.name.replace('_', '-')}",)


def check(*requests: Any) -> None:
    """Raise `UsageError` for a value of `requests` below the least that can be meant; verbs do so before any work."""
    for request in requests:
        for item in fields(request):
            least, value = item.metadata["least"], getattr(request, item.name)
            for one in value if isinstance(value, tuple) else (value,):
                if least is not None and one is not None and not one >= least:
                    raise UsageError(f"{flags_of(item)[-1]} {one:g}: at least {least:g}")


# --- what a user asks for ---------------------------------------------------------------------------------------------

MODEL_HELP = "Hub id (OWNER/NAME), model folder, ONNX folder, or 'quickstart' for the tiny checkpoint that ships here."
DATA_HELP = "'hub' (GLUE MRPC), a folder with MRPC or with CSV, JSONL or Parquet files, or 'quickstart'."
DEVICE_HELP = "Where to run; 'auto' takes CUDA where it works, and the record says which it was."
RANDOM_HELP = "Take random weights, made from config.json alone; every record says so."
SPLIT_HELP = "The split to read."


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `train` reads and writes; how it trains is the `TrainRecipe`."""

    model: str = about(MODEL_HELP, DEFAULT_MODEL)
    data: str = about(DATA_HELP, "hub")
    output_dir: str = about("Folder for the checkpoints, the fine-tuned model and its card.", DEFAULT_MODEL_DIR)
    device: Device = about(DEVICE_HELP, "auto")
    random_init: bool = about(RANDOM_HELP, False)
    resume: bool = about("Continue from the newest complete checkpoint in --output-dir.", False)
    overwrite: bool = about("Train anew although --output-dir holds a run; its checkpoints are removed.", False)
    report_to: str = about("Experiment tracker that the Trainer reports to (tensorboard, wandb, ...).", "none")
    push_to_hub: str | None = about("Upload the finished model to this hub repository (OWNER/NAME).", None)


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """How to fine-tune. Defaults: the reference run, a published notebook that fine-tunes ModernBERT-base on MRPC.

    What that run does not state (weight decay, gradient clipping, the seed) is the Hugging Face Trainer's own default.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    per_device_train_batch_size: int = about(
        "Pairs in one training batch.", 32, flags=("--batch-size", "--per-device-train-batch-size"), least=1
    )
    per_device_eval_batch_size: int = about("Pairs in one evaluation batch.", 32, least=1)
    num_train_epochs: float = about("Passes over the training split.", 2.0, least=1e-3)
    max_steps: int = about("Optimiser steps; overrides the epochs when positive.", -1)
    learning_rate: float = about("Peak learning rate.", 8e-5, least=0)
    lr_scheduler_type: str = about("Shape of the learning rate over the run (a transformers scheduler name).", "linear")
    warmup_steps: int = about("Steps of linear warm-up.", 0, least=0)
    optim: str = about("Optimiser (a transformers name).", "adamw_torch")
    adam_beta1: float = about("AdamW's decay rate of the first moment.", 0.9)
    adam_beta2: float = about("AdamW's decay rate of the second moment.", 0.98)
    adam_epsilon: float = about("AdamW's term against division by zero.", 1e-6)
    weight_decay: float = about("AdamW's weight decay.", 0.0)
    max_grad_norm: float = about("Clip the gradient's norm at this; 0 turns clipping off.", 1.0, least=0)
    gradient_accumulation_steps: int = about("Batches added up before one optimiser step.", 1, least=1)
    precision: Precision = about("Arithmetic of training; 'auto' is bf16 on a GPU that has it, else fp32.", "auto")
    metric_for_best_model: Literal["loss", "accuracy", "f1"] = about(
        "Validation metric by which the best epoch is chosen.", "loss"
    )
    seed: int = about("Seed of the new head, the data order and dropout.", 42, least=0)


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """What was asked of an engine. What really ran is a `Placement`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    backend: Backend = about("Engine that runs the model; with onnx a model folder stands for its onnx/.", "torch")
    model: str = about(MODEL_HELP, DEFAULT_MODEL_DIR)
    device: Device = about(DEVICE_HELP, "auto")
    dtype: Dtype = about("Arithmetic of inference; 'auto' is fp32 for torch and the graph's own for onnx.", "auto")
    threads: int = about("CPU threads of the engine; 0 means one per core.", 0, least=0)
    random_init: bool = about(RANDOM_HELP, False)


@dataclass(frozen=True, kw_only=True)
class EvaluatePlan:
    """What `evaluate` scores."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    data: str = about(DATA_HELP, "hub")
    split: Split = about(SPLIT_HELP, "validation")
    batch_size: int = about("Pairs in one forward pass.", 32, least=1)
    output_dir: str | None = about("Folder for the predictions file; else beside the record.", None)


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What `export` writes, and what it must prove."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    model: str = about("Model folder or hub id of the fine-tuned model.", DEFAULT_MODEL_DIR)
    data: str = about(DATA_HELP + " The export is proven on it.", "hub")
    split: Split = about("The split on which the export is proven.", "validation")
    output_dir: str | None = about("Folder for the ONNX model; else MODEL/onnx.", None)
    device: Device = about("Where the ONNX model is run for the proof.", "auto")
    dtype: Literal["fp32", "fp16"] = about("Arithmetic of the graph.", "fp32")
    opset: int | None = about("ONNX operator set; else the one that Optimum chooses for the architecture.", None)
    random_init: bool = about(RANDOM_HELP, False)


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """The workload of `bench`: the same pairs, in the same order, for every engine."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    backend: tuple[Backend, ...] = about(
        "Engine to measure; repeat for several, which then run interleaved.", ("torch",)
    )
    data: str = about(DATA_HELP, "hub")
    split: Split = about(SPLIT_HELP, "validation")
    scenario: tuple[Scenario, ...] = about(
        "single-stream: one pair at a time; offline: all pairs at once, in batches; server: requests at random "
        "moments, and the largest rate that keeps the target. Repeatable.",
        ("single-stream", "offline"),
    )
    batch_size: tuple[int, ...] = about(
        "Pairs in one forward pass, offline, or the most in one of the server; repeatable.", (8, 32), least=1
    )
    seq_len: int | None = about(
        "Give every pair this many tokens and no padding, as other harnesses do; the answers then mean nothing.",
        None,
        least=2,
    )
    slo_ms: float = about("Server: target for the 99th percentile of the latency.", 100.0, least=0.001)
    window_ms: float = about("Server: how long the first request of a batch waits for company.", 2.0, least=0)
    requests: int = about("Server: least number of requests at each rate that is tried.", 1000, least=662)
    rounds: int = about("Rounds; in each, every row runs once over the pairs, in alternating order.", 3, least=1)
    warmup: int = about("Untimed calls of each row before the first round, after its first call.", 3, least=0)
    pairs: int | None = about("Take this many pairs, drawn with the seed; else the whole split.", None, least=1)
    seed: int = about("Seed of the pairs' order.", 0, least=0)


@dataclass(frozen=True, kw_only=True)
class QuickstartRequest:
    """The whole road by the default recipe, on the checkpoint and the corpus that ship here."""

    output_dir: str = about("Folder for the model and the records.", "mrpcbench_quickstart")


@dataclass(frozen=True, kw_only=True)
class BenchControl:
    """What `bench` does beside measuring."""

    strict: bool = about("Exit with 6 where a row breaks a rule of validity.", False)


# --- what really ran --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how an engine really ran, read back from the engine itself."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    engine: str = about("Library that ran the model, with its version.")
    device: str = about("Device that computed: cpu, or cuda with the GPU's name.")
    provider: str = about("The engine's kernels: torch's attention implementation, or ONNX Runtime's provider.")
    dtype: str = about("Arithmetic: fp32, bf16 or fp16; what autocast computes in, and what weights are widened to.")
    threads: int = about("CPU threads inside one operator.")

    def __str__(self) -> str:
        return f"{self.engine} {self.provider}"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the software, without anything that names a person, a host or a folder."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    started_at: str = about("Start in UTC, ISO 8601.")
    argv: tuple[str, ...] = about("The command as given; a path is cut to its last part.")
    machine_sha256: str = about("Hash that tells machines apart without naming them.")
    system: str = about("Operating system and processor architecture.")
    cpu: str = about("Processor model.")
    cpu_cores: int = about("Logical cores that this process may use.")
    memory_bytes: int = about("Main memory.")
    gpu: str | None = about("GPU model; null where there is none.")
    gpu_memory_bytes: int | None = about("GPU memory; null where there is none.")
    gpu_driver: str | None = about("GPU driver version; null where there is none.")
    cuda: str | None = about("CUDA version that torch was built for; null for a CPU build.")
    python: str = about("Python version.")
    packages: dict[str, str] = about("Installed version of each package that can change a result.")
    settings: dict[str, str] = about("Environment variables that were set and change how the libraries run.")
    git_commit: str | None = about("Commit of the mrpcbench source; null where it is not a checkout.")
    git_dirty: bool | None = about("Whether that checkout had uncommitted changes.")


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """The weights and the graph that a record is about."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str = about("Hub id, or the folder's last part.")
    architecture: str = about("Class name in config.json.")
    parameters: int = about("Number of weights.")
    weights: Weights = about("pretrained (no classifier yet), fine-tuned, or random-init (never trained).")
    origin: Origin = about(
        "What the training began from; a classifier trained from random weights is not ModernBERT's."
    )
    model_sha256: str = about("Hash over the names, dtypes, shapes and bytes of all weights.")
    tokenizer_sha256: str = about("Hash of tokenizer.json, or of the vocabulary where there is none.")
    graph_sha256: str | None = about("Hash of the ONNX graph's files; null for torch.", None)
    proven: bool | None = about("Whether the graph passed the export gate; null for torch.", None)
    proven_on: str | None = about("Device on which the graph passed the export gate; null where it did not.", None)

    @property
    def weights_label(self) -> str:
        """The words for a table: never silent about random weights."""
        if self.weights == "fine-tuned" and self.origin == "random-init":
            return "fine-tuned from random-init"
        return self.weights


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Written beside a model (`mrpcbench.json`), so that what reads it knows what it came from."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    schema_version: int = about("Version of this format.", SCHEMA_VERSION)
    model: ModelIdentity = about("The model in this folder.")
    base_model: str | None = about("Hub id or folder name that training began from; null where it is unknown.", None)
    base_model_sha256: str | None = about("Hash of the weights that training began from.", None)
    train_data_sha256: str | None = about("Hash of the training pairs.", None)
    validation_data_sha256: str | None = about("Hash of the pairs by which the best epoch was chosen.", None)
    recipe: TrainRecipe | None = about("How it was trained; null where this project did not train it.", None)
    precision: str | None = about("Arithmetic in which it was trained.", None)
    dtype: str = about("Arithmetic of the stored weights.", "fp32")


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """The pairs that a record is about."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    source: str = about("Where the pairs came from.")
    split: str = about("Split name.")
    pairs: int = about("Number of pairs.")
    positives: int = about("Pairs labelled as equivalent.")
    label_names: tuple[str, str] = about("Names of labels 0 and 1.")
    data_sha256: str = about("Hash over the ordered pairs and labels, whatever format they came in.")


@dataclass(frozen=True, kw_only=True)
class EnvironmentReport:
    """The environment, and each engine on each device with None, or with what keeps it from running there."""

    environment: Environment
    problems: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class PairAnswer:
    """What a model says of one pair."""

    sentence1: str
    sentence2: str
    label: int
    label_name: str
    probability: float
    logits: tuple[float, float]
    weights: str
    placement: Placement


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    low: float = about("Lower end.")
    high: float = about("Upper end.")
    level: float = about("Confidence level.")
    method: str = about("How it was computed.")


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of a binary classification; positive means equivalent."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    true_positive: int = about("Equivalent, predicted so.")
    false_positive: int = about("Not equivalent, predicted equivalent.")
    false_negative: int = about("Equivalent, predicted not equivalent.")
    true_negative: int = about("Not equivalent, predicted so.")


@dataclass(frozen=True, kw_only=True)
class EvalScore:
    """How well a classifier did on labelled pairs, beside what always answering the larger class would reach."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    pairs: int = about("Pairs scored.")
    accuracy: float = about("Share predicted correctly.")
    accuracy_interval: Interval = about("Interval of the accuracy.")
    f1: float = about("F1 of the class 'equivalent' (GLUE's definition); 0 where it is undefined.")
    f1_interval: Interval = about("Interval of F1.")
    precision: float = about("Precision of 'equivalent'; 0 where nothing was predicted so.")
    recall: float = about("Recall of 'equivalent'.")
    loss: float | None = about("Mean cross-entropy in nats; null where it is not finite.")
    confusion: Confusion = about("The four counts.")
    majority_accuracy: float = about("Accuracy of always answering the larger class.")
    majority_f1: float = about("F1 of always answering the larger class.")


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """One line of the training log: what the Trainer logged at the end of an epoch."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    step: int = about("Optimiser steps so far.")
    train_loss: float | None = about(
        "Mean training loss since the last line, or since the run was resumed; null where it is not finite."
    )
    train_grad_norm: float | None = about("Gradient norm of the last step, before clipping.")
    train_learning_rate: float = about("Learning rate of the last step.")
    train_epoch: float = about("Epochs so far.")
    eval_loss: float | None = about("Validation loss; null where it is not finite.")
    eval_accuracy_score: float = about("Validation accuracy.")
    eval_f1_score: float = about("Validation F1.")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Keys that did not match when the weights were loaded; the new classification head is not among them."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    new_head: tuple[str, ...] = about("Weights of the classification head that were made new.", ())
    missing: tuple[str, ...] = about("Weights of the encoder that the checkpoint lacks and that were made new.", ())
    unexpected: tuple[str, ...] = about("Weights in the checkpoint that the classifier has no use for.", ())


@dataclass(frozen=True, kw_only=True)
class TrainSection:
    """What `train` did."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    recipe: TrainRecipe = about("How it was asked to train.")
    placement: Placement = about("Where and in which arithmetic it trained.")
    base_model: ModelIdentity = about("The model that training began from.")
    load_report: LoadReport = about("What did not match when that model was loaded.")
    aligned_tokens: dict[str, int | None] = about("Special tokens of the config that were set to the tokenizer's.")
    total_steps: int = about("Optimiser steps of the whole run.")
    resumed_from_step: int | None = about("Step of the checkpoint that the run continued from; null for a fresh run.")
    epochs: tuple[EpochMetrics, ...] = about("One line an epoch.")
    best_step: int | None = about("Step whose weights were kept; null while the run goes on.")
    train_s: float | None = about(
        "Wall-clock seconds of the training loop in this process, with its evaluations and saves."
    )
    real_tokens: int = about("Training tokens that are not padding, in this process.")
    padding_tokens: int = about("Training tokens that are padding, in this process.")


@dataclass(frozen=True, kw_only=True)
class EvaluateSection:
    """What `evaluate` found."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    spec: BackendSpec = about("What was asked of the engine.")
    placement: Placement = about("What really ran.")
    batch_size: int = about("Pairs in one forward pass.")
    score: EvalScore = about("The score.")
    predictions_file: str = about("Name of the file of predictions, one JSON line a pair.")
    predictions_sha256: str = about("Hash of that file.")
    real_tokens: int = about("Tokens that are not padding.")
    padding_tokens: int = about("Tokens that are padding.")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a gate and its reason. It fails closed: what cannot be judged is not a PASS."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    outcome: Outcome = about("PASS, REGRESSION, INCONCLUSIVE or INCOMPARABLE.")
    reason: str = about("One line that says why.")


@dataclass(frozen=True, kw_only=True)
class ParityTrial:
    """Both models over every pair, at one batch size and padding."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    batch_size: int = about("Pairs in one forward pass.")
    padding: str = about("How the batches were padded.")
    padding_tokens: int = about("Tokens that are padding.")
    flips: int = about("Pairs whose prediction differs.")
    max_abs_delta: float | None = about("Largest |difference| of a logit; null where a logit is not finite.")
    p99_abs_delta: float | None = about("99th percentile of the |differences|; null where a logit is not finite.")


@dataclass(frozen=True, kw_only=True)
class ExportGate:
    """Whether an exported graph answers as the model does (the rule: docs/architecture.md)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    pairs: int = about("Pairs compared in each trial.")
    trials: tuple[ParityTrial, ...] = about("One a batch size and padding.")
    flips_allowed: int = about("Largest number of flips that passes, in any trial.")
    delta_allowed: float | None = about(
        "Largest |difference| of a logit that passes; null where only labels are judged."
    )
    smallest_margin: float | None = about(
        "Smallest |logit 1 - logit 0| of the original model over the pairs; null where one is not finite."
    )
    headroom: float | None = about(
        "Smallest margin divided by the largest |difference|: above 2 no label can flip; "
        "null where the difference is 0 or not finite."
    )
    flip_rate_bound: float = about("Exact upper bound at 95% of the rate of flips on pairs like these.")
    verdict: Verdict = about("The outcome.")


@dataclass(frozen=True, kw_only=True)
class ExportSection:
    """What `export` wrote and proved."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    dtype: str = about("Arithmetic of the graph.")
    opset: int = about("ONNX operator set of the graph.")
    nodes: int = about("Nodes of the graph.")
    files: dict[str, int] = about("Files of the ONNX model and their sizes in bytes.")
    placement: Placement = about("Where the graph ran for the proof.")
    reference: Placement = about("Where the original ran for the proof.")
    gate: ExportGate | None = about("The proof; null while it is not done.")


@dataclass(frozen=True, kw_only=True)
class LoadPoint:
    """One load of the server scenario: requests arrive at random moments, at a fixed mean rate."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    rate_per_s: float = about("Mean rate at which requests were scheduled.")
    sent: int = about("Requests sent; each is a pair.")
    failed: int = about("Requests that the engine failed to answer.")
    latencies_ms: tuple[float, ...] = about(
        "Time from the scheduled arrival of each answered request to its answer, in the order of arrival."
    )
    batch_sizes: tuple[int, ...] = about("Requests in each forward pass, in the order run.")
    duration_s: float = about("From the first scheduled arrival to the last answer.")
    meets_slo: bool = about("Whether nothing failed and the 99th percentile of the latencies is within the target.")


@dataclass(frozen=True, kw_only=True)
class ServerResult:
    """The server scenario of one row: latency against load, and the largest load that keeps the target."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    slo_ms: float = about("Target for the 99th percentile of the latency.")
    window_ms: float = about("How long the first request of a batch waits for company.")
    max_batch: int = about("Most requests in one forward pass.")
    seed: int = about("Seed of the arrivals.")
    curve: tuple[LoadPoint, ...] = about("The loads that were tried, in the order tried.")
    best_rate_per_s: float | None = about("Largest rate tried that meets the target; null where none did.")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a model must at least do for one round of a row, whatever the implementation. Padding is not work."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    flops: float = about("Floating-point operations on the real tokens: matrix products and attention.")
    moved_bytes: float = about("Bytes that must cross main or GPU memory: all weights once a forward pass.")


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What the device reached in this very run, in the arithmetic of a row."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    device: str = about("Device that was measured.")
    dtype: str = about("Arithmetic of the matrix product.")
    flops_per_s: float = about("Best rate of a large matrix product.")
    bytes_per_s: float = about("Best rate of a large copy, reading and writing counted.")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a row used while it was timed; null where there is no sensor."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    rss_bytes: int | None = about("Main memory of the process at the end of the row.")
    cpu_utilisation: float | None = about("Mean number of cores that the process kept busy.")
    gpu_memory_process_bytes: int | None = about("GPU memory of the process.")
    gpu_clock_mhz: float | None = about("Mean clock of the GPU's multiprocessors.")
    gpu_temperature_c: float | None = about("Highest temperature of the GPU.")
    gpu_power_w: float | None = about("Mean power of the GPU.")
    gpu_energy_j: float | None = about("Energy of the GPU over the row.")
    gpu_throttle_reasons: tuple[str, ...] | None = about("Why the GPU slowed itself down; empty where it did not.")
    gpu_foreign_processes: int | None = about("Other processes seen computing on the GPU.")


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One engine in one scenario at one batch size. Medians and percentiles are derived from the samples when read."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    spec: BackendSpec = about("What was asked of the engine.")
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
        "Time of the row's first call, which is not among the samples; an engine's first row pays for its start-up too."
    )
    samples_ms: tuple[float, ...] = about("Time of each timed sample, in the order taken.")
    server: ServerResult | None = about("Latency against load; null for the other scenarios.", None)
    accuracy: float | None = about(
        "Accuracy of the predictions of the timed run itself; a failed pair is a wrong one; null for a fixed shape."
    )
    f1: float | None = about("F1 of the predictions of the timed run itself; null for a fixed shape.")
    failed: int = about("Pairs of the last round whose logits were not finite, or requests that were not answered.", 0)
    peak_memory_bytes: int | None = about(
        "Peak of the engine's own GPU memory during the row; null where it cannot tell."
    )
    work: Work | None = about(
        "What the model must at least do in a round; null where its architecture is unknown.", None
    )
    resources: Resources | None = about("What the row used.", None)
    broken_rules: tuple[str, ...] | None = about(
        "Rules of validity that the row breaks (docs/measurement.md); null while it is not judged.", None
    )


@dataclass(frozen=True, kw_only=True)
class BenchSection:
    """What `bench` measured."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    plan: BenchPlan = about("The workload that was asked for.")
    rows: tuple[BenchRow, ...] = about("One a backend, scenario and batch size.")
    rounds_done: int = about("Rounds finished.")
    ceilings: tuple[Ceilings, ...] = about("What the machine itself reached in this run; empty until its end.", ())
    peak_rss_bytes: int = about("Peak main memory of the process, all engines together.")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of one command. Exactly the section that `command` names is present."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    schema_version: int = about("Version of this format.", SCHEMA_VERSION)
    command: Command = about("The command that ran, and the section that holds its result.")
    complete: bool = about("False while the run goes on, and for good where it was interrupted.")
    environment: Environment = about("The machine and the software.")
    model: ModelIdentity = about("The model that the record is about.")
    data: tuple[DataIdentity, ...] = about("The splits that were read.")
    train: TrainSection | None = about("Result of train.", None)
    evaluate: EvaluateSection | None = about("Result of evaluate.", None)
    export: ExportSection | None = about("Result of export.", None)
    bench: BenchSection | None = about("Result of bench.", None)

    def __post_init__(self) -> None:
        present = [name for name in ("train", "evaluate", "export", "bench") if getattr(self, name) is not None]
        if present != [self.command]:
            raise ValueError(f"a record of {self.command} must hold that section alone, not {present}")
