"""The roofline of a row: the minimum work of the model, and the peak compute and bandwidth of the machine.

A row takes at least the time of its FLOP at peak compute, and at least the time of its memory traffic at peak
bandwidth (Williams, Waterman and Patterson, CACM 52(4), 2009). The first ratio alone is model FLOP utilisation
(Chowdhery et al., "PaLM", 2022, appendix B). Padding does not count as work.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig

from mrpcbench.backends.pytorch import DTYPES
from mrpcbench.environment.capture import device_name
from mrpcbench.environment.machine import exact_integers
from mrpcbench.models.modernbert_config import is_local
from mrpcbench.schema.bench_results import Ceilings, Work

Clock = Callable[[], float]
Call = Callable[[], object]
# Makes a product of two square matrices of a given side.
Maker = Callable[[int], Call]

# The precisions of matrix products.
KINDS = {**DTYPES, "int8": torch.int8}

# A matrix product is large enough when it takes this long. No library gains beyond the largest side.
ENOUGH_S = 0.02
FIRST_SIDE, LARGEST_SIDE = 256, 8192
# Repeat for this long, so that a GPU can raise its clocks, and at least three times; the best time counts.
SPAN_S = 0.3
FEWEST = 3
# Several times the size of the caches of each device.
COPY_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30}


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The dimensions of a classifier that determine its work."""

    width: int
    mlp_weights: int  # in the matrices of one layer's MLP
    windows: tuple[int | None, ...]  # per layer: how many tokens to each side a token attends to; None means all
    table_rows: int  # rows of `width` in all embedding tables
    labels: int


def _modernbert(config: Any) -> Encoder:
    window = config.local_attention // 2
    return Encoder(
        width=config.hidden_size,
        mlp_weights=3 * config.hidden_size * config.intermediate_size,  # the gate doubles the first matrix
        windows=tuple(window if is_local(config, layer) else None for layer in range(config.num_hidden_layers)),
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


# The supported architectures. Each has a head of one dense layer and the labels; tests compare with torch's counter.
ENCODERS: Mapping[str, Callable[[Any], Encoder]] = {
    "modernbert": _modernbert,
    "bert": _bert,
    "roberta": _bert,
    "xlm-roberta": _bert,
    "camembert": _bert,
    "distilbert": _distilbert,
}


def encoder_of(config: PretrainedConfig) -> Encoder | None:
    """The dimensions of the classifier that `config` describes; None if its work is unknown."""
    # Causal attention, pruned heads and relative positions would each change the count.
    causal, pruned = getattr(config, "is_decoder", False), getattr(config, "pruned_heads", None)
    if causal or pruned or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return None
    return ENCODERS[config.model_type](config) if config.model_type in ENCODERS else None


def work_of(
    config: PretrainedConfig, lengths: Sequence[int], *, batches: int, parameters: int, dtype: str
) -> Work | None:
    """The work of classifying pairs of `lengths` real tokens in `batches` forward passes; None if unknown.

    FLOP (two per multiply-add), with width d. Every token needs in every layer 2 (4 d^2 + MLP weights) for the matrix
    products, and 4 d for each key that it attends to. The head needs 2 (d^2 + d labels) per pair. Other operations
    (softmax, norms, activations) do not count; torch's counter omits them too.

    In int8 the attention counts as the products do, although engines compute it in a float type.

    Bytes, in `dtype`: the `parameters` outside of embedding tables once per forward pass, and one table row per token.
    Activations do not count, because they can stay on the chip. Weights smaller than the caches can stay there too; for
    such a model this is more than the minimum.
    """
    encoder = encoder_of(config)
    if encoder is None or dtype not in KINDS:
        return None
    width, tokens = encoder.width, sum(lengths)
    products = len(encoder.windows) * (4 * width**2 + encoder.mlp_weights) * tokens
    head = (width**2 + width * encoder.labels) * len(lengths)
    seen = sum(keys_seen(length, window) for window in encoder.windows for length in lengths)
    elements = batches * (parameters - encoder.table_rows * width) + tokens * width
    return Work(
        flops=float(2 * (products + head) + 4 * width * seen),
        moved_bytes=float(elements * KINDS[dtype].itemsize),
    )


def keys_seen(length: int, window: int | None) -> int:
    """The number of pairs (i, j) of `length` tokens with |i - j| <= `window`; all pairs if None."""
    reach = length - 1 if window is None else min(window, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)


def measure_ceilings(device: str, dtype: str, threads: int, clock: Clock = time.perf_counter) -> Ceilings:
    """Measure peak compute and bandwidth of `device` (cpu, cuda) in `dtype` with `threads` CPU threads.

    It takes about two seconds, and twice `COPY_BYTES` of memory, so call it after the memory peaks were recorded.
    """
    torch.set_num_threads(threads)
    with torch.inference_mode():
        flops_per_s = max(_product_rate(make, device, clock) for make in _ways(device, KINDS[dtype], threads))
        bytes_per_s = _copy_rate(device, clock)
    if device == "cuda":
        torch.cuda.empty_cache()  # other engines allocate GPU memory without torch
    return Ceilings(device=device_name(device), dtype=dtype, flops_per_s=flops_per_s, bytes_per_s=bytes_per_s)


def _ways(device: str, dtype: torch.dtype, threads: int) -> list[Maker]:
    """The ways to compute a matrix product at least as precisely as `dtype`.

    A ceiling must hold for every engine. On a CPU, torch's float32 product may be half as fast as those of oneDNN and
    ONNX Runtime, because torch uses MKL even on AMD processors. Engines may also compute half precision in float32, and
    8-bit integers too where the processor has no instructions for them.
    """
    narrow: list[Maker] = [partial(_torch_floats, dtype, device)]
    if dtype is torch.int8:
        narrow = [partial(_torch_integers, device), *([partial(_onnx_integers, threads)] if device == "cpu" else [])]
    if device != "cpu":
        return narrow
    wide: list[Maker] = [partial(_torch_floats, torch.float32, device)] if dtype is not torch.float32 else []
    onednn: list[Maker] = [_onednn_floats] if torch.backends.mkldnn.is_available() else []  # type: ignore[no-untyped-call]
    return [*narrow, *wide, *onednn]


def _torch_floats(dtype: torch.dtype, device: str, side: int) -> Call:
    """torch's product, as in a model's layers. `inputs @ weights` has no fast kernel for float16 on a CPU."""
    # Random values, because a GPU multiplies zeros with less power and therefore faster.
    inputs, weights = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return partial(torch.nn.functional.linear, inputs, weights)


def _onednn_floats(side: int) -> Call:
    """The product of float32 on the CPU in oneDNN's layout."""
    inputs, weights = (torch.randn(side, side).to_mkldnn() for _ in range(2))
    return partial(torch.nn.functional.linear, inputs, weights)


def _torch_integers(device: str, side: int) -> Call:
    """torch's product of signed 8-bit integers, added in 32 bits."""
    inputs, weights = (torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device) for _ in range(2))
    return partial(torch._int_mm, inputs, weights)


