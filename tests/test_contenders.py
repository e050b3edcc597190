"""Tests of mrpcbench.contenders: which rows a contender has, and what they are called."""

from mrpcbench.contenders import Contender, Field, backends_of
from mrpcbench.plans import BackendSpec, BenchPlan


def test_each_backend_is_a_contender_of_its_own_name_with_what_all_share() -> None:
    plan = BenchPlan(backend=("torch", "onnx", "torch"), scenario=("offline",), batch_size=(4,))
    torch, onnx = backends_of(BackendSpec(model="m", threads=3), plan).contenders
    assert (torch.name, onnx.name) == ("torch", "onnx")
    assert onnx.spec == BackendSpec(backend="onnx", model="m", threads=3)
    assert (onnx.scenarios, onnx.batch_sizes, onnx.order) == (("offline",), (4,), "length")


def test_one_pair_at_a_time_is_one_row_and_every_other_scenario_one_a_batch_size() -> None:
    one = Contender(
        name="ours",
        spec=BackendSpec(),
        scenarios=("single-stream", "offline", "server", "offline"),
        batch_sizes=(8, 32, 8),
    )
    assert list(one.rows()) == [
        ("single-stream", 1),
        *(("offline", 8), ("offline", 32)),
        *(("server", 8), ("server", 32)),
    ]


def test_a_field_names_each_row_of_the_run() -> None:
    first = Contender(name="a-b", spec=BackendSpec(), scenarios=("single-stream", "offline"), batch_sizes=(1, 8))
    second = Contender(name="c", spec=BackendSpec(), scenarios=("offline",), batch_sizes=(32,))
    assert list(map(str, Field(contenders=(first, second)).row_ids())) == [
        *("a-b single-stream", "a-b offline batch 1", "a-b offline batch 8", "c offline batch 32"),
    ]
