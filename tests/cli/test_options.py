"""Tests of mrpcbench.cli.options: Typer options from dataclasses, frozen instances back, and the help."""

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
import typer
from command_lines import parse
from conftest import Outcome
from typer.testing import CliRunner, Result

from mrpcbench.cli import app as cli
from mrpcbench.cli.help import EXAMPLES
from mrpcbench.cli.options import given, with_options
from mrpcbench.errors import UsageError
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.fields import about, check, described
from mrpcbench.schema.requests import TrainRecipe

Colour = Literal["red", "green"]


@described
class First:
    """The first request."""

    name: str = about("A name.", default="first")
    count: int = about("A count.", default=3, flags=("--how-many", "--count"))
    share_of_all: float = about("A share.", default=0.5)
    loud: bool = about("Be loud.", default=False)
    note: str | None = about("A note.", default=None)
    only: Colour = about("One colour.", default="red")
    colour: tuple[Colour, ...] = about("Some colours.", default=("red", "green"))
    size: tuple[int, ...] = about("Some sizes.", default=(8, 32))


@described
class Second:
    """The second request."""

    name: str = about("Another name, which the first one's hides.", default="second")
    depth: int = about("A depth.", default=1)


def invoke(*arguments: str) -> tuple[Result, list[Any]]:
    """Run a command with both requests and another parameter. Returns the arguments that it received."""
    received: list[Any] = []
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @with_options(First, Second)
    def act(first: First, second: Second, extra: Annotated[int, typer.Option(help="Its own.")] = 9) -> None:
        """Act."""
        received.extend((first, second, extra))

    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"}), received


def values(*arguments: str) -> tuple[First, Second, int]:
    result, received = invoke(*arguments)
    assert result.exit_code == 0, result.output
    first, second, extra = received
    return first, second, extra


def test_without_options_a_command_gets_the_default_instances() -> None:
    assert values() == (First(), Second(), 9)


def test_a_request_is_frozen() -> None:
    first, _, _ = values("--colour", "green")
    with pytest.raises(AttributeError):
        first.name = "other"  # type: ignore[misc]
    assert isinstance(hash(first), int)


def test_every_option_reaches_its_field() -> None:
    first, second, extra = values(
        "--name",
        "ann",
        "--share-of-all",
        "0.25",
        "--loud",
        "--note",
        "n",
        "--only",
        "green",
        "--depth",
        "7",
        "--extra",
        "1",
    )
    assert first == First(name="ann", share_of_all=0.25, loud=True, note="n", only="green")
    assert second == Second(depth=7)
    assert extra == 1


def test_a_repeatable_option_becomes_a_tuple_of_plain_values() -> None:
    first, _, _ = values("--colour", "green", "--size", "1", "--size", "2")
    assert first.colour == ("green",)
    assert first.size == (1, 2)
    assert type(first.colour) is tuple
    assert type(first.colour[0]) is str
    assert [type(item) for item in values()[0].colour] == [str, str]


def test_options_that_were_given_are_distinguished_from_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[frozenset[str]] = []
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @with_options(First)
    def act(first: First, context: typer.Context) -> None:
        found.append(given(context))

    for arguments in ([], ["--count", "3", "--size", "8"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    assert found == [frozenset(), frozenset({"count", "size"})]


def test_a_name_that_two_classes_share_belongs_to_the_earlier_one() -> None:
    first, second, _ = values("--name", "ann")
    assert first.name == "ann"
    assert second.name == "second"


def test_a_shared_name_is_shown_once() -> None:
    shown = invoke("--help")[0].output
    assert "A name." in shown
    assert "Another name" not in shown


def test_flags_replace_the_name_of_a_field() -> None:
    assert values("--how-many", "5")[0].count == 5
    assert values("--count", "6")[0].count == 6
    assert "--how-many" in invoke("--help")[0].output


def test_a_flag_can_be_given_and_has_no_opposite() -> None:
    assert values("--loud")[0].loud is True
    assert invoke("--no-loud")[0].exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--colour", "blue"),
        ("--only", "blue"),
        ("--size", "many"),
        ("--depth", "1.5"),
        ("--surprise", "1"),
        ("positional",),
    ],
)
def test_a_value_of_the_wrong_type_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result, received = invoke(*arguments)
    assert result.exit_code == 2
    assert received == []


