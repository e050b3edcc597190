"""The process that runs the commands of these tests, and a folder with what they break."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_campaign import prepared
from fault_server import FaultServer


@pytest.fixture(scope="session")
def server() -> Iterator[FaultServer]:
    found = FaultServer()
    yield found
    found.close()


@pytest.fixture(scope="session")
def whole(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("faults") / "whole", server)
