"""Tests of mrpcbench.environment.capture: what is captured, and that it names no person, host or folder."""

import ast
import getpass
import json
import os
import platform
import pwd
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome
from records import given_away

from mrpcbench.environment import capture as environment
from mrpcbench.environment import versions
from mrpcbench.environment.capture import (
    capture,
    cuda_problem,
    device_name,
    installed_versions,
    resolve_device,
    resolve_threads,
    usable_cores,
)
from mrpcbench.environment.redaction import distinct_name, public_argv, public_name, public_text
from mrpcbench.environment.variables import ensure_user
from mrpcbench.errors import ExitStatus, MissingError, UsageError

# --- names and paths --------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder `ann` with a project in it, which is the working folder."""
    folder = tmp_path / "home" / "ann"
    (folder / "project" / "runs" / "tuned").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder / "project")
    return folder


def test_a_hub_id_or_a_bare_name_is_kept_and_a_path_is_cut_to_its_last_part(home: Path) -> None:
    hub_ids = "answerdotai/ModernBERT-base", "gpt2", "hub", "quickstart", "aai_ModernBERT_mrpc_ft", "o-w.n_er/na-me_1.0"
    paths = {
        "/data/models/tuned": "tuned",
        "/data/models/tuned/": "tuned",
        "runs/tuned": "tuned",
        "runs": "runs",
        "./runs/tuned": "tuned",
        "../project/runs": "runs",
        ".": "project",
        "runs/..": "project",
        "runs/tuned/..": "runs",
        "~/project": "project",
        "absent/deep/er": "er",
        "./absent": "absent",
        "/": "root folder",
    }
    wanted = {name: name for name in hub_ids} | paths
    assert {name: public_name(name) for name in wanted} == wanted


def test_a_message_shows_only_the_last_part_of_a_path_and_keeps_all_else(home: Path) -> None:
    text = f"--model runs/ann/tuned: '{home}/tuned/model.onnx' and ~/x.so; see https://a.org/b/c, 3 of 1/2 and/or MODEL"
    assert public_text(text, ["runs/ann/tuned", "quickstart"]) == (
        "--model tuned: 'model.onnx' and x.so; see https://a.org/b/c, 3 of 1/2 and/or MODEL"
    )


def test_the_name_of_a_home_folder_is_not_shown(home: Path) -> None:
    (home / "project" / "link").symlink_to(home)
    assert {public_name(name) for name in ("link", str(home))} == {"home folder"}
    names = "~", "~/", "..", "../", "../../ann", "project/../..", "runs/../.."
    assert [name for name in names if "ann" in public_name(name)] == []


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id that the user database does not know, and no HOME."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)


