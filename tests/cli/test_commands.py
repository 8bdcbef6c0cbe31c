"""Every command against a real home, as somebody at the control plane's own terminal uses it."""

import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from ruamel.yaml import YAML

from reconciler import __version__
from reconciler.core.observed import ObservedEgress, ObservedHost, Unreachable
from reconciler.core.snapshot import FleetSnapshot
from reconciler.home import clock
from reconciler.records.drift import DriftCheck
from tests.controlplane import (
    EMAIL,
    ControlPlane,
    MakeControlPlane,
    closed_port,
    node_document,
    program,
    site_documents,
    until,
)
from tests.core.fake_node import configured, fresh, provisioned
from tests.reports.receivers import web_server

COMMANDS = [
    (),
    *((name,) for name in ("init", "serve", "fetch", "snapshot", "validate", "plan", "apply", "drift", "status")),
    *(("node", name) for name in ("list", "add", "provision")),
    *(("site", name) for name in ("list", "create", "import")),
    *(("job", name) for name in ("list", "show", "follow", "events", "cancel")),
    ("reset",),
    ("drift", "report"),
    ("search-replace",),
    ("admin", "set-password"),
    *(("admin", "token", name) for name in ("create", "list", "revoke")),
    *((name,) for name in ("clone", "cache", "purge", "login", "promote", "deploy", "rollback", "remove", "history")),
    *(("backup", name) for name in ("list", "create", "restore", "rebuild")),
    *(("secret", name) for name in ("set", "list", "export", "key", "remove")),
]


@pytest.fixture(scope="module")
def plane(shared_control_plane: MakeControlPlane) -> ControlPlane:
    """A home that nobody serves, with a site on a node that refuses connections."""
    documents = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("acme")}
    return shared_control_plane(documents, start=False)


def data(plane: ControlPlane, *arguments: str) -> Any:
    """What a command answers with `-o json`, which `-o yaml` must answer too."""
    as_json, as_yaml = (plane.cli(*arguments, "-o", shape) for shape in ("json", "yaml"))
    assert (as_json.exit_code, as_yaml.exit_code) == (0, 0), as_json.output
    found = json.loads(as_json.stdout)
    assert YAML(typ="safe").load(io.StringIO(as_yaml.stdout)) == found
    return found


