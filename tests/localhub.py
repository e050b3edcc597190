"""A small Hugging Face hub on the loopback, in this process, for the real client. It holds its repositories in memory.

The token "hf_me" is user "me", "hf_other" another user; any other is refused as the hub refuses it. A small file's ETag
is its git hash; a large one's its SHA-256, and the answer for it a redirect to another host, as to the real CDN.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

TOKENS = {"hf_me": "me", "hf_other": "other"}
LARGE = re.compile(r"\.(safetensors|bin|onnx|onnx_data|parquet)$")
HUB_ID = r"(models|datasets)/([^/]+/[^/]+)"


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Repo:
    """A repository: its branches and tags, and the files of each commit."""

    name: str
    gated: bool = False
    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], tag: str | None = None) -> str:
        """Make `files` the newest commit of main, and of `tag`; returns its hash."""
        listing = "".join(f"{name}\0{git_hash(data)}\n" for name, data in sorted(files.items()))
        sha = hashlib.sha1(f"{self.name}{self.refs.get('main')}{listing}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs |= {"main": sha, **({tag: sha} if tag else {})}
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        """The files of main."""
        return self.commits[self.refs["main"]]


@dataclass
class Fault:
    """What goes wrong with requests that match: status, hang, slow, truncate, corrupt or noetag."""

    match: str
    do: str
    arg: float = 0
    times: int = 1 << 30


class RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.status, self.message = status, message
        self.headers = {**({"X-Error-Code": code} if code else {}), "X-Error-Message": message, **headers}


class LocalHub(ThreadingHTTPServer):
    """The server. `requests` are the method and path of each request, `ranges` the byte ranges, `sent` all bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.users: set[str | None] = set()
        self.sent = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def put(self, kind: str, name: str, files: Mapping[str, bytes] | Path, tag: str | None = None, **meta: bool) -> str:
        """Commit `files`, or those of a folder, to a repository of `kind` (models, datasets); returns the hash."""
        if isinstance(files, Path):
            folder = files
            files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        repo = self.repos.setdefault((kind, name), Repo(name))
        repo.gated, repo.private = meta.get("gated", False), meta.get("private", False)
        return repo.commit(files, tag)

    def fail(self, match: str, do: str, arg: float = 0, times: int = 1 << 30) -> None:
        """Make requests fail whose "METHOD /path" has `match`."""
        self.faults.append(Fault(match, do, arg, times))

    def forget(self) -> None:
        """Forget faults and requests."""
        self.faults, self.requests, self.ranges, self.sent, self.users = [], [], [], 0, set()

    def fault_for(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.match, request):
                fault.times -= 1
                return fault
        return None

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LocalHub

    def log_message(self, *_: Any) -> None:
        pass

    def handle_request(self) -> None:
        split = urlsplit(self.path)
        self.route, self.query = unquote(split.path), parse_qs(split.query)
        self.data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.users.add(self.user)
        self.server.ranges += [found] if (found := self.headers.get("Range")) else []
        self.fault = self.server.fault_for(f"{self.command} {self.path}")
        try:
            if self.fault and self.fault.do == "hang":
                time.sleep(self.fault.arg)
            if self.fault and self.fault.do == "status":
                status = int(self.fault.arg)
                raise RefusedError(status, "", f"says {status}", **({"Retry-After": "1"} if status == 429 else {}))
            self.answer()
        except RefusedError as refused:
            self.reply({"error": refused.message}, refused.status, **refused.headers)
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def reply(self, value: object, status: int = 200, **headers: object) -> None:
        body = json.dumps(value).encode()
        self.begin(status, {"Content-Type": "application/json", "Content-Length": len(body), **headers})
        self.write(body)

    def begin(self, status: int, headers: Mapping[str, object]) -> None:
        self.send_response(status)
        for key, text in headers.items():
            if not (self.fault and self.fault.do == "noetag" and "etag" in key.lower()):
                self.send_header(key, str(text))
        self.end_headers()

    def write(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)
            self.server.sent += len(data)

    def send_content(self, data: bytes, headers: Mapping[str, object]) -> None:
        """A file's content, or the range of it that was asked for, with the faults of the body."""
        fault = self.fault or Fault("", "")
        if fault.do == "corrupt":
            data = bytes(byte ^ 255 for byte in data[:64]) + data[64:]
        asked, status, more = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""), 200, {}
        if asked:
            if int(asked[1]) >= len(data):
                raise RefusedError(416)
            status, more = 206, {"Content-Range": f"bytes {asked[1]}-{len(data) - 1}/{len(data)}"}
            data = data[int(asked[1]) :]
        self.begin(status, {"Content-Length": len(data), "Accept-Ranges": "bytes", **headers, **more})
        if fault.do == "slow":
            for byte in range(0, len(data), int(fault.arg)):
                self.write(data[byte : byte + int(fault.arg)])
                time.sleep(0.1)
        elif fault.do == "truncate":
            self.write(data[: int(len(data) * fault.arg)])
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.write(data)

    @property
    def user(self) -> str | None:
        return TOKENS.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    def signed_in(self, *, needed: bool = False) -> str | None:
        if self.headers.get("Authorization") and not self.user:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        if needed and not self.user:
            raise RefusedError(401, "", "Invalid username or password.")
        return self.user

    def repo(self, kind: str, name: str, *, write: bool = False) -> Repo:
        user, repo = self.signed_in(needed=write), self.server.repos.get((kind, name))
        if repo is None or (repo.private and user != name.split("/", maxsplit=1)[0]):
            raise RefusedError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user != name.split("/", maxsplit=1)[0]:
            raise RefusedError(403, "", f"You don't have the rights to write to {name}")
        return repo

    def commit_of(self, repo: Repo, revision: str) -> str:
        found = revision if revision in repo.commits else repo.refs.get(revision)
        if found is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def answer(self) -> None:
        path = self.route
        if path == "/api/whoami-v2":
            self.reply({"type": "user", "name": self.signed_in(needed=True), "orgs": [], "auth": {}})
        elif path == "/api/validate-yaml":
            self.validate_yaml()
        elif path == "/api/repos/create":
            self.create()
        elif found := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            self.send_content(self.server.large[found[1]], {"ETag": f'"{found[1]}"'})
        elif found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            self.server.large[found[1]] = self.data
            self.reply({})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/(objects/batch|verify)", path):
            self.lfs(*found.groups())
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve("datasets" if found[1] else "models", *found.groups()[1:])
        elif found := re.fullmatch(rf"/api/resolve-cache/{HUB_ID}/([^/]+)/(.+)", path):
            self.resolve(*found.groups(), direct=True)
        elif found := re.fullmatch(rf"/api/{HUB_ID}(?:/(revision|tree|preupload|commit)(?:/(.+))?)?", path):
            self.api(*found.groups())
        else:
            raise RefusedError(404, "", "Sorry, we can't find the page you are looking for.")

    def api(self, kind: str, name: str, verb: str | None, revision: str | None) -> None:
        repo = self.repo(kind, name, write=verb in ("preupload", "commit"))
        sha = self.commit_of(repo, revision or "main")
        files = repo.commits[sha]
        if verb in (None, "revision"):
            siblings = [{"rfilename": n, "size": len(d), "blobId": git_hash(d)} for n, d in sorted(files.items())]
            known = {"id": name, "sha": sha, "siblings": siblings, "private": repo.private, "gated": repo.gated}
            self.reply({**known, "tags": [], "downloads": 0})
        elif verb == "tree":
            self.reply([{"type": "file", "path": n, "size": len(d), **oids(n, d)} for n, d in files.items()])
        elif verb == "preupload":
            asked = json.loads(self.data)["files"]
            modes = {item["path"]: "lfs" if LARGE.search(item["path"]) else "regular" for item in asked}
            self.reply({"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]})
        else:
            self.write_commit(repo, files, kind)

    def write_commit(self, repo: Repo, files: dict[str, bytes], kind: str) -> None:
        changed = dict(files)
        for line in map(json.loads, self.data.splitlines()):
            key, value = line["key"], line["value"]
            if key == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                changed[value["path"]] = self.server.large[value["oid"]]
            elif key == "deletedFile":
                del changed[value["path"]]
        sha = repo.commit(changed)
        self.reply({"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{repo.name}/commit/{sha}"})

    def resolve(self, kind: str, name: str, revision: str, file: str, *, direct: bool = False) -> None:
        repo = self.repo(kind, name)
        sha = self.commit_of(repo, revision)
        if repo.gated and self.user != "me":
            raise RefusedError(403 if self.user else 401, "GatedRepo", f"Access to {name} is restricted.")
        data, common = repo.commits[sha].get(file), {"X-Repo-Commit": sha}
        if data is None:
            raise RefusedError(404, "EntryNotFound", "Entry not found", **common)
        if LARGE.search(file):
            etag = sha256(data)
            self.server.large[etag] = data
            where = f"http://localhost:{self.server.server_port}/cdn/{etag}"
            linked = {"X-Linked-Size": len(data), "X-Linked-ETag": f'"{etag}"', "ETag": f'"{etag}"'}
            self.reply({}, 302, Location=where, **linked, **common)
        elif direct:
            self.send_content(data, {"ETag": f'"{git_hash(data)}"', **common})
        else:
            where = f"/api/resolve-cache/{kind}/{name}/{sha}/{quote(file)}"
            self.reply({}, 307, Location=where, ETag=f'"{git_hash(data)}"', **common)

    def create(self) -> None:
        user, asked = self.signed_in(needed=True), json.loads(self.data)
        owner = asked.get("organization") or user
        name = f"{owner}/{asked['name']}"
        if owner != user:
            raise RefusedError(403, "", f'You don\'t have the rights to create a model under the namespace "{owner}"')
        if ("models", name) in self.server.repos:
            raise RefusedError(409, "", "You already created this model repo")
        self.server.put("models", name, {".gitattributes": b""}, private=bool(asked.get("private")))
        self.reply({"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def lfs(self, name: str, verb: str) -> None:
        self.repo("models", name, write=True)
        asked = json.loads(self.data)
        if verb == "verify":
            self.reply({})
            return
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}}
            for item in asked["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects})

    def validate_yaml(self) -> None:
        """The rules of the hub's own validator that a model card can break."""
        head = re.match(r"---\n(.*?)\n---", json.loads(self.data)["content"], re.S)
        meta, errors = yaml.safe_load(head[1]) if head else {}, []
        for name in (meta.get("base_model"), *(meta.get("datasets") or ())):
            if name and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
                errors.append({"message": f'"{name}" is not valid. Use an id from the hub.'})
        for result in (meta.get("model-index") or [{"results": []}])[0]["results"]:
            for need in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
                if not result.get(need[0], {}).get(need[1]):
                    errors.append({"message": f'"{".".join(need)}" is required'})
        self.reply({"errors": errors, "warnings": []}, 400 if errors else 200)


def oids(name: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 134}} if LARGE.search(name) else {}
    return {"oid": git_hash(data), **large}
