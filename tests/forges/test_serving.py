"""The serving process tells the forge, survives being killed, and the command line says what was told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
from tests.forges.server import TOKEN, forge_server
from tests.upstream.conftest import ENVIRONMENT

PENDING = ("pending", "shop/production: Node web-1 does not answer.")


def _status(plane: ControlPlane) -> Any:
    return json.loads(plane.cli("upstream", "status", "-o", "json").stdout)["forge"]


def test_told_by_the_serving_process(control_plane: MakeControlPlane, tmp_path: Path) -> None:
    upstream = tmp_path / "forge.git"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(upstream))
    with forge_server("gitea") as server:
        platform = f"apiVersion: trueup/v1\nkind: Platform\nspec:\n  forge: {json.dumps(server.declared())}\n"
        documents = {
            "nodes/web-1.yaml": node_document(port=closed_port()),
            **site_documents("shop"),
            "platform.yaml": platform,
        }
        plane = control_plane(
            documents,
            TRUEUP_UPSTREAM=f"file://{upstream}",
            TRUEUP_UPSTREAM_POLL="0.5",
            TRUEUP_OBSERVE_INTERVAL_S="1",
        )
        until(lambda: plane.http.get("/readyz").json()["upstream"] == "in-step", "the first look", told=plane.log)
        person = Clone(upstream, tmp_path / "person")
        first = person.replace(ENVIRONMENT, "fastcgi: true", "fastcgi: false")
        until(lambda: "secret set forge" in plane.log(), "the missing secret", told=plane.log)
        text = plane.cli("upstream", "status").stdout
        assert f"FORGE gitea acme/store: {first[:12]} not told after" in text
        plane.command("secret", "set", "forge", stdin=json.dumps({"token": TOKEN}))
        until(lambda: PENDING in server.told(first), "the status", told=plane.log)
        # Once it is noted, it is not sent again.
        until(lambda: (_status(plane)["commits"][0]["sent"] or {}).get("state") == "pending", "a note", told=plane.log)
        told = server.told(first)

        plane.kill()
        plane.start()
        second = person.replace(ENVIRONMENT, "redis: true", "redis: false")
        until(lambda: PENDING in server.told(second), "the second status", told=plane.log)
        # The first was overtaken meanwhile, which is told; nothing of before is told again.
        until(lambda: server.told(first) != told, "the first to be settled", told=plane.log)
        assert server.told(first) == [*told, ("success", "Overtaken by later commits.")]
        assert TOKEN not in plane.log()
        sent = {"state": "pending", "description": PENDING[1]}
        until(lambda: _status(plane)["commits"][0]["sent"] == sent, "a note", told=plane.log)
        found = _status(plane)
        assert (found["kind"], found["repository"]) == ("gitea", "acme/store")
        assert f"forge gitea acme/store: {second[:12]} pending, {PENDING[1]}" in plane.cli("status").stdout
