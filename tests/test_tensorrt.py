"""TensorRT in ONNX Runtime, with the CPU provider in its place: what it is asked for, and when an engine is built."""

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mrpcbench import store
from mrpcbench.backends import open_session, tensorrt
from mrpcbench.backends.base import unlike
from mrpcbench.backends.onnx_graphs import Shape
from mrpcbench.backends.onnx_session import PROVIDERS, OnnxSession
from mrpcbench.backends.ort import open_onnx
from mrpcbench.backends.tensorrt import TF32, TensorrtSession, largest_of, libraries_problem
from mrpcbench.batches import Batch
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.plans import BackendSpec


class Standin:
    """An `onnxruntime.InferenceSession` that notes what it was asked for, runs on the CPU, and says what it is told."""

    asked: list[Any]

    def __init__(self, path: Path, options: object, providers: list[Any]) -> None:
        type(self).asked = providers
        self._real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return [self.asked[0][0]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> type[Standin]:
    """A machine that seems to have TensorRT and a GPU."""
    from mrpcbench.backends import onnx_session

    class Runtime:
        InferenceSession = Standin

        def __getattr__(self, name: str) -> Any:
            return getattr(onnxruntime, name)

    monkeypatch.setattr(onnx_session, "ort", Runtime())
    monkeypatch.setattr(tensorrt, "libraries_problem", lambda: None)
    monkeypatch.setattr(tensorrt, "load_cuda_libraries", lambda: None)
    monkeypatch.setattr(tensorrt, "cuda_problem", lambda: None)
    monkeypatch.setattr(tensorrt, "device_name", lambda device: "cuda of a test")
    monkeypatch.setenv(TF32, "")  # so that what a session sets is taken back
    monkeypatch.delenv(TF32)
    return Standin


def batch_of(rows: int, width: int) -> Batch:
    ids = np.random.default_rng(rows + width).integers(5, 50, (rows, width))
    return Batch(
        inputs={"input_ids": ids, "attention_mask": np.ones_like(ids)}, rows=np.arange(rows), real_tokens=ids.size
    )


def opened(model: Path, **changes: Any) -> TensorrtSession:
    session = open_session(BackendSpec(backend="onnx-tensorrt", model=str(model), **changes))
    assert isinstance(session, TensorrtSession)
    session._bind = False  # the stand-in's arrays are on the host
    return session


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "half"), [("auto", "0"), ("fp32", "0"), ("fp16", "1")])
def test_the_arithmetic_that_was_asked_for_is_the_one_that_may_run(
    standin: type[Standin], exported_model: Path, dtype: Any, half: str
) -> None:
    session = opened(exported_model, dtype=dtype)
    (name, options), (after, cuda) = standin.asked
    assert (name, after) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_fp16_enable"] == half
    assert cuda["use_tf32"] == "0"
    assert session.placement.provider == "TensorrtExecutionProvider"
    assert session.placement.dtype == ("fp16" if dtype == "fp16" else "fp32")
    assert os.environ.get(TF32) == (None if dtype == "fp16" else "0")


def test_no_engine_of_an_earlier_run_hides_what_building_one_costs(
    standin: type[Standin], exported_model: Path
) -> None:
    opened(exported_model)
    options = standin.asked[0][1]
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "0"


def test_float32_is_not_tf32_and_an_environment_that_says_so_is_refused(
    standin: type[Standin], exported_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TF32, "1")
    with pytest.raises(UsageError, match=f"{TF32} is 1, so that fp32 would be TF32; set it to 0"):
        opened(exported_model)


def test_an_arithmetic_that_is_neither_the_graphs_nor_half_is_refused(
    standin: type[Standin], exported_model: Path
) -> None:
    with pytest.raises(UsageError, match="--dtype bf16 was asked, the graph is fp32"):
        opened(exported_model, dtype="bf16")


# --- engines ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of every batch that an engine is given."""
    shapes: list[tuple[int, ...]] = []
    real = OnnxSession.compute

    def compute(self: OnnxSession, inputs: Any) -> Any:
        shapes.append(inputs["input_ids"].shape)
        return real(self, inputs)

    monkeypatch.setattr(OnnxSession, "compute", compute)
    return shapes


def test_the_first_batch_of_a_size_has_the_range_widened_once_and_no_later_one_leaves_it(
    standin: type[Standin], exported_model: Path, computed: list[tuple[int, ...]]
) -> None:
    session = opened(exported_model)
    session.infer(batch_of(3, 20))
    assert computed == [(1, 1), (4, 128), (3, 20)]
    session.infer(batch_of(4, 100))
    session.infer(batch_of(1, 7))
    assert computed[3:] == [(4, 100), (1, 7)]
    session.infer(batch_of(2, 140))
    assert computed[5:] == [(4, 256), (2, 140)]


