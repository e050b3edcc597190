"""The graph of `export --optimize cuda` in ONNX Runtime: placement of nodes, launches, capture, attention's lengths.

python checks/onnx_cuda.py [LAYERS]        (22 layers by default)

Attention that reads the padded length of a pair attends to padding, and its answer is wrong; `total` is the real
length. Which kernel runs depends on the GPU (SM 80, 90), and on whether cuDNN is loaded, as it is with torch's CUDA
build in the process.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from product import fakecuda

ROWS, WIDTH, SHORT = 32, 64, 40
CASES = (("90", "91900"), ("90", "off"), ("80", "91900"), ("80", "off"))  # SM, cuDNN
WRONG = ("padded", "cache_total")


def make(graph: Path, layers: int) -> None:
    """Write the graph of ModernBERT-base with random weights; runs on the CPU."""
    import onnx
    import torch
    from transformers import AutoModelForSequenceClassification

    from mrpcbench.models.sources import load_config
    from mrpcbench.onnx_export import graphs

    config = load_config(Path(fakecuda.model()), "ModernBERT-base")
    config.num_hidden_layers, config.num_labels, config.reference_compile = layers, 2, False
    model = AutoModelForSequenceClassification.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    onnx.save(graphs.make(model, "cuda"), graph)


def inside(graph: Path) -> None:
    """Open the graph as `bench` does, and run one pair and a batch twice each: captured, then replayed."""
    import numpy as np
    import onnxruntime as ort

    from mrpcbench.backends.onnx_session import PROVIDERS, OnnxSession
    from mrpcbench.data.batches import Batch
    from mrpcbench.schema.identity import ModelIdentity

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    cuda = PROVIDERS["cuda"]
    plain = ort.InferenceSession(graph, options, providers=[(cuda.name, {**cuda.options})])
    places: Counter[str] = Counter()
    for part in plain.get_provider_graph_assignment_info():
        places[part.ep_name] += len(part.get_nodes())
    print("NODES", ", ".join(f"{count} on {name}" for name, count in places.items()))
    unknown = dict.fromkeys(("name", "architecture", "model_sha256", "tokenizer_sha256"), "unknown")
    identity = ModelIdentity(**unknown, parameters=0, weights="random-init", origin="random-init", optimize="cuda")
    session = OnnxSession(graph, identity, dtype="fp16", provider="cuda", device_name="cuda fake", threads=1)
    print("PLACED", session.placement.provider)
    for rows in (1, ROWS):
        mask = (np.arange(WIDTH) < np.where(np.arange(rows) % 2, WIDTH, SHORT)[:, None]).astype(np.int64)
        inputs = {"input_ids": mask, "attention_mask": mask}
        batch = Batch(inputs=inputs, rows=np.arange(rows), real_tokens=int(mask.sum()))
        bound = plain.io_binding()
        for name, value in batch.inputs.items():
            bound.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        bound.bind_output("logits", "cuda", 0)
        plain.run_with_iobinding(bound)
        fakecuda.mark(f"before {rows}")
        plain.run_with_iobinding(bound)
        fakecuda.mark(f"node by node {rows}")
        session.infer(batch)
        fakecuda.mark(f"first {rows}")
        session.infer(batch)
        fakecuda.mark(f"again {rows}")


if sys.argv[1:2] == ["inside"]:
    inside(Path(sys.argv[2]))
    sys.exit()
if sys.argv[1:2] == ["make"]:
    make(Path(sys.argv[2]), int(sys.argv[3]))
    sys.exit()

layers = sys.argv[1] if len(sys.argv) > 1 else "22"
faults: list[str] = []
summary: list[str] = []
runs: list[fakecuda.Done] = []
with tempfile.TemporaryDirectory() as folder:
    graph = Path(folder, "model.onnx")
    subprocess.run([sys.executable, __file__, "make", str(graph), layers], check=True, env=fakecuda.environment())
    for sm, cudnn in CASES:
        done = fakecuda.run([__file__, "inside", str(graph)], ort=True, sm=sm, cudnn=cudnn, arguments="1")
        runs.append(done)
        case = f"SM {sm} {'without cuDNN' if cudnn == 'off' else 'with cuDNN'}"
        if done.code:
            faults.append(f"{case}: exit code {done.code}")
            continue
        lines = dict(line.split(" ", 1) for line in done.output.splitlines() if line.startswith(("NODES ", "PLACED ")))
        found = {part.name: part for part in done.log.stretches}
        if "CUDA graphs" not in lines["PLACED"] or any(found[f"again {rows}"].replays != 1 for rows in (1, ROWS)):
            faults.append(f"{case}: not replayed")
        reads = ", ".join(f"{what} x{count}" for what, count in sorted(done.log.reads.items()))
        if any(what.endswith(WRONG) for what in done.log.reads):
            faults.append(f"{case}: attention reads a padded length")
        summary.append(
            f"{case}: {lines['NODES']}; {found['node by node 1'].launches} launches for a pair and "
            f"{found[f'node by node {ROWS}'].launches} for {ROWS}; {lines['PLACED']}; graphs of "
            f"{', '.join(map(str, done.log.nodes))} nodes; lengths read: {reads or 'none that the stand-in knows'}"
        )
fakecuda.verdict(f"onnx_cuda ({layers} layers)", faults, "\n  ".join(["", *summary]), runs)
