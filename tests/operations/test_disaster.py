"""The control plane is killed and its disk lost: a new one takes over what runs, and no site notices."""

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.storage.secret_store import Secrets
from tests.controlplane import EMAIL, PASSWORD, MakeControlPlane, control_plane, program, run_git, until
from tests.lab import Lab
from tests.lab.s3 import BUCKET, S3, s3_server
from tests.load import visitors
from tests.place import Place, placed

__all__ = ["control_plane"]

pytestmark = pytest.mark.lab
TITLES = "SELECT GROUP_CONCAT(post_title ORDER BY ID) FROM wp_posts WHERE post_status = 'publish'"
STATE = "find /etc/trueup /var/lib/trueup/fences -type f ! -name '*.lock' -printf '%T@ ' -exec sha256sum {} + | sort"


@pytest.fixture
def forge(tmp_path: Path) -> Path:
    path = tmp_path / "forge.git"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(path))
    return path


@pytest.fixture
def own(lab: Lab, provisioned_snapshot: str, control_plane: MakeControlPlane, forge: Path) -> Iterator[Place]:
    """A control plane of this test's own with one node, and the forge that it follows."""
    settings = {"TRUEUP_UPSTREAM": f"file://{forge}", "TRUEUP_UPSTREAM_POLL": "1"}
    with placed(lab, provisioned_snapshot, control_plane, ("web-1",), **settings) as place:
        yield place


@pytest.fixture
def bucket(own: Place, tmp_path: Path) -> Iterator[S3]:
    directory = tmp_path / "s3"
    directory.mkdir()
    with s3_server(directory, own.nodes["web-1"].network.gateway) as server:
        Secrets(own.plane.home / "secrets").put("backups", server.credentials)
        own.plane.clone.push({"platform.yaml": server.platform(schedule="0 3 * * *")}, "Name the storage")
        yield server


def _archive(word: str) -> bytes:
    """Code of a site that says the word at the foot of each page."""
    text = f"<?php add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("wp-content/mu-plugins/ours.php")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return packed.getvalue()


def _deploy(place: Place, environment: dict[str, Any], word: str) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    sent = place.plane.http.post("/api/uploads", content=_archive(word), headers=headers)
    assert sent.status_code == 201, sent.text
    body = {"source_type": "upload", "source_ref": sent.json()["source_ref"]}
    job = place.run(place.plane.http.post(f"/api/environments/{environment['id']}/deploy", json=body))
    assert job["status"] == "succeeded", job


