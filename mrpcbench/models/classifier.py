"""Loads a model's weights, without remote code and from safetensors only, and says what the model is."""

import hashlib
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from mrpcbench.environment.redaction import public_name
from mrpcbench.errors import MrpcbenchError, UsageError, first_line
from mrpcbench.models.sources import ONNX_FILE, ModelSource
from mrpcbench.records import store
from mrpcbench.schema.identity import ModelIdentity
from mrpcbench.schema.results import LoadReport

LABELS = 2


@dataclass(frozen=True)
class LoadedModel:
    """A sequence classifier in float32 on the CPU, with its tokenizer and what is known of both."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    report: LoadReport


def load_classifier(
    source: ModelSource,
    *,
    label_names: Sequence[str] | None = None,
    random_init: bool = False,
    seed: int = 0,
    new_head: bool = False,
) -> LoadedModel:
    """Load the model of `source` as a classifier of two labels, in float32 on the CPU, in evaluation mode.

    `label_names` are put into its configuration (None keeps those it has); `random_init` initialises all weights from
    the architecture; `new_head` allows a checkpoint without a classification head, which is then initialised from
    `seed`. Raises `UsageError` where the folder lacks what was asked for.
    """
    folder, name = source.folder, source.name
    config = _classifier_config(source, label_names)
    tokenizer = source.tokenizer
    set_seed(seed)
    if random_init:
        model = _build(config)
        report = LoadReport()
    else:
        _check_weight_files(folder, name)
        model, report = _read(folder, name, config)
        if not new_head:
            _check_whole(report, name)
    model.eval()
    identity = _identity(model, tokenizer, folder, name, random_init=random_init, report=report)
    return LoadedModel(model, tokenizer, identity, report)


def _check_whole(report: LoadReport, name: str) -> None:
    """Refuse a checkpoint of which a part would be random; only training may begin so."""
    if report.new_head:
        raise UsageError(f"--model {name}: no classification head in it; fine-tune it first with `mrpcbench train`")
    if report.missing:
        raise UsageError(
            f"--model {name}: {len(report.missing)} weights of its encoder are missing, {report.missing[0]} first; "
            "they would be random: fine-tune it first with `mrpcbench train`, or name a whole model"
        )


def _classifier_config(source: ModelSource, label_names: Sequence[str] | None) -> PretrainedConfig:
    config = deepcopy(source.config)
    has_head = any("SequenceClassification" in item for item in config.architectures or ())
    if has_head and config.num_labels != LABELS:
        raise UsageError(
            f"--model {source.name}: its head has {config.num_labels} labels, and paraphrase needs {LABELS}"
        )
    if label_names is not None:
        config.id2label = {index: label.upper() for index, label in enumerate(label_names)}
        config.label2id = {label: index for index, label in config.id2label.items()}
    if hasattr(config, "reference_compile"):
        # ModernBERT would compile itself where it can, and the time of a run would depend on whether it could.
        config.reference_compile = False
    return config


def _check_weight_files(folder: Path, name: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    if (folder / ONNX_FILE).exists():
        raise UsageError(f"--model {name}: holds an ONNX graph and no weights; add --backend onnx")
    if any(folder.glob("*.bin")):
        raise UsageError(f"--model {name}: only pickled weights (*.bin) in it; save them as safetensors first")
    raise UsageError(
        f"--model {name}: an architecture (config.json) without weights in safetensors, the only format that is read; "
        "pass --random-init to use random weights"
    )


def attention_of(config: PretrainedConfig) -> str:
    """The attention that torch runs: scaled-dot-product attention where the architecture has it."""
    kind = AutoModelForSequenceClassification._model_mapping.get(type(config), None)
    if kind is None:
        raise UsageError(f"{type(config).__name__} has no sequence classifier in transformers; name another --model")
    return "sdpa" if kind._supports_sdpa else "eager"


def _build(config: PretrainedConfig) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_config(
        config, dtype=torch.float32, attn_implementation=attention_of(config), trust_remote_code=False
    )


def _read(folder: Path, name: str, config: PretrainedConfig) -> tuple[PreTrainedModel, LoadReport]:
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention_of(config),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except MrpcbenchError:
        raise
    except Exception as error:  # safetensors raises its own types, which share no base
        raise MrpcbenchError(f"--model {name}: its weights cannot be loaded ({first_line(error)})") from error
    encoder = f"{model.base_model_prefix}."
    missing = sorted(info["missing_keys"])
    report = LoadReport(
        new_head=tuple(key for key in missing if not key.startswith(encoder)),
        missing=tuple(key for key in missing if key.startswith(encoder)),
        unexpected=tuple(sorted(info["unexpected_keys"])),
        loaded_sha256=weights_sha256(model, without=missing) if missing else None,
    )
    if len(report.missing) == sum(key.startswith(encoder) for key in model.state_dict()):
        raise UsageError(f"--model {name}: none of its weights belongs to {type(model).__name__}; name another --model")
    return model, report


def _identity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    name: str,
    *,
    random_init: bool,
    report: LoadReport,
) -> ModelIdentity:
    found = ModelIdentity(
        name=public_name(name),
        architecture=type(model).__name__,
        parameters=sum(weight.numel() for weight in model.parameters()),
        weights="random-init" if random_init else "pretrained" if report.new_head else "fine-tuned",
        origin="random-init" if random_init else "pretrained" if report.new_head else "unknown",
        model_sha256=weights_sha256(model),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
    )
    lineage = None if random_init else store.load_lineage(folder)
    if lineage and lineage.model.model_sha256 == found.model_sha256:
        return replace(found, weights=lineage.model.weights, origin=lineage.model.origin)
    return found


def weights_sha256(model: PreTrainedModel, *, without: Collection[str] = ()) -> str:
    """Hash over name, dtype, shape and bytes of every weight in the order of names, whatever files held them."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if name in without:
            continue
        digest.update(f"{name}\0{weight.dtype}\0{tuple(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what `tokenizer` does, which loading and saving do not change, as they change the bytes of its files."""
    if tokenizer.is_fast:
        # What a call has set for padding and truncation is no part of the tokenizer.
        return store.canonical_sha256(tokenizer.backend_tokenizer.to_str(), without=("padding", "truncation"))
    content = (sorted(tokenizer.get_vocab().items()), sorted(tokenizer.special_tokens_map.items()))
    return hashlib.sha256(repr(content).encode()).hexdigest()


def files_sha256(paths: Sequence[Path]) -> str:
    """Hash over the names and bytes of `paths`."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()
