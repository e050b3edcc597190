"""Export a classifier to ONNX through Optimum, and prove that its answers stay the same: `mrpcbench export`."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.transformers.float16 import convert_float_to_float16
from optimum.exporters.onnx import onnx_export_from_model
from transformers.utils import logging as transformers_logging

from mrpcbench import data, models, store
from mrpcbench.backends.base import Session
from mrpcbench.backends.ort import cuda_provider_problem, graph_sha256, open_onnx
from mrpcbench.backends.pytorch import TorchSession
from mrpcbench.batches import EncodedPairs, Order, in_order
from mrpcbench.environment import capture, public_name, resolve_device, usable_cores
from mrpcbench.errors import MissingError, MrpcbenchError, UsageError, first_line
from mrpcbench.metrics import finite_or_none
from mrpcbench.plans import BackendSpec, ExportPlan
from mrpcbench.progress import Observer
from mrpcbench.schema import (
    ExportGate,
    ExportSection,
    Lineage,
    ParityTrial,
    Placement,
    RunRecord,
)
from mrpcbench.stats import rate_upper_bound
from mrpcbench.verdicts import Verdict

# float32: the same arithmetic in another order. Optimum's ModernBERT agrees to 1e-6; 1e-3 leaves room for other
# kernels and is far below a decision margin. Half precision is judged by its labels.
FP32_DELTA_ALLOWED = 1e-3
FP16_FLIP_RATE_ALLOWED = 0.005
# Largest magnitude that a constant keeps in a float16 graph. A mask of -65504 plus a score overflows to -inf, and a
# padding row that is masked throughout becomes NaN; two masks of -1e4 still add up to a finite number.
FP16_LARGEST_CONSTANT = 1e4


@dataclass(frozen=True)
class Padding:
    """One way of batching the pairs; each shows the graph other shapes and another share of padding."""

    batch_size: int
    order: Order
    multiple_of: int
    words: str


PADDINGS = (
    Padding(1, "given", 1, "none"),
    Padding(8, "length", 1, "to the longest of like length"),
    Padding(32, "given", 64, "to a multiple of 64"),
)


def export(plan: ExportPlan, results: Path, observer: Observer) -> RunRecord:
    """Write the ONNX folder of `plan`, run the export gate over every pair, and write the record to `results`.

    A gate that fails leaves the files, marked unproven; the record's verdict says why. Raises `UsageError` where the
    model or the data is not there.
    """
    environment = capture()
    device = resolve_device(plan.device)
    if device == "cuda" and (problem := cuda_provider_problem()):
        raise MissingError(f"--device {plan.device}: {problem}; use --device cpu, or see `mrpcbench env`")
    folder = _output_folder(plan)
    models.locate(plan.model)
    pairs = data.split_of(data.load(plan.data), plan.data, plan.split, labelled=False)
    loaded = models.load_classifier(plan.model, random_init=plan.random_init)
    tokens = models.reader(loaded.tokenizer, loaded.model.config).encode(pairs)
    instead = ", in place of the export there" if folder.exists() else ""
    observer.say(f"exporting {loaded.identity.name} as {plan.dtype} to {folder}{instead}")
    store.replace_folder(folder, lambda staged: _write_onnx(loaded, plan, staged))
    _refresh_lineage(loaded, plan)
    expected, reference = _reference_logits(loaded, device, tokens, observer)
    session = open_onnx(BackendSpec(backend="onnx", model=str(folder), device=plan.device))
    record = RunRecord(
        command="export",
        complete=False,
        environment=environment,
        model=session.model,
        data=(data.identity(pairs, plan.data, plan.split),),
        export=_section(folder, plan.dtype, session.placement, reference),
    )
    store.save(record, results)
    gate = prove(session, tokens, expected, plan.dtype, observer)
    session.close()
    return _conclude(record, gate, device, folder, results)


def _output_folder(plan: ExportPlan) -> Path:
    """Where the graph goes; raises `UsageError` where that holds something that is not an earlier export."""
    if plan.output_dir:
        folder = Path(plan.output_dir)
    elif Path(plan.model).is_dir() and not plan.random_init:
        folder = Path(plan.model) / "onnx"
    else:
        # A hub model lies in a cache that other programs share, and random weights are none of a folder's own.
        suffix = "-random-init-onnx" if plan.random_init else "-onnx"
        folder = Path(public_name(plan.model).rsplit("/", 1)[-1] + suffix)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {folder}: a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / models.ONNX_FILE).exists():
        raise UsageError(f"--output-dir {folder}: holds something else than an ONNX export; name another folder")
    lineage = store.load_lineage(folder) if folder.is_dir() else None
    if lineage and lineage.model.graph_sha256 is None:
        raise UsageError(f"--output-dir {folder}: holds a model; name another folder for its ONNX export")
    return folder


def _refresh_lineage(loaded: models.LoadedModel, plan: ExportPlan) -> None:
    """Where a model folder's weights were changed since its lineage was written, write what is true now."""
    folder = Path(plan.model)
    lineage = store.load_lineage(folder) if folder.is_dir() and not plan.random_init else None
    if lineage and lineage.model.model_sha256 != loaded.identity.model_sha256:
        store.save_lineage(Lineage(model=loaded.identity), folder)


