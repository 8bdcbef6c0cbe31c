"""The census of a site's processes finds what root left open in one, and takes nothing that it opened itself for it.

Without a node: the same program looks at processes of this machine that are made to hold what they are to hold.
"""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.isolation.descriptors import JOURNAL, inherited

SOURCE = Path(__file__).with_name("on_node") / "census.py"
SPECIFICATION = importlib.util.spec_from_file_location("tests.isolation.on_node.census", SOURCE)
assert SPECIFICATION
assert SPECIFICATION.loader
census = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(census)

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
"""That of the machine, which nobody may run, too."""
PROGRAM = Path("/usr/bin/env")
IS_ROOT = os.geteuid() == 0
NOBODY = 65534 if IS_ROOT else None
BY_ROOT = pytest.mark.skipif(not IS_ROOT, reason="whom something belongs to, and name spaces, take root")
HOLDING = "import os, sys\n{opens}\nprint('holds', flush=True)\nsys.stdin.read()\n"
ENDS_WHEN_ASKED = "print('holds', flush=True); input()"
PLACES = ("/var/www/sites/none/", "/tmp/tu-census-own/")


@contextmanager
def held(opens: str = "", *, passed: tuple[int, ...] = (), before: tuple[str, ...] = ()) -> Iterator[str]:
    """The pid of a process of nobody's that has been left ``passed``, and then opened what it was told to."""
    argv = [*before, PYTHON, "-I", "-S", "-c", HOLDING.format(opens=opens)]
    user = {"user": NOBODY} if NOBODY and not before else {}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, pass_fds=passed, **user
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "holds\n"
            yield str(process.pid)
        finally:
            process.stdin.close()


