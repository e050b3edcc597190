"""The command line as a user meets it: chaining, streams, exit codes and one-line errors."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from engines import engine
from localhub import LocalHub

from mrpcbench.backends.registry import BACKENDS
from mrpcbench.cli.help import EXAMPLES
from mrpcbench.cli.quickstart import TRY_PAIR
from mrpcbench.data.batches import Batch
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.onnx_export import verification
from mrpcbench.quickstart import CHECKPOINT_DIR
from mrpcbench.records import store
from mrpcbench.schema.requests import DEFAULT_MODEL_DIR

Run = Callable[..., Outcome]


@pytest.fixture
def stand_in_hub(local_hub: LocalHub, glue_files: dict[str, bytes]) -> None:
    """A hub whose ModernBERT is the shipped checkpoint and whose MRPC is a small folder of Parquet files."""
    local_hub.put("models", "answerdotai/ModernBERT-base", CHECKPOINT_DIR)
    local_hub.put("datasets", "nyu-mll/glue", glue_files)


def test_the_four_commands_chain_without_any_option(mrpcbench: Run, stand_in_hub: None, tmp_path: Path) -> None:
    for command in (["train"], ["evaluate"], ["export"], ["bench", "--max-seconds", "0"]):
        done = mrpcbench(*command)
        assert done.status == 0, done.err
        assert "record: results/" in done.out
    assert mrpcbench("bench", "--backend", "onnx", "--rounds", "1", "--max-seconds", "0").status == 0
    records = [store.load(path) for path in sorted((tmp_path / "results").glob("*.json"))]
    assert sorted(record.command for record in records) == ["bench", "bench", "evaluate", "export", "train"]
    assert all(record.complete for record in records)
    assert len({record.model.model_sha256 for record in records}) == 1
    assert len({record.model.tokenizer_sha256 for record in records}) == 1
    assert (tmp_path / DEFAULT_MODEL_DIR / "onnx" / "model.onnx").exists()
    for path in (tmp_path / "results").glob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_json_is_the_only_thing_on_stdout(mrpcbench: Run, tuned_model: Path, small_data: Path, tmp_path: Path) -> None:
    done = mrpcbench("evaluate", "--model", tuned_model, "--data", small_data, "--results", "r.json", "--json")
    assert done.status == 0
    assert done.out == (tmp_path / "r.json").read_text()


def test_tables_go_to_stdout_and_progress_to_stderr(mrpcbench: Run, tuned_model: Path, small_data: Path) -> None:
    done = mrpcbench("evaluate", "--model", tuned_model, "--data", small_data, "--device", "cpu")
    assert "accuracy" in done.out
    assert "95% interval" in done.out
    assert "fine-tuned weights" in done.out
    assert "evaluate 5/5" not in done.out
    assert "evaluate 5/5" in done.err  # 40 pairs in batches of 8


def test_quiet_shows_only_the_result_and_the_path_of_the_record_and_verbose_also_what_is_about_to_run(
    mrpcbench: Run, tuned_model: Path, small_data: Path
) -> None:
    source = ("--model", tuned_model, "--data", small_data, "--pairs", "8")
    command = ("bench", *source, "--rounds", "1", "--max-seconds", "0", "--batch-size", "8", "--results", "r.json")
    quiet, normal, verbose = (mrpcbench(*options, *command) for options in (("-q",), (), ("-v",)))
    assert re.fullmatch(r"Result: torch.*\nrecord: r\.json\n", quiet.out)
    assert [line for line in quiet.err.splitlines() if not line.startswith("warning: ")] == []
    assert "pairs/s" in normal.out
    assert "opening torch" in normal.err
    assert "About to run" not in normal.err
    assert "About to run" in verbose.err
    assert "error: --verbose and --quiet" in mrpcbench("-q", "-v", *command).err


def test_quiet_shows_the_verdict_of_a_command_that_judges(mrpcbench: Run, tuned_model: Path, small_data: Path) -> None:
    done = mrpcbench(
        "-q", "export", "--model", tuned_model, "--data", small_data, "--output-dir", "o", "--results", "r"
    )
    verdict, record = done.out.splitlines()
    assert verdict.startswith("PASS: ")
    assert record == "record: r"
    assert done.err == ""


def test_quiet_shows_the_score(mrpcbench: Run, tuned_model: Path, small_data: Path) -> None:
    done = mrpcbench("-q", "evaluate", "--model", tuned_model, "--data", small_data, "--results", "r")
    score, record = done.out.splitlines()
    assert re.fullmatch(r"accuracy \S+, F1 \S+ \(majority class: \S+, \S+\)", score)
    assert record == "record: r"


def test_one_pair_is_classified_without_a_record(mrpcbench: Run, tuned_model: Path, tmp_path: Path) -> None:
    pair = TRY_PAIR
    done = mrpcbench("evaluate", "--model", tuned_model, "--pair", *pair, "--json")
    found = json.loads(done.out)
    assert (found["sentence1"], found["sentence2"]) == pair
    assert found["label_name"] in ("EQUIVALENT", "NOT_EQUIVALENT")
    assert not (tmp_path / "results").exists()
    assert found["label_name"] in mrpcbench("evaluate", "--model", tuned_model, "--pair", *pair).out


def test_the_pairs_that_are_suggested_are_answered_correctly(mrpcbench: Run) -> None:
    shown = re.findall(r'--pair "(.*)" "(.*)"', " ".join(EXAMPLES["evaluate"]))
    for pair in (TRY_PAIR, *shown):
        found = json.loads(mrpcbench("evaluate", "--model", "quickstart", "--pair", *pair, "--json").out)
        assert found["label_name"] == "EQUIVALENT", pair
        assert found["probability"] > 0.9, pair
    assert shown


def _one_line(done: Outcome) -> str:
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("evaluate", "--data", "quickstart"), 2, "run `mrpcbench train` first"),
        (("evaluate", "--model", "./nowhere", "--data", "quickstart"), 2, "no such folder"),
        (("evaluate", "--model", "quickstart", "--data", "./nowhere"), 2, "--data"),
        (("evaluate", "--model", str(CHECKPOINT_DIR), "--data", "quickstart"), 2, "no classification head"),
        (("export", "--model", str(CHECKPOINT_DIR), "--data", "quickstart"), 2, "no classification head"),
        (("bench", "--backend", "onnx", "--model", "quickstart", "--data", "quickstart"), 2, "mrpcbench export"),
        (
            ("bench", "--backend", "fake", "--model", "quickstart", "--data", "quickstart", "--rounds", "0"),
            2,
            "--rounds",
        ),
        (("train", "--model", "quickstart", "--data", "quickstart", "--optim", "nonsense"), 2, "nonsense"),
        (
            ("train", "--model", "quickstart", "--data", "quickstart", "--precision", "fp16", "--device", "cpu"),
            3,
            "fp16",
        ),
    ],
)
def test_bad_input_is_one_line_with_a_fix_and_the_right_exit_code(
    mrpcbench: Run, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = mrpcbench(*arguments)
    assert done.status == status
    assert says in _one_line(done)


def test_cuda_on_a_machine_without_it_is_exit_code_3(
    mrpcbench: Run, tuned_model: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for command in ("evaluate", "bench", "export"):
        done = mrpcbench(command, "--device", "cuda", "--model", tuned_model, "--data", small_data)
        assert done.status == 3
        assert "--device cpu" in _one_line(done)


def test_an_unreachable_hub_is_one_line_that_names_the_alternatives(
    mrpcbench: Run, local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    for command in ("train", "train --data quickstart"):
        done = mrpcbench(*command.split())
        assert done.status == 1
        line = _one_line(done)
        assert all(way in line for way in ("cannot be reached", "--model DIR", "--data DIR", "quickstart"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("evaluate", "--split", "dev"), ("bench", "--backend", "tensorflow"), ("nothing",)]
)
def test_an_unknown_choice_is_a_usage_error(mrpcbench: Run, arguments: tuple[str, ...]) -> None:
    assert mrpcbench(*arguments).status == 2


def test_a_failed_gate_is_exit_code_5_and_its_record_says_why(
    mrpcbench: Run, tuned_model: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verification.ALLOWANCES, "fp32", verification.Allowance(flip_rate=0, delta=1e-12))  # type: ignore[arg-type]
    done = mrpcbench(
        *("export", "--model", tuned_model, "--data", small_data, "--output-dir", "onnx", "--results", "r.json")
    )
    assert done.status == 5
    assert "REGRESSION" in done.out
    record = store.load(tmp_path / "r.json")
    assert record.export.gate is not None
    assert record.export.gate.verdict.outcome == "REGRESSION"
    bench = mrpcbench(
        "bench", "--backend", "onnx", "--model", "onnx", "--data", small_data, "--rounds", "1", "--max-seconds", "0"
    )
    assert bench.status == 0
    assert "UNVERIFIED" in bench.out


def test_a_bug_is_one_line_that_calls_it_an_internal_error_and_traceback_shows_where(
    mrpcbench: Run, tuned_model: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("mrpcbench.commands.evaluate.score", broken)
    arguments = ("evaluate", "--model", tuned_model, "--data", small_data)
    done = mrpcbench(*arguments)
    assert done.status == 1
    assert "internal error: ZeroDivisionError: by zero" in _one_line(done)
    assert "Traceback" in mrpcbench("--traceback", *arguments).err


def test_an_interrupt_is_exit_code_130(mrpcbench: Run, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mrpcbench.commands.evaluate.open_session", stop)
    done = mrpcbench("evaluate", "--backend", "fake", "--model", "quickstart", "--data", small_data)
    assert done.status == 130
    assert "interrupted" in _one_line(done)


def test_a_file_that_cannot_be_written_is_one_line(mrpcbench: Run, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = mrpcbench(
        "evaluate", "--backend", "fake", "--model", "quickstart", "--data", small_data, "--results", "file/r.json"
    )
    assert done.status == 2
    assert "file is a file; name another path" in _one_line(done)


def test_the_version_is_that_of_the_package(mrpcbench: Run) -> None:
    from importlib.metadata import version

    assert mrpcbench("--version").out == f"mrpcbench {version('mrpcbench')}\n"


def test_env_shows_what_works_here_and_what_is_missing(mrpcbench: Run) -> None:
    done = mrpcbench("env")
    assert done.status == 0
    assert "torch-packed" in done.out
    assert done.err == ""
    assert done.out.count("CPU build") <= 1
    found = json.loads(mrpcbench("env", "--json").out)
    assert dict(found["problems"])["torch on cpu"] is None
    assert found["environment"]["packages"]["torch"]


def test_random_weights_are_named_in_every_table(mrpcbench: Run, checkpoint_dir: Path, small_data: Path) -> None:
    done = mrpcbench(
        "bench", "--model", checkpoint_dir, "--random-init", "--data", small_data, "--rounds", "1", "--max-seconds", "0"
    )
    assert done.status == 0
    assert "random-init weights" in done.out
    assert "accuracy and F1 are meaningless" in " ".join(done.out.split())


def test_a_results_file_that_is_a_folder_is_refused_before_any_work(mrpcbench: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    done = mrpcbench(
        "evaluate", "--backend", "fake", "--model", "quickstart", "--data", "quickstart", "--results", "there"
    )
    assert done.status == 2
    assert "name a file" in _one_line(done)


class Interrupted(FakeSession):
    """Simulates Ctrl-C in the second round."""

    def __init__(self) -> None:
        super().__init__(cost_ms=0)
        self.calls = 0

    def infer(self, batch: Batch) -> np.ndarray:
        self.calls += 1
        if self.calls > 100:
            raise KeyboardInterrupt
        return super().infer(batch)


@pytest.fixture
def interrupted(mrpcbench: Run, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a benchmark with these options and interrupt it in its second round."""
    monkeypatch.setitem(BACKENDS, "fake", BACKENDS["fake"])  # restored afterwards
    source = ("--backend", engine("fake", Interrupted), "--model", "quickstart", "--data", small_data)

    def run(*options: str, before: tuple[str, ...] = ()) -> Outcome:
        done = mrpcbench(*before, "bench", *source, "--batch-size", "8", "--results", "r.json", *options)
        assert done.status == 130
        assert done.err.splitlines()[-1] == "error: interrupted; the finished rows are in r.json"
        return done

    return run


