"""Commands that are killed, interrupted or out of disk: nothing good is lost, and nothing is left."""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_cases import BENCH, EVALUATE
from fault_server import Ended, FaultServer

from mrpcbench.records import store
from mrpcbench.records.outputs import predictions_of
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, TrainRecord


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
    "evaluate": Killed((*EVALUATE[:-1], "record.json"), has_pair("record.json"), 2),
    "baseline set": Killed(BASELINE, has_pair("results/baselines/main/record.json"), 6),
    "export": Killed((*EXPORT, "--results", "export.json"), has_graph, 1),
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
    for at in points[:: max(1, len(points) // most)] if most else points:
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


def random_delays(longest_s: float) -> Iterator[float]:
    """Seconds until each kill, equally likely up to `longest_s`."""
    draw = random.Random(SEED)
    for number in range(1, RANDOM_KILLS + 1):
        delay_s = draw.uniform(0, longest_s)
        sys.stdout.write(f"seed {SEED}, kill {number} of {RANDOM_KILLS} after {delay_s:.3f} s\n")
        yield delay_s


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
    killed = 0
    for delay_s in random_delays(time.monotonic() - begin):
        ended = server.run(folder, *arguments, after_s=delay_s)
        assert ended.status in (0, -signal.SIGKILL), ended  # a fast run may end before
        killed += ended.status != 0
        holds(folder)
    assert killed > RANDOM_KILLS // 3
    ended = server.run(folder, *arguments)
    assert ended.status == 0, ended
    holds(folder)
    assert left_in(folder) == []


@pytest.mark.faults
def test_a_training_killed_at_any_moment_ends_with_the_same_weights(folder: Path, server: FaultServer) -> None:
    begin, finished = time.monotonic(), 0
    assert trained(folder, "whole", server).status == 0
    for delay_s in random_delays(time.monotonic() - begin):
        ended = trained(folder, "killed", server, after_s=delay_s)
        assert ended.status in (0, -signal.SIGKILL), ended
        if (folder / "train.json").exists():
            store.load_as(TrainRecord, folder / "train.json")
        if ended.status == 0:
            assert weights(folder / "killed") == weights(folder / "whole")
            assert left_in(folder / "killed") == []
            shutil.rmtree(folder / "killed")
            finished += 1
    assert finished < RANDOM_KILLS
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
