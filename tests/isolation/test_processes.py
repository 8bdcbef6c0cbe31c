"""Whatever runs a site's code runs it in the site's sandbox, under its limits, and leaves nothing behind.

A must-use plugin waits a moment wherever it is run, so that every process of the site's user is seen, from outside and
as root, with its unit, its name spaces, its limits and its descriptors. Each pair of a way and a check is a case.
"""

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane import until
from tests.isolation.descriptors import inherited, places_of
from tests.isolation.hacked import Hacked, hack
from tests.isolation.operations import OPERATIONS, End, Ground, deploy, purge
from tests.isolation.trial import UNCLEAR, Trials

pytestmark = pytest.mark.lab

CENSUS = Path(__file__).with_name("on_node") / "census.py"
STOP = "/run/tu-census-stop"
PLUGIN = r"""<?php
if (PHP_SAPI !== 'cli') { return; }
$site = 'SITE';
if (function_exists('proc_open')) {
    $beat = "for n in $(seq 3000); do date +%s%N > $site/tmp/tu-beat; sleep 0.2; done";
    $null = array(array('file', '/dev/null', 'r'), array('file', '/dev/null', 'w'), array('file', '/dev/null', 'w'));
    proc_open(array('setsid', '--fork', 'sh', '-c', $beat), $null, $pipes);
    $in = array(array('pipe', 'r'), $null[1], $null[2]);
    if ($p = proc_open(array('crontab', '-'), $in, $pipes)) {
        fwrite($pipes[0], "* * * * * touch $site/tmp/tu-cron\n"); fclose($pipes[0]); proc_close($p);
    }
    proc_open(array('sh', '-c', 'echo touch /tmp/tu-at | at now'), $null, $pipes);
    proc_open(array('systemd-run', '--user', 'touch', "$site/tmp/tu-user-unit"), $null, $pipes);
}
usleep(1500000);
"""
NO_LIMIT = {"", "infinity", "[not set]", "18446744073709551615", "unlimited"}
Process = Mapping[str, Any]


def _cron(ground: Ground, hacked: Hacked) -> list[End]:
    """Due events, as the timer runs them."""
    hacked.node.ssh(["systemctl", "start", f"trueup-cron@{hacked.id}.service"], check=False, timeout=90)
    return [End("cron", "succeeded")]


def _visit(ground: Ground, hacked: Hacked) -> list[End]:
    hacked.php("usleep(1500000);")
    return [End("visit", "succeeded")]


def _named(name: str) -> Callable[[Ground, Hacked], list[End]]:
    return OPERATIONS[name].runs


def _drilled(ground: Ground, hacked: Hacked) -> list[End]:
    """What a backup of it does where it is tried."""
    return [*_named("backup")(ground, hacked), *_named("drill")(ground, hacked)]


WAYS: Mapping[str, Callable[[Ground, Hacked], list[End]]] = {
    "visit": _visit,
    "cron": _cron,
    "health-check": _named("health-check"),
    "login": _named("login"),
    "updates": _named("updates"),
    "deploy": deploy,
    "clone": _named("clone"),
    "reconcile": _named("reconcile"),
    "drill": _drilled,
}
SHORT = {"health-check"}


@dataclass
class Seen:
    """What one way of running a site's code showed."""

    hacked: Hacked
    processes: list[Process]
    ends: list[End]
    leftovers: str
    next_end: End


class Ways:
    """Each way is gone once, on a site of its own."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._seen: dict[str, Seen | Exception] = {}

    def of(self, way: str) -> Seen:
        if way not in self._seen:
            try:
                self._seen[way] = self._go(way)
            except Exception as error:  # noqa: BLE001 - each check of it says so, none goes it again
                self._seen[way] = error
        seen = self._seen[way]
        if isinstance(seen, Exception):
            raise seen
        return seen

    def _go(self, way: str) -> Seen:
        hacked = hack(self.ground.place, f"running-{way}")
        hacked.put("current/wp-content/mu-plugins/tu-run.php", PLUGIN.replace("SITE", hacked.site))
        with counted(hacked) as processes:
            ends = WAYS[way](self.ground, hacked)
        script = f"cat /var/spool/cron/crontabs/{hacked.user} /var/spool/cron/atjobs/[a-z]* 2>/dev/null"
        leftovers = hacked.node.ssh(script, check=False).stdout
        # A release that came meanwhile may have it or not, and whose it is there is the operation's to say.
        hacked.node.ssh(["find", f"{hacked.site}/releases", "-name", "tu-run.php", "-delete"])
        (next_end,) = purge(self.ground, hacked)
        return Seen(hacked, processes, ends, leftovers, next_end)


@contextmanager
def counted(hacked: Hacked, seconds: float = 900) -> Iterator[list[Process]]:
    """Every process of a site's user until the end of the block; the bound only ends a census that nobody ends."""
    node, processes = hacked.node, list[Process]()
    node.ssh(["rm", "-f", STOP])
    remote = shlex.join(["python3", "-I", "-S", "-", hacked.user, str(seconds), STOP])
    argv = [*node.ssh_command(), remote]
    census = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert census.stdin
    assert census.stdout
    census.stdin.write(CENSUS.read_text())
    census.stdin.close()
    assert census.stdout.readline() == "ready\n"
    try:
        yield processes
    finally:
        node.ssh(["touch", STOP])
        *told, end = [json.loads(line) for line in census.stdout] or [{}]
        census.wait()
        assert end == {"ended": "stopped"}, "whoever counts must be there until the end"
        processes += told


