"""Small valid records of every command for tests, and the private strings that no record may contain."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mrpcbench.records.seeds import summarised as with_summaries
from mrpcbench.records.summary import summarised
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.bench_results import AbPair, AbSection, AbSide, BenchRow, BenchSection, Resources
from mrpcbench.schema.gate_requests import AbPlan
from mrpcbench.schema.identity import Command, DataIdentity, Environment, ModelIdentity, Placement
from mrpcbench.schema.records import RECORDS, Record, StudySection, StudySetting, StudyTrial, TrainRecord
from mrpcbench.schema.requests import BackendSpec, TrainRecipe
from mrpcbench.schema.results import (
    Confusion,
    EpochMetrics,
    EvalScore,
    EvaluateSection,
    ExportGate,
    ExportSection,
    LoadReport,
    ParityTrial,
    TrainSection,
)
from mrpcbench.schema.verdicts import Compared, Comparison, Interval, MetricResult, Verdict

COMMANDS: tuple[Command, ...] = ("train", "evaluate", "export", "bench", "ab", "study")

ENVIRONMENT = Environment(
    started_at="2025-01-02T03:04:05+00:00",
    argv=("mrpcbench", "evaluate", "--model", "tuned"),
    machine_sha256="5" * 64,
    system="Linux x86_64",
    cpu="AMD EPYC 9654 96-Core Processor",
    cpu_cores=2,
    memory_bytes=8 * 2**30,
    gpu=None,
    gpu_memory_bytes=None,
    gpu_driver=None,
    cuda=None,
    python="3.11.7",
    settings={},
    packages={"mrpcbench": "0.1.0", "torch": "2.13.0+cpu", "transformers": "4.57.6"},
    git_commit="0123456789abcdef0123456789abcdef01234567",
    git_dirty=False,
)
MODEL = ModelIdentity(
    name="tuned",
    architecture="ModernBertForSequenceClassification",
    parameters=149_606_402,
    weights="fine-tuned",
    origin="pretrained",
    model_sha256="a" * 64,
    tokenizer_sha256="b" * 64,
)
TORCH = Placement(engine="torch 2.13.0", device="cpu", provider="sdpa", dtype="fp32", threads=2)
ONNX = Placement(engine="onnxruntime 1.31.0", device="cpu", provider="CPUExecutionProvider", dtype="fp32", threads=2)

# The readings of a machine without sensors.
NOTHING = Resources(
    rss_bytes=None,
    cpu_utilisation=None,
    gpu_memory_process_bytes=None,
    gpu_clock_mhz=None,
    gpu_temperature_c=None,
    gpu_power_w=None,
    gpu_energy_j=None,
    gpu_throttle_reasons=None,
    gpu_foreign_processes=None,
)


def make_data(split: str = "validation", **changes: Any) -> DataIdentity:
    """MRPC's `split` as a record names it."""
    found = DataIdentity(
        source="mrpc",
        split=split,
        pairs=408,
        positives=279,
        label_names=("not_equivalent", "equivalent"),
        data_sha256="c" * 64,
    )
    return replace(found, **changes)


def make_row(scenario: str = "offline", samples: int = 3, **changes: Any) -> BenchRow:
    """A row whose samples are 10, 11, 12, ... milliseconds."""
    changes.setdefault("case", changes.get("spec", BackendSpec()).backend)
    row = BenchRow(
        case="torch",
        spec=BackendSpec(model="tuned"),
        placement=TORCH,
        model=MODEL,
        scenario=scenario,  # type: ignore[arg-type]
        order="length" if scenario == "offline" else None,
        batch_size=1 if scenario == "single-stream" else 32,
        pairs=408,
        real_tokens=21_000,
        padding_tokens=800,
        open_ms=512.5,
        first_ms=40.25,
        samples_ms=tuple(10.0 + index for index in range(samples)),
        accuracy=351 / 408,
        f1=506 / 563,
        peak_memory_bytes=None,
    )
    return replace(row, **changes)


