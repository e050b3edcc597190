"""Runs cases of `fault_cases`, each in a folder of its own. From the command line, it counts those that end wrongly.

`python tests/fault_campaign.py [FAMILY...]`
"""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fault_cases import EVALUATE, FAMILIES, Case, problems
from fault_server import REPOSITORY, FaultServer

from mrpcbench.quickstart import CLASSIFIER_DIR, DATA_DIR


def prepared(folder: Path, server: FaultServer) -> Path:
    """Fill `folder` with what the cases break; see `fault_cases`."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(CLASSIFIER_DIR, folder / "model")
    (folder / "data").mkdir()
    for split, rows in (("train", 12), ("validation", 6)):
        lines = (DATA_DIR / f"{split}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "data" / f"{split}.csv").write_text("".join(lines[: rows + 1]), encoding="utf-8")
    shutil.copy(REPOSITORY / "results" / "quickstart" / "bench.json", folder / "bench.json")
    export = ("export", "--model", "model", "--data", "data", "--optimize", "cpu", "--output-dir", "graph")
    for command in ((*EVALUATE[:-1], "record.json"), (*export, "--results", "export.json")):
        ended = server.run(folder, *command)
        assert ended.status == 0, ended
    return folder


def failed(cases: Iterable[Case], whole: Path, server: FaultServer) -> Iterator[str]:
    """The names of the cases that end wrongly, with what is wrong. Each has a copy of the folder `whole`."""
    for case in cases:
        folder = Path(tempfile.mkdtemp(dir=whole.parent))
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        case.change(folder)
        ended = server.run(folder, *case.arguments, env=dict(case.env), closed=case.closed, limit_s=30)
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
