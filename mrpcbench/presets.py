"""Sets of contenders by name: `mrpcbench bench --preset peers`."""

import math
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mrpcbench.contenders import Contender, Field, backends_of
from mrpcbench.environment import resolve_device
from mrpcbench.errors import UsageError
from mrpcbench.figures import ROUNDS_FOR_INTERVAL
from mrpcbench.plans import BackendSpec, BenchPlan, Dtype, Order, Preset, Scenario
from mrpcbench.sources import ONNX_FILE, graph_folder, locate
from mrpcbench.statistics import samples_needed

# What a preset chooses for each contender, and so nobody else can.
ITS_OWN = ("backend", "dtype")

OFFLINE: tuple[Scenario, ...] = ("offline",)
BOTH: tuple[Scenario, ...] = ("offline", "single-stream")
# What users take, four times that, and the whole validation split at once: an engine is shown at its best of them.
GPU_SIZES = (32, 128, 512)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contender of a preset; `graph` is the `--optimize` of the ONNX graph that it runs."""

    name: str
    backend: str = "torch"
    dtype: Dtype = "auto"
    graph: str | None = None
    order: Order = "length"
    scenarios: tuple[Scenario, ...] = OFFLINE
    batch_sizes: tuple[int, ...] = (32,)


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The contenders of a preset on one kind of device, and the rows that the others are held against."""

    entries: tuple[Entry, ...]
    relative_to: tuple[str, ...]


def _graph(name: str, graph: str, *, sizes: tuple[int, ...]) -> Entry:
    """An ONNX graph in batches of like length, and pair by pair."""
    return Entry(name=name, backend="onnx", graph=graph, scenarios=BOTH, batch_sizes=sizes)


# Ours stand behind the first, whose answers the others' are held against: `compare` gates the first rows of a record.
PEERS: Mapping[str, Entries] = {
    # A pass over MRPC's validation split takes 5 to 20 s for every row of ModernBERT-base on two cores.
    "cpu": Entries(
        entries=(
            Entry(name="hf-autocast", dtype="bf16-autocast", order="given"),
            Entry(name="torch-packed", backend="torch-packed"),
            _graph("onnx-cpu", "cpu", sizes=(8, 32)),
            _graph("onnx-int8", "int8", sizes=(8, 32)),
            Entry(name="hf-fp32-unsorted", dtype="fp32", order="given"),
            Entry(name="hf-fp32-sorted", dtype="fp32"),
            Entry(name="torch-compile", backend="torch-compile", dtype="fp32"),
            Entry(name="optimum-fp32-unsorted", backend="onnx", graph="none", order="given"),
            _graph("optimum-fp32", "none", sizes=(8, 32)),
            _graph("optimum-o3", "o3", sizes=(8, 32)),
        ),
        relative_to=("hf-autocast", "optimum-fp32-unsorted", "optimum-fp32:1"),
    ),
    "cuda": Entries(
        entries=(
            Entry(name="hf-autocast", dtype="bf16-autocast", order="given", scenarios=BOTH),
            Entry(name="torch-packed", backend="torch-packed", dtype="bf16", scenarios=BOTH, batch_sizes=GPU_SIZES),
            _graph("onnx-cuda", "cuda", sizes=GPU_SIZES),
            Entry(name="hf-bf16-sorted", dtype="bf16", scenarios=BOTH, batch_sizes=GPU_SIZES),
            Entry(name="torch-compile", backend="torch-compile", dtype="bf16", scenarios=BOTH, batch_sizes=GPU_SIZES),
            _graph("optimum-fp32", "none", sizes=GPU_SIZES),
            _graph("optimum-o3", "o3", sizes=GPU_SIZES),
            _graph("optimum-o4", "o4", sizes=GPU_SIZES),
        ),
        relative_to=("hf-autocast", "hf-bf16-sorted"),
    ),
}
PRESETS: Mapping[Preset, Mapping[str, Entries]] = {"peers": PEERS}


