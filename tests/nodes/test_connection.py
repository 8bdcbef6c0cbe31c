"""Connections to real nodes: over a sound wire, a dead one, a wrong one."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.core.errors import NodeUnreachable
from reconciler.nodes.connection import CommandTimeout, Connections, OutputTooLarge
from reconciler.nodes.target import Target, scan_host_key
from tests.controlplane import until
from tests.lab import Lab, Node
from tests.lab.fixtures import MakeNode

pytestmark = pytest.mark.lab


@pytest.fixture
def connections() -> Iterator[Connections]:
    with Connections() as connections:
        yield connections


def target_of(node: Node, lab: Lab) -> Target:
    return Target(node.name, node.address, node.ssh_port, "root", node.host_key, lab.private_key_file)


@pytest.fixture
def target(bare_node: Node, lab: Lab) -> Target:
    return target_of(bare_node, lab)


def test_a_command_s_answer(connections: Connections, target: Target) -> None:
    done = connections.run(target, ["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in\0\xff")
    assert (done.stdout, done.stderr, done.exit) == (b"in\0\xff", b"err\n", 3)


def test_arguments_are_never_a_shell_s(connections: Connections, target: Target) -> None:
    odd = ["$(touch /tmp/pwned)", "a b", "'\"`;&|", "--", "{{ x }}", "line\nbreak", "ü", ""]
    done = connections.run(target, ["printf", "%s\\0", *odd])
    assert done.stdout.decode().split("\0")[:-1] == odd


def test_a_command_that_is_not_there_and_one_that_dies(connections: Connections, target: Target) -> None:
    assert connections.run(target, ["no-such-command"]).exit == 127
    assert connections.run(target, ["sh", "-c", "kill -TERM $$"]).exit == 143


def test_connections_are_kept_and_shared(connections: Connections, target: Target) -> None:
    ports = {connections.run(target, ["sh", "-c", "echo $SSH_CONNECTION"]).stdout for _ in range(3)}
    assert len(ports) == 1


def test_forty_commands_at_once_from_many_threads(connections: Connections, target: Target) -> None:
    """sshd refuses the eleventh session on a connection."""
    with ThreadPoolExecutor(40) as pool:
        answers = pool.map(lambda n: connections.run(target, ["sh", "-c", f"sleep 0.1; echo {n}"]).stdout, range(40))
    assert [int(answer) for answer in answers] == list(range(40))


@pytest.mark.long
def test_a_session_that_sshd_refuses_disturbs_no_other(connections: Connections, make_node: MakeNode, lab: Lab) -> None:
    node = make_node("nn-few")
    node.ssh("echo 'MaxSessions 4' > /etc/ssh/sshd_config.d/few.conf && systemctl restart ssh")
    target = target_of(node, lab)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: connections.run(target, ["sh", "-c", f"sleep 1; echo {n}"]).stdout, range(8))
    assert [int(answer) for answer in answers] == list(range(8))


def test_a_slow_command_is_ended_on_the_node_too(connections: Connections, target: Target) -> None:
    with pytest.raises(CommandTimeout, match=r"did not end a command within 1 s"):
        connections.run(target, ["sleep", "3131"], timeout_s=1)
    assert connections.run(target, ["pgrep", "-f", "^sleep 3131"]).exit == 1


def test_too_much_output_is_cut_off(connections: Connections, target: Target) -> None:
    with pytest.raises(OutputTooLarge, match="more than 1024 KiB"):
        connections.run(target, ["cat", "/dev/zero"], max_output_bytes=1 << 20)
    assert connections.run(target, ["echo", "still here"]).stdout == b"still here\n"


def test_another_host_key_is_refused(connections: Connections, target: Target, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    other = " ".join((tmp_path / "k.pub").read_text().split()[:2])
    with pytest.raises(NodeUnreachable, match=r"another host key than the one pinned in nodes/"):
        connections.run(dataclasses.replace(target, host_key=other), ["true"])


def test_another_client_key_is_refused(connections: Connections, target: Target, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    with pytest.raises(NodeUnreachable, match=r"does not let root in with the key"):
        connections.run(dataclasses.replace(target, key_file=tmp_path / "k"), ["true"])
    with pytest.raises(NodeUnreachable, match=r"cannot be read: .*Run `trueup init`"):
        connections.run(dataclasses.replace(target, key_file=tmp_path / "none"), ["true"])


def test_a_closed_port_refuses(connections: Connections, target: Target) -> None:
    with pytest.raises(NodeUnreachable, match=r"refuses connections"):
        connections.run(dataclasses.replace(target, port=2), ["true"])


def test_something_that_is_no_ssh(connections: Connections, target: Target) -> None:
    """A service that accepts and says nothing, and one that says something else."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = dataclasses.replace(target, address="127.0.0.1", port=silent.getsockname()[1])
        with pytest.raises(NodeUnreachable):
            connections.run(mute, ["true"])
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            connection, _ = web.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(NodeUnreachable):
            connections.run(dataclasses.replace(mute, port=web.getsockname()[1]), ["true"])


