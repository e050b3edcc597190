"""The requests of `train`, `evaluate`, `export` and `quickstart`, with every default. Standard library only.

The command line makes its options from these classes. Names end with their unit: `_ms`, `_s`, `_bytes`, `_per_s`.
"""

from typing import Literal

from mrpcbench.schema.fields import about, described

DEFAULT_MODEL = "answerdotai/ModernBERT-base"
# Pairs in a training batch of the reference run.
DEFAULT_BATCH_SIZE = 32
DEFAULT_MODEL_DIR = "aai_ModernBERT_mrpc_ft"
QUICKSTART = "quickstart"

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16", "bf16-autocast", "fp16", "int8"]
Optimize = Literal["none", "cpu", "cuda", "int8", "o3", "o4"]
# Graphs for the CPU, which are also verified there.
CPU_ONLY: tuple[Optimize, ...] = ("cpu", "int8")
# Optimum needs a GPU for this graph, because it fuses operators of the CUDA provider.
CUDA_ONLY: tuple[Optimize, ...] = ("o4",)
GraphDtype = Literal["auto", "fp32", "fp16", "int8"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Engine = Literal["auto", "trainer", "packed"]
Scenario = Literal["single-stream", "offline", "server"]
Order = Literal["length", "given"]
Preset = Literal["peers"]
Split = Literal["train", "validation", "test"]
Launcher = Literal["local", "ray"]
Keep = Literal["best", "all", "none"]


PUSH_HELP = "Upload the result to this hub repository (NAME or OWNER/NAME): the model, or its verified ONNX graph."
WEIGHTS_HELP = "Hub id (OWNER/NAME[@REVISION]), model folder, or 'quickstart' for the bundled tiny model."
MODEL_HELP = "Hub id (OWNER/NAME[@REVISION]), model folder, ONNX folder, or 'quickstart' for the bundled tiny model."
DATA_HELP = (
    "'hub' or 'hub@REVISION' (GLUE MRPC), a folder with MRPC or with CSV, JSONL or Parquet files, or 'quickstart'."
)
DEVICE_HELP = "Where to run; 'auto' uses CUDA if it works, and the record says which was used."
RANDOM_HELP = "Use random weights, built from config.json only; every record says so."
LABEL_MAP_HELP = (
    "What the model's labels mean, such as 0=not_equivalent,1=equivalent; default: the names in its config.json."
)
SPLIT_HELP = "Split to read."


@described
class TrainRequest:
    """What `train` reads and writes. `TrainRecipe` holds how it trains."""

    model: str = about(WEIGHTS_HELP, default=DEFAULT_MODEL, group="Model and data", location="name or path")
    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path", metavar="DIR|NAME")
    output_dir: str = about(
        "Folder for the checkpoints, the fine-tuned model and its model card.",
        default=DEFAULT_MODEL_DIR,
        group="Output",
        location="folder",
    )
    device: Device = about(DEVICE_HELP, default="auto", group="Model and data")
    random_init: bool = about(RANDOM_HELP, default=False, group="Model and data")
    resume: bool = about("Continue from the newest complete checkpoint in --output-dir.", default=False, group="Output")
    overwrite: bool = about(
        "Discard the run in --output-dir and retrain; its checkpoints are removed.", default=False, group="Output"
    )
    report_to: str = about(
        "Experiment tracker that the Trainer reports to (tensorboard, trackio, wandb, ...).",
        default="none",
        group="Output",
    )
    push_to_hub: str | None = about(
        PUSH_HELP,
        default=None,
        group="Output",
        location="repository",
    )
    private: bool = about("Make the repository of --push-to-hub private, if it is new.", default=False, group="Output")


@described
class TrainRecipe:
    """How to fine-tune. The defaults are those of a published notebook that fine-tunes ModernBERT-base on MRPC.

    What the notebook does not set (weight decay, gradient clipping, the seed) has the default of the Trainer.
    """

    batch_size: int | None = about(
        f"Pairs in one training batch, over all processes; default: {DEFAULT_BATCH_SIZE}.",
        default=None,
        minimum=1,
        group="Recipe",
    )
    per_device_train_batch_size: int | None = about(
        "Pairs in one training batch of one process; default: --batch-size divided by the number of processes.",
        default=None,
        minimum=1,
        group="Recipe",
    )
    per_device_eval_batch_size: int = about("Pairs in one evaluation batch.", default=32, minimum=1, group="Recipe")
    num_train_epochs: float = about("Passes over the training split.", default=2.0, minimum=1e-3, group="Recipe")
    max_steps: int = about("Optimiser steps; overrides the epochs when positive.", default=-1, group="Recipe")
    learning_rate: float = about("Peak learning rate.", default=8e-5, minimum=0, maximum=1e30, group="Recipe")
    lr_scheduler_type: str = about(
        "Shape of the learning rate over the run (a transformers scheduler name).", default="linear", group="Recipe"
    )
    warmup_steps: int = about("Steps of linear warm-up.", default=0, minimum=0, group="Recipe")
    optim: str = about("Optimiser (a transformers name).", default="adamw_torch", group="Recipe")
    adam_beta1: float = about(
        "AdamW's decay rate of the first moment.", default=0.9, minimum=0, maximum=1, group="Recipe"
    )
    adam_beta2: float = about(
        "AdamW's decay rate of the second moment.", default=0.98, minimum=0, maximum=1, group="Recipe"
    )
    adam_epsilon: float = about("AdamW's epsilon.", default=1e-6, minimum=0, group="Recipe")
    weight_decay: float = about("AdamW's weight decay.", default=0.0, minimum=0, group="Recipe")
    max_grad_norm: float = about(
        "Clip the gradient's norm at this; 0 turns clipping off.", default=1.0, minimum=0, group="Recipe"
    )
    gradient_accumulation_steps: int = about(
        "Batches accumulated before one optimiser step.", default=1, minimum=1, group="Recipe"
    )
    group_by_length: bool = about(
        "Group training pairs of similar length into batches: less padding, but not the reference run's order.",
        default=False,
        group="Recipe",
    )
    engine: Engine = about(
        "Training engine. trainer: Hugging Face's forward pass under autocast. packed: ModernBERT without padding, "
        "with its layers in bf16 and float32 master weights, and on a GPU with CUDA graphs. auto: packed on a CPU if "
        "it supports the model and the optimiser, else trainer.",
        default="auto",
        group="Recipe",
    )
    precision: Precision = about(
        "Precision of training; 'auto' is bf16 on a GPU or processor with bf16 instructions, else fp32.",
        default="auto",
        group="Recipe",
    )
    metric_for_best_model: Literal["loss", "accuracy", "f1"] = about(
        "Validation metric that selects the best epoch.", default="loss", group="Recipe"
    )
    seed: int = about("Seed of the new head, the data order and dropout.", default=42, minimum=0, group="Recipe")


@described
class StudyPlan:
    """The trials of `study`, and how they are run. `TrainRequest` and `TrainRecipe` say what a trial trains."""

    seeds: str = about(
        "How many seeds, from 42 on, or a list of seeds such as 1,2,5.", default="6", group="Trials", metavar="N|LIST"
    )
    set: tuple[str, ...] = about(
        "An option of train and the values to try, such as learning_rate=5e-5,8e-5; several options are combined. "
        "Repeatable.",
        default=(),
        group="Trials",
        metavar="NAME=VALUE,...",
    )
    output_dir: str = about(
        "Folder for the trials and the record, study.json. For Ray, all machines must see it.",
        default="mrpcbench_study",
        group="Output",
        location="folder",
    )
    launcher: Launcher = about(
        "What runs the trials: local, processes on this machine; ray, a Ray cluster or a local Ray.",
        default="local",
        group="Trials",
    )
    address: str | None = about(
        "Address of the Ray cluster; default: RAY_ADDRESS, or a local Ray.", default=None, group="Trials"
    )
    jobs: int = about(
        "Trials at a time on one machine, which share its cores; 0: one for each GPU, or one.",
        default=0,
        minimum=0,
        group="Trials",
    )
    nproc: int = about("Processes of one trial, which share its batch.", default=1, minimum=1, group="Trials")
    keep: Keep = about(
        "What stays of a finished trial besides its record. best: the model; all: also the checkpoints; none: nothing.",
        default="best",
        group="Output",
    )


@described
class BackendSpec:
    """A requested engine and model. `Placement` holds what really ran."""

    backend: str = about(
        "Engine: Hugging Face's forward pass (torch), ModernBERT without padding and on a GPU with CUDA graphs "
        "(torch-packed), Hugging Face's with compiled layers (torch-compile), or the graph in MODEL/onnx with ONNX "
        "Runtime (onnx) or, on a CPU, OpenVINO (openvino).",
        default="torch",
        engine=True,
        group="Model and data",
    )
    model: str = about(MODEL_HELP, default=DEFAULT_MODEL_DIR, group="Model and data", location="name or path")
    device: Device = about(DEVICE_HELP, default="auto", group="Model and data")
    dtype: Dtype = about(
        "Precision of inference; 'auto' is the graph's own for an exported graph, bf16 for torch-packed on a GPU, "
        "else fp32. bf16-autocast, only for torch: weights in fp32, with torch.autocast around the forward pass.",
        default="auto",
        group="Model and data",
    )
    threads: int = about(
        "CPU threads of the engine; 0: OMP_NUM_THREADS, or the usable cores.",
        default=0,
        minimum=0,
        maximum=4096,
        group="Advanced",
    )
    random_init: bool = about(RANDOM_HELP, default=False, group="Model and data")
    label_map: str | None = about(LABEL_MAP_HELP, default=None, group="Advanced", metavar="0=NAME,1=NAME")


@described
class EvaluatePlan:
    """The pairs that `evaluate` scores."""

    data: str = about(DATA_HELP, default="hub", group="Model and data", location="name or path", metavar="DIR|NAME")
    split: Split = about(SPLIT_HELP, default="validation", group="Model and data")
    batch_size: int | None = about(
        "Pairs in one forward pass; default: 8 on a CPU, 32 on a GPU.", default=None, minimum=1, group="Advanced"
    )
    output_dir: str | None = about(
        "Folder for the predictions file; default: the folder of the record.",
        default=None,
        group="Output",
        location="folder",
    )


@described
class ExportPlan:
    """What `export` writes, and how it is verified."""

    model: str = about(
        WEIGHTS_HELP,
        default=DEFAULT_MODEL_DIR,
        group="Model and data",
        location="name or path",
    )
    data: str = about(
        DATA_HELP + " The export is verified on it.",
        default="hub",
        group="Model and data",
        location="name or path",
        metavar="DIR|NAME",
    )
    split: Split = about("Split on which the export is verified.", default="validation", group="Model and data")
    output_dir: str | None = about(
        "Folder for the ONNX model; default: MODEL/onnx, or MODEL/onnx-cpu for --optimize cpu, and so on. Without a "
        "model folder of your own: ./NAME-onnx, or ./NAME-random-init-onnx with --random-init.",
        default=None,
        group="Output",
        location="folder",
    )
    optimize: Optimize = about(
        "Graph. none: Optimum's, which runs anywhere. cpu, cuda: smaller graphs for ModernBERT. int8: the cpu graph "
        "with 8-bit weights. o3, o4: Optimum's graph, optimised at level O3 or O4; o4 needs a GPU.",
        default="none",
        group="Model and data",
    )
    device: Device = about("Where to run the ONNX model to verify it.", default="auto", group="Model and data")
    dtype: GraphDtype = about(
        "Precision of the graph; 'auto' is fp16 for cuda and o4, int8 for int8, else fp32.",
        default="auto",
        group="Model and data",
    )
    opset: int | None = about(
        "ONNX operator set; default: Optimum's choice for the architecture.",
        default=None,
        minimum=1,
        group="Advanced",
    )
    random_init: bool = about(RANDOM_HELP, default=False, group="Model and data")
    label_map: str | None = about(LABEL_MAP_HELP, default=None, group="Advanced", metavar="0=NAME,1=NAME")
    push_to_hub: str | None = about(
        PUSH_HELP,
        default=None,
        group="Output",
        location="repository",
    )


@described
class QuickstartRequest:
    """Where `quickstart` writes."""

    output_dir: str = about(
        "Folder for the model and the records.", default="mrpcbench_quickstart", group="Output", location="folder"
    )


@described
class Output:
    """Where to write a record, and how to show it."""

    results: str | None = about(
        "File for the record; default: results/<time>-<command>-<random>.json.",
        default=None,
        group="Output",
        location="file",
    )
    json: bool = about("Print one JSON document on stdout, and nothing else there.", default=False, group="Output")


@described
class JsonOption:
    """How to show a result that is not a record."""

    json: bool = about("Print one JSON document on stdout, and nothing else there.", default=False, group="Output")
