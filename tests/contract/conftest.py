from __future__ import annotations

import pytest
from schemathesis.pytest.plugin import SchemathesisFunction

from tests.api.conftest import client, control, fresh_home

__all__ = ["client", "control", "fresh_home"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Schemathesis gives all operations of a test one id; several processes would run one of them alone."""
    for item in items:
        if isinstance(item, SchemathesisFunction):
            item._id = item.id.with_params(str(item.operation_label))
