from __future__ import annotations

import time
from statistics import median

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, select

from reconciler.core.errors import Invalid
from reconciler.records.admins import Admins
from reconciler.records.database import reading
from reconciler.records.sessions import Sessions
from reconciler.records.tables import admins, sessions
from tests.records.examples import NOON, after

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery"


def test_the_right_password_and_all_others(engine: Engine) -> None:
    who = Admins(engine, QUICK)
    who.set_password("Ann@Example.com", PASSWORD, NOON)
    assert who.verify(" ann@example.com", PASSWORD, NOON)
    for email, password in (
        ("ann@example.com", PASSWORD + " "),
        ("ann@example.com", ""),
        ("bob@example.com", PASSWORD),
        ("ann@example.com", "x" * 100_000),
        ("ann@example.com\0", PASSWORD),
    ):
        assert not who.verify(email, password, NOON)
    assert who.emails() == ["ann@example.com"]


def test_only_an_argon2id_hash_is_stored(engine: Engine) -> None:
    Admins(engine).set_password("ann@example.com", PASSWORD, NOON)
    with reading(engine) as connection:
        stored = connection.execute(select(admins.c.password_hash)).scalar_one()
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "x" * 1025])
def test_passwords_that_are_too_short_or_too_long(engine: Engine, password: str) -> None:
    with pytest.raises(Invalid, match="Choose one with"):
        Admins(engine, QUICK).set_password("ann@example.com", password, NOON)
    assert Admins(engine, QUICK).emails() == []


def test_a_new_password_replaces_the_old_and_ends_sessions(engine: Engine) -> None:
    who, opened = Admins(engine, QUICK), Sessions(engine)
    who.set_password("ann@example.com", PASSWORD, NOON)
    ann, bob = opened.create("Ann@example.com", "::1", NOON), opened.create("bob@example.com", "::1", NOON)
    who.set_password("ann@example.com", "another long password", NOON)
    assert not who.verify("ann@example.com", PASSWORD, NOON)
    assert who.verify("ann@example.com", "another long password", NOON)
    assert opened.lookup(ann, NOON) is None
    assert opened.lookup(bob, NOON) is not None


def test_a_hash_with_old_parameters_is_renewed_when_it_is_used(engine: Engine) -> None:
    Admins(engine, QUICK).set_password("ann@example.com", PASSWORD, NOON)
    stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    assert not Admins(engine, stronger).verify("ann@example.com", "wrong password", NOON)
    with reading(engine) as connection:
        assert QUICK.check_needs_rehash(connection.execute(select(admins.c.password_hash)).scalar_one()) is False
    assert Admins(engine, stronger).verify("ann@example.com", PASSWORD, NOON)
    with reading(engine) as connection:
        assert stronger.check_needs_rehash(connection.execute(select(admins.c.password_hash)).scalar_one()) is False
    assert Admins(engine, stronger).verify("ann@example.com", PASSWORD, NOON)


def test_an_unknown_address_costs_as_much_as_a_known_one(engine: Engine) -> None:
    who = Admins(engine)
    who.set_password("ann@example.com", PASSWORD, NOON)

    def cost(email: str) -> float:
        times = []
        for _ in range(5):
            begin = time.process_time()
            assert not who.verify(email, "not the password", NOON)
            times.append(time.process_time() - begin)
        return median(times)

    known, unknown = cost("ann@example.com"), cost("nobody@example.com")
    assert 0.4 < unknown / known < 2.5


def test_a_session_lives_a_day(engine: Engine) -> None:
    opened = Sessions(engine)
    token = opened.create("ann@example.com", "192.0.2.1", NOON)
    session = opened.lookup(token, after(hours=23))
    assert session is not None
    assert (session.email, session.source) == ("ann@example.com", "192.0.2.1")
    assert session.expires_at == after(hours=24)
    assert opened.lookup(token, after(hours=24)) is None
    assert opened.prune(after(hours=23)) == 0
    assert opened.prune(after(hours=24)) == 1


def test_tokens_are_stored_hashed_only(engine: Engine) -> None:
    opened = Sessions(engine)
    token = opened.create("ann@example.com", "::1", NOON)
    with reading(engine) as connection:
        row = connection.execute(select(sessions)).one()
    assert token not in str(row)
    assert opened.lookup(row.token_sha256, NOON) is None
    assert len(token) >= 43


@pytest.mark.parametrize("token", ["", "x", "\0", "\ud800", "ä" * 5000])
def test_tokens_that_nobody_gave_out(engine: Engine, token: str) -> None:
    assert Sessions(engine).lookup(token, NOON) is None
    Sessions(engine).revoke(token)


def test_logging_out_ends_one_session(engine: Engine) -> None:
    opened = Sessions(engine)
    here, there = (opened.create("ann@example.com", "::1", NOON) for _ in range(2))
    opened.revoke(here)
    assert opened.lookup(here, NOON) is None
    assert opened.lookup(there, NOON) is not None
    assert opened.revoke_all("ANN@example.com") == 1
    assert opened.lookup(there, NOON) is None


def test_last_seen_is_kept_by_the_minute(engine: Engine) -> None:
    opened = Sessions(engine)
    token = opened.create("ann@example.com", "::1", NOON)
    for seconds, seen in ((59, NOON), (60, NOON), (61, after(seconds=60)), (119, after(seconds=60))):
        session = opened.lookup(token, after(seconds=seconds))
        assert session is not None
        assert session.last_seen_at == seen
