"""How the store stands with the repository that it follows, kept in a file that every process of the home reads."""

from __future__ import annotations

import os
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler.core.errors import StoreError


class State(StrEnum):
    """What the last round came to."""

    IN_STEP = "in-step"
    """Both have the same."""
    AHEAD = "ahead"
    """Upstream moved faster than we could push; the next round tries again."""
    UNREACHABLE = "unreachable"
    """It does not answer. Work goes on here."""
    HELD = "held"
    """What it has is not applied, and nothing is pushed, before a person has looked."""
    REFUSED = "refused"
    """It answers, and does not take what we push."""


class Standing(BaseModel):
    model_config = ConfigDict(frozen=True)

    state: State
    remote: str
    reason: str = ""
    """One word for why it is held."""
    message: str = ""
    """What is wrong and what to do; empty when nothing is."""
    since: datetime
    """Since when it is so, for this reason."""
    checked_at: datetime
    upstream: str | None = None
    """The commit that upstream was last seen at."""

    @property
    def is_well(self) -> bool:
        return self.state in {State.IN_STEP, State.AHEAD}


def read(path: Path) -> Standing | None:
    """None: it was never looked, or what was written is unreadable."""
    try:
        return Standing.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error


def write(path: Path, standing: Standing) -> None:
    """Whole, or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(standing.model_dump_json(indent=1))
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)


def after(before: Standing | None, now: Standing) -> Standing:
    """``now``, since when it has been so."""
    same = before is not None and (before.state, before.reason, before.remote) == (now.state, now.reason, now.remote)
    return now.model_copy(update={"since": before.since}) if before and same else now
