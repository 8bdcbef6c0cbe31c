"""The plan of a pull request: a fresh clone, a snapshot, one process as a CI starts it; no node is involved."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from reconciler.core.plan import Roles
from reconciler.core.snapshot import ExportedNode, ExportedRoles, FleetSnapshot, shareable
from reconciler.reading import read_fleet
from reconciler.store.documents import render
from tests.bench.measure import Line, seconds
from tests.core import documents as d
from tests.core.fake_node import configured, provisioned

PER_NODE = 100
ROLES = Roles(node="a" * 64, environment="b" * 64)
TRUEUP = str(Path(sys.executable).with_name("trueup"))
_PARSE = """
import sys
from pathlib import Path
from ruamel.yaml import YAML
for path in Path(sys.argv[1]).rglob("*.yaml"):
    YAML(typ="safe").load(path.read_bytes())
"""


def run(say: Callable[[str], None]) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="tb-") as directory:
        for count, aim in ((1000, "≤ 1 s"), (10_000, "≤ 5 s")):
            top = Path(directory, str(count))
            say(f"Making a clone and a snapshot of {count} environments")
            _make(top, count)
            say("Planning")
            yield from _planned(top, count, aim)


def _planned(top: Path, count: int, aim: str) -> Iterator[Line]:
    clone = top / "clone"
    document = clone / "sites/shop-7/environments/production.yaml"
    document.write_text(document.read_text().replace("fastcgi: true", "fastcgi: false"))
    plain = seconds(lambda: _call(clone, sys.executable, "-c", _PARSE, str(clone)))
    one = seconds(lambda: _plan(top, "1 environment changes"), 3)
    yield Line(f"plan of a 1-file change to {count} environments", one, "s", aim, plain, "parsing all of it, no more")
    diff = seconds(lambda: _call(clone, "git", "diff", "--stat", "main"), 3)
    yield Line("the same beside git", one, "s", "", diff, "git diff --stat")
    platform = clone / "platform.yaml"
    platform.write_text(platform.read_text() + "  preview_domain: preview.example.com\n")
    every = seconds(lambda: _plan(top, f"{count} environments change"))
    yield Line(f"plan in which all {count} change", every, "s", aim, plain, "parsing all of it, no more")
    # Of the children that ended so far: these plans are the largest.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    yield Line("memory of the largest of them", peak, "MiB")


def _plan(top: Path, expected: str) -> None:
    snapshot = str(top / "snapshot.json")
    argv = [TRUEUP, "plan", "--base", "main", "--snapshot", snapshot, "--format", "markdown"]
    assert expected in _call(top / "clone", *argv)


def _call(where: Path, *argv: str) -> str:
    done = subprocess.run(argv, cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stderr}{done.stdout[-2000:]}"
    return done.stdout


def _make(top: Path, count: int) -> None:
    """A clone with ``count`` sites, all of it observed as it is declared."""
    clone = top / "clone"
    for path, content in _documents(count).items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes(content)
    _call(clone, "git", "init", "-q", "-b", "main")
    _call(clone, "git", "add", "-A")
    _call(
        clone,
        "git",
        "-c",
        "gc.auto=0",
        "-c",
        "user.name=Bench",
        "-c",
        "user.email=bench@example.com",
        "commit",
        "-q",
        "-m",
        "All",
    )
    _call(clone, "git", "gc", "-q")
    (top / "snapshot.json").write_text(_observed(clone).model_dump_json(exclude_defaults=True))


def _documents(count: int) -> dict[str, bytes]:
    platform = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": {"wordpress": {"version": "7.1.1"}}}
    found = {"platform.yaml": render(platform)}
    for number in range(-(-count // PER_NODE)):
        found[f"nodes/web-{number}.yaml"] = render(d.node(address=f"10.0.{number}.1"))
    for number in range(count):
        spec = {"release": {"id": str(uuid4())}, "cache": {"fastcgi": True, "redis": True}}
        spec |= {"content": {"id": str(uuid4()), "origin": "install", "title": f"Shop {number}"}}
        environment = d.environment(node=f"web-{number // PER_NODE}", **spec)
        environment |= {"metadata": {"id": str(_id(number)), "name": "Production"}}
        found[f"sites/shop-{number}/site.yaml"] = render(d.site(f"Shop {number}"))
        found[f"sites/shop-{number}/environments/production.yaml"] = render(environment)
    return found


def _id(number: int) -> UUID:
    """One whose first eight digits, all that a preview URL has of it, are its own.

    Of 10,000 random ones two begin alike in one of 86 runs, and are refused.
    """
    return UUID(int=(uuid4().int & ((1 << 96) - 1)) | number << 96)


def _observed(clone: Path) -> FleetSnapshot:
    fleet, now = read_fleet(clone), datetime.now(UTC)
    nodes = []
    for node in fleet.nodes.values():
        there = {
            str(one.id): configured(fleet.environment_variables(one.id), role_digest=ROLES.environment)
            for one in fleet.environments_by_node[node.slug]
        }
        seen = provisioned(fleet.node_variables(node.id), role_digest=ROLES.node)
        seen = seen.model_copy(update={"environments": there})
        nodes.append(ExportedNode(id=node.id, checked_at=now, observed=shareable(seen), unreachable=None))
    return FleetSnapshot(
        trueup="bench",
        made_at=now,
        revision="0" * 40,
        roles=ExportedRoles(node=ROLES.node, environment=ROLES.environment),
        nodes=tuple(nodes),
    )
