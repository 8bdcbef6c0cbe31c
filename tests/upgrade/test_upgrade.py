"""From 503e1c5 to here: nothing is lost, no visitor notices, and nothing is touched that need not be.

All but the last tests look at what the upgrade left; those act on it, in their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest

from reconciler.core.jobs import JobType
from tests.controlplane import EMAIL, PASSWORD, run_git, until
from tests.lab import Lab
from tests.playbooks.environments import PROBE
from tests.proof import count
from tests.upgrade import eyes
from tests.upgrade.history import MARKER, Site
from tests.upgrade.old_version import BASE, OldVersion
from tests.upgrade.past import lived, short_directory
from tests.upgrade.upgrade import How, Upgrade, upgraded

# The first of them waits for the whole past.
pytestmark = [pytest.mark.lab, pytest.mark.in_order, pytest.mark.timeout(1800)]

Seen = TypeVar("Seen")
WAYS: tuple[How, ...] = ("plain", "cut")[: count(short=1, full=2)]
EPHEMERAL = {JobType.NODE_OBSERVE, JobType.REPORT_DELIVERY}
"""Jobs that leave no row when they end well."""
LATER = {JobType.DRILL, JobType.SEARCH, JobType.SEARCH_REPLACE}
"""Jobs that the old version did not know."""
COLUMNS: dict[str, dict[str, None]] = {"backups": dict.fromkeys(("drilled_at", "drill_status", "drill_error"))}
"""Columns that came later, of which the old version's rows say nothing."""
LASTING = ("admins", "audit", "drift_checks", "drift_reports", "report_deliveries", "tokens", "idempotency_keys")
"""Tables whose rows stay as they were written."""
LOOKED_AT = {
    "sites": {"status", "state_version", "updated_at"},
    "environments": {
        *("status", "state_version", "updated_at", "drift_status", "drift_checked_at", "last_drift_check_id"),
        *("current_release_health", "health_checked_at", "health_reason"),
    },
    "nodes": {"observed_at", "versions", "memory_bytes", "disk_free_bytes", "disk_size_bytes"},
    "domains": {"updated_at"},
}
"""Fields that say how things are now, by resource."""
KEPT_READY = ("/var/lib/trueup/code", "/var/lib/trueup/seeds", "/var/www/sites/.spare")
"""What this version makes for runs and sites to come: nothing that serves reads it."""
SYSTEMD = "/etc/systemd/system"
WISHES = f"{SYSTEMD}/multi-user.target.wants"
ADDED = {
    *("/etc/cron.allow", "/etc/at.allow"),
    # PHP reads it at its next start, and is not started for it.
    "/etc/php/8.2/fpm/conf.d/99-trueup-compiler.ini",
    # What it says is set in the running server, which is not restarted.
    "/etc/mysql/mariadb.conf.d/99-trueup_limits.cnf",
    *(f"{SYSTEMD}/trueup-statements.{kind}" for kind in ("service", "timer")),
    f"{SYSTEMD}/timers.target.wants/trueup-statements.timer",
    # What removes pages that changed, and where sites tell of them.
    *(f"{SYSTEMD}/trueup-purge.{kind}" for kind in ("service", "socket")),
    *(f"{SYSTEMD}/sockets.target.wants{name}" for name in ("", "/trueup-purge.socket")),
    "/opt/trueup/page_purge.py",
    # What looks up the hosts that the copy reaches all the same.
    *(f"{SYSTEMD}/trueup-egress{kind}" for kind in ("@.service", ".timer", ".path")),
    *(f"{SYSTEMD}/timers.target.wants/trueup-egress.timer", f"{WISHES}/trueup-egress.path"),
    *("/opt/trueup/listed_hosts.py", "/var/lib/trueup/egress"),
    *(f"{SYSTEMD}/opt-trueup-wordpress.mount", f"{WISHES}/opt-trueup-wordpress.mount"),
    # By what is in there the copy is closed.
    *("/etc/trueup/egress.d", "/etc/trueup/egress.nft"),
    *(f"{SYSTEMD}/nftables.service.d{name}" for name in ("", "/trueup.conf")),
}
"""Files that the node's role has in addition."""
MOVED = {
    *("/etc/redis/redis.conf", "/etc/nftables.conf", "/etc/hosts", "/etc/nginx/sites-enabled"),
    # Which pages nginx keeps, what of a request PHP gets where it does, and what visitors are told of it.
    *("/etc/nginx/trueup/fastcgi-cache.conf", "/etc/nginx/conf.d/trueup-fastcgi-cache.conf"),
    "/etc/nginx/trueup/security-headers.conf",
}
"""Files of the node's role that say something else; and where the copy, which is closed now, finds itself."""
GONE = {f"{WISHES}/redis-server.service", f"{SYSTEMD}/redis.service"}
"""The node's own Redis, which no environment uses any more, does not start again."""
BESIDE = re.compile(
    # What Debian keeps of the node's Redis beside systemd.
    r"/etc/rc[0-6S]\.d(/[SK]\d+redis-server)?"
    # The store gets inodes of its own, a seal and a mount; releases get theirs, file by file, and serve meanwhile.
    r"|/opt/trueup/wordpress(/.*)?|/var/www/sites/[0-9a-f-]{36}/releases/[0-9a-f-]{36}(/(?!wp-content).*)?"
)
DIRECTORIES = ("releases", "shared", "shared/uploads", "tmp", "logs")
"""What a manifest names of a site besides files."""


