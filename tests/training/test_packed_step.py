"""The packed step: batches by index, gradients, captures, and AdamW on the master weights."""

from typing import Any

import numpy as np
import pytest
import torch
from captures import Capturer
from numpy.typing import NDArray
from packed_models import LABELS, LENGTHS, difference, gradients, made, theirs
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ModernBertForSequenceClassification

from mrpcbench.data import loading
from mrpcbench.models.sources import ModelSource
from mrpcbench.modernbert.packing import Resident, Shape, pack, shape_for
from mrpcbench.training.packed_step import Labelled, PackedAdamW, PackedStep

CPU = torch.device("cpu")
PAIRS = 12


@pytest.fixture(scope="module")
def sequences() -> list[NDArray[np.int64]]:
    """Twelve, the first five of `LENGTHS`."""
    chance = np.random.default_rng(0)
    return [chance.integers(3, 200, length) for length in (*LENGTHS, 9, 30, 66, 40, 77, 21, 64)]


@pytest.fixture
def labelled(sequences: list[NDArray[np.int64]]) -> Labelled:
    labels = np.resize(LABELS.numpy(), PAIRS)
    return Labelled(Resident(sequences, CPU, filler=0), labels, CPU)


def small() -> ModernBertForSequenceClassification:
    return made(num_hidden_layers=4)


def given(*rows: int) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


# --- batches by number ------------------------------------------------------------------------------------------------


def test_packing_on_the_device_equals_packing_on_the_host(sequences: list[NDArray[np.int64]]) -> None:
    resident = Resident(sequences, CPU, filler=7)
    for rows in ((0,), (3, 1, 4), (11, 0, 5, 2, 7)):
        ids, lengths = np.concatenate([sequences[row] for row in rows]), np.array([len(sequences[row]) for row in rows])
        for windowless in (None, 65):
            shape = resident.shape(given(*rows), windowless)
            chosen = None if windowless is None else shape_for(lengths, windowless)
            wanted = pack(ids, lengths, shape=chosen, filler=7)
            assert shape == wanted.shape
            padded = torch.full((shape.segments,), -1)
            padded[: len(rows)] = torch.tensor(rows)
            found = resident.pack(padded, shape)
            for name in ("ids", "positions", "segments", "lengths", "starts"):
                assert getattr(found, name).tolist() == getattr(wanted, name).tolist(), (rows, windowless, name)


def test_an_epoch_of_real_mrpc_has_few_shapes_and_little_filler(modernbert_dir, mrpc_dir) -> None:  # type: ignore[no-untyped-def]
    pairs = loading.split_of(loading.load(str(mrpc_dir)), str(mrpc_dir), "train")
    lengths = np.array(ModelSource("modernbert", modernbert_dir).reader.encode(pairs).lengths)
    order = np.random.default_rng(0).permutation(len(lengths))
    cut = [lengths[order[start : start + 32]] for start in range(0, len(order), 32)]
    shapes = [shape_for(batch, 65) for batch in cut]
    assert len(set(shapes)) <= 8
    assert sum(shape.tokens for shape in shapes) <= 1.05 * lengths.sum()


# --- loss and gradients -----------------------------------------------------------------------------------------------


def their_gradients(
    net: ModernBertForSequenceClassification, sequences: list[NDArray[np.int64]]
) -> dict[str, torch.Tensor]:
    """Hugging Face's, of the first five pairs."""
    mask = (np.arange(LENGTHS.max()) < LENGTHS[:, None]).astype(np.int64)
    ids = np.zeros_like(mask)
    for line, sequence in zip(ids, sequences[:5], strict=True):
        line[: len(sequence)] = sequence
    return gradients(net, theirs(net, (ids, mask)))


@pytest.mark.parametrize("capture", [None, Capturer()], ids=["eager", "captured"])
def test_loss_and_gradients_are_hugging_faces(
    labelled: Labelled, sequences: list[NDArray[np.int64]], capture: Capturer | None
) -> None:
    net = small()
    wanted = their_gradients(net, sequences)
    step = PackedStep(net, labelled, torch.float32, capture=capture)  # type: ignore[arg-type]
    step.backward(given(4, 3, 2, 1, 10))  # another batch of the same shape is what is captured
    step.backward(given(0, 1, 2, 3, 4))
    for name, gradient in zip(step.masters, step.gradients, strict=True):
        assert difference(gradient, wanted[name]) < 1e-5, name
    assert capture is None or capture.made == 1