def make_gate(**changes: Any) -> ExportGate:
    """An export gate that passed."""
    trial = ParityTrial(
        batch_size=8, padding="longest pair", padding_tokens=91, flips=0, max_abs_delta=2.5e-6, p99_abs_delta=1.5e-6
    )
    gate = ExportGate(
        pairs=408,
        trials=(trial, replace(trial, batch_size=32, padding_tokens=807)),
        flips_allowed=0,
        delta_allowed=1e-3,
        smallest_margin=0.0125,
        headroom=5000.0,
        flip_rate_bound=0.00731,
        verdict=Verdict(outcome="PASS", reason="0 of 408 labels flip"),
    )
    return replace(gate, **changes)


def make_score(**changes: Any) -> EvalScore:
    """A score on MRPC's validation split."""
    score = EvalScore(
        pairs=408,
        accuracy=351 / 408,
        accuracy_interval=Interval(low=0.8233, high=0.8906, level=0.95, method="wilson"),
        f1=506 / 563,
        f1_interval=Interval(low=0.8700, high=0.9241, level=0.95, method="percentile bootstrap, 10000 resamples"),
        precision=253 / 284,
        recall=253 / 279,
        loss=0.3527,
        confusion=Confusion(true_positive=253, false_positive=31, false_negative=26, true_negative=98),
        majority_accuracy=279 / 408,
        majority_f1=558 / 687,
    )
    return replace(score, **changes)


def make_epoch(epoch: int = 1, **changes: Any) -> EpochMetrics:
    """The training log's line of `epoch`."""
    line = EpochMetrics(
        step=115 * epoch,
        train_loss=0.551234 / epoch,
        train_grad_norm=9.25,
        train_learning_rate=8e-5 / epoch,
        train_epoch=float(epoch),
        eval_loss=0.361234,
        eval_accuracy_score=344 / 408,
        eval_f1_score=506 / 570,
    )
    return replace(line, **changes)


def make_train(**changes: Any) -> TrainSection:
    """The reference run's two epochs."""
    section = TrainSection(
        recipe=TrainRecipe(),
        placement=TORCH,
        base_model=replace(MODEL, name="answerdotai/ModernBERT-base", weights="pretrained"),
        load_report=LoadReport(new_head=("classifier.bias", "classifier.weight")),
        aligned_tokens={"bos_token_id": None, "eos_token_id": 50282},
        total_steps=230,
        resumed_from_step=None,
        epochs=(make_epoch(1), make_epoch(2)),
        best_step=230,
        train_s=61.5,
        real_tokens=400_000,
        padding_tokens=120_000,
    )
    return replace(section, **changes)


def make_evaluate(**changes: Any) -> EvaluateSection:
    """A scored validation split."""
    section = EvaluateSection(
        spec=BackendSpec(model="tuned"),
        placement=TORCH,
        batch_size=32,
        score=make_score(),
        predictions_file="evaluate.predictions.jsonl",
        predictions_sha256="d" * 64,
        real_tokens=21_000,
        padding_tokens=800,
    )
    return replace(section, **changes)


def make_export(**changes: Any) -> ExportSection:
    """A proven float32 graph."""
    section = ExportSection(
        dtype="fp32",
        opset=18,
        nodes=1834,
        files={"model.onnx": 598_500_000, "config.json": 1_200},
        placement=ONNX,
        reference=TORCH,
        gate=make_gate(),
    )
    return replace(section, **changes)


def make_bench(**changes: Any) -> BenchSection:
    """Both scenarios on torch."""
    section = BenchSection(
        plan=BenchPlan(data="mrpc"),
        rows=(make_row("single-stream", samples=1224), make_row("offline")),
        rounds_done=3,
        peak_rss_bytes=2**30,
    )
    return summarised(replace(section, **changes))


def make_comparison(**changes: Any) -> Comparison:
    """A comparison that passed on one metric."""
    metric = MetricResult(
        metric="batch of 1",
        gated=True,
        verdict=Verdict(outcome="PASS", reason="B is 0.4% slower; the limit is 3%"),
        baseline=10.0,
        current=10.04,
        unit="ms",
        change=0.4,
        change_unit="%",
        interval=Interval(low=-0.5, high=1.1, level=0.95, method="percentile bootstrap, 10000 resamples"),
        test="one-sided Wilcoxon signed-rank, exact",
        p_value=0.31,
        limit="slower by more than 3% with p < 0.05, twice",
    )
    side = Compared(
        name="tuned", started_at=ENVIRONMENT.started_at, git_commit="0123456", model="tuned", model_sha256="a" * 64
    )
    made = Comparison(
        kind="ab",
        baseline=(side,),
        current=(side,),
        metrics=(metric,),
        verdict=Verdict(outcome="PASS", reason="batch of 1: B is 0.4% slower; the limit is 3%"),
    )
    return replace(made, **changes)


