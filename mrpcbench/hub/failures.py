"""What the hub's refusals and failures mean, each in one line with what helps."""

import os

from huggingface_hub import constants, get_token
from requests import RequestException, Response
from requests.exceptions import Timeout

from mrpcbench.errors import MrpcbenchError, UsageError
from mrpcbench.hub.repository import Repository

OFFLINE_REMEDY = (
    "use --model DIR for a model folder, --data DIR for a data folder, or `mrpcbench quickstart`, which needs neither"
)
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
BAD_TOKEN = "Invalid credentials in Authorization header"


class UnavailableError(MrpcbenchError):
    """The hub does not serve now: no network, no answer in time, too many requests, or a failure of its own.

    `remedy` is what helps, without a copy in the cache.
    """

    def __init__(self, option: str, what: str, remedy: str) -> None:
        super().__init__(f"{option}: {what}; {remedy}")
        self.what = what
        self.remedy = remedy


def unreachable(repository: Repository, error: RequestException, limit_s: float) -> UnavailableError:
    """The error for a request that got no answer."""
    host = constants.ENDPOINT.split("://")[-1]
    if isinstance(error, Timeout):
        what = f"the hub ({host}) did not answer within {limit_s:g} s"
    else:
        what = f"the hub ({host}) cannot be reached ({_short(error)})"
    return UnavailableError(repository.option, what, f"check the network, or {OFFLINE_REMEDY}")


def _short(error: RequestException) -> str:
    """The cause of a failed connection. The message of `requests` also holds addresses of objects in memory."""
    text = str(error)
    for mark, words in (
        ("NameResolution", "its name does not resolve"),
        ("Connection refused", "connection refused"),
        ("unreachable", "network unreachable"),
        ("CERTIFICATE", "its certificate is not trusted"),
        ("reset", "connection reset"),
        ("aborted", "connection closed"),
    ):
        if mark in text:
            return words
    return type(error).__name__


def has_token() -> bool:
    """Whether requests carry a token."""
    return not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and get_token() is not None


def bad_token(option: str) -> UsageError:
    """The error for a token that the hub does not know."""
    is_upload = option.startswith("--push-to-hub")
    variable = next((name for name in TOKEN_VARIABLES if os.environ.get(name, "").strip()), None)
    if variable:
        remedy = f"correct {variable}{'' if is_upload else ', or unset it to read public repositories'}"
        return UsageError(f"{option}: the hub rejects the token in {variable} (401), which may be expired; {remedy}")
    return UsageError(
        f"{option}: the hub rejects the stored token (401), which may be expired; sign in again with `hf auth login`, "
        "or remove it with `hf auth logout`"
    )


def failure(repository: Repository, response: Response, waited: str = "") -> MrpcbenchError:
    """The error for an answer that is none: `UnavailableError` if a later request may be answered.

    `waited` says how often and how long the request was repeated.
    """
    option, status, code = repository.option, response.status_code, response.headers.get("X-Error-Code", "")
    if status == 429:
        after = response.headers.get("Retry-After", "")
        remedy = f"try again in {after} s" if after.isdigit() else "try again later"
        remedy += "" if has_token() else ", or sign in with `hf auth login` for a higher limit"
        return UnavailableError(option, f"the hub limits requests (429{waited})", remedy)
    if status >= 500:
        return UnavailableError(option, f"the hub fails ({status}{waited})", f"try again later, or {OFFLINE_REMEDY}")
    if status == 401 and has_token() and code not in ("RepoNotFound", "GatedRepo"):
        return bad_token(option)
    return UsageError(f"{option}: {_refusal(repository, response, code)}")


def _refusal(repository: Repository, response: Response, code: str) -> str:
    """What a refusal means that another request would not change."""
    status, message = response.status_code, response.headers.get("X-Error-Message", "")
    where = f"{constants.ENDPOINT}/{repository.path}"
    if code == "RepoNotFound" or (status in (401, 404) and not code):
        return _unknown(repository)
    return {
        "GatedRepo": _gated(where),
        "RevisionNotFound": f"the {repository.kind} has no revision {repository.revision}; name a branch, a tag or a "
        f"commit of {where}",
        "EntryNotFound": f"the hub lacks a file that it listed ({response.url}); run the command again",
    }.get(code, f"the hub refuses the request ({status}{f': {message}' if message else ''})")


def _gated(address: str) -> str:
    if has_token():
        return f"gated on the hub, and the account of your token has no access; request it at {address}"
    return f"gated on the hub; request access at {address}, then sign in with `hf auth login` or set HF_TOKEN"


def _unknown(repository: Repository) -> str:
    kind, is_model = repository.kind, repository.kind == "model"
    folder = "no local folder and " if is_model else ""
    if has_token():
        return f"{folder}no {kind} on the hub that your token can read has this name; correct it, or ask for access"
    return f"{folder}no public {kind} on the hub has this name; correct it, or sign in with `hf auth login`"
