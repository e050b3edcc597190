"""The folder that `--data` means on this machine. Imports nothing heavy, so that a missing folder is an early error."""

from pathlib import Path

from mrpcbench.errors import UsageError
from mrpcbench.hub.repository import split_revision
from mrpcbench.quickstart import DATA_DIR
from mrpcbench.schema.requests import QUICKSTART

HUB = "hub"


def is_hub(source: str) -> bool:
    """Whether `source` is the hub's dataset: hub or hub@REVISION."""
    return split_revision(source)[0] == HUB


def local_folder(source: str) -> Path | None:
    """The folder with the pairs of `source`; None for the hub. Raises `UsageError` for a path that is no folder."""
    if is_hub(source):
        return None
    folder = DATA_DIR if source == QUICKSTART else Path(source)
    check_folder(source, folder)
    return folder


def check_folder(source: str, folder: Path) -> None:
    """Raise `UsageError` unless the `folder` of `--data source` exists."""
    if not folder.is_dir():
        what = "is a file; pass its folder" if folder.is_file() else "no such folder"
        raise UsageError(f"--data {source}: {what}; --data takes {HUB}, {QUICKSTART} or a folder")
