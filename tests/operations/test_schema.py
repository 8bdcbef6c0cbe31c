"""Views, triggers, routines and events, and rows of 64 MB: what moves a database moves them, or says that it cannot."""

import base64
import hashlib
import itertools
import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.controlplane import until
from tests.isolation.trial import Memory
from tests.lab.mirror import Mirror, update_mirror
from tests.lab.s3 import BUCKET, S3
from tests.place import Place

pytestmark = pytest.mark.lab

# By an administrator, whose rights must not come along. `wp_all` is made of what comes after it in the alphabet.
MADE = """
CREATE TABLE wp_books (id INT PRIMARY KEY AUTO_INCREMENT, title VARCHAR(100));
CREATE TABLE wp_noted (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(200));
DELIMITER //
CREATE FUNCTION shout(word TEXT) RETURNS TEXT DETERMINISTIC RETURN CONCAT(UPPER(word), '! 😀')//
CREATE PROCEDURE note(what TEXT) COMMENT 'it''s ours'
BEGIN
    INSERT INTO {database}.wp_noted (what) VALUES (shout(what));
END//
CREATE VIEW wp_titles AS SELECT {database}.shout(title) AS title FROM wp_books//
CREATE VIEW wp_all AS SELECT title, '😀' AS face FROM wp_titles//
CREATE TRIGGER noted AFTER INSERT ON wp_books FOR EACH ROW CALL note(NEW.title)//
CREATE TRIGGER second BEFORE INSERT ON wp_books FOR EACH ROW SET NEW.title = CONCAT(NEW.title, ' 2')//
CREATE TRIGGER first BEFORE INSERT ON wp_books FOR EACH ROW PRECEDES second SET NEW.title = CONCAT(NEW.title, ' 1')//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO CALL note('night')//
CREATE EVENT off ON SCHEDULE EVERY 1 DAY DISABLE DO CALL note('never')//
"""
DEFINERS = """
SELECT DISTINCT definer FROM (
    SELECT definer, table_schema AS place FROM information_schema.views UNION ALL
    SELECT definer, trigger_schema FROM information_schema.triggers UNION ALL
    SELECT definer, routine_schema FROM information_schema.routines UNION ALL
    SELECT definer, event_schema FROM information_schema.events
) made WHERE place = DATABASE()
"""
EVENTS = "SELECT GROUP_CONCAT(event_name, ' ', status ORDER BY event_name) FROM information_schema.events"
EVENTS += " WHERE event_schema = DATABASE()"
ON, OFF = "nightly ENABLED,off DISABLED", "nightly DISABLED,off DISABLED"
numbers = itertools.count()


def database_of(environment: dict[str, Any]) -> str:
    return "wp_" + environment["id"].replace("-", "")[:12]


def own(place: Place, environment: dict[str, Any], statements: str) -> str:
    """What the site's own database user is answered."""
    config = shlex.quote(f"/var/www/sites/{environment['id']}/shared/wp-config.php")
    password = f"$(sed -n \"s/^define( 'DB_PASSWORD', '\\(.*\\)' );$/\\1/p\" {config})"
    database = database_of(environment)
    command = f"MYSQL_PWD={password} mariadb --default-character-set=utf8mb4 -N --raw -u {database} {database}"
    return place.node_of(environment).ssh(command, input=statements).stdout.strip()


def program(place: Place, environment: dict[str, Any]) -> None:
    database = database_of(environment)
    client = ["mariadb", "--default-character-set=utf8mb4", database]
    place.node_of(environment).ssh(client, input=MADE.format(database=database))


