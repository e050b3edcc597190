"""The one way to the Hugging Face hub: a snapshot of a repository as a local folder, or one clear line.

The local cache answers where the hub is out of reach, and the call fails at once where neither has the files;
`datasets.load_dataset` would retry for half a minute first, so data comes through here as well.
"""

from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from mrpcbench.errors import MrpcbenchError, UsageError

OFFLINE_REMEDY = (
    "use --model DIR for a model folder, --data DIR for a data folder, or `mrpcbench quickstart`, which needs neither"
)
TIMEOUT_S = 5


def snapshot(repo_id: str, *, kind: Literal["model", "dataset"], patterns: list[str]) -> Path:
    """Download (or find in the cache) the files of `repo_id` that match `patterns`, and return their folder.

    Raises `UsageError` where the hub has no such repository, `MrpcbenchError` where the hub cannot be reached.
    """
    option = "--model" if kind == "model" else "--data"
    try:
        reachable = _answers(repo_id, kind)
        return Path(snapshot_download(repo_id, repo_type=kind, allow_patterns=patterns, local_files_only=not reachable))
    except HFValidationError as error:
        raise UsageError(f"{option} {repo_id}: neither a folder here nor a hub id (OWNER/NAME)") from error
    except GatedRepoError as error:
        raise UsageError(
            f"{option} {repo_id}: the hub wants a log-in for this {kind}; run `huggingface-cli login` first"
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"{option} {repo_id}: no folder here and no {kind} on the hub has this name") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise  # the disk's trouble, not the network's
        raise MrpcbenchError(
            f"{option} {repo_id}: not here, and the Hugging Face hub cannot be reached; {OFFLINE_REMEDY}"
        ) from error


def _answers(repo_id: str, kind: str) -> bool:
    """Whether the hub answers for `repo_id` in time; `snapshot_download` by itself would wait without end."""
    try:
        HfApi().repo_info(repo_id, repo_type=kind, timeout=TIMEOUT_S)
    except (RepositoryNotFoundError, GatedRepoError, HFValidationError):
        raise
    except (HfHubHTTPError, OSError):
        return False
    return True
