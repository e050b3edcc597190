"""What a record is about: placement, environment, model and data. Standard library only."""

from dataclasses import dataclass
from typing import Literal

from mrpcbench.schema.fields import about, described
from mrpcbench.schema.requests import Optimize, TrainRecipe
from mrpcbench.schema.version import SCHEMA_VERSION

Command = Literal["train", "evaluate", "export", "bench", "ab", "study"]
Weights = Literal["pretrained", "fine-tuned", "random-init"]
Origin = Literal["pretrained", "random-init", "unknown"]


# --- what really ran --------------------------------------------------------------------------------------------------


@described
class Placement:
    """Where and how an engine really ran, as the engine itself reports it."""

    engine: str = about("Library that ran the model, with its version.")
    device: str = about("Device that computed: cpu, or cuda with the GPU's name.")
    provider: str = about("Kernels of the engine: torch's attention implementation, or ONNX Runtime's provider.")
    dtype: str = about(
        "Precision of the computation, which can be wider than the stored weights: fp32, bf16, fp16 or int8; for "
        "training, that of autocast. bf16-autocast: matrix products in bf16, by torch.autocast, with weights in fp32."
    )
    threads: int = about("CPU threads inside one operator.")
    tf32: bool | None = about(
        "Whether the library may round float32 matrix products to TF32; null on a CPU, and in older records.",
        default=None,
    )

    def __str__(self) -> str:
        return f"{self.engine} {self.provider}"

    @property
    def description(self) -> str:
        """Engine, kernels, precision and device."""
        rounding = "" if self.tf32 is None or self.dtype != "fp32" else f" {'with' if self.tf32 else 'without'} TF32"
        return f"{self} {self.dtype}{rounding} on {self.device}"

    @property
    def product_dtype(self) -> str:
        """Precision of the matrix products: bf16 for bf16-autocast, else `dtype`."""
        return self.dtype.removesuffix("-autocast")


@described
class MachineTraits:
    """What tells machines apart, each as a hash, so that a comparison can say what differs. Null where unknown."""

    boot: str | None = about(
        "Of the id that the kernel got when it started; the containers of a machine share it.", default=None
    )
    machine_id: str | None = about("Of /etc/machine-id.", default=None)
    network_address: str | None = about("Of the network card's address; 16 bits, which name none.", default=None)
    hostname: str | None = about("Of the host's name; 8 bits, which name none.", default=None)


@described
class Environment:
    """The machine and the software. No field names a person, a host or a folder."""

    started_at: str = about("Start in UTC, ISO 8601.")
    argv: tuple[str, ...] = about("The command line, with every path cut to its last part.")
    machine_sha256: str = about(
        "Hash that identifies the machine without naming it. Another hash may be another container; see `machine`."
    )
    system: str = about("Operating system and processor architecture.")
    cpu: str = about("Processor model.")
    cpu_cores: int = about("Logical cores that this process may use.")
    memory_bytes: int = about("Main memory.")
    gpu: str | None = about("GPU model; null if there is none.")
    gpu_memory_bytes: int | None = about("GPU memory; null if there is none.")
    gpu_driver: str | None = about("GPU driver version; null if there is none.")
    cuda: str | None = about("CUDA version that torch was built for; null for a CPU build.")
    python: str = about("Python version.")
    packages: dict[str, str] = about(
        "Version of each installed package that can change a result; of ONNX Runtime's, the imported one."
    )
    settings: dict[str, str] = about("Environment variables that were set and affect the libraries.")
    git_commit: str | None = about(
        "Commit of the mrpcbench source: git's, or outside a checkout MRPCBENCH_COMMIT; null if unknown."
    )
    git_dirty: bool | None = about("Whether that checkout had uncommitted changes.")
    source_sha256: str | None = about("Hash over the Python files of mrpcbench.", default=None)
    machine: MachineTraits | None = about("The machine's traits; null in records without them.", default=None)


@described
class ModelIdentity:
    """The weights of a model, and its graph."""

    name: str = about("Hub id, or the folder's last part.")
    revision: str | None = about("Commit of the hub repository that it was read from; null for a folder.", default=None)
    architecture: str = about("Class name in config.json.")
    parameters: int = about("Number of weights.")
    weights: Weights = about("pretrained (no classifier yet), fine-tuned, or random-init (never trained).")
    origin: Origin = about("Weights that training started from: pretrained, random-init or unknown.")
    model_sha256: str = about("Hash over the names, dtypes, shapes and bytes of all weights.")
    tokenizer_sha256: str = about("Hash of tokenizer.json, or of the vocabulary if there is none.")
    graph_sha256: str | None = about("Hash of the ONNX graph's files; null for torch.", default=None)
    optimize: Optimize | None = about(
        "Form of the ONNX graph: none (Optimum's), cpu, cuda, int8, or o3, o4 (Optimum's after its optimiser); null "
        "for torch, or if unknown.",
        default=None,
    )
    proven: bool | None = about("Whether the graph passed the export gate; null for torch.", default=None)
    proven_on: str | None = about("Device on which the graph passed the export gate; null if it did not.", default=None)

    @property
    def graph_label(self) -> str:
        """The form of the graph, such as "cpu graph"; empty for Optimum's own."""
        return f"{self.optimize} graph" if self.optimize not in (None, "none") else ""

    @property
    def label(self) -> str:
        """The origin of the weights, and the form of the graph."""
        return ", ".join(filter(None, (self.weights_label, self.graph_label)))

    @property
    def weights_label(self) -> str:
        """The origin of the weights for tables, which always mention random weights."""
        if self.weights == "fine-tuned" and self.origin == "random-init":
            return "fine-tuned from random-init"
        return self.weights


@described
class Lineage:
    """The origin of a model, written next to it (`mrpcbench.json`)."""

    schema_version: str = about("Version of this format: major.minor.", default=SCHEMA_VERSION)
    model: ModelIdentity = about("The model in this folder.")
    base_model: str | None = about(
        "Hub id or folder name of the model that training started from; null if unknown.", default=None
    )
    base_model_revision: str | None = about("Commit of that model on the hub; null for a folder.", default=None)
    base_model_sha256: str | None = about("Hash of the weights that training started from.", default=None)
    data_revision: str | None = about("Commit of the hub dataset; null for a folder.", default=None)
    train_data_sha256: str | None = about("Hash of the training pairs.", default=None)
    validation_data_sha256: str | None = about("Hash of the pairs that selected the best epoch.", default=None)
    recipe: TrainRecipe | None = about("How it was trained; null if this project did not train it.", default=None)
    precision: str | None = about("Precision in which it was trained.", default=None)
    dtype: str = about("Precision of the stored weights.", default="fp32")


@described
class DataIdentity:
    """The pairs of a record."""

    source: str = about("Where the pairs came from.")
    revision: str | None = about("Commit of the hub dataset; null for a folder.", default=None)
    split: str = about("Split name.")
    pairs: int = about("Number of pairs.")
    positives: int = about("Pairs of the positive class, label 1.")
    label_names: tuple[str, str] = about(
        "Names of labels 0 and 1. Label 1 is the positive class of F1, precision, recall and the confusion."
    )
    data_sha256: str = about("Hash over the ordered pairs and labels, independent of the file format.")


@dataclass(frozen=True, kw_only=True)
class EnvironmentReport:
    """The environment, and for each engine and device the reason why it cannot run there, or None."""

    environment: Environment
    problems: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class SavedBaseline:
    """A saved baseline: its name, the command of its records, and their files."""

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
