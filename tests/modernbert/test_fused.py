"""The Triton kernels, compared with torch's operators: on a GPU, and in Triton's interpreter without one."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from packed_models import LABELS, difference, made
from packed_models import LENGTHS as REAL_LENGTHS
from transformers import ModernBertConfig

from mrpcbench import modernbert
from mrpcbench.modernbert import forward
from mrpcbench.modernbert.operators import Affine, Operators
from mrpcbench.modernbert.packing import Resident, pack
from mrpcbench.training.packed_step import Labelled, PackedAdamW, PackedStep

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
LENGTHS = REAL_LENGTHS // 19 if INTERPRETED else REAL_LENGTHS  # the interpreter takes milliseconds for each token


needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed; it comes with torch for CUDA"
)


@needs_triton
def test_a_small_gate_is_right_in_tritons_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel reads the variable when it is defined, so the modules are imported again, and forgotten afterwards."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(sys.modules[__name__], "DEVICE", torch.device("cpu"))
    for name in ("triton_kernels", "fused"):
        monkeypatch.setattr(modernbert, name, None, raising=False)
        monkeypatch.setitem(sys.modules, f"{modernbert.__name__}.{name}", None)
        delattr(modernbert, name)
        del sys.modules[f"{modernbert.__name__}.{name}"]
    test_gated_states(torch.float32, 3, 24)


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreted run")
def test_all_kernels_are_right_in_tritons_interpreter() -> None:
    """The tests below, in a process of their own in which all kernels are interpreted."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "gpu", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


# --- each operator ----------------------------------------------------------------------------------------------------

Compute = Callable[..., tuple[torch.Tensor, ...]]

in_both = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# Tokens, hidden size, heads.
SIZES = [(1, 96, 3), (53, 768, 12), (2090, 768, 12), (130, 96, 3), (7, 80, 5)]
sizes = pytest.mark.parametrize(("tokens", "hidden", "heads"), SIZES if not INTERPRETED else [(1, 768, 12), (5, 80, 5)])


def fused() -> type[Operators]:
    from mrpcbench.modernbert.fused import FusedOperators

    return FusedOperators


def operators(kind: type[Operators], dtype: torch.dtype, tokens: int, hidden: int, heads: int) -> Operators:
    """Operators for `tokens` at positions that repeat, in a model of these sizes."""
    config = ModernBertConfig(hidden_size=hidden, num_attention_heads=heads, max_position_embeddings=64)
    positions = (torch.arange(tokens, device=DEVICE) * 7 + 5) % 61
    # The fused kernels also read a table in half precision, so both sides have its values.
    table = forward.rotary_table(config, DEVICE, dtype)
    return kind(config, positions, table)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (1.5 * torch.randn(shape, device=DEVICE) + 0.2).to(dtype)


def assert_equal(compute: Compute, dtype: torch.dtype, model: tuple[int, int, int], *inputs: torch.Tensor) -> None:
    """Compare results and gradients of the fused operators in `dtype` with those of torch's in float32."""
    limit = 2e-6 if dtype == torch.float32 else 8e-3
    sides = []
    for kind, exact in ((fused(), False), (Operators, True)):
        given = [(one.float() if exact else one).clone().requires_grad_() for one in inputs]
        between = operators(kind, torch.float32 if exact else dtype, *model)
        found = compute(between, *given)
        torch.manual_seed(1)
        loss = sum((one.float() * drawn(*one.shape, dtype=dtype).float()).sum() for one in found)
        gradients = torch.autograd.grad(loss, given)  # type: ignore[arg-type]
        assert [one.dtype for one in gradients] == [one.dtype for one in given]
        with torch.no_grad():
            again = compute(between, *[one.clone() for one in given])
        sides.append([*found, *gradients, *again])
    for place, (one, other) in enumerate(zip(*sides, strict=True)):
        assert difference(one.float(), other) < limit, place


@pytest.mark.gpu
@in_both
@sizes
@pytest.mark.parametrize("local", [False, True])
def test_rotated_query_key_and_value(dtype: torch.dtype, tokens: int, hidden: int, heads: int, local: bool) -> None:
    torch.manual_seed(0)
    given = drawn(tokens, 3 * hidden, dtype=dtype)

    def compute(between: Operators, mapped: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.cat(between.rotated(mapped, local), dim=1),)

    assert_equal(compute, dtype, (tokens, hidden, heads), given)


@pytest.mark.gpu
@in_both
@pytest.mark.parametrize(("tokens", "width"), [(1, 24), (53, 1152), (9, 129)])
def test_gated_states(dtype: torch.dtype, tokens: int, width: int) -> None:
    torch.manual_seed(0)
    given = 2 * drawn(tokens, 2 * width, dtype=dtype)
    assert_equal(lambda between, mapped: (between.gated(mapped),), dtype, (tokens, 96, 3), given)


