"""The engine without padding: logits, shapes, captures, and rejected models."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captures import Repeated
from transformers import BertConfig, BertForSequenceClassification, ModernBertConfig

from mrpcbench.backends.packed import PackedSession
from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import computed_padding, first_of_each_shape
from mrpcbench.data import loading
from mrpcbench.data.batches import Batch, EncodedPairs, in_order
from mrpcbench.errors import UsageError
from mrpcbench.models import classifier, sources
from mrpcbench.models.sources import weights_source
from mrpcbench.modernbert import forward as packed
from mrpcbench.modernbert.cuda_graphs import Forward, Graphs
from mrpcbench.modernbert.packing import Packed, Shape, pack
from mrpcbench.schema.requests import BackendSpec


@pytest.fixture(scope="module")
def tokens(tuned_model: Path, small_data: Path) -> EncodedPairs:
    pairs = loading.split_of(loading.load(str(small_data)), str(small_data), "validation")
    return resolve(BackendSpec(model=str(tuned_model))).reader.encode(pairs)


@pytest.fixture(scope="module")
def expected(tuned_model: Path, tokens: EncodedPairs) -> np.ndarray:
    """The logits that Hugging Face's forward gives."""
    session, cut = open_session(BackendSpec(model=str(tuned_model), device="cpu")), tokens.batches(8)
    return in_order(list(session.infer_many(cut)), cut)


def repeat(forward: Forward, given: Packed) -> Forward:
    """Captures as `Capturer.forward` does: everything except the tensors is frozen."""
    inputs = replace(given, pairs=given.shape.segments, storage=given.storage.clone())
    with Repeated() as captured:
        found = forward(inputs)

    def replay(batch: Packed) -> torch.Tensor:
        inputs.storage.copy_(batch.storage)
        captured.replay()
        return found[: batch.pairs].clone()

    return replay


@pytest.fixture
def captured(tuned_model: Path) -> PackedSession:
    """A session that captures on the CPU."""
    loaded = classifier.load_classifier(weights_source(str(tuned_model)))
    return PackedSession(loaded, "cpu", torch.float32, torch.get_num_threads(), repeat)


@pytest.mark.parametrize("size", [1, 7, 16])
def test_replays_give_hugging_faces_logits(
    captured: PackedSession, tokens: EncodedPairs, expected: np.ndarray, size: int
) -> None:
    cut = tokens.batches(size, order="given")
    for _ in range(2):
        np.testing.assert_allclose(in_order([captured.infer(batch) for batch in cut], cut), expected, atol=1e-5)


def test_the_next_batch_does_not_overwrite_logits(captured: PackedSession, tokens: EncodedPairs) -> None:
    first, second = (batch for batch in tokens.batches(1)[:2])
    assert captured.shape_of(first) == captured.shape_of(second)
    answers = [captured.compute(captured.copy_in(batch)) for batch in (first, second)]
    np.testing.assert_array_equal(captured.copy_out(answers[0]), captured.infer(first))
    assert not torch.equal(*answers)


def test_batches_of_a_shape_share_a_capture(tuned_model: Path, tokens: EncodedPairs) -> None:
    made: list[Shape] = []

    def capture(forward: Forward, given: Packed) -> Forward:
        made.append(given.shape)
        return forward

    session = PackedSession(
        classifier.load_classifier(weights_source(str(tuned_model))), "cpu", torch.float32, 1, capture
    )
    cut = tokens.batches(1, order="given")
    assert first_of_each_shape(session, cut)[0] is cut[0]
    for batch in (*first_of_each_shape(session, cut), *cut, *cut):
        session.infer(batch)
    assert len(made) == len(set(made)) == len(first_of_each_shape(session, cut)) < len(cut) / 2
    assert set(made) == {session.shape_of(batch) for batch in cut}


def test_on_the_cpu_nothing_is_filled_up_and_any_shape_runs(tuned_model: Path, tokens: EncodedPairs) -> None:
    session = open_session(BackendSpec(backend="torch-packed", model=str(tuned_model), device="cpu"))
    batch = tokens.batches(8)[-1]
    assert session.copy_in(batch).shape.tokens == batch.real_tokens
    assert first_of_each_shape(session, [batch]) == []
    assert computed_padding(session, [batch]) == 0 < batch.padding_tokens


def test_the_filler_of_a_shape_counts_as_padding(captured: PackedSession, tokens: EncodedPairs) -> None:
    cut = tokens.batches(8)
    filled = [captured.copy_in(batch).shape.tokens for batch in cut]
    assert computed_padding(captured, cut) == sum(filled) - sum(batch.real_tokens for batch in cut) > 0


