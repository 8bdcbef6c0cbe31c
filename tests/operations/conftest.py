"""One control plane with two nodes for every test of an operation: each makes sites of its own.

They go with the last test here: idle, they would still be asked how they are every other second.
"""

from collections.abc import Iterator

import pytest

from reconciler.storage.secret_store import Secrets
from tests.controlplane import MakeControlPlane, fresh_home, session_control_plane
from tests.lab import Lab
from tests.lab.s3 import S3, s3_server
from tests.place import Place, placed
from tests.playbooks.fixtures import provisioned_snapshot, wp_cli

__all__ = ["fresh_home", "provisioned_snapshot", "session_control_plane", "wp_cli"]


@pytest.fixture(scope="package")
def place(lab: Lab, provisioned_snapshot: str, session_control_plane: MakeControlPlane) -> Iterator[Place]:
    with placed(lab, provisioned_snapshot, session_control_plane, ("web-1", "web-2")) as place:
        yield place


@pytest.fixture(scope="package")
def storage(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Storage that the platform document names, with its keys in the control plane's secrets."""
    gateway = next(iter(place.nodes.values())).network.gateway
    with s3_server(tmp_path_factory.mktemp("s3"), gateway) as server:
        Secrets(place.plane.home / "secrets").put("backups", server.credentials)
        place.plane.clone.push({"platform.yaml": server.platform()}, "Name the storage")
        yield server
