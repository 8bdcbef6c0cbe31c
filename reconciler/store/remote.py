"""One branch of a remote repository, through Git: where it is, fetching it, pushing to it without ever forcing.

It knows nothing of documents. Keys and credential helpers are those of the environment; nobody is asked for anything,
and nothing that could be a password is told on.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reconciler.core.errors import Invalid, StoreError, UpstreamUnreachable
from reconciler.store.objects import SETTINGS, Answer, commit_hex

FETCHED = "refs/trueup/upstream"
"""What the remote's branch was when it was last fetched; nothing reads it that has not been judged."""

# Nowhere but before the host may a `@` stand, and nothing may follow a `?`: what looks like a path could be a password.
_PATH = r"(?:(?![@?#\\])[!-~])"
_SCP = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?=[A-Za-z0-9~._/]){_PATH}+")
_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_URL = re.compile(rf"(?:(?:ssh|https)://(?:[A-Za-z0-9_][A-Za-z0-9._~-]*@)?{_HOST}/|file:///){_PATH}+")
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)))[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}(?<![./])")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_SECRET = re.compile(r"(?<=://)[^/\s'\"]*@")
_LENGTH = 40
_LONGEST_FOLDER = 200
_MOST_BRANCHES = 5
_ASK_S, _MOVE_S = 60.0, 600.0
_LOOK_S = 0.2
_END_S = 5.0


NAMES = ("TRUEUP_UPSTREAM", "TRUEUP_UPSTREAM_BRANCH", "TRUEUP_UPSTREAM_PATH")


@dataclass(frozen=True)
class Remote:
    """Which branch of which repository, and which folder of it has the documents (empty: its top)."""

    url: str
    branch: str
    folder: str = ""

    @classmethod
    def parse(cls, url: str, branch: str, folder: str | None = None, named: tuple[str, str, str] = NAMES) -> Self:
        """All when they are of a form that is followed; ``named`` is what whoever gave them calls the three.

        Raises:
            Invalid: they aren't. The message doesn't repeat the address: it may hold a password.
        """
        if re.match(r"(?:[a-z]+://)?[^/@]*:[^/]*@", url):
            raise Invalid(f"{named[0]} holds a password. Take it out, and let a Git credential helper know it.")
        if not (_URL.fullmatch(url) or ("://" not in url and _SCP.fullmatch(url))):
            raise Invalid(
                f"{named[0]} is no address that is followed. Give ssh://, https://, git@host:path or file:///path."
            )
        if not _BRANCH.fullmatch(branch):
            raise Invalid(f"{named[1]}: `{branch}` is no branch. Give its name, such as main.")
        return cls(url, branch, checked_folder(folder, named[2]))

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"

    def __str__(self) -> str:
        return f"{_SECRET.sub('', self.url)} ({self.branch}{self.folder and f', {self.folder}'})"


def checked_folder(folder: str | None, named: str) -> str:
    """``folder`` when it can be one of a repository; None, its top, as an empty text.

    Raises:
        Invalid: it cannot.
    """
    if folder is None:
        return ""
    if not _FOLDER.fullmatch(folder) or len(folder) > _LONGEST_FOLDER:
        raise Invalid(
            f"{named}: `{folder}` is no folder of a repository. Give it from the top on, such as hosting/wordpress: "
            "letters, digits, dots, dashes, no slash at either end. Leave it out where the documents are at the top."
        )
    return folder


class Link:
    """Talks to a remote on behalf of the repository at ``path``.

    ``stopping`` ends whatever it waits for; nothing takes longer than ``most_s`` seconds.
    """

    def __init__(
        self, path: Path, remote: Remote, stopping: threading.Event | None = None, *, most_s: float = _MOVE_S
    ) -> None:
        self.remote = remote
        self._most_s = most_s
        self._path = path.resolve()
        self._stopping = stopping or threading.Event()

    def head(self) -> str | None:
        """The commit that the remote's branch is at; None: it has no such branch.

        Raises:
            UpstreamUnreachable: it didn't answer.
        """
        answer = self._ask("ls-remote", "--", self.remote.url, self.remote.ref, patience_s=_ASK_S)
        if answer.status:
            raise self._unreachable(answer)
        for line in answer.output.decode(errors="replace").splitlines():
            commit, _, ref = line.partition("\t")
            if ref == self.remote.ref and len(commit) != _LENGTH:
                raise UpstreamUnreachable(f"{self.remote} names objects by SHA-256. Follow a SHA-1 repository.")
            if ref == self.remote.ref:
                return commit_hex(commit)
        return None

    def branches(self) -> list[str]:
        """What other branches it has, some of them.

        Raises:
            UpstreamUnreachable: it didn't answer.
        """
        answer = self._ask("ls-remote", "--", self.remote.url, "refs/heads/*", patience_s=_ASK_S)
        if answer.status:
            raise self._unreachable(answer)
        refs = [line.partition("\t")[2] for line in answer.output.decode(errors="replace").splitlines()]
        return sorted(_printable(ref.removeprefix("refs/heads/")) for ref in refs)[:_MOST_BRANCHES]

    def fetch(self) -> None:
        """Bring the branch to ``FETCHED``, every object of it checked as one that is pushed is.

        Raises:
            UpstreamUnreachable: it didn't answer, or sent what is no sound history.
        """
        refspec = f"+{self.remote.ref}:{FETCHED}"
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules")
        answer = self._ask("fetch", *options, "--", self.remote.url, refspec, patience_s=_MOVE_S)
        if answer.status:
            raise self._unreachable(answer)

    def push(self, commit: str) -> str | None:
        """Move the remote's branch forward to ``commit``; None when it did, else why it would not.

        Raises:
            UpstreamUnreachable: it didn't answer. Whether it took the commit, the next look tells.
        """
        refspec = f"{commit_hex(commit)}:{self.remote.ref}"
        options = ("--porcelain", "--no-verify", "--recurse-submodules=no", "--no-signed")
        answer = self._ask("push", *options, "--", self.remote.url, refspec, patience_s=_MOVE_S)
        if answer.status == 0:
            return None
        refused = [line for line in answer.output.decode(errors="replace").splitlines() if line.startswith("!\t")]
        if not refused:
            raise self._unreachable(answer)
        said = [line for line in answer.errors.splitlines() if line.startswith("remote:")]
        return _without_secrets(" ".join([refused[0].rpartition("\t")[2], *said[:5]]))

    def _unreachable(self, answer: Answer) -> UpstreamUnreachable:
        lines = [line.strip() for line in _without_secrets(answer.errors).splitlines() if line.strip()]
        # Git's own last lines are advice to look at what the first ones say.
        why = "; ".join(lines[:3]) or f"Git ended with {answer.status}"
        return UpstreamUnreachable(f"{self.remote} did not answer: {why}")

    def _ask(self, command: str, *arguments: str, patience_s: float) -> Answer:
        settings = (part for setting in (*SETTINGS, *_CAREFUL) for part in ("-c", setting))
        argv = ["git", f"--git-dir={self._path}", *settings]
        patience_s = min(patience_s, self._most_s)
        process = _started([*argv, command, *arguments], self._path)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                output, errors = process.communicate(timeout=_LOOK_S)
            except subprocess.TimeoutExpired:
                late = time.monotonic() > deadline
                if late or self._stopping.is_set():
                    _end(process)
                    why = f"it took longer than {patience_s:.0f} s" if late else "Trueup is stopping"
                    raise UpstreamUnreachable(f"{self.remote} did not answer: {why}.") from None
            else:
                return Answer(process.returncode, output, errors.decode(errors="replace").strip())


_CAREFUL = (
    "fetch.fsckObjects=true",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "push.followTags=false",
    "gc.auto=0",
    "maintenance.auto=false",
)


_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file:https:ssh",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GCM_INTERACTIVE": "never",
    "SSH_ASKPASS_REQUIRE": "never",
    "LC_ALL": "C",
}
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"
_NOT_OURS = re.compile(
    "GIT_(?:DIR|COMMON_DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|NAMESPACE|SHALLOW_FILE"
    "|QUARANTINE_PATH|TRACE.*|CURL_VERBOSE)"
)
"""Another repository's, and what would put headers, which hold tokens, among the messages."""