@pytest.fixture(scope="module")
def ways(ground: Ground, trials: Trials) -> Ways:
    return Ways(ground)


def _told(processes: list[Process], wrong: Callable[[Process], object]) -> list[str]:
    return [f"{one['words'][:60]} in {one['group']}: {said}" for one in processes if (said := wrong(one))]


def _of_php(seen: Seen) -> list[Process]:
    """All of it but the way in of these tests themselves, before it runs the site's code."""
    return [one for one in seen.processes if not one["words"].startswith(("setpriv", "nsenter"))]


def unprivileged(seen: Seen) -> list[str]:
    held = {"NoNewPrivs": "1", "CapBnd": "0" * 16, "CapEff": "0" * 16, "Seccomp": "2"}

    def wrong(one: Process) -> dict[str, str]:
        found = {name: one[name] for name in held if one[name] != held[name]}
        others = set(one["Groups"].split()) - set(one["Gid"].split())
        return {**found, **({"Groups": " ".join(others)} if others else {})}

    return _told(_of_php(seen), wrong)


def in_its_own_slice(seen: Seen) -> list[str]:
    wanted = f"trueup-{seen.hacked.short}.slice"
    return _told(
        _of_php(seen), lambda one: "" if f"/{wanted}/" in one["group"] else one["unit"].get("Slice", "no unit")
    )


def in_a_unit_of_its_own(seen: Seen) -> list[str]:
    named = (seen.hacked.id, seen.hacked.short)
    return _told(_of_php(seen), lambda one: not any(name in one["group"].rpartition("/")[2] for name in named))


def limited(seen: Seen) -> list[str]:
    """Memory and tasks by its unit or its slice, weights by its slice; of all whose unit outlived the question."""

    def wrong(one: Process) -> list[str]:
        either = [name for name in ("MemoryMax", "TasksMax") if {one["unit"].get(name, "")} | NO_LIMIT == NO_LIMIT]
        weights = [
            name
            for name in ("MemoryMax", "TasksMax", "CPUWeight", "IOWeight")
            if one["slice"].get(name, "") in NO_LIMIT
        ]
        return [*(f"{name} of its unit" for name in either), *(f"{name} of its slice" for name in weights)]

    return _told([one for one in _of_php(seen) if one["unit"]], wrong)


def limited_without_groups(seen: Seen) -> list[str]:
    """Rlimits hold where control groups are not enforced."""

    def wrong(one: Process) -> list[str]:
        limits = one["limits"]
        found = [name for name in ("Max processes", "Max open files") if limits.get(name) in NO_LIMIT]
        if limits.get("Max address space") in NO_LIMIT and limits.get("Max data size") in NO_LIMIT:
            found.append("neither address space nor data is limited")
        return found

    return _told(_of_php(seen), wrong)


def alone(seen: Seen) -> list[str]:
    """It sees no neighbour, nothing that the node knows of others, and no bus."""

    def wrong(one: Process) -> dict[str, list[str]]:
        sees = {top: names for top, names in one["sees"].items() if names}
        if sees.get("/var/www/sites") == [seen.hacked.id]:
            del sees["/var/www/sites"]
        return sees

    return _told(_of_php(seen), wrong)


def nothing_inherited(seen: Seen) -> list[str]:
    places = places_of(seen.hacked)
    return _told(_of_php(seen), lambda one: inherited(one, places))


def nothing_is_left(seen: Seen) -> list[str]:
    """No daemon, and no table of cron's that would start one."""
    found = [seen.leftovers] if seen.leftovers else []
    hacked = seen.hacked
    beats = ["pgrep", "--uid", hacked.user, "--full", "--list-full", "tu-beat"]
    lives = lambda: hacked.node.ssh(beats, check=False).stdout  # noqa: E731
    try:
        until(lambda: not lives(), "what the site started to be ended", 120)
    except AssertionError:
        found.append(f"what the site's code started lives on: {lives()}")
    return found


def the_next_job_works(seen: Seen) -> list[str]:
    ends = [*seen.ends, seen.next_end]
    return [str(end) for end in ends if end.status == "hung" or end.code in UNCLEAR] + (
        [] if seen.next_end.succeeded else [str(seen.next_end)]
    )


CHECKS = (
    *(unprivileged, in_its_own_slice, in_a_unit_of_its_own, limited, limited_without_groups, alone),
    *(nothing_inherited, nothing_is_left, the_next_job_works),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda one: one.__name__.replace("_", "-"))
@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way in SHORT else [pytest.mark.long]) for way in WAYS])
def test_code_of_a_site(ways: Ways, way: str, check: Callable[[Seen], list[str]]) -> None:
    seen = ways.of(way)
    assert seen.processes or way not in {"visit", "cron"}, "nothing was seen"
    assert not seen.processes or any(one["unit"] for one in seen.processes), "no unit was seen"
    assert check(seen) == []
