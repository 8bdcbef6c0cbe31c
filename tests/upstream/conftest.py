"""A real home that follows a real bare repository, and somebody who pushes to that one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from reconciler.core.fleet import Fleet
from reconciler.home import Home, clock, create
from reconciler.loop.following import Following
from reconciler.operations.declaring import Actor
from reconciler.records.jobs import Job
from reconciler.settings import Settings
from reconciler.store.repository import Author, Repository
from tests.controlplane import Clone, control_plane, fresh_home, node_document, run_git, site_documents

__all__ = ["control_plane", "fresh_home"]

ADA = Actor("Ada Lovelace", "ada@example.com")
ENVIRONMENT = "sites/shop/environments/production.yaml"


@dataclass
class Followed:
    """A home, and the forge that it follows."""

    home: Home
    forge: Path
    following: Following

    @property
    def store(self) -> Path:
        return self.home.settings.store

    @property
    def fleet(self) -> Fleet:
        return self.home.state.fleet()

    def environment(self, key: str = "shop/production") -> UUID:
        return self.fleet.environments_by_key[key].id

    def set_cache(self, *, fastcgi: bool | None = None, redis: bool | None = None) -> UUID:
        """What `PATCH` on the environment's cache flags does; the job's id."""
        return self.home.operations.set_cache(self.environment(), fastcgi, redis, ADA)

    def job(self, id_: UUID) -> Job:
        return self.home.records.jobs.get(id_)

    def local(self, *arguments: str) -> str:
        return run_git(self.store, *arguments)

    def remote(self, *arguments: str) -> str:
        return run_git(self.forge, *arguments)

    def both(self) -> str:
        """The head of both, which must be the same."""
        here, there = self.local("rev-parse", "main"), self.remote("rev-parse", "main")
        assert here == there
        assert self.local("rev-parse", "refs/trueup/accepted") == here
        return here

    def document(self, path: str = ENVIRONMENT) -> str:
        folder = self.home.state.repository.folder
        return self.local("show", f"main:{folder and f'{folder}/'}{path}")

    def rewind(self, commit: str) -> None:
        """What a force push to the forge does."""
        self.remote("update-ref", "refs/heads/main", commit)


def followed_at(home: Path, forge: Path, **settings: str) -> Followed:
    found = Settings(home=home, **{"upstream": f"file://{forge}", **settings})  # type: ignore[arg-type]
    opened = Home.open(found)
    return Followed(opened, forge, Following(found, opened.state, clock))


Make = Callable[..., Followed]


def _home_of_a_shop(home: Path, documents: Mapping[str, str]) -> Path:
    settings = Settings(home=home)
    home.mkdir()
    initial = {"nodes/web-1.yaml": node_document(), **site_documents("shop"), **documents}
    contents = {path: text.encode() for path, text in initial.items()}
    Repository.init(settings.store, contents, Author("Test", "test@example.com")).close()
    create(settings, Author("Test", "test@example.com"))
    return home


@pytest.fixture(scope="session")
def home_of_a_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home to copy: a key and two commits take their time."""
    return _home_of_a_shop(tmp_path_factory.mktemp("shop") / "home", {})


@pytest.fixture
def make(tmp_path: Path, home_of_a_shop: Path) -> Iterator[Make]:
    made: list[Followed] = []

    def _make(documents: Mapping[str, str] | None = None) -> Followed:
        home, forge = tmp_path / "home", tmp_path / "forge.git"
        if documents is None:
            shutil.copytree(home_of_a_shop, home)
            create(Settings(home=home), Author("Test", "test@example.com"))  # its hook wakes this home's process
        else:
            _home_of_a_shop(home, documents)
        run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(forge))
        made.append(followed_at(home, forge))
        return made[-1]

    yield _make
    for one in made:
        one.home.close()


@pytest.fixture
def followed(make: Make) -> Followed:
    """In step with a forge."""
    one = make()
    assert one.following.look().state == "in-step"
    return one


@pytest.fixture
def person(followed: Followed, tmp_path: Path) -> Clone:
    """Somebody who works with the forge."""
    return Clone(followed.forge, tmp_path / "clone")


def fsck(path: Path) -> None:
    run_git(path, "fsck", "--strict", "--full")
