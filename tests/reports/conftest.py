from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import control, fresh_home
from tests.api.control import Control
from tests.reports.desk import Desk, desk_at
from tests.reports.receivers import Hook, Post, mail_server, web_server

__all__ = ["control", "fresh_home"]


@pytest.fixture
def desk(control: Control) -> Iterator[Desk]:
    """A control plane whose only environment is as declared, at a moment that tests move."""
    with desk_at(control) as desk:
        yield desk


@pytest.fixture
def hook() -> Iterator[Hook]:
    with web_server() as hook:
        yield hook


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    with mail_server(tmp_path) as post:
        yield post
