"""Train the bundled model in two processes: `python training_steps.py FOLDER DATA ENGINE...`.

Each process writes the pairs and the loss of its every step. tests/training/test_distributed.py starts it.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mrpcbench.commands.train import train
from mrpcbench.progress import Silent
from mrpcbench.records import store
from mrpcbench.schema.requests import Engine, TrainRecipe, TrainRequest
from mrpcbench.training.divergence import DivergenceGuard

# An epoch has 4 steps. The packed step has the same order of pairs, so one step of the second epoch is enough.
STEPS: dict[str, int] = {"trainer": 8, "packed": 5}


@contextmanager
def noted_steps() -> Iterator[list[tuple[int, list[int], float]]]:
    """Collects step, pairs and loss of every batch that this process trains on, as its guard sees them."""
    noted: list[tuple[int, list[int], float]] = []
    plain = DivergenceGuard.loss

    def note(self: DivergenceGuard, step: int, rows: Any, value: Any) -> None:
        noted.append((step, [int(row) for row in rows], float(value)))
        plain(self, step, rows, value)

    DivergenceGuard.loss = note  # type: ignore[method-assign]
    try:
        yield noted
    finally:
        DivergenceGuard.loss = plain  # type: ignore[method-assign]


def trained(folder: Path, engine: Engine, data: str) -> list[tuple[int, list[int], float]]:
    """The steps of a run with `engine`, as this process saw them."""
    recipe = TrainRecipe(max_steps=STEPS[engine], engine=engine, precision="fp32")
    request = TrainRequest(model="quickstart", data=data, output_dir=str(folder / engine), device="cpu")
    with noted_steps() as noted:
        train(request, recipe, folder / f"{engine}.json", Silent())
    return noted


def resumed(folder: Path, data: str) -> None:
    """Repeat the last step of the packed run, from its checkpoint before that step."""
    steps, model = STEPS["packed"], folder / "packed"
    if os.environ.get("RANK", "0") == "0":
        shutil.rmtree(model / f"checkpoint-{steps}")
        (model / store.LINEAGE_FILE).unlink()
    recipe = TrainRecipe(max_steps=steps, engine="packed", precision="fp32")
    request = TrainRequest(model="quickstart", data=data, output_dir=str(model), device="cpu", resume=True)
    train(request, recipe, folder / "resumed.json", Silent())


if __name__ == "__main__":
    target, pairs, *engines = sys.argv[1:]
    # A copy needs no seconds for imports. Nothing was computed yet, so there are no threads, which a copy would lack.
    child = os.fork()
    rank = "0" if child else "1"
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
    for name in engines:
        found = trained(Path(target), name, pairs)  # type: ignore[arg-type]
        Path(target, f"{name}-{rank}.steps").write_text(json.dumps(found), encoding="utf-8")
    resumed(Path(target), pairs)
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
