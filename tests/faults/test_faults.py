"""Broken input of every kind, kills, interrupts and full disks, by the command line.

Each ends with one line and the right exit code: nothing hangs, nothing good is lost, and nothing is left behind.
"""

import math
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from fault_campaign import FAMILIES, failed
from fault_cases import BENCH, EVALUATE, Case
from fault_server import Ended, FaultServer

from mrpcbench.records import store
from mrpcbench.records.outputs import predictions_of
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, TrainRecord

# --- broken input -----------------------------------------------------------------------------------------------------

# Of each family, every so many cases run by default: together they take a few seconds. Starting Python for some cases
# takes longer.
EVERY = {
    "data": 4,
    "models": 31,
    "graphs": 11,
    "records": 13,
    "repeated": 13,
    "forgeries": 13,
    "options": 23,
    "environment": 13,
    "interpreter": None,
}


def test_every_kind_of_input_has_its_share() -> None:
    assert set(EVERY) == set(FAMILIES)


@pytest.mark.parametrize("family", [family for family, every in EVERY.items() if every])
def test_a_part_of_the_broken_input_ends_as_it_should(family: str, whole: Path, server: FaultServer) -> None:
    assert [*failed(cases(family)[:: EVERY[family]], whole, server)] == []


@pytest.mark.faults
@pytest.mark.parametrize("family", FAMILIES)
def test_all_broken_input_ends_as_it_should(family: str, whole: Path, server: FaultServer) -> None:
    assert [*failed(cases(family), whole, server)] == []


def cases(family: str) -> list[Case]:
    made: Callable[[], object] = FAMILIES[family]
    return [*made()]  # type: ignore[call-overload, no-any-return]


def test_a_wrong_end_is_seen(whole: Path, server: FaultServer) -> None:
    """The judge itself: each command here ends otherwise than its case says."""
    wrong = (
        Case("works", ("report", "record.json")),
        Case("fails", ("report", "nothing.json"), statuses=(0,)),
        Case("another name", ("report", "nothing.json"), names="something"),
        Case("a file left", ("report", "nothing.json"), lambda folder: (folder / ".x").touch()),
    )
    assert len([*failed(wrong, whole, server)]) == len(wrong)


# --- kills at a change of a file --------------------------------------------------------------------------------------


def has_pair(record: str) -> Callable[[Path], None]:
    """The record is whole, and has its predictions."""

    def check(folder: Path) -> None:
        found = store.load_as(EvaluateRecord, folder / record)
        store.load_jsonl(predictions_of(found, folder / record), found.evaluate.predictions_sha256)

    return check


def has_graph(folder: Path) -> None:
    names = {path.name for path in (folder / "graph").iterdir()}
    assert {"model.onnx", "config.json", "mrpcbench.json", "tokenizer.json"} <= names
    lineage = store.load_lineage(folder / "graph")
    assert lineage is not None and lineage.model.graph_sha256


@dataclass(frozen=True)
class Killed:
    """A command that replaces something, what must hold after every kill, and how many kills run by default."""

    arguments: tuple[str, ...]
    holds: Callable[[Path], None]
    kills: int


