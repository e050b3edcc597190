"""The work of a model, compared with torch's own counter, and the ceilings of a machine, with a scripted clock."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaConfig,
)

from mrpcbench.environment.capture import device_name, usable_cores
from mrpcbench.instruments import roofline
from mrpcbench.records import figures
from mrpcbench.schema.bench_results import Ceilings, Work

LENGTH = 21
# Sizes that share no factor by chance, so that one cannot stand in for another; the MLP is no multiple of the width.
SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "vocab_size": 97,
    "num_labels": 3,
    "pad_token_id": 0,
}

THREADS = usable_cores()


def modernbert(window: int = 128, layers: int = 5) -> PretrainedConfig:
    sizes = {**SIZES, "num_hidden_layers": layers, "reference_compile": False}
    specials = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    return ModernBertConfig(**sizes, **specials, local_attention=window, global_attn_every_n_layers=3)


CONFIGS: dict[str, PretrainedConfig] = {
    "modernbert": modernbert(),
    "bert": BertConfig(**SIZES, max_position_embeddings=64),
    "roberta": RobertaConfig(**SIZES, max_position_embeddings=64),
    "xlm-roberta": XLMRobertaConfig(**SIZES, max_position_embeddings=64),
    "camembert": CamembertConfig(**SIZES, max_position_embeddings=64),
    "distilbert": DistilBertConfig(
        dim=24, hidden_dim=40, n_layers=5, n_heads=3, vocab_size=97, num_labels=3, max_position_embeddings=64
    ),
}


def work(config: PretrainedConfig, lengths: list[int], batches: int = 1, dtype: str = "fp32") -> Work:
    found = roofline.work_of(config, lengths, batches=batches, parameters=10**6, dtype=dtype)
    assert found is not None
    return found


def built(config: PretrainedConfig) -> PreTrainedModel:
    # torch's counter does not know the fused attention of CPUs; eager attention is made of products that it knows.
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()


def counted(config: PretrainedConfig) -> tuple[int, int]:
    """FLOP of one sequence of LENGTH tokens by torch's counter: all but attention, and attention's two products."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        built(config)(input_ids=torch.full((1, LENGTH), 5), attention_mask=torch.ones(1, LENGTH, dtype=torch.long))
    counts = counter.get_flop_counts()
    by_kind = {str(kind): flops for kind, flops in counts["Global"].items()}
    # Rotation angles are made as a product, layer by layer and again in each forward pass, which no model must do.
    rotations = sum(sum(kinds.values()) for name, kinds in counts.items() if name.endswith("rotary_emb"))
    attention = by_kind.pop("aten.bmm") - rotations
    return sum(by_kind.values()), attention


# --- the work of a model ----------------------------------------------------------------------------------------------


def test_every_counted_architecture_agrees_with_torch() -> None:
    assert set(roofline.ENCODERS) == set(CONFIGS) == {config.model_type for config in CONFIGS.values()}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_operations_are_those_that_torch_counts(name: str) -> None:
    products, attention = counted(CONFIGS[name])
    assert attention == 5 * 4 * 24 * LENGTH**2
    assert work(CONFIGS[name], [LENGTH]).flops == products + attention


def test_a_window_changes_only_attention_and_torch_also_counts_masked_keys() -> None:
    """Layers 1, 2 and 4 of five are local, 0 and 3 global."""
    products, attention = counted(modernbert(window=8))
    assert attention == 5 * 4 * 24 * LENGTH**2
    seen = 2 * LENGTH**2 + 3 * roofline.keys_seen(LENGTH, 4)
    assert work(modernbert(window=8), [LENGTH]).flops == products + 4 * 24 * seen


