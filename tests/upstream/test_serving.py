"""The serving process follows; the command line, `/readyz` and `/metrics` tell how it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane import (
    Clone,
    ControlPlane,
    MakeControlPlane,
    closed_port,
    node_document,
    run_git,
    site_documents,
    until,
)

from .conftest import ENVIRONMENT

DOCUMENTS = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("shop")}


@pytest.fixture
def forge(tmp_path: Path) -> Path:
    path = tmp_path / "forge.git"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(path))
    return path


def serving(
    control_plane: MakeControlPlane, forge: Path, poll: str, more: Mapping[str, str] | None = None
) -> ControlPlane:
    documents = {**DOCUMENTS, **(more or {})}
    plane = control_plane(documents, TRUEUP_WORKERS="0", TRUEUP_UPSTREAM=f"file://{forge}", TRUEUP_UPSTREAM_POLL=poll)
    until(lambda: ready(plane)["upstream"] == "in-step", "the first look", told=plane.log)
    return plane


def ready(plane: ControlPlane) -> Any:
    return plane.http.get("/readyz").json()


def report(plane: ControlPlane) -> Any:
    return json.loads(plane.cli("upstream", "status", "-o", "json").stdout)


def patch(plane: ControlPlane, **flags: bool) -> str:
    answer = plane.http.patch(f"/api/environments/{plane.environment_of('shop')['id']}/cache", json=flags)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


@pytest.mark.long
def test_a_request_is_pushed_without_waiting_for_the_poll(control_plane: MakeControlPlane, forge: Path) -> None:
    plane = serving(control_plane, forge, "3600")
    for flag in (False, True, False):
        job = patch(plane, fastcgi_cache_enabled=flag)
        until(lambda job=job: job in run_git(forge, "log", "-1", "--format=%B", "main"), "the push", told=plane.log)
    assert plane.git("rev-parse", "main") == run_git(forge, "rev-parse", "main")


def test_what_is_pushed_there_comes_by_itself(control_plane: MakeControlPlane, forge: Path, tmp_path: Path) -> None:
    plane = serving(control_plane, forge, "0.5")
    person = Clone(forge, tmp_path / "person")
    person.push(site_documents("blog"))
    until(lambda: len(plane.http.get("/api/sites").json()) == 2, "the site", told=plane.log)


def test_how_it_stands_is_told(control_plane: MakeControlPlane, forge: Path, tmp_path: Path) -> None:
    plane = serving(control_plane, forge, "0.5")
    start = plane.git("rev-parse", "main")
    assert 'trueup_upstream{state="in-step"} 1.0' in plane.http.get("/metrics").text
    assert f"upstream file://{forge} (main): in-step since" in plane.cli("status").stdout
    person = Clone(forge, tmp_path / "person")
    person.push(site_documents("blog"))
    until(lambda: len(plane.http.get("/api/sites").json()) == 2, "the site", told=plane.log)
    run_git(forge, "update-ref", "refs/heads/main", start)
    until(lambda: ready(plane) == {"status": "ready", "upstream": "held"}, "it to be told", told=plane.log)
    patch(plane, redis_cache_enabled=False)
    text = plane.cli("status").stdout
    assert f"UPSTREAM file://{forge} (main): held since" in text
    assert "(rolled-back), 1 commits wait to be pushed. Upstream went back" in text
    metrics = plane.http.get("/metrics").text
    assert 'trueup_upstream{state="held"} 1.0' in metrics
    assert "trueup_upstream_waiting 1.0" in metrics
    assert "rolled-back" in plane.log()
    failed = plane.command("upstream", "sync", check=False)
    assert failed.returncode == 1
    done = until_accepted(plane, start)
    assert "in-step" in done
    assert report(plane)["state"] == "in-step"
    assert [site["slug"] for site in plane.http.get("/api/sites").json()] == ["shop"]


def until_accepted(plane: ControlPlane, commit: str) -> str:
    """The serving process may be looking at that very moment; then the command says so."""
    answers: list[str] = []

    def accepted() -> bool:
        done = plane.command("upstream", "accept", commit, check=False)
        answers.append(done.stdout + done.stderr)
        return done.returncode == 0

    until(accepted, "upstream to be accepted", told=lambda: answers[-1])
    return answers[-1]


@pytest.mark.long
def test_what_was_left_out_is_listed_until_it_is_forgotten(
    control_plane: MakeControlPlane, forge: Path, tmp_path: Path
) -> None:
    plane = serving(control_plane, forge, "3600")
    run_git(plane.store, "config", "receive.denyCurrentBranch", "ignore")
    person = Clone(forge, tmp_path / "person")
    away = forge.with_name("away")
    forge.rename(away)
    plane.command("upstream", "sync", check=False)
    commit = plane.clone.replace(ENVIRONMENT, "redis: true", "redis: false # here")
    away.rename(forge)
    person.replace(ENVIRONMENT, "redis: true", "redis: true # there")
    until(lambda: plane.command("upstream", "sync", check=False).returncode == 0, "both in step", told=plane.log)
    assert f'left out {commit[:12]} "Change by hand"' in plane.cli("status").stdout
    assert [dropped["id"] for dropped in report(plane)["dropped"]] == [commit]
    assert "trueup_upstream_dropped 1.0" in plane.http.get("/metrics").text
    assert commit in plane.cli("upstream", "forget", commit[:10]).stdout
    assert report(plane)["dropped"] == []
    assert plane.command("upstream", "forget", commit[:10], check=False).returncode == 1


@pytest.mark.long
def test_a_silent_forge_keeps_nobody_from_ending(control_plane: MakeControlPlane, tmp_path: Path) -> None:
    started = tmp_path / "started"
    silent = tmp_path / "ssh"
    silent.write_text(f"#!/bin/sh\n: >{started}\nexec sleep 600\n")
    silent.chmod(0o755)
    plane = control_plane(
        DOCUMENTS,
        TRUEUP_WORKERS="0",
        TRUEUP_UPSTREAM="git@git.example.com:store.git",
        GIT_SSH_COMMAND=str(silent),
        GIT_SSH_VARIANT="ssh",
    )
    until(started.exists, "ssh to be started", told=plane.log)
    patch(plane, redis_cache_enabled=False)
    assert plane.terminate() == 0
    assert not (plane.home / "upstream.json").exists()


@pytest.mark.long
def test_an_address_with_a_password_is_refused_at_the_start(control_plane: MakeControlPlane) -> None:
    plane = control_plane(DOCUMENTS, start=False, TRUEUP_UPSTREAM="https://bot:s3cret@git.example.com/store.git")
    done = plane.command("serve", check=False)
    assert done.returncode == 1
    assert "credential helper" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.long
def test_without_an_upstream_nothing_of_it_is_told(control_plane: MakeControlPlane) -> None:
    plane = control_plane(DOCUMENTS, TRUEUP_WORKERS="0")
    assert ready(plane) == {"status": "ready"}
    assert "trueup_upstream" not in plane.http.get("/metrics").text
    assert "upstream" not in plane.cli("status").stdout.lower()
    assert "follows no repository" in plane.cli("upstream", "status").stdout
    assert "TRUEUP_UPSTREAM" in plane.command("upstream", "sync", check=False).stderr
