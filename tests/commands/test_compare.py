"""Tests of `mrpcbench compare`: what it reads, what it refuses, and the verdict with its exit code."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, Listener, Outcome
from records import (
    COMMANDS,
    balanced_data,
    given_away,
    make_bench,
    make_data,
    make_epoch,
    make_evaluate,
    make_export,
    make_record,
    make_row,
)
from records import make_train as make_run

from mrpcbench.commands.compare import compare
from mrpcbench.commands.evaluate import evaluate
from mrpcbench.errors import ExitStatus, UsageError
from mrpcbench.gates.comparability import COMPARED
from mrpcbench.records import store
from mrpcbench.records.scores import score
from mrpcbench.schema.gate_requests import ComparePlan
from mrpcbench.schema.identity import Command
from mrpcbench.schema.records import BenchRecord, RunRecord
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, TrainRecipe
from mrpcbench.schema.verdicts import EXIT_STATUS, Comparison

PLAN = ComparePlan()
PAIRS = 408


def started(day: int, record: RunRecord) -> RunRecord:
    return replace(record, environment=replace(record.environment, started_at=f"2025-01-{day:02}T00:00:00+00:00"))


def saved(path: Path, record: RunRecord) -> Path:
    store.save(record, path)
    return path


def scored(path: Path, wrong: range, day: int = 1, **changes: Any) -> Path:
    """An evaluate record with its predictions, of which those in `wrong` are the other label."""
    labels = np.arange(PAIRS) % 3 > 0
    said = labels ^ np.isin(np.arange(PAIRS), wrong)
    logits = np.stack([~said, said], axis=1).astype(np.float32)
    rows = [
        {"index": index, "label": int(labels[index]), "logits": list(map(float, logits[index])), "prediction": int(one)}
        for index, one in enumerate(said)
    ]
    predictions = path.with_name(f"{path.stem}.predictions.jsonl")
    section = make_evaluate(
        score=score(logits, labels.astype(np.int64)),
        predictions_file=predictions.name,
        predictions_sha256=store.write_jsonl(predictions, rows),
    )
    data = make_data(positives=int(labels.sum()))
    return saved(path, started(day, make_record("evaluate", evaluate=section, **{"data": (data,), **changes})))


def trained(path: Path, seed: int, accuracy: float, day: int = 1) -> Path:
    run = make_run(
        recipe=TrainRecipe(seed=seed), epochs=(make_epoch(2, eval_accuracy_score=accuracy, eval_f1_score=accuracy),)
    )
    base, data = replace(run.base_model, model_sha256=f"{seed:x}" * 64), (make_data("train"), balanced_data())
    return saved(path, started(day, make_record("train", train=replace(run, base_model=base), data=data)))


def edited(path: Path, **changes: Any) -> Path:
    """The record in `path` with other top-level values, written without validation."""
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **changes}), encoding="utf-8")
    return path


def outcome(comparison: Comparison) -> tuple[str, ExitStatus]:
    return comparison.verdict.outcome, EXIT_STATUS[comparison.verdict.outcome]


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_loses_five_pairs_of_408_fails_and_four_pass(tmp_path: Path) -> None:
    baseline = scored(tmp_path / "old.json", range(0))
    five, four = (scored(tmp_path / f"{losses}.json", range(losses), day=2) for losses in (5, 4))
    found = compare([baseline], [five], PLAN)
    assert outcome(found) == ("REGRESSION", ExitStatus.REGRESSION)
    assert found.verdict.reason == "accuracy: 5 of 408 pairs lost and 0 gained, p 0.0312"
    assert (found.kind, found.differences, found.warnings) == ("evaluate", (), ())
    assert outcome(compare([baseline], [four], PLAN)) == ("PASS", ExitStatus.OK)


def test_files_with_the_same_name_get_as_few_folders_as_make_them_distinct(tmp_path: Path) -> None:
    paths = [tmp_path / place / "results" / "e.json" for place in ("one", "two")]
    for day, path in enumerate(paths, 1):
        path.parent.mkdir(parents=True)
        scored(path, range(0), day=day)
    found = compare([paths[0]], [paths[1]], PLAN)
    assert (found.baseline[0].name, found.current[0].name) == ("one/results/e.json", "two/results/e.json")
    same = compare([paths[0]], [paths[0]], PLAN)
    assert (same.baseline[0].name, same.current[0].name) == ("e.json", "e.json")
    alike = compare(
        [paths[0]], [Path(shutil.copytree(paths[0].parent, tmp_path / "three" / "results") / "e.json")], PLAN
    )
    assert any("one/results/e.json and three/results/e.json" in line for line in alike.differences), alike.differences


def test_a_comparison_names_both_records_and_their_models(tmp_path: Path) -> None:
    found = compare([scored(tmp_path / "old.json", range(0))], [scored(tmp_path / "new.json", range(1), day=2)], PLAN)
    (old,), (new,) = found.baseline, found.current
    assert (old.name, new.name) == ("old.json", "new.json")
    assert (old.started_at, old.model, old.model_sha256) == (
        "2025-01-01T00:00:00+00:00",
        "tuned (fine-tuned)",
        "a" * 64,
    )
    assert old.engine == "torch 2.13.0 sdpa fp32 on cpu"
    assert new.git_commit == "0123456789abcdef0123456789abcdef01234567"
    assert not given_away(json.loads(store.to_json(found)))


def test_the_gated_metrics_come_first(tmp_path: Path) -> None:
    policy = tmp_path / "gate.toml"
    policy.write_text("[f1]\nfloor = 0.5\n", encoding="utf-8")
    plan = ComparePlan(policy=str(policy))
    old, new = scored(tmp_path / "old.json", range(0)), scored(tmp_path / "new.json", range(1), day=2)
    metrics = compare([old], [new], plan).metrics
    assert [metric.metric for metric in metrics] == ["accuracy", "f1 floor", "f1", "loss"]
    assert [metric.gated for metric in metrics] == [True, True, False, False]


def test_the_policy_decides(tmp_path: Path) -> None:
    policy = tmp_path / "gate.toml"
    policy.write_text("[accuracy]\nnet_loss = 0.05\n", encoding="utf-8")
    old, new = scored(tmp_path / "old.json", range(0)), scored(tmp_path / "new.json", range(5), day=2)
    assert compare([old], [new], ComparePlan(policy=str(policy))).verdict.outcome == "PASS"


def test_with_a_margin_too_few_pairs_are_inconclusive(tmp_path: Path) -> None:
    old, new = scored(tmp_path / "old.json", range(0)), scored(tmp_path / "new.json", range(4), day=2)
    assert outcome(compare([old], [new], ComparePlan(margin=0.02))) == ("INCONCLUSIVE", ExitStatus.INCONCLUSIVE)
    assert compare([old], [new], ComparePlan(margin=0.05)).verdict.outcome == "PASS"


def test_a_difference_makes_the_comparison_incomparable_and_nothing_is_judged(tmp_path: Path) -> None:
    old = scored(tmp_path / "old.json", range(0))
    new = scored(tmp_path / "new.json", range(0), day=2, data=(make_data("test", positives=272, data_sha256="9" * 64),))
    found = compare([old], [new], PLAN)
    assert outcome(found) == ("INCOMPARABLE", ExitStatus.INCOMPARABLE)
    assert found.differences == ("split: validation, now test", "data_sha256: cccccccccccc, now 999999999999")
    assert found.metrics == ()


def test_a_run_compared_with_itself_does_not_pass(tmp_path: Path) -> None:
    record = scored(tmp_path / "one.json", range(9))
    found = compare([record], [record], PLAN)
    assert outcome(found) == ("INCOMPARABLE", ExitStatus.INCOMPARABLE)
    assert found.differences == ("one.json and one.json are the same run; compare with another",)


def test_folders_of_seeds_are_compared(tmp_path: Path) -> None:
    for seed in range(1, 5):
        trained(tmp_path / "old" / f"{seed}.json", seed, 0.86 + seed / 100)
        trained(tmp_path / "new" / f"{seed}.json", seed, 0.80 + seed / 100, day=2)
    found = compare([tmp_path / "old"], [tmp_path / "new"], PLAN)
    assert outcome(found) == ("REGRESSION", ExitStatus.REGRESSION)
    assert [item.name for item in found.baseline] == [f"old/{seed}.json" for seed in (1, 2, 3, 4)]
    assert found.metrics[0].p_value == 1 / 70
    files = [tmp_path / "old" / f"{seed}.json" for seed in range(1, 5)]
    assert compare(files, [tmp_path / "new"], PLAN) == found
    assert compare([tmp_path / "new"], [tmp_path / "old"], PLAN).verdict.outcome == "PASS"


def test_an_export_passes_if_its_gate_passed(tmp_path: Path) -> None:
    old, new = (saved(tmp_path / f"{day}.json", started(day, make_record("export"))) for day in (1, 2))
    assert outcome(compare([old], [new], PLAN)) == ("PASS", ExitStatus.OK)
    missing = saved(tmp_path / "new.json", started(2, make_record("export", export=make_export(gate=None))))
    assert outcome(compare([old], [missing], PLAN)) == ("INCONCLUSIVE", ExitStatus.INCONCLUSIVE)


def benched(path: Path, ms: float, day: int = 1, **changes: Any) -> Path:
    bench = make_bench(rows=(make_row(samples_ms=(ms,) * 3, broken_rules=()),))
    return saved(path, started(day, make_record("bench", bench=bench, **changes)))


@pytest.mark.parametrize(("ms", "expected"), [(12.0, "REGRESSION"), (10.0, "PASS"), (8.0, "PASS")])
def test_a_benchmark_is_compared_with_a_stored_one(tmp_path: Path, ms: float, expected: str) -> None:
    old, new = benched(tmp_path / "old.json", 10.0), benched(tmp_path / "new.json", ms, day=2)
    assert compare([old], [new], PLAN).verdict.outcome == expected
    assert compare([old], [new], ComparePlan(max_slowdown=0.25)).verdict.outcome == "PASS"


def test_a_benchmark_is_compared_with_a_folder_of_several_runs(tmp_path: Path) -> None:
    for day, ms in enumerate((10.0, 10.4, 10.8, 10.2), 1):
        benched(tmp_path / "main" / f"{day}.json", ms, day=day)
    found = compare([tmp_path / "main"], [benched(tmp_path / "new.json", 11.8, day=9)], PLAN)
    assert found.verdict.outcome == "PASS"
    assert "99% prediction limit of 4 baseline records" in found.verdict.reason
    assert len(found.baseline) == 4


def test_comparing_and_saving_benchmarks_loads_no_engine(tmp_path: Path) -> None:
    """Nor scipy.stats, which takes 0.8 s: a prediction limit needs scipy.special alone."""
    old = [benched(tmp_path / "old" / f"{day}.json", 10.0, day=day) for day in (1, 2, 3)]
    new = benched(tmp_path / "new.json", 10.0, day=4)
    program = """
        import atexit, sys
        heavy = "torch transformers datasets evaluate onnxruntime onnx optimum scipy.stats"
        atexit.register(lambda: print("LOADED", [name for name in heavy.split() if name in sys.modules]))
        from mrpcbench.cli.app import app
        app(sys.argv[1:])
    """
    kept = ["baseline", "set", "main", *map(str, old), "--folder", str(tmp_path / "kept")]
    for arguments in (kept, ["compare", str(tmp_path / "old"), str(new)]):
        command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr


def test_a_run_that_is_in_a_baseline_twice_is_incomparable(tmp_path: Path) -> None:
    for name in ("one", "two"):
        benched(tmp_path / "main" / f"{name}.json", 10.0)
    found = compare([tmp_path / "main"], [benched(tmp_path / "new.json", 10.0, day=2)], PLAN)
    assert found.differences == ("one.json and two.json are the same run; compare with another",)


def test_a_baseline_folder_of_two_machines_is_incomparable(tmp_path: Path) -> None:
    benched(tmp_path / "main" / "one.json", 10.0)
    elsewhere = replace(make_record("bench").environment, machine_sha256="6" * 64)
    benched(tmp_path / "main" / "two.json", 10.0, day=2, environment=elsewhere)
    found = compare([tmp_path / "main"], [benched(tmp_path / "new.json", 10.0, day=3)], PLAN)
    assert found.differences == ("two.json: machine_sha256: 555555555555, now 666666666666",)


def test_a_row_that_only_a_later_baseline_record_has_must_match_too(tmp_path: Path) -> None:
    """Otherwise its time would be compared with one on another number of threads."""
    row = make_row(samples_ms=(10.0,) * 3, broken_rules=())
    other = replace(row, batch_size=8)
    threaded = replace(other, placement=replace(other.placement, threads=1))
    for day, rows in enumerate(((row,), (row, other), (row, threaded)), 1):
        record = started(day, make_record("bench", bench=make_bench(rows=rows)))
        saved(tmp_path / ("main" if day < 3 else "now") / f"{day}.json", record)
    found = compare([tmp_path / "main"], [tmp_path / "now"], PLAN)
    assert found.differences == ("3.json: threads: 2, now 1 (torch offline batch 8)",)


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(baseline: list[Path], current: list[Path], plan: ComparePlan = PLAN) -> str:
    with pytest.raises(UsageError) as caught:
        compare(baseline, current, plan)
    return str(caught.value)


def test_no_baseline_is_an_error(tmp_path: Path) -> None:
    record = scored(tmp_path / "one.json", range(0))
    assert refused([], [record]).startswith("no record on the baseline; name a file")
    assert refused([record], []).startswith("no record on the current side")
    assert refused([tmp_path / "none.json"], [record]).startswith(f"{tmp_path / 'none.json'}: no such baseline")
    assert refused([record, tmp_path / "none.json"], [record]) == f"{tmp_path / 'none.json'}: no such file"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").touch()
    assert refused([tmp_path / "other"], [record]) == f"{tmp_path / 'other'}: no records in this folder"


def test_a_file_that_is_not_a_record_is_an_error(tmp_path: Path) -> None:
    record = scored(tmp_path / "one.json", range(0))
    other = tmp_path / "other.json"
    other.write_text("{}", encoding="utf-8")
    assert "schema version" in refused([record], [other])
    other.write_text(record.read_text(encoding="utf-8")[:500], encoding="utf-8")
    assert "truncated" in refused([other], [record])


def test_a_folder_of_several_kinds_is_an_error(tmp_path: Path) -> None:
    saved(tmp_path / "a.json", make_record("train"))
    bench = saved(tmp_path / "b.json", make_record("bench"))
    assert refused([tmp_path], [bench]) == f"{tmp_path}: records of bench and train; name records of one kind"
    assert refused([bench], [tmp_path]).endswith("name records of one kind")


@pytest.mark.parametrize("kind", ["evaluate", "export", "bench"])
def test_several_records_are_allowed_only_for_train_and_in_a_baseline_of_bench(tmp_path: Path, kind: Command) -> None:
    paths = [saved(tmp_path / f"{name}.json", make_record(kind)) for name in "ab"]
    assert f"2 records of {kind} on the current side; name one" in refused(paths[:1], paths)
    if kind != "bench":
        assert f"2 records of {kind} on the baseline; name one" in refused(paths, paths[:1])


@pytest.mark.parametrize("kind", ["train", "evaluate", "export", "bench"])
def test_a_run_that_was_not_finished_is_an_error_on_either_side(tmp_path: Path, kind: Command) -> None:
    whole = saved(tmp_path / "whole.json", make_record(kind))
    half = saved(tmp_path / "half.json", make_record(kind, complete=False))
    advice = "finish it, or run it again" if kind == "train" else "run it again"
    said = f"{half}: the run was not finished (complete: false); {advice}"
    assert refused([half], [whole]) == refused([whole], [half]) == said


@pytest.mark.parametrize("kind", sorted(set(COMMANDS) - set(COMPARED)))
def test_a_record_that_already_has_a_verdict_is_an_error(tmp_path: Path, kind: Command) -> None:
    path = saved(tmp_path / "one.json", make_record(kind))
    expected = (
        f"{path}: a record of {kind} already has a verdict; name records of train, evaluate, export, bench, study"
    )
    assert refused([path], [path]) == expected


@pytest.mark.parametrize("data", [(), (make_data(pairs=0),)])
def test_a_record_without_pairs_is_an_error(tmp_path: Path, data: Any) -> None:
    empty = saved(tmp_path / "empty.json", make_record("export", data=data))
    assert refused([empty], [empty]) == f"{empty}: it has no pairs"


def test_a_benchmark_without_rows_or_with_a_repeated_row_is_an_error(tmp_path: Path) -> None:
    none = saved(tmp_path / "none.json", make_record("bench", bench=make_bench(rows=())))
    assert refused([none], [none]) == f"{none}: it has no rows"
    twice = saved(tmp_path / "twice.json", make_record("bench", bench=make_bench(rows=(make_row(), make_row()))))
    assert refused([twice], [twice]) == f"{twice}: it has two rows with the same name"


@pytest.mark.parametrize("changes", [{"best_step": None}, {"best_step": 7}, {"epochs": ()}])
def test_a_run_without_its_best_epoch_is_an_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = saved(tmp_path / "run.json", make_record("train", train=make_run(**changes)))
    assert "no epoch ends at its best step" in refused([path], [path])


def test_an_option_of_another_kind_of_record_is_an_error(tmp_path: Path) -> None:
    bench, export = (saved(tmp_path / f"{kind}.json", make_record(kind)) for kind in ("bench", "export"))
    said = refused([bench], [bench], ComparePlan(margin=0.02))
    assert said == "--margin: only for records of evaluate; these are of bench"
    said = refused([export], [export], ComparePlan(max_slowdown=0.2))
    assert said == "--max-slowdown: only for records of bench; these are of export"


def test_a_figure_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.json", make_record("train"))
    text = good.read_text(encoding="utf-8")
    bad = tmp_path / "bad.json"
    bad.write_text(text.replace(str(344 / 408), "NaN"), encoding="utf-8")
    assert bad.read_text(encoding="utf-8") != text
    assert "eval_accuracy_score" in refused([good], [bad])


# --- predictions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return scored(tmp_path / "old.json", range(0)), scored(tmp_path / "new.json", range(0), day=2)


@pytest.mark.parametrize("side", ["old", "new"])
def test_missing_predictions_or_those_of_another_run_are_an_error(
    tmp_path: Path, two: tuple[Path, Path], side: str
) -> None:
    other = scored(tmp_path / "other.json", range(1)).with_name("other.predictions.jsonl")
    path = other.replace(tmp_path / f"{side}.predictions.jsonl")
    assert re.search(rf"{path}: sha256 is \w+, but the record was made with", refused([two[0]], [two[1]]))
    path.unlink()
    said = refused([two[0]], [two[1]])
    assert said.startswith(f"{tmp_path / side}.json needs its predictions: {path}: no such file; put the file next to")


def rewritten(record: Path, rows: list[Any] | str) -> None:
    """Other predictions with a matching hash in the record, so that only their content can be checked."""
    path = record.with_name(f"{record.stem}.predictions.jsonl")
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    store.write_text(path, text)
    document = json.loads(record.read_text(encoding="utf-8"))
    section = {**document["evaluate"], "predictions_sha256": hashlib.sha256(text.encode()).hexdigest()}
    edited(record, evaluate=section)


def rows_of(record: Path) -> list[Any]:
    text = record.with_name(f"{record.stem}.predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_that_is_not_a_prediction_is_an_error(two: tuple[Path, Path]) -> None:
    """The second pair has label 1, is predicted so, and has logits 0 and 1."""
    good = rows_of(two[1])
    assert good[1] == {"index": 1, "label": 1, "logits": [0.0, 1.0], "prediction": 1}
    values: dict[str, tuple[Any, ...]] = {
        "index": (4, True),
        "label": (2, True, 1.0),
        "prediction": (0.0, -1),
        "logits": ([0.0], [0.0, "1.0"], [-1e999, 1.0], [0.0, 1e999], [1.0, 0.0], None),
    }
    for change in ({name: value} for name, wrong in values.items() for value in wrong):
        rows = [good[0], good[1] | change, *good[2:]]
        rewritten(two[1], "".join(json.dumps(row).replace("Infinity", "1e999") + "\n" for row in rows))
        assert refused([two[0]], [two[1]]).endswith("new.predictions.jsonl: line 2 is not a valid prediction"), change


def test_lines_that_are_not_json_objects_are_errors(two: tuple[Path, Path]) -> None:
    text = two[1].with_name("new.predictions.jsonl").read_text(encoding="utf-8")
    for word in ("NaN", "Infinity", "-Infinity"):
        rewritten(two[1], text.replace("1.0", word, 1))
        assert f"not JSON lines ({word} is not JSON)" in refused([two[0]], [two[1]])
    rewritten(two[1], "[]\n" * PAIRS)
    assert "line 1 is not a valid prediction" in refused([two[0]], [two[1]])
    rewritten(two[1], "{\n" * PAIRS)
    assert "not JSON lines" in refused([two[0]], [two[1]])


def test_too_few_predictions_are_an_error(two: tuple[Path, Path]) -> None:
    rows = rows_of(two[1])
    for kept in (0, 1, PAIRS - 1):
        rewritten(two[1], rows[:kept])
        assert f"{kept} predictions do not give the score in" in refused([two[0]], [two[1]])


def test_predictions_that_do_not_give_the_score_are_an_error(tmp_path: Path, two: tuple[Path, Path]) -> None:
    worse = scored(tmp_path / "worse.json", range(1))
    rewritten(two[1], rows_of(worse))
    assert "408 predictions do not give the score in" in refused([two[0]], [two[1]])


def test_predictions_with_other_labels_are_an_error(two: tuple[Path, Path]) -> None:
    """The same counts in another order, for pairs with the same hash."""
    rows = rows_of(two[1])
    rows[0], rows[1] = {**rows[1], "index": 0}, {**rows[0], "index": 1}
    rewritten(two[1], rows)
    assert "its labels differ from the baseline's" in refused([two[0]], [two[1]])


def test_a_record_cannot_name_predictions_in_another_folder(tmp_path: Path, two: tuple[Path, Path]) -> None:
    document = json.loads(two[1].read_text(encoding="utf-8"))
    (tmp_path / "deep").mkdir()
    moved = tmp_path / "deep" / "new.json"
    section = {**document["evaluate"], "predictions_file": "../new.predictions.jsonl"}
    moved.write_text(json.dumps({**document, "evaluate": section}), encoding="utf-8")
    assert f"{tmp_path / 'deep' / 'new.predictions.jsonl'}: no such file" in refused([two[0]], [moved])


def test_predictions_that_cannot_be_read_are_an_error(tmp_path: Path, two: tuple[Path, Path]) -> None:
    path = tmp_path / "new.predictions.jsonl"
    path.unlink()
    path.mkdir()
    assert "cannot be read" in refused([two[0]], [two[1]])


# --- real records -----------------------------------------------------------------------------------------------------


def test_what_evaluate_writes_can_be_compared_also_with_quiet(
    tuned_model: Path, small_data: Path, tmp_path: Path, mrpcbench: Callable[..., Outcome]
) -> None:
    spec = BackendSpec(model=str(tuned_model), device="cpu")
    for name, size in (("old", 32), ("new", 8)):
        plan = EvaluatePlan(data=str(small_data), batch_size=size)
        evaluate(spec, plan, tmp_path / f"{name}.json", Listener())
    found = compare([tmp_path / "old.json"], [tmp_path / "new.json"], PLAN)
    assert found.verdict.outcome == "PASS"
    assert found.differences == ()
    assert "batch_size: 32, now 8" in found.warnings
    assert found.metrics[0].change == 0
    quiet = mrpcbench("-q", "compare", tmp_path / "old.json", tmp_path / "new.json")
    assert quiet.out.startswith("PASS")
    assert "warning: batch_size: 32, now 8\n" in quiet.err


def test_the_published_evaluate_records_never_pass_because_their_predictions_are_missing(tmp_path: Path) -> None:
    for record in sorted((REPOSITORY / "results").glob("*/evaluate*.json")):
        if not record.with_name(f"{record.stem}.predictions.jsonl").exists():
            assert "needs its predictions" in refused([record], [again(record, tmp_path)])


@pytest.mark.parametrize("kind", ["train", "export", "bench"])
def test_the_published_records_can_be_compared_with_a_rerun_of_another_day(kind: str, tmp_path: Path) -> None:
    for record in sorted((REPOSITORY / "results").glob(f"*/{kind}.json")):
        found = compare([record], [again(record, tmp_path)], PLAN)
        kept = store.load(record)
        rows = kept.bench.rows if isinstance(kept, BenchRecord) else ()
        inconclusive = kind == "train" or any(row.broken_rules != () for row in rows)
        assert (found.verdict.outcome, found.differences) == ("INCONCLUSIVE" if inconclusive else "PASS", ()), record


def again(record: Path, folder: Path) -> Path:
    """The same record, dated another day."""
    return saved(folder / record.name, started(9, store.load(record)))
