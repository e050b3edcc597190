"""Runs the cases of `tests/faults`, each in a folder of its own; from the command line, counts those that end wrongly.

`python tests/fault_campaign.py [FAMILY...]`
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from fault_cases import EVALUATE, Case, data, environment, graphs, models, options, problems, records
from fault_forgeries import forgeries, repeated
from fault_server import REPOSITORY, FaultServer
from fault_starts import interpreter

from mrpcbench.quickstart import CLASSIFIER_DIR, DATA_DIR

RECORDS = {
    "bench.json": "quickstart/bench.json",
    "trained.json": "quickstart/train.json",
    "study.json": "study-quickstart/study.json",
}
FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    family.__name__: family
    for family in (data, models, graphs, records, repeated, forgeries, options, environment, interpreter)
}


def prepared(folder: Path, server: FaultServer) -> Path:
    """Fill `folder` with what the cases break; see `fault_cases`."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(CLASSIFIER_DIR, folder / "model")
    (folder / "data").mkdir()
    for split, rows in (("train", 12), ("validation", 6)):
        lines = (DATA_DIR / f"{split}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "data" / f"{split}.csv").write_text("".join(lines[: rows + 1]), encoding="utf-8")
    for name, record in RECORDS.items():
        shutil.copy(REPOSITORY / "results" / record, folder / name)
    export = ("export", "--model", "model", "--data", "data", "--optimize", "cpu", "--output-dir", "graph")
    for command in ((*EVALUATE[:-1], "record.json"), (*export, "--results", "export.json")):
        ended = server.run(folder, *command)
        assert ended.status == 0, ended
    return folder


def failed(cases: Iterable[Case], whole: Path, server: FaultServer) -> Iterator[str]:
    """The names of the cases that end wrongly, with what is wrong. Each has a copy of the folder `whole`.

    Cases with variables for the start of Python share a process of their own for each set of variables.
    """
    servers = {(): server}
    with ExitStack() as stack:
        for case in cases:
            if case.start not in servers:
                servers[case.start] = FaultServer(dict(case.start))
                stack.callback(servers[case.start].close)
            folder = Path(tempfile.mkdtemp(dir=whole.parent))
            shutil.copytree(whole, folder, dirs_exist_ok=True)
            case.change(folder)
            ended = servers[case.start].run(folder, *case.arguments, env=dict(case.env), closed=case.closed, limit_s=60)
            if wrong := problems(case, ended, folder):
                yield f"{case.name}: {'; '.join(wrong)}"
            shutil.rmtree(folder)


def main(names: list[str]) -> None:
    """Print what is wrong, then the count of each family."""
    server = FaultServer()
    with tempfile.TemporaryDirectory() as name:
        whole = prepared(Path(name, "whole"), server)
        for family in names or FAMILIES:
            cases, wrong = list(FAMILIES[family]()), 0
            for line in failed(cases, whole, server):
                wrong += 1
                sys.stdout.write(f"{family}: {line}\n")
            sys.stdout.write(f"{family}: {wrong} of {len(cases)} wrong\n")
            sys.stdout.flush()
    server.close()


if __name__ == "__main__":
    main(sys.argv[1:])
