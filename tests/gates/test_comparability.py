"""Tests of mrpcbench.gates.comparability: which differences are forbidden, which are warnings, and their text."""

from dataclasses import replace
from typing import Any

import pytest
from records import make_bench, make_data, make_gate, make_record, make_row, make_train

from mrpcbench.gates.comparability import comparability
from mrpcbench.schema.bench_results import LoadPoint, ServerResult
from mrpcbench.schema.identity import Command
from mrpcbench.schema.records import RunRecord
from mrpcbench.schema.requests import TrainRecipe
from mrpcbench.schema.results import LoadReport

KINDS: tuple[Command, ...] = ("train", "evaluate", "export", "bench")
LATER = "2025-02-01T00:00:00+00:00"


def put(value: Any, path: str, new: Any) -> Any:
    """A copy of `value` with `new` at the dotted `path`, in which a number is an index."""
    first, _, rest = path.partition(".")
    if isinstance(value, tuple):
        place = int(first)
        return (*value[:place], put(value[place], rest, new) if rest else new, *value[place + 1 :])
    return replace(value, **{first: put(getattr(value, first), rest, new) if rest else new})


def pair(kind: Command, **changes: Any) -> tuple[RunRecord, RunRecord]:
    """A record, and the same run again a day later with other values at the paths of `changes` (__ for a dot)."""
    record = make_record(kind)
    later = put(record, "environment.started_at", LATER)
    for path, new in changes.items():
        later = put(later, path.replace("__", "."), new)
    return record, later


