"""One past for all tests of an upgrade."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Lab
from tests.upgrade.old_version import BASE, OldVersion
from tests.upgrade.past import Past, lived, short_directory


@pytest.fixture(scope="session")
def past(lab: Lab) -> Iterator[Past]:
    """What the old version left behind; it takes as long as all tests over it."""
    with short_directory() as top, lived(OldVersion.install(BASE, top), lab, top) as past:
        yield past
