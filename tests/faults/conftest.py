"""Control planes to break."""

from tests.controlplane import control_plane, fresh_home, shared_control_plane

__all__ = ["control_plane", "fresh_home", "shared_control_plane"]
