"""Jobs that are cancelled while they run: from then on nothing of them runs on a node, and nothing is left there."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.controlplane import until
from tests.lab.git_server import git_daemon
from tests.lab.s3 import BUCKET, S3
from tests.lab.web_server import web_server
from tests.operations.cancelling import cancelled, follow_up
from tests.place import Place

pytestmark = pytest.mark.lab

BULK = (
    "CREATE TABLE wp_bulk (id INT PRIMARY KEY, text TEXT) "
    "SELECT seq AS id, REPEAT(MD5(seq), 40) AS text FROM seq_1_to_150000"
)
"""Some twenty seconds to copy: a small site is backed up before anybody could stop it."""
ROLE = "Make the environment what its variable says"


@pytest.fixture(scope="module")
def heavy(place: Place) -> dict[str, Any]:
    """A site whose database takes some twenty seconds to copy."""
    environment = place.make_site("heavy")
    place.sql(environment, BULK)
    return environment


def _begun(place: Place, answer: httpx.Response, task: str) -> str:
    """The id of the job, once this task of it runs."""
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]

    def runs() -> bool:
        events = place.plane.http.get(f"/api/jobs/{job_id}/events").json()
        assert events[-1]["kind"] != "finished", events
        return {"task": task, "status": "started"} in [event["data"] for event in events]

    until(runs, f"{task!r} to begin", told=lambda: f"{place.plane.job(job_id)}\n{place.plane.log()}")
    return job_id


def _traces(place: Place, environment_id: str) -> str:
    """All that any node has of an environment."""
    short = environment_id.replace("-", "")[:12]
    script = (
        f"ls -d /var/www/sites/{environment_id} /etc/trueup/environments/{environment_id}.* "
        f"/var/tmp/trueup-{environment_id} /var/lib/mysql/wp_{short}* 2>/dev/null; getent passwd wp-{short} || true"
    )
    return "".join(node.ssh(script, check=False).stdout for node in place.nodes.values())


def _half_made(place: Place, environment: dict[str, Any]) -> str:
    """What was got ready beside what is served."""
    site, short = f"/var/www/sites/{environment['id']}", environment["id"].replace("-", "")[:12]
    script = (
        f"ls -d {site}/incoming {site}/importing {site}/unpacking {site}/updating {site}/releases/.new-* "
        f"/var/tmp/trueup-{environment['id']} "
        f"/var/lib/mysql/wp_{short}_* 2>/dev/null || true"
    )
    return place.node_of(environment).ssh(script).stdout


def _copy(place: Place, source: dict[str, Any], slug: str, **more: str) -> httpx.Response:
    body = {"name": slug, "slug": slug, "type": "clone", **more}
    return place.plane.http.post(f"/api/sites/{source['site_id']}/environments", json=body)


@pytest.mark.long
def test_a_clone_on_its_node_goes_with_all_that_it_made(place: Place, heavy: dict[str, Any]) -> None:
    job_id = _begun(place, _copy(place, heavy, "near"), "Bring code and content beside what is served")
    node = place.node_of(heavy)
    until(lambda: "mariadb-dump" in node.ssh("pgrep -a mariadb-dump || true").stdout, "the copying to begin")
    job = cancelled(place, job_id)
    environment = f"/api/environments/{job['environment_id']}"
    assert follow_up(place, job, "environment-remove")["status"] == "succeeded"
    assert place.plane.http.get(environment).status_code == 404
    assert _traces(place, job["environment_id"]) == ""
    assert place.page(heavy).status_code == 200


@pytest.mark.long
def test_a_clone_to_another_node_stops_both_ends_of_the_stream(place: Place, heavy: dict[str, Any]) -> None:
    (other,) = {node["id"] for node in place.plane.http.get("/api/nodes").json()} - {heavy["node_id"]}
    answer = _copy(place, heavy, "far", node_id=other)
    assert answer.status_code == 202
    node = place.node_of(heavy)
    until(lambda: "mariadb-dump" in node.ssh("pgrep -a mariadb-dump || true").stdout, "the stream to begin")
    job = cancelled(place, answer.json()["job_id"])
    assert follow_up(place, job, "environment-remove")["status"] == "succeeded"
    assert place.plane.http.get(f"/api/environments/{job['environment_id']}").status_code == 404
    assert _traces(place, job["environment_id"]) == ""


@pytest.mark.long
def test_a_backup_leaves_nothing_in_the_bucket(place: Place, heavy: dict[str, Any], storage: S3) -> None:
    url = f"/api/environments/{heavy['id']}/backups"
    answer = place.plane.http.post(url, json={"backup_scope": "full"})
    cancelled(place, _begun(place, answer, "Send database and files to storage"))
    assert place.plane.http.get(url).json()[0]["status"] == "failed"
    assert storage.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    listed = storage.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{heavy['id']}/")
    assert listed.get("Contents", []) == []
    assert place.plane.environment_of("heavy")["status"] == "active"


def test_an_import_is_taken_back_and_the_site_is_what_it_was(place: Place, storage: S3) -> None:
    environment = place.make_site("importing")
    before = place.manifest(environment)["contents"]
    with web_server(place.node_of(environment).network.gateway) as web:
        allowed = f"  imports:\n    allowed_hosts: [{web.address}]\n"
        place.plane.clone.push({"platform.yaml": storage.platform() + allowed})
        body = {"archive_url": web.drip("/export.tar.gz")}
        answer = place.plane.http.post(f"/api/sites/{environment['site_id']}/import", json=body)
        job_id = _begun(place, answer, "Bring code and content beside what is served")
        until(lambda: "/export.tar.gz" in web.asked, "the download to begin")
        job = cancelled(place, job_id)
    assert follow_up(place, job, "reconcile")["status"] == "succeeded"
    now = lambda: place.plane.environment_of("importing")  # noqa: E731
    until(lambda: now()["status"] == "failed", "the site to be told", told=place.plane.log)
    assert now()["current_release_id"] == environment["current_release_id"]
    assert place.manifest(environment)["contents"] == before
    assert _half_made(place, environment) == ""
    assert place.page(environment).status_code == 200


def _content(place: Place, environment: dict[str, Any]) -> str:
    """The mark of the content that is served; none on what was installed here."""
    short = environment["id"].replace("-", "")[:12]
    there = f"test -e /var/lib/mysql/wp_{short}/trueup_content.frm"
    asked = f"mariadb -N wp_{short} -e 'SELECT id FROM trueup_content'"
    return place.node_of(environment).ssh(f"{there} && {asked} || true").stdout.strip()


@pytest.mark.long
def test_a_restore_that_had_swapped_its_content_in_is_swapped_out(place: Place, storage: S3) -> None:
    """What it brings is slow to answer: it is stopped between the swap and the health check's end.

    Also where the loop may apply nothing now: what was begun is put right all the same.
    """
    environment = place.make_site("swapped")
    place.close("swapped")
    url, node = f"/api/environments/{environment['id']}", place.node_of(environment)
    slow = f"/var/www/sites/{environment['id']}/current/wp-content/mu-plugins/slow.php"
    node.ssh(["tee", slow], input="<?php sleep( 6 );")
    assert place.run(place.plane.http.post(f"{url}/backups", json={"backup_scope": "full"}))["status"] == "succeeded"
    backup = place.plane.http.get(f"{url}/backups").json()[0]["id"]
    node.ssh(["rm", slow])
    place.sql(environment, "UPDATE wp_options SET option_value = 'Since then' WHERE option_name = 'blogname'")
    before, mark = place.manifest(environment), _content(place, environment)
    answer = place.plane.http.post(f"{url}/restore", json={"backup_id": backup})
    until(lambda: _content(place, environment) != mark, "the swap", told=place.plane.log)
    job = cancelled(place, answer.json()["job_id"])
    assert follow_up(place, job, "reconcile")["status"] == "succeeded"
    assert _content(place, environment) == mark
    assert place.sql(environment, "SELECT option_value FROM wp_options WHERE option_name = 'blogname'") == "Since then"
    after = place.manifest(environment)
    assert (after["contents"], after["releases"]) == (before["contents"], before["releases"])
    assert _half_made(place, environment) == ""
    releases = node.ssh(f"ls /var/www/sites/{environment['id']}/releases | grep -v '[.]'").stdout.split()
    assert releases == before["releases"]
    assert place.run(place.plane.http.post(f"{url}/reset"))["status"] == "succeeded"
    assert place.plane.http.get(url).json()["status"] == "active"


@pytest.mark.long
def test_a_restore_is_undone_before_the_swap(place: Place, storage: S3) -> None:
    task = "Bring the backup beside what is served"
    environment = place.make_site("undone")
    url = f"/api/environments/{environment['id']}"
    assert place.run(place.plane.http.post(f"{url}/backups", json={"backup_scope": "full"}))["status"] == "succeeded"
    backup = place.plane.http.get(f"{url}/backups").json()[0]["id"]
    place.sql(environment, "UPDATE wp_options SET option_value = 'Since then' WHERE option_name = 'blogname'")
    before = place.manifest(environment)
    job_id = _begun(place, place.plane.http.post(f"{url}/restore", json={"backup_id": backup}), task)
    with place.databases_held():
        job = cancelled(place, job_id)
    assert follow_up(place, job, "reconcile")["status"] == "succeeded"
    after = place.manifest(environment)
    assert (after["contents"], after["releases"]) == (before["contents"], before["releases"])
    assert place.sql(environment, "SELECT option_value FROM wp_options WHERE option_name = 'blogname'") == "Since then"
    assert _half_made(place, environment) == ""
    assert place.page(environment).status_code == 200


def _release(place: Place, environment: dict[str, Any]) -> str:
    """The release that is served, and all that there are."""
    site = f"/var/www/sites/{environment['id']}"
    script = f"readlink {site}/current; ls {site}/releases | grep -v '[.]'"
    return place.node_of(environment).ssh(script).stdout


def _is_back(place: Place, environment: dict[str, Any]) -> None:
    """Failed, as what was stopped says; healthy, as reset finds; and Git says what it said before."""
    url = f"/api/environments/{environment['id']}"
    now = place.plane.http.get(url).json()
    assert (now["status"], now["current_release_id"]) == ("failed", environment["current_release_id"])
    assert _half_made(place, environment) == ""
    assert place.page(environment).status_code == 200
    assert place.run(place.plane.http.post(f"{url}/reset"))["status"] == "succeeded"
    assert place.plane.http.get(url).json()["status"] == "active"


@pytest.mark.long
def test_a_deploy_is_taken_back_while_its_release_is_asked(place: Place, storage: S3, tmp_path: Path) -> None:
    """Its release is slow to answer on its private address: it is stopped before the switch."""
    environment = place.make_site("stopped-deploy")
    before, gateway = _release(place, environment), place.node_of(environment).network.gateway
    with git_daemon(tmp_path, gateway) as server:
        allowed = f"  imports: {{allowed_hosts: ['{gateway}']}}\n"
        place.plane.clone.push({"platform.yaml": storage.platform() + allowed})
        server.commit("slow", {"wp-content/mu-plugins/slow.php": "<?php sleep( 8 );"})
        body = {"source_type": "git", "source_ref": server.url("slow")}
        answer = place.plane.http.post(f"/api/environments/{environment['id']}/deploy", json=body)
        job = cancelled(place, _begun(place, answer, ROLE))
    assert follow_up(place, job, "reconcile")["status"] == "succeeded"
    assert _release(place, environment) == before
    _is_back(place, environment)


@pytest.mark.long
def test_a_promotion_leaves_its_target_as_it_was(place: Place, storage: S3) -> None:
    production = place.make_site("promoted")
    job = place.run(_copy(place, production, "up", type="staging", promotion_preset="content-protect"))
    staging = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    said = "SELECT option_value FROM wp_options WHERE option_name = 'blogdescription'"
    place.sql(staging, "UPDATE wp_options SET option_value = 'Moved' WHERE option_name = 'blogdescription'")
    gates = (f"{staging['id']}/drift-check", None), (f"{production['id']}/backups", {"backup_scope": "full"})
    for path, body in gates:
        assert place.run(place.plane.http.post(f"/api/environments/{path}", json=body))["status"] == "succeeded"
    before, description = _release(place, production), place.sql(production, said)
    answer = place.plane.http.post(
        f"/api/environments/{staging['id']}/promote", json={"target_environment_id": production["id"]}
    )
    job_id = _begun(place, answer, "Bring what changed beside what is served")
    with place.databases_held():
        job = cancelled(place, job_id)
    assert follow_up(place, job, "reconcile")["status"] == "succeeded"
    assert (_release(place, production), place.sql(production, said)) == (before, description)
    _is_back(place, production)
    assert place.sql(staging, said) == "Moved"


@pytest.mark.long
def test_a_removal_that_is_still_backing_up_removes_nothing(place: Place, storage: S3) -> None:
    production = place.make_site("still-there")
    job = place.run(_copy(place, production, "copy"))
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    place.sql(copy, BULK)
    head = place.plane.git("rev-parse", "main")
    answer = place.plane.http.delete(f"/api/environments/{copy['id']}")
    cancelled(place, _begun(place, answer, "Send database and files to storage"))
    assert place.plane.git("rev-parse", "main") == head
    now = place.plane.http.get(f"/api/environments/{copy['id']}").json()
    assert (now["status"], place.page(copy).status_code) == ("active", 200)
    assert storage.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    place.sql(copy, "DROP TABLE wp_bulk")
    assert place.run(place.plane.http.delete(f"/api/environments/{copy['id']}"))["status"] == "succeeded"


@pytest.mark.long
def test_a_site_goes_with_its_documents(place: Place) -> None:
    with place.databases_held():
        answer = place.plane.http.post("/api/sites", json={"name": "Short", "slug": "short"})
        job = cancelled(place, _begun(place, answer, ROLE))
    assert follow_up(place, job, "site-remove")["status"] == "succeeded"
    assert "short" not in [site["slug"] for site in place.plane.http.get("/api/sites").json()]
    assert _traces(place, job["environment_id"]) == ""
    assert place.make_site("short")["status"] == "active", "its slug is free again"