def test_the_loss_is_the_mean_over_the_real_pairs_times_its_scale(labelled: Labelled) -> None:
    net = small()
    plain, filled = (PackedStep(net, labelled, torch.float32, capture=kind) for kind in (None, Capturer()))  # type: ignore[arg-type]
    rows = given(5, 6, 7)
    logits, labels = plain.logits(labelled, rows)
    wanted = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(plain.backward(rows), wanted)
    torch.testing.assert_close(filled.backward(rows, scale=0.25), wanted / 4)


@pytest.mark.parametrize("captured", [False, True])
def test_gradients_add_up_over_batches_even_while_capturing(labelled: Labelled, captured: bool) -> None:
    net = small()
    whole = PackedStep(net, labelled, torch.float32)
    whole.backward(given(0, 1, 2, 3))
    parts = PackedStep(net, labelled, torch.float32, capture=Capturer() if captured else None, accumulates=True)  # type: ignore[arg-type]
    for _ in range(2):
        parts.backward(given(0, 1), scale=0.5)
        parts.backward(given(2, 3), scale=0.5, adds=True)
        for name, one, other in zip(whole.masters, whole.gradients, parts.gradients, strict=True):
            assert difference(other, one) < 1e-5, name


def test_in_bf16_the_layers_are_copies_with_nearly_float32_gradients(labelled: Labelled) -> None:
    net = small()
    exact, half = (PackedStep(net, labelled, dtype) for dtype in (torch.float32, torch.bfloat16))
    for step in (exact, half):
        step.backward(given(0, 1, 2, 3, 4))
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}
    worst = max(difference(one, other) for one, other in zip(half.gradients, exact.gradients, strict=True))
    assert 1e-5 < worst < 0.1  # not float32 by accident, and not wrong


