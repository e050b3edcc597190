"""Kinds of layer and rotary positions, in the names of transformers 4 and of transformers 5."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graph_models import modernbert
from transformers import ModernBertConfig

from mrpcbench.models.modernbert_config import has_window, is_local, rope_frequencies, rope_thetas, rope_types


def newer(**changes: Any) -> Any:
    """A configuration with the names of transformers 5."""
    kinds = ["full_attention", "sliding_attention"]
    given = {
        "num_hidden_layers": 4,
        "layer_types": [kinds[layer % 3 > 0] for layer in range(4)],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize("config", [ModernBertConfig(num_hidden_layers=4), newer()], ids=["transformers 4", "5"])
def test_both_forms_describe_the_same_layers(config: Any) -> None:
    assert [is_local(config, layer) for layer in range(4)] == [False, True, True, False]
    assert has_window(config)
    assert rope_thetas(config) == (160000.0, 10000.0)
    assert rope_types(config) == []


def test_a_model_whose_layers_are_all_global_has_no_window() -> None:
    assert not has_window(ModernBertConfig(global_attn_every_n_layers=1))
    assert not has_window(newer(layer_types=["full_attention"] * 4))


def test_local_layers_without_a_base_of_their_own_have_that_of_global_layers() -> None:
    assert rope_thetas(ModernBertConfig(local_rope_theta=None)) == (160000.0, 160000.0)


def test_scaled_positions_are_named() -> None:
    linear = {"rope_type": "linear", "factor": 2.0}
    assert rope_types(ModernBertConfig(rope_scaling=linear)) == ["linear"]
    both = {"full_attention": {**linear, "rope_theta": 1.0}, "sliding_attention": {"rope_theta": 1.0}}
    assert rope_types(newer(rope_parameters=both)) == ["linear"]


def test_the_frequencies_are_found_in_the_layer_or_in_the_model() -> None:
    model = modernbert()
    found, scaling = rope_frequencies(model, 1)
    assert scaling == 1.0
    theta = rope_thetas(model.config)[is_local(model.config, 1)]
    size = model.config.hidden_size // model.config.num_attention_heads
    torch.testing.assert_close(found, theta ** -(torch.arange(0, size, 2) / size))
    shared = SimpleNamespace(sliding_attention_inv_freq=found, sliding_attention_attention_scaling=0.5)
    layers = [SimpleNamespace(attn=SimpleNamespace())] * 4
    newer_model: Any = SimpleNamespace(model=SimpleNamespace(layers=layers, rotary_emb=shared), config=newer())
    assert rope_frequencies(newer_model, 1) == (found, 0.5)
