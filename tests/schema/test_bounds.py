"""Tests of mrpcbench.schema.fields.check: numbers that no library can use are usage errors."""

import pytest

from mrpcbench.errors import UsageError
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.fields import check
from mrpcbench.schema.requests import EvaluatePlan, TrainRecipe


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (TrainRecipe(learning_rate=float("nan")), "--learning-rate nan"),
        (TrainRecipe(weight_decay=1e31), "--weight-decay 1e+31"),
        (TrainRecipe(max_steps=-(2**31)), "--max-steps -2147483648"),
        (EvaluatePlan(batch_size=2**31), "--batch-size 2147483648"),
        (BenchPlan(batch_size=(8, 10**30)), "--batch-size 10000000000"),
    ],
)
def test_a_number_beyond_what_libraries_take_is_named_with_its_option(request_: object, option: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(request_)
    assert str(refused.value).startswith(option)


def test_the_largest_numbers_are_taken() -> None:
    check(TrainRecipe(seed=2**31 - 1, weight_decay=1e30))
