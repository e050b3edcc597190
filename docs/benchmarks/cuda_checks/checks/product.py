"""What the checks share: ModernBERT-base with random weights, MRPC, and a few training steps."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import fakecuda  # noqa: E402


def train(engine: str, counted: int, timed: int) -> None:
    """Run bf16 training steps with `engine` (trainer, packed) and mark each one; the `timed` steps log no launches."""
    from transformers import TrainerCallback

    from mrpcbench.commands.train import _tokens
    from mrpcbench.data import loading
    from mrpcbench.models.classifier import load_classifier
    from mrpcbench.models.sources import weights_source
    from mrpcbench.progress import Silent
    from mrpcbench.schema.requests import TrainRecipe
    from mrpcbench.training.arguments import training_arguments, with_batch_sizes
    from mrpcbench.training.packed_trainer import PackedTrainer
    from mrpcbench.training.trainer import ObservedTrainer

    class Marking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            fakecuda.mark("counted" if state.global_step <= counted else "timed")
            if state.global_step == counted:
                fakecuda.quiet()

    source = weights_source(fakecuda.model(), to_train=True)
    loaded = load_classifier(source, random_init=True, new_head=True)
    tokens = {name: _tokens(split, source) for name, split in loading.load(fakecuda.data()).items() if name != "test"}
    with tempfile.TemporaryDirectory() as folder:
        recipe = with_batch_sizes(TrainRecipe(max_steps=counted + timed), 1)
        made = training_arguments(recipe, Path(folder), device="cuda", precision="bf16", report_to="none")
        made.save_strategy = made.eval_strategy = made.logging_strategy = "no"
        made.load_best_model_at_end = False
        parts = (loaded, made, tokens["train"], tokens["validation"], Silent())
        trainer = PackedTrainer(*parts, "bf16") if engine == "packed" else ObservedTrainer(*parts)
        trainer.add_callback(Marking())
        trainer.train()


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return sorted(values)[len(values) // 2]
