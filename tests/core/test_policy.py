"""When the loop may apply."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from reconciler.core.plan import Verdict, decide
from reconciler.core.policy import Window, closed, is_open
from tests.core.test_plan import NOW, ROLES, _answer, _fleet

NIGHT = Window(kind="allow", cron="0 2 * * *", minutes=180)
FREEZE = Window(kind="deny", cron="0 0 20 11 *", minutes=12 * 24 * 60)
SUMMER = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("offset", "open_"),
    [
        (timedelta(hours=2) - timedelta(microseconds=1), False),
        (timedelta(hours=2), True),
        (timedelta(hours=5) - timedelta(microseconds=1), True),
        (timedelta(hours=5), False),
    ],
)
def test_it_is_open_from_its_beginning_until_just_before_its_end(offset: timedelta, *, open_: bool) -> None:
    assert is_open(NIGHT, SUMMER + offset) is open_


def test_it_may_last_over_midnight_and_for_days() -> None:
    assert is_open(FREEZE, datetime(2026, 12, 1, 23, 59, tzinfo=UTC))
    assert not is_open(FREEZE, datetime(2026, 12, 2, tzinfo=UTC))


def test_its_clock_is_that_of_its_place() -> None:
    berlin = NIGHT.model_copy(update={"timezone": "Europe/Berlin"})
    assert is_open(berlin, SUMMER + timedelta(minutes=30)), "two hours ahead in summer"
    assert not is_open(berlin, datetime(2026, 1, 1, 0, 30, tzinfo=UTC)), "one in winter"


def test_its_minutes_are_those_of_a_clock_that_nobody_changes() -> None:
    """In the night in which Berlin's clocks go back, two to three comes twice."""
    night = Window(kind="allow", cron="0 1 * * *", minutes=180, timezone="Europe/Berlin")
    began = datetime(2026, 10, 24, 23, tzinfo=UTC)
    assert is_open(night, began)
    assert is_open(night, began + timedelta(minutes=179))
    assert not is_open(night, began + timedelta(minutes=180))


def test_deny_wins_and_several_allow() -> None:
    at_night = datetime(2026, 11, 25, 3, tzinfo=UTC)
    noon = Window(kind="allow", cron="0 12 * * *", minutes=60)
    assert closed((), SUMMER) is None
    assert closed((NIGHT, noon), at_night) is None
    assert closed((NIGHT, noon, FREEZE), at_night) == (
        "Nothing is applied during the window `0 0 20 11 *` (17280 minutes, UTC)."
    )
    assert closed((FREEZE,), SUMMER) is None, "without an allow, all other times are"
    assert closed((NIGHT, noon), SUMMER + timedelta(hours=20)) == (
        "Waits for the window `0 2 * * *` (180 minutes, UTC) or the window `0 12 * * *` (60 minutes, UTC)."
    )


@pytest.mark.parametrize(
    "wrong", [{"cron": "nightly"}, {"minutes": 0}, {"timezone": "Mars/Olympus"}, {"kind": "maybe"}], ids=str
)
def test_what_is_no_window(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Window.model_validate({"kind": "allow", "cron": "0 2 * * *", "minutes": 60, **wrong})


def test_what_a_person_asks_for_waits_for_no_window() -> None:
    windows = [{"kind": "deny", "cron": "* * * * *", "minutes": 1}]
    fleet = _fleet(
        {"desired": {"sites/acme/environments/production.yaml": {"spec": {"reconcile": {"windows": windows}}}}}
    )
    [environment] = fleet.environments
    answers = {"web-1": _answer("provisioned", fleet)}
    for deliberate, verdict in ((frozenset(), Verdict.WAITING), (frozenset({environment}), Verdict.APPLY)):
        plan = decide(fleet, answers, ROLES, NOW, deliberate=deliberate)
        assert [step.verdict for step in plan.steps] == [verdict]
