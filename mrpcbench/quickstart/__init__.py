"""The bundled checkpoint, classifier and sentence pairs, as files made by the scripts in docs/quickstart-model/."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
#: The bundled encoder with its tokenizer, as `from_pretrained` reads it.
CHECKPOINT_DIR: Path = _HERE / "checkpoint"
#: That encoder, fine-tuned on the bundled pairs.
CLASSIFIER_DIR: Path = _HERE / "classifier"
#: The bundled pairs: a data folder with `train.csv`, `validation.csv` and `test.csv`.
DATA_DIR: Path = _HERE / "data"

__all__ = ["CHECKPOINT_DIR", "CLASSIFIER_DIR", "DATA_DIR"]
