"""What Trueup wants of a forge, whichever it is."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.announcing import CommitState

CONTEXT = "trueup"
"""The name under which a commit's status stands, so that each one replaces the one before it."""


class ForgeError(Exception):
    """What the forge did not do, in words for a person and without the token. It is to be tried again later.

    ``status``: the HTTP status that it answered; None: it did not answer. ``wait_s``: how long it asks to be left
    alone, in seconds.
    """

    def __init__(self, message: str, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s


class Forge(Protocol):
    """One repository on a forge. Everything may be done again: the second time changes nothing."""

    def set_status(self, commit: str, state: CommitState, description: str, url: str | None) -> None:
        """Make this the commit's status. What is longer than the forge takes is cut.

        Raises:
            ForgeError: it didn't.
        """

    def request_of(self, commit: str) -> int | None:
        """The number of the pull or merge request whose merge made this commit; None: there is none.

        Raises:
            ForgeError: it didn't say.
        """

    def comment(self, number: int, marker: str, body: str) -> None:
        """Make ``body`` the comment on a request that begins with ``marker``; an earlier one is changed.

        Raises:
            ForgeError: it didn't.
        """

    def open_request(self, branch: str, base: str, title: str, body: str) -> str:
        """The address of the open request that would merge ``branch`` into ``base``; made where there is none.

        Raises:
            ForgeError: it didn't.
        """


def cut(text: str, most: int) -> str:
    """``text`` in one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
