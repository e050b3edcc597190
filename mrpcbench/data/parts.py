"""The unchecked rows of a file or split, with the class names that it declares."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mrpcbench.data.labels import LABEL_NAMES, in_order, normal
from mrpcbench.errors import UsageError

EXCHANGED = {0: 1, 1: 0}


class Record(NamedTuple):
    """One unchecked row: its fields by column, and its place (file and line) for messages."""

    place: str
    fields: Mapping[str, object]

    def key(self, columns: Iterable[str]) -> tuple[object, ...]:
        """Its values in `columns`."""
        return tuple(self.fields[column] for column in columns)


class Part(NamedTuple):
    """The unchecked rows of one file or split, and the names of labels 0 and 1, if it declares them.

    `is_reversed` says that it declared the positive class first, so that its labels were exchanged.
    """

    place: str
    records: list[Record]
    names: tuple[str, str] | None = None
    is_reversed: bool = False


def named_part(place: str, records: Iterable[Record], names: Sequence[str]) -> Part:
    """`records` of a source that declares the class `names`; label 1 is the positive class of the part.

    Raises `UsageError` for another number of classes than two.
    """
    if len(names) != len(LABEL_NAMES):
        raise UsageError(f"{place}: declares {len(names)} classes ({', '.join(names)}); paraphrase has two")
    ordered, is_reversed = in_order((names[0], names[1]), place)
    kept = list(records)
    if is_reversed:
        kept = [record._replace(fields=_exchanged(record.fields)) for record in kept]
    return Part(place, kept, ordered, is_reversed)


def _exchanged(fields: Mapping[str, object]) -> dict[str, object]:
    label = fields["label"]
    return {**fields, "label": EXCHANGED.get(label, label) if isinstance(label, int) else label}


def agree(place: str, parts: Iterable[Part]) -> tuple[str, str]:
    """The class names that `parts` declare, or GLUE's if none does. Raises `UsageError` if they differ."""
    parts = list(parts)
    if any(part.is_reversed for part in parts) and (unnamed := [part.place for part in parts if part.names is None]):
        raise UsageError(
            f"{place}: other files declare label 0 as the positive class, and {unnamed[0]} declares no names; "
            "write all files with the same names in the same order"
        )
    declared = sorted({tuple(map(normal, part.names)): part.names for part in parts if part.names}.values())
    if len(declared) > 1:
        raise UsageError(
            f"{place}: the files disagree on the class names, {' and '.join(map(str, declared))}; "
            "write them all with the same names in the same order"
        )
    return declared[0] if declared else LABEL_NAMES
