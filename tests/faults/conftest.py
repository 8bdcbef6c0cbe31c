"""Control planes to break."""

from tests.controlplane import control_plane, fresh_home, shared_control_plane
from tests.playbooks.fixtures import provisioned_snapshot, wp_cli

__all__ = ["control_plane", "fresh_home", "provisioned_snapshot", "shared_control_plane", "wp_cli"]
