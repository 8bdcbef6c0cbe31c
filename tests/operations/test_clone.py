"""Copies of environments, on their node and on another one, made through the API."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from tests.churn import options
from tests.place import Place
from tests.playbooks.test_rewrite import php

pytestmark = pytest.mark.lab

PLUGIN = "<?php /* Plugin Name: Ours */ add_action('wp_footer', function () { echo '<i>plugin speaks</i>'; });"


TIMED = """
CREATE TABLE wp_timed (id INT PRIMARY KEY, v TEXT, at TIMESTAMP NOT NULL ON UPDATE CURRENT_TIMESTAMP);
INSERT INTO wp_timed VALUES (1, '{url}/a', '2011-02-03 04:05:06')
"""
CSS = ".a{{background:url({url}/wp-content/uploads/a.png)}}"


def nested(url: str) -> Mapping[str, bytes]:
    """Where plugins put addresses, by option and by the key of a post's meta: values within values within values."""
    script = json.dumps({"href": f"{url}/ä", "list": [url, {"src": f"{url}/b.png"}]}).replace("/", "\\/")
    inner = php({"json": script, "html": f'<a href="{url}/é">{url}</a>', "count": 3, "none": None})
    return {
        "widget_custom": php({2: {"title": "Ünser", "data": inner}, "_multiwidget": 1}),
        "theme_mods_ours": php({"nav": {"home": url}, "raw": php({"again": inner, "json": script})}),
        "_builder_data": json.dumps([{"elements": json.dumps({"url": f"{url}/deep"})}]).encode(),
        "_plain_json": script.encode(),
    }


@pytest.fixture(scope="module")
def source(place: Place) -> dict[str, Any]:
    """A site with a plugin, an upload, serialized values with addresses in them, and a customer."""
    environment = place.make_site("origin")
    node, url, root = place.node_of(environment), environment["preview_url"], f"/var/www/sites/{environment['id']}"
    node.ssh(["mkdir", "-p", f"{root}/current/wp-content/plugins/ours", f"{root}/shared/uploads/2026"])
    node.ssh(["tee", f"{root}/current/wp-content/plugins/ours/ours.php"], input=PLUGIN)
    node.ssh(["tee", f"{root}/shared/uploads/2026/a.txt"], input="an upload")
    widget = f'<img src="{url}/a.png">'
    value = f'a:1:{{i:2;a:1:{{s:4:"text";s:{len(widget)}:"{widget}";}}}}'
    place.sql(environment, f"INSERT INTO wp_options (option_name, option_value) VALUES ('widget_ours', '{value}')")
    for key, data in nested(url).items():
        text = f"CONVERT(0x{data.hex()} USING utf8mb4)"
        place.sql(environment, f"INSERT INTO wp_options (option_name, option_value) VALUES ('{key}', {text})")
        place.sql(environment, f"INSERT INTO wp_postmeta (post_id, meta_key, meta_value) VALUES (1, '{key}', {text})")
    place.sql(
        environment,
        "UPDATE wp_options SET option_value = 'a:1:{i:0;s:13:\"ours/ours.php\";}' WHERE option_name = 'active_plugins'",
    )
    place.sql(environment, TIMED.format(url=url))
    place.sql(
        environment,
        "INSERT INTO wp_options (option_name, option_value) VALUES "
        f"('broken_ours', 's:9:\"{url}\";'), ('place_ours', '{root}/current/wp-content/x')",
    )
    node.ssh(["mkdir", "-p", f"{root}/shared/uploads/elementor/css"])
    node.ssh(["tee", f"{root}/shared/uploads/elementor/css/post-1.css"], input=CSS.format(url=url))
    place.sql(environment, "CREATE TABLE wp_orders (name VARCHAR(200), note BLOB)")
    place.sql(environment, f"INSERT INTO wp_orders VALUES ('{url}/order/1', 0x00ff0a09)")
    return environment


def _fingerprint(place: Place, environment: dict[str, Any]) -> str:
    """Of everything that the source is: tables, uploads, code."""
    database = "wp_" + environment["id"].replace("-", "")[:12]
    root = f"/var/www/sites/{environment['id']}"
    script = (
        f"mariadb-dump --hex-blob --skip-dump-date --skip-comments --order-by-primary {database} "
        f"--ignore-table={database}.wp_options; "
        f'mariadb -N {database} -e "{options()}"; '
        f"find {root}/shared {root}/releases -type f -exec sha256sum {{}} + | sort"
    )
    return hashlib.sha256(place.node_of(environment).ssh(script).stdout.encode()).hexdigest()


