"""A forge of each kind, and Trueup's client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.forge import Forge as Declared
from reconciler.forges.model import Forge
from reconciler.forges.opening import forge_of
from reconciler.storage.secret_store import Secrets
from tests.api.conftest import control
from tests.controlplane import control_plane, fresh_home
from tests.forges.server import TOKEN, ForgeServer, forge_server
from tests.proof import sampled
from tests.upstream.conftest import followed, home_of_a_shop, make, person

__all__ = ["control", "control_plane", "followed", "fresh_home", "home_of_a_shop", "make", "person"]


@pytest.fixture(params=sampled(["github", "gitlab", "gitea"]))
def server(request: pytest.FixtureRequest) -> Iterator[ForgeServer]:
    with forge_server(request.param) as found:
        yield found


@pytest.fixture
def client(server: ForgeServer, tmp_path: Path) -> Forge:
    secrets = Secrets(tmp_path / "secrets")
    secrets.put("forge", {"token": TOKEN})
    return forge_of(Declared.model_validate(server.declared()), secrets)