def error(plane: ControlPlane, *arguments: str, stdin: str = "") -> str:
    """The one line with which a command fails."""
    done = plane.command(*arguments, stdin=stdin, check=False)
    assert (done.returncode, done.stdout) == (1, ""), (done.stdout, done.stderr)
    assert done.stderr.startswith("trueup: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("trueup: ").strip()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_every_option(plane: ControlPlane, command: tuple[str, ...]) -> None:
    shown = plane.cli(*command, "--help")
    assert shown.exit_code == 0
    assert "Usage: " in shown.stdout
    assert "--help" in shown.stdout


def test_version(plane: ControlPlane) -> None:
    assert plane.command("--version").stdout == f"{__version__}\n"


@pytest.mark.long
def test_completion_scripts(plane: ControlPlane) -> None:
    for shell in ("bash", "zsh", "fish"):
        environment = {**plane.environment, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        argv = [program(), "--show-completion", shell]
        shown = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr
        assert "_TRUEUP_COMPLETE" in shown.stdout


def test_init_twice(plane: ControlPlane) -> None:
    before = plane.git("rev-parse", "main"), (plane.home / "ssh" / "id_ed25519").read_bytes()
    shown = plane.cli("init")
    assert shown.exit_code == 0
    assert "ssh-ed25519 " in shown.stdout
    assert before == (plane.git("rev-parse", "main"), (plane.home / "ssh" / "id_ed25519").read_bytes())
    assert plane.home.stat().st_mode & 0o777 == 0o700


def test_init_makes_a_store_that_validates(tmp_path: Path, plane: ControlPlane) -> None:
    fresh = ControlPlane(tmp_path / "home")
    assert "Put this key into" in fresh.command("init").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert fresh.home.stat().st_mode & 0o777 == 0o700
    assert (fresh.home / "trueup.db").stat().st_mode & 0o777 == 0o600
    assert (fresh.home / "ssh" / "id_ed25519").stat().st_mode & 0o777 == 0o600
    subprocess.run(["git", "clone", "-q", str(fresh.store), str(tmp_path / "clone")], check=True)
    assert fresh.cli("validate", str(tmp_path / "clone")).exit_code == 0
    fresh.close()


def test_without_a_home(tmp_path: Path, plane: ControlPlane) -> None:
    nowhere = ControlPlane(tmp_path / "nowhere")
    why = f"{tmp_path / 'nowhere'} is no Trueup home. Run `trueup init`, or set TRUEUP_HOME."
    for command in ("status", "serve", "plan"):
        assert nowhere.refused(command) == why
    assert error(nowhere, "status") == why
    nowhere.close()


def test_a_setting_that_cannot_be(plane: ControlPlane) -> None:
    wrong = ControlPlane(plane.home, TRUEUP_LISTEN_PORT="http")
    assert error(wrong, "status").startswith("Setting TRUEUP_LISTEN_PORT: ")
    wrong.close()


def test_validate(tmp_path: Path, plane: ControlPlane) -> None:
    for name, text in {"nodes/web-1.yaml": node_document(), **site_documents("acme")}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    good = plane.cli("validate", str(tmp_path))
    assert (good.exit_code, "1 nodes, 1 sites, 1 environments" in good.stdout) == (0, True)

    environment = tmp_path / "sites/acme/environments/production.yaml"
    environment.write_text(environment.read_text().replace("node: web-1", "node: web-9"))
    bad = plane.command("validate", str(tmp_path), check=False)
    assert bad.returncode == 1
    assert "sites/acme/environments/production.yaml:5:3: Environment acme/production names node web-9" in bad.stdout
    told = json.loads(plane.cli("validate", str(tmp_path), "-o", "json").stdout)
    assert [(stalled["path"], stalled["line"]) for stalled in told] == [("sites/acme/environments/production.yaml", 5)]
    assert "There is no store at" in plane.refused("validate", str(tmp_path / "missing"))


def test_validate_reads_what_the_store_would(tmp_path: Path, plane: ControlPlane) -> None:
    for name, text in {"nodes/web-1.yml": node_document(), **site_documents("acme")}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "nodes" / "web-1.yaml").symlink_to("web-1.yml")
    bad = plane.cli("validate", str(tmp_path))
    assert bad.exit_code == 1
    assert "nodes/web-1.yml:1: its name ends in .yml. Rename it to .yaml." in bad.stdout
    assert "nodes/web-1.yaml:1: it is a symbolic link" in bad.stdout


def test_snapshot(tmp_path: Path, plane: ControlPlane) -> None:
    shown = FleetSnapshot.model_validate_json(plane.cli("snapshot").stdout)
    assert plane.cli("snapshot", "-o", str(tmp_path / "s.json")).exit_code == 0
    written = FleetSnapshot.model_validate_json((tmp_path / "s.json").read_text())
    assert (shown.revision, shown.roles) == (written.revision, written.roles)
    assert written.revision == plane.git("rev-parse", "main")
    assert "cannot be written" in plane.refused("snapshot", "-o", str(tmp_path / "missing" / "s.json"))


def test_status_and_lists(plane: ControlPlane) -> None:
    status = data(plane, "status")
    assert status["revision"] == plane.git("rev-parse", "main")
    assert [node["name"] for node in status["nodes"]] == ["web-1"]
    assert {row["environment"]: row["mode"] for row in status["environments"]}["acme/production"] == "enforce"
    assert status["stalled"] == []
    assert [node["name"] for node in data(plane, "node", "list")] == ["web-1"]
    assert "acme" in [site["slug"] for site in data(plane, "site", "list")]
    table = plane.cli("status").stdout
    assert "acme/production" in table
    assert "\x1b[" not in table


def test_status_names_every_hold_in_force(plane: ControlPlane) -> None:
    path = "sites/acme/environments/production.yaml"
    before = plane.clone.read(path)
    holds = [
        {"field": "cache.redis", "reason": "Being looked into", "owner": "Ada", "until": "2099-01-01T00:00:00Z"},
        {"field": "php", "reason": "Over", "owner": "Ada", "until": "2026-01-01T00:00:00Z"},
    ]
    plane.clone.push({path: f"{before}  reconcile:\n    holds: {json.dumps(holds)}\n"}, "Hold")
    try:
        assert data(plane, "status")["holds"] == [{"target": "acme/production", **holds[0]}]
        line = "acme/production cache.redis is held by Ada until 2099-01-01T00:00:00Z: Being looked into"
        assert line in plane.cli("status").stdout
    finally:
        plane.clone.push({path: before}, "Hold nothing")
    assert data(plane, "status")["holds"] == []


def test_status_says_which_listed_hosts_were_not_found(control_plane: MakeControlPlane) -> None:
    spec = {"type": "staging", "node": "web-1", "egress": ["a.example.com", "b.example.com", "c.example.com"]}
    copy = {"apiVersion": "trueup/v1", "kind": "Environment", "spec": spec}
    documents = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("acme")}
    plane = control_plane({**documents, "sites/acme/environments/copy.yaml": json.dumps(copy)}, start=False)
    hosts = {
        "a.example.com": ObservedHost(addresses=("203.0.113.7",)),
        "b.example.com": ObservedHost(error="It does not resolve."),
        "c.example.com": ObservedHost(addresses=("203.0.113.8",), error="DNS gave no answer in time."),
    }
    with plane.opened() as home:
        fleet = home.state.fleet()
        node = fleet.nodes_by_slug["web-1"]
        variables = fleet.environment_variables(fleet.environments_by_key["acme/copy"].id)
        there = configured(variables).model_copy(update={"egress": ObservedEgress(closed=True, hosts=hosts)})
        seen = provisioned(fleet.node_variables(node.id)).model_copy(update={"environments": {variables.id: there}})
        home.records.observations.save(node.id, seen, clock())
    told = plane.cli("status").stdout
    assert "a.example.com" not in told
    assert "host b.example.com of acme/copy: It does not resolve.\n" in told
    assert "c.example.com of acme/copy: DNS gave no answer in time. Let through to 203.0.113.8, as before.\n" in told
    assert {row["host"]: row["addresses"] for row in data(plane, "status")["hosts"]} == {
        "a.example.com": ["203.0.113.7"],
        "b.example.com": [],
        "c.example.com": ["203.0.113.8"],
    }