def _write_onnx(loaded: models.LoadedModel, plan: ExportPlan, staged: Path) -> None:
    """Write graph, configuration, tokenizer and lineage into `staged`; nothing is proven yet."""
    try:
        with _quiet_exporters():
            onnx_export_from_model(
                loaded.model, staged, task="text-classification", opset=plan.opset, device="cpu", do_validation=False
            )
    except Exception as error:  # what Optimum and torch raise depends on what the architecture lacks
        why = f"Optimum cannot export {loaded.identity.architecture} ({first_line(error)})"
        if plan.opset:
            raise UsageError(f"--opset {plan.opset}: {why}; leave --opset out for Optimum's own choice") from error
        raise MrpcbenchError(why) from error
    loaded.model.config.save_pretrained(staged)
    loaded.tokenizer.save_pretrained(staged)
    if plan.dtype == "fp16":
        graph = onnx.load(staged / models.ONNX_FILE)
        half = convert_float_to_float16(graph, keep_io_types=True, max_finite_val=FP16_LARGEST_CONSTANT)
        onnx.save(half, staged / models.ONNX_FILE)
    identity = replace(loaded.identity, graph_sha256=graph_sha256(staged), proven=False)
    source = None if plan.random_init else store.load_lineage(models.locate(plan.model))
    if source is None or source.model.model_sha256 != identity.model_sha256:
        source = Lineage(model=identity)  # what was written of other weights says nothing of these
    lineage = replace(source, model=identity, dtype=plan.dtype)
    store.save_lineage(lineage, staged)


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Silence what tracing says about shapes that it takes for constants; the gate finds out whether that matters.

    A trace that fails prints its whole graph from C++, past `sys.stdout`, where results belong.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
        transformers_logging.set_verbosity(level)


def _reference_logits(
    loaded: models.LoadedModel, device: str, tokens: EncodedPairs, observer: Observer
) -> tuple[NDArray[np.float32], Placement]:
    """The original's logits [N, 2] in float32, and where it ran."""
    session = TorchSession(loaded, device, torch.float32, usable_cores())
    logits, _ = _run(session, tokens, Padding(32, "length", 1, ""), "reference", observer)
    placement = session.placement
    session.close()
    return logits, placement


def _run(
    session: Session, tokens: EncodedPairs, padding: Padding, task: str, observer: Observer
) -> tuple[NDArray[np.float32], int]:
    """Logits [N, 2] of all pairs in their order, and how many tokens of padding that took."""
    cut = tokens.batches(padding.batch_size, order=padding.order, multiple_of=padding.multiple_of)
    outputs = []
    for logits in session.infer_many(cut):
        outputs.append(logits)
        observer.advance(task, len(outputs), len(cut))
    return in_order(outputs, cut), sum(batch.padding_tokens for batch in cut)


