"""Two nodes, a control plane with every service that an operation may ask, two neighbours, and hacked sites."""

from collections.abc import Iterator

import pytest

from reconciler.storage.secret_store import Secrets
from tests.controlplane import MakeControlPlane, fresh_home, session_control_plane
from tests.isolation.canaries import Canaries
from tests.isolation.hacked import Hacked, hack
from tests.isolation.operations import Ground
from tests.isolation.plants import PLANTS
from tests.isolation.trial import Trials, Visitor
from tests.lab import Lab
from tests.lab.acme import acme_server
from tests.lab.git_server import git_daemon
from tests.lab.mirror import update_mirror
from tests.lab.s3 import s3_server
from tests.lab.web_server import web_server
from tests.place import placed
from tests.playbooks.fixtures import provisioned_snapshot, wp_cli

__all__ = ["fresh_home", "provisioned_snapshot", "session_control_plane", "wp_cli"]


@pytest.fixture(scope="package")
def ground(
    lab: Lab,
    provisioned_snapshot: str,
    session_control_plane: MakeControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ground]:
    where = tmp_path_factory.mktemp
    with placed(lab, provisioned_snapshot, session_control_plane, ("web-1", "web-2")) as place:
        gateway = place.nodes["web-1"].network.gateway
        with (
            s3_server(where("s3"), gateway) as storage,
            git_daemon(where("git"), gateway) as git,
            web_server(gateway) as web,
            update_mirror(gateway) as mirror,
            acme_server(where("acme"), gateway) as acme,
        ):
            Secrets(place.plane.home / "secrets").put("backups", storage.credentials)
            platform = storage.platform() + f"  imports: {{allowed_hosts: ['{gateway}']}}\n" + mirror.platform()
            place.plane.clone.push({"platform.yaml": platform + acme.platform()}, "Name all services")
            yield Ground(place, storage, git, web, mirror, acme, b"")


@pytest.fixture(scope="package")
def neighbours(ground: Ground) -> tuple[Hacked, ...]:
    """Two sites on one node, whole and nobody's but their owners'; the tests look at them by scripts of their own."""
    return hack(ground.place, "beta"), hack(ground.place, "gamma")


@pytest.fixture(scope="package")
def canaries(ground: Ground, neighbours: tuple[Hacked, ...]) -> Canaries:
    found = Canaries(ground.place, neighbours[0].node, neighbours, tuple(plant.slug for plant in PLANTS))
    found.put()
    return found


@pytest.fixture(scope="package")
def trials(ground: Ground, canaries: Canaries, neighbours: tuple[Hacked, ...]) -> Iterator[Trials]:
    ground.export = ground.place.export(neighbours[1].environment)
    visitor = Visitor(neighbours[0])
    yield Trials(ground, canaries, visitor)
    visitor.stop()