def test_a_user_without_an_entry_and_a_home_has_names_that_are_redacted(nobody: None, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        Path.home()
    assert public_name(str(tmp_path / "tuned")) == "tuned"
    assert public_name("/home/ann") == "home folder"
    assert public_argv(("mrpcbench", "--results", "/data/out.json")) == ("mrpcbench", "--results", "out.json")
    assert distinct_name(Path("/a/x.json"), [Path("/a/x.json"), Path("/b/x.json")]) == "a/x.json"
    assert capture(["mrpcbench", str(tmp_path)]).argv == ("mrpcbench", tmp_path.name)


def test_a_user_without_an_entry_gets_a_name_and_a_home(nobody: None) -> None:
    environ: dict[str, str] = {}
    ensure_user(environ)
    assert environ["LOGNAME"] == f"uid{os.getuid()}"
    assert Path(environ["HOME"]).parent.is_dir()
    kept = {"HOME": "/data", "LOGNAME": "ann"}
    ensure_user(kept)
    assert kept == {"HOME": "/data", "LOGNAME": "ann"}


def test_a_known_user_keeps_what_is_set_and_what_is_not() -> None:
    environ: dict[str, str] = {}
    ensure_user(environ)
    assert environ == {}


def test_what_lies_beside_the_home_of_root_or_below_a_home_that_is_the_root_folder_is_no_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for home in ("/", "/root"):
        monkeypatch.setenv("HOME", home)
        assert public_name("/absent") == "absent"
        assert public_argv(("mrpcbench", "--results", "/absent")) == ("mrpcbench", "--results", "absent")


def test_a_path_in_a_folder_that_was_removed_is_redacted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert public_name("runs/../tuned/deep") == "deep"
    assert public_argv(("mrpcbench", "--results", "out.json")) == ("mrpcbench", "--results", "out.json")


def test_a_name_whose_bytes_are_not_utf_8_is_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/m\xff"))
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_PLACES", "\udcff")
    assert public_name(".") == r"m\udcff"
    assert distinct_name(folder, [folder]) == r"m\udcff"
    found = capture(["mrpcbench", "--model", str(folder)])
    assert (found.argv[2], found.settings["OMP_PLACES"]) == (r"m\udcff", r"\udcff")


def test_a_command_line_shows_only_the_last_part_of_a_path(home: Path) -> None:
    cases = {
        ("/usr/local/bin/mrpcbench", "train"): ("mrpcbench", "train"),
        ("--model", "/data/tuned"): ("--model", "tuned"),
        ("--model", "/tuned"): ("--model", "tuned"),
        ("--model=/data/tuned",): ("--model=tuned",),
        ("--model=runs/tuned",): ("--model=tuned",),
        ("--model", "runs/tuned"): ("--model", "tuned"),
        ("--model", "./runs/tuned"): ("--model", "tuned"),
        ("--model", "./absent"): ("--model", "absent"),
        ("--model", "../project"): ("--model", "project"),
        ("--results=../../ann/out.json",): ("--results=out.json",),
        ("--model", "~/project"): ("--model", "project"),
        ("--model=~/project",): ("--model=project",),
        ("--model", "answerdotai/ModernBERT-base"): ("--model", "answerdotai/ModernBERT-base"),
        ("--model=answerdotai/ModernBERT-base",): ("--model=answerdotai/ModernBERT-base",),
        ("--learning-rate", "8e-5", "--json"): ("--learning-rate", "8e-5", "--json"),
        ("--max-steps=-1", "--batch-size", "8"): ("--max-steps=-1", "--batch-size", "8"),
        ("--push-to-hub", "acme/tuned"): ("--push-to-hub", "tuned"),
        ("--output-dir", "acme/tuned"): ("--output-dir", "tuned"),
        ("--results=acme/out.json",): ("--results=out.json",),
        # What a run writes does not exist yet when its command line is read.
        ("--output-dir=clients/acme/tuned",): ("--output-dir=tuned",),
        ("clients/acme/out.json",): ("out.json",),
    }
    assert {given: public_argv(("mrpcbench", *given))[1:] for given in cases} == cases
    programs = "/opt/venv/bin/mrpcbench", "/opt/lib/mrpcbench/__main__.py", "mrpcbench"
    assert [public_argv((program, "env")) for program in programs] == [(Path(item).name, "env") for item in programs]
    assert public_argv(()) == ()


# --- the environment --------------------------------------------------------------------------------------------------


def test_the_environment_names_no_person_host_or_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "annabel")
    for module, name in ((platform, "node"), (socket, "gethostname"), (socket, "getfqdn")):
        monkeypatch.setattr(module, name, lambda: "anns-laptop")
    real_uname = platform.uname()
    monkeypatch.setattr(platform, "uname", lambda: real_uname._replace(node="anns-laptop"))
    found = capture(
        [str(home / "venv" / "bin" / "mrpcbench"), "train", "--model", str(home), f"--output-dir={home}/project/runs"]
    )
    document = asdict(found)
    assert given_away(document, "ann", "annabel", "anns-laptop", str(home), str(Path.cwd())) == []
    text = json.dumps(document)
    for secret in ("annabel", "anns-laptop", str(home)):
        assert secret not in text
    assert found.argv == ("mrpcbench", "train", "--model", "home folder", "--output-dir=runs")


def test_the_environment_of_this_process_reveals_no_names() -> None:
    document = asdict(capture())
    text = json.dumps(document)
    assert str(Path.cwd()) not in text
    assert str(Path(sys.argv[0]).resolve().parent) not in text
    assert f"{Path.home()}{os.sep}" not in text
    user, host = getpass.getuser(), platform.node()
    assert f"/{user}/" not in text
    assert f"{user}@" not in text
    # A short name such as "vm" or "root" can be a word of the processor's.
    assert len(host) < 6 or not re.search(rf"(?<!\w){re.escape(host)}(?!\w)", text)
    assert given_away(document) == []


def test_the_environment_describes_this_machine() -> None:
    before = datetime.now(UTC)
    found = capture(["mrpcbench", "env"])
    # Two runs of one second are two runs: `compare` tells a run from itself by this.
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(found.started_at) <= datetime.now(UTC)
    assert found.started_at.endswith("+00:00")
    assert found.python == platform.python_version()
    assert found.packages["torch"] == installed_versions()["torch"]
    assert found.packages["transformers"]
    assert found.cpu.strip()
    assert 0 < found.cpu_cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 2**28
    assert re.fullmatch(r"[0-9a-f]{64}", found.machine_sha256)


def test_the_machine_hash_differs_between_machines_but_not_between_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    here = capture([]).machine_sha256
    assert capture([]).machine_sha256 == here
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert capture([]).machine_sha256 != here


