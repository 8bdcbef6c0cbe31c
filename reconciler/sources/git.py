"""Code from somebody's Git repository: a reference becomes a commit, and a commit becomes an archive.

The remote is a stranger. Git is run without hooks, submodules, other people's configuration or prompts, with only the
transports named here, never with a value where an option could stand, and with limits on time and size.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from reconciler.core.errors import SourceRefused, SourceUnavailable
from reconciler.sources.hosts import addresses_of, reachable_address

PORTS = {"https": 443, "http": 80, "git": 9418, "ssh": 22}
CANCEL_POLL_S = 0.3
RESOLVE_S = 8.0
CONNECT_S = 3.0
FETCH_S = 600.0
MOST_BYTES = 2 << 30
MOST_SAID, MOST_COMPLAINED = 8 << 20, 1 << 20
MOST_MEMORY = 2 << 30
KEPT = 20

_SCP = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/].*)")
_HOST = re.compile(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PATH = re.compile(r"/[A-Za-z0-9._~/%+@:,=-]+")
_REF = re.compile(r"(?!.*(?:\.\.|@\{|//))[A-Za-z0-9_][A-Za-z0-9._/@+-]{0,254}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class GitSource:
    """A repository and what of it: a branch, a tag or a commit."""

    url: str
    scheme: str
    host: str
    port: int
    ref: str

    @classmethod
    def parse(cls, source_ref: str) -> GitSource:
        """``URL#ref``; without ``#ref`` the remote's HEAD.

        Raises:
            SourceRefused: it isn't of this form, or names a transport that isn't allowed.
        """
        text, _, ref = source_ref.partition("#")
        if scp := _SCP.fullmatch(text):
            text = f"ssh://{scp['user']}@{scp['host']}/{scp['path']}"
        ref = ref or "HEAD"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise SourceRefused(f"source_ref is no URL: {error}. Give https://host/path#ref.") from error
        if parts.scheme not in PORTS:
            raise SourceRefused("source_ref must begin with https://, http://, ssh:// or git://, and may end in #ref.")
        host, path = parts.netloc.rpartition("@")[2].removesuffix(f":{port}"), parts.path
        if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or "/-" in path or parts.query:
            raise SourceRefused("source_ref has a host or a path that cannot be. Give https://host/path#ref.")
        if parts.password is not None:
            raise SourceRefused("source_ref holds a password, and Git would keep it. Leave it out.")
        if parts.username is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", parts.username):
            raise SourceRefused("source_ref has a user name that cannot be.")
        if not _REF.fullmatch(ref) or ref.endswith((".lock", "/", ".")):
            raise SourceRefused("What follows # in source_ref is no branch, tag or commit.")
        return cls(text, parts.scheme, host.lower(), port or PORTS[parts.scheme], ref)


@dataclass(frozen=True)
class _Pinned:
    """How git is sent to the addresses that were checked, and to no others.

    For https it resolves the host itself and is told to what; ssh is given the address in the host's place; a git://
    URL holds the address, and the host's name goes along as whom the server is asked for.
    """

    source: GitSource
    url: str
    addresses: tuple[str, ...]

    @classmethod
    def at(cls, source: GitSource, addresses: Sequence[str]) -> _Pinned:
        url = source.url
        if source.scheme == "git":
            path = urlsplit(source.url).path
            url = f"git://{_bracketed(addresses[0])}:{source.port}{path}"
        return cls(source, url, tuple(addresses))

    def environment(self, home: Path) -> dict[str, str]:
        """``home`` has the key that ssh shows and those of the hosts that were met."""
        host, port = self.source.host, self.source.port
        if self.source.scheme == "git":
            return {"GIT_OVERRIDE_VIRTUAL_HOST": host if port == PORTS["git"] else f"{host}:{port}"}
        if self.source.scheme != "ssh":
            return {}
        known, key = home / "ssh" / "git_known_hosts", home / "ssh" / "git_ed25519"
        bare = host.strip("[]")
        # Under this name the host's key is kept, as ssh itself would name it.
        alias = bare if port == PORTS["ssh"] else f"[{bare}]:{port}"
        ssh = (
            "ssh -F none -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=accept-new "
            f"-o HostName='{self.addresses[0].replace('%', '%%')}' -o HostKeyAlias='{alias}' "
            "-o ProxyCommand=none -o ProxyJump=none "
            f"-o UserKnownHostsFile='{known}' -o IdentitiesOnly=yes -o IdentityAgent=none -i '{key}'"
        )
        return {"GIT_SSH_COMMAND": ssh}


class _Heard:
    """What a program says on one of its pipes, and no more of it than ``most`` bytes. What comes after goes unheard."""

    def __init__(self, pipe: IO[bytes] | None, most: int) -> None:
        assert pipe is not None  # noqa: S101 (asked for)
        self.text = b""
        self.is_too_much = False
        self._pipe, self._most = pipe, most
        self._thread = threading.Thread(target=self._listen, name="git", daemon=True)
        self._thread.start()

    def ended(self, patience_s: float) -> bool:
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """After the program's end. A pipe that another one still holds is left to the thread."""
        if self.ended(CANCEL_POLL_S):
            self._pipe.close()

    def _listen(self) -> None:
        data = bytearray()
        while block := os.read(self._pipe.fileno(), 1 << 16):
            if len(data) + len(block) > self._most:
                self.is_too_much = True
            else:
                data += block
        self.text = bytes(data)


