"""Loads a classifier's weights, only from safetensors and without remote code, and identifies them by hashes."""

import re
from collections.abc import Mapping, Sequence
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

from mrpcbench.errors import MrpcbenchError, UsageError, first_line
from mrpcbench.models.files import WEIGHTS, check_safetensors, weight_files
from mrpcbench.models.finite import first_not_finite
from mrpcbench.models.hashes import remember, remembered, stamp_of, tokenizer_sha256, weights_sha256
from mrpcbench.models.sources import LABELS, ONNX_FILE, ModelSource
from mrpcbench.records import store
from mrpcbench.schema.identity import ModelIdentity
from mrpcbench.schema.results import LoadReport

# The name of a stack of layers, in the name of a weight of one of them.
LAYER = re.compile(r"(.*?)\.\d+\.")
# Part of the name of every class that classifies texts and pairs.
HEAD = "SequenceClassification"
# Settings of a checkpoint's former task that change its loss or the form of its output, and their values here. None
# stands for the same values.
SETTINGS: Mapping[str, object] = {
    "problem_type": "single_label_classification",
    "return_dict": True,
    "torchscript": False,
    "output_attentions": False,
    "output_hidden_states": False,
}


@dataclass(frozen=True)
class LoadedModel:
    """A sequence classifier in float32 on the CPU, with its tokenizer, identity and load report."""

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

    `label_names` replace those in its configuration, unless None. `random_init` initialises all weights randomly.
    `new_head` allows a checkpoint without a classification head, which is then initialised from `seed`. Raises
    `UsageError` if the folder lacks weights, a head or a part of the encoder.
    """
    folder, name = source.folder, source.name
    config = _classifier_config(source, label_names, new_head=new_head)
    tokenizer = source.tokenizer
    set_seed(seed)
    if random_init:
        model = _build(config)
        report = LoadReport()
    else:
        _check_weight_files(folder, name)
        stamp = stamp_of(folder)
        model, report = _read(folder, name, config, new_head=new_head)
        if not new_head:
            _check_whole(report, source)
    if broken := first_not_finite(model.named_parameters()):
        raise UsageError(f"--model {name}: its weight {broken} is not finite (NaN or infinity); train it again")
    model.eval()
    _align_padding(model, tokenizer, source, to_train=new_head)
    identity = _identity(model, tokenizer, source, random_init=random_init, report=report)
    if not random_init and not report.new_head:
        remember(folder, identity.model_sha256, stamp)
    return LoadedModel(model, tokenizer, identity, report)


def folder_sha256(source: ModelSource) -> str:
    """The `model_sha256` of the weights that are in the folder of `source` now; see `load_classifier` for errors."""
    if known := remembered(source.folder):
        return known
    _check_weight_files(source.folder, source.name)
    stamp = stamp_of(source.folder)
    model, report = _read(source.folder, source.name, _classifier_config(source, None, new_head=False), new_head=False)
    _check_whole(report, source)
    found = weights_sha256(model)
    remember(source.folder, found, stamp)
    return found


def _check_whole(report: LoadReport, source: ModelSource) -> None:
    """Reject a checkpoint whose weights would be random or are those of another task. Only training may start from one.

    The head of a classifier of tokens can have the names and sizes of one for pairs.
    """
    option, names = f"--model {source.name}", source.config.architectures or ()
    if report.new_head:
        raise UsageError(f"{option}: it has no classification head; fine-tune it first with `mrpcbench train`")
    if names and not any(HEAD in item for item in names):
        raise UsageError(
            f"{option}: it is a {names[0]}, whose head was trained for another task; fine-tune it first with "
            "`mrpcbench train`"
        )
    if report.missing:
        raise UsageError(
            f"{option}: {len(report.missing)} weights of its encoder are missing ({report.missing[0]}, ...) and "
            "would be random; fine-tune it first with `mrpcbench train`, or use a complete model"
        )


def _align_padding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: ModelSource, *, to_train: bool
) -> None:
    """Set the padding token by which some models find the last real token. The Trainer does so too, if there is one.

    The model is built already: RoBERTa counts its positions from the padding token that its weights were trained with.
    """
    config, token = model.config, tokenizer.pad_token_id
    if config.pad_token_id is None:
        source.note(f"its configuration has no pad_token_id; it is set to {token}, that of the tokenizer")
    elif config.pad_token_id == token or to_train:
        return
    else:
        source.note(f"its pad_token_id {config.pad_token_id} is set to {token}, that of the tokenizer")
    config.pad_token_id = token


def _reset_task(config: PretrainedConfig, source: ModelSource) -> None:
    """Reset the settings of another task, and note which."""
    for name, value in SETTINGS.items():
        if (was := getattr(config, name, None)) not in (None, value):
            setattr(config, name, value)
            source.note(f"{name} {was}, from another task, is reset to {value}")


def _classifier_config(source: ModelSource, label_names: Sequence[str] | None, *, new_head: bool) -> PretrainedConfig:
    config = deepcopy(source.config)
    is_classifier = any(HEAD in item for item in config.architectures or ())
    if is_classifier and not new_head:
        source.check_head()
    _reset_task(config, source)
    if is_classifier and config.num_labels != LABELS:
        source.note(f"its head has {config.num_labels} labels; a new head with {LABELS} takes its place")
    if label_names is not None:
        config.id2label = {index: label.upper() for index, label in enumerate(label_names)}
        config.label2id = {label: index for index, label in config.id2label.items()}
    if hasattr(config, "reference_compile"):
        # Otherwise ModernBERT compiles itself if it can, and run times depend on whether a compiler is installed.
        config.reference_compile = False
    return config


def _check_weight_files(folder: Path, name: str) -> None:
    if files := weight_files(folder, f"--model {name}"):
        for path in files:
            check_safetensors(path, f"--model {name}")
        return
    if others := sorted(folder.glob("*.safetensors")):
        raise UsageError(
            f"--model {name}: {others[0].name} is not the name of a model's weights; a whole model has {WEIGHTS}"
        )
    if (folder / ONNX_FILE).exists():
        raise UsageError(
            f"--model {name}: it has an ONNX graph but no weights; name the model folder, or run the graph with "
            "`evaluate` or `bench` and --backend onnx"
        )
    if any(folder.glob("*.bin")):
        raise UsageError(f"--model {name}: it has only pickled weights (*.bin); save them as safetensors first")
    raise UsageError(
        f"--model {name}: it has a config.json but no weights in safetensors, the only supported format; "
        "pass --random-init to use random weights"
    )


def attention_of(config: PretrainedConfig) -> str:
    """The attention implementation: `sdpa` if the architecture supports it, otherwise `eager`."""
    kind = AutoModelForSequenceClassification._model_mapping.get(type(config), None)
    if kind is None:
        raise UsageError(f"{type(config).__name__} has no sequence classifier in transformers; use another --model")
    return "sdpa" if kind._supports_sdpa else "eager"


def _build(config: PretrainedConfig) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_config(
        config, dtype=torch.float32, attn_implementation=attention_of(config), trust_remote_code=False
    )


def _read(folder: Path, name: str, config: PretrainedConfig, *, new_head: bool) -> tuple[PreTrainedModel, LoadReport]:
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
            # A head of another task, with other shapes, is initialised again.
            ignore_mismatched_sizes=new_head,
        )
    except MrpcbenchError:
        raise
    except Exception as error:  # safetensors raises its own types, which share no base
        raise UsageError(f"--model {name}: cannot load its weights ({first_line(error)})") from error
    encoder = f"{model.base_model_prefix}."
    replaced = set(info["mismatched_keys"])
    if other := sorted(key for key in replaced if key.startswith(encoder)):
        raise UsageError(f"--model {name}: {other[0]} has other sizes than config.json says; use a complete model")
    missing = sorted(replaced.union(info["missing_keys"]))
    report = LoadReport(
        new_head=tuple(key for key in missing if not key.startswith(encoder)),
        missing=tuple(key for key in missing if key.startswith(encoder)),
        unexpected=tuple(sorted(info["unexpected_keys"])),
        loaded_sha256=weights_sha256(model, without=missing) if missing else None,
    )
    if len(report.missing) == sum(key.startswith(encoder) for key in model.state_dict()):
        raise UsageError(f"--model {name}: none of its weights fits {type(model).__name__}; use another --model")
    if unused := unused_weights(model, report.unexpected, with_head=not new_head):
        raise UsageError(
            f"--model {name}: config.json does not use {len(unused)} of its weights ({unused[0]}, ...); use the "
            "config.json that was saved with them"
        )
    return model, report


def unused_weights(model: PreTrainedModel, unexpected: Sequence[str], *, with_head: bool) -> list[str]:
    """Those of the `unexpected` names in a checkpoint that a configuration of the same model would use.

    They are in a layer, as of a model with fewer layers than its checkpoint, or belong to a module that the model has,
    as a bias. Others are normal: a pooler or the head of another task. Without `with_head`, only the encoder counts.
    """
    prefix = f"{model.base_model_prefix}."
    names = [name for name in model.state_dict() if with_head or name.startswith(prefix)]
    # A checkpoint of the encoder alone lacks the prefix.
    known = {*names, *(name.removeprefix(prefix) for name in names)}
    stacks = {match[1] for name in known if (match := LAYER.match(name))}

    def is_unused(name: str) -> bool:
        weight = f"{name.rpartition('.')[0]}.weight"
        stack = LAYER.match(name)
        return weight in known or (stack is not None and stack[1] in stacks and weight in unexpected)

    return [name for name in unexpected if is_unused(name)]


def _identity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    source: ModelSource,
    *,
    random_init: bool,
    report: LoadReport,
) -> ModelIdentity:
    found = ModelIdentity(
        name=source.public_name,
        architecture=type(model).__name__,
        parameters=sum(weight.numel() for weight in model.parameters()),
        weights="random-init" if random_init else "pretrained" if report.new_head else "fine-tuned",
        origin="random-init" if random_init else "pretrained" if report.new_head else "unknown",
        model_sha256=weights_sha256(model),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        revision=source.revision,
    )
    lineage = None if random_init else store.load_lineage(source.folder)
    if lineage and lineage.model.model_sha256 == found.model_sha256:
        return replace(found, weights=lineage.model.weights, origin=lineage.model.origin)
    return found
