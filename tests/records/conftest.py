"""Every test of the records runs on a real SQLite file and on a real PostgreSQL."""

from __future__ import annotations

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


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return str(sqlite_url(tmp_path / "records.db"))
    socket = request.getfixturevalue("postgres_socket")
    name = f"t{uuid4().hex}"
    with psycopg.connect(host=str(socket), user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"postgresql://postgres@/{name}?host={socket}"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A migrated database."""
    engine = open_database(database_url)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def queue(engine: Engine) -> Queue:
    return Queue(engine)
