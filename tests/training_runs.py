"""Small training runs, and their interruption."""

import os
import signal
from dataclasses import replace
from pathlib import Path

from conftest import Listener

from mrpcbench.commands.train import train
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import TrainRecipe, TrainRequest
from mrpcbench.schema.results import EpochMetrics

# 48 pairs in batches of 8: 6 steps per epoch.
# Nothing in it depends on the machine.
RECIPE = TrainRecipe(per_device_train_batch_size=8, learning_rate=1e-3, engine="trainer", precision="fp32")


def run(request: TrainRequest, recipe: TrainRecipe = RECIPE, listener: Listener | None = None) -> TrainRecord:
    folder = Path(request.output_dir)
    return train(request, recipe, folder.parent / f"{folder.name}.json", listener or Listener())


class SignalAt(Listener):
    """An observer that sends this process a signal at the end of a step."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGINT) -> None:
        super().__init__()
        self.step, self.number = step, number

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        super().advance(task, done, total, detail)
        if done == self.step:
            os.kill(os.getpid(), self.number)


def without_train_loss(epochs: tuple[EpochMetrics, ...]) -> list[EpochMetrics]:
    return [replace(line, train_loss=None) for line in epochs]
