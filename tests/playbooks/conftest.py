"""Fixtures for tests that run playbooks."""

from tests.playbooks.environments import common_hosting, hosting, own_hosting, wordpress
from tests.playbooks.fixtures import provisioned_node, provisioned_snapshot, run_directory, warm_ansible, wp_cli

__all__ = [
    "common_hosting",
    "hosting",
    "own_hosting",
    "provisioned_node",
    "provisioned_snapshot",
    "run_directory",
    "warm_ansible",
    "wordpress",
    "wp_cli",
]
