"""Whether the settings in a config.json are of the types that their architecture reads."""

import math
from typing import TYPE_CHECKING, Any

from mrpcbench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Sizes of a network, in the names of ModernBERT and of other encoders.
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "local_attention",
    "global_attn_every_n_layers",
)
# Beyond this, no tensor can be made.
LARGEST = 2**31 - 1


def check_settings(config: "PretrainedConfig", option: str) -> None:
    """Raise `UsageError` for a setting of another type than its default has in the architecture, or a size below 1.

    A setting without a default is not checked. None counts as absent, except for a size.
    """
    defaults, found = type(config)().to_dict(), config.to_dict()
    for name, default in defaults.items():
        value = found.get(name, default)
        if name in SIZES and not (type(value) is int and 1 <= value <= LARGEST):
            raise UsageError(f"{option}: config.json: {name} is {_shown(value)}, not a size from 1 to {LARGEST}")
        if value is not None and (wanted := _other_type(value, default)):
            raise UsageError(f"{option}: config.json: {name} is {_shown(value)}, not {wanted}")
    names = config.architectures
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UsageError(f"{option}: config.json: architectures is {_shown(names)}, not a list of names")
    ids = config.label2id
    if ids is not None and not all(type(label) is int for label in ids.values()):
        raise UsageError(f"{option}: config.json: label2id is {_shown(ids)}, not labels by name")


def _other_type(value: Any, default: Any) -> str | None:
    """What `value` should be to be read like `default`; None if it is that."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        return None if type(value) is int and abs(value) <= LARGEST else "an integer"
    if isinstance(default, float):
        return None if type(value) in (int, float) and math.isfinite(value) else "a number"
    if isinstance(default, str):
        return None if isinstance(value, str) else "a name"
    if isinstance(default, dict):
        return None if isinstance(value, dict) else "an object"
    return None


def _shown(value: Any) -> str:
    return f"{value!r:.40}"
