"""Every test of the records runs on a real SQLite file and on a real PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine

from reconciler.records.database import migrate, open_database, sqlite_url
from reconciler.records.jobs import Jobs
from reconciler.records.queue import Queue
from tests.records import postgres


@pytest.fixture(scope="package")
def postgres_socket() -> Iterator[Path]:
    directory = postgres.binaries()
    if directory is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with postgres.cluster(directory) as socket:
        yield socket


@pytest.fixture(scope="package")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the tables and no row; copied, because migrating takes its time."""
    path = tmp_path_factory.mktemp("migrated") / "records.db"
    _migrated(str(sqlite_url(path)))
    return path


@pytest.fixture(scope="package")
def migrated_name(postgres_socket: Path) -> str:
    """The same of PostgreSQL, to be made others from."""
    _migrated(_made(postgres_socket, "migrated"))
    return "migrated"


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if kind == "sqlite":
        return str(sqlite_url(tmp_path / "records.db"))
    return _made(request.getfixturevalue("postgres_socket"), f"t{uuid4().hex}")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> str:
    """The URL of a migrated database."""
    if kind == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "records.db")
        return str(sqlite_url(tmp_path / "records.db"))
    template = request.getfixturevalue("migrated_name")
    return _made(request.getfixturevalue("postgres_socket"), f"t{uuid4().hex}", template)


def _made(socket: Path, name: str, template: str = "template1") -> str:
    with psycopg.connect(host=str(socket), user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return f"postgresql://postgres@/{name}?host={socket}"


def _migrated(url: str) -> None:
    engine = open_database(url)
    migrate(engine)
    engine.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def queue(engine: Engine) -> Queue:
    return Queue(engine)
