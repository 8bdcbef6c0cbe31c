"""The control plane is killed while an operation is at work on a node: started again, it does it once, and whole.

Run once more after that, it changes nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.nodes import processes
from tests.controlplane import PATIENCE_S, until
from tests.lab.acme import Acme, acme_server
from tests.lab.git_server import GitServer, git_daemon
from tests.lab.s3 import BUCKET, S3
from tests.lab.web_server import web_server
from tests.operations.again import run_again
from tests.place import Place
from tests.proof import sampled

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def acme(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    with acme_server(tmp_path_factory.mktemp("acme"), place.nodes["web-1"].network.gateway) as acme:
        yield acme


@pytest.fixture(scope="module")
def server(place: Place, storage: S3, acme: Acme, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    gateway = place.nodes["web-1"].network.gateway
    with git_daemon(tmp_path_factory.mktemp("git"), gateway) as server:
        yaml = storage.platform() + f"  imports: {{allowed_hosts: ['{gateway}']}}\n" + acme.platform()
        place.plane.clone.push({"platform.yaml": yaml}, "Allow the Git server, name the ACME server")
        yield server
        place.plane.clone.push({"platform.yaml": storage.platform()}, "Name no ACME server")


@pytest.fixture(scope="module")
def site(place: Place, server: GitServer) -> dict[str, Any]:
    environment = place.make_site("enduring")
    place.sql(environment, "CREATE TABLE wp_orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200))")
    place.sql(environment, "INSERT INTO wp_orders (note) SELECT REPEAT('x', 200) FROM seq_1_to_20000")
    return environment


def killed_in_the_middle(place: Place, path: str, method: str = "POST", **body: Any) -> dict[str, Any]:
    """The job of a request, whose control plane died as soon as it was at work on the node, finished."""
    answer = place.plane.http.request(method, f"/api{path}", json=body or None)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    scope = ["systemctl", "list-units", "--plain", "--no-legend", f"trueup-{job_id}.scope"]
    # Seen on the node itself: what a job does there may take less than the way to it. Until the control plane is dead
    # nobody's statement comes to an end there, so that the job is in the middle however late that is.
    unit = f"/run/systemd/transient/trueup-{job_id}.scope"
    hold = "systemctl kill --signal=STOP mariadb.service"
    at_work = f"for _ in $(seq 12000); do [ -e {unit} ] && {hold} && exit; sleep 0.01; done; exit 1"
    node = place.node_of(place.plane.job(job_id))
    try:
        node.ssh(at_work, timeout=PATIENCE_S)
        place.plane.kill()
    finally:
        node.ssh(["systemctl", "kill", "--signal=CONT", "mariadb.service"])
    place.plane.restart()
    job = place.plane.wait_job(job_id)
    assert (job["status"], job["error_code"]) == ("succeeded", None), job
    assert job["attempt_count"] == 2, "it was killed in the middle"
    until(lambda: processes.marked({processes.JOB_MARK: job_id}) == [], "its processes to end")
    assert len(place.plane.declaring_commits().get(job_id, [])) <= 1
    until(lambda: not any(one.ssh(scope).stdout for one in place.nodes.values()), "its scopes to end")
    run_again(place, job)
    return job


def orders(place: Place, environment: dict[str, Any]) -> str:
    return place.sql(environment, "SELECT CONCAT(COUNT(*), ' ', SUM(LENGTH(note))) FROM wp_orders")


def deploy(place: Place, site: dict[str, Any], server: GitServer, storage: S3) -> None:
    word = "<?php add_action('wp_footer', function () { echo '<i>endured</i>'; });"
    commit = server.commit("enduring", {"wp-content/mu-plugins/ours.php": word})
    before = place.manifest(site)["releases"]
    path = f"/environments/{site['id']}"
    killed_in_the_middle(place, f"{path}/deploy", source_type="git", source_ref=server.url("enduring"))
    released = place.plane.http.get(f"/api{path}").json()["current_release_id"]
    manifest = place.manifest(site)
    assert manifest["releases"] == [*before, released]
    assert manifest["release_details"][released]["revision"] == commit
    host = site["preview_url"].partition("://")[2]
    cookie = {"Cookie": "wordpress_no_cache=1"}
    assert "<i>endured</i>" in place.node_of(site).fetch("/", host=host, headers=cookie).text
    there = place.node_of(site).ssh(["ls", "-A", f"/var/www/sites/{site['id']}/releases"]).stdout.split()
    assert {name for name in there if not name.endswith((".sha256", ".unmanaged"))} == set(manifest["releases"])


def clone(place: Place, site: dict[str, Any], server: GitServer, storage: S3) -> None:
    before = orders(place, site)
    body = {"name": "Copy", "slug": "copy", "type": "staging"}
    job = killed_in_the_middle(place, f"/sites/{site['site_id']}/environments", **body)
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    assert (copy["status"], place.page(copy).status_code) == ("active", 200)
    assert orders(place, copy) == orders(place, site) == before
    assert len(place.manifest(copy)["contents"]) == 1
    short = copy["id"].replace("-", "")[:12]
    databases = place.node_of(copy).ssh(["mariadb", "-N", "-e", f"SHOW DATABASES LIKE 'wp\\_{short}%'"]).stdout.split()
    assert databases == [f"wp_{short}"]


def backup_and_restore(place: Place, site: dict[str, Any], server: GitServer, storage: S3) -> None:
    before, path = orders(place, site), f"/environments/{site['id']}"
    killed_in_the_middle(place, f"{path}/backups", backup_scope="full")
    (backup,) = place.plane.http.get(f"/api{path}/backups").json()
    assert backup["status"] == "completed"
    kept = storage.client.list_objects_v2(Bucket=BUCKET, Prefix=backup["storage_path"])["Contents"]
    assert len(kept) == 3
    place.sql(site, "DELETE FROM wp_orders WHERE id % 2")
    killed_in_the_middle(place, f"{path}/restore", backup_id=backup["id"])
    assert orders(place, site) == before
    assert place.page(site).status_code == 200


def cache(place: Place, site: dict[str, Any], server: GitServer, storage: S3) -> None:
    path = f"/environments/{site['id']}"
    killed_in_the_middle(place, f"{path}/cache", "PATCH", fastcgi_cache_enabled=False)
    assert place.plane.http.get(f"/api{path}").json()["fastcgi_cache_enabled"] is False
    place.page(site)
    assert place.page(site).headers["x-fastcgi-cache"] == "NONE"
    killed_in_the_middle(place, f"{path}/cache", "PATCH", fastcgi_cache_enabled=True)
    place.page(site)
    assert place.page(site).headers["x-fastcgi-cache"] == "HIT"


def promote(place: Place, site: dict[str, Any], server: GitServer, storage: S3) -> None:
    body = {"name": "Up", "slug": "up", "type": "staging", "promotion_preset": "commerce-protect"}
    job = place.run(place.plane.http.post(f"/api/sites/{site['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    staging, before = f"/environments/{job['environment_id']}", orders(place, site)
    copy = place.plane.http.get(f"/api{staging}").json()
    place.sql(copy, "UPDATE wp_options SET option_value = 'Moved' WHERE option_name = 'blogdescription'")
    gates = (f"{staging}/drift-check", None), (f"/environments/{site['id']}/backups", {"backup_scope": "full"})
    for path, asked in gates:
        assert place.run(place.plane.http.post(f"/api{path}", json=asked))["status"] == "succeeded"
    killed_in_the_middle(place, f"{staging}/promote", target_environment_id=site["id"])
    assert place.sql(site, "SELECT option_value FROM wp_options WHERE option_name = 'blogdescription'") == "Moved"
    assert orders(place, site) == before
    assert place.page(site).status_code == 200


def import_(place: Place, site: dict[str, Any], server: GitServer, storage: S3) -> None:
    """What is imported is the site itself, as it was before it lost half of its orders."""
    before, archive = orders(place, site), place.export(site)
    place.sql(site, "DELETE FROM wp_orders WHERE id % 2")
    with web_server(place.nodes["web-1"].network.gateway) as web:
        url = web.serve("/export.tar.gz", archive)
        killed_in_the_middle(place, f"/sites/{site['site_id']}/import", archive_url=url)
    assert orders(place, site) == before
    assert place.page(site).status_code == 200


def remove(place: Place, site: dict[str, Any], server: GitServer, storage: S3) -> None:
    body = {"name": "Short", "slug": "short", "type": "staging"}
    job = place.run(place.plane.http.post(f"/api/sites/{site['site_id']}/environments", json=body))
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    node, short = place.node_of(copy), copy["id"].replace("-", "")[:12]
    killed_in_the_middle(place, f"/environments/{copy['id']}", "DELETE")
    assert place.plane.http.get(f"/api/environments/{copy['id']}").status_code == 404
    its = f"/var/www/sites/{copy['id']}", f"/etc/trueup/environments/{copy['id']}.json", f"/var/lib/mysql/wp_{short}"
    assert [path for path in its if node.ssh(["test", "-e", path], check=False).returncode == 0] == []
    listed = storage.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{copy['id']}/")["Contents"]
    assert any(one["Key"].endswith("/manifest.json") for one in listed), "backed up before it went"
    assert place.page(site).status_code == 200


OPERATIONS = [deploy, backup_and_restore, cache, promote, import_, remove]


@pytest.mark.parametrize(
    "operation",
    sampled([clone, *OPERATIONS]),
    ids=lambda one: str(one.__name__).strip("_"),
)
def test_killed_in_the_middle(
    place: Place, site: dict[str, Any], server: GitServer, storage: S3, operation: Callable[..., None]
) -> None:
    operation(place, site, server, storage)


@pytest.mark.long
def test_killed_while_a_domain_comes_and_while_it_goes(
    place: Place, site: dict[str, Any], server: GitServer, acme: Acme
) -> None:
    name, path = "enduring.example.com", f"/environments/{site['id']}/domains"
    acme.point(name, place.node_of(site).address)
    killed_in_the_middle(place, path, hostname=name)
    [one] = place.plane.http.get(f"/api{path}").json()
    assert (one["hostname"], one["tls_status"]) == (name, "active")
    assert place.sql(site, "SELECT option_value FROM wp_options WHERE option_name = 'home'") == f"https://{name}"
    killed_in_the_middle(place, f"/domains/{one['id']}", "DELETE")
    assert place.plane.http.get(f"/api{path}").json() == []
    assert place.sql(site, "SELECT option_value FROM wp_options WHERE option_name = 'home'") == site["preview_url"]
    assert place.page(site).status_code == 200
