"""Checks an ONNX graph before an engine opens it: its files, its inputs and its output.

No engine is loaded. A problem with a graph becomes an error message that names the file.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from mrpcbench.errors import UsageError
from mrpcbench.models.files import inside, unreadable, what_is
from mrpcbench.models.sources import LABELS, ONNX_FILE, ModelSource

GRAPH_DTYPES = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "int8",
}
OUTPUT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
NEEDED = ("input_ids", "attention_mask")
TOKEN_TYPES = "token_type_ids"
REMEDY = "export it again with `mrpcbench export`"


@dataclass(frozen=True)
class Graph:
    """An ONNX graph of a pair classifier with two labels.

    `files` are all files that it reads, the graph first, relative to its folder. `dtype` is that of most of its
    `parameters` weights.
    """

    folder: Path
    files: tuple[str, ...]
    dtype: str
    parameters: int

    @property
    def path(self) -> Path:
        """The graph's own file."""
        return self.folder / self.files[0]

    @property
    def sha256(self) -> str:
        """SHA-256 over the names and bytes of exactly the files that the graph reads."""
        digest = hashlib.sha256()
        for name in self.files:
            with (self.folder / name).open("rb") as file:
                digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
        return digest.hexdigest()


def read_graph(source: ModelSource) -> Graph:
    """The graph in the folder of `source`.

    Raises `UsageError`, with the file's name, if it is not a graph, if a file that it reads is missing, truncated or
    outside of the folder, or if it is not a pair classifier with two labels.
    """
    option, path = f"--model {source.name}", source.folder / ONNX_FILE
    model = _parsed(path, option)
    external = _external_files(model, path, option)
    source.check_head()
    _check_inputs(model.graph, f"{option}: {ONNX_FILE}")
    _check_output(model.graph, f"{option}: {ONNX_FILE}")
    dtype, parameters = _weights(model, f"{option}: {ONNX_FILE}")
    return Graph(folder=source.folder, files=(ONNX_FILE, *external), dtype=dtype, parameters=parameters)


def _parsed(path: Path, option: str) -> onnx.ModelProto:
    if what_is(path):
        raise unreadable(option, path, "")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own types, which depend on its version
        raise unreadable(option, path, f"no ONNX graph, or truncated or damaged; copy it again, or {REMEDY}") from error
    if not model.graph.node:
        raise unreadable(option, path, f"no ONNX graph: it has no nodes; {REMEDY}")
    return model


def _tensors(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in `part`: its weights, and those in attributes and subgraphs."""
    yield from getattr(part, "initializer", ())
    sparse = list(getattr(part, "sparse_initializer", ()))
    for attribute in (item for node in part.node for item in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)
    for item in sparse:
        yield from (item.values, item.indices)


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for part in (model.graph, *model.functions):
        yield from _tensors(part)


def _external_files(model: onnx.ModelProto, path: Path, option: str) -> tuple[str, ...]:
    """The names of the graph's external weight files, sorted. Raises `UsageError` for a missing or short file."""
    needed: Counter[str] = Counter()
    for tensor in _all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {item.key: item.value for item in tensor.external_data}
        location = entries.get("location", "")
        if not location or not inside(path.parent, location, path):
            raise UsageError(f"{option}: {path.name} reads weights from {location!r}, outside of its folder; {REMEDY}")
        try:
            end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        except ValueError:
            raise unreadable(option, path, f"damaged: no place of {tensor.name} in {location}; {REMEDY}") from None
        name = Path(os.path.normpath(location)).as_posix()
        needed[name] = max(needed[name], end)
    for name, size in needed.items():
        _check_external(path, name, size, option)
    return tuple(sorted(needed))


def _check_external(path: Path, name: str, size: int, option: str) -> None:
    """Raise `UsageError` unless the external file `name` exists and has at least `size` bytes."""
    file = path.parent / name
    if not file.is_file():
        raise UsageError(f"{option}: {path.name} reads its weights from {name}, which is missing; copy it as well")
    found = file.stat().st_size
    if found < size:
        raise unreadable(option, file, f"truncated: {found} of {size} bytes that {path.name} reads; copy it again")


def _check_inputs(graph: onnx.GraphProto, where: str) -> None:
    """Raise `UsageError` unless the inputs are outputs of a tokenizer: int64 [B, L] with dynamic axes."""
    weights = {item.name for item in graph.initializer}
    found = [item for item in graph.input if item.name not in weights]
    names = tuple(item.name for item in found)
    if missing := [name for name in NEEDED if name not in names]:
        raise UsageError(f"{where} has no input {' or '.join(missing)}, only {', '.join(names) or 'none'}; {REMEDY}")
    if others := [name for name in names if name not in (*NEEDED, TOKEN_TYPES)]:
        raise UsageError(f"{where} needs the input {', '.join(others)}, which no tokenizer gives; {REMEDY}")
    for item in found:
        kind = item.type.tensor_type
        if kind.elem_type != onnx.TensorProto.INT64:
            name = onnx.TensorProto.DataType.Name(kind.elem_type)
            raise UsageError(f"{where} takes {item.name} as {name}, and tokens are INT64; {REMEDY}")
        if not kind.HasField("shape"):
            continue
        sizes = [size.dim_value for size in kind.shape.dim]
        if len(sizes) != 2:
            raise UsageError(f"{where} takes {item.name} with {len(sizes)} axes, and a batch of tokens has 2; {REMEDY}")
        for size, axis in zip(sizes, ("batch of {} pairs", "length of {} tokens"), strict=True):
            if size:
                raise UsageError(f"{where} has a fixed {axis.format(size)}; {REMEDY}, whose axes are dynamic")


def _check_output(graph: onnx.GraphProto, where: str) -> None:
    """Raise `UsageError` unless the only output, whatever its name, is float [B, 2]."""
    if len(graph.output) != 1:
        names = ", ".join(item.name for item in graph.output) or "none"
        raise UsageError(
            f"{where} has {len(graph.output)} outputs ({names}), and the logits must be the only one; {REMEDY}"
        )
    name, kind = graph.output[0].name, graph.output[0].type.tensor_type
    if kind.elem_type not in OUTPUT_TYPES:
        stored = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise UsageError(f"{where} gives {name} as {stored}, and logits are FLOAT; {REMEDY}")
    if kind.HasField("shape"):
        sizes = [size.dim_value or "?" for size in kind.shape.dim]
        if len(sizes) != 2 or sizes[1] not in (LABELS, "?"):
            shape = ", ".join(map(str, sizes))
            raise UsageError(
                f"{where} gives {name} of the shape [{shape}], and a paraphrase classifier gives {LABELS} logits a "
                "pair; name a graph of one"
            )


def _weights(model: onnx.ModelProto, where: str) -> tuple[str, int]:
    """The dtype of most weights, and the number of weights."""
    sizes: Counter[str] = Counter()
    for weight in model.graph.initializer or _all_tensors(model):
        if weight.data_type in GRAPH_DTYPES:
            sizes[GRAPH_DTYPES[weight.data_type]] += int(np.prod(weight.dims))
    if not sizes:
        raise UsageError(f"{where}: a graph without weights; {REMEDY}")
    return sizes.most_common(1)[0][0], sizes.total()
