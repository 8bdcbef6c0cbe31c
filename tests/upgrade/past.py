"""What an upgrade finds: a home, a node and sites that the old version made, stopped."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.controlplane import EMAIL, PASSWORD, ControlPlane, document_of, until
from tests.lab import Lab, Node
from tests.lab.acme import acme_server
from tests.lab.fixtures import unique_name
from tests.lab.s3 import s3_server
from tests.place import Place
from tests.reports import receivers
from tests.reports.receivers import Hook
from tests.upgrade import eyes, history
from tests.upgrade.history import Site
from tests.upgrade.old_version import OldVersion

NODE, TOKEN = "web-1", "scripts"


@dataclass
class Past:
    """The old version's world at the moment when its last process had ended."""

    old: OldVersion
    plane: ControlPlane
    node: Node
    sites: dict[str, Site]
    token: str
    """A bearer token."""
    hook: Hook
    """Where reports are sent."""
    queued: dict[str, str] = field(default_factory=dict)
    """Jobs that wait, by what they do."""
    answers: dict[str, eyes.Rows] = field(default_factory=dict)
    """What the API told last."""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    revision: str = ""
    """The store's."""

    @property
    def standing(self) -> list[Site]:
        return [self.sites[slug] for slug in history.STANDING]


@contextmanager
def lived(old: OldVersion, lab: Lab, top: Path) -> Iterator[Past]:
    """All of the history, on a node of its own; ``top`` is a directory with a short path."""
    plane = made_home(old, top / "home", TRUEUP_WORKERS="3")
    token = plane.command("admin", "token", "create", TOKEN).stdout.strip()
    with ExitStack() as stack:
        node = lab.up(unique_name("upgraded"), _key(plane), snapshot=_snapshot(old, lab, top))
        stack.callback(node.down)
        stack.callback(plane.close)
        gateway = node.network.gateway
        (top / "acme").mkdir()
        (top / "s3").mkdir()
        storage = stack.enter_context(s3_server(top / "s3", gateway))
        acme = stack.enter_context(acme_server(top / "acme", gateway))
        hook = stack.enter_context(receivers.web_server())
        plane.command("secret", "set", "backups", stdin=json.dumps(storage.credentials))
        platform = [storage.platform(), acme.platform(), _reports(hook), _imports(gateway)]
        _serve_node(plane, node, NODE, "".join(platform))
        place = Place(plane, {NODE: node})
        sites = {slug: Site(slug, old, place, acme) for slug in history.HISTORY}
        history.happen(sites)
        yield _ended(Past(old, plane, node, sites, token, hook))


def made_home(old: OldVersion, home: Path, **settings: str) -> ControlPlane:
    plane = old.control_plane(home, **settings)
    plane.command("init")
    plane.command("admin", "set-password", "--email", EMAIL, stdin=f"{PASSWORD}\n")
    return plane


def _ended(past: Past) -> Past:
    """Nobody works any more: what is asked for now waits for the new version."""
    plane = past.plane
    plane.terminate()
    plane.settings["TRUEUP_WORKERS"] = "0"
    plane.start()
    history.cancel(past.sites)
    past.queued = history.queue(past.sites)
    past.answers = eyes.answers(plane)
    plane.terminate()
    past.tables, past.manifests = eyes.tables(plane.home), eyes.manifests(past.node)
    past.revision = plane.git("rev-parse", "main")
    return past


def _reports(hook: Hook) -> str:
    return f"  reports: {{targets: [{{type: webhook, url: '{hook.url}'}}]}}\n"


def _imports(address: str) -> str:
    return f"  imports: {{allowed_hosts: ['{address}']}}\n"


def _serve_node(plane: ControlPlane, node: Node, name: str, platform: str | None = None) -> None:
    """Serve, and have the old version provision the node."""
    plane.start().login()
    documents = {f"nodes/{name}.yaml": document_of(node)} | ({"platform.yaml": platform} if platform else {})
    plane.clone.push(documents, "Add the node")

    def ready() -> bool:
        return [one["status"] for one in plane.http.get("/api/nodes").json()] == ["active"]

    until(ready, "the node to be provisioned", 900, plane.log)


def _snapshot(old: OldVersion, lab: Lab, top: Path) -> str:
    """Key of what the old version makes of a bare node; made once for each image of the lab."""

    def prepare(node: Node) -> None:
        plane = made_home(old, top / "preparing")
        node.ssh(["tee", "-a", "/root/.ssh/authorized_keys"], input=f"{_key(plane)}\n")
        try:
            # Under another name: the node that is started from here is provisioned once more, whatever its address.
            _serve_node(plane, node, "prepared")
        finally:
            plane.close()

    return lab.ensure_snapshot(f"prepared-by-{old.commit[:12]}", prepare)


def _key(plane: ControlPlane) -> str:
    return (plane.home / "ssh" / "id_ed25519.pub").read_text().strip()


@contextmanager
def short_directory() -> Iterator[Path]:
    """Short, because the path of a Unix socket is."""
    with tempfile.TemporaryDirectory(prefix="tu-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)
