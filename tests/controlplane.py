"""A whole control plane for tests: a real home, `trueup serve` as a process of its own, HTTP with a real session.

It is what an operator has. A test may kill it, restart it, push to its store, and look into its records from outside.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from reconciler.cli import app
from reconciler.core.errors import TrueupError
from reconciler.home import Home, clock, create
from reconciler.settings import Settings
from reconciler.store.repository import Author
from tests.lab.node import Node
from tests.lab.paths import cache_directory
from tests.lab.ports import free_port

EMAIL, PASSWORD = "admin@example.com", "correct horse battery"
AUTHOR = Author("Grace Hopper", "grace@example.com")
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKm0qE5bWbOJnJHgWZXvWbJvT8s8kXjP2r0Yh3wq5m1D"
PATIENCE_S = 300.0
LONGEST_PAUSE_S = 0.5
FAST: Mapping[str, str] = {
    "TRUEUP_OBSERVE_INTERVAL_S": "3",
    "TRUEUP_STORE_POLL_S": "0.5",
    "TRUEUP_LEASE_S": "6",
    "TRUEUP_ARTIFACT_SOURCES": "npm",
}


WITH_NODES: Mapping[str, str] = {"TRUEUP_WARM_ANSIBLE": "true"}
WITHOUT_NODES: Mapping[str, str] = {"TRUEUP_WARM_ANSIBLE": "false"}
"""Where no node answers no playbook is run, and Ansible need not be imported for it."""


class Clone:
    """Somebody's clone of the store: what a pull request's author and its merge do."""

    def __init__(self, store: Path, path: Path) -> None:
        self.path = path
        run_git(store.parent, "clone", "-q", str(store), str(path))
        run_git(path, "config", "user.name", AUTHOR.name)
        run_git(path, "config", "user.email", AUTHOR.email)

    def push(self, files: Mapping[str, str | bytes | None], message: str = "Change by hand") -> str:
        """Commit files (None: removed) on the newest main, where they are other ones, and push; the commit's id."""
        run_git(self.path, "pull", "-q", "--rebase", "origin", "main")
        for name, content in files.items():
            path = self.path / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        run_git(self.path, "add", "-A")
        if run_git(self.path, "status", "--porcelain"):
            run_git(self.path, "commit", "-q", "-m", message)
        until(self._is_pushed, "nobody else to push at the same moment")
        return run_git(self.path, "rev-parse", "HEAD")

    def _is_pushed(self) -> bool:
        """False where the loop, which commits too, came first: what it says is beneath ours then."""
        argv = ["git", "-C", str(self.path), "push", "-q", "origin", "HEAD:main"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=180)
        if done.returncode == 0:
            return True
        came_first = any(words in done.stderr for words in ("fetch first", "non-fast-forward", "cannot lock ref"))
        assert came_first, f"git push: {done.stderr}"
        run_git(self.path, "pull", "-q", "--rebase", "origin", "main")
        return False

    def read(self, name: str) -> str:
        run_git(self.path, "pull", "-q", "--rebase", "origin", "main")
        return (self.path / name).read_text()

    def replace(self, name: str, old: str, new: str) -> str:
        """Push a document with `old` replaced by `new`; the commit's id."""
        text = self.read(name)
        assert old in text, f"{old!r} is not in {name}:\n{text}"
        return self.push({name: text.replace(old, new)})


SHORT_LIVED = httpx.Limits(keepalive_expiry=2)
"""Earlier versions end a connection that nobody used for five seconds: who asks at that moment has no answer."""


