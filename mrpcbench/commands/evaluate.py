"""Score a classifier on a labelled split: `mrpcbench evaluate --split validation`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import Session, computed_padding
from mrpcbench.data import loading
from mrpcbench.data.batches import BATCH_SIZES, Batch, in_order
from mrpcbench.data.labels import LABEL_NAMES, are_numbers, normal, parsed_map
from mrpcbench.environment.capture import capture
from mrpcbench.environment.redaction import public
from mrpcbench.errors import MrpcbenchError, UsageError
from mrpcbench.models.sources import ModelSource, export_command
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.outputs import PREDICTIONS, check_file, check_writable, record_of, save_with_predictions
from mrpcbench.records.scores import score
from mrpcbench.schema.fields import check
from mrpcbench.schema.identity import PairAnswer, Placement
from mrpcbench.schema.records import EvaluateRecord
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan
from mrpcbench.schema.results import EvalScore, EvaluateSection


def evaluate(spec: BackendSpec, plan: EvaluatePlan, results: Path | None, observer: Observer) -> EvaluateRecord:
    """Score the model of `spec` on the split of `plan`.

    Writes the record to `results`, and the predictions next to it. Raises `UsageError` if the model, the data or the
    split does not exist, or if the split has no labels.
    """
    check(spec, plan)
    check_file("--results", results, record_of("evaluate"))
    predictions = _predictions_path(plan, results)
    environment = capture()
    source = resolve(spec)
    pairs = loading.split_of(loading.load(plan.data, observer, (plan.split,)), plan.data, plan.split)
    labels = np.asarray(pairs["label"][:], dtype=np.int64)
    order = source.label_order(loading.label_names(pairs), spec.label_map)
    tokens = source.reader.encode(pairs)
    session = open_session(spec, source)
    source.tell(observer)
    batch_size = plan.batch_size or BATCH_SIZES[session.placement.device.split()[0]]
    batches = tokens.batches(batch_size)
    try:
        padding_tokens = computed_padding(session, batches)
        logits = _answered(session, batches, observer)[:, order]
    finally:
        session.close()
    _check_finite(logits, session.placement, spec.model)
    text, sha256 = store.to_jsonl(prediction_rows(logits, labels))
    section = EvaluateSection(
        spec=public(spec),
        placement=session.placement,
        batch_size=batch_size,
        score=score(logits, labels),
        predictions_file=predictions.name if predictions else "",
        predictions_sha256=sha256,
        real_tokens=sum(batch.real_tokens for batch in batches),
        padding_tokens=padding_tokens,
    )
    record = EvaluateRecord(
        complete=True,
        environment=environment,
        model=session.model,
        data=(loading.identity(pairs, plan.data, plan.split),),
        evaluate=section,
    )
    save_with_predictions(record, results, predictions, text)
    _warn_of_chance(section.score, observer)
    if session.model.proven is False:
        command = export_command(source.folder, plan.data, session.model.optimize)
        observer.warn(f"the graph of {spec.model} is UNVERIFIED; to verify it, run `{command}`")
    return record


def _check_finite(logits: NDArray[np.float32], placement: Placement, model: str) -> None:
    """Raise `MrpcbenchError` if any of `logits` [N, 2] is not finite."""
    if broken := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise MrpcbenchError(
            f"{broken} of {len(logits)} pairs got non-finite logits from {placement} "
            f"{placement.dtype}; use --dtype fp32, or check the weights of --model {model}"
        )


def _warn_of_chance(found: EvalScore, observer: Observer) -> None:
    """Warn if the accuracy may be that of a model that always answers the larger class."""
    low, majority = found.accuracy_interval.low, found.majority_accuracy
    if low <= majority:
        observer.warn(
            f"accuracy {found.accuracy:.4f} does not clearly beat the majority class ({majority:.4f}): its 95% "
            f"interval begins at {low:.4f}"
        )


def _answered(session: Session, batches: Sequence[Batch], observer: Observer) -> NDArray[np.float32]:
    """Logits [N, 2] of all pairs, in the order of the input."""
    outputs = []
    for logits in session.infer_many(batches):
        outputs.append(logits)
        observer.advance("evaluate", len(outputs), len(batches))
    return in_order(outputs, batches)


def _names_of(source: ModelSource, label_map: str | None) -> tuple[tuple[str, ...], tuple[int, int]]:
    """The names of a model's labels, the positive class last, and their order in the model.

    Where a model has other names than GLUE's, its own are shown in its own order.
    """
    own = source.label_names if label_map is None else parsed_map(label_map)
    source.check_head()
    if not are_numbers(own) and sorted(map(normal, own)) != sorted(map(normal, LABEL_NAMES)):
        return own, (0, 1)
    order = source.label_order(LABEL_NAMES, label_map)
    return (LABEL_NAMES if are_numbers(own) else tuple(own[label] for label in order)), order


def _predictions_path(plan: EvaluatePlan, results: Path | None) -> Path | None:
    """The file for the predictions; None if neither a folder nor a record is requested.

    Raises `UsageError` if it cannot be written, or would replace another kind of file.
    """
    name = f"{results.stem if results else 'evaluate'}.predictions.jsonl"
    option, path = "--results", results.with_name(name) if results else None
    if plan.output_dir:
        check_writable("--output-dir", plan.output_dir)
        option, path = "--output-dir", Path(plan.output_dir, name)
    check_file(option, path, PREDICTIONS)
    return path


def prediction_rows(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """The lines of a predictions file, from logits [N, 2] and labels [N]."""
    for index, (row, label) in enumerate(zip(logits, labels, strict=True)):
        yield {
            "index": index,
            "label": int(label),
            "logits": [float(value) for value in row],
            "prediction": int(row.argmax()),
        }


def classify(spec: BackendSpec, sentence1: str, sentence2: str) -> PairAnswer:
    """Classify one pair of sentences with the model of `spec`."""
    if not sentence1.strip() or not sentence2.strip():
        raise UsageError("--pair: an empty sentence; give two sentences of text")
    texts = {"sentence1": [sentence1], "sentence2": [sentence2]}
    source = resolve(spec)
    names, order = _names_of(source, spec.label_map)
    (batch,) = source.reader.encode(texts).batches(1)
    session = open_session(spec, source)
    try:
        logits = session.infer(batch)[0, order].astype(np.float64)
    finally:
        session.close()
    if not np.isfinite(logits).all():
        raise MrpcbenchError(
            f"--pair: non-finite logits from {session.placement} {session.placement.dtype}; use --dtype fp32, or check "
            f"the weights of --model {spec.model}"
        )
    label = int(logits.argmax())
    shares = np.exp(logits - logits.max())
    return PairAnswer(
        sentence1=sentence1,
        sentence2=sentence2,
        label=label,
        label_name=names[label],
        probability=float(shares[label] / shares.sum()),
        logits=(float(logits[0]), float(logits[1])),
        weights=session.model.weights_label,
        placement=session.placement,
    )