@pytest.mark.long
def test_no_colour_where_none_is_wanted(plane: ControlPlane) -> None:
    forced = {**plane.environment, "FORCE_COLOR": "1"}
    piped = {name: value for name, value in plane.environment.items() if name != "NO_COLOR"}
    for environment in (forced, piped):
        shown = subprocess.run([program(), "node", "list"], env=environment, capture_output=True, text=True, check=True)
        assert not re.search(r"\x1b\[[0-9;]*(3|4|9)[0-7]", shown.stdout), shown.stdout
        assert "web-1" in shown.stdout


def test_plan_of_a_node_that_does_not_answer(plane: ControlPlane) -> None:
    shown = plane.cli("plan")
    assert shown.exit_code == 0
    assert "web-1" in shown.stdout
    found = json.loads(plane.cli("plan", "-o", "json").stdout)
    assert [silent["node"] for silent in found["silent"]] == ["web-1"]
    assert found["steps"] == []
    assert plane.cli("plan", "--detailed-exitcode").exit_code == 1
    assert plane.cli("plan", "-o", "markdown").stdout
    told = "Nothing is named nothing/here. `trueup status` shows what there is."
    assert plane.refused("plan", "nothing/here") == told


def test_only_the_plan_that_was_reviewed_is_applied(plane: ControlPlane) -> None:
    reviewed = json.loads(plane.cli("plan", "-o", "json").stdout)["digest"]
    assert plane.cli("apply", "--yes", "--require", reviewed).exit_code == 0, "the node is silent: nothing is done"
    refused = plane.command("apply", "--yes", "--require", "0" * 64, check=False)
    assert refused.returncode == 1
    assert f"The plan's digest is {reviewed}, not the one that was reviewed" in refused.stderr


def test_plan_of_nothing(shared_control_plane: MakeControlPlane) -> None:
    empty = shared_control_plane(start=False)
    assert empty.cli("plan", "--detailed-exitcode").exit_code == 0
    empty.clone.push({"sites/acme/site.yaml": "kind: [\n"})
    assert empty.cli("plan", "--detailed-exitcode").exit_code == 1
    assert "sites/acme/site.yaml" in empty.cli("plan").stdout


def test_drift(plane: ControlPlane) -> None:
    rows = data(plane, "drift")
    assert {row["environment"]: row["drift"] for row in rows}["acme/production"] == "unknown"
    assert "acme/production" in plane.cli("drift", "acme").stdout


