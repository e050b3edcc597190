"""What a ModernBERT says about its layers, in the names of transformers 4 and of transformers 5."""

from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

# The names of transformers 5 for the kinds of layer.
GLOBAL, LOCAL = "full_attention", "sliding_attention"
UNSCALED = "default"


def is_local(config: PretrainedConfig, layer: int) -> bool:
    """Whether the tokens of `layer` attend only to a window of `config.local_attention` tokens."""
    if kinds := getattr(config, "layer_types", None):
        return bool(kinds[layer] == LOCAL)
    return bool(layer % config.global_attn_every_n_layers)


def rope_thetas(config: PretrainedConfig) -> tuple[float, float]:
    """The bases of the rotary embeddings (Su et al., RoFormer, 2021) of global and of local layers."""
    if kinds := getattr(config, "rope_parameters", None):
        everywhere, local = kinds[GLOBAL]["rope_theta"], kinds[LOCAL]["rope_theta"]
    else:
        everywhere, local = config.global_rope_theta, config.local_rope_theta
    return float(everywhere), float(everywhere if local is None else local)


def rope_types(config: PretrainedConfig) -> list[str]:
    """How the rotary embeddings are scaled to longer sequences, in transformers' names; empty if they are not."""
    kinds = getattr(config, "rope_parameters", None) or {GLOBAL: getattr(config, "rope_scaling", None) or {}}
    found = {str(kind.get("rope_type", kind.get("type", UNSCALED))) for kind in kinds.values()}
    return sorted(found - {UNSCALED})


def has_window(config: PretrainedConfig) -> bool:
    """Whether any layer is local."""
    return any(is_local(config, layer) for layer in range(config.num_hidden_layers))


def rope_frequencies(model: PreTrainedModel, layer: int) -> tuple[torch.Tensor, float]:
    """The angles [D / 2] by which one position turns a head in `layer`, and the factor of its cosines and sines."""
    net: Any = model.model
    if own := getattr(net.layers[layer].attn, "rotary_emb", None):
        return own.inv_freq, float(own.attention_scaling)
    kind = LOCAL if is_local(model.config, layer) else GLOBAL
    return getattr(net.rotary_emb, f"{kind}_inv_freq"), float(getattr(net.rotary_emb, f"{kind}_attention_scaling"))
