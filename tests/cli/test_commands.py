"""Every command against a real home, as somebody at the control plane's own terminal uses it."""

import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from ruamel.yaml import YAML

from reconciler import __version__
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

COMMANDS = [
    (),
    *((name,) for name in ("init", "serve", "fetch", "validate", "plan", "apply", "drift", "status")),
    *(("node", name) for name in ("list", "add", "provision")),
    *(("site", name) for name in ("list", "create", "import")),
    *(("job", name) for name in ("list", "show", "follow", "events", "cancel")),
    ("reset",),
    ("admin", "set-password"),
    *(("admin", "token", name) for name in ("create", "list", "revoke")),
    *((name,) for name in ("clone", "cache", "purge", "login", "promote", "deploy", "rollback", "remove")),
    *(("backup", name) for name in ("list", "create", "restore", "rebuild")),
    *(("secret", name) for name in ("set", "list", "remove")),
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
    for command in ("status", "serve", "plan"):
        assert error(nowhere, command) == (
            f"{tmp_path / 'nowhere'} is no Trueup home. Run `trueup init`, or set TRUEUP_HOME."
        )
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
    assert "sites/acme/environments/production.yaml:5: Environment acme/production names node web-9" in bad.stdout
    told = json.loads(plane.cli("validate", str(tmp_path), "-o", "json").stdout)
    assert [(stalled["path"], stalled["line"]) for stalled in told] == [("sites/acme/environments/production.yaml", 5)]
    assert "There is no store at" in error(plane, "validate", str(tmp_path / "missing"))


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
    assert error(plane, "plan", "nothing/here") == "Nothing is named nothing/here. `trueup status` shows what there is."


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
            until(lambda: tried.get(UUID(job["id"])).error_code == "ANSIBLE_HOST_UNREACHABLE", "the first attempt", 20)
    finally:
        follower.terminate()
        follower.wait(20)


def test_a_dead_process_socket_is_no_process(plane: ControlPlane) -> None:
    """What SIGKILL leaves behind must not make commands wait for ever."""
    plane.start()
    plane.kill()
    assert (plane.home / "wake.sock").exists()
    with plane.opened() as home:
        assert not home.dispatcher.is_heard()


def test_refusals_are_one_line(plane: ControlPlane) -> None:
    assert "exists" in error(plane, "site", "create", "acme")
    assert error(plane, "site", "create", "Not A Slug").startswith("slug: ")
    assert "web-9" in error(plane, "site", "create", "other", "--node", "web-9")
    assert "storage" in error(plane, "site", "import", "acme", "https://example.com/site.tar.gz")
    assert "no site other" in error(plane, "site", "import", "other", "https://example.com/site.tar.gz")
    assert "does not exist" in error(plane, "job", "show", "00000000-0000-4000-8000-000000000000")
    assert "web-9" in error(plane, "node", "provision", "web-9")
    assert "refuses connections" in error(plane, "node", "add", "web-2", "--address", "127.0.0.1", "--port", "1")


def test_one_environment_by_its_name(plane: ControlPlane) -> None:
    assert "No environment is named acme/live" in error(plane, "clone", "acme/live", "staging")
    assert error(plane, "clone", "acme/production", "Not A Slug").startswith("slug: ")
    assert "web-9" in error(plane, "clone", "acme/production", "staging", "--node", "web-9")
    assert "--no-fastcgi" in error(plane, "cache", "acme/production")
    assert "did not answer" in error(plane, "login", "acme/production")

    assert plane.cli("purge", "acme/production", "--no-wait").exit_code == 0
    assert plane.cli("cache", "acme/production", "--no-redis", "--no-wait").exit_code == 0
    assert "redis: false" in plane.git("show", "main:sites/acme/environments/production.yaml")
    assert plane.cli("clone", "acme/production", "staging", "--name", "A copy", "--no-wait").exit_code == 0
    assert "name: A copy" in plane.git("show", "main:sites/acme/environments/staging.yaml")


def test_set_password_from_standard_input(plane: ControlPlane) -> None:
    done = plane.cli("admin", "set-password", "--email", EMAIL, stdin="another long password\n")
    assert (done.exit_code, done.stdout) == (0, f"{EMAIL} can log in.\n")
    assert "12" in error(plane, "admin", "set-password", "--email", EMAIL, stdin="short\n")
    assert error(plane, "admin", "set-password", "--email", "nobody", stdin="another long password\n")
    assert "another long password" not in os.fsdecode((plane.home / "trueup.db").read_bytes())


@pytest.mark.lab
def test_a_node_is_added_by_its_fingerprint(plane: ControlPlane, bare_node: Any) -> None:
    add = ("node", "add", "web-5", "--address", bare_node.address, "--no-wait", "--fingerprint")
    assert "Another machine may be answering" in error(plane, *add, "SHA256:" + "A" * 43)
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
    assert secret not in plane.command("admin", "token", "list").stdout
    plane.command("admin", "token", "revoke", "deploy-ci")
    assert data(plane, "admin", "token", "list")[0]["revoked_at"]
    assert "Choose another name" in error(plane, "admin", "token", "create", "deploy-ci")
    assert "no time" in error(plane, "admin", "token", "create", "other", "--expires", "soon")
    assert "Give a time to come" in error(plane, "admin", "token", "create", "other", "--expires", "2020-01-01")
    assert "No token is named other" in error(plane, "admin", "token", "revoke", "other")


def test_a_job_that_waits_is_cancelled_and_tells_its_story(plane: ControlPlane) -> None:
    plane.command("site", "create", "short-lived", "--no-wait")
    [job] = [one for one in data(plane, "job", "list") if one["target"] == "short-lived/production"]
    assert plane.command("job", "cancel", job["id"]).stdout == f"Job {job['id']} is cancelled.\n"
    assert [event["kind"] for event in data(plane, "job", "events", job["id"])] == ["accepted", "committed", "finished"]
    assert "short-lived" not in plane.command("site", "list").stdout
    assert "is not failed" in error(plane, "reset", "acme/production")
    assert "No site is named" in error(plane, "reset", "nowhere")
