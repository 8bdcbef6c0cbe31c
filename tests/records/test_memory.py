"""Audit, observations, drift checks, statuses and leases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from reconciler.core.errors import NotFound, RecordsError
from reconciler.core.observed import ObservedEnvironment, ObservedNode, Unreachable
from reconciler.records.audit import REMOVED, Audit, Entry, without_secrets
from reconciler.records.backups import Backup, Backups
from reconciler.records.drift import DriftCheck, DriftChecks
from reconciler.records.leases import Leases
from reconciler.records.observations import Observations
from reconciler.records.status import EnvironmentStatuses
from tests.records.examples import NOON, after


def test_audit_tells_who_did_what(engine: Engine) -> None:
    audit = Audit(engine)
    site, job = uuid4(), uuid4()
    entry = Entry(
        who="ann@example.com",
        source="192.0.2.1",
        operation="site-create",
        outcome="accepted",
        site_id=site,
        job_id=job,
        summary={"slug": "acme", "admin": {"password": "hunter2", "user": "ann"}},
    )
    first = audit.append(entry, NOON)
    second = audit.append(Entry(who="trueup", source="", operation="reconcile", outcome="done", summary={}), NOON)
    newest, oldest = audit.latest()
    assert (newest.id, oldest.id, oldest.at) == (second, first, NOON)
    assert oldest.entry.summary == {"slug": "acme", "admin": {"password": REMOVED, "user": "ann"}}
    assert (oldest.entry.who, oldest.entry.site_id) == ("ann@example.com", site)
    assert [found.id for found in audit.latest(site_id=site)] == [first]
    assert [found.id for found in audit.latest(job_id=job)] == [first]
    assert audit.latest(environment_id=uuid4()) == []
    assert [found.id for found in audit.latest(limit=1)] == [second]
    assert [found.id for found in audit.latest(before_id=second)] == [first]


def test_audit_prune(engine: Engine) -> None:
    audit = Audit(engine)
    for hour in range(3):
        audit.append(Entry(who="a", source="", operation="o", outcome="done", summary={}), after(hours=hour))
    assert audit.prune(after(hours=2)) == 2
    assert [found.at for found in audit.latest()] == [after(hours=2)]


def test_without_secrets() -> None:
    given = {"Session_Token": 1, "list": [{"api_key": "k", "n": (1, 2)}], "apiKey": "k", "host_key": "public"}
    kept = {"Session_Token": REMOVED, "list": [{"api_key": REMOVED, "n": [1, 2]}], "apiKey": REMOVED}
    assert without_secrets(given) == kept | {"host_key": "public"}


def test_an_unreachable_node_keeps_its_last_answer(engine: Engine) -> None:
    seen, node = Observations(engine), uuid4()
    assert seen.latest(node) is None
    environment = ObservedEnvironment(applied=None, files={"/etc/x": None}, wordpress_version="7.1.1")
    answer = ObservedNode(observed_at=NOON, hostname="web-1 \0", environments={str(uuid4()): environment})
    seen.save(node, answer, NOON)
    for minute in (1, 2):
        seen.save(node, Unreachable(since=after(minutes=minute), reason="no route"), after(minutes=minute))
    latest = seen.latest(node)
    assert latest is not None
    assert latest.observed == answer
    assert latest.unreachable == Unreachable(since=after(minutes=1), reason="no route")
    assert (latest.reachable, latest.checked_at) == (False, after(minutes=2))
    newer = answer.model_copy(update={"observed_at": after(minutes=3)})
    seen.save(node, newer, after(minutes=3))
    assert seen.all()[node].observed == newer
    assert seen.all()[node].reachable
    seen.forget(node)
    assert seen.all() == {}


def test_a_node_that_never_answered(engine: Engine) -> None:
    seen, node = Observations(engine), uuid4()
    seen.save(node, Unreachable(since=NOON, reason="no route"), NOON)
    latest = seen.latest(node)
    assert latest is not None
    assert (latest.observed, latest.reachable) == (None, False)


def test_an_older_look_changes_nothing(engine: Engine) -> None:
    seen, node = Observations(engine), uuid4()
    answer = ObservedNode(observed_at=after(minutes=1), hostname="web-1")
    seen.save(node, answer, after(minutes=1))
    seen.save(node, Unreachable(since=NOON, reason="late"), NOON)
    assert seen.all()[node].observed == answer
    assert seen.all()[node].reachable


def test_drift_checks_are_history(engine: Engine) -> None:
    checks, one, other = DriftChecks(engine), uuid4(), uuid4()
    assert checks.latest(one) is None
    made = [
        DriftCheck(id=uuid4(), environment_id=environment, status=status, differences=found, created_at=after(hours=n))
        for n, (environment, status, found) in enumerate(
            [(one, "drifted", ({"path": "/etc/x", "kind": "modified"},)), (other, "clean", ()), (one, "clean", ())]
        )
    ]
    for check in made:
        checks.save(check)
        checks.save(check)
    assert checks.history(one) == [made[2], made[0]]
    assert checks.latest(one) == made[2]
    assert checks.latest_all() == {one: made[2], other: made[1]}
    assert checks.prune(after(days=9)) == 1
    assert checks.latest_all() == {one: made[2], other: made[1]}


def test_the_newest_full_backup_is_a_completed_one(engine: Engine) -> None:
    backups, environment = Backups(engine), uuid4()
    assert backups.newest_full(environment, after(hours=9)) is None
    made = [
        Backup(
            id=uuid4(),
            environment_id=environment,
            backup_scope=scope,
            status=status,
            created_at=after(hours=hour),
            completed_at=after(hours=hour) if status == "completed" else None,
        )
        for hour, (scope, status) in enumerate(
            [("full", "completed"), ("full", "completed"), ("db", "completed"), ("full", "failed"), ("full", "running")]
        )
    ]
    for backup in made:
        backups.save(backup)
    assert backups.of(environment) == made[::-1]
    assert backups.newest_full(environment, after(hours=9)) == made[1]
    assert backups.newest_full(environment, after(minutes=59)) == made[0], "the other is yet to come"
    assert [backups.newest(environment, after(hours=hours)) for hours in (0, 1, 2)] == made[:3]
    backups.save(replace(made[1], status="expired"))
    assert backups.newest_full(environment, after(hours=9)) == made[0]
    assert backups.get(made[1].id).status == "expired"
    with pytest.raises(NotFound):
        backups.get(uuid4())


def test_a_status_counts_its_changes(engine: Engine) -> None:
    statuses, environment, job = EnvironmentStatuses(engine), uuid4(), uuid4()
    assert statuses.get(environment) is None
    first = statuses.put(environment, "active", NOON)
    assert (first.version, first.changed_at) == (1, NOON)
    assert statuses.put(environment, "active", after(hours=1)) == first
    second = statuses.put(environment, "deploying", after(hours=2), "release 5", job)
    assert (second.version, second.reason, second.job_id) == (2, "release 5", job)
    assert statuses.get(environment) == second
    assert statuses.all() == {environment: second}
    with pytest.raises(RecordsError):
        statuses.put(environment, "sleeping", NOON)
    assert statuses.get(environment) == second
    statuses.forget(environment)
    assert statuses.all() == {}


def test_no_change_of_status_is_lost(engine: Engine) -> None:
    statuses, environment = EnvironmentStatuses(engine), uuid4()
    start = Barrier(8)

    def change(n: int) -> int:
        start.wait()
        return statuses.put(environment, "active", NOON, f"reason {n}").version

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(change, range(8))) == list(range(1, 9))


def test_a_lease_has_one_holder(engine: Engine) -> None:
    leases, life = Leases(engine), timedelta(seconds=30)
    assert leases.acquire("scheduler", "a", NOON, life)
    assert not leases.acquire("scheduler", "b", after(seconds=29), life)
    assert leases.acquire("another", "b", NOON, life)
    assert leases.acquire("scheduler", "a", after(seconds=20), life)
    assert not leases.acquire("scheduler", "b", after(seconds=40), life)
    assert leases.holder("scheduler", after(seconds=40)) == "a"
    assert leases.holder("scheduler", after(seconds=50)) is None
    assert leases.acquire("scheduler", "b", after(seconds=50), life)
    leases.release("scheduler", "a")
    assert leases.holder("scheduler", after(seconds=51)) == "b"
    leases.release("scheduler", "b")
    assert leases.acquire("scheduler", "a", after(seconds=51), life)


def test_one_of_sixteen_gets_the_lease(engine: Engine) -> None:
    leases, start = Leases(engine), Barrier(16)

    def acquire(n: int) -> bool:
        start.wait()
        return leases.acquire("scheduler", f"w{n}", NOON, timedelta(seconds=30))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(acquire, range(16))) == 1
