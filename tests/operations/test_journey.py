"""One site goes through every job type, through the API; each job is run once more, and changes nothing.

What else an operation meets (other ways, refusals, kills) is in the file of its own here. Each test ends with the site
as it began; the last one removes it.
"""

import html
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from ruamel.yaml import YAML

from tests.controlplane import until
from tests.faults.test_on_nodes import HOSTILE, MARK
from tests.lab.acme import Acme, acme_server
from tests.lab.git_server import GitServer, git_daemon
from tests.lab.mirror import Mirror, plugin, update_mirror
from tests.lab.s3 import BUCKET, S3
from tests.lab.web_server import WebServer, web_server
from tests.operations.again import requeue, run_again
from tests.operations.test_by_hand import by_hand
from tests.place import Place
from tests.reports.receivers import Hook
from tests.reports.receivers import web_server as receiver
from tests.updatable import speaking

pytestmark = [pytest.mark.lab, pytest.mark.in_order]

KEY = "travelling/production"
PATH = "sites/travelling/environments/production.yaml"
ALTERED = "wp-content/plugins/akismet/akismet.php"


@dataclass
class Services:
    """All that an operation may ask."""

    code: GitServer
    mirror: Mirror
    acme: Acme
    web: WebServer
    hook: Hook


@dataclass
class Journey:
    """The site, and what a client does with it."""

    place: Place
    storage: S3
    services: Services
    made: dict[str, Any]
    """The job that made it."""
    site: dict[str, Any]

    def on(self, path: str) -> str:
        return f"/environments/{self.site['id']}{path}"

    def get(self, path: str) -> Any:
        answer = self.place.plane.http.get(f"/api{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def newest(self, job_type: str) -> dict[str, Any]:
        """The site's last job of this type; the loop has others, such as looks at its health, at any time."""
        listed = self.get(f"/jobs?environment_id={self.site['id']}")
        found: dict[str, Any] = next(one for one in listed if one["job_type"] == job_type)
        return found

    def done(self, path: str, job_type: str, method: str = "POST", **body: Any) -> dict[str, Any]:
        """The job of a request, succeeded; and succeeded once more, when nothing was left to do."""
        query = {"params": body} if method == "DELETE" else {"json": body or None}
        job = self.place.run(self.place.plane.http.request(method, f"/api{path}", **query))
        assert (job["status"], job["job_type"]) == ("succeeded", job_type), job
        run_again(self.place, job)
        return job

    def page(self, environment: dict[str, Any] | None = None) -> str:
        """The home page as it is made now."""
        one = environment or self.site
        host = one["preview_url"].partition("://")[2]
        answer = self.place.node_of(one).fetch("/", host=host, headers={"Cookie": "wordpress_no_cache=1"})
        assert answer.status_code == 200, answer.text
        return answer.text

    def is_titled(self) -> bool:
        shown = html.unescape(self.page())
        return f"touch {MARK}" in shown and "{{ lookup(" in shown

    def cached(self) -> str | None:
        return self.place.page(self.site).headers.get("x-fastcgi-cache")

    def option(self, name: str, environment: dict[str, Any] | None = None) -> str:
        return self.place.sql(
            environment or self.site, f"SELECT option_value FROM wp_options WHERE option_name = '{name}'"
        )

    def orders(self, environment: dict[str, Any] | None = None) -> str:
        return self.place.sql(environment or self.site, "SELECT GROUP_CONCAT(note ORDER BY id) FROM wp_orders")

    def result(self, job: dict[str, Any]) -> dict[str, Any]:
        with self.place.plane.opened() as home:
            found = home.records.jobs.get(UUID(job["id"])).result
        assert found is not None
        return found

    def declared(self) -> dict[str, Any]:
        found: dict[str, Any] = YAML(typ="safe").load(self.place.plane.clone.read(PATH))["spec"]
        return found

    def kept(self, environment: dict[str, Any]) -> set[str]:
        """The objects of an environment's backups."""
        listed = self.storage.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{environment['id']}/")
        return {one["Key"].rsplit("/", 1)[1] for one in listed.get("Contents", [])}

    def is_on_node(self, environment: dict[str, Any]) -> bool:
        id_, short = environment["id"], environment["id"].replace("-", "")[:12]
        script = f"ls -d /var/www/sites/{id_} /etc/trueup/environments/{id_}.json /var/lib/mysql/wp_{short}"
        return any(node.ssh(script, check=False).stdout for node in self.place.nodes.values())


@pytest.fixture(scope="module")
def services(place: Place, storage: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    where, gateway = tmp_path_factory.mktemp, place.nodes["web-1"].network.gateway
    with ExitStack() as stack:
        found = Services(
            stack.enter_context(git_daemon(where("git"), gateway)),
            stack.enter_context(update_mirror(gateway)),
            stack.enter_context(acme_server(where("acme"), gateway)),
            stack.enter_context(web_server(gateway)),
            stack.enter_context(receiver()),
        )
        reports = {"schedule": None, "targets": [{"type": "webhook", "url": found.hook.url}]}
        spec = storage.platform() + found.mirror.platform() + found.acme.platform()
        spec += f"  imports: {{allowed_hosts: ['{gateway}']}}\n  reports: {json.dumps(reports)}\n"
        place.plane.clone.push({"platform.yaml": spec}, "Name all services")
        yield found
        place.plane.clone.push({"platform.yaml": storage.platform()}, "Name the storage")


@pytest.fixture(scope="module")
def journey(place: Place, storage: S3, services: Services) -> Journey:
    body = {"name": HOSTILE, "slug": "travelling"}
    made = place.run(place.plane.http.post("/api/sites", json=body))
    assert (made["status"], made["job_type"]) == ("succeeded", "site-create"), made
    found = Journey(place, storage, services, made, place.plane.environment_of("travelling"))
    place.sql(found.site, "CREATE TABLE wp_orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(20))")
    place.sql(found.site, "INSERT INTO wp_orders (note) VALUES ('one'), ('two')")
    return found


def test_its_nodes_were_provisioned_and_are_looked_at(journey: Journey) -> None:
    """Run once more, the job of a node leaves alone what runs there and what was written."""
    place, node = journey.place, journey.place.node_of(journey.site)
    made = [one for one in journey.get("/jobs?limit=200") if one["job_type"] == "node-provision"]
    assert {one["status"] for one in made} == {"succeeded"}
    job = next(one for one in made if one["node_id"] == journey.site["node_id"])
    script = (
        "systemctl show -p MainPID nginx mariadb fail2ban; nft --stateless list ruleset; "
        "find /etc -type f ! -path '/etc/trueup/*' -printf '%p %T@\\n' | sort"
    )
    before = node.ssh(script).stdout
    requeue(place, job)
    assert place.plane.wait_job(job["id"])["status"] == "succeeded"
    assert node.ssh(script).stdout == before

    def looked_at() -> str:
        return next(str(one["observed_at"]) for one in journey.get("/nodes") if one["id"] == journey.site["node_id"])

    for _ in range(2):
        before = looked_at()
        until(lambda then=before: looked_at() > then, "a look at the node", told=place.plane.log)  # type: ignore[misc]


def test_made_and_put_right(journey: Journey) -> None:
    """Its title is a program's text wherever something would run it: only text it is."""
    place, before = journey.place, journey.place.manifest(journey.site)
    assert journey.is_titled()
    assert html.unescape(journey.option("blogname")) == HOSTILE
    assert not Path(MARK).exists()
    assert [node.ssh(["ls", MARK], check=False).returncode for node in place.nodes.values()] == [2, 2]
    run_again(place, journey.made)
    assert place.manifest(journey.site)["contents"] == before["contents"]

    place.touch_block(journey.site)
    until(lambda: not place.is_touched(journey.site), "the loop to heal it", told=place.plane.log)
    job = journey.newest("reconcile")
    assert place.plane.wait_job(job["id"])["status"] == "succeeded"
    run_again(place, place.plane.job(job["id"]))


def test_its_cache_is_purged_and_is_turned_off(journey: Journey) -> None:
    until(lambda: journey.cached() == "HIT", "the page to be kept")
    journey.done(journey.on("/cache/purge"), "cache-purge")
    assert journey.cached() == "MISS"
    journey.done(journey.on("/cache"), "cache-update", "PATCH", fastcgi_cache_enabled=False)
    assert journey.cached() == "NONE"
    assert journey.declared()["cache"]["fastcgi"] is False
    answer = journey.place.plane.http.patch(f"/api{journey.on('/cache')}", json={"fastcgi_cache_enabled": True})
    assert journey.place.run(answer)["status"] == "succeeded"


def test_its_health_is_told(journey: Journey) -> None:
    assert journey.result(journey.done(journey.on("/health-check"), "health-check"))["health"] == "healthy"
    node, content = journey.place.node_of(journey.site), f"/var/www/sites/{journey.site['id']}/current/wp-content"
    node.ssh(["mkdir", "-p", f"{content}/mu-plugins"])
    node.ssh(["tee", f"{content}/mu-plugins/fatal.php"], input="<?php no_such_function();")
    try:
        answer = journey.place.plane.http.post(f"/api{journey.on('/health-check')}")
        found = journey.result(journey.place.run(answer))
    finally:
        node.ssh(["rm", f"{content}/mu-plugins/fatal.php"])
    assert (found["health"], bool(found["checks"]["page"]), found["checks"]["database"]) == ("unhealthy", True, None)


def test_its_code_is_deployed_adopted_updated_and_discarded(journey: Journey) -> None:
    place, node, services = journey.place, journey.place.node_of(journey.site), journey.services
    current = f"/var/www/sites/{journey.site['id']}/current"
    commit = services.code.commit("travelling", {"wp-content/mu-plugins/ours.php": f"<?php {speaking('deployed')}"})
    journey.done(journey.on("/deploy"), "deploy", source_type="git", source_ref=services.code.url("travelling"))
    released = journey.get(journey.on(""))["current_release_id"]
    assert place.manifest(journey.site)["release_details"][released]["revision"] == commit
    assert "<i>deployed</i>" in journey.page()

    # By hand, as far as Trueup knows: a plugin that is told, and becomes desired.
    node.ssh(["mkdir", f"{current}/wp-content/plugins/greeting"])
    code = plugin("greeting", "1.0", speaking("greeting 1.0"))
    node.ssh(["tee", f"{current}/wp-content/plugins/greeting/greeting.php"], input=code)
    node.ssh(["wp", "--allow-root", f"--path={current}", "plugin", "activate", "greeting"])
    journey.done(journey.on("/drift-check"), "drift-check")
    assert journey.get(journey.on(""))["drift_status"] == "drifted"
    journey.done(journey.on("/drift/adopt"), "drift-adopt")
    declared = journey.declared()
    assert (declared["release"]["origin"], declared["versions"]["plugins"]["greeting"]) == ("adopt", "1.0")
    assert "<i>greeting 1.0</i>" in journey.page()

    services.mirror.publish_plugin("greeting", "1.1", speaking("greeting 1.1"))
    journey.done(journey.on("/updates"), "updates", scope="plugins")
    assert journey.declared()["versions"]["plugins"]["greeting"] == "1.1"
    assert "<i>greeting 1.1</i>" in journey.page()

    before = node.ssh(["sha256sum", f"{current}/{ALTERED}"]).stdout
    node.ssh(f"echo '// altered' >> {current}/{ALTERED}")
    job = place.run(place.plane.http.post(f"/api{journey.on('/drift-check')}"))
    assert job["status"] == "succeeded", job
    journey.done(journey.on("/drift/discard"), "drift-discard")
    assert node.ssh(["sha256sum", f"{current}/{ALTERED}"]).stdout == before
    assert journey.declared()["release"]["origin"] == "discard"
    assert "<i>greeting 1.1</i>" in journey.page()


def test_its_content_is_backed_up_restored_and_imported(journey: Journey) -> None:
    place, before, archive = journey.place, journey.orders(), journey.place.export(journey.site)
    journey.done(journey.on("/backups"), "backup", backup_scope="full")
    backup = journey.get(journey.on("/backups"))[0]
    assert (backup["status"], backup["backup_scope"]) == ("completed", "full")
    assert journey.kept(journey.site) >= {"database.sql.zst", "files.tar.zst", "manifest.json"}
    place.sql(journey.site, "DELETE FROM wp_orders WHERE id = 1")
    journey.done(journey.on("/restore"), "restore", backup_id=backup["id"])
    assert journey.orders() == before
    journal = place.node_of(journey.site).ssh(["journalctl", "-o", "export", "--no-pager"]).stdout
    assert journey.site["id"] in journal, "the journal that was read is the one of this time"
    assert "X-Amz-Signature" not in journal, "no address that opens the storage is in it"

    place.sql(journey.site, "DELETE FROM wp_orders WHERE id = 2")
    url = journey.services.web.serve("/export.tar.gz", archive)
    journey.done(f"/sites/{journey.site['site_id']}/import", "site-import", archive_url=url)
    assert journey.orders() == before
    assert journey.is_titled()


def test_its_copy_is_made_promoted_and_removed(journey: Journey) -> None:
    place, orders = journey.place, journey.orders()
    body = {"name": "Staging", "slug": "staging", "type": "staging", "promotion_preset": "commerce-protect"}
    job = journey.done(f"/sites/{journey.site['site_id']}/environments", "environment-create", **body)
    copy = journey.get(f"/environments/{job['environment_id']}")
    assert (copy["status"], journey.orders(copy)) == ("active", orders)
    assert journey.site["preview_url"] not in journey.page(copy)

    place.sql(copy, "UPDATE wp_options SET option_value = 'Moved' WHERE option_name = 'blogdescription'")
    place.sql(copy, "DELETE FROM wp_orders")
    gates = (f"/environments/{copy['id']}/drift-check", None), (journey.on("/backups"), {"backup_scope": "full"})
    for path, asked in gates:
        assert place.run(place.plane.http.post(f"/api{path}", json=asked))["status"] == "succeeded"
    journey.done(f"/environments/{copy['id']}/promote", "promote", target_environment_id=journey.site["id"])
    assert (journey.option("blogdescription"), journey.orders()) == ("Moved", orders)
    assert journey.site["preview_url"].partition("://")[2] in journey.option("home")

    journey.done(f"/environments/{copy['id']}", "environment-remove", "DELETE")
    assert place.plane.http.get(f"/api/environments/{copy['id']}").status_code == 404
    assert not journey.is_on_node(copy)
    assert journey.kept(copy) == {"database.sql.zst", "files.tar.zst", "manifest.json"}, "backed up before it went"
    assert journey.orders() == orders


def test_its_domain_comes_and_goes(journey: Journey) -> None:
    name, node = "travelling.example.com", journey.place.node_of(journey.site)
    acme = journey.services.acme
    acme.point(name, node.address)
    journey.done(journey.on("/domains"), "domain-add", hostname=name)
    [one] = journey.get(journey.on("/domains"))
    assert (one["hostname"], one["tls_status"], journey.option("home")) == (name, "active", f"https://{name}")
    trusted = acme.roots(acme.log_file.with_name("roots.pem"))
    assert node.fetch("/", name, scheme="https", ca_file=trusted).status_code == 200
    journey.done(f"/domains/{one['id']}", "domain-remove", "DELETE")
    assert (journey.get(journey.on("/domains")), journey.option("home")) == ([], journey.site["preview_url"])
    assert journey.is_titled()


def test_an_operator_finds_nothing_to_do(journey: Journey) -> None:
    """By hand, beside the control plane, which has it among its jobs."""
    before, home = journey.place.manifest(journey.site), str(journey.place.plane.home)
    run = f"ansible-playbook -i inventory playbooks/environment.yml -e environment={KEY}"
    status, output = by_hand(run, TRUEUP_HOME=home)
    assert (status, "changed=0" in output) == (0, True), output
    assert journey.place.manifest(journey.site) == before
    job = journey.newest("operator-run")
    assert job["status"] == "succeeded"
    assert "by-hand:grace" in job["locked_by"]


def test_a_report_of_it_is_made_and_sent(journey: Journey) -> None:
    place, plane = journey.place, journey.place.plane
    place.close("travelling")
    try:
        place.touch_block(journey.site)
        plan = ("plan", KEY, "--detailed-exitcode")
        until(lambda: plane.cli(*plan).exit_code == 2, "the change to be seen", told=plane.log)
        job = place.run(plane.http.post("/api/drift-reports"))
        assert (job["status"], job["job_type"]) == ("succeeded", "drift-report"), job
        report = f"/drift-reports/{job['id']}"
        sent = lambda: [one["status"] for one in journey.get(report)["deliveries"]] == ["sent"]  # noqa: E731
        until(sent, "it to be sent", told=plane.log)
    finally:
        place.open("travelling")
    (mine,) = [one for one in journey.get(report)["environments"] if one["environment"] == KEY]
    assert place.block(journey.site) in {one["field"].partition(" ")[2] for one in mine["differences"]}
    request = journey.services.hook.requests[-1].data
    assert request["report"]["id"] == job["id"]
    assert "new" in {one["kind"] for one in request["changes"] if one["subject"] == KEY}
    until(lambda: not place.is_touched(journey.site), "the loop to heal it", told=plane.log)


def test_it_goes(journey: Journey) -> None:
    assert journey.page()
    journey.done(f"/sites/{journey.site['site_id']}", "site-remove", "DELETE", confirm="travelling")
    assert journey.place.plane.http.get(f"/api/sites/{journey.site['site_id']}").status_code == 404
    assert not journey.is_on_node(journey.site)
    assert journey.kept(journey.site) >= {"database.sql.zst", "files.tar.zst", "manifest.json"}
