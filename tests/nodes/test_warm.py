"""The warm Ansible: a run is what the plain program would have been, and whatever is wrong, it runs once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.nodes import processes
from reconciler.nodes.warm import module_cache
from reconciler.nodes.warm.client import MOST_MEMORY, SILENT
from reconciler.nodes.warm.process import WarmAnsible
from reconciler.paths import share
from tests.controlplane import until
from tests.nodes.parents import answering, connected, is_plays_sleep, socket_of
from tests.proof import sampled

PROGRAM = Path(sys.executable).with_name("ansible-playbook")
Started = subprocess.Popen[str]


JOB = f"a-job-{os.getpid()}"
"""This process's own: another that tests at the same time ends its runs by theirs."""


class Desk:
    """Starts plays as a caller of ``ansible-playbook`` does, warm or plain, and keeps nothing of ours between."""

    def __init__(self, top: Path, playbooks: Path | None = None, restart_s: float = 0.0) -> None:
        self.top, self.count = top, 0
        (top / "run").mkdir()
        self.config = top / "ansible.cfg"
        self.config.write_text("[defaults]\ninterpreter_python = /usr/bin/python3\n")
        (top / "hosts.json").write_text(json.dumps({"all": {"hosts": {"here": {"ansible_connection": "local"}}}}))
        self.warm = WarmAnsible(top / "run", playbooks or share() / "playbooks", self.environment, restart_s)
        answering(top / "run")

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "PATH": f"{PROGRAM.parent}:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self.config),
            "ANSIBLE_LOCAL_TEMP": str(home / "tmp"),
            "ANSIBLE_NOCOLOR": "True",
        }

    @property
    def parent(self) -> int:
        assert self.warm.pid
        return self.warm.pid

    def playbook(self, *tasks: Mapping[str, Any], directory: Path | None = None) -> Path:
        self.count += 1
        path = (directory or self.top) / f"play{self.count}.yml"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        return path

    def start(self, *arguments: str | Path, warm: bool = True, stdin: int = subprocess.DEVNULL, **more: str) -> Started:
        """A run that has begun, in a directory of its own, with ``note`` in it where the plain program was started."""
        home = Path(tempfile.mkdtemp(dir=self.top))
        plain = ["ansible-playbook", "-i", str(self.top / "hosts.json"), *map(str, arguments)]
        argv = self.warm.command(plain, home / "note") if warm else [*LIMITED, *plain]
        marks = {processes.JOB_MARK: JOB, processes.RUN_MARK: str(home)}
        process = subprocess.Popen(
            argv,
            env={**self.environment(home), **marks, **more},
            cwd=home,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        process.home = home  # type: ignore[attr-defined]
        return process

    def run(self, *arguments: str | Path, warm: bool = True, **more: str) -> tuple[int, str, str]:
        """Its status, what it printed, and the note."""
        return ended(self.start(*arguments, warm=warm, **more))

    def runs(self) -> list[int]:
        """The forks that are there; those that ended and were not waited for, too."""
        return [int(pid) for pid in children_of(self.parent)]


def ended(process: Started) -> tuple[int, str, str]:
    printed, errors = process.communicate(timeout=300)
    note = home_of(process) / "note"
    return process.returncode, printed + errors, note.read_text() if note.exists() else ""


def home_of(process: Started) -> Path:
    home: Path = process.home  # type: ignore[attr-defined]
    return home


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def marked(process: Started) -> list[int]:
    return processes.marked({processes.RUN_MARK: str(home_of(process))})


def sleeps(process: Started) -> bool:
    return any(map(is_plays_sleep, marked(process)))


def shell(script: str) -> dict[str, Any]:
    return {"ansible.builtin.command": {"argv": ["sh", "-c", script]}}


SLEEP = shell("exec sleep 300")


@pytest.fixture(scope="module")
def common_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with opened(tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture
def desk(common_desk: Desk) -> Iterator[Desk]:
    """The common one: its parent stays."""
    parent = common_desk.parent
    yield common_desk
    processes.sweep({processes.JOB_MARK: JOB})
    until(lambda: common_desk.runs() == [], "the parent to wait for its runs")
    assert common_desk.parent == parent


@pytest.fixture
def own_desk(tmp_path: Path) -> Iterator[Desk]:
    """For a test after which its parent is another, or none."""
    with opened(tmp_path) as desk:
        yield desk


@contextmanager
def opened(top: Path, **more: Any) -> Iterator[Desk]:
    desk = Desk(top, **more)
    yield desk
    desk.warm.close()
    processes.sweep({processes.JOB_MARK: JOB})


# --- A run is what the plain program would have been ---

LIMITED = ("prlimit", f"--data={MOST_MEMORY}")
"""How the runner starts the plain program."""
LOOK = """
env | sort | grep -v '^_='; pwd; umask; ulimit -a; locale; grep -E '^Sig(Blk|Ign)' /proc/self/status
for pid in self $1; do echo "descriptors of $pid"; ls -l /proc/$pid/fd | sed -n 's/.* -> //p' | tr -d '0-9' | sort; done
"""


def test_what_a_run_sees_is_what_a_plain_one_sees(desk: Desk) -> None:
    """In a module's process and in a worker of Ansible's: environment, place, limits, signals, descriptors."""
    look = desk.top / "look"
    look.write_text(LOOK)
    names = (
        "DEFAULT_ROLES_PATH",
        "COLLECTIONS_PATHS",
        "DEFAULT_CONNECTION_PLUGIN_PATH",
        "DEFAULT_FORKS",
        "CONFIG_FILE",
    )
    settings = [f"lookup('ansible.builtin.config', '{name}')" for name in names]
    play = desk.playbook(
        {"ansible.builtin.command": {"argv": ["sh", str(look), "self"]}},
        {"ansible.builtin.debug": {"msg": f"{{{{ lookup('ansible.builtin.pipe', 'sh {look} $PPID') }}}}"}},
        {"ansible.builtin.debug": {"msg": f"{{{{ [{', '.join(settings)}] }}}}"}},
        {"ansible.builtin.debug": {"msg": "{{ [ansible_playbook_python, ansible_forks, ansible_version.full] }}"}},
        {"ansible.builtin.debug": {"msg": "{{ undefined }}"}},
    )
    seen = []
    for warm in (True, False):
        process = desk.start("-v", play, warm=warm, WHO="somebody")
        status, printed, note = ended(process)
        assert (status, note) == (2, ""), printed
        seen.append(_without_what_differs(printed, home_of(process)))
    assert "WHO=somebody" in seen[0]
    assert seen[0] == seen[1]


def _without_what_differs(printed: str, home: Path) -> str:
    text = printed.replace(str(home), "HOME")
    text = re.sub(r'"(delta|start|end)": "[^"]*"', "", text)
    return re.sub(r"ansible-(local|tmp)-[\w.-]*|of \d+|socket:.\d+|pipe:.\d+", "", text)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["GOOD"], 0),
        (["BAD"], 2),
        pytest.param(["nowhere.yml"], 1, marks=pytest.mark.long),
        pytest.param(["--no-such-option"], 2, marks=pytest.mark.long),
        pytest.param(["BROKEN"], 4, marks=pytest.mark.long),
        pytest.param(["--version"], 0, marks=pytest.mark.long),
        pytest.param([], 2, marks=pytest.mark.long),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "_".join(value),
)
def test_a_run_ends_as_the_plain_one_does(desk: Desk, arguments: list[str], status: int) -> None:
    broken = desk.top / "broken.yml"
    broken.write_text("- hosts: all\n  tasks: [")
    files = {"GOOD": desk.playbook(shell("true")), "BAD": desk.playbook(shell("exit 7")), "BROKEN": broken}
    argv = [str(files.get(word, word)) for word in arguments]
    warm, plain = desk.run(*argv), desk.run(*argv, warm=False)
    assert (warm[0], warm[2]) == (plain[0], "") == (status, "")
    assert len(warm[1].splitlines()) == len(plain[1].splitlines())


