"""What only OpenVINO does, beyond the contract of all engines: its precisions, the graphs it takes, its silence."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Outcome
from datasets import Dataset
from fault_server import FaultServer
from foreign import save_graph
from onnx import TensorProto, helper, numpy_helper

from mrpcbench.backends import registry
from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.commands.export import export
from mrpcbench.data import loading
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.progress import Silent
from mrpcbench.schema.requests import BackendSpec, ExportPlan

PROBLEM = registry.problem_of("openvino", "cpu")
needed = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))


def spec(model: Path, **changes: object) -> BackendSpec:
    return replace(BackendSpec(backend="openvino", model=str(model), device="cpu"), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pairs(small_data: Path) -> Dataset:
    return loading.split_of(loading.load(str(small_data)), str(small_data), "validation")


def test_without_openvino_one_line_names_the_extra(
    exported_model: Path, small_data: Path, mrpcbench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "mrpcbench.backends.openvino", raising=False)
    done = mrpcbench("evaluate", "--model", exported_model, "--data", small_data, "--backend", "openvino")
    assert done.status == 3
    *_, line = done.err.splitlines()
    assert line.startswith("error: --backend openvino: ")
    assert "mrpcbench[openvino]" in line
    assert "mrpcbench[openvino]" in mrpcbench("env", "--json").out


@needed
def test_it_reports_to_nobody_and_prints_nothing(
    server: FaultServer, exported_model: Path, small_data: Path, tmp_path: Path
) -> None:
    """OpenVINO's telemetry, which is off in CI, would make a folder in the user's home."""
    settings = {"HOME": str(tmp_path), "CI": "", "TF_BUILD": "", "JENKINS_URL": ""}
    source = ("--model", exported_model, "--data", small_data, "--results", "r.json")
    done = server.run(tmp_path, "evaluate", "--backend", "openvino", *source, "--json", env=settings)
    assert done.status == 0, done.err
    assert done.out == (tmp_path / "r.json").read_text(encoding="utf-8")
    assert not (tmp_path / "intel").exists()


@needed
def test_bf16_is_what_runs_and_gives_nearly_all_the_same_labels(exported_model: Path, pairs: Dataset) -> None:
    batch = resolve(spec(exported_model)).reader.encode(pairs).batches(len(pairs))[0]
    try:
        half = open_session(spec(exported_model, dtype="bf16"))
    except MissingError as error:
        pytest.skip(str(error))
    exact = open_session(spec(exported_model)).infer(batch)
    assert half.placement.dtype == "bf16"
    assert 0 < np.abs(half.infer(batch) - exact).max() < 0.2
    assert (half.infer(batch).argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.95


@needed
def test_a_dtype_that_the_processor_lacks_is_missing() -> None:
    from mrpcbench.backends.openvino import check_dtype

    for dtype in ("auto", "fp32", "bf16"):
        check_dtype(dtype, ["FP32", "INT8", "BF16"])
    with pytest.raises(MissingError, match="--dtype bf16: OpenVINO finds no bf16 instructions in this processor"):
        check_dtype("bf16", ["FP32", "INT8"])


@needed
def test_it_runs_on_the_cpu_alone(exported_model: Path) -> None:
    assert open_session(spec(exported_model, device="auto")).placement.device == "cpu"
    with pytest.raises(UsageError, match="--backend openvino --device cuda: this engine runs only on the CPU"):
        open_session(spec(exported_model, device="cuda"))


@needed
def test_a_graph_for_onnx_runtime_is_refused_with_the_graph_to_use(
    tuned_model: Path, small_data: Path, tmp_path: Path
) -> None:
    plan = ExportPlan(
        model=str(tuned_model), data=str(small_data), optimize="cpu", device="cpu", output_dir=str(tmp_path / "onnx")
    )
    export(plan, None, Silent())
    refusal = (
        rf"^{tmp_path}/onnx/model.onnx: openvino .* cannot open it \(.*Attention.*\); .* graph of .*--optimize none`$"
    )
    with pytest.raises(UsageError, match=refusal) as found:
        open_session(spec(tmp_path / "onnx"))
    assert "\n" not in str(found.value)


def quantise(model: onnx.ModelProto) -> None:
    """Multiply the logits by an 8-bit identity, in the form of quantised operators and their inverses (QDQ)."""
    graph = model.graph
    graph.node[-1].output[0] = "sums"
    values = {
        "scale": np.float32(0.1),
        "zero": np.uint8(128),
        "weights": np.eye(2, dtype=np.int8) * 100,
        "weights_scale": np.float32(0.01),
        "weights_zero": np.int8(0),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["sums", "scale", "zero"], ["whole"]),
            helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["states"]),
            helper.make_node("DequantizeLinear", ["weights", "weights_scale", "weights_zero"], ["matrix"]),
            helper.make_node("MatMul", ["states", "matrix"], ["logits"]),
        ]
    )
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


@needed
def test_the_placement_names_the_precision_of_the_products(tmp_path: Path) -> None:
    assert open_session(spec(save_graph(tmp_path / "whole", quantise))).placement.dtype == "int8"
    assert open_session(spec(save_graph(tmp_path / "plain"))).placement.dtype == "fp32"
