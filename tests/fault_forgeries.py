"""More cases of `tests/faults`: names that are given twice, and values that contradict the rest of a record or a model.

Each is a file that its reader could take for a good one.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fault_cases import BENCH, EVALUATE, EXPORT, GRAPH, TRAIN, Arguments, Case, Change, in_order, key, text
from safetensors.torch import load_file, save_file

USERS = {"evaluate": EVALUATE, "train": TRAIN, "export": (*EXPORT, "--optimize", "cpu"), "bench": BENCH}
COMPARE: Arguments = ("compare", "record.json", "other.json")
SET: Arguments = ("baseline", "set", "x", "other.json")


def twice(file: str, name: str) -> Change:
    """The first key `name` in the JSON file `file` is given twice, the first time with the value null."""

    def change(folder: Path) -> None:
        found, path = f'"{name}":', folder / file
        before = path.read_text(encoding="utf-8")
        assert found in before, (file, name)
        path.write_text(before.replace(found, f"{found} null, {found}", 1), encoding="utf-8")

    return change


def without(file: str) -> Change:
    """No file `file`."""
    return lambda folder: (folder / file).unlink()


def other(name: str, *changes: Change) -> Change:
    """`other.json` is the record `name` of a later run, then changed; one of evaluate has its predictions beside it."""

    def copy(folder: Path) -> None:
        shutil.copy(folder / name, folder / "other.json")
        key("other.json", "2100-01-01T00:00:00+00:00", "environment", "started_at")(folder)
        if (predictions := folder / f"{Path(name).stem}.predictions.jsonl").exists():
            shutil.copy(predictions, folder / "other.predictions.jsonl")
            key("other.json", "other.predictions.jsonl", "evaluate", "predictions_file")(folder)

    return in_order(copy, *changes)


def with_predictions(edit: Callable[[list[str]], list[str]]) -> Change:
    """`other.json` with edited lines of predictions, whose hash it has."""

    def change(folder: Path) -> None:
        path = folder / "other.predictions.jsonl"
        path.write_text("".join(edit(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        key("other.json", digest, "evaluate", "predictions_sha256")(folder)

    return other("record.json", change)


def weights(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """The weights of `model`, edited."""

    def change(folder: Path) -> None:
        path = folder / "model" / "model.safetensors"
        found = load_file(path)
        edit(found)
        save_file(found, path, {"format": "pt"})

    return change


def repeated() -> Iterator[Case]:
    """Keys and columns that are given twice: the first or the last of them could be meant."""
    for file, name in {
        "model/config.json": "model_type",
        "model/tokenizer.json": "model",
        "model/tokenizer_config.json": "pad_token",
        "model/special_tokens_map.json": "pad_token",
        "model/mrpcbench.json": "model_sha256",
    }.items():
        for user, arguments in USERS.items():
            # A training begins from weights, whatever made them; an export has a graph of its own.
            statuses = (0, 2) if file == "model/mrpcbench.json" and user in ("train", "export") else (2,)
            yield Case(f"{user}, {file}: {name} twice", arguments, twice(file, name), statuses, Path(file).name)
    yield Case("config.json: 0 of id2label twice", EVALUATE, twice("model/config.json", "0"), names="config.json")
    for file, name in {"graph/config.json": "model_type", "graph/mrpcbench.json": "graph_sha256"}.items():
        yield Case(f"{file}: {name} twice", GRAPH, twice(file, name), names=Path(file).name)
    row = '{"sentence1": "a", "sentence2": "b", "label": 1, "label": 0}\n'
    for user, arguments in USERS.items():
        change = in_order(
            lambda folder: (folder / "data" / "validation.csv").unlink(), text("data/validation.jsonl", row)
        )
        yield Case(f"{user}, jsonl: label twice", arguments, change, names="validation.jsonl line 1")
        head = "label,sentence1,sentence2,label\n0,a b,c d,1\n"
        yield Case(
            f"{user}, csv: label twice", arguments, text("data/validation.csv", head), names="validation.csv line 1"
        )
    for record, name in {
        "record.json": "accuracy",
        "bench.json": "samples_ms",
        "trained.json": "best_step",
        "export.json": "proven",
        "study.json": "median",
    }.items():
        for arguments in (("report", "other.json"), COMPARE, SET):
            change = other(record, twice("other.json", name))
            yield Case(f"{arguments[0]}, {record}: {name} twice", arguments, change, names="other.json line")
    lines = with_predictions(lambda found: [found[0].replace('"label"', '"label": 1, "label"'), *found[1:]])
    for arguments in (COMPARE, SET):
        yield Case(f"{arguments[0]}, predictions: label twice", arguments, lines, names="other.predictions.jsonl")
    policy = in_order(other("record.json"), text("p.toml", "alpha = 0.1\nalpha = 0.2\n"))
    yield Case("policy: alpha twice", (*COMPARE, "--policy", "p.toml"), policy, names="p.toml")


def forgeries() -> Iterator[Case]:
    """Values of a good type that the rest of their file contradicts; answers and layers that a file has in addition."""
    scores: dict[str, tuple[tuple[str | int, ...], Any]] = {
        "accuracy": (("evaluate", "score", "accuracy"), 0.99),
        "f1": (("evaluate", "score", "f1"), 1e308),
        "confusion": (("evaluate", "score", "confusion", "true_positive"), 9),
        "pairs": (("data", 0, "pairs"), 7),
        "positives": (("data", 0, "positives"), 0),
    }
    edits: dict[str, dict[str, tuple[tuple[str | int, ...], Any]]] = {
        "record.json": scores,
        "trained.json": {
            "accuracy": (("train", "epochs", 0, "eval_accuracy_score"), 0.99),
            "f1": (("train", "epochs", 0, "eval_f1_score"), 0.999),
            "best step": (("train", "epochs", 0, "eval_loss"), 1e-9),
            "pairs": (("data", 1, "pairs"), 399),
        },
        "bench.json": {
            "f1": (("bench", "rows", 0, "f1"), 0.999),
            "accuracy": (("bench", "rows", 0, "accuracy"), 0.999),
        },
        "export.json": {"proven": (("model", "proven"), False)},
        "study.json": {
            "median": (("study", "settings", 0, "summaries", 0, "median"), 0.999),
            "trial": (("study", "settings", 0, "trials", 0, "record", "train", "epochs", 0, "eval_f1_score"), 0.999),
            "interval": (("study", "settings", 0, "summaries", 1, "median_interval", "low"), 0.99),
        },
    }
    for record, found in edits.items():
        for name, (path, value) in found.items():
            change = other(record, key("other.json", value, *path))
            for arguments in (("report", "other.json"), COMPARE, SET):
                yield Case(f"{arguments[0]}, {record}: {name}", arguments, change, names="other.json: ")
    # What the record alone does not show, its predictions do.
    for name, edited in {
        "loss": other("record.json", key("other.json", 0.001, "evaluate", "score", "loss")),
        "interval": other("record.json", key("other.json", 0.001, "evaluate", "score", "accuracy_interval", "low")),
        "logits": with_predictions(lambda found: [_with(found[0], lambda row: row["logits"].reverse()), *found[1:]]),
        "larger logits": with_predictions(lambda found: [_with(line, _double) for line in found]),
        "one line less": with_predictions(lambda found: found[:-1]),
        "label": with_predictions(lambda found: [_with(found[0], _other_label), *found[1:]]),
    }.items():
        for arguments in (COMPARE, SET):
            yield Case(f"{arguments[0]}, predictions: {name}", arguments, edited, names="other.predictions.jsonl")
    for user, arguments in USERS.items():
        for layers in (0, -1, 3, 5):
            change = key("model/config.json", layers, "num_hidden_layers")
            # A training may begin from an encoder with new layers.
            statuses = (0, 2) if layers == 5 and user == "train" else (2,)
            yield Case(f"{user}, {layers} layers", arguments, change, statuses, names="--model model")
        for value in (float("nan"), float("inf")):
            change = weights(lambda found, value=value: found["model.final_norm.weight"].fill_(value))
            yield Case(f"{user}, weights {value}", arguments, change, names="--model model")
        bias = weights(lambda found: found.update({"model.layers.1.attn.Wqkv.bias": torch.ones(3)}))
        yield Case(f"{user}, a bias more", arguments, bias, names="--model model")


def _with(line: str, edit: Callable[[dict[str, Any]], Any]) -> str:
    """A line of predictions after `edit`."""
    row = json.loads(line)
    edit(row)
    return json.dumps(row) + "\n"


def _double(row: dict[str, Any]) -> None:
    row["logits"] = [2 * value for value in row["logits"]]


def _other_label(row: dict[str, Any]) -> None:
    row["label"] = 1 - row["label"]
