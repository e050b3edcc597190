"""A built-in paraphrase corpus and a tiny ModernBERT checkpoint, so that the pipeline runs without network or GPU.

``corpus`` generates the sentence pairs (standard library only), ``pretrain`` is the script that made the files in
``CHECKPOINT_DIR``; its log is ``pretrain.log`` beside this file.
"""

from pathlib import Path

#: Folder of the shipped encoder and its tokenizer, in the layout that ``from_pretrained`` reads.
CHECKPOINT_DIR: Path = Path(__file__).resolve().parent / "checkpoint"

__all__ = ["CHECKPOINT_DIR"]
