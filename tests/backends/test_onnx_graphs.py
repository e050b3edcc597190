"""Shapes to which batches are padded for CUDA graphs: equal logits from fixed arrays."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from conftest import Listener
from graph_models import LENGTHS, Inputs, batch, modernbert

from mrpcbench.backends.onnx_graphs import MOST_SHAPES, Replayer, Shape, padded
from mrpcbench.backends.onnx_session import OnnxSession
from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import computed_padding, first_of_each_shape
from mrpcbench.commands.export import export
from mrpcbench.data.batches import Batch
from mrpcbench.onnx_export import graphs
from mrpcbench.schema.requests import BackendSpec, ExportPlan


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    graph = graphs.make(modernbert(), "cpu").SerializeToString()
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("rows", "width", "shape"),
    [(1, 1, (1, 16)), (1, 16, (1, 16)), (2, 17, (2, 32)), (3, 53, (4, 64)), (8, 105, (8, 112)), (24, 64, (32, 64))],
)
def test_a_shape_is_the_smallest_that_holds_the_batch(rows: int, width: int, shape: tuple[int, int]) -> None:
    assert Shape.around(rows, width) == Shape(*shape)


def test_every_row_of_a_padded_batch_has_a_token() -> None:
    """Without a token, a row has no mean."""
    inputs = batch((19, 53, 30))
    found = padded(inputs, Shape(4, 64))
    assert found["attention_mask"].sum(axis=1).tolist() == [19, 53, 30, 1]
    assert found["input_ids"].shape == (4, 64)
    np.testing.assert_array_equal(found["input_ids"][:3, :53], inputs["input_ids"])
    assert not found["input_ids"][:, 53:].any()


def replayed(replayer: Replayer, inputs: Inputs) -> np.ndarray:
    return replayer.copy_out(replayer.compute(replayer.copy_in(inputs)))


def test_answers_depend_neither_on_the_shape_nor_on_the_old_content_of_its_arrays(
    session: ort.InferenceSession,
) -> None:
    replayer = Replayer(session, "cpu")
    long, short = batch((*LENGTHS, 112)), batch((100, 98, 101, 99, 100, 97))  # of one shape, the first with more tokens
    short["input_ids"][:, :50] = 7
    for inputs in (long, short, long, batch((19,)), batch((1, 1, 1))):
        expected = session.run(None, inputs)[0]
        found = replayed(replayer, inputs)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_shape_keeps_its_arrays_and_number(session: ort.InferenceSession) -> None:
    replayer = Replayer(session, "cpu")
    first = replayer.copy_in(batch((19, 20)))
    again = replayer.copy_in(batch((31, 17)))
    other = replayer.copy_in(batch((33, 17)))
    assert again.slot is first.slot
    assert other.slot is not first.slot
    numbers = [item.slot.options.get_run_config_entry("gpu_graph_id") for item in (first, other)]
    assert numbers == ["0", "1"]


def test_the_next_batch_does_not_overwrite_copied_logits(session: ort.InferenceSession) -> None:
    replayer = Replayer(session, "cpu")
    first = replayed(replayer, batch((19, 20)))
    kept = first.copy()
    replayed(replayer, {name: item[::-1] for name, item in batch((30, 20)).items()})
    np.testing.assert_array_equal(first, kept)


def test_shapes_beyond_the_limit_run_without_a_graph(session: ort.InferenceSession) -> None:
    replayer = Replayer(session, "cpu")
    slots = [replayer._slot(Shape(1, 16 * (1 + place))) for place in range(MOST_SHAPES + 2)]
    numbers = [slot.options.get_run_config_entry("gpu_graph_id") for slot in slots]
    assert numbers[MOST_SHAPES - 1 :] == [str(MOST_SHAPES - 1), "-1", "-1"]


def test_a_benchmark_warms_up_every_captured_shape(exported_model: Path) -> None:
    """A shape that is captured while the clock runs would count as a slow call."""
    session = open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cpu"))
    assert isinstance(session, OnnxSession)
    batches = [Batch(inputs=batch((length,)), rows=np.arange(1), real_tokens=length) for length in (19, 33, 20, 48, 53)]
    assert first_of_each_shape(session, batches) == []  # the CPU captures nothing
    session._replayer = Replayer(session._session, "cpu")
    firsts = first_of_each_shape(session, batches)
    assert [item.real_tokens for item in firsts] == [19, 33, 53]
    for item in firsts:
        session.infer(item)
    ready = dict(session._replayer._slots)
    for item in batches:
        session.infer(item)
    assert session._replayer._slots == ready
    assert computed_padding(session, batches) == 32 + 48 + 32 + 48 + 64 - 173


def test_logits_are_equal_with_and_without_replay(exported_model: Path) -> None:
    plain = open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cpu"))
    inputs = batch((19, 53, 30))
    one = Batch(inputs=inputs, rows=np.arange(3), real_tokens=102)
    expected = plain.infer(one)
    plain._replayer = Replayer(plain._session, "cpu")
    np.testing.assert_allclose(plain.infer(one), expected, atol=2e-5)
    with plain.operators() as events:
        plain.infer(one)
    assert events  # from a session without CUDA graphs
    assert plain._replayer is not None


def test_a_forward_pass_that_cannot_be_captured_runs_without_graphs_with_a_reason(
    exported_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cpu"))

    def fails(self: Replayer, inputs: Inputs) -> None:
        raise RuntimeError("a Memcpy node is in the way")

    monkeypatch.setattr(Replayer, "copy_in", fails)
    monkeypatch.setattr(plain, "_open", lambda more: plain._session)
    assert plain._replaying() is None
    assert "node by node: a Memcpy node is in the way" in caplog.text


@pytest.mark.gpu
def test_a_graph_for_cuda_is_verified_on_the_gpu_on_which_it_is_replayed(
    tuned_model: Path, small_data: Path, tmp_path: Path
) -> None:
    folder = str(tmp_path / "onnx-cuda")
    plan = ExportPlan(model=str(tuned_model), data=str(small_data), device="cuda", optimize="cuda", output_dir=folder)
    record = export(plan, tmp_path / "r.json", Listener())
    assert record.export.gate is not None
    assert record.export.gate.verdict.outcome == "PASS"
    assert record.export.placement.provider == "CUDAExecutionProvider, CUDA graphs"
    assert record.export.placement.dtype == "fp16"


@pytest.mark.gpu
def test_a_replay_equals_a_run_for_lengths_on_both_sides_of_the_window(
    tuned_model: Path, small_data: Path, tmp_path: Path
) -> None:
    folder = str(tmp_path / "onnx-cuda")
    plan = ExportPlan(model=str(tuned_model), data=str(small_data), device="cuda", optimize="cuda", output_dir=folder)
    export(plan, tmp_path / "r.json", Listener())
    replaying = open_session(BackendSpec(backend="onnx", model=folder, device="cuda"))
    assert isinstance(replaying, OnnxSession)
    inputs = batch()
    one = Batch(inputs=inputs, rows=np.arange(len(LENGTHS)), real_tokens=sum(LENGTHS))
    first = replaying.infer(one)
    np.testing.assert_array_equal(replaying.infer(one), first)
    on_cpu = open_session(BackendSpec(backend="onnx", model=folder, device="cpu"))
    np.testing.assert_allclose(on_cpu.infer(one), first, atol=0.05)