class Git:
    """Runs git for one control plane, whose ``home`` has its own key and the keys of the hosts that it has met."""

    def __init__(self, home: Path, allowed_hosts: Collection[str], cancel: threading.Event | None = None) -> None:
        self._home = home
        self._allowed = allowed_hosts
        self._cancel = cancel or threading.Event()

    def resolve(self, source: GitSource) -> str:
        """The commit that the reference is at now.

        Raises:
            SourceRefused: the host may not be asked.
            SourceUnavailable: the remote doesn't answer within seconds, or has no such reference.
        """
        pinned = self._pinned(source)
        names = ["HEAD"] if source.ref == "HEAD" else _names(source.ref)
        argv = ["ls-remote", "--quiet", "--", pinned.url, *names]
        said = self._git(source, pinned, argv, timeout_s=RESOLVE_S).decode("utf-8", "replace")
        lines = [line.split("\t", 1) for line in said.splitlines() if "\t" in line]
        found = {name: commit for commit, name in lines if _COMMIT.fullmatch(commit)}
        if commit := next((found[name] for name in names if name in found), None):
            return commit
        # A commit that no reference names is only seen when it is fetched.
        if _COMMIT.fullmatch(source.ref):
            return source.ref
        raise SourceUnavailable(f"{source.url} has no branch or tag {source.ref}, and it is no whole commit id.")

    def archive(self, source: GitSource, commit: str, cache: Path) -> Path:
        """A .tar.gz of the commit's tree, always the same bytes; from the cache where it has been fetched before.

        Raises:
            SourceRefused, SourceUnavailable: as in ``resolve``.
        """
        kept = cache / f"{commit}.tar.gz"
        if kept.exists():
            os.utime(kept)
            return kept
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        pinned = self._pinned(source)
        with _workspace(cache) as work:
            repository = work / "repository.git"
            self._git(source, pinned, ["init", "--quiet", "--bare", "--template=", "--", str(repository)])
            self._fetch(source, pinned, commit, repository)
            argv = ["-C", str(repository), "archive", "--format=tar", f"--output={work / 'tree.tar'}", commit]
            self._git(source, pinned, argv, timeout_s=FETCH_S)
            _compress(work / "tree.tar", work / "tree.tar.gz")
            (work / "tree.tar.gz").rename(kept)
        _prune(cache)
        return kept

    def _pinned(self, source: GitSource) -> _Pinned:
        if source.scheme in {"git", "ssh"}:
            address = reachable_address(source.host, source.port, self._allowed, CONNECT_S)
            return _Pinned.at(source, [address])
        return _Pinned.at(source, addresses_of(source.host, source.port, self._allowed))

    def _fetch(self, source: GitSource, pinned: _Pinned, commit: str, repository: Path) -> None:
        fetch = ["-C", str(repository), "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-gc"]
        try:
            self._git(source, pinned, [*fetch, "--depth=1", "--", pinned.url, commit], timeout_s=FETCH_S)
        except SourceUnavailable:
            # Old servers give only what a reference names: take all of those and look.
            every = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            self._git(source, pinned, [*fetch, "--", pinned.url, *every], timeout_s=FETCH_S)
        self._git(source, pinned, ["-C", str(repository), "cat-file", "-e", f"{commit}^{{commit}}"])

    def _git(self, source: GitSource, pinned: _Pinned, argv: Sequence[str], *, timeout_s: float = RESOLVE_S) -> bytes:
        whole = [
            "prlimit",
            f"--fsize={MOST_BYTES}",
            f"--data={MOST_MEMORY}",
            "git",
            *_configuration(source, pinned),
            *argv,
        ]
        process = subprocess.Popen(
            whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment() | pinned.environment(self._home),
            start_new_session=True,
        )
        heard = [_Heard(pipe, most) for pipe, most in ((process.stdout, MOST_SAID), (process.stderr, MOST_COMPLAINED))]
        try:
            self._await(process, heard, time.monotonic() + timeout_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise SourceUnavailable(f"{source.url} {self._why_ended(heard, timeout_s)}.") from None
        finally:
            for one in heard:
                one.close()
        output, error = (one.text for one in heard)
        if process.returncode != 0:
            said = error.decode("utf-8", "replace").strip().splitlines()
            raise SourceUnavailable(f"{source.url} cannot be read: {said[-1][:300] if said else process.returncode}")
        return output

    def _await(self, process: subprocess.Popen[bytes], heard: Sequence[_Heard], deadline: float) -> None:
        """Its end; TimeoutExpired at the deadline, when it says too much, or when nobody wants it any more."""
        # Its pipes end with it: to wait for them costs no time. Who inherited them may keep them open, for no longer.
        while not all(one.ended(CANCEL_POLL_S) for one in heard):
            if self._cancel.is_set() or time.monotonic() > deadline or any(one.is_too_much for one in heard):
                raise subprocess.TimeoutExpired(process.args, 0)
        process.wait(max(CANCEL_POLL_S, deadline - time.monotonic()))
        if any(one.is_too_much for one in heard):
            raise subprocess.TimeoutExpired(process.args, 0)

    def _why_ended(self, heard: Sequence[_Heard], timeout_s: float) -> str:
        if self._cancel.is_set():
            return "was asked no longer"
        if any(one.is_too_much for one in heard):
            return "says more than anybody wants to hear"
        return f"did not answer within {timeout_s:.0f} seconds"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_SSH_VARIANT": "ssh",
            "GIT_NO_REPLACE_OBJECTS": "1",
        }


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _names(ref: str) -> list[str]:
    """What a reference may be called in full, likeliest first; a tag's commit before the tag."""
    if ref.startswith("refs/"):
        return [f"{ref}^{{}}", ref]
    return [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"]


def _configuration(source: GitSource, pinned: _Pinned) -> list[str]:
    addresses = ",".join(map(_bracketed, pinned.addresses))
    settings = {
        "protocol.allow": "never",
        f"protocol.{source.scheme}.allow": "always",
        "protocol.version": "2",
        "core.hooksPath": "/dev/null",
        "core.symlinks": "false",
        "submodule.recurse": "false",
        "fetch.recurseSubmodules": "false",
        "fetch.uriProtocols": "",
        "transfer.bundleURI": "false",
        "http.followRedirects": "false",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
        "http.curloptResolve": f"{source.host.strip('[]')}:{source.port}:{addresses}",
        "credential.helper": "",
        "safe.bareRepository": "all",
        "gc.auto": "0",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


@contextmanager
def _workspace(cache: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as name:
        yield Path(name)


def _compress(source: Path, target: Path) -> None:
    """gzip without a date or a name, so that the same tree is the same file."""
    with source.open("rb") as reader, target.open("wb") as file:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def _prune(cache: Path) -> None:
    """The archives that were used last are kept; any other can be fetched again."""
    archives = sorted(cache.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in archives[KEPT:]:
        path.unlink(missing_ok=True)
