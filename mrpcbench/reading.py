"""What the model of a spec reads, whatever its engine: its folder, its tokenizer and its labels."""

from pathlib import Path

from mrpcbench import models
from mrpcbench.backends import engine_of
from mrpcbench.batches import Reader
from mrpcbench.errors import UsageError
from mrpcbench.plans import BackendSpec


def model_folder(spec: BackendSpec) -> Path:
    """The folder that the backend of `spec` reads: with onnx a model folder stands for its `onnx/`."""
    on_graph = engine_of(spec.backend).reads_onnx
    folder = models.locate(spec.model, onnx=on_graph)
    return models.onnx_folder(folder, spec.model) if on_graph else folder


def reader_for(spec: BackendSpec) -> Reader:
    """How the model of `spec` reads pairs."""
    folder = model_folder(spec)
    return models.reader(models.load_tokenizer(folder, spec.model), models.load_config(folder, spec.model))


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
