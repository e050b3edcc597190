"""The physical limit of a row: what the model must at least do, and what this machine can do at best.

A row cannot take less time than its arithmetic at the machine's best rate of arithmetic, nor less than its memory
traffic at the best rate of that: the roofline of Williams, Waterman and Patterson (CACM 52(4), 2009). The first share
alone is known as model FLOP utilisation (Chowdhery et al., "PaLM", 2022, appendix B). Padding is no work.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

from mrpcbench.backends.pytorch import DTYPES
from mrpcbench.environment.capture import device_name
from mrpcbench.schema.bench_results import Ceilings, Work

Clock = Callable[[], float]
Call = Callable[[], object]

# A product is large enough when it takes this long; no library gains from going beyond the largest side.
ENOUGH_S = 0.02
FIRST_SIDE, LARGEST_SIDE = 256, 8192
# The best of as many as fit in this time, so that a GPU has time to raise its clocks, and of three at least.
SPAN_S = 0.3
FEWEST = 3
# Several times the caches of either.
COPY_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30}


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The sizes of a classifier on which its work depends."""

    width: int
    mlp_weights: int  # in the matrices of one layer's MLP
    windows: tuple[int | None, ...]  # for each layer how many tokens each way a token sees; None: all
    table_rows: int  # rows of `width` in all embedding tables
    labels: int


def _modernbert(config: Any) -> Encoder:
    window, every = config.local_attention // 2, config.global_attn_every_n_layers
    return Encoder(
        width=config.hidden_size,
        mlp_weights=3 * config.hidden_size * config.intermediate_size,  # the gate doubles the first matrix
        windows=tuple(None if layer % every == 0 else window for layer in range(config.num_hidden_layers)),
        table_rows=config.vocab_size,
        labels=config.num_labels,
    )


def _bert(config: Any) -> Encoder:
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    return _plain(config, config.intermediate_size, rows)


def _distilbert(config: Any) -> Encoder:
    return _plain(config, config.hidden_dim, config.vocab_size + config.max_position_embeddings)


def _plain(config: Any, inner: int, table_rows: int) -> Encoder:
    width, windows = config.hidden_size, (None,) * config.num_hidden_layers
    mlp_weights = 2 * width * inner
    return Encoder(
        width=width, mlp_weights=mlp_weights, windows=windows, table_rows=table_rows, labels=config.num_labels
    )


# The architectures whose count the tests hold against torch's own; each has a head of one dense layer and the labels.
ENCODERS: Mapping[str, Callable[[Any], Encoder]] = {
    "modernbert": _modernbert,
    "bert": _bert,
    "roberta": _bert,
    "xlm-roberta": _bert,
    "camembert": _bert,
    "distilbert": _distilbert,
}


def encoder_of(config: PretrainedConfig) -> Encoder | None:
    """The sizes of the classifier that `config` describes; None where its work is not known here."""
    # Causal attention, missing heads and relative positions would each change the count.
    if config.is_decoder or config.pruned_heads or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return None
    return ENCODERS[config.model_type](config) if config.model_type in ENCODERS else None


def work_of(
    config: PretrainedConfig, lengths: Sequence[int], *, batches: int, parameters: int, dtype: str
) -> Work | None:
    """The work of classifying pairs of `lengths` real tokens in `batches` forward passes; None where it is not known.

    FLOP, two a multiply-add, with width d, for every token in every layer: 2 (4 d^2 + the MLP's weights) for the matrix
    products and 4 d for each key that its query sees; 2 (d^2 + d labels) a pair for the head. What is no product
    (softmax, norms, activations) is left out, as torch's counter does.

    Bytes: the `parameters` that are in no embedding table once a forward pass, and one row of a table a token, in
    `dtype`. Activations are left out, for they can stay on the chip; so can the weights of a model that is smaller than
    the caches, for which this is more than the least.
    """
    encoder = encoder_of(config)
    if encoder is None or dtype not in DTYPES:
        return None
    width, tokens = encoder.width, sum(lengths)
    products = len(encoder.windows) * (4 * width**2 + encoder.mlp_weights) * tokens
    head = (width**2 + width * encoder.labels) * len(lengths)
    seen = sum(keys_seen(length, window) for window in encoder.windows for length in lengths)
    elements = batches * (parameters - encoder.table_rows * width) + tokens * width
    return Work(
        flops=float(2 * (products + head) + 4 * width * seen),
        moved_bytes=float(elements * DTYPES[dtype].itemsize),
    )