BASELINE = ("baseline", "set", "main", "record.json", "--overwrite")
EXPORT = ("export", "--model", "model", "--data", "data", "--optimize", "cpu", "--output-dir", "graph")
COMMANDS = {
    "evaluate": Killed((*EVALUATE[:-1], "record.json"), has_pair("record.json"), 4),
    "baseline set": Killed(BASELINE, has_pair("results/baselines/main/record.json"), 8),
    "export": Killed((*EXPORT, "--results", "export.json"), has_graph, 2),
}


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of what the commands replace."""
    return Path(shutil.copytree(whole, tmp_path / "work"))


def killed_at_each(command: Killed, most: int | None, folder: Path, server: FaultServer) -> None:
    """Run the command again and again, killed at one of its changes, then to the end; `most` limits the kills."""
    ended = server.run(folder, *command.arguments)
    assert ended.status == 0, ended
    points = range(1, ended.changes + 1)
    for at in points[:: math.ceil(len(points) / most)] if most else points:
        assert server.run(folder, *command.arguments, at=at).status == -signal.SIGKILL, at
        command.holds(folder)
    ended = server.run(folder, *command.arguments)
    assert ended.status == 0, ended
    command.holds(folder)
    assert left_in(folder) == []


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_killed_command_replaces_is_the_old_or_the_new(name: str, folder: Path, server: FaultServer) -> None:
    killed_at_each(COMMANDS[name], COMMANDS[name].kills, folder, server)


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_every_kill_leaves_the_old_or_the_new(name: str, folder: Path, server: FaultServer) -> None:
    killed_at_each(COMMANDS[name], None, folder, server)


# --- training ---------------------------------------------------------------------------------------------------------

EPOCHS = ("--num-train-epochs", "2", "--batch-size", "6", "--engine", "trainer", "--precision", "fp32")
RUN = ("train", "--model", "model", "--data", "data", *EPOCHS, "--results", "train.json")


def trained(folder: Path, output: str, server: FaultServer, **fault: float) -> Ended:
    """Train into the folder `output`, going on with a run that is there."""
    resume = ("--resume",) if (folder / output / "mrpcbench-run.json").exists() else ()
    return server.run(folder, *RUN, "--output-dir", output, *resume, **fault)  # type: ignore[arg-type]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def killed_in_training(kills: int, folder: Path, server: FaultServer) -> None:
    ended = trained(folder, "whole", server)
    assert ended.status == 0, ended
    for number in range(1, kills + 1):
        ended = trained(folder, "killed", server, at=1 + number * (ended.changes - 1) // (kills + 1))
        assert ended.status == -signal.SIGKILL, ended
        if ended.changes < 2:
            break
    ended = trained(folder, "killed", server)
    assert ended.status == 0, ended
    assert weights(folder / "killed") == weights(folder / "whole")
    assert left_in(folder) == []


def test_a_training_killed_again_and_again_ends_with_the_same_weights(folder: Path, server: FaultServer) -> None:
    killed_in_training(2, folder, server)


@pytest.mark.faults
def test_a_training_killed_at_many_points_ends_with_the_same_weights(folder: Path, server: FaultServer) -> None:
    killed_in_training(30, folder, server)


def test_sigterm_ends_a_training_like_ctrl_c(folder: Path, server: FaultServer) -> None:
    changes = trained(folder, "whole", server).changes
    ended = trained(folder, "killed", server, at=changes // 3, send=signal.SIGTERM)
    assert ended.status == 130, ended
    assert ended.err.splitlines()[-1].startswith("error: interrupted at step"), ended.err
    assert trained(folder, "killed", server).status == 0
    assert weights(folder / "killed") == weights(folder / "whole")


def test_sigterm_ends_a_command_like_ctrl_c(folder: Path, server: FaultServer) -> None:
    ended = server.run(folder, *EVALUATE[:-1], "record.json", at=3, send=signal.SIGTERM)
    assert (ended.status, ended.err.splitlines()[-1]) == (130, "error: interrupted")
    has_pair("record.json")(folder)
    assert left_in(folder) == []


def test_a_damaged_checkpoint_is_said_and_an_older_one_used(folder: Path, server: FaultServer) -> None:
    assert trained(folder, "whole", server).status == 0
    shutil.copytree(folder / "whole", folder / "damaged")
    for name in ("model.safetensors", "mrpcbench.json", "mrpcbench-train.json"):
        (folder / "damaged" / name).unlink()
    optimizer = folder / "damaged" / "checkpoint-4" / "optimizer.pt"
    content = bytearray(optimizer.read_bytes())
    content[len(content) // 2] ^= 1
    optimizer.write_bytes(content)
    ended = trained(folder, "damaged", server)
    assert ended.status == 0, ended
    assert "checkpoint-4 is damaged (optimizer.pt: " in ended.err
    assert "resuming from checkpoint-2" in ended.err
    assert weights(folder / "damaged") == weights(folder / "whole")


# --- kills at any moment ----------------------------------------------------------------------------------------------

# Another seed kills at other moments. A failure says which seed it had.
SEED = int(os.environ.get("MRPCBENCH_FAULT_SEED", "0"))
RANDOM_KILLS = 30


def killed_at_random(run: Callable[[float], Ended], longest_s: float) -> Iterator[Ended]:
    """The ends of `run(after_s)`, each killed after a random part of its time, until `RANDOM_KILLS` were killed.

    `longest_s` is the duration of a whole run; one that ends before it is killed has the duration of the next.
    """
    draw, killed = random.Random(SEED), 0
    for number in range(1, 4 * RANDOM_KILLS):
        after_s, begin = draw.uniform(0, longest_s), time.monotonic()
        sys.stdout.write(f"seed {SEED}, run {number}, killed after {after_s:.3f} of {longest_s:.3f} s\n")
        ended = run(after_s)
        assert ended.status in (0, -signal.SIGKILL), ended
        if ended.status == 0:
            longest_s = time.monotonic() - begin
        killed += ended.status != 0
        yield ended
        if killed == RANDOM_KILLS:
            return
    raise AssertionError(f"only {killed} of {number} runs were killed")


def has_record(folder: Path) -> None:
    """A record that was begun may be there, and a half one never is."""
    if (folder / "new.json").exists():
        store.load_as(BenchRecord, folder / "new.json")


ANY_TIME = {
    **{name: (command.arguments, command.holds) for name, command in COMMANDS.items()},
    "bench": ((*BENCH, "--batch-size", "2", "--rounds", "2", "--max-seconds", "0"), has_record),
}


@pytest.mark.faults
@pytest.mark.parametrize("name", ANY_TIME)
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(name: str, folder: Path, server: FaultServer) -> None:
    arguments, holds = ANY_TIME[name]
    begin = time.monotonic()
    assert server.run(folder, *arguments).status == 0
    for _ in killed_at_random(partial(_run, folder, arguments, server), time.monotonic() - begin):
        holds(folder)
    ended = server.run(folder, *arguments)
    assert ended.status == 0, ended
    holds(folder)
    assert left_in(folder) == []


def _run(folder: Path, arguments: tuple[str, ...], server: FaultServer, after_s: float) -> Ended:
    return server.run(folder, *arguments, after_s=after_s)


@pytest.mark.faults
def test_a_training_killed_at_any_moment_ends_with_the_same_weights(folder: Path, server: FaultServer) -> None:
    begin = time.monotonic()
    assert trained(folder, "whole", server).status == 0

    def run(after_s: float) -> Ended:
        return trained(folder, "killed", server, after_s=after_s)

    for ended in killed_at_random(run, time.monotonic() - begin):
        if (folder / "train.json").exists():
            store.load_as(TrainRecord, folder / "train.json")
        if ended.status == 0:
            assert weights(folder / "killed") == weights(folder / "whole")
            assert left_in(folder / "killed") == []
            shutil.rmtree(folder / "killed")
    ended = trained(folder, "killed", server)
    assert ended.status == 0, ended
    assert weights(folder / "killed") == weights(folder / "whole")
    assert left_in(folder) == []


# --- full disks -------------------------------------------------------------------------------------------------------

FULL = {
    "evaluate": ((*EVALUATE[:-1], "record.json"), 500),
    "export": ((*EXPORT, "--results", "export.json"), 500_000),
    "train, checkpoint": ((*RUN, "--output-dir", "out"), 500_000),
    "train, optimizer": ((*RUN, "--output-dir", "out"), 3_000_000),
    "baseline set": (BASELINE, 500),
}
DEFERRED = dict.fromkeys(("export", "train, optimizer"), pytest.mark.faults)


@pytest.mark.parametrize("name", [pytest.param(name, marks=DEFERRED.get(name, ())) for name in FULL])
def test_a_disk_that_takes_no_more_is_one_line(name: str, folder: Path, server: FaultServer) -> None:
    arguments, largest = FULL[name]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ended = server.run(folder, *arguments, largest=largest)
    assert ended.status == 1, ended
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert "internal error" not in line
    assert {path: path.read_bytes() for path in before} == before
    assert left_in(folder) == []
