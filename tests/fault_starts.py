"""More cases of `tests/faults`: commands in a Python that was started with other variables, or is asked for less."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from fault_cases import BENCH, EVALUATE, EXPORT, GRAPH, REFUSED, TRAIN, Arguments, Case, Change, both, key, text


def unchanged(folder: Path) -> None:
    """Break nothing."""


def _two_records(folder: Path) -> None:
    both(key("other.json", "2000-01-01T00:00:00+00:00", "environment", "started_at"))(folder)
    shutil.copy(folder / "record.predictions.jsonl", folder / "other.predictions.jsonl")
    key("other.json", "other.predictions.jsonl", "evaluate", "predictions_file")(folder)


# A run of each command that works, and of some that do not.
SAMPLES: tuple[tuple[str, Arguments, tuple[int, ...], Change], ...] = (
    ("help", ("--help",), (0,), unchanged),
    ("help of train", ("train", "--help"), (0,), unchanged),
    ("env", ("env",), (0,), unchanged),
    ("evaluate", EVALUATE, (0,), unchanged),
    ("pair", ("evaluate", "--model", "model", "--pair", "a", "b"), (0,), unchanged),
    ("onnx", GRAPH, (0,), unchanged),
    ("train", TRAIN, (0,), unchanged),
    ("export", (*EXPORT, "--optimize", "none"), (0,), unchanged),
    ("int8", (*EXPORT, "--optimize", "int8"), (0, 5), unchanged),
    ("bench", (*BENCH, "--rounds", "1", "--max-seconds", "0"), (0,), unchanged),
    ("compare", ("compare", "other.json", "record.json"), (0,), _two_records),
    ("report", ("report", "bench.json", "--output", "page.html"), (0, 3), unchanged),
    ("baseline", ("baseline", "set", "x", "record.json"), (0,), unchanged),
    ("option", ("evaluate", "--batch-size", "0"), REFUSED, unchanged),
    ("no pairs", EVALUATE, REFUSED, text("data/validation.csv", "")),
    ("no record", ("report", "record.json"), REFUSED, text("record.json", "{}")),
    ("no graph", GRAPH, REFUSED, text("graph/model.onnx", b"x")),
)


# Python neither takes UTF-8 for C, nor changes the locale to one with UTF-8.
ASCII_ONLY = (("LC_ALL", "POSIX"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONUTF8", "0"))


def interpreter() -> Iterator[Case]:
    """Variables that Python reads when it starts: without assertions and docstrings, and with other encodings."""
    works = (0,)
    for name, arguments, statuses, change in SAMPLES:
        yield Case(f"PYTHONOPTIMIZE=1, {name}", arguments, change, statuses, start=(("PYTHONOPTIMIZE", "1"),))
        # transformers reads its own docstrings.
        no_docstrings = (("PYTHONOPTIMIZE", "2"),)
        yield Case(f"PYTHONOPTIMIZE=2, {name}", arguments, change, names="PYTHONOPTIMIZE=2", start=no_docstrings)
    for start in (
        (("LC_ALL", "C"),),
        (("LC_ALL", "C.UTF-8"), ("PYTHONUTF8", "0")),
        (("LC_ALL", "xx_YY.UTF-8"), ("LANG", "xx_YY.UTF-8")),
        (("PYTHONIOENCODING", "ascii"),),
        (("PYTHONIOENCODING", "latin-1"),),
        ASCII_ONLY,
    ):
        name, can_import = " ".join("=".join(item) for item in start), start != ASCII_ONLY
        yield Case(
            f"{name}, evaluate", EVALUATE, statuses=works if can_import else REFUSED, names="PYTHONUTF8=1", start=start
        )
        yield Case(f"{name}, report", ("report", "bench.json"), statuses=works, start=start)
        yield Case(f"{name}, report --json", ("report", "bench.json", "--json"), statuses=works, start=start)
        yield Case(f"{name}, help", ("bench", "--help"), statuses=works, start=start)
        yield Case(f"{name}, error", ("report", "nothing.json"), names="nothing.json", start=start)
        label = text("data/validation.csv", "sentence1,sentence2,label\na,b,\u00e4\u4e2d\n")
        names = "validation.csv line 2" if can_import else ""
        yield Case(f"{name}, a label with accents", EVALUATE, label, names=names, start=start)
