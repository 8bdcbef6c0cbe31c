"""A pull request from clone to merge, by the commands of the documented workflows, against a real bare remote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import jsonschema_rs
import pytest
from ruamel.yaml import YAML

from reconciler.home import clock
from reconciler.roles import current_roles
from tests.controlplane import ControlPlane, MakeControlPlane, closed_port, node_document, program, run_git
from tests.core.fake_node import configured, provisioned
from tests.test_docs import blocks

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "pull-requests.md").read_text()
WORKFLOWS = {
    text.splitlines()[0].removeprefix("# "): YAML(typ="safe").load(text)
    for text in blocks(PAGE, "yaml")
    if text.startswith("# .")
}
ENVIRONMENT = """\
# yaml-language-server: $schema=../../../schemas/environment.json
apiVersion: trueup/v1
kind: Environment
spec:
  type: {type}
  node: web-1
  cache:
    fastcgi: true
"""
PRODUCTION, STAGING = (f"sites/pulled/environments/{slug}.yaml" for slug in ("production", "staging"))
NEW = "sites/pulled/environments/try.yaml"


@pytest.fixture(scope="module")
def plane(shared_control_plane: MakeControlPlane) -> ControlPlane:
    """A served control plane that does nothing by itself, and that has observed what it declares."""
    site = "apiVersion: trueup/v1\nkind: Site\nmetadata: {name: Pulled}\nspec: {}\n"
    documents = {
        "nodes/web-1.yaml": node_document(port=closed_port()),
        "sites/pulled/site.yaml": site,
        PRODUCTION: ENVIRONMENT.replace("{type}", "production"),
        STAGING: ENVIRONMENT.replace("{type}", "staging"),
    }
    plane = shared_control_plane(documents, start=False)
    plane.settings.update({"TRUEUP_WORKERS": "0", "TRUEUP_SCHEDULE": "false"})
    observe(plane)
    return plane.start()


def observe(plane: ControlPlane, *, touched: bool = False) -> None:
    """Remember of the node that all is as it is declared now; ``touched``: but for one file."""
    roles = current_roles()
    with plane.opened() as home:
        fleet = home.state.fleet()
        (node,) = fleet.nodes.values()
        there = {
            str(one.id): configured(fleet.environment_variables(one.id), role_digest=roles.environment)
            for one in fleet.environments.values()
        }
        seen = provisioned(fleet.node_variables(node.id), role_digest=roles.node)
        files = dict.fromkeys(seen.files, "f" * 64) if touched else seen.files
        update = {"environments": there, "files": files, "observed_at": clock()}
        home.records.observations.save(node.id, seen.model_copy(update=update), clock())


@dataclass
class Forge:
    """A bare repository, and an address that takes comments as the forges do."""

    remote: Path
    url: str = ""
    taken: list[tuple[str, dict[str, str], str]] = field(default_factory=list)


@pytest.fixture
def forge(plane: ControlPlane, tmp_path: Path) -> Iterator[Forge]:
    remote = tmp_path / "forge.git"
    run_git(tmp_path, "clone", "-q", "--bare", str(plane.store), str(remote))
    forge = Forge(remote)
    with _served(forge) as forge.url:
        yield forge


@contextmanager
def _served(forge: Forge) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            forge.taken.append((self.path, dict(self.headers), body))
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cloned(forge: Forge, path: Path) -> Path:
    run_git(path.parent, "clone", "-q", str(forge.remote), str(path))
    run_git(path, "config", "user.name", "Grace")
    run_git(path, "config", "user.email", "grace@example.com")
    return path


def proposed(forge: Forge, path: Path, files: dict[str, str | None]) -> Path:
    """Somebody's branch ``change``, pushed."""
    author = cloned(forge, path)
    run_git(author, "switch", "-q", "-c", "change")
    for name, text in files.items():
        if text is None:
            (author / name).unlink()
        else:
            (author / name).write_text(text)
    run_git(author, "add", "-A")
    run_git(author, "commit", "-q", "-m", "Change")
    run_git(author, "push", "-q", "origin", "change")
    return author


CHANGE: dict[str, str | None] = {
    PRODUCTION: ENVIRONMENT.replace("{type}", "production").replace("fastcgi: true", "fastcgi: false"),
    NEW: ENVIRONMENT.replace("{type}", "staging"),
    STAGING: None,
}


