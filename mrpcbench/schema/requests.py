"""What a user can ask for, with every default of the project in exactly one place. Standard library only.

The command line makes its options from these classes. Units stand in names: `_ms`, `_s`, `_bytes`, `_per_s`.
"""

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar, dataclass_transform

from mrpcbench.errors import UsageError

DEFAULT_MODEL = "answerdotai/ModernBERT-base"
DEFAULT_MODEL_DIR = "aai_ModernBERT_mrpc_ft"
QUICKSTART = "quickstart"

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16", "bf16-autocast", "fp16", "int8"]
Optimize = Literal["none", "cpu", "cuda", "int8", "o3", "o4"]
GraphDtype = Literal["auto", "fp32", "fp16", "int8"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Engine = Literal["trainer", "packed"]
Scenario = Literal["single-stream", "offline", "server"]
Order = Literal["length", "given"]
Preset = Literal["peers"]
Split = Literal["train", "validation", "test"]

# Panels of the help.
Group = Literal["Model and data", "Recipe", "Timing", "Output", "Advanced"]
# What an option's value names: a file or folder; a hub id, a bare name or a path; a repository on the hub.
Location = Literal["path", "name or path", "repository"]

T = TypeVar("T")

# Bounds of two limits that an option of `compare` and the policy file can set; both must also be above 0.
MARGIN_BELOW = 1
# A limit of stored speed above this share would let a doubtful change pass.
LARGEST_SLOWDOWN = 0.5

# For pydantic: an unknown field is an error, and "3" is not 3.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


def about(
    text: str,
    *,
    default: Any = MISSING,
    flags: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    engine: bool = False,
    group: Group | None = None,
    location: Location | None = None,
) -> Any:
    """A dataclass field with its meaning: the option's help, or the record field's description.

    `flags` replaces the option's name, which is otherwise the field's name with dashes; `least` and `most` bound its
    value. `engine` says that the value is the name of an engine. `group` is the option's panel in the help, and
    `location` says how the value may name a folder or a person, so that a record does not.
    """
    metadata = {"about": text, "flags": flags, "least": least, "most": most, "engine": engine}
    return field(default=default, metadata={**metadata, "group": group, "location": location})


# Type checkers see a default only in a keyword `default=`: a missing field is an error for them.
@dataclass_transform(field_specifiers=(about,), kw_only_default=True, frozen_default=True)
def described(kind: type[T]) -> type[T]:
    """Make a class whose fields are declared with `about` a frozen keyword-only dataclass, read strictly by pydantic.

    It stays a plain dataclass: pydantic is needed only where one is read or written.
    """
    kind.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(kind)


def flags_of(item: Field[Any]) -> tuple[str, ...]:
    """The option names of a request's field."""
    return item.metadata["flags"] or (f"--{item.name.replace('_', '-')}",)


def check(*requests: Any) -> None:
    """Raise `UsageError` for a value outside its bounds, which the command line checks while it parses."""
    for request in requests:
        for item in fields(request):
            least, most, value = item.metadata["least"], item.metadata["most"], getattr(request, item.name)
            for one in value if isinstance(value, tuple) else (value,):
                if least is not None and one is not None and not one >= least:
                    raise UsageError(f"{flags_of(item)[0]} {one:g}: at least {least:g}")
                if most is not None and one is not None and not one <= most:
                    raise UsageError(f"{flags_of(item)[0]} {one:g}: at most {most:g}")


MODEL_HELP = "Hub id (OWNER/NAME), model folder, ONNX folder, or 'quickstart' for the bundled tiny checkpoint."
DATA_HELP = "'hub' (GLUE MRPC), a folder with MRPC or with CSV, JSONL or Parquet files, or 'quickstart'."
DEVICE_HELP = "Where to run; 'auto' uses CUDA if it works, and the record says which was used."
RANDOM_HELP = "Use random weights, built from config.json only; every record says so."
SPLIT_HELP = "Split to read."


@described
class TrainRequest:
    """What `train` reads and writes; how it trains is in `TrainRecipe`."""

    model: str = about(MODEL_HELP, default=DEFAULT_MODEL, group="Model and data", location="name or path")
    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path")
    output_dir: str = about(
        "Folder for the checkpoints, the fine-tuned model and its model card.",
        default=DEFAULT_MODEL_DIR,
        group="Output",
        location="path",
    )
    device: Device = about(DEVICE_HELP, default="auto", group="Model and data")
    random_init: bool = about(RANDOM_HELP, default=False, group="Model and data")
    resume: bool = about("Continue from the newest complete checkpoint in --output-dir.", default=False, group="Output")
    overwrite: bool = about(
        "Discard the run in --output-dir and retrain; its checkpoints are removed.", default=False, group="Output"
    )
    report_to: str = about(
        "Experiment tracker that the Trainer reports to (tensorboard, wandb, ...).", default="none", group="Output"
    )
    push_to_hub: str | None = about(
        "Upload the finished model to this hub repository (OWNER/NAME).",
        default=None,
        group="Output",
        location="repository",
    )


@described
class TrainRecipe:
    """How to fine-tune. Defaults: the reference run, a published notebook that fine-tunes ModernBERT-base on MRPC.

    What that run does not state (weight decay, gradient clipping, the seed) is the Hugging Face Trainer's own default.
    """

    per_device_train_batch_size: int = about(
        "Pairs in one training batch.",
        default=32,
        flags=("--batch-size", "--per-device-train-batch-size"),
        least=1,
        group="Recipe",
    )
    per_device_eval_batch_size: int = about("Pairs in one evaluation batch.", default=32, least=1, group="Recipe")
    num_train_epochs: float = about("Passes over the training split.", default=2.0, least=1e-3, group="Recipe")
    max_steps: int = about("Optimiser steps; overrides the epochs when positive.", default=-1, group="Recipe")
    learning_rate: float = about("Peak learning rate.", default=8e-5, least=0, group="Recipe")
    lr_scheduler_type: str = about(
        "Shape of the learning rate over the run (a transformers scheduler name).", default="linear", group="Recipe"
    )
    warmup_steps: int = about("Steps of linear warm-up.", default=0, least=0, group="Recipe")
    optim: str = about("Optimiser (a transformers name).", default="adamw_torch", group="Recipe")
    adam_beta1: float = about("AdamW's decay rate of the first moment.", default=0.9, least=0, most=1, group="Recipe")
    adam_beta2: float = about("AdamW's decay rate of the second moment.", default=0.98, least=0, most=1, group="Recipe")
    adam_epsilon: float = about("AdamW's epsilon.", default=1e-6, least=0, group="Recipe")
    weight_decay: float = about("AdamW's weight decay.", default=0.0, least=0, group="Recipe")
    max_grad_norm: float = about(
        "Clip the gradient's norm at this; 0 turns clipping off.", default=1.0, least=0, group="Recipe"
    )
    gradient_accumulation_steps: int = about(
        "Batches accumulated before one optimiser step.", default=1, least=1, group="Recipe"
    )
    group_by_length: bool = about(
        "Group training pairs of similar length into batches: less padding, but not the reference run's order.",
        default=False,
        group="Recipe",
    )
    engine: Engine = about(
        "What computes a step: Hugging Face's forward pass under autocast (trainer), or ModernBERT without padding, "
        "with its layers in bf16 and float32 master weights, on a GPU with CUDA graphs (packed).",
        default="trainer",
        group="Recipe",
    )
    precision: Precision = about(
        "Arithmetic of training; 'auto' is bf16 on a GPU that supports it, else fp32.", default="auto", group="Recipe"
    )
    metric_for_best_model: Literal["loss", "accuracy", "f1"] = about(
        "Validation metric that selects the best epoch.", default="loss", group="Recipe"
    )
    seed: int = about("Seed of the new head, the data order and dropout.", default=42, least=0, group="Recipe")


@described
class BackendSpec:
    """What was requested of an engine. What really ran is a `Placement`."""

    backend: str = about(
        "Engine: Hugging Face's forward pass (torch), ModernBERT without padding and on a GPU with CUDA graphs "
        "(torch-packed), Hugging Face's with compiled layers (torch-compile), or ONNX Runtime on MODEL/onnx (onnx).",
        default="torch",
        engine=True,
        group="Model and data",
    )
    model: str = about(MODEL_HELP, default=DEFAULT_MODEL_DIR, group="Model and data", location="name or path")
    device: Device = about(DEVICE_HELP, default="auto", group="Model and data")
    dtype: Dtype = about(
        "Arithmetic of inference; 'auto' is the graph's own for an exported graph, bf16 for torch-packed on a GPU, "
        "else fp32. bf16-autocast, only for torch: weights in fp32, with torch.autocast around the forward pass.",
        default="auto",
        group="Model and data",
    )
    threads: int = about(
        "CPU threads of the engine; 0: OMP_NUM_THREADS, or the usable cores.", default=0, least=0, group="Advanced"
    )
    random_init: bool = about(RANDOM_HELP, default=False, group="Model and data")


@described
class EvaluatePlan:
    """What `evaluate` scores."""

    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path")
    split: Split = about(SPLIT_HELP, default="validation", group="Model and data")
    batch_size: int = about("Pairs in one forward pass.", default=32, least=1, group="Advanced")
    output_dir: str | None = about(
        "Folder for the predictions file; default: that of the record.", default=None, group="Output", location="path"
    )


@described
class ExportPlan:
    """What `export` writes, and how it is verified."""

    model: str = about(
        "Model folder or hub id of the fine-tuned model.",
        default=DEFAULT_MODEL_DIR,
        group="Model and data",
        location="name or path",
    )
    data: str = about(
        DATA_HELP + " The export is verified on it.", default="hub", group="Model and data", location="name or path"
    )
    split: Split = about("Split on which the export is verified.", default="validation", group="Model and data")
    output_dir: str | None = about(
        "Folder for the ONNX model; default: MODEL/onnx, or with --optimize MODEL/onnx-cpu and so on.",
        default=None,
        group="Output",
        location="path",
    )
    optimize: Optimize = about(
        "Graph: Optimum's own (none), which runs anywhere; a smaller one for ModernBERT, for the CPU (cpu), for CUDA "
        "(cuda), or with 8-bit weights for the CPU (int8); or Optimum's after Optimum's optimiser (o3, and on a GPU "
        "o4).",
        default="none",
        group="Model and data",
    )
    device: Device = about("Where the ONNX model is run to verify it.", default="auto", group="Model and data")
    dtype: GraphDtype = about(
        "Arithmetic of the graph; 'auto' is fp32, fp16 for cuda and o4, int8 for int8.",
        default="auto",
        group="Model and data",
    )
    opset: int | None = about(
        "ONNX operator set; default: the one that Optimum chooses for the architecture.",
        default=None,
        least=1,
        group="Advanced",
    )
    random_init: bool = about(RANDOM_HELP, default=False, group="Model and data")


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
        "Measure a set of cases in place of --backend. peers: common baselines and ours, for this device. "
        "It also sets scenario, batch size and rounds, unless given.",
        default=None,
        group="Model and data",
    )
    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path")
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
        least=1,
        group="Timing",
    )
    order: Order = about(
        "Order of the offline pairs: 'length' batches pairs of similar length, 'given' keeps the seeded order.",
        default="length",
        group="Advanced",
    )
    seq_len: int | None = about(
        "Give every pair this many tokens and no padding, as other harnesses do; the answers are then meaningless.",
        default=None,
        least=2,
        group="Advanced",
    )
    slo_ms: float = about(
        "Server: target for the 99th percentile of the latency.", default=100.0, least=0.001, group="Timing"
    )
    window_ms: float = about(
        "Server: how long the first request of a batch waits to fill a batch.", default=2.0, least=0, group="Timing"
    )
    rounds: int = about(
        "Rounds; in each, every row runs once over the pairs, in alternating order. Unless given: at least 5 with "
        "--relative-to or --preset, and with a preset and few --pairs as many as a p99 needs.",
        default=3,
        least=1,
        group="Timing",
    )
    max_s: float = about(
        "Time limit in seconds for extra rounds while a row is INVALID because of noise; 0: no extra rounds.",
        default=60.0,
        flags=("--max-seconds",),
        least=0,
        group="Timing",
    )
    warmup: int = about(
        "Untimed calls of each row before the first round, after its first call.", default=3, least=0, group="Advanced"
    )
    pairs: int | None = about(
        "Number of pairs, drawn with the seed; default: the whole split.",
        default=None,
        least=1,
        group="Model and data",
    )
    seed: int = about("Seed of the pairs' order.", default=0, least=0, group="Advanced")


