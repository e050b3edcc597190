"""Pretrain the bundled ModernBERT encoder: ``python docs/quickstart-model/pretrain.py --output-dir DIR``.

A transformer this small learns to compare two sentences only very slowly from one label a pair.  So the encoder gets
dense supervision from the grammar that writes the pairs, through heads that are thrown away afterwards:

* for every token, whether its word contradicts the other sentence (replaced-word detection in the manner of ELECTRA,
  Clark et al. 2020, https://arxiv.org/abs/2003.10555, but across a pair);
* for every token, which slot of the fact its word expresses (agent, verb, recipient, ...);
* for every token of a slot's word, which value that slot has in the *other* sentence, which teaches the encoder to look
  up the counterpart that it has to compare with;
* for every pair, whether it is equivalent, through a mean-pooling head of the shape that
  ``ModernBertForSequenceClassification`` has, re-initialised every so often so that the encoder's features suit *any*
  fresh head and not one particular head.

Only the encoder (architecture ``ModernBertModel``) and the tokenizer are written, with the log ``pretrain.log``.  The
pairs come from the corpus's ``pretraining`` partition and the held-out figures from its ``heldout`` partition; neither
shares a fact with the quickstart splits.
"""

import argparse
import json
import logging
import math
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import tokenizers  # type: ignore[import-untyped]
import torch
import transformers
from corpus import COUNTERPARTS, TAGS, Fact, LabelledPair, Word, counterpart, pretraining_pairs
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from torch.nn import functional
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

logger = logging.getLogger("pretrain")

#: ModernBERT's special tokens in the order of its vocabulary, which puts them after all others.
SPECIAL_TOKENS: dict[str, str] = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
#: Size of the whole vocabulary: 256 bytes, the merges, and the special tokens.
VOCAB_SIZE = 768
#: Longest input in tokens; also ``max_position_embeddings``.  The corpus stays far below.
MAX_LENGTH = 512
#: Target of ``cross_entropy`` that is left out of the loss (PyTorch's own default).
IGNORED = -100


@dataclass(frozen=True)
class Settings:
    """The numbers of one run; ``batch_size`` counts pairs, ``learning_rate`` is the peak, ``weight_*`` scale losses.

    The defaults are those of the shipped checkpoint.  It stops early on purpose: with 2000 steps fine-tuning makes no
    error at all, and a benchmark on a model without errors would show nothing.  ``positive_weight`` is the weight of a
    mismatching token in its loss, and every ``head_reset_every`` steps (0: never) the pair head starts afresh.
    """

    steps: int = 700
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    seed: int = 0
    threads: int = 1
    layers: int = 4
    hidden_size: int = 128
    intermediate_size: int = 192
    weight_tag: float = 0.3
    weight_counterpart: float = 0.5
    weight_pair: float = 0.3
    positive_weight: float = 3.0
    head_reset_every: int = 200
    log_every: int = 50
    evaluate_every: int = 250
    evaluation_pairs: int = 1000


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on ``texts``, set up like ModernBERT's (NFC, no prefix blank, template)."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens(
        [AddedToken(text, lstrip=text == "[MASK]", special=True) for text in SPECIAL_TOKENS.values()]
    )
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(text, core.token_to_id(text)) for text in SPECIAL_TOKENS.values()],
    )
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=True,
        **{name: AddedToken(text, lstrip=text == "[MASK]", special=True) for name, text in SPECIAL_TOKENS.items()},
    )


def build_config(tokenizer: PreTrainedTokenizerFast, settings: Settings) -> ModernBertConfig:
    """ModernBERT-base's configuration scaled down; bos and eos are set as there, although its tokenizer has neither."""
    return ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.hidden_size // 32,
        max_position_embeddings=MAX_LENGTH,
        local_attention=32,
        global_attn_every_n_layers=3,
        classifier_pooling="mean",
        bos_token_id=tokenizer.cls_token_id,
        cls_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        reference_compile=False,
        attn_implementation="sdpa",
        dtype="float32",
    )


