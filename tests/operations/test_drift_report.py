"""What people change on a real node is in the report: what, since when, by whom, and what a reconcile would do."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from tests.controlplane import until
from tests.place import Place
from tests.reports.receivers import Hook, web_server

pytestmark = pytest.mark.lab

KEY = "reported/production"
PLUGIN = "wp-content/plugins/by-hand/"


@pytest.fixture
def hook(place: Place) -> Iterator[Hook]:
    """A web server that the platform document has reports sent to."""
    before = place.plane.clone.read("platform.yaml")
    platform = YAML(typ="safe").load(before)
    with web_server() as hook:
        reports = {"schedule": None, "targets": [{"type": "webhook", "url": hook.url}]}
        platform["spec"] = {**(platform.get("spec") or {}), "reports": reports}
        place.plane.clone.push({"platform.yaml": json.dumps(platform)}, "Send reports")
        yield hook
        place.plane.clone.push({"platform.yaml": before}, "Send none")


def _report(place: Place) -> dict[str, Any]:
    """A report that was asked for and is sent to whom it concerns."""
    job = place.run(place.plane.http.post("/api/drift-reports"))
    assert job["status"] == "succeeded", job

    def report() -> dict[str, Any]:
        found: dict[str, Any] = place.plane.http.get(f"/api/drift-reports/{job['id']}").json()
        return found

    until(lambda: all(one["status"] == "sent" for one in report()["deliveries"]), "it to be sent", told=place.plane.log)
    return report()


def _of(report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["environments"] if one["environment"] == KEY)
    return found


def _check(place: Place, environment: dict[str, Any]) -> None:
    job = place.run(place.plane.http.post(f"/api/environments/{environment['id']}/drift-check"))
    assert job["status"] == "succeeded", job


def _told(hook: Hook) -> list[str]:
    """All that it was told of the site: once each."""
    changes = [change for request in hook.requests for change in request.data["changes"]]
    return [f"{change['kind']} {change['text']}" for change in changes if change["subject"] == KEY]


def _install_a_plugin(place: Place, environment: dict[str, Any]) -> None:
    """As somebody does who was given a magic login: upload it in wp-admin."""
    answer = place.plane.http.post(f"/api/environments/{environment['id']}/magic-login")
    token = str(answer.json()["login_url"]).partition("trueup_login=")[2]
    host = environment["preview_url"].partition("://")[2]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("by-hand/by-hand.php", "<?php\n/* Plugin Name: By hand */\n")
    base = f"http://{place.node_of(environment).address}"
    with httpx.Client(base_url=base, headers={"Host": host}, timeout=60, trust_env=False) as browser:
        let_in = browser.post("/", data={"trueup_login": token})
        assert let_in.status_code == 302, let_in.text
        cookie = "; ".join(one.partition(";")[0] for one in let_in.headers.get_list("set-cookie"))
        page = browser.get("/wp-admin/plugin-install.php?tab=upload", headers={"Cookie": cookie})
        nonce = re.search(r'name="_wpnonce" value="(\w+)"', page.text)
        assert nonce, page.text[:2000]
        done = browser.post(
            "/wp-admin/update.php?action=upload-plugin",
            headers={"Cookie": cookie},
            data={"_wpnonce": nonce[1], "install-plugin-submit": "Install Now"},
            files={"pluginzip": ("by-hand.zip", archive.getvalue(), "application/zip")},
        )
        assert "Plugin installed successfully" in done.text, done.text[-3000:]


@pytest.mark.long
def test_what_people_changed_is_told_with_who_and_when_and_then_that_it_is_mended(place: Place, hook: Hook) -> None:
    environment = place.make_site("reported")
    node = place.node_of(environment)
    place.close("reported")
    _check(place, environment)
    assert _of(_report(place))["status"] == "clean"

    root = f"/var/www/sites/{environment['id']}/current"
    node.ssh(["wp", "--allow-root", f"--path={root}", "config", "set", "WP_MEMORY_LIMIT", "512M"])
    place.touch_block(environment)
    _install_a_plugin(place, environment)
    _check(place, environment)

    def seen() -> int:
        (step,) = json.loads(place.plane.cli("plan", KEY, "-o", "json").stdout)["steps"] or ({"changes": ()},)
        return len(step["changes"])

    until(lambda: seen() == 2, "the loop to see both files", told=place.plane.log)
    report = _report(place)
    found = _of(report)
    differences = {one["field"].partition(" ")[2]: one for one in found["differences"]}
    config = next(path for path in differences if path.endswith("/wp-config.php"))
    assert set(differences) == {config, place.block(environment), PLUGIN}
    for path in (config, place.block(environment)):
        assert differences[path]["origin"] == "ssh"
        assert "root logged in by ssh from" in differences[path]["evidence"]
        assert differences[path]["well_at"] < differences[path]["since"] <= report["created_at"]
    assert (differences[PLUGIN]["origin"], differences[PLUGIN]["observed"]) == ("login", "unknown")
    assert "Magic login by admin@example.com" in differences[PLUGIN]["evidence"]
    assert "`* * * * *`" in found["waits"]
    assert "After that the loop does it: configure. That mends 2 of 3 differences." in found["would"]
    told = place.plane.command("drift", "report").stdout
    assert all(path in told for path in differences)
    assert [line.partition(" ")[0] for line in _told(hook)] == ["new"] * 3

    place.open("reported")
    until(lambda: not place.is_touched(environment), "the loop to heal it", 150, place.plane.log)
    node.ssh(["rm", "-r", f"{root}/{PLUGIN}"])
    _check(place, environment)
    until(lambda: _of(_report(place))["status"] == "clean", "the report to say so", told=place.plane.log)
    lines = _told(hook)
    assert sorted(line.partition(" ")[0] for line in lines) == ["gone"] * 3 + ["new"] * 3
    assert {line.removeprefix("gone ") for line in lines[3:]} == {line.removeprefix("new ") for line in lines[:3]}
    keys = [request.data["delivery"] for request in hook.requests]
    assert len(keys) == len(set(keys)), "each message came once"
