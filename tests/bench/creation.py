"""A new site, with nothing ready and out of the pool, step by step, beside a shell script that does the same."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.bench.measure import Line, seconds
from tests.bench.place import put, served
from tests.controlplane import ControlPlane
from tests.lab.commands import wait_until
from tests.lab.node import Node

SAMPLES = 5
SCRIPT = Path(__file__).with_name("create.sh")
SPARES = "/var/www/sites/.spare"
TASK = "Make the environment what its variable says"
STEPS = (
    "the request, and its job's start",
    "the plan, Ansible's start, arguments",
    "all that is done on the node, and the look at it",
    "the first page",
)


@dataclass(frozen=True)
class Made:
    """How long a new site took, in seconds, and each of ``STEPS``."""

    whole: float
    steps: tuple[float, ...]


def run(say: Callable[[str], None]) -> Iterator[Line]:
    with served(say) as (plane, node):
        say("Making sites, and the same by a shell script")
        yield from _lines(plane, node)


def _lines(plane: ControlPlane, node: Node) -> Iterator[Line]:
    """One after the other in turn, so that none gets the warmer machine. The first of each warms up."""
    put(node, plane.home / "artifacts" / "wordpress-7.1.1.tar.gz", "/var/tmp/wordpress.tar.gz")
    put(node, SCRIPT, "/var/tmp/create.sh")
    version = "php -r 'echo PHP_MAJOR_VERSION . \".\" . PHP_MINOR_VERSION;'"
    node.ssh(f"systemctl unmask php$({version})-fpm")
    cold, pool, plain = [], [], []
    for number in range(SAMPLES + 1):
        _settle(node)
        node.ssh(f"rm -rf {SPARES}/*")
        cold.append(_create(plane, node, f"cold{number}"))
        _settle(node)
        pool.append(_create(plane, node, f"pool{number}"))
        _settle(node)
        plain.append(seconds(lambda number=number: _create_plainly(node, f"plain{number}")))
    beside = statistics.median(plain[1:])
    yield from _told("nothing ready", "≤ 1×", cold[1:], beside)
    yield from _told("out of the pool", "≤ 0.8 s", pool[1:], beside)


def _told(how: str, aim: str, made: list[Made], beside: float) -> Iterator[Line]:
    what = f"POST /api/sites to the first HTTP 200, {how}, median"
    yield Line(what, statistics.median(one.whole for one in made), "s", aim, beside, "a shell script on the node")
    for number, step in enumerate(STEPS):
        yield Line(f"  of it {step}", statistics.median(one.steps[number] for one in made), "s")


def _settle(node: Node) -> None:
    """Until the pool is full and nobody fills it."""
    ready = f"ls {SPARES} | grep -q . && ! systemctl is-active -q trueup-spare.service"
    there = "test -d /opt/trueup/wordpress/7.1.1"
    wait_until(lambda: node.ssh(f"! {there} || ({ready})", check=False).returncode == 0, 60, 0.2)


def _create(plane: ControlPlane, node: Node, slug: str) -> Made:
    page = 0.0

    def work() -> None:
        nonlocal page
        job = plane.wait_job(plane.create_site(slug)["id"], pause_s=0.02)
        assert job["status"] == "succeeded", job
        ids.append(job["id"])
        url = plane.environment_of(slug)["preview_url"]
        page = seconds(lambda: _visit(node, url))

    ids: list[str] = []
    whole = seconds(work)
    return Made(whole, (*_steps(plane.http.get(f"/api/jobs/{ids[0]}/events").json()), page))


def _visit(node: Node, url: str) -> None:
    assert node.fetch("/", host=url.partition("://")[2]).status_code == 200


def _steps(events: list[dict[str, Any]]) -> tuple[float, ...]:
    """Seconds between the events that part the steps from each other."""
    accepted = _at(events, "accepted")
    started = _at(events, "started")
    task = next(event for event in events if event["kind"] == "task" and TASK in str(event["data"]))
    began = datetime.fromisoformat(task["at"])
    return (
        (started - accepted).total_seconds(),
        (began - started).total_seconds(),
        (_at(events, "finished") - began).total_seconds(),
    )


def _at(events: list[dict[str, Any]], kind: str) -> datetime:
    return datetime.fromisoformat(next(event["at"] for event in events if event["kind"] == kind))


def _create_plainly(node: Node, name: str) -> None:
    node.ssh(["sh", "/var/tmp/create.sh", name, f"{name}.example.test", "/var/tmp/wordpress.tar.gz"])