def _added(id_: str, *, keeps_objects: bool) -> set[str]:
    """What an environment has in addition: a slice, a Redis, and what keeps a login, tells of pages, is for copies."""
    redis = f"trueup-redis@{id_}.service"
    own = {f"{SYSTEMD}/{redis}", f"{WISHES}/{redis}", f"/etc/trueup/php/{id_}/redis.conf"}
    shared = {f"/var/www/sites/{id_}/shared/{name}.php" for name in ("login", "copy", "pages")}
    return {_slice(id_), *shared} | (own if keeps_objects else set())


def _slice(id_: str) -> str:
    return f"{SYSTEMD}/trueup-{id_.replace('-', '')[:12]}.slice"


def _moved(upgrade: Upgrade, id_: str) -> set[str]:
    """What says something else of an environment."""
    units = {f"{SYSTEMD}/trueup-php@{id_}.service", f"{SYSTEMD}/trueup-cron@{id_}.service"}
    site, release = (
        f"/var/www/sites/{id_}",
        upgrade.past.manifests[f"environments/{id_}.json"]["variables"]["release"]["id"],
    )
    plugin = f"{site}/releases/{release}/wp-content/mu-plugins/trueup.php"
    return {*units, plugin, f"{site}/shared/wp-config.php", f"/etc/trueup/php/{id_}/php-fpm.conf"}


@pytest.fixture(scope="module", params=WAYS)
def upgrade(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Upgrade]:
    """Each from a past of its own: on a node that was upgraded once there would be little left to do."""
    with (
        short_directory() as top,
        lived(OldVersion.install(BASE, top), lab, top) as past,
        upgraded(past, request.param) as upgrade,
    ):
        yield upgrade


# Nothing is lost


def test_no_request_of_a_visitor_failed(upgrade: Upgrade) -> None:
    failed = {name: visits.failures[:3] for name, visits in upgrade.visits.items() if visits.failures}
    assert failed == {}
    assert len(upgrade.visits) == 2 * len(upgrade.sites)
    print(f"{upgrade.how}: {sum(visits.total for visits in upgrade.visits.values())} requests, 0 failed")


def test_all_that_the_api_told_it_tells_again(upgrade: Upgrade) -> None:
    told = eyes.answers(upgrade.plane)
    staging = upgrade.sites["shop"].environments["staging"]["id"]
    for resource, rows in upgrade.past.answers.items():
        ended = {id_: row for id_, row in rows.items() if not _is_open(row) and id_ != staging}
        assert ended, f"the old version had no {resource}"
        for id_, row in ended.items():
            lasting = row.keys() - LOOKED_AT.get(resource, set())
            assert {key: told[resource][id_][key] for key in lasting} == {key: row[key] for key in lasting}, resource


def _is_open(row: dict[str, Any]) -> bool:
    """A job or a backup that the new version was left to do."""
    return row.get("status") in {"queued", "pending"}


def test_every_lasting_row_of_the_database_is_as_it_was(upgrade: Upgrade) -> None:
    there = eyes.tables(upgrade.plane.home)
    for table in LASTING:
        rows = upgrade.past.tables[table]
        assert [row for row in rows if row not in there[table]] == [], table
    assert upgrade.past.tables["audit"]
    assert upgrade.past.tables["tokens"]


