"""Bearer tokens: shown once, stored as hashes, ended at once."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select

from reconciler.core.errors import Conflict, Invalid, NotFound
from reconciler.records.database import reading
from reconciler.records.tables import tokens as table
from reconciler.records.tokens import START, Tokens
from tests.records.examples import NOON, after


def test_a_token_is_found_until_it_is_revoked(engine: Engine) -> None:
    tokens = Tokens(engine)
    secret = tokens.create("deploy-ci", "grace@localhost", NOON)
    found = tokens.lookup(secret, after(minutes=1))
    assert found is not None
    assert (found.name, found.read_only, found.created_by, found.expires_at) == (
        "deploy-ci",
        False,
        "grace@localhost",
        None,
    )
    assert tokens.lookup(secret + "x", NOON) is None
    tokens.revoke("deploy-ci", after(minutes=2))
    tokens.revoke("deploy-ci", after(minutes=3))
    assert tokens.lookup(secret, after(minutes=2)) is None
    assert [token.revoked_at for token in tokens.all()] == [after(minutes=2)]


def test_nothing_that_is_stored_is_the_token(engine: Engine) -> None:
    secret = Tokens(engine).create("ci", "grace", NOON)
    with reading(engine) as connection:
        row = connection.execute(select(table)).one()
    assert secret.startswith(START)
    assert len(secret) >= 40
    assert secret not in map(str, row)
    assert row.prefix == secret[: len(row.prefix)]
    assert len(row.prefix) <= len(START) + 5


def test_it_expires(engine: Engine) -> None:
    tokens = Tokens(engine)
    secret = tokens.create("ci", "grace", NOON, expires_at=after(days=1), read_only=True)
    assert tokens.lookup(secret, after(hours=23))
    assert tokens.lookup(secret, after(days=1)) is None


def test_its_last_use_is_remembered_by_the_minute(engine: Engine) -> None:
    tokens = Tokens(engine)
    secret = tokens.create("ci", "grace", NOON)
    assert tokens.all()[0].last_used_at is None
    for seconds in (1, 30, 62):
        tokens.lookup(secret, after(seconds=seconds))
    assert tokens.all()[0].last_used_at == after(seconds=62)


@pytest.mark.parametrize("name", ["", "Deploy", "-ci", "a b", "a\n", "x" * 64, "ci<"])
def test_names_that_cannot_be(engine: Engine, name: str) -> None:
    with pytest.raises(Invalid):
        Tokens(engine).create(name, "grace", NOON)


def test_refusals(engine: Engine) -> None:
    tokens = Tokens(engine)
    with pytest.raises(NotFound):
        tokens.revoke("ci", NOON)
    with pytest.raises(Invalid):
        tokens.create("ci", "grace", NOON, expires_at=NOON)
    tokens.create("ci", "grace", NOON)
    tokens.revoke("ci", NOON)
    with pytest.raises(Conflict):
        tokens.create("ci", "grace", NOON)
