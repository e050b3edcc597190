"""The identity of a benchmark row, and its text form: 'onnx offline batch 32', 'onnx single-stream'.

Standard library only.
"""

import re
from dataclasses import dataclass
from typing import Self, cast

from mrpcbench.schema.requests import Scenario

_CASE = r"(?P<case>[A-Za-z0-9._-]+)"
_SIZE = r"[1-9][0-9]*"
# The text form of a single-stream row omits its batch size, which is always one.
_ROW = re.compile(
    rf"{_CASE} (?:(?P<single>single-stream)(?: batch 1)?|(?P<scenario>offline|server) batch (?P<size>{_SIZE}))"
)
_SHORT = re.compile(rf"{_CASE}(?::(?P<size>{_SIZE}))?")


@dataclass(frozen=True, kw_only=True)
class RowId:
    """One benchmark case in one scenario at one batch size. It is unique within a record.

    Raises `ValueError` for values whose text form could not be parsed.
    """

    case: str
    scenario: Scenario
    batch_size: int

    def __post_init__(self) -> None:
        if re.fullmatch(_CASE, self.case) is None:
            raise ValueError(f"case {self.case!r}: letters, digits, '.', '_' and '-' only")
        if self.batch_size < 1 or (self.scenario == "single-stream" and self.batch_size != 1):
            raise ValueError(f"{self.case} {self.scenario}: no batch size {self.batch_size}")

    def __str__(self) -> str:
        size = "" if self.scenario == "single-stream" else f" batch {self.batch_size}"
        return f"{self.case} {self.scenario}{size}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The row that `text` names; raises `ValueError` if it is not a full text form."""
        if match := _ROW.fullmatch(text):
            scenario = cast(Scenario, match["single"] or match["scenario"])
            return cls(case=match["case"], scenario=scenario, batch_size=int(match["size"] or 1))
        raise ValueError(f"{text!r} is not a row; write it as 'onnx offline batch 32' or 'onnx single-stream'")


@dataclass(frozen=True, kw_only=True)
class RowSelector:
    """The rows that a user selects: one by its text form, or all of CASE, or those of CASE:BATCH."""

    case: str
    batch_size: int | None = None
    row: RowId | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The selection that `text` describes; raises `ValueError` for any other form."""
        if match := _SHORT.fullmatch(text):
            return cls(case=match["case"], batch_size=int(match["size"]) if match["size"] else None)
        row = RowId.parse(text)
        return cls(case=row.case, row=row)

    def matches(self, row: RowId) -> bool:
        """Whether `row` is selected."""
        if self.row is not None:
            return row == self.row
        return row.case == self.case and self.batch_size in (None, row.batch_size)
