"""The cases of a benchmark request: one per backend, or those of `mrpcbench bench --preset peers`."""

import math
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from mrpcbench.environment.capture import resolve_device
from mrpcbench.environment.machine import BF16, has_instructions
from mrpcbench.errors import UsageError
from mrpcbench.models.sources import ONNX_FILE, graph_folder, locate
from mrpcbench.records.ranking import check_view
from mrpcbench.schema.bench_requests import BenchPlan, BenchView
from mrpcbench.schema.cases import BenchRequest, Case, Suite, suite_of_backends
from mrpcbench.schema.requests import BackendSpec, Dtype, Order, Preset, Scenario
from mrpcbench.schema.rows import RowSelector
from mrpcbench.statistics import samples_needed

# Options that a preset sets for each case, so the user cannot.
SET_BY_PRESET = ("backend", "dtype", "order")

OFFLINE: tuple[Scenario, ...] = ("offline",)
BOTH: tuple[Scenario, ...] = ("offline", "single-stream")
# The default size of `evaluate`, and the usual size.
CPU_SIZES = (8, 32)
# The usual size, four times that, and more than the validation split has: the best size differs between engines.
GPU_SIZES = (32, 128, 512)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One case of a preset; `graph` is the `--optimize` of the ONNX graph that it runs."""

    name: str
    backend: str = "torch"
    dtype: Dtype = "auto"
    graph: str | None = None
    order: Order = "length"
    scenarios: tuple[Scenario, ...] = OFFLINE
    batch_sizes: tuple[int, ...] = (32,)


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The cases of a preset on one kind of device, and the rows that speedups are relative to."""

    entries: tuple[Entry, ...]
    relative_to: tuple[str, ...]


def _graph(name: str, graph: str, *, sizes: tuple[int, ...]) -> Entry:
    """A case that runs an ONNX graph offline, with pairs sorted by length, and single-stream."""
    return Entry(name=name, backend="onnx", graph=graph, scenarios=BOTH, batch_sizes=sizes)


def _in_bf16(name: str, *, graph: str | None = None) -> Entry:
    """A case for the CPU, named after its engine, in bf16 if the processor has bf16 instructions, otherwise in fp32."""
    dtype: Dtype = "bf16" if has_instructions(BF16) else "fp32"
    return Entry(name=name, backend=name, dtype=dtype, graph=graph, scenarios=BOTH, batch_sizes=CPU_SIZES)


# The first case gives the reference answers. Ours come next, because `compare` gates the first rows of a record.
PEERS: Mapping[str, Entries] = {
    # With ModernBERT-base on two cores, a pass over MRPC's validation split takes 5 to 20 s per row.
    "cpu": Entries(
        entries=(
            Entry(name="hf-autocast", dtype="bf16-autocast", order="given"),
            _in_bf16("torch-packed"),
            _graph("onnx-cpu", "cpu", sizes=CPU_SIZES),
            _graph("onnx-int8", "int8", sizes=CPU_SIZES),
            _in_bf16("openvino", graph="none"),
            Entry(name="hf-autocast-sorted", dtype="bf16-autocast", batch_sizes=CPU_SIZES),
            Entry(name="hf-fp32-unsorted", dtype="fp32", order="given"),
            Entry(name="hf-fp32-sorted", dtype="fp32"),
            Entry(name="torch-compile", backend="torch-compile", dtype="fp32"),
            Entry(name="optimum-fp32-unsorted", backend="onnx", graph="none", order="given"),
            _graph("optimum-fp32", "none", sizes=CPU_SIZES),
            _graph("optimum-o3", "o3", sizes=CPU_SIZES),
        ),
        relative_to=("hf-autocast", "optimum-fp32-unsorted", "optimum-fp32:1"),
    ),
    "cuda": Entries(
        entries=(
            Entry(name="hf-autocast", dtype="bf16-autocast", order="given", scenarios=BOTH),
            Entry(name="torch-packed", backend="torch-packed", dtype="bf16", scenarios=BOTH, batch_sizes=GPU_SIZES),
            _graph("onnx-cuda", "cuda", sizes=GPU_SIZES),
            Entry(name="hf-bf16-sorted", dtype="bf16", scenarios=BOTH, batch_sizes=GPU_SIZES),
            Entry(name="hf-fp32-sorted", dtype="fp32"),
            Entry(name="torch-compile", backend="torch-compile", dtype="bf16", scenarios=BOTH, batch_sizes=GPU_SIZES),
            _graph("optimum-fp32", "none", sizes=GPU_SIZES),
            _graph("optimum-o3", "o3", sizes=GPU_SIZES),
            _graph("optimum-o4", "o4", sizes=GPU_SIZES),
        ),
        relative_to=("hf-autocast", "hf-bf16-sorted"),
    ),
}
PRESETS: Mapping[Preset, Mapping[str, Entries]] = {"peers": PEERS}


