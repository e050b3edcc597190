"""What several seeds show: exact coverage, exact tests, and no winner where none can be shown."""

import math
import random
import re
from dataclasses import replace
from itertools import product
from statistics import fmean

import pytest
from conftest import REPOSITORY
from records import balanced_data, make_study

from mrpcbench.display.study import answers
from mrpcbench.records import store
from mrpcbench.records.seeds import (
    median_order_interval,
    sign_flip_p,
    sign_flip_smallest_p,
    smallest_significant,
    summarised,
)
from mrpcbench.schema.records import StudyRecord


@pytest.mark.parametrize(("n", "level", "low", "high"), [(6, 0.96875, 0, 5), (5, 0.9375, 0, 4), (3, 0.75, 0, 2)])
def test_few_seeds_give_the_range_with_the_level_that_it_reaches(n: int, level: float, low: int, high: int) -> None:
    values = [0.1 * index for index in range(n)]
    random.Random(0).shuffle(values)
    found = median_order_interval(values)
    assert found.level == level
    assert (found.low, found.high) == (sorted(values)[low], sorted(values)[high])


def test_many_seeds_give_the_narrowest_interval_of_95_percent() -> None:
    found = median_order_interval(list(range(20)))
    assert (found.low, found.high) == (5, 14)  # the 6th and the 15th of 20: tables of the sign test
    assert found.level == pytest.approx(0.9586, abs=1e-4)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draw = random.Random(1)
    covered = sum(
        found.low <= math.log(2) <= found.high
        for found in (median_order_interval([draw.expovariate(1) for _ in range(6)]) for _ in range(4000))
    )
    assert covered / 4000 == pytest.approx(0.96875, abs=0.01)


def test_a_p_value_is_the_share_of_the_signs() -> None:
    differences = [0.3, -0.1, 0.25, 0.4, 0.15, 0.05]
    sums = [
        sum(sign * one for sign, one in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=6)
    ]
    observed = sum(differences)
    assert sign_flip_p(differences) == pytest.approx(fmean(abs(one) >= observed - 1e-12 for one in sums))
    assert sign_flip_p(differences, alternative="less") == pytest.approx(fmean(one <= observed + 1e-12 for one in sums))
    assert sign_flip_p([0.1] * 6) == sign_flip_smallest_p(6) == 0.03125
    assert sign_flip_p([0.0] * 6) == sign_flip_p([0.5]) == 1.0


def test_the_smallest_difference_is_where_the_test_becomes_significant() -> None:
    differences = [0.03, -0.01, 0.02, 0.04, 0.0, 0.01, 0.02, -0.02]
    smallest = smallest_significant(differences, 0.05)
    assert smallest is not None
    centred = [one - fmean(differences) for one in differences]
    assert sign_flip_p([one + smallest * 1.001 for one in centred]) < 0.05
    assert sign_flip_p([one + smallest * 0.98 for one in centred]) >= 0.05
    assert smallest_significant(differences[:5], 0.05) is None  # 2 / 2^5 is above 5%


def test_a_study_says_of_each_metric_what_its_seeds_show() -> None:
    (setting,) = make_study().settings
    found = {summary.metric: summary for summary in setting.summaries}
    accuracy = found["accuracy"]
    assert accuracy.seeds == (42, 43, 44, 45, 46, 47)
    assert accuracy.median == pytest.approx(0.855)
    assert (accuracy.smallest, accuracy.largest) == (0.50, 0.88)
    assert accuracy.majority == 0.5
    assert accuracy.at_or_below_majority == 1
    assert found["loss"].majority is found["loss"].at_or_below_majority is None


def test_the_committed_study_has_the_summary_of_its_trials_and_the_page_quotes_it() -> None:
    record = store.load_as(StudyRecord, REPOSITORY / "results" / "study-quickstart" / "study.json")
    assert record.complete
    assert summarised(record.study, record.data[1]) == record.study
    for trial in record.study.settings[0].trials:
        file = REPOSITORY / "results" / "study-quickstart" / trial.folder / "mrpcbench-train.json"
        assert store.load(file) == trial.record
    (line,) = answers(record)
    page = " ".join((REPOSITORY / "docs" / "train.md").read_text(encoding="utf-8").split())
    for part in re.findall(
        r"median accuracy [^,]*|\d of \d seeds at or below the majority class \([\d.]+\)", line.plain
    ):
        assert part in page


def test_settings_are_compared_by_the_seeds_that_they_share() -> None:
    scores = {"learning_rate=5e-05": (0.84, 0.85, 0.86, 0.87, 0.85, 0.88), "learning_rate=8e-05": (0.85, 0.86, 0.88)}
    found = {one.metric: one for one in make_study(scores).comparisons}
    assert found["accuracy"].seeds == (42, 43, 44)
    assert found["accuracy"].difference == pytest.approx(0.04 / 3)
    assert (found["accuracy"].p_value, found["accuracy"].smallest_p) == (0.25, 0.25)
    assert found["accuracy"].smallest_difference is None


def test_pairs_of_settings_are_corrected_within_a_metric() -> None:
    scores = {
        name: tuple(0.8 + step + seed / 100 for seed in range(6)) for name, step in (("a", 0), ("b", 0.01), ("c", 0.03))
    }
    accuracy = [one for one in make_study(scores).comparisons if one.metric == "accuracy"]
    assert [(one.a, one.b) for one in accuracy] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [one.p_value for one in accuracy] == [0.03125] * 3
    assert [one.adjusted_p for one in accuracy] == [0.09375] * 3


def test_a_trial_without_a_record_is_left_out() -> None:
    section = make_study()
    (setting,) = section.settings
    broken = replace(setting, trials=(replace(setting.trials[0], record=None), *setting.trials[1:]))
    (found,) = summarised(replace(section, settings=(broken,)), balanced_data()).settings
    assert found.summaries[0].seeds == (43, 44, 45, 46, 47)
    assert found.summaries[0].median_interval is not None
    assert found.summaries[0].median_interval.level == 0.9375
