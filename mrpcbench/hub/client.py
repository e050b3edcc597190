"""One request to the hub: it has a time limit, is repeated where that helps, and fails with one line."""

import time
from collections.abc import Collection
from typing import Any

import requests
from huggingface_hub import constants, get_token

from mrpcbench.environment.versions import own_version
from mrpcbench.hub.failures import failure, has_token, unreachable
from mrpcbench.hub.repository import Repository

# Seconds to connect, and to wait for the next bytes. A look-up that has a cached copy to fall back on ends sooner.
CONNECT_S, READ_S, LOOKUP_S = 5.0, 10.0, 5.0
# How often a request is made, and the seconds before it is made again: 1, then 2.
ATTEMPTS, FIRST_WAIT_S = 3, 1.0
# The longest Retry-After that is honoured, in s.
LONGEST_WAIT_S = 30.0
SESSION = requests.Session()
REPEATED = (429, 500, 502, 503, 504)
PARTIAL, NO_SUCH_RANGE = 206, 416


def headers() -> dict[str, str]:
    """The headers of a request to the hub itself, with the token if there is one."""
    # Compressed bodies have another length, and no byte ranges.
    found = {"User-Agent": f"mrpcbench/{own_version()}", "Accept-Encoding": "identity"}
    return {**found, "Authorization": f"Bearer {get_token()}"} if has_token() else found


def request(
    repository: Repository,
    url: str,
    *,
    method: str = "GET",
    limit_s: float | None = None,
    is_lookup: bool = False,
    accepted: Collection[int] = (),
    **options: Any,
) -> requests.Response:
    """The answer to a request; a redirect counts as one if `allow_redirects` among `options` is false.

    Each wait for bytes ends after `limit_s`, by default `READ_S`. A failure of the hub (5xx) and a limit (429) are
    waited out, up to `ATTEMPTS` requests. So is a connection that fails, except for a look-up. Raises
    `UnavailableError`, or `UsageError` for a refusal; an answer whose status is `accepted` is returned.
    """
    waited, limit_s = 0.0, limit_s or READ_S
    for attempt in range(1, ATTEMPTS + 1):
        pause = FIRST_WAIT_S * 2 ** (attempt - 1)
        try:
            response = SESSION.request(method, url, timeout=(min(CONNECT_S, limit_s), limit_s), **options)
        except requests.RequestException as error:
            if is_lookup or attempt == ATTEMPTS:
                raise unreachable(repository, error, limit_s) from error
        else:
            if response.status_code < 400 or response.status_code in accepted:
                return response
            pause = _retry_after(response, pause)
            if attempt == ATTEMPTS or response.status_code not in REPEATED or pause > LONGEST_WAIT_S:
                response.close()
                raise failure(repository, response, f", {attempt} requests in {waited:.0f} s" if waited else "")
            response.close()
        time.sleep(pause)
        waited += pause
    raise AssertionError  # the last attempt returns or raises


def _retry_after(response: requests.Response, otherwise: float) -> float:
    """The seconds that the hub asks to wait."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else otherwise


def lookup(repository: Repository, path: str, **options: Any) -> requests.Response:
    """The answer to a look-up of `path` on the hub; see `request`."""
    return request(repository, address(path), limit_s=LOOKUP_S, is_lookup=True, headers=headers(), **options)


def address(path: str) -> str:
    """The address of `path` on the hub."""
    return f"{constants.ENDPOINT}/{path}"
