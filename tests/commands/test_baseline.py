"""Tests of mrpcbench.commands.baseline: what is saved, what is refused, and that no baseline is lost."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Listener
from records import (
    ENVIRONMENT,
    MODEL,
    given_away,
    make_bench,
    make_evaluate,
    make_export,
    make_gate,
    make_record,
    make_row,
    make_train,
)

from mrpcbench.commands.baseline import set_baseline
from mrpcbench.commands.compare import compare
from mrpcbench.commands.evaluate import prediction_rows
from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.records.scores import score
from mrpcbench.schema.gate_requests import BaselineFolder, BaselineRequest, ComparePlan
from mrpcbench.schema.identity import SavedBaseline
from mrpcbench.schema.records import RunRecord
from mrpcbench.schema.requests import TrainRecipe
from mrpcbench.schema.verdicts import Outcome, Verdict

# The label of each pair, and the answer to it: those of `make_score`.
ANSWERS = np.array([(1, 1)] * 253 + [(0, 1)] * 31 + [(1, 0)] * 26 + [(0, 0)] * 98)
LABELS, LOGITS = ANSWERS[:, 0], np.stack([1 - ANSWERS[:, 1], ANSWERS[:, 1]], axis=1).astype(np.float32)
PREDICTIONS = store.to_jsonl(prediction_rows(LOGITS, LABELS))[0]


class Shelf:
    """A folder of records, and one of baselines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "results" / "baselines"
        self.listener = Listener()

    def record(self, name: str, record: RunRecord) -> Path:
        path = self.folder / name
        store.save(record, path)
        return path

    def evaluated(self, name: str = "evaluate.json", text: str = PREDICTIONS, **changes: Any) -> Path:
        """A record of evaluate with its predictions."""
        path = self.folder / name
        predictions = path.with_name(f"{path.stem}.predictions.jsonl")
        store.write_text(predictions, text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        found = {"score": score(LOGITS, LABELS), **changes}
        section = make_evaluate(predictions_file=predictions.name, predictions_sha256=digest, **found)
        return self.record(name, make_record("evaluate", evaluate=section))

    def set(self, name: str, *paths: Path, overwrite: bool = False) -> SavedBaseline:
        return set_baseline(name, paths, self.where, BaselineRequest(overwrite=overwrite), self.listener)

    @property
    def where(self) -> BaselineFolder:
        return BaselineFolder(folder=str(self.kept))

    def files(self, name: str = "main") -> list[str]:
        """The names of all files of a baseline, including hidden ones."""
        return sorted(path.name for path in (self.kept / name).iterdir())

    def refused(self, *paths: Path, name: str = "main", because: str, **more: bool) -> None:
        """Check that saving is refused and changes nothing."""
        before = sorted(self.kept.rglob("*"))
        with pytest.raises(UsageError, match=because):
            self.set(name, *paths, **more)
        assert sorted(self.kept.rglob("*")) == before


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


# --- set --------------------------------------------------------------------------------------------------------------


def test_a_record_is_saved_byte_for_byte_and_nothing_else(shelf: Shelf) -> None:
    path = shelf.record("run.json", make_record("bench"))
    path.write_text(path.read_text().replace("\n", "\n\n"))  # a format that no command writes
    shelf.set("main", path)
    assert shelf.files() == ["run.json"]
    assert (shelf.kept / "main" / "run.json").read_bytes() == path.read_bytes()
    assert [path.name for path in shelf.kept.iterdir()] == ["main"]
    assert shelf.listener.warnings == []


def test_the_predictions_are_saved_with_their_record(shelf: Shelf) -> None:
    path = shelf.evaluated()
    path.write_text(path.read_text().replace("\n", "\n\n"))
    shelf.set("main", path)
    assert shelf.files() == ["evaluate.json", "evaluate.predictions.jsonl"]
    for name in shelf.files():
        assert (shelf.kept / "main" / name).read_bytes() == (shelf.folder / name).read_bytes()


def test_records_with_the_same_file_name_get_numbers(shelf: Shelf) -> None:
    paths = []
    for seed in (1, 2, 3):
        section = make_train(recipe=TrainRecipe(seed=seed))
        paths.append(shelf.record(f"seed{seed}/train.json", make_record("train", train=section)))
    shelf.set("main", *paths)
    assert shelf.files() == ["train-2.json", "train-3.json", "train.json"]
    for path, name in zip(paths, ("train.json", "train-2.json", "train-3.json"), strict=True):
        assert (shelf.kept / "main" / name).read_bytes() == path.read_bytes()


def test_an_existing_number_is_not_used_twice(shelf: Shelf) -> None:
    names = ("a/train.json", "a/train-2.json", "b/train.json")
    trained = [make_record("train", train=make_train(recipe=TrainRecipe(seed=seed))) for seed in range(3)]
    shelf.set("main", *(shelf.record(name, record) for name, record in zip(names, trained, strict=True)))
    assert shelf.files() == ["train-2.json", "train-3.json", "train.json"]


def test_a_baseline_holds_one_record_of_export(shelf: Shelf) -> None:
    first = shelf.record("a.json", make_record("export"))
    second = shelf.record("b.json", make_record("export", environment=replace(ENVIRONMENT, cpu_cores=3)))
    shelf.refused(first, second, because="2 records of export; a baseline holds one")


def test_several_runs_of_bench_are_saved_if_they_are_comparable(shelf: Shelf) -> None:
    def benched(name: str, day: int, **changes: Any) -> Path:
        environment = replace(ENVIRONMENT, started_at=f"2025-01-0{day}T00:00:00+00:00", **changes)
        return shelf.record(f"{name}.json", make_record("bench", environment=environment))

    first, second = benched("a", 1), benched("b", 2)
    shelf.set("main", first, second)
    assert shelf.files() == ["a.json", "b.json"]
    shelf.refused(first, second, benched("c", 3, cpu_cores=3), because=r"c\.json: cpu_cores: 2, now 3", overwrite=True)
    shelf.refused(first, benched("d", 1, git_commit=None), because="the same run", overwrite=True)


def test_a_record_without_a_result_is_refused(shelf: Shelf) -> None:
    empty = shelf.record("a.json", make_record("bench", bench=make_bench(rows=())))
    shelf.refused(empty, because="has no result to compare")
    shelf.refused(
        shelf.record("b.json", make_record("train", train=make_train(best_step=None))),
        because="has no result to compare",
    )


def test_compare_reads_a_baseline(shelf: Shelf) -> None:
    path = shelf.evaluated()
    shelf.set("main", path)
    record = store.load(path)
    later = replace(record.environment, started_at="2025-01-09T00:00:00+00:00")
    shelf.record(path.name, replace(record, environment=later))
    assert compare([shelf.kept / "main"], [path], ComparePlan()).verdict.outcome == "PASS"


def test_the_saved_files_are_shown(shelf: Shelf) -> None:
    found = shelf.set("v1.0_x-y", shelf.evaluated())
    assert found == SavedBaseline(name="v1.0_x-y", command="evaluate", files=("evaluate.json",))
    assert given_away(json.loads(store.to_json(found)), str(shelf.folder)) == []


def test_a_name_that_could_be_another_path_is_refused(shelf: Shelf) -> None:
    path = shelf.evaluated()
    for name in ("", "Main", ".hidden", "..", "a/b", "../a", "-x", "_x", "a b", "a\n", "ä", "/tmp/x", "a\\b"):
        shelf.refused(path, name=name, because="not a valid baseline name")


def test_no_record_is_refused(shelf: Shelf) -> None:
    shelf.refused(because="no record given")


def test_a_file_that_is_not_a_record_is_refused(shelf: Shelf) -> None:
    (shelf.folder / "a.json").write_text("{}")
    shelf.refused(shelf.folder / "a.json", because="schema version None")
    shelf.refused(shelf.folder / "none.json", because="no such file")


def test_an_export_that_did_not_pass_its_gate_is_refused(shelf: Shelf) -> None:
    outcomes: tuple[Outcome, ...] = ("REGRESSION", "INCONCLUSIVE", "INCOMPARABLE")
    failed = [make_gate(verdict=Verdict(outcome=outcome, reason="3 labels flip")) for outcome in outcomes]
    for gate, why in (*((gate, "3 labels flip") for gate in failed), (None, "the gate did not run")):
        path = shelf.record("a.json", make_record("export", export=make_export(gate=gate)))
        shelf.refused(path, because=rf"did not pass its gate \({why}\)")


def test_a_record_without_its_predictions_is_refused(shelf: Shelf) -> None:
    path = shelf.evaluated()
    (shelf.folder / "evaluate.predictions.jsonl").unlink()
    shelf.refused(path, because=r"evaluate\.predictions\.jsonl: no such file; evaluate\.json needs it")


def test_predictions_that_differ_from_the_hash_are_refused(shelf: Shelf) -> None:
    path = shelf.evaluated()
    (shelf.folder / "evaluate.predictions.jsonl").write_text(PREDICTIONS.replace("1.0", "1.1"))
    shelf.refused(path, because="sha256 is .* but the record was made with")


def test_predictions_that_do_not_give_the_score_are_refused(shelf: Shelf) -> None:
    """The hash is that of the file, so that only the answers show it: a loss, an interval, a count, a line."""
    true = score(LOGITS, LABELS)
    low = replace(true.f1_interval, low=true.f1_interval.low - 0.05)
    counts = replace(true.confusion, true_positive=254, false_negative=25)
    more = score(np.where(np.arange(408)[:, None] == 284, LOGITS[:, ::-1], LOGITS), LABELS)
    assert more.confusion == counts
    for name, found in (("loss", replace(true, loss=0.1)), ("f1_interval", replace(true, f1_interval=low))):
        shelf.refused(shelf.evaluated(score=found), because=f"its 408 predictions do not .*: {name} is ")
    shelf.refused(shelf.evaluated(score=more), because="confusion is ")
    shelf.refused(shelf.evaluated(text="[]\n" * 408), because="line 1 is not a valid prediction")
    shelf.refused(shelf.evaluated(text=PREDICTIONS.split("\n", 1)[0] + "\n"), because="its 1 predictions")


def test_a_record_cannot_name_predictions_elsewhere(shelf: Shelf) -> None:
    digest = hashlib.sha256(PREDICTIONS.encode()).hexdigest()
    for name in ("sub/x.predictions.jsonl", "x.json", "../x.predictions.jsonl"):
        store.write_text(shelf.folder / name, PREDICTIONS)
    for name in ("../x.predictions.jsonl", "/tmp/x.predictions.jsonl", "sub/x.predictions.jsonl", "..", "x.json", ""):
        section = make_evaluate(predictions_file=name, predictions_sha256=digest)
        path = shelf.record("a.json", make_record("evaluate", evaluate=section))
        shelf.refused(path, because="predictions_file is")


def test_a_record_that_is_never_compared_is_refused(shelf: Shelf) -> None:
    shelf.refused(
        shelf.record("a.json", make_record("ab")), because=r"a\.json: a record of ab; a baseline holds records of train"
    )


def test_records_of_several_commands_are_refused(shelf: Shelf) -> None:
    bench = shelf.record("bench.json", make_record("bench"))
    shelf.refused(shelf.evaluated(), bench, because="records of bench and evaluate; a baseline holds records of one")


def test_a_record_given_twice_is_refused(shelf: Shelf) -> None:
    path = shelf.record("a.json", make_record("train"))
    copy = shelf.folder / "b.json"
    copy.write_bytes(path.read_bytes())
    shelf.refused(path, copy, because=r"b\.json: the same record as .*a\.json")
    shelf.refused(path, path, because="the same record")


def test_one_bad_record_prevents_saving_the_good_ones(shelf: Shelf) -> None:
    good = shelf.record("a.json", make_record("train"))
    bad = shelf.record("b.json", make_record("train", complete=False))
    shelf.refused(good, bad, because="not complete")


def test_invalid_rows_are_saved_with_a_warning(shelf: Shelf) -> None:
    rows = (make_row(), make_row(batch_size=8, broken_rules=("still drifting",)))
    shelf.set("main", shelf.record("a.json", make_record("bench", bench=make_bench(rows=rows))))
    (line,) = shelf.listener.warnings
    assert line.endswith("a.json: 1 of 2 rows INVALID; the first: still drifting")
    assert shelf.files() == ["a.json"]


def test_an_unverified_graph_is_saved_with_a_warning(shelf: Shelf) -> None:
    unverified = replace(MODEL, graph_sha256="e" * 64, proven=False)
    rows = (make_row(), make_row(model=unverified))
    shelf.set("main", shelf.record("a.json", make_record("bench", bench=make_bench(rows=rows))))
    shelf.set("other", shelf.record("b.json", make_record("bench", model=unverified)))
    assert [line.endswith("it has an UNVERIFIED graph") for line in shelf.listener.warnings] == [True, True]


# --- what is there already --------------------------------------------------------------------------------------------


def test_a_baseline_is_replaced_only_on_request(shelf: Shelf) -> None:
    first, second = shelf.evaluated(), shelf.record("b.json", make_record("bench"))
    shelf.set("main", first)
    before = shelf.files()
    shelf.refused(second, because="exists; use another name, or replace it with --overwrite")
    assert shelf.files() == before
    shelf.set("main", second, overwrite=True)
    assert shelf.files() == ["b.json"]


def test_a_refused_baseline_leaves_the_old_one_unchanged(shelf: Shelf) -> None:
    shelf.set("main", shelf.evaluated())
    bad = shelf.record("bad.json", make_record("bench", complete=False))
    shelf.refused(bad, because="not complete", overwrite=True)
    assert shelf.files() == ["evaluate.json", "evaluate.predictions.jsonl"]


def test_a_baseline_can_be_replaced_from_its_own_files(shelf: Shelf) -> None:
    shelf.set("main", shelf.evaluated())
    shelf.set("main", shelf.kept / "main" / "evaluate.json", overwrite=True)
    assert shelf.files() == ["evaluate.json", "evaluate.predictions.jsonl"]


def test_overwrite_removes_only_baselines(shelf: Shelf) -> None:
    path = shelf.evaluated()
    strange: dict[str, Callable[[Path], object]] = {
        "README.md": lambda file: file.write_text("mine"),
        "sub": Path.mkdir,
        "sub.predictions.jsonl": Path.mkdir,
        "package.json": lambda file: file.write_text('{"name": "mine"}'),
        "list.json": lambda file: file.write_text('["schema_version", "command", "environment"]'),
        "broken.json": lambda file: file.write_text("{"),
        "link.predictions.jsonl": lambda file: file.symlink_to("evaluate.json"),
    }
    for count, (name, add) in enumerate(strange.items()):
        shelf.set(f"main-{count}", path)
        add(shelf.kept / f"main-{count}" / name)
        because = f"holds {name}, so it is not a baseline; --overwrite does not remove it"
        shelf.refused(path, name=f"main-{count}", because=because, overwrite=True)


def test_overwrite_removes_neither_a_file_nor_a_link(shelf: Shelf) -> None:
    path = shelf.evaluated()
    shelf.set("real", path)
    (shelf.kept / "link").symlink_to(shelf.kept / "real")
    (shelf.kept / "dangling").symlink_to(shelf.kept / "nowhere")
    (shelf.kept / "file").write_text("mine")
    for name in ("link", "dangling", "file"):
        shelf.refused(path, name=name, because="--overwrite$")
        shelf.refused(path, name=name, because="a link or a file, so not a baseline", overwrite=True)


def test_a_baseline_of_another_version_can_be_replaced(shelf: Shelf) -> None:
    path = shelf.record("a.json", make_record("bench"))
    shelf.set("main", path)
    kept = shelf.kept / "main" / "a.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "schema_version": 99}))
    shelf.set("main", path, overwrite=True)
    assert kept.read_bytes() == path.read_bytes()
