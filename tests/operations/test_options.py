"""WordPress's options that Git is the source of, on a real node: set, told, healed, adopted, set back, and kept."""

import json
import shlex
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.controlplane import until
from tests.lab.s3 import S3
from tests.operations.again import run_again
from tests.operations.test_by_hand import by_hand
from tests.place import Place

pytestmark = pytest.mark.lab

KEY = "optioned/production"
PATH = "sites/optioned/environments/production.yaml"
DECLARED = """  options:
    blogname: Tom & Jerry
    blogdescription: "0"
    posts_per_page: 7
    users_can_register: false
    permalink_structure: /%year%/%postname%/
"""


@pytest.fixture(scope="module")
def environment(place: Place, storage: S3) -> dict[str, Any]:
    environment = place.make_site("optioned")
    place.plane.clone.push({PATH: place.plane.clone.read(PATH) + DECLARED}, "Declare options")
    until(lambda: _option(place, environment, "posts_per_page") == "7", "the options to be set", told=place.plane.log)
    _settled(place)
    return environment


def _option(place: Place, environment: dict[str, Any], name: str) -> str:
    return place.sql(environment, f"SELECT option_value FROM wp_options WHERE option_name = '{name}'")


def _set(place: Place, environment: dict[str, Any], name: str, value: str) -> None:
    """As somebody does in wp-admin."""
    root = f"--path=/var/www/sites/{environment['id']}/current"
    place.node_of(environment).ssh(["wp", "--allow-root", root, "option", "update", name, value])


def _plan(place: Place) -> Any:
    return json.loads(place.plane.command("plan", KEY, "-o", "json").stdout)


def _settled(place: Place) -> None:
    def is_settled() -> bool:
        return place.plane.command("plan", KEY, "--detailed-exitcode", check=False).returncode == 0

    until(is_settled, "nothing to differ", told=place.plane.log)


def _changes(place: Place) -> dict[str, tuple[str, str, str]]:
    return {
        change["field"]: (change["desired"], change["observed"], change["cause"])
        for step in _plan(place)["steps"]
        for change in step["changes"]
    }