def test_drift_tells_programs_by_its_exit_code(plane: ControlPlane) -> None:
    plane.cli("site", "create", "drifting", "--no-wait")
    with plane.opened() as home:
        id_ = home.state.fleet().environments_by_key["drifting/production"].id
        for status, code in ((None, 1), ("clean", 0), ("drifted", 2), ("clean", 0)):
            if status:
                check = DriftCheck(id=uuid4(), environment_id=id_, status=status, differences=(), created_at=clock())
                home.records.drift_checks.save(check)
            assert plane.cli("drift", "drifting", "--exit-code").exit_code == code, status
            assert plane.cli("drift", "drifting").exit_code == 0
    assert plane.cli("drift", "--exit-code").exit_code == 1, "others were never checked"


def test_a_drift_report_in_each_shape(plane: ControlPlane) -> None:
    shown = plane.cli("drift", "report")
    assert shown.exit_code == 0
    assert "acme/production" in shown.stdout
    assert "web-1" in shown.stdout
    found = json.loads(plane.cli("drift", "report", "--format", "json").stdout)
    assert {"acme/production"} <= {one["environment"] for one in found["environments"]}
    assert (found["trigger"], found["requested_by"].endswith("@localhost")) == ("request", True)
    assert plane.cli("drift", "report", "--format", "markdown").stdout.startswith("# Drift report\n")
    assert plane.cli("drift", "report", "--format", "html").stdout.startswith("<!doctype html>")
    with plane.opened() as home:
        assert home.records.reports.latest() is None, "none of them is kept"
    assert plane.cli("drift", "acme").exit_code == 0, "the command of one word is as before"


@pytest.mark.long
def test_a_drift_report_is_kept_and_sent_where_nobody_serves(control_plane: MakeControlPlane, tmp_path: Path) -> None:
    with web_server() as hook:
        reports = {"targets": [{"type": "webhook", "url": hook.url}]}
        platform = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": {"reports": reports}}
        documents = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("acme")}
        plane = control_plane({**documents, "platform.yaml": json.dumps(platform)}, start=False)
        sent = plane.command("drift", "report", "--send", "--format", "json")
        assert "webhook http://127.0.0.1" in sent.stderr
        assert ": sent\n" in sent.stderr
        again = plane.command("drift", "report", "--send")
        assert "Nobody is sent it" in again.stderr
        (request,) = hook.requests
        assert request.data["report"]["id"] == json.loads(sent.stdout)["id"]
    (target,) = json.loads(plane.cli("status", "-o", "json").stdout)["reports"]
    assert (target["status"], target["error"], target["report"]) == ("sent", None, request.data["report"]["id"])
    with plane.opened() as home:
        home.records.observations.forget(home.state.fleet().nodes_by_slug["web-1"].id)
        home.records.observations.save(
            home.state.fleet().nodes_by_slug["web-1"].id, Unreachable(since=clock(), reason="gone"), clock()
        )
    failed = plane.command("drift", "report", "--send")
    assert "pending: It cannot be reached" in failed.stderr
    assert "report to webhook http://127.0.0.1" in plane.cli("status").stdout


def test_too_many_nodes_at_once_are_left_to_a_person(control_plane: MakeControlPlane) -> None:
    """Nodes that another version of Trueup provisioned, and a new one."""
    names = ("web-1", "web-2", "web-3")
    nodes = {f"nodes/{name}.yaml": node_document(f"127.0.0.{number}") for number, name in enumerate(names, 1)}
    platform = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": {"reconcile": {"node_blast_limit": 1}}}
    plane = control_plane({**nodes, "platform.yaml": json.dumps(platform)}, start=False)
    with plane.opened() as home:
        for node in home.state.fleet().nodes.values():
            seen = fresh() if node.slug == "web-3" else provisioned(home.state.fleet().node_variables(node.id))
            home.records.observations.save(node.id, seen.model_copy(update={"observed_at": clock()}), clock())
    plan = json.loads(plane.cli("plan", "--no-observe", "-o", "json").stdout)
    assert [(step["target"], step["verdict"]) for step in plan["steps"]] == [
        *(("web-1", "waiting"), ("web-2", "waiting")),
        ("web-3", "apply"),
    ]
    told = "2 nodes would change at once, more than the 1 of spec.reconcile.node_blast_limit in platform.yaml."
    assert told in plane.cli("plan", "--no-observe").stdout
    assert told in plane.cli("plan", "--no-observe", "web-1").stdout, "the whole fleet counts"