B_HELP = " For side B; default: as side A."


@described
class AbPlan:
    """Two sides, A and B, and how the live speed gate compares the speed of B with A."""

    a_model: str = about(
        "Model of side A, the reference: a folder, an ONNX folder or a hub id.",
        default=DEFAULT_MODEL_DIR,
        group="Model and data",
        location="name or path",
    )
    b_model: str | None = about("Model." + B_HELP, default=None, group="Model and data", location="name or path")
    a_backend: str = about("Engine of side A.", default="torch", engine=True, group="Model and data")
    b_backend: str | None = about("Engine." + B_HELP, default=None, engine=True, group="Model and data")
    a_device: Device = about("Where side A runs; 'auto' uses CUDA if it works.", default="auto", group="Model and data")
    b_device: Device | None = about("Where to run." + B_HELP, default=None, group="Model and data")
    a_dtype: Dtype = about("Arithmetic of side A.", default="auto", group="Model and data")
    b_dtype: Dtype | None = about("Arithmetic." + B_HELP, default=None, group="Model and data")
    a_threads: int = about(
        "CPU threads of side A; 0: OMP_NUM_THREADS, or the usable cores.", default=0, least=0, group="Advanced"
    )
    b_threads: int | None = about("CPU threads." + B_HELP, default=None, least=0, group="Advanced")
    a_python: str | None = about(
        "Python interpreter of side A, with the libraries of its environment; default: this one.",
        default=None,
        group="Model and data",
        location="path",
    )
    b_python: str | None = about(
        "Python interpreter of side B, with the libraries of its environment; default: this one.",
        default=None,
        group="Model and data",
        location="path",
    )
    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path")
    split: Split = about(SPLIT_HELP, default="validation", group="Model and data")
    batch_size: int = about("Pairs in one forward pass.", default=1, least=1, group="Timing")
    calls: int = about(
        "Timed calls of each process, alternating with the other side's.", default=50, least=50, group="Timing"
    )
    warmup: int = about("Untimed calls of each process before the timed ones.", default=10, least=0, group="Advanced")
    process_pairs: int = about(
        "Pairs of processes, one of each side; their order alternates.", default=10, least=1, group="Timing"
    )
    seed: int = about("Seed of the pairs' order.", default=0, least=0, group="Advanced")
    policy: str | None = about(
        "File with the limits (TOML); default: the bundled gate.toml.", default=None, location="path"
    )