class Runner:
    """What a forge's runner does with a job: a fresh clone at the branch's head, and each step as a script of bash."""

    def __init__(self, forge: Forge, plane: ControlPlane, path: Path) -> None:
        self.path = cloned(forge, path)
        run_git(self.path, "checkout", "-q", "--detach", "origin/change")
        token = json.loads(json.dumps(plane.command("admin", "token", "create", path.name, "--read-only").stdout))
        self.values = {
            "github.base_ref": "main",
            "vars.CONTROL_PLANE": f"http://127.0.0.1:{plane.port}",
            "secrets.PLAN_TOKEN": str(token).strip().splitlines()[-1],
            "github.token": "ours",
            "github.server_url": forge.url,
            "github.repository": "agency/fleet",
            "github.event.pull_request.number": "7",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRUEUP_", "GIT_"))}
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(path.with_suffix(".summary")),
            "CONTROL_PLANE": self.values["vars.CONTROL_PLANE"],
            "PLAN_TOKEN": self.values["secrets.PLAN_TOKEN"],
            "NOTES_TOKEN": "ours",
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
            "CI_MERGE_REQUEST_IID": "7",
            "CI_PROJECT_ID": "42",
            "CI_API_V4_URL": f"{forge.url}/api/v4",
        }

    def filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: self.values[found[1]], text)

    def run(self, script: str, given: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = {name: self.filled(value) for name, value in (given or {}).items()}
        argv = ["bash", "-e", "-o", "pipefail", "-c", self.filled(script)]
        environment = {**self.environment, **variables}
        return subprocess.run(
            argv, cwd=self.path, env=environment, capture_output=True, text=True, check=False, timeout=240
        )

    def step(self, workflow: str, name: str) -> subprocess.CompletedProcess[str]:
        job = WORKFLOWS[workflow]["jobs"]["plan"]
        (step,) = [one for one in job["steps"] if one.get("name") == name]
        return self.run(step["run"], {**job["env"], **step.get("env", {})})

    @property
    def comment(self) -> str:
        return (self.path / ".git" / "plan.md").read_text()


GITHUB, GITLAB, GITEA = ".github/workflows/trueup.yml", ".gitlab-ci.yml", ".gitea/workflows/trueup.yml"
COMMENT = """\
<!-- trueup-plan -->
### Trueup plan

**1 environment changes, 1 is created, 1 is no longer looked after, 0 unchanged.**

<details>
<summary><b>Create</b> pulled/try</summary>

| what | now | then |
|---|---|---|
| type |  | `staging` |
| WordPress |  | `7.1.1` |
| code |  | `WordPress alone` |
| content |  | `new installation, “Pulled”` |
| address |  | `http://LABEL.127-0-0-1.sslip.io` |

- **result**: applied once merged
- **backup**: none: there is nothing yet
- **downtime**: none: nobody visits it yet

</details>

<details>
<summary><b>Change</b> pulled/production · page cache on → off</summary>

| what | now | then |
|---|---|---|
| page cache | `on` | `off` |

- **result**: applied once merged
- **backup**: none: content is not touched
- **downtime**: none: nginx and PHP reload

</details>


---

#### ⚠️ Look twice

**NO LONGER LOOKED AFTER** `pulled/staging`

| what | now | then |
|---|---|---|
| type | `staging` | `not declared` |
| address | `http://LABEL.127-0-0-1.sslip.io` | `not declared` |

- **result**: left on its node
- **backup**: NONE is taken
- **downtime**: none
- Files, database and address stay on web-1 and go on being served; nobody heals, updates or backs them up any more.
- To have it backed up and removed, run `trueup remove pulled/staging` instead: it commits the same.


<sub>
digest: <code>DIGEST</code><br>observed: <code>MINUTE UTC or later, 1 node</code><br>compared: <code>BASE → HEAD</code>
</sub>
"""


def neutral(comment: str) -> str:
    """The comment without what is another one each time, its entities as what a reader sees."""
    shown = re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), comment)
    shown = re.sub(r"http://[0-9a-f]{8}\.", "http://LABEL.", shown)
    shown = re.sub(r"<code>[0-9a-f]{64}</code>", "<code>DIGEST</code>", shown)
    shown = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "MINUTE", shown)
    return re.sub(r"[0-9a-f]{12} → [0-9a-f]{12}", "BASE → HEAD", shown)