def test_a_report_that_was_sent_is_not_sent_again(upgrade: Upgrade) -> None:
    assert [row["status"] for row in upgrade.past.tables["report_deliveries"]] == ["sent"]
    assert len(upgrade.past.hook.requests) == 1


def test_every_finished_job_and_backup_is_as_it_was_with_its_events(upgrade: Upgrade) -> None:
    was, there = upgrade.past.tables, eyes.tables(upgrade.plane.home)
    left = {row["id"] for row in was["jobs"] if _is_open(row)}
    assert len(left) >= len(upgrade.past.queued)
    for table, id_ in (("jobs", "id"), ("job_events", "job_id"), ("backups", "id")):
        ended = [row for row in was[table] if row[id_] not in left and not _is_open(row)]
        assert ended
        assert [row for row in ended if row | COLUMNS.get(table, {}) not in there[table]] == [], table


def test_the_documents_are_the_same(upgrade: Upgrade) -> None:
    since = upgrade.plane.git("diff", "--name-only", upgrade.past.revision, "main").split()
    assert since == []


def test_the_content_of_each_site_is_there(upgrade: Upgrade) -> None:
    for site in upgrade.sites.values():
        posts = "SELECT COUNT(*) FROM wp_posts WHERE post_status = 'publish' AND post_title = "
        assert site.place.sql(site.production, f"{posts}'{site.marker}'") == "1"
        path = f"/var/www/sites/{site.production['id']}/current/{MARKER}"
        assert upgrade.past.node.ssh(["cat", path]).stdout == site.marker


def test_who_could_reach_the_api_still_can(upgrade: Upgrade) -> None:
    # All of these tests are of a session that the old version began.
    assert upgrade.plane.http.get("/api/sites").status_code == 200
    with httpx.Client(base_url=upgrade.plane.http.base_url, trust_env=False, timeout=40) as client:
        headers = {"Authorization": f"Bearer {upgrade.past.token}"}
        assert client.get("/api/sites", headers=headers).status_code == 200
        assert client.get("/api/sites").status_code == 401
        assert client.post("/api/login", json={"email": EMAIL, "password": PASSWORD}).status_code == 200


# Nothing is touched that need not be


def test_only_what_the_upgrade_is_about_is_written(upgrade: Upgrade) -> None:
    staging = upgrade.sites["shop"].environments["staging"]["id"]
    added, moved = ADDED | {_slice(staging)}, set(MOVED)
    for id_, keeps_objects in _standing(upgrade).items():
        added |= _added(id_, keeps_objects=keeps_objects)
        moved |= _moved(upgrade, id_)
    before, after = _outside_staging(upgrade, upgrade.before.files), _outside_staging(upgrade, upgrade.after.files)
    changed = {path for path, was in before.items() if after.get(path) != was and not _is_meant(path)}
    parents = {str(Path(path).parent) for path in (*KEPT_READY, *added, *moved, *GONE)}
    assert changed - GONE <= moved | parents
    assert moved <= changed
    assert {path for path in after.keys() - before.keys() if not _is_meant(path)} == added
    assert {path for path in before.keys() - after.keys() if not _is_meant(path)} == GONE


def _standing(upgrade: Upgrade) -> dict[str, bool]:
    """The environments but for the copy, which a job that waited deploys to: whether it keeps objects, by id."""
    environments = [manifest["variables"] for name, manifest in upgrade.after.manifests.items() if name != "node.json"]
    staging = upgrade.sites["shop"].environments["staging"]["id"]
    return {one["id"]: one["redis_cache"] for one in environments if one["id"] != staging}


def _is_meant(path: str) -> bool:
    return any(Path(path).is_relative_to(made) for made in KEPT_READY) or bool(BESIDE.fullmatch(path))


def test_no_release_shares_a_file_with_the_store(upgrade: Upgrade) -> None:
    node = upgrade.past.node
    assert node.ssh("find /opt/trueup/wordpress -type f -links +1").stdout == ""
    for site in upgrade.sites.values():
        current = f"/var/www/sites/{site.production['id']}/current/"
        assert node.ssh(f"find {current} -xdev -path '*/wp-content' -prune -o -type f -links +1 -print").stdout == ""


