"""Backups to a real S3 service, and back: what is damaged is seen before anything is touched."""

import base64
import hashlib
import io
import json
import os
import random
import shlex
import subprocess
import tarfile
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete
from typer.testing import CliRunner

from reconciler.cli import app
from reconciler.cli.context import tools_of
from reconciler.home import clock
from reconciler.loop.backups import expire
from reconciler.operations.declaring import Actor
from reconciler.paths import collection
from reconciler.records.tables import backups
from reconciler.storage.secret_store import Secrets
from tests.controlplane import program
from tests.lab.s3 import ACCESS_KEY, BUCKET, S3, SECRET_KEY
from tests.place import Place
from tests.playbooks.node_modules import PACKAGE
from tests.proof import count

pytestmark = pytest.mark.lab

MUTATIONS = count(short=16, full=200)
WEIGHT_MB = int(os.environ.get("TRUEUP_TEST_WEIGHT_MB", count(short=60, full=300)))
"""Of an upload that is backed up; 5000 takes some minutes and as many megabytes of disk, twice."""


@pytest.fixture(scope="module")
def environment(place: Place, storage: S3) -> dict[str, Any]:
    environment = place.make_site("kept")
    root = f"/var/www/sites/{environment['id']}"
    node = place.node_of(environment)
    node.ssh(["mkdir", "-p", f"{root}/shared/uploads/2026", f"{root}/current/wp-content/plugins/own"])
    node.ssh(["tee", f"{root}/shared/uploads/2026/a.txt"], input="first")
    node.ssh(["tee", f"{root}/current/wp-content/plugins/own/own.php"], input="<?php /* Plugin Name: Own */")
    place.sql(environment, "CREATE TABLE wp_orders (id INT PRIMARY KEY, note BLOB)")
    place.sql(environment, "INSERT INTO wp_orders VALUES (1, 0x00ff0a)")
    return environment


def _back_up(place: Place, environment: dict[str, Any], scope: str = "full") -> dict[str, Any]:
    """The newest backup, after one was made."""
    url = f"/api/environments/{environment['id']}/backups"
    job = place.run(place.plane.http.post(url, json={"backup_scope": scope}))
    assert job["status"] == "succeeded", job
    newest: dict[str, Any] = place.plane.http.get(url).json()[0]
    assert (newest["status"], newest["backup_scope"], newest["storage_type"]) == ("completed", scope, "s3")
    return newest


def _restore(place: Place, environment: dict[str, Any], backup: dict[str, Any]) -> dict[str, Any]:
    url = f"/api/environments/{environment['id']}/restore"
    return place.run(place.plane.http.post(url, json={"backup_id": backup["id"]}))


def _change(place: Place, environment: dict[str, Any]) -> None:
    root = f"/var/www/sites/{environment['id']}"
    place.sql(environment, "INSERT INTO wp_orders VALUES (2, 'later')")
    place.node_of(environment).ssh(["tee", f"{root}/shared/uploads/2026/a.txt"], input="second")
    place.node_of(environment).ssh(["rm", "-rf", f"{root}/current/wp-content/plugins/own"])


def _seen(place: Place, environment: dict[str, Any]) -> tuple[str, str, bool]:
    """Orders, the upload, and whether the plugin is there."""
    root = f"/var/www/sites/{environment['id']}"
    node = place.node_of(environment)
    plugin = node.ssh(["test", "-f", f"{root}/current/wp-content/plugins/own/own.php"], check=False).returncode == 0
    orders = place.sql(environment, "SELECT GROUP_CONCAT(id, ':', HEX(note) ORDER BY id) FROM wp_orders")
    return orders, place.page(environment, "/wp-content/uploads/2026/a.txt").text, plugin


FIRST = ("1:00FF0A", "first", True)
LATER = ("1:00FF0A,2:6C61746572", "second", False)