@pytest.mark.parametrize("window", [2, 8, 9, 40, 42, 128])
def test_the_window_is_the_one_of_the_models_own_mask(window: int) -> None:
    model = built(modernbert(window=window)).model
    everything, local = model._update_attention_mask(torch.ones(1, LENGTH), output_attentions=False)
    encoder = roofline.encoder_of(modernbert(window=window))
    assert encoder is not None
    of_layers = [everything if layer.attn.local_attention == (-1, -1) else local for layer in model.layers]
    assert [roofline.keys_seen(LENGTH, reach) for reach in encoder.windows] == [
        int((mask == 0).sum()) for mask in of_layers
    ]


@pytest.mark.parametrize("window", [0, 1, 3, 64, None])
def test_the_keys_seen_are_those_found_by_looking_at_every_pair(window: int | None) -> None:
    reach = math.inf if window is None else window
    for length in (1, 2, 3, 4, 7, 64, 65, 66, 130):
        pairs = itertools.product(range(length), repeat=2)
        assert roofline.keys_seen(length, window) == sum(abs(query - key) <= reach for query, key in pairs)


def test_modernbert_base_takes_the_published_operations_per_token(modernbert_dir: Path) -> None:
    """220.6 MFLOP a token in products; attention adds 1.7% at the mean length of MRPC's pairs, 53 tokens."""
    config = AutoConfig.from_pretrained(modernbert_dir)
    head = 2 * (768**2 + 768 * 2)
    attention = 4 * 768 * 22 * 53**2
    a_token = (work(config, [53]).flops - head - attention) / 53
    assert a_token / 1e6 == pytest.approx(220.6, abs=0.1)
    assert attention / (53 * a_token) == pytest.approx(0.0165, abs=0.001)


def test_the_work_of_a_row_does_not_depend_on_its_batches() -> None:
    """Nothing but the real lengths goes in, so padding cannot add to it."""
    config, lengths = modernbert(window=8), [5, 21, 130]
    apart = sum(work(config, [length]).flops for length in lengths)
    assert work(config, lengths, batches=1).flops == work(config, lengths, batches=3).flops == apart


def test_padding_adds_to_what_torch_counts_and_not_to_the_work() -> None:
    config = CONFIGS["bert"]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        mask = torch.tensor([[1] * LENGTH, [1] * 6 + [0] * (LENGTH - 6)])
        built(config)(input_ids=torch.full((2, LENGTH), 5), attention_mask=mask)
    assert counter.get_total_flops() == work(config, [LENGTH, LENGTH]).flops > work(config, [LENGTH, 6]).flops


@pytest.mark.parametrize("name", CONFIGS)
def test_moved_weights_are_all_except_embedding_tables(name: str) -> None:
    model = built(CONFIGS[name])
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    everything = sum(weight.numel() for weight in model.parameters())
    found = roofline.work_of(CONFIGS[name], [LENGTH], batches=1, parameters=everything, dtype="fp32")
    assert found is not None
    outside = everything - sum(table.numel() for table in tables)
    assert found.moved_bytes == 4 * (outside + LENGTH * 24)


@pytest.mark.parametrize(("dtype", "width"), [("fp32", 4), ("bf16", 2), ("fp16", 2), ("int8", 1)])
def test_weights_move_once_per_forward_pass_and_a_table_row_per_token(dtype: str, width: int) -> None:
    found = work(modernbert(), [7, 9], batches=2, dtype=dtype)
    assert found.moved_bytes == width * (2 * (10**6 - 97 * 24) + 16 * 24)


UNCOUNTED = {
    "another architecture": ElectraConfig(**SIZES),
    "no architecture": PretrainedConfig(),
    "causal attention": BertConfig(**SIZES, is_decoder=True),
    "missing heads": BertConfig(**SIZES, pruned_heads={0: [1]}),
    "relative positions": BertConfig(**SIZES, position_embedding_type="relative_key"),
}


@pytest.mark.parametrize("what", UNCOUNTED)
def test_unknown_work_is_none(what: str) -> None:
    assert roofline.work_of(UNCOUNTED[what], [LENGTH], batches=1, parameters=10**6, dtype="fp32") is None


