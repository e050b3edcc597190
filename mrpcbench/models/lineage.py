"""The identity of an exported graph. Its lineage file is trusted only if it matches the bytes of the graph."""

import logging
from dataclasses import replace

from mrpcbench.errors import MrpcbenchError, UsageError
from mrpcbench.models.classifier import folder_sha256
from mrpcbench.models.files import weight_files
from mrpcbench.models.graphs import Graph
from mrpcbench.models.hashes import tokenizer_sha256
from mrpcbench.models.sources import ONNX_FILE, ModelSource
from mrpcbench.records import store
from mrpcbench.schema.identity import ModelIdentity


def graph_identity(source: ModelSource, graph: Graph) -> ModelIdentity:
    """The identity of `graph`: from its lineage file if that names these bytes, otherwise from the graph alone.

    A graph that changed after verification is unverified, with a warning. Raises `UsageError` if it was exported from
    other weights than those in the model folder around it.
    """
    found, tokenizer = graph.sha256, tokenizer_sha256(source.tokenizer)
    lineage = store.load_lineage(source.folder)
    if lineage is None or lineage.model.graph_sha256 is None or lineage.model.graph_sha256 != found:
        if lineage and lineage.model.graph_sha256:
            _warn(source, f"{ONNX_FILE} was changed since `mrpcbench export` wrote it")
        return _unknown(source, graph, found, tokenizer)
    known = replace(lineage.model, tokenizer_sha256=tokenizer, revision=source.revision or lineage.model.revision)
    if tokenizer != lineage.model.tokenizer_sha256:
        _warn(source, "the tokenizer was changed since the graph was exported")
        known = _unverified(known)
    try:
        weights = _weights_around(source)
    except MrpcbenchError as error:
        _warn(source, f"the weights that the graph was exported from cannot be read ({error})")
        return _unverified(known)
    if weights not in (None, known.model_sha256):
        raise UsageError(
            f"--model {source.name}: its ONNX graph was exported from other weights than the model has now; "
            "run `mrpcbench export` again"
        )
    return known


def _unknown(source: ModelSource, graph: Graph, sha256: str, tokenizer: str) -> ModelIdentity:
    return ModelIdentity(
        name=source.public_name,
        architecture=str((source.config.architectures or ["unknown"])[0]),
        parameters=graph.parameters,
        weights="fine-tuned",
        origin="unknown",
        model_sha256=sha256,
        tokenizer_sha256=tokenizer,
        graph_sha256=sha256,
        proven=False,
        revision=source.revision,
    )


def _unverified(known: ModelIdentity) -> ModelIdentity:
    return replace(known, proven=False, proven_on=None)


def _warn(source: ModelSource, what: str) -> None:
    logging.getLogger(__name__).warning("--model %s: %s; its graph counts as unverified", source.name, what)


def _weights_around(source: ModelSource) -> str | None:
    """The hash of the weights in the model folder around a graph in its `onnx` or `onnx-...`; None without weights."""
    is_inner = source.folder.name.split("-")[0] == "onnx"
    around = ModelSource(source.name, source.folder.parent if is_inner else source.folder)
    return folder_sha256(around) if weight_files(around.folder, f"--model {source.name}") else None