def _seen(place: Place, environment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = place.plane.http.get(f"/api/environments/{environment['id']}").json()
    return found


def _put_aside(place: Place, directory: Path) -> list[str]:
    """What an operator keeps elsewhere: the secrets and their key; as options of the command that needs them."""
    key, archive = directory / "kept.key", directory / "kept.tar"
    key.write_text(place.plane.command("secret", "key").stdout)
    argv = [program(), "secret", "export"]
    archive.write_bytes(subprocess.run(argv, env=place.plane.environment, capture_output=True, check=True).stdout)
    return ["--secrets-key", str(key), "--secrets", str(archive)]


@pytest.mark.long
def test_a_lost_control_plane_comes_back(own: Place, bucket: S3, forge: Path, tmp_path: Path) -> None:
    plane, node = own.plane, own.nodes["web-1"]
    environment = own.make_site("phoenix")
    url = f"/api/environments/{environment['id']}"
    _deploy(own, environment, "one")
    first = _seen(own, environment)["current_release_id"]
    _deploy(own, environment, "two")
    backed_up = own.run(plane.http.post(f"{url}/backups", json={"backup_scope": "full"}))
    assert backed_up["status"] == "succeeded", backed_up
    backups = plane.http.get(f"{url}/backups").json()
    titles = own.sql(environment, TITLES)
    assert titles
    until(lambda: run_git(forge, "rev-parse", "main") == plane.git("rev-parse", "main"), "the push", told=plane.log)
    assert own.run(plane.http.post(f"{url}/health-check"))["status"] == "succeeded"
    before, state = _seen(own, environment), node.ssh(STATE).stdout
    assert before["current_release_health"] == "healthy"
    assert environment["id"] in state
    options = _put_aside(own, tmp_path)
    bucket.client.put_object(Bucket=BUCKET, Key="notes/manifest.json", Body=b'{"of": "somebody else"}')

    host = environment["preview_url"].partition("://")[2]
    with visitors(node.address, host, wanted="<i>two</i>") as visits:
        plane.kill()
        shutil.rmtree(plane.home)
        _bring_back(own, forge, options)
        _adopted(own, environment)
    assert (visits.failures, visits.total > 20) == ([], True)
    print(f"requests while the control plane was lost and came back: {visits.total}; 0 failed")
    assert node.ssh(STATE).stdout == state, "nothing was applied"

    after = _seen(own, environment)
    looked_at = {"drift_status", "drift_checked_at", "last_drift_check_id", "health_checked_at"}
    counted_in_the_records = {"state_version", "updated_at"}
    assert {**before, **{key: after[key] for key in looked_at | counted_in_the_records}} == after
    assert (after["drift_status"], after["current_release_health"]) == ("clean", "healthy")
    listed = {one["id"]: one for one in plane.http.get(f"{url}/backups").json()}
    for one in backups:
        same = ("backup_scope", "status", "storage_path", "checksum", "size_bytes", "retention_until")
        assert {key: listed[one["id"]][key] for key in same} == {key: one[key] for key in same}
    assert listed.keys() == {one["id"] for one in backups}

    # The node takes work from it, although it remembers the jobs of the one before.
    own.sql(environment, "DELETE FROM wp_posts")
    full = next(one for one in backups if one["backup_scope"] == "full")
    job = own.run(plane.http.post(f"{url}/restore", json={"backup_id": full["id"]}))
    assert (job["status"], job["attempt_count"]) == ("succeeded", 1), job
    assert own.sql(environment, TITLES) == titles
    assert "<i>two</i>" in own.page(environment).text
    job = own.run(plane.http.post(f"{url}/rollback", json={"release_id": first}))
    assert job["status"] == "succeeded", job
    until(lambda: "<i>one</i>" in own.page(environment).text, "the page of the earlier release")
    until(lambda: run_git(forge, "rev-parse", "main") == plane.git("rev-parse", "main"), "the push", told=plane.log)


def _bring_back(place: Place, forge: Path, options: list[str]) -> None:
    """As the page in the documentation says."""
    plane, node = place.plane, place.nodes["web-1"]
    told = plane.command("init", "--from", f"file://{forge}", *options).stdout
    assert "Documents: 1 nodes, 1 sites, 0 stalled" in told
    assert "Secrets: backups\n" in told
    assert re.search(r"^Backups: [1-9]\d* in the bucket$", told, re.MULTILINE)
    (line,) = [line for line in told.splitlines() if "authorized_keys" in line]
    assert f"ssh -p {node.ssh_port} root@{node.address} " in line
    # What is left of that line when somebody has logged in there.
    echo, _, rest = line.partition(" | ")
    node.ssh(f"{echo} | sh -c {rest[rest.index(chr(39)) :]}")
    plane.command("plan", "--detailed-exitcode")  # else than 0: an answer is missing, or something is to be changed
    plane.command("admin", "set-password", "--email", EMAIL, stdin=f"{PASSWORD}\n")
    plane.start().login()


def _adopted(place: Place, environment: dict[str, Any]) -> None:
    """The node is observed, every file is as it should be, and no job was for anything but looking."""
    plane = place.plane

    def seen() -> bool:
        return {one["status"] for one in plane.http.get("/api/nodes").json()} == {"active"}

    until(seen, "the node to be observed", told=plane.log)
    job = place.run(plane.http.post(f"/api/environments/{environment['id']}/drift-check"))
    assert job["status"] == "succeeded", job
    until(lambda: _seen(place, environment)["current_release_health"] == "healthy", "a look at its health")
    with plane.opened() as home:
        looks = {"node-observe", "health-check", "drift-check", "drift-report", "report-delivery"}
        done = {str(job.job_type) for job in home.records.jobs.page(limit=1000).jobs}
        assert "drift-check" in done
        assert done <= looks
        assert not home.records.statuses.all()
