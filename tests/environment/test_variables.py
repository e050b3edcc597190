"""Tests of mrpcbench.environment.variables: malformed variables are named, and no other is blamed."""

import locale
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mrpcbench.environment.variables import EXPECTED, blamed_variable, check_variables
from mrpcbench.errors import UsageError


@pytest.mark.parametrize("name", EXPECTED)
def test_a_malformed_variable_is_named_with_the_valid_values(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_variables({name: "abc"})
    assert str(caught.value) == f"{name}=abc: not {EXPECTED[name][1]}; correct or unset it"


@pytest.mark.parametrize("value", ["0", "-1", "4,abc", "4,", "1.5", "99999999999"])
def test_a_number_of_threads_that_none_can_be_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="not a positive integer"):
        check_variables({"OMP_NUM_THREADS": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_NUM_THREADS", " 4 , 2 "),
        ("OMP_NUM_THREADS", "04"),
        ("OMP_SCHEDULE", "monotonic:static,4"),
        ("OMP_PLACES", "{0,1},{2,3}"),
        ("OMP_PLACES", "cores(2)"),
        ("OMP_PROC_BIND", "close,spread"),
        ("OMP_PROC_BIND", "TRUE"),
        ("OMP_WAIT_POLICY", "Active"),
        ("OMP_STACKSIZE", "4 M"),
        ("GOMP_SPINCOUNT", "INFINITE"),
        ("GOMP_CPU_AFFINITY", "0 3 1-2 4-15:2"),
        ("HF_HUB_ETAG_TIMEOUT", "10"),
        ("HF_DATASETS_IN_MEMORY_MAX_SIZE", "1e9"),
    ],
)
def test_values_that_the_libraries_accept_are_unchanged(name: str, value: str) -> None:
    environ = {name: value}
    check_variables(environ)
    assert environ == {name: value}


def test_an_empty_variable_counts_as_unset() -> None:
    environ = {"OMP_NUM_THREADS": " ", "HF_HUB_ETAG_TIMEOUT": "", "PATH": ""}
    check_variables(environ)
    assert environ == {"PATH": ""}


def raised(value: str) -> ValueError:
    """What a library raises about `value`, as the cause of another error."""
    try:
        int(value)
    except ValueError as error:
        return error
    raise AssertionError


def test_the_variable_whose_value_a_library_quotes_is_named() -> None:
    environ = {"TORCHINDUCTOR_COMPILE_THREADS": "many", "EDITOR": "many"}
    wrapped = RuntimeError("cannot import the compiler")
    wrapped.__cause__ = raised("many")
    for error in (raised("many"), wrapped):
        assert blamed_variable(error, environ) == (
            "TORCHINDUCTOR_COMPILE_THREADS=many: a library does not take this value "
            "(invalid literal for int() with base 10: 'many'); correct or unset it"
        )


def test_no_variable_is_blamed_for_another_fault() -> None:
    environ = {"HF_HOME": "abc", "OMP_NUM_THREADS": "2", "EDITOR": "many", "TORCH_LOGS": ""}
    assert blamed_variable(raised("many"), environ) is None
    assert blamed_variable(raised("2x"), environ) is None
    assert blamed_variable(UsageError("--model 'abc': no such folder"), environ) is None


def test_a_secret_that_a_library_quotes_is_not_shown() -> None:
    line = blamed_variable(ValueError("token 'hf_abc' is malformed"), {"HF_TOKEN": "hf_abc"})
    assert line is not None
    assert line.startswith("HF_TOKEN=...: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_NUM_THREADS", "abc"), ("HF_HUB_ETAG_TIMEOUT", "abc"), ("TORCHINDUCTOR_COMPILE_THREADS", "abc")],
)
def test_a_malformed_variable_is_one_line_and_exit_code_2(name: str, value: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mrpcbench", "evaluate", "--model", "quickstart", "--random-init"]
    command += ["--data", "quickstart", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), name: value}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    *_, line = done.stderr.splitlines()
    assert line.startswith(f"error: {name}={value}: ")


def test_an_ascii_locale_is_named_where_a_library_reads_its_files_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def chained() -> UsageError:
        """As the model is said to be bad because torch could not be imported."""
        try:
            try:
                "\u2014".encode().decode("ascii")
            except UnicodeDecodeError as error:
                raise UsageError("--model m: cannot load its weights") from error
        except UsageError as error:
            return error
        raise AssertionError

    monkeypatch.setattr(locale, "getencoding", lambda: "ANSI_X3.4-1968")
    line = blamed_variable(chained(), {})
    assert line is not None and line.endswith("set PYTHONUTF8=1")
    assert blamed_variable(UsageError("--model m: cannot load its weights"), {}) is None
    monkeypatch.setattr(locale, "getencoding", lambda: "UTF-8")
    assert blamed_variable(chained(), {}) is None