def found(pid: str) -> list[str]:
    return inherited(census.described(pid), PLACES)


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    """As root's run holds that of an environment."""
    number = os.open(tmp_path / "0c5e.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield number
    os.close(number)


def test_the_lock_of_an_environment_that_was_inherited_is_found(lock: int) -> None:
    with held(passed=(lock,)) as pid:
        (told,) = found(pid)
    assert "0c5e.lock, a file 0600" in told
    assert "to be written, not reached by its name, locked" in told or not IS_ROOT


def test_a_file_for_everybody_that_somebody_else_locked_is_found() -> None:
    """It might open it, but the lock is another's."""
    with PROGRAM.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with held(passed=(file.fileno(),)) as pid:
            (told,) = found(pid)
    assert "locked" in told


def test_a_file_for_everybody_to_read_is_found_where_it_is_to_be_written() -> None:
    path = Path(f"/dev/shm/tu-census-{os.getpid()}.log")
    with path.open("a") as log:
        path.unlink()
        os.fchmod(log.fileno(), 0o644)
        with held(passed=(log.fileno(),)) as pid:
            (told,) = found(pid)
    assert "to be written" in told


@BY_ROOT
def test_a_socket_and_a_pipe_of_root_s_are_found() -> None:
    one, other = socket.socketpair()
    ends = os.pipe()
    with one, other, held(passed=(one.fileno(), ends[0])) as pid:
        told = found(pid)
    for end in ends:
        os.close(end)
    assert [line.partition(" → ")[2].partition(":")[0] for line in told] == ["socket", "pipe"]


@BY_ROOT
def test_whom_a_socket_of_root_s_leads_to_is_told(tmp_path: Path) -> None:
    """A unit's journal may have another number, too; nobody else."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as one:
        listening.bind(str(tmp_path / "stdout"))
        listening.listen()
        one.connect(str(tmp_path / "stdout"))
        with listening.accept()[0], held(passed=(one.fileno(),)) as pid:
            facts = next(fd for fd in census.described(pid)["descriptors"] if fd["fd"] == one.fileno())
            assert len(found(pid)) == 1
    assert facts["peer"] == str(tmp_path / "stdout")


@BY_ROOT
def test_a_directory_of_another_name_space_is_found() -> None:
    """Through it and its parents, all that the sandbox hides is there."""
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with held(passed=(top,), before=("unshare", "--mount")) as pid:
        (told,) = found(pid)
    os.close(top)
    assert "of another name space" in told


def test_what_a_process_opens_for_itself_is_not_taken_for_left_to_it() -> None:
    """Its settings, its program's parts, lists of directories, its own facts, what it talks by; a lock on what is
    for everybody that it takes itself."""
    opens = (
        "import fcntl, socket\n"
        "kept = [open('/etc/passwd'), open('/usr/bin/env', 'rb'), open('/proc/self/status')]\n"
        "kept += [os.open('/etc', os.O_RDONLY)]\n"
        "kept += [open('/dev/null', 'w'), socket.socket(), socket.socketpair(), os.pipe(), os.memfd_create('x')]\n"
        "fcntl.flock(kept[1], fcntl.LOCK_SH)\n"
    )
    with held(opens) as pid:
        assert len(census.described(pid)["descriptors"]) > 10
        assert found(pid) == []


def test_what_was_replaced_after_it_was_opened_is_not_taken_for_left_to_it() -> None:
    """As settings are that a job writes anew at that moment."""
    path = Path(f"/dev/shm/tu-census-{os.getpid()}.ini")
    path.touch(0o644)
    with held(f"kept = open({str(path)!r})") as pid:
        assert found(pid) == []
        path.unlink()
        assert found(pid) == []


def _facts(target: str, **more: Any) -> dict[str, Any]:
    plain = {"fd": 3, "target": target, "kind": "file", "mode": 0o644, "uid": 0, "reads_only": True}
    one = {**plain, "here": True, "reached": True, "locks": [], "peer": "", **more}
    return {"uid": 65534, "descriptors": [one]}


OWN = [
    _facts("/etc/php/8.2/mods-available/simplexml.ini"),
    _facts("/etc/php/8.2/cli/conf.d", kind="directory", mode=0o755),
    _facts("/var/www/sites/none/logs/x", mode=0o600, uid=65534, reads_only=False),
    _facts("/tmp/tu-census-own/x", locks=[{"is_shared": False, "is_its_own": True}], reads_only=False),
    _facts("socket:[1]", kind="socket", mode=0o777, uid=65534),
    _facts("socket:[1]", kind="socket", mode=0o777, fd=2),
    _facts("socket:[1]", kind="socket", mode=0o777, peer=JOURNAL),
    _facts("anon_inode:[eventpoll]", kind="other"),
    _facts("/dev/null", kind="device", mode=0o666, here=False, reads_only=False),
]
LEFT = [
    _facts("/etc/trueup/environments/0c5e.lock"),
    _facts("/run/trueup-redis/another/redis.conf"),
    _facts("/var/lib/trueup/undo/x", kind="directory", mode=0o755),
    _facts("/var/log/x.log"),
    _facts("/usr/share/x", mode=0o600),
    _facts("/usr/share/x", reads_only=False),
    _facts("/usr/share/x", reached=False),
    _facts("/usr/share", kind="directory", mode=0o711),
    _facts("/usr/share", kind="directory", mode=0o755, here=False),
    _facts("/var/www/sites/none", kind="directory", here=False),
    _facts("/var/www/sites/none/x", here=False),
    _facts("/usr/share/x", locks=[{"is_shared": False, "is_its_own": True}]),
    _facts("/usr/share/x", locks=[{"is_shared": True, "is_its_own": False}]),
    _facts("socket:[1]", kind="socket", mode=0o777),
    _facts("pipe:[1]", kind="pipe", mode=0o600),
    _facts("anon_inode:[pidfd]", kind="other"),
    _facts("anon_inode:bpf-map", kind="other"),
    _facts("/memfd:x (deleted)"),
    _facts("/dev/sda", kind="disk"),
    _facts("/dev/kmsg", kind="device", mode=0o666),
]


@pytest.mark.parametrize("process", OWN, ids=lambda one: one["descriptors"][0]["target"])
def test_it_is_its_own(process: dict[str, Any]) -> None:
    assert inherited(process, PLACES) == []


@pytest.mark.parametrize("process", LEFT, ids=lambda one: one["descriptors"][0]["target"])
def test_it_was_left_to_it(process: dict[str, Any]) -> None:
    assert len(inherited(process, PLACES)) == 1


def test_who_ends_while_it_is_looked_at_is_left_out() -> None:
    """Neither a zombie nor one that is gone is told with half of its facts."""
    with held() as pid:
        identity = census.who(pid)
        assert census.is_the_sites(identity)
    with pytest.raises((*census.GONE, census.Changed)):
        census.who(pid)
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    counted = census.Census()
    with pytest.raises(census.Changed):
        counted.look(str(zombie.pid))
    zombie.wait()
    assert counted.seen == {}


def test_who_becomes_another_while_it_is_looked_at_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is told that has the limits of one program and the descriptors of the next."""
    counted, described = census.Census(), census.described
    monkeypatch.setattr(census.Census, "unit_of", lambda _self, _group: {"unit": {}, "slice": {}})
    opens = "sys.stdin.readline() or sys.exit()\nos.execv(sys.executable, [sys.executable, '-c', AFTER])"
    argv = [sys.executable, "-c", f"import os, sys\nAFTER = {ENDS_WHEN_ASKED!r}\nprint('holds', flush=True)\n{opens}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()

        def meanwhile(pid: str) -> Any:
            half = described(pid)
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            return half

        monkeypatch.setattr(census, "described", meanwhile)
        with pytest.raises(census.Changed):
            counted.look(str(process.pid))
        assert counted.seen == {}
        monkeypatch.setattr(census, "described", described)
        counted.look(str(process.pid))
        process.stdin.close()
    (one,) = counted.seen.values()
    assert "input()" in one["words"]


def test_what_systemd_still_starts_is_not_the_site_s_yet() -> None:
    for program, words, expected in (
        ("/usr/lib/systemd/systemd", "(php8.2)", False),
        ("/usr/lib/systemd/systemd-executor", "/usr/lib/systemd/systemd-executor --deserialize 7", False),
        ("/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd --user", True),
        ("/usr/bin/php8.2", "(php8.2)", True),
        ("/usr/bin/php8.2", "", False),
    ):
        assert census.is_the_sites(("1", "1", program, words)) is expected


UNIT = (
    "Id=trueup-php@x.service\nLoadState={}\nSlice=a.slice\nMemoryMax=1\n\nId=a.slice\nLoadState=loaded\nMemoryMax=2\n"
)


def test_a_unit_that_is_gone_is_told_as_it_was_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd answers about what it does not know, too: with what would hold for nothing."""
    answer, command = tmp_path / "answer", tmp_path / "systemctl"
    command.write_text(f"#!/bin/sh\nexec cat {answer}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    counted, group = census.Census(), "/a.slice/trueup-php@x.service"
    answer.write_text(UNIT.format("not-found"))
    assert counted.unit_of(group) == {"unit": {}, "slice": {}}
    answer.write_text(UNIT.format("loaded"))
    there = counted.unit_of(group)
    assert there["unit"]["MemoryMax"] == "1"
    assert there["slice"]["MemoryMax"] == "2"
    answer.write_text(UNIT.format("not-found"))
    assert counted.unit_of(group) == there