class TokenRow(NamedTuple):
    """One token: its id, tag (index into ``TAGS``), mismatch (0 or 1), counterpart (index into ``COUNTERPARTS``)."""

    token: int
    tag: int
    mismatch: int
    counterpart: int


class WordEncoder:
    """Token ids with per-token labels for tagged words.

    The byte-level pre-tokenizer splits at blanks and punctuation, so the tokens of a sentence are those of its words
    (each with the blank before it) one after another; that lets every word be encoded once and looked up afterwards.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def sentence(self, words: tuple[Word, ...], mismatch: tuple[int, ...], other: Fact) -> list[TokenRow]:
        """The tokens of one sentence; ``other`` is the fact of the other sentence."""
        rows: list[TokenRow] = []
        for index, (word, label) in enumerate(zip(words, mismatch, strict=True)):
            text = word.text if index == 0 or word.text in (",", ".") else " " + word.text
            value = counterpart(word.tag, other)
            target = IGNORED if value is None else COUNTERPARTS.index(value)
            rows += [TokenRow(token, TAGS.index(word.tag), label, target) for token in self._ids(text)]
        return rows

    def pair(self, item: LabelledPair) -> list[TokenRow]:
        """The tokens of ``[CLS] A [SEP] B [SEP]``; special tokens have the labels ``IGNORED``."""
        cls = TokenRow(int(self._tokenizer.cls_token_id), IGNORED, IGNORED, IGNORED)
        sep = cls._replace(token=int(self._tokenizer.sep_token_id))
        first = self.sentence(item.words1, item.mismatch1, item.fact2)
        second = self.sentence(item.words2, item.mismatch2, item.fact1)
        return [cls, *first, sep, *second, sep]


@dataclass(frozen=True)
class Batch:
    """Tensors of one batch of B pairs padded to T tokens: all [B, T] but ``pair_label``, which is [B]."""

    input_ids: Tensor
    attention_mask: Tensor
    tags: Tensor
    mismatch: Tensor
    counterpart: Tensor
    pair_label: Tensor


def collate(rows: list[list[TokenRow]], labels: list[int], pad_id: int) -> Batch:
    """Pad the pairs of one batch to the longest of them."""
    width = max(map(len, rows))
    padding = TokenRow(pad_id, IGNORED, IGNORED, IGNORED)
    stacked = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
    input_ids, tags, mismatch, counterparts = stacked.unbind(-1)
    return Batch(
        input_ids=input_ids.contiguous(),
        attention_mask=(input_ids != pad_id).long(),
        tags=tags,
        mismatch=mismatch,
        counterpart=counterparts,
        pair_label=torch.tensor(labels),
    )


def batches(items: Iterator[LabelledPair], encoder: WordEncoder, pad_id: int, batch_size: int) -> Iterator[Batch]:
    """Batches of pairs of similar length: 16 batches' worth of pairs at a time are sorted by length, then cut up.

    The batches of one such pool come in a scattered order, so that the length does not drift monotonically.
    """
    while True:
        pool = list(islice(items, 16 * batch_size))
        if not pool:
            return
        encoded = sorted(((encoder.pair(item), item.pair.label) for item in pool), key=lambda entry: len(entry[0]))
        chunks = [encoded[start : start + batch_size] for start in range(0, len(encoded), batch_size)]
        for index in range(len(chunks)):
            # 7 is coprime to 16, so a full pool is walked through completely
            chunk = chunks[(7 * index + 3) % 16] if len(chunks) == 16 else chunks[index]
            yield collate([rows for rows, _ in chunk], [label for _, label in chunk], pad_id)


class PairHead(nn.Module):
    """Mean pooling, then dense, GELU, layer norm and classifier, as in ``ModernBertForSequenceClassification``."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        width = int(config.hidden_size)
        self.dense = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width, bias=False)
        self.classifier = nn.Linear(width, 2)
        self._dense_std = float(config.initializer_range) / math.sqrt(2.0 * int(config.num_hidden_layers))
        self.reset()

    def reset(self) -> None:
        """Fresh weights by ModernBERT's own rule for a new classification head."""
        nn.init.trunc_normal_(self.dense.weight, std=self._dense_std)
        nn.init.ones_(self.norm.weight)
        nn.init.trunc_normal_(self.classifier.weight, std=self.classifier.in_features**-0.5)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [B, 2] of states [B, T, H] and a mask [B, T]."""
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
        logits: Tensor = self.classifier(self.norm(functional.gelu(self.dense(pooled))))
        return logits


class Pretrainer(nn.Module):
    """The encoder with its three throw-away heads."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.encoder = ModernBertModel(config)
        self.token_head = nn.Linear(int(config.hidden_size), 1 + len(TAGS) + len(COUNTERPARTS))
        self.pair_head = PairHead(config)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits: mismatch [B, T], tag [B, T, len(TAGS)], counterpart [B, T, len(COUNTERPARTS)] and pair [B, 2]."""
        states = self.encoder(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        mismatch, tag, value = self.token_head(states).split([1, len(TAGS), len(COUNTERPARTS)], dim=-1)
        return mismatch.squeeze(-1), tag, value, self.pair_head(states, batch.attention_mask)


def loss_of(model: Pretrainer, batch: Batch, settings: Settings) -> Tensor:
    """The weighted sum of the mismatch, tag, counterpart and pair losses (a scalar)."""
    mismatch_logits, tag_logits, counterpart_logits, pair_logits = model(batch)
    kept = batch.mismatch != IGNORED
    mismatch = functional.binary_cross_entropy_with_logits(
        mismatch_logits[kept],
        batch.mismatch[kept].float(),
        pos_weight=torch.tensor(settings.positive_weight),
    )
    tag = functional.cross_entropy(tag_logits.flatten(0, 1), batch.tags.flatten(), ignore_index=IGNORED)
    looked_up = functional.cross_entropy(
        counterpart_logits.flatten(0, 1), batch.counterpart.flatten(), ignore_index=IGNORED
    )
    pair = functional.cross_entropy(pair_logits, batch.pair_label)
    return mismatch + settings.weight_tag * tag + settings.weight_counterpart * looked_up + settings.weight_pair * pair


@dataclass(frozen=True)
class Scores:
    """Held-out figures, each between 0 and 1.

    ``token`` is the accuracy of the mismatch label over all words' tokens, ``recall`` that over the truly mismatching
    ones, ``tag`` the accuracy of the slot, ``counterpart`` that of the other sentence's value, ``pair`` that of the
    pair label.
    """

    token: float
    recall: float
    tag: float
    counterpart: float
    pair: float


@torch.no_grad()
def evaluate(model: Pretrainer, data: list[Batch]) -> Scores:
    """Accuracies over ``data`` (dropout is zero throughout, so the mode does not matter)."""
    hits = torch.zeros(5)
    totals = torch.zeros(5)
    for batch in data:
        mismatch_logits, tag_logits, counterpart_logits, pair_logits = model(batch)
        kept = batch.mismatch != IGNORED
        positive = batch.mismatch == 1
        valued = batch.counterpart != IGNORED
        right = (mismatch_logits > 0) == positive
        outcomes = [
            right[kept],
            right[positive],
            (tag_logits.argmax(-1) == batch.tags)[kept],
            (counterpart_logits.argmax(-1) == batch.counterpart)[valued],
            pair_logits.argmax(-1) == batch.pair_label,
        ]
        hits += torch.stack([outcome.sum() for outcome in outcomes])
        totals += torch.tensor([outcome.numel() for outcome in outcomes])
    return Scores(*(hits / totals).tolist())


def learning_rate_factor(step: int, settings: Settings) -> float:
    """Multiple of the peak learning rate: linear warm-up, then half a cosine down to 2 % of the peak."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def _optimizer(model: Pretrainer, settings: Settings) -> torch.optim.AdamW:
    """AdamW with ModernBERT's betas and epsilon; vectors (norms, biases) are not decayed."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def train(model: Pretrainer, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Scores:
    """Run all steps on pairs generated on the way; returns the held-out scores of the end."""
    words = WordEncoder(tokenizer)
    pad_id = int(tokenizer.pad_token_id)
    held_out_items = pretraining_pairs(settings.evaluation_pairs, settings.seed, partition="heldout")
    held_out = list(batches(held_out_items, words, pad_id, 128))
    # twice as many pairs as needed: the few identical sentences that the generator leaves out do not matter
    stream = batches(
        pretraining_pairs(2 * settings.steps * settings.batch_size, settings.seed), words, pad_id, settings.batch_size
    )
    optimizer = _optimizer(model, settings)
    scores = evaluate(model, held_out)
    start = time.monotonic()
    running = 0.0
    for step, batch in zip(range(1, settings.steps + 1), stream, strict=False):
        rate = settings.learning_rate * learning_rate_factor(step - 1, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, batch, settings)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running += loss.item()
        if step % settings.log_every == 0:
            seconds = time.monotonic() - start
            logger.info("step %5d  loss %.4f  lr %.2e  %6.1f s", step, running / settings.log_every, rate, seconds)
            running = 0.0
        if step % settings.evaluate_every == 0 or step == settings.steps:
            scores = evaluate(model, held_out)
            logger.info("held-out  step %5d  %s", step, json.dumps({k: round(v, 4) for k, v in asdict(scores).items()}))
        if settings.head_reset_every and step % settings.head_reset_every == 0 and step < 0.8 * settings.steps:
            model.pair_head.reset()
    return scores


def _set_up_log(path: Path) -> None:
    """Log to ``path`` and to the terminal, message only (times are relative and in the messages)."""
    logger.setLevel(logging.INFO)
    logger.handlers.clear()
    for handler in (logging.FileHandler(path, mode="w", encoding="utf-8"), logging.StreamHandler(sys.stderr)):
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def run(output_dir: Path, settings: Settings) -> Scores:
    """Train tokenizer and encoder and write both to ``output_dir``, with ``pretrain.log``."""
    output_dir.mkdir(parents=True, exist_ok=True)
    _set_up_log(output_dir / "pretrain.log")
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    texts = (
        text for item in pretraining_pairs(20_000, settings.seed) for text in (item.pair.sentence1, item.pair.sentence2)
    )
    tokenizer = build_tokenizer(texts)
    config = build_config(tokenizer, settings)
    model = Pretrainer(config)
    logger.info("settings %s", json.dumps(asdict(settings)))
    logger.info(
        "python %s, torch %s, transformers %s, tokenizers %s",
        platform.python_version(),
        torch.__version__,
        transformers.__version__,
        tokenizers.__version__,
    )
    logger.info("vocabulary %d, encoder parameters %d", len(tokenizer), model.encoder.num_parameters())
    start = time.monotonic()
    scores = train(model, tokenizer, settings)
    logger.info("done in %.1f s", time.monotonic() - start)
    model.encoder.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return scores


def main(arguments: list[str] | None = None) -> int:
    """Command line: the output folder, and the settings that one may want to change."""
    parser = argparse.ArgumentParser(prog="pretrain.py", description="Pretrain the bundled encoder.")
    defaults = Settings()
    parser.add_argument("--output-dir", type=Path, required=True)
    for name, value in asdict(defaults).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value, help="default: %(default)s")
    options = vars(parser.parse_args(arguments))
    output_dir: Path = options.pop("output_dir")
    run(output_dir, Settings(**options))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
