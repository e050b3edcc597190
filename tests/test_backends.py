"""One contract over every engine, and what each refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from datasets import Dataset

from mrpcbench import backends, data, store
from mrpcbench.backends import encode_for, open_session
from mrpcbench.backends.base import Session
from mrpcbench.batches import EncodedPairs, in_order
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.schema import Backend, BackendSpec


@pytest.fixture(scope="module")
def pairs(small_data: Path) -> Dataset:
    return data.split_of(data.load(str(small_data)), str(small_data), "validation")


@pytest.fixture(params=list(backends.BACKENDS))
def spec(request: pytest.FixtureRequest, exported_model: Path) -> BackendSpec:
    return BackendSpec(backend=request.param, model=str(exported_model), device="cpu")


@pytest.fixture
def session(spec: BackendSpec) -> Session:
    return open_session(spec)


@pytest.fixture
def tokens(spec: BackendSpec, pairs: Dataset) -> EncodedPairs:
    return encode_for(spec, pairs)


def test_a_session_gives_float32_logits_of_two_labels_on_the_host(session: Session, tokens: EncodedPairs) -> None:
    batch = tokens.batches(8)[0]
    logits = session.infer(batch)
    assert isinstance(logits, np.ndarray)
    assert logits.dtype == np.float32
    assert logits.shape == (8, 2)
    assert np.isfinite(logits).all()


def test_padding_and_company_do_not_change_an_answer(session: Session, tokens: EncodedPairs) -> None:
    def answers(size: int, multiple_of: int) -> np.ndarray:
        cut = tokens.batches(size, multiple_of=multiple_of)
        return in_order([session.infer(batch) for batch in cut], cut)

    alone = answers(1, 1)
    np.testing.assert_allclose(answers(16, 1), alone, atol=2e-5)
    np.testing.assert_allclose(answers(16, 64), alone, atol=2e-5)


def test_many_batches_give_what_each_gives_alone(session: Session, tokens: EncodedPairs) -> None:
    cut = tokens.batches(8)
    for many, alone in zip(session.infer_many(cut), (session.infer(batch) for batch in cut), strict=True):
        np.testing.assert_array_equal(many, alone)


def test_a_session_says_what_runs_and_on_which_weights(session: Session, spec: BackendSpec) -> None:
    assert session.placement.device == "cpu"
    assert session.placement.dtype == "fp32"
    assert session.placement.engine.startswith({"onnx": "onnxruntime"}.get(spec.backend, spec.backend))
    assert session.model.tokenizer_sha256
    session.close()


def test_a_name_without_a_module_behind_it_is_a_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, "torch", "mrpcbench.backends.absent:open_absent")
    with pytest.raises(MissingError, match="--backend torch"):
        open_session(BackendSpec())


def test_torch_and_onnx_answer_alike_and_name_the_same_weights(exported_model: Path, pairs: Dataset) -> None:
    answers, models = [], []
    names: tuple[Backend, ...] = ("torch", "onnx")
    for name in names:
        spec = BackendSpec(backend=name, model=str(exported_model), device="cpu")
        cut = encode_for(spec, pairs).batches(8)
        session = open_session(spec)
        answers.append(in_order(list(session.infer_many(cut)), cut))
        models.append(session.model)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    assert models[0].model_sha256 == models[1].model_sha256
    assert models[0].tokenizer_sha256 == models[1].tokenizer_sha256
    assert models[0].graph_sha256 is None
    assert models[1].proven is True


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_cuda_without_a_gpu_is_refused_with_a_remedy(
    name: Backend, exported_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="--device cpu"):
        open_session(BackendSpec(backend=name, model=str(exported_model), device="cuda"))


def test_a_provider_that_silently_falls_back_is_refused(exported_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrpcbench.backends import ort

    monkeypatch.setattr(ort, "resolve_device", lambda asked: "cuda")
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)

    def on_the_cpu(path: Path, options: object, providers: object) -> onnxruntime.InferenceSession:
        return real(path, options, providers=["CPUExecutionProvider"])

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    with pytest.raises(MissingError, match="CUDAExecutionProvider was asked and CPUExecutionProvider would run"):
        open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cuda"))


def test_another_dtype_than_the_graphs_is_refused(exported_model: Path) -> None:
    spec = BackendSpec(backend="onnx", model=str(exported_model), device="cpu", dtype="fp16")
    with pytest.raises(UsageError, match="the graph is fp32"):
        open_session(spec)


def test_torch_runs_in_the_dtype_that_was_asked_for(exported_model: Path) -> None:
    session = open_session(BackendSpec(model=str(exported_model), device="cpu", dtype="bf16"))
    assert session.placement.dtype == "bf16"


def test_a_torch_session_runs_on_as_many_threads_as_asked(exported_model: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert open_session(BackendSpec(model=str(exported_model), device="cpu", threads=1)).placement.threads == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_model_without_a_graph_says_to_export_it(tuned_model: Path) -> None:
    with pytest.raises(UsageError, match="run `mrpcbench export` first"):
        open_session(BackendSpec(backend="onnx", model=str(tuned_model), device="cpu"))


def test_an_onnx_folder_is_no_model_for_torch(exported_model: Path) -> None:
    with pytest.raises(UsageError, match="--backend onnx"):
        open_session(BackendSpec(backend="torch", model=str(exported_model / "onnx"), device="cpu"))


def test_an_onnx_folder_can_be_named_itself(exported_model: Path) -> None:
    spec = BackendSpec(backend="onnx", model=str(exported_model / "onnx"), device="cpu")
    assert open_session(spec).model.proven is True


@pytest.fixture
def copied(exported_model: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(exported_model, tmp_path / "copied"))


def test_a_graph_that_was_changed_since_its_proof_is_unproven(copied: Path) -> None:
    import onnx

    graph = onnx.load(copied / "onnx" / "model.onnx")
    graph.doc_string = "changed"
    onnx.save(graph, copied / "onnx" / "model.onnx")
    assert open_session(BackendSpec(backend="onnx", model=str(copied), device="cpu")).model.proven is False


def test_a_graph_of_other_weights_than_the_models_is_refused(copied: Path) -> None:
    lineage = store.load_lineage(copied)
    assert lineage is not None
    store.save_lineage(replace(lineage, model=replace(lineage.model, model_sha256="other")), copied)
    with pytest.raises(UsageError, match="exported from other weights"):
        open_session(BackendSpec(backend="onnx", model=str(copied), device="cpu"))


def test_a_graph_of_unknown_origin_is_named_by_its_own_hash_and_unproven(copied: Path) -> None:
    (copied / "onnx" / store.LINEAGE_FILE).unlink()
    found = open_session(BackendSpec(backend="onnx", model=str(copied), device="cpu")).model
    assert found.proven is False
    assert found.model_sha256 == found.graph_sha256
    assert found.origin == "unknown"


def test_random_weights_are_not_for_onnx(exported_model: Path) -> None:
    with pytest.raises(UsageError, match="--random-init is for --backend torch"):
        open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cpu", random_init=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_cuda_runs_where_it_says_and_answers_as_the_cpu_does(
    name: Backend, exported_model: Path, pairs: Dataset
) -> None:
    answers = {}
    open_on: Callable[[str], BackendSpec] = lambda device: BackendSpec(  # noqa: E731
        backend=name, model=str(exported_model), device=device
    )
    for device in ("cpu", "cuda"):
        cut = encode_for(open_on(device), pairs).batches(8)
        session = open_session(open_on(device))
        assert session.placement.device.startswith(device)
        answers[device] = in_order(list(session.infer_many(cut)), cut)
    np.testing.assert_allclose(answers["cuda"], answers["cpu"], atol=1e-3)