def test_once_a_batch_of_every_size_has_run_none_builds_an_engine(
    standin: type[Standin], exported_model: Path, computed: list[tuple[int, ...]]
) -> None:
    session = opened(exported_model)
    batches = [batch_of(rows, width) for rows in (1, 2, 3, 8) for width in (9, 60, 130)]
    for batch in unlike(session, batches):
        session.infer(batch)
    computed.clear()
    for batch in batches:
        session.infer(batch)
    assert computed == [batch.inputs["input_ids"].shape for batch in batches]


@pytest.mark.parametrize(
    ("rows", "width", "shape"), [(1, 1, (1, 128)), (1, 128, (1, 128)), (24, 129, (32, 256)), (32, 40, (32, 128))]
)
def test_a_size_is_named_by_its_largest_shape(rows: int, width: int, shape: tuple[int, int]) -> None:
    assert largest_of(batch_of(rows, width)) == Shape(*shape)


def test_widening_the_range_changes_no_answer(standin: type[Standin], exported_model: Path) -> None:
    session, plain = opened(exported_model), open_onnx(BackendSpec(model=str(exported_model), device="cpu"))
    for batch in (batch_of(2, 9), batch_of(5, 30)):
        np.testing.assert_array_equal(session.infer(batch), plain.infer(batch))


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_without_its_libraries_the_package_is_named(exported_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert (
        libraries_problem() == "TensorRT 10's libraries (libnvinfer.so.10) are missing; pip install 'tensorrt-cu13<11'"
    )
    monkeypatch.setattr(tensorrt, "cuda_problem", lambda: None)
    with pytest.raises(MissingError, match=r"^--backend onnx-tensorrt: .*'tensorrt-cu13<11', or use --backend onnx$"):
        open_session(BackendSpec(backend="onnx-tensorrt", model=str(exported_model)))


def test_without_a_gpu_that_is_named_first_whether_or_not_its_libraries_are_there(
    exported_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        MissingError, match=r"^--backend onnx-tensorrt: .*torch .*; use --backend onnx, or see `mrpcbench env`$"
    ):
        open_session(BackendSpec(backend="onnx-tensorrt", model=str(exported_model)))


def test_another_provider_in_its_place_is_refused_with_what_is_missing(
    standin: type[Standin], exported_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Standin, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(
        MissingError,
        match=r"onnx-tensorrt: TensorrtExecutionProvider was asked and CPU.* would run: .*tensorrt-cu13<11",
    ):
        opened(exported_model)


def test_the_cpu_is_refused(exported_model: Path) -> None:
    with pytest.raises(UsageError, match="--device cpu: TensorRT runs on a GPU alone; use --backend onnx"):
        open_session(BackendSpec(backend="onnx-tensorrt", model=str(exported_model), device="cpu"))


@pytest.mark.parametrize("optimize", ["cpu", "int8", "cuda", "o3"])
def test_a_graph_of_other_operators_is_refused_by_name(
    standin: type[Standin], exported_model: Path, optimize: Any, tmp_path: Path
) -> None:
    import shutil
    from dataclasses import replace

    folder = Path(shutil.copytree(exported_model / "onnx", tmp_path / "graph"))
    lineage = store.load_lineage(folder)
    assert lineage is not None
    store.save_lineage(replace(lineage, model=replace(lineage.model, optimize=optimize)), folder)
    with pytest.raises(UsageError, match=f"this one is made for {optimize}; use --backend onnx"):
        opened(folder)


def test_every_provider_says_how_it_is_asked_for_and_what_can_be_missing() -> None:
    assert {name: provider.device for name, provider in PROVIDERS.items()} == {
        "cpu": "cpu",
        "cuda": "cuda",
        "tensorrt": "cuda",
    }
    assert all(provider.missing for name, provider in PROVIDERS.items() if name != "cpu")


@pytest.mark.gpu
def test_on_a_gpu_it_answers_as_the_cpu_does_in_float32_and_nearly_so_in_half(exported_model: Path) -> None:
    if problem := libraries_problem():
        pytest.skip(problem)
    batches = [batch_of(8, 40), batch_of(3, 19), batch_of(8, 105)]
    plain = open_onnx(BackendSpec(model=str(exported_model), device="cpu"))
    for dtype, allowed in (("fp32", 1e-3), ("fp16", 0.1)):
        session = open_session(BackendSpec(backend="onnx-tensorrt", model=str(exported_model), dtype=dtype))
        for batch in batches:
            np.testing.assert_allclose(session.infer(batch), plain.infer(batch), atol=allowed)
        session.close()
