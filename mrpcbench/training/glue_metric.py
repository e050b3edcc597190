"""GLUE's metric for MRPC as an `evaluate.Metric` of our own, which needs no hub.

Separate from `metrics`, because `evaluate` loads torch and transformers, and comparing records needs neither.
"""

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike

from mrpcbench.records.scores import accuracy_of, confusion, f1_of


class ParaphraseMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """GLUE's metric for MRPC: accuracy, and F1 of the class 1 ("equivalent").

    `compute(predictions=[N], references=[N])`, both 0 or 1, gives `{"accuracy": ..., "f1": ...}`, as
    `evaluate.load("glue", "mrpc")` does (definition: Wang et al. 2019, GLUE, section 3).
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy and F1 of paraphrase predictions.",
            citation="Wang et al. 2019, GLUE: A Multi-Task Benchmark and Analysis Platform",
            inputs_description="predictions and references: lists of 0 and 1 of the same length.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _build_data_dir(self) -> str:
        # The library would make a cache folder in the home directory, which may be read-only; this metric needs none.
        return ""

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        counts = confusion(np.asarray(predictions), np.asarray(references))
        return {"accuracy": accuracy_of(counts), "f1": f1_of(counts)}


def paraphrase_metric() -> ParaphraseMetric:
    """A fresh metric that keeps its inputs in memory and writes no cache files."""
    return ParaphraseMetric(keep_in_memory=True)
