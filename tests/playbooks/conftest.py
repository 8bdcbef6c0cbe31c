"""Fixtures for tests that run playbooks."""

from tests.playbooks.fixtures import provisioned_node, provisioned_snapshot, run_directory, wp_cli

__all__ = ["provisioned_node", "provisioned_snapshot", "run_directory", "wp_cli"]
