"""The Python API: `import mrpcbench` and the commands as functions."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import mrpcbench
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan

# What `import mrpcbench` may load besides this project and the standard library.
PROBE = """
import json, sys
before = set(sys.modules)
import mrpcbench
dir(mrpcbench), mrpcbench.MrpcbenchError, mrpcbench.__version__
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""


def test_the_import_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) - sys.stdlib_module_names == {"mrpcbench"}


def test_every_public_name_exists() -> None:
    for name in mrpcbench.__all__:
        assert getattr(mrpcbench, name), name
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = mrpcbench.no_such_name


def test_evaluate_returns_the_record_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = mrpcbench.evaluate(model="quickstart", data="quickstart", device="cpu")
    assert 0 < record.score.f1 < 1
    assert record.score.pairs == record.data[0].pairs
    assert record.evaluate.predictions_file == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_may_be_text_and_the_file_is_the_commands_record(kind: type, small_data: Path, tmp_path: Path) -> None:
    results = tmp_path / "evaluate.json"
    record = mrpcbench.evaluate(model="quickstart", data=small_data, device="cpu", results=kind(results))
    assert mrpcbench.load(kind(results)) == record
    assert (tmp_path / record.evaluate.predictions_file).exists()


def test_two_records_are_compared(small_data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        mrpcbench.evaluate(model="quickstart", data=small_data, device="cpu", results=tmp_path / f"{name}.json")
    assert mrpcbench.compare(tmp_path / "one.json", str(tmp_path / "two.json")).verdict.outcome == "PASS"


def test_the_keyword_arguments_are_the_fields_of_the_requests() -> None:
    taken = inspect.signature(mrpcbench.evaluate).parameters
    named = {item.name: item.default for kind in (BackendSpec, EvaluatePlan) for item in fields(kind)}
    assert {name: taken[name].default for name in named} == named
    assert set(taken) - set(named) == {"results", "observer"}


def test_an_argument_has_the_name_of_its_option() -> None:
    taken = inspect.signature(mrpcbench.train).parameters
    assert "batch_size" in taken
    assert inspect.signature(mrpcbench.bench).parameters["max_seconds"].default == 60.0
    with pytest.raises(mrpcbench.UsageError, match="--batch-size 0: at least 1"):
        mrpcbench.train(batch_size=0)
    with pytest.raises(TypeError, match="max_seconds and max_s are the same argument"):
        mrpcbench.bench(max_seconds=8, max_s=8)


def test_a_wrong_argument_is_one_clear_error(tmp_path: Path) -> None:
    wrong = (
        ({"batch_size": "8"}, "batch_size='8'"),
        ({"split": "dev"}, "split='dev'"),
        ({"batch_size": 0}, "--batch-size 0: at least 1"),
        ({"data": tmp_path / "absent", "model": "quickstart"}, "absent"),
        ({"results": tmp_path}, "a folder; name a file in it"),
    )
    for values, message in wrong:
        with pytest.raises(mrpcbench.UsageError) as caught:
            mrpcbench.evaluate(**values)
        assert message in str(caught.value), values
    with pytest.raises(TypeError, match="unexpected keyword argument 'modle'"):
        mrpcbench.evaluate(modle="quickstart")
    with pytest.raises(mrpcbench.MrpcbenchError, match="no such file"):
        mrpcbench.load(tmp_path / "absent.json")