def choose(request: BenchRequest) -> tuple[Suite, BenchPlan, BenchView]:
    """The suite of `request`, its plan with defaults filled in, and how its tables are shown.

    In the stored plan of a preset, `backend` is empty, and so are `scenario` and `batch_size` unless the user gave
    them. Raises `UsageError` for an option that the preset sets itself, for a missing graph (the message has the
    export command), and for `--relative-to` with a row that the suite does not have.
    """
    plan, spec, given = request.plan, request.spec, _given(request)
    if (preset := plan.preset) is None:
        suite = suite_of_backends(spec, plan)
    else:
        _refuse(preset, [name for name in SET_BY_PRESET if name in given])
        plan = replace(
            plan,
            backend=(),
            scenario=plan.scenario if "scenario" in given else (),
            batch_size=plan.batch_size if "batch_size" in given else (),
        )
        suite = _suite(preset, spec, plan, request.cases)
    check_view(request.view, suite)
    if "rounds" not in given:
        plan = replace(plan, rounds=enough_rounds(plan))
    return suite, plan, replace(request.view, relative_to=request.view.relative_to or suite.relative_to)


def _given(request: BenchRequest) -> set[str]:
    """Fields of plan and spec that the user set explicitly, or whose value is not the default."""
    defaults = {BenchPlan: BenchPlan(), BackendSpec: BackendSpec()}
    return set(request.given) | {
        item.name
        for asked in (request.plan, request.spec)
        for item in fields(asked)
        if getattr(asked, item.name) != getattr(defaults[type(asked)], item.name)
    }


def enough_rounds(plan: BenchPlan) -> int:
    """The default number of rounds of `plan`: as many as its tables need.

    A single-stream row of a preset has a p99 from `samples_needed(0.99)` samples on, which needs more rounds if there
    are few pairs.
    """
    if plan.preset and plan.pairs and "single-stream" in (plan.scenario or BOTH):
        return max(plan.rounds, math.ceil(samples_needed(0.99) / plan.pairs))
    return plan.rounds


def _suite(preset: Preset, spec: BackendSpec, plan: BenchPlan, cases: Collection[str] | None) -> Suite:
    """The cases of `preset` on the device of `spec`, or those of them that `cases` names."""
    found = PRESETS[preset][resolve_device(spec.device)]
    entries = [entry for entry in found.entries if cases is None or entry.name in cases]
    _check_graphs(spec, plan, entries)
    names = {entry.name for entry in entries}
    relative_to = tuple(row for row in found.relative_to if RowSelector.parse(row).case in names)
    return Suite(cases=tuple(_case(entry, spec, plan) for entry in entries), relative_to=relative_to)


def _refuse(preset: Preset, names: Collection[str]) -> None:
    if names:
        options = " ".join(f"--{name}" for name in names)
        raise UsageError(f"--preset {preset}: the preset sets {options} for each case; omit either of them")


def _case(entry: Entry, spec: BackendSpec, plan: BenchPlan) -> Case:
    """The case of `entry`, with the settings shared by all cases: device, threads, given scenarios and batch sizes."""
    own: dict[str, object] = {}
    if entry.graph is not None:
        own = {"model": str(_folder(entry.graph, spec)), "random_init": False}
    return Case(
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
    locate(spec.model)  # if the model itself is missing, this raises a clearer error
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
    """The graphs that `preset` needs on `device` (cpu, cuda), as values of `--optimize`."""
    return _graphs_of(PRESETS[preset][device].entries)


def _graphs_of(entries: Collection[Entry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.graph for entry in entries if entry.graph is not None))
