"""Train each setting of a recipe with several seeds: `mrpcbench study`.

A trial is a run of `mrpcbench train` in a process and a folder of its own. Its record there says that it is finished.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mrpcbench.commands.train import Job, job_of
from mrpcbench.environment.capture import capture, resolve_device, resolve_threads
from mrpcbench.errors import InterruptedRunError, UsageError
from mrpcbench.models.files import matches
from mrpcbench.models.hashes import CACHE_FILE
from mrpcbench.progress import Observer, Silent
from mrpcbench.records import store
from mrpcbench.records.seeds import summarised
from mrpcbench.schema.fields import check
from mrpcbench.schema.records import StudyRecord, StudySection, StudySetting, StudyTrial, TrainRecord
from mrpcbench.schema.requests import StudyPlan, TrainRecipe, TrainRequest
from mrpcbench.training.arguments import with_batch_sizes
from mrpcbench.training.checkpoints import MODEL_FILES, RUN_FILE, WEIGHTS_FILES, alone, remove_checkpoints
from mrpcbench.training.launch import launched
from mrpcbench.training.study import cluster, local
from mrpcbench.training.study import plan as planning
from mrpcbench.training.study.plan import LOG_FILE, RECORD_FILE, Setting, Trial
from mrpcbench.training.study.trial import last_lines

STUDY_FILE = "study.json"
# Variables that each trial gets from this process, also on another machine.
PASSED_ON = ("PYTHONPATH", "HF_", "MRPCBENCH_", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def study(plan: StudyPlan, request: TrainRequest, recipe: TrainRecipe, observer: Observer) -> StudyRecord:
    """Run the trials of `plan` that are not finished, each with `request` and `recipe`.

    The record is saved as study.json in the output folder after every trial. Its `complete` is false if a trial has
    failed; a failed trial does not stop the others. Raises `UsageError` for what `train` would refuse, before any trial
    starts, and for a folder with another study; `MissingError` for what is not installed. Ctrl-C interrupts the running
    trials, which the next call continues, and raises `InterruptedRunError`.
    """
    check(plan, request, recipe)
    planning.check_request(request, recipe)
    seeds, settings = planning.seeds_of(plan), planning.settings_of(plan, recipe)
    if plan.launcher == "ray":
        cluster.check(plan.address)
    elif plan.address:
        raise UsageError("--address: only for --launcher ray")
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UsageError("study starts the processes of its trials itself; run it without a launcher, and use --nproc")
    folder = Path(plan.output_dir)
    # Loads model and pairs, as each trial will, and downloads them once.
    jobs = [
        _checked(setting, plan, request, seeds[0], observer if setting is settings[0] else Silent())
        for setting in settings
    ]
    gpus = torch.cuda.device_count() if resolve_device(request.device) == "cuda" else 0
    at_once = plan.jobs or max(1, gpus // plan.nproc)
    threads = max(1, resolve_threads() // (1 if "OMP_NUM_THREADS" in os.environ else at_once * plan.nproc))
    trials = planning.trials_of(plan, request, settings, seeds, python=sys.executable, variables=_variables(threads))
    record = StudyRecord(
        complete=False,
        environment=capture(),
        model=jobs[0].loaded.identity,
        data=jobs[0].identities,
        study=StudySection(
            recipe=recipe,
            seeds=seeds,
            launcher=plan.launcher,
            threads=threads,
            processes=plan.nproc,
            settings=_settings(settings, trials, folder.absolute()),
        ),
    )
    del jobs
    with alone(replace(request, output_dir=plan.output_dir)):
        _check_folder(folder, record, settings, trials)
        return _Run(plan, folder, record, trials, observer).finish(at_once, gpus)


def _checked(setting: Setting, plan: StudyPlan, request: TrainRequest, seed: int, observer: Observer) -> Job:
    """The first run of `setting`, ready to train; raises what `train` raises until then."""
    recipe = with_batch_sizes(replace(setting.recipe, seed=seed), plan.nproc)
    with launched(request, recipe, observer):
        return job_of(replace(request, output_dir=plan.output_dir), recipe, observer)


def _variables(threads: int) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return {**passed, "OMP_NUM_THREADS": str(threads)}


def _settings(settings: Sequence[Setting], trials: Sequence[Trial], folder: Path) -> tuple[StudySetting, ...]:
    return tuple(
        StudySetting(
            name=setting.name,
            values=setting.values,
            trials=tuple(
                StudyTrial(seed=trial.seed, folder=str(trial.path.relative_to(folder)))
                for trial in trials
                if trial.setting == setting.name
            ),
        )
        for setting in settings
    )


def _check_folder(folder: Path, record: StudyRecord, settings: Sequence[Setting], trials: Sequence[Trial]) -> None:
    """Raise `UsageError` if `folder` holds another study: its record, or a finished trial of another kind.

    A study may be continued with more seeds and other settings.
    """
    advice = "name another --output-dir"
    file = folder / STUDY_FILE
    if file.exists():
        before = store.load_as(StudyRecord, file)
        was, now = before.study.recipe, record.study.recipe
        if was != now:
            names = [name for name, value in vars(was).items() if getattr(now, name) != value]
            changed = ", ".join(f"{name} {getattr(was, name)} (now {getattr(now, name)})" for name in names)
            raise UsageError(f"--output-dir {folder}: holds another study, with {changed}; {advice}")
        if before.model.name != record.model.name or before.data != record.data:
            raise UsageError(f"--output-dir {folder}: holds another study, of {before.model.name}; {advice}")
    hashes = [item.data_sha256 for item in record.data]
    for trial in trials:
        setting = next(one for one in settings if one.name == trial.setting)
        found = trial.record()
        if found and (other := planning.difference(found, setting, record.model.name, hashes)):
            place = f"{trial.setting}/seed-{trial.seed}"
            raise UsageError(f"--output-dir {folder}: {place} holds another run, with {other}; {advice}")


class _Run:
    """Runs the trials that are not finished, and keeps the record up to date."""

    def __init__(
        self, plan: StudyPlan, folder: Path, record: StudyRecord, trials: Sequence[Trial], observer: Observer
    ) -> None:
        self._plan, self._folder, self._observer = plan, folder, observer
        self._trials, self._record = trials, record

    def finish(self, jobs: int, gpus: int) -> StudyRecord:
        """Run the trials, and return the record of the study."""
        left = []
        for trial in self._trials:
            if found := trial.record():
                self._note(trial, found)
            else:
                left.append(_resumed(trial))
        total = len(self._trials)
        if len(left) < total:
            self._observer.say(f"{total - len(left)} of {total} trials are finished")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write()
        try:
            for done, (trial, status) in enumerate(self._started(left, jobs, gpus), total - len(left) + 1):
                detail = self._ended(trial, status)
                self._write()
                self._observer.advance("trials", done, total, detail)
        except KeyboardInterrupt:
            finished = sum(trial.record() is not None for trial in self._trials)
            message = f"interrupted: {finished} of {total} trials are finished; the same command continues"
            raise InterruptedRunError(message, self._record) from None
        failed = any(trial.record is None for setting in self._record.study.settings for trial in setting.trials)
        self._record = replace(self._record, complete=not failed)
        self._write()
        return self._record

    def _started(self, left: Sequence[Trial], jobs: int, gpus: int) -> Iterator[tuple[Trial, int | str]]:
        if not left:
            return iter(())
        section = self._record.study
        where = f"{section.processes} x " if section.processes > 1 else ""
        self._observer.say(f"{len(left)} trials, {jobs} at a time, each with {where}{section.threads} threads")
        if self._plan.launcher == "local":
            return local.run(left, jobs, local.visible_gpus(gpus))
        self._observer.say(f"all machines of the cluster must see {self._folder.absolute()}")
        cpus = section.threads * section.processes
        return cluster.run(
            left, self._plan.address, self._folder.absolute(), cpus=cpus, gpus=section.processes if gpus else 0
        )

    def _ended(self, trial: Trial, status: int | str) -> str:
        """Note the end of `trial`; its score in a few words."""
        name = f"{trial.setting}/seed-{trial.seed}"
        found = trial.record()
        if found is None:
            lines = last_lines(trial.path / LOG_FILE) if isinstance(status, int) else (status,)
            lines = lines or (f"exit code {status}",)
            self._note(trial, None, lines)
            self._observer.warn(f"{name} failed: {lines[-1]} (log: {trial.path / LOG_FILE})")
            return f"{name} failed"
        self._note(trial, found)
        _clear(trial.path, self._plan.keep)
        return f"{name}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in _scores(found).items())

    def _note(self, trial: Trial, found: TrainRecord | None, error: tuple[str, ...] = ()) -> None:
        """Put the result of `trial` into the record, and compute the summaries again."""
        section = self._record.study

        def noted(item: StudyTrial) -> StudyTrial:
            return replace(item, record=found, error=error) if item.seed == trial.seed else item

        settings = tuple(
            replace(one, trials=tuple(map(noted, one.trials))) if one.name == trial.setting else one
            for one in section.settings
        )
        made = summarised(replace(section, settings=settings), self._record.data[1])
        self._record = replace(self._record, study=made)

    def _write(self) -> None:
        store.save(self._record, self._folder / STUDY_FILE)


def _resumed(trial: Trial) -> Trial:
    """`trial`, continued if an earlier call has begun it."""
    begun = (trial.path / "mrpcbench-run.json").exists()
    return replace(trial, command=(*trial.command, "--resume")) if begun else trial


def _scores(record: TrainRecord) -> dict[str, float]:
    best = next(line for line in record.train.epochs if line.step == record.train.best_step)
    return {"accuracy": best.eval_accuracy_score, "F1": best.eval_f1_score}


def _clear(folder: Path, keep: str) -> None:
    """Remove what --keep does not keep of a finished trial."""
    if keep == "all":
        return
    remove_checkpoints(folder)
    written = {*MODEL_FILES, *WEIGHTS_FILES, RUN_FILE, CACHE_FILE} - {RECORD_FILE}
    for path in sorted(folder.iterdir()) if keep == "none" else ():
        if path.is_file() and matches(path.name, written):
            path.unlink()
