"""``trueup`` on the command line: the same operations as the API's, for the people on the control plane's host."""

from __future__ import annotations

import sys
from typing import Any

from reconciler.cli.output import fail, log_to_stderr, show_tracebacks
from reconciler.core.errors import TrueupError


def __getattr__(name: str) -> Any:
    """``app``: all commands. Loaded when asked for, because what they need takes seconds."""
    if name == "app":
        from reconciler.cli.application import app

        return app
    raise AttributeError(name)


def main() -> None:
    """Entry point: errors that Trueup raises on purpose become one line and exit code 1."""
    show_tracebacks()
    try:
        _app()()
    except TrueupError as error:
        fail(error.message)


def _app() -> Any:
    """A CI that only reads documents waits neither for the database's modules nor for the API's."""
    from reconciler.cli import reviews

    if sys.argv[1:2] and sys.argv[1] in reviews.COMMANDS:
        return reviews.app
    log_to_stderr()
    from reconciler.cli.application import app

    return app
