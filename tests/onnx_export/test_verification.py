"""What the export gate sees in graphs that are wrong where the pairs of a split do not reach."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from mrpcbench.data import loading
from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.environment.machine import exact_integers
from mrpcbench.gates.export import export_problem
from mrpcbench.models.sources import ModelSource
from mrpcbench.onnx_export.cpu import ForCpu
from mrpcbench.onnx_export.joined import joined_pairs
from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.quantize import quantized
from mrpcbench.onnx_export.verification import Reference, verify
from mrpcbench.onnx_export.writer import Writer
from mrpcbench.progress import Silent
from mrpcbench.quickstart import CLASSIFIER_DIR
from mrpcbench.schema.results import ExportGate, ParityTrial, TrialKind

# A token sees 64 on each side: in a pair of at most 65 every token sees every other.
WINDOW, WITHIN_WINDOW = 128, 65


def padded_length(write: Writer) -> str:
    """The length of the batch for every pair [B]."""
    ones = write.one("ReduceMax", ["attention_mask", write.integers(1)], {"keepdims": 0})
    return write.one("Mul", [ones, write.one("Shape", ["input_ids"], {"start": 1, "end": 2})])


class Windowless(ForCpu):
    """A graph whose local layers see all tokens."""

    def _window(self) -> str:
        return ""


class PaddedLength(ForCpu):
    """A graph that takes the length of the batch as the length of every pair."""

    def _window(self) -> str:
        self._real = padded_length(self._writer)
        return super()._window()


class WeakMask(ForCpu):
    """A graph whose masks are too weak: a masked token still has a share of e^-17 in a softmax."""

    def _window(self) -> str:
        window, write = super()._window(), self._writer
        gone = write.one("Sub", [write.constant("one", np.array(1, np.float32)), write.cast("attention_mask", 1)])
        added = write.one("Mul", [gone, write.constant("weak", np.array(-17, np.float32))])
        flat = write.constant("flat", np.zeros(512, np.float32))
        rows = write.one("Slice", [flat, write.integers(0), write.one("Shape", ["input_ids"], {"start": 1, "end": 2})])
        queries = write.one("Unsqueeze", [rows, write.integers(1)])
        keys = write.one("Unsqueeze", [added, write.integers(1, 2)])
        self._weak = write.one("Add", [queries, keys])
        self._real = padded_length(write)
        return window

    def _attention(self, states: str, layer: int, band: str) -> str:
        mask = self._writer.one("Add", [band, self._weak]) if band else self._weak
        return super()._attention(states, layer, mask)


@dataclass
class Graph:
    """A session of a graph on the CPU."""

    graph: onnx.ModelProto
    placement: SimpleNamespace = field(default_factory=SimpleNamespace)
    model: SimpleNamespace = field(default_factory=SimpleNamespace)

    def __post_init__(self) -> None:
        options = ort.SessionOptions()
        for name, value in exact_integers().items():
            options.add_session_config_entry(name, value)
        graph = self.graph.SerializeToString()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(["logits"], dict(batch.inputs))[0]
        return logits

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        return map(self.infer, batches)

    def close(self) -> None:
        return


class NanInEmptyWindows(Graph):
    """A graph that gives NaN for a pair beside which a whole window is padding."""

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        padding = (batch.inputs["attention_mask"] == 0).sum(axis=1, keepdims=True)
        return np.where(padding > WINDOW, np.float32("nan"), super().infer(batch))


@dataclass(frozen=True)
class Case:
    """A model with random weights, and its answers to short pairs and to joined ones."""

    model: ModernBertForSequenceClassification
    split: Reference
    long: Reference

    def judged(self, form: type[Builder], dtype: str = "fp32") -> ExportGate:
        """The gate of a graph of `form`."""
        graph = form(self.model).build()
        session = Graph(quantized(graph) if dtype == "int8" else graph)
        return verify(session, self.split, self.long, dtype, Silent())  # type: ignore[arg-type]


def case(**changes: object) -> Case:
    source = ModelSource("quickstart", CLASSIFIER_DIR)
    sizes: dict[str, object] = {
        "vocab_size": source.config.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "local_attention": WINDOW,
        "pad_token_id": source.tokenizer.pad_token_id,
        "initializer_range": 0.3,
        "classifier_pooling": "mean",
        "reference_compile": False,
        "attn_implementation": "sdpa",
    }
    torch.manual_seed(0)
    model = ModernBertForSequenceClassification(ModernBertConfig(**sizes | changes)).eval()
    pairs = loading.load("quickstart")["validation"]
    lengths = source.reader.encode(pairs).lengths
    pairs = pairs.select([row for row, length in enumerate(lengths) if length <= WITHIN_WINDOW][:40])
    tokens = source.reader.encode(pairs)
    return Case(model, answers(model, tokens), answers(model, joined_pairs(source.reader, pairs, tokens)))


def answers(model: ModernBertForSequenceClassification, tokens: EncodedPairs) -> Reference:
    """The original's answers, one pair at a time."""
    with torch.inference_mode():
        logits = [
            model(**{name: torch.from_numpy(values) for name, values in batch.inputs.items()}).logits.numpy()
            for batch in tokens.batches(1, order="given")
        ]
    return Reference(tokens, np.concatenate(logits))


