"""One run of an operation over all plants of one kind, and what came of each plant."""

import json
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.isolation.canaries import Canaries, Sight, differences, in_backups
from tests.isolation.hacked import PAST_THE_CACHE, Hacked, hack
from tests.isolation.operations import OPERATIONS, End, Ground, Operation
from tests.isolation.plants import PLANTS, Kind, Plant
from tests.isolation.starving import Watch
from tests.lab import Node

CLEAR = {"succeeded", "refused", "failed"}
UNCLEAR = {
    "ANSIBLE_UNEXPECTED_ERROR",
    "ANSIBLE_UNKNOWN_EXIT",
    "ANSIBLE_TIMEOUT",
    "JOB_TIMEOUT",
    "JOB_INTERNAL_ERROR",
    "JOB_LEASE_LOST",
    "internal_error",
}
OBEYED = re.compile("[\x1b\x07\u202e]")
UNEXPECTED = ("Traceback (most recent", "MODULE FAILURE", "unexpected", "Unexpected")
TOLD = Path(__file__).parents[2] / "build" / "isolation.log"
SHARED = ("root", "mysql", "www-data")
MOST_GROWTH = 300 << 20
"""Of what is root's, all sites' or a neighbour's on a node, in bytes of memory that is no file's."""
ENDED_AT = 1500 << 20
FILE_KINDS = {Kind.LINKS, Kind.SWAPPED, Kind.SPECIALS, Kind.SIZES, Kind.NAMES, Kind.MODES, Kind.RACES}
TABLE_KINDS = {Kind.SQL_NAMES, Kind.SQL_VIEWS, Kind.SQL_TRIGGERS, Kind.SQL_ROWS, Kind.OPTIONS}
PLANTER = r"""
import json, os, sys, time
own, near, plants, racing, among = json.loads(ASKED)
content = f'{own}/current/wp-content'
places = [f'{own}/shared/uploads/tu-plants', f'{content}/plugins' if among else f'{content}/plugins/tu-plants']
children, told = {}, {}
for place in places:
    os.makedirs(place, exist_ok=True)
for name, slug, code in plants:
    for d in places:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.set_inheritable(write, False)
                if racing:
                    os.write(write, b'planted')
                exec(code)
                os.write(write, b'planted')
            except BaseException as error:
                os.write(write, repr(error).encode()[:500])
            os._exit(0)
        os.close(write)
        said = os.read(read, 600).decode()
        if told.get(name) != 'planted':
            told[name] = said
        os.close(read)
        if not racing:
            os.waitpid(child, 0)
        if 'content' in code and 'd}' not in code:
            break
print(json.dumps(told), flush=True)
if racing:
    os.close(1)
    time.sleep(60)
    os.killpg(0, 9)
"""
RACER = """
import subprocess, sys
null = subprocess.DEVNULL
argv = [sys.executable, '-I', '-S', 'TMP/tu-race.py']
child = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=null, stderr=null, start_new_session=True)
with open('TMP/tu-race.pid', 'w') as file:
    file.write(str(child.pid))
print(child.stdout.readline().decode())
"""