def make_ab(**changes: Any) -> AbSection:
    """Ten pairs of processes that agree."""
    side = AbSide(
        spec=BackendSpec(model="tuned"), placement=TORCH, model=MODEL, python="3.11.7", packages={"torch": "2.13.0"}
    )
    pair = AbPair(first="a", a_samples_ms=(10.0, 10.5, 10.1), b_samples_ms=(10.1, 10.2, 10.0))
    section = AbSection(
        plan=AbPlan(a_model="tuned", data="mrpc"), a=side, b=side, pairs=(pair,) * 10, comparison=make_comparison()
    )
    return replace(section, **changes)


def balanced_data() -> DataIdentity:
    """Validation pairs of which some answers have any accuracy of three digits, and an F1 that equals it."""
    return make_data(pairs=2000, positives=1000)


def make_study(scores: Mapping[str, Sequence[float]] | None = None, **changes: Any) -> StudySection:
    """Six seeds of the reference recipe; `scores` are the accuracies of the seeds of each setting."""
    settings = tuple(
        StudySetting(
            name=name,
            values=dict(part.split("=") for part in name.split(",") if "=" in part),
            trials=tuple(_make_trial(name, 42 + index, score) for index, score in enumerate(accuracies)),
        )
        for name, accuracies in (scores or {"default": (0.84, 0.85, 0.86, 0.87, 0.50, 0.88)}).items()
    )
    seeds = tuple(dict.fromkeys(trial.seed for setting in settings for trial in setting.trials))
    section = StudySection(
        recipe=TrainRecipe(), seeds=seeds, launcher="local", threads=2, processes=1, settings=settings
    )
    return replace(with_summaries(section, balanced_data()), **changes)


def _make_trial(setting: str, seed: int, accuracy: float) -> StudyTrial:
    last = replace(make_epoch(2), eval_accuracy_score=accuracy, eval_f1_score=accuracy)
    first = replace(last, step=make_epoch(1).step, train_epoch=1.0)
    section = make_train(recipe=TrainRecipe(seed=seed), epochs=(first, last))
    record = TrainRecord(
        complete=True,
        environment=ENVIRONMENT,
        model=replace(MODEL, model_sha256=f"{seed:064x}"),
        data=(make_data("train"), balanced_data()),
        train=section,
    )
    return StudyTrial(seed=seed, folder=f"{setting}/seed-{seed}", record=record)


def make_record(command: Command, **changes: Any) -> Record:
    """A finished record of `command`; `changes` are fields of the record, its section among them."""
    proven = replace(MODEL, graph_sha256="e" * 64, proven=True)
    sections: dict[Command, Callable[[], Any]] = {
        "train": make_train,
        "evaluate": make_evaluate,
        "export": make_export,
        "bench": make_bench,
        "ab": make_ab,
        "study": make_study,
    }
    data: dict[Command, tuple[DataIdentity, ...]] = {
        "train": (make_data("train", pairs=3668, positives=2474), make_data()),
        "study": (make_data("train"), balanced_data()),
    }
    fields: dict[str, Any] = {
        "complete": True,
        "environment": ENVIRONMENT,
        "model": proven if command == "export" else MODEL,
        "data": data.get(command, (make_data(),)),
        command: sections[command](),
    }
    return RECORDS[command](**{**fields, **changes})


def strings_in(value: Any) -> Iterator[str]:
    """Every string of a JSON document, including its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *strings_in(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_in(item)


def given_away(document: Any, *secrets: str) -> list[str]:
    """The strings of `document` that hold an absolute path or one of `secrets` as a word of its own."""
    path = r"(^|[\s=:'\"(,])(/|~/?|[A-Za-z]:\\)[\w.-]|file://|/(home|Users|root|tmp|work|mnt)(/|$)"
    words = "".join(rf"|(?<![\w.-]){re.escape(secret)}(?![\w-])" for secret in secrets)
    return [text for text in strings_in(document) if re.search(path + words, text)]