def test_another_hostname_changes_that_trait_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "one")
    here = capture([]).machine
    monkeypatch.setattr(platform, "node", lambda: "two")
    there = capture([]).machine
    assert here is not None
    assert there is not None
    assert there.hostname != here.hostname
    assert replace(there, hostname=here.hostname) == here


def test_the_default_command_line_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/mrpcbench", "bench", "--rounds=1"])
    assert capture().argv == ("mrpcbench", "bench", "--rounds=1")
    assert capture([]).argv == ()


def test_only_packages_that_are_installed_have_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PACKAGES", ["pytest", "no-such-package-anywhere"])
    assert installed_versions() == {"pytest": pytest.__version__}


def test_of_two_packages_of_onnx_runtime_the_record_names_the_imported_one(tmp_path: Path) -> None:
    def install(folder: Path, package: str, version: str) -> None:
        (folder / "onnxruntime" / "capi").mkdir(parents=True)
        (folder / "onnxruntime" / "__init__.py").write_text("raise ImportError", encoding="utf-8")
        info = f"package_name = '{package}'\n__version__ = '{version}'\ncuda_version = '13.0'\n"
        (folder / "onnxruntime" / "capi" / "build_and_package_info.py").write_text(info, encoding="utf-8")
        metadata = folder / f"{package.replace('-', '_')}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", encoding="utf-8")

    cpu, cuda = tmp_path / "cpu", tmp_path / "cuda"
    install(cpu, "onnxruntime", "1.30.0")
    install(cuda, "onnxruntime-gpu", "1.31.1")
    code = "from mrpcbench.environment.versions import installed_versions; print(installed_versions())"
    command = [sys.executable, "-S", "-c", code]  # -S: without site-packages
    source = Path(environment.__file__).parents[2]

    def shown(*folders: Path) -> dict[str, str]:
        places = {"PYTHONPATH": os.pathsep.join(map(str, (*folders, source)))}
        done = subprocess.run(command, env=places, cwd=tmp_path, capture_output=True, text=True, check=True)
        found = ast.literal_eval(done.stdout)
        return {name: version for name, version in found.items() if name.startswith("onnxruntime")}

    assert shown(cuda, cpu) == shown(cuda) == {"onnxruntime-gpu": "1.31.1"}
    assert shown(cpu, cuda) == shown(cpu) == {"onnxruntime": "1.30.0"}
    (cuda / "onnxruntime" / "capi" / "build_and_package_info.py").unlink()
    assert shown(cuda, cpu) == {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}


def test_only_settings_that_change_a_result_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in environment.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("ORT_DISABLE_FLASH_ATTENTION", "1")
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/home/somebody")
    monkeypatch.setenv("MRPCBENCH_SECRET", "hush")
    assert capture([]).settings == {
        "DNNL_DEFAULT_FPMATH_MODE": "BF16",
        "OMP_NUM_THREADS": "3",
        "ORT_DISABLE_FLASH_ATTENTION": "1",
    }


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_only_usable_cores_are_counted() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


# --- threads ----------------------------------------------------------------------------------------------------------


def test_threads_are_the_option_else_omp_num_threads_else_the_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (0, None, usable_cores()),
        (0, " ", usable_cores()),
        (3, None, 3),
        (0, "5", 5),
        (0, " 4,2", 4),
        (3, "5", 3),
    ]
    found = []
    for asked, variable, _ in cases:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if variable is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", variable)
        found.append(resolve_threads(asked))
    assert found == [wanted for _, _, wanted in cases]


def test_an_invalid_omp_num_threads_is_an_error_only_if_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("abc", "0", "-1", "2.5", ",2", "\u0662"):
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
        with pytest.raises(UsageError, match=f"^OMP_NUM_THREADS={variable}: not a positive integer"):
            resolve_threads()
        assert resolve_threads(2) == 2