def digest_in(comment: str) -> str:
    (found,) = re.findall(r"<code>([0-9a-f]{64})</code>", comment)
    return str(found)


def test_from_the_branch_to_the_digest_that_apply_requires(plane: ControlPlane, forge: Forge, tmp_path: Path) -> None:
    author = proposed(forge, tmp_path / "author", CHANGE)
    runner = Runner(forge, plane, tmp_path / "github")
    for name in ("Validate", "Plan"):
        done = runner.step(GITHUB, name)
        assert done.returncode == 0, done.stdout + done.stderr
    assert neutral(runner.comment) == COMMENT
    assert (tmp_path / "github.summary").read_text() == runner.comment
    assert "!!! No longer looked after pulled/staging" in done.stdout
    assert (runner.path / ".git" / "snapshot.json").stat().st_size > 500

    run_git(author, "switch", "-q", "main")
    run_git(author, "merge", "-q", "--no-ff", "-m", "Merge", "change")
    run_git(author, "push", "-q", "origin", "main")
    run_git(forge.remote, "push", "-q", str(plane.store), "main:main")
    digest = digest_in(runner.comment)
    assert json.loads(plane.command("plan", "--no-observe", "-o", "json").stdout)["digest"] == digest

    observe(plane, touched=True)
    assert json.loads(plane.command("plan", "--no-observe", "-o", "json").stdout)["digest"] != digest
    refused = plane.command("apply", "--yes", "--require", digest, check=False)
    assert refused.returncode == 1
    assert "not the one that was reviewed" in refused.stderr
    # As it was, for whoever comes next.
    plane.clone.push({STAGING: ENVIRONMENT.replace("{type}", "staging"), NEW: None, PRODUCTION: ENVIRONMENT.replace(
        "{type}", "production")})  # fmt: skip
    observe(plane)


@pytest.mark.long
def test_on_gitlab(plane: ControlPlane, forge: Forge, tmp_path: Path) -> None:
    proposed(forge, tmp_path / "author", CHANGE)
    runner = Runner(forge, plane, tmp_path / "gitlab")
    done = runner.run("\n".join(WORKFLOWS[GITLAB]["trueup"]["script"]))
    assert done.returncode == 0, done.stdout + done.stderr
    ((path, headers, body),) = forge.taken
    assert (path, headers["PRIVATE-TOKEN"]) == ("/api/v4/projects/42/merge_requests/7/notes", "ours")
    assert parse_qs(body)["body"] == [runner.comment]
    assert neutral(runner.comment) == COMMENT


@pytest.mark.long
def test_on_gitea(plane: ControlPlane, forge: Forge, tmp_path: Path) -> None:
    proposed(forge, tmp_path / "author", CHANGE)
    runner = Runner(forge, plane, tmp_path / "gitea")
    for name in ("Plan", "Comment"):
        done = runner.step(GITEA, name)
        assert done.returncode == 0, done.stdout + done.stderr
    ((path, headers, body),) = forge.taken
    assert (path, headers["Authorization"]) == ("/api/v1/repos/agency/fleet/issues/7/comments", "token ours")
    assert json.loads(body) == {"body": runner.comment}
    assert neutral(runner.comment) == COMMENT


def test_a_broken_document_is_annotated_and_commented(plane: ControlPlane, forge: Forge, tmp_path: Path) -> None:
    proposed(forge, tmp_path / "author", {PRODUCTION: ENVIRONMENT.replace("{type}", "productoin")})
    runner = Runner(forge, plane, tmp_path / "broken")
    checked, planned = runner.step(GITHUB, "Validate"), runner.step(GITHUB, "Plan")
    assert (checked.returncode, planned.returncode) == (1, 1)
    place = f"::error file={PRODUCTION},line=5,col=3,title=Document cannot be used::spec.type: "
    assert checked.stdout.startswith(place), checked.stdout
    assert "**1 document cannot be used, 1 unchanged.**" in runner.comment
    assert f"{PRODUCTION}:5:3: spec.type" in runner.comment


