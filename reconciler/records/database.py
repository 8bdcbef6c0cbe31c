"""Where the records are kept: one SQLite file, or PostgreSQL by URL. Opens, migrates, and types the errors.

Every access goes through ``reading``, ``writing`` or ``write``: on SQLite a writer takes the write lock when it
begins (BEGIN IMMEDIATE), so that it never fails half way for want of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from reconciler.core.errors import Invalid, RecordsError

T = TypeVar("T")

BUSY_S = 15
"""How long a statement waits for another writer before it is an error."""

_WRITES = "trueup_writes"
_MIGRATION_LOCK = 0x7472756575700001
_DEADLOCK = "40P01"
_MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0008"
"""The schema revision that this version of Trueup needs: that of the newest migration."""
_turns: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()


class Collision(RecordsError):
    """Another writer was in the way: the same key, or each waited for the other. Doing it again will see its rows."""


def sqlite_url(path: Path) -> URL:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path))


def open_database(url: str | URL) -> Engine:
    """The engine for ``url``; connects only when first used. The SQLite file is made, readable by its owner only."""
    where = _normal(url)
    if where.get_backend_name() == "sqlite":
        return _open_sqlite(where)
    engine = create_engine(
        where,
        isolation_level="READ COMMITTED",
        pool_size=20,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5},
    )
    event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _normal(url: str | URL) -> URL:
    try:
        where = make_url(url)
    except ArgumentError as error:
        raise Invalid("The database URL cannot be read. Give sqlite:////path or postgresql://….") from error
    if where.drivername in {"postgres", "postgresql"}:
        return where.set(drivername="postgresql+psycopg")
    if where.get_backend_name() not in {"sqlite", "postgresql"}:
        raise Invalid(f"Database {where.get_backend_name()} is not supported. Use SQLite or PostgreSQL.")
    if where.get_backend_name() == "sqlite" and where.database in {None, "", ":memory:"}:
        raise Invalid("A SQLite database in memory forgets everything. Give the path of a file.")
    return where


def _open_sqlite(where: URL) -> Engine:
    try:
        Path(str(where.database)).touch(mode=0o600)
    except OSError as error:
        raise RecordsError(
            f"The records at {where.database} cannot be opened: {error.strerror}. Make the directory writable."
        ) from error
    engine = create_engine(where, pool_size=20, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    _turns[engine] = threading.Lock()
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction control would begin lazily and commit before DDL.
    connection.isolation_level = None
    # Not WAL: SQLite before 3.51.3 can corrupt it.
    for pragma in ("journal_mode=DELETE", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_S * 1000}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    # A frozen process must not keep everybody else out of the queue.
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{BUSY_S}s'")
        cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
        cursor.execute("SET timezone = 'UTC'")
    connection.commit()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads."""
    with _typed_errors(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes; committed when the block ends, undone when it raises."""
    with ExitStack() as stack:
        stack.enter_context(_typed_errors(engine))
        stack.enter_context(_turn(engine))
        connection = stack.enter_context(engine.connect())
        connection.execution_options(**{_WRITES: True})
        stack.enter_context(connection.begin())
        yield connection


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    """SQLite's waiters poll; within a process, taking turns is fair and costs no sleep. Not to be nested."""
    turn = _turns.get(engine)
    if turn is None:
        yield
        return
    if not turn.acquire(timeout=BUSY_S):
        raise RecordsError(_explain(engine, "database is locked"))
    try:
        yield
    finally:
        turn.release()


def write(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Do ``work`` in a writing transaction, and again when another writer was in the way."""
    for _ in range(3):
        try:
            with writing(engine) as connection:
                return work(connection)
        except Collision as error:
            collision = error
    raise collision


@contextmanager
def _typed_errors(engine: Engine) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Collision(_explain(engine, str(error.orig))) from error
    except DBAPIError as error:
        kind = Collision if getattr(error.orig, "sqlstate", None) == _DEADLOCK else RecordsError
        raise kind(_explain(engine, str(error.orig))) from error
    except PoolTimeout as error:
        raise RecordsError(_explain(engine, "no connection became free in time")) from error


_NEXT_STEPS = (
    ("disk is full", "Free space on its file system; what was stored before is unchanged."),
    ("No space left", "Free space on its file system; what was stored before is unchanged."),
    ("locked", "Another process writes for too long; try again, or see who holds it."),
    ("lock timeout", "Another process writes for too long; try again, or see who holds it."),
    ("no such table", "Run `trueup init`, or start the control plane, which migrates it."),
    ("does not exist", "Create the database, or start the control plane, which migrates it."),
    ("malformed", "Restore the file from a backup; the sites are not affected."),
    ("not a database", "Correct the database URL; the file belongs to something else."),
    ("readonly", "Make the file and its directory writable for this user."),
    ("unable to open", "See that its directory exists and is writable."),
    ("connection", "See that the database server runs and that the database URL is right."),
)


def _explain(engine: Engine, fact: str) -> str:
    where = engine.url.render_as_string(hide_password=True)
    first_line = next(iter(fact.strip().splitlines()), "unknown error")
    step = next((step for sign, step in _NEXT_STEPS if sign in fact), "Try again, and look at the database's log.")
    return f"The records at {where} could not be read or written: {first_line}. {step}"


def migrate(engine: Engine) -> None:
    """Bring the schema up to date. Safe when several processes do it at once, and free when there is nothing to do."""
    if current_revision(engine) == HEAD:
        return
    with _typed_errors(engine), engine.connect() as connection:
        connection.execution_options(**{_WRITES: True})
        with _keys_unchecked(connection), connection.begin():
            _wait_for_migrations_turn(connection)
            _upgrade(connection)


def current_revision(engine: Engine) -> str | None:
    """The schema revision that the database is at; None: empty."""
    with reading(engine) as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return None
        revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return revision


def _upgrade(connection: Connection) -> None:
    # Nobody waits for these who has nothing to upgrade.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RecordsError(
            f"The database's schema cannot be upgraded: {error}. It may be from a newer Trueup: install that one."
        ) from error


def _wait_for_migrations_turn(connection: Connection) -> None:
    # SQLite's BEGIN IMMEDIATE has already waited.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


@contextmanager
def _keys_unchecked(connection: Connection) -> Iterator[None]:
    """Batch migrations drop and rename tables, which SQLite allows only while foreign keys are not enforced."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    driver.execute("PRAGMA foreign_keys=OFF").close()
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON").close()
