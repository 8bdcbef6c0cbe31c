"""Nodes on which the baseline is in place: provisioned once per state of the role, then started from a snapshot."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.artifacts.pins import Archive, fetch_wp_cli
from reconciler.roles import role_digest
from tests.lab import Lab, Node
from tests.lab.fixtures import unique_name
from tests.lab.paths import cache_directory
from tests.playbooks.nodes import end_warm_ansible, provision


@pytest.fixture(scope="session")
def wp_cli() -> Archive:
    """The pinned WP-CLI, kept between runs."""
    return fetch_wp_cli(cache_directory().parent / "artifacts")


@pytest.fixture(scope="session")
def provisioned_snapshot(lab: Lab, wp_cli: Archive, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Key of the snapshot. Its node manifest names the node that it was made on, so a rerun writes a new one."""

    def prepare(node: Node) -> None:
        provision(lab, node, tmp_path_factory.mktemp("provision"), wp_cli).raise_if_failed()

    return lab.ensure_snapshot(f"provisioned-{role_digest('node')[:16]}", prepare)


@pytest.fixture(scope="session", autouse=True)
def warm_ansible() -> Iterator[None]:
    """That runs are forks of ends with the session, and what it used is the session's."""
    yield
    end_warm_ansible()


@pytest.fixture
def provisioned_node(lab: Lab, provisioned_snapshot: str) -> Iterator[Node]:
    """A node of the test's own with the whole baseline, a second after asking."""
    node = lab.up(unique_name("provisioned"), snapshot=provisioned_snapshot)
    yield node
    node.down()


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """Where a run's inventory is written."""
    return tmp_path / "run"
