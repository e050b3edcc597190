"""Downloads a snapshot of a Hugging Face hub repository to a local folder. All hub access goes through here.

If the hub cannot be reached, the local cache is used. If the cache lacks the files, the call fails immediately;
`datasets.load_dataset` would retry for half a minute, so data is downloaded here too.
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

    Raises `UsageError` if the hub has no such repository, and `MrpcbenchError` if the hub cannot be reached.
    """
    option = "--model" if kind == "model" else "--data"
    try:
        reachable = _answers(repo_id, kind)
        return Path(snapshot_download(repo_id, repo_type=kind, allow_patterns=patterns, local_files_only=not reachable))
    except HFValidationError as error:
        raise UsageError(f"{option} {repo_id}: neither a local folder nor a hub id (OWNER/NAME)") from error
    except GatedRepoError as error:
        raise UsageError(
            f"{option} {repo_id}: the hub requires a login for this {kind}; run `huggingface-cli login` first"
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"{option} {repo_id}: no local folder and no {kind} on the hub has this name") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise  # an error of the disk, not of the network
        raise MrpcbenchError(
            f"{option} {repo_id}: not available locally, and the Hugging Face hub cannot be reached; {OFFLINE_REMEDY}"
        ) from error


def _answers(repo_id: str, kind: str) -> bool:
    """Whether the hub answers within `TIMEOUT_S`; `snapshot_download` alone would wait indefinitely."""
    try:
        HfApi().repo_info(repo_id, repo_type=kind, timeout=TIMEOUT_S)
    except (RepositoryNotFoundError, GatedRepoError, HFValidationError):
        raise
    except (HfHubHTTPError, OSError):
        return False
    return True