def test_every_command_records_the_threads_that_it_used(
    tuned_model: Path, small_data: Path, mrpcbench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(tuned_model, "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    commands = {
        "train": "train --model quickstart --output-dir new --max-steps 1",
        "export": "export --model model",
        "evaluate": "evaluate --model model",
        "evaluate with 2": "evaluate --model model --threads 2",
        "bench": "bench --model model --backend torch --backend onnx --scenario single-stream --pairs 4 --rounds 1"
        " --max-seconds 0",
    }
    before, found = torch.get_num_threads(), {}
    try:
        for name, command in commands.items():
            common = ("--data", small_data, "--device", "cpu", "--results", f"{name}.json")
            done = mrpcbench(*command.split(), *common)
            assert done.status == 0, done.err
            document = json.loads(Path(f"{name}.json").read_text())
            found[name] = {place["threads"] for place in placements(document)}
    finally:
        torch.set_num_threads(before)
    assert found == {name: {2 if name.endswith("2") else 1} for name in commands}


def placements(document: Any) -> Iterator[dict[str, Any]]:
    """Every placement in a record."""
    if isinstance(document, dict):
        if {"engine", "provider", "threads"} <= set(document):
            yield document
        for value in document.values():
            yield from placements(value)
    elif isinstance(document, list):
        for value in document:
            yield from placements(value)


# --- the checkout -----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A git repository in `tmp_path`: call it to run git there."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "README").write_text("text")
    git("add", "README")
    git("commit", "--quiet", "--message", "first")
    return git


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in that repository that stands for the package."""
    folder = tmp_path / "venv" / "mrpcbench"
    path = folder / "environment" / "capture.py"
    path.parent.mkdir(parents=True)
    for file in (folder / "__init__.py", path):
        file.write_text("x = 1\n")
    monkeypatch.setattr(environment, "__file__", str(path))
    return folder


def test_an_untracked_package_inside_a_checkout_has_no_commit(checkout: Callable[..., str], package: Path) -> None:
    found = capture([])
    assert (found.git_commit, found.git_dirty) == (None, None)


def test_a_tracked_package_has_a_commit_and_its_own_changes_make_it_dirty(
    checkout: Callable[..., str], package: Path, tmp_path: Path
) -> None:
    checkout("add", str(package))
    checkout("commit", "--quiet", "--message", "second")
    (tmp_path / "README").write_text("changed")
    found = capture([])
    assert (found.git_commit, found.git_dirty) == (checkout("rev-parse", "HEAD"), False)
    (package / "__init__.py").write_text("x = 2\n")
    assert capture([]).git_dirty is True


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = capture([])
    assert (found.git_commit, found.git_dirty) == (None, None)


def test_without_git_the_commit_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(environment.COMMIT_VARIABLE, "0123456789abcdef")
    found = capture([])
    assert (found.git_commit, found.git_dirty) == ("0123456789abcdef", None)
    monkeypatch.setenv(environment.COMMIT_VARIABLE, "main")
    with pytest.raises(UsageError, match="MRPCBENCH_COMMIT=main: not a commit"):
        capture([])


def test_a_source_that_is_not_installed_has_the_version_of_its_project(tmp_path: Path) -> None:
    package = tmp_path / "mrpcbench" / "environment"
    shutil.copytree(Path(environment.__file__).parent, package)
    (package.parent / "__init__.py").touch()
    code = "from mrpcbench.environment.versions import installed_versions; print(installed_versions())"
    command = [sys.executable, "-S", "-c", code]  # -S: without site-packages, so nothing is installed

    def shown() -> str:
        return subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True).stdout.strip()

    assert shown() == "{}"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mrpcbench"\nversion = "9.8"\n', encoding="utf-8")
    assert shown() == "{'mrpcbench': '9.8'}"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "9.8"\n', encoding="utf-8")
    assert shown() == "{}"


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether torch can use CUDA."""
    return lambda usable: monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)


def test_missing_cuda_is_an_error_that_names_the_fix(with_cuda: Callable[[bool], None]) -> None:
    with_cuda(False)
    with pytest.raises(MissingError) as caught:
        resolve_device("cuda")
    line = str(caught.value)
    assert line.startswith("--device cuda: ")
    assert "use --device cpu" in line
    assert "mrpcbench env" in line
    assert "\n" not in line
    assert caught.value.status == ExitStatus.MISSING == 3


def test_auto_is_cuda_if_it_works_else_cpu(with_cuda: Callable[[bool], None]) -> None:
    for usable in (True, False):
        with_cuda(usable)
        assert resolve_device("auto") == ("cuda" if usable else "cpu")
        assert resolve_device("cpu") == "cpu"
    with_cuda(True)
    assert resolve_device("cuda") == "cuda"
    assert cuda_problem() is None


def test_the_reason_why_cuda_does_not_work_is_a_message(
    with_cuda: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cuda(False)
    reasons = {None: "is a CPU build", "12.8": "is built for CUDA 12.8 but finds no usable GPU"}
    for built_for, words in reasons.items():
        monkeypatch.setattr(torch.version, "cuda", built_for)
        assert words in (cuda_problem() or "")


def test_a_device_is_shown_with_the_name_of_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    assert device_name("cuda") == "cuda NVIDIA H200"
    assert device_name("cpu") == "cpu"


def test_files_are_not_distinguished_by_folders_that_name_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/carol")
    paths = [Path(place) / "results" / "e.json" for place in ("/home/alice", "/home/bob", "/data/carol", "/tmp/x")]
    assert [distinct_name(path, paths) for path in paths] == ["e.json", "e.json", "e.json", "x/results/e.json"]