def assert_alive(place: Place, environment: dict[str, Any], events: str) -> None:
    """All of it acts in its own database, with the site's rights alone."""
    word = f"Word-{next(numbers)}-"
    own(place, environment, f"INSERT INTO wp_books (title) VALUES ('{word}'); CALL note('{word}');")
    said = f"{word.upper()} 1 2! 😀"
    titles = own(place, environment, "SELECT title FROM wp_all").splitlines()
    assert [title for title in titles if title.startswith(word.upper())] == [said]
    noted = own(place, environment, "SELECT what FROM wp_noted ORDER BY id").splitlines()
    assert [what for what in noted if what.startswith(f"{word.upper()}")] == [said, f"{word.upper()}! 😀"]
    assert place.sql(environment, DEFINERS) == f"{database_of(environment)}@localhost"
    assert place.sql(environment, EVENTS) == events


def without(place: Place, environment: dict[str, Any]) -> None:
    """All of it is taken away, and something else is put there."""
    place.sql(
        environment,
        "DROP VIEW wp_all, wp_titles; DROP TRIGGER noted; DROP PROCEDURE note; DROP EVENT nightly; "
        "CREATE OR REPLACE FUNCTION shout(word TEXT) RETURNS TEXT DETERMINISTIC RETURN 'another'; "
        "CREATE VIEW wp_later AS SELECT 1 AS a; DELETE FROM wp_books",
    )


def back_up(place: Place, environment: dict[str, Any], scope: str = "db") -> dict[str, Any]:
    """The job of a backup."""
    url = f"/api/environments/{environment['id']}/backups"
    return place.run(place.plane.http.post(url, json={"backup_scope": scope}))


def newest(place: Place, environment: dict[str, Any]) -> str:
    backups = place.plane.http.get(f"/api/environments/{environment['id']}/backups").json()
    assert backups[0]["status"] == "completed"
    return str(backups[0]["id"])


def restore(place: Place, environment: dict[str, Any], backup: str) -> None:
    url = f"/api/environments/{environment['id']}/restore"
    job = place.run(place.plane.http.post(url, json={"backup_id": backup}))
    assert job["status"] == "succeeded", job


def copy(place: Place, environment: dict[str, Any], slug: str, **more: Any) -> dict[str, Any]:
    """The job of a copy, finished."""
    body = {"name": slug, "slug": slug, "type": "staging", "node_id": environment["node_id"], **more}
    return place.run(place.plane.http.post(f"/api/sites/{environment['site_id']}/environments", json=body))


def copied(place: Place, environment: dict[str, Any], slug: str, **more: Any) -> dict[str, Any]:
    job = copy(place, environment, slug, **more)
    assert job["status"] == "succeeded", job
    found: dict[str, Any] = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    return found


@pytest.fixture(scope="module")
def programmed(place: Place, storage: S3) -> dict[str, Any]:
    """A site with all of it, as an administrator made it by hand."""
    environment = place.make_site("programmed")
    program(place, environment)
    assert place.sql(environment, DEFINERS) == "root@localhost"
    return environment


@pytest.fixture(scope="module")
def mirror(place: Place, storage: S3) -> Iterator[Mirror]:
    with update_mirror(place.nodes["web-1"].network.gateway) as mirror:
        place.plane.clone.push({"platform.yaml": storage.platform() + mirror.platform()}, "Name the mirror")
        yield mirror


@pytest.fixture(scope="module")
def staging(place: Place, programmed: dict[str, Any]) -> dict[str, Any]:
    return copied(place, programmed, "staging", promotion_preset="content-protect")


@pytest.mark.long
def test_a_copy_has_all_of_it_and_acts_on_nobody(
    place: Place, programmed: dict[str, Any], staging: dict[str, Any]
) -> None:
    before = place.sql(programmed, "SELECT COUNT(*) FROM wp_noted")
    assert_alive(place, staging, OFF)
    assert place.sql(programmed, "SELECT COUNT(*) FROM wp_noted") == before, "it notes nothing at its source"
    assert place.sql(programmed, DEFINERS) == "root@localhost", "a source is only read"


