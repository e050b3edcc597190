"""The seeds, settings and command lines of a study."""

from pathlib import Path

import pytest
from conftest import Outcome

from mrpcbench.errors import UsageError
from mrpcbench.schema.requests import StudyPlan, TrainRecipe, TrainRequest
from mrpcbench.training.study.plan import check_request, seeds_of, settings_of, trials_of


def test_seeds_are_a_count_from_42_on_or_a_list() -> None:
    assert seeds_of(StudyPlan()) == (42, 43, 44, 45, 46, 47)
    assert seeds_of(StudyPlan(seeds="1,2,5")) == (1, 2, 5)
    assert seeds_of(StudyPlan(seeds="7,")) == (7,)


@pytest.mark.parametrize(
    ("seeds", "problem"),
    [("1,2,1", "1 is given twice"), ("0", "neither a number"), ("-3", "neither"), ("1;2", "neither"), ("", "neither")],
)
def test_other_seeds_are_one_line(seeds: str, problem: str) -> None:
    with pytest.raises(UsageError, match=f"--seeds {seeds}: {problem}"):
        seeds_of(StudyPlan(seeds=seeds))


def test_settings_are_the_combinations_of_all_values() -> None:
    plan = StudyPlan(set=("learning-rate=5e-5,0.00008", "warmup_steps=0,10", "group_by_length=true"))
    found = settings_of(plan, TrainRecipe(max_steps=9))
    assert [one.name for one in found] == [
        f"learning_rate={rate},warmup_steps={steps},group_by_length=true"
        for rate in ("5e-05", "8e-05")
        for steps in (0, 10)
    ]
    recipe = TrainRecipe(max_steps=9, learning_rate=8e-5, warmup_steps=10, group_by_length=True)
    assert found[-1].recipe == recipe
    assert found[-1].values == {"learning_rate": "8e-05", "warmup_steps": "10", "group_by_length": "true"}
    assert [one.name for one in settings_of(StudyPlan(), TrainRecipe())] == ["default"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("learning_rat=1", "train has no option learning_rat for its recipe; did you mean learning_rate?"),
        ("model=x", "train has no option model for its recipe"),
        ("seed=1,2", "use --seeds"),
        ("learning_rate", "values are missing; write learning_rate=VALUE,VALUE"),
        ("learning_rate=1e-5,", "values are missing"),
        ("learning_rate=fast", "fast is not a number"),
        ("learning_rate=nan", "should be a finite number"),
        ("learning_rate=-1", "--learning-rate -1: at least 0"),
        ("warmup_steps=1.5", "1.5 is not a whole number"),
        ("group_by_length=maybe", "maybe is not true or false"),
        ("engine=warp", "engine='warp'"),
        ("learning_rate=5e-5,0.00005", "a value is given twice"),
    ],
)
def test_a_setting_that_train_has_not_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        settings_of(StudyPlan(set=(text,)), TrainRecipe())
    assert str(raised.value).startswith(f"--set {text}: ")
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_option_is_set_once() -> None:
    with pytest.raises(UsageError, match="warmup_steps is given twice"):
        settings_of(StudyPlan(set=("warmup_steps=1", "warmup-steps=2")), TrainRecipe())


def test_a_trial_is_the_command_that_a_user_would_type(tmp_path: Path) -> None:
    plan = StudyPlan(output_dir=str(tmp_path), nproc=2)
    request = TrainRequest(model="quickstart", data=str(tmp_path), device="cpu", random_init=True)
    settings = settings_of(StudyPlan(set=("learning_rate=5e-5,8e-5",)), TrainRecipe(max_steps=9))
    trials = trials_of(plan, request, settings, (1, 2), python="python", variables={"OMP_NUM_THREADS": "1"})
    assert [(trial.seed, trial.setting) for trial in trials] == [
        (seed, f"learning_rate={rate}") for seed in (1, 2) for rate in ("5e-05", "8e-05")
    ]
    folder = f"{tmp_path}/learning_rate=5e-05/seed-1"
    expected = (
        "python -m torch.distributed.run --standalone --nproc-per-node 2 -m mrpcbench train --model quickstart "
        f"--data {tmp_path} --output-dir {folder} --device cpu --random-init --max-steps 9 --learning-rate 5e-05 "
        f"--seed 1 --results {folder}/mrpcbench-train.json"
    )
    assert " ".join(trials[0].command) == expected


def test_what_the_study_chooses_is_no_option() -> None:
    with pytest.raises(UsageError, match="--seed: study chooses it for each trial; use --seeds"):
        check_request(TrainRequest(), TrainRecipe(seed=1))
    with pytest.raises(UsageError, match="--resume: study chooses it for each trial"):
        check_request(TrainRequest(resume=True), TrainRecipe())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--nothing", "1"], "No such option: --nothing"),
        (["--learning-rate", "fast"], "'fast' is not a valid float"),
        (["--seed", "3"], "--seed: study chooses it for each trial; use --seeds"),
        (["--results", "x.json"], "--results: not for study"),
        (["--seeds", "1,1"], "1 is given twice"),
        (["stray"], "unexpected extra argument(s) (stray)"),
    ],
)
def test_the_command_line_takes_the_options_of_train(arguments: list[str], problem: str, mrpcbench: Outcome) -> None:
    found = mrpcbench("study", *arguments)  # type: ignore[operator]
    assert (found.status, found.out) == (2, "")
    assert problem in found.err
    assert len(found.err.splitlines()) == 1
