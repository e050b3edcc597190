"""Adds a verified ONNX graph to the hub repository that holds the same weights."""

from dataclasses import replace
from pathlib import Path

from mrpcbench.errors import UsageError
from mrpcbench.hub import uploads
from mrpcbench.hub.cards import with_section
from mrpcbench.hub.uploads import Target
from mrpcbench.models.files import matches, weight_files
from mrpcbench.models.sources import ModelSource
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.schema.records import ExportRecord
from mrpcbench.schema.requests import ExportPlan

# A repository has one graph, here, where Optimum and --backend onnx look for it.
FOLDER, CARD = "onnx", "README.md"


def check_target(plan: ExportPlan, source: ModelSource) -> Target | None:
    """The repository for --push-to-hub, before any work; None without the option.

    Raises `UsageError` unless it holds the weights of `source`, byte by byte, and the user can write to it.
    """
    if plan.push_to_hub is None:
        return None
    option = f"--push-to-hub {plan.push_to_hub}"
    if plan.random_init:
        raise UsageError(f"{option}: a graph of random weights belongs to no repository; omit --random-init")
    to = uploads.target(plan.push_to_hub, create=False)
    if other := to.other_file(to.listing()[0], weight_files(source.folder, f"--model {source.name}")):
        raise UsageError(
            f"{option}: {to.repo_id} has other weights than --model {source.name} ({other.name}); upload these first "
            "with `mrpcbench train --resume --push-to-hub`, or name the repository of this model"
        )
    return to


def push(
    record: ExportRecord, to: Target | None, folder: Path, results: Path | None, observer: Observer
) -> ExportRecord:
    """Upload the graph in `folder`, and return `record` with the address of the commit, after saving it.

    Nothing happens without a repository, or if the graph failed its verification. Another graph in the repository is
    removed in the same commit. Raises `MrpcbenchError` if the upload fails.
    """
    if to is None:
        return record
    if record.verdict is None or record.verdict.outcome != "PASS":
        observer.warn(f"not uploaded to {to.repo_id}: the graph did not pass its verification")
        return record
    observer.say(f"uploading the graph to {to.repo_id}")
    files: dict[str, Path | bytes] = {f"{FOLDER}/{path.name}": path for path in sorted(folder.iterdir())}
    newest, names, _ = to.listing()
    if CARD in names:
        files[CARD] = with_section(to.text(newest, CARD), _section(record, to.repo_id)).encode()
    kept = f"the graph is saved in {folder}; run the command again to upload it"
    address = uploads.commit(to, files, is_stale, f"Verified ONNX graph ({record.export.dtype})", kept)
    pushed = replace(record, export=replace(record.export, pushed=address))
    store.save(pushed, results)
    observer.say(f"uploaded: {address}")
    return pushed


def is_stale(name: str) -> bool:
    """Whether the file `name` of a repository belongs to a graph."""
    folder, slash, _ = name.partition("/")
    return matches(folder, ("onnx", "onnx-*")) if slash else matches(name, ("*.onnx*",))


def _section(record: ExportRecord, repo_id: str) -> str:
    """The part of the model card about the graph."""
    gate, graph = record.export.gate, record.export
    assert gate is not None
    (data,) = record.data
    return f"""## ONNX

`{FOLDER}/` holds a graph in {graph.dtype} (opset {graph.opset}), exported from these weights. Its answers to the \
{gate.pairs} {data.split} pairs match the model's: {max(trial.flips for trial in gate.trials)} labels differ at most.

```python
from optimum.onnxruntime import ORTModelForSequenceClassification

model = ORTModelForSequenceClassification.from_pretrained("{repo_id}", subfolder="{FOLDER}")
```

With mrpcbench: `mrpcbench evaluate --model {repo_id} --backend onnx`

SHA-256 of the graph: `{record.model.graph_sha256}`"""
