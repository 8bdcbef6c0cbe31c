"""Updates through the API: rehearsed on a copy, backed up, made, written down; or nothing at all.

The site begins on an older WordPress and ends on the one that is pinned; the way back is none that users have. So tests
that need it old come first, and those after the update ask for the fixture `updated`.
"""

import io
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from ruamel.yaml import YAML

from tests.controlplane import until
from tests.lab.mirror import Mirror, plugin, update_mirror, zipped
from tests.lab.older_wordpress import VERSION as OLDER
from tests.lab.older_wordpress import older_wordpress
from tests.lab.s3 import S3
from tests.load import visitors
from tests.operations.cancelling import cancelled, follow_up
from tests.place import Place
from tests.updatable import Updatable, speaking

pytestmark = [pytest.mark.lab, pytest.mark.in_order]
BETWEEN, PINNED = "6.5.6", "7.1.1"
BROKEN = """
file_put_contents(WP_CONTENT_DIR . '/uploads/touched', 'x');
add_action('init', function () {{ update_option('broken', '1'); wp_remote_get('{url}/from-the-copy'); }});
add_action('{hook}', function () {{ missing_function(); }});
"""


class Shop(Updatable):
    def result(self, job: dict[str, Any]) -> dict[str, Any]:
        with self.place.plane.opened() as home:
            found = home.records.jobs.get(UUID(job["id"])).result
        assert found is not None
        return found

    def refused(self, scope: str, code: str) -> dict[str, Any]:
        """An update that fails with this code and leaves code, database, uploads, services and Git as they were."""
        before, declared, backups = self.fingerprint(), self.declared(), self.backups()
        released = self.now()["current_release_id"]
        with visitors(self.node.address, self.host, wanted="greeting 1.0") as visits:
            job = self.update(scope)
        assert (job["status"], job["error_code"], job["attempt_count"]) == ("failed", code, 1), job
        assert (visits.failures, visits.total > 0) == ([], True)
        print(f"{code}: {visits.total} requests meanwhile, 0 failed")
        assert self.fingerprint() == before
        assert (self.declared(), self.backups()) == (declared, backups)
        assert self.now()["current_release_id"] == released
        assert self.now()["status"] == "failed"
        self.ready()
        return job


@pytest.fixture(scope="module")
def mirror(place: Place, storage: S3) -> Iterator[Mirror]:
    with update_mirror(place.nodes["web-1"].network.gateway) as mirror:
        place.plane.clone.push({"platform.yaml": storage.platform() + mirror.platform()}, "Name the mirror")
        yield mirror


@pytest.fixture(scope="module")
def shop(place: Place, mirror: Mirror) -> Shop:
    found = Shop.make(place, mirror)
    assert isinstance(found, Shop)
    return found


@pytest.mark.long
def test_nothing_to_update_changes_nothing(shop: Shop) -> None:
    before, declared = shop.fingerprint(), shop.declared()
    job = shop.update("all")
    assert job["status"] == "succeeded", job
    assert shop.result(job)["updated"]["packages"] == []
    assert "hello.php stays at" in str(shop.result(job)["updated"]["notes"])
    assert (shop.fingerprint(), shop.declared(), shop.backups()) == (before, declared, 0)
    assert shop.now()["status"] == "active"


@pytest.mark.long
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


@pytest.mark.long
def test_a_mirror_that_does_not_answer(shop: Shop) -> None:
    platform = shop.place.plane.clone.read("platform.yaml")
    gone = platform.replace(str(shop.mirror.port), "9")
    shop.place.plane.clone.push({"platform.yaml": gone}, "Name a mirror that is not there")
    try:
        assert "cannot be reached" in shop.refused("themes", "UPDATE_UNAVAILABLE")["error_message"]
    finally:
        shop.place.plane.clone.push({"platform.yaml": platform}, "Name the mirror again")


@pytest.mark.long
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


