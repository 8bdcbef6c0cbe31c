"""A playbook that somebody runs by hand: a real Ansible with our configuration, and a real home beside it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from reconciler.core.errors import Conflict
from reconciler.core.jobs import JobErrorCode, JobStatus
from reconciler.home import Home, clock
from reconciler.identity import identity
from reconciler.inventory import group_of, inventory_of
from reconciler.nodes.runner import Runner
from reconciler.operations.by_hand import Asked, OperatorRuns, forget_abandoned
from reconciler.operations.declaring import Actor, target_of
from reconciler.paths import share
from reconciler.records.jobs import Job, JobFilter, NewJob
from reconciler.records.outcomes import Succeeded
from reconciler.records.queue import Claimed, Queue
from reconciler.settings import Settings
from tests.controlplane import make_home, node_document, site_documents, until
from tests.proof import sampled

KEY = "acme/production"
PLAY = """- hosts: {hosts}
  gather_facts: false
  tasks:
    - name: Leave a sign and wait
      ansible.builtin.shell: echo $$ >> {sign}; until [ -e {go} ]; do sleep 0.1; done; {last}
      changed_when: false
"""


@dataclass
class Desk:
    """Somebody with a checkout, an inventory, and perhaps a control plane's home."""

    home: Path
    directory: Path
    inventory: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def sign(self) -> Path:
        return self.directory / "sign"

    @property
    def go(self) -> Path:
        return self.directory / "go"

    def start(
        self, *options: str, key: str | None = KEY, last: str = "true", **variables: str
    ) -> subprocess.Popen[str]:
        """A play that leaves its sign on each of its hosts, and goes on once `go` is there."""
        play = self.directory / "touch-up.yml"
        hosts = group_of(key) if key else "nodes"
        play.write_text(PLAY.format(hosts=hosts, sign=self.sign, go=self.go, last=last))
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory), str(play)]
        argv += ["-e", f"environment={key}"] if key else []
        here = json.dumps({"ansible_connection": "local", "ansible_python_interpreter": sys.executable})
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRUEUP_", "ANSIBLE_"))}
        own = {"TRUEUP_HOME": str(self.home), "SUDO_USER": "grace", "ANSIBLE_CONFIG": str(share() / "ansible.cfg")}
        process = subprocess.Popen(
            [*argv, "-e", here, *options],
            env={**kept, **own, "ANSIBLE_NOCOLOR": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what a failed test left waiting."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def run(self, *options: str, key: str | None = KEY, last: str = "true", **variables: str) -> tuple[int, str]:
        """The same, without a wait: its exit status and what it said."""
        self.go.touch()
        return finished(self.start(*options, key=key, last=last, **variables))

    @contextmanager
    def opened(self) -> Iterator[Home]:
        with Home.open(Settings(home=self.home)) as home:
            yield home

    def jobs(self) -> Sequence[Job]:
        with self.opened() as home:
            return home.records.jobs.page(JobFilter(job_types=frozenset({"operator-run"}))).jobs

    def only(self) -> Job:
        (job,) = self.jobs()
        return job


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.fixture
def desk(fresh_home: Path, tmp_path: Path) -> Iterator[Desk]:
    # Short, because the path of a Unix socket is.
    with tempfile.TemporaryDirectory(prefix="tu-", dir="/tmp", ignore_cleanup_errors=True) as top:
        home = Path(top, "h")
        nodes = {f"nodes/web-{n}.yaml": node_document(f"192.0.2.{n}") for n in (1, 2)}
        make_home(fresh_home, home, {**nodes, **site_documents("acme")})
        inventory = tmp_path / "hosts.json"
        with Home.open(Settings(home=home)) as opened:
            found = inventory_of(opened.state.fleet(), key_file=None, artifacts={})
        inventory.write_text(json.dumps(found.as_file()))
        desk = Desk(home, tmp_path, inventory)
        yield desk
        desk.end()


def held_by_another(home: Home) -> Claimed:
    """A job at work on the environment."""
    target = target_of(home.state.fleet(), home.state.fleet().environments_by_key[KEY].id)
    home.records.jobs.enqueue(
        NewJob(id=uuid4(), job_type="deploy", environment_id=target.environment_id, locks=target.locks), clock()
    )
    claimed = Queue(home.records.engine).claim("another", clock())
    assert claimed
    return claimed


def test_a_run_is_a_job_with_the_operators_name_and_has_the_locks(desk: Desk) -> None:
    process = desk.start(TRUEUP_LEASE_S="3")
    until(desk.sign.exists, "the play to begin")
    job = desk.only()
    assert job.status is JobStatus.RUNNING
    with desk.opened() as home:
        environment = home.state.fleet().environments_by_key[KEY]
        expected = target_of(home.state.fleet(), environment.id)
        assert (job.environment_id, job.site_id, job.node_id) == (environment.id, expected.site_id, expected.node_id)
        assert job.locks == expected.locks
        assert ":by-hand:grace" in str(job.locked_by)
        assert (job.intent or {})["playbook"] == "touch-up.yml"
        assert Queue(home.records.engine).claim("worker", clock()) is None
        began = job.heartbeat_at
        until(lambda: home.records.jobs.get(job.id).heartbeat_at != began, "its lease to be kept")
        with pytest.raises(Conflict, match=r"grace runs by hand\. End it where it runs"):
            home.operations.cancel(job.id, Actor("ada", "ada@example.com"))
    desk.go.touch()
    status, output = finished(process)
    assert status == 0, output
    assert f"Trueup: this run is job {job.id}." in output
    ended = desk.only()
    assert (ended.status, ended.error_code) == (JobStatus.SUCCEEDED, None)
    assert (ended.result or {})["hosts"]["web-1"]["ok"] == 1
    with desk.opened() as home:
        held_by_another(home)  # the locks are free again
    shown = subprocess.run(
        [str(Path(sys.executable).with_name("trueup")), "history", KEY],
        env={**os.environ, "TRUEUP_HOME": str(desk.home)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(line for line in shown.splitlines() if "operator-run" in line)
    assert "grace" in line


def test_a_run_on_nodes_has_their_locks(desk: Desk) -> None:
    status, output = desk.run(key=None)
    assert status == 0, output
    assert len(desk.sign.read_text().split()) == 2
    job = desk.only()
    with desk.opened() as home:
        nodes = {node.id for node in home.state.fleet().nodes.values()}
    assert {lock.resource for lock in job.locks} == {f"node:{id_}" for id_ in nodes}
    assert {UUID(id_) for id_ in (job.intent or {})["nodes"]} == nodes
    desk.sign.unlink()
    status, output = desk.run("--limit", "web-2", key=None)
    assert status == 0, output
    with desk.opened() as home:
        assert {lock.resource for lock in desk.jobs()[0].locks} == {
            f"node:{home.state.fleet().nodes_by_slug['web-2'].id}"
        }
    assert len(desk.sign.read_text().split()) == 1


def test_where_a_job_is_at_work_a_run_is_refused_and_says_by_which(desk: Desk) -> None:
    with desk.opened() as home:
        other = held_by_another(home)
    status, output = desk.run(TRUEUP_BY_HAND_WAIT_S="1")
    assert status == 75, output
    assert f"Job {other.job.id} (deploy) is at work there since" in output
    assert f"trueup job follow {other.job.id}" in output
    assert not desk.sign.exists()
    assert desk.only().status is JobStatus.CANCELLED

    status, output = desk.run(TRUEUP_BY_HAND_ANYWAY="1")
    assert status == 0, output
    assert desk.sign.exists()
    assert (desk.jobs()[0].status, desk.jobs()[0].locks) == (JobStatus.SUCCEEDED, ())


def test_a_run_waits_for_the_job_before_it(desk: Desk) -> None:
    with desk.opened() as home:
        other = held_by_another(home)
        process = desk.start()
        until(lambda: len(desk.jobs()) == 1, "the run to be in line")
        assert not desk.sign.exists()
        Queue(home.records.engine).finish(other.job.id, other.fence, Succeeded(), clock())
        until(desk.sign.exists, "the play to begin")
    desk.go.touch()
    assert finished(process)[0] == 0


@pytest.mark.long
def test_how_a_run_failed(desk: Desk) -> None:
    status, output = desk.run(last="false")
    assert status == 2, output
    job = desk.only()
    assert (job.status, job.error_code) == (JobStatus.FAILED, JobErrorCode.ANSIBLE_HOST_FAILED)
    assert "web-1 had a task that failed" in str(job.error_message)


def test_a_run_that_is_killed_gives_its_locks_back(desk: Desk) -> None:
    process = desk.start()
    until(desk.sign.exists, "the play to begin")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    desk.go.touch()
    until(lambda: desk.only().status is JobStatus.FAILED, "the run to be ended")
    assert desk.only().error_code == JobErrorCode.ANSIBLE_UNKNOWN_EXIT
    with desk.opened() as home:
        held_by_another(home)


def test_what_changes_nothing_and_what_a_job_runs_is_not_recorded(desk: Desk) -> None:
    status, output = desk.run("--check")
    assert (status, "Trueup" in output) == (0, False), output
    status, output = desk.run(TRUEUP_JOB="of-a-job")
    assert (status, "Trueup" in output) == (0, False), output
    status, output = desk.run("-e", json.dumps({"trueup_job": {"id": "a", "fence": 1}}))
    assert (status, "Trueup" in output) == (0, False), output
    assert desk.jobs() == ()


@pytest.mark.long
def test_the_control_planes_own_runs_are_not_recorded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_HOME", str(desk.home))
    play = desk.directory / "own.yml"
    play.write_text("- hosts: nodes\n  gather_facts: false\n  tasks: [{ping: }]\n")
    with desk.opened() as home:
        inventory = inventory_of(home.state.fleet(), key_file=None, artifacts={})
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    done = Runner(desk.directory / "run").run(play, inventory, job=str(uuid4()), timeout_s=300, extra_vars=here)
    assert done.status == "succeeded", done
    assert desk.jobs() == ()


@pytest.mark.parametrize("left", sampled(["damaged records", "nothing", "store"]))
def test_without_a_control_plane_it_warns_and_goes_on(desk: Desk, left: str) -> None:
    if left == "nothing":
        (desk.home / "store.git").rename(desk.directory / "clone.git")
    records = desk.home / "trueup.db"
    records.unlink()
    if left == "damaged records":
        records.write_text("no database\n" * 1000)
    status, output = desk.run()
    assert status == 0, output
    assert desk.sign.exists()
    flat = " ".join(output.split())
    assert "[WARNING]: No Trueup control plane is told of this run" in flat
    reason = {"nothing": "is no control plane's home", "store": "has no records", "damaged records": "not a database"}
    assert reason[left] in flat
    assert records.exists() == (left == "damaged records")


def test_a_run_whose_process_vanished_in_line_keeps_nobody_waiting(desk: Desk) -> None:
    with desk.opened() as home:
        runs = OperatorRuns(home.state, Queue(home.records.engine), home.dispatcher, clock, uuid4)
        environment_id = home.state.fleet().environments_by_key[KEY].id
        living = runs.ask(Asked("a.yml", Actor("grace", "grace@localhost"), environment_id))
        dead = NewJob(
            id=uuid4(),
            job_type="operator-run",
            locks=living.locks,
            intent={"holder": identity().replace(f":{os.getpid()}:", ":0:"), "playbook": "b.yml"},
        )
        home.records.jobs.enqueue(dead, clock())
        assert forget_abandoned(home.records, clock()) == 1
        assert home.records.jobs.get(dead.id).error_code == JobErrorCode.JOB_LEASE_LOST
        assert home.records.jobs.get(living.id).status is JobStatus.QUEUED


def test_a_run_from_elsewhere_without_our_configuration_has_its_locks_too(desk: Desk) -> None:
    """Ansible finds the callback beside the playbook, as it does for ours."""
    (desk.directory / "callback_plugins").symlink_to(share() / "playbooks" / "callback_plugins")
    nothing = desk.directory / "ansible.cfg"
    nothing.write_text("[defaults]\n")
    status, output = desk.run(ANSIBLE_CONFIG=str(nothing))
    assert status == 0, output
    assert f"Trueup: this run is job {desk.only().id}." in output


@pytest.mark.long
def test_found_in_two_ways_it_tells_of_a_run_once(desk: Desk) -> None:
    (desk.directory / "callback_plugins").symlink_to(share() / "playbooks" / "callback_plugins")
    status, output = desk.run(TRUEUP_BY_HAND_WAIT_S="0")
    assert status == 0, output
    assert desk.only().status is JobStatus.SUCCEEDED


@pytest.mark.long
def test_a_run_that_is_not_to_be_told_of_takes_no_locks(desk: Desk) -> None:
    with desk.opened() as home:
        held_by_another(home)
        status, output = desk.run(TRUEUP_BY_HAND_REPORT="0")
    assert (status, desk.sign.exists()) == (0, True), output
    assert not desk.jobs()


def test_every_playbook_runs_by_hand_whole_without_tags() -> None:
    playbooks = sorted(str(path) for path in (share() / "playbooks").glob("*.yml"))
    assert len(playbooks) > 10
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "web-1,", "--list-tags", *playbooks]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(share() / "ansible.cfg"),
        "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore",
    }
    done = subprocess.run(
        [*argv, "-e", "environment=a/b"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tags = [line.strip() for line in done.stdout.splitlines() if "TAGS: [" in line]
    assert len(tags) >= len(playbooks)
    # Ansible itself gives `always` to a role's check of its arguments.
    assert {line.rpartition("TAGS: ")[2] for line in tags} <= {"[]", "[always]"}
