"""Tests of mrpcbench.baseline: what is kept, what is refused, and that no kept baseline is lost."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from conftest import Listener
from records import (
    ENVIRONMENT,
    MODEL,
    TORCH,
    given_away,
    make_bench,
    make_evaluate,
    make_export,
    make_gate,
    make_record,
    make_row,
    make_score,
    make_train,
)
from rich.console import Console

from mrpcbench import render_history, store
from mrpcbench.baseline import baselines, set_baseline
from mrpcbench.compare import compare
from mrpcbench.errors import UsageError
from mrpcbench.plans import AbPlan, BackendSpec, BaselineFolder, BaselineRequest, ComparePlan, TrainRecipe
from mrpcbench.schema import AbSection, AbSide, Command, RunRecord
from mrpcbench.trends import Baseline
from mrpcbench.verdicts import Verdict

PREDICTIONS = '{"index": 0, "label": 1, "logits": [0.0, 1.0], "prediction": 1}\n'


class Shelf:
    """A folder of records, and one of baselines beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "results" / "baselines"
        self.listener = Listener()

    def record(self, name: str, record: RunRecord) -> Path:
        path = self.folder / name
        store.save(record, path)
        return path

    def evaluated(self, name: str = "evaluate.json", text: str = PREDICTIONS, **changes: Any) -> Path:
        """A record of evaluate with its predictions beside it."""
        path = self.folder / name
        predictions = path.with_name(f"{path.stem}.predictions.jsonl")
        store.write_text(predictions, text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        section = make_evaluate(predictions_file=predictions.name, predictions_sha256=digest, **changes)
        return self.record(name, make_record("evaluate", evaluate=section))

    def set(self, name: str, *paths: Path, overwrite: bool = False) -> Baseline:
        return set_baseline(name, paths, self.where, BaselineRequest(overwrite=overwrite), self.listener)

    def show(self, name: str | None = None) -> tuple[Baseline, ...]:
        return baselines(name, self.where)

    @property
    def where(self) -> BaselineFolder:
        return BaselineFolder(folder=str(self.kept))

    def files(self, name: str = "main") -> list[str]:
        """The names of all files of a baseline, hidden ones among them."""
        return sorted(path.name for path in (self.kept / name).iterdir())

    def refused(self, *paths: Path, name: str = "main", because: str, **more: bool) -> None:
        """Setting is refused, and leaves no trace."""
        before = sorted(self.kept.rglob("*"))
        with pytest.raises(UsageError, match=because):
            self.set(name, *paths, **more)
        assert sorted(self.kept.rglob("*")) == before


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def shown(found: tuple[Baseline, ...], width: int = 100) -> str:
    stream = StringIO()
    Console(file=stream, width=width).print(render_history.baselines(found))
    return stream.getvalue()


# --- set --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "export", "bench"])
def test_a_record_is_kept_byte_for_byte_and_nothing_beside_it(shelf: Shelf, command: Command) -> None:
    path = shelf.record("run.json", make_record(command))
    path.write_text(path.read_text().replace("\n", "\n\n"))  # as no command of ours would write it
    shelf.set("main", path)
    assert shelf.files() == ["run.json"]
    assert (shelf.kept / "main" / "run.json").read_bytes() == path.read_bytes()
    assert [path.name for path in shelf.kept.iterdir()] == ["main"]


def test_the_predictions_are_kept_with_their_record(shelf: Shelf) -> None:
    path = shelf.evaluated()
    path.write_text(path.read_text().replace("\n", "\n\n"))
    shelf.set("main", path)
    assert shelf.files() == ["evaluate.json", "evaluate.predictions.jsonl"]
    for name in shelf.files():
        assert (shelf.kept / "main" / name).read_bytes() == (shelf.folder / name).read_bytes()


def test_seeds_of_one_file_name_from_several_folders_are_told_apart(shelf: Shelf) -> None:
    paths = []
    for seed in (1, 2, 3):
        section = make_train(recipe=TrainRecipe(seed=seed))
        paths.append(shelf.record(f"seed{seed}/train.json", make_record("train", train=section)))
    shelf.set("main", *paths)
    assert shelf.files() == ["train-2.json", "train-3.json", "train.json"]
    for path, name in zip(paths, ("train.json", "train-2.json", "train-3.json"), strict=True):
        assert (shelf.kept / "main" / name).read_bytes() == path.read_bytes()


def test_a_number_that_a_name_has_already_is_not_given_again(shelf: Shelf) -> None:
    names = ("a/train.json", "a/train-2.json", "b/train.json")
    trained = [make_record("train", train=make_train(recipe=TrainRecipe(seed=seed))) for seed in range(3)]
    shelf.set("main", *(shelf.record(name, record) for name, record in zip(names, trained, strict=True)))
    assert shelf.files() == ["train-2.json", "train-3.json", "train.json"]


@pytest.mark.parametrize("command", ["export", "bench"])
def test_several_records_are_for_seeds_of_train_alone(shelf: Shelf, command: Command) -> None:
    first = shelf.record("a.json", make_record(command))
    second = shelf.record("b.json", make_record(command, environment=replace(ENVIRONMENT, cpu_cores=3)))
    shelf.refused(first, second, because=f"2 records of {command}; several are for train")


def test_a_record_without_a_figure_is_refused(shelf: Shelf) -> None:
    empty = shelf.record("a.json", make_record("bench", bench=make_bench(rows=())))
    shelf.refused(empty, because="no figure to compare with")
    shelf.refused(
        shelf.record("b.json", make_record("train", train=make_train(best_step=None))), because="no figure to compare"
    )


def test_compare_reads_a_baseline(shelf: Shelf) -> None:
    answers = [
        f'{{"index": {index}, "label": {label}, "logits": [{1 - given}.0, {given}.0], "prediction": {given}}}\n'
        for index, (label, given) in enumerate([(1, 1)] * 253 + [(0, 1)] * 31 + [(1, 0)] * 26 + [(0, 0)] * 98)
    ]
    path = shelf.evaluated(text="".join(answers))
    shelf.set("main", path)
    record = store.load(path)
    later = replace(record.environment, started_at="2025-01-09T00:00:00+00:00")
    shelf.record(path.name, replace(record, environment=later))
    assert compare([shelf.kept / "main"], [path], ComparePlan()).verdict.outcome == "PASS"


def test_what_is_set_is_what_is_shown(shelf: Shelf) -> None:
    found = shelf.set("v1.0_x-y", shelf.evaluated())
    assert shelf.show() == (found,) == shelf.show("v1.0_x-y")


@pytest.mark.parametrize(
    "name", ["", "Main", ".hidden", "..", "a/b", "../a", "-x", "_x", "a b", "a\n", "ä", "/tmp/x", "a\\b"]
)
def test_a_name_that_could_be_another_path_is_refused(shelf: Shelf, name: str) -> None:
    shelf.refused(shelf.evaluated(), name=name, because="not a name for a baseline")
    with pytest.raises(UsageError, match="not a name for a baseline"):
        shelf.show(name)


def test_no_record_is_refused(shelf: Shelf) -> None:
    shelf.refused(because="no record given")


def test_what_is_no_record_is_refused(shelf: Shelf) -> None:
    (shelf.folder / "a.json").write_text("{}")
    shelf.refused(shelf.folder / "a.json", because="schema version None")
    shelf.refused(shelf.folder / "none.json", because="no such file")


def test_a_record_that_did_not_end_is_refused(shelf: Shelf) -> None:
    shelf.refused(shelf.record("a.json", make_record("bench", complete=False)), because="a.json: not complete")


@pytest.mark.parametrize("outcome", ["REGRESSION", "INCONCLUSIVE", "INCOMPARABLE"])
def test_an_export_that_did_not_pass_its_gate_is_refused(shelf: Shelf, outcome: Any) -> None:
    gate = make_gate(verdict=Verdict(outcome=outcome, reason="3 labels flip"))
    path = shelf.record("a.json", make_record("export", export=make_export(gate=gate)))
    shelf.refused(path, because=r"did not pass its own gate \(3 labels flip\)")


def test_an_export_that_was_not_judged_is_refused(shelf: Shelf) -> None:
    path = shelf.record("a.json", make_record("export", export=make_export(gate=None)))
    shelf.refused(path, because="it was not judged")


def test_a_record_without_its_predictions_is_refused(shelf: Shelf) -> None:
    path = shelf.evaluated()
    (shelf.folder / "evaluate.predictions.jsonl").unlink()
    shelf.refused(path, because=r"evaluate\.predictions\.jsonl: no such file, and evaluate\.json needs it")


def test_predictions_that_differ_from_the_hash_are_refused(shelf: Shelf) -> None:
    path = shelf.evaluated()
    (shelf.folder / "evaluate.predictions.jsonl").write_text(PREDICTIONS.replace("1.0", "1.1"))
    shelf.refused(path, because="sha256 .* and the record was made with")


@pytest.mark.parametrize(
    "name", ["../x.predictions.jsonl", "/tmp/x.predictions.jsonl", "sub/x.predictions.jsonl", "..", "x.json", ""]
)
def test_a_record_cannot_name_predictions_elsewhere(shelf: Shelf, name: str) -> None:
    digest = hashlib.sha256(PREDICTIONS.encode()).hexdigest()
    store.write_text(shelf.folder / "sub" / "x.predictions.jsonl", PREDICTIONS)
    store.write_text(shelf.folder / "x.json", PREDICTIONS)
    store.write_text(shelf.folder.parent / "x.predictions.jsonl", PREDICTIONS)
    section = make_evaluate(predictions_file=name, predictions_sha256=digest)
    path = shelf.record("a.json", make_record("evaluate", evaluate=section))
    shelf.refused(path, because="names its predictions")


def test_a_record_that_is_never_compared_is_refused(shelf: Shelf) -> None:
    side = AbSide(spec=BackendSpec(model="tuned"), placement=TORCH, model=MODEL, python="3.11.7", packages={})
    record = replace(
        make_record("bench"), command="ab", bench=None, ab=AbSection(plan=AbPlan(), a=side, b=side, pairs=())
    )
    shelf.refused(shelf.record("a.json", record), because=r"a\.json: a record of ab; a baseline takes those of train")


def test_records_of_several_commands_are_refused(shelf: Shelf) -> None:
    bench = shelf.record("bench.json", make_record("bench"))
    shelf.refused(shelf.evaluated(), bench, because="records of bench and evaluate; a baseline holds those of one")


def test_a_record_given_twice_is_refused(shelf: Shelf) -> None:
    path = shelf.record("a.json", make_record("train"))
    copy = shelf.folder / "b.json"
    copy.write_bytes(path.read_bytes())
    shelf.refused(path, copy, because=r"b\.json: the same record as .*a\.json")
    shelf.refused(path, path, because="the same record")


def test_one_bad_record_keeps_the_good_ones_out_too(shelf: Shelf) -> None:
    good = shelf.record("a.json", make_record("train"))
    bad = shelf.record("b.json", make_record("train", complete=False))
    shelf.refused(good, bad, because="not complete")


def test_invalid_rows_are_kept_with_a_warning(shelf: Shelf) -> None:
    rows = (make_row(), make_row(batch_size=8, broken_rules=("still drifting",)))
    shelf.set("main", shelf.record("a.json", make_record("bench", bench=make_bench(rows=rows))))
    (line,) = shelf.listener.lines
    assert line.endswith("a.json: 1 of 2 rows INVALID, the first: still drifting")
    assert line.startswith("warning: ")
    assert shelf.files() == ["a.json"]


def test_an_unproven_graph_is_kept_with_a_warning(shelf: Shelf) -> None:
    unproven = replace(MODEL, graph_sha256="e" * 64, proven=False)
    rows = (make_row(), make_row(model=unproven))
    shelf.set("main", shelf.record("a.json", make_record("bench", bench=make_bench(rows=rows))))
    shelf.set("other", shelf.record("b.json", make_record("bench", model=unproven)))
    assert [line.endswith("a graph in it is UNPROVEN") for line in shelf.listener.lines] == [True, True]


def test_good_records_raise_no_warning(shelf: Shelf) -> None:
    shelf.set("main", shelf.record("a.json", make_record("bench")))
    assert shelf.listener.lines == []


# --- what is there already --------------------------------------------------------------------------------------------


def test_a_baseline_is_not_replaced_unless_that_is_asked(shelf: Shelf) -> None:
    first, second = shelf.evaluated(), shelf.record("b.json", make_record("bench"))
    shelf.set("main", first)
    before = shelf.files()
    shelf.refused(second, because="exists; take another name, or replace it with --overwrite")
    assert shelf.files() == before
    shelf.set("main", second, overwrite=True)
    assert shelf.files() == ["b.json"]


def test_a_baseline_that_is_refused_leaves_the_old_one_as_it_was(shelf: Shelf) -> None:
    shelf.set("main", shelf.evaluated())
    bad = shelf.record("bad.json", make_record("bench", complete=False))
    shelf.refused(bad, because="not complete", overwrite=True)
    assert shelf.show("main")[0].problems == ()


def test_a_write_that_fails_leaves_the_old_baseline_as_it_was(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shelf.evaluated()
    shelf.set("main", path)
    before = {name: (shelf.kept / "main" / name).read_bytes() for name in shelf.files()}

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        shelf.set("main", path, overwrite=True)
    assert {name: (shelf.kept / "main" / name).read_bytes() for name in shelf.files()} == before
    assert [item.name for item in shelf.kept.iterdir()] == ["main"]


def test_a_baseline_can_be_set_anew_from_its_own_files(shelf: Shelf) -> None:
    shelf.set("main", shelf.evaluated())
    found = shelf.set("main", shelf.kept / "main" / "evaluate.json", overwrite=True)
    assert found.problems == ()
    assert shelf.files() == ["evaluate.json", "evaluate.predictions.jsonl"]


def add_text(folder: Path) -> None:
    (folder / "README.md").write_text("mine")


def add_folder(folder: Path) -> None:
    (folder / "sub").mkdir()


def add_folder_of_predictions(folder: Path) -> None:
    (folder / "sub.predictions.jsonl").mkdir()


def add_json(folder: Path) -> None:
    (folder / "package.json").write_text('{"name": "mine"}')


def add_list(folder: Path) -> None:
    (folder / "list.json").write_text('["schema_version", "command", "environment"]')


def add_broken(folder: Path) -> None:
    (folder / "broken.json").write_text("{")


def add_link(folder: Path) -> None:
    (folder / "link.predictions.jsonl").symlink_to(folder / "evaluate.json")


@pytest.mark.parametrize(
    "add", [add_text, add_folder, add_folder_of_predictions, add_json, add_list, add_broken, add_link]
)
def test_overwrite_removes_no_folder_that_is_no_baseline(shelf: Shelf, add: Callable[[Path], None]) -> None:
    path = shelf.evaluated()
    shelf.set("main", path)
    add(shelf.kept / "main")
    shelf.refused(path, because="and so is no baseline; --overwrite does not remove it", overwrite=True)


def test_overwrite_removes_neither_a_file_nor_a_link(shelf: Shelf) -> None:
    path = shelf.evaluated()
    shelf.set("real", path)
    (shelf.kept / "link").symlink_to(shelf.kept / "real")
    (shelf.kept / "dangling").symlink_to(shelf.kept / "nowhere")
    (shelf.kept / "file").write_text("mine")
    for name in ("link", "dangling", "file"):
        shelf.refused(path, name=name, because="--overwrite$")
        shelf.refused(path, name=name, because="not a folder of its own", overwrite=True)


def test_a_baseline_of_another_version_can_be_replaced(shelf: Shelf) -> None:
    path = shelf.record("a.json", make_record("bench"))
    shelf.set("main", path)
    kept = shelf.kept / "main" / "a.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "schema_version": 99}))
    assert shelf.show("main")[0].problems == ("a.json: schema version 99; this mrpcbench reads 1 and 2.x",)
    assert shelf.set("main", path, overwrite=True).problems == ()


# --- show -------------------------------------------------------------------------------------------------------------


def test_a_kept_record_is_told_by_model_date_commit_machine_and_figure(shelf: Shelf) -> None:
    gpu = replace(ENVIRONMENT, gpu="NVIDIA H200")
    shelf.set("cpu", shelf.evaluated(score=make_score(accuracy=0.8603)))
    shelf.set("gpu", shelf.record("a.json", make_record("export", environment=gpu)))
    (cpu,), (other,) = (one.records for one in shelf.show())
    assert (cpu.file, cpu.command, cpu.model) == ("evaluate.json", "evaluate", "tuned, 149.6 M, fine-tuned")
    assert (cpu.metric, cpu.value, cpu.unit) == ("accuracy", 0.8603, "share")
    assert (cpu.started_at, cpu.git_commit) == (ENVIRONMENT.started_at, ENVIRONMENT.git_commit)
    assert cpu.machine == "AMD EPYC 9654 96-Core Processor, 2 cores"
    assert other.machine == "AMD EPYC 9654 96-Core Processor, 2 cores, NVIDIA H200"
    assert (other.metric, other.value, other.unit) == ("largest |Δlogit|", 2.5e-6, "logit")
    text = shown(shelf.show())
    for part in ("cpu", "evaluate", "tuned", "2025-01-02", "01234567", "AMD EPYC", "NVIDIA", "0.8603", "2.50e-06"):
        assert part in text


def test_the_figure_of_a_benchmark_is_that_of_its_fastest_row(shelf: Shelf) -> None:
    rows = (
        make_row("single-stream", samples_ms=(5000.0,) * 3),
        make_row(samples_ms=(400.0,)),
        make_row(batch_size=8, samples_ms=(200.0,)),
    )
    shelf.set("main", shelf.record("a.json", make_record("bench", bench=make_bench(rows=rows))))
    (kept,) = shelf.show("main")[0].records
    assert (kept.metric, kept.value, kept.unit) == ("torch offline batch 8", 2040.0, "pairs/s")


def test_a_record_without_a_figure_is_shown_all_the_same(shelf: Shelf) -> None:
    rows = (make_row(samples=0),)
    shelf.record("results/baselines/main/a.json", make_record("bench", bench=make_bench(rows=rows)))
    found = shelf.show()
    assert found[0].records[0].metric is None
    assert "none" in shown(found)


def test_a_record_of_no_checkout_has_no_commit_to_show(shelf: Shelf) -> None:
    record = make_record("bench", environment=replace(ENVIRONMENT, git_commit=None))
    assert " ? " in shown((shelf.set("main", shelf.record("a.json", record)),))


def test_baselines_are_listed_by_name_and_what_is_none_is_not(shelf: Shelf) -> None:
    path = shelf.evaluated()
    shelf.set("b", path)
    shelf.set("a", path)
    (shelf.kept / "file").write_text("")
    (shelf.kept / ".a-staged").mkdir()
    assert [one.name for one in shelf.show()] == ["a", "b"]
    assert [one.name for one in shelf.show("b")] == ["b"]


def test_no_baselines_are_said_to_be_none(shelf: Shelf) -> None:
    assert shelf.show() == ()
    assert "no baselines" in shown(())


def test_a_baseline_that_is_not_there_is_refused_with_those_that_are(shelf: Shelf) -> None:
    with pytest.raises(UsageError, match="no such baseline; there is none"):
        shelf.show("main")
    shelf.set("other", shelf.evaluated())
    with pytest.raises(UsageError, match="no such baseline; there are other"):
        shelf.show("main")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "evaluate.json").write_text("{"), "evaluate.json: not JSON"),
        (lambda folder: (folder / "evaluate.predictions.jsonl").unlink(), "no such file"),
        (lambda folder: (folder / "evaluate.predictions.jsonl").write_text("{}"), "sha256"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no record in it"),
    ],
)
def test_a_damaged_baseline_is_named_and_hides_no_other(
    shelf: Shelf, damage: Callable[[Path], object], problem: str
) -> None:
    path = shelf.evaluated()
    shelf.set("good", path)
    shelf.set("bad", path)
    damage(shelf.kept / "bad")
    bad, good = shelf.show()
    assert good.problems == ()
    assert bad.records == ()
    assert problem in bad.problems[0]
    assert str(shelf.folder) not in bad.problems[0]
    assert "bad: " in shown((bad, good))


def test_the_table_fits_100_columns_and_is_cut_nowhere(shelf: Shelf) -> None:
    gpu = replace(ENVIRONMENT, gpu="NVIDIA H100 80GB HBM3", cpu="Intel(R) Xeon(R) Platinum 8480C")
    long = replace(MODEL, name="organisation/modernbert-large-mrpc-fine-tuned", parameters=395_000_000)
    record = make_record("bench", environment=gpu, model=long)
    shelf.set("main-2025-01-release-candidate", shelf.record("a.json", record))
    text = shown(shelf.show())
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "".join(line[2:].split(" ")[0] for line in text.splitlines()[4:]).startswith(
        "main-2025-01-release-candidate"
    )


def test_a_baseline_as_json_gives_nothing_away(shelf: Shelf) -> None:
    document = json.loads(store.to_json(shelf.set("main", shelf.evaluated())))
    assert document["records"][0]["command"] == "evaluate"
    assert given_away(document, str(shelf.folder)) == []
