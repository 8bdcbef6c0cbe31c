"""Homes for runs by hand."""

from tests.controlplane import control_plane, fresh_home

__all__ = ["control_plane", "fresh_home"]
