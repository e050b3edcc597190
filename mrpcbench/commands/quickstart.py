"""Train, evaluate, export and bench on the bundled model and pairs, without network or GPU: `mrpcbench quickstart`."""

from collections.abc import Callable
from dataclasses import dataclass
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

# A round of 128 pairs is short, so many rounds fit into the time, and a row can be VALID although other programs
# disturb some of them. From six rounds on, p99 can be shown (`statistics.samples_needed`).
PAIRS, ROUNDS, BATCH_SIZE = 128, 8, 32
# Time limit for extra rounds of `bench` on a noisy machine.
MAX_SECONDS = 15.0


@dataclass(frozen=True)
class Step:
    """A command of the quickstart: what it does, the file for its record, and the function that runs it."""

    name: str
    about: str
    path: Path
    work: Callable[[Path, Observer], Record]

    def run(self, observer: Observer) -> Record:
        """Run the command; its record is then in `path`."""
        return self.work(self.path, observer)


def steps(request: QuickstartRequest) -> tuple[Step, ...]:
    """Train, evaluate, export and bench the bundled checkpoint on the bundled pairs, each on the result of the last.

    Everything is written below `request.output_dir`.
    """
    folder = Path(request.output_dir)
    model = model_folder(request)
    train_request = TrainRequest(model=QUICKSTART, data=QUICKSTART, output_dir=model, device="cpu", overwrite=True)
    spec = BackendSpec(model=model, device="cpu")
    # In float32, so that its result is the same on processors with and without bf16 instructions.
    recipe = TrainRecipe(precision="fp32")
    work: dict[tuple[str, str], Callable[[Path, Observer], Record]] = {
        ("train", f"fine-tune the bundled model, {recipe.num_train_epochs:g} epochs"): (
            lambda path, observer: train(train_request, recipe, path, observer)
        ),
        ("evaluate", "score it on the validation pairs"): (
            lambda path, observer: evaluate(spec, EvaluatePlan(data=QUICKSTART), path, observer)
        ),
        ("export", "write an ONNX graph and verify its answers"): (
            lambda path, observer: export(ExportPlan(model=model, data=QUICKSTART, device="cpu"), path, observer)
        ),
        ("bench", "measure PyTorch and ONNX Runtime in turn"): (lambda path, observer: _bench(spec, path, observer)),
    }
    return tuple(Step(name, about, folder / "results" / f"{name}.json", run) for (name, about), run in work.items())


def model_folder(request: QuickstartRequest) -> str:
    """The folder for the fine-tuned model."""
    return str(Path(request.output_dir, "tiny_ModernBERT_ft"))


def _bench(spec: BackendSpec, path: Path, observer: Observer) -> Record:
    """Measure the model in torch and in ONNX Runtime; raises `MissingError` if either fails."""
    plan = BenchPlan(
        backend=("torch", "onnx"),
        data=QUICKSTART,
        pairs=PAIRS,
        rounds=ROUNDS,
        batch_size=(BATCH_SIZE,),
        max_s=MAX_SECONDS,
    )
    record, view = bench(BenchRequest(spec=spec, plan=plan), path, observer)
    check_required(record.bench, view)
    return record