def _spec(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(place.plane.clone.read(PATH))["spec"]
    return found


def _by_hand(place: Place, *options: str) -> str:
    """The playbook, run by an operator."""
    argv = ["ansible-playbook", "-i", "inventory", "playbooks/environment.yml", "-e", f"environment={KEY}", *options]
    status, output = by_hand(shlex.join(argv), TRUEUP_HOME=str(place.plane.home))
    assert status == 0, output
    return output


def _page(place: Place, environment: dict[str, Any], path: str = "/") -> str:
    answer = place.page(environment, path)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.long
def test_declared_options_are_wordpress_s_own(place: Place, environment: dict[str, Any]) -> None:
    """As WordPress stores them, in force for visitors, and by hand nothing more to do."""
    assert _option(place, environment, "blogname") == "Tom &amp; Jerry"
    assert _option(place, environment, "users_can_register") == "0"
    assert "<title>Tom &amp; Jerry</title>" in _page(place, environment)
    year = place.sql(environment, "SELECT YEAR(post_date) FROM wp_posts WHERE post_name = 'hello-world'")
    assert "Hello world" in _page(place, environment, f"/{year}/hello-world/")

    before = place.manifest(environment)
    assert before["options"]["blogname"] == "Tom &amp; Jerry"
    assert "changed=0" in _by_hand(place)
    assert place.manifest(environment) == before


@pytest.mark.long
def test_what_is_set_in_wordpress_is_told_and_healed(place: Place, environment: dict[str, Any]) -> None:
    place.close("optioned")
    _set(place, environment, "blogname", "Spike")
    _set(place, environment, "permalink_structure", "/%postname%/")
    _page(place, environment)  # WordPress keeps its options in Redis, and does not see this:
    place.sql(environment, "UPDATE wp_options SET option_value = '4' WHERE option_name = 'posts_per_page'")
    cause = "changed on the node"
    assert _changes(place) == {
        "options.blogname": ("Tom & Jerry", "Spike", cause),
        "options.permalink_structure": ("/%year%/%postname%/", "/%postname%/", cause),
        "options.posts_per_page": ("7", "4", cause),
    }
    shown = _by_hand(place, "--check", "--diff")
    assert "option blogname" in shown
    assert "Spike" in shown
    assert _option(place, environment, "blogname") == "Spike", "a look changes nothing"

    place.open("optioned")
    until(lambda: _option(place, environment, "blogname") == "Tom &amp; Jerry", "it to be healed", told=place.plane.log)
    _settled(place)
    assert _option(place, environment, "posts_per_page") == "7"
    assert "<title>Tom &amp; Jerry</title>" in _page(place, environment)
    year = place.sql(environment, "SELECT YEAR(post_date) FROM wp_posts WHERE post_name = 'hello-world'")
    assert "Hello world" in _page(place, environment, f"/{year}/hello-world/")


@pytest.mark.long
def test_what_is_set_in_wordpress_is_adopted_and_set_back(place: Place, environment: dict[str, Any]) -> None:
    plane, url = place.plane, f"/api/environments/{environment['id']}"
    place.close("optioned")
    _set(place, environment, "blogname", "Adopted")
    shown = plane.command("drift", "adopt", KEY, check=False)
    assert (shown.returncode, f"{KEY}  option blogname: Adopted" in shown.stdout) == (1, True), shown
    release = _spec(place)["release"]
    plane.command("drift", "adopt", KEY, "--commit")
    assert (_spec(place)["options"]["blogname"], _spec(place)["release"]) == ("Adopted", release)
    assert plane.git("log", "-1", "--format=%s") == f"Adopt what was set in {KEY}"
    assert (_option(place, environment, "blogname"), _changes(place)) == ("Adopted", {})
    again = plane.http.post(f"{url}/drift/adopt")
    assert (again.status_code, "was not looked at" in again.text) == (409, True)

    _set(place, environment, "blogname", "Discarded")
    before = len(plane.http.get(f"{url}/backups").json())
    plane.command("drift", "discard", KEY, "--yes")
    assert (_option(place, environment, "blogname"), _changes(place)) == ("Adopted", {})
    assert len(plane.http.get(f"{url}/backups").json()) == before + 1
    assert _spec(place)["release"] == release
    place.open("optioned")


@pytest.mark.long
def test_a_held_option_is_told_and_left_while_all_else_is_healed(place: Place, environment: dict[str, Any]) -> None:
    hold = {"field": "options.blogname", "reason": "Campaign", "owner": "Ada", "until": "2099-01-01T00:00:00Z"}
    held = f"""  reconcile:
    holds:
      - {json.dumps(hold)}
"""
    before = place.plane.clone.read(PATH)
    place.plane.clone.push({PATH: before + held}, "Hold the name")
    declared = _spec(place)["options"]["blogname"]
    _set(place, environment, "blogname", "Campaign name")
    _set(place, environment, "posts_per_page", "3")
    place.touch_block(environment)
    until(lambda: not place.is_touched(environment), "the block to be healed", told=place.plane.log)
    until(lambda: _option(place, environment, "posts_per_page") == "7", "the other to be healed", told=place.plane.log)
    assert _option(place, environment, "blogname") == "Campaign name"

    # What is told by all who tell of it; and it is left in peace: nothing is applied again and again.
    until(lambda: _changes(place).keys() == {"options.blogname"}, "nothing else to differ", told=place.plane.log)
    applied_at = place.manifest(environment)["applied_at"]
    [step] = _plan(place)["steps"]
    told = "held by Ada until 2099-01-01T00:00:00Z: Campaign"
    assert (step["verdict"], step["reason"]) == ("report", f"options.blogname is {told}.")
    [change] = step["changes"]
    assert (change["observed"], change["cause"]) == ("Campaign name", "changed on the node")
    assert change["held"] == {**hold, "until": "2099-01-01T00:00:00Z"}
    assert f"{KEY} options.blogname is {told}" in place.plane.command("status").stdout
    job = place.run(place.plane.http.post("/api/drift-reports"))
    report = place.plane.http.get(f"/api/drift-reports/{job['id']}").json()
    [mine] = [one for one in report["environments"] if one["environment"] == KEY]
    assert [(one["field"], one["held"]) for one in mine["differences"]] == [("options.blogname", told)]
    assert place.manifest(environment)["applied_at"] == applied_at

    # What somebody asks for about something else leaves it, too; who applies the whole asks for it.
    url = f"/api/environments/{environment['id']}"
    for switch in (False, True):
        job = place.run(place.plane.http.patch(f"{url}/cache", json={"fastcgi_cache_enabled": switch}))
        assert (job["status"], _option(place, environment, "blogname")) == ("succeeded", "Campaign name")
    place.plane.command("apply", KEY, "--yes")
    assert (_option(place, environment, "blogname"), _changes(place)) == (declared, {})

    # A document that moves is left, too, until the hold is over.
    place.plane.clone.replace(PATH, f"blogname: {declared}", "blogname: Later")
    until(lambda: "options.blogname" in _changes(place), "the document to be read", told=place.plane.log)
    assert _changes(place) == {"options.blogname": ("Later", declared, "desired state moved")}
    place.plane.clone.replace(PATH, "2099-01-01", "2026-01-01")
    until(lambda: _option(place, environment, "blogname") == "Later", "it to be enforced", told=place.plane.log)
    place.plane.clone.push({PATH: before}, "Hold nothing")
    _settled(place)


@pytest.mark.long
def test_a_value_that_wordpress_refuses_ends_the_job_and_changes_nothing(
    place: Place, environment: dict[str, Any]
) -> None:
    added = "    timezone_string: Mars/Olympus\n    start_of_week: 0\n"
    place.plane.clone.replace(PATH, "  options:\n", f"  options:\n{added}")

    def refused() -> bool:
        jobs = place.plane.http.get("/api/jobs", params={"status": "failed"}).json()
        return any(one["error_code"] == "OPTION_REFUSED" and "timezone_string" in one["error_message"] for one in jobs)

    until(refused, "it to be refused", told=place.plane.log)
    assert _option(place, environment, "start_of_week") == "1"
    place.plane.clone.replace(PATH, added, "")
    _settled(place)


@pytest.mark.long
def test_a_restored_database_and_a_copy_hold_what_is_declared(
    place: Place, environment: dict[str, Any], storage: S3
) -> None:
    plane, url = place.plane, f"/api/environments/{environment['id']}"
    assert place.run(plane.http.post(f"{url}/backups", json={"backup_scope": "db"}))["status"] == "succeeded"
    backup = plane.http.get(f"{url}/backups").json()[0]
    plane.clone.replace(PATH, "posts_per_page: 7", "posts_per_page: 9")
    until(lambda: _option(place, environment, "posts_per_page") == "9", "it to be applied", told=plane.log)
    _settled(place)
    job = place.run(plane.http.post(f"{url}/restore", json={"backup_id": backup["id"]}))
    assert (job["status"], _option(place, environment, "posts_per_page")) == ("succeeded", "9")
    assert _changes(place) == {}
    run_again(place, job)

    _set(place, environment, "blog_public", "1")
    body = {"name": "Staging", "slug": "staging", "type": "staging"}
    job = place.run(plane.http.post(f"/api/sites/{environment['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    copy = plane.http.get(f"/api/environments/{job['environment_id']}").json()
    assert _option(place, copy, "posts_per_page") == "9"
    path = "sites/optioned/environments/staging.yaml"
    declared = YAML(typ="safe").load(plane.clone.read(path))["spec"]["options"]
    assert declared.keys() == _spec(place)["options"].keys()
    assert (declared["posts_per_page"], declared["users_can_register"]) == ("9", "0")
    _set(place, copy, "posts_per_page", "3")
    until(lambda: _option(place, copy, "posts_per_page") == "9", "the copy to be healed", told=plane.log)