@pytest.mark.parametrize("how", ["link", pytest.param("pause", marks=pytest.mark.long)])
def test_a_frozen_node_is_given_up_and_found_again(
    connections: Connections, make_node: MakeNode, lab: Lab, how: str
) -> None:
    node = make_node("nn-frozen")
    target = target_of(node, lab)
    assert connections.run(target, ["true"]).exit == 0
    node.freeze(how)  # type: ignore[arg-type]
    for _ in ("over the kept connection", "over a new one"):
        with pytest.raises(NodeUnreachable):
            connections.run(target, ["true"])
    node.thaw()

    def answers() -> bool:
        with suppress(NodeUnreachable):  # its wire is there again; what it says takes a moment
            return connections.run(target, ["echo", "back"]).stdout == b"back\n"
        return False

    until(answers, "the node to be found again")


@pytest.mark.long
def test_a_node_that_was_rebooted_is_connected_again_by_itself(
    connections: Connections, make_node: MakeNode, lab: Lab
) -> None:
    node = make_node("nn-reboot")
    target = target_of(node, lab)
    assert connections.run(target, ["true"]).exit == 0
    node.kill()
    node.start()
    assert connections.run(target, ["echo", "again"]).stdout == b"again\n"


@pytest.mark.long
def test_a_node_that_is_lost_in_the_middle(connections: Connections, make_node: MakeNode, lab: Lab) -> None:
    node = make_node("nn-lost")
    plug = threading.Timer(1.0, node.kill)
    plug.start()
    with pytest.raises(NodeUnreachable):
        connections.run(target_of(node, lab), ["sleep", "60"], timeout_s=6)
    plug.join()


def test_scan_shows_what_the_node_itself_shows(bare_node: Node) -> None:
    shown = scan_host_key(bare_node.address, bare_node.ssh_port)
    assert shown.key == bare_node.host_key
    assert shown.fingerprint in bare_node.ssh(["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout
    with pytest.raises(NodeUnreachable, match="refuses connections"):
        scan_host_key(bare_node.address, 2)


def test_closing_ends_what_is_running(target: Target) -> None:
    connections = Connections()
    raised: list[NodeUnreachable] = []

    def sleep() -> None:
        try:
            connections.run(target, ["sleep", "3030"])
        except NodeUnreachable as error:
            raised.append(error)

    thread = threading.Thread(target=sleep)
    thread.start()
    with Connections() as others:
        until(lambda: others.run(target, ["pgrep", "-f", "^sleep 3030"]).exit == 0, "the command to run")
    connections.close()
    connections.close()
    thread.join(300)
    assert not thread.is_alive()
    assert "Trueup is stopping" in raised[0].message
    with pytest.raises(NodeUnreachable, match="Trueup is stopping"):
        connections.run(target, ["true"])
