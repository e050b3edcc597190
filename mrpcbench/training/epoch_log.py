"""The log of a training run: one line per evaluation, from the Trainer's own log."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from mrpcbench.records.scores import finite_or_none
from mrpcbench.schema.results import EpochMetrics


def epochs_of(log: Sequence[Mapping[str, Any]]) -> tuple[EpochMetrics, ...]:
    """One line per evaluation of the Trainer's `log_history`, which has training and evaluation in separate entries."""
    lines, training = [], {}
    for entry in log:
        if "loss" in entry:
            training = dict(entry)
        if "eval_loss" in entry:
            lines.append(
                EpochMetrics(
                    step=entry["step"],
                    train_loss=finite_or_none(training.get("loss")),
                    train_grad_norm=finite_or_none(training.get("grad_norm")),
                    train_learning_rate=training.get("learning_rate", 0.0),
                    train_epoch=float(entry["epoch"]),
                    eval_loss=finite_or_none(entry["eval_loss"]),
                    eval_accuracy_score=entry["eval_accuracy_score"],
                    eval_f1_score=entry["eval_f1_score"],
                )
            )
    return tuple(lines)


def metrics_csv(epochs: tuple[EpochMetrics, ...]) -> str:
    """The log as CSV, one row per evaluation, with the record's names as header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in fields(EpochMetrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in epochs)
    return text.getvalue()
