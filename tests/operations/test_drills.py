"""Drills on a real node: what is whole passes, what is not is told by name, and nothing of the copy is left."""

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from reconciler.records.jobs import Job, JobFilter
from tests.churn import options
from tests.controlplane import PATIENCE_S, until
from tests.lab.s3 import BUCKET, S3
from tests.place import Place

pytestmark = pytest.mark.lab

DATABASE, FILES = "database.sql.zst", "files.tar.zst"
Edit = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def environment(place: Place, storage: S3) -> dict[str, Any]:
    environment = place.make_site("drilled")
    root = f"/var/www/sites/{environment['id']}"
    node = place.node_of(environment)
    node.ssh(["mkdir", "-p", f"{root}/shared/uploads/2026", f"{root}/current/wp-content/plugins/own"])
    node.ssh(["tee", f"{root}/shared/uploads/2026/a name.txt"], input="first")
    node.ssh(["tee", f"{root}/current/wp-content/plugins/own/own.php"], input="<?php /* Plugin Name: Own */")
    place.sql(environment, "CREATE TABLE wp_orders (id INT PRIMARY KEY, note TEXT)")
    place.sql(environment, "INSERT INTO wp_orders VALUES (1, '(\n(two lines'), (2, 'INSERT INTO `wp_x` VALUES')")
    place.sql(environment, "CREATE VIEW wp_notes AS SELECT note FROM wp_orders")
    place.sql(environment, "CREATE TRIGGER counts BEFORE INSERT ON wp_orders FOR EACH ROW SET NEW.note = 'again'")
    return environment


def _back_up(place: Place, environment: dict[str, Any], scope: str = "full") -> dict[str, Any]:
    url = f"/api/environments/{environment['id']}/backups"
    job = place.run(place.plane.http.post(url, json={"backup_scope": scope}))
    assert job["status"] == "succeeded", job
    newest: dict[str, Any] = place.plane.http.get(url).json()[0]
    return newest


def _drill(place: Place, environment: dict[str, Any]) -> dict[str, Any]:
    return place.run(place.plane.http.post(f"/api/environments/{environment['id']}/drill"))


