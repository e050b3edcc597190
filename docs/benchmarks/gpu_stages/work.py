"""What the processes of docs/benchmarks/gpu.py run: commands of mrpcbench, parts of its preset, and the profiler."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mrpcbench.progress import Silent

# Kernels, or on a CPU operators, in a table of the profiler.
MOST_ROWS = 25
# Calls under the profiler, after as many without it.
PROFILED_CALLS = 10


def probe(device: str) -> None:
    """Use the processor's threads and the device: what fails in a forked process if an import has used them before."""
    import torch

    some = torch.ones(1000, 1000)
    print(float((some @ some).sum()), float(some[:1].to(device).sum()), torch.__version__)


def command(arguments: Sequence[str]) -> None:
    """A command of mrpcbench."""
    from mrpcbench.cli.app import app

    sys.argv = ["mrpcbench", *arguments]
    print(f"$ mrpcbench {' '.join(arguments)}", flush=True)
    app(prog_name="mrpcbench")


def tests(expression: str) -> None:
    """The tests marked `gpu` that match `expression`."""
    arguments = ["-m", "pytest", "-n", "0", "-m", "gpu", "-k", expression, "--continue-on-collection-errors"]
    os.execv(sys.executable, [sys.executable, *arguments])


class Printed(Silent):
    """Prints what a command says, and its progress now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def say(self, text: str) -> None:
        """Print it with the time."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def warn(self, text: str) -> None:
        """Print it as a warning."""
        self.say(f"warning: {text}")

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Print it if a second has passed."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1
            self.say(f"{task} {done}/{total} {detail}")


def write_weights(model: str, folder: str) -> None:
    """Write a classifier with random weights, as the configuration in the folder `model` describes it, to `folder`."""
    from mrpcbench.models.classifier import load_classifier
    from mrpcbench.models.sources import weights_source
    from mrpcbench.records import store
    from mrpcbench.schema.identity import Lineage

    loaded = load_classifier(weights_source(model), random_init=True)

    def write(staged: Path) -> None:
        loaded.model.save_pretrained(staged, safe_serialization=True)
        loaded.tokenizer.save_pretrained(staged)
        store.save_lineage(Lineage(model=loaded.identity), staged)

    store.replace_folder(Path(folder), write)


def bench_cases(
    results: str,
    cases: Sequence[str],
    *,
    model: str,
    data: str,
    device: str,
    scenario: str,
    rounds: int,
    pairs: int | None,
    seconds: float,
) -> None:
    """Measure some `cases` of `bench --preset peers` in one `scenario`, with at most `seconds` of extra rounds."""
    from mrpcbench.commands.bench import bench
    from mrpcbench.schema.bench_requests import BenchPlan
    from mrpcbench.schema.cases import BenchRequest
    from mrpcbench.schema.requests import BackendSpec

    plan = BenchPlan(
        preset="peers",
        data=data,
        scenario=(scenario,),
        rounds=rounds,
        pairs=pairs,
        max_s=seconds,  # type: ignore[arg-type]
    )
    request = BenchRequest(
        spec=BackendSpec(model=model, device=device),  # type: ignore[arg-type]
        plan=plan,
        given=frozenset({"scenario", "rounds"}),
        cases=frozenset(cases),
    )
    print(f"{scenario}: {', '.join(cases)}", flush=True)
    bench(request, Path(results), Printed())


class ProfiledSteps(Printed):
    """Profiles the steps of a training after step `first` until step `last`, and prints the table."""

    def __init__(self, first: int, last: int, device: str, path: Path) -> None:
        super().__init__()
        self._first, self._last = first, last
        self._profile = profiled(device, path, f"packed training step {first + 1} to {last}", last - first)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Begin or end the profile after a step."""
        super().advance(task, done, total, detail)
        if task == "train" and done == self._first:
            self._profile.__enter__()
        elif task == "train" and done == self._last:
            self._profile.__exit__(None, None, None)


@contextmanager
def profiled(device: str, path: Path, what: str, calls: int) -> Iterator[None]:
    """Profile the body, which makes `calls` calls, and add the table to `path`, with wall clock and kernel time."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    cuda = device == "cuda"
    wait: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    wait()
    with profile(activities=activities) as found:
        began = time.perf_counter()
        yield
        wait()
        wall_s = time.perf_counter() - began
    averages = found.key_averages()
    side = "device" if cuda else "cpu"
    table = averages.table(sort_by=f"self_{side}_time_total", row_limit=MOST_ROWS, max_name_column_width=90)
    lines = [f"{what}: {wall_s * 1e3 / calls:.3f} ms each, under the profiler"]
    if cuda:
        # An annotation, such as that of an optimiser's step, covers kernels that are listed themselves.
        kernels = [item for item in averages if item.device_type == DeviceType.CUDA and not item.is_user_annotation]
        busy_ms = sum(item.self_device_time_total for item in kernels) / 1e3
        count = sum(item.count for item in kernels)
        lines.append(
            f"kernels: {busy_ms / calls:.3f} ms and {count / calls:.0f} of them each; "
            f"{busy_ms / 1e3 / wall_s:.1%} of the wall clock"
        )
    print("\n".join(lines), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, table, ""]))


def profile_training(folder: str, *, model: str, data: str, device: str, scratch: str, steps: int) -> None:
    """Profile the last of `steps` steps of `train --engine packed`; by then, most shapes are captured."""
    import mrpcbench

    path = Path(folder) / "train-packed.txt"
    path.unlink(missing_ok=True)
    first = max(1, steps - PROFILED_CALLS)
    mrpcbench.train(
        model=model,
        data=data,
        device=device,
        engine="packed",
        optim="adamw_torch_fused",
        max_steps=steps,
        output_dir=scratch,
        overwrite=True,
        observer=ProfiledSteps(first, steps, device, path),
    )


def profile_inference(folder: str, *, model: str, data: str, device: str) -> None:
    """Profile `torch-packed` with one pair and with batches of 32 and 512 pairs of similar length."""
    from mrpcbench.backends.reading import resolve
    from mrpcbench.backends.registry import open_session
    from mrpcbench.data import loading
    from mrpcbench.schema.requests import BackendSpec

    path = Path(folder) / "infer-packed.txt"
    path.unlink(missing_ok=True)
    spec = BackendSpec(backend="torch-packed", model=model, device=device)  # type: ignore[arg-type]
    source = resolve(spec)
    pairs = loading.split_of(loading.load(data, Silent()), data, "validation")
    tokens, session = source.reader.encode(pairs), open_session(spec, source)
    for size in (1, 32, 512) if device == "cuda" else (1, 8):
        batches = tokens.batches(size)
        batch = batches[len(batches) // 2]
        for _ in range(PROFILED_CALLS):
            session.infer(batch)
        with profiled(device, path, f"torch-packed, {len(batch.rows)} pairs", PROFILED_CALLS):
            for _ in range(PROFILED_CALLS):
                session.infer(batch)
    session.close()
