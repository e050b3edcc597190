"""ModernBERT as a sequence classifier without padding: a function of Hugging Face's weights, with gradients.

It computes the same as `ModernBertForSequenceClassification` with fewer than half of the kernels. It uses no padding
and no autocast. Rotary tables and masks are computed once, not in each layer. Query and key are rotated together. If
all weights have one dtype, each residual is added by the matrix product before it. On a GPU, Triton kernels replace
torch's operators between matrix products and attention.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional
from transformers import PretrainedConfig
from transformers.activations import ACT2FN

from mrpcbench.models.modernbert_config import is_local, rope_thetas, rope_types
from mrpcbench.modernbert.operators import Affine, Operators
from mrpcbench.modernbert.packing import Packed

ARCHITECTURE = "ModernBertForSequenceClassification"
DROPOUTS = ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout")
Weights = Mapping[str, torch.Tensor]
# (tensors [T, n, H, D] that together are query, key and value, whether the layer is local) -> [T, H, D]
Attend = Callable[[Sequence[torch.Tensor], bool], torch.Tensor]
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
    operators: type[Operators] | None = None,
) -> torch.Tensor:
    """Logits [pairs, labels] of the real segments, in the dtype of the head's weights.

    `weights` have the names of the model's `state_dict`: its own parameters, or copies in another dtype. The encoder's
    matrices have the dtype of `rotary`. The residual stream has that of the embeddings and norms, and the head may have
    another: with these in float32 and the matrices in bf16 it computes as autocast does. `attention` and `operators`
    are chosen by `kernel_for` and `operators_for` unless given. Without gradients, residuals are added in place.
    """
    net = _Net(weights, config)
    attend = (attention or kernel_for(config, rotary.device, rotary.dtype))(packed, config, rotary.dtype)
    between = (operators or operators_for(rotary.device))(config, packed.positions, rotary)
    embedded = functional.embedding(packed.ids, weights["model.embeddings.tok_embeddings.weight"])
    states = between.norm(embedded, net.affine("model.embeddings.norm"))
    # The embeddings are normalised already, so the first layer has no norm of its own.
    normed = states.to(rotary.dtype)
    for index in range(config.num_hidden_layers):
        layer, local = f"model.layers.{index}", is_local(config, index)
        rotated = between.rotated(net.linear(normed, f"{layer}.attn.Wqkv"), local)
        inner, mapping = attend(rotated, local).flatten(1), net.affine(f"{layer}.attn.Wo")
        states, normed = between.added_norm(states, inner, mapping, net.affine(f"{layer}.mlp_norm"))
        inner, mapping = between.gated(net.linear(normed, f"{layer}.mlp.Wi")), net.affine(f"{layer}.mlp.Wo")
        if index + 1 < config.num_hidden_layers:
            norm = net.affine(f"model.layers.{index + 1}.attn_norm")
            states, normed = between.added_norm(states, inner, mapping, norm)
        else:
            states = between.added(states, inner, mapping)
    states = between.norm(states, net.affine("model.final_norm"))
    return _classified(net, states, packed)[: packed.pairs]


@dataclass(frozen=True)
class _Net:
    """Layers that look up their weights by name."""

    weights: Weights
    config: PretrainedConfig

    def affine(self, name: str) -> Affine:
        return Affine(self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def linear(self, states: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(states, *self.affine(name))

    def norm(self, states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.affine(name)
        return functional.layer_norm(states, weight.shape, weight, bias, self.config.norm_eps)


def _classified(net: _Net, states: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Logits [S, labels] of all segments. Mean pooling is in float32."""
    if net.config.classifier_pooling == "cls":
        pooled = states.index_select(0, packed.starts[:-1])
    else:
        sums = torch.zeros(packed.shape.segments, states.shape[1], device=states.device)
        pooled = sums.index_add(0, packed.segments, states.float()) / packed.lengths[:, None]
    pooled = net.linear(pooled.to(net.weights["head.dense.weight"].dtype), "head.dense")
    return net.linear(net.norm(ACT2FN[net.config.classifier_activation](pooled), "head.norm"), "classifier")


# --- kernels ----------------------------------------------------------------------------------------------------------


def kernel_for(config: PretrainedConfig, device: torch.device, dtype: torch.dtype) -> Attention:
    """`varlen` if its kernel is available: it is flash attention and needs half precision and compute capability 8."""
    fits = dtype in (torch.float16, torch.bfloat16) and config.hidden_size // config.num_attention_heads % 8 == 0
    return varlen if fits and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8 else padded


def operators_for(device: torch.device) -> type[Operators]:
    """`fused.FusedOperators` on a GPU of compute capability 8 where Triton works, else torch's operators.

    A warning says why Triton does not work: it is not installed, or it finds no C compiler.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 8:
        return Operators
    return _fused_operators(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _fused_operators(index: int) -> type[Operators]:
    """The operators of the GPU with this index, tried once in a process."""
    try:
        from mrpcbench.modernbert import fused

        fused.probe(torch.device("cuda", index))
    except Exception as problem:  # any exception of Triton, of its compilers or of the driver
        reason = (str(problem).strip() or repr(problem)).splitlines()[0]
        logging.getLogger(__name__).warning("Triton's kernels do not work, so torch's are used: %s", reason)
        return Operators
    return fused.FusedOperators


def kernels(config: PretrainedConfig, device: torch.device, dtype: torch.dtype, *, captured: bool) -> str:
    """The provider in a placement: the attention kernel, and whether there are fused kernels and CUDA graphs."""
    parts = {
        "packed": True,
        "varlen attention" if kernel_for(config, device, dtype) is varlen else "sdpa": True,
        "fused kernels": operators_for(device) is not Operators,
        "CUDA graphs": captured,
    }
    return ", ".join(name for name, used in parts.items() if used)


def varlen(packed: Packed, config: PretrainedConfig, dtype: torch.dtype) -> Attend:
    """Flash attention for packed sequences: the operator of `torch.nn.attention.varlen.varlen_attn`.

    Without that wrapper, no zeros are written for its random state, nor for the gradients of results that nobody uses.
    """
    starts, longest, reach = packed.starts, packed.shape.longest, windowless(config) - 1
    no_dropout, causal, debug = 0.0, False, False

    def attend(given: Sequence[torch.Tensor], local: bool) -> torch.Tensor:
        query, key, value = (one for each in given for one in each.unbind(1))
        window = reach if local and longest > reach + 1 else -1
        found: torch.Tensor = torch.ops.aten._flash_attention_forward(
            *(query, key, value, starts, starts, longest, longest, no_dropout, causal, debug),
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

    def attend(given: Sequence[torch.Tensor], local: bool) -> torch.Tensor:
        spread = (each.index_select(0, there).view(count, width, *each.shape[1:]) for each in given)
        query, key, value = (one.transpose(1, 2) for each in spread for one in each.unbind(2))
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=masks[local])
        return found.transpose(1, 2).flatten(0, 1).index_select(0, back)

    return attend


def _mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The additive attention mask. A Boolean mask would be converted again in each layer."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)
