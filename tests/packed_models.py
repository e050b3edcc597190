"""A narrow ModernBERT with the layers of ModernBERT-base, and Hugging Face's logits and gradients of it."""

from typing import Any

import numpy as np
import torch
from transformers import ModernBertConfig, ModernBertForSequenceClassification

# Some pairs of MRPC are longer than the 65 tokens that a window of 128 covers; most are not.
LENGTHS = np.array([19, 53, 70, 82, 105])
LABELS = torch.tensor([0, 1, 1, 0, 1])
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 200}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}


def made(**changes: Any) -> ModernBertForSequenceClassification:
    """A narrow ModernBERT with 22 layers in ModernBERT-base's pattern, and weights so large that every part matters."""
    config = ModernBertConfig(
        **{**SMALL, **SPECIAL, "classifier_pooling": "mean", "reference_compile": False, **changes}
    )
    torch.manual_seed(0)
    net = ModernBertForSequenceClassification._from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.1)
            elif "embeddings" not in name:
                weight.normal_(std=weight.shape[1] ** -0.5)
    return net


def theirs(net: ModernBertForSequenceClassification, batch: tuple[np.ndarray, np.ndarray]) -> torch.Tensor:
    ids, mask = map(torch.from_numpy, batch)
    return net(input_ids=ids, attention_mask=mask).logits


def gradients(net: ModernBertForSequenceClassification, found: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad()
    torch.nn.functional.cross_entropy(found, LABELS).backward()
    return {name: weight.grad.clone() for name, weight in net.named_parameters() if weight.grad is not None}


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The norm of the difference, relative to the norm of `wanted`."""
    return float((found - wanted).norm() / wanted.norm())
