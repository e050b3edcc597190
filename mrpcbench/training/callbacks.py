"""Callbacks of the Hugging Face Trainer: progress, timings, and a checkpoint at Ctrl-C or SIGTERM."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mrpcbench.progress import Observer
from mrpcbench.schema.results import EpochMetrics
from mrpcbench.training.distributed import World
from mrpcbench.training.epoch_log import epochs_of

# Reading the loss waits for the GPU. Twice a second is often enough for a person and too rare to slow the training.
DISPLAY_EVERY_S = 0.5
# A process of several may get one Ctrl-C twice, from the terminal and from its launcher.
SAME_SIGNAL_WITHIN_S = 1.0


class Stopwatch:
    """Seconds of a run that are not ordinary steps: one-time work, evaluations and saves.

    The device is synchronised at both ends of a span. A span inside another one is part of that one.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = {"cold_s": 0.0, "evaluate_s": 0.0, "save_s": 0.0}
        self._device = device
        self._running: str | None = None
        self._began = 0.0

    def start(self, name: str) -> None:
        """Begin a span of `name`, a key of `seconds`, unless one is running."""
        if self._running is None:
            self._running, self._began = name, self._now()

    def stop(self, name: str) -> None:
        """End the span if it is one of `name`."""
        if self._running == name:
            self.seconds[name] += self._now() - self._began
            self._running = None

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        """The body is a span of `name`, or part of the one that is running."""
        if self._running is not None:
            yield
            return
        self.start(name)
        try:
            yield
        finally:
            self.stop(name)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()


class AtTheStart(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Calls `work` with the loader of training batches, before the first of them is made."""

    def __init__(self, work: Callable[[Any], None]) -> None:
        self._work = work

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Called when model, optimiser and loader are ready."""
        self._work(given["train_dataloader"])


class Progress(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Reports each step to an observer, and times the first step and the saves.

    `loss` is the mean loss of the last batch, divided by the number of accumulated batches, on the device.
    """

    def __init__(self, observer: Observer, stopwatch: Stopwatch) -> None:
        self.loss = torch.tensor(float("nan"))
        self._observer = observer
        self._stopwatch = stopwatch
        self._learning_rate = 0.0
        self._shown_at = 0.0
        self._first: tuple[int, float] | None = None  # the first step of this process, and when it ended

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock of the first step."""
        if self._first is None:
            self._stopwatch.start("cold_s")

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Note the learning rate of the step, which the schedule changes before the step ends."""
        self._learning_rate = given["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report the step; the figures of it only now and then."""
        self._stopwatch.stop("cold_s")
        step, now = state.global_step, time.monotonic()
        if self._first is None:
            self._first = step, now
        detail = ""
        if now - self._shown_at >= DISPLAY_EVERY_S or step == state.max_steps:
            self._shown_at = now
            detail = self._figures(args, step, now)
        self._observer.advance("train", step, state.max_steps, detail)

    def _figures(self, args: TrainingArguments, step: int, now: float) -> str:
        accumulated = args.gradient_accumulation_steps
        text = f"loss {float(self.loss) * accumulated:.4f}  lr {self._learning_rate:.2e}"
        assert self._first is not None
        first_step, first_end = self._first
        if pairs := (step - first_step) * args.train_batch_size * args.world_size * accumulated:
            text += f"  {pairs / max(now - first_end, 1e-9):.0f} pairs/s"
        return text

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the span that began with the saving of the weights."""
        self._stopwatch.stop("save_s")


class Interruptible(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Passes on the log after each evaluation, and turns Ctrl-C into a checkpoint."""

    def __init__(self, on_epoch: Callable[[tuple[EpochMetrics, ...]], None], world: World) -> None:
        self.interrupted = False
        self._world = world
        self._noted_at = 0.0
        self._on_epoch = on_epoch

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after each evaluation, when the log of the epoch is complete."""
        self._on_epoch(epochs_of(state.log_history))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask an interrupted run for a checkpoint between two steps.

        At the end of an epoch the Trainer saves by itself, after the evaluation that belongs to it.
        """
        # The signal may reach the processes of a run in different steps.
        self.interrupted = self._world.any(self.interrupted)
        at_an_end = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if self.interrupted and not at_an_end:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End an interrupted run: its checkpoint is complete."""
        if self.interrupted:
            self._world.wait()
            raise KeyboardInterrupt

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks for a checkpoint and an end; the second ends at once."""

        def note(number: int, frame: FrameType | None) -> None:
            again = self.interrupted and time.monotonic() - self._noted_at > SAME_SIGNAL_WITHIN_S
            # torchrun passes on the signal that the terminal has sent to all processes.
            if again or (self.interrupted and self._world.size == 1):
                raise KeyboardInterrupt
            self.interrupted, self._noted_at = True, time.monotonic()

        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
