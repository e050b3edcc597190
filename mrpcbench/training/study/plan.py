"""The seeds and settings of a study, and the command line of each trial. Loads no torch."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.schema.fields import check, flags_of
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import StudyPlan, TrainRecipe, TrainRequest

# The record of a trial in its folder, where `train` also writes it at the end.
RECORD_FILE = "mrpcbench-train.json"
LOG_FILE = "train.log"
FIRST_SEED = 42
# The setting of a study without --set.
DEFAULT_SETTING = "default"
# The study chooses these for each trial.
CHOSEN = {
    "output_dir": "--output-dir of study",
    "seed": "--seeds",
    "resume": "",
    "overwrite": "",
    "push_to_hub": "",
    "private": "",
}


@dataclass(frozen=True)
class Setting:
    """A recipe to try: its name, the fields that --set has changed, and the whole, with the seed of no trial."""

    name: str
    values: dict[str, str]
    recipe: TrainRecipe


@dataclass(frozen=True)
class Trial:
    """One run of `train`: its folder below that of the study, its command line and its variables."""

    setting: str
    seed: int
    folder: str
    command: tuple[str, ...]
    variables: dict[str, str]

    @property
    def path(self) -> Path:
        """The folder of the trial."""
        return Path(self.folder)

    def record(self) -> TrainRecord | None:
        """The record of the finished trial, or None."""
        file = self.path / RECORD_FILE
        found = store.load_as(TrainRecord, file) if file.exists() else None
        return found if found and found.complete else None


def seeds_of(plan: StudyPlan) -> tuple[int, ...]:
    """The seeds of --seeds. Raises `UsageError` for text that is neither a count nor a list, and for a seed twice."""
    text = plan.seeds.strip()
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*,?", text, re.ASCII) or text == "0":
        raise UsageError(f"--seeds {plan.seeds}: neither a number of seeds, such as 6, nor a list, such as 1,2,5")
    if "," not in text:
        return tuple(range(FIRST_SEED, FIRST_SEED + int(text)))
    found = [int(one) for one in text.rstrip(",").split(",")]
    if twice := [seed for seed in found if found.count(seed) > 1]:
        raise UsageError(f"--seeds {plan.seeds}: {twice[0]} is given twice; give each seed once")
    return tuple(found)


def settings_of(plan: StudyPlan, recipe: TrainRecipe) -> tuple[Setting, ...]:
    """`recipe` with every combination of the values of --set.

    Raises `UsageError` for an unknown option of train, a value that it does not take, and a value or an option twice.
    """
    choices: dict[str, list[Any]] = {}
    for text in plan.set:
        name, values = _choice(text)
        if name in choices:
            raise UsageError(f"--set {text}: {name} is given twice; separate its values with commas")
        choices[name] = [_checked(name, value, recipe, text) for value in values]
        if len(set(choices[name])) < len(values):
            raise UsageError(f"--set {text}: a value is given twice; give each value once")
    found = []
    for combined in product(*choices.values()):
        chosen = dict(zip(choices, combined, strict=True))
        shown = {name: _shown(value) for name, value in chosen.items()}
        title = ",".join(f"{name}={value}" for name, value in shown.items()) or DEFAULT_SETTING
        found.append(Setting(title, shown, replace(recipe, **chosen)))
    return tuple(found)


def _choice(text: str) -> tuple[str, list[str]]:
    name, sign, values = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    known = [item.name for item in fields(TrainRecipe) if item.name != "seed"]
    if name == "seed":
        raise UsageError(f"--set {text}: use --seeds")
    if name not in known:
        near = get_close_matches(name, known, 1)
        advice = f"did you mean {near[0]}?" if near else f"it is none of {', '.join(known)}"
        raise UsageError(f"--set {text}: train has no option {name} for its recipe; {advice}")
    if not sign or not all(value.strip() for value in values.split(",")):
        raise UsageError(f"--set {text}: values are missing; write {name}=VALUE,VALUE")
    return name, [value.strip() for value in values.split(",")]


def _checked(name: str, value: str, recipe: TrainRecipe, text: str) -> Any:
    """`value` with the type of the field `name`. Raises `UsageError` unless `train` takes it."""
    kind = get_type_hints(TrainRecipe)[name]
    try:
        for number in (int, float):
            if kind in (number, number | None):
                converted: Any = number(value)
                break
        else:
            converted = {"true": True, "false": False}[value.lower()] if kind is bool else value
        made = store.checked(TrainRecipe, {**asdict(recipe), name: converted})
        check(made)
    except (KeyError, ValueError):
        wanted = "true or false" if kind is bool else "a whole number" if kind in (int, int | None) else "a number"
        raise UsageError(f"--set {text}: {value} is not {wanted}") from None
    except UsageError as error:
        raise UsageError(f"--set {text}: {error}") from None
    return getattr(made, name)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_request(request: TrainRequest, recipe: TrainRecipe) -> None:
    """Raise `UsageError` for an option of train that the study chooses for each trial."""
    for item in (*fields(TrainRequest), *fields(TrainRecipe)):
        value = getattr(request if item.name in asdict(request) else recipe, item.name)
        if item.name in CHOSEN and value != item.default:
            instead = f"; use {CHOSEN[item.name]}" if CHOSEN[item.name] else ""
            raise UsageError(f"{flags_of(item)[0]}: study chooses it for each trial{instead}")


def arguments_of(request: TrainRequest, recipe: TrainRecipe) -> Iterator[str]:
    """The options of `train` that give `request` and `recipe`, without those that have their default.

    A model or data folder is absolute, because a trial on another machine has another working folder.
    """
    for item in (*fields(TrainRequest), *fields(TrainRecipe)):
        value = getattr(request if item.name in asdict(request) else recipe, item.name)
        if value == item.default:
            continue
        yield flags_of(item)[0]
        if value is not True:
            yield _absolute(value) if item.metadata["location"] else repr(value) if _is_float(value) else str(value)


def _is_float(value: Any) -> bool:
    return isinstance(value, float)


def _absolute(value: str) -> str:
    return os.path.abspath(value) if Path(value).exists() else value  # noqa: PTH100  # a link stays a link


def trials_of(
    plan: StudyPlan,
    request: TrainRequest,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    *,
    python: str,
    variables: dict[str, str],
) -> tuple[Trial, ...]:
    """The trials, by seed first, so that all settings get their first seeds first."""
    start = ["-m", "mrpcbench", "train"]
    if plan.nproc > 1:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(plan.nproc), *start]
    found = []
    for seed, setting in product(seeds, settings):
        folder = Path(plan.output_dir).absolute() / setting.name / f"seed-{seed}"
        own = replace(request, output_dir=str(folder))
        options = (*arguments_of(own, setting.recipe), "--seed", str(seed))
        command = (python, *start, *options, "--results", str(folder / RECORD_FILE))
        found.append(Trial(setting.name, seed, str(folder), command, variables))
    return tuple(found)


def difference(record: TrainRecord, setting: Setting, base: str, data: Sequence[str]) -> str | None:
    """What `record` has that a trial of `setting` would not have; None if it is a trial of this study.

    `base` is the name of the base model, `data` the hashes of the pairs.
    """
    asked, used = asdict(setting.recipe), asdict(record.train.recipe)
    for name, value in asked.items():
        # What the recipe leaves open, the run has decided.
        if name != "seed" and value not in (None, "auto") and used[name] != value:
            return f"{name} {_shown(used[name])} (now {_shown(value)})"
    if record.train.base_model.name != base:
        return f"model {record.train.base_model.name} (now {base})"
    if [item.data_sha256 for item in record.data] != list(data):
        return "other pairs"
    return None
