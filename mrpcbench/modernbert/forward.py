"""ModernBERT as a sequence classifier without padding: a function of Hugging Face's weights, with gradients.

It computes the same as `ModernBertForSequenceClassification` with fewer than half of the kernels. It uses no padding
and no autocast. Rotary tables and masks are computed once, not in each layer. Query and key are rotated together. If
all weights have one dtype, each residual is added by the matrix product before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import PretrainedConfig
from transformers.activations import ACT2FN

from mrpcbench.models.modernbert_config import is_local, rope_thetas, rope_types
from mrpcbench.modernbert.packing import Packed

ARCHITECTURE = "ModernBertForSequenceClassification"
DROPOUTS = ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout")
Weights = Mapping[str, torch.Tensor]
# (query and key [T, 2, H, D], value [T, 1, H, D], whether the layer is local) -> [T, H, D]
Attend = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]
Attention = Callable[[Packed, PretrainedConfig, torch.dtype], Attend]


def refusal(config: PretrainedConfig, architecture: str, *, training: bool = False) -> str | None:
    """Why a model of this class and configuration cannot run packed, and which option to use; None if it can."""
    remedy = "use --engine trainer" if training else "use --backend torch"
    if architecture != ARCHITECTURE:
        return f"{architecture} cannot run packed, only {ARCHITECTURE} can; {remedy}"
    if rope_types(config):
        return f"{architecture} with rope_scaling cannot run packed; {remedy}"
    dropped = [name for name in DROPOUTS if training and getattr(config, name)]
    if dropped:
        return f"{architecture} with {dropped[0]} {getattr(config, dropped[0]):g} cannot be trained packed; {remedy}"
    return None


def windowless(config: PretrainedConfig) -> int:
    """Length of the longest sequence in which every token attends to every other in a local layer."""
    return int(config.local_attention) // 2 + 1


def rotary_table(config: PretrainedConfig, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Rotary embeddings [P, 2, 2, 1, 1, D]: for every position, global and local layers, cosines and sines.

    The sines have signs such that an exchange of halves replaces the rotation (Su et al., RoFormer, 2021, eq. 34).
    `logits` computes in the table's `dtype`. The table depends only on the configuration, so compute it once.
    """
    size = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    places = torch.arange(config.max_position_embeddings, dtype=torch.float32)
    kinds = []
    for theta in rope_thetas(config):
        angles = torch.outer(places, 1.0 / theta**exponents)
        sines = angles.sin()
        kinds.append(torch.stack((angles.cos().repeat(1, 2), torch.cat((-sines, sines), dim=-1)), dim=1))
    return torch.stack(kinds, dim=1)[:, :, :, None, None].to(device, dtype)


def logits(
    weights: Weights,
    config: PretrainedConfig,
    packed: Packed,
    rotary: torch.Tensor,
    attention: Attention | None = None,
) -> torch.Tensor:
    """Logits [pairs, labels] of the real segments, in the dtype of the head's weights.

    `weights` have the names of the model's `state_dict`: its own parameters, or copies in another dtype. The encoder's
    matrices have the dtype of `rotary`. The residual stream has that of the embeddings and norms, and the head may have
    another: with these in float32 and the matrices in bf16 it computes as autocast does. `attention` is chosen by
    `kernel_for` unless given. Without gradients, residuals are added in place.
    """
    net = _Net(weights, config)
    embedded = functional.embedding(packed.ids, weights["model.embeddings.tok_embeddings.weight"])
    states = net.norm(embedded, "model.embeddings.norm")
    rotations = rotary.index_select(0, packed.positions)
    attend = (attention or kernel_for(config, rotary.device, rotary.dtype))(packed, config, rotary.dtype)
    activation = ACT2FN[config.hidden_activation]
    for index in range(config.num_hidden_layers):
        states = _attended(net, states, index, rotations, attend)
        states = _transformed(net, states, index, rotary.dtype, activation)
    return _classified(net, net.norm(states, "model.final_norm"), packed)[: packed.pairs]