@pytest.fixture(scope="module")
def mean() -> Case:
    return case()


def rows(gate: ExportGate, kind: TrialKind) -> list[ParityTrial]:
    return [trial for trial in gate.trials if trial.kind == kind]


def worst(trials: Iterable[ParityTrial]) -> float:
    return max(trial.max_abs_delta or 0 for trial in trials)


def passes_by_labels_and_short_pairs(gate: ExportGate) -> bool:
    """Whether the graph would pass if only the split were judged, without the limit relative to the spread."""
    kept = tuple(rows(gate, "split"))
    return export_problem(replace(gate, trials=kept, p99_allowed=None, padding_delta_allowed=None)) is None


def test_a_right_graph_passes_and_other_padding_moves_no_logit(mean: Case) -> None:
    gate = mean.judged(ForCpu)
    assert gate.verdict.outcome == "PASS", gate.verdict
    assert [(trial.kind, trial.batch_size, trial.pairs) for trial in gate.trials] == [
        *(("split", size, 40) for size in (1, 8, 32)),
        ("joined", 2, 12),
        ("padding", 2, 12),
    ]
    assert worst(rows(gate, "padding")) == 0


def test_8_bits_pass_and_say_how_far_other_padding_moves_a_logit(mean: Case) -> None:
    gate = mean.judged(ForCpu, "int8")
    assert gate.padding_delta_allowed is not None
    assert 0 < worst(rows(gate, "padding")) < gate.padding_delta_allowed


def test_a_dropped_window_fails_though_no_pair_of_the_split_reaches_past_it(mean: Case) -> None:
    gate = mean.judged(Windowless)
    assert passes_by_labels_and_short_pairs(gate)
    assert gate.verdict.outcome == "REGRESSION"
    assert "differs by" in gate.verdict.reason


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_padded_length_fails_though_random_weights_give_every_pair_the_same_label(mean: Case, dtype: str) -> None:
    model = deepcopy(mean.model)
    with torch.no_grad():
        model.classifier.bias += torch.tensor([0.0, 100.0])
    one_label = Case(model, answers(model, mean.split.tokens), answers(model, mean.long.tokens))
    right, wrong = one_label.judged(ForCpu, dtype), one_label.judged(PaddedLength, dtype)
    assert right.verdict.outcome == "PASS", right.verdict
    assert passes_by_labels_and_short_pairs(wrong)
    assert wrong.verdict.outcome == "REGRESSION"
    assert "of the logits" in wrong.verdict.reason


def test_a_mask_that_lets_a_little_padding_through_fails(mean: Case) -> None:
    gate = mean.judged(WeakMask)
    assert passes_by_labels_and_short_pairs(gate)
    assert worst(rows(gate, "joined")) < 1e-3
    assert gate.verdict.outcome == "REGRESSION"
    assert "other padding tokens move a logit" in gate.verdict.reason


def test_nan_beside_more_padding_than_a_window_fails(mean: Case) -> None:
    graph = NanInEmptyWindows(ForCpu(mean.model).build())
    gate = verify(graph, mean.split, mean.long, "fp16", Silent())  # type: ignore[arg-type]
    assert passes_by_labels_and_short_pairs(gate)
    assert gate.verdict.reason == "a logit is not finite"