def _environment(path: Path) -> dict[str, str]:
    """Nobody is asked: no terminal (see below), no window, and ssh in its batch mode where nobody chose another."""
    kept = {name: value for name, value in os.environ.items() if not _NOT_OURS.fullmatch(name)}
    chosen = "GIT_SSH" in kept or "GIT_SSH_COMMAND" in kept or _names_ssh(path, kept)
    return {**kept, **_QUIET} if chosen else {**kept, **_QUIET, "GIT_SSH_COMMAND": _SSH}


def _names_ssh(path: Path, environment: dict[str, str]) -> bool:
    """Whether Git's settings say which ssh to run."""
    argv = ["git", f"--git-dir={path}", "config", "--get", "core.sshCommand"]
    return subprocess.run(argv, capture_output=True, env=environment, timeout=_ASK_S, check=False).returncode == 0


def _started(argv: list[str], path: Path) -> subprocess.Popen[bytes]:
    try:
        # A session of its own: nothing can ask at a terminal, and ssh ends with it.
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(path),
            start_new_session=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StoreError(f"Git could not be run: {error}.") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A shared connection of ssh outlives its session, and may keep the other end of our pipes.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_END_S)
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def _without_secrets(text: str) -> str:
    return _printable(_SECRET.sub("", text))


def _printable(text: str) -> str:
    """What a remote says is shown at terminals."""
    return "".join(one if one.isprintable() or one in "\n\t" else "?" for one in text)