def test_the_help_shows_the_meaning_the_default_and_the_choices_of_a_field() -> None:
    shown = invoke("--help")[0].output
    for text in ("A share.", "0.5", "Some sizes.", "8, 32", "red|green", "first", "Act."):
        assert text in shown, text


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `group` with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_help_cuts_no_option_at_80_columns(mrpcbench: Callable[..., Outcome]) -> None:
    cut = []
    for path, command in commands(typer.main.get_command(cli.app)):
        shown = mrpcbench(*path, "--help").out
        words = set(re.split(r"[\s│,]+", shown))
        cut += [(path, name) for item in command.params for name in item.opts if name[0] == "-" and name not in words]
        assert max(map(len, shown.splitlines())) <= 80, path
        assert "…" not in shown, path
    assert cut == []


def test_options_of_a_command_are_in_groups(mrpcbench: Callable[..., Outcome]) -> None:
    shown = mrpcbench("bench", "--help").out
    places = [shown.index(f"─ {name} ─") for name in ("Model and data", "Timing", "Output", "Advanced", "Options")]
    assert places == sorted(places)
    assert "─ Recipe ─" in mrpcbench("train", "--help").out


def test_every_command_has_two_examples_which_its_parser_accepts(mrpcbench: Callable[..., Outcome]) -> None:
    found = dict(commands(typer.main.get_command(cli.app)))
    for name in {"", *EXAMPLES, *map(" ".join, found)}:
        assert len(EXAMPLES.get(name, ())) == 2, name
        shown = mrpcbench(*name.split(), "--help").out
        for example in EXAMPLES[name]:
            assert example.replace("\n", "\n  ") in shown
            program, *arguments = shlex.split(example.replace("\\\n", " "))
            assert program == "mrpcbench"
            parse(arguments)


def test_an_example_with_an_unknown_option_is_found() -> None:
    for wrong in ("trian", "train --modle x", "bench --rounds 0", "baseline get x"):
        with pytest.raises(typer.TyperException):
            parse(wrong.split())


def test_a_value_has_the_name_of_what_it_is(mrpcbench: Callable[..., Outcome]) -> None:
    expected = {
        "train": "--model DIR|HUB-ID, --data DIR|NAME, --output-dir DIR, --results FILE, --push-to-hub HUB-ID, "
        "--seed N, --learning-rate NUMBER, --optim NAME",
        "bench": "--profile FILE, --pairs N, --slo-ms NUMBER, --relative-to CASE",
        "ab": "--a-python FILE, --b-model DIR|HUB-ID, --policy FILE",
    }
    for command, options in expected.items():
        shown = mrpcbench(command, "--help").out
        assert not re.search(r"<(str|int|float)>", shown)
        for option in options.split(", "):
            assert f"│ {option} " in shown


def test_each_summary_fits_on_a_line(mrpcbench: Callable[..., Outcome]) -> None:
    shown = mrpcbench("--help").out
    for path, command in commands(typer.main.get_command(cli.app)):
        if len(path) == 1:
            summary = command.help.split("\n")[0]
            assert re.search(rf"│ {path[0]} +{re.escape(summary)} +│", shown), path


def test_the_version_has_a_short_option(mrpcbench: Callable[..., Outcome]) -> None:
    assert mrpcbench("-V").out == mrpcbench("--version").out != ""


def test_a_number_out_of_its_bounds_is_refused_while_parsing(mrpcbench: Callable[..., Outcome]) -> None:
    """Before any work: the model does not exist."""
    passed = []
    for command in (
        ("bench", "--rounds", "0"),
        ("bench", "--batch-size", "8", "--batch-size", "0"),
        ("bench", "--slo-ms", "0"),
        ("train", "--adam-beta1", "1.5"),
        ("evaluate", "--threads", "-1"),
        ("ab", "--calls", "49"),
        ("compare", "--max-slowdown", "0.51"),
        ("compare", "--max-slowdown", "-0.1"),
        ("compare", "--margin", "1.1"),
    ):
        done = mrpcbench(*command)
        if done.status != 2 or f"'{command[1]}'" not in done.err or len(done.err.splitlines()) != 1:
            passed.append((command, done))
    assert passed == []


def test_the_python_api_checks_the_same_bounds() -> None:
    for request in (BenchPlan(rounds=0), BenchPlan(batch_size=(8, 0)), TrainRecipe(adam_beta1=1.5)):
        with pytest.raises(UsageError, match=r"at least|at most"):
            check(request)
