"""One control plane with a node and all services around it for the cases of every operation."""

from collections.abc import Iterator

import pytest

from reconciler.storage.secret_store import Secrets
from tests.controlplane import MakeControlPlane, fresh_home, session_control_plane
from tests.lab import Lab
from tests.lab.acme import acme_server
from tests.lab.git_server import git_daemon
from tests.lab.listener import Listener, listener
from tests.lab.mirror import update_mirror
from tests.lab.s3 import s3_server
from tests.lab.stand import Stand
from tests.lab.web_server import web_server
from tests.place import placed
from tests.playbooks.fixtures import provisioned_snapshot, wp_cli

__all__ = ["fresh_home", "provisioned_snapshot", "session_control_plane", "wp_cli"]


@pytest.fixture(scope="package")
def stand(
    lab: Lab,
    provisioned_snapshot: str,
    session_control_plane: MakeControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stand]:
    where = tmp_path_factory.mktemp
    with placed(lab, provisioned_snapshot, session_control_plane, ("web-1",)) as place:
        gateway = place.nodes["web-1"].network.gateway
        with (
            s3_server(where("s3"), gateway) as storage,
            git_daemon(where("git"), gateway) as code,
            web_server(gateway) as web,
            update_mirror(gateway) as mirror,
            acme_server(where("acme"), gateway) as acme,
        ):
            Secrets(place.plane.home / "secrets").put("backups", storage.credentials)
            platform = storage.platform() + f"  imports: {{allowed_hosts: ['{gateway}']}}\n" + mirror.platform()
            place.plane.clone.push({"platform.yaml": platform + acme.platform()}, "Name all services")
            yield Stand(place, storage, code, web, mirror, acme)


@pytest.fixture(scope="package")
def outside(stand: Stand) -> Iterator[Listener]:
    with listener(stand.place.nodes["web-1"].network.gateway) as found:
        yield found
