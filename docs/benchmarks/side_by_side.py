"""`mrpcbench bench --seq-len` compared with optimum-benchmark 0.6.0: one model, one shape.

    python3 -m venv PEER && PEER/bin/pip install 'torch>=2.11,<2.14' transformers==4.57.6 numpy==2.4.6 optimum==2.1.0 \\
        optimum-onnx==0.1.0 onnxruntime==1.31.1 onnx==1.23.2 huggingface-hub==0.36.2 optimum-benchmark==0.6.0 \\
        pydantic 'typer<0.29' evaluate 'rich<15'
    PYTHONPATH=. python docs/benchmarks/side_by_side.py --peer-python PEER/bin/python --model FOLDER --output FILE.json

FOLDER holds a fine-tuned model and its `onnx/`. Both harnesses run unchanged, in alternating fresh processes, each for
one backend at one batch size. A process is repeated if other programs used more than `--others` cores meanwhile. A
sample is a call at batch 1, else the mean of `--calls` successive calls.

With `--paired`, which needs that PYTHONPATH, one process runs both, and each times its own calls with its own clock, in
turns of `--calls`. Drift of the machine then affects both alike, and the ratio of neighbouring turns is known to 1%,
even on a busy machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

OURS, PEER = HARNESSES = ("mrpcbench", "optimum-benchmark")
PACKAGES = "optimum-benchmark torch transformers onnxruntime onnxruntime-gpu optimum optimum-onnx numpy".split()
PRIVATE = {"peer_python", "output", "model", "data"}


def mend_peer(*, spinning_stop: bool) -> None:
    """Restore the table that the peer reads and optimum 2 removed; `spinning_stop`: as mrpcbench sets ONNX Runtime."""
    classifier = import_module("optimum.onnxruntime").ORTModelForSequenceClassification
    vars(import_module("optimum.pipelines"))["ORT_SUPPORTED_TASKS"] = {"text-classification": {"class": (classifier,)}}
    if spinning_stop:
        backend = import_module("optimum_benchmark.backends.onnxruntime.backend")
        options = backend.SessionOptions()
        options.add_session_config_entry("session.force_spinning_stop", "1")
        vars(backend)["SessionOptions"] = lambda: options


def peer_config(asked: dict[str, Any]) -> Any:
    """The configuration of the peer's backend."""
    mend_peer(spinning_stop=asked["spinning_stop"])
    peer: Any = import_module("optimum_benchmark")
    shared = {"device": "cpu", "task": "text-classification", "library": "transformers"}
    # It passes each of these two to torch as the other.
    threads = {"inter_op_num_threads": asked["threads"], "intra_op_num_threads": asked["threads"]}
    if asked["backend"] == "torch":
        sdpa = {"attn_implementation": "sdpa", "torch_dtype": "float32"}
        return peer.PyTorchConfig(model=asked["model"], **shared, **threads, **sdpa)
    options = {**threads, "inter_op_num_threads": 1}
    return peer.ORTConfig(model=str(Path(asked["model"]) / "onnx"), session_options=options, **shared)


def peer_worker(asked: dict[str, Any]) -> dict[str, Any]:
    """In the peer's Python: its own scenario, backend and clock."""
    backend = peer_config(asked)
    peer: Any = import_module("optimum_benchmark")
    scenario = peer.InferenceConfig(
        iterations=asked["calls"] * asked["rounds"],
        duration=0,
        warmup_runs=asked["warmup"],
        input_shapes={"batch_size": asked["batch_size"], "sequence_length": asked["seq_len"]},
    )
    launcher = peer.ProcessConfig() if asked["peer_launcher"] == "process" else peer.InlineConfig()
    config = peer.BenchmarkConfig(name="peer", launcher=launcher, scenario=scenario, backend=backend, log_report=False)
    return {PEER: [1e3 * second for second in peer.Benchmark.launch(config).forward.latency.values]}