@pytest.mark.long
def test_what_ansible_refuses_to_begin_with_it_refuses_here(desk: Desk) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    play = desk.playbook(shell("true"))
    warm, plain = [ended(desk.start(play, warm=warm, stdin=reader)) for warm in (True, False)]
    os.close(reader)
    os.close(writer)
    assert warm == plain
    assert warm[0] == 1
    assert "requires blocking IO" in warm[1]


@pytest.mark.parametrize("warm", [True, pytest.param(False, marks=pytest.mark.long)], ids=["warm", "plain"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_the_run(desk: Desk, warm: bool, number: signal.Signals) -> None:
    process = desk.start(desk.playbook(SLEEP), warm=warm)
    until(lambda: sleeps(process), "the play to sleep")
    process.send_signal(number)
    status, _, note = ended(process)
    expected = {signal.SIGINT: 99}.get(number, -number)
    assert (status, note) == (expected, "")


@pytest.mark.long
def test_runs_side_by_side_do_not_meet(desk: Desk) -> None:
    tell = shell("echo $WHO in $PWD; umask; sleep 0.5")
    processes_ = [desk.start("-v", "-e", f"who={n}", desk.playbook(tell), WHO=f"number-{n}") for n in range(4)]
    for number, process in enumerate(processes_):
        status, printed, note = ended(process)
        assert (status, note) == (0, "")
        assert f"number-{number} in {desk.top}" in printed
        assert set(re.findall(r"number-\d", printed)) == {f"number-{number}"}


def test_ids_of_tasks_are_not_those_of_another_run(desk: Desk) -> None:
    script = "{{ lookup('ansible.builtin.pipe', 'true') }}{{ 9 ** 20 | random }}-{{ lookup('password', '/dev/null') }}"
    play = desk.playbook({"ansible.builtin.debug": {"msg": script}})
    printed = [re.findall('"msg": "(.*)"', desk.run(play)[1]) for _ in range(2)]
    assert printed[0] != printed[1]
    assert printed[0]


# --- It leaves nothing, and holds nothing ---


def test_the_end_of_the_client_ends_its_run(desk: Desk) -> None:
    process = desk.start(desk.playbook(SLEEP))
    until(lambda: sleeps(process), "the play to sleep")
    (run,) = desk.runs()
    other = desk.start(desk.playbook(SLEEP))
    until(lambda: sleeps(other), "the other to sleep")
    process.kill()
    until(lambda: run not in desk.runs(), "the run to end")
    assert not Path(f"/proc/{run}").exists(), "and nobody waits for it any more"
    assert sleeps(other)
    assert processes.sweep({processes.RUN_MARK: str(home_of(process))}) > 0, "its workers are sessions of their own"
    assert sleeps(other)


def test_a_run_is_found_by_its_marks_alone(desk: Desk) -> None:
    process = desk.start(desk.playbook(SLEEP))
    until(lambda: sleeps(process), "the play to sleep")
    (run,) = desk.runs()
    found = marked(process)
    assert {process.pid, run} < set(found)
    assert desk.parent not in found
    entries = Path(f"/proc/{run}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    assert entries[:2] == [f"TRUEUP_JOB={JOB}".encode(), f"TRUEUP_RUN={home_of(process)}".encode()]
    assert all(b"=" in entry for entry in entries)
    assert b"TRUEUP_PADDING" not in Path(f"/proc/{run}/environ").read_bytes()
    assert processes.sweep({processes.RUN_MARK: str(home_of(process))}) >= 3
    assert marked(process) == []
    assert desk.run(desk.playbook(shell("true")))[::2] == (0, "")


def test_the_parent_keeps_no_descriptor_and_no_dead_run(desk: Desk) -> None:
    def held() -> list[str]:
        answering(desk.top / "run")  # one thing after the other: it has done with all that was before
        return sorted(
            str(entry.readlink()).rstrip("0123456789]") for entry in Path(f"/proc/{desk.parent}/fd").iterdir()
        )

    play = desk.playbook(shell("true"))
    assert desk.run(play)[::2] == (0, "")
    until(lambda: desk.runs() == [], "the parent to wait for its run")
    before = held()
    for _ in range(3):
        assert desk.run(play)[::2] == (0, "")
    until(lambda: desk.runs() == [], "the parent to wait for its runs")
    assert held() == before


def test_the_parent_knows_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("TRUEUP_DATABASE_URL", "postgresql://me:hush@db/trueup")
    with opened(tmp_path) as desk:
        assert desk.run(desk.playbook(shell("true")))[::2] == (0, "")
        entries = Path(f"/proc/{desk.parent}/environ").read_bytes().split(b"\0")
        names = {entry.partition(b"=")[0].decode() for entry in entries if entry}
        assert names == {*desk.environment(tmp_path), "TRUEUP_PADDING"}
        files = {str(entry.readlink()) for entry in Path(f"/proc/{desk.parent}/fd").iterdir()}
        assert {file for file in files if file.startswith("/")} <= {"/dev/null", *_own_output()}


def _own_output() -> set[str]:
    return {str(Path(f"/proc/self/fd/{number}").readlink()) for number in (1, 2)}


def test_the_parent_has_imported_nothing_that_a_change_would_not_reach(desk: Desk) -> None:
    """None of our playbooks' plugins, and nothing that reads the environment of a run while it is imported."""
    assert desk.run(desk.playbook(shell("true")))[::2] == (0, "")
    listed = subprocess.run(
        [sys.executable, "-I", "-c", LOADED],
        env=desk.environment(desk.top),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "ansible.plugins.strategy.linear" in listed
    assert not [name for name in listed if name.startswith(("ansible_collections", "ansible_runner"))]
    assert not {"ansible.plugins.callback.trueup_by_hand", "ansible.plugins.callback.awx_display"} & set(listed)


LOADED = "import sys; from reconciler.nodes.warm import child; child.warm(); print(*sys.modules)"


# --- Where it cannot be, the plain program is ---


def test_a_parent_that_died_is_started_again_but_not_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, restart_s=3600.0) as desk:
        first, play = desk.parent, desk.playbook(shell("true"))
        os.kill(first, signal.SIGKILL)
        until(lambda: desk.warm.pid is None, "the parent to die")
        assert desk.warm.command(["ansible-playbook"], tmp_path / "note") == ["ansible-playbook"]
        desk.warm._restart_s = 0.0
        assert desk.run(play)[::2] == (0, "")
        assert desk.parent != first


def test_where_no_parent_can_be_started_runs_are_plain(tmp_path: Path) -> None:
    warm = WarmAnsible(tmp_path / "nowhere", tmp_path, lambda home: {"HOME": str(home)})
    assert warm.pid is None
    assert warm.command(["ansible-playbook", "x.yml"], tmp_path / "note") == ["ansible-playbook", "x.yml"]
    warm.close()


def test_a_parent_that_cannot_live_is_no_load(tmp_path: Path) -> None:
    """Its environment has no configuration that can be read: it ends before it has listened to anybody."""
    broken = tmp_path / "ansible.cfg"
    broken.write_text("no section")
    warm = WarmAnsible(tmp_path, tmp_path, lambda home: {"HOME": str(home), "ANSIBLE_CONFIG": str(broken)}, 3600)
    until(lambda: warm.pid is None, "the parent to fail")
    for _ in range(3):
        assert warm.command(["ansible-playbook"], tmp_path / "note") == ["ansible-playbook"]
    assert len(list(tmp_path.glob("warm-*"))) == 1
    warm.close()
    assert list(tmp_path.glob("warm-*")) == []


@pytest.mark.long
def test_a_run_outlives_its_parent(own_desk: Desk) -> None:
    process = own_desk.start(
        own_desk.playbook(shell(f"until test -e {own_desk.top}/go; do sleep 0.1; done; echo went on"), SLOW)
    )
    until(lambda: sleeps(process), "the play to begin")
    os.kill(own_desk.parent, signal.SIGKILL)
    until(lambda: own_desk.warm.pid is None, "the parent to die")
    (own_desk.top / "go").touch()
    assert ended(process)[::2] == (0, "")


SLOW = shell("sleep 0.2")


@pytest.mark.long
def test_a_run_that_is_killed_after_its_parent_is_a_failure(own_desk: Desk) -> None:
    process = own_desk.start(own_desk.playbook(SLEEP))
    until(lambda: sleeps(process), "the play to sleep")
    (run,) = own_desk.runs()
    os.kill(own_desk.parent, signal.SIGKILL)
    os.kill(run, signal.SIGKILL)
    assert ended(process)[0] == -signal.SIGKILL


def test_a_frozen_parent_holds_up_no_run_and_runs_nothing_later(own_desk: Desk) -> None:
    log = own_desk.top / "log"
    play = own_desk.playbook(shell(f"echo ran >> {log}"))
    assert own_desk.run(play)[::2] == (0, "")
    os.kill(own_desk.parent, signal.SIGSTOP)
    status, _, note = own_desk.run(play)
    assert (status, note.startswith(SILENT)) == (0, True)
    os.kill(own_desk.parent, signal.SIGCONT)
    assert own_desk.run(play)[::2] == (0, "")  # the parent takes what came before it first
    assert log.read_text() == "ran\n" * 3


@pytest.mark.long
def test_a_frozen_parent_is_replaced(own_desk: Desk) -> None:
    first = own_desk.parent
    os.kill(first, signal.SIGSTOP)
    process = own_desk.start(own_desk.playbook(shell("true")))
    assert ended(process)[0] == 0
    assert (own_desk.warm.noted(home_of(process) / "note") or "").startswith(SILENT)
    assert not Path(f"/proc/{first}").exists()
    assert own_desk.run(own_desk.playbook(shell("true")))[::2] == (0, "")
    assert own_desk.parent != first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANSIBLE_FORKS", "9"),
        ("HOME", "/"),
        pytest.param("ANSIBLE_LIBRARY", "/nowhere", marks=pytest.mark.long),
        pytest.param("PYTHONUTF8", "1", marks=pytest.mark.long),
    ],
)
def test_other_settings_are_refused(desk: Desk, name: str, value: str) -> None:
    play = desk.playbook({"ansible.builtin.debug": {"msg": "forks: {{ ansible_forks }}"}})
    more = {name: value} if name != "HOME" else {"HOME": str(desk.top), "ANSIBLE_HOME": "/var/tmp/elsewhere"}
    status, printed, note = desk.run(play, **more)
    assert (status, note.startswith("refused: ")) == (0, True)
    assert (name if name != "HOME" else "ANSIBLE_HOME") in note
    assert ("forks: 9" in printed) == (name == "ANSIBLE_FORKS")


def test_another_program_is_refused(desk: Desk) -> None:
    argv = desk.warm.command(["ansible", "--version"], desk.top / "note")
    done = subprocess.run(argv, env=desk.environment(desk.top), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ansible [core")
    assert "only ansible-playbook" in (desk.top / "note").read_text()


@pytest.mark.long
def test_a_configuration_that_was_changed_is_what_counts(own_desk: Desk) -> None:
    first, play = own_desk.parent, own_desk.playbook({"ansible.builtin.debug": {"msg": "forks: {{ ansible_forks }}"}})
    assert "forks: 5" in own_desk.run(play)[1]
    own_desk.config.write_text(own_desk.config.read_text() + "forks = 7\n")
    status, printed, note = own_desk.run(play)
    assert (status, "forks: 7" in printed, "was replaced" in note) == (0, True, True)
    until(lambda: own_desk.warm.pid is None, "the parent to end")
    status, printed, note = own_desk.run(play)
    assert (status, "forks: 7" in printed, note) == (0, True, "")
    assert own_desk.parent != first


@pytest.mark.parametrize("sent", sampled([b"not json", b"", b"[]", b"{}", b'{"argv": []}']))
def test_nonsense_ends_nothing(desk: Desk, sent: bytes) -> None:
    with connected(desk.top / "run") as connection:
        connection.send(sent)
        assert b"ready" not in connection.recv(4096)
    parent = desk.parent
    assert desk.run(desk.playbook(shell("true")))[::2] == (0, "")
    assert desk.parent == parent


def test_a_client_that_leaves_before_it_said_go_runs_nothing(desk: Desk) -> None:
    home = desk.top / "left"
    home.mkdir()
    request = {
        "argv": ["ansible-playbook", str(desk.playbook(shell(f"touch {home}/ran")))],
        "environment": {**desk.environment(home), processes.RUN_MARK: str(home)},
        "directory": str(home),
        "umask": 0o77,
        "ignored": [],
    }
    with connected(desk.top / "run") as connection:
        connection.send(json.dumps(request).encode())
        assert b"ready" in connection.recv(4096)
        assert processes.marked({processes.RUN_MARK: str(home)}) == [int(desk.runs()[0])]
    until(lambda: desk.runs() == [], "the fork to end")
    assert not (home / "ran").exists()


def test_only_its_own_user_may_come(desk: Desk) -> None:
    path = socket_of(desk.top / "run")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.lab
def test_another_user_is_refused_even_at_an_open_socket() -> None:
    with tempfile.TemporaryDirectory(prefix="tw-", dir="/tmp") as top, opened(Path(top)) as desk:
        path = socket_of(desk.top / "run")
        for door in (*list(path.parents)[:3], path):
            door.chmod(0o777)
        assert _answer_to(65534, path) == "user 65534 is not the control plane's, 0"
        assert desk.run(desk.playbook(shell("true")))[::2] == (0, "")


def _answer_to(uid: int, path: Path) -> str:
    """What a process of that user is told."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setresuid(uid, uid, uid)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(path))
            request = {"argv": ["ansible-playbook"], "environment": {}, "directory": "/", "umask": 0, "ignored": []}
            connection.send(json.dumps(request).encode())
            os.write(writer, connection.recv(4096))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        return str(json.loads(file.read())["refused"])


def test_the_parent_ends_with_its_control_plane(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(Desk(tmp_path).parent).encode())
        signal.pause()
    pid = int(os.read(reader, 20))
    assert Path(f"/proc/{pid}").exists()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the parent to end")
    assert len(list((tmp_path / "run").glob("warm-*"))) == 1
    WarmAnsible(tmp_path / "run", tmp_path, lambda home: {"HOME": str(home)}).close()
    assert list((tmp_path / "run").glob("warm-*")) == [], "what it left is removed by the next"


# --- Archives of modules ---

MODULE = """
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.words import WORD
AnsibleModule({{}}).exit_json(changed=False, said="{said} " + WORD)
"""


@pytest.fixture
def playbooks(tmp_path: Path) -> Path:
    """A directory of playbooks with a module of its own."""
    top = tmp_path / "playbooks"
    for name in ("library", "module_utils"):
        (top / name).mkdir(parents=True)
    _write(top, "first", "word")
    return top


def _write(playbooks: Path, said: str, word: str) -> None:
    (playbooks / "library" / "say.py").write_text(MODULE.format(said=said))
    (playbooks / "module_utils" / "words.py").write_text(f"WORD = {word!r}\n")


def _version(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def _archives(top: Path) -> set[Path]:
    return {path for path in (top / "run" / "modules").glob("*/*say*") if path.suffix != ".lock"}


def test_a_module_is_packed_once_and_never_served_stale(tmp_path: Path, playbooks: Path) -> None:
    with opened(tmp_path, playbooks=playbooks) as desk:
        play = desk.playbook({"say": {}}, directory=playbooks)

        def said() -> str:
            status, printed, note = desk.run("-v", play)
            assert (status, note) == (0, ""), printed
            return re.findall('"said": "(.*?)"', printed)[0]

        assert said() == "first word"
        (archive,) = _archives(tmp_path)
        packed = _version(archive)
        assert said() == "first word"
        assert _version(archive) == packed
        for first, word in (("other", "word"), ("other", "text")):
            _write(playbooks, first, word)
            assert said() == f"{first} {word}"
        assert len(_archives(tmp_path)) == 3
        _write(playbooks, "first", "word")
        assert said() == "first word"
        assert len(_archives(tmp_path)) == 3
        assert _version(archive) == packed


@pytest.mark.long
def test_another_directory_s_module_of_that_name_is_not_ours(tmp_path: Path, playbooks: Path) -> None:
    with opened(tmp_path, playbooks=playbooks) as desk:
        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(playbooks, elsewhere)
        _write(elsewhere, "another", "word")
        for directory, said in ((playbooks, "first word"), (elsewhere, "another word"), (playbooks, "first word")):
            status, printed, note = desk.run("-v", desk.playbook({"say": {}}, directory=directory))
            assert (status, note, re.findall('"said": "(.*?)"', printed)) == (0, "", [said])


def test_an_archive_s_directory_is_named_by_all_that_is_in_it(playbooks: Path) -> None:
    digests = [module_cache.digest(playbooks, "Ansible 1"), module_cache.digest(playbooks, "Ansible 2")]
    (playbooks / "__pycache__").mkdir()
    (playbooks / "__pycache__" / "say.pyc").write_text("what Python leaves")
    assert module_cache.digest(playbooks, "Ansible 1") == digests[0]
    (playbooks / "library" / "say.py").rename(playbooks / "library" / "tell.py")
    digests.append(module_cache.digest(playbooks, "Ansible 1"))
    assert len(set(digests)) == 3


def test_archives_that_nobody_uses_go(tmp_path: Path, playbooks: Path) -> None:
    old = module_cache.directory_for(tmp_path / "modules", playbooks, "Ansible 1")
    new = module_cache.directory_for(tmp_path / "modules", playbooks, "Ansible 2")
    os.utime(old, (0, 0))
    module_cache.prune(tmp_path / "modules")
    assert [path.name for path in (tmp_path / "modules").iterdir()] == [new.name]
