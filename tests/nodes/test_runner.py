"""Real Ansible on this host: what each way to end means, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.core.errors import Invalid
from reconciler.inventory import Inventory
from reconciler.nodes import processes
from reconciler.nodes.runner import Runner, RunResult, TaskResult
from reconciler.roles import role_digest
from tests.nodes.parents import answering, is_plays_sleep

Play = Callable[..., RunResult]


def local(**variables: Any) -> Inventory:
    """This host as Ansible's only one."""
    return Inventory({"here": {"ansible_connection": "local", **variables}}, {"nodes": ("here",)})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the directory of each run is."""
    return tmp_path_factory.mktemp("runner") / "run"


@pytest.fixture(scope="module", params=[pytest.param("plain", marks=pytest.mark.long), "warm"])
def common_runner(runs: Path, request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Both ways of starting Ansible."""
    runner = Runner(runs, warm=request.param == "warm")
    yield runner
    runner.close()


@pytest.fixture
def runner(common_runner: Runner, runs: Path) -> Iterator[Runner]:
    """The same for all tests. In the warm way none of a test's runs may have been started plainly instead."""
    parent = common_runner.warm_pid
    if parent:
        answering(runs)
    with capture_logs() as logs:
        yield common_runner
    assert common_runner.warm_pid == parent
    assert [entry for entry in logs if entry["log_level"] == "warning"] == []


@pytest.fixture
def play(tmp_path: Path, runner: Runner) -> Play:
    """Run these tasks (or this text as the whole playbook) on this host."""

    def run(content: list[dict[str, Any]] | str, inventory: Inventory | None = None, **options: Any) -> RunResult:
        playbook = tmp_path / "playbook.yml"
        text = content if isinstance(content, str) else json.dumps([{"hosts": "nodes", "tasks": content}])
        playbook.write_text(text)
        return runner.run(playbook, inventory or local(), **{"job": "job-1", "timeout_s": 300, **options})

    return run


def command(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "Do it", "ansible.builtin.command": {"argv": ["sh", "-c", script]}, **more}


def test_success_counts_and_keeps_the_answers(play: Play) -> None:
    seen: list[TaskResult] = []
    result = play([command("echo hello"), {"ansible.builtin.debug": {"msg": "hi"}}], on_result=seen.append)
    assert (result.status, result.error_code, result.changed) == ("succeeded", None, 1)
    assert result.hosts["here"].ok == 2
    assert result.results[0].data["stdout"] == "hello"
    assert tuple(seen) == result.results
    assert "PLAY RECAP" in result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ([command("echo oops >&2; exit 3")], "ANSIBLE_HOST_FAILED", "here: Do it: .*\noops"),
        ([{"name": "Say no", "ansible.builtin.fail": {"msg": "DNS is wrong"}}], "ANSIBLE_HOST_FAILED", "DNS is wrong$"),
        ("- hosts: nodes\n  tasks: [", "ANSIBLE_SYNTAX_ERROR", "status 4 before any task failed"),
        ([{"no.such.module": {}}], "ANSIBLE_SYNTAX_ERROR", "no.such.module"),
        ("- hosts: nobody\n  tasks: []", "ANSIBLE_UNEXPECTED_ERROR", "did nothing on here"),
    ],
)
def test_each_failure_has_its_code(play: Play, content: Any, code: str, message: str) -> None:
    result = play(content)
    assert (result.status, result.error_code) == ("failed", code)
    assert re.search(message, result.message), result.message


def test_an_ignored_failure_is_none(play: Play) -> None:
    result = play([command("exit 1", ignore_errors=True)])
    assert result.status == "succeeded"
    assert result.failures == ()


def test_a_host_that_refuses_is_unreachable(play: Play) -> None:
    gone = Inventory({"gone": {"ansible_host": "127.0.0.1", "ansible_port": 1}}, {"nodes": ("gone",)})
    result = play([command("true")], gone)
    assert (result.status, result.error_code) == ("failed", "ANSIBLE_HOST_UNREACHABLE")
    assert "refused" in result.message


