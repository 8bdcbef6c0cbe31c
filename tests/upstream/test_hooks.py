"""A forge's hook: what is pushed there comes at once; who cannot sign causes nothing, and who sends many little."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.home import Home, clock
from reconciler.loop.following import REST_S
from reconciler.roles import current_roles
from reconciler.settings import Settings
from tests.controlplane import Clone, ControlPlane, MakeControlPlane, site_documents, until
from tests.core.fake_node import configured, provisioned

from .test_serving import DOCUMENTS, forge, ready, serving

__all__ = ["forge"]

HOOKS = 400
PUSH = json.dumps({"ref": "refs/heads/main", "after": "0" * 40}).encode()

# As a forge does: after a push, to the URL and with the secret that it was told.
POST_RECEIVE = """#!{python}
import hashlib, hmac, sys, urllib.request
kind, url, key = {kind!r}, {url!r}, {key!r}
body = ('{{"commits": "%s"}}' % sys.stdin.read().strip()).encode()
digest = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
headers = {{
    "github": {{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + digest}},
    "gitea": {{"X-Gitea-Event": "push", "X-Gitea-Signature": digest, "X-Hub-Signature-256": "sha256=" + digest}},
    "gitlab": {{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": key}},
}}[kind]
request = urllib.request.Request(url, body, {{"Content-Type": "application/json", **headers}})
with urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request, timeout=60) as answer:
    assert answer.status == 202
"""


def tell(forge: Path, kind: str, plane: ControlPlane, key: str) -> None:
    """Set up a hook at the forge."""
    hook = forge / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    url = f"http://127.0.0.1:{plane.port}/api/hooks/{kind}"
    hook.write_text(POST_RECEIVE.format(python=sys.executable, kind=kind, url=url, key=key))
    hook.chmod(0o755)


def signed(key: str, body: bytes = PUSH) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"}


def make_key(plane: ControlPlane) -> str:
    return plane.cli("upstream", "hook").stdout.strip()


@pytest.fixture
def stranger(plane: ControlPlane) -> Iterator[httpx.Client]:
    """Somebody without a session."""
    with httpx.Client(base_url=plane.http.base_url, timeout=40, trust_env=False) as client:
        yield client


@pytest.fixture
def plane(control_plane: MakeControlPlane, forge: Path) -> ControlPlane:
    """One that would not look by itself for an hour."""
    return serving(control_plane, forge, "3600")


def looked_at(plane: ControlPlane) -> str:
    found = json.loads((plane.home / "upstream.json").read_text())
    return str(found["checked_at"])


def observe(plane: ControlPlane) -> None:
    """What the node answers when it has all that is declared: of one that nothing is known of, nothing is decided."""
    with Home.open(Settings(home=plane.home)) as home:
        fleet = home.state.fleet()
        (node,) = fleet.nodes.values()
        roles = current_roles()
        there = {
            str(id_): configured(fleet.environment_variables(id_), role_digest=roles.environment)
            for id_ in fleet.environments
        }
        seen = provisioned(fleet.node_variables(node.id), role_digest=roles.node)
        home.records.observations.save(node.id, seen.model_copy(update={"environments": there}), clock())


def test_what_is_pushed_becomes_a_job_at_once(control_plane: MakeControlPlane, forge: Path, tmp_path: Path) -> None:
    kinds = ("github", "gitea", "gitlab")
    documents = {path: text for kind in kinds for path, text in site_documents(kind).items()}
    plane = serving(control_plane, forge, "3600", documents)
    observe(plane)
    key = make_key(plane)
    person = Clone(forge, tmp_path / "person")
    for kind in kinds:
        environment = plane.environment_of(kind)["id"]

        def jobs(environment: str = environment) -> list[Any]:
            found = plane.http.get("/api/jobs", params={"environment_id": environment}).json()
            return [job["job_type"] for job in found if job["status"] == "queued"]

        assert jobs() == []
        tell(forge, kind, plane, key)
        pushed = person.replace(f"sites/{kind}/environments/production.yaml", "redis: true", "redis: false")
        took = until(lambda jobs=jobs: jobs() == ["reconcile"], "the job", told=plane.log)
        assert plane.git("rev-parse", "main") == pushed
        print(f"{kind}: {took:.2f} s from the push to the job")
    assert key not in plane.log()


def test_who_cannot_sign_causes_nothing(plane: ControlPlane, stranger: httpx.Client) -> None:
    key, before = make_key(plane), looked_at(plane)
    digest = signed(key)["X-Hub-Signature-256"]
    for kind, headers in (
        ("github", {}),
        ("github", {"X-Hub-Signature-256": digest.removeprefix("sha256=")}),
        ("github", {"X-Gitea-Signature": digest.removeprefix("sha256=")}),
        ("github", {"X-Hub-Signature-256": digest[:-1]}),
        ("github", {"X-Hub-Signature-256": signed("0" * 64)["X-Hub-Signature-256"]}),
        ("github", {"X-Hub-Signature-256": signed(key, b"{}")["X-Hub-Signature-256"]}),
        ("gitea", {"X-Gitea-Signature": digest}),
        ("gitea", {"X-Gitlab-Token": key}),
        ("gitlab", {"X-Gitlab-Token": ""}),
        ("gitlab", {"X-Gitlab-Token": key[:-1]}),
        ("gitlab", {"X-Gitlab-Token": b"\xe4\xff"}),
        ("gitlab", {"Authorization": f"Bearer {key}"}),
    ):
        answer = stranger.post(f"/api/hooks/{kind}", content=PUSH, headers=headers)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), headers
        assert key not in answer.text
    # Nor does a session stand in for it, and nor is there a forge that anybody may name.
    assert plane.http.post("/api/hooks/github", content=PUSH).status_code == 401
    assert stranger.post("/api/hooks/other", content=PUSH, headers=signed(key)).status_code == 400
    assert stranger.get("/api/hooks/github").status_code == 405
    assert not (plane.home / "upstream.asked").exists()
    assert looked_at(plane) == before
    assert stranger.post("/api/hooks/github", content=PUSH, headers=signed(key)).status_code == 202
    until(lambda: looked_at(plane) != before, "a look", told=plane.log)


@pytest.mark.long
def test_without_a_secret_there_are_no_hooks(plane: ControlPlane, stranger: httpx.Client) -> None:
    def post(key: str) -> tuple[int, str]:
        answer = stranger.post("/api/hooks/github", content=PUSH, headers=signed(key))
        return answer.status_code, answer.json().get("code", "")

    assert post("") == (404, "not_found")
    plane.cli("secret", "set", "upstream-hook", stdin='{"secret": "short"}')
    assert post("short") == (404, "not_found")
    plane.cli("secret", "set", "upstream-hook", stdin='{"other": "0123456789abcdef"}')
    assert post("") == (404, "not_found")
    plane.cli("secret", "set", "upstream-hook", stdin='{"secret": "0123456789abcdef"}')
    assert post("0123456789abcdef") == (202, "")
    key = make_key(plane)
    assert post("0123456789abcdef") == (401, "unauthorized")
    assert post(key) == (202, "")
    (plane.home / "secrets" / "key").unlink()
    assert post(key) == (404, "not_found")
    plane.cli("secret", "remove", "upstream-hook")
    assert post(key) == (404, "not_found")


@pytest.mark.long
def test_a_body_has_its_limit(plane: ControlPlane, stranger: httpx.Client) -> None:
    key = make_key(plane)
    large = b" " * (20 * 2**20)
    assert stranger.post("/api/hooks/github", content=large, headers=signed(key, large)).status_code == 202

    def endless() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 2**20

    answer = stranger.post("/api/hooks/github", content=endless(), headers=signed(key))
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


@pytest.mark.long
def test_many_hooks_cause_few_looks(control_plane: MakeControlPlane, tmp_path: Path, forge: Path) -> None:
    looks, held, holding = tmp_path / "looks", tmp_path / "held", tmp_path / "holding"
    ssh = tmp_path / "ssh"
    # Asks the forge, and then keeps the answer for as long as it is held.
    ssh.write_text(
        f'#!/bin/sh\nfor command; do :; done\ncase "$command" in *upload-pack*) echo look >>{looks};; esac\n'
        f'sh -c "$command"\nstatus=$?\nwhile [ -e {held} ]; do : >{holding}; sleep 0.05; done\nexit $status\n'
    )
    ssh.chmod(0o755)
    plane = control_plane(
        DOCUMENTS,
        TRUEUP_WORKERS="0",
        TRUEUP_UPSTREAM=f"ssh://git@git.example.com{forge}",
        TRUEUP_UPSTREAM_POLL="3600",
        GIT_SSH_COMMAND=str(ssh),
        GIT_SSH_VARIANT="simple",
    )
    until(lambda: ready(plane)["upstream"] == "in-step", "the first look", told=plane.log)
    key = make_key(plane)
    person = Clone(forge, tmp_path / "person")

    def count() -> int:
        return len(looks.read_text().split())

    def post(times: int) -> None:
        with httpx.Client(base_url=plane.http.base_url, timeout=60, trust_env=False) as client:
            for _ in range(times):
                assert client.post("/api/hooks/github", content=PUSH, headers=signed(key)).status_code == 202

    before, began = count(), time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, [HOOKS // 4] * 4))
    until(lambda: count() > before, "a look", told=plane.log)
    caused, lasted = count() - before, time.monotonic() - began
    assert caused <= 2 + lasted / REST_S
    print(f"{HOOKS} hooks in {lasted:.1f} s caused {caused} looks")

    # One that comes while upstream has answered already, and nobody has heard it yet, is not lost.
    held.touch()
    post(1)
    until(holding.exists, "a look that is held", told=plane.log)
    pushed = person.push(site_documents("blog"))
    post(3)
    held.unlink()
    until(lambda: plane.git("rev-parse", "main") == pushed, "what was pushed meanwhile", told=plane.log)


@pytest.mark.long
def test_a_hook_wakes_who_was_told_that_upstream_is_away(
    plane: ControlPlane, stranger: httpx.Client, forge: Path, tmp_path: Path
) -> None:
    key = make_key(plane)
    person = Clone(forge, tmp_path / "person")
    pushed = person.push(site_documents("blog"))
    away = forge.with_name("away")
    forge.rename(away)
    assert stranger.post("/api/hooks/github", content=PUSH, headers=signed(key)).status_code == 202
    until(lambda: ready(plane)["upstream"] == "unreachable", "it to be missed", told=plane.log)
    away.rename(forge)
    assert stranger.post("/api/hooks/github", content=PUSH, headers=signed(key)).status_code == 202
    until(lambda: plane.git("rev-parse", "main") == pushed, "what was pushed meanwhile", told=plane.log)
