"""How long a pair may be for a model, and which values its embeddings know, read from the model's own tables.

The model is built without memory for its weights (on torch's meta device), because no setting tells how many positions
are usable: RoBERTa has 514 and counts from 2, BART has 2 more than its configuration says.
"""

import sys
from collections.abc import Iterator, Mapping

import torch
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedTokenizerBase

from mrpcbench.data.batches import Reader
from mrpcbench.errors import UsageError

# Names of the settings with a number of positions. -1, 0, null, or a number beyond any memory mean no limit.
SETTINGS = ("max_position_embeddings", "max_seq_len")
LARGEST = 1 << 31
# The last parts of the names of tables with one row for each position.
POSITIONS = ("position_embeddings", "embed_positions", "wpe")
TOKEN_TYPES = "token_type_embeddings"


def reader_of(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str) -> Reader:
    """The reader of the model `name`. Raises `UsageError` if the model does not know the padding token.

    The longest pair is the smallest of the tokenizer's limit, the configuration's and the rows of the position table.
    """
    net = _built(config)
    limits = [tokenizer.model_max_length, *(getattr(config, item, None) for item in SETTINGS), *_positions(net)]
    known = _known(net)
    if tokenizer.pad_token_id >= known.get("input_ids", LARGEST):
        raise UsageError(
            f"--model {name}: its tokenizer's padding token is number {tokenizer.pad_token_id}, but the model knows "
            f"{known['input_ids']} tokens; use the tokenizer that the model was trained with"
        )
    return Reader(tokenizer, min(filter(None, map(_limit, limits)), default=sys.maxsize), known)


def _limit(value: object) -> int | None:
    """The limit that a setting means; None for no limit."""
    return int(value) if isinstance(value, int | float) and 0 < value < LARGEST else None


def _built(config: PretrainedConfig) -> torch.nn.Module:
    """The model without weights; an empty module if it cannot be built, which its engine will say."""
    try:
        with torch.device("meta"):
            net: torch.nn.Module = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
            return net
    except Exception:  # which depends on the architecture
        return torch.nn.Module()


def _tables(net: torch.nn.Module, *names: str) -> Iterator[tuple[torch.nn.Module, int]]:
    """The tables in `net` whose name ends in one of `names`, with their numbers of rows."""
    for name, module in net.named_modules():
        if name.rpartition(".")[2] in names and (rows := _rows(module)):
            yield module, rows


def _rows(table: object) -> int:
    weight = getattr(table, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, torch.Tensor) else 0


def _positions(net: torch.nn.Module) -> Iterator[int]:
    """The usable rows of each table of positions: those after the padding token's, or after an offset."""
    for table, rows in _tables(net, *POSITIONS):
        padding, offset = getattr(table, "padding_idx", None), getattr(table, "offset", None)
        first = padding + 1 if isinstance(padding, int) else offset if isinstance(offset, int) else 0
        yield rows - first


def _known(net: torch.nn.Module) -> Mapping[str, int]:
    """For each input, the number of values that the model knows; inputs whose table was not found are left out."""
    tokens = getattr(net, "get_input_embeddings", lambda: None)()
    types = min((rows for _, rows in _tables(net, TOKEN_TYPES)), default=0)
    found = {"input_ids": _rows(tokens), "token_type_ids": types}
    return {name: count for name, count in found.items() if count}
