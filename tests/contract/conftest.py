from __future__ import annotations

from tests.api.conftest import client, control, fresh_home

__all__ = ["client", "control", "fresh_home"]