def test_one_host_of_two_missing_is_no_success(play: Play) -> None:
    both = Inventory(
        {"here": {"ansible_connection": "local"}, "there": {"ansible_connection": "local"}}, {"nodes": ("here",)}
    )
    result = play([command("true")], both)
    assert (result.status, result.error_code) == ("failed", "ANSIBLE_UNEXPECTED_ERROR")
    assert "did nothing on there" in result.message


def test_check_mode_changes_nothing(play: Play, tmp_path: Path) -> None:
    copy = {"ansible.builtin.copy": {"content": "new\n", "dest": str(tmp_path / "file"), "mode": "0600"}}
    result = play([copy], check=True)
    assert (result.status, result.changed) == ("succeeded", 1)
    assert "+new" in result.output
    assert not (tmp_path / "file").exists()


# --- Nothing from outside is code, nothing of ours gets in, nothing private gets out ---


def test_templates_in_values_are_never_evaluated(play: Play, tmp_path: Path) -> None:
    evil = f"{{{{ lookup('pipe', 'touch {tmp_path}/pwned') }}}}"
    show = {"ansible.builtin.debug": {"msg": "{{ title }}|{{ from_host.deep[0] }}|{{ lookup('vars', 'title') }}"}}
    run = {"ansible.builtin.command": {"argv": ["echo", "{{ title }}"]}}
    result = play([show, run], local(from_host={"deep": [evil]}), extra_vars={"title": evil})
    assert result.status == "succeeded"
    assert result.results[0].data["msg"] == f"{evil}|{evil}|{evil}"
    assert result.results[1].data["stdout"] == evil
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "title", ["$(touch /tmp/x)", "'\"`;&|<>", "a\nb: c\n", "--check", "{% raw %}", "\u202eü\u0000"]
)
def test_odd_values_arrive_as_they_are(play: Play, title: str) -> None:
    result = play([{"ansible.builtin.debug": {"var": "title"}}], extra_vars={"title": title})
    assert result.results[0].data["title"] == title


