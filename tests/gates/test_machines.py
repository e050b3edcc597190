"""Tests of mrpcbench.gates.machines: containers of one machine are one machine, and what differs is named."""

from dataclasses import replace

import pytest
from records import ENVIRONMENT, make_record

from mrpcbench.gates.comparability import comparability
from mrpcbench.gates.machines import machine_differences
from mrpcbench.schema.identity import Environment, MachineTraits

TRAITS = MachineTraits(boot="b" * 16, machine_id="c" * 16, network_address="dddd", hostname="ee")
HERE = replace(ENVIRONMENT, machine=TRAITS)


def elsewhere(**changes: str | None) -> Environment:
    """The environment of another hash, with traits that differ in `changes`."""
    return replace(HERE, machine_sha256="6" * 64, machine=replace(TRAITS, **changes))


def differences(was: Environment, now: Environment) -> tuple[str, ...]:
    """What the comparison of two benchmarks refuses."""
    old = make_record("bench", environment=was)
    new = make_record("bench", environment=replace(now, started_at="2025-01-03T03:04:05+00:00"))
    return comparability([("old.json", old)], [("new.json", new)])[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": "ff"},
        {"hostname": "ff", "network_address": "ffff", "machine_id": None},
        {"boot": "f" * 16, "hostname": "ff"},
    ],
    ids=["another hostname", "another container", "a new name after a restart"],
)
def test_containers_of_one_machine_are_compared(changes: dict[str, str | None]) -> None:
    assert differences(HERE, elsewhere(**changes)) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"boot": "f" * 16, "network_address": "ffff"}, "boot differs, network address differs"),
        ({"boot": None, "machine_id": None}, "boot unknown, machine id unknown"),
        (
            {"boot": "f" * 16, "machine_id": "f" * 16, "hostname": "ff"},
            "boot differs, machine id differs, hostname differs",
        ),
    ],
)
def test_another_machine_is_refused_with_what_differs(changes: dict[str, str | None], words: str) -> None:
    assert differences(HERE, elsewhere(**changes)) == (f"machine_sha256: 555555555555, now 666666666666 ({words})",)


def test_records_without_traits_are_told_apart_by_their_hash() -> None:
    old = replace(HERE, machine=None)
    assert list(machine_differences(old, HERE)) == []
    (line,) = machine_differences(old, elsewhere())
    assert line == "machine_sha256: 555555555555, now 666666666666"