def found(before: RunRecord, after: RunRecord) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return comparability([("old.json", before)], [("new.json", after)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_rerun_has_no_differences(kind: Command) -> None:
    assert found(*pair(kind)) == ((), ())


def test_records_of_two_commands_cannot_be_compared() -> None:
    assert found(make_record("train"), make_record("bench")) == (("command: train, now bench",), ())


# --- what must be equal -----------------------------------------------------------------------------------------------

ROW = "bench__rows__0__"
IN_ROW = "(torch single-stream)"


EQUAL_IN_EVERY_KIND: list[tuple[str, Any, str]] = [
    ("model__architecture", "BertForSequenceClassification", "architecture: "),
    ("model__parameters", 395_000_000, "parameters: 149606402, now 395000000"),
    ("model__tokenizer_sha256", "f" * 64, "tokenizer_sha256: bbbbbbbbbbbb, now ffffffffffff"),
    ("data__0__data_sha256", "f" * 64, "data_sha256: cccccccccccc, now ffffffffffff"),
    ("data__0__pairs", 100, "pairs: "),
    ("data__0__label_names", ("no", "yes"), "label_names: not_equivalent/equivalent, now no/yes"),
]


def test_every_command_needs_the_same_pairs_and_the_same_kind_of_model() -> None:
    wrong = {}
    for kind in KINDS:
        for path, new, line in EQUAL_IN_EVERY_KIND:
            differences, _ = found(*pair(kind, **{path: new}))
            if len(differences) != 1 or not differences[0].removeprefix("train ").startswith(line):
                wrong[kind, path] = differences
    assert not wrong


@pytest.mark.parametrize("kind", ["evaluate", "export", "bench"])
def test_another_split_is_named_next_to_its_pairs(kind: Command) -> None:
    differences, _ = found(*pair(kind, data=(make_data("test", pairs=1725, data_sha256="9" * 64),)))
    assert differences == (
        "split: validation, now test",
        "data_sha256: cccccccccccc, now 999999999999",
        "pairs: 408, now 1725",
    )


def test_where_the_same_pairs_came_from_does_not_matter() -> None:
    assert found(*pair("evaluate", data__0__source="hub")) == ((), ())


EQUAL: list[tuple[Command, str, Any, str]] = [
    ("evaluate", "model__weights", "random-init", "weights: fine-tuned, now random-init"),
    ("evaluate", "model__origin", "random-init", "origin: pretrained, now random-init"),
    ("export", "model__weights", "random-init", "weights: fine-tuned, now random-init"),
    ("export", "model__origin", "random-init", "origin: pretrained, now random-init"),
    ("export", "export__dtype", "fp16", "dtype: fp32, now fp16"),
    ("export", "export__placement__device", "cuda H200", "device: cpu, now cuda H200"),
    ("export", "export__placement__provider", "OpenVINO", "provider: CPUExecutionProvider, now OpenVINO"),
    ("export", "export__gate__delta_allowed", 1e-2, "delta_allowed: 0.001, now 0.01"),
    ("export", "export__gate__flips_allowed", 4, "flips_allowed: 0, now 4"),
    ("train", "train__placement__dtype", "bf16", "precision: fp32, now bf16"),
    ("train", "train__base_model__weights", "random-init", "base_model.weights: pretrained, now random-init"),
    ("train", "train__base_model__origin", "random-init", "base_model.origin: pretrained, now random-init"),
    ("train", "train__base_model__name", "other/model", "base_model: answerdotai/ModernBERT-base, now other/model"),
    ("bench", "environment__machine_sha256", "6" * 64, "machine_sha256: 555555555555, now 666666666666"),
    ("bench", "environment__system", "Linux aarch64", "system: Linux x86_64, now Linux aarch64"),
    ("bench", "environment__cpu", "Another", "cpu: AMD EPYC 9654 96-Core Processor, now Another"),
    ("bench", "environment__cpu_cores", 4, "cpu_cores: 2, now 4"),
    ("bench", "environment__gpu", "H200", "gpu: none, now H200"),
    ("bench", "environment__gpu_driver", "570.1", "gpu_driver: none, now 570.1"),
    ("bench", "environment__settings", {"OMP_WAIT_POLICY": "ACTIVE"}, "settings.OMP_WAIT_POLICY: none, now ACTIVE"),
    ("bench", "bench__plan__seq_len", 128, "seq_len: none, now 128"),
    ("bench", "bench__plan__seed", 1, "seed: 0, now 1"),
    ("bench", f"{ROW}placement__engine", "tensorflow 2.13.0", f"engine: torch, now tensorflow {IN_ROW}"),
    ("bench", f"{ROW}placement__device", "cuda H200", f"device: cpu, now cuda H200 {IN_ROW}"),
    ("bench", f"{ROW}placement__provider", "eager", f"provider: sdpa, now eager {IN_ROW}"),
    ("bench", f"{ROW}placement__dtype", "bf16", f"dtype: fp32, now bf16 {IN_ROW}"),
    ("bench", f"{ROW}placement__threads", 1, f"threads: 2, now 1 {IN_ROW}"),
    ("bench", f"{ROW}model__parameters", 7, f"parameters: 149606402, now 7 {IN_ROW}"),
    ("bench", f"{ROW}real_tokens", 7, f"real_tokens: 21000, now 7 {IN_ROW}"),
]


def test_each_forbidden_difference_of_a_command_is_named() -> None:
    wrong = {}
    for kind, path, new, line in EQUAL:
        before, after = pair(kind, **{path: new})
        differences, _ = found(before, after)
        if differences != (line,) or not found(after, before)[0]:
            wrong[kind, path] = differences
    assert not wrong


def test_rows_that_differ_alike_are_named_once_together() -> None:
    changes = {f"bench__rows__{place}__placement__threads": 1 for place in (0, 1)}
    differences, _ = found(*pair("bench", **changes))
    assert differences == ("threads: 2, now 1 (torch single-stream, torch offline batch 32)",)


def test_a_difference_of_the_record_is_not_repeated_for_its_rows() -> None:
    changes: dict[str, Any] = {f"bench__rows__{place}__model__parameters": 7 for place in (0, 1)}
    differences, _ = found(*pair("bench", model__parameters=7, **changes))
    assert differences == ("parameters: 149606402, now 7",)


def test_the_target_of_a_server_is_part_of_its_workload() -> None:
    after = put(with_server(slo_ms=50.0, window_ms=5.0), "environment.started_at", LATER)
    assert found(with_server(), after)[0] == (
        "slo_ms: 100.0, now 50.0 (torch server batch 8)",
        "window_ms: 2.0, now 5.0 (torch server batch 8)",
    )


def with_server(**changes: Any) -> RunRecord:
    load = LoadPoint(
        rate_per_s=10, sent=1000, failed=0, latencies_ms=(5.0,), batch_sizes=(1,), duration_s=100, meets_slo=True
    )
    server = replace(
        ServerResult(slo_ms=100.0, window_ms=2.0, max_batch=8, seed=0, curve=(load,), best_rate_per_s=10), **changes
    )
    return make_record("bench", bench=make_bench(rows=(make_row("server", batch_size=8, server=server),)))


# --- what may differ --------------------------------------------------------------------------------------------------


ALLOWED: list[tuple[Command, str, Any, str]] = [
    *((kind, "environment__python", "3.12.1", "python: 3.11.7, now 3.12.1") for kind in KINDS),
    *(
        (kind, "environment__packages", {"mrpcbench": "0.1.0", "torch": "2.14.0"}, "packages.torch: 2.13.0+cpu, ")
        for kind in KINDS
    ),
    *((kind, "environment__settings", {"A": "1"}, "settings.A: none, now 1") for kind in KINDS[:3]),
    *((kind, f"{kind}__placement__engine", "torch 3", "engine: ") for kind in KINDS[:3]),
    *((kind, f"{kind}__placement__threads", 8, "threads: 2, now 8") for kind in KINDS[:3]),
    *((kind, f"{kind}__placement__device", "cuda H200", "device: cpu, ") for kind in ("train", "evaluate")),
    *((kind, f"{kind}__placement__provider", "eager", "provider: sdpa, ") for kind in ("train", "evaluate")),
    ("train", "train__recipe", TrainRecipe(learning_rate=1e-4), "recipe.learning_rate: 8e-05, now 0.0001"),
    ("train", "train__recipe", TrainRecipe(num_train_epochs=3), "recipe.num_train_epochs: 2.0, now 3"),
    ("train", "train__resumed_from_step", 100, "resumed_from_step: none, now 100"),
    ("evaluate", "evaluate__placement__dtype", "bf16", "dtype: fp32, now bf16"),
    ("evaluate", "evaluate__batch_size", 8, "batch_size: 32, now 8"),
    ("evaluate", "model__origin", "unknown", "origin: pretrained, now unknown"),
    ("export", "export__opset", 19, "opset: 18, now 19"),
    ("export", "export__reference__provider", "eager", "reference: torch 2.13.0 sdpa, now torch 2.13.0 eager"),
    ("evaluate", "model__optimize", "cpu", "graph: none, now cpu"),
    ("export", "model__optimize", "cuda", "graph: none, now cuda"),
    ("bench", f"{ROW}model__optimize", "int8", "torch: graph: none, now int8"),
    ("bench", "model__weights", "random-init", "weights: fine-tuned, now random-init"),
    ("bench", "bench__plan__rounds", 9, "rounds: 5, now 9"),
    ("bench", "bench__plan__warmup", 9, "warmup: 3, now 9"),
    ("bench", "environment__cuda", "12.8", "cuda: none, now 12.8"),
    ("bench", "environment__settings", {"OMP_NUM_THREADS": "2"}, "settings.OMP_NUM_THREADS: none, now 2"),
    ("bench", f"{ROW}placement__engine", "torch 2.14.0", "torch: engine: torch 2.13.0, now torch 2.14.0"),
]


def test_what_may_differ_is_a_warning() -> None:
    wrong = {}
    for kind, path, new, line in ALLOWED:
        differences, warnings = found(*pair(kind, **{path: new}))
        if differences or not any(warning.startswith(line) for warning in warnings):
            wrong[kind, path] = differences, warnings
    assert not wrong


@pytest.mark.parametrize("kind", ["evaluate", "export", "bench"])
def test_other_weights_are_allowed(kind: Command) -> None:
    assert found(*pair(kind, model__model_sha256="9" * 64)) == ((), ())


def test_padding_and_time_of_a_row_are_allowed_to_differ() -> None:
    assert found(*pair("bench", **{f"{ROW}padding_tokens": 0, f"{ROW}samples_ms": (1.0,)})) == ((), ())


def test_a_row_that_only_one_record_has_is_a_warning() -> None:
    before, after = pair("bench", bench__rows=(make_row("offline"), make_row("offline", batch_size=8)))
    assert found(before, after) == (
        (),
        ("torch single-stream: missing", "torch offline batch 8: not in the baseline"),
    )


def test_other_answers_of_the_same_weights_are_a_warning() -> None:
    _, (warning,) = found(*pair("bench", **{f"{ROW}accuracy": 0.8505}))
    assert warning == f"torch single-stream: accuracy: {351 / 408}, now 0.8505, although the weights are equal"
    assert found(*pair("bench", **{f"{ROW}accuracy": 0.8505, f"{ROW}model__model_sha256": "9" * 64}))[1] == ()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_run_on_both_sides_is_incomparable(kind: Command) -> None:
    record = make_record(kind)
    line = "old.json and new.json are the same run; compare with another"
    assert line in found(record, record)[0]
    assert line not in found(record, put(record, "environment.machine_sha256", "6" * 64))[0]
    assert line not in found(record, put(record, "environment.started_at", "2025-01-02T03:04:05.001+00:00"))[0]


@pytest.mark.parametrize(("side", "name"), [(0, "baseline"), (1, "current side")])
def test_an_unverified_graph_is_a_warning(side: int, name: str) -> None:
    records = list(pair("evaluate"))
    records[side] = put(put(records[side], "model.graph_sha256", "e" * 64), "model.proven", False)
    assert found(records[0], records[1])[1] == (f"the graph of the {name} is unverified",)
    records[side] = put(records[side], "model.proven", True)
    assert found(records[0], records[1])[1] == ()


def test_another_order_of_the_offline_pairs_is_refused() -> None:
    offline = "bench__rows__1__order"
    assert found(*pair("bench", **{offline: "length"})) == ((), ())
    assert found(*pair("bench", **{offline: "given"}))[0] == ("order: length, now given (torch offline batch 32)",)


def test_an_unverified_graph_in_a_row_is_a_warning() -> None:
    _, warnings = found(*pair("bench", **{f"{ROW}model__graph_sha256": "e" * 64, f"{ROW}model__proven": None}))
    assert warnings == ("the graph of the current side is unverified",)


def test_a_failed_current_export_is_the_verdict_and_not_a_warning() -> None:
    before, after = pair("export", model__proven=False)
    assert found(before, after)[1] == ()
    assert found(after, before)[1] == ("the graph of the baseline is unverified",)


def test_an_export_without_its_gate_is_left_to_the_verdict() -> None:
    assert found(*pair("export", export__gate=None)) == ((), ())
    before, after = pair("export", export__gate=make_gate(flips_allowed=3))
    assert found(before, after)[0]


# --- several seeds ----------------------------------------------------------------------------------------------------


def run(seed: int, *, base_sha256: str | None = None, **changes: Any) -> RunRecord:
    """A run whose new head, and therefore the hash of its start weights, depends on its seed."""
    section = make_train(recipe=TrainRecipe(seed=seed))
    section = put(section, "base_model.model_sha256", base_sha256 or str(seed) * 64)
    record = make_record("train", train=section)
    record = put(record, "environment.started_at", f"2025-01-0{seed}T00:00:00+00:00")
    for path, new in changes.items():
        record = put(record, path.replace("__", "."), new)
    return record


def sides(before: list[RunRecord], after: list[RunRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return comparability(
        [(f"old{index}.json", record) for index, record in enumerate(before)],
        [(f"new{index}.json", record) for index, record in enumerate(after)],
    )


def test_seeds_may_differ_within_a_side_and_between_the_sides() -> None:
    assert sides([run(1), run(2)], [run(3), run(4)]) == ((), ())


def test_a_seed_twice_on_one_side_is_named_and_on_both_sides_is_not() -> None:
    twice = [run(1), run(2), put(run(1), "environment.started_at", LATER)]
    assert sides(twice, [run(3)])[0] == ("seed 1: 2 times on the baseline; give each seed once",)
    assert sides([run(3)], twice)[0] == ("seed 1: 2 times on the current side; give each seed once",)
    assert sides([run(1)], [put(run(1), "environment.started_at", LATER)])[0] == ()


@pytest.mark.parametrize("side", [0, 1])
def test_every_run_of_a_side_must_share_the_recipe_and_the_one_that_does_not_is_named(side: int) -> None:
    other = run(2, train__recipe=TrainRecipe(seed=2, learning_rate=1e-4))
    groups = [[run(1)], [run(3)]]
    groups[side].append(other)
    name = ("old1.json", "new1.json")[side]
    assert sides(groups[0], groups[1])[0] == (f"{name}: recipe.learning_rate: 8e-05, now 0.0001",)


def test_two_recipes_may_be_compared() -> None:
    other = [run(seed, train__recipe=TrainRecipe(seed=seed, learning_rate=1e-4)) for seed in (3, 4)]
    assert sides([run(1), run(2)], other) == ((), ("recipe.learning_rate: 8e-05, now 0.0001",))


def test_the_requested_precision_may_differ_if_the_one_used_is_the_same() -> None:
    assert sides([run(1)], [run(2, train__recipe=TrainRecipe(seed=2, precision="fp32"))]) == ((), ())


def test_a_complete_start_checkpoint_is_identified_by_its_hash() -> None:
    whole: dict[str, Any] = {"train__load_report": LoadReport(), "base_sha256": "7" * 64}
    assert sides([run(1, **whole)], [run(2, **whole)]) == ((), ())
    other = run(2, **{**whole, "base_sha256": "8" * 64})
    assert sides([run(1, **whole)], [other])[0] == ("base_model_sha256: 777777777777, now 888888888888",)
    renamed = run(2, **whole, train__base_model__name="copy")
    assert sides([run(1, **whole)], [renamed]) == ((), ())


@pytest.mark.parametrize(
    "changes",
    [
        {"train__load_report": LoadReport(), "train__base_model__weights": "random-init"},
        {"train__load_report": LoadReport(missing=("model.layers.0",))},
    ],
    ids=["random weights", "a missing layer"],
)
def test_weights_from_the_seed_are_not_compared_across_seeds(changes: dict[str, Any]) -> None:
    assert sides([run(1, **changes)], [run(2, **changes)]) == ((), ())


def test_the_loaded_weights_of_a_checkpoint_without_a_head_must_be_equal() -> None:
    def began(seed: int, sha256: str | None) -> RunRecord:
        return run(seed, train__load_report=LoadReport(new_head=("classifier.weight",), loaded_sha256=sha256))

    assert sides([began(1, "7" * 64)], [began(2, "7" * 64)]) == ((), ())
    line = "loaded_sha256: 777777777777, now 888888888888"
    assert sides([began(1, "7" * 64)], [began(2, "8" * 64)]) == ((line,), ())
    assert sides([began(1, None)], [began(2, "8" * 64)]) == ((), ("loaded_sha256: unknown, now 888888888888",))


def test_the_same_seed_must_have_the_same_start_weights() -> None:
    before, after = [run(1), run(2)], [run(3), run(2, base_sha256="9" * 64, environment__started_at=LATER)]
    assert sides(before, after)[0] == ("seed 2: base_model_sha256: 222222222222, now 999999999999",)