def paired_worker(asked: dict[str, Any]) -> dict[str, Any]:
    """In the peer's Python, with mrpcbench: the median of each turn, and the largest difference of the logits."""
    import numpy as np

    from mrpcbench.backends.registry import open_session
    from mrpcbench.data.batches import Batch
    from mrpcbench.instruments.clock import timed
    from mrpcbench.schema.requests import BackendSpec

    config = peer_config(asked)
    peer = import_module("hydra.utils").get_class(config._target_)(config)
    made = import_module("optimum_benchmark.generators.input_generator").InputGenerator(
        task=config.task,
        model_shapes=peer.model_shapes,
        model_type=config.model_type,
        input_shapes={"batch_size": asked["batch_size"], "sequence_length": asked["seq_len"]},
    )
    inputs = made()
    peer.load()
    inputs = peer.prepare_inputs(inputs)
    tracker = import_module("optimum_benchmark.trackers.latency").LatencySessionTracker("cpu", config.name)
    spec = BackendSpec(
        backend=asked["backend"], model=asked["model"], device="cpu", dtype="fp32", threads=asked["threads"]
    )
    ours = open_session(spec)
    arrays = {name: inputs[name].numpy() for name in ("input_ids", "attention_mask")}
    batch = Batch(inputs=arrays, rows=np.arange(asked["batch_size"]), real_tokens=arrays["input_ids"].size)

    def turn(harness: str) -> float:
        """The median call of one turn without the first two, for which the other harness has used the caches."""
        time.sleep(0.02)  # until the other harness's idle threads stop spinning
        if harness == OURS:
            return median([timed(lambda: ours.infer(batch))[1] for _ in range(asked["calls"])][2:])
        with tracker.session():
            for _ in range(asked["calls"]):
                with tracker.track():
                    peer.forward(inputs, {})
            return 1e3 * float(median(tracker.get_latency().values[2:]))

    times: dict[str, list[float]] = {harness: [turn(harness)] for harness in HARNESSES}
    for at in range(asked["turns"]):
        for harness in HARNESSES[:: 1 if at % 2 else -1]:
            times[harness].append(turn(harness))
    apart = float(np.abs(np.asarray(peer.forward(inputs, {}).logits) - ours.infer(batch)).max())
    return {**{harness: times[harness][1:] for harness in HARNESSES}, "logits_apart": apart}


def run_peer(asked: dict[str, Any], mode: str = "--worker") -> tuple[dict[str, Any], dict[str, Any]]:
    """The samples and the versions of one process of the peer's Python."""
    answer = json.loads(output_of([asked["peer_python"], str(Path(__file__).resolve()), mode, json.dumps(asked)]))
    group = 1 if asked["batch_size"] == 1 else asked["calls"]
    if mode == "--worker":
        calls = answer["times"][PEER]
        answer["times"][PEER] = [fmean(calls[at : at + group]) for at in range(0, len(calls), group)]
    return answer["times"], answer["versions"]


