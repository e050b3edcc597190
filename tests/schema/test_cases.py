"""Cases and suites: their rows."""

from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.cases import Case, Suite, suite_of_backends
from mrpcbench.schema.requests import BackendSpec


def test_each_backend_is_a_case_with_its_name_and_the_shared_options() -> None:
    plan = BenchPlan(backend=("torch", "onnx", "torch"), scenario=("offline",), batch_size=(4,))
    torch, onnx = suite_of_backends(BackendSpec(model="m", threads=3), plan).cases
    assert (torch.name, onnx.name) == ("torch", "onnx")
    assert onnx.spec == BackendSpec(backend="onnx", model="m", threads=3)
    assert (onnx.scenarios, onnx.batch_sizes, onnx.order) == (("offline",), (4,), "length")


def test_single_stream_is_one_row_and_the_other_scenarios_one_per_batch_size() -> None:
    one = Case(
        name="ours",
        spec=BackendSpec(),
        scenarios=("single-stream", "offline", "server", "offline"),
        batch_sizes=(8, 32, 8),
    )
    assert list(map(str, one.rows())) == [
        "ours single-stream",
        *("ours offline batch 8", "ours offline batch 32"),
        *("ours server batch 8", "ours server batch 32"),
    ]


def test_a_suite_has_the_rows_of_its_cases() -> None:
    first = Case(name="a-b", spec=BackendSpec(), scenarios=("single-stream", "offline"), batch_sizes=(1, 8))
    second = Case(name="c", spec=BackendSpec(), scenarios=("offline",), batch_sizes=(32,))
    assert list(map(str, Suite(cases=(first, second)).rows())) == [
        *("a-b single-stream", "a-b offline batch 1", "a-b offline batch 8", "c offline batch 32"),
    ]
