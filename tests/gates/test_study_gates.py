"""Gates and studies: runs are paired by their seeds, and a single run is seen within the noise of the seeds."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Listener
from records import make_epoch, make_evaluate, make_record, make_score, make_study, make_train

from mrpcbench.commands.baseline import set_baseline
from mrpcbench.commands.compare import compare
from mrpcbench.errors import UsageError
from mrpcbench.gates.policy import AccuracyPolicy, F1Policy, Policy
from mrpcbench.gates.seeds import judge_train, noise_notes
from mrpcbench.records import store
from mrpcbench.records.seeds import sign_flip_p
from mrpcbench.schema.gate_requests import BaselineFolder, BaselineRequest, ComparePlan
from mrpcbench.schema.records import EvaluateRecord, StudyRecord, StudyTrial, TrainRecord
from mrpcbench.schema.requests import TrainRecipe
from mrpcbench.schema.results import TrainSection

ONE = Policy(accuracy=AccuracyPolicy(gate=True), f1=F1Policy(gate=False))
SCORES = (0.84, 0.85, 0.86, 0.87, 0.83, 0.88)


def seeds(scores: tuple[float, ...], first: int = 42) -> list[TrainSection]:
    lasts = [make_epoch(2, eval_accuracy_score=score, eval_f1_score=score) for score in scores]
    return [
        make_train(recipe=TrainRecipe(seed=first + index), epochs=(make_epoch(1), last))
        for index, last in enumerate(lasts)
    ]


def begun(trial: StudyTrial, started_at: str) -> StudyTrial:
    assert trial.record
    environment = replace(trial.record.environment, started_at=f"{started_at}#{trial.seed}")
    return replace(trial, record=replace(trial.record, environment=environment))


def a_study(*scores: tuple[float, ...], started_at: str = "2025-02-02T00:00:00+00:00") -> StudyRecord:
    names = ["default"] if len(scores) == 1 else [f"warmup_steps={index}" for index in range(len(scores))]
    section = make_study(dict(zip(names, scores, strict=True)))
    settings = tuple(
        replace(one, trials=tuple(begun(trial, started_at) for trial in one.trials)) for one in section.settings
    )
    found = make_record("study", study=replace(section, settings=settings))
    assert isinstance(found, StudyRecord)
    return found


def test_sides_that_share_enough_seeds_are_paired() -> None:
    """Each seed loses 1.5 points, which is less than the seeds differ: only the pairs show it."""
    worse = tuple(score - 0.015 for score in SCORES)
    accuracy = judge_train(seeds(SCORES), seeds(worse), ONE)[0]
    assert accuracy.test == "paired permutation of 6 seeds"
    assert accuracy.p_value == 1 / 64
    assert accuracy.verdict.outcome == "REGRESSION"
    apart = judge_train(seeds(SCORES), seeds(worse, first=100), ONE)[0]
    assert apart.test == "permutation of 6 and 6 seeds"
    assert apart.verdict.outcome == "PASS"


def test_the_pairs_are_those_of_equal_seeds_in_any_order() -> None:
    worse = seeds(tuple(score - 0.015 for score in (*SCORES, 0.99)))
    accuracy = judge_train(seeds(SCORES), worse[::-1], ONE)[0]
    assert (accuracy.test, accuracy.p_value) == ("paired permutation of 6 seeds", 1 / 64)
    assert accuracy.change == pytest.approx(-1.5)


def test_the_interval_of_pairs_ends_where_the_test_starts_to_reject() -> None:
    worse = tuple(score - 0.015 + index / 1000 for index, score in enumerate(SCORES))
    interval = judge_train(seeds(SCORES), seeds(worse), ONE)[0].interval
    assert interval is not None
    differences = [now - was for was, now in zip(SCORES, worse, strict=True)]
    for end, sign in ((interval.high, 1), (-interval.low, -1)):
        moved = [[sign * one - (end + step) / 100 for one in differences] for step in (0.01, -0.01)]
        refuted = [sign_flip_p(one, alternative="less") < 0.05 for one in moved]
        assert refuted == [True, False]


def test_a_baseline_may_hold_a_study_beside_a_run(tmp_path: Path) -> None:
    study = a_study(SCORES)
    (trial, *_) = study.study.settings[0].trials
    assert trial.record
    files = [tmp_path / "train.json", tmp_path / "study.json"]
    store.save(trial.record, files[0])
    store.save(study, files[1])
    place = BaselineFolder(folder=str(tmp_path / "baselines"))
    found = set_baseline("main", files, place, BaselineRequest(), Listener())
    assert (found.files, found.command) == (("study.json", "train.json"), "train")
    bench = tmp_path / "bench.json"
    store.save(make_record("bench"), bench)
    with pytest.raises(UsageError, match="records of bench and study"):
        set_baseline("other", [bench, files[1]], place, BaselineRequest(), Listener())


def test_too_few_shared_seeds_are_compared_without_pairs() -> None:
    accuracy = judge_train(seeds(SCORES[:4]), seeds(tuple(score - 0.1 for score in SCORES[:4])), ONE)[0]
    assert (accuracy.test, accuracy.verdict.outcome) == ("permutation of 4 and 4 seeds", "REGRESSION")


def test_compare_takes_studies_and_the_folder_of_a_setting(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "study.json", tmp_path / "new" / "study.json"
    store.save(a_study(SCORES), old)
    store.save(a_study(tuple(one - 0.015 for one in SCORES), started_at="2025-03-03"), new)
    for sides in (([old], [new]), ([old.parent], [new.parent])):
        found = compare(*sides, ComparePlan())
        assert found.verdict.outcome == "REGRESSION"
        assert [one.name for one in found.baseline][:1] == ["old/default/seed-42/mrpcbench-train.json"]
    several = tmp_path / "two" / "study.json"
    store.save(a_study(SCORES, SCORES), several)
    with pytest.raises(UsageError, match=r"a study of 2 settings; name the folder of one: .*two/warmup_steps=0"):
        compare([old], [several], ComparePlan())
    for seed, trial in enumerate(a_study(SCORES, started_at="2025-04-04").study.settings[0].trials):
        assert trial.record
        store.save(trial.record, several.parent / "warmup_steps=0" / f"seed-{seed}" / "mrpcbench-train.json")
    assert compare([old], [several.parent / "warmup_steps=0"], ComparePlan()).verdict.outcome == "PASS"
    store.save(replace(a_study(SCORES), complete=False), several)
    with pytest.raises(UsageError, match="the run was not finished"):
        compare([old], [several], ComparePlan())


def test_a_single_run_is_seen_within_the_noise_of_the_seeds() -> None:
    study = a_study(SCORES)
    (trial, *_) = study.study.settings[0].trials
    assert trial.record is not None
    for accuracy, place in ((0.85, "within"), (0.70, "below"), (0.99, "above")):
        last = make_epoch(2, eval_accuracy_score=accuracy, eval_f1_score=0.85)
        run = replace(trial.record, train=make_train(recipe=TrainRecipe(seed=7), epochs=(make_epoch(1), last)))
        notes = noise_notes(study, "study.json", run, ())
        assert notes[0].startswith(
            f"accuracy {accuracy:.4f} lies {place} seed noise: 95% of further seeds lie between 0.80"
        )
        assert notes[1].startswith("f1 0.8500 lies within seed noise")
    other = replace(trial.record, train=make_train(recipe=TrainRecipe(seed=7, warmup_steps=9)))
    assert noise_notes(study, "study.json", other, ()) == [
        "study.json: a study of another recipe, model or data; it says nothing about this run"
    ]


def test_an_evaluation_is_of_the_study_if_one_of_the_models_is() -> None:
    study = a_study(SCORES)
    (trial, *_) = study.study.settings[0].trials
    assert trial.record is not None
    run = make_record("evaluate", evaluate=make_evaluate(score=replace(make_score(), accuracy=0.84)))
    assert isinstance(run, EvaluateRecord)
    known = noise_notes(study, "study.json", run, (trial.record.model.model_sha256,))
    assert known[0].startswith("accuracy 0.8400 lies within seed noise")
    assert "says nothing" in noise_notes(study, "study.json", run, ("0" * 64,))[0]


def test_a_study_beside_a_baseline_adds_a_note_and_no_verdict(tmp_path: Path) -> None:
    study = a_study(SCORES)
    runs = [trial.record for trial in study.study.settings[0].trials if trial.record]
    store.save(study, tmp_path / "main" / "study.json")
    store.save(runs[0], tmp_path / "main" / "train.json")
    now = replace(runs[1], environment=replace(runs[1].environment, started_at="2025-05-05"))
    assert isinstance(now, TrainRecord)
    store.save(now, tmp_path / "now.json")
    found = compare([tmp_path / "main"], [tmp_path / "now.json"], ComparePlan())
    alone = compare([tmp_path / "main" / "train.json"], [tmp_path / "now.json"], ComparePlan())
    assert found.notes[0].startswith("accuracy 0.8500 lies within seed noise")
    assert (found.verdict, alone.notes) == (alone.verdict, ())