@pytest.mark.long
def test_there_and_back(place: Place, environment: dict[str, Any], storage: S3) -> None:
    assert _seen(place, environment) == FIRST
    backup = _back_up(place, environment)
    keys = {one["Key"] for one in storage.client.list_objects_v2(Bucket=BUCKET)["Contents"]}
    names = ("database.sql.zst", "files.tar.zst", "manifest.json")
    assert {f"{backup['storage_path']}/{name}" for name in names} <= keys
    manifest = storage.client.get_object(Bucket=BUCKET, Key=f"{backup['storage_path']}/manifest.json")["Body"].read()
    assert hashlib.sha256(manifest).hexdigest() == backup["checksum"]
    _change(place, environment)
    assert _seen(place, environment) == LATER
    job = _restore(place, environment, backup)
    assert job["status"] == "succeeded", job
    assert _seen(place, environment) == FIRST
    assert place.page(environment).status_code == 200
    # What was there before the restore was kept, and goes back in likewise.
    newest = place.plane.http.get(f"/api/environments/{environment['id']}/backups").json()[0]
    assert newest["id"] != backup["id"]
    assert _restore(place, environment, newest)["status"] == "succeeded"
    assert _seen(place, environment) == LATER
    assert _restore(place, environment, backup)["status"] == "succeeded"


@pytest.mark.long
@pytest.mark.parametrize(
    ("scope", "expected"), [("db", ("1:00FF0A", "second", False)), ("files", ("1:00FF0A,2:6C61746572", "first", True))]
)
def test_a_part_leaves_the_other_as_it_is(
    place: Place, environment: dict[str, Any], storage: S3, scope: str, expected: tuple[str, str, bool]
) -> None:
    assert _seen(place, environment) == FIRST
    whole, part = _back_up(place, environment), _back_up(place, environment, scope)
    _change(place, environment)
    assert _restore(place, environment, part)["status"] == "succeeded"
    assert _seen(place, environment) == expected
    assert _restore(place, environment, whole)["status"] == "succeeded"
    assert _seen(place, environment) == FIRST


@pytest.mark.long
def test_into_another_environment_of_the_site(place: Place, environment: dict[str, Any], storage: S3) -> None:
    backup = _back_up(place, environment)
    body = {"name": "Second", "slug": "second", "type": "staging"}
    job = place.run(place.plane.http.post(f"/api/sites/{environment['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    _change(place, copy)
    job = _restore(place, copy, backup)
    assert job["status"] == "succeeded", job
    assert _seen(place, copy) == FIRST
    home = place.sql(copy, "SELECT option_value FROM wp_options WHERE option_name = 'home'")
    assert home == copy["preview_url"]
    stranger = place.make_site("stranger")
    refused = place.plane.http.post(f"/api/environments/{stranger['id']}/restore", json={"backup_id": backup["id"]})
    assert refused.status_code == 409


@pytest.mark.long
def test_no_node_log_or_answer_has_the_keys(place: Place, environment: dict[str, Any], storage: S3) -> None:
    node = place.node_of(environment)
    for secret in (SECRET_KEY, "X-Amz-Signature"):
        for where in ("/var/log", "/etc/trueup", "/var/lib/trueup", "/var/tmp"):
            assert node.ssh(["grep", "-rqF", "-e", secret, where], check=False).returncode == 1, (secret, where)
    jobs = place.plane.http.get("/api/jobs").text
    assert SECRET_KEY not in place.plane.log_file.read_text() + jobs + place.plane.git("log", "-p", "--all")
    assert "X-Amz-Signature" not in place.plane.log_file.read_text() + jobs
    encrypted = (place.plane.home / "secrets" / "backups.age").read_bytes()
    assert ACCESS_KEY.encode() not in encrypted


@pytest.mark.long
def test_mutations_are_all_caught_before_anything_is_touched(
    place: Place, environment: dict[str, Any], storage: S3
) -> None:
    """The verifying half of the playbook's module, run on the node on objects that were damaged in the storage."""
    backup = _back_up(place, environment)
    client, path = storage.client, backup["storage_path"]
    manifest = json.loads(client.get_object(Bucket=BUCKET, Key=f"{path}/manifest.json")["Body"].read())
    originals = {
        name: client.get_object(Bucket=BUCKET, Key=f"{path}/{name}")["Body"].read() for name in manifest["objects"]
    }
    before = _seen(place, environment)
    chance = random.Random(20261124)
    node = place.node_of(environment)
    utils = f"/root/check/{PACKAGE.replace('.', '/')}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(collection() / "plugins" / "module_utils", ".")
    unpack = f"mkdir -p {utils} && base64 -d | tar -xzC {utils}"
    node.ssh(unpack, input=base64.b64encode(packed.getvalue()).decode())
    node.ssh(["tee", "/root/check/check.py"], input=CHECK)
    caught = 0
    for _ in range(MUTATIONS):
        name = chance.choice(sorted(originals))
        data = _mutated(originals, name, chance)
        key = f"{path}/{name}"
        if data is None:
            client.delete_object(Bucket=BUCKET, Key=key)
        else:
            client.put_object(Bucket=BUCKET, Key=key, Body=data)
        url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key})
        given = json.dumps({"url": url, "name": name, "wanted": manifest["objects"][name]})
        said = node.ssh(["python3", "/root/check/check.py"], input=given).stdout
        caught += said.strip() == "BACKUP_DAMAGED"
        client.put_object(Bucket=BUCKET, Key=key, Body=originals[name])
    assert caught == MUTATIONS
    assert _seen(place, environment) == before
    assert _restore(place, environment, backup)["status"] == "succeeded", "and the unharmed one goes in"


