"""A small ModernBERT with large random weights, and pairs of random tokens for its graphs."""

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ModernBertConfig, ModernBertForSequenceClassification

# On both sides of 65: up to this length, every token attends to every other in a window of 128.
LENGTHS = (19, 53, 70, 82, 105)
VOCABULARY = 120
POSITIONS = 160
Inputs = dict[str, NDArray[np.int64]]


def modernbert(**changes: object) -> ModernBertForSequenceClassification:
    """A small ModernBERT with large random weights, norms and biases, so that every part affects the logits."""
    torch.manual_seed(0)
    sizes: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 48,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        "local_attention": 128,
        "pad_token_id": 0,
        "initializer_range": 0.3,
        "classifier_pooling": "mean",
        "reference_compile": False,
        "attn_implementation": "sdpa",
    }
    model = ModernBertForSequenceClassification(ModernBertConfig(**sizes | changes)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
            elif "norm" in name:
                weight.uniform_(0.5, 1.5)
    return model


def batch(lengths: tuple[int, ...] = LENGTHS, width: int = 0) -> Inputs:
    """Pairs of random tokens, padded on the right to the longest or to `width`."""
    numbers = np.random.default_rng(0)
    ids = np.zeros((len(lengths), max(width, *lengths)), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = numbers.integers(3, VOCABULARY, length)
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}