def test_a_manifest_says_the_same_but_for_the_role(upgrade: Upgrade) -> None:
    staging = upgrade.sites["shop"].environments["staging"]["id"]
    written = {"role_digest", "applied_at", "applied_by", "attributes"}
    assert len(upgrade.past.manifests) == 1 + len(upgrade.sites) + 1
    for name, was in upgrade.past.manifests.items():
        if staging not in name:
            now = upgrade.after.manifests[name]
            ours = ADDED | MOVED | {f"/var/www/sites/{Path(name).stem}/{one}" for one in DIRECTORIES}
            for id_, keeps_objects in _standing(upgrade).items():
                ours |= _added(id_, keeps_objects=keeps_objects) | _moved(upgrade, id_)
            kept = [{path: sha for path, sha in one["files"].items() if path not in ours} for one in (was, now)]
            assert kept[0] == kept[1], name
            keys = (was.keys() | now.keys()) - {"files", "services"}
            assert {key for key in keys if was.get(key) != now.get(key)} == written, name


def test_nothing_is_restarted_but_php_and_nginx_is_told_of_pages_and_of_the_copy(upgrade: Upgrade) -> None:
    before, after = _outside_staging(upgrade, upgrade.before.units), _outside_staging(upgrade, upgrade.after.units)
    assert {"nginx.service", "mariadb.service", "redis-server.service"} <= before.keys()
    assert sum(name.startswith("trueup-php@") for name in before) == len(upgrade.sites)
    of_redis = {f"trueup-redis@{id_}.service" for id_, keeps in _standing(upgrade).items() if keeps}
    # Which come and go with what sites tell, and with time.
    passing = {"trueup-purge.service", "trueup-egress@all.service"}
    came = (after.keys() ^ before.keys()) - passing
    timers = {f"trueup-{name}.timer" for name in ("statements", "egress")}
    assert came == {"redis-server.service", "trueup-purge.socket", *timers, *of_redis}
    # A session that begins or ends is a change of logind's, and the look itself is one.
    # nginx is told twice: of what it keeps, and of the address at which the copy, which is closed, finds itself.
    own = {name: {"StateChangeTimestampMonotonic"} for name in ("systemd-logind.service", "nginx.service")}
    changed = {
        name: {key for key in was.keys() - own.get(name, set()) if after[name][key] != was[key]}
        for name, was in before.items()
        if name in after and not name.startswith("trueup-php@")
    }
    assert {name: keys for name, keys in changed.items() if keys} == {}
    # systemd does both at once where the second order comes before the first is carried out.
    assert upgrade.after.reloads - upgrade.before.reloads in (1, 2), "a worker that ends may cut off a request"
    assert {name for name in before if name.startswith("trueup-php@") and after[name] == before[name]} == set()


def _outside_staging(upgrade: Upgrade, seen: dict[str, Seen]) -> dict[str, Seen]:
    """The copy is what a job that waited deploys to."""
    staging = upgrade.sites["shop"].environments["staging"]["id"]
    return {name: one for name, one in seen.items() if staging not in name}


def test_the_copy_is_closed_and_no_production_is(upgrade: Upgrade) -> None:
    staging = upgrade.sites["shop"].environments["staging"]["id"]
    node = upgrade.past.node
    observed = json.loads(node.ssh(["python3", "-I", "-S", "-"], input=PROBE.read_text()).stdout)
    egress = {id_: one["egress"]["closed"] for id_, one in observed["environments"].items()}
    assert egress == {id_: id_ == staging for id_ in egress}
    assert len(egress) == len(upgrade.sites) + 1


# The fleet converges


def test_it_was_the_role_that_was_reconciled_and_nothing_else(upgrade: Upgrade) -> None:
    known = {row["id"] for row in upgrade.past.tables["jobs"]}
    new = [row for row in eyes.tables(upgrade.plane.home)["jobs"] if row["id"] in set(upgrade.settled) - known]
    about: dict[str, list[list[str]]] = {kind: [] for kind in ("node-provision", "reconcile")}
    for row in new:
        about[row["job_type"]].append(json.loads(row["intent"])["changes"])
    assert about["reconcile"] == [["role"]] * len(upgrade.sites)
    # When the last environment has a Redis of its own, the node's is stopped: by the same job, if it comes after that.
    assert about["node-provision"] in ([["role"]], [["role"], ["service redis-server.service"]])
    cut = [row for row in new if row["attempt_count"] > 1]
    assert [row["job_type"] for row in cut] == (["reconcile"] if upgrade.how == "cut" else [])


