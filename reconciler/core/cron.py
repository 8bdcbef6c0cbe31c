"""When a cron expression is due, as crontab(5) reads it: 0 and 7 are Sunday; two kinds of days are either of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_ANY = datetime(2000, 1, 1, tzinfo=UTC)


def checked(cron: str) -> str:
    """``cron``, which has five fields that can be.

    Raises:
        ValueError: it has others.
    """
    fields = "must be five cron fields: minute, hour, day of the month, month, weekday"
    if len(cron.split()) != 5:
        raise ValueError(fields)
    try:
        CronSim(cron, _ANY)
    except CronSimError as error:
        raise ValueError(f"{fields}. {error}.") from error
    return cron


def next_due(cron: str, moment: datetime) -> datetime | None:
    """The first time after ``moment`` (UTC); None: never."""
    return next(CronSim(cron, moment.astimezone(UTC)), None)


def last_due(cron: str, moment: datetime, timezone: str) -> datetime | None:
    """The last time until ``moment``, by the clock of ``timezone``; None: never."""
    second = moment.replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(cron, second.astimezone(ZoneInfo(timezone)), reverse=True), None)
