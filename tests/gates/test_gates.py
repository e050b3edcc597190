"""Tests of the gates on hand-counted cases: just failing, just passing, and never passing."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from records import make_epoch, make_export, make_gate, make_score, make_train

from mrpcbench.gates.accuracy import ScoredPredictions, judge_evaluate
from mrpcbench.gates.export import export_problem, judge_export
from mrpcbench.gates.policy import AccuracyPolicy, F1Policy, Policy
from mrpcbench.gates.seeds import judge_train
from mrpcbench.records.figures import best_epoch
from mrpcbench.schema.requests import TrainRecipe
from mrpcbench.schema.results import ExportGate, TrainSection
from mrpcbench.schema.verdicts import Interval, MetricResult, Verdict, overall
from mrpcbench.statistics import permutation_p

DEFAULT = Policy()
PAIRS = 408


def named(metrics: Sequence[MetricResult]) -> dict[str, MetricResult]:
    found = {metric.metric: metric for metric in metrics}
    assert len(found) == len(metrics)
    return found


# --- evaluate ---------------------------------------------------------------------------------------------------------


def answered(wrong: range, pairs: int = PAIRS, **changes: Any) -> ScoredPredictions:
    """Two of three labels are 1, and the predictions in `wrong` are wrong; the score is arbitrary."""
    labels = tuple(int(index % 3 > 0) for index in range(pairs))
    predictions = tuple(1 - label if index in wrong else label for index, label in enumerate(labels))
    return ScoredPredictions(score=make_score(pairs=pairs, **changes), labels=labels, predictions=predictions)


def judged(gains: int, losses: int, policy: Policy = DEFAULT, pairs: int = PAIRS) -> dict[str, MetricResult]:
    """Ten pairs are wrong on both sides, `gains` on the baseline alone and `losses` on the current side alone."""
    return named(
        judge_evaluate(
            answered(range(10 + gains), pairs),
            ScoredPredictions(
                score=make_score(pairs=pairs),
                labels=answered(range(0), pairs).labels,
                predictions=tuple(
                    1 - label if index < 10 or 10 + gains <= index < 10 + gains + losses else label
                    for index, label in enumerate(answered(range(0), pairs).labels)
                ),
            ),
            policy,
        )
    )


@pytest.mark.parametrize(("gains", "losses"), [(0, 5), (4, 12), (8, 18)])
def test_of_408_pairs_so_many_losses_fail_and_one_fewer_passes(gains: int, losses: int) -> None:
    accuracy = judged(gains, losses)["accuracy"]
    assert accuracy.gated
    assert accuracy.verdict.outcome == "REGRESSION"
    assert accuracy.verdict.reason.startswith(f"{losses} of 408 pairs lost and {gains} gained, p 0.0")
    assert judged(gains, losses - 1)["accuracy"].verdict.outcome == "PASS"


def test_five_losses_and_no_gain_are_reported_with_effect_p_interval_and_limit() -> None:
    accuracy = judged(0, 5)["accuracy"]
    assert accuracy.p_value == accuracy.adjusted_p == 1 / 32
    assert accuracy.change == pytest.approx(-5 / 408 * 100)
    assert accuracy.change_unit == "points"
    assert accuracy.test == "exact McNemar"
    assert accuracy.limit == "net loss of 1 points or more, p < 0.05"
    assert accuracy.interval is not None
    assert accuracy.interval.level == pytest.approx(0.9)
    assert accuracy.interval.low < -5 / 408 * 100 < accuracy.interval.high < 0


def test_a_significant_but_small_loss_passes() -> None:
    """7 of 1,000 pairs lost and none gained: p is 1/128, and the net loss 0.7 points."""
    accuracy = judged(0, 7, pairs=1000)["accuracy"]
    assert accuracy.p_value == 1 / 128
    assert accuracy.verdict.outcome == "PASS"
    half_a_point = Policy(accuracy=AccuracyPolicy(net_loss=0.005))
    assert judged(0, 7, half_a_point, pairs=1000)["accuracy"].verdict.outcome == "REGRESSION"


def test_a_loss_of_exactly_the_threshold_fails_and_a_p_of_exactly_alpha_does_not() -> None:
    """Five losses and no gain have a p of 1/32; of 500 pairs they are one point. Four losses have 1/16."""
    assert judged(0, 5, pairs=500)["accuracy"].verdict.outcome == "REGRESSION"
    assert judged(0, 5, pairs=501)["accuracy"].verdict.outcome == "PASS"
    assert judged(0, 5, Policy(alpha=1 / 32))["accuracy"].verdict.outcome == "PASS"
    assert judged(0, 6, Policy(alpha=1 / 32))["accuracy"].verdict.outcome == "REGRESSION"
    assert judged(0, 4, pairs=14)["accuracy"].verdict.outcome == "PASS"


def test_equal_answers_never_fail() -> None:
    found = judged(0, 0, Policy(f1=F1Policy(gate=True), accuracy=AccuracyPolicy(net_loss=0)))
    assert found["accuracy"].verdict.outcome == found["f1"].verdict.outcome == "PASS"
    assert found["accuracy"].p_value == found["accuracy"].adjusted_p == 1
    assert found["accuracy"].change == found["f1"].change == 0
    interval = found["f1"].interval
    assert interval is not None
    assert interval.low == interval.high == 0


def test_a_gain_is_not_a_loss() -> None:
    found = judged(30, 0, Policy(f1=F1Policy(gate=True)))
    assert found["accuracy"].verdict.outcome == found["f1"].verdict.outcome == "PASS"
    assert found["accuracy"].change == pytest.approx(30 / 408 * 100)


def test_a_second_gated_metric_halves_the_level_of_each() -> None:
    """Five losses have p 1/32, which is not below 0.025; six have 1/64, which is."""
    both = Policy(f1=F1Policy(gate=True))
    five, six = judged(0, 5, both), judged(0, 6, both)
    assert five["accuracy"].adjusted_p == 2 / 32
    assert five["accuracy"].verdict.outcome == "PASS"
    assert six["accuracy"].verdict.outcome == "REGRESSION"
    for metric in five.values():
        assert metric.interval is None or metric.interval.level == pytest.approx(0.95)
    assert all(metric.interval is None or metric.interval.level == 0.9 for metric in judged(0, 5).values())


def test_f1_fails_if_its_interval_is_entirely_below_the_limit_and_is_information_by_default() -> None:
    gated = Policy(f1=F1Policy(gate=True, net_loss=0.01))
    assert not judged(0, 40)["f1"].gated
    found = judged(0, 40, gated)["f1"]
    assert found.gated
    assert found.verdict.outcome == "REGRESSION"
    assert found.interval is not None
    assert found.interval.high < -1
    assert judged(0, 8, gated)["f1"].verdict.outcome == "PASS"  # some of the interval is a smaller loss
    assert judged(0, 40, Policy(f1=F1Policy(gate=True, net_loss=0.2)))["f1"].verdict.outcome == "PASS"


def test_an_ungated_accuracy_is_judged_but_does_not_decide() -> None:
    accuracy = judged(0, 40, Policy(accuracy=AccuracyPolicy(gate=False)))["accuracy"]
    assert not accuracy.gated
    assert accuracy.verdict.outcome == "REGRESSION"
    found = judged(0, 40, Policy(accuracy=AccuracyPolicy(gate=False))).values()
    assert overall([], list(found)).outcome == "INCONCLUSIVE"


def test_with_a_margin_only_a_result_that_rules_out_the_loss_passes() -> None:
    """Without any flip the loss is at most z^2 / (408 + z^2) = 0.66 points at 95%."""

    def verdict(gains: int, losses: int, margin: float) -> str:
        return judged(gains, losses, Policy(accuracy=AccuracyPolicy(margin=margin)))["accuracy"].verdict.outcome

    assert verdict(0, 0, 0.007) == "PASS"
    assert verdict(0, 0, 0.006) == "INCONCLUSIVE"
    assert verdict(0, 4, 0.02) == "INCONCLUSIVE"  # 0.98 points were lost, but up to 2 are possible
    assert verdict(0, 4, 0.05) == "PASS"
    assert verdict(0, 5, 0.05) == "REGRESSION"


def test_with_a_margin_the_limit_mentions_it() -> None:
    accuracy = judged(0, 0, Policy(accuracy=AccuracyPolicy(margin=0.02)))["accuracy"]
    assert accuracy.limit == "net loss of 1 points or more, p < 0.05; passes if 2 points are ruled out"
    assert accuracy.test == "exact McNemar, non-inferiority"
    assert accuracy.verdict.reason.endswith("the net loss may be up to 0.66 points")
    assert accuracy.interval is not None
    assert accuracy.interval.low == pytest.approx(-0.6588, abs=1e-4)


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_a_floor_fails_below_it_whatever_the_baseline(name: str) -> None:
    limits = {"accuracy": lambda floor: Policy(accuracy=AccuracyPolicy(gate=False, floor=floor))}
    limits["f1"] = lambda floor: Policy(f1=F1Policy(floor=floor))
    value = {"accuracy": 351 / 408, "f1": 506 / 563}[name]
    at, above = (judged(0, 0, limits[name](floor))[f"{name} floor"] for floor in (value, value + 1e-6))
    assert at.gated
    assert at.verdict.outcome == "PASS"
    assert above.verdict.outcome == "REGRESSION"
    assert above.current == value
    assert f"{name} floor" not in judged(0, 0)


def test_the_loss_is_information_and_null_if_it_was_not_finite() -> None:
    before, after = answered(range(10), loss=0.5), answered(range(10), loss=0.6)
    loss = named(judge_evaluate(before, after, DEFAULT))["loss"]
    assert (loss.gated, loss.baseline, loss.current, loss.unit) == (False, 0.5, 0.6, "nats")
    assert loss.change == pytest.approx(20)
    unknown = named(judge_evaluate(before, answered(range(10), loss=None), DEFAULT))["loss"]
    assert (unknown.current, unknown.change, unknown.verdict.outcome) == (None, None, "INCONCLUSIVE")


# --- train ------------------------------------------------------------------------------------------------------------


def runs(*accuracies: float, f1: float = 0.9) -> list[TrainSection]:
    """Runs whose best epoch, the first of two, has these accuracies."""
    return [
        make_train(
            recipe=TrainRecipe(seed=seed),
            best_step=115,
            epochs=(
                make_epoch(1, eval_accuracy_score=accuracy, eval_f1_score=f1),
                make_epoch(2, eval_accuracy_score=0.1, eval_f1_score=0.1),
            ),
        )
        for seed, accuracy in enumerate(accuracies)
    ]


GOOD = runs(0.85, 0.86, 0.87, 0.88)
BAD = runs(0.79, 0.80, 0.81, 0.82)


def test_the_score_of_a_run_is_that_of_the_saved_epoch() -> None:
    found = best_epoch(GOOD[0])
    assert found is not None
    assert found.eval_accuracy_score == 0.85
    assert best_epoch(replace(GOOD[0], best_step=None)) is None
    assert best_epoch(replace(GOOD[0], best_step=7)) is None
    with pytest.raises(ValueError, match="no best epoch"):
        judge_train(GOOD, [replace(GOOD[0], best_step=7)], DEFAULT)


def test_four_seeds_that_are_all_worse_than_four_fail() -> None:
    """One split of 70 is as bad."""
    accuracy = named(judge_train(GOOD, BAD, DEFAULT))["accuracy"]
    assert accuracy.gated
    assert accuracy.verdict.outcome == "REGRESSION"
    assert accuracy.p_value == accuracy.adjusted_p == 1 / 70
    assert (accuracy.baseline, accuracy.current) == (pytest.approx(0.865), pytest.approx(0.805))
    assert accuracy.change == pytest.approx(-6)
    assert accuracy.test == "permutation of 4 and 4 seeds"


def test_seeds_that_are_better_pass() -> None:
    accuracy = named(judge_train(BAD, GOOD, DEFAULT))["accuracy"]
    assert accuracy.verdict.outcome == "PASS"
    assert accuracy.p_value == 1
    assert accuracy.change == pytest.approx(6)


def test_a_significant_but_small_mean_loss_passes() -> None:
    before, after = runs(0.8600, 0.8601, 0.8602, 0.8603), runs(0.8550, 0.8551, 0.8552, 0.8553)
    accuracy = named(judge_train(before, after, DEFAULT))["accuracy"]
    assert accuracy.p_value == 1 / 70
    assert accuracy.verdict.outcome == "PASS"
    tight = Policy(accuracy=AccuracyPolicy(net_loss=0.004))
    assert named(judge_train(before, after, tight))["accuracy"].verdict.outcome == "REGRESSION"


def test_a_mean_loss_that_is_not_significant_passes() -> None:
    after = runs(0.80, 0.81, 0.88, 0.89)
    accuracy = named(judge_train(GOOD, after, DEFAULT))["accuracy"]
    assert accuracy.p_value is not None
    assert accuracy.p_value > 0.05
    assert accuracy.change is not None
    assert accuracy.change < -1
    assert accuracy.verdict.outcome == "PASS"


def test_three_seeds_per_side_cannot_reach_5_percent_and_never_pass() -> None:
    for before, after in ((GOOD[:3], BAD[:3]), (BAD[:3], GOOD[:3])):
        accuracy = named(judge_train(before, after, DEFAULT))["accuracy"]
        assert accuracy.gated
        assert accuracy.verdict.outcome == "INCONCLUSIVE"
        assert accuracy.verdict.reason == "3 and 3 seeds cannot reach p < 0.05 (at best 0.05); add records"
        assert accuracy.interval is None


def test_a_second_gated_metric_doubles_the_p_that_seeds_can_reach() -> None:
    """4 and 4 reach 1/70, and 2/70 for two metrics, which is above 2%."""
    both = Policy(alpha=0.02, f1=F1Policy(gate=True))
    one = Policy(alpha=0.02)
    assert named(judge_train(GOOD, BAD, one))["accuracy"].verdict.outcome == "REGRESSION"
    found = named(judge_train(GOOD, BAD, both))
    assert found["accuracy"].verdict.outcome == found["f1"].verdict.outcome == "INCONCLUSIVE"


def test_the_p_values_of_two_gated_metrics_are_corrected_by_holm() -> None:
    """Accuracy has 1/70, the smaller of two, and so counts double; F1, equal in all runs, has 1."""
    found = named(judge_train(GOOD, BAD, Policy(f1=F1Policy(gate=True))))
    assert found["accuracy"].adjusted_p == 2 / 70
    assert found["accuracy"].verdict.outcome == "REGRESSION"
    assert (found["f1"].adjusted_p, found["f1"].verdict.outcome) == (1, "PASS")


def test_the_interval_over_seeds_ends_where_the_test_starts_to_reject() -> None:
    interval = named(judge_train(GOOD, BAD, DEFAULT))["accuracy"].interval
    assert interval is not None
    assert interval.level == pytest.approx(0.9)
    before, after = [0.85, 0.86, 0.87, 0.88], [0.79, 0.80, 0.81, 0.82]
    assert interval.low < (fmean(after) - fmean(before)) * 100 < interval.high < 0

    def p_of(upper: list[float], lower: list[float], shift_points: float) -> float:
        return permutation_p(upper, [value - shift_points / 100 for value in lower])

    assert p_of(before, after, interval.high + 0.001) < 0.05 <= p_of(before, after, interval.high - 0.001)
    assert p_of(after, before, -interval.low + 0.001) < 0.05 <= p_of(after, before, -interval.low - 0.001)


def test_many_seeds_have_no_interval_because_it_would_take_too_long() -> None:
    before, after = (runs(*(base + seed / 1000 for seed in range(8))) for base in (0.86, 0.80))
    after = [replace(run, recipe=replace(run.recipe, seed=run.recipe.seed + 100)) for run in after]
    assert named(judge_train(before[:7], after[:7], DEFAULT))["accuracy"].interval is not None
    found = named(judge_train(before, after, DEFAULT))["accuracy"]
    assert found.interval is None
    assert found.verdict.outcome == "REGRESSION"


def test_one_seed_per_side_is_inconclusive_and_names_the_fix() -> None:
    found = judge_train(GOOD[:1], BAD[:1], DEFAULT)
    assert overall([], found).outcome == "INCONCLUSIVE"
    reason = named(found)["accuracy"].verdict.reason
    assert reason == "only one seed per side; give several records, or set a floor in the policy"


@pytest.mark.parametrize(("floor", "outcome"), [(0.79, "PASS"), (0.80, "REGRESSION")])
def test_one_seed_per_side_is_judged_only_by_its_floor(floor: float, outcome: str) -> None:
    found = judge_train(GOOD[:1], BAD[:1], Policy(accuracy=AccuracyPolicy(floor=floor), f1=F1Policy(gate=True)))
    assert [metric.metric for metric in found if metric.gated] == ["accuracy floor"]
    assert overall([], found).outcome == outcome


def test_several_seeds_must_all_be_above_the_floor_and_pass_the_test_too() -> None:
    floor = Policy(accuracy=AccuracyPolicy(floor=0.84))
    one_collapsed = runs(0.86, 0.87, 0.88, 0.70)
    assert named(judge_train(GOOD, one_collapsed, floor))["accuracy floor"].verdict.outcome == "REGRESSION"
    found = named(judge_train(GOOD, GOOD, floor))
    assert found["accuracy"].gated
    assert found["accuracy floor"].verdict.outcome == found["accuracy"].verdict.outcome == "PASS"


def test_the_loss_of_several_seeds_is_their_mean_and_null_if_one_has_none() -> None:
    broken = replace(GOOD[0], epochs=(make_epoch(1, eval_loss=None),))
    loss = named(judge_train(GOOD, [broken, *GOOD[1:]], DEFAULT))["loss"]
    assert (loss.baseline, loss.current, loss.gated) == (pytest.approx(0.361234), None, False)


# --- export -----------------------------------------------------------------------------------------------------------


def exported(gate: ExportGate | None) -> MetricResult:
    return judge_export(make_export(), make_export(gate=gate))[0]


def test_an_export_passes_only_if_its_gate_did() -> None:
    assert exported(make_gate()).gated
    assert exported(make_gate()).verdict == make_gate().verdict
    failed = make_gate(verdict=Verdict(outcome="REGRESSION", reason="3 of 408 labels flip; 0 may"))
    assert exported(failed).verdict == failed.verdict
    flips = replace(failed, trials=(replace(failed.trials[0], flips=3),))
    assert exported(flips).verdict == failed.verdict
    assert exported(None).verdict.outcome == "INCONCLUSIVE"


@pytest.mark.parametrize(
    "changes",
    [
        {"pairs": 0},
        {"trials": ()},
        {"trials": (replace(make_gate().trials[0], flips=1),)},
        {"trials": (make_gate().trials[0], replace(make_gate().trials[0], max_abs_delta=2e-3))},
        {"trials": (make_gate().trials[0], replace(make_gate().trials[0], max_abs_delta=None))},
    ],
    ids=["no pairs", "no trials", "a flip", "a large difference", "a logit that is not finite"],
)
def test_a_pass_that_its_trials_contradict_does_not_count(changes: dict[str, Any]) -> None:
    found = exported(make_gate(**changes)).verdict
    assert (found.outcome, found.reason) == (
        "INCONCLUSIVE",
        "the gate of the record is PASS, but its trials contradict it",
    )


def joined_gate(**changes: Any) -> ExportGate:
    """A half-precision gate with joined pairs and other padding, of logits with the standard deviation 2."""
    split = replace(make_gate().trials[0], max_abs_delta=0.3, p99_abs_delta=0.2)
    joined = replace(split, kind="joined", pairs=12, flips=3)
    padding = replace(joined, kind="padding", max_abs_delta=1e-5, p99_abs_delta=0.0)
    limits: dict[str, Any] = {"flips_allowed": 2, "delta_allowed": None, "logit_spread": 2.0, "p99_allowed": 0.2}
    return make_gate(trials=(split, joined, padding), padding_delta_allowed=1e-5, **limits | changes)


def test_a_half_precision_gate_judges_joined_pairs_by_their_logits_and_not_by_their_labels() -> None:
    gate = joined_gate()
    assert export_problem(gate) is None
    split, joined, padding = gate.trials
    for trials, reason in (
        ((split, replace(joined, p99_abs_delta=0.21), padding), "1% of the logits on joined pairs differ by 2.10e-01"),
        ((replace(split, p99_abs_delta=0.21), joined, padding), "1% of the logits differ by 2.10e-01"),
        ((split, joined, replace(padding, max_abs_delta=2e-5)), "other padding tokens move a logit by 2.00e-05"),
        ((split, joined, replace(padding, max_abs_delta=None)), "a logit is not finite"),
        ((replace(split, flips=3), joined, padding), "3 of 408 labels flip; 2 may"),
    ):
        assert reason in str(export_problem(replace(gate, trials=trials)))
        assert exported(replace(gate, trials=trials)).verdict.outcome == "INCONCLUSIVE"


def test_a_float32_gate_judges_labels_and_differences_of_joined_pairs() -> None:
    trial = make_gate().trials[0]
    for changes in ({"flips": 1}, {"max_abs_delta": 2e-3}):
        joined = replace(trial, kind="joined", pairs=12, **changes)
        assert export_problem(make_gate(trials=(trial, joined))) is not None
    padding = replace(trial, kind="padding", pairs=12, flips=1, max_abs_delta=2e-3)
    assert export_problem(make_gate(trials=(trial, padding))) is None  # without a limit, in an older record
    assert "1 of 12 labels flip on joined pairs; 0 may" in str(
        export_problem(make_gate(trials=(trial, replace(padding, kind="joined"))))
    )


def test_f1_is_judged_over_the_split_alone() -> None:
    allowed = Interval(low=0.85, high=0.91, level=0.95, method="percentile bootstrap")
    split, joined, padding = joined_gate().trials
    gate = joined_gate(f1_allowed=allowed)
    assert export_problem(replace(gate, trials=(replace(split, f1=0.88), joined, padding))) is None
    assert "F1 is unknown" in str(export_problem(gate))


def test_a_half_precision_gate_may_have_large_differences() -> None:
    gate = make_gate(flips_allowed=2, delta_allowed=None, trials=(replace(make_gate().trials[0], max_abs_delta=0.5),))
    assert exported(gate).verdict.outcome == "PASS"


@pytest.mark.parametrize(("f1", "outcome"), [(0.88, "PASS"), (0.79, "INCONCLUSIVE"), (None, "INCONCLUSIVE")])
def test_an_8_bit_gate_must_agree_with_its_f1(f1: float | None, outcome: str) -> None:
    trial = replace(make_gate().trials[0], flips=3, f1=f1)
    allowed = Interval(low=0.85, high=0.91, level=0.95, method="percentile bootstrap")
    gate = make_gate(flips_allowed=8, delta_allowed=None, f1_allowed=allowed, trials=(trial,))
    assert exported(gate).verdict.outcome == outcome


def test_the_figures_of_both_graphs_are_information() -> None:
    trial = make_gate().trials[0]
    current = make_export(
        gate=make_gate(trials=(trial, replace(trial, max_abs_delta=5e-6)), headroom=None),
        nodes=917,
        files={"model.onnx": 299_250_600},
    )
    found = named(judge_export(make_export(), current))
    assert {name for name, metric in found.items() if not metric.gated} == set(found) - {"export gate"}
    assert (found["export gate"].baseline, found["export gate"].current) == (0, 0)
    assert found["largest |delta|"].change == pytest.approx(100)
    assert (found["margin / error"].baseline, found["margin / error"].current, found["margin / error"].change) == (
        5000,
        None,
        None,
    )
    assert found["file size"].change == pytest.approx(-50)
    assert found["nodes"].change == pytest.approx(-50)


def test_a_baseline_without_a_gate_has_no_figures_and_changes_no_verdict() -> None:
    found = named(judge_export(make_export(gate=None), make_export()))
    assert found["export gate"].verdict.outcome == "PASS"
    assert (
        found["export gate"].baseline is found["largest |delta|"].baseline is found["margin / error"].baseline is None
    )
