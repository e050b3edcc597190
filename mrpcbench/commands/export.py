"""Export a classifier to ONNX, and verify that its answers match: `mrpcbench export`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch

from mrpcbench.backends.ort import graph_device, open_onnx, provider_problem
from mrpcbench.backends.pytorch import TorchSession
from mrpcbench.backends.session import Relabelled, Session
from mrpcbench.data import loading
from mrpcbench.data.batches import BATCH_SIZES, EncodedPairs
from mrpcbench.data.folders import WITHHELD
from mrpcbench.data.labels import parsed_map
from mrpcbench.environment.capture import capture, resolve_threads
from mrpcbench.environment.staging import restore
from mrpcbench.errors import MissingError, MrpcbenchError, UsageError, first_line
from mrpcbench.models.classifier import LoadedModel, load_classifier
from mrpcbench.models.files import SMALL_FILES, foreign
from mrpcbench.models.graphs import read_graph
from mrpcbench.models.sources import ONNX_FILE, ModelSource, graph_folder, weights_source
from mrpcbench.onnx_export import graphs, optimum, publishing
from mrpcbench.onnx_export.joined import joined_pairs
from mrpcbench.onnx_export.pair_speed import pair_speed
from mrpcbench.onnx_export.verification import Reference, run, verify
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.outputs import check_file, check_writable, record_of
from mrpcbench.schema.fields import check
from mrpcbench.schema.identity import Lineage, Placement
from mrpcbench.schema.records import ExportRecord
from mrpcbench.schema.requests import BackendSpec, ExportPlan
from mrpcbench.schema.results import ExportGate, ExportSection

# The files of an exported folder; shell patterns.
EXPORTED = (*SMALL_FILES, "model.onnx", "model.onnx*data", "ort_config.json", store.LINEAGE_FILE)
# Pairs for the quick measurement of speed, drawn with a seed; a slow model runs fewer within its time.
SPEED_PAIRS = 96


def export(plan: ExportPlan, results: Path | None, observer: Observer) -> ExportRecord:
    """Write the ONNX folder of `plan`, run the export gate over every pair, and write the record to `results`.

    If the gate fails, the files stay, marked as unverified, and the verdict in the record gives the reason. Raises
    `UsageError` if the model or the data does not exist, or if the model has no graph of the requested form.
    """
    check(plan)
    environment = capture()
    plan = _resolved(plan)
    device = _device(plan)
    folder = _output_folder(plan)
    check_writable("--output-dir", folder.parent / "onnx")
    check_file("--results", results, record_of("export"))
    source = weights_source(plan.model, random_init=plan.random_init)
    to = publishing.check_target(plan, source)
    pairs = loading.split_of(loading.load(plan.data, observer, (plan.split,)), plan.data, plan.split, labelled=False)
    loaded = load_classifier(source, random_init=plan.random_init)
    graphs.check(loaded.model, plan.optimize)
    if not graphs.is_ours(plan.optimize):
        optimum.check(loaded.model, plan.optimize)
    tokens = source.reader.encode(pairs)
    labels = np.asarray(pairs["label"][:], dtype=np.int64)
    labelled = None if WITHHELD in labels else labels
    order = (0, 1) if labelled is None else source.label_order(loading.label_names(pairs), plan.label_map)
    _rename_labels(loaded, plan.label_map)
    source.tell(observer)
    samples = (tokens, joined_pairs(source.reader, pairs, tokens))
    references, placement = _references(loaded, device, samples, order, observer)
    instead = ", replacing the export there" if folder.exists() else ""
    observer.say(f"exporting {loaded.identity.name} as {_words(plan)} to {folder}{instead}")
    store.replace_folder(folder, lambda staged: _write_onnx(loaded, source, plan, device, staged))
    written = store.load_lineage(folder)
    _refresh_lineage(loaded, plan)
    session = _opened(folder, plan)
    record = ExportRecord(
        complete=False,
        environment=environment,
        model=session.model,
        data=(loading.identity(pairs, plan.data, plan.split),),
        export=_section(folder, plan, session.placement, placement),
    )
    store.save(record, results)
    gate = verify(Relabelled(session, order), *references, plan.dtype, observer, labelled)
    record = _conclude(record, gate, device, folder, written)
    if gate.verdict.outcome == "PASS":
        record = _with_pair_speed(record, session, loaded, device, tokens, observer)
    session.close()
    store.save(record, results)
    return publishing.push(record, to, folder, results, observer)


def _device(plan: ExportPlan) -> str:
    """The device that verifies the graph. Raises `MissingError` if ONNX Runtime cannot use it."""
    device = graph_device(plan.device, plan.optimize, f"--optimize {plan.optimize}")
    if device == "cuda" and (problem := provider_problem("cuda")):
        raise MissingError(f"--device {plan.device}: {problem}; use --device cpu, or see `mrpcbench env`")
    return device


def _opened(folder: Path, plan: ExportPlan) -> Session:
    """The exported graph, opened on the device that verifies it."""
    spec = BackendSpec(backend="onnx", model=str(folder), device=plan.device)
    return open_onnx(spec, ModelSource(str(folder), folder))


def _rename_labels(loaded: LoadedModel, label_map: str | None) -> None:
    """Give the model's labels the names of `label_map`, which the graph then has without the option."""
    if label_map:
        names = dict(enumerate(name.upper() for name in parsed_map(label_map)))
        loaded.model.config.id2label = names
        loaded.model.config.label2id = {name: label for label, name in names.items()}


