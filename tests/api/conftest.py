from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.api.control import Control, control_at


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A control plane with one node and no site."""
    with control_at(tmp_path) as control:
        yield control


@pytest.fixture
def client(control: Control) -> TestClient:
    """A client that has logged in."""
    return control.session()
