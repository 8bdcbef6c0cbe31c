"""Code that was changed on a real node is proposed as a branch; somebody merges it by plain Git, and it is desired."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.controlplane import Clone, MakeControlPlane, run_git, until
from tests.forges.server import TOKEN, ForgeServer, forge_server
from tests.lab import Lab
from tests.lab.mirror import plugin
from tests.place import Place, placed
from tests.updatable import speaking

pytestmark = pytest.mark.lab

KEY = "proposing/production"
PATH = "sites/proposing/environments/production.yaml"
PLUGIN = "wp-content/plugins/proposed"


@dataclass
class Forge:
    place: Place
    upstream: Path
    server: ForgeServer
    person: Clone


@pytest.fixture
def forge(
    lab: Lab, provisioned_snapshot: str, session_control_plane: MakeControlPlane, tmp_path: Path
) -> Iterator[Forge]:
    upstream = tmp_path / "upstream.git"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(upstream))
    following = {"TRUEUP_UPSTREAM": f"file://{upstream}", "TRUEUP_UPSTREAM_POLL": "1"}
    with (
        forge_server("gitlab") as server,
        placed(lab, provisioned_snapshot, session_control_plane, ("web-1",), **following) as place,
    ):
        plane = place.plane
        until(lambda: plane.http.get("/readyz").json().get("upstream") == "in-step", "the first look", told=plane.log)
        plane.command("secret", "set", "forge", stdin=json.dumps({"token": TOKEN}))
        yield Forge(place, upstream, server, Clone(upstream, tmp_path / "person"))


def _page(place: Place, environment: dict[str, Any]) -> str:
    host = environment["preview_url"].partition("://")[2]
    answer = place.node_of(environment).fetch("/", host=host, headers={"Cookie": "wordpress_no_cache=1"})
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.long
def test_proposed_merged_and_applied(forge: Forge) -> None:
    place, plane, server, person = forge.place, forge.place.plane, forge.server, forge.person
    platform = f"apiVersion: trueup/v1\nkind: Platform\nspec:\n  forge: {json.dumps(server.declared())}\n"
    declaring = person.push({"platform.yaml": platform}, "Declare the forge")
    until(lambda: ("success", "Nothing to apply.") in server.told(declaring), "the first status", told=plane.log)
    environment = place.make_site("proposing")
    node, current = place.node_of(environment), f"/var/www/sites/{environment['id']}/current"
    former = node.ssh(["readlink", current]).stdout.strip().removeprefix("releases/")
    assert place.run(plane.http.post(f"/api/environments/{environment['id']}/drift-check"))["status"] == "succeeded"

    # Somebody installs a plugin on the node. It is found, proposed, and nothing is changed by that.
    node.ssh(["mkdir", f"{current}/{PLUGIN}"])
    node.ssh(["tee", f"{current}/{PLUGIN}/proposed.php"], input=plugin("proposed", "1.7", speaking("proposed word")))
    node.ssh(["wp", "--allow-root", f"--path={current}", "plugin", "activate", "proposed"])
    shown = plane.command("drift", "adopt", KEY, "--branch").stdout
    (request,) = server.requests
    assert f"{PLUGIN}/" in shown
    assert f"branch {request.branch} at " in shown
    assert f"{server.url}/acme/store/pulls/1" in shown
    assert request.branch.startswith("trueup/adopt-proposing-production-")
    assert f"`{PLUGIN}/`" in request.body
    assert node.ssh(["readlink", current]).stdout.strip() == f"releases/{former}"
    again = plane.http.post(f"/api/environments/{environment['id']}/drift/adopt/branch")
    assert (again.status_code, again.json()["branch"]) == (201, request.branch), again.text
    assert len(server.requests) == 1

    # Merged by plain Git.
    run_git(person.path, "fetch", "-q", "origin")
    run_git(person.path, "reset", "-q", "--hard", "origin/main")
    run_git(person.path, "merge", "-q", "--no-ff", "--no-edit", f"origin/{request.branch}")
    merged = run_git(person.path, "rev-parse", "HEAD")
    request.merged_as = merged
    run_git(person.path, "push", "-q", "origin", "HEAD:main")

    # Followed, applied, and its versions are recorded, in the repository too.
    def recorded() -> bool:
        spec = YAML(typ="safe").load(run_git(forge.upstream, "show", f"main:{PATH}"))["spec"]
        return bool(spec.get("versions", {}).get("plugins", {}).get("proposed") == "1.7")

    until(recorded, "the versions to be recorded", 180, plane.log)
    told = server.told(merged)
    until(lambda: server.told(merged)[-1][0] == "success", "the commit's success", told=plane.log)
    assert server.told(merged)[-1] == ("success", "Applied: 1 environment."), told
    until(lambda: request.comments, "the comment", told=plane.log)
    assert "**Trueup: Applied.**" in request.comments[0]["body"]
    assert KEY in request.comments[0]["body"]
    spec = YAML(typ="safe").load(run_git(forge.upstream, "show", f"main:{PATH}"))["spec"]
    assert (spec["release"]["origin"], spec["release"]["made_from"]) == ("adopt", former)
    assert spec["release"]["id"] == again.json()["release_id"]
    assert node.ssh(["readlink", current]).stdout.strip() == f"releases/{spec['release']['id']}"

    # True again, and it serves what was adopted.

    def is_applied() -> bool:
        return plane.command("plan", KEY, "--detailed-exitcode", check=False).returncode == 0

    until(is_applied, "the loop to be done", told=plane.log)
    check = place.run(plane.http.post(f"/api/environments/{environment['id']}/drift-check"))
    assert check["status"] == "succeeded", check
    assert plane.http.get(f"/api/environments/{environment['id']}").json()["drift_status"] == "clean"
    assert "proposed word" in _page(place, environment)
    assert "found no code" in plane.http.post(f"/api/environments/{environment['id']}/drift/adopt/branch").text
    assert run_git(forge.upstream, "log", "-1", "--format=%s", "main") == f"Record what {KEY} has adopted"