def _resolved(plan: ExportPlan) -> ExportPlan:
    """`plan` with 'auto' resolved to an arithmetic; raises `UsageError` if its options contradict each other."""
    if plan.opset and graphs.is_ours(plan.optimize):
        raise UsageError(
            f"--opset {plan.opset} --optimize {plan.optimize}: only Optimum's graphs have a choice; omit --opset, "
            "or use --optimize none"
        )
    return replace(plan, dtype=graphs.arithmetic(plan.optimize, plan.dtype))


def _words(plan: ExportPlan) -> str:
    if plan.optimize in optimum.LEVELS:
        return f"Optimum's {optimum.LEVELS[plan.optimize]} in {plan.dtype}"
    return plan.dtype if plan.optimize == "none" else f"a graph for {plan.optimize} in {plan.dtype}"


def _output_folder(plan: ExportPlan) -> Path:
    """The folder for the graph; raises `UsageError` if it holds anything but an earlier export."""
    default = graph_folder(plan.model, plan.optimize, random_init=plan.random_init)
    folder = Path(plan.output_dir) if plan.output_dir else default
    restore(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"--output-dir {folder}: a {'link' if folder.is_symlink() else 'file'}; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        _check_replaceable(folder)
    return folder


def _check_replaceable(folder: Path) -> None:
    """Raise `UsageError` if replacing `folder` would remove anything but an earlier export."""
    lineage = store.load_lineage(folder)
    if lineage and lineage.model.graph_sha256 is None:
        raise UsageError(f"--output-dir {folder}: holds a model; name another folder for its ONNX export")
    if lineage is None or not (folder / ONNX_FILE).exists():
        raise UsageError(
            f"--output-dir {folder}: not empty, and not an export of mrpcbench; name another folder, or move it away"
        )
    if other := foreign(folder, EXPORTED):
        raise UsageError(
            f"--output-dir {folder}: holds {other.name}, which is not of an export and would be removed; move it away, "
            "or name another folder"
        )


def _refresh_lineage(loaded: LoadedModel, plan: ExportPlan) -> None:
    """Rewrite the lineage of a model folder whose weights have changed since it was written."""
    folder = Path(plan.model)
    lineage = store.load_lineage(folder) if folder.is_dir() and not plan.random_init else None
    if lineage and lineage.model.model_sha256 != loaded.identity.model_sha256:
        store.save_lineage(Lineage(model=loaded.identity), folder)


def _write_onnx(loaded: LoadedModel, source: ModelSource, plan: ExportPlan, device: str, staged: Path) -> None:
    """Write graph, configuration, tokenizer and lineage into `staged`; the graph is not verified yet."""
    if graphs.is_ours(plan.optimize):
        onnx.save(graphs.make(loaded.model, plan.optimize, plan.dtype), staged / ONNX_FILE)
    else:
        optimum.write(
            *(loaded.model, staged),
            optimize=plan.optimize,
            dtype=plan.dtype,
            opset=plan.opset,
            cuda=device == "cuda",
        )
    loaded.model.config.save_pretrained(staged)
    loaded.tokenizer.save_pretrained(staged)
    identity = replace(
        loaded.identity,
        graph_sha256=read_graph(ModelSource(plan.model, staged)).sha256,
        optimize=plan.optimize,
        proven=False,
    )
    known = None if plan.random_init else store.load_lineage(source.folder)
    if known is None or known.model.model_sha256 != identity.model_sha256:
        known = Lineage(model=identity)  # the stored lineage is of other weights
    lineage = replace(known, model=identity, dtype=plan.dtype)
    store.save_lineage(lineage, staged)


def _references(
    loaded: LoadedModel,
    device: str,
    samples: tuple[EncodedPairs, EncodedPairs],
    order: tuple[int, int],
    observer: Observer,
) -> tuple[tuple[Reference, Reference], Placement]:
    """The float32 logits of the original model for the pairs of the split and for joined pairs, and where it ran.

    The logits are in `order`, that of the data's labels.
    Joined pairs run one at a time, without padding, so that the original model itself cannot err on it.
    """
    session = Relabelled(TorchSession(loaded, device, torch.float32, resolve_threads()), order)
    tokens, long = samples
    split = Reference(tokens, run(session, tokens.batches(BATCH_SIZES[device]), "reference", observer))
    joined = Reference(long, run(session, long.batches(1, order="given"), "reference, joined pairs", observer))
    placement = session.placement
    session.close()
    loaded.model.to("cpu")  # type: ignore[arg-type]
    for logits, words in ((split.logits, "pairs"), (joined.logits, "pairs of joined sentences")):
        if broken := int((~np.isfinite(logits)).any(axis=1).sum()):
            raise MrpcbenchError(
                f"--model {loaded.identity.name}: {broken} of {len(logits)} {words} got non-finite logits from the "
                "original model; nothing was exported; check its weights"
            )
    return (split, joined), placement


def _section(folder: Path, plan: ExportPlan, placement: Placement, reference: Placement) -> ExportSection:
    graph = onnx.load(folder / ONNX_FILE, load_external_data=False)
    return ExportSection(
        dtype=plan.dtype,
        optimize=plan.optimize,
        opset=next(item.version for item in graph.opset_import if item.domain in ("", "ai.onnx")),
        nodes=len(graph.graph.node),
        files={path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        placement=placement,
        reference=reference,
        gate=None,
    )


def _with_pair_speed(
    record: ExportRecord,
    session: Session,
    loaded: LoadedModel,
    device: str,
    tokens: EncodedPairs,
    observer: Observer,
) -> ExportRecord:
    """`record` with the time of one pair. The verdict does not depend on it, so a failure is only a warning."""
    try:
        original = TorchSession(loaded, device, torch.float32, resolve_threads())
        found = pair_speed(session, original, tokens.drawn(1, SPEED_PAIRS, seed=0))
    except Exception as error:  # torch has its own exception types, such as for memory
        observer.warn(f"the time of one pair was not measured: engine failed ({first_line(error)})")
        return record
    return replace(record, export=replace(record.export, pair_speed=found))


def _conclude(
    record: ExportRecord, gate: ExportGate, device: str, folder: Path, written: Lineage | None
) -> ExportRecord:
    """Store in the lineage of `folder`, `written` before the gate, whether the graph passed; the complete record."""
    proven = gate.verdict.outcome == "PASS"
    lineage = store.load_lineage(folder)
    if lineage is None or lineage != written:
        raise MrpcbenchError(f"{folder}: another export has replaced the graph while it was verified; export it again")
    identity = replace(lineage.model, proven=proven, proven_on=device if proven else None)
    store.save_lineage(replace(lineage, model=identity), folder)
    return replace(record, complete=True, model=identity, export=replace(record.export, gate=gate))
