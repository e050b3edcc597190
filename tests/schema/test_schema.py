"""Tests of all classes of mrpcbench.schema, and of the reference recipe."""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import typer
from pydantic import TypeAdapter, ValidationError
from records import COMMANDS, MODEL, make_record

from mrpcbench.cli import app
from mrpcbench.records import store
from mrpcbench.schema import (
    bench_requests,
    bench_results,
    gate_requests,
    identity,
    records,
    requests,
    results,
    verdicts,
)
from mrpcbench.schema import (
    fields as schema_fields,
)
from mrpcbench.schema.bench_requests import BenchControl, BenchPlan, BenchView
from mrpcbench.schema.gate_requests import AbPlan, BaselineFolder, BaselineRequest, ComparePlan, Publish, ReportPlan
from mrpcbench.schema.identity import Command, Lineage
from mrpcbench.schema.records import RECORDS, RunRecord
from mrpcbench.schema.requests import (
    BackendSpec,
    EvaluatePlan,
    ExportPlan,
    JsonOption,
    Output,
    QuickstartRequest,
    StudyPlan,
    TrainRecipe,
    TrainRequest,
)
from mrpcbench.training.arguments import with_batch_sizes

MODULES = (requests, bench_requests, gate_requests, verdicts, identity, results, bench_results, records)
CLASSES = [
    kind
    for module in MODULES
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if is_dataclass(kind) and kind.__module__ == module.__name__
]
# Results that are printed, also as JSON, but never read by mrpcbench.
ANSWERS = {"EnvironmentReport", "SavedBaseline", "PairAnswer"}
REQUESTS = {
    "train": (TrainRequest, TrainRecipe, Output),
    "evaluate": (BackendSpec, EvaluatePlan, Output),
    "export": (ExportPlan, Output),
    "bench": (BenchPlan, BackendSpec, BenchControl, BenchView, Output),
    "compare": (ComparePlan, Publish, JsonOption),
    "ab": (AbPlan, Publish, Output),
    "baseline set": (BaselineFolder, BaselineRequest, JsonOption),
    "report": (ReportPlan, JsonOption),
    "study": (StudyPlan, JsonOption),
    "quickstart": (QuickstartRequest, JsonOption),
    "env": (JsonOption,),
}
COMMAND_LINE: dict[str, Any] = dict(typer.main.get_command(app.app).commands)  # type: ignore[attr-defined]
COMMAND_LINE |= {f"baseline {name}": command for name, command in COMMAND_LINE.pop("baseline").commands.items()}


def record_classes(kind: type) -> Iterator[type]:
    """`kind` and every dataclass that its fields mention."""
    yield kind
    waiting = list(get_type_hints(kind).values())
    while waiting:
        hint = waiting.pop()
        waiting += get_args(hint)
        if isinstance(hint, type) and is_dataclass(hint):
            yield from record_classes(hint)


RECORDED = sorted(
    {found for kind in (*RECORDS.values(), Lineage) for found in record_classes(kind)}, key=lambda kind: kind.__name__
)


def named(kind: type) -> str:
    return kind.__name__


