"""Optimum's graphs: what its optimiser does, and how its failures are reported."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from conftest import Outcome
from graph_models import modernbert
from optimum.onnxruntime import ORTOptimizer

from mrpcbench.errors import MissingError, MrpcbenchError
from mrpcbench.onnx_export import optimum
from mrpcbench.schema.requests import GraphDtype, Optimize

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def written(folder: Path, optimize: Optimize, dtype: GraphDtype = "fp32") -> onnx.GraphProto:
    folder.mkdir()
    optimum.write(modernbert(), folder, optimize=optimize, dtype=dtype, opset=None, cuda=optimize == "o4")
    return onnx.load(folder / "model.onnx").graph


def arithmetic_of(graph: onnx.GraphProto) -> set[int]:
    return {item.data_type for item in graph.initializer} & {FLOAT, HALF}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> onnx.GraphProto:
    return written(tmp_path_factory.mktemp("plain") / "onnx", "none")


@pytest.mark.parametrize(("optimize", "dtype", "weights"), [("o3", "fp32", FLOAT), ("o4", "fp16", HALF)])
def test_the_optimiser_fuses_gelu_into_its_approximation_and_keeps_the_logits_in_float32(
    optimize: Optimize, dtype: GraphDtype, weights: int, plain: onnx.GraphProto, tmp_path: Path
) -> None:
    graph = written(tmp_path / "onnx", optimize, dtype)
    assert len(graph.node) < 0.8 * len(plain.node)
    assert "FastGelu" in {node.op_type for node in graph.node}
    assert "FastGelu" not in {node.op_type for node in plain.node}
    assert arithmetic_of(graph) == {weights}
    assert [(item.name, item.type.tensor_type.elem_type) for item in graph.output] == [("logits", FLOAT)]


def test_without_optimum_the_error_names_what_to_install_and_our_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.onnxruntime", None)
    with pytest.raises(MissingError) as caught:
        optimum.check(modernbert(), "none")
    assert "transformers<4.58" in str(caught.value)
    assert "--optimize cpu" in str(caught.value)


def test_the_optimisers_temporary_folder_is_removed(tmp_path: Path) -> None:
    written(tmp_path / "onnx", "o3")
    assert not [path for path in (tmp_path / "onnx").iterdir() if path.is_dir()]


def test_a_failing_optimiser_is_one_line_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **asked: object) -> None:
        raise RuntimeError("no such pattern\n  at a place")

    monkeypatch.setattr(ORTOptimizer, "optimize", fail)
    with pytest.raises(MrpcbenchError) as caught:
        written(tmp_path / "onnx", "o3")
    assert str(caught.value) == (
        "--optimize o3: Optimum's optimiser fails on ModernBertForSequenceClassification (no such pattern); "
        "use --optimize none"
    )
    assert not [path for path in (tmp_path / "onnx").iterdir() if path.is_dir()]


def test_an_export_with_a_failing_optimiser_keeps_the_old_folder(
    exported_model: Path,
    small_data: Path,
    tmp_path: Path,
    mrpcbench: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Path(shutil.copytree(exported_model, tmp_path / "model"))
    shutil.copytree(model / "onnx", model / "onnx-o3")
    before = {path.name: path.read_bytes() for path in (model / "onnx-o3").iterdir()}

    def fail(*given: object, **asked: object) -> None:
        raise RuntimeError("no such pattern")

    monkeypatch.setattr(ORTOptimizer, "optimize", fail)
    done = mrpcbench("export", "--model", model, "--data", small_data, "--device", "cpu", "--optimize", "o3")
    assert done.status == 1
    assert "(no such pattern); use --optimize none" in done.err
    assert {path.name: path.read_bytes() for path in (model / "onnx-o3").iterdir()} == before
    assert sorted(path.name for path in model.iterdir() if path.is_dir()) == ["onnx", "onnx-o3"]


def test_o4_without_a_gpu_is_a_one_line_error_with_exit_code_3(
    exported_model: Path, small_data: Path, mrpcbench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = mrpcbench("export", "--model", exported_model, "--data", small_data, "--optimize", "o4")
    assert done.status == 3
    *_, line = done.err.splitlines()
    assert "--optimize o4: the graph runs only on a GPU (o4)" in line
    assert line.endswith("use `mrpcbench export --optimize o3`")
