"""The commands that read records need only the packages of docs/install/records.txt."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]
LIST = REPOSITORY / "docs/install/records.txt"
RECORDS = REPOSITORY / "results/quickstart"


def requirements(lines: list[str]) -> Iterator[str]:
    """Names of the packages that `lines` require here, without extras."""
    for line in lines:
        if line and not line.startswith("#"):
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                yield needed.name


def closure(names: set[str]) -> set[str]:
    """`names` and all that they need."""
    found: set[str] = set()
    while names:
        found |= names
        names = {more for name in names for more in requirements(metadata.requires(name) or [])} - found
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the packages of the list, and to mrpcbench."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "mrpcbench").symlink_to(REPOSITORY / "mrpcbench")
    for name in closure(set(requirements(LIST.read_text(encoding="utf-8").splitlines()))):
        tops = {Path(file).parts[0] for file in metadata.files(name) or []} - {"..", "__pycache__"}
        for top in tops:
            (folder / top).symlink_to(metadata.distribution(name).locate_file(top))
    return folder


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["compare", "evaluate.json", "--min", "f1=0.9"], "PASS (exit code 0)"),
        (
            ["baseline", "set", "main", "bench.json"],
            "baseline main: 1 record of bench, saved in results",
        ),
        (["report", "bench.json", "--csv", "rows.csv"], "pairs/s"),
    ],
    ids=["compare", "baseline", "report"],
)
def test_a_command_that_reads_records_works_with_the_short_list(
    arguments: list[str], shown: str, packages: Path, tmp_path: Path
) -> None:
    for name in ("evaluate.json", "bench.json"):
        shutil.copy(RECORDS / name, tmp_path)
    # -S: no site-packages.
    command = [sys.executable, "-S", "-m", "mrpcbench", *arguments]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_the_list_has_the_ranges_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    for path in (LIST, LIST.with_name("transformers5.txt")):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
        others = {"transformers", "tokenizers", "huggingface-hub", "safetensors"}
        for line in lines:
            wanted = Requirement(line)
            if wanted.name not in others:
                same = [item for text in project if (item := Requirement(text)).name == wanted.name]
                assert wanted.specifier in [item.specifier for item in same], line
