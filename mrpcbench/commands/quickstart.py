"""Train, evaluate, export and bench on the bundled model and pairs, without network or GPU: `mrpcbench quickstart`."""

from collections.abc import Callable, Iterator
from pathlib import Path

from mrpcbench.benchmark.failures import check_required
from mrpcbench.commands.bench import bench
from mrpcbench.commands.evaluate import evaluate
from mrpcbench.commands.export import export
from mrpcbench.commands.train import train
from mrpcbench.progress import Observer
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.cases import BenchRequest
from mrpcbench.schema.records import Record
from mrpcbench.schema.requests import (
    QUICKSTART,
    BackendSpec,
    EvaluatePlan,
    ExportPlan,
    QuickstartRequest,
    TrainRecipe,
    TrainRequest,
)

# Time limit for extra rounds of `bench` on a noisy machine; the rest of quickstart takes about a minute.
MAX_SECONDS = 15.0


def quickstart(request: QuickstartRequest, observer: Observer) -> Iterator[tuple[Record, Path]]:
    """Train, evaluate, export and bench the bundled checkpoint on the bundled pairs.

    Yields each record with its path as soon as it is written. Everything is written below `request.output_dir`.
    """
    folder = Path(request.output_dir)
    model, results = str(folder / "tiny_ModernBERT_ft"), folder / "results"
    train_request = TrainRequest(model=QUICKSTART, data=QUICKSTART, output_dir=model, device="cpu", overwrite=True)
    steps: dict[str, Callable[[Path], Record]] = {
        # In float32, so that its result is the same on processors with and without bf16 instructions.
        "train": lambda path: train(train_request, TrainRecipe(precision="fp32"), path, observer),
        "evaluate": lambda path: evaluate(
            BackendSpec(model=model, device="cpu"), EvaluatePlan(data=QUICKSTART), path, observer
        ),
        "export": lambda path: export(ExportPlan(model=model, data=QUICKSTART, device="cpu"), path, observer),
        "bench": lambda path: _bench(model, path, observer),
    }
    for name, step in steps.items():
        path = results / f"{name}.json"
        yield step(path), path


def _bench(model: str, path: Path, observer: Observer) -> Record:
    """Measure the model in torch and in ONNX Runtime; raises `MissingError` if either fails."""
    plan = BenchPlan(backend=("torch", "onnx"), data=QUICKSTART, max_s=MAX_SECONDS)
    record, view = bench(BenchRequest(spec=BackendSpec(model=model, device="cpu"), plan=plan), path, observer)
    check_required(record.bench, view)
    return record
