"""Commits as ``git fast-import`` reads them: many in one stream, on a private ref that nobody sees."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from reconciler.core.errors import Invalid
from reconciler.store.history import CONFIRMING, TRAILER

INCOMING = "refs/trueup/incoming"

_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FORGED = re.compile(rf"(?im)^(\s*(?:{TRAILER}|{CONFIRMING})\s*:)")


@dataclass(frozen=True)
class Author:
    """Who asked for a change."""

    name: str
    email: str


TRUEUP = Author("Trueup", "trueup@localhost")
"""Who commits it."""


@dataclass(frozen=True)
class Prepared:
    """One commit to be: whole contents of the files that it changes; None removes one."""

    contents: Mapping[str, bytes | None]
    message: str
    author: Author
    job: str | None
    authored: int | None = None
    """When it was written, in seconds; None: now."""


def stream(
    prepared: Iterable[Prepared],
    base: str | None,
    now: int,
    ref: str = INCOMING,
    inside: Callable[[str], str] = lambda path: path,
) -> bytes:
    """The commits one upon the other, the first on ``base``; Git answers with the id of each on a line.

    ``inside`` says where in the repository a file is.
    """
    parts = [b"feature done\n"]
    for number, commit in enumerate(prepared, 1):
        parts += [
            b"commit %s\nmark :%d\n" % (ref.encode(), number),
            b"author %s %d +0000\n" % (person(commit.author), now if commit.authored is None else commit.authored),
            b"committer %s %d +0000\n" % (person(TRUEUP), now),
            _data(message(commit.message, commit.job)),
            b"from %s\n" % base.encode() if number == 1 and base else b"",
            *(_file(inside(checked_path(path)), content) for path, content in commit.contents.items()),
            b"get-mark :%d\n" % number,
        ]
    return b"".join([*parts, b"done\n"])


def message(text: str, job: str | None) -> bytes:
    """What a person wrote, without trailers that mean something to Trueup, and the one that only Trueup writes."""
    if job is not None and not _JOB.fullmatch(job):
        raise Invalid(f"`{job}` is no job id.")
    body = _FORGED.sub(r"> \1", text.replace("\0", "").strip()) or "Change the store"
    trailer = f"\n\n{TRAILER}: {job}" if job else ""
    return f"{body}{trailer}\n".encode(errors="replace")


def checked_path(path: str) -> str:
    """``path`` when it can be a file of the store."""
    if not _PATH.fullmatch(path) or len(path) > 500:
        raise Invalid(f"`{path}` is no path for a document. Use letters, digits, dots and dashes.")
    return path


def person(author: Author) -> bytes:
    """As a commit's header names somebody."""
    name = " ".join(re.sub(r"[<>\x00-\x1f\x7f]", " ", author.name).split()) or "Unknown"
    email = re.sub(r"[<>\s\x00-\x1f\x7f]", "", author.email)
    return f"{name} <{email}>".encode(errors="replace")


def _file(path: str, content: bytes | None) -> bytes:
    if content is None:
        return b"D %s\n" % path.encode()
    return b"M 100644 inline %s\n%s" % (path.encode(), _data(content))


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)
