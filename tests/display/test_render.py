"""Tests of mrpcbench.display.render: each record as text that fits a pipe and is complete."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from records import (
    COMMANDS,
    ENVIRONMENT,
    MODEL,
    ONNX,
    TORCH,
    given_away,
    make_ab,
    make_bench,
    make_data,
    make_epoch,
    make_evaluate,
    make_export,
    make_gate,
    make_record,
    make_score,
    make_train,
)
from rich.console import Console, RenderableType

from mrpcbench.cli.terminal import PIPE_WIDTH, Terminal
from mrpcbench.display import render
from mrpcbench.display.export import export
from mrpcbench.display.tables import PlainTable
from mrpcbench.schema.identity import Command, EnvironmentReport, PairAnswer
from mrpcbench.schema.records import RunRecord
from mrpcbench.schema.requests import BackendSpec
from mrpcbench.schema.results import ExportGate, PairSpeed
from mrpcbench.schema.verdicts import Interval, Verdict

RANDOM = replace(MODEL, weights="random-init", origin="random-init")
FROM_RANDOM = replace(MODEL, origin="random-init")
UNVERIFIED = replace(MODEL, graph_sha256="e" * 64, proven=False)
PROVEN = replace(MODEL, graph_sha256="e" * 64, proven=True)


def text_of(what: RenderableType, width: int = PIPE_WIDTH) -> str:
    """The text for a pipe."""
    stream = StringIO()
    Console(file=stream, width=width).print(what)
    return stream.getvalue()


def words_in(text: str) -> str:
    """`text` without frames and line breaks."""
    return " ".join("".join(" " if char in "│┃" else char for char in text).split())


def words_of(what: RenderableType) -> str:
    return words_in(text_of(what))


def with_model(command: Command, model: object) -> RunRecord:
    """A record of `command` whose every model is `model`."""
    if command == "bench":
        rows = tuple(replace(row, model=model) for row in make_bench().rows)
        return make_record("bench", model=model, bench=make_bench(rows=rows))
    if command == "ab":
        side = replace(make_ab().a, model=model)
        return make_record("ab", model=model, ab=make_ab(a=side, b=side))
    return make_record(command, model=model)


# --- every record -----------------------------------------------------------------------------------------------------


def test_a_pipe_is_as_wide_as_the_tests_say() -> None:
    assert PIPE_WIDTH == 110


@pytest.mark.parametrize("command", COMMANDS)
def test_a_record_is_plain_text_that_fits_a_pipe(command: Command) -> None:
    for shown in (render.render(make_record(command)), render.opening(make_record(command))):
        # On a console of any width the text is the same: nothing is folded or cut to make it fit.
        narrow, wide = text_of(shown), text_of(shown, width=400)
        assert "\x1b" not in narrow
        assert "…" not in narrow
        assert max(map(len, narrow.splitlines())) <= PIPE_WIDTH
        numbers = [word for word in wide.split() if any(char.isdigit() for char in word)]
        assert [word for word in numbers if word not in narrow.split()] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_names_the_model_and_the_machine(command: Command) -> None:
    shown = words_of(render.render(make_record(command)))
    for part in (
        "tuned (ModernBertForSequenceClassification, 149.6 M, fine-tuned weights)",
        "on cpu, 2 threads",
        str(make_record(command).data[-1].pairs),
    ):
        assert part in shown, part


@pytest.mark.parametrize("command", COMMANDS)
def test_random_weights_are_labelled(command: Command) -> None:
    assert "random-init weights" in words_of(render.render(with_model(command, RANDOM)))
    assert "random-init weights" in words_of(render.opening(with_model(command, RANDOM)))
    assert "fine-tuned from random-init weights" in words_of(render.render(with_model(command, FROM_RANDOM)))
    assert "random-init" not in words_of(render.render(with_model(command, MODEL)))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupted_run_is_labelled_incomplete(command: Command) -> None:
    assert words_of(render.render(make_record(command, complete=False))).startswith("INCOMPLETE: ")
    assert "INCOMPLETE" not in words_of(render.render(make_record(command)))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["tuned[v2]", "run[bold]", "seed:100:"])
def test_a_name_that_looks_like_markup_is_shown_as_it_is(
    command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = replace(with_model(command, replace(MODEL, name=name)), data=(make_data(source=name),) * 2)
    terminal = Terminal("verbose")
    terminal.began(record)
    terminal.say(f"opening {name}")
    terminal.show(record, Path(f"{name}.json"))
    out, err = map(words_in, capsys.readouterr())
    # On the project's console, and on a default one.
    for shown in (out, err, words_of(render.render(record)), words_of(render.opening(record))):
        assert f"{name} (ModernBert" in shown
    assert f"{name} validation" in err
    assert err.endswith(f"opening {name}")
    assert out.endswith(f"record: {name}.json")
    if command in ("evaluate", "bench"):  # in a title, and in a caption
        assert f"{name} validation" in words_of(render.render(record))


def test_the_tables_of_a_record_have_no_private_names_or_paths() -> None:
    for command in COMMANDS:
        assert given_away(text_of(render.render(make_record(command))).splitlines()) == []


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("train", "accuracy 0.8431, F1 0.8877"),
        ("evaluate", "accuracy 0.8603, F1 0.8988 (majority class: 0.6838, 0.8122)"),
        ("export", "PASS: 0 of 408 labels flip"),
    ],
)
def test_the_result_of_a_record_fits_on_one_line(command: Command, line: str) -> None:
    found = render.headline(make_record(command))
    assert found is not None
    assert found.plain.startswith(line)


# --- train ------------------------------------------------------------------------------------------------------------


def test_the_epochs_of_a_training_are_shown_with_every_logged_metric_once() -> None:
    shown = words_of(render.render(make_record("train")))
    for part in (
        "1 115 0.551234 9.250000 8.000000e-05 0.361234 0.843137 0.887719",
        "2* 230 0.275617 9.250000 4.000000e-05 0.361234 0.843137 0.887719",
        "* saved: the best epoch",
        "230/230",
        "23% of the tokens were padding",
        f"sha256 {'a' * 16}",
        "n = 408 validation pairs",
    ):
        assert shown.count(part) == 1, part


def test_the_best_epoch_is_the_saved_one_and_not_the_last() -> None:
    section = make_train(epochs=(make_epoch(1, eval_accuracy_score=0.875), make_epoch(2)), best_step=115)
    record = make_record("train", train=section)
    shown = words_of(render.render(record))
    assert "1* 115 " in shown
    assert "2 230 " in shown
    assert str(render.headline(record)).startswith("accuracy 0.8750, F1 ")


@pytest.mark.parametrize("epochs", [5, 10, 30])
def test_no_number_is_cut_in_a_table_of_many_epochs(epochs: int) -> None:
    lines = tuple(make_epoch(index + 1, eval_loss=0.4 + index / 997) for index in range(epochs))
    shown = text_of(render.render(make_record("train", train=make_train(epochs=lines))), width=80)
    for line in lines:
        assert f" {line.train_learning_rate:.6e} " in shown, line.step
        assert shown.count(f" {line.eval_loss:.6f} ") == 1, line.step
    assert max(map(len, shown.splitlines())) <= 80


def test_a_loss_that_is_not_finite_is_shown_so() -> None:
    section = make_train(epochs=(make_epoch(1, train_loss=None, eval_loss=None),), best_step=115)
    shown = words_of(render.render(make_record("train", train=section)))
    assert "1* 115 not finite 9.250000 8.000000e-05 not finite 0.843137" in shown


def test_a_training_without_an_epoch_can_be_shown() -> None:
    section = make_train(epochs=(), best_step=None, train_s=None)
    shown = words_of(render.render(make_record("train", complete=False, train=section)))
    assert "no epoch finished" in shown
    assert "0/230" in shown


def test_float32_on_a_gpu_says_whether_it_is_rounded_to_tf32() -> None:
    shown = {
        tf32: words_of(
            render.render(make_record("evaluate", evaluate=make_evaluate(placement=replace(TORCH, tf32=tf32))))
        )
        for tf32 in (None, False, True)
    }
    assert "sdpa fp32 on" in shown[None]
    assert "sdpa fp32 without TF32 on" in shown[False]
    assert "sdpa fp32 with TF32 on" in shown[True]


def test_a_resumed_training_shows_its_start_step() -> None:
    assert "resumed from step 115" in words_of(
        render.render(make_record("train", train=make_train(resumed_from_step=115)))
    )
    assert "resumed" not in words_of(render.render(make_record("train")))


def test_a_training_shows_its_time_breakdown_and_steps_per_second() -> None:
    spent = {"cold_s": 1.5, "evaluate_s": 4.0, "save_s": 6.0}
    shown = words_of(render.render(make_record("train", train=make_train(**spent))))
    assert "steps 50.0 s (4.58 steps/s), first step and warm-up 1.5 s, " in shown  # 229 steps in 50 s
    assert "evaluations 4.0 s, saving 6.0 s" in shown
    resumed = make_train(**spent, resumed_from_step=115)
    assert "(2.28 steps/s)" in words_of(render.render(make_record("train", train=resumed)))  # 114 in 50 s
    assert "steps/s" not in words_of(render.render(make_record("train")))


def test_the_opening_of_a_training_shows_its_recipe() -> None:
    shown = words_of(render.opening(make_record("train")))
    for part in ("learning_rate 8e-05", "adam_beta2 0.98", "adam_epsilon 1e-06", "total steps 230", "408 pairs, 68.4%"):
        assert part in shown, part


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_a_score_is_shown_with_its_interval_and_the_majority_class() -> None:
    shown = words_of(render.render(make_record("evaluate")))
    for part in (
        "accuracy 0.860294 0.8233 to 0.8906 0.683824",
        "F1 of equivalent 0.898757 0.8700 to 0.9241 0.812227",
        "precision 0.890845",
        "recall 0.906810",
        "loss 0.352700",
        "is not_equivalent 98 31",
        "is equivalent 26 253",
    ):
        assert part in shown, part
    broken = make_record("evaluate", evaluate=make_evaluate(score=make_score(loss=None)))
    assert "loss not finite" in words_of(render.render(broken))


def test_a_score_of_an_unverified_graph_is_labelled() -> None:
    scored = make_evaluate(spec=BackendSpec(backend="onnx"), placement=ONNX)
    assert "UNVERIFIED" in words_of(render.render(make_record("evaluate", model=UNVERIFIED, evaluate=scored)))
    assert "UNVERIFIED" not in words_of(render.render(make_record("evaluate", model=PROVEN, evaluate=scored)))


# --- export -----------------------------------------------------------------------------------------------------------


def test_an_export_shows_its_graph_its_trials_and_its_verdict() -> None:
    shown = words_of(render.render(make_record("export"), verbose=True))
    for part in (
        "1834 nodes, opset 18, fp32",
        "model.onnx 598.5 MB",
        "8 longest pair 0 2.50e-06 1.50e-06 91",
        "PASS: 0 of 408 labels flip",
        "smallest decision margin 1.25e-02",
        "margin / error 5000.0",
        "at most 0.73% at 95% confidence",
        "n = 408 pairs",
        "onnxruntime 1.31.0 CPUExecutionProvider fp32 on cpu, 2 threads",
    ):
        assert part in shown, part
    short = words_of(render.render(make_record("export")))
    assert "verdict PASS: 0 of 408 labels flip" in short
    assert "Export gate" not in short
    assert "smallest decision margin" not in short


def test_an_export_shows_the_size_of_the_graph_and_the_speed_of_one_pair() -> None:
    shown = words_of(render.render(make_record("export")))
    assert "model.onnx 598.5 MB, 1.00x the 598.4 MB of the weights in float32" in shown
    assert "one pair" not in shown
    for speedup, low, high, said in (
        (4.0, 3.5, 4.5, "4.00x faster (95% CI 3.50 to 4.50), measured over 96 pairs"),
        (0.5, 0.4, 0.6, "0.50x as fast (95% CI 0.40 to 0.60), measured over 96 pairs"),
        (1.5, 0.9, 2.0, "cannot tell which is faster (95% CI 0.90 to 2.00), measured over 96 pairs"),
    ):
        between = Interval(low=low, high=high, level=0.95, method="percentile bootstrap")
        found = PairSpeed(pairs=96, graph_ms=2.5, original_ms=10.0, speedup=speedup, interval=between)
        shown = words_of(render.render(make_record("export", export=make_export(pair_speed=found))))
        assert f"one pair 2.50 ms, in PyTorch 10.00 ms: {said}" in shown


def test_an_export_shows_its_graph_and_for_8_bits_the_f1() -> None:
    own = words_of(render.render(make_record("export")))
    assert "from Optimum: 1834 nodes" in own
    assert "F1 of the trials" not in own
    allowed = Interval(low=0.85, high=0.91, level=0.95, method="percentile bootstrap")
    trials = tuple(replace(trial, f1=f1) for trial, f1 in zip(make_gate().trials, (0.88, 0.87), strict=True))
    section = make_export(optimize="int8", dtype="int8", gate=make_gate(f1_allowed=allowed, trials=trials))
    record = make_record("export", export=section)
    shown = words_of(render.render(replace(record, model=replace(record.model, optimize="int8"))))
    assert "int8 graph: 1834 nodes, opset 18, int8" in shown
    assert "F1 of the trials 0.880000, 0.870000; the original's interval is 0.8500 to 0.9100" in shown
    assert "weights, int8 graph)" in shown


def test_an_export_shows_joined_pairs_and_other_padding_with_their_limits() -> None:
    split = make_gate().trials[0]
    joined = replace(split, kind="joined", pairs=12, padding="joined, 10 to 1024 tokens", p99_abs_delta=0.05)
    padding = replace(joined, kind="padding", padding="joined, other padding tokens", max_abs_delta=0.125)
    gate = make_gate(trials=(split, joined, padding), logit_spread=2.5, p99_allowed=0.25, padding_delta_allowed=0.5)
    section = make_export(dtype="fp16", gate=gate)
    shown = words_of(render.render(make_record("export", export=section), verbose=True))
    assert "n = 408 pairs per row, 12 if joined" in shown
    assert "8 joined, 10 to 1024 tokens" in shown
    assert "p99 |Δlogit| 0.020 standard deviations of the logits; 0.1 is allowed" in shown
    assert "other padding tokens move a logit by 1.25e-01; 5.00e-01 is allowed" in shown
    older = words_of(render.render(make_record("export")))
    assert "n = 408 pairs per row" in older
    assert "standard deviations" not in older


def test_a_failed_export_shows_the_reason() -> None:
    failed = make_gate(verdict=Verdict(outcome="REGRESSION", reason="3 of 408 labels flip; 0 may"))
    shown = words_of(render.render(make_record("export", export=make_export(gate=failed))))
    assert "Export gate" in shown
    assert "REGRESSION: 3 of 408 labels flip; 0 may" in shown
    assert "PASS" not in shown


def test_a_graph_whose_logits_differ_too_much_is_not_called_safe_because_of_its_margin() -> None:
    assert "margin / error 5000.0 (no label can change: above 2)" in words_of(render.render(make_record("export")))
    verdict = Verdict(outcome="REGRESSION", reason="a logit differs by 2.21e-03; 1e-03 is allowed")
    failed = make_export(optimize="o3", gate=make_gate(verdict=verdict))
    shown = words_of(render.render(make_record("export", export=failed)))
    assert "no label can change: above 2, but the logits differ by more than is allowed" in shown


def test_a_graph_for_a_gpu_that_was_verified_on_the_cpu_has_a_note() -> None:
    said = "This graph is for a GPU but was verified on the CPU"
    section = make_export(optimize="cuda", dtype="fp16")
    assert said in words_of(render.render(make_record("export", export=section)))
    there = replace(section, placement=replace(section.placement, device="cuda NVIDIA H200"))
    assert said not in words_of(render.render(make_record("export", export=there)))
    assert said not in words_of(render.render(make_record("export")))


def test_the_export_gates_table_keeps_all_its_columns_on_80() -> None:
    (shown,) = [
        part
        for part in export(make_record("export", export=make_export(gate=wide_gate())), verbose=True)
        if isinstance(part, PlainTable) and str(part.title) == "Export gate"
    ]
    console = Console(width=80, record=True, file=StringIO())
    console.print(shown)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["32", "to", "the", "longest,", "sorted", "by", "length", "0", "2.50e-06", "1.50e-06", "10807"] in lines


def wide_gate() -> ExportGate:
    """A gate with the widest cells."""
    trial = replace(
        make_gate().trials[0], batch_size=32, padding="to the longest, sorted by length", padding_tokens=10_807
    )
    return make_gate(trials=(trial,))


def test_an_unfinished_export_shows_no_verdict() -> None:
    shown = words_of(render.render(make_record("export", complete=False, export=make_export(gate=None))))
    assert "1834 nodes" in shown
    assert "not verified yet" in shown
    assert "verdict" not in shown


def test_equal_logits_and_non_finite_logits_have_no_margin() -> None:
    trials = make_gate().trials
    equal = make_gate(headroom=None, trials=tuple(replace(trial, max_abs_delta=0.0) for trial in trials))
    assert "margin / error none: no logit differs" in words_of(
        render.render(make_record("export", export=make_export(gate=equal)))
    )
    broken = make_gate(
        headroom=None,
        trials=tuple(replace(trial, max_abs_delta=None, p99_abs_delta=None) for trial in trials),
        verdict=Verdict(outcome="REGRESSION", reason="a logit is not finite"),
    )
    shown = words_of(render.render(make_record("export", export=make_export(gate=broken))))
    assert "8 longest pair 0 not finite not finite 91" in shown
    assert "no logit differs" not in shown


# --- what is no record ------------------------------------------------------------------------------------------------


def test_the_environment_shows_what_works_and_each_reason_once() -> None:
    no_gpu = "torch is a CPU build"
    places = [
        (f"{name} on {device}", no_gpu if device == "cuda" else None) for name in "ab" for device in ("cpu", "cuda")
    ]
    shown = words_of(render.environment(EnvironmentReport(environment=ENVIRONMENT, problems=tuple(places))))
    for part in ("engine on cpu on cuda", " a yes no ", " b yes no ", "GPU none", "transformers 4.57.6"):
        assert part in shown, part
    assert shown.count(f"cuda {no_gpu}") == shown.count(no_gpu) == 1
    places[3] = ("b on cuda", None)
    shown = words_of(render.environment(EnvironmentReport(environment=ENVIRONMENT, problems=tuple(places))))
    assert f"a on cuda {no_gpu}" in shown
    on_gpu = replace(ENVIRONMENT, gpu="NVIDIA H200", gpu_driver="570.1", cuda="12.8", git_dirty=True)
    shown = words_of(render.environment(EnvironmentReport(environment=on_gpu, problems=())))
    assert "Problems" not in shown
    assert "NVIDIA H200, driver 570.1, CUDA 12.8" in shown
    assert "commit 0123456789ab (changed)" in shown


@pytest.mark.parametrize("place", ["[libcudart.so.12]", "[/usr/lib/libcudart.so]", "provider.cc:100:"])
def test_a_problem_is_shown_word_for_word(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    problem = f"cannot load {place} no such file"
    report = EnvironmentReport(environment=ENVIRONMENT, problems=(("torch on cuda", None), ("onnx on cuda", problem)))
    Terminal().environment(report, as_json=False)
    assert f"onnx on cuda {problem}" in words_in(capsys.readouterr().out)


@pytest.mark.parametrize("weights", ["fine-tuned", "random-init"])
def test_the_answer_for_a_pair_names_the_model_and_the_probability(weights: str) -> None:
    found = PairAnswer(
        sentence1="It rains.",
        sentence2="Rain falls.",
        label=1,
        label_name="equivalent",
        probability=0.87654,
        logits=(-0.5, 1.4597),
        weights=weights,
        placement=TORCH,
    )
    assert words_of(render.pair_answer(found)) == (
        "equivalent with probability 0.877 (logits -0.5000 +1.4597; "
        f"{weights} weights, torch 2.13.0 sdpa fp32 on cpu, 2 threads)"
    )
