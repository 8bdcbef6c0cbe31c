from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.api.control import Control, control_at


@pytest.fixture(scope="session")
def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one node, no site and an administrator; copied, because hashing a password takes its time."""
    home = tmp_path_factory.mktemp("fresh")
    with control_at(home):
        return home


@pytest.fixture
def control(tmp_path: Path, fresh_home: Path) -> Iterator[Control]:
    """A control plane with one node and no site."""
    home = tmp_path / "home"
    shutil.copytree(fresh_home, home)
    with control_at(home) as control:
        yield control


@pytest.fixture
def client(control: Control) -> TestClient:
    """A client that has logged in."""
    return control.session()