def test_work_in_an_unknown_dtype_is_none() -> None:
    assert roofline.work_of(modernbert(), [LENGTH], batches=1, parameters=10**6, dtype="int4") is None


# --- the share of the limit -------------------------------------------------------------------------------------------

CEILINGS = Ceilings(device="cpu", dtype="fp32", flops_per_s=100.0, bytes_per_s=10.0)


@pytest.mark.parametrize(("flops", "moved_bytes", "least"), [(400.0, 20.0, 4.0), (400.0, 80.0, 8.0)])
def test_the_limit_is_the_longer_of_computing_and_moving(flops: float, moved_bytes: float, least: float) -> None:
    needed = Work(flops=flops, moved_bytes=moved_bytes)
    assert figures.least_s(needed, CEILINGS) == least
    assert figures.share_of_limit(needed, CEILINGS, least) == 1
    assert figures.share_of_limit(needed, CEILINGS, 16.0) == least / 16
    assert figures.flops_share(needed, CEILINGS, 16.0) == 4 / 16


def test_a_faster_machine_leaves_a_smaller_share() -> None:
    needed = Work(flops=400.0, moved_bytes=20.0)
    faster = replace(CEILINGS, flops_per_s=200.0)
    assert figures.share_of_limit(needed, faster, 16.0) == figures.share_of_limit(needed, CEILINGS, 16.0) / 2


# --- the ceilings of a machine ----------------------------------------------------------------------------------------


def scripted(durations: list[float]) -> Callable[[], float]:
    """A clock whose readings come in pairs, each pair as far apart as the next of `durations`; it ends with them."""

    def readings() -> Iterator[float]:
        for number, duration in enumerate(durations):
            yield 1000.0 * number
            yield 1000.0 * number + duration

    return readings().__next__


