"""Paired processes: what they run, what they measure, and how a failing one is reported."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from engines import Answering, Narrow, engine

from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import engine_of
from mrpcbench.backends.session import Unmetered
from mrpcbench.data.batches import Batch
from mrpcbench.errors import MissingError, MrpcbenchError
from mrpcbench.paired import processes
from mrpcbench.paired.processes import PairedProcesses, Side, Workload, side_of
from mrpcbench.paired.worker import load_batches, save_batches, serve
from mrpcbench.schema.identity import Placement
from mrpcbench.schema.requests import BackendSpec

FAKE = Side(spec=BackendSpec(backend="fake", model="quickstart", threads=1))
CPU = Placement(engine="onnxruntime 1", device="cpu", provider="CPU", dtype="fp32", threads=2)


def batches(count: int = 4) -> list[Batch]:
    """Batches of two pairs; the tokens of batch i are i."""
    made = []
    for index in range(count):
        mask = np.array([[1, 1, 1], [1, 1, 0]])
        ids = np.full((2, 3), index)
        made.append(Batch(inputs={"input_ids": ids, "attention_mask": mask}, rows=np.arange(2), real_tokens=5))
    return made


WORK = Workload(batches=batches(), calls=4, warmup=1)


def test_every_round_starts_a_process_per_side_in_alternating_order() -> None:
    with PairedProcesses({"a": FAKE, "b": FAKE}, WORK) as sides:
        found = list(sides.rounds(2))
    assert [order for order, _ in found] == [["a", "b"], ["b", "a"]]
    for _, ran in found:
        assert set(ran) == {"a", "b"}
        for process in ran.values():
            assert len(process.samples_ms) == 4
            assert min(process.samples_ms) >= 1  # the fake engine takes 1 ms
            assert process.placement.engine == "fake"
            assert process.python == ".".join(map(str, sys.version_info[:3]))
            assert process.packages["numpy"] == np.__version__
            assert process.disturbances == ()


def test_an_injected_slowdown_is_measured() -> None:
    sides = {
        "a": FAKE,
        "slept": Side(spec=FAKE.spec, wait_share=1.0),
        "repeated": Side(spec=FAKE.spec, repeat=2),
    }
    with PairedProcesses(sides, Workload(batches=batches(), calls=4, warmup=1, group=2)) as running:
        ((_, ran),) = running.rounds(1)
    assert min(ran["a"].samples_ms) >= 2  # two batches per call
    assert min(ran["slept"].samples_ms) >= 4
    assert min(ran["repeated"].samples_ms) >= 4


def test_saved_batches_load_unchanged(tmp_path: Path) -> None:
    save_batches(tmp_path / "b.npz", batches(12))
    found = load_batches(tmp_path / "b.npz")
    assert [int(batch.inputs["input_ids"][0, 0]) for batch in found] == list(range(12))
    assert all(batch.real_tokens == 5 and batch.inputs["attention_mask"].dtype == np.int64 for batch in found)


def test_a_failing_process_gives_the_reason_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Side(spec=BackendSpec(backend="onnx", model=str(tmp_path / "none.onnx"), threads=1), from_graph=True)
    monkeypatch.setattr(processes.tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(MrpcbenchError, match=r"side B: its process failed \(.*none\.onnx"),
        PairedProcesses({"a": FAKE, "b": broken}, WORK) as sides,
    ):
        list(sides.rounds(1))
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_a_missing_interpreter_names_the_option(tmp_path: Path) -> None:
    with (
        pytest.raises(MissingError, match=r"--b-python .*nowhere.*: cannot be run"),
        PairedProcesses({"a": FAKE, "b": Side(spec=FAKE.spec, python=str(tmp_path / "nowhere"))}, WORK) as sides,
    ):
        list(sides.rounds(1))


def test_another_interpreter_finds_the_package(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with PairedProcesses({"a": Side(spec=FAKE.spec, python=str(python))}, WORK) as sides:
        list(sides.rounds(1))
    assert (tmp_path / "started").exists()


def test_output_that_is_not_an_answer_is_an_error(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho hello\n")
    python.chmod(0o755)
    with (
        pytest.raises(MrpcbenchError, match="side A: its process printed 'hello' instead"),
        PairedProcesses({"a": Side(spec=FAKE.spec, python=str(python))}, WORK) as sides,
    ):
        list(sides.rounds(1))


def test_a_hanging_process_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setattr(processes, "TIMEOUT_S", 0.2)
    with (
        pytest.raises(MrpcbenchError, match="side A: its process failed"),
        PairedProcesses({"a": Side(spec=FAKE.spec, python=str(python))}, WORK) as sides,
    ):
        list(sides.rounds(1))


def test_a_cpu_graph_is_passed_as_a_file_and_any_other_model_as_a_folder(exported_model: Path) -> None:
    spec = BackendSpec(backend="onnx", model=str(exported_model))
    side = side_of(spec, resolve(spec), CPU)
    assert side.from_graph
    assert side.spec.model == str(exported_model / "onnx" / "model.onnx")
    assert (side.spec.device, side.spec.dtype, side.spec.threads) == ("cpu", "fp32", 2)
    spec = BackendSpec(model=str(exported_model))
    torch = side_of(spec, resolve(spec), CPU)
    assert not torch.from_graph
    assert torch.spec.model == str(exported_model)


def test_a_worker_runs_an_exported_graph_on_the_cpu(exported_model: Path) -> None:
    spec = BackendSpec(backend="onnx", model=str(exported_model))
    with PairedProcesses({"a": side_of(spec, resolve(spec), CPU)}, WORK) as sides:
        ((_, ran),) = sides.rounds(1)
    assert ran["a"].placement.provider == "CPUExecutionProvider"
    assert ran["a"].placement.threads == 2


def job_of(path: Path, backend: str = "fake") -> dict[str, object]:
    save_batches(path, batches())
    return {
        "arrays": str(path),
        "spec": {"backend": backend, "model": "quickstart", "threads": 1},
        "engine": asdict(engine_of(backend)),
        "from_graph": False,
        "group": 1,
        "repeat": 0,
        "wait_share": 0,
        "warmup": 0,
        "cores": [],
    }


def test_a_worker_answers_each_request_once(tmp_path: Path) -> None:
    answers: list[dict[str, object]] = []
    serve(job_of(tmp_path / "b.npz"), ["\n", "\n", "\n"], answers.append)
    assert set(answers[0]) == {"placement", "python", "packages"}
    assert [set(answer) for answer in answers[1:]] == [{"ms"}, {"ms"}, {"ms"}, {"disturbances"}]


def test_a_worker_runs_every_shape_before_the_first_request(tmp_path: Path) -> None:
    narrow = Narrow()
    job = job_of(tmp_path / "b.npz", engine("narrow", lambda: narrow))
    pairs = batches()
    short = [replace(batch, inputs={name: array[:, :1] for name, array in batch.inputs.items()}) for batch in pairs]
    save_batches(tmp_path / "b.npz", pairs + short)
    serve(job, [], lambda answer: None)
    assert narrow.seen == [pairs[0].inputs["input_ids"].shape[1], 1]


def test_logits_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    answers: list[dict[str, object]] = []
    broken = engine("broken", lambda: Answering(lambda logits: logits * np.nan))
    with pytest.raises(MrpcbenchError, match="not finite"):
        serve(job_of(tmp_path / "b.npz", broken), ["\n"], answers.append)
    assert len(answers) == 1


def test_the_last_answer_lists_the_disturbances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from mrpcbench.paired import worker

    class Seen(Unmetered):
        def resources(self) -> SimpleNamespace:  # type: ignore[override]
            return SimpleNamespace(gpu_foreign_processes=2, gpu_throttle_reasons=("hw_slowdown", "sw_power_cap"))

    monkeypatch.setattr(worker, "gpu_meter", lambda device: Seen())
    answers: list[dict[str, object]] = []
    serve(job_of(tmp_path / "b.npz"), [], answers.append)
    assert answers[-1] == {"disturbances": ["2 other processes were on the GPU", "the GPU throttled (hw_slowdown)"]}