def keys_seen(length: int, window: int | None) -> int:
    """Pairs (i, j) of `length` tokens with |i - j| <= `window`; with None all of them."""
    reach = length - 1 if window is None else min(window, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)


def measure_ceilings(device: str, dtype: str, threads: int, clock: Clock = time.perf_counter) -> Ceilings:
    """The best rates of `device` (cpu, cuda) in `dtype` with `threads` CPU threads, in about two seconds.

    It takes twice `COPY_BYTES` of memory: measure after whatever peak of memory is to be recorded.
    """
    torch.set_num_threads(threads)
    with torch.inference_mode():
        flops_per_s = max(_product_rate(kind, device, onednn, clock) for kind, onednn in _ways(device, DTYPES[dtype]))
        bytes_per_s = _copy_rate(device, clock)
    if device == "cuda":
        torch.cuda.empty_cache()  # for engines that allocate beside torch
    return Ceilings(device=device_name(device), dtype=dtype, flops_per_s=flops_per_s, bytes_per_s=bytes_per_s)


def _ways(device: str, dtype: torch.dtype) -> list[tuple[torch.dtype, bool]]:
    """The ways to make a product at least as exact as `dtype`: the arithmetic, and whether by oneDNN's own layout.

    A ceiling must hold for every engine. On a CPU torch's own float32 product can reach half of what oneDNN and ONNX
    Runtime reach (it asks MKL, also on an AMD processor), and engines may compute halves in float32.
    """
    if device != "cpu":
        return [(dtype, False)]
    ways = dict.fromkeys([(dtype, False), (torch.float32, False)])
    return [*ways, *([(torch.float32, True)] if torch.backends.mkldnn.is_available() else [])]  # type: ignore[no-untyped-call]


def _product_rate(dtype: torch.dtype, device: str, onednn: bool, clock: Clock) -> float:
    """FLOP a second of a square product, at the first side, doubled from the smallest, that takes long enough."""
    side = FIRST_SIDE
    while True:
        # Random values, for a GPU multiplies zeros with less power and so faster.
        inputs, weights = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        if onednn:
            inputs, weights = inputs.to_mkldnn(), weights.to_mkldnn()

        def product(inputs: torch.Tensor = inputs, weights: torch.Tensor = weights) -> object:
            # As the layers of a model do it: `inputs @ weights` has no fast kernel for float16 on a CPU.
            return torch.nn.functional.linear(inputs, weights)

        product()  # the first call at a size also chooses the kernel
        if side >= LARGEST_SIDE or _timed_s(product, device, clock) >= ENOUGH_S:
            return 2 * side**3 / _best_s(product, device, clock)
        side *= 2


def _copy_rate(device: str, clock: Clock) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.ones(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / _best_s(lambda: target.copy_(source), device, clock)


def _best_s(work: Call, device: str, clock: Clock) -> float:
    """The shortest of several times of `work`, after one that does not count."""
    work()
    samples: list[float] = []
    while len(samples) < FEWEST or math.fsum(samples) < SPAN_S:
        samples.append(_timed_s(work, device, clock))
    return min(samples)


def _timed_s(work: Call, device: str, clock: Clock) -> float:
    """Seconds from when the device has nothing left to do until it is done with `work`."""
    _wait(device)
    start = clock()
    work()
    _wait(device)
    return clock() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