@pytest.fixture
def small_copy(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(roofline.COPY_BYTES, "cpu", 2**16)
    return 2**16


def nothing(side: int) -> Callable[[], object]:
    """Makes a product of no work, whose time the scripted clock gives."""
    return lambda: None


# Long enough at the second side, then three samples that fill the span.
AT_512 = [0.0, 0.03125, 0.25, 0.125, 0.5]
COPY = [0.5, 0.0625, 0.25]


def test_with_a_scripted_clock_the_rates_are_exact(small_copy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_ways", lambda *_: [nothing])
    found = roofline.measure_ceilings("cpu", "fp32", THREADS, scripted([*AT_512, *COPY]))
    assert found.flops_per_s == 2 * 512**3 / 0.125
    assert found.bytes_per_s == 2 * small_copy / 0.0625


def test_the_fastest_way_to_make_the_product_is_the_ceiling(small_copy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_ways", lambda *_: [nothing] * 3)
    at_256 = [0.03125, 0.5, 0.25, 0.5]
    durations = [*at_256, *AT_512, *at_256, *COPY]
    assert roofline.measure_ceilings("cpu", "fp32", THREADS, scripted(durations)).flops_per_s == 2 * 512**3 / 0.125


def test_short_products_are_repeated_until_the_time_is_used(small_copy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples do not fill it, and the best comes last."""
    monkeypatch.setattr(roofline, "_ways", lambda *_: [nothing])
    durations = [0.03125, 0.0625, 0.0625, 0.0625, 0.0625, 0.0546875, *COPY]
    assert roofline.measure_ceilings("cpu", "fp32", THREADS, scripted(durations)).flops_per_s == 2 * 256**3 / 0.0546875


def test_the_side_stops_growing_at_the_largest(small_copy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_ways", lambda *_: [nothing])
    monkeypatch.setattr(roofline, "LARGEST_SIDE", 512)
    durations = [0.001, 0.25, 0.125, 0.5, *COPY]
    assert roofline.measure_ceilings("cpu", "fp32", THREADS, scripted(durations)).flops_per_s == 2 * 512**3 / 0.125


def test_the_products_that_are_timed_are_of_that_side_arithmetic_and_layout(
    small_copy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[torch.dtype, bool, int]] = []

    def linear(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        assert inputs.shape == weights.shape == (inputs.shape[0], inputs.shape[0])
        assert inputs.is_mkldnn == weights.is_mkldnn
        made.append((inputs.dtype, inputs.is_mkldnn, inputs.shape[0]))

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    roofline.measure_ceilings("cpu", "bf16", THREADS, scripted([*AT_512 * 3, *COPY]))
    once = [256] * 2 + [512] * 6  # each side once before it is timed, and the last once more before the samples
    ways = [(torch.bfloat16, False), (torch.float32, False), (torch.float32, True)]
    assert made == [(*way, side) for way in ways for side in once]


def test_a_gpu_is_synchronised_before_each_reading_of_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: happened.append("wait"))
    script = scripted([0.25])

    def clock() -> float:
        happened.append("clock")
        return script()

    assert roofline._timed_s(lambda: happened.append("work"), "cuda", clock) == 0.25
    assert happened == ["wait", "clock", "work", "wait", "clock"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "int8"])
def test_a_ceiling_on_this_machine_is_a_rate_with_a_device_and_a_dtype(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "ENOUGH_S", 0.001)
    monkeypatch.setattr(roofline, "SPAN_S", 0.01)
    found = roofline.measure_ceilings("cpu", dtype, THREADS)
    assert (found.device, found.dtype) == ("cpu", dtype)
    assert 0 < found.flops_per_s < math.inf
    assert 0 < found.bytes_per_s < math.inf


KINDS = [torch.float32, torch.bfloat16, torch.float16, torch.int8]


@pytest.mark.parametrize("dtype", KINDS)
def test_every_way_computes_at_least_in_the_rows_precision(dtype: torch.dtype) -> None:
    """Integers are added in 32 bits, so that no sum overflows."""
    results = {_result(make) for make in roofline._ways("cpu", dtype, THREADS)}
    assert results == {torch.int32 if dtype is torch.int8 else dtype, torch.float32}


@pytest.mark.parametrize("dtype", KINDS)
def test_a_gpu_has_one_way(dtype: torch.dtype) -> None:
    assert len(roofline._ways("cuda", dtype, THREADS)) == 1


def test_float32_is_multiplied_in_onednns_layout_too_where_it_is_available() -> None:
    layouts = [make(32)().is_mkldnn for make in roofline._ways("cpu", torch.float32, THREADS)]  # type: ignore[attr-defined]
    assert layouts == [False, True][: 1 + torch.backends.mkldnn.is_available()]  # type: ignore[no-untyped-call]


def test_the_integer_product_of_onnx_runtime_is_exact() -> None:
    """Its inputs are drawn with a fixed seed."""
    draw = np.random.default_rng(0)
    inputs = draw.integers(0, 256, (32, 32), dtype=np.uint8).astype(np.int32)
    weights = draw.integers(-127, 128, (32, 32), dtype=np.int8).astype(np.int32)
    (found,) = roofline._onnx_integers(THREADS, 32)()  # type: ignore[misc]
    assert np.array_equal(found, inputs @ weights)


def _result(make: roofline.Maker) -> torch.dtype:
    found = make(32)()
    values = found if isinstance(found, torch.Tensor) else torch.from_numpy(found[0])  # type: ignore[index]
    return values.dtype


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_ceiling_on_a_gpu_leaves_its_memory_free(dtype: str) -> None:
    # The first product of a process allocates cuBLAS's workspace, which is never freed.
    torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
    before = torch.cuda.memory_reserved()
    found = roofline.measure_ceilings("cuda", dtype, THREADS)
    assert (found.device, found.dtype) == (device_name("cuda"), dtype)
    assert 0 < found.flops_per_s < math.inf
    assert 0 < found.bytes_per_s < math.inf
    assert torch.cuda.memory_reserved() <= before