@pytest.mark.gpu
def test_the_gates_function_is_exact_in_its_tails() -> None:
    values = torch.linspace(-12, 12, 4001, device=DEVICE)
    given = torch.stack((values, torch.ones_like(values)), dim=1)
    found = operators(fused(), torch.float32, 1, 96, 3).gated(given).flatten()
    torch.testing.assert_close(found, torch.nn.functional.gelu(values), rtol=0, atol=1e-6)


@pytest.mark.gpu
@in_both
@sizes
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_added_and_normed_states(
    dtype: torch.dtype, tokens: int, hidden: int, heads: int, biased: bool, mixed: bool
) -> None:
    torch.manual_seed(0)
    norms = torch.float32 if mixed else dtype
    inner, linear = drawn(tokens, 24, dtype=dtype), drawn(hidden, 24, dtype=dtype) / 5
    rest = [drawn(tokens, hidden, dtype=norms), *(drawn(hidden, dtype=norms) for _ in range(1 + biased))]

    def compute(between: Operators, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inner, linear, states, weight, *bias = given
        norm = Affine(weight, bias[0] if bias else None)
        return between.added_norm(states, inner, Affine(linear, None), norm)

    assert_equal(compute, dtype, (tokens, hidden, heads), inner, linear, *rest)


@pytest.mark.gpu
def test_gradients_of_the_norms_weights_add_up_over_several_rows_per_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from mrpcbench.modernbert import fused as module

    monkeypatch.setattr(module, "MOST_PARTS", 8)
    test_added_and_normed_states(torch.float32, 21, 96, 3, biased=True, mixed=False)


# --- the whole forward ------------------------------------------------------------------------------------------------

natively = pytest.mark.skipif(INTERPRETED, reason="the interpreter would take minutes")
EVERY_BIAS = {"norm_bias": True, "attention_bias": True, "mlp_bias": True}


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, EVERY_BIAS, {"hidden_activation": "silu"}], ids=["gelu", "biases", "silu"])
def test_logits_and_gradients_of_a_model(changes: dict[str, Any]) -> None:
    net = made(num_hidden_layers=2, **changes).to(DEVICE)  # type: ignore[arg-type]
    given = pack(np.random.default_rng(0).integers(3, 200, LENGTHS.sum()), LENGTHS).to(DEVICE)
    weights, table = dict(net.named_parameters()), forward.rotary_table(net.config, DEVICE, torch.float32)
    sides = []
    for kind in (fused(), Operators):
        found = forward.logits(weights, net.config, given, table, operators=kind)
        loss = torch.nn.functional.cross_entropy(found, LABELS.to(DEVICE))
        with torch.inference_mode():
            again = forward.logits(weights, net.config, given, table, operators=kind)
        sides.append([found, *torch.autograd.grad(loss, list(weights.values())), again])
    for name, one, other in zip(["logits", *weights, "inference"], *sides, strict=True):
        assert difference(one, other) < 1e-4, name


@pytest.mark.gpu
@natively
def test_bf16_logits_are_as_close_to_float32_as_torchs_operators() -> None:
    net = made(num_hidden_layers=10).to(DEVICE)  # type: ignore[arg-type]
    given = pack(np.random.default_rng(0).integers(3, 200, LENGTHS.sum()), LENGTHS).to(DEVICE)

    def computed(dtype: torch.dtype, kind: type[Operators]) -> torch.Tensor:
        weights = {name: weight.detach().to(dtype) for name, weight in net.named_parameters()}
        table = forward.rotary_table(net.config, DEVICE, dtype)
        with torch.inference_mode():
            return forward.logits(weights, net.config, given, table, operators=kind).float()

    exact = computed(torch.float32, Operators)
    ours, torchs = (difference(computed(torch.bfloat16, kind), exact) for kind in (fused(), Operators))
    assert 1e-4 < ours < 1.2 * torchs


@pytest.mark.gpu
@natively
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.bfloat16, 5e-2)])
def test_training_steps_have_the_losses_of_torchs_operators(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, limit: float
) -> None:
    chance = np.random.default_rng(0)
    sequences = [chance.integers(3, 200, length) for length in LENGTHS]
    losses = []
    for kind in (fused(), Operators):
        monkeypatch.setattr(forward, "operators_for", lambda device, kind=kind: kind)
        net = made(num_hidden_layers=2).to(DEVICE)  # type: ignore[arg-type]
        step = PackedStep(net, Labelled(Resident(sequences, DEVICE), LABELS.numpy(), DEVICE), dtype)
        optimiser = PackedAdamW(list(step.masters.values()), lr=1e-3)
        optimiser.attach(step, 1.0)
        found = []
        for start in range(20):
            found.append(float(step.backward(np.array([start % 5, (start + 2) % 5]))))
            optimiser.step()
        losses.append(found)
    np.testing.assert_allclose(*losses, rtol=limit)