def test_jobs_stand_still(upgrade: Upgrade) -> None:
    assert upgrade.still == upgrade.settled


def test_the_drift_check_of_each_environment_is_clean(upgrade: Upgrade) -> None:
    for site in upgrade.sites.values():
        for slug in site.environments:
            site.ask("POST", f"{site.url(slug)}/drift-check")
            assert site.now(slug)["drift_status"] == "clean", f"{site.slug}/{slug}"
            assert site.now(slug)["status"] == "active"


# What the old version wrote down


def test_a_job_of_each_type_is_readable(upgrade: Upgrade) -> None:
    # Those that only look, among them the loop's own health checks, end with their rows.
    stored = {str(UUID(row["id"])): row["job_type"] for row in upgrade.past.tables["jobs"] if not row["ephemeral"]}
    assert set(stored.values()) == set(JobType) - EPHEMERAL - LATER
    for id_, row in upgrade.past.answers["jobs"].items():
        if id_ in stored:
            assert upgrade.plane.job(id_)["job_type"] == row["job_type"]
            events = upgrade.plane.http.get(f"/api/jobs/{id_}/events")
            assert (events.status_code, events.json()[0]["kind"]) == (200, "accepted"), events.text


def test_the_history_of_each_site_tells_of_it(upgrade: Upgrade) -> None:
    for site in upgrade.sites.values():
        lines = json.loads(
            upgrade.plane.cli("history", f"{site.slug}/production", "--limit", "1000", "-o", "json").stdout
        )
        told = json.dumps(lines)
        jobs = [
            row["id"] for row in upgrade.past.answers["jobs"].values() if row["environment_id"] == site.production["id"]
        ]
        assert jobs
        assert [id_ for id_ in jobs if id_ not in told] == []


def test_what_waited_is_done(upgrade: Upgrade) -> None:
    for word, id_ in upgrade.past.queued.items():
        job = upgrade.plane.job(id_)
        assert (job["status"], job["error_code"]) == ("succeeded", None), (word, job)
    shop = upgrade.sites["shop"]
    assert "<i>queued</i>" in shop.place.page(shop.environments["staging"]).text


# What was made then is worked with now: after the last upgrade, in this order

after_the_last = pytest.mark.parametrize("upgrade", [WAYS[-1]], indirect=True)


@after_the_last
def test_a_backup_is_restored(upgrade: Upgrade) -> None:
    news = upgrade.sites["news"]
    news.place.sql(news.production, "DELETE FROM wp_posts")
    news.ask("POST", f"{news.url()}/restore", backup_id=news.kept["backup"])
    test_the_content_of_each_site_is_there(upgrade)


@after_the_last
def test_a_release_is_gone_back_to(upgrade: Upgrade) -> None:
    news = upgrade.sites["news"]
    assert news.now()["current_release_id"] != news.kept["release one"]
    news.ask("POST", f"{news.url()}/rollback", release_id=news.kept["release one"])
    assert news.now()["current_release_id"] == news.kept["release one"]
    assert "<i>one</i>" in _page(news)


@after_the_last
def test_a_commit_is_reverted(upgrade: Upgrade) -> None:
    docs, plane = upgrade.sites["docs"], upgrade.plane
    assert docs.now()["redis_cache_enabled"] is False
    (commit,) = plane.declaring_commits()[docs.kept["cache-update"]]
    docs.place.close("docs")
    run_git(plane.clone.path, "revert", "--no-edit", commit)
    run_git(plane.clone.path, "push", "-q", "origin", "HEAD:main")
    (step,) = json.loads(plane.cli("plan", "docs/production", "-o", "json").stdout)["steps"]
    assert [change["field"] for change in step["changes"]] == ["spec.cache.redis"]
    assert step["verdict"] == "waiting", step
    docs.place.open("docs")
    until(lambda: docs.place.manifest(docs.production)["variables"]["redis_cache"], "the loop", told=plane.log)
    assert docs.now()["redis_cache_enabled"] is True


def _page(site: Site) -> str:
    host = site.production["preview_url"].partition("://")[2]
    return site.place.node_of(site.production).fetch("/", host=host, headers={"Cookie": "wordpress_no_cache=1"}).text