def left_to_preset(plan: BenchPlan, given: Collection[str]) -> BenchPlan:
    """`plan` with what its preset chooses left empty; as it is where it has no preset.

    `given` are the fields of plan and spec that the user gave a value. Raises `UsageError` for one that the preset
    chooses.
    """
    if plan.preset is None:
        return plan
    _refuse(plan.preset, [name for name in ITS_OWN if name in given])
    return replace(
        plan,
        backend=(),
        scenario=plan.scenario if "scenario" in given else (),
        batch_size=plan.batch_size if "batch_size" in given else (),
    )


def enough_rounds(plan: BenchPlan, *, is_compared: bool) -> int:
    """Rounds for a `plan` whose user gave none: what its tables need.

    A ratio, of a preset or of rows that are compared, has an interval from `ROUNDS_FOR_INTERVAL` on; a preset's single
    pairs have a p99 from `samples_needed(0.99)` samples on, which few pairs take more rounds to give.
    """
    rounds = max(plan.rounds, ROUNDS_FOR_INTERVAL) if plan.preset or is_compared else plan.rounds
    if plan.preset and plan.pairs and "single-stream" in (plan.scenario or BOTH):
        return max(rounds, math.ceil(samples_needed(0.99) / plan.pairs))
    return rounds


def field_of(spec: BackendSpec, plan: BenchPlan) -> Field:
    """The contenders of `plan`: one for each of its backends, or those of its preset on the device of `spec`.

    Raises `UsageError` that names every graph which the preset needs and that is not there, with what makes it.
    """
    if plan.preset is None:
        return backends_of(spec, plan)
    said = {"backend": plan.backend, "dtype": spec.dtype != "auto"}
    _refuse(plan.preset, [name for name, value in said.items() if value])
    found = PRESETS[plan.preset][resolve_device(spec.device)]
    _check_graphs(spec, plan, found.entries)
    return Field(
        contenders=tuple(_contender(entry, spec, plan) for entry in found.entries), relative_to=found.relative_to
    )


def _refuse(preset: Preset, names: Collection[str]) -> None:
    if names:
        options = " ".join(f"--{name}" for name in names)
        raise UsageError(f"--preset {preset}: it chooses {options} for each contender; leave that out, or the preset")


def _contender(entry: Entry, spec: BackendSpec, plan: BenchPlan) -> Contender:
    """`entry` with what of `spec` and `plan` holds for all: device, threads, and scenarios and sizes where given."""
    own: dict[str, object] = {}
    if entry.graph is not None:
        own = {"model": str(_folder(entry.graph, spec)), "random_init": False}
    return Contender(
        name=entry.name,
        spec=replace(spec, backend=entry.backend, dtype=entry.dtype, **own),  # type: ignore[arg-type]
        scenarios=plan.scenario or entry.scenarios,
        batch_sizes=plan.batch_size or entry.batch_sizes,
        order=entry.order,
    )


def _folder(graph: str, spec: BackendSpec) -> Path:
    return graph_folder(spec.model, graph, random_init=spec.random_init)


def _check_graphs(spec: BackendSpec, plan: BenchPlan, entries: Collection[Entry]) -> None:
    missing = {
        graph: folder for graph in _graphs_of(entries) if not ((folder := _folder(graph, spec)) / ONNX_FILE).exists()
    }
    if not missing:
        return
    locate(spec.model)  # a model that does not exist is named first
    more = ["--random-init"] if spec.random_init else []
    more += ["--data", plan.data] if plan.data != BenchPlan().data else []
    more += ["--device", spec.device] if spec.device != BackendSpec().device else []
    commands = (
        shlex.join(["mrpcbench", "export", "--model", spec.model, "--optimize", graph, *more]) for graph in missing
    )
    raise UsageError(
        f"--preset {plan.preset}: no {ONNX_FILE} in {', '.join(map(str, missing.values()))}; make "
        f"{'it' if len(missing) == 1 else 'them'} with {', '.join(f'`{command}`' for command in commands)}"
    )


def graphs_of(preset: Preset, device: str) -> tuple[str, ...]:
    """The graphs that `preset` needs on `device`, cpu or cuda, by their `--optimize`."""
    return _graphs_of(PRESETS[preset][device].entries)


def _graphs_of(entries: Collection[Entry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.graph for entry in entries if entry.graph is not None))
