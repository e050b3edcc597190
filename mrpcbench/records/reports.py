"""What `report` says about records, without a format. Standard library only."""

from dataclasses import dataclass

from mrpcbench.schema.records import Record

# A record and its name: its file, with as many folders as needed to distinguish it.
Named = tuple[str, Record]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The records of one `report`, in the order of their files."""

    records: tuple[Named, ...]
