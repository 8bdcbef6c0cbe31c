"""What a single run in a site's sandbox is asked for, and what is read of it. No node is needed."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.node_modules import load

sandbox = load("environment.sandbox")
Failure, Run = (getattr(load("environment.run"), name) for name in ("Failure", "Run"))
LAYOUT = load("environment.layout").Layout("5b0f6a3e-8f6e-4d0b-9d53-0a6f0c1d2e3f")


def run() -> Any:
    return Run(False, "/nowhere/pending", None)


def bounded(code: str) -> Any:
    return run().start([sys.executable, "-c", code], process=sandbox.Bounded)


def test_words_reach_the_command_as_they_are() -> None:
    """systemd would fill in variables; and nothing of the run's own environment comes along."""
    argv = sandbox.command(LAYOUT, ["wp", "--title=${HOME} $$ $X"], environment={"HOME": "/t"}, scope="trueup-1.scope")
    words = argv[argv.index("--") + 1 :]
    assert words == ["wp", "--title=$${HOME} $$$$ $$X"]
    assert {word for word in argv if word.startswith("--setenv")} == {"--setenv=LC_ALL=C.UTF-8", "--setenv=HOME=/t"}
    assert "--property=BindsTo=trueup-1.scope" in argv
    assert "--property=NoNewPrivileges=yes" in argv


def hidden(layout: Any, **options: Any) -> set[str]:
    argv = sandbox.command(layout, ["id"], **options)
    (paths,) = (word for word in argv if word.startswith("--property=InaccessiblePaths="))
    return set(paths.rpartition("=")[2].split())


def test_who_is_closed_has_nobody_look_up_names(tmp_path: Path) -> None:
    layout = load("environment.layout").Layout(LAYOUT.id)
    layout.egress = str(tmp_path / "egress.nft")
    doors = {"-/run/systemd/resolve", "-/run/nscd", "-/run/avahi-daemon"}
    assert not hidden(layout) & doors, "production has no such file"
    Path(layout.egress).write_text("add element inet trueup_egress copies { 998 }\n")
    assert not hidden(layout) & doors, "it was opened"
    Path(layout.egress).write_text("add element inet trueup_egress closed { 998 }\n")
    assert hidden(layout) >= doors
    assert not hidden(layout, group="trueup-fetch") & doors, "what fetches looks up names"
    assert hidden(LAYOUT, is_closed=True) >= doors, "as whoever is not on the node says it"


def test_two_runs_have_two_names() -> None:
    names = [next(word for word in sandbox.command(LAYOUT, ["id"]) if word.startswith("--unit=")) for _ in range(2)]
    assert len(set(names)) == 2


def test_what_is_said_within_bounds_is_heard() -> None:
    process = bounded("import sys; sys.stdout.write(sys.stdin.read() * 2); sys.stderr.write('aside')")
    assert run().wait(process, text="word") == "wordword"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_goes_on_for_ever_is_a_failure_and_not_kept(stream: str) -> None:
    endless = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    with pytest.raises(Failure, match="more than a megabyte"):
        run().wait(bounded(endless), hint="it failed")


def test_whoever_does_not_listen_is_no_hindrance() -> None:
    assert run().wait(bounded("print('done')"), text="x" * 5_000_000) == "done\n"


def variables(**resources: int) -> dict[str, Any]:
    return {"php": {"memory_limit_mb": 256, "max_children": 8}, "resources": resources or None}


def test_bounds_follow_from_php_unless_they_are_declared() -> None:
    found = sandbox.resources(variables())
    assert (found["memory_mb"], found["php_memory_mb"], found["cpu_weight"]) == (3328, 2304, 100)
    assert all(found[name] < found["memory_mb"] for name in found if name.endswith("memory_mb") and name != "memory_mb")
    small = sandbox.resources(variables(memory_mb=512, tasks=64, io_weight=7))
    assert small["io_weight"] == 7
    assert max(small[name] for name in small if name.endswith("memory_mb")) == 512
    assert small["php_tasks"] == 64


def test_a_second_php_is_the_first_one_elsewhere() -> None:
    """Of today's unit, and of one that an earlier version made."""
    bridge = load("environment.bridge")
    earlier = (
        "ExecStart=/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /a\nRuntimeDirectory=trueup-php/x\nMemoryMax=1\n"
    )
    today = earlier.replace(
        "=/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /a",
        "=/bin/sh -c 'ln -sfT /x/php.sock /y && exec /usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /x/php-fpm.conf'",
    )
    elsewhere = (
        "ExecStart=/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /b\nRuntimeDirectory=elsewhere\nMemoryMax=1\n"
    )
    for unit in (earlier, f"{today}RuntimeDirectoryPreserve=yes\n"):
        assert bridge.moved_unit(f"{unit}[Install]\nWantedBy=x\n", "/b", "elsewhere") == elsewhere
    assert bridge.moved_pool("listen = /a\nlisten.mode = 0600\n", "/b") == "listen = /b\nlisten.mode = 0600\n"
    with pytest.raises(Failure, match="has 0 of"):
        bridge.moved_unit("ExecStart=/bin/true\n", "/b", "elsewhere")


@pytest.mark.parametrize("owner", ["its own", "somebody else's"])
def test_php_is_spoken_to_where_it_is_the_users_own(tmp_path: Path, owner: str) -> None:
    """A site can lead the path of its socket to another one: nothing is said there."""
    fastcgi, heard = load("fastcgi"), list[bytes]()
    path = f"{tmp_path}/fpm.sock"
    with socket.create_server(path, family=socket.AF_UNIX) as listener:

        def hear() -> None:
            with listener.accept()[0] as connection:
                connection.settimeout(20)
                heard.append(connection.recv(1000))

        thread = threading.Thread(target=hear)
        thread.start()
        own = pwd.getpwuid(os.getuid()).pw_name
        with pytest.raises(ConnectionError):
            fastcgi.request(path, own if owner == "its own" else "daemon", {"REQUEST_METHOD": "GET"}, 20)
        thread.join()
    assert (heard != [b""]) is (owner == "its own")