@pytest.mark.long
def test_without_a_token_documents_are_compared(plane: ControlPlane, forge: Forge, tmp_path: Path) -> None:
    proposed(forge, tmp_path / "author", CHANGE)
    runner = Runner(forge, plane, tmp_path / "fork")
    runner.values["secrets.PLAN_TOKEN"] = ""
    assert runner.step(GITHUB, "Plan").returncode == 0
    assert "not known: there is no observation" in neutral(runner.comment)
    assert "digest" not in runner.comment


def plan(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [program(), "plan", "--base", "origin/main", *arguments]
    return subprocess.run(argv, cwd=clone, capture_output=True, text=True, check=False, timeout=120)


def test_exit_codes_and_refusals(plane: ControlPlane, forge: Forge, tmp_path: Path) -> None:
    clone = cloned(forge, tmp_path / "clone")
    assert plane.command("snapshot", "-o", str(tmp_path / "s.json")).returncode == 0
    snapshot = ("--snapshot", str(tmp_path / "s.json"))
    same = plan(clone, *snapshot, "--detailed-exitcode")
    assert (same.returncode, "2 unchanged." in same.stdout) == (0, True)
    (clone / PRODUCTION).write_text(str(CHANGE[PRODUCTION]))
    changes = plan(clone, *snapshot, "--detailed-exitcode", "--format", "json")
    assert changes.returncode == 2
    told = json.loads(changes.stdout)
    assert [(one["kind"], one["target"]) for one in told["changes"]] == [("changed", "pulled/production")]
    assert plan(clone, *snapshot, "--head", "HEAD", "--detailed-exitcode").returncode == 0
    (clone / PRODUCTION).write_text("kind: [\n")
    broken = plan(clone, *snapshot)
    assert (broken.returncode, PRODUCTION in broken.stdout) == (1, True)
    assert broken.stderr.startswith("trueup: 1 of the documents cannot be used"), broken.stderr
    (tmp_path / "s.json").write_text('{"format": 2}')
    for arguments, words in (
        (snapshot, "is no snapshot"),
        (("--snapshot", "missing.json"), "There is no snapshot missing.json"),
        (("--head", "nowhere"), "`nowhere` names no commit"),
        (("pulled",), "planned as a whole"),
    ):
        refused = plan(clone, *arguments)
        assert (refused.returncode, words in refused.stderr) == (1, True), refused.stderr


def test_the_hook_holds_back_what_is_staged_and_broken(forge: Forge, tmp_path: Path) -> None:
    clone = cloned(forge, tmp_path / "clone")
    (script,) = [one for one in blocks(PAGE, "sh") if "--staged" in one]
    hook = clone / ".git" / "hooks" / "pre-commit"
    hook.write_text(script)
    hook.chmod(0o755)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def commit(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = ["git", "commit", "-q", "-m", "Try", *arguments]
        return subprocess.run(argv, cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=60)

    (clone / PRODUCTION).write_text("kind: [\n")
    refused = commit("--all")
    assert refused.returncode == 1
    assert f"{PRODUCTION}:1" in refused.stdout + refused.stderr
    run_git(clone, "add", PRODUCTION)
    (clone / PRODUCTION).write_text(str(CHANGE[PRODUCTION]))
    assert commit().returncode == 1, "what is staged counts, not what lies there"
    assert commit("--all").returncode == 0


def test_pre_commit_runs_the_same() -> None:
    ((hook,),) = [repo["hooks"] for repo in WORKFLOWS[".pre-commit-config.yaml"]["repos"]]
    assert hook["entry"] == "trueup validate --staged"
    assert all(re.search(hook["files"], path) for path in ("platform.yaml", "nodes/a.yml", PRODUCTION))
    assert not re.search(hook["files"], "README.md")


def test_the_first_line_leads_to_the_schema(forge: Forge, tmp_path: Path) -> None:
    clone = cloned(forge, tmp_path / "clone")
    (line,) = [text.splitlines()[0] for text in blocks(PAGE, "yaml") if "yaml-language-server" in text]
    text = (clone / PRODUCTION).read_text()
    assert text.splitlines()[0] == line
    schema = (clone / PRODUCTION).parent / line.partition("$schema=")[2]
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text()))
    assert validator.is_valid(YAML(typ="safe").load(text))
    assert not validator.is_valid(YAML(typ="safe").load(text.replace("fastcgi", "fastcig")))
