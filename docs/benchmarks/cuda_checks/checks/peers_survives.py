"""`bench --preset peers` where torch.compile cannot work, because there is no Triton: do the other rows survive?

python checks/peers_survives.py

Uses the bundled fine-tuned model, exports its four graphs, and runs the preset. The verdicts of the export gate mean
nothing here. The model is not trained first: `train` stops if a weight is not finite, and weights here are garbage.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from product import fakecuda

PAIRS, ROUNDS = "16", "2"
GRAPHS = ("none", "o3", "o4", "cuda")


def prepare(folder: Path) -> None:
    """Write a fine-tuned model to `folder`/model, with its graphs."""
    from mrpcbench.commands.export import export
    from mrpcbench.progress import Silent
    from mrpcbench.quickstart import CLASSIFIER_DIR
    from mrpcbench.schema.requests import ExportPlan

    model = folder / "model"
    shutil.copytree(CLASSIFIER_DIR, model)
    for graph in GRAPHS:
        plan = ExportPlan(model=str(model), optimize=graph, data="quickstart", device="cuda")
        export(plan, folder / f"{graph}.json", Silent())


if sys.argv[1:2] == ["inside"]:
    prepare(Path(sys.argv[2]))
    sys.exit()

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    prepared = fakecuda.run([__file__, "inside", name], sm="90")
    bench = ["bench", "--preset", "peers", "--model", str(folder / "model"), "--data", "quickstart", "--device", "cuda"]
    record = folder / "peers.json"
    short = ["--pairs", PAIRS, "--rounds", ROUNDS, "--results", str(record)]
    done = fakecuda.run(["-m", "mrpcbench", *bench, *short], sm="90")
    found = json.loads(record.read_text()) if record.exists() else {}
rows = (found.get("bench") or {}).get("rows") or []
faults = [f"export: exit code {prepared.code}"] if prepared.code else []
if done.code or not found.get("complete"):
    last = (done.output.strip().splitlines() or ["nothing"])[-1]
    faults.append(f"bench ends with exit code {done.code}; its last line: {last[:200]}")
summary = f"{len(rows)} rows of {', '.join(sorted({row['case'] for row in rows})) or 'no case'}"
fakecuda.verdict("peers_survives", faults, summary, [prepared, done] if prepared.code else [])
