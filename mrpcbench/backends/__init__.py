"""The engines by name, each loaded only when it is opened, and what they have in common."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from datasets import Dataset

from mrpcbench import models
from mrpcbench.backends.base import Session
from mrpcbench.batches import EncodedPairs
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.schema import QUICKSTART, BackendSpec

BACKENDS = {
    "torch": "mrpcbench.backends.pytorch:open_torch",
    "onnx": "mrpcbench.backends.ort:open_onnx",
    "fake": "mrpcbench.backends.fake:open_fake",
}


def open_session(spec: BackendSpec) -> Session:
    """Load the model that `spec` names into its engine.

    Raises `MissingError` where the engine, the device or the arithmetic asked for is not what would run.
    """
    module, function = BACKENDS[spec.backend].split(":")
    try:
        opener: Callable[[BackendSpec], Session] = getattr(import_module(module), function)
    except ImportError as error:
        raise MissingError(f"--backend {spec.backend}: {error}; see `mrpcbench env`") from error
    return opener(spec)


def model_folder(spec: BackendSpec) -> Path:
    """The folder that the backend of `spec` reads: with onnx a model folder stands for its `onnx/`."""
    if spec.backend == "fake":
        return models.locate(QUICKSTART)
    folder = models.locate(spec.model, onnx=spec.backend == "onnx")
    return models.onnx_folder(folder, spec.model) if spec.backend == "onnx" else folder


def encode_for(spec: BackendSpec, pairs: Dataset) -> EncodedPairs:
    """`pairs` as the tokens that the model of `spec` reads."""
    folder = model_folder(spec)
    tokenizer = models.load_tokenizer(folder, spec.model)
    return models.encode(pairs, tokenizer, models.load_config(folder, spec.model))


def label_names(spec: BackendSpec) -> tuple[str, ...]:
    """What the model of `spec` calls its labels, in their order."""
    names = models.load_config(model_folder(spec), spec.model).id2label
    return tuple(str(names[label]) for label in sorted(names))


def check_labels(spec: BackendSpec, of_data: tuple[str, str]) -> None:
    """Raise `UsageError` where the model of `spec` has the data's labels the other way round."""
    named = tuple(name.upper() for name in of_data)
    if tuple(name.upper() for name in label_names(spec)) == named[::-1] != named:
        raise UsageError(
            f"--model {spec.model}: its labels are {', '.join(named[::-1])} and the data's {', '.join(named)}"
        )
