"""What is remembered of releases' health."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import Engine

from reconciler.core.observed import ObservedHealth
from reconciler.records.health import Health

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WELL = ObservedHealth(release="r", health="healthy", checks={"page": None})
ILL = ObservedHealth(release="r", health="unhealthy", reason="It answers 500.", checks={"page": "500"}, alone=False)


def test_a_release_is_what_it_was_found_last_since_it_became_so(engine: Engine) -> None:
    health, environment, release = Health(engine), uuid4(), uuid4()
    assert health.save(environment, release, WELL, NOW, alone=False) is None
    before = health.save(environment, release, ILL, NOW + timedelta(minutes=5), alone=False)
    assert before is not None
    assert before.found == WELL
    health.save(environment, release, ILL, NOW + timedelta(minutes=6), alone=True)
    health.save(environment, release, ILL, NOW + timedelta(minutes=7), alone=False)
    known = health.of(environment)[release]
    assert (known.health, known.since) == ("unhealthy", NOW + timedelta(minutes=5))
    assert known.alone, "it was found so with the environment to itself"
    assert known.found == ILL
    health.save(environment, release, WELL, NOW + timedelta(minutes=8), alone=False)
    assert not health.of(environment)[release].alone


def test_that_it_was_left_is_known_until_it_is_well_again(engine: Engine) -> None:
    health, environment, release, other = Health(engine), uuid4(), uuid4(), uuid4()
    health.save(environment, release, ILL, NOW, alone=True)
    health.leave(environment, release, other)
    health.save(environment, release, ILL, NOW + timedelta(minutes=5), alone=False)
    assert health.all()[environment, release].left_for == other
    health.save(environment, release, WELL, NOW + timedelta(minutes=10), alone=False)
    assert health.of(environment)[release].left_for is None
    assert health.prune(NOW + timedelta(hours=1)) == 1
    assert health.all() == {}