def prove(
    session: Session, tokens: EncodedPairs, expected: NDArray[np.float32], dtype: str, observer: Observer
) -> ExportGate:
    """Run `session` over every pair in each of `PADDINGS`, and hold its logits against `expected` [N, 2]."""
    trials = []
    for padding in PADDINGS:
        task = f"proof, batch {padding.batch_size}"
        logits, padding_tokens = _run(session, tokens, padding, task, observer)
        trials.append(_trial(padding, padding_tokens, logits, expected))
    return judge(tuple(trials), expected, dtype)


def _trial(
    padding: Padding, padding_tokens: int, logits: NDArray[np.float32], expected: NDArray[np.float32]
) -> ParityTrial:
    deltas = np.abs(logits.astype(np.float64) - expected)
    return ParityTrial(
        batch_size=padding.batch_size,
        padding=padding.words,
        padding_tokens=padding_tokens,
        flips=int((logits.argmax(axis=1) != expected.argmax(axis=1)).sum()),
        max_abs_delta=finite_or_none(float(deltas.max())),
        p99_abs_delta=finite_or_none(float(np.quantile(deltas, 0.99))),
    )


def judge(trials: tuple[ParityTrial, ...], expected: NDArray[np.float32], dtype: str) -> ExportGate:
    """The export gate: the worst trial decides, and a logit that is not finite never passes."""
    pairs = len(expected)
    flips_allowed = 0 if dtype == "fp32" else int(pairs * FP16_FLIP_RATE_ALLOWED)
    delta_allowed = FP32_DELTA_ALLOWED if dtype == "fp32" else None
    flips = max(trial.flips for trial in trials)
    deltas = [trial.max_abs_delta for trial in trials]
    worst = None if None in deltas else max(delta for delta in deltas if delta is not None)
    margin = float(np.abs(expected[:, 1] - expected[:, 0]).min())
    if worst is None or not np.isfinite(margin):
        verdict = Verdict(outcome="REGRESSION", reason="a logit is not finite")
    elif flips > flips_allowed:
        verdict = Verdict(outcome="REGRESSION", reason=f"{flips} of {pairs} labels flip and {flips_allowed} may")
    elif delta_allowed is not None and worst > delta_allowed:
        verdict = Verdict(
            outcome="REGRESSION", reason=f"a logit differs by {worst:.2e} and {delta_allowed:.0e} is allowed"
        )
    else:
        verdict = Verdict(outcome="PASS", reason=f"{flips} of {pairs} labels flip; largest difference {worst:.2e}")
    return ExportGate(
        pairs=pairs,
        trials=trials,
        flips_allowed=flips_allowed,
        delta_allowed=delta_allowed,
        smallest_margin=finite_or_none(margin),
        headroom=finite_or_none(margin / worst) if worst else None,
        flip_rate_bound=rate_upper_bound(flips, pairs),
        verdict=verdict,
    )


def _section(folder: Path, dtype: str, placement: Placement, reference: Placement) -> ExportSection:
    graph = onnx.load(folder / models.ONNX_FILE, load_external_data=False)
    return ExportSection(
        dtype=dtype,
        opset=next(item.version for item in graph.opset_import if item.domain in ("", "ai.onnx")),
        nodes=len(graph.graph.node),
        files={path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        placement=placement,
        reference=reference,
        gate=None,
    )


def _conclude(record: RunRecord, gate: ExportGate, device: str, folder: Path, results: Path) -> RunRecord:
    """Mark the graph as proven where it is, and save the finished record."""
    assert record.export is not None
    proven = gate.verdict.outcome == "PASS"
    lineage = store.load_lineage(folder)
    assert lineage is not None
    identity = replace(lineage.model, proven=proven, proven_on=device if proven else None)
    store.save_lineage(replace(lineage, model=identity), folder)
    finished = replace(record, complete=True, model=identity, export=replace(record.export, gate=gate))
    store.save(finished, results)
    return finished