class ControlPlane:
    """One home, and the process that serves it. `http` has logged in.

    `trueup`: the program that serves and that `command` runs, such as an older version's; this checkout's otherwise.
    `cli` and `opened` are this checkout's own always: they would migrate an older version's home.
    """

    def __init__(self, home: Path, *, trueup: Path | None = None, **settings: str) -> None:
        self.home = home
        self.trueup = str(trueup or program())
        self.settings = settings
        self.log_file = home.with_name(f"{home.name}-{secrets.token_hex(2)}.log")  # outside: a full home can't fill it
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=120, trust_env=False, limits=SHORT_LIVED
        )
        self._clone: Clone | None = None

    @property
    def store(self) -> Path:
        return self.home / "store.git"

    @property
    def environment(self) -> dict[str, str]:
        """What `trueup` commands for this home run with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUEUP_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)  # else every start compiles every package again
        own = {"TRUEUP_HOME": str(self.home), "TRUEUP_LISTEN_PORT": str(self.port), "NO_COLOR": "1"}
        return {**kept, "TRUEUP_CACHE": str(cache_directory().parent), **FAST, **own, **self.settings}

    # The process

    def start(self, *, ready: bool = True) -> "ControlPlane":
        """Serve; returns once `/readyz` says so, or with ``ready=False`` once anything answers."""
        assert self.process is None, "it runs already"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [self.trueup, "serve"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        path = "/readyz" if ready else "/healthz"
        until(lambda: self._ended() or self._answers(path), f"{path} to answer", told=self.log)
        assert self.process.poll() is None, f"`trueup serve` ended with {self.process.poll()}:\n{self.log()}"
        return self

    def kill(self) -> None:
        """SIGKILL, the process alone: what it started lives on, as after an out-of-memory kill."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.process = None

    def terminate(self, patience_s: float = 90) -> int:
        """SIGTERM as systemd sends it, and with systemd's patience; the exit status."""
        assert self.process
        self.process.terminate()
        status = self.process.wait(patience_s)
        self.process = None
        return status

    def restart(self) -> None:
        self.start()

    def log(self) -> str:
        with suppress(FileNotFoundError):
            return self.log_file.read_text(errors="replace")[-6000:]
        return ""

    def has_logged(self, word: str) -> bool:
        """Whether the log has it anywhere: what is waited for may be followed by much more."""
        return self.log_file.exists() and word in self.log_file.read_text(errors="replace")

    def client(self) -> httpx.Client:
        """Another client with the same session."""
        return httpx.Client(
            base_url=self.http.base_url,
            cookies=self.http.cookies,
            timeout=120,
            trust_env=False,
            limits=SHORT_LIVED,
        )

    def enter(self) -> "ControlPlane":
        """Have a session without the time that a password's hash takes."""
        with self.opened() as home:
            self.http.cookies.set("session_token", home.records.sessions.create(EMAIL, "127.0.0.1", clock()))
        return self

    def login(self) -> "ControlPlane":
        answer = self.http.post("/api/login", json={"email": EMAIL, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return self

    def close(self) -> None:
        self.http.close()
        if self.process and self.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.terminate()
        if self.process:
            self.kill()

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _answers(self, path: str) -> bool:
        with suppress(httpx.TransportError):
            return self.http.get(path, timeout=5).status_code == 200
        return False

    # What its users do

    def command(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `trueup` command as a process, with this home."""
        argv = [self.trueup, *arguments]
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=self.environment, timeout=300, check=False
        )
        assert not check or done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def cli(self, *arguments: str, stdin: str = "") -> Result:
        """A `trueup` command without the second that a process takes: it opens the home anew just the same."""
        return CliRunner().invoke(app, list(arguments), input=stdin, env=self.environment)

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """Why a command did nothing: the one line that `main` writes and ends with; in this process, as `cli`."""
        done = self.cli(*arguments, stdin=stdin)
        said = done.stderr.removeprefix("trueup: ")
        if isinstance(done.exception, TrueupError):
            said += done.exception.message
        assert (done.exit_code, done.stdout, said.strip() != "") == (1, "", True), (done.output, done.exception)
        assert "\n" not in said.strip(), said
        return said.strip()

    def create_site(self, slug: str, name: str | None = None) -> dict[str, Any]:
        """POST /api/sites, accepted: the job as it is now."""
        answer = self.http.post("/api/sites", json={"name": name or f"The {slug}", "slug": slug})
        assert answer.status_code == 202, answer.text
        return self.job(answer.json()["job_id"])

    def job(self, job_id: str | UUID) -> dict[str, Any]:
        answer = self.http.get(f"/api/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_job(self, job_id: str | UUID, patience_s: float = PATIENCE_S, pause_s: float = 0.1) -> dict[str, Any]:
        """The job once it has finished."""
        job: dict[str, Any] = {}

        def finished() -> bool:
            job.update(self.job(job_id))
            return job["status"] not in {"queued", "running"}

        until(finished, f"job {job_id} to finish", patience_s, lambda: f"{job}\n{self.log()}", pause_s=pause_s)
        return job

    def environment_of(self, slug: str) -> dict[str, Any]:
        """The production environment of a site."""
        site = next(site for site in self.http.get("/api/sites").json() if site["slug"] == slug)
        found: dict[str, Any] = self.http.get(f"/api/environments/{site['primary_environment_id']}").json()
        return found

    @property
    def clone(self) -> Clone:
        if self._clone is None:
            self._clone = Clone(self.store, self.log_file.with_suffix(".clone"))
        return self._clone

    # What can be seen from outside

    @contextmanager
    def opened(self) -> Iterator[Home]:
        """The home, opened in the test's own process beside the one that serves."""
        with Home.open(Settings(home=self.home)) as home:
            yield home

    def declaring_commits(self) -> dict[str, list[str]]:
        """Job id to the commits that carry it."""
        found: dict[str, list[str]] = {}
        for line in self.git("log", "--format=%H %(trailers:key=Trueup-Job,valueonly,separator=%x20)").splitlines():
            revision, _, job = line.partition(" ")
            if job:
                found.setdefault(job, []).append(revision)
        return found

    def git(self, *arguments: str) -> str:
        return run_git(self.store, *arguments)


def run_git(path: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(path), *arguments], capture_output=True, check=False, timeout=180)
    assert done.returncode == 0, f"git {arguments}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="replace").strip()


def program() -> str:
    return str(Path(sys.executable).with_name("trueup"))


def until(
    condition: Callable[[], bool],
    what: str,
    patience_s: float = PATIENCE_S,
    told: Callable[[], str] = lambda: "",
    pause_s: float = 0.03,
) -> float:
    """Wait for it; the seconds that it took.

    Asking takes at most half of the time: the rest is for what is awaited. What was waited for long is asked for less
    often, and so found a little later.
    """
    began = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now - began < patience_s, f"Waited {patience_s:.0f} s in vain for {what}. {told()}"
        time.sleep(max(pause_s, now - asked, min(LONGEST_PAUSE_S, (now - began) / 20)))
        asked = time.monotonic()
    return time.monotonic() - began


# Documents


def node_document(address: str = "127.0.0.1", port: int = 22, host_key: str = HOST_KEY, id_: str | None = None) -> str:
    lines = ["apiVersion: trueup/v1", "kind: Node"]
    lines += ["metadata:", f"  id: {id_}"] if id_ else []
    lines += ["spec:", f"  address: {address}", "  ssh:", f"    port: {port}", f"    host_key: {host_key}", ""]
    return "\n".join(lines)


def document_of(node: Node) -> str:
    """A lab node's document."""
    return node_document(node.address, node.ssh_port, node.host_key)


def site_documents(slug: str, node: str = "web-1") -> dict[str, str]:
    """A site with its production environment, as people write them by hand."""
    return {
        f"sites/{slug}/site.yaml": f"apiVersion: trueup/v1\nkind: Site\nmetadata:\n  name: The {slug}\n",
        f"sites/{slug}/environments/production.yaml": "apiVersion: trueup/v1\nkind: Environment\n"
        f"spec:\n  type: production\n  node: {node}\n  cache:\n    fastcgi: true\n    redis: true\n",
    }


_closed: list[socket.socket] = []


def closed_port() -> int:
    """A port of this host where nobody listens: a node that refuses connections. It is kept until the process ends."""
    kept = socket.socket()
    kept.bind(("", 0))
    _closed.append(kept)
    return int(kept.getsockname()[1])


# Fixtures

MakeControlPlane = Callable[..., ControlPlane]


@pytest.fixture(scope="session")
def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an admin, copied for each control plane: keys and password hashes take their time."""
    settings = Settings(home=tmp_path_factory.mktemp("home") / "fresh")
    create(settings, AUTHOR)
    with Home.open(settings) as home:
        home.records.admins.set_password(EMAIL, PASSWORD, clock())
    return settings.home


def make_home(fresh: Path, home: Path, documents: Mapping[str, str | bytes] | None = None) -> None:
    """A copy of `fresh` at `home`, with `documents` in its store."""
    shutil.copytree(fresh, home)
    create(Settings(home=home), AUTHOR)  # the store's hook wakes this home's process, not the original's
    if documents:
        Clone(home / "store.git", home / "clone").push(documents, "Add what the test begins with")
        shutil.rmtree(home / "clone")


def _factory(fresh_home: Path) -> Iterator[MakeControlPlane]:
    made: list[ControlPlane] = []
    # Short, because the path of a Unix socket is.
    with tempfile.TemporaryDirectory(prefix="tu-", dir="/tmp", ignore_cleanup_errors=True) as top:

        def make(
            documents: Mapping[str, str | bytes] | None = None,
            *,
            home: Path | None = None,
            start: bool = True,
            **settings: str,
        ) -> ControlPlane:
            if home is None:
                home = Path(top, f"h{len(made)}")
            if not home.exists():
                make_home(fresh_home, home, documents)
            plane = ControlPlane(home, **{**WITHOUT_NODES, **settings})
            made.append(plane)
            return plane.start().enter() if start else plane

        yield make
        for plane in made:
            plane.close()


@pytest.fixture
def control_plane(fresh_home: Path) -> Iterator[MakeControlPlane]:
    """`control_plane({path: document}, TRUEUP_WORKERS="0", …)`: one for this test alone, serving and logged in.

    For nodes that answer, give it `**WITH_NODES`.
    """
    yield from _factory(fresh_home)


@pytest.fixture(scope="module")
def shared_control_plane(fresh_home: Path) -> Iterator[MakeControlPlane]:
    """The same for a whole module."""
    yield from _factory(fresh_home)


@pytest.fixture(scope="session")
def session_control_plane(fresh_home: Path) -> Iterator[MakeControlPlane]:
    """The same for a whole run."""
    yield from _factory(fresh_home)
