"""The lab does what other tests rely on, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.commands import wait_until
from tests.lab.fixtures import MakeNode, unique_name
from tests.lab.lab import Lab
from tests.lab.network import namespace_path
from tests.lab.node import Node
from tests.lab.paths import LabError

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]


def traces(node: Node) -> dict[str, bool]:
    """What of a node is on the host right now."""
    return {
        "directory": node.directory.exists(),
        "mount": str(node.directory) in Path("/proc/mounts").read_text(),
        "namespace": namespace_path(node.namespace).exists(),
        "veth": Path("/sys/class/net", node.link).exists(),
        "control group": node.container.control_group.exists(),
        "processes": bool(host_processes(node)),
        "propagate": Path("/run/systemd/nspawn/propagate", node.namespace).exists(),
    }


def host_processes(node: Node) -> list[int]:
    """Found by the command line and the control group, not by the lab's own book-keeping.

    A dead process that this machine's process 1 has not reaped yet has no command line, and is in a deleted group.
    """
    group = f"/{node.container.control_group.name}"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            groups = (process / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        in_group = f"{group}/" in groups and "(deleted)" not in groups
        if f"--machine={node.namespace}" in arguments or in_group:
            found.append(int(process.name))
    return found


@pytest.fixture(scope="module")
def pair(lab: Lab) -> list[Node]:
    return lab.up_all([unique_name("web"), unique_name("web")])


def test_two_nodes_boot_at_once_and_are_distinct(pair: list[Node]) -> None:
    first, second = pair
    assert first.address != second.address
    assert first.host_key != second.host_key
    assert [first.state, second.state] == ["running", "running"]
    ids = {node.ssh(["cat", "/etc/machine-id"]).stdout for node in pair}
    assert len(ids) == 2


def test_nodes_reach_each_other_and_nothing_beyond(pair: list[Node]) -> None:
    first, second = pair
    assert first.ssh(["curl", "-s", "-o", "/dev/null", f"http://{second.address}/"]).returncode == 0
    assert first.ssh(["ip", "route", "show", "default"]).stdout == ""


def test_ssh_logs_in_with_the_pinned_key(pair: list[Node]) -> None:
    node = pair[0]
    assert node.ssh(["hostname"]).stdout.strip() == node.name
    assert node.ssh("cat | tr a-z A-Z", input="shout").stdout == "SHOUT"
    assert node.ssh(["false"], check=False).returncode == 1
    with pytest.raises(LabError, match="ended with status 1"):
        node.ssh(["false"])


def test_ssh_refuses_another_host_key(pair: list[Node]) -> None:
    node, other = pair
    pinned = node.directory / "known_hosts"
    right = pinned.read_text()
    try:
        pinned.write_text(f"{node.address} {other.host_key}\n")
        done = node.ssh(["true"], check=False)
    finally:
        pinned.write_text(right)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


@pytest.mark.long
def test_a_callers_key_may_log_in(make_node: MakeNode, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    node = make_node("keyed", (tmp_path / "key.pub").read_text())
    command = [part.replace(str(node.directory.parent.parent / "id_ed25519"), str(key)) for part in node.ssh_command()]
    assert subprocess.run([*command, "true"], check=False).returncode == 0


def test_systemd_is_running_and_so_is_the_stack(bare_node: Node) -> None:
    assert bare_node.ssh(["systemctl", "is-system-running"]).stdout.strip() == "running"
    units = ["nginx", "mariadb", "redis-server", "php8.2-fpm", "cron", "ssh"]
    assert bare_node.ssh(["systemctl", "is-active", *units]).stdout.split() == ["active"] * len(units)


def test_timers_transient_units_and_nftables_work(bare_node: Node) -> None:
    assert bare_node.ssh(["systemd-run", "--wait", "--pipe", "-q", "echo", "hello"]).stdout == "hello\n"
    bare_node.ssh("nft add table inet probe && nft list table inet probe && nft delete table inet probe")
    bare_node.ssh("systemd-run -q --on-active=100ms --timer-property=AccuracySec=50ms touch /run/ticked")
    assert wait_until(lambda: bare_node.ssh(["test", "-e", "/run/ticked"], check=False).returncode == 0, 120)


def test_installed_packages_satisfy_apt_without_network(bare_node: Node) -> None:
    script = "import apt; print(all(apt.Cache()[name].is_installed for name in ('nginx', 'mariadb-server')))"
    assert bare_node.ssh(["python3", "-c", script]).stdout.strip() == "True"


def test_fetch_names_the_host(bare_node: Node) -> None:
    asked = f"/?{unique_name('asked')}"
    response = bare_node.fetch(asked, host="www.example.com")
    assert response.status_code == 200
    assert "nginx" in response.text
    told = ["grep", "-qF", f"GET {asked} HTTP/1.1", "/var/log/nginx/access.log"]
    # Told once it has been answered.
    assert wait_until(lambda: bare_node.ssh(told, check=False).returncode == 0, 120)


@pytest.mark.long
@pytest.mark.parametrize("how", ["link", "pause"])
def test_freeze_makes_ssh_fail_and_thaw_heals(make_node: MakeNode, how: str) -> None:
    node = make_node("frozen")
    node.freeze(how)  # type: ignore[arg-type]
    assert node.ssh(["true"], check=False, timeout=60).returncode == 255, "ssh itself gives up"
    node.thaw()
    assert node.ssh(["echo", "back"], timeout=60).stdout == "back\n"


@pytest.mark.long
def test_reboot_keeps_files_and_host_key(make_node: MakeNode) -> None:
    node = make_node("again")
    host_key = node.host_key
    node.ssh("echo kept > /root/file; mariadb -e 'CREATE DATABASE kept'; touch /run/gone")
    node.reboot()
    assert node.ssh("cat /root/file").stdout == "kept\n"
    assert "kept" in node.ssh(["mariadb", "-e", "SHOW DATABASES"]).stdout
    assert node.ssh("test -e /run/gone", check=False).returncode == 1
    assert node.host_key == host_key


@pytest.mark.long
def test_a_node_that_reboots_itself_can_be_started_again(make_node: MakeNode) -> None:
    node = make_node("itself")
    node.ssh("touch /root/file; systemctl reboot", check=False)
    assert wait_until(lambda: not node.running, 120)
    node.start()
    assert node.ssh(["ls", "/root/file"]).returncode == 0


@pytest.mark.long
def test_killed_power_keeps_what_was_written(make_node: MakeNode) -> None:
    node = make_node("plug")
    node.ssh("mariadb -e 'CREATE DATABASE kept'")
    node.kill()
    node.start()
    assert "kept" in node.ssh(["mariadb", "-e", "SHOW DATABASES"]).stdout


@pytest.mark.long
def test_snapshot_keeps_files_and_changes_identity(lab: Lab, make_node: MakeNode) -> None:
    key = unique_name("snapshot")
    original = make_node("original")
    original.ssh("mariadb -e 'CREATE DATABASE prepared'; echo prepared > /root/file; rm /etc/motd")
    machine = original.ssh(["cat", "/etc/machine-id"]).stdout
    lab.snapshot(original, key)
    try:
        copies = [make_node("copy", snapshot=key), make_node("copy", snapshot=key)]
        for copy in copies:
            assert copy.ssh(["cat", "/root/file"]).stdout == "prepared\n"
            assert copy.ssh(["test", "-e", "/etc/motd"], check=False).returncode == 1
            assert "prepared" in copy.ssh(["mariadb", "-e", "SHOW DATABASES"]).stdout
            assert copy.ssh(["cat", "/etc/machine-id"]).stdout != machine
        assert len({original.host_key, *(copy.host_key for copy in copies)}) == 3
        copies[0].ssh(["rm", "/root/file"])
        assert copies[1].ssh(["cat", "/root/file"]).stdout == "prepared\n"
        original.start()
        assert original.ssh(["cat", "/root/file"]).stdout == "prepared\n"
    finally:
        for node in [*copies, original]:
            node.down()
        lab.forget_snapshot(key)


@pytest.mark.long
def test_ensure_snapshot_prepares_once(lab: Lab) -> None:
    key, prepared = unique_name("once"), []

    def prepare(node: Node) -> None:
        prepared.append(node)

    try:
        assert lab.ensure_snapshot(key, prepare) == lab.ensure_snapshot(key, prepare) == key
        assert len(prepared) == 1
        assert not any(traces(prepared[0]).values())
    finally:
        lab.forget_snapshot(key)


def test_down_leaves_nothing(make_node: MakeNode) -> None:
    node = make_node("gone")
    assert all(there for what, there in traces(node).items() if what != "propagate"), traces(node)
    node.ssh("setsid -f sleep 1000 > /dev/null 2>&1")
    node.down()
    assert not any(traces(node).values()), traces(node)
    node.down()


@pytest.mark.long
def test_a_paused_node_can_be_removed(make_node: MakeNode) -> None:
    node = make_node("stuck")
    node.freeze("pause")
    node.down()
    assert not any(traces(node).values()), traces(node)


def test_names_are_checked_and_taken_once(make_node: MakeNode, lab: Lab) -> None:
    with pytest.raises(LabError, match="is no node name"):
        lab.up("../escape")
    node = make_node("taken")
    with pytest.raises(LabError, match="already"):
        lab.up(node.name)


@pytest.mark.long
def test_the_next_lab_sweeps_what_a_killed_process_left(lab: Lab) -> None:
    name = unique_name("orphan")
    code = f"import time; from tests.lab import Lab; Lab().up({name!r}); print('up', flush=True); time.sleep(600)"
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    orphan = lab.node(name)
    assert orphan.running
    assert lab.sweep() == []
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert orphan.running
    assert name in lab.sweep()
    assert not any(traces(orphan).values()), traces(orphan)


@pytest.mark.long
def test_a_persistent_node_outlives_its_maker_until_down(lab: Lab) -> None:
    name = unique_name("demo")
    command = [sys.executable, "-m", "tests.lab"]
    up = subprocess.run(
        [*command, "up", name, "--persist", "--json"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    described = json.loads(up.stdout)
    node = lab.node(name)
    try:
        assert lab.sweep() == []
        assert described["address"] == node.address
        assert described["host_key"] == node.host_key
        assert described["ssh_port"] == 22
        assert node.ssh(["hostname"]).stdout.strip() == name
    finally:
        subprocess.run([*command, "down", name], cwd=REPOSITORY, check=True)
    assert not any(traces(node).values()), traces(node)


def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    """With an empty PATH nothing is found, and each finding comes with advice."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab", "doctor", "--json"],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    missing = {finding["subject"]: finding["advice"] for finding in report["findings"] if not finding["ok"]}
    assert missing["debootstrap"] == "apt-get install debootstrap"
