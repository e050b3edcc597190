"""The presets of the benchmark: their cases, the options that they reject, and an end-to-end run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Listener, Outcome

from mrpcbench.backends import registry
from mrpcbench.backends.registry import BACKENDS
from mrpcbench.benchmark import presets
from mrpcbench.benchmark.presets import PEERS, Entries, Entry, choose, enough_rounds
from mrpcbench.commands.bench import bench
from mrpcbench.commands.export import export
from mrpcbench.environment.machine import BF16, has_instructions
from mrpcbench.errors import UsageError
from mrpcbench.models import sources
from mrpcbench.progress import Silent
from mrpcbench.records import figures, store
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.cases import BenchRequest, Suite
from mrpcbench.schema.records import BenchRecord
from mrpcbench.schema.requests import BackendSpec, ExportPlan
from mrpcbench.schema.rows import RowSelector

PLAN = BenchPlan(preset="peers")
FAKES = Entries(
    entries=(
        Entry(name="theirs", backend="fake", order="given"),
        Entry(name="ours", backend="fake", scenarios=("offline", "single-stream"), batch_sizes=(8, 32)),
    ),
    relative_to=("theirs", "ours:1"),
)


def asked(spec: BackendSpec, **values: object) -> BenchRequest:
    """A request of `--preset peers` in which the user gave `values`, even if they are the defaults."""
    return BenchRequest(spec=spec, plan=replace(PLAN, **values), given=frozenset(values))  # type: ignore[arg-type]


@pytest.fixture
def with_graphs(tmp_path: Path, checkpoint_dir: Path) -> str:
    """A model folder with an empty file for each graph of a preset."""
    shutil.copytree(checkpoint_dir, tmp_path / "model")
    for graph in ("onnx", "onnx-cpu", "onnx-int8", "onnx-cuda", "onnx-o3", "onnx-o4"):
        (tmp_path / "model" / graph).mkdir()
        (tmp_path / "model" / graph / sources.ONNX_FILE).touch()
    return str(tmp_path / "model")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "resolve_device", lambda asked: "cuda")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "cpu", FAKES)  # type: ignore[arg-type]


def suite(spec: BackendSpec, **values: object) -> Suite:
    return choose(asked(spec, **values))[0]


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_without_a_preset_the_backends_of_the_plan_run() -> None:
    asked = BenchRequest(plan=BenchPlan(backend=("onnx",)))
    found, plan, view = choose(asked)
    assert (plan, view) == (asked.plan, asked.view)
    assert [one.name for one in found.cases] == ["onnx"]


def test_the_peers_on_a_cpu(with_graphs: str) -> None:
    spec = BackendSpec(model=with_graphs, device="cpu", threads=2)
    found = {one.name: one for one in suite(spec).cases}
    assert list(found) == [
        *("hf-autocast", "torch-packed", "onnx-cpu", "onnx-int8", "openvino"),
        *("hf-autocast-sorted", "hf-fp32-unsorted", "hf-fp32-sorted", "torch-compile"),
        *("optimum-fp32-unsorted", "optimum-fp32", "optimum-o3"),
    ]
    assert found["hf-autocast"].spec == replace(spec, backend="torch", dtype="bf16-autocast")
    assert found["onnx-int8"].spec == replace(spec, backend="onnx", model=f"{with_graphs}/onnx-int8")
    assert found["optimum-fp32"].spec == found["optimum-fp32-unsorted"].spec  # one session
    given = {name for name, one in found.items() if one.order == "given"}
    assert given == {"hf-autocast", "hf-fp32-unsorted", "optimum-fp32-unsorted"}
    assert found["openvino"].spec.model == found["optimum-fp32"].spec.model
    half = "bf16" if has_instructions(BF16) else "fp32"
    assert found["openvino"].spec.dtype == found["torch-packed"].spec.dtype == half
    alone = {"hf-autocast", "hf-fp32-unsorted", "hf-fp32-sorted", "torch-compile", "optimum-fp32-unsorted"}
    assert {name for name, one in found.items() if one.batch_sizes == (32,)} == alone
    assert list(map(str, found["onnx-cpu"].rows())) == [
        *("onnx-cpu offline batch 8", "onnx-cpu offline batch 32", "onnx-cpu single-stream")
    ]


def test_on_a_gpu_the_peers_run_in_half_precision_at_several_sizes(with_graphs: str, on_gpu: None) -> None:
    spec = BackendSpec(model=with_graphs, device="cuda")
    found = {one.name: one for one in suite(spec).cases}
    assert list(found) == [
        *("hf-autocast", "torch-packed", "onnx-cuda", "hf-bf16-sorted", "hf-fp32-sorted"),
        *("torch-compile", "optimum-fp32", "optimum-o3", "optimum-o4"),
    ]
    at_32 = {name for name, one in found.items() if one.batch_sizes == (32,)}
    assert at_32 == {"hf-autocast", "hf-fp32-sorted"}
    assert {one.batch_sizes for name, one in found.items() if name not in at_32} == {(32, 128, 512)}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_reference_rows_are_in_the_run(with_graphs: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "resolve_device", lambda asked: device)
    found = suite(BackendSpec(model=with_graphs))
    for text in found.relative_to:
        assert any(map(RowSelector.parse(text).matches, found.rows())), text
    assert found.cases[0].name == found.relative_to[0] == "hf-autocast"


def test_some_cases_of_the_peers_need_only_their_own_graphs(checkpoint_dir: Path) -> None:
    plan, spec = BenchPlan(preset="peers"), BackendSpec(model=str(checkpoint_dir), device="cpu")
    found, _, view = choose(BenchRequest(plan=plan, spec=spec, cases=frozenset({"hf-autocast", "torch-packed"})))
    assert [one.name for one in found.cases] == ["hf-autocast", "torch-packed"]
    assert view.relative_to == ("hf-autocast",)
    with pytest.raises(UsageError, match="onnx-int8"):
        choose(BenchRequest(plan=plan, spec=spec, cases=frozenset({"hf-autocast", "onnx-int8"})))


def test_every_engine_of_a_preset_exists() -> None:
    assert {entry.backend for found in PEERS.values() for entry in found.entries} <= set(BACKENDS)


def test_given_scenarios_sizes_and_rounds_apply_to_all_cases(with_graphs: str) -> None:
    spec = BackendSpec(model=with_graphs, device="cpu")
    found, plan, _ = choose(asked(spec, scenario=("single-stream", "offline"), batch_size=(8, 32), rounds=3))
    assert (plan.scenario, plan.batch_size, plan.rounds) == (("single-stream", "offline"), (8, 32), 3)
    for one in found.cases:
        rows = [(row.scenario, row.batch_size) for row in one.rows()]
        assert rows == [("single-stream", 1), ("offline", 8), ("offline", 32)]


@pytest.mark.parametrize(
    ("plan", "rounds"),
    [
        (BenchPlan(), figures.ROUNDS_FOR_INTERVAL),
        (BenchPlan(pairs=8), figures.ROUNDS_FOR_INTERVAL),
        (PLAN, figures.ROUNDS_FOR_INTERVAL),
        (replace(PLAN, pairs=64), 11),  # 64 x 11 is the first multiple of 64 above 661
        (replace(PLAN, pairs=64, scenario=("single-stream",)), 11),
        (replace(PLAN, pairs=64, scenario=("offline",)), figures.ROUNDS_FOR_INTERVAL),
    ],
)
def test_the_default_number_of_rounds_is_what_the_tables_need(plan: BenchPlan, rounds: int) -> None:
    assert enough_rounds(plan) == rounds


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--backend", "torch"], "--backend"),
        (["--dtype", "auto"], "--dtype"),
        (["--dtype", "fp32", "--backend", "onnx"], "--backend --dtype"),
        (["--order", "length"], "--order"),
    ],
)
def test_options_set_by_the_preset_are_rejected_even_with_default_values(
    options: list[str], named: str, mrpcbench: Callable[..., Outcome]
) -> None:
    done = mrpcbench("bench", "--preset", "peers", *options)
    assert done.status == 2
    assert f"--preset peers: the preset sets {named} for each case" in done.err


@pytest.mark.parametrize(
    ("spec", "plan"),
    [
        (BackendSpec(), replace(PLAN, backend=("onnx",))),
        (BackendSpec(dtype="fp32"), PLAN),
    ],
)
def test_options_set_by_the_preset_are_rejected_in_a_request(spec: BackendSpec, plan: BenchPlan) -> None:
    with pytest.raises(UsageError, match="--preset peers: the preset sets --"):
        choose(BenchRequest(spec=spec, plan=plan))


def test_missing_graphs_are_listed_in_one_line_with_their_export_commands(
    with_graphs: str, mrpcbench: Callable[..., Outcome]
) -> None:
    for graph in ("onnx", "onnx-int8"):
        (Path(with_graphs) / graph / sources.ONNX_FILE).unlink()
    done = mrpcbench("bench", "--preset", "peers", "--model", with_graphs, "--device", "cpu")
    assert done.status == 2
    *_, line = done.err.splitlines()
    # None of them would be skipped: those that the run needs are named in the order of the cases.
    assert f"no model.onnx in {with_graphs}/onnx-int8, {with_graphs}/onnx; make them with" in line
    for optimize in ("int8", "none"):
        assert f"`mrpcbench export --model {with_graphs} --optimize {optimize} --device cpu`" in line
    assert "onnx-cpu" not in line


def test_the_export_command_has_the_data_and_random_init(with_graphs: str) -> None:
    spec = BackendSpec(model=with_graphs, device="cpu", random_init=True)
    with pytest.raises(UsageError) as raised:
        suite(spec, data="some folder")
    command = f"`mrpcbench export --model {with_graphs} --optimize cpu --random-init --data 'some folder' --device cpu`"
    assert command in str(raised.value)
    assert "no model.onnx in model-random-init-onnx-cpu," in str(raised.value)


def test_a_missing_model_is_reported_before_its_graphs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        suite(BackendSpec(model=str(tmp_path / "none")))


# --- a run ------------------------------------------------------------------------------------------------------------


def measure(results: Path, data: Path) -> BenchRecord:
    request = asked(BackendSpec(model="quickstart", device="cpu"), data=str(data), max_s=0.0)
    return bench(request, results, Listener())[0]


def test_a_run_has_a_row_for_each_case_with_its_name_and_order(fakes: None, small_data: Path, tmp_path: Path) -> None:
    record = measure(tmp_path / "r.json", small_data)
    assert record == store.load(tmp_path / "r.json")
    found = [(row.case, row.scenario, row.batch_size, row.order) for row in record.bench.rows]
    assert found == [
        ("theirs", "offline", 32, "given"),
        ("ours", "offline", 8, "length"),
        ("ours", "offline", 32, "length"),
        ("ours", "single-stream", 1, None),
    ]
    theirs, _, ours, _ = record.bench.rows
    assert theirs.padding_tokens > ours.padding_tokens
    assert theirs.spec == ours.spec


def test_the_command_line_shows_speedups_and_validity(
    fakes: None, small_data: Path, tmp_path: Path, mrpcbench: Callable[..., Outcome]
) -> None:
    options = (
        "bench",
        "--preset",
        "peers",
        "--model",
        "quickstart",
        "--device",
        "cpu",
        "--data",
        small_data,
        "--max-seconds",
        "0",
    )
    done = mrpcbench("-v", *options, "--results", "a.json", "--profile", "trace.json")
    assert done.status == 0, done.err
    shown = " ".join(done.out.split())
    assert "offline: all pairs, in two orders; speedup over theirs:32" in shown
    assert "ours:32 is " in shown or "ours:32 or theirs:32: cannot tell" in shown
    assert " pairs x 5 rounds, " in shown
    assert "agree: label agreement with theirs offline batch 32" in shown
    assert "in the order given: theirs; the others sorted by length" in shown
    names = {
        event["args"]["name"]
        for event in json.loads(Path("trace.json").read_text())["traceEvents"]
        if "name" in event.get("args", {})
    }
    assert {"theirs offline batch 32", "ours offline batch 8"} <= names
    other = mrpcbench(*options, "--relative-to", "ours:8", "--pairs", "10", "--json")
    assert json.loads(other.out)["bench"]["rows"][0]["case"] == "theirs"
    refused = mrpcbench(*options, "--relative-to", "fake")
    assert refused.status == 2
    assert "name one of theirs offline batch 32, ours offline batch 8, " in refused.err


def test_compare_identifies_a_case_by_its_name(
    fakes: None, small_data: Path, tmp_path: Path, mrpcbench: Callable[..., Outcome]
) -> None:
    for name in ("a", "b"):
        measure(tmp_path / f"records/{name}.json", small_data)
    done = mrpcbench("compare", "records/a.json", "records/b.json", "--json")
    found = json.loads(done.out)
    assert found["differences"] == []
    assert {item["metric"] for item in found["metrics"]} == {
        *("theirs offline batch 32", "ours offline batch 8", "ours offline batch 32", "ours single-stream"),
    }


def test_an_end_to_end_run_with_exported_graphs(
    exported_model: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every case that needs no compiler and no graph of Optimum's optimiser."""
    model = tmp_path / "model"
    shutil.copytree(exported_model, model)
    for optimize in ("cpu", "int8"):
        plan = ExportPlan(model=str(model), data=str(small_data), optimize=optimize, device="cpu")  # type: ignore[arg-type]
        export(plan, tmp_path / "e.json", Silent())
    chosen = tuple(entry for entry in PEERS["cpu"].entries if entry.name not in ("torch-compile", "optimum-o3"))
    monkeypatch.setitem(PEERS, "cpu", replace(PEERS["cpu"], entries=chosen))  # type: ignore[arg-type]
    listener = Listener()
    request = asked(BackendSpec(model=str(model), device="cpu"), data=str(small_data), pairs=20, rounds=1, max_s=0.0)
    record, _ = bench(request, tmp_path / "r.json", listener)
    rows = {(row.case, row.batch_size): row for row in record.bench.rows}
    optional = [item.case for item in record.bench.failed]
    assert optional == ([] if registry.problem_of("openvino", "cpu") is None else ["openvino"])
    assert len(rows) == len(record.bench.rows) == 4 + 2 + 3 * (5 - len(optional))
    assert sum(line.startswith("opening ") for line in listener.lines) == 7  # three share a session with another
    assert rows["hf-autocast", 32].placement.dtype == "bf16-autocast"
    assert rows["onnx-int8", 8].placement.dtype == "int8"
    assert rows["onnx-cpu", 8].model.optimize == "cpu"
    assert {item.dtype for item in record.bench.ceilings} == {"fp32", "bf16", "int8"}
    work = rows["hf-autocast", 32].work, rows["hf-fp32-unsorted", 32].work
    assert work[0] is not None
    assert work[1] is not None
    assert work[0].flops == work[1].flops
    assert work[0].moved_bytes * 2 == work[1].moved_bytes
    assert all(row.agreement is not None and row.agreement > 0.9 for row in rows.values())
