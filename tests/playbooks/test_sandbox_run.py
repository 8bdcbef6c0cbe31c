"""What a single run in a site's sandbox is asked for, and what is read of it. No node is needed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
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


def test_a_bridge_is_taken_back_whole() -> None:
    bridge = load("environment.bridge").Bridge(SimpleNamespace(), LAYOUT)
    direct = f"fastcgi_pass unix:{LAYOUT.socket};"
    block = f"server {{ {direct} }}\nserver {{ {direct} }}\n"
    over = bridge._bridged(block)
    assert direct not in over
    assert f"server unix:{LAYOUT.socket} backup;" in over
    assert bridge._without(over) == bridge._without(block) == block
