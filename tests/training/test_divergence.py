"""What is not finite is found where it arises, and named."""

import math

import numpy as np
import pytest
import torch

from mrpcbench.errors import MrpcbenchError
from mrpcbench.training.divergence import DivergenceGuard, check_logits, check_weights

GOOD, BAD = torch.tensor(1.0), torch.tensor(math.inf)


def test_the_error_for_a_bad_loss_names_step_and_pairs() -> None:
    guard = DivergenceGuard()
    guard.loss(1, torch.tensor([4, 2]), GOOD)
    with pytest.raises(MrpcbenchError, match=r"step 2: the loss is inf \(training pairs 7, 3\)"):
        guard.loss(2, np.array([7, 3]), BAD)


def test_the_error_for_a_bad_gradient_norm_names_all_pairs_of_the_step() -> None:
    guard = DivergenceGuard()
    for step, rows in ((1, [0]), (2, [1, 2]), (2, [3, 4, 5])):
        guard.loss(step, torch.tensor(rows), GOOD)
    guard.gradient_norm(2, GOOD)
    with pytest.raises(MrpcbenchError, match=r"step 2: the gradient norm is inf \(training pairs 1, 2, 3, 4, 5\)"):
        guard.gradient_norm(2, BAD)


def test_the_error_names_a_bad_weight_or_logit() -> None:
    check_weights([("whole", torch.ones(2)), ("empty", torch.ones(0))], 3)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(MrpcbenchError, match="step 3: the weight broken is not finite"):
            check_weights([("whole", torch.ones(2)), ("broken", torch.tensor([1.0, value, 2.0]))], 3)
    logits = np.zeros((9, 2), dtype=np.float32)
    check_logits(logits, 5)
    logits[[2, 8], 1] = math.nan
    with pytest.raises(MrpcbenchError, match=r"step 5: 2 of 9 validation pairs .* \(pairs 2, 8\)"):
        check_logits(logits, 5)
