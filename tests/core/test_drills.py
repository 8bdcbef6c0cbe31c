"""When backups are drilled, and what a promotion asks of that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from reconciler.core.drills import DAY, PERIODS, Drillable, LastDrill, drill_of, is_due, within
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import DrillGateUnmet
from reconciler.core.fleet import Fleet
from reconciler.core.manifests import Drill, DrillEvery
from reconciler.core.promotion import Checked, Evidence, refuse_unmet
from tests.core.documents import environment, fleet_of, small

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
STORAGE = {"endpoint": "https://s3.example.com", "bucket": "backups"}


def _fleet(platform: dict[str, Any] | None, own: dict[str, Any] | None) -> tuple[EnvironmentEntry, Fleet]:
    documents = small()
    backups = {"backups": {**STORAGE, **({"drill": platform} if platform else {})}}
    documents["platform.yaml"] = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": backups}
    documents["sites/acme/environments/production.yaml"] = environment(**({"backups": {"drill": own}} if own else {}))
    fleet = fleet_of(documents)
    assert fleet.stalled == ()
    return next(iter(fleet.environments.values())), fleet


@pytest.mark.parametrize(
    ("platform", "own", "expected"),
    [
        (None, None, (DrillEvery.WEEKLY, False)),
        ({"every": "monthly"}, None, (DrillEvery.MONTHLY, False)),
        ({"every": "monthly", "required_for_promotion": True}, {"every": "daily"}, (DrillEvery.DAILY, True)),
        ({"required_for_promotion": True}, {"required_for_promotion": False}, (DrillEvery.WEEKLY, False)),
        (None, {"every": "never"}, (DrillEvery.NEVER, False)),
    ],
)
def test_an_environment_says_otherwise_than_the_platform(
    platform: dict[str, Any] | None, own: dict[str, Any] | None, expected: tuple[DrillEvery, bool]
) -> None:
    found = drill_of(*_fleet(platform, own))
    assert (found.every, found.required_for_promotion) == expected


def test_what_is_said_of_drills_configures_no_environment_anew() -> None:
    entry, plain = _fleet(None, None)
    _, other = _fleet({"every": "daily", "required_for_promotion": True}, {"every": "never"})
    assert other.environment_variables(entry.id).digest() == plain.environment_variables(entry.id).digest()


def _known(*, first: timedelta = 100 * DAY, asked: timedelta | None = None, passed: bool = False) -> Drillable:
    return Drillable(NOW - first, passed, NOW - asked if asked is not None else None)


def test_each_period_has_one_moment_and_it_is_the_environments_own() -> None:
    asked = _known(asked=timedelta(0))
    for every, period in PERIODS.items():
        moments = set()
        for _ in range(20):
            environment_id = uuid4()
            minutes = range(0, int(period.total_seconds() // 60) + 1)
            # Once due, it stays so until a drill was asked for.
            low, high = minutes[0], minutes[-1]
            assert is_due(environment_id, every, asked, NOW + timedelta(minutes=high))
            while low < high:
                middle = (low + high) // 2
                if is_due(environment_id, every, asked, NOW + timedelta(minutes=middle)):
                    high = middle
                else:
                    low = middle + 1
            moments.add(low)
        assert len(moments) > 10


def test_the_first_day_is_left_alone_and_an_upgrade_drills_no_fleet_at_once() -> None:
    ids = [uuid4() for _ in range(700)]
    assert not any(is_due(one, DrillEvery.WEEKLY, _known(first=DAY), NOW) for one in ids)
    due = [one for one in ids if is_due(one, DrillEvery.WEEKLY, _known(), NOW)]
    assert 20 < len(due) < 250, "a seventh of them"


def test_what_passed_is_not_tried_again_and_what_failed_is() -> None:
    for one in (uuid4() for _ in range(20)):
        assert not is_due(one, DrillEvery.DAILY, _known(asked=9 * DAY, passed=True), NOW)
        assert is_due(one, DrillEvery.DAILY, _known(asked=9 * DAY), NOW)
        assert not is_due(one, DrillEvery.NEVER, _known(asked=9 * DAY), NOW)


def test_moments_that_are_yet_to_come_put_nothing_off() -> None:
    for one in (uuid4() for _ in range(20)):
        for known in (
            _known(asked=-90 * DAY),
            _known(first=-90 * DAY),
            Drillable(NOW - 100 * DAY, newest_passed=False, asked_at=None, cancelled_at=NOW + 90 * DAY),
        ):
            assert is_due(one, DrillEvery.DAILY, known, NOW)
    lately = Drillable(NOW - 100 * DAY, newest_passed=False, asked_at=None, cancelled_at=NOW)
    assert not is_due(uuid4(), DrillEvery.DAILY, lately, NOW + timedelta(minutes=59))


def test_how_long_a_drill_counts() -> None:
    assert within(Drill()) is None
    counted = {every: within(Drill(every=every, required_for_promotion=True)) for every in DrillEvery}
    assert counted == {"daily": 2 * DAY, "weekly": 8 * DAY, "monthly": 31 * DAY, "never": 8 * DAY}


def _evidence(drill: LastDrill | None, drill_within: timedelta | None = 8 * DAY) -> Evidence:
    just = NOW - timedelta(minutes=5)
    check = Checked(just, "t", ())
    return Evidence("shop/staging", "shop/production", "t", check, None, just, drill_within, drill)


@pytest.mark.parametrize(
    ("drill", "said"),
    [
        (None, "ever drilled"),
        (LastDrill(NOW + DAY, passed=True), "ever drilled"),
        (LastDrill(NOW - DAY, passed=False, error="wp_orders is missing."), "failed: wp_orders is missing"),
        (LastDrill(NOW - 8 * DAY - timedelta(seconds=1), passed=True), "more than 8 days old"),
    ],
)
def test_the_drill_gate(drill: LastDrill | None, said: str) -> None:
    with pytest.raises(DrillGateUnmet, match=said):
        refuse_unmet(_evidence(drill), NOW)
    refuse_unmet(_evidence(drill, None), NOW)


def test_a_drill_that_passed_opens_the_gate() -> None:
    refuse_unmet(_evidence(LastDrill(NOW - 8 * DAY, passed=True)), NOW)


def test_the_moment_does_not_depend_on_when_it_is_asked_for() -> None:
    one = UUID(int=3600)
    midnight = datetime(1970, 1, 8, tzinfo=UTC)
    known = Drillable(midnight - 9 * DAY, newest_passed=False, asked_at=midnight)
    assert not is_due(one, DrillEvery.WEEKLY, known, midnight + timedelta(seconds=3599))
    assert is_due(one, DrillEvery.WEEKLY, known, midnight + timedelta(seconds=3600))