def run_ours(asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The samples and the record of one process of mrpcbench."""
    single = asked["batch_size"] == 1
    options = {
        **{name: asked[name] for name in ("backend", "model", "data", "seq_len", "threads", "rounds", "warmup")},
        **({"scenario": "single-stream"} if single else {"scenario": "offline", "batch_size": asked["batch_size"]}),
        "pairs": asked["calls"] * asked["batch_size"],
        "device": "cpu",
        "dtype": "fp32",
        "results": "bench.json",
    }
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    record = json.loads(output_of([sys.executable, "-m", "mrpcbench", "bench", "--json", *words], whole=True))
    return {OURS: [ms / (1 if single else asked["calls"]) for ms in record["bench"]["rows"][0]["samples_ms"]]}, record


def output_of(command: list[str], *, whole: bool = False) -> str:
    """The last line of what `command` prints in a folder of its own, or the `whole`."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        sys.exit(f"failed:\n{done.stderr[-4000:]}")
    return done.stdout if whole else done.stdout.splitlines()[-1]


def others_s() -> float:
    """CPU seconds that other programs have used so far: all but this process and its children."""
    times = import_module("psutil").cpu_times()
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return float(sum(times[:8]) - times.idle - times.iowait - sum(use.ru_utime + use.ru_stime for use in own))


def measured(asked: dict[str, Any], harness: str) -> tuple[dict[str, float], dict[str, Any]]:
    """The figures and the facts of one process, repeated while other programs disturb it."""
    for tries in range(1, asked["tries"] + 1):
        start, others = time.monotonic(), others_s()
        times, facts = (run_ours if harness == OURS else run_peer)(asked)
        cores = (others_s() - others) / (time.monotonic() - start)
        p10 = quantiles(times[harness], n=10)[0]
        run = {"median_ms": median(times[harness]), "p10_ms": p10, "others_cores": cores, "tries": tries}
        sys.stderr.write(f"{asked['backend']} {asked['batch_size']} {harness} {run}\n")
        if cores <= asked["others"]:
            break
    return {name: round(value, 4) for name, value in run.items()}, facts


def fresh(asked: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fill `rows` from fresh processes in turn; the facts of each harness."""
    runs: dict[tuple[int, str], list[dict[str, float]]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for turn in range(asked["processes"]):
        for at, row in enumerate(rows):
            for harness in HARNESSES[:: 1 if turn % 2 == 0 else -1]:
                run, facts[harness] = measured({**asked, **row}, harness)
                runs.setdefault((at, harness), []).append(run)
    sys.stdout.write(f"backend batch {OURS} ms {PEER} ms  ratio  ratio of p10  spread of each\n")
    for at, row in enumerate(rows):
        for harness in HARNESSES:
            times = [run["median_ms"] for run in runs[at, harness]]
            middle = {name: median(run[name] for run in runs[at, harness]) for name in ("median_ms", "p10_ms")}
            row[harness] = {
                **middle,
                "spread": (max(times) - min(times)) / median(times),
                "processes": runs[at, harness],
            }
        ours, peer = row[OURS], row[PEER]
        row.update(ratio=ours["median_ms"] / peer["median_ms"], ratio_p10=ours["p10_ms"] / peer["p10_ms"])
        sys.stdout.write(
            f"{row['backend']:7} {row['batch_size']:5} {ours['median_ms']:12.3f} {peer['median_ms']:20.3f} "
            f"{row['ratio']:6.3f} {row['ratio_p10']:13.3f}  {ours['spread']:.1%} {peer['spread']:.1%}\n"
        )
    return facts


def paired(asked: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fill `rows` from processes that run both harnesses; the facts of both Pythons."""
    sys.stdout.write(f"backend batch {OURS} ms {PEER} ms  ratio  95% interval      logits apart\n")
    for row in rows:
        times, versions = run_peer({**asked, **row}, "--paired-worker")
        ratios = sorted(ours / peer for ours, peer in zip(times[OURS], times[PEER], strict=True))
        reach = 0.98 * len(ratios) ** 0.5  # of the ranks around the median, by the normal approximation to its binomial
        low, high = (ratios[max(0, min(len(ratios) - 1, int(len(ratios) / 2 + side * reach)))] for side in (-1, 1))
        row.update({harness: {"median_ms": median(times[harness]), "turns": times[harness]} for harness in HARNESSES})
        row.update(ratio=median(ratios), ratio_95=[low, high], logits_apart=times["logits_apart"])
        sys.stdout.write(
            f"{row['backend']:7} {row['batch_size']:5} {row[OURS]['median_ms']:12.3f} {row[PEER]['median_ms']:20.3f} "
            f"{row['ratio']:6.3f}  {low:.3f} to {high:.3f}    {row['logits_apart']:.1e}\n"
        )
    return {
        OURS: json.loads(output_of([sys.executable, "-m", "mrpcbench", "env", "--json"], whole=True)),
        PEER: versions,
    }


def arguments() -> dict[str, Any]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer-python", required=True, type=lambda text: str(Path(text).absolute()))
    add("--model", required=True, type=lambda text: str(Path(text).resolve()))
    add("--output", required=True)
    add("--paired", action="store_true", help="both in one process, in short turns")
    add("--backend", choices=("torch", "onnx"), nargs="+", default=["torch", "onnx"])
    add("--batch-size", type=int, nargs="+", default=[1, 8])
    add("--seq-len", type=int, default=64)
    add("--threads", type=int, default=os.cpu_count())
    add("--calls", type=int, default=20, help="in each round or turn")
    add("--turns", type=int, default=100, help="of each harness, with --paired")
    add("--processes", type=int, default=5, help="of each harness, for each backend and batch size")
    add("--rounds", type=int, default=15, help="in each process")
    add("--warmup", type=int, default=10, help="calls")
    add("--others", type=float, default=0.15, help="cores that other programs may use")
    add("--tries", type=int, default=3, help="of one process, before a disturbed one is used")
    add("--data", default="quickstart", help="pairs that mrpcbench reads")
    add("--spin-count", type=int, default=2000, help="GOMP_SPINCOUNT of both; mrpcbench's own is 2000, OpenMP's 300000")
    add("--spinning-stop", action="store_true", help="ORT's threads of the peer stop after a call, as mrpcbench's do")
    add("--peer-launcher", choices=("inline", "process"), default="inline", help="the peer's own default is process")
    return vars(parser.parse_args())


def main() -> None:
    """Measure, print the table, write the document, without names of folders."""
    asked = arguments()
    os.environ.update(GOMP_SPINCOUNT=str(asked["spin_count"]), HF_HUB_OFFLINE="1")
    rows = [{"backend": name, "batch_size": size} for name in asked["backend"] for size in asked["batch_size"]]
    facts = (paired if asked["paired"] else fresh)(asked, rows)
    environment = facts[OURS]["environment"]
    kept = "started_at system cpu cpu_cores memory_bytes python git_commit git_dirty".split()
    result = {
        "model": json.loads((Path(asked["model"]) / "mrpcbench.json").read_text(encoding="utf-8"))["model"],
        "machine": {name: environment[name] for name in kept},
        "settings": {name: value for name, value in asked.items() if name not in PRIVATE},
        "versions": {OURS: environment["packages"], PEER: facts[PEER]},
        "rows": rows,
    }
    Path(asked["output"]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def work(worker: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write the result of `worker` as the last line of stdout."""
    times = worker(json.loads(sys.argv[2]))
    installed = {found.metadata["Name"].lower(): found.version for found in metadata.distributions()}
    versions = {name: installed[name] for name in PACKAGES if name in installed}
    sys.stdout.write(json.dumps({"times": times, "versions": versions}) + "\n")


if __name__ == "__mp_main__":  # the process that the peer's own launcher spawns
    mend_peer(spinning_stop=False)
elif __name__ == "__main__":
    workers = {"--worker": peer_worker, "--paired-worker": paired_worker}
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    work(workers[mode]) if mode in workers else main()