# --- AdamW ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [None, Capturer], ids=["eager", "captured"])
@pytest.mark.parametrize("max_norm", [0.0, 0.1])
def test_the_optimiser_matches_torchs_adamw_at_each_learning_rate(
    labelled: Labelled, capture: type[Capturer] | None, max_norm: float
) -> None:
    options = {"lr": 0.0, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}
    theirs_net, ours_net = small(), small()
    step = PackedStep(ours_net, labelled, torch.float32, capture=capture and capture())  # type: ignore[arg-type]
    ours = PackedAdamW(list(step.masters.values()), **options)
    ours.attach(step, max_norm)
    plain = torch.optim.AdamW(theirs_net.parameters(), **options)  # type: ignore[arg-type]
    for rate in (1e-2, 3e-3, 1e-3):
        step.backward(given(0, 1, 2, 3, 4))
        ours.param_groups[0]["lr"] = plain.param_groups[0]["lr"] = rate
        for weight, gradient in zip(theirs_net.parameters(), step.gradients, strict=True):
            weight.grad = gradient.clone()
        if max_norm:
            norm = torch.nn.utils.clip_grad_norm_(theirs_net.parameters(), max_norm)
        ours.step()
        plain.step()
        assert not max_norm or ours.gradient_norm == pytest.approx(norm)
    for one, other in zip(ours_net.parameters(), theirs_net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert all(state["step"] == 3 for state in ours.state.values())


@pytest.mark.parametrize("capture", [None, Capturer], ids=["eager", "captured"])
def test_the_computing_weights_follow_the_master_weights(labelled: Labelled, capture: type[Capturer] | None) -> None:
    net = small()
    step = PackedStep(net, labelled, torch.bfloat16, capture=capture and capture())  # type: ignore[arg-type]
    optimiser = PackedAdamW(list(step.masters.values()), lr=1e-2)
    optimiser.attach(step, 0.0)
    before = float(step.backward(given(0, 1, 2)))
    for _ in range(3):
        optimiser.step()
        step.backward(given(0, 1, 2))
    assert float(step.backward(given(0, 1, 2))) < before
    fresh = PackedStep(net, labelled, torch.bfloat16)
    # A captured step has another shape, and sums of bf16 values in another order differ.
    assert float(step.backward(given(3, 4))) == pytest.approx(float(fresh.backward(given(3, 4))), abs=1e-2)


def test_an_optimiser_checkpoint_loads_in_torchs_adamw(labelled: Labelled) -> None:
    net = small()
    step = PackedStep(net, labelled, torch.float32)
    optimiser = PackedAdamW(list(step.masters.values()), lr=1e-2)
    optimiser.attach(step, 0.0)
    step.backward(given(0, 1))
    optimiser.step()
    plain = torch.optim.AdamW(net.parameters(), lr=1e-2)
    plain.load_state_dict(optimiser.state_dict())
    saved = plain.state_dict()["state"]
    assert len(saved) == len(step.masters)
    assert set(saved[0]) == {"step", "exp_avg", "exp_avg_sq"}


# --- what a GPU would wait for ----------------------------------------------------------------------------------------

# On a GPU these hand a value, or how many there are, to the host.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}


class Waits(TorchDispatchMode):
    """Notes the operators for which a GPU's host would wait; `where` copies a scalar from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.split("::")[1]
        if name in WAITING or (name == "where" and any(given.ndim == 0 for given in args[1:])):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def test_a_step_has_no_operation_that_synchronises(labelled: Labelled) -> None:
    step = PackedStep(small(), labelled, torch.bfloat16, capture=Capturer())  # type: ignore[arg-type]
    optimiser = PackedAdamW(list(step.masters.values()), lr=1e-3)
    optimiser.attach(step, 1.0)
    for _ in range(2):  # captured, then replayed: the mode sees what a replay runs
        with Waits() as waits:
            step.backward(given(0, 1, 2))
            optimiser.step()
    assert waits.seen == []
    with Waits() as waits:
        torch.where(torch.ones(2) > 0, torch.ones(2), 0.0)
        float(torch.ones(()))
    assert waits.seen == ["where", "_local_scalar_dense"]


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_replayed_steps_train_like_eager_ones(sequences: list[NDArray[np.int64]], dtype: torch.dtype) -> None:
    from mrpcbench.modernbert.cuda_graphs import Capturer as Graphs

    device = torch.device("cuda")
    losses = []
    for capture in (None, Graphs()):
        net = small().to(device)  # type: ignore[arg-type]
        labelled = Labelled(Resident(sequences, device), np.resize(LABELS.numpy(), PAIRS), device)
        step = PackedStep(net, labelled, dtype, capture=capture)
        optimiser = PackedAdamW(list(step.masters.values()), lr=1e-3)
        optimiser.attach(step, 1.0)
        found = []
        for start in (0, 3, 6, 0, 9, 3, 6, 0):
            found.append(float(step.backward(given(start, start + 1, start + 2))))
            optimiser.step()
        losses.append(found)
    # A captured step has filler, so its sums have another order; pooling and flash attention add in varying order.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3 if dtype is torch.float32 else 5e-2)


@pytest.mark.gpu
def test_on_a_gpu_a_step_does_not_synchronise(sequences: list[NDArray[np.int64]]) -> None:
    from mrpcbench.modernbert.cuda_graphs import Capturer as Graphs

    device = torch.device("cuda")
    net = small().to(device)  # type: ignore[arg-type]
    labelled = Labelled(Resident(sequences, device), np.resize(LABELS.numpy(), PAIRS), device)
    step = PackedStep(net, labelled, torch.bfloat16, capture=Graphs())
    optimiser = PackedAdamW(list(step.masters.values()), lr=1e-3)
    optimiser.attach(step, 1.0)

    def once() -> None:
        step.backward(given(0, 1, 2))
        optimiser.step()

    once()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            once()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_shapes_give_the_size_of_a_batch(labelled: Labelled) -> None:
    step = PackedStep(small(), labelled, torch.float32)
    assert step.shape(given(0, 1)) == Shape(tokens=72, segments=2, longest=53)
    assert step.real_tokens(given(0, 1)) == 72