@described
class ComparePlan:
    """The limits of `compare`."""

    policy: str | None = about(
        "File with the limits (TOML); default: the bundled gate.toml.", default=None, location="path"
    )
    margin: float | None = about(
        "evaluate records: loss of accuracy that must be ruled out (non-inferiority), as a share above 0: 0.02 is two "
        "points. INCONCLUSIVE if it cannot be ruled out.",
        default=None,
        least=0,
        most=MARGIN_BELOW,
    )
    max_slowdown: float | None = about(
        "bench records: largest slowdown per pair that passes, as a share above 0; default: the policy's, 0.1.",
        default=None,
        least=0,
        most=LARGEST_SLOWDOWN,
    )


@described
class QuickstartRequest:
    """All steps with the default recipe, on the bundled checkpoint and data."""

    output_dir: str = about(
        "Folder for the model and the records.", default="mrpcbench_quickstart", group="Output", location="path"
    )


@described
class BenchControl:
    """What `bench` does besides measuring."""

    profile: str | None = about(
        "Write a trace of the spans and the operators to this file, for ui.perfetto.dev or chrome://tracing.",
        default=None,
        group="Output",
        location="path",
    )


@described
class BenchView:
    """How the tables of a benchmark are shown."""

    relative_to: tuple[str, ...] = about(
        "Show the speedup of each row over this one, with an interval: CASE, CASE:BATCH, or a row such as 'onnx "
        "offline batch 32'. CASE is a backend or a case of the preset. Repeatable.",
        default=(),
        group="Output",
    )


@described
class BaselineFolder:
    """Where baselines are kept."""

    folder: str = about(
        "Folder of the baselines; each has its own folder in it.",
        default="results/baselines",
        group="Output",
        location="path",
    )


@described
class BaselineRequest:
    """Whether an existing baseline is replaced."""

    overwrite: bool = about("Replace the baseline of that name.", default=False, group="Output")


@described
class Publish:
    """Where a verdict goes in addition to the terminal. In GitHub Actions also to the job's summary and annotations."""

    markdown: str | None = about(
        "Write the verdict to this file as Markdown.", default=None, group="Output", location="path"
    )
    junit: str | None = about(
        "Write the verdict to this file as JUnit XML, with a test case for each gated metric.",
        default=None,
        group="Output",
        location="path",
    )


@described
class Output:
    """Where a record goes, and how it is shown."""

    results: str | None = about(
        "File for the record; default: results/<time>-<command>.json.", default=None, group="Output", location="path"
    )
    json: bool = about("Print one JSON document on stdout, and nothing else there.", default=False, group="Output")


@described
class Form:
    """How a result that is not a record is shown."""

    json: bool = about("Print one JSON document on stdout, and nothing else there.", default=False, group="Output")
