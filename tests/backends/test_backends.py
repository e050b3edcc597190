"""The contract of every engine, and the requests that each one rejects."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from datasets import Dataset
from fault_server import FaultServer
from torch.autograd.profiler_util import FunctionEvent

from mrpcbench.backends import registry
from mrpcbench.backends.onnx_graphs import Replayer
from mrpcbench.backends.onnx_session import OnnxSession
from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import Session, SteppedSession, first_of_each_shape, one_ahead, probe_of
from mrpcbench.data import loading
from mrpcbench.data.batches import Batch, EncodedPairs, in_order
from mrpcbench.environment import machine
from mrpcbench.errors import MissingError, MrpcbenchError, UsageError
from mrpcbench.schema.requests import BackendSpec


@pytest.fixture(scope="module")
def pairs(small_data: Path) -> Dataset:
    return loading.split_of(loading.load(str(small_data)), str(small_data), "validation")


# The compiler takes a quarter of a minute.
MARKS = {"torch-compile": pytest.mark.slow}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in registry.BACKENDS])
def spec(request: pytest.FixtureRequest, exported_model: Path) -> BackendSpec:
    if registry.engine_of(request.param).extra and (problem := registry.problem_of(request.param, "cpu")):
        pytest.skip(problem)
    return BackendSpec(backend=request.param, model=str(exported_model), device="cpu")


@pytest.fixture
def session(spec: BackendSpec) -> Session:
    return open_session(spec)


@pytest.fixture
def tokens(spec: BackendSpec, pairs: Dataset) -> EncodedPairs:
    return resolve(spec).reader.encode(pairs)


def test_a_session_gives_float32_logits_of_two_labels_on_the_host(session: Session, tokens: EncodedPairs) -> None:
    batch = tokens.batches(8)[0]
    logits = session.infer(batch)
    assert isinstance(logits, np.ndarray)
    assert logits.dtype == np.float32
    assert logits.shape == (8, 2)
    assert np.isfinite(logits).all()


def test_padding_and_batch_size_do_not_change_a_pairs_logits(session: Session, tokens: EncodedPairs) -> None:
    def answers(size: int, multiple_of: int) -> np.ndarray:
        cut = tokens.batches(size, multiple_of=multiple_of)
        return in_order([session.infer(batch) for batch in cut], cut)

    alone = answers(1, 1)
    np.testing.assert_allclose(answers(16, 1), alone, atol=2e-5)
    np.testing.assert_allclose(answers(16, 64), alone, atol=2e-5)


def test_infer_many_gives_the_same_answers_as_infer(session: Session, tokens: EncodedPairs) -> None:
    cut = tokens.batches(8)
    for many, alone in zip(session.infer_many(cut), (session.infer(batch) for batch in cut), strict=True):
        np.testing.assert_array_equal(many, alone)


def test_the_next_batch_is_enqueued_before_the_last_is_waited_for(tokens: EncodedPairs) -> None:
    log: list[str] = []

    def begin(batch: Batch) -> Callable[[], np.ndarray]:
        name = int(batch.rows[0])
        log.append(f"begin {name}")

        def waited() -> np.ndarray:
            log.append(f"wait {name}")
            return np.array([name])

        return waited

    cut = [tokens.batch_of(np.array([row])) for row in range(3)]
    assert [int(found[0]) for found in one_ahead(begin, iter(cut))] == [0, 1, 2]
    assert " ".join(log) == "begin 0 begin 1 wait 0 begin 2 wait 1 wait 2"
    assert list(one_ahead(begin, [])) == []


def test_batches_of_a_replayed_graph_do_not_overwrite_each_other(exported_model: Path, tokens: EncodedPairs) -> None:
    """Batches of one shape share arrays, so a batch must not start before the previous one has finished."""
    session = open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cpu"))
    assert isinstance(session, OnnxSession)
    session._replayer = Replayer(session._session, "cpu")
    cut = [tokens.batch_of(np.array([row])) for row in range(8)]
    alone = [session.infer(batch) for batch in cut]
    assert len(session._replayer._slots) < len(cut)
    for found, expected in zip(session.infer_many(iter(cut)), alone, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "torch-packed"])
def test_on_a_gpu_infer_many_gives_the_same_as_infer(name: str, exported_model: Path, pairs: Dataset) -> None:
    spec = BackendSpec(backend=name, model=str(exported_model), device="cuda")
    session = open_session(spec)
    cut = resolve(spec).reader.encode(pairs).batches(4) * 10
    # torch-packed pools with float atomics, whose order varies, and rounds the result to bf16: steps of 2^-8.
    tolerance = 2e-2 if name == "torch-packed" else 1e-5
    for many, batch in zip(session.infer_many(cut), cut, strict=True):
        np.testing.assert_allclose(many, session.infer(batch), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_torch_prepares_for_every_shape_on_a_gpu_and_for_none_on_the_cpu(
    device: str, exported_model: Path, pairs: Dataset
) -> None:
    spec = BackendSpec(backend="torch", model=str(exported_model), device=device)
    cut = resolve(spec).reader.encode(pairs).batches(4)
    shapes = [batch.inputs["input_ids"].shape for batch in first_of_each_shape(open_session(spec), cut)]
    assert shapes == (list(dict.fromkeys(batch.inputs["input_ids"].shape for batch in cut)) if device == "cuda" else [])


def test_a_session_reports_its_placement_and_its_weights(session: Session, spec: BackendSpec) -> None:
    assert session.placement.device.split()[0] == "cpu"
    assert session.placement.dtype == "fp32"
    assert session.placement.tf32 is None
    assert session.placement.engine
    assert session.model.tokenizer_sha256
    session.close()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "torch-packed", "onnx"])
def test_on_a_gpu_float32_is_not_rounded_to_tf32(name: str, exported_model: Path) -> None:
    asked = BackendSpec(backend=name, model=str(exported_model), device="cuda", dtype="fp32")
    placement = open_session(asked).placement
    assert placement.tf32 is False
    assert "fp32 without TF32 on cuda" in placement.description


def test_an_engine_whose_module_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BACKENDS, "torch", registry.Engine("mrpcbench.backends.registry.absent:open_absent"))
    with pytest.raises(MissingError, match="--backend torch"):
        open_session(BackendSpec())


def test_an_engine_answers_as_torch_does_and_names_the_same_weights(
    session: Session, spec: BackendSpec, tokens: EncodedPairs
) -> None:
    if spec.backend == "fake":
        pytest.skip("its answers are not those of a model")
    reference = open_session(replace(spec, backend="torch"))
    for batch in tokens.batches(8):
        np.testing.assert_allclose(session.infer(batch), reference.infer(batch), atol=1e-4)
    assert session.model.model_sha256 == reference.model.model_sha256
    assert session.model.tokenizer_sha256 == reference.model.tokenizer_sha256
    assert (session.model.graph_sha256 is not None, session.model.proven) == (
        (True, True) if registry.engine_of(spec.backend).reads_onnx else (False, None)
    )


@pytest.mark.parametrize(("option", "value"), [("device", "cuda"), ("dtype", "int8"), ("threads", 1)])
def test_an_engine_does_what_was_requested_or_refuses(
    option: str, value: object, spec: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    try:
        actual = open_session(replace(spec, **{option: value})).placement  # type: ignore[arg-type]
    except MrpcbenchError as error:
        assert f"--{option}" in str(error)
    else:
        assert getattr(actual, option) == value


@pytest.mark.parametrize("name", ["torch", "torch-packed", "torch-compile", "onnx"])
def test_cuda_without_a_gpu_is_an_error_with_an_alternative(
    name: str, exported_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="--device cpu"):
        open_session(BackendSpec(backend=name, model=str(exported_model), device="cuda"))


def test_a_provider_that_falls_back_silently_is_an_error(exported_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrpcbench.backends import ort

    monkeypatch.setattr(ort, "resolve_device", lambda asked: "cuda")
    monkeypatch.setattr(ort, "device_name", lambda device: "cuda of a test")
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)

    def on_the_cpu(path: Path, options: object, providers: object) -> onnxruntime.InferenceSession:
        return real(path, options, providers=["CPUExecutionProvider"])

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    with pytest.raises(MissingError, match="requested CUDAExecutionProvider, but CPUExecutionProvider would be used"):
        open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cuda"))


def test_another_dtype_than_the_graphs_is_refused(exported_model: Path) -> None:
    spec = BackendSpec(backend="onnx", model=str(exported_model), device="cpu", dtype="fp16")
    with pytest.raises(UsageError, match="the graph is fp32"):
        open_session(spec)


def test_torch_runs_in_the_requested_dtype(exported_model: Path) -> None:
    session = open_session(BackendSpec(model=str(exported_model), device="cpu", dtype="bf16"))
    assert session.placement.dtype == "bf16"


def test_autocast_keeps_float32_weights_and_computes_in_bf16(exported_model: Path, pairs: Dataset) -> None:
    asked = BackendSpec(model=str(exported_model), device="cpu")
    batch = resolve(asked).reader.encode(pairs).batches(8)[0]
    whole, half, cast = (open_session(replace(asked, dtype=dtype)) for dtype in ("fp32", "bf16", "bf16-autocast"))
    assert (cast.placement.dtype, cast.placement.product_dtype) == ("bf16-autocast", "bf16")
    assert {weight.dtype for weight in cast._net.parameters()} == {torch.float32}  # type: ignore[attr-defined]
    exact = whole.infer(batch)
    assert not np.array_equal(cast.infer(batch), exact)
    assert not np.array_equal(cast.infer(batch), half.infer(batch))
    np.testing.assert_allclose(cast.infer(batch), exact, atol=0.2)


@pytest.mark.parametrize("name", ["torch-packed", "torch-compile", "onnx", "openvino", "fake"])
def test_autocast_is_only_for_torch(name: str, exported_model: Path) -> None:
    with pytest.raises(UsageError, match=f"--dtype bf16-autocast --backend {name}: only for --backend torch"):
        open_session(BackendSpec(backend=name, model=str(exported_model), device="cpu", dtype="bf16-autocast"))


@pytest.mark.gpu
def test_autocast_runs_on_a_gpu(exported_model: Path, pairs: Dataset) -> None:
    asked = BackendSpec(model=str(exported_model), device="cuda")
    batch = resolve(asked).reader.encode(pairs).batches(8)[0]
    cast = open_session(replace(asked, dtype="bf16-autocast"))
    assert cast.placement.device.startswith("cuda")
    assert cast.placement.dtype == "bf16-autocast"
    np.testing.assert_allclose(cast.infer(batch), open_session(asked).infer(batch), atol=0.2)


def test_a_torch_session_runs_on_the_requested_number_of_threads(exported_model: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert open_session(BackendSpec(model=str(exported_model), device="cpu", threads=1)).placement.threads == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_model_without_a_graph_is_an_error_that_names_export(tuned_model: Path) -> None:
    with pytest.raises(UsageError, match=r"run `mrpcbench export --model \S+` first$"):
        open_session(BackendSpec(backend="onnx", model=str(tuned_model), device="cpu"))


def test_an_onnx_folder_is_not_a_model_for_torch(exported_model: Path) -> None:
    with pytest.raises(UsageError, match="--backend onnx"):
        open_session(BackendSpec(backend="torch", model=str(exported_model / "onnx"), device="cpu"))


def test_model_may_be_the_onnx_folder_itself(exported_model: Path) -> None:
    spec = BackendSpec(backend="onnx", model=str(exported_model / "onnx"), device="cpu")
    assert open_session(spec).model.proven is True


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_engine_for_graphs_rejects_random_init(name: str, exported_model: Path) -> None:
    with pytest.raises(UsageError, match=f"--random-init: not for --backend {name}"):
        open_session(BackendSpec(backend=name, model=str(exported_model), device="cpu", random_init=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "torch-compile", "onnx"])
def test_cuda_runs_on_the_reported_device_with_the_answers_of_torch_on_the_cpu(
    name: str, exported_model: Path, pairs: Dataset
) -> None:
    answers = {}
    for device, backend in (("cpu", "torch"), ("cuda", name)):  # to compile for the CPU too would take a minute
        spec = BackendSpec(backend=backend, model=str(exported_model), device=device)
        cut = resolve(spec).reader.encode(pairs).batches(8)
        session = open_session(spec)
        assert session.placement.device.startswith(device)
        answers[device] = in_order(list(session.infer_many(cut)), cut)
    np.testing.assert_allclose(answers["cuda"], answers["cpu"], atol=1e-3)


# --- operators --------------------------------------------------------------------------------------------------------

TOLERANCE_NS = 5_000_000


@pytest.fixture(params=["torch", "torch-packed", "onnx"])
def watchable(request: pytest.FixtureRequest, exported_model: Path) -> SteppedSession:
    return open_session(BackendSpec(backend=request.param, model=str(exported_model), device="cpu"))


@pytest.fixture
def batch(exported_model: Path, pairs: Dataset) -> Batch:
    return resolve(BackendSpec(model=str(exported_model))).reader.encode(pairs).batches(8)[0]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_operators_of_a_call_lie_within_it(watchable: SteppedSession, batch: Batch) -> None:
    watchable.infer(batch)
    with watchable.operators() as events:
        time.sleep(4 * TOLERANCE_NS / 1e9)  # so that the start of the profile differs from that of the call
        begin = time.perf_counter_ns()
        watchable.infer(batch)
        end = time.perf_counter_ns()
    assert any("matmul" in event.name.lower() for event in events)
    assert {event.track for event in events} <= {"torch operators", "onnxruntime operators"}
    assert all(begin - TOLERANCE_NS <= event.begin_ns <= event.end_ns <= end + TOLERANCE_NS for event in events)


def test_profiling_operators_does_not_change_logits(watchable: SteppedSession, batch: Batch, scratch: Path) -> None:
    before, state = watchable.infer(batch), dict(vars(watchable))
    for _ in range(2):
        with watchable.operators():
            np.testing.assert_array_equal(watchable.infer(batch), before)
        np.testing.assert_array_equal(watchable.infer(batch), before)
        assert vars(watchable) == state
    assert list(scratch.iterdir()) == []


def test_an_error_while_profiling_leaves_the_session_unchanged(
    watchable: SteppedSession, batch: Batch, scratch: Path
) -> None:
    before, state = watchable.infer(batch), dict(vars(watchable))
    with pytest.raises(ZeroDivisionError), watchable.operators() as events:
        watchable.infer(batch)
        raise ZeroDivisionError
    assert events == []
    assert vars(watchable) == state
    np.testing.assert_array_equal(watchable.infer(batch), before)
    assert list(scratch.iterdir()) == []
    with watchable.operators() as events:
        watchable.infer(batch)
    assert events


def test_an_onnx_operator_has_its_type_and_node_name_and_no_file_name(exported_model: Path, batch: Batch) -> None:
    session = open_session(BackendSpec(backend="onnx", model=str(exported_model), device="cpu"))
    with session.operators() as events:
        session.infer(batch)
    names = [event.name for event in events]
    assert any(re.fullmatch(r"MatMul \(/model/.+MatMul\)", name) for name in names)
    assert names.count("model_run") == 1
    assert not any(str(exported_model) in name or "loading" in name or "_time" in name for name in names)


def test_the_steps_of_an_engine_give_its_answers(session: Session, tokens: EncodedPairs) -> None:
    batch = tokens.batches(8)[0]
    if probe := probe_of(session):
        found = probe.copy_out(probe.compute(probe.copy_in(batch)))
        np.testing.assert_array_equal(found, session.infer(batch))


def test_profiling_torch_prints_nothing_on_stderr(
    server: FaultServer, tuned_model: Path, small_data: Path, tmp_path: Path
) -> None:
    """In a separate process, because the profiler reads its settings only once."""
    few = ("--scenario", "offline", "--pairs", "4", "--rounds", "1", "--max-seconds", "0", "--device", "cpu")
    done = server.run(
        tmp_path, "-q", "bench", "--model", tuned_model, "--data", small_data, *few, "--profile", "trace.json"
    )
    assert done.status == 0, done.err
    assert (tmp_path / "trace.json").exists()
    assert [line for line in done.err.splitlines() if not line.startswith("warning: ")] == []


def test_the_shortest_mark_aligns_torchs_clock_with_ours() -> None:
    from mrpcbench.backends import pytorch

    found = [
        FunctionEvent(1, pytorch.MARK, 1, start_us=10.0, end_us=90.0),
        FunctionEvent(2, pytorch.MARK, 1, start_us=100.0, end_us=102.0),
        FunctionEvent(3, "aten::matmul", 1, start_us=200.5, end_us=204.0),
    ]
    (event,) = pytorch._events_of(found, [(7_000_000, 7_700_000), (8_000_000, 8_004_000)])
    assert (event.begin_ns, event.end_ns) == (8_001_000 + 100_500, 8_001_000 + 104_000)


def test_each_torch_thread_and_stream_has_a_track() -> None:
    from mrpcbench.backends import pytorch

    def ran(name: str, line: int, *, cuda: bool, annotation: bool = False) -> FunctionEvent:
        device = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
        where = {"device_type": device, "device_resource_id": line, "is_user_annotation": annotation}
        return FunctionEvent(1, name, 0 if cuda else line, start_us=1.0, end_us=2.0, **where)

    found = [
        ran(pytorch.MARK, 1, cuda=False, annotation=True),
        ran(pytorch.MARK, 7, cuda=True, annotation=True),
        ran("of a user, on the GPU", 7, cuda=True, annotation=True),
        ran("addmm", 1, cuda=False),
        ran("elsewhere", 2, cuda=False),
        ran("gemm", 7, cuda=True),
        ran("Memcpy DtoH", 20, cuda=True),
    ]
    events = pytorch._events_of(found, [(0, 1000)])
    assert {event.name: event.track for event in events} == {
        "addmm": "torch operators",
        "elsewhere": "torch operators 2",
        "gemm": "cuda kernels",
        "Memcpy DtoH": "cuda kernels 2",
    }


def test_each_onnx_runtime_stream_has_a_track() -> None:
    from mrpcbench.backends import onnx_session

    def noted(kind: str, name: str, tid: int, **args: str) -> dict[str, object]:
        return {"cat": kind, "name": name, "tid": tid, "ts": 5, "dur": 2, "args": args}

    found = [
        noted("Session", "session_initialization", 40),
        noted("Session", "model_run", 40),
        noted("Node", "/a_kernel_time", 40, op_name="Gemm"),
        noted("Kernel", "sgemm", -1, stream="7", op_name="Gemm"),
        noted("Kernel", "Memcpy HtoD", -1, stream="8"),
        noted("Api", "cudaLaunchKernel", 40),
    ]
    events = onnx_session._events_of(found, 1_000_000)
    assert {event.name: event.track for event in events} == {
        "model_run": "onnxruntime operators",
        "Gemm (/a)": "onnxruntime operators",
        "sgemm": "cuda kernels",
        "Memcpy HtoD": "cuda kernels 2",
    }
    assert {(event.begin_ns, event.end_ns) for event in events} == {(1_005_000, 1_007_000)}


@pytest.mark.parametrize("has", [True, False])
def test_8_bits_use_the_slow_exact_kernels_only_if_the_fast_ones_could_overflow(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrpcbench.backends import onnx_session

    monkeypatch.setattr(machine, "has_instructions", lambda names: has)

    def asked(dtype: str) -> str | None:
        options = onnx_session._options(1, dtype)
        try:
            return str(options.get_session_config_entry("session.x64quantprecision"))
        except RuntimeError:
            return None

    assert asked("int8") == (None if has else "1")
    assert asked("fp32") is None


@pytest.mark.parametrize("clock", [time.time_ns, time.perf_counter_ns])
def test_times_of_both_clocks_are_converted_to_ours(clock: Callable[[], int]) -> None:
    from mrpcbench.backends import onnx_session

    before, moment, after = time.perf_counter_ns(), clock(), time.perf_counter_ns()
    time.sleep(4 * TOLERANCE_NS / 1e9)
    assert before - TOLERANCE_NS <= onnx_session._on_our_clock(moment) <= after + TOLERANCE_NS


@pytest.mark.gpu
def test_on_a_gpu_torchs_kernels_lie_within_the_call(exported_model: Path, batch: Batch) -> None:
    session = open_session(BackendSpec(model=str(exported_model), device="cuda"))
    session.infer(batch)
    with session.operators() as events:
        begin = time.perf_counter_ns()
        session.infer(batch)
        end = time.perf_counter_ns()
    kernels = [event for event in events if event.track == "cuda kernels"]
    assert any("Memcpy" in event.name for event in kernels)
    assert any("gemm" in event.name.lower() or "cutlass" in event.name.lower() for event in kernels)
    assert all(begin - TOLERANCE_NS <= event.begin_ns <= event.end_ns <= end + TOLERANCE_NS for event in kernels)


def test_onnx_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """It would keep its reports in the user's home until it can send them. In CI it reports nothing by itself."""
    silent = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    variables = {name: value for name, value in os.environ.items() if name not in silent}
    command = [sys.executable, "-c", "import mrpcbench.backends.ort; mrpcbench.backends.ort.ort.SessionOptions()"]
    subprocess.run(command, env={**variables, "HOME": str(tmp_path)}, check=True)
    assert not (tmp_path / ".cache" / "Microsoft").exists()
