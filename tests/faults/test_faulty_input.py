"""Broken input of every kind, by the command line: one line, the right exit code, no hang and nothing left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_campaign import FAMILIES, failed
from fault_cases import Case
from fault_server import FaultServer

# Of each family, every so many cases run by default: together they take a few seconds. Starting Python for some cases
# takes longer.
EVERY = {
    "data": 4,
    "models": 31,
    "graphs": 7,
    "records": 13,
    "repeated": 13,
    "forgeries": 13,
    "options": 13,
    "environment": 13,
    "interpreter": None,
}


def test_every_kind_of_input_has_its_share() -> None:
    assert set(EVERY) == set(FAMILIES)


@pytest.mark.parametrize("family", [family for family, every in EVERY.items() if every])
def test_a_part_of_the_broken_input_ends_as_it_should(family: str, whole: Path, server: FaultServer) -> None:
    assert [*failed(cases(family)[:: EVERY[family]], whole, server)] == []


@pytest.mark.faults
@pytest.mark.parametrize("family", FAMILIES)
def test_all_broken_input_ends_as_it_should(family: str, whole: Path, server: FaultServer) -> None:
    assert [*failed(cases(family), whole, server)] == []


def cases(family: str) -> list[Case]:
    made: Callable[[], object] = FAMILIES[family]
    return [*made()]  # type: ignore[call-overload, no-any-return]


def test_a_wrong_end_is_seen(whole: Path, server: FaultServer) -> None:
    """The judge itself: each command here ends otherwise than its case says."""
    wrong = (
        Case("works", ("report", "record.json")),
        Case("fails", ("report", "nothing.json"), statuses=(0,)),
        Case("another name", ("report", "nothing.json"), names="something"),
        Case("a file left", ("report", "nothing.json"), lambda folder: (folder / ".x").touch()),
    )
    assert len([*failed(wrong, whole, server)]) == len(wrong)