def test_there_and_back(place: Place, programmed: dict[str, Any]) -> None:
    books = place.sql(programmed, "SELECT COUNT(*) FROM wp_books")
    job = back_up(place, programmed)
    assert job["status"] == "succeeded", job
    backup = newest(place, programmed)
    without(place, programmed)
    restore(place, programmed, backup)
    assert place.sql(programmed, "SELECT COUNT(*) FROM wp_books") == books
    assert_alive(place, programmed, ON)
    assert place.sql(programmed, "SHOW TABLES LIKE 'trueup\\_%'") == "trueup_content"
    assert "wp_later" not in place.sql(programmed, "SHOW TABLES")
    databases = place.node_of(programmed).ssh(["mariadb", "-BN", "-e", "SHOW DATABASES"]).stdout.split()
    assert [one for one in databases if one.startswith(database_of(programmed))] == [database_of(programmed)]


@pytest.mark.long
def test_a_backup_of_production_in_a_copy(place: Place, programmed: dict[str, Any], staging: dict[str, Any]) -> None:
    assert back_up(place, programmed)["status"] == "succeeded"
    restore(place, staging, newest(place, programmed))
    assert_alive(place, staging, OFF)
    # Its own state is kept by its own backup, whatever it is.
    place.sql(staging, "ALTER EVENT nightly ENABLE")
    assert back_up(place, staging)["status"] == "succeeded"
    place.sql(staging, "DROP EVENT nightly")
    restore(place, staging, newest(place, staging))
    assert_alive(place, staging, ON)


EARLIER = (
    "mariadb-dump --single-transaction --quick --hex-blob --skip-comments --default-character-set=utf8mb4 "
    "--ignore-table=DB.trueup_content DB | zstd -q | base64 -w0"
)
"""How backups were made that have views and triggers among the tables."""