def test_the_environment_holds_nothing_of_ours(play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("ANSIBLE_CALLBACK_PLUGINS", str(tmp_path))
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "minimal")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    result = play([command("env")])
    names = {line.partition("=")[0] for line in result.results[0].data["stdout"].splitlines()}
    assert not names & {"AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "ORIGINAL_STDOUT_CALLBACK", "PYTEST_CURRENT_TEST"}
    assert {"PATH", "HOME", "LANG", "TRUEUP_JOB"} <= names
    assert str(tmp_path) + ":" not in result.results[0].data["stdout"]


def test_the_private_directory_is_private_and_gone(play: Play, runs: Path) -> None:
    result = play([command(f"stat -c %a {runs}/job-1-*; cat {runs}/job-1-*/extra.json")], extra_vars={"a": "b"})
    assert result.results[0].data["stdout"].splitlines() == ["700", '{"a": {"__ansible_unsafe": "b"}}']
    assert list(runs.glob("job-1-*")) == []


def test_an_earlier_run_s_variables_are_not_there(play: Play) -> None:
    show = [{"ansible.builtin.debug": {"msg": "{{ leak | default('nothing') }}"}}]
    assert play(show, extra_vars={"leak": "x"}).results[0].data["msg"] == "x"
    assert play(show).results[0].data["msg"] == "nothing"


def test_secrets_do_not_leave_in_messages_or_output(play: Play) -> None:
    said = "url https://bob:pa55@host/x password=hunter2 signed ?X-Amz-Signature=abcdef12 and s3cr3t-value"
    result = play([command(f"echo '{said}' >&2; exit 1")], secrets=["s3cr3t-value"])
    for text in (result.message, result.output):
        assert "url https://***@host/x" in text
        for secret in ("pa55", "hunter2", "abcdef12", "s3cr3t-value"):
            assert secret not in text


def test_output_is_the_last_ten_kilobytes(play: Play) -> None:
    result = play([command("seq 1 20000; exit 1")])
    assert len(result.output.encode()) <= 10_000
    assert "PLAY RECAP" in result.output
    assert len(result.message) <= 2_000


@pytest.mark.parametrize("job", ["", "../x", "a b", "-rf", "a" * 65, "x.scope"])
def test_a_job_id_that_is_no_name_is_refused(play: Play, job: str) -> None:
    with pytest.raises(Invalid, match="no job id"):
        play([command("true")], job=job)


# --- Ending a run ---

STUBBORN = "trap '' TERM; sleep 300 & sleep 300"


def left_over(runs: Path) -> list[int]:
    """Processes that a run started and that are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                marked = f"TRUEUP_RUN={runs}/".encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if marked and processes.parent_of(int(entry.name)):
                found.append(int(entry.name))
    return found


def wait_for_sleep(runs: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if any(map(is_plays_sleep, left_over(runs))):
            return
        time.sleep(0.02)
    raise AssertionError("the play never began to sleep")


@pytest.mark.parametrize("script", ["sleep 300", STUBBORN])
def test_cancel_ends_the_play_and_all_its_processes(play: Play, runs: Path, script: str) -> None:
    cancel, results = threading.Event(), []
    thread = threading.Thread(target=lambda: results.append(play([command(script)], cancel=cancel)))
    thread.start()
    wait_for_sleep(runs)
    assert left_over(runs)
    cancel.set()
    thread.join()
    assert (results[0].status, results[0].error_code) == ("cancelled", None)
    assert left_over(runs) == []
    assert [path.name for path in runs.iterdir() if path.name.startswith("job-")] == []


def test_a_run_that_takes_too_long_is_ended(play: Play, runs: Path) -> None:
    result = play([command("sleep 300")], timeout_s=3)
    assert (result.status, result.error_code) == ("timed_out", "ANSIBLE_TIMEOUT")
    assert "did not end within 3 s" in result.message
    assert left_over(runs) == []


def test_cancelled_before_it_began(play: Play, tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    assert play([command(f"touch {tmp_path}/done")], cancel=cancel).status == "cancelled"
    assert not (tmp_path / "done").exists()


def test_sweep_ends_what_a_killed_process_left(tmp_path: Path, runner: Runner) -> None:
    """A control plane that is killed leaves its play running; the next one ends it, and no other job's."""
    (tmp_path / "playbook.yml").write_text(json.dumps([{"hosts": "nodes", "tasks": [command(STUBBORN)]}]))
    runs, warm = tmp_path / "run", runner.warm_pid is not None
    killed = os.fork()
    if killed == 0:
        # With a parent of its own: the common one is not a child of this process.
        Runner(runs, warm=warm).run(tmp_path / "playbook.yml", local(), job="job-dead", timeout_s=300)
        os._exit(0)
    wait_for_sleep(runs)
    os.kill(killed, 9)
    os.waitpid(killed, 0)
    following = Runner(runs)
    assert left_over(runs)
    assert following.sweep("job-other") == 0
    assert left_over(runs)
    assert following.sweep("job-dead") > 0
    assert left_over(runs) == []
    assert list(runs.glob("job-dead*")) == []
    following.close()


def test_a_listener_that_fails_leaves_nothing_running(play: Play, runs: Path) -> None:
    def fail(_: TaskResult) -> None:
        raise LookupError("listener")

    with pytest.raises(LookupError, match="listener"):
        play([command("true"), command("sleep 300")], on_result=fail)
    assert left_over(runs) == []


def test_runs_side_by_side_do_not_meet(play: Play, tmp_path: Path, runner: Runner) -> None:
    (tmp_path / "side.yml").write_text(json.dumps([{"hosts": "nodes", "tasks": [command("echo {{ who }}; sleep 1")]}]))
    answers: dict[str, str] = {}

    def run(who: str) -> None:
        result = runner.run(tmp_path / "side.yml", local(), job=who, timeout_s=300, extra_vars={"who": who})
        answers[who] = result.results[0].data["stdout"]

    threads = [threading.Thread(target=run, args=(f"job-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {f"job-{number}": f"job-{number}" for number in range(3)}


def test_role_digest_is_that_of_the_role_s_files() -> None:
    assert len(role_digest("node")) == 64
    assert role_digest("node") == role_digest("node")
