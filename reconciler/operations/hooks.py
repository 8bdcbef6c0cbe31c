"""A forge says that something was pushed there: who may say so, and what it causes, which is a look at upstream."""

from __future__ import annotations

import secrets
from pathlib import Path

import structlog

from reconciler.core.errors import Invalid, NotFound, StoreError
from reconciler.dispatch import Dispatcher
from reconciler.settings import Settings
from reconciler.storage.secret_store import Secrets

log = structlog.get_logger()

NAME = "upstream-hook"
FIELD = "secret"
_SHORTEST = 16
_NONE = "No hook is set up here. Make its secret with `trueup upstream hook`."


def make_key(settings: Settings) -> str:
    """A secret of its own for hooks, in place of an earlier one."""
    key = secrets.token_hex(32)
    Secrets(settings.secrets).put(NAME, {FIELD: key})
    return key


def key_of(settings: Settings) -> bytes:
    """What forges sign their hooks with.

    Raises:
        NotFound: there is none that can be used. Anybody may ask, so the message doesn't say why; the log does.
    """
    store = Secrets(settings.secrets)
    if NAME not in store.names():
        raise NotFound(_NONE)
    try:
        key = store.get(NAME).get(FIELD, "")
    except (Invalid, OSError) as error:
        log.error("secret of hooks cannot be used", secret=NAME, error=str(error))
        raise NotFound(_NONE) from error
    if len(key) < _SHORTEST:
        log.error("secret of hooks cannot be used", secret=NAME, error=f"`{FIELD}` has under {_SHORTEST} characters.")
        raise NotFound(_NONE)
    return key.encode()


def ask(settings: Settings) -> None:
    """Let whoever follows upstream look now. Any number of times before that look is as good as once.

    Raises:
        StoreError: it could not be noted.
    """
    path = settings.upstream_asked
    token = secrets.token_hex(8)
    draft = path.with_name(f".{path.name}.{token}")
    try:
        draft.write_text(token)
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)
    Dispatcher(settings.wake_socket).wake()


def asked(path: Path) -> str:
    """Another text each time that somebody asked."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