@pytest.mark.long
def test_a_backup_that_an_earlier_version_made(place: Place, storage: S3) -> None:
    environment = place.make_site("earlier")
    own(
        place,
        environment,
        "CREATE TABLE wp_books (id INT PRIMARY KEY AUTO_INCREMENT, title VARCHAR(100)); "
        "CREATE VIEW wp_titles AS SELECT title FROM wp_books; "
        "CREATE TRIGGER second BEFORE INSERT ON wp_books FOR EACH ROW SET NEW.title = CONCAT(NEW.title, ' 2')",
    )
    assert back_up(place, environment)["status"] == "succeeded"
    backup = place.plane.http.get(f"/api/environments/{environment['id']}/backups").json()[0]
    script = EARLIER.replace("DB", database_of(environment))
    data = base64.b64decode(place.node_of(environment).ssh(script).stdout)
    key = f"{backup['storage_path']}/manifest.json"
    manifest = json.loads(storage.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    sent = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    text = json.dumps({**manifest, "objects": {"database.sql.zst": sent}}).encode()
    storage.client.put_object(Bucket=BUCKET, Key=key, Body=text)
    storage.client.put_object(Bucket=BUCKET, Key=f"{backup['storage_path']}/database.sql.zst", Body=data)
    with place.plane.opened() as home:
        records = home.records.backups
        records.save(replace(records.get(UUID(backup["id"])), checksum=hashlib.sha256(text).hexdigest()))
    own(place, environment, "DROP VIEW wp_titles; DROP TRIGGER second")
    restore(place, environment, backup["id"])
    own(place, environment, "INSERT INTO wp_books (title) VALUES ('word')")
    assert own(place, environment, "SELECT title FROM wp_titles") == "word 2"
    assert place.sql(environment, DEFINERS) == f"{database_of(environment)}@localhost"


@pytest.mark.long
def test_a_restore_that_breaks_the_site_leaves_what_was_there(place: Place, storage: S3) -> None:
    environment = place.make_site("schema-undone")
    program(place, environment)
    assert back_up(place, environment)["status"] == "succeeded"
    backup = newest(place, environment)
    own(
        place,
        environment,
        "CREATE VIEW wp_later AS SELECT shout('x') AS a; INSERT INTO wp_books (title) VALUES ('now')",
    )
    # Without the newer book there is no page.
    code = "<?php global $wpdb; if (!$wpdb->get_var(\"SELECT 1 FROM wp_books WHERE title LIKE 'now%'\")) { die; }"
    path = f"/var/www/sites/{environment['id']}/current/wp-content/mu-plugins/breaks.php"
    place.node_of(environment).ssh(["tee", path], input=code)
    url = f"/api/environments/{environment['id']}/restore"
    job_id = place.plane.http.post(url, json={"backup_id": backup}).json()["job_id"]

    def tried() -> bool:
        job = place.plane.job(job_id)
        return job["status"] == "queued" and job["attempt_count"] == 1

    until(tried, "the restore to fail", told=place.plane.log)
    job = place.plane.job(job_id)
    assert "put back as they were, and the site is healthy" in job["error_message"], job
    assert_alive(place, environment, ON)
    assert own(place, environment, "SELECT a FROM wp_later") == "X! 😀"
    assert place.plane.http.post(f"/api/jobs/{job_id}/cancel").status_code == 202


@pytest.mark.long
def test_a_promotion_leaves_the_targets_own(place: Place, programmed: dict[str, Any]) -> None:
    staging = copied(place, programmed, "promoting", promotion_preset="content-protect")
    place.sql(staging, "UPDATE wp_options SET option_value = 'Moved' WHERE option_name = 'blogdescription'")
    check = place.plane.http.post(f"/api/environments/{staging['id']}/drift-check")
    assert place.run(check)["status"] == "succeeded"
    assert back_up(place, programmed, "full")["status"] == "succeeded"
    url = f"/api/environments/{staging['id']}/promote"
    job = place.run(place.plane.http.post(url, json={"target_environment_id": programmed["id"]}))
    assert job["status"] == "succeeded", job
    query = "SELECT option_value FROM wp_options WHERE option_name = 'blogdescription'"
    assert place.sql(programmed, query) == "Moved"
    assert_alive(place, programmed, ON)
    assert_alive(place, staging, OFF)


@pytest.mark.long
def test_an_update_is_rehearsed_on_all_of_it(place: Place, programmed: dict[str, Any], mirror: Mirror) -> None:
    mirror.publish_plugin("akismet", "99.1", "")
    url = f"/api/environments/{programmed['id']}/updates"
    job = place.run(place.plane.http.post(url, json={"scope": "plugins"}))
    assert job["status"] == "succeeded", job
    plugin = f"/var/www/sites/{programmed['id']}/current/wp-content/plugins/akismet"
    assert "99.1" in place.node_of(programmed).ssh(["grep", "-rh", "Version:", plugin]).stdout
    assert_alive(place, programmed, ON)


@pytest.mark.long
def test_a_copy_on_another_node(place: Place, storage: S3) -> None:
    environment = place.make_site("travelling")
    database = database_of(environment)
    # What names its own database cannot be read there; see below.
    made = MADE.replace("{database}.shout", "shout").replace("{database}.wp_noted", "wp_noted")
    own(place, environment, made)
    (other,) = {node["id"] for node in place.plane.http.get("/api/nodes").json()} - {environment["node_id"]}
    assert_alive(place, copied(place, environment, "elsewhere", node_id=other), OFF)
    own(place, environment, f"CREATE OR REPLACE VIEW wp_all AS SELECT {database}.shout('x') AS title")
    job = copy(place, environment, "refused", node_id=other)
    assert (job["status"], job["error_code"]) == ("failed", "CONTENT_UNMOVABLE"), job


@pytest.mark.long
@pytest.mark.parametrize(
    ("made", "gone", "named"),
    [
        (
            "CREATE TABLE wp_gone (a INT); CREATE VIEW wp_broken AS SELECT a FROM wp_gone; DROP TABLE wp_gone",
            "DROP VIEW wp_broken",
            "view wp_broken",
        ),
        ("CREATE SEQUENCE counting", "DROP SEQUENCE counting", "sequence counting"),
        ("CREATE VIEW wp_abroad AS SELECT User FROM mysql.user", "DROP VIEW wp_abroad", "view wp_abroad"),
    ],
    ids=["broken", "sequence", "abroad"],
)
def test_what_a_restore_would_not_take_is_backed_up_by_nobody(
    place: Place, programmed: dict[str, Any], made: str, gone: str, named: str
) -> None:
    place.sql(programmed, made)
    try:
        job = back_up(place, programmed)
        assert (job["status"], job["error_code"], job["attempt_count"]) == ("failed", "CONTENT_UNMOVABLE", 1), job
        assert named in job["error_message"]
        job = copy(place, programmed, f"unmade-{next(numbers)}")
        assert (job["status"], job["error_code"]) == ("failed", "CONTENT_UNMOVABLE"), job
    finally:
        place.sql(programmed, gone)
    assert back_up(place, programmed)["status"] == "succeeded"


# Rows


@pytest.fixture(scope="module")
def heavy(place: Place, storage: S3) -> dict[str, Any]:
    environment = place.make_site("schema-heavy")
    place.sql(environment, "CREATE TABLE wp_heavy (id INT PRIMARY KEY, body LONGTEXT, raw LONGBLOB)")
    return environment


def weigh(place: Place, environment: dict[str, Any], megabytes: int, rows: int = 1) -> str:
    """Rows of that size, whose text is what a dump makes twice as long; their checksum."""
    place.sql(
        environment,
        f"DELETE FROM wp_heavy; INSERT INTO wp_heavy SELECT seq, REPEAT('\\'x', {megabytes} << 18), "
        f"REPEAT(0xff00, {megabytes} << 18) FROM seq_1_to_{rows}",
    )
    return weighed(place, environment)


def weighed(place: Place, environment: dict[str, Any]) -> str:
    return place.sql(environment, "SELECT GROUP_CONCAT(id, SHA1(body), SHA1(raw) ORDER BY id) FROM wp_heavy")


@pytest.mark.long
def test_a_row_of_9_mb_is_copied(place: Place, heavy: dict[str, Any]) -> None:
    what = weigh(place, heavy, 9)
    # A server that has run since before its baseline said so.
    place.node_of(heavy).ssh(["mariadb", "-e", f"SET GLOBAL max_allowed_packet = {16 << 20}"])
    assert weighed(place, copied(place, heavy, "nine")) == what


@pytest.mark.long
@pytest.mark.parametrize("megabytes", [17, 64])
def test_a_large_row_there_and_back_and_copied(place: Place, heavy: dict[str, Any], megabytes: int) -> None:
    node = place.node_of(heavy)
    what = weigh(place, heavy, megabytes, rows=3)
    node.ssh(["mariadb", "-e", f"SET GLOBAL max_allowed_packet = {16 << 20}"])
    memory = Memory(node, ["root"])
    try:
        assert back_up(place, heavy)["status"] == "succeeded"
        place.sql(heavy, "DELETE FROM wp_heavy")
        restore(place, heavy, newest(place, heavy))
        assert weighed(place, heavy) == what
        assert weighed(place, copied(place, heavy, f"large-{megabytes}")) == what
    finally:
        memory.stop()
    print(f"{megabytes} MB: {memory.growth >> 20} MB of memory of root's on the node")
    assert memory.growth < 1 << 30, memory.named
    assert memory.ended == []


@pytest.mark.long
def test_what_is_larger_is_refused_at_once(place: Place, heavy: dict[str, Any]) -> None:
    weigh(place, heavy, 68)
    try:
        for job in (back_up(place, heavy), copy(place, heavy, "larger")):
            assert (job["status"], job["error_code"], job["attempt_count"]) == ("failed", "CONTENT_TOO_LARGE", 1), job
            assert "wp_heavy" in job["error_message"]
    finally:
        place.sql(heavy, "DELETE FROM wp_heavy")
    assert back_up(place, heavy)["status"] == "succeeded"