@pytest.mark.long
def test_a_core_that_no_pin_knows(shop: Shop) -> None:
    """Refused where it is not what its checksums say; else brought, and learned."""
    name, older = "wp-includes/version.php", older_wordpress()
    shop.mirror.publish_core(BETWEEN, {**older, name: older[name].replace(OLDER.encode(), BETWEEN.encode())})
    shop.mirror.lies = {"wp-login.php": "0" * 32}
    assert "wp-login.php" in shop.refused("core", "UPDATE_UNTRUSTED")["error_message"]
    shop.mirror.lies = {}
    job = shop.update("core")
    assert job["status"] == "succeeded", job
    assert shop.result(job)["updated"]["wordpress"] == {"from": OLDER, "to": BETWEEN}
    assert f'version: "{BETWEEN}"' in shop.document()
    assert BETWEEN in (shop.place.plane.home / "artifacts" / "learned.json").read_text()
    assert f"WordPress {BETWEEN}" in shop.page()
    assert shop.backups() == 1
    # A core that was brought is no reason to provision the node, which restarts all that serves on it.
    assert shop.node.ssh(["test", "-e", "/etc/trueup/node.pending"], check=False).returncode != 0


@pytest.mark.long
@pytest.mark.parametrize("hook", ["wp_footer", "admin_init"])
def test_a_broken_plugin_is_caught_on_the_copy(shop: Shop, hook: str) -> None:
    shop.mirror.publish_plugin("greeting", "1.1", BROKEN.format(hook=hook, url=shop.mirror.url))
    job = shop.refused("plugins", "UPDATE_UNHEALTHY")
    del shop.mirror.plugins["greeting"]
    assert "missing_function() in wp-content/plugins/greeting/greeting.php" in job["error_message"]
    assert "/from-the-copy" not in shop.mirror.asked


@pytest.mark.long
def test_core_plugins_and_themes_at_once(shop: Shop) -> None:
    shop.mirror.publish_core(PINNED, {})  # pinned: it is not the mirror's that is used
    shop.mirror.publish_plugin("greeting", "1.2", speaking("greeting 1.2"))
    shop.mirror.publish_theme("plain", "2.0", {"index.php": "<html><body>two<?php wp_footer(); ?></body></html>"})
    shop.sql("INSERT INTO wp_posts (post_title, post_content, post_excerpt, to_ping, pinged, post_content_filtered) "
             "VALUES ('kept', 'x', '', '', '', '')")  # fmt: skip
    before, backups, version = shop.db_version(), shop.backups(), shop.declared().spec.wordpress.version
    with visitors(shop.node.address, shop.host) as visits:
        job = shop.update("all")
    assert job["status"] == "succeeded", job
    assert (visits.failures, visits.total > 20) == ([], True)
    assert "<body>two" in shop.page()
    assert "<i>greeting 1.2</i><i>bought 1.0</i>" in shop.page()
    assert shop.db_version() > before
    assert shop.sql("SELECT COUNT(*) FROM wp_posts WHERE post_title = 'kept'") == "1"
    updated = shop.result(job)["updated"]
    assert updated["wordpress"] == {"from": version, "to": PINNED}
    assert updated["packages"] == ["plugins/greeting 1.0 → 1.2", "themes/plain 1.0 → 2.0"]
    document = shop.document()
    for line in (f'version: "{PINNED}"', 'greeting: "1.2"', 'bought: "1.0"', 'plain: "2.0"', "scope: all"):
        assert line in document, document
    assert shop.backups() == backups + 1
    planned = shop.place.plane.command("plan", "updated/production").stdout
    assert "Nothing to do" in planned, planned
    print(f"requests: {visits.total} during an update of everything, 0 failed")


@pytest.fixture
def updated(shop: Shop) -> Shop:
    """The site once everything was updated."""
    if shop.declared().spec.wordpress.version != PINNED:
        shop.mirror.publish_core(PINNED, {})
        shop.mirror.publish_plugin("greeting", "1.2", speaking("greeting 1.2"))
        shop.mirror.publish_theme("plain", "2.0", {"index.php": "<html><body>two<?php wp_footer(); ?></body></html>"})
        assert shop.update("all")["status"] == "succeeded"
    return shop


