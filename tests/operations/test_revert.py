"""`git revert` of what an operation had committed, in somebody's clone, pushed: the environment is what it was."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.controlplane import run_git, until
from tests.lab.acme import Acme, acme_server
from tests.lab.git_server import GitServer, git_daemon
from tests.lab.mirror import Mirror, plugin, update_mirror
from tests.lab.s3 import BUCKET, S3
from tests.lab.web_server import WebServer, web_server
from tests.place import Place

pytestmark = pytest.mark.lab
KEY = "reverted/production"
OURS = "wp-content/mu-plugins/ours.php"
DESCRIPTION = "SELECT option_value FROM wp_options WHERE option_name = 'blogdescription'"


def speaking(word: str) -> str:
    return f"add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


@dataclass
class Undone:
    """A site, what is asked of it, and what takes it back."""

    place: Place
    environment: dict[str, Any]
    server: GitServer
    mirror: Mirror
    web: WebServer
    acme: Acme

    @property
    def url(self) -> str:
        return f"/api/environments/{self.environment['id']}"

    def done(self, method: str, url: str, **body: Any) -> dict[str, Any]:
        """The job of a request, which went well."""
        job = self.place.run(self.place.plane.http.request(method, url, json=body or None))
        assert job["status"] == "succeeded", job
        return job

    def revert(self, *commits: str, confirm: str | None = None) -> str:
        """Revert in the clone, newest first, and push; the last commit's id."""
        clone = self.place.plane.clone.path
        run_git(clone, "pull", "-q", "--rebase", "origin", "main")
        run_git(clone, "revert", "--no-edit", *commits)
        if confirm:
            run_git(clone, "commit", "-q", "--amend", "--no-edit", "--trailer", f"Trueup-Confirm: {confirm}")
        run_git(clone, "push", "-q", "origin", "HEAD:main")
        return run_git(clone, "rev-parse", "HEAD")

    def commit_of(self, job: dict[str, Any]) -> str:
        return self.place.plane.declaring_commits()[job["id"]][0]

    def manifest(self) -> dict[str, Any]:
        return self.place.manifest(self.environment)

    def settled(self) -> None:
        """The node is what the documents say, by its own answer."""
        plane = self.place.plane

        def nothing_to_do() -> bool:
            return plane.cli("plan", KEY, "--detailed-exitcode").exit_code == 0

        until(nothing_to_do, "nothing to differ", told=lambda: plane.cli("plan", KEY).output + plane.log())

    def plan(self) -> dict[str, Any]:
        """The one step of the plan."""
        (step,) = json.loads(self.place.plane.cli("plan", KEY, "-o", "json").stdout)["steps"]
        found: dict[str, Any] = step
        return found

    def page(self) -> str:
        host = self.environment["preview_url"].partition("://")[2]
        node = self.place.node_of(self.environment)
        return node.fetch("/", host=host, headers={"Cookie": "wordpress_no_cache=1"}).text

    def write(self, text: str) -> None:
        """What somebody writes into the site: a setting and an upload."""
        self.place.sql(
            self.environment, f"UPDATE wp_options SET option_value = '{text}' WHERE option_name = 'blogdescription'"
        )
        path = f"/var/www/sites/{self.environment['id']}/shared/uploads/note.txt"
        self.place.node_of(self.environment).ssh(["tee", path], input=text)

    def written(self) -> tuple[str, str]:
        note = self.place.page(self.environment, "/wp-content/uploads/note.txt").text
        return self.place.sql(self.environment, DESCRIPTION), note

    def backups(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.place.plane.http.get(f"{self.url}/backups").json()
        return found

    def back_up(self) -> dict[str, Any]:
        self.done("POST", f"{self.url}/backups", backup_scope="full")
        return self.backups()[0]


@pytest.fixture(scope="module")
def site(place: Place, storage: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undone]:
    gateway = place.nodes["web-1"].network.gateway
    with (
        git_daemon(tmp_path_factory.mktemp("git"), gateway) as server,
        update_mirror(gateway) as mirror,
        web_server(gateway) as web,
        acme_server(tmp_path_factory.mktemp("acme"), gateway) as acme,
    ):
        allowed = f"  imports: {{allowed_hosts: ['{gateway}']}}\n"
        yaml = storage.platform() + allowed + mirror.platform() + acme.platform()
        place.plane.clone.push({"platform.yaml": yaml}, "Name the servers")
        yield Undone(place, place.make_site("reverted"), server, mirror, web, acme)
        place.plane.clone.push({"platform.yaml": storage.platform()}, "Name no servers")


@pytest.mark.long
def test_settings_come_back(site: Undone) -> None:
    site.acme.point("reverted.example.com", site.place.node_of(site.environment).address)
    before = site.manifest()["variables"]
    cache = site.done("PATCH", f"{site.url}/cache", fastcgi_cache_enabled=False)
    domain = site.done("POST", f"{site.url}/domains", hostname="reverted.example.com")
    assert site.manifest()["variables"] != before
    site.revert(site.commit_of(domain), site.commit_of(cache))
    site.settled()
    assert site.manifest()["variables"] == before
    assert site.place.plane.http.get(f"{site.url}/domains").json() == []
    home = site.place.sql(site.environment, "SELECT option_value FROM wp_options WHERE option_name = 'home'")
    assert home == site.environment["preview_url"]


@pytest.mark.long
def test_code_comes_back_by_its_link(site: Undone) -> None:
    source = {"source_type": "git", "source_ref": site.server.url("undone")}
    site.server.commit("undone", {OURS: f"<?php {speaking('one')}"})
    site.done("POST", f"{site.url}/deploy", **source)
    first = site.manifest()["variables"]["release"]["id"]
    site.server.commit("undone", {OURS: f"<?php {speaking('two')}"})
    job = site.done("POST", f"{site.url}/deploy", **source)
    assert "<i>two</i>" in site.page()
    site.revert(site.commit_of(job))
    site.settled()
    assert "<i>one</i>" in site.page()
    assert site.manifest()["variables"]["release"]["id"] == first


@pytest.mark.long
def test_an_update_comes_back_with_its_record(site: Undone) -> None:
    plugins = f"/var/www/sites/{site.environment['id']}/current/wp-content/plugins/greeting"
    node = site.place.node_of(site.environment)
    node.ssh(["mkdir", "-p", plugins])
    node.ssh(["tee", f"{plugins}/greeting.php"], input=plugin("greeting", "1.0", speaking("1.0")))
    active = 'a:1:{i:0;s:21:"greeting/greeting.php";}'
    site.place.sql(
        site.environment, f"UPDATE wp_options SET option_value = '{active}' WHERE option_name = 'active_plugins'"
    )
    node.ssh(f"redis-cli -s /run/trueup-redis/{site.environment['id']}/redis.sock flushdb")
    site.mirror.publish_plugin("greeting", "1.1", speaking("1.1"))
    site.place.plane.clone.read("platform.yaml")
    path = "sites/reverted/environments/production.yaml"
    before = site.place.plane.clone.read(path)
    job = site.done("POST", f"{site.url}/updates", scope="plugins")
    assert "<i>1.1</i>" in site.page()
    update = site.commit_of(job)
    record = run_git(site.place.plane.store, "rev-list", "-1", "--ancestry-path", f"{update}..main")
    site.revert(record, update)
    site.settled()
    assert "<i>1.0</i>" in site.page()
    assert site.place.plane.clone.read(path) == before


@pytest.mark.long
def test_a_restore_comes_back_once_somebody_says_that_what_is_newer_may_go(site: Undone) -> None:
    """What was there before the restore, and then, by a revert of the revert, what was there after it."""
    site.write("first")
    backup = site.back_up()
    site.write("second")
    job = site.done("POST", f"{site.url}/restore", backup_id=backup["id"])
    assert site.written() == ("first", "first")
    safety = site.backups()[0]
    site.write("third")
    restored = site.manifest()
    commit = site.revert(site.commit_of(job))

    step = site.plan()
    assert (step["action"], step["verdict"]) == ("return", "blocked")
    assert f"`trueup apply {KEY} --confirm`" in step["reason"]
    told = site.place.plane.cli("plan", KEY).output
    assert f"backup {safety['id']}" in told
    assert "a full backup that is taken first" in told
    # Neither the loop nor an unconfirmed apply touches anything.
    refused = site.place.plane.command("apply", "--yes", KEY)
    assert "blocked" in refused.stdout
    assert (site.written(), site.manifest()["contents"]) == (("third", "third"), restored["contents"])

    site.place.plane.command("apply", "--yes", "--confirm", KEY)
    site.settled()
    assert site.written() == ("second", "second")
    assert site.page()
    newest = site.backups()[0]
    assert newest["id"] not in {backup["id"], safety["id"]}
    assert site.manifest()["contents"] == restored["contents"][::-1], "the spent one is the last again"

    site.revert(commit, confirm=KEY)
    until(lambda: site.written() == ("third", "third"), "the loop to go back", told=site.place.plane.log)
    site.settled()


@pytest.mark.long
def test_an_import_comes_back(site: Undone) -> None:
    site.write("before the import")
    address = site.web.serve("/export.tar.gz", site.place.export(site.environment))
    site.write("meanwhile")
    before = site.manifest()["variables"]
    job = site.done("POST", f"/api/sites/{site.environment['site_id']}/import", archive_url=address)
    assert site.written() == ("before the import", "before the import")
    site.revert(site.commit_of(job), confirm=KEY)
    until(lambda: site.written() == ("meanwhile", "meanwhile"), "what was before", told=site.place.plane.log)
    site.settled()
    assert site.manifest()["variables"] == before


@pytest.mark.long
def test_a_promotion_comes_back(site: Undone) -> None:
    site.write("meanwhile")
    body = {"name": "Staging", "slug": "staging", "type": "staging", "promotion_preset": "content-protect"}
    job = site.done("POST", f"/api/sites/{site.environment['site_id']}/environments", **body)
    staging = site.place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    site.place.sql(staging, "UPDATE wp_options SET option_value = 'moved' WHERE option_name = 'blogdescription'")
    site.done("POST", f"/api/environments/{staging['id']}/drift-check")
    site.back_up()
    before = site.manifest()["variables"]
    job = site.done("POST", f"/api/environments/{staging['id']}/promote", target_environment_id=site.environment["id"])
    assert site.written()[0] == "moved"
    site.revert(site.commit_of(job), confirm=KEY)
    until(lambda: site.written()[0] == "meanwhile", "what was before", told=site.place.plane.log)
    site.settled()
    assert site.manifest()["variables"] == before


def _is_there(site: Undone, environment: dict[str, Any]) -> bool:
    """Something of it is still on its node."""
    node, id_ = site.place.node_of(environment), environment["id"]
    paths = f"/var/www/sites/{id_} /etc/trueup/environments/{id_}.json /var/lib/mysql/wp_{id_.replace('-', '')[:12]}"
    return any(node.ssh(["test", "-e", path], check=False).returncode == 0 for path in paths.split())


def _kept(storage: S3, environment: dict[str, Any]) -> set[str]:
    found = storage.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{environment['id']}/")
    return {one["Key"].rsplit("/", 1)[1] for one in found.get("Contents", [])}


@pytest.mark.long
def test_a_creation_comes_back_once_somebody_says_so(site: Undone, storage: S3) -> None:
    place, plane = site.place, site.place.plane
    job = plane.wait_job(plane.create_site("unmade")["id"])
    made = plane.environment_of("unmade")
    body = {"name": "Brief", "slug": "brief", "type": "clone"}
    copying = site.done("POST", f"/api/sites/{made['site_id']}/environments", **body)
    copy = plane.http.get(f"/api/environments/{copying['environment_id']}").json()

    # Confirmed in the commit: the loop removes it, backed up.
    site.revert(site.commit_of(copying), confirm="unmade/brief")
    until(lambda: not _is_there(site, copy), "the copy to go", told=plane.log)
    assert _kept(storage, copy) == {"database.sql.zst", "files.tar.zst", "manifest.json"}

    # Not confirmed: it stays and serves, and the plan says what there is to say.
    site.revert(site.commit_of(job))
    until(lambda: plane.http.get(f"/api/environments/{made['id']}").status_code == 404, "the revert to be read")
    line = f"orphan unmade/production ({made['id']}) on "
    until(lambda: line in plane.cli("plan", "--no-observe").stdout, "the plan to tell", told=plane.log)
    assert place.page(made).status_code == 200
    refused = plane.command("remove", "unmade/production", check=False)
    assert (refused.returncode, "--confirm unmade" in refused.stderr) == (1, True)
    assert _is_there(site, made)
    plane.command("remove", "unmade/production", "--confirm", "unmade")
    assert not _is_there(site, made)
    assert _kept(storage, made) == {"database.sql.zst", "files.tar.zst", "manifest.json"}