@pytest.mark.parametrize(("dtype", "ran"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp16")])
def test_the_placement_records_what_runs(tuned_model: Path, tokens: EncodedPairs, dtype: Any, ran: str) -> None:
    spec = BackendSpec(backend="torch-packed", model=str(tuned_model), device="cpu", dtype=dtype)
    session = open_session(spec)
    assert session.placement.engine == f"torch {torch.__version__}"
    assert session.placement.provider == "packed, sdpa"
    assert session.placement.dtype == ran
    assert np.isfinite(session.infer(tokens.batches(8)[0])).all()


def test_another_architecture_is_rejected(tuned_model: Path, tmp_path: Path) -> None:
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    sources.load_tokenizer(tuned_model, "tuned").save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"BertForSequenceClassification cannot run packed.*--backend torch$"):
        open_session(BackendSpec(backend="torch-packed", model=str(tmp_path), device="cpu"))


# --- the cache of captures --------------------------------------------------------------------------------------------


def of_tokens(count: int) -> Packed:
    return pack(np.zeros(count, dtype=np.int64), np.array([count]))


def test_the_least_recently_used_capture_is_dropped() -> None:
    made: list[int] = []

    def capture(forward: Forward, given: Packed) -> Forward:
        made.append(given.shape.tokens)
        return forward

    graphs = Graphs(lambda given: given.ids, capture, most=2)
    for count in (1, 2, 1, 3, 1, 2):
        assert len(graphs(of_tokens(count))) == count
    assert made == [1, 2, 3, 2]


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_cuda(tuned_model: Path) -> Callable[..., PackedSession]:
    def opened(dtype: Any = "auto") -> PackedSession:
        session = open_session(BackendSpec(backend="torch-packed", model=str(tuned_model), device="cuda", dtype=dtype))
        assert isinstance(session, PackedSession)
        return session

    return opened


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "ran", "atol"), [("auto", "bf16", 0.1), ("fp16", "fp16", 0.02), ("fp32", "fp32", 1e-4)]
)
def test_on_a_gpu_logits_match_float32_within_the_precision(
    on_cuda: Callable[..., PackedSession], tokens: EncodedPairs, expected: np.ndarray, dtype: str, ran: str, atol: float
) -> None:
    session = on_cuda(dtype)
    kind = "sdpa" if ran == "fp32" else "varlen attention"
    assert session.placement.provider == f"packed, {kind}, fused kernels, CUDA graphs"
    assert session.placement.dtype == ran
    for size in (1, 7, 32, 1):
        cut = tokens.batches(size, order="given")
        found = in_order(list(session.infer_many(cut)), cut)
        np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.gpu
@pytest.mark.parametrize("longest", [40, 100, 400])
def test_on_a_gpu_a_replay_gives_the_same_as_the_forward(
    on_cuda: Callable[..., PackedSession], tokens: EncodedPairs, longest: int
) -> None:
    session = on_cuda()
    chance = np.random.default_rng(0)
    lengths = chance.integers(longest // 2, longest, 12)
    ids = chance.integers(5, 600, (12, longest))
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    for rows in (slice(0, 5), slice(4, 12), slice(0, 1), slice(0, 5)):
        some = {"input_ids": ids[rows] * mask[rows], "attention_mask": mask[rows]}
        batch = Batch(inputs=some, rows=np.arange(len(ids[rows])), real_tokens=int(mask[rows].sum()))
        inputs = session.copy_in(batch)
        with torch.inference_mode():
            eager = session._forward._forward(inputs)  # type: ignore[attr-defined]
        # Pooling adds with float atomics, in an order that varies, and rounds to bf16: steps of 2^-8.
        torch.testing.assert_close(session.compute(inputs), eager, rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
def test_on_a_gpu_varlen_attention_equals_padded_attention() -> None:
    config = ModernBertConfig(local_attention=128)
    lengths = np.array([19, 53, 70, 82, 105])
    given = pack(np.zeros(lengths.sum(), dtype=np.int64), lengths).to(torch.device("cuda"))
    query_key = torch.randn(int(lengths.sum()), 2, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    value = torch.randn(int(lengths.sum()), 1, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    for local in (False, True):
        answers = []
        for kernel in (packed.varlen, packed.padded):
            found = kernel(given, config, torch.bfloat16)((query_key, value), local)
            answers.append((found, *torch.autograd.grad(found.float().square().sum(), (query_key, value))))
        for one, other in zip(*answers, strict=True):
            torch.testing.assert_close(one.float(), other.float(), rtol=0.05, atol=0.05)