def test_a_site_without_a_serving_process(plane: ControlPlane) -> None:
    """Declared and left to whoever serves next; then looked at as a job."""
    accepted = plane.cli("site", "create", "bistro", "--name", "Bistro Ä", "--no-wait")
    assert accepted.exit_code == 0, accepted.output
    (job,) = [one for one in data(plane, "job", "list") if one["target"] == "bistro/production"]
    assert (job["job_type"], job["status"]) == ("site-create", "queued")
    assert job["id"] in accepted.stdout
    shown = data(plane, "job", "show", job["id"])
    assert (shown["status"], shown["attempt_count"]) == ("queued", 0)
    assert plane.declaring_commits()[job["id"]] == [shown["revision"]]
    assert plane.git("log", "-1", "--format=%ae", shown["revision"]).endswith("@localhost")
    assert {"slug": "bistro", "name": "Bistro Ä"}.items() <= data(plane, "site", "list")[1].items()


def test_follow_does_the_work_where_nobody_serves(plane: ControlPlane) -> None:
    plane.cli("site", "create", "inline", "--no-wait")
    (job,) = [one for one in data(plane, "job", "list") if one["target"] == "inline/production"]
    argv = [program(), "job", "follow", job["id"]]
    follower = subprocess.Popen(argv, env=plane.environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with plane.opened() as home:
            tried = home.records.jobs
            until(lambda: tried.get(UUID(job["id"])).error_code == "ANSIBLE_HOST_UNREACHABLE", "the first attempt")
    finally:
        follower.terminate()
        follower.wait(120)


def test_a_dead_process_socket_is_no_process(plane: ControlPlane) -> None:
    """What SIGKILL leaves behind must not make commands wait for ever."""
    plane.start()
    plane.kill()
    assert (plane.home / "wake.sock").exists()
    with plane.opened() as home:
        assert not home.dispatcher.is_heard()


def test_refusals_are_one_line(plane: ControlPlane) -> None:
    assert "exists" in plane.refused("site", "create", "acme")
    assert plane.refused("site", "create", "Not A Slug").startswith("slug: ")
    assert "web-9" in plane.refused("site", "create", "other", "--node", "web-9")
    assert "storage" in plane.refused("site", "import", "acme", "https://example.com/site.tar.gz")
    assert "no site other" in plane.refused("site", "import", "other", "https://example.com/site.tar.gz")
    assert "does not exist" in plane.refused("job", "show", "00000000-0000-4000-8000-000000000000")
    assert "web-9" in plane.refused("node", "provision", "web-9")
    assert "refuses connections" in plane.refused("node", "add", "web-2", "--address", "127.0.0.1", "--port", "1")


def test_one_environment_by_its_name(plane: ControlPlane) -> None:
    assert "No environment is named acme/live" in plane.refused("clone", "acme/live", "staging")
    assert plane.refused("clone", "acme/production", "Not A Slug").startswith("slug: ")
    assert "web-9" in plane.refused("clone", "acme/production", "staging", "--node", "web-9")
    assert "--no-fastcgi" in plane.refused("cache", "acme/production")
    assert "did not answer" in plane.refused("login", "acme/production")

    assert "2 to 1000 characters" in plane.refused("search-replace", "acme/production", "a", "b")
    assert "same" in plane.refused("search-replace", "acme/production", "ab", "ab")
    assert "nowhere" in plane.refused("search-replace", "acme/production", "ab", "b", "--group", "nowhere")
    assert "storage" in plane.refused("search-replace", "acme/production", "ab", "b", "--apply")

    assert plane.cli("purge", "acme/production", "--no-wait").exit_code == 0
    assert plane.cli("cache", "acme/production", "--no-redis", "--no-wait").exit_code == 0
    assert "redis: false" in plane.git("show", "main:sites/acme/environments/production.yaml")
    assert plane.cli("clone", "acme/production", "staging", "--name", "A copy", "--no-wait").exit_code == 0
    assert "name: A copy" in plane.git("show", "main:sites/acme/environments/staging.yaml")


def test_the_history_of_an_environment_is_one_line_of_time(plane: ControlPlane) -> None:
    """Made, moved to two releases and back by pushes, changed by a job."""
    plane.cli("site", "create", "told", "--no-wait")
    path = "sites/told/environments/production.yaml"
    first, second = (f"0000000{number}-0000-4000-8000-000000000000" for number in (1, 2))
    made = plane.clone.read(path)
    own = re.search(r"  release:\n    id: (\S+)", made)
    assert own
    for number, id_ in enumerate((first, second)):
        plane.clone.push({path: made.replace(own[1], id_)}, f"Release {number}")
    plane.clone.push({path: made}, "Back")
    assert plane.cli("cache", "told/production", "--no-redis", "--no-wait").exit_code == 0
    moments = data(plane, "history", "told/production")
    assert [one["at"] for one in moments] == sorted((one["at"] for one in moments), reverse=True)
    commits = [one for one in moments if one["kind"] == "commit"]
    assert [one["what"] for one in commits][1:4] == ["Back", "Release 1", "Release 0"]
    jobs = {one["id"]: one for one in moments if one["kind"] == "job"}
    assert [jobs[one["jobs"][0]]["what"] for one in (commits[0], commits[-1])] == ["cache-update", "site-create"]
    assert [one["id"] for one in moments if one["kind"] == "release"] == [own[1], second, first, own[1]]
    assert commits[2]["id"][:9] in next(one["what"] for one in moments if one["id"] == second)
    assert len(data(plane, "history", "told/production", "--limit", "2")) == 2
    assert commits[0]["id"][:9] in plane.cli("history", "told/production").stdout
    assert "No environment is named told/live" in plane.refused("history", "told/live")


def test_set_password_from_standard_input(plane: ControlPlane) -> None:
    done = plane.cli("admin", "set-password", "--email", EMAIL, stdin="another long password\n")
    assert (done.exit_code, done.stdout) == (0, f"{EMAIL} can log in.\n")
    assert "12" in plane.refused("admin", "set-password", "--email", EMAIL, stdin="short\n")
    assert plane.refused("admin", "set-password", "--email", "nobody", stdin="another long password\n")
    assert "another long password" not in os.fsdecode((plane.home / "trueup.db").read_bytes())


@pytest.mark.lab
def test_a_node_is_added_by_its_fingerprint(control_plane: MakeControlPlane, bare_node: Any) -> None:
    plane = control_plane(start=False)
    add = ("node", "add", "web-5", "--address", bare_node.address, "--no-wait", "--fingerprint")
    assert "Another machine may be answering" in plane.refused(*add, "SHA256:" + "A" * 43)
    argv = ["ssh-keygen", "-lf", "-"]
    listed = subprocess.run(argv, input=bare_node.host_key, capture_output=True, text=True, check=True)
    accepted = plane.cli(*add, listed.stdout.split()[1])
    assert accepted.exit_code == 0, accepted.output
    assert bare_node.host_key in plane.git("show", "main:nodes/web-5.yaml")


def test_tokens(plane: ControlPlane) -> None:
    made = plane.command("admin", "token", "create", "deploy-ci", "--expires", "90d", "--read-only")
    secret = made.stdout.strip()
    assert secret.startswith("trueup_")
    assert secret not in made.stderr
    [token] = data(plane, "admin", "token", "list")
    assert (token["name"], token["read_only"], token["revoked_at"]) == ("deploy-ci", True, None)
    assert secret.startswith(token["prefix"])
    assert secret not in plane.cli("admin", "token", "list").stdout
    assert plane.cli("admin", "token", "revoke", "deploy-ci").exit_code == 0
    assert data(plane, "admin", "token", "list")[0]["revoked_at"]
    assert "Choose another name" in plane.refused("admin", "token", "create", "deploy-ci")
    assert "no time" in plane.refused("admin", "token", "create", "other", "--expires", "soon")
    assert "Give a time to come" in plane.refused("admin", "token", "create", "other", "--expires", "2020-01-01")
    assert "No token is named other" in plane.refused("admin", "token", "revoke", "other")


def test_a_job_that_waits_is_cancelled_and_tells_its_story(plane: ControlPlane) -> None:
    assert plane.cli("site", "create", "short-lived", "--no-wait").exit_code == 0
    [job] = [one for one in data(plane, "job", "list") if one["target"] == "short-lived/production"]
    assert plane.cli("job", "cancel", job["id"]).stdout == f"Job {job['id']} is cancelled.\n"
    assert [event["kind"] for event in data(plane, "job", "events", job["id"])] == ["accepted", "committed", "finished"]
    assert "short-lived" not in plane.cli("site", "list").stdout
    assert "is not failed" in plane.refused("reset", "acme/production")
    assert "No site is named" in plane.refused("reset", "nowhere")
