"""Tests of `mrpcbench export`: the ONNX folder, and the gate that verifies it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import Listener
from numpy.typing import NDArray
from onnx import numpy_helper
from optimum.onnxruntime import ORTModelForSequenceClassification
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from mrpcbench.backends.ort import graph_device
from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.commands import export as verb
from mrpcbench.commands.export import export
from mrpcbench.data import loading
from mrpcbench.data.batches import in_order
from mrpcbench.errors import MissingError, MrpcbenchError, UsageError
from mrpcbench.models.classifier import LoadedModel, load_classifier
from mrpcbench.models.sources import ModelSource, weights_source
from mrpcbench.onnx_export import optimum
from mrpcbench.onnx_export.verification import judge
from mrpcbench.quickstart import CHECKPOINT_DIR
from mrpcbench.records import store
from mrpcbench.schema.records import ExportRecord
from mrpcbench.schema.requests import BackendSpec, Device, ExportPlan, Optimize
from mrpcbench.schema.results import ParityTrial


@pytest.fixture
def copied(tuned_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tuned_model, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*")))


def run(model: Path, small_data: Path, **changes: object) -> ExportRecord:
    plan = replace(ExportPlan(model=str(model), data=str(small_data), device="cpu"), **changes)  # type: ignore[arg-type]
    return export(plan, model.parent / "export.json", Listener())


def test_an_export_is_verified_on_every_pair_at_three_batch_sizes_and_paddings(copied: Path, small_data: Path) -> None:
    record = run(copied, small_data)
    assert record.complete
    gate = record.export.gate
    assert gate is not None
    assert gate.verdict.outcome == "PASS"
    assert gate.pairs == 40
    assert [(trial.kind, trial.batch_size, trial.flips) for trial in gate.trials] == [
        *(("split", size, 0) for size in (1, 8, 32)),
        ("joined", 2, 0),
        ("padding", 2, 0),
    ]
    paddings = [trial.padding_tokens for trial in gate.trials]
    assert paddings[0] == 0 < paddings[1] < paddings[2]
    assert all(trial.max_abs_delta is not None and 0 < trial.max_abs_delta < 1e-4 for trial in gate.trials[:4])
    assert gate.trials[4].max_abs_delta == 0
    assert gate.flip_rate_bound == pytest.approx(1 - 0.05 ** (1 / 40))
    lineage = store.load_lineage(copied / "onnx")
    assert lineage is not None
    assert lineage.model == record.model
    assert lineage.model.proven is True
    assert store.load(copied.parent / "export.json") == record


def test_the_folder_loads_in_optimum_with_its_tokenizer_and_configuration(exported_model: Path) -> None:
    folder = exported_model / "onnx"
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "NOT_EQUIVALENT", 1: "EQUIVALENT"}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for pairs in ([("A cat sat.", "A cat was sitting.")], [("One.", "Two."), ("A longer sentence.", "Three four.")]):
        inputs = tokenizer([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
        original = load_classifier(weights_source(str(exported_model))).model(**inputs).logits
        torch.testing.assert_close(model(**inputs).logits, original, atol=1e-4, rtol=1e-4)


def test_batch_and_sequence_axes_are_dynamic(exported_model: Path) -> None:
    graph = onnx.load(exported_model / "onnx" / "model.onnx").graph
    for value in graph.input:
        assert all(axis.dim_param for axis in value.type.tensor_type.shape.dim), value.name


def _weaken(folder: Path) -> None:
    """Add a little to the bias of the graph's last layer: every logit of label 1 grows by 0.01."""
    model = onnx.load(folder / "model.onnx")
    bias = next(item for item in model.graph.initializer if item.name == "classifier.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([0, 0.01]), bias.name))
    onnx.save(model, folder / "model.onnx")


def test_a_graph_that_differs_a_little_fails_and_stays_unverified(
    copied: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verb._write_onnx

    def write(loaded: LoadedModel, source: ModelSource, plan: ExportPlan, device: str, staged: Path) -> None:
        real(loaded, source, plan, device, staged)
        _weaken(staged)

    monkeypatch.setattr(verb, "_write_onnx", write)
    record = run(copied, small_data)
    assert record.export.gate is not None
    assert record.export.gate.verdict.outcome == "REGRESSION"
    assert record.model.proven is False
    assert (copied / "onnx" / "model.onnx").exists()
    session = open_session(BackendSpec(backend="onnx", model=str(copied), device="cpu"))
    assert session.model.proven is False


def test_a_failed_export_keeps_the_folder_that_was_there(
    copied: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(copied, small_data)
    before = {path.name: path.read_bytes() for path in (copied / "onnx").iterdir()}

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no export")

    monkeypatch.setattr("optimum.exporters.onnx.onnx_export_from_model", fail)
    with pytest.raises(MrpcbenchError, match="no export"):
        run(copied, small_data)
    assert {path.name: path.read_bytes() for path in (copied / "onnx").iterdir()} == before
    assert not list(copied.glob(".onnx*"))


def _largest_constant(file: Path) -> float:
    """Largest magnitude of the graph's constants, which are its masks; the weights are far smaller."""
    graph = onnx.load(file).graph
    tensors = list(graph.initializer)
    tensors += [item.t for node in graph.node for item in node.attribute if item.HasField("t")]
    floats = [numpy_helper.to_array(item) for item in tensors]
    return max(float(np.abs(item).max()) for item in floats if item.size and item.dtype.kind == "f")


def test_the_sum_of_two_masks_of_an_fp16_graph_is_finite(copied: Path, small_data: Path) -> None:
    """ONNX Runtime computes float16 graphs in float32 on the CPU, so only a GPU shows the overflow itself."""
    run(copied, small_data)
    assert _largest_constant(copied / "onnx" / "model.onnx") > float(np.finfo(np.float16).max)
    run(copied, small_data, dtype="fp16")
    assert _largest_constant(copied / "onnx" / "model.onnx") < float(np.finfo(np.float16).max) / 4


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_fp16_keeps_its_labels_and_gives_no_nan_on_a_ragged_batch(
    copied: Path, small_data: Path, device: Device
) -> None:
    """Next to a long pair, a short pair has fully masked rows of padding, which are NaN if a mask overflows."""
    record = run(copied, small_data, dtype="fp16", device=device)
    assert record.export.gate is not None
    assert record.export.gate.verdict.outcome == "PASS"
    spec = BackendSpec(backend="onnx", model=str(copied), device=device)
    session = open_session(spec)
    assert session.placement.dtype == {"cpu": "fp32", "cuda": "fp16"}[device]  # the CPU provider widens
    pairs = loading.load(str(small_data))["validation"]
    ragged = pairs.from_dict(
        {
            "sentence1": ["Yes.", " ".join(pairs["sentence1"][:8])],
            "sentence2": ["No.", " ".join(pairs["sentence2"][:8])],
        }
    )
    cut = resolve(spec).reader.encode(ragged).batches(2, multiple_of=64)
    assert cut[0].padding_tokens > 150
    assert np.isfinite(in_order([session.infer(batch) for batch in cut], cut)).all()


def test_another_opset_is_written_as_requested(copied: Path, small_data: Path) -> None:
    record = run(copied, small_data, opset=17)
    assert record.export.opset == 17


def test_random_weights_are_exported_to_a_separate_folder(
    checkpoint_dir: Path, small_data: Path, tmp_path: Path
) -> None:
    plan = ExportPlan(
        model=str(checkpoint_dir),
        data=str(small_data),
        device="cpu",
        random_init=True,
        output_dir=str(tmp_path / "onnx"),
    )
    record = export(plan, tmp_path / "r.json", Listener())
    assert record.model.weights == "random-init"
    session = open_session(BackendSpec(backend="onnx", model=str(tmp_path / "onnx"), device="cpu"))
    assert session.model.weights_label == "random-init"
    same = open_session(BackendSpec(model=str(checkpoint_dir), device="cpu", random_init=True))
    assert same.model.model_sha256 == session.model.model_sha256


def test_a_model_without_a_head_is_not_exported(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no classification head"):
        export(ExportPlan(model=str(CHECKPOINT_DIR), data=str(small_data)), tmp_path / "r.json", Listener())


def test_verification_needs_no_labels(copied: Path, tmp_path: Path) -> None:
    rows = [{"sentence1": "A cat sat.", "sentence2": "A cat was sitting.", "label": -1}] * 3
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = run(copied, tmp_path, split="test")
    assert record.export.gate is not None
    assert record.export.gate.pairs == 3


# --- the gate itself --------------------------------------------------------------------------------------------------

LOGITS: NDArray[np.float32] = np.float32([[0.0, 1.0], [1.0, 0.0], [0.0, 0.5]] * 100)


def trial(flips: int = 0, delta: float | None = 1e-6) -> ParityTrial:
    return ParityTrial(
        batch_size=1, padding="none", padding_tokens=0, flips=flips, max_abs_delta=delta, p99_abs_delta=delta
    )


def test_the_gate_passes_small_differences_and_reports_its_headroom() -> None:
    gate = judge((trial(), trial(delta=1e-4)), LOGITS, "fp32")
    assert gate.verdict.outcome == "PASS"
    assert gate.smallest_margin == 0.5
    assert gate.headroom == pytest.approx(5000)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(trial(flips=1), "1 of 300 labels flip"), (trial(delta=2e-3), "differs by"), (trial(delta=None), "not finite")],
)
def test_one_bad_trial_of_three_fails_float32(bad: ParityTrial, reason: str) -> None:
    gate = judge((trial(), bad, trial()), LOGITS, "fp32")
    assert gate.verdict.outcome == "REGRESSION"
    assert reason in gate.verdict.reason


def test_half_precision_may_flip_one_label_in_two_hundred_and_no_more() -> None:
    assert judge((trial(flips=1, delta=0.01),), LOGITS, "fp16").verdict.outcome == "PASS"
    assert judge((trial(flips=2, delta=0.01),), LOGITS, "fp16").verdict.outcome == "REGRESSION"
    assert judge((trial(delta=None),), LOGITS, "fp16").verdict.outcome == "REGRESSION"


def test_an_original_that_is_not_finite_never_passes() -> None:
    broken = LOGITS.copy()
    broken[7, 0] = np.nan
    gate = judge((trial(),), broken, "fp32")
    assert gate.verdict.outcome == "REGRESSION"
    assert gate.smallest_margin is None


def test_identical_logits_pass_without_dividing_by_zero() -> None:
    gate = judge((trial(delta=0.0),), LOGITS, "fp32")
    assert gate.verdict.outcome == "PASS"
    assert gate.headroom is None


def test_onnxruntime_alone_can_run_the_graph(exported_model: Path) -> None:
    session = onnxruntime.InferenceSession(exported_model / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.ones((2, 5), dtype=np.int64)
    assert session.run(None, {"input_ids": ids, "attention_mask": ids})[0].shape == (2, 2)


@pytest.mark.parametrize("inside", ["notes.txt", "config.json"])
def test_a_folder_with_other_content_is_never_replaced(
    copied: Path, small_data: Path, tmp_path: Path, inside: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / inside).write_text("precious")
    with pytest.raises(UsageError, match="name another folder"):
        run(copied, small_data, output_dir=str(tmp_path / "mine"))
    assert (tmp_path / "mine" / inside).read_text() == "precious"


def test_a_model_folder_is_never_replaced_by_its_own_export(copied: Path, small_data: Path) -> None:
    with pytest.raises(UsageError, match="name another folder"):
        run(copied, small_data, output_dir=str(copied))
    assert (copied / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["notes.txt", "old/notes.txt"])
def test_a_foreign_file_beside_an_earlier_graph_is_kept(copied: Path, small_data: Path, name: str) -> None:
    run(copied, small_data, optimize="cpu")
    graph = copied / "onnx-cpu"
    (graph / name).parent.mkdir(exist_ok=True)
    (graph / name).write_text("precious")
    with pytest.raises(UsageError, match=rf"holds {name.split('/', maxsplit=1)[0]}, which is not of an export"):
        run(copied, small_data, optimize="cpu")
    assert (graph / name).read_text() == "precious"


def test_what_a_killed_export_left_in_its_folder_goes_with_the_next(copied: Path, small_data: Path) -> None:
    run(copied, small_data, optimize="cpu")
    left = copied / "onnx-cpu" / ".mrpcbench.json.qifsovpe.writing"
    left.write_text("{")
    run(copied, small_data, optimize="cpu")
    assert not left.exists()


def test_neither_a_link_nor_a_graph_of_others_is_replaced(copied: Path, small_data: Path) -> None:
    run(copied, small_data, optimize="cpu")
    graph = copied / "onnx-cpu"
    (graph / "mrpcbench.json").rename(copied / "kept.json")
    with pytest.raises(UsageError, match="not an export of mrpcbench; name another folder"):
        run(copied, small_data, optimize="cpu")
    (copied / "kept.json").rename(graph / "mrpcbench.json")
    graph.rename(copied / "elsewhere")
    graph.symlink_to(copied / "elsewhere")
    with pytest.raises(UsageError, match="a link; name a folder"):
        run(copied, small_data, optimize="cpu")
    assert graph.is_symlink()


def test_a_graph_that_another_export_has_replaced_is_not_marked_verified(
    copied: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verb.verify

    def meanwhile(*given: Any) -> Any:
        found = real(*given)
        lineage = store.load_lineage(copied / "onnx-cpu")
        assert lineage is not None
        other = replace(lineage, model=replace(lineage.model, graph_sha256="0" * 64))
        store.save_lineage(other, copied / "onnx-cpu")
        return found

    monkeypatch.setattr(verb, "verify", meanwhile)
    with pytest.raises(MrpcbenchError, match="another export has replaced the graph"):
        run(copied, small_data, optimize="cpu")
    lineage = store.load_lineage(copied / "onnx-cpu")
    assert lineage is not None
    assert lineage.model.proven is False


def test_an_earlier_export_is_replaced(copied: Path, small_data: Path) -> None:
    run(copied, small_data, dtype="fp16")
    assert run(copied, small_data).model.proven is True


def test_weights_changed_since_training_can_be_exported_and_used(copied: Path, small_data: Path) -> None:
    model = load_classifier(weights_source(str(copied))).model
    with torch.no_grad():
        model.classifier.bias += 0.25
    model.save_pretrained(copied)
    assert run(copied, small_data).model.proven is True
    spec = BackendSpec(backend="onnx", model=str(copied), device="cpu")
    assert open_session(spec).model.model_sha256 == load_classifier(weights_source(str(copied))).identity.model_sha256


def test_an_invalid_opset_is_one_line(copied: Path, small_data: Path) -> None:
    with pytest.raises(MrpcbenchError, match="--opset 5") as caught:
        run(copied, small_data, opset=5)
    assert "\n" not in str(caught.value)


def test_random_weights_of_a_folder_do_not_replace_its_own_export(
    copied: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(copied, small_data)
    monkeypatch.chdir(tmp_path)
    assert run(copied, small_data, random_init=True).model.weights == "random-init"
    assert (tmp_path / "model-random-init-onnx" / "model.onnx").exists()
    assert open_session(BackendSpec(backend="onnx", model=str(copied), device="cpu")).model.weights == "fine-tuned"


# --- graphs of few nodes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimize", "dtype", "runs_in"), [("cpu", "fp32", "fp32"), ("cuda", "fp16", "fp32"), ("int8", "int8", "int8")]
)
def test_every_graph_is_verified_in_its_own_folder_and_records_its_form(
    copied: Path, small_data: Path, optimize: Optimize, dtype: str, runs_in: str
) -> None:
    record = run(copied, small_data, optimize=optimize)
    assert (record.export.optimize, record.export.dtype) == (optimize, dtype)
    assert record.export.gate is not None
    assert record.export.gate.verdict.outcome == "PASS", record.export.gate.verdict
    assert (record.export.gate.f1_allowed is not None) == (optimize == "int8")
    assert record.model.optimize == optimize
    folder = copied / f"onnx-{optimize}"
    lineage = store.load_lineage(folder)
    assert lineage is not None
    assert lineage.model == record.model
    assert lineage.dtype == dtype
    session = open_session(BackendSpec(backend="onnx", model=str(folder), device="cpu"))
    assert session.model == record.model
    assert session.placement.dtype == runs_in  # the CPU provider widens float16
    assert not (copied / "onnx").exists()
    with pytest.raises(UsageError, match=f"--model .*model/onnx-{optimize}"):
        open_session(BackendSpec(backend="onnx", model=str(copied), device="cpu"))


def test_several_graphs_of_one_model_coexist(copied: Path, small_data: Path) -> None:
    run(copied, small_data)
    run(copied, small_data, optimize="cpu")
    found = [
        open_session(BackendSpec(backend="onnx", model=str(copied / name), device="cpu")).model
        for name in ("", "onnx-cpu")
    ]
    assert [model.optimize for model in found] == ["none", "cpu"]
    assert found[0].model_sha256 == found[1].model_sha256
    assert found[0].graph_sha256 != found[1].graph_sha256


def test_a_small_graph_is_also_refused_after_its_weights_changed(copied: Path, small_data: Path) -> None:
    run(copied, small_data, optimize="cpu")
    model = load_classifier(weights_source(str(copied))).model
    with torch.no_grad():
        model.classifier.bias += 0.25
    model.save_pretrained(copied)
    run(copied, small_data)
    with pytest.raises(UsageError, match="other weights"):
        open_session(BackendSpec(backend="onnx", model=str(copied / "onnx-cpu"), device="cpu"))


def test_an_8_bit_graph_accepts_only_its_own_dtype(copied: Path, small_data: Path) -> None:
    run(copied, small_data, optimize="int8")
    spec = BackendSpec(backend="onnx", model=str(copied / "onnx-int8"), device="cpu", dtype="int8")
    assert open_session(spec).placement.dtype == "int8"
    with pytest.raises(UsageError, match="--dtype fp32: requested fp32, but the graph is int8"):
        open_session(replace(spec, dtype="fp32"))


def test_torch_has_no_8_bit_arithmetic(copied: Path) -> None:
    with pytest.raises(UsageError, match="--optimize int8"):
        open_session(BackendSpec(model=str(copied), device="cpu", dtype="int8"))


@pytest.mark.parametrize("optimize", ["cpu", "int8"])
def test_a_graph_for_the_cpu_runs_on_the_cpu_unless_cuda_is_requested(optimize: Optimize) -> None:
    assert graph_device("auto", optimize, "--model x") == "cpu"
    with pytest.raises(UsageError, match=r"--model x --device cuda: .*--device cpu"):
        graph_device("cuda", optimize, "--model x")


def test_only_optimums_graph_accepts_an_opset(copied: Path, small_data: Path) -> None:
    with pytest.raises(UsageError, match=r"--opset 17 --optimize cpu: .*--optimize none"):
        run(copied, small_data, optimize="cpu", opset=17)


def test_optimums_optimiser_writes_o3_to_its_own_folder_and_the_gate_judges_it_as_float32(
    copied: Path, small_data: Path
) -> None:
    plain = run(copied, small_data)
    record = run(copied, small_data, optimize="o3")
    assert (record.export.optimize, record.export.dtype, record.model.optimize) == ("o3", "fp32", "o3")
    assert record.export.nodes < plain.export.nodes
    graph = onnx.load(copied / "onnx-o3" / "model.onnx").graph
    assert "FastGelu" in {node.op_type for node in graph.node}  # the difference between O3 and O2
    assert sorted(record.export.files) == sorted(plain.export.files)
    assert record.export.gate is not None
    assert record.export.gate.delta_allowed == 1e-3
    worst = max(found.max_abs_delta or 0 for found in record.export.gate.trials)
    assert 1e-6 < worst < 0.05  # the tanh approximation of GELU is close, but not equal
    session = open_session(BackendSpec(backend="onnx", model=str(copied / "onnx-o3"), device="cpu"))
    assert session.model == record.model


def test_o4_without_a_gpu_is_refused_before_any_work(
    copied: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match=r"^--optimize o4: .*use `mrpcbench export --optimize o3`$"):
        run(copied, small_data, optimize="o4", device="auto")
    with pytest.raises(UsageError, match=r"^--optimize o4 --device cpu: .*use `mrpcbench export --optimize o3`$"):
        run(copied, small_data, optimize="o4")
    assert not (copied / "onnx-o4").exists()


@pytest.mark.gpu
def test_o4_is_made_and_verified_on_the_gpu(copied: Path, small_data: Path) -> None:
    record = run(copied, small_data, optimize="o4", device="cuda")
    assert (record.export.dtype, record.export.placement.dtype) == ("fp16", "fp16")
    assert record.export.gate is not None
    assert record.export.gate.flips_allowed == 0  # half a per cent of 40 pairs


def test_an_architecture_that_optimums_optimiser_does_not_know_is_refused_by_name() -> None:
    model = torch.nn.Module()
    model.config = SimpleNamespace(model_type="esm")  # type: ignore[assignment]
    with pytest.raises(UsageError, match="--optimize o3: Optimum's optimiser does not support esm models"):
        optimum.check(model, "o3")  # type: ignore[arg-type]
    optimum.check(model, "none")  # type: ignore[arg-type]


def test_options_that_contradict_each_other_are_refused_before_any_work(copied: Path, small_data: Path) -> None:
    with pytest.raises(UsageError, match="--optimize int8 --dtype fp16"):
        run(copied, small_data, optimize="int8", dtype="fp16")
    assert not (copied / "onnx-int8").exists()


def test_a_graph_that_lost_its_windows_fails_the_gate(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verb.graphs.make

    def make(*requested: Any) -> onnx.ModelProto:
        graph = real(*requested)
        for node in graph.graph.node:
            if node.op_type == "Attention":
                node.input[3] = ""
        return graph

    words = "the old man sold a red car to his friend in the city on monday".split()
    rows = [
        {"sentence1": " ".join(words * 4), "sentence2": " ".join(words[shift:] * 5), "label": shift % 2}
        for shift in range(6)
    ]
    (tmp_path / "long.d").mkdir()
    (tmp_path / "long.d" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(copied, tmp_path / "long.d", optimize="cpu").model.proven is True
    monkeypatch.setattr(verb.graphs, "make", make)
    assert run(copied, tmp_path / "long.d", optimize="cpu").model.proven is False


# --- the gate of 8 bits -----------------------------------------------------------------------------------------------

LABELS: NDArray[np.int64] = np.int64([1, 0, 1] * 100)


def test_8_bits_may_flip_two_labels_in_a_hundred_and_must_keep_their_f1() -> None:
    kept = replace(trial(flips=6, delta=0.1), f1=1.0)
    gate = judge((kept,), LOGITS, "int8", LABELS)
    assert gate.verdict.outcome == "PASS"
    assert gate.f1_allowed is not None
    assert "F1 within the original's interval" in gate.verdict.reason
    assert judge((replace(kept, flips=7),), LOGITS, "int8", LABELS).verdict.outcome == "REGRESSION"
    assert judge((kept, replace(kept, max_abs_delta=None)), LOGITS, "int8", LABELS).verdict.outcome == "REGRESSION"


def test_8_bits_that_lose_f1_fail_though_few_labels_flip() -> None:
    noisy = LABELS.copy()
    noisy[:30] = 0  # so that the interval of the original's F1 has a width
    expected = judge((replace(trial(), f1=0.95),), LOGITS, "int8", noisy)
    assert expected.f1_allowed is not None
    assert expected.verdict.outcome == "PASS"
    assert 0.8 < expected.f1_allowed.low < expected.f1_allowed.high < 1
    for f1 in (expected.f1_allowed.low - 0.001, expected.f1_allowed.high + 0.001, None):
        gate = judge((trial(), replace(trial(), f1=f1)), LOGITS, "int8", noisy)
        assert gate.verdict.outcome == "REGRESSION"
        assert "the original's interval" in gate.verdict.reason


def test_without_labels_8_bits_are_judged_only_by_agreement_and_the_record_has_the_reason() -> None:
    gate = judge((trial(flips=6, delta=0.1),), LOGITS, "int8")
    assert gate.verdict.outcome == "PASS"
    assert gate.f1_allowed is None
    assert "F1 not judged: the split has no labels" in gate.verdict.reason


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_f1_is_judged_only_for_8_bits(dtype: str) -> None:
    gate = judge((replace(trial(), f1=0.0),), LOGITS, dtype, LABELS)
    assert gate.verdict.outcome == "PASS"
    assert gate.f1_allowed is None


def test_a_model_whose_logits_are_not_finite_is_not_exported(
    tuned_model: Path, small_data: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tuned_model, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*")))
    weights = load_file(model / "model.safetensors")
    weights["classifier.weight"] *= 3e38
    weights["classifier.weight"].clamp_(-3e38, 3e38)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MrpcbenchError, match=r"\d+ of 40 pairs got non-finite logits from the original model"):
        export(ExportPlan(model=str(model), data=str(small_data), device="cpu"), tmp_path / "r.json", Listener())
    assert not (model / "onnx").exists()