@dataclass
class Outcome:
    """What came of a trial. ``wrong`` concerns it as a whole; ``got_out`` is by plant."""

    kind: Kind
    operation: str
    planted: dict[str, str]
    ends: list[End] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    got_out: dict[str, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Why nothing can be said of it."""

    @property
    def hung(self) -> list[str]:
        return [f"{end.what} did not end by itself: {end.message[:300]}" for end in self.ends if end.status == "hung"]

    def of(self, plant: Plant) -> list[str]:
        """What is wrong with this plant's case."""
        return [*self.got_out.get(plant.slug, []), *self.hung, *self.broken]

    def __str__(self) -> str:
        ends = ", ".join(f"{end.what}: {end.status} {end.code or ''}".strip() for end in self.ends)
        return f"{self.kind} × {self.operation}: {ends}; planted {sum(v == 'planted' for v in self.planted.values())}"


def _tell(outcome: Outcome) -> None:
    """What came of each trial, one after the other, for whoever waits for the last."""
    TOLD.parent.mkdir(exist_ok=True)
    with TOLD.open("a") as file:
        file.write(f"{outcome}; {[*outcome.wrong, *outcome.broken]} {outcome.got_out}\n")


def _is_named(plant: Plant, about: str) -> bool:
    return bool(re.search(rf"(?:{re.escape(plant.slug)}|tupwned-{re.escape(plant.name)})(?![a-z0-9-])", about))


class Visitor(Watch):
    """Somebody who looks at a neighbour's page again and again."""

    def __init__(self, site: Hacked) -> None:
        named = {"Host": site.environment["preview_url"].partition("://")[2], **PAST_THE_CACHE}
        # A connection for each: nginx's former workers end those that rest, also when somebody writes into one.
        alone = httpx.Limits(max_keepalive_connections=0)
        url = f"http://{site.node.address}"
        client = httpx.Client(base_url=url, headers=named, timeout=60, trust_env=False, limits=alone)

        def ask() -> str:
            try:
                status: object = client.get("/").status_code
            except httpx.HTTPError as error:
                status = error
            return "" if status == 200 else f"{site.slug} answered {status!r}"

        super().__init__(ask)


class Memory:
    """What a node's processes of these users use beyond what they did; the greediest ends before it hurts the machine.

    The site's own and its copies' are left out: their limits are ``test_processes``' subject.
    """

    def __init__(self, node: Node, users: Iterable[str]) -> None:
        self.node = node
        self.uids = {node.ssh(["id", "-u", user]).stdout.strip() for user in users}
        self.growth = 0
        self.ended: list[str] = []
        self.named: list[str] = []
        """The largest at the worst moment."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(sum(self._used().values()),), daemon=True)
        self._thread.start()

    def _used(self) -> dict[int, int]:
        found = {}
        for pid in self.node.container.pids():
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                if not any(line.startswith("Uid:") and line.split()[1] in self.uids for line in lines):
                    continue
                found[pid] = next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))
            except (OSError, StopIteration):
                continue
        return found

    def _watch(self, before: int) -> None:
        while not self._stop.wait(0.15):
            used = self._used()
            if sum(used.values()) - before > self.growth:
                self.growth = sum(used.values()) - before
                largest = sorted(used, key=lambda pid: -used[pid])[:5] if self.growth > MOST_GROWTH else []
                self.named = [f"{_words(pid)} {used[pid] >> 20} MB" for pid in largest]
            if self.growth > ENDED_AT and used:
                greediest = max(used, key=lambda pid: used[pid])
                if used[greediest] > ENDED_AT // 2 and greediest in self.node.container.pids():
                    self.ended.append(_words(greediest))
                    os.kill(greediest, 9)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:100]
    except OSError:
        return "a process that has ended"


class Trials:
    """Runs each pair of a kind and an operation once, however many cases ask for it."""

    def __init__(self, ground: Ground, canaries: Canaries, visitor: Visitor) -> None:
        self.ground = ground
        self.canaries = canaries
        self.visitor = visitor
        self._done: dict[tuple[str, str], Outcome] = {}
        self._sites: dict[Kind, Hacked] = {}
        self._number = 0
        self._before: tuple[Sight, list[str]] | None = None
        """What was outside after the trial before, if that changed nothing."""

    def of(self, kind: Kind, operation: str, plant: Plant | None = None) -> Outcome:
        """Of all plants of the kind, or of this one alone."""
        key = f"{kind}/{plant.name if plant else ''}", operation
        if key not in self._done:
            plants = [plant] if plant else [one for one in PLANTS if one.kind is kind]
            try:
                self._done[key] = self._run(kind, operation, plants)
            except Exception as error:  # noqa: BLE001 - each of its cases says so, none runs it again
                self._done[key] = Outcome(kind, operation, {}, broken=[f"the trial itself failed: {error!r:.2000}"])
                self._sites.pop(kind, None)
                self._before = None
            _tell(self._done[key])
        return self._done[key]

    def _site(self, kind: Kind) -> Hacked:
        """A hacked site that operations may be run on: the kind's own, or a new one where it is no more."""
        if kind in self._sites and self._sites[kind].settle():
            return self._sites[kind]
        self._number += 1
        self._sites[kind] = hacked = hack(self.ground.place, f"hacked-{kind}-{self._number}")
        if kind in {Kind.SQL_VIEWS, Kind.OPTIONS}:
            hacked.declare_options()
        return hacked

    def _run(self, kind: Kind, name: str, plants: list[Plant]) -> Outcome:
        operation = OPERATIONS[name]
        if operation.begins_afresh:
            self._sites.pop(kind, None)
        hacked = self._site(kind)
        if operation.prepares:
            operation.prepares(self.ground, hacked)
            self._before = None
        self.ground.spoken = ""
        before, marks = self._before or self.canaries.look(hacked)[::2]
        if kind in TABLE_KINDS:
            hacked.keep_tables()
        try:
            outcome = Outcome(kind, name, self._plant(hacked, kind, plants))
            if name == "promote":
                self._plant(Hacked(hacked.place, hacked.derived[-1], hacked.slug), kind, plants)
            self._operate(outcome, operation, hacked)
            after, found, new_marks = self.canaries.look(hacked)
        finally:
            self._clear(hacked, tables=kind in TABLE_KINDS and not operation.ends_the_site)
        if name in {"backup", "remove", "remove-site", "promote", "discard"}:
            found += in_backups(self.ground.storage, hacked)
        self._attribute(outcome, found, differences(before, after), sorted(set(new_marks) - set(marks)), plants)
        if operation.ends_the_site or outcome.hung:
            self._sites.pop(kind, None)
        self._before = after, new_marks
        if outcome.got_out or outcome.wrong:
            self.canaries.put()
            self._before = None
        return outcome

    def _operate(self, outcome: Outcome, operation: Operation, hacked: Hacked) -> None:
        memory = Memory(hacked.node, (*SHARED, *(one.user for one in self.canaries.neighbours)))
        try:
            with self.visitor.watching(outcome.operation):
                outcome.ends = operation.runs(self.ground, hacked)
        finally:
            memory.stop()
            self._end_races(hacked)
        self._judge(outcome, hacked, memory)

    def _ended(self, hacked: Hacked) -> str:
        """The file of a page that was waited for to its end: of this trial, as one of an earlier may sleep on."""
        return f"{hacked.site}/shared/uploads/tu-ended-{len(self._done)}"

    def _plant(self, hacked: Hacked, kind: Kind, plants: list[Plant]) -> dict[str, str]:
        near = self.canaries.neighbours[0]
        if kind in FILE_KINDS:
            does = [(plant.name, plant.slug, plant.does) for plant in plants]
            # A name that is to be shown is that of a plugin: of what lies deeper, only the plugin is.
            asked = [hacked.site, near.site, does, kind is Kind.RACES, kind is Kind.NAMES]
            code = PLANTER.replace("ASKED", repr(json.dumps(asked)))
            if kind is Kind.RACES:
                hacked.put("tmp/tu-race.py", code)
                code = RACER.replace("TMP", f"{hacked.site}/tmp")
            found: dict[str, str] = json.loads(hacked.native(code))
            return found
        hacked.break_in()
        if kind is Kind.PAGES:
            (plant,) = plants
            guard = "if (PHP_SAPI === 'cli' || $_SERVER['REQUEST_URI'] !== '/') { return; }"
            ended = f"$ended = '{self._ended(hacked)}';"
            hacked.put("current/wp-content/mu-plugins/tu-page.php", f"<?php {guard} {ended} {plant.does}")
            return {plant.name: "planted"}
        told = {}
        for plant in plants:
            text = plant.does.replace("{near}", near.database).replace("{slug}", plant.slug)
            errors = [error for error in hacked.sql(*text.split(";;")) if error]
            told[plant.name] = errors[0] if errors else "planted"
        return told

    def _judge(self, outcome: Outcome, hacked: Hacked, memory: Memory) -> None:
        for end in outcome.ends:
            unclear = end.status not in CLEAR or end.code in UNCLEAR or any(word in end.message for word in UNEXPECTED)
            if unclear:
                outcome.wrong.append(f"{end.what} ended {end.status} ({end.code}): {end.message[:400]}")
        if memory.growth > MOST_GROWTH:
            outcome.wrong.append(
                f"what runs on the node grew by {memory.growth >> 20} MB: {memory.named}; ended: {memory.ended}"
            )
        if obeyed := OBEYED.search(self.ground.spoken):
            around = self.ground.spoken[max(obeyed.start() - 200, 0) : obeyed.end() + 100]
            outcome.wrong.append(f"a command wrote to the terminal what that obeys: {around!r}")
        if self.visitor.failures:
            outcome.wrong.append(f"a neighbour's visitor: {self.visitor.failures[:3]}")
        if starved := self.visitor.answers.starved(outcome.operation):
            outcome.wrong.append(starved)
        if hacked.node.ssh(["test", "-e", self._ended(hacked)], check=False).returncode == 0:
            outcome.wrong.append("somebody waited for a page until it ended by itself")

    def _attribute(
        self, outcome: Outcome, found: list[tuple[str, str]], changed: list[str], marks: list[str], plants: list[Plant]
    ) -> None:
        """To the plant whose name a canary, a change or a mark has; to the trial as a whole where none has."""
        told = [(word, f"the site got {word} in {where}") for word, where in sorted(set(found))]
        told += [(path, f"outside of the site {path}") for path in changed]
        told += [(mark, f"a command ran and left {mark}") for mark in marks]
        for about, what in told:
            owner = next((plant for plant in plants if _is_named(plant, about)), None)
            if owner:
                outcome.got_out.setdefault(owner.slug, []).append(what[:400])
            else:
                outcome.wrong.append(what[:400])

    def _end_races(self, hacked: Hacked) -> None:
        path = f"{hacked.site}/tmp/tu-race.pid"
        hacked.node.ssh(f"test -f {path} && kill -KILL -- -$(cat {path}); rm -f {path}", check=False)

    def _clear(self, hacked: Hacked, *, tables: bool) -> None:
        """Take the plants away as root, that the loop's own looks at the node meet none of them later."""
        tops = " ".join(f"/var/www/sites/{one['id']}" for one in hacked.everything())
        swapped = (
            "for away in $(find TOPS -maxdepth 4 -path '*/wp-content/*.away'); do rm -rf ${away%.away}; "
            "mv $away ${away%.away}; done; "
        )
        script = (
            "find TOPS -xdev -depth -type p -exec timeout 1 sh -c ': <> $0' {} \\; 2>/dev/null; "
            "find TOPS -xdev -maxdepth 7 -name 'tu-plants' -prune -exec rm -rf {} +; "
            "grep -rlZ --include=x.php '// named' TOPS | xargs -0r -n1 dirname -z | xargs -0r rm -rf; "
            f"{swapped}rm -f /root/tupwned* /run/tupwned* /tupwned*; "
            "find TOPS -name 'tu-page.php' -o -name 'tu-ended*' | xargs -r rm -f"
        )
        for node in hacked.place.nodes.values():
            node.ssh(script.replace("TOPS", tops), check=False, timeout=120)
        for copy in hacked.everything() if tables else ():
            Hacked(hacked.place, copy, hacked.slug).disarm()
