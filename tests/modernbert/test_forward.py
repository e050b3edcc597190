"""ModernBERT without padding, compared with Hugging Face: logits, gradients, windows, filler and kernels."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from packed_models import LENGTHS, difference, gradients, made, theirs
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, DistilBertConfig, ModernBertConfig, ModernBertForSequenceClassification

from mrpcbench import modernbert
from mrpcbench.modernbert import forward
from mrpcbench.modernbert.forward import (
    Attend,
    Weights,
    logits,
    operators_for,
    padded,
    refusal,
    rotary_table,
    windowless,
)
from mrpcbench.modernbert.operators import Operators
from mrpcbench.modernbert.packing import Packed, Shape, pack, shape_for, unpadded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    """Ids and attention mask, [5, 105], padded on the right."""
    mask = (np.arange(LENGTHS.max()) < LENGTHS[:, None]).astype(np.int64)
    return np.random.default_rng(0).integers(3, 200, mask.shape) * mask, mask


@pytest.fixture(scope="module")
def packed(batch: tuple[np.ndarray, np.ndarray]) -> Packed:
    return pack(*unpadded(*batch))


def ours(net: ModernBertForSequenceClassification, packed: Packed, attention: Any = None) -> torch.Tensor:
    weights = dict(net.named_parameters())
    return logits(weights, net.config, packed, rotary_table(net.config, CPU, torch.float32), attention)


def without_window(packed: Packed, config: ModernBertConfig, dtype: torch.dtype) -> Attend:
    """Attention as if every layer were global."""
    attend = padded(packed, config, dtype)
    return lambda given, local: attend(given, False)


# --- parity -----------------------------------------------------------------------------------------------------------

EVERY_BIAS = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier_pooling": "mean"},
        {"classifier_pooling": "cls"},
        {**EVERY_BIAS, "num_hidden_layers": 4},
        {"hidden_activation": "silu", "classifier_activation": "relu", "num_hidden_layers": 4},
        {"local_rope_theta": None, "num_hidden_layers": 4},
    ],
    ids=["mean", "cls", "biases", "activations", "one rotation"],
)
def test_logits_and_gradients_are_hugging_faces(
    changes: dict[str, Any], batch: tuple[np.ndarray, np.ndarray], packed: Packed
) -> None:
    net = made(**changes)
    wanted, found = theirs(net, batch), ours(net, packed)
    assert wanted.std() > 0.1, "logits that hardly differ would show nothing"
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    right = gradients(net, wanted)
    assert set(right) == set(dict(net.named_parameters()))
    for name, gradient in gradients(net, found).items():
        assert difference(gradient, right[name]) < 1e-5, name


def test_a_dropped_window_breaks_the_parity(batch: tuple[np.ndarray, np.ndarray], packed: Packed) -> None:
    net = made()
    wanted, wrong = theirs(net, batch), ours(net, packed, without_window)
    longer = torch.from_numpy(LENGTHS) > windowless(net.config)
    assert (wanted - wrong).abs().amax(dim=1)[longer].min() > 1e-3
    assert (wanted - wrong).abs().amax(dim=1)[~longer].max() < 1e-5
    name = "model.layers.1.attn.Wqkv.weight"
    right = gradients(net, wanted)[name]
    assert difference(gradients(net, wrong)[name], right) > 1e-3


def test_every_query_has_a_key(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []
    real = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, attn_mask: torch.Tensor) -> torch.Tensor:
        masks.append(attn_mask)
        return real(*args, attn_mask=attn_mask)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    ours(made(num_hidden_layers=2), packed)
    whole, local = masks
    assert whole.shape == (5, 1, 1, 105)
    assert local.shape == (5, 1, 105, 105)
    assert (local.amax(dim=-1) == 0).all()


def test_without_gradients_logits_are_equal_and_weights_unchanged(
    batch: tuple[np.ndarray, np.ndarray], packed: Packed
) -> None:
    net = made(num_hidden_layers=4)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    with_gradients = ours(net, packed)
    with torch.inference_mode():
        torch.testing.assert_close(ours(net, packed), with_gradients, rtol=0, atol=1e-6)
        torch.testing.assert_close(theirs(net, batch), with_gradients, rtol=0, atol=1e-5)
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_half_precision_matrices_work_with_float32_norms_embeddings_and_head(packed: Packed) -> None:
    net = made(num_hidden_layers=4)
    halves = {
        name: weight.bfloat16() if "layers" in name and "norm" not in name else weight
        for name, weight in net.named_parameters()
    }
    found = logits(halves, net.config, packed, rotary_table(net.config, CPU, torch.bfloat16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ours(net, packed), rtol=0, atol=0.1)
    found.sum().backward()
    assert net.model.layers[3].mlp.Wi.weight.grad is not None


# --- packing ----------------------------------------------------------------------------------------------------------


def test_a_packed_batch_is_its_tokens_concatenated() -> None:
    ids = np.array([[5, 6, 7], [8, 9, 0]])
    packed = pack(*unpadded(ids, np.array([[1, 1, 1], [1, 1, 0]])))
    assert packed.shape == Shape(tokens=5, segments=2, longest=3)
    assert packed.pairs == 2
    assert packed.ids.tolist() == [5, 6, 7, 8, 9]
    assert packed.positions.tolist() == [0, 1, 2, 0, 1]
    assert packed.segments.tolist() == [0, 0, 0, 1, 1]
    assert packed.lengths.tolist() == [3, 2]
    assert packed.starts.tolist() == [0, 3, 5]
    assert packed.starts.dtype == torch.int32
    assert packed.to(CPU).starts.tolist() == [0, 3, 5]


@pytest.mark.parametrize("segments", [2, 3, 6])
def test_filling_uses_the_last_segment_and_leaves_the_others_empty(segments: int) -> None:
    shape = Shape(tokens=8, segments=segments + 1, longest=4)
    packed = pack(np.array([5, 6, 7, 8, 9]), np.array([3, 2]), shape=shape, filler=4)
    empty = segments - 2
    assert packed.ids.tolist() == [5, 6, 7, 8, 9, 4, 4, 4]
    assert packed.positions.tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert packed.segments.tolist() == [0, 0, 0, 1, 1, *[segments] * 3]
    assert packed.lengths.tolist() == [3, 2, *[1] * empty, 3]
    assert packed.starts.tolist() == [0, 3, *[5] * (empty + 1), 8]


@pytest.mark.parametrize(
    "changes", [{"segments": 2}, {"tokens": 5}, {"tokens": 4}, {"tokens": 9, "longest": 3}, {"longest": 2}]
)
def test_a_batch_that_does_not_fit_a_shape_is_refused(changes: dict[str, int]) -> None:
    shape = Shape(**{"tokens": 8, "segments": 3, "longest": 3, **changes})
    with pytest.raises(ValueError, match="do not fill"):
        pack(np.array([5, 6, 7, 8, 9]), np.array([3, 2]), shape=shape)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_filler_changes_neither_logits_nor_gradients(
    pooling: str, batch: tuple[np.ndarray, np.ndarray], packed: Packed
) -> None:
    net = made(classifier_pooling=pooling, num_hidden_layers=4)
    filled = pack(*unpadded(*batch), shape=shape_for(LENGTHS, windowless(net.config)), filler=3)
    assert filled.shape == Shape(tokens=384, segments=9, longest=128)
    plain, other = ours(net, packed), ours(net, filled)
    torch.testing.assert_close(other, plain, rtol=0, atol=1e-5)
    right = gradients(net, plain)
    for name, gradient in gradients(net, other).items():
        assert difference(gradient, right[name]) < 1e-5, name


def test_every_batch_fits_the_shape_that_is_made_for_it() -> None:
    chance = np.random.default_rng(0)
    shapes, tokens = set(), []
    for _ in range(500):
        lengths = chance.integers(1, chance.choice([20, 65, 120, 512]) + 1, chance.choice([1, 2, 8, 31, 32]))
        for free in (9, 17, 65):
            shape = shape_for(lengths, free)
            packed = pack(np.zeros(lengths.sum(), dtype=np.int64), lengths, shape=shape)
            assert (packed.starts[:-1] < shape.tokens).all()
            assert packed.starts.diff().max() <= shape.longest
            assert (shape.longest > free) == (lengths.max() > free)
        shapes.add(shape)
        tokens.append((shape.tokens, lengths.sum()))
    assert len(shapes) < 200
    assert np.mean([whole / real for whole, real in tokens if real >= 128]) < 1.1


# --- kernels ----------------------------------------------------------------------------------------------------------

NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view"}


class Kernels(TorchDispatchMode):
    """Counts the operators that compute: those that make no view and do more than reserve memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.split("::")[1]
        if not function.is_view and name not in NO_KERNEL:
            # Not in place, it copies what it adds to before the matrix product adds to it.
            self.seen[name] += 2 if name == "addmm" and args[0].ndim == 2 else 1
        return function(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    with Kernels() as kernels:
        yield kernels.seen


@pytest.mark.parametrize("training", [True, False])
def test_at_most_half_of_hugging_faces_kernels_run(
    training: bool, batch: tuple[np.ndarray, np.ndarray], packed: Packed
) -> None:
    net = made()
    halves: Weights = {name: weight.detach().bfloat16().requires_grad_() for name, weight in net.named_parameters()}
    rotary = rotary_table(net.config, CPU, torch.bfloat16)
    with torch.set_grad_enabled(training):
        with torch.autocast("cpu", torch.bfloat16), counted() as hugging_face:
            wanted = theirs(net, batch)
        with counted() as own:
            found = logits(halves, net.config, packed, rotary)
    assert found.shape == wanted.shape
    assert own.total() <= hugging_face.total() / 2


def test_torchs_flash_attention_takes_the_arguments_that_a_gpu_run_gives_it() -> None:
    names = [argument.name for argument in torch.ops.aten._flash_attention_forward.default._schema.arguments]
    sequences = ["query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k"]
    assert names[:10] == [*sequences, "dropout_p", "is_causal", "return_debug_mask"]
    assert {"window_size_left", "window_size_right"} <= set(names)


def test_without_triton_a_gpu_uses_torchs_operators_and_a_warning_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert operators_for(CPU) is Operators
    assert caplog.text == ""
    monkeypatch.setattr(forward, "_fused_operators", cache(forward._fused_operators.__wrapped__))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "triton", None)  # an import of it then fails
    monkeypatch.delitem(sys.modules, "mrpcbench.modernbert.triton_kernels", raising=False)
    monkeypatch.delitem(sys.modules, "mrpcbench.modernbert.fused", raising=False)
    monkeypatch.delattr(modernbert, "fused", raising=False)
    assert {operators_for(torch.device(name)) for name in ("cuda", "cuda:0", "cuda")} == {Operators}
    assert caplog.text.count("torch's are used: import of triton halted") == 1
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert operators_for(torch.device("cuda:1")) is Operators
    assert caplog.text.count("torch's are used") == 1


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_modernbert_classifier_runs_packed() -> None:
    net = made(num_hidden_layers=1)
    assert refusal(net.config, type(net).__name__) is None
    assert refusal(net.config, type(net).__name__, training=True) is None


@pytest.mark.parametrize("config", [BertConfig(), DistilBertConfig()])
def test_another_architecture_is_refused_by_name_with_the_engine_that_runs_it(config: Any) -> None:
    name = type(config).__name__.replace("Config", "ForSequenceClassification")
    assert name in str(refusal(config, name))
    assert "use --backend torch" in str(refusal(config, name))
    assert "use --engine trainer" in str(refusal(config, name, training=True))


def test_dropout_is_refused_only_for_training() -> None:
    config = ModernBertConfig(mlp_dropout=0.1)
    name = "ModernBertForSequenceClassification"
    assert "mlp_dropout 0.1" in str(refusal(config, name, training=True))
    assert refusal(config, name) is None


def test_rope_scaling_is_rejected() -> None:
    config = ModernBertConfig(rope_scaling={"rope_type": "linear", "factor": 2.0})
    assert "rope_scaling" in str(refusal(config, "ModernBertForSequenceClassification"))
