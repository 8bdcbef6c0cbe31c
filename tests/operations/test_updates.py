"""Updates through the API: rehearsed on a copy, backed up, made, written down; or nothing at all.

The tests build on each other: the site begins on an older WordPress and ends on the one that is pinned.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import pytest

from reconciler.learned import learn
from tests.controlplane import run_git, site_documents, until
from tests.lab.mirror import Mirror, plugin, theme, update_mirror, zipped
from tests.lab.older_wordpress import VERSION as OLDER
from tests.lab.older_wordpress import older_wordpress
from tests.lab.s3 import S3
from tests.load import visitors
from tests.place import Place

pytestmark = pytest.mark.lab
DOCUMENT = "sites/updated/environments/production.yaml"
BETWEEN, PINNED = "6.5.6", "7.1.1"
ACTIVE = 'a:2:{i:0;s:21:"greeting/greeting.php";i:1;s:17:"bought/bought.php";}'
BROKEN = """
file_put_contents(WP_CONTENT_DIR . '/uploads/touched', 'x');
add_action('init', function () {{ update_option('broken', '1'); wp_remote_get('{url}/from-the-copy'); }});
add_action('{hook}', function () {{ missing_function(); }});
"""


def speaking(word: str) -> str:
    return f"add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


class Shop:
    """A site with a plugin and a theme of ours that the mirror knows, and a plugin that it does not know."""

    def __init__(self, place: Place, mirror: Mirror, environment: dict[str, Any]) -> None:
        self.place = place
        self.mirror = mirror
        self.environment = environment
        self.node = place.node_of(environment)
        self.root = f"/var/www/sites/{environment['id']}"
        self.database = "wp_" + environment["id"].replace("-", "")[:12]
        self.host = environment["preview_url"].partition("://")[2]

    def bring(self) -> None:
        content = f"{self.root}/current/wp-content"
        for slug in ("greeting", "bought"):
            self.put(f"{content}/plugins/{slug}", f"{slug}.php", plugin(slug, "1.0", speaking(f"{slug} 1.0")))
        for name, text in theme("plain", "1.0", {}).items():
            self.put(f"{content}/themes/plain", name, text)
        self.sql(f"UPDATE wp_options SET option_value = '{ACTIVE}' WHERE option_name = 'active_plugins'")
        self.sql("UPDATE wp_options SET option_value = 'plain' WHERE option_name IN ('template', 'stylesheet')")
        # WordPress keeps options in Redis.
        self.node.ssh(f"redis-cli --scan --pattern '{self.environment['id']}:*' | xargs -r redis-cli unlink")
        assert "bought 1.0" in self.page()

    def put(self, directory: str, name: str, text: str) -> None:
        self.node.ssh(["mkdir", "-p", directory])
        self.node.ssh(["tee", f"{directory}/{name}"], input=text)

    def sql(self, query: str) -> str:
        return self.place.sql(self.environment, query)

    def page(self) -> str:
        answer = self.node.fetch("/", host=self.host, headers={"Cookie": "wordpress_no_cache=1"})
        assert answer.status_code == 200, answer.text
        return answer.text

    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = self.place.plane.http.get(f"/api/environments/{self.environment['id']}").json()
        return found

    def begin(self, scope: str) -> str:
        answer = self.place.plane.http.post(
            f"/api/environments/{self.environment['id']}/updates", json={"scope": scope}
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def update(self, scope: str) -> dict[str, Any]:
        return self.place.plane.wait_job(self.begin(scope), 240)

    def result(self, job: dict[str, Any]) -> dict[str, Any]:
        with self.place.plane.opened() as home:
            found = home.records.jobs.get(UUID(job["id"])).result
        assert found is not None
        return found

    def refused(self, scope: str, code: str) -> dict[str, Any]:
        """An update that fails with this code and leaves code, database, uploads, services and Git as they were."""
        before, document, backups = self.fingerprint(), self.document(), self.backups()
        released = self.now()["current_release_id"]
        job = self.update(scope)
        assert (job["status"], job["error_code"], job["attempt_count"]) == ("failed", code, 1), job
        assert self.fingerprint() == before
        assert (self.document(), self.backups()) == (document, backups)
        assert self.now()["current_release_id"] == released
        assert self.now()["status"] == "failed"
        self.place.plane.command("apply", "--yes", "updated/production")
        assert self.now()["status"] == "active"
        return job

    def document(self) -> str:
        run_git(self.place.plane.clone.path, "pull", "-q", "--rebase", "origin", "main")
        return (self.place.plane.clone.path / DOCUMENT).read_text(encoding="utf-8")

    def backups(self) -> int:
        return len(self.place.plane.http.get(f"/api/environments/{self.environment['id']}/backups").json())

    def fingerprint(self) -> str:
        script = (
            f"mariadb-dump --hex-blob --skip-dump-date --order-by-primary --ignore-table={self.database}.wp_options "
            f'{self.database} | sha256sum; mariadb -N {self.database} -e "SELECT option_name, option_value FROM '
            "wp_options WHERE option_name NOT LIKE '%transient%' AND option_name <> 'cron' ORDER BY option_name\" | "
            f"sha256sum; readlink {self.root}/current; ls -A {self.root} {self.root}/releases; "
            f"find {self.root}/shared {self.root}/releases -type f -exec sha256sum {{}} + | sort | sha256sum; "
            f"mariadb -N -e \"SHOW DATABASES LIKE '{self.database}%'; SHOW GRANTS FOR {self.database}@localhost\"; "
            "systemctl list-units --no-legend 'trueup-rehearsal*'"
        )
        return self.node.ssh(script).stdout


@pytest.fixture(scope="module")
def mirror(place: Place, storage: S3) -> Iterator[Mirror]:
    with update_mirror(place.nodes["web-1"].network.gateway) as mirror:
        place.plane.clone.push({"platform.yaml": storage.platform() + mirror.platform()}, "Name the mirror")
        yield mirror


@pytest.fixture(scope="module")
def older() -> dict[str, bytes]:
    return older_wordpress()


@pytest.fixture(scope="module")
def shop(place: Place, mirror: Mirror, older: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    mirror.publish_core(OLDER, older)
    package = tmp_path_factory.mktemp("core") / "core.zip"
    package.write_bytes(mirror.core[OLDER])
    checksums = json.loads(mirror.get("/core/checksums/1.0/", {"version": [OLDER]}) or b"")["checksums"]
    learn(OLDER, package, lambda: checksums, place.plane.home / "artifacts")
    documents = site_documents("updated")
    documents[DOCUMENT] += f"  wordpress:\n    version: {OLDER}\n"
    place.plane.clone.push(documents, "Add a site on an older WordPress")
    until(lambda: any(s["slug"] == "updated" for s in place.plane.http.get("/api/sites").json()), "the site")
    environment = place.plane.environment_of("updated")
    until(lambda: _answers(place, environment), "the site to answer", 90, place.plane.log)
    shop = Shop(place, mirror, environment)
    until(lambda: shop.now()["status"] == "active", "the site to be made")
    shop.bring()
    return shop


def _answers(place: Place, environment: dict[str, Any]) -> bool:
    with suppress(httpx.TransportError):
        return place.page(environment).status_code == 200
    return False


def test_nothing_to_update_changes_nothing(shop: Shop) -> None:
    before, document = shop.fingerprint(), shop.document()
    job = shop.update("all")
    assert job["status"] == "succeeded", job
    assert shop.result(job)["updated"]["packages"] == []
    assert "hello.php stays at" in str(shop.result(job)["updated"]["notes"])
    assert (shop.fingerprint(), shop.document(), shop.backups()) == (before, document, 0)
    assert shop.now()["status"] == "active"


@pytest.mark.parametrize(
    "says", [b"<html>down for maintenance</html>", b'{"offers": "none"}', b'{"offers": [{"response": "upgrade"}]}']
)
def test_a_mirror_that_talks_nonsense(shop: Shop, says: bytes) -> None:
    shop.mirror.says = says
    try:
        job = shop.refused("all", "UPDATE_UNAVAILABLE")
    finally:
        shop.mirror.says = None
    assert "cannot be understood" in job["error_message"]


def test_a_mirror_that_does_not_answer(shop: Shop) -> None:
    platform = shop.place.plane.clone.read("platform.yaml")
    gone = platform.replace(str(shop.mirror.port).encode(), b"9")
    shop.place.plane.clone.push({"platform.yaml": gone}, "Name a mirror that is not there")
    try:
        assert "cannot be reached" in shop.refused("themes", "UPDATE_UNAVAILABLE")["error_message"]
    finally:
        shop.place.plane.clone.push({"platform.yaml": platform}, "Name the mirror again")


@pytest.mark.parametrize(
    ("package", "code"),
    [
        (lambda: zipped({"greeting/greeting.php": plugin("greeting", "1.0.4", "").encode()}), "UPDATE_UNTRUSTED"),
        (lambda: zipped({"other/greeting.php": plugin("greeting", "1.0.5", "").encode()}), "UPDATE_UNTRUSTED"),
        (lambda: zipped({"greeting/../../../evil.php": b"<?php"}), "ARCHIVE_UNSAFE"),
        (lambda: b"no archive", "ARCHIVE_INVALID"),
    ],
)
def test_packages_that_are_not_what_they_say(shop: Shop, package: Callable[[], bytes], code: str) -> None:
    shop.mirror.plugins["greeting"] = {"1.0.5": package()}
    try:
        shop.refused("plugins", code)
    finally:
        del shop.mirror.plugins["greeting"]


def test_a_core_that_no_pin_knows(shop: Shop, older: dict[str, bytes]) -> None:
    """Refused where it is not what its checksums say; else brought, and learned."""
    name = "wp-includes/version.php"
    shop.mirror.publish_core(BETWEEN, {**older, name: older[name].replace(OLDER.encode(), BETWEEN.encode())})
    shop.mirror.lies = {"wp-login.php": "0" * 32}
    assert "wp-login.php" in shop.refused("core", "UPDATE_UNTRUSTED")["error_message"]
    shop.mirror.lies = {}
    job = shop.update("core")
    assert job["status"] == "succeeded", job
    assert shop.result(job)["updated"]["wordpress"] == {"from": OLDER, "to": BETWEEN}
    assert f"version: {BETWEEN}" in shop.document()
    assert BETWEEN in (shop.place.plane.home / "artifacts" / "learned.json").read_text()
    assert f"WordPress {BETWEEN}" in shop.page()
    assert shop.backups() == 1


@pytest.mark.parametrize("hook", ["wp_footer", "admin_init"])
def test_a_broken_plugin_is_caught_on_the_copy(shop: Shop, hook: str) -> None:
    shop.mirror.publish_plugin("greeting", "1.1", BROKEN.format(hook=hook, url=shop.mirror.url))
    with visitors(shop.node.address, shop.host, wanted="greeting 1.0") as visits:
        job = shop.refused("plugins", "UPDATE_UNHEALTHY")
    del shop.mirror.plugins["greeting"]
    assert (visits.failures, visits.total > 20) == ([], True)
    assert "missing_function() in wp-content/plugins/greeting/greeting.php" in job["error_message"]
    assert "/from-the-copy" not in shop.mirror.asked
    print(f"requests: {visits.total} during a caught update, 0 failed")


def test_core_plugins_and_themes_at_once(shop: Shop) -> None:
    shop.mirror.publish_core(PINNED, {})  # pinned: it is not the mirror's that is used
    shop.mirror.publish_plugin("greeting", "1.2", speaking("greeting 1.2"))
    shop.mirror.publish_theme("plain", "2.0", {"index.php": "<html><body>two<?php wp_footer(); ?></body></html>"})
    shop.sql("INSERT INTO wp_posts (post_title, post_content, post_excerpt, to_ping, pinged, post_content_filtered) "
             "VALUES ('kept', 'x', '', '', '', '')")  # fmt: skip
    before = int(shop.sql("SELECT option_value FROM wp_options WHERE option_name = 'db_version'"))
    with visitors(shop.node.address, shop.host) as visits:
        job = shop.update("all")
    assert job["status"] == "succeeded", job
    assert (visits.failures, visits.total > 20) == ([], True)
    assert "two<i>greeting 1.2</i><i>bought 1.0</i>" in shop.page()
    assert int(shop.sql("SELECT option_value FROM wp_options WHERE option_name = 'db_version'")) > before
    assert shop.sql("SELECT COUNT(*) FROM wp_posts WHERE post_title = 'kept'") == "1"
    updated = shop.result(job)["updated"]
    assert updated["wordpress"] == {"from": BETWEEN, "to": PINNED}
    assert updated["packages"] == ["plugins/greeting 1.0 → 1.2", "themes/plain 1.0 → 2.0"]
    document = shop.document()
    for line in (f'version: "{PINNED}"', 'greeting: "1.2"', 'bought: "1.0"', 'plain: "2.0"', "scope: all"):
        assert line in document, document
    assert shop.backups() == 2
    planned = shop.place.plane.command("plan", "updated/production").stdout
    assert "Nothing to do" in planned, planned
    print(f"requests: {visits.total} during an update of everything, 0 failed")


def test_a_worker_killed_during_the_rehearsal(shop: Shop) -> None:
    plane = shop.place.plane
    shop.mirror.publish_plugin("greeting", "1.3", speaking("greeting 1.3"))
    job_id = shop.begin("plugins")
    there = ["test", "-d", f"{shop.root}/rehearsal/tree"]
    until(lambda: shop.node.ssh(there, check=False).returncode == 0, "the rehearsal", 120, plane.log)
    plane.kill()
    plane.start().login()
    job = plane.wait_job(job_id, 240)
    assert (job["status"], job["attempt_count"]) == ("succeeded", 2), job
    assert "greeting 1.3" in shop.page()
    assert 'greeting: "1.3"' in shop.document()
    left = shop.node.ssh(f"ls {shop.root}; mariadb -N -e \"SHOW DATABASES LIKE '{shop.database}%'\"").stdout.split()
    assert left == ["current", "logs", "releases", "shared", "tmp", shop.database]


def test_the_command_line_says_how_it_went(shop: Shop) -> None:
    said = shop.place.plane.command("update", "updated/production", "--scope", "themes")
    assert "succeeded" in said.stdout
    assert shop.place.plane.command("update", "updated/production", "--scope", "none", check=False).returncode == 2