@dataclass(frozen=True)
class _Net:
    """Layers that look up their weights by name."""

    weights: Weights
    config: PretrainedConfig

    def linear(self, states: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(states, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return functional.layer_norm(states, weight.shape, weight, bias, self.config.norm_eps)

    def added(self, states: torch.Tensor, inner: torch.Tensor, name: str) -> torch.Tensor:
        """`states` plus the linear map of `inner`; in place without gradients. In one dtype it is one kernel."""
        if states.dtype != inner.dtype:
            mapped = self.linear(inner, name)
            return states + mapped if torch.is_grad_enabled() else states.add_(mapped)
        weight, bias = self.weights[f"{name}.weight"].t(), self.weights.get(f"{name}.bias")
        if bias is not None:
            states = states + bias
        return states.addmm(inner, weight) if torch.is_grad_enabled() else states.addmm_(inner, weight)


def _attended(net: _Net, states: torch.Tensor, index: int, rotations: torch.Tensor, attend: Attend) -> torch.Tensor:
    """States [T, hidden] after the attention of layer `index`; `rotations` are [T, 2, 2, 1, 1, D]."""
    layer, heads = f"model.layers.{index}", net.config.num_attention_heads
    local = is_local(net.config, index)
    # The embeddings are normalised already, so the first layer has no norm of its own.
    normed = (net.norm(states, f"{layer}.attn_norm") if index else states).to(rotations.dtype)
    qkv = net.linear(normed, f"{layer}.attn.Wqkv").view(len(states), 3, heads, -1)
    query_key, value = qkv.split_with_sizes((2, 1), dim=1)
    query_key = _Rotation.apply(query_key, *rotations[:, int(local)].unbind(1))  # type: ignore[no-untyped-call]
    return net.added(states, attend(query_key, value, local).flatten(1), f"{layer}.attn.Wo")


class _Rotation(torch.autograd.Function):
    """Rotary embedding of [T, 2, H, D] by cosines and signed sines [T, 1, 1, D]: three kernels, as its gradient.

    From the same operators, autograd makes a gradient of twice as many kernels.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cosines, sines)
        rotated, half = states * cosines, states.shape[-1] // 2
        rotated[..., :half].addcmul_(states[..., half:], sines[..., :half])
        rotated[..., half:].addcmul_(states[..., :half], sines[..., half:])
        return rotated

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,), (cosines, sines) = given, ctx.saved_tensors
        found, half = gradient * cosines, gradient.shape[-1] // 2
        found[..., :half].addcmul_(gradient[..., half:], sines[..., half:])
        found[..., half:].addcmul_(gradient[..., :half], sines[..., :half])
        return found, None, None


def _transformed(
    net: _Net,
    states: torch.Tensor,
    index: int,
    dtype: torch.dtype,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """States [T, hidden] after the gated linear unit of layer `index`, whose matrices have `dtype`."""
    layer = f"model.layers.{index}"
    normed = net.norm(states, f"{layer}.mlp_norm").to(dtype)
    value, gate = net.linear(normed, f"{layer}.mlp.Wi").chunk(2, dim=-1)
    return net.added(states, activation(value) * gate, f"{layer}.mlp.Wo")


def _classified(net: _Net, states: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Logits [S, labels] of all segments. Mean pooling is in float32."""
    if net.config.classifier_pooling == "cls":
        pooled = states.index_select(0, packed.starts[:-1])
    else:
        sums = torch.zeros(packed.shape.segments, states.shape[1], device=states.device)
        pooled = sums.index_add(0, packed.segments, states.float()) / packed.lengths[:, None]
    pooled = net.linear(pooled.to(net.weights["head.dense.weight"].dtype), "head.dense")
    return net.linear(net.norm(ACT2FN[net.config.classifier_activation](pooled), "head.norm"), "classifier")


# --- attention --------------------------------------------------------------------------------------------------------


def kernel_for(config: PretrainedConfig, device: torch.device, dtype: torch.dtype) -> Attention:
    """`varlen` if its kernel is available: it is flash attention and needs half precision and compute capability 8."""
    fits = dtype in (torch.float16, torch.bfloat16) and config.hidden_size // config.num_attention_heads % 8 == 0
    return varlen if fits and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8 else padded


def kernels(config: PretrainedConfig, device: torch.device, dtype: torch.dtype, *, captured: bool) -> str:
    """The provider in a placement: the attention kernel, and whether it runs as CUDA graphs."""
    attention = "varlen attention" if kernel_for(config, device, dtype) is varlen else "sdpa"
    return f"packed, {attention}" + (", CUDA graphs" if captured else "")


def varlen(packed: Packed, config: PretrainedConfig, dtype: torch.dtype) -> Attend:
    """Flash attention for packed sequences: the operator of `torch.nn.attention.varlen.varlen_attn`.

    Without that wrapper, no zeros are written for its random state, nor for the gradients of results that nobody uses.
    """
    starts, longest, reach = packed.starts, packed.shape.longest, windowless(config) - 1
    no_dropout, causal, debug = 0.0, False, False

    def attend(query_key: torch.Tensor, value: torch.Tensor, local: bool) -> torch.Tensor:
        window = reach if local and longest > reach + 1 else -1
        query, key = query_key.unbind(1)
        found: torch.Tensor = torch.ops.aten._flash_attention_forward(
            *(query, key, value.squeeze(1), starts, starts, longest, longest, no_dropout, causal, debug),
            window_size_left=window,
            window_size_right=window,
        )[0]
        return found

    return attend


def padded(packed: Packed, config: PretrainedConfig, dtype: torch.dtype) -> Attend:
    """Scaled-dot-product attention over copies of query, key and value, padded to the longest segment.

    A mask over the packed sequences would need no copies, but its cost grows with the square of all tokens.
    """
    count, width, reach = packed.shape.segments, packed.shape.longest, windowless(config) - 1
    place = torch.arange(width, device=packed.storage.device)
    there = (packed.starts[:-1, None] + place).clamp(max=packed.shape.tokens - 1).flatten()
    back = packed.segments * width + packed.positions
    real = place < packed.lengths[:, None]
    masks = [None if packed.shape.tokens == count * width else _mask(real[:, None, None], dtype)] * 2
    if width > reach + 1:
        near = (place[:, None] - place).abs() <= reach
        # Queries of padding attend to everything: with nothing to attend to, they and their gradients would be NaN.
        masks[1] = _mask(real[:, None, None] & near | ~real[:, None, :, None], dtype)

    def attend(query_key: torch.Tensor, value: torch.Tensor, local: bool) -> torch.Tensor:
        heads = value.shape[2:]
        query, key = query_key.index_select(0, there).view(count, width, 2, *heads).permute(2, 0, 3, 1, 4)
        values = value.index_select(0, there).view(count, width, *heads).transpose(1, 2)
        found = functional.scaled_dot_product_attention(query, key, values, attn_mask=masks[local])
        return found.transpose(1, 2).reshape(count * width, *heads).index_select(0, back)

    return attend


def _mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The additive attention mask. A Boolean mask would be converted again in each layer."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)
