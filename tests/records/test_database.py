"""Opening, migrating, and what goes wrong with a database."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, select, text

from reconciler.core.errors import Invalid, RecordsError
from reconciler.records import database
from reconciler.records.database import (
    HEAD,
    current_revision,
    migrate,
    open_database,
    reading,
    sqlite_url,
    writing,
)
from reconciler.records.jobs import Jobs
from reconciler.records.queue import Queue
from reconciler.records.sessions import Sessions
from reconciler.records.tables import fences, leases, metadata
from tests.records.examples import NOON, after, new_job

ROOT = Path(__file__).parents[2]


def test_the_newest_migration_is_the_one_that_is_needed() -> None:
    assert ScriptDirectory(str(Path(database.__file__).parent / "migrations")).get_current_head() == HEAD


def test_migrating_an_empty_database(empty_database_url: str) -> None:
    engine = open_database(empty_database_url)
    assert current_revision(engine) is None
    migrate(engine)
    assert current_revision(engine) == HEAD
    migrate(engine)
    assert set(inspect(engine).get_table_names()) == set(metadata.tables) | {"alembic_version"}
    with reading(engine) as connection:
        assert connection.execute(select(fences.c.value)).scalar_one() == 0


def test_the_migrations_make_what_the_tables_say(engine: Engine) -> None:
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_migrations_make_every_check_and_key_too(tmp_path: Path) -> None:
    """What alembic's comparison leaves out, SQLite's own text of the schema has."""
    migrated, created = (open_database(sqlite_url(tmp_path / name)) for name in ("migrated", "created"))
    migrate(migrated)
    metadata.create_all(create_engine(created.url))

    def schema(engine: Engine) -> dict[str, list[str]]:
        with reading(engine) as connection:
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
            return {
                # A table that was made anew has its own name in quotes.
                name: sorted(line.strip(" ,\t") for line in sql.replace(f'"{name}"', name).splitlines())
                for name, sql in rows
                if name != "alembic_version"
            }

    assert schema(migrated) == schema(created)


def test_two_processes_migrate_at_once(empty_database_url: str) -> None:
    script = (
        "import sys; from reconciler.records.database import migrate, open_database;"
        "engine = open_database(sys.argv[1]); sys.stdin.read(1); migrate(engine)"
    )
    command = [sys.executable, "-c", script, empty_database_url]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        errors = list(pool.map(lambda process: process.communicate("x", timeout=300)[1], processes))
    assert [process.returncode for process in processes] == [0] * 4, errors
    engine = open_database(empty_database_url)
    assert current_revision(engine) == HEAD
    with reading(engine) as connection:
        assert connection.execute(select(fences.c.value)).all() == [(0,)]


def test_a_migration_that_fails_leaves_nothing(empty_database_url: str) -> None:
    """A table of somebody else's is in the way of the last step, after all others were made."""
    engine = open_database(empty_database_url)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE tokens (theirs INTEGER)"))
    with pytest.raises(RecordsError, match="tokens"):
        migrate(engine)
    assert inspect(engine).get_table_names() == ["tokens"]
    with writing(engine) as connection:
        connection.execute(text("DROP TABLE tokens"))
    migrate(engine)
    assert current_revision(engine) == HEAD


def test_a_database_from_the_future_is_left_alone(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RecordsError, match="newer Trueup"):
        migrate(engine)
    assert current_revision(engine) == "9999"


def test_sqlite_is_set_up_for_safety(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    engine = open_database(sqlite_url(path))
    migrate(engine)
    wanted = {"journal_mode": "delete", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15000}
    with reading(engine) as connection:
        found = {name: connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in wanted}
    assert found == wanted
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://x/y", "mysql is not supported"),
        ("nonsense", "cannot be read"),
        ("sqlite://", "in memory forgets everything"),
        ("sqlite:///:memory:", "in memory forgets everything"),
    ],
)
def test_urls_that_mean_nothing_here(url: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        open_database(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_by_any_of_its_names(scheme: str) -> None:
    assert open_database(f"{scheme}://someone@db/records").url.drivername == "postgresql+psycopg"


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match=r"cannot be opened: No such file or directory\. Make"):
        open_database(sqlite_url(tmp_path / "nowhere" / "records.db"))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(RecordsError, match=r"not a database\. Correct the database URL"):
        migrate(open_database(sqlite_url(path)))


def test_a_database_that_was_never_migrated(empty_database_url: str) -> None:
    with pytest.raises(RecordsError, match="which migrates it"):
        Jobs(open_database(empty_database_url)).page()


def test_a_server_that_does_not_answer() -> None:
    with socket.socket() as closed:  # nobody else has it as long as it is bound
        closed.bind(("127.0.0.1", 0))
        engine = open_database(f"postgresql://someone:hidden-word@127.0.0.1:{closed.getsockname()[1]}/records")
        with pytest.raises(RecordsError, match="See that the database server runs") as error:
            Jobs(engine).page()
    assert "hidden-word" not in str(error.value)


def test_a_writer_who_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.2)
    path = tmp_path / "records.db"
    engine = open_database(sqlite_url(path))
    migrate(engine)
    jobs = Jobs(engine)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RecordsError, match=r"database is locked\. Another process writes"):
        jobs.enqueue(new_job(), NOON)
    with ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(jobs.enqueue, new_job(), NOON) for _ in range(4)]
        assert all(isinstance(wait.exception(timeout=300), RecordsError) for wait in waits)
    other.execute("ROLLBACK")
    assert jobs.enqueue(new_job(), NOON)


def test_an_error_undoes_the_whole_transaction(engine: Engine) -> None:

    def insert_and_fail() -> None:
        with writing(engine) as connection:
            connection.execute(leases.insert().values(name="n", holder="h", until=NOON))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_and_fail()
    with reading(engine) as connection:
        assert connection.execute(select(leases)).all() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def test_a_full_disk_is_an_error_and_nothing_is_lost(small_disk: Path) -> None:
    path = small_disk / "records.db"
    engine = open_database(sqlite_url(path))
    migrate(engine)
    jobs, opened = Jobs(engine), Sessions(engine)
    token = opened.create("ann@example.com", "::1", NOON)
    stored = []

    def fill() -> None:
        for _ in range(2000):
            stored.append(jobs.enqueue(new_job(intent={"filler": uuid4().hex * 30}), NOON).id)

    with pytest.raises(RecordsError, match="Free space on its file system"):
        fill()
    assert len(stored) > 20
    with pytest.raises(RecordsError, match="Free space"):
        jobs.enqueue_all([new_job(intent={"filler": "x" * 100_000}) for _ in range(9)], NOON)
    known = set()
    cursor = None
    while True:
        page = jobs.page(limit=1000, cursor=cursor)
        known |= {job.id for job in page.jobs}
        if (cursor := page.next_cursor) is None:
            break
    assert known == set(stored)
    assert opened.lookup(token, after(hours=1)) is not None, "what only notes the time does not keep anybody out"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert Queue(engine).claim("w", NOON) is not None, "with space again it goes on"