CHECK = """
import json, sys
sys.path.insert(0, "/root/check")
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.content.transfer import download
given = json.load(sys.stdin)
try:
    download(given["url"], "/var/tmp/" + given["name"], given["wanted"])
    print("taken for good")
except Failure as error:
    print(error.facts["trueup_code"])
"""


def _mutated(originals: dict[str, bytes], name: str, chance: random.Random) -> bytes | None:
    data = bytearray(originals[name])
    match chance.choice(["flip", "flip", "truncate", "append", "swap", "gone", "empty", "hole"]):
        case "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case "truncate":
            del data[chance.randrange(len(data)) :]
        case "append":
            data += bytes([chance.randrange(256)])
        case "swap":
            return next(other for key, other in originals.items() if key != name)
        case "gone":
            return None
        case "empty":
            return b""
        case "hole":
            start = chance.randrange(len(data) - 16)
            data[start : start + 16] = bytes(16) if data[start : start + 16] != bytes(16) else b"x" * 16
    return bytes(data)


WEIGHT = """
import glob, json, os, select, sys
name, places, most = "trueup-" + sys.argv[1], sys.argv[2:], {"memory": 0, "disk": 0}
def size(top):
    walk = (os.path.join(at, one) for at, _, names in os.walk(top) for one in names)
    return sum(os.lstat(one).st_blocks * 512 for one in walk if os.path.lexists(one))
def memory():
    total = 0
    for path in glob.glob("/proc/[0-9]*/cgroup"):
        try:
            if name in open(path).read():
                status = open(path[:-6] + "status").read()
                total += int(status.partition("RssAnon:")[2].split()[0]) * 1024
        except (OSError, IndexError):
            pass
    return total
before = sum(map(size, places))
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    most["memory"] = max(most["memory"], memory())
    most["disk"] = max(most["disk"], sum(map(size, places)) - before)
print(json.dumps(most))
"""


@pytest.mark.long
def test_however_much_there_is_the_node_needs_little_memory_and_no_disk(
    place: Place, environment: dict[str, Any], storage: S3
) -> None:
    node, root = place.node_of(environment), f"/var/www/sites/{environment['id']}"
    node.ssh(f"head -c {WEIGHT_MB}M /dev/urandom > {root}/shared/uploads/2026/film.bin", timeout=60 + WEIGHT_MB / 5)
    url = f"/api/environments/{environment['id']}/backups"
    answer = place.plane.http.post(url, json={"backup_scope": "full"})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    argv = [*node.ssh_command(), shlex.join(["python3", "-c", WEIGHT, job_id, "/var/tmp", "/tmp", root])]
    watch = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    job = place.plane.wait_job(job_id, 300 + WEIGHT_MB / 5)
    told, _ = watch.communicate("stop\n", timeout=300)
    node.ssh(["rm", f"{root}/shared/uploads/2026/film.bin"])
    most = {name: value >> 20 for name, value in json.loads(told.splitlines()[-1]).items()}
    print(f"{WEIGHT_MB} MB: {most['memory']} MB of memory on the node, {most['disk']} MB of its disk")
    assert job["status"] == "succeeded", job
    newest = place.plane.http.get(url).json()[0]
    assert newest["size_bytes"] > WEIGHT_MB << 20
    assert 10 < most["memory"] < 160
    assert most["disk"] < 8


@pytest.mark.long
@pytest.mark.parametrize("name", ["database.sql.zst", "files.tar.zst", "manifest.json"])
def test_a_damaged_backup_changes_nothing(place: Place, environment: dict[str, Any], storage: S3, name: str) -> None:
    backup, before = _back_up(place, environment), _seen(place, environment)
    key = f"{backup['storage_path']}/{name}"
    data = bytearray(storage.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    data[len(data) // 2] ^= 1
    storage.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))
    url = f"/api/environments/{environment['id']}/restore"
    answer = place.plane.http.post(url, json={"backup_id": backup["id"]})
    if name == "manifest.json":
        assert answer.status_code == 409, "seen before a job is made"
        return
    job = place.run(answer)
    assert (job["status"], job["error_code"]) == ("failed", "BACKUP_DAMAGED"), job
    assert _seen(place, environment) == before
    with place.plane.opened() as home:
        job_id = home.operations.apply(UUID(environment["id"]), Actor("Op", "op@example.com"))
    assert place.plane.wait_job(str(job_id))["status"] == "succeeded"