def _copy(place: Place, source: dict[str, Any], slug: str, **more: Any) -> dict[str, Any]:
    body = {"name": slug.title(), "slug": slug, "type": "staging", **more}
    job = place.run(place.plane.http.post(f"/api/sites/{source['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    found: dict[str, Any] = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    return {**found, "job": job["id"]}


def _assert_is_a_copy(place: Place, source: dict[str, Any], copy: dict[str, Any]) -> None:
    assert (copy["status"], copy["source_environment_id"]) == ("active", source["id"])
    page = place.page(copy)
    assert page.status_code == 200
    assert "plugin speaks" in page.text
    assert source["preview_url"] not in page.text
    assert "noindex" in page.headers["x-robots-tag"]
    assert place.page(copy, "/wp-content/uploads/2026/a.txt").text == "an upload"
    widget = f'<img src="{copy["preview_url"]}/a.png">'
    assert place.sql(copy, "SELECT option_value FROM wp_options WHERE option_name = 'widget_ours'") == (
        f'a:1:{{i:2;a:1:{{s:4:"text";s:{len(widget)}:"{widget}";}}}}'
    )
    for key, data in nested(copy["preview_url"]).items():
        for table, name, value in (("options", "option_name", "option_value"), ("postmeta", "meta_key", "meta_value")):
            found = place.sql(copy, f"SELECT HEX({value}) FROM wp_{table} WHERE {name} = '{key}'")
            assert bytes.fromhex(found) == data, (table, key)
    assert place.sql(copy, "SELECT v, at FROM wp_timed") == f"{copy['preview_url']}/a\t2011-02-03 04:05:06"
    css = place.page(copy, "/wp-content/uploads/elementor/css/post-1.css")
    assert css.text == CSS.format(url=copy["preview_url"])
    there = place.sql(copy, "SELECT option_value FROM wp_options WHERE option_name = 'place_ours'")
    assert there == f"/var/www/sites/{copy['id']}/current/wp-content/x"
    assert place.sql(copy, "SELECT name, HEX(note) FROM wp_orders") == f"{copy['preview_url']}/order/1\t00FF0A09"
    assert place.sql(copy, f"SELECT COUNT(*) FROM wp_posts WHERE post_content LIKE '%{source['id'][:8]}%'") == "0"


def _leftovers(place: Place, environment: dict[str, Any]) -> str:
    short = environment["id"].replace("-", "")[:12]
    node = place.node_of(environment)
    databases = node.ssh(["mariadb", "-N", "-e", f"SHOW DATABASES LIKE 'wp\\_{short}\\_%'"]).stdout
    return (
        databases
        + node.ssh(f"ls -d /var/www/sites/{environment['id']}/incoming /var/tmp/trueup-* 2>/dev/null || true").stdout
    )


@pytest.mark.long
def test_a_copy_on_the_same_node(place: Place, source: dict[str, Any]) -> None:
    before = _fingerprint(place, source)
    copy = _copy(place, source, "staging")
    assert copy["node_id"] == source["node_id"]
    _assert_is_a_copy(place, source, copy)
    with place.plane.opened() as home:
        told = (home.records.jobs.get(UUID(copy["job"])).result or {})["notes"]
    (broken,) = [
        note for note in told if note.startswith("wp_options.option_value names the former address in 1 value, ")
    ]
    assert "PHP cannot read it" in broken
    assert _fingerprint(place, source) == before, "the source is only read"
    assert _leftovers(place, copy) == ""
    _assert_nothing_is_left_to_do(place, copy)


@pytest.mark.long
def test_a_copy_on_another_node(place: Place, source: dict[str, Any]) -> None:
    before = _fingerprint(place, source)
    nodes = {node["id"] for node in place.plane.http.get("/api/nodes").json()}
    (other,) = nodes - {source["node_id"]}
    copy = _copy(place, source, "far", type="clone", node_id=other)
    assert copy["node_id"] == other
    _assert_is_a_copy(place, source, copy)
    assert _fingerprint(place, source) == before
    assert _leftovers(place, copy) == ""
    again = _copy(place, copy, "fromfar", source_environment_id=copy["id"])
    _assert_is_a_copy(place, copy, again)


def _assert_nothing_is_left_to_do(place: Place, environment: dict[str, Any]) -> None:
    job = place.run(place.plane.http.post(f"/api/environments/{environment['id']}/drift-check"))
    assert job["status"] == "succeeded"
    assert place.plane.http.get(f"/api/environments/{environment['id']}").json()["drift_status"] == "clean"


@pytest.mark.long
def test_mail_of_a_copy_stays_here(place: Place, source: dict[str, Any]) -> None:
    copy = _copy(place, source, "quiet")
    root = f"/var/www/sites/{copy['id']}"
    code = f"require '{root}/current/wp-load.php'; wp_mail('customer@example.com', 'Hi', 'There');"
    user = f"wp-{copy['id'].replace('-', '')[:12]}"
    argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "php", "-r", code]
    place.node_of(copy).ssh(argv)
    assert "customer@example.com" in place.node_of(copy).ssh(["cat", f"{root}/logs/mail.log"]).stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"type": "production"}, 409, "conflict"),
        ({"slug": "production"}, 409, "conflict"),
        ({"source_environment_id": "00000000-0000-4000-8000-000000000000"}, 404, "not_found"),
        ({"type": "test"}, 400, "invalid_request"),
        ({"slug": "../x"}, 400, "invalid_request"),
        ({"surprise": 1}, 400, "invalid_request"),
        ({"promotion_preset": "all"}, 400, "invalid_request"),
        ({"node_id": "00000000-0000-4000-8000-000000000000"}, 404, "not_found"),
    ],
)
def test_copies_that_are_refused(
    place: Place, source: dict[str, Any], body: dict[str, Any], status: int, code: str
) -> None:
    whole = {"name": "Try", "slug": "refused", "type": "staging", **body}
    answer = place.plane.http.post(f"/api/sites/{source['site_id']}/environments", json=whole)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
