"""Code that was changed on a real node becomes desired, goes back by a revert, and is discarded."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.controlplane import run_git, until
from tests.lab.mirror import plugin
from tests.lab.s3 import S3
from tests.place import Place
from tests.updatable import speaking

pytestmark = pytest.mark.lab

KEY = "adopting/production"
PATH = "sites/adopting/environments/production.yaml"
PLUGIN = "wp-content/plugins/adoptee"
ALTERED = "wp-content/plugins/akismet/akismet.php"
REMOVED = "wp-content/plugins/akismet/readme.txt"


@pytest.fixture
def environment(place: Place, storage: S3) -> dict[str, Any]:
    return place.make_site("adopting")


def _checked(place: Place, environment: dict[str, Any]) -> set[str]:
    """What a drift check finds."""
    job = place.run(place.plane.http.post(f"/api/environments/{environment['id']}/drift-check"))
    assert job["status"] == "succeeded", job
    with place.plane.opened() as home:
        check = next(one for one in home.records.drift_checks.latest_all().values() if str(one.job_id) == job["id"])
    return {f"{one['field']} {one['observed']}" for one in check.differences}


def _declared(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(place.plane.clone.read(PATH))["spec"]
    return found


def _page(place: Place, environment: dict[str, Any]) -> str:
    host = environment["preview_url"].partition("://")[2]
    answer = place.node_of(environment).fetch("/", host=host, headers={"Cookie": "wordpress_no_cache=1"})
    assert answer.status_code == 200, answer.text
    return answer.text


def _is_applied(place: Place) -> bool:
    return place.plane.command("plan", KEY, "--detailed-exitcode", check=False).returncode == 0


@pytest.mark.long
def test_a_plugin_by_hand_is_adopted_taken_back_and_discarded(place: Place, environment: dict[str, Any]) -> None:
    node, plane, root = place.node_of(environment), place.plane, f"/var/www/sites/{environment['id']}"
    url, current = f"/api/environments/{environment['id']}", f"{root}/current"
    former = node.ssh(["readlink", current]).stdout
    assert _checked(place, environment) == set()
    assert "found no code" in plane.http.post(f"{url}/drift/adopt").text

    node.ssh(["mkdir", f"{current}/{PLUGIN}"])
    node.ssh(["tee", f"{current}/{PLUGIN}/adoptee.php"], input=plugin("adoptee", "1.7", speaking("adopted word")))
    node.ssh(["wp", "--allow-root", f"--path={current}", "plugin", "activate", "adoptee"])
    unknown = f"release {PLUGIN}/ unknown"
    assert _checked(place, environment) == {unknown}
    shown = plane.command("drift", "adopt", KEY, check=False)
    assert (shown.returncode, f"{PLUGIN}/" in shown.stdout) == (1, True), shown
    assert node.ssh(["readlink", current]).stdout == former

    # Adopted: a release of its own, declared with its versions.
    plane.command("drift", "adopt", KEY, "--commit")
    assert _checked(place, environment) == set()
    assert "adopted word" in _page(place, environment)
    declared = _declared(place)
    assert (declared["release"]["origin"], declared["versions"]["plugins"]["adoptee"]) == ("adopt", "1.7")
    adopted = node.ssh(["readlink", current]).stdout
    assert adopted.strip() == f"releases/{declared['release']['id']}" != former.strip()
    assert "found no code" in plane.http.post(f"{url}/drift/adopt").text

    # Reverted: the release before it, as it was left.
    log = plane.git("log", "--format=%s", "-2").splitlines()
    assert log == [f"Record what {KEY} has adopted", f"Adopt what was changed in {KEY}"]
    run_git(plane.clone.path, "revert", "--no-edit", "HEAD", "HEAD~1")
    run_git(plane.clone.path, "push", "-q", "origin", "HEAD:main")
    until(lambda: node.ssh(["readlink", current]).stdout == former, "the former release", told=plane.log)
    until(lambda: _is_applied(place), "the loop to be done", told=plane.log)
    assert _checked(place, environment) == {unknown}

    # Discarded: what is unknown goes, what was altered or removed is back, after a backup.
    before = node.ssh(["sha256sum", f"{current}/{ALTERED}", f"{current}/{REMOVED}"]).stdout
    node.ssh(f"echo '// altered' >> {current}/{ALTERED}; rm {current}/{REMOVED}")
    assert len(_checked(place, environment)) == 3
    assert plane.http.get(f"{url}/backups").json() == []
    plane.command("drift", "discard", KEY, "--yes")
    (backup,) = plane.http.get(f"{url}/backups").json()
    assert (backup["backup_scope"], backup["status"]) == ("full", "completed")
    assert _checked(place, environment) == set()
    assert node.ssh(["sha256sum", f"{current}/{ALTERED}", f"{current}/{REMOVED}"]).stdout == before
    assert node.ssh(["test", "-e", f"{current}/{PLUGIN}"], check=False).returncode == 1
    assert "adopted word" not in _page(place, environment)
    assert _declared(place)["release"]["origin"] == "discard"