def test_an_interrupted_benchmark_shows_its_finished_rows_as_the_options_request(interrupted: Run) -> None:
    done = interrupted("--batch-size", "16", "--relative-to", "fake:16")
    assert "INCOMPLETE" in done.out
    assert "single-stream" in done.out
    assert "speedup over fake:16" in done.out


def test_an_interrupted_benchmark_shows_no_tables_with_json_or_quiet(interrupted: Run, tmp_path: Path) -> None:
    assert interrupted("--json").out == ""
    quiet = interrupted(before=("-q",))
    assert quiet.out == ""
    assert len(quiet.err.splitlines()) == 1
    record = store.load(tmp_path / "r.json")
    assert not record.complete
    assert record.bench.rows


def test_an_opset_that_torch_lacks_leaves_stdout_alone(mrpcbench: Run, tuned_model: Path, small_data: Path) -> None:
    arguments = ("export", "--model", tuned_model, "--data", small_data, "--output-dir", "onnx", "--opset", "99")
    done = mrpcbench(*arguments, "--json")
    assert done.status == 2
    assert "--opset 99" in _one_line(done)


def test_no_number_of_a_benchmark_is_cut_on_a_terminal_of_80_columns(
    mrpcbench: Run, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = mrpcbench(
        "bench",
        "--backend",
        "fake",
        "--model",
        "quickstart",
        "--data",
        small_data,
        "--rounds",
        "1",
        "--max-seconds",
        "0",
    )
    assert done.status == 0
    assert "…" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80