# --- the classes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES, ids=named)
def test_a_class_of_the_vocabulary_is_frozen_and_made_by_keyword_only(kind: type) -> None:
    parameters = inspect.signature(kind).parameters.values()
    assert {item.kind for item in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_a_field_cannot_be_set_afterwards() -> None:
    with pytest.raises(FrozenInstanceError):
        MODEL.name = "other"  # type: ignore[misc]


def test_every_class_in_a_record_is_tested() -> None:
    assert {"BenchRecord", "Lineage", "BenchRow", "TrainRecipe", "Interval"} <= {kind.__name__ for kind in RECORDED}
    assert set(RECORDED) <= set(CLASSES)


@pytest.mark.parametrize("kind", RECORDED, ids=named)
def test_a_class_in_a_record_forbids_unknown_fields(kind: type) -> None:
    assert kind.__dict__.get("__pydantic_config__") is schema_fields.STRICT
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_json('{"no_such_field": 1}')
    types = {error["loc"]: error["type"] for error in caught.value.errors()}
    assert types[("no_such_field",)] == "unexpected_keyword_argument"


@pytest.mark.parametrize("kind", [item for item in CLASSES if item.__name__ not in ANSWERS], ids=named)
def test_every_field_has_a_description(kind: type) -> None:
    for item in fields(kind):
        meaning = item.metadata["about"]
        assert meaning.strip() == meaning, item.name
        assert len(meaning) > 8, item.name
        assert meaning.endswith("."), item.name


@pytest.mark.parametrize("kind", CLASSES, ids=named)
def test_a_field_has_only_immutable_values(kind: type) -> None:
    """A dict is the one exception: JSON has no other map."""

    def frozen(hint: Any) -> bool:
        origin, inner = get_origin(hint), get_args(hint)
        if origin is Literal:
            return True
        if origin in (tuple, Union, type(int | None), dict):
            return all(frozen(item) for item in inner if item is not ...)
        return hint in (str, int, float, bool, type(None)) or (hint in CLASSES)

    for name, hint in get_type_hints(kind).items():
        assert name == "__pydantic_config__" or frozen(hint), name


# Unit in the description -> suffix of the name.
UNITS = {
    r"\bmilliseconds\b": "_ms",
    r"\btime of (the|each)\b": "_ms",
    r"\bseconds\b": "_s",
    r"\b(main|gpu) memory\b": "_bytes",
}


@pytest.mark.parametrize("kind", RECORDED, ids=named)
def test_a_number_with_a_unit_has_it_in_its_name(kind: type) -> None:
    for item in fields(kind):
        for unit, ending in UNITS.items():
            if re.search(unit, item.metadata["about"].lower()):
                assert item.name.endswith(ending), item.name


def test_every_command_has_a_class_of_records_with_a_field_for_its_result() -> None:
    assert tuple(RECORDS) == get_args(Command) == COMMANDS
    shared = {item.name for item in fields(RunRecord)}
    for command, kind in RECORDS.items():
        assert {item.name for item in fields(kind)} - shared == {command}
        assert make_record(command).command == command


@pytest.mark.parametrize(
    ("weights", "origin", "label"),
    [
        ("pretrained", "pretrained", "pretrained"),
        ("random-init", "random-init", "random-init"),
        ("fine-tuned", "pretrained", "fine-tuned"),
        ("fine-tuned", "unknown", "fine-tuned"),
        ("fine-tuned", "random-init", "fine-tuned from random-init"),
    ],
)
def test_every_table_mentions_random_weights(weights: Any, origin: Any, label: str) -> None:
    assert dataclasses.replace(MODEL, weights=weights, origin=origin).weights_label == label


# --- the defaults -----------------------------------------------------------------------------------------------------


def test_the_default_recipe_is_the_reference_run() -> None:
    """The arguments of the published notebook, and otherwise the defaults of the Trainer."""
    recipe = with_batch_sizes(TrainRecipe(), 1)
    assert (recipe.per_device_train_batch_size, recipe.per_device_eval_batch_size) == (32, 32)
    assert (recipe.num_train_epochs, recipe.max_steps) == (2.0, -1)
    assert (recipe.learning_rate, recipe.lr_scheduler_type, recipe.warmup_steps) == (8e-5, "linear", 0)
    assert (recipe.optim, recipe.adam_beta1, recipe.adam_beta2, recipe.adam_epsilon) == ("adamw_torch", 0.9, 0.98, 1e-6)
    assert (recipe.weight_decay, recipe.max_grad_norm, recipe.gradient_accumulation_steps) == (0.0, 1.0, 1)
    assert (recipe.metric_for_best_model, recipe.seed) == ("loss", 42)
    assert TrainRequest().model == "answerdotai/ModernBERT-base"


def test_train_writes_to_the_default_model_of_the_other_commands() -> None:
    assert TrainRequest().output_dir == BackendSpec().model == ExportPlan().model


@pytest.mark.parametrize("command", REQUESTS)
def test_every_default_of_the_command_line_is_that_of_its_class(command: str) -> None:
    owners: dict[str, Any] = {}
    for request in REQUESTS[command]:
        for item in fields(request):
            owners.setdefault(item.name, item.default)
    options = {item.name: item for item in COMMAND_LINE[command].params}
    for name, default in owners.items():
        shown = options[name].default
        assert (tuple(shown) if isinstance(shown, list) else shown) == default, name
        assert type(shown) is type(default) or isinstance(default, tuple), name


@pytest.mark.parametrize("command", REQUESTS)
def test_an_option_outside_the_classes_is_off_by_default(command: str) -> None:
    owned = {item.name for request in REQUESTS[command] for item in fields(request)}
    for option in COMMAND_LINE[command].params:
        assert option.name in owned or not option.default, option.name


def test_every_command_is_tested() -> None:
    assert set(COMMAND_LINE) == set(REQUESTS)


@pytest.mark.parametrize("command", REQUESTS)
def test_every_option_has_help(command: str) -> None:
    for option in COMMAND_LINE[command].params:
        assert option.help, option.name


def test_a_record_of_the_defaults_can_be_written() -> None:
    document = json.loads(store.dumps(make_record("train")))
    assert document["train"]["recipe"] == dataclasses.asdict(TrainRecipe())


# --- one name, one meaning --------------------------------------------------------------------------------------------

# Options that mean or accept something else in one command, each with the reason.
OTHER_TYPE = {
    "dtype": {"export"},  # a graph is stored in one precision: there is no 'auto', and no bf16 in ONNX Runtime
    "backend": {"bench"},  # repeatable
    "batch_size": {"bench"},  # repeatable
}
OTHER_HELP = {
    "model": {"train", "export"},  # both read weights, so an ONNX folder is no choice
    "data": {"export"},  # adds what the pairs are for
    "split": {"export"},  # adds what the pairs are for
    "device": {"export"},  # the export itself always runs on the CPU
    "dtype": {"export"},
    "backend": {"bench"},
    "batch_size": {"train", "bench", "evaluate"},  # train's is of all processes, evaluate's depends on the device
    "warmup": {"bench"},  # of each row, and not of each process
    "overwrite": {"baseline set"},  # a baseline, and not a run
    "output_dir": {"train", "study", "evaluate", "export", "quickstart"},  # each writes something else
    "seed": {"train", "bench"},
}


def shared_options() -> dict[str, dict[str, Any]]:
    """Option name -> command -> option, for each that more than one command has."""
    found: dict[str, dict[str, Any]] = {}
    for command, group in COMMAND_LINE.items():
        for option in group.params:
            if option.param_type_name == "argument":
                continue
            found.setdefault(option.name, {})[command] = option
    return {name: users for name, users in found.items() if len(users) > 1}


@pytest.mark.parametrize("name", shared_options())
def test_an_option_takes_the_same_values_in_every_command(name: str) -> None:
    users = {
        command: (repr(option.type), option.multiple, option.is_flag)
        for command, option in shared_options()[name].items()
        if command not in OTHER_TYPE.get(name, ())
    }
    assert len(set(users.values())) == 1, users


@pytest.mark.parametrize("name", shared_options())
def test_an_option_has_the_same_help_in_every_command(name: str) -> None:
    users = {
        command: option.help
        for command, option in shared_options()[name].items()
        if command not in OTHER_HELP.get(name, ())
    }
    assert len(set(users.values())) <= 1, users


def test_every_exception_is_still_needed() -> None:
    for name, commands in {**OTHER_HELP, **OTHER_TYPE}.items():
        users = shared_options()[name]
        assert commands <= set(users), name
        assert len({option.help for option in users.values()}) > 1, f"{name} is no exception any more"


def test_the_help_of_data_begins_the_same_everywhere() -> None:
    for command, option in shared_options()["data"].items():
        assert option.help.startswith(requests.DATA_HELP), command