def _onnx_integers(threads: int, side: int) -> Call:
    """ONNX Runtime's product of unsigned by constant signed 8-bit integers, as in the graphs of `--optimize int8`."""
    # Imported here, because rows of torch's engines are measured without ONNX Runtime too.
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    inputs = draw.integers(0, 256, (side, side), dtype=np.uint8)
    weights = numpy_helper.from_array(draw.integers(-127, 128, (side, side), dtype=np.int8), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["inputs", "weights"], ["products"])],
        "product",
        [helper.make_tensor_value_info("inputs", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("products", TensorProto.INT32, [side, side])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    for name, value in exact_integers().items():
        options.add_session_config_entry(name, value)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"inputs": inputs})


def _product_rate(make: Maker, device: str, clock: Clock) -> float:
    """FLOP/s of a square matrix product. The side is doubled until a product takes long enough."""
    side = FIRST_SIDE
    while True:
        product = make(side)
        product()  # the first call of a size also selects the kernel
        if side >= LARGEST_SIDE or _timed_s(product, device, clock) >= ENOUGH_S:
            return 2 * side**3 / _best_s(product, device, clock)
        side *= 2


def _copy_rate(device: str, clock: Clock) -> float:
    """Bytes/s, read and written, of a large copy."""
    source = torch.ones(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / _best_s(lambda: target.copy_(source), device, clock)


def _best_s(work: Call, device: str, clock: Clock) -> float:
    """The shortest of several times of `work` in seconds, after one warm-up."""
    work()
    samples: list[float] = []
    while len(samples) < FEWEST or math.fsum(samples) < SPAN_S:
        samples.append(_timed_s(work, device, clock))
    return min(samples)


def _timed_s(work: Call, device: str, clock: Clock) -> float:
    """Seconds of `work`, with device synchronisation before and after."""
    _wait(device)
    start = clock()
    work()
    _wait(device)
    return clock() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
