"""From the old version to this one while visitors ask: what was seen before, after and meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from reconciler.roles import current_roles
from tests.controlplane import ControlPlane, until
from tests.lab import Node
from tests.load import Visits, visitors
from tests.place import Place
from tests.proof import count
from tests.upgrade import eyes
from tests.upgrade.history import MARKER, Site
from tests.upgrade.past import Past

How = Literal["plain", "cut"]
LOOKS = 3
"""How many observations of the node pass before its jobs are said to stand still."""


@dataclass
class Sight:
    """The node at one moment."""

    units: dict[str, dict[str, str]]
    reloads: int
    files: dict[str, str]
    manifests: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, node: Node) -> Sight:
        return cls(eyes.units(node), eyes.reloads(node), eyes.files(node), eyes.manifests(node))


@dataclass
class Upgrade:
    """``plane`` serves this version on the old version's home; ``sites`` are reached through it."""

    past: Past
    how: How
    plane: ControlPlane
    sites: dict[str, Site]
    visits: dict[str, Visits]
    before: Sight
    after: Sight
    settled: list[str]
    """The ids of all jobs once the node was as it should be, and again ``LOOKS`` observations later."""
    still: list[str]


@contextmanager
def upgraded(past: Past, how: How) -> Iterator[Upgrade]:
    """The upgrade, done; ``cut``: with a SIGKILL in the middle of the first reconcile, and another start."""
    # With the session that the old version gave.
    plane = ControlPlane(past.plane.home, TRUEUP_WORKERS="3", TRUEUP_OBSERVE_INTERVAL_S="2", TRUEUP_LEASE_S="15")
    plane.http.cookies = past.plane.http.cookies
    place = Place(plane, past.sites["shop"].place.nodes)
    sites = {site.slug: replace(site, place=place) for site in past.standing}
    try:
        with _asking(past) as visits:
            _more_of(visits)
            before = Sight.of(past.node)
            plane.start()
            if how == "cut":
                _cut(plane)
            until(lambda: _is_settled(plane, past), "the fleet to be as declared", 900, lambda: _told(plane), 1)
            settled = _jobs(plane)
            _look_again(plane)
            still = _jobs(plane)
            after = Sight.of(past.node)
            _more_of(visits)
        yield Upgrade(past, how, plane, sites, visits, before, after, settled, still)
    finally:
        plane.close()


def _cut(plane: ControlPlane) -> None:
    until(lambda: _is_at_work(plane), "the first environment to be reconciled", told=plane.log)
    plane.kill()
    plane.start()


def _is_at_work(plane: ControlPlane) -> bool:
    """Ansible has begun its task for an environment that the loop reconciles."""
    running = plane.http.get("/api/jobs?status=running").json()
    asked = [
        plane.http.get(f"/api/jobs/{job['id']}/events").json() for job in running if job["job_type"] == "reconcile"
    ]
    return any(event["kind"] == "task" for events in asked for event in events)


def _is_settled(plane: ControlPlane, past: Past) -> bool:
    roles = current_roles()
    known = eyes.manifests(past.node)
    wanted = {name: roles.node if name == "node.json" else roles.environment for name in known}
    if {name: manifest["role_digest"] for name, manifest in known.items()} != wanted:
        return False
    waiting = plane.http.get("/api/jobs?status=queued").json() + plane.http.get("/api/jobs?status=running").json()
    return not waiting and plane.cli("plan", "--detailed-exitcode").exit_code == 0


def _told(plane: ControlPlane) -> str:
    jobs = plane.http.get("/api/jobs?limit=50").json()
    wrong = [job for job in jobs if job["error_code"]]
    words = "".join(f"{job['job_type']}: {job['error_code']}: {job['error_message']}\n" for job in wrong)
    return plane.cli("plan").output + words + plane.log()


def _jobs(plane: ControlPlane) -> list[str]:
    """Those that last: what only looks leaves none."""
    return sorted(row["id"] for row in eyes.tables(plane.home)["jobs"] if not row["ephemeral"])


def _look_again(plane: ControlPlane) -> None:
    for _ in range(LOOKS):
        seen = _seen(plane)
        until(lambda seen=seen: _seen(plane) != seen, "the node to be observed", told=plane.log)  # type: ignore[misc]


def _seen(plane: ControlPlane) -> list[str]:
    return [node["observed_at"] for node in plane.http.get("/api/nodes").json()]


@contextmanager
def _asking(past: Past) -> Iterator[dict[str, Visits]]:
    """Visitors of a page and of a static file of each site, a few times a second."""
    look_s = 1 / count(short=1, full=2)
    with ExitStack() as stack:
        visits = {}
        for site in past.standing:
            scheme, _, host = site.address.partition("://")
            for path, many in (("/", 2), (f"/{MARKER}", 1)):
                asking = visitors(past.node.address, host, path, site.marker, scheme=scheme, count=many, look_s=look_s)
                visits[f"{host}{path}"] = stack.enter_context(asking)
        yield visits


def _more_of(visits: dict[str, Visits]) -> None:
    """Each of them has looked again."""
    counted = {name: one.total for name, one in visits.items()}
    until(lambda: all(one.total > counted[name] + 1 for name, one in visits.items()), "all visitors to look")
