"""Two real servers with all that a hosting has around them: storage, Git, web, ACME and update servers of the lab."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from reconciler.home import Home, clock, create
from reconciler.settings import Settings
from reconciler.storage.secret_store import Secrets
from tests.controlplane import AUTHOR, EMAIL, PASSWORD, ControlPlane, document_of, until
from tests.lab.acme import Acme, acme_server
from tests.lab.fixtures import unique_name
from tests.lab.git_server import GitServer, git_daemon
from tests.lab.lab import Lab
from tests.lab.mirror import Mirror, update_mirror
from tests.lab.s3 import S3, s3_server
from tests.lab.web_server import WebServer, web_server
from tests.place import Place


@dataclass(frozen=True)
class Stand:
    """A control plane that knows two provisioned nodes, ``web-1`` and ``web-2``, and what they reach."""

    place: Place
    storage: S3
    code: GitServer
    web: WebServer
    mirror: Mirror
    acme: Acme


def build(top: Path, stack: ExitStack) -> Stand:
    """All of it below the directory ``top``, until the stack is closed."""
    print("Two servers, storage, a Git repository and a control plane …", flush=True)
    home = Settings(home=top / "home")
    create(home, AUTHOR)
    with Home.open(home) as opened:
        opened.records.admins.set_password(EMAIL, PASSWORD, clock())
    plane, lab = ControlPlane(home.home, TRUEUP_WORKERS="3"), Lab()
    stack.callback(plane.close)
    nodes = {}
    for name in ("web-1", "web-2"):
        nodes[name] = lab.up(unique_name(name), (home.ssh_key.with_suffix(".pub")).read_text().strip())
        stack.callback(nodes[name].down)
    gateway = nodes["web-1"].network.gateway
    for name in ("s3", "acme", "git"):
        (top / name).mkdir()
    storage = stack.enter_context(s3_server(top / "s3", gateway))
    Secrets(home.secrets).put("backups", storage.credentials)
    web = stack.enter_context(web_server(gateway))
    acme = stack.enter_context(acme_server(top / "acme", gateway))
    code = stack.enter_context(git_daemon(top / "git", "127.0.0.1"))
    mirror = stack.enter_context(update_mirror(gateway))
    plane.start().login()
    documents = {f"nodes/{name}.yaml": document_of(node) for name, node in nodes.items()}
    platform = storage.platform() + f"  imports:\n    allowed_hosts: [127.0.0.1, {gateway}]\n"
    platform += mirror.platform() + "  health:\n    interval_s: 10\n" + acme.platform()
    plane.clone.push({**documents, "platform.yaml": platform}, "Add two nodes and the storage")

    def ready() -> bool:
        return {node["status"] for node in plane.http.get("/api/nodes").json()} == {"active"}

    until(ready, "both nodes to be provisioned", 180, plane.log)
    return Stand(Place(plane, nodes), storage, code, web, mirror, acme)