@pytest.mark.long
def test_a_worker_killed_during_the_rehearsal(updated: Shop) -> None:
    shop, plane = updated, updated.place.plane
    shop.mirror.publish_plugin("greeting", "1.3", speaking("greeting 1.3"))
    job_id = shop.begin("plugins")
    there = ["test", "-d", f"{shop.root}/rehearsal/tree"]
    until(lambda: shop.node.ssh(there, check=False).returncode == 0, "the rehearsal", told=plane.log)
    plane.kill()
    plane.start().login()
    job = plane.wait_job(job_id, 240)
    assert (job["status"], job["attempt_count"]) == ("succeeded", 2), job
    assert "greeting 1.3" in shop.page()
    assert 'greeting: "1.3"' in shop.document()
    left = shop.node.ssh(f"ls {shop.root}; mariadb -N -e \"SHOW DATABASES LIKE '{shop.database}%'\"").stdout.split()
    assert left == ["current", "logs", "releases", "shared", "tmp", shop.database]


@pytest.mark.long
def test_an_update_that_is_cancelled_in_its_rehearsal_leaves_all_as_it_was(updated: Shop) -> None:
    shop, served = updated, updated.page()
    shop.mirror.publish_plugin("greeting", "1.4", speaking("greeting 1.4"))
    before, document, backups = shop.fingerprint(), shop.document(), shop.backups()
    job_id = shop.begin("plugins")
    there = ["test", "-d", f"{shop.root}/rehearsal/tree"]
    until(lambda: shop.node.ssh(there, check=False).returncode == 0, "the rehearsal", told=shop.place.plane.log)
    with shop.place.databases_held():
        job = cancelled(shop.place, job_id)
    del shop.mirror.plugins["greeting"]
    assert follow_up(shop.place, job, "reconcile")["status"] == "succeeded"
    assert (shop.document(), shop.backups()) == (document, backups)
    assert shop.fingerprint() == before
    assert shop.page() == served
    url = f"/api/environments/{shop.environment['id']}"
    assert shop.now()["status"] == "failed"
    assert shop.place.run(shop.place.plane.http.post(f"{url}/reset"))["status"] == "succeeded"
    assert shop.now()["status"] == "active"


@pytest.mark.long
def test_the_command_line_says_how_it_went(updated: Shop) -> None:
    shop = updated
    said = shop.place.plane.command("update", "updated/production", "--scope", "themes")
    assert "succeeded" in said.stdout
    assert "Nothing to update." in said.stdout
    assert shop.place.plane.command("update", "updated/production", "--scope", "none", check=False).returncode == 2


@pytest.mark.long
def test_an_update_declared_by_a_push_with_nothing_to_update(updated: Shop) -> None:
    shop = updated
    released = shop.now()["current_release_id"]
    data = YAML(typ="safe").load(shop.document())
    data["spec"]["release"] = {"id": str(uuid4()), "origin": "update", "scope": "themes"}
    text = io.StringIO()
    YAML().dump(data, text)
    shop.place.plane.clone.push({shop.document_path: text.getvalue()}, "Update the themes")

    def is_told() -> bool:
        release = shop.declared().spec.release
        return release is not None and str(release.id) == released

    until(is_told, "the store to say what is there", told=shop.place.plane.log)
    assert shop.now()["current_release_id"] == released


@pytest.mark.long
def test_going_back_takes_the_record_of_the_update_out(updated: Shop) -> None:
    shop = updated
    if dict(shop.declared().spec.versions.plugins)["greeting"] == "1.2":
        shop.mirror.publish_plugin("greeting", "1.3", speaking("greeting 1.3"))
        assert shop.update("plugins")["status"] == "succeeded"
    until(lambda: shop.now()["status"] == "active", "the environment to be active", told=shop.place.plane.log)
    assert dict(shop.declared().spec.versions.plugins)["greeting"] == "1.3"
    job = shop.place.run(shop.place.plane.http.post(f"/api/environments/{shop.environment['id']}/rollback", json={}))
    assert job["status"] == "succeeded", job
    assert "greeting 1.2" in shop.page()
    assert "versions" not in shop.document()
