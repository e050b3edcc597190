"""The bundled checkpoint and sentence pairs, as files; `docs/quickstart-model/` holds the scripts that made them."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
#: The bundled encoder with its tokenizer, as `from_pretrained` reads it.
CHECKPOINT_DIR: Path = _HERE / "checkpoint"
#: The bundled pairs: a data folder with `train.csv`, `validation.csv` and `test.csv`.
DATA_DIR: Path = _HERE / "data"

__all__ = ["CHECKPOINT_DIR", "DATA_DIR"]