def _newest(place: Place, environment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = place.plane.http.get(f"/api/environments/{environment['id']}/backups").json()[0]
    return found


def _left(place: Place, environment: dict[str, Any]) -> str:
    """Whatever on the node is called like a drill of the environment, or is a user of a run's."""
    short = environment["id"].replace("-", "")[:12]
    script = f"""
    ls -d /var/www/sites/{environment["id"]}/drill /run/systemd/system/trueup-drill-* /run/trueup-drill-* 2>/dev/null
    mariadb -N -e "SHOW DATABASES LIKE 'wp\\_{short}\\_%'"
    mariadb -N -e "SELECT User FROM mysql.global_priv WHERE User REGEXP '^(wp|trueup)_{short}_'"
    systemctl list-units --all --plain --no-legend 'trueup-drill-*'
    systemctl list-units --all --plain --no-legend 'trueup-run-{short}-*' | grep '[/]drill/'
    pgrep -af '[/]drill/' || true
    """
    return place.node_of(environment).ssh(script, check=False).stdout.strip()


def _is_gone(place: Place, environment: dict[str, Any]) -> None:
    """Nothing of it is left; a look of the loop's own has a user there for a moment."""
    until(lambda: not _left(place, environment), "nothing to be left", told=lambda: _left(place, environment))


@contextmanager
def _visited(place: Place, environment: dict[str, Any]) -> Iterator[list[int]]:
    """The statuses of what a visitor asks for all the while."""
    statuses: list[int] = []
    over = threading.Event()
    host = environment["preview_url"].partition("://")[2]

    def visit() -> None:
        while not over.is_set():
            cookie = {"Cookie": "wordpress_no_cache=1"}
            statuses.append(place.node_of(environment).fetch("/", host=host, headers=cookie).status_code)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def _fingerprint(place: Place, environment: dict[str, Any]) -> str:
    short = environment["id"].replace("-", "")[:12]
    script = f"""
    cd /var/www/sites/{environment["id"]}
    find . -path ./logs -prune -o -path ./tmp -prune -o -type d -regex '\\./shared/uploads[/0-9]*' \\
      -o -printf '%p %y %s %l\\n' | sort
    mariadb-dump --skip-comments --order-by-primary --ignore-table=wp_{short}.wp_options wp_{short} | sha256sum
    mariadb -N wp_{short} -e "{options("option_name, MD5(option_value)")}"
    systemctl show --property=MainPID,ActiveState trueup-php@{environment["id"]}.service
    """
    return place.node_of(environment).ssh(script).stdout


def test_a_good_backup_passes_and_nothing_of_the_copy_is_left(
    place: Place, environment: dict[str, Any], storage: S3
) -> None:
    backup = _back_up(place, environment)
    assert (backup["drilled_at"], backup["drill_status"], backup["drill_error"]) == (None, None, None)
    place.page(environment)
    before = _fingerprint(place, environment)
    with _visited(place, environment) as statuses:
        job = _drill(place, environment)
    assert job["status"] == "succeeded", job
    assert set(statuses) == {200}
    _is_gone(place, environment)
    assert _fingerprint(place, environment) == before
    drilled = _newest(place, environment)
    assert drilled["id"] == backup["id"]
    assert (drilled["drill_status"], drilled["drill_error"]) == ("passed", None)
    assert drilled["drilled_at"] >= backup["completed_at"]
    with place.plane.opened() as home:
        result = home.records.jobs.get(UUID(job["id"])).result or {}
    orders = int(
        place.sql(
            environment,
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_type = 'BASE TABLE' "
            "AND table_schema = DATABASE() AND table_name NOT LIKE 'trueup%'",
        )
    )
    assert (result["backup_id"], result["tables"], result["pages"]) == (backup["id"], orders, 1)
    assert result["files"] > 0
    told = place.plane.cli("backup", "list", "drilled/production", "--output", "json").output
    assert json.loads(told)[0]["drill"] == "passed"


def _put(storage: S3, place: Place, backup: dict[str, Any], name: str, data: bytes, **more: Any) -> None:
    """Other bytes in the storage, and a manifest and a record that say that it was so from the beginning."""
    path = backup["storage_path"]
    manifest = json.loads(storage.client.get_object(Bucket=BUCKET, Key=f"{path}/manifest.json")["Body"].read())
    manifest["objects"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    text = json.dumps({**manifest, **more}).encode()
    storage.client.put_object(Bucket=BUCKET, Key=f"{path}/{name}", Body=data)
    storage.client.put_object(Bucket=BUCKET, Key=f"{path}/manifest.json", Body=text)
    with place.plane.opened() as home:
        record = home.records.backups.get(UUID(backup["id"]))
        home.records.backups.save(replace(record, checksum=hashlib.sha256(text).hexdigest()))


def _object(storage: S3, backup: dict[str, Any], name: str) -> bytes:
    data: bytes = storage.client.get_object(Bucket=BUCKET, Key=f"{backup['storage_path']}/{name}")["Body"].read()
    return data


def _zstd(option: str, data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", option, "-c"], input=data, capture_output=True, check=True).stdout


def _sql(edit: Callable[[str], str]) -> Edit:
    return lambda data: _zstd("-3", edit(_zstd("-d", data).decode("utf-8")).encode("utf-8"))


def _without_orders(text: str) -> str:
    begin = text.index("DROP TABLE IF EXISTS `wp_orders`")
    return text[:begin] + text[text.index("UNLOCK TABLES;", begin) + len("UNLOCK TABLES;\n") :]


def _with_plugin(data: bytes) -> bytes:
    """A must-use plugin that ends every page."""
    script = (
        "d=$(mktemp -d) && cd $d && zstd -dq | tar -x && mkdir -p wp-content/mu-plugins && "
        "echo '<?php not_there();' > wp-content/mu-plugins/zz.php && tar -c ./wp-content ./uploads | zstd -q; rm -rf $d"
    )
    return subprocess.run(["sh", "-c", script], input=data, capture_output=True, check=True).stdout


DAMAGES: dict[str, tuple[str, Edit, str, tuple[str, ...]]] = {
    "a-table-less": (DATABASE, _sql(_without_orders), "DRILL_FAILED", ("lacks wp_orders",)),
    "a-row-less": (
        DATABASE,
        _sql(lambda text: text.replace("),\n(2,'INSERT INTO `wp_x` VALUES')", ")")),
        "DRILL_FAILED",
        ("wp_orders (1 instead of 2)",),
    ),
    "no-sql": (
        DATABASE,
        _sql(lambda text: text.replace("CREATE TABLE `wp_orders`", "CREATE TABEL `wp_orders`")),
        "DRILL_FAILED",
        ("wp_orders",),
    ),
    "sql-that-does-not-load": (
        DATABASE,
        _sql(lambda text: text + "INSERT INTO nothing VALUES (1);\n"),
        "DRILL_FAILED",
        ("cannot be loaded", "nothing"),
    ),
    "no-zstd": (DATABASE, lambda data: data[:-40], "DRILL_FAILED", (DATABASE, "cannot be unpacked")),
    "no-tar": (FILES, lambda data: _zstd("-3", _zstd("-d", data)[:-20_000]), "DRILL_FAILED", (FILES,)),
    "a-broken-plugin": (FILES, _with_plugin, "DRILL_FAILED", ("not_there()",)),
}


def _is_told(place: Place, environment: dict[str, Any], job: dict[str, Any], code: str, words: tuple[str, ...]) -> None:
    assert (job["status"], job["error_code"]) == ("failed", code), job
    drilled = _newest(place, environment)
    assert drilled["drill_status"] == "failed"
    for word in words:
        assert word in job["error_message"], job["error_message"]
        assert word in drilled["drill_error"], drilled
    _is_gone(place, environment)
    status = json.loads(place.plane.cli("status", "--output", "json").output)
    assert [one["backup"] for one in status["drills"] if one["environment"] == "drilled/production"] == [drilled["id"]]
    assert "drill failed" in place.plane.cli("history", "drilled/production").output
    assert 'trueup_environments_drill{drill="failed"} 1.0' in place.plane.http.get("/metrics").text
    report = place.run(place.plane.http.post("/api/drift-reports"))
    told = place.plane.http.get(f"/api/drift-reports/{report['id']}", params={"format": "markdown"}).text
    assert "backup: its drill of" in told, told


def test_a_table_that_is_not_in_the_archive_is_named(place: Place, environment: dict[str, Any], storage: S3) -> None:
    name, edit, code, words = DAMAGES["a-table-less"]
    backup = _back_up(place, environment)
    _put(storage, place, backup, name, edit(_object(storage, backup, name)))
    _is_told(place, environment, _drill(place, environment), code, words)


@pytest.mark.long
@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "a-table-less"])
def test_what_is_not_whole_is_named(place: Place, environment: dict[str, Any], storage: S3, damage: str) -> None:
    name, edit, code, words = DAMAGES[damage]
    backup = _back_up(place, environment)
    before = _object(storage, backup, name)
    assert edit(before) != before
    _put(storage, place, backup, name, edit(before))
    _is_told(place, environment, _drill(place, environment), code, words)


@pytest.mark.long
@pytest.mark.parametrize("name", [DATABASE, FILES, "manifest.json"])
def test_bytes_that_are_not_those_that_were_sent(
    place: Place, environment: dict[str, Any], storage: S3, name: str
) -> None:
    backup = _back_up(place, environment)
    key = f"{backup['storage_path']}/{name}"
    storage.client.put_object(Bucket=BUCKET, Key=key, Body=_object(storage, backup, name)[:-1])
    said = "manifest" if name == "manifest.json" else name
    _is_told(place, environment, _drill(place, environment), "BACKUP_DAMAGED", (said,))


@pytest.mark.long
@pytest.mark.parametrize("scope", ["db", "files"])
def test_a_part_is_drilled_for_what_it_has(place: Place, environment: dict[str, Any], storage: S3, scope: str) -> None:
    backup = _back_up(place, environment, scope)
    job = _drill(place, environment)
    assert job["status"] == "succeeded", job
    with place.plane.opened() as home:
        result = home.records.jobs.get(UUID(job["id"])).result or {}
    assert result["backup_id"] == backup["id"]
    assert (result["tables"] is not None, result["files"] is not None, result["pages"]) == (
        (True, False, 1) if scope == "db" else (False, True, 0)
    )
    _is_gone(place, environment)


@pytest.mark.long
def test_one_that_an_earlier_version_made_has_no_list_of_tables(
    place: Place, environment: dict[str, Any], storage: S3
) -> None:
    backup = _back_up(place, environment)
    data = _object(storage, backup, DATABASE)
    _put(storage, place, backup, DATABASE, data, tables=None)
    assert _drill(place, environment)["status"] == "succeeded"
    _put(
        storage,
        place,
        backup,
        DATABASE,
        _sql(lambda text: text.replace("`wp_users`", "`wp_users_gone`"))(data),
        tables=None,
    )
    _is_told(place, environment, _drill(place, environment), "DRILL_FAILED", ("wp_users",))


def _at_work(place: Place, environment: dict[str, Any], then: str = "exit") -> None:
    """Until the drill of the environment loads its database; ``then`` is done on the node at that very moment."""
    short = environment["id"].replace("-", "")[:12]
    wait = f"for _ in $(seq 12000); do [ -e /var/lib/mysql/wp_{short}_drill ] && {then}; sleep 0.01; done; exit 1"
    place.node_of(environment).ssh(wait, timeout=PATIENCE_S)


@pytest.mark.long
def test_a_control_plane_that_is_killed_drills_once_more(
    place: Place, environment: dict[str, Any], storage: S3
) -> None:
    _back_up(place, environment)
    answer = place.plane.http.post(f"/api/environments/{environment['id']}/drill")
    _at_work(place, environment)
    place.plane.kill()
    place.plane.restart()
    job = place.plane.wait_job(answer.json()["job_id"])
    assert (job["status"], job["attempt_count"]) == ("succeeded", 2), job
    _is_gone(place, environment)
    assert _newest(place, environment)["drill_status"] == "passed"


@pytest.mark.long
@pytest.mark.parametrize("way", ["cancel", "purge"])
def test_what_a_drill_that_was_stopped_left_is_cleared_away(
    place: Place, environment: dict[str, Any], storage: S3, way: str
) -> None:
    _back_up(place, environment)
    job_id = place.plane.http.post(f"/api/environments/{environment['id']}/drill").json()["job_id"]
    if way == "cancel":
        node = place.node_of(environment)
        try:
            # However late it is cancelled, it has not come to its end by then.
            _at_work(place, environment, "systemctl kill --signal=STOP mariadb.service && exit")
            place.plane.http.post(f"/api/jobs/{job_id}/cancel")
            assert place.plane.wait_job(job_id)["status"] == "cancelled"
        finally:
            node.ssh(["systemctl", "kill", "--signal=CONT", "mariadb.service"])
    else:
        _at_work(place, environment)
        other = place.run(place.plane.http.post(f"/api/environments/{environment['id']}/cache/purge"))
        assert other["status"] == "succeeded", other
    assert place.plane.wait_job(job_id)["status"] == "cancelled"

    def newest() -> Job:
        with place.plane.opened() as home:
            return home.records.jobs.page(JobFilter(job_types=frozenset({"drill"})), limit=1).jobs[0]

    until(lambda: newest().id != UUID(job_id), "a job that clears")
    assert place.plane.wait_job(str(newest().id))["status"] == "succeeded"
    assert newest().result == {"cleared": True}
    _is_gone(place, environment)
    assert _newest(place, environment)["drilled_at"] is None


@pytest.mark.long
@pytest.mark.parametrize("way", ["apply", "drill"])
def test_what_no_job_cleared_away_goes_with_the_next_run(
    place: Place, environment: dict[str, Any], storage: S3, way: str
) -> None:
    _back_up(place, environment)
    short = environment["id"].replace("-", "")[:12]
    left = f"mkdir /var/www/sites/{environment['id']}/drill && mariadb -e 'CREATE DATABASE wp_{short}_drill'"
    place.node_of(environment).ssh(left)
    assert "_drill" in _left(place, environment)
    if way == "drill":
        assert _drill(place, environment)["status"] == "succeeded"
    else:
        place.touch_block(environment)
        until(lambda: not place.is_touched(environment), "the loop to put the server block right")
    _is_gone(place, environment)
