"""Cache flags."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import BaseIntent, Edit, Statuses, refuse_failed, refuse_untouchable


class SetCache(BaseIntent):
    """Switch one environment's page cache and object cache on or off; None leaves one as it is."""

    operation: Literal["set_cache"] = "set_cache"
    environment_id: UUID
    fastcgi: bool | None = None
    redis: bool | None = None


def set_cache(intent: SetCache, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_untouchable(environment, now)
    # Cache flags merge with whatever is queued; only a failed environment must be looked at first.
    refuse_failed(environment, statuses)
    flags = {"fastcgi": intent.fastcgi, "redis": intent.redis}
    wanted = {name: flag for name, flag in flags.items() if flag is not None}
    words = " and ".join(f"{_CACHES[name]} {'on' if flag else 'off'}" for name, flag in wanted.items())
    return Edit(
        message=f"Switch {words} for {environment.key}",
        assign={environment.path: {("spec", "cache", name): flag for name, flag in wanted.items()}},
    )


_CACHES = {"fastcgi": "FastCGI cache", "redis": "Redis cache"}
