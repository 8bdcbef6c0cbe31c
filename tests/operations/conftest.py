"""One control plane with two nodes for every test of an operation: each makes sites of its own."""

from collections.abc import Iterator

import pytest

from tests.controlplane import MakeControlPlane, fresh_home, session_control_plane
from tests.lab import Lab
from tests.place import Place, placed
from tests.playbooks.fixtures import provisioned_snapshot, wp_cli

__all__ = ["fresh_home", "provisioned_snapshot", "session_control_plane", "wp_cli"]


@pytest.fixture(scope="session")
def place(lab: Lab, provisioned_snapshot: str, session_control_plane: MakeControlPlane) -> Iterator[Place]:
    with placed(lab, provisioned_snapshot, session_control_plane, ("web-1", "web-2")) as place:
        yield place