@pytest.mark.long
def test_what_failed_leaves_nothing_in_the_bucket(place: Place, environment: dict[str, Any], storage: S3) -> None:
    node = place.node_of(environment)
    node.ssh(["chmod", "-x", "/usr/bin/zstd"])
    try:
        url = f"/api/environments/{environment['id']}/backups"
        job = place.run(place.plane.http.post(url, json={"backup_scope": "db"}))
    finally:
        node.ssh(["chmod", "+x", "/usr/bin/zstd"])
    assert (job["status"], job["error_code"]) == ("failed", "BACKUP_FAILED"), job
    newest = place.plane.http.get(url).json()[0]
    assert newest["status"] == "failed"
    assert "Uploads" not in storage.client.list_multipart_uploads(Bucket=BUCKET)
    assert "Contents" not in storage.client.list_objects_v2(Bucket=BUCKET, Prefix=newest["storage_path"])


@pytest.mark.long
def test_the_list_comes_back_from_the_bucket(place: Place, environment: dict[str, Any], storage: S3) -> None:
    backup = _back_up(place, environment, "db")
    with place.plane.opened() as home, home.records.engine.begin() as connection:
        connection.execute(delete(backups))
    assert place.plane.http.get(f"/api/environments/{environment['id']}/backups").json() == []
    done = subprocess.run(
        [program(), "backup", "rebuild"], capture_output=True, text=True, check=True, env=place.plane.environment
    )
    assert backup["id"] in done.stdout
    found = place.plane.http.get(f"/api/environments/{environment['id']}/backups").json()
    same = next(one for one in found if one["id"] == backup["id"])
    assert (same["checksum"], same["size_bytes"]) == (backup["checksum"], backup["size_bytes"])
    assert _restore(place, environment, same)["status"] == "succeeded"


@pytest.mark.long
def test_what_is_over_goes(place: Place, environment: dict[str, Any], storage: S3) -> None:
    backup, newest = _back_up(place, environment, "db"), _back_up(place, environment, "db")
    with place.plane.opened() as home:
        for one in (backup, newest):
            record = home.records.backups.get(UUID(one["id"]))
            home.records.backups.save(replace(record, retention_until=clock()))
        record = home.records.backups.get(UUID(backup["id"]))
        with tools_of(home) as tools:
            assert expire(tools) == [record.id]
            assert expire(tools) == [], "the newest stays"
        assert home.records.backups.get(record.id).status == "expired"
    assert "Contents" not in storage.client.list_objects_v2(Bucket=BUCKET, Prefix=backup["storage_path"])
    refused = place.plane.http.post(f"/api/environments/{environment['id']}/restore", json={"backup_id": backup["id"]})
    assert refused.status_code == 409


@pytest.mark.long
def test_wrong_keys_are_told(place: Place, environment: dict[str, Any], storage: S3) -> None:
    secrets = Secrets(place.plane.home / "secrets")
    secrets.put("backups", {"access_key": ACCESS_KEY, "secret_key": "another one"})
    try:
        url = f"/api/environments/{environment['id']}/backups"
        job = place.run(place.plane.http.post(url, json={"backup_scope": "db"}))
    finally:
        secrets.put("backups", storage.credentials)
    assert (job["status"], job["error_code"]) == ("failed", "BACKUP_FAILED")
    assert "SignatureDoesNotMatch" in job["error_message"] or "refused" in job["error_message"]


@pytest.mark.long
def test_the_command_line_does_the_same(place: Place, environment: dict[str, Any], storage: S3) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [program(), *arguments], capture_output=True, text=True, check=False, env=place.plane.environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("backup", "create", "kept/production", "--scope", "db")
    listed = json.loads(run("backup", "list", "kept/production", "--output", "json"))
    assert listed[0]["status"] == "completed"
    run("backup", "restore", "kept/production", listed[0]["id"])
    assert run("secret", "list").split() == ["backups"]
    assert CliRunner().invoke(app, ["secret", "set", "x"], input="no json").exit_code != 0
