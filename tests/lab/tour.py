"""``make tour``: the operations on two nodes, one after the other, as a client of the API; a table of what was seen.

Servers, storage and the Git repository are real ones of the lab. What a step claims is asked of the sites themselves,
over HTTP or in their databases; the first claim that doesn't hold ends the tour.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.controlplane import until
from tests.lab.acme import Acme
from tests.lab.doctor import problems
from tests.lab.git_server import GitServer
from tests.lab.image import ensure_image
from tests.lab.mirror import Mirror
from tests.lab.s3 import BUCKET, S3
from tests.lab.stand import build
from tests.lab.web_server import WebServer
from tests.load import visitors
from tests.place import Place
from tests.updatable import Updatable, speaking

FRONT = "wp-content/mu-plugins/front.php"


class TourError(Exception):
    """Something that the tour claims was not so."""


def holds(claim: bool, what: str) -> None:
    if not claim:
        raise TourError(what)


@dataclass
class Tour:
    place: Place
    storage: S3
    code: GitServer
    web: WebServer
    mirror: Mirror
    acme: Acme
    rows: list[tuple[str, float, str]] = field(default_factory=list)
    production: dict[str, Any] = field(default_factory=dict)
    staging: dict[str, Any] = field(default_factory=dict)
    backup: dict[str, Any] = field(default_factory=dict)
    older: Updatable = field(init=False)

    @property
    def roots(self) -> Path:
        return self.acme.log_file.with_name("roots.pem")

    def walk(self) -> None:
        steps: list[tuple[str, Callable[[], str]]] = [
            ("create site", self.create),
            ("cache toggles, purge", self.caches),
            ("deploy", self.deploy),
            ("deploy of a broken release", self.broken),
            ("rollback", self.roll_back),
            ("health, going back", self.health),
            ("update of everything", self.update),
            ("update with a broken plugin", self.broken_update),
            ("clone, same node", self.clone_here),
            ("clone, other node", self.clone_there),
            ("backup", self.back_up),
            ("restore", self.restore),
            ("drift check, promote", self.promote),
            ("import of an export", self.import_site),
            ("domains, certificate", self.domains),
            ("magic login", self.log_in),
            ("job control", self.job_control),
            ("removal", self.remove),
        ]
        for name, step in steps:
            print(f"{name} …", flush=True)
            began = time.monotonic()
            said = step()
            self.rows.append((name, time.monotonic() - began, said))

    # What a client does

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """The job of an accepted request, finished well."""
        job = self.place.run(self.place.plane.http.post(f"/api{path}", json=body))
        holds(job["status"] == "succeeded", f"{path}: {job['error_code']}: {job['error_message']}")
        return job

    def get(self, path: str) -> Any:
        return self.place.plane.http.get(f"/api{path}").json()

    def deployed(self, tag: str) -> None:
        self.post(self.on("/deploy"), source_type="git", source_ref=f"{self.code.url('shop')}#{tag}")

    def on(self, path: str) -> str:
        return f"/environments/{self.production['id']}{path}"

    def page(self, environment: dict[str, Any], cookie: str = "wordpress_no_cache=1") -> httpx.Response:
        host = environment["preview_url"].partition("://")[2]
        headers = {"Cookie": cookie} if cookie else {}
        return self.place.node_of(environment).fetch("/", host=host, headers=headers)

    def active(self) -> None:
        """Until the environment is active again after a failure: `trueup apply` looks at it."""
        self.place.plane.command("apply", "shop/production", "--yes")
        until(lambda: self.get(self.on(""))["status"] == "active", "the environment to be active")

    # The steps

    def create(self) -> str:
        self.production = self.place.make_site("shop", "Night Shop")
        page = self.page(self.production)
        holds(page.status_code == 200 and "Night Shop" in page.text, "the site does not answer with its title")
        return f"200 with its title at {self.production['preview_url']}"

    def caches(self) -> str:
        seen = [self.page(self.production, cookie="").headers["x-fastcgi-cache"] for _ in range(2)]
        holds(seen[1] == "HIT", f"the page cache says {seen}")
        self.post(self.on("/cache/purge"))
        holds(self.page(self.production, cookie="").headers["x-fastcgi-cache"] == "MISS", "a purged page was kept")
        for wanted, flag in (("NONE", False), ("MISS", True)):
            answer = self.place.plane.http.patch(f"/api{self.on('/cache')}", json={"fastcgi_cache_enabled": flag})
            holds(self.place.run(answer)["status"] == "succeeded", "the cache was not toggled")
            found = self.page(self.production, cookie="").headers["x-fastcgi-cache"]
            holds(found == wanted, f"the page cache says {found}, not {wanted}")
        return "MISS, HIT, purged MISS, off NONE, on MISS"

    def deploy(self) -> str:
        statuses = self._visited(lambda: self.deployed("v1"))
        holds(set(statuses) == {200}, f"visitors saw {sorted(set(statuses))}")
        holds("front v1" in self.page(self.production).text, "v1 is not served")
        return f"{len(statuses)} requests meanwhile, 0 failed; the new code is served"

    def broken(self) -> str:
        before = self.get(self.on(""))["current_release_id"]
        jobs: list[dict[str, Any]] = []

        def deploy() -> None:
            body = {"source_type": "git", "source_ref": f"{self.code.url('shop')}#fatal"}
            jobs.append(self.place.run(self.place.plane.http.post(f"/api{self.on('/deploy')}", json=body)))

        statuses = self._visited(deploy)
        holds(jobs[0]["status"] == "failed", "a release with a PHP fatal was deployed")
        holds(set(statuses) == {200}, f"visitors saw {sorted(set(statuses))}")
        until(lambda: self.get(self.on(""))["current_release_id"] == before, "Git to be put back")
        self.active()
        return f"{jobs[0]['error_code']}; {len(statuses)} requests meanwhile, 0 failed; Git put back"

    def roll_back(self) -> str:
        self.deployed("v2")
        holds("front v2" in self.page(self.production).text, "v2 is not served")
        self.post(self.on("/rollback"))
        holds("front v1" in self.page(self.production).text, "v1 is not served again")
        return "v2, then v1 again"

    def health(self) -> str:
        self.post(self.on("/health-check"))
        before, node = self.get(self.on(""))["current_release_id"], self.place.node_of(self.production)
        self.deployed("fragile")
        until(lambda: self.get(self.on(""))["current_release_health"] == "healthy", "the clock to find it healthy")
        broken = f"/var/www/sites/{self.production['id']}/shared/uploads/break"
        node.ssh(["touch", broken])
        took = until(lambda: self.get(self.on(""))["current_release_id"] == before, "Trueup to go back")
        node.ssh(["rm", broken])
        until(lambda: "front v1" in self.page(self.production).text, "v1 to be served again")
        until(lambda: self.get(self.on(""))["status"] == "active", "the job to end")
        return f"a release that became unhealthy was left for the one before it within {took:.0f} s"

    def update(self) -> str:
        self.older = Updatable.make(self.place, self.mirror)
        before = self.older.db_version()
        self.mirror.publish_core("7.1.1", {})
        self.mirror.publish_plugin("greeting", "1.1", speaking("greeting 1.1"))
        with visitors(self.older.node.address, self.older.host) as visits:
            job = self.older.update("all")
        holds(job["status"] == "succeeded", f"{job['error_code']}: {job['error_message']}")
        holds(not visits.failures, f"visitors saw {visits.failures[:3]}")
        holds("greeting 1.1" in self.older.page(), "the plugin was not updated")
        holds(self.older.db_version() > before, "the tables were not upgraded")
        holds('version: "7.1.1"' in self.older.document(), "Git does not say which version resulted")
        holds(self.older.backups() == 1, "there is no backup from before the update")
        return f"WordPress 6.5.5 to 7.1.1 and a plugin; {visits.total} requests meanwhile, 0 failed; versions in Git"

    def broken_update(self) -> str:
        self.mirror.publish_plugin("greeting", "1.2", "add_action('wp_head', 'a_function_that_is_not_there');")
        before, declared = self.older.fingerprint(), self.older.declared()
        with visitors(self.older.node.address, self.older.host, wanted="greeting 1.1") as visits:
            job = self.older.update("plugins")
        holds(job["status"] == "failed", "a plugin with a PHP fatal was brought")
        holds(not visits.failures, f"visitors saw {visits.failures[:3]}")
        holds(self.older.fingerprint() == before, "code or database are not what they were")
        holds(self.older.declared() == declared, "Git names the broken update")
        self.older.ready()
        return f"{job['error_code']} on the copy; {visits.total} requests meanwhile, 0 failed; nothing changed"

    def clone_here(self) -> str:
        self.place.sql(
            self.production,
            "CREATE TABLE IF NOT EXISTS wp_wc_orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, total VARCHAR(20))",
        )
        self.place.sql(self.production, "INSERT INTO wp_wc_orders (total) VALUES ('1'), ('2'), ('3')")
        body = {"name": "Staging", "slug": "staging", "type": "staging", "promotion_preset": "commerce-protect"}
        self.staging = self._clone(**body)
        return "200, addresses rewritten, search engines kept away"

    def clone_there(self) -> str:
        (other,) = {node["id"] for node in self.get("/nodes")} - {self.production["node_id"]}
        copy = self._clone(name="Far", slug="far", type="clone", node_id=other)
        holds(copy["node_id"] == other, "the copy is on the same node")
        return "the same, streamed to the other node"

    def _clone(self, **body: Any) -> dict[str, Any]:
        job = self.post(f"/sites/{self.production['site_id']}/environments", **body)
        copy: dict[str, Any] = self.get(f"/environments/{job['environment_id']}")
        page = self.page(copy)
        holds(page.status_code == 200 and "front v1" in page.text, "the copy does not answer like its source")
        holds(self.production["preview_url"] not in page.text, "the copy names its source's address")
        holds("noindex" in page.headers["x-robots-tag"], "search engines may come to a copy")
        orders = self.place.sql(copy, "SELECT COUNT(*) FROM wp_wc_orders")
        holds(orders == "3", f"the copy has {orders} of 3 orders")
        return copy

    def back_up(self) -> str:
        self.post(self.on("/backups"), backup_scope="full")
        self.backup = self.get(self.on("/backups"))[0]
        holds(self.backup["status"] == "completed", f"the backup is {self.backup['status']}")
        return f"{self.backup['size_bytes']:,} bytes in the bucket, manifest {self.backup['checksum'][:12]}…"

    def restore(self) -> str:
        self.place.sql(self.production, "DELETE FROM wp_posts")
        self.post(self.on("/restore"), backup_id=self.backup["id"])
        posts = int(self.place.sql(self.production, "SELECT COUNT(*) FROM wp_posts"))
        holds(posts > 0 and self.page(self.production).status_code == 200, "the posts did not come back")
        return f"{posts} deleted posts are back; what was there before was backed up first"

    def promote(self) -> str:
        self.place.sql(
            self.staging, "UPDATE wp_options SET option_value = 'Open all night' WHERE option_name = 'blogdescription'"
        )
        self.post(f"/environments/{self.staging['id']}/drift-check")
        self.post(self.on("/backups"), backup_scope="full")
        done, taken = threading.Event(), []

        def take_orders() -> None:
            while not done.is_set():
                self.place.sql(self.production, f"INSERT INTO wp_wc_orders (total) VALUES ('during {len(taken)}')")
                taken.append(1)

        writer = threading.Thread(target=take_orders)
        writer.start()
        try:
            self.post(f"/environments/{self.staging['id']}/promote", target_environment_id=self.production["id"])
        finally:
            done.set()
            writer.join()
        orders = int(self.place.sql(self.production, "SELECT COUNT(*) FROM wp_wc_orders"))
        holds(orders == 3 + len(taken), f"{3 + len(taken) - orders} orders were lost")
        tagline = self.place.sql(
            self.production, "SELECT option_value FROM wp_options WHERE option_name = 'blogdescription'"
        )
        holds(tagline == "Open all night", f"the tagline is {tagline!r}")
        return f"the setting moved; {len(taken)} orders came in meanwhile, 0 lost"

    def log_in(self) -> str:
        answer = self.place.plane.http.post(f"/api{self.on('/magic-login')}")
        holds(answer.status_code == 200, answer.text)
        host = self.production["preview_url"].partition("://")[2]
        token = answer.json()["login_url"].partition("trueup_login=")[2]
        url = f"http://{self.place.node_of(self.production).address}/"
        said = [httpx.post(url, headers={"Host": host}, data={"trueup_login": token}).status_code for _ in range(2)]
        holds(said == [302, 403], f"the login answered {said}")
        return "in once (302), refused the second time (403)"

    def domains(self) -> str:
        node = self.place.node_of(self.production)
        for name in ("shop.example.com", "www.example.com"):
            self.acme.point(name, node.address)
            self.post(self.on("/domains"), hostname=name)
        trusted = self.acme.roots(self.roots)
        page = node.fetch("/", "shop.example.com", scheme="https", ca_file=trusted)
        holds(page.status_code == 200 and "Night Shop" in page.text, "the domain does not answer with the site")
        holds(self.production["preview_url"] not in page.text, "the content names the preview URL")
        moved = node.fetch("/x", "www.example.com", scheme="https", ca_file=trusted)
        holds(moved.headers.get("location") == "https://shop.example.com/x", "the second domain does not redirect")
        answer = self.place.plane.http.post(f"/api{self.on('/domains')}", json={"hostname": "elsewhere.example.com"})
        job = self.place.run(answer)
        holds(job["error_code"] == "DNS_ELSEWHERE", f"a name that leads nowhere: {job['error_code']}")
        told = {one["hostname"]: (one["id"], one["tls_status"]) for one in self.get(self.on("/domains"))}
        holds([status for _, status in told.values()] == ["failed", "active", "active"], f"the API says {told}")
        for name, (id_, _) in told.items():
            job = self.place.run(self.place.plane.http.delete(f"/api/domains/{id_}"))
            holds(job["status"] == "succeeded", f"{name} was not removed: {job['error_message']}")
        holds(self.page(self.production).status_code == 200, "the preview URL does not answer again")
        return "https with a checked certificate, 301, DNS_ELSEWHERE for a name that leads nowhere, and back"

    def import_site(self) -> str:
        moved = self.place.make_site("moved")
        archive = self.place.export(self.production)
        url = self.web.serve("/export.tar.gz", archive)
        self.post(f"/sites/{moved['site_id']}/import", archive_url=url)
        page = self.page(moved)
        holds(page.status_code == 200 and "Night Shop" in page.text, "the imported site does not answer")
        holds("front v1" in page.text, "the export's code is not served")
        holds(self.production["preview_url"] not in page.text, "the imported site names its old address")
        return "title and code of the export, at an address of its own"

    def job_control(self) -> str:
        http, path = self.place.plane.http, f"/api/sites/{self.production['site_id']}/environments"
        body = {"name": "Stopped", "slug": "stopped", "type": "clone"}
        answers = [http.post(path, json=body, headers={"Idempotency-Key": "tour"}) for _ in range(2)]
        holds(answers[0].status_code == 202 and answers[0].json() == answers[1].json(), "one key made two jobs")
        job_id = answers[0].json()["job_id"]
        kinds: list[str] = []
        with http.stream("GET", f"/api/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as stream:
            for line in stream.iter_lines():
                kinds += [line.removeprefix("event: ")] if line.startswith("event: ") else []
                if line == "event: task" and "cancel-requested" not in kinds:
                    began = time.monotonic()
                    http.post(f"/api/jobs/{job_id}/cancel")
        took = time.monotonic() - began
        holds(self.place.plane.job(job_id)["status"] == "cancelled" and took < 10, f"it took {took:.1f} s to stop")
        scope = f"trueup-{job_id}.scope"
        running = [
            node.ssh(["systemctl", "is-active", scope], check=False).stdout for node in self.place.nodes.values()
        ]
        holds("active\n" not in running, f"{scope} still runs")

        def gone() -> bool:
            return "stopped" not in [one["slug"] for one in http.get(path).json()]

        until(gone, "what was cancelled to be undeclared", told=self.place.plane.log)
        before = http.get(f"/api{self.on('')}")
        holds(http.post(f"/api{self.on('/reset')}").json()["code"] == "environment_not_failed", "active was reset")
        stale = http.post(f"/api{self.on('/cache/purge')}", headers={"If-Match": '"0"'})
        known = http.get(f"/api{self.on('')}", headers={"If-None-Match": before.headers["etag"]})
        holds((stale.status_code, known.status_code) == (412, 304), "preconditions do not hold")
        return f"a copy stopped {took:.1f} s after its cancelling, {len(kinds)} events streamed, nothing of it left"

    def remove(self) -> str:
        far = next(one for one in self.get(f"/sites/{self.production['site_id']}/environments") if one["slug"] == "far")
        node = self.place.node_of(far)
        answer = self.place.plane.http.delete(f"/api/environments/{far['id']}")
        job = self.place.run(answer)
        holds(job["status"] == "succeeded", f"{job['error_code']}: {job['error_message']}")
        gone = node.ssh(["test", "-e", f"/var/www/sites/{far['id']}"], check=False).returncode != 0
        holds(gone, "its files are still on the node")
        kept = self.storage.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{far['id']}/").get("Contents", [])
        holds(len(kept) == 3, f"{len(kept)} objects of its last backup are in the bucket")
        return "gone from its node; its last backup is in the bucket"

    def _visited(self, work: Callable[[], object]) -> list[int]:
        """Statuses of the pages that a visitor asked for, past the cache, while ``work`` went on."""
        statuses: list[int] = []
        done = threading.Event()

        def visit() -> None:
            while not done.is_set():
                statuses.append(self.page(self.production).status_code)

        visitor = threading.Thread(target=visit)
        visitor.start()
        try:
            work()
        finally:
            done.set()
            visitor.join()
        return statuses


def main() -> int:
    if found := problems():
        print("The tour boots servers of its own, and this machine lacks what that takes:", *found, sep="\n  ")
        return 1
    ensure_image()
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tour-", dir="/tmp")))
        tour = _prepared(top, stack)
        try:
            tour.walk()
        except (TourError, AssertionError) as error:
            print(f"\nThe tour ended early: {error}")
            return 1
        finally:
            _tell(tour)
    return 0


def _prepared(top: Path, stack: ExitStack) -> Tour:
    """What it walks on, with the code that it deploys."""
    stand = build(top, stack)
    for tag in ("v1", "v2"):
        word = f"<?php add_action( 'wp_footer', function () {{ echo '<i>front {tag}</i>'; }} );"
        shop = "<?php /* Plugin Name: Shop */"
        stand.code.commit("shop", {FRONT: word, "wp-content/plugins/shop/shop.php": shop}, tag=tag)
    flag = "WP_CONTENT_DIR . '/uploads/break'"
    fragile = (
        f"<?php add_action( 'wp_footer', function () {{ if (file_exists({flag})) a_function_that_is_not_there(); }} );"
    )
    stand.code.commit("shop", {FRONT: fragile}, tag="fragile")
    stand.code.commit("shop", {FRONT: "<?php a_function_that_is_not_there();"}, tag="fatal")
    return Tour(**vars(stand))


def _tell(tour: Tour) -> None:
    print(f"\n  {'operation':<28} {'seconds':>8}  what was verified")
    for name, seconds, said in tour.rows:
        print(f"  {name:<28} {seconds:8.1f}  {said}")


if __name__ == "__main__":
    sys.exit(main())
