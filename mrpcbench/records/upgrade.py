"""Upgrades a stored document of an older schema version to the current one.

Versions from 2.0 on are major.minor, and a minor version only adds fields. Version 1 is an integer. All functions are
pure and work on parsed JSON. Standard library only.
"""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from mrpcbench.schema.version import MAJOR, MINOR, SCHEMA_VERSION

COMMANDS_OF_VERSION_1 = ("train", "evaluate", "export", "bench", "ab", "selftest")

# A path names a field of a record or a lineage, from the top; `*` means every item of a list.
# Fields of version 1 that version 2.0 does not have:
DROPPED: tuple[str, ...] = (
    "selftest",
    "ab.comparison.metrics.*.detectable",
    "bench.plan.from_text",  # `_refuse_from_text` refuses true
    "bench.plan.requests",
    "bench.resumed_after",
)
# Fields of version 1 that version 2.0 has renamed, with the new name of the last part of the path:
RENAMED: dict[str, str] = {"bench.rows.*.contender": "case"}


def is_newer(document: Any) -> bool:
    """Whether `document` has a newer minor version, and so may have unknown fields.

    Raises `ValueError` with a one-line reason for a version that cannot be read.
    """
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is int and version == 1:
        return False
    match = re.fullmatch(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if match is None or int(match[1]) != MAJOR:
        raise ValueError(f"schema version {version!r}; this mrpcbench reads 1 and {MAJOR}.x")
    return int(match[2]) > MINOR


def upgrade(document: dict[str, Any]) -> dict[str, Any]:
    """A copy of `document`, a record or a lineage of any readable version, in the current version.

    A field that cannot be derived gets its default. Raises `ValueError` with a one-line reason for a version or a
    measurement that cannot be read. A document that is invalid in its own version stays invalid, and validation
    reports the error.
    """
    is_newer(document)
    made = deepcopy(document)
    if made["schema_version"] == 1:
        # A record of version 1 had a result field for every command, and all but its own were null.
        for name in COMMANDS_OF_VERSION_1:
            if "command" in made and name in made and made[name] is None:
                del made[name]
        _refuse_from_text(made)
        for path, name in RENAMED.items():
            for holder, old in _fields_at(made, path):
                holder[name] = holder.pop(old)
        for path in DROPPED:
            for holder, old in _fields_at(made, path):
                del holder[old]
        for fill in FILLED:
            fill(made)
    _name_batch_sizes(made)
    for holder, name in (*_fields_at(made, "schema_version"), *_fields_at(made, "ab.comparison.schema_version")):
        holder[name] = SCHEMA_VERSION
    return made


# --- measurements of version 1 that version 2.0 does not support ------------------------------------------------------


def _refuse_from_text(document: dict[str, Any]) -> None:
    """Samples of `--from-text` include tokenising, so they are not comparable with samples of the model alone."""
    if any(plan.get("from_text") for plan in _objects_at(document, "bench.plan")):
        raise ValueError("measured with --from-text, which this version does not support; measure again")


# --- values that older records of version 2.0 omit --------------------------------------------------------------------


def _name_batch_sizes(document: dict[str, Any]) -> None:
    """Before several processes could share a batch, the batch of one process was the whole."""
    for path in ("train.recipe", "recipe"):
        for recipe in _objects_at(document, path):
            if "per_device_train_batch_size" in recipe:
                recipe.setdefault("batch_size", recipe["per_device_train_batch_size"])


# --- values that version 1 omitted ------------------------------------------------------------------------------------


def _name_cases(document: dict[str, Any]) -> None:
    """A row without a case name was measured with `--backend`, and gets the name of its backend."""
    for row in _objects_at(document, "bench.rows.*"):
        if row.get("case") is None:
            row["case"] = next((spec.get("backend") for spec in _objects_at(row, "spec")), None)


def _name_orders(document: dict[str, Any]) -> None:
    """Before the order was stored, offline pairs were always sorted by length."""
    for row in _objects_at(document, "bench.rows.*"):
        if row.get("scenario") == "offline" and row.get("order") is None:
            row["order"] = "length"


def _name_graphs(document: dict[str, Any]) -> None:
    """Before `optimize` was stored, `export` wrote Optimum's own graph only."""
    for path in ("model", "bench.rows.*.model", "ab.a.model", "ab.b.model"):
        for model in _objects_at(document, path):
            if model.get("graph_sha256") is not None and "optimize" not in model:
                model["optimize"] = "none"


def _name_references(document: dict[str, Any]) -> None:
    """The reference row was written 'torch single-stream batch 1'; the current form has no batch size there."""
    for reference in _objects_at(document, "bench.reference"):
        if isinstance(row := reference.get("row"), str) and row.endswith(" single-stream batch 1"):
            reference["row"] = row.removesuffix(" batch 1")


def _no_added_rounds(document: dict[str, Any]) -> None:
    """Version 1 never added rounds to those of its plan."""
    for plan in _objects_at(document, "bench.plan"):
        plan.setdefault("max_s", 0.0)


def _name_engines(document: dict[str, Any]) -> None:
    """Version 1 began with only the Trainer; the current default chooses an engine."""
    for path in ("train.recipe", "recipe"):
        for recipe in _objects_at(document, path):
            recipe.setdefault("engine", "trainer")


FILLED: tuple[Callable[[dict[str, Any]], None], ...] = (
    _name_cases,
    _name_orders,
    _name_graphs,
    _name_references,
    _no_added_rounds,
    _name_engines,
)


# --- paths ------------------------------------------------------------------------------------------------------------


def _fields_at(document: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object of `document` that has the field `path`, with the field's name."""
    *parents, name = path.split(".")
    for holder in _objects_at(document, ".".join(parents)):
        if name in holder:
            yield holder, name


def _objects_at(document: Any, path: str) -> Iterator[dict[str, Any]]:
    """Each object of `document` at `path`; an empty path is the document itself."""
    found = [document]
    for part in path.split(".") if path else ():
        if part == "*":
            found = [item for items in found if isinstance(items, list) for item in items]
        else:
            found = [item[part] for item in found if isinstance(item, dict) and part in item]
    yield from (item for item in found if isinstance(item, dict))
