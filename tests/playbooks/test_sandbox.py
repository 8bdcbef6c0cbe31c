"""What a hacked site's code can reach, wherever it runs: for a visitor, by cron, by WP-CLI, in a health check."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reconciler.nodes.module_utils import load
from tests.controlplane import until
from tests.lab import Node
from tests.load import visitors
from tests.playbooks.environments import Hosting

HACKED, NEIGHBOUR = "spying/production", "spying/staging"
PAST_THE_CACHE = {"Cookie": "wordpress_no_cache=1"}

pytestmark = pytest.mark.lab

SPY = r"""<?php
if ( function_exists( 'exec' ) ) {
    exec( 'sleep 1000 >/dev/null 2>&1 &' );
    exec( '(echo "* * * * * touch /tmp/pwned") | crontab -' );
}
$fds = array();
foreach ( @scandir( '/proc/self/fd' ) ?: array() as $fd ) {
    $fds[] = (string) @readlink( "/proc/self/fd/$fd" );
}
$seen = array(
    'sapi'   => PHP_SAPI,
    'argv'   => implode( ' ', $_SERVER['argv'] ?? array() ),
    'status' => (string) @file_get_contents( '/proc/self/status' ),
    'cgroup' => (string) @file_get_contents( '/proc/self/cgroup' ),
    'fds'    => $fds,
    'sites'  => array_values( array_diff( @scandir( '/var/www/sites' ) ?: array(), array( '.', '..' ) ) ),
    'trueup' => array_values( array_diff( @scandir( '/etc/trueup' ) ?: array(), array( '.', '..' ) ) ),
    'doors'  => array(),
    'exec'   => function_exists( 'exec' ),
);
foreach ( array( '/run/dbus/system_bus_socket', '/run/systemd/private', '/run/redis/redis-server.sock' ) as $door ) {
    if ( @stream_socket_client( "unix://$door", $code, $message, 1 ) ) {
        $seen['doors'][] = $door;
    }
}
file_put_contents( WP_TEMP_DIR . '/seen', json_encode( $seen ) . "\n", FILE_APPEND );
"""


@pytest.fixture(scope="module")
def hacked(own_hosting: Hosting) -> Hosting:
    """The first of two sites has a drop-in that WordPress loads before all else, however it is started."""
    for key in (HACKED, NEIGHBOUR):
        own_hosting.apply(key).raise_if_failed()
    own_hosting.node.ssh(["tee", own_hosting.path(HACKED, "current", "wp-content", "db.php")], input=SPY)
    return own_hosting


@pytest.fixture
def seen(hacked: Hosting) -> Iterator[Any]:
    """What the drop-in has seen since the test began: a function."""
    path = hacked.path(HACKED, "tmp", "seen")
    hacked.node.ssh(["rm", "-f", path])

    def found() -> list[dict[str, Any]]:
        lines = hacked.node.ssh(["cat", path], check=False).stdout.splitlines()
        return [json.loads(line) for line in lines]

    yield found
    hacked.node.ssh(["rm", "-f", path])


def field(status: str, name: str) -> str:
    return next(line.partition(":")[2].strip() for line in status.splitlines() if line.startswith(f"{name}:"))


def is_shut_in(hosting: Hosting, one: dict[str, Any]) -> None:
    """A process that saw this is in the sandbox of the site."""
    assert field(one["status"], "NoNewPrivs") == "1", one["argv"]
    assert int(field(one["status"], "CapBnd"), 16) == 0
    assert field(one["status"], "Groups") in {"", hosting.node.ssh(["id", "-g", user(hosting)]).stdout.strip()}
    assert f"/trueup-{hosting.short(HACKED)}.slice/" in one["cgroup"]
    assert one["sites"] == [hosting.id(HACKED)]
    assert one["trueup"] in ([], ["php"])
    assert one["doors"] == []
    assert one["exec"] is False
    assert [path for path in one["fds"] if "/locks/" in path] == []


def user(hosting: Hosting, key: str = HACKED) -> str:
    return f"wp-{hosting.short(key)}"


def has_no_table(hosting: Hosting) -> bool:
    return hosting.node.ssh(["crontab", "-l", "-u", user(hosting)], check=False).returncode != 0


def test_wp_cli_of_a_job_is_shut_in(hacked: Hosting, seen: Any) -> None:
    """The health check of an apply, WordPress's own options and its upgrade of the tables."""
    hacked.apply(HACKED, options={"blogdescription": f"at {time.time_ns()}"}).raise_if_failed()
    hacked.node.ssh(f"rm {hacked.path(HACKED, 'current')}")
    hacked.apply(HACKED).raise_if_failed()
    by_tool = [one for one in seen() if one["sapi"] == "cli"]
    words = " ".join(one["argv"] for one in by_tool)
    assert "is-installed" in words
    assert "eval" in words
    for one in by_tool:
        is_shut_in(hacked, one)
    assert has_no_table(hacked)


@pytest.mark.long
def test_nothing_that_a_site_started_holds_its_lock(hacked: Hosting, seen: Any) -> None:
    hacked.apply(HACKED, options={"blogdescription": f"at {time.time_ns()}"}).raise_if_failed()
    assert seen()
    sleeping = f"ps -u {user(hacked)} -o args= | grep -c '^sleep 1000'"
    assert hacked.node.ssh(sleeping, check=False).stdout.strip() == "0"
    hacked.apply(HACKED, options={"blogdescription": f"at {time.time_ns()}"}).raise_if_failed()


def test_due_events_are_shut_in(hacked: Hosting, seen: Any) -> None:
    hacked.run_due(HACKED)
    found = [one for one in seen() if one["argv"] == "wp-cron.php"]
    assert found
    for one in found:  # the timer may have come meanwhile
        is_shut_in(hacked, one)
    assert has_no_table(hacked)


def test_a_health_check_is_shut_in(hacked: Hosting, seen: Any) -> None:
    hacked.run("health", HACKED).raise_if_failed()
    (one,) = [one for one in seen() if "is-installed" in one["argv"]]
    is_shut_in(hacked, one)


def test_a_visitors_request_is_shut_in(hacked: Hosting, seen: Any) -> None:
    hacked.fetch(HACKED, headers=PAST_THE_CACHE)
    assert seen()
    for one in seen():
        assert (one["doors"], one["exec"]) == ([], False)


UNITS = ("trueup-php@{}.service", "trueup-cron@{}.service", "trueup-redis@{}.service")


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_of_a_site_has_bounds(hacked: Hosting, unit: str) -> None:
    sandbox = "User,NoNewPrivileges,CapabilityBoundingSet,ProtectSystem,Slice"
    limits = "MemoryMax,TasksMax,LimitNPROC,LimitDATA,LimitCORE"
    show = hacked.node.ssh(["systemctl", "show", "-p", f"{sandbox},{limits}", unit.format(hacked.id(HACKED))]).stdout
    found = dict(line.partition("=")[::2] for line in show.splitlines())
    assert found["User"] == user(hacked)
    assert (found["NoNewPrivileges"], found["CapabilityBoundingSet"], found["ProtectSystem"]) == ("yes", "", "strict")
    assert found["Slice"] == f"trueup-{hacked.short(HACKED)}.slice"
    assert found["LimitCORE"] == "0"
    assert "infinity" not in {found[name] for name in ("MemoryMax", "TasksMax", "LimitNPROC", "LimitDATA")}


def test_every_process_of_a_site_is_in_its_slice(hacked: Hosting) -> None:
    hacked.fetch(HACKED, headers=PAST_THE_CACHE)
    own = f"/trueup-{hacked.short(HACKED)}.slice/"

    def groups() -> list[str]:
        return hacked.node.ssh(f"ps -u {user(hacked)} -o cgroup=").stdout.splitlines()

    assert len([group for group in groups() if own in group]) >= 2
    # One that ends while it is looked at is in none any more.
    until(lambda: all(own in group for group in groups()), "all to be in it", told=lambda: f"{groups()}")
    show = ["systemctl", "show", "-p", "MemoryMax,TasksMax,CPUWeight,IOWeight", f"trueup-{hacked.short(HACKED)}.slice"]
    found = dict(line.partition("=")[::2] for line in hacked.node.ssh(show).stdout.splitlines())
    assert (found["CPUWeight"], found["IOWeight"]) == ("100", "100")
    assert "infinity" not in {found["MemoryMax"], found["TasksMax"]}


def sandboxed(hosting: Hosting, script: str, **options: Any) -> list[str]:
    layout = load("environment/layout").Layout(hosting.id(HACKED))
    argv: list[str] = load("environment/sandbox").command(layout, ["sh", "-c", script], **options)
    return argv


def test_a_run_inherits_nothing_and_leaves_nothing(hacked: Hosting) -> None:
    script = (
        "ls /proc/self/fd; (sleep 1000 &) ; crontab -l 2>&1; echo '* * * * * id' | crontab - 2>&1; echo $$ ${HOME} '%n'"
    )
    said = hacked.node.ssh(sandboxed(hacked, script, environment={"HOME": "/nowhere"})).stdout.split("\n")
    assert said[:4] == ["0", "1", "2", "3"], "three pipes, and the directory that is listed"
    assert said[-2].endswith(" /nowhere %n")
    assert has_no_table(hacked)
    sleeping = f"pgrep -u {user(hacked)} -f '^sleep 1000'"
    until(lambda: not hacked.node.ssh(sleeping, check=False).stdout, "what it started to have ended with it", 60)


def test_a_run_ends_with_its_job(hacked: Hosting) -> None:
    scope = "trueup-00000000-test.scope"
    hacked.node.ssh(f"systemd-run -q --scope --unit={scope} sleep 900 >/dev/null 2>&1 </dev/null &")
    until(lambda: hacked.node.ssh(["systemctl", "-q", "is-active", scope], check=False).returncode == 0, "the job")
    argv = sandboxed(hacked, "exec sleep 901", scope=scope, unit="bound")
    hacked.node.ssh(f"{' '.join(map(repr, argv))} >/dev/null 2>&1 </dev/null &")
    running = f"pgrep -u {user(hacked)} -f 'sleep 901'"
    until(lambda: hacked.node.ssh(running, check=False).stdout, "the run to begin")
    hacked.node.ssh(["systemctl", "kill", "--signal=KILL", scope])
    until(lambda: not hacked.node.ssh(running, check=False).stdout, "the run to end")


def test_a_run_takes_no_more_than_its_time(hacked: Hosting) -> None:
    done = hacked.node.ssh(sandboxed(hacked, "trap '' TERM; sleep 900", seconds=1), check=False)
    assert done.returncode != 0


@pytest.mark.long
def test_a_deep_look_tells_how_much_disk_a_site_takes(hacked: Hosting) -> None:
    before = hacked.look(HACKED, deep=True).disk_used_bytes
    path = hacked.path(HACKED, "shared", "uploads", "large")
    hacked.node.ssh(f"head -c 5000000 /dev/urandom > {path}; ln -s / {path}.link; sync {path}")
    after = hacked.look(HACKED, deep=True).disk_used_bytes
    hacked.node.ssh(f"rm {path} {path}.link")
    assert before
    assert after
    # Whatever else the site writes or loses meanwhile.
    assert 4_500_000 <= after - before < 6_000_000
    assert hacked.look(HACKED).disk_used_bytes is None


# The home page


@pytest.mark.long
def test_a_home_page_without_an_end_is_no_answer(hacked: Hosting) -> None:
    plugin = hacked.path(HACKED, "current", "wp-content", "mu-plugins", "endless.php")
    endless = "<?php if (PHP_SAPI !== 'cli') { while (true) { echo str_repeat('x', 1 << 16); flush(); } }"
    hacked.node.ssh(["tee", plugin], input=endless)
    try:
        run = hacked.run("health", HACKED, "-v")
        assert "200 with a page that does not end" in run.output
    finally:
        hacked.node.ssh(["rm", plugin])
    until(lambda: hacked.fetch(HACKED, headers=PAST_THE_CACHE).status_code == 200, "the site to answer")


# Redis


def test_objects_of_a_site_are_its_own(hacked: Hosting) -> None:
    for key in (HACKED, NEIGHBOUR):
        hacked.fetch(key, headers=PAST_THE_CACHE)
        until(lambda key=key: hacked.redis(key, "--scan") != "", "objects to be kept")  # type: ignore[misc]
        keys = hacked.redis(key, "--scan").splitlines()
        assert {one.partition(":")[0] for one in keys} == {hacked.id(key)}
    theirs = f"/run/trueup-redis/{hacked.id(NEIGHBOUR)}/redis.sock"
    attempts = (f"redis-cli -s {theirs} ping", "redis-cli ping", "redis-cli -s /run/redis/redis-server.sock ping")
    for attempt in attempts:
        assert "PONG" not in hacked.node.ssh(sandboxed(hacked, f"{attempt} 2>&1"), check=False).stdout, attempt
    own = f"redis-cli -s /run/trueup-redis/{hacked.id(HACKED)}/redis.sock"
    assert hacked.node.ssh(sandboxed(hacked, f"{own} ping")).stdout.strip() == "PONG"
    for command in ("config get dir", "debug sleep 1", "shutdown", "slaveof 127.0.0.1 1", "save", "module list"):
        said = hacked.node.ssh(sandboxed(hacked, f"{own} {command}")).stdout
        assert said.startswith(("NOPERM", "ERR DEBUG command not allowed")), command


def test_the_nodes_own_redis_rests(hacked: Hosting) -> None:
    said = hacked.node.ssh("systemctl is-active redis-server; systemctl is-enabled redis-server", check=False).stdout
    assert said.split() == ["inactive", "disabled"]


def test_a_purge_speaks_with_nobody_elses_server(hacked: Hosting) -> None:
    """A site that puts a neighbour's server, or one that never ends, in the place of its own harms nobody."""
    # Not how many there are: a page writes some of its objects after its visitor has gone.
    kept = f"{hacked.id(NEIGHBOUR)}:kept"
    hacked.redis(NEIGHBOUR, "set", kept, "here")
    own = f"/run/trueup-redis/{hacked.id(HACKED)}/redis.sock"
    theirs = f"/run/trueup-redis/{hacked.id(NEIGHBOUR)}/redis.sock"
    hacked.node.ssh(f"ln -sfn {theirs} {own}; chown -h {user(hacked)} {own}")
    try:
        run = hacked.run("purge", HACKED)
        assert run.status != 0
        assert f"is not {user(hacked)}'s" in run.output
    finally:
        hacked.node.ssh(["systemctl", "restart", f"trueup-redis@{hacked.id(HACKED)}.service"])
    assert hacked.redis(NEIGHBOUR, "get", kept) == "here"
    hacked.run("purge", HACKED).raise_if_failed()


# No request is lost


@pytest.mark.long
def test_a_changed_unit_costs_no_visitor_a_request(hacked: Hosting) -> None:
    main = ["systemctl", "show", "-p", "MainPID", "--value", f"trueup-php@{hacked.id(HACKED)}.service"]
    before = hacked.node.ssh(main).stdout
    host = hacked.environments[HACKED]["hostnames"][0]
    php = {"memory_limit_mb": 300, "max_children": 5, "upload_max_mb": 64, "max_execution_s": 60}
    slow = hacked.path(HACKED, "current", "wp-content", "plugins", "slow.php")
    hacked.node.ssh(["tee", slow], input="<?php sleep(3); echo 'slow but sure';")
    address = f"curl -sS -H 'Host: {host}' http://127.0.0.1/wp-content/plugins/slow.php > /tmp/slow 2>&1"
    with visitors(hacked.node.address, host) as visits:
        until(lambda: visits.total > 10, "visitors")
        hacked.node.ssh(f"{address} </dev/null &")
        hacked.apply(HACKED, php=php).raise_if_failed()
        seen = visits.total
        until(lambda: visits.total > seen + 10, "visitors")
    assert visits.failures == []
    assert hacked.node.ssh(main).stdout != before
    assert hacked.node.ssh("cat /tmp/slow").stdout == "slow but sure"
    left = "ls /run/systemd/system | grep bridge; ls -d /run/trueup-bridge-* /etc/trueup/php/*/bridge.conf"
    assert hacked.node.ssh(left, check=False).stdout == ""
    assert hacked.apply(HACKED).raise_if_failed().changed == 0


@pytest.mark.long
def test_php_starts_anew_also_where_a_site_is_in_its_way(hacked: Hosting) -> None:
    """A site that exchanges its sockets for something else is put right by the next run, and nobody else is asked."""
    sockets = f"/run/trueup-php/{hacked.id(HACKED)}"
    service = f"trueup-php@{hacked.id(HACKED)}.service"
    php = {"memory_limit_mb": 320, "max_children": 4, "upload_max_mb": 64, "max_execution_s": 60}
    does = f"rm {sockets}/*.sock && mkdir -p {sockets}/fpm.sock/deep"
    in_the_way = ["runuser", "-u", user(hacked), "--", "sh", "-c", does]
    hacked.node.ssh(in_the_way)
    run = hacked.apply(HACKED, "-v", php=php).raise_if_failed()
    assert "Visitors were not led past the restart of PHP" in run.output
    show = ["systemctl", "show", "-p", "MemoryMax", "--value", service]
    assert hacked.node.ssh(show).stdout.strip() == str((320 * 4 + 256) << 20)
    assert hacked.fetch(HACKED, headers=PAST_THE_CACHE).status_code == 200
    for at in ("auto-restart", "start-pre"):
        hacked.node.ssh(in_the_way)
        with _starting_slowly(hacked.node, service):
            hacked.node.ssh(["systemctl", "restart", "--no-block", service])
            until(lambda at=at: _failed_and_is(hacked.node, service, at), f"PHP to fail, and to be at {at}")  # type: ignore[misc]
            assert hacked.apply(HACKED, php=php).raise_if_failed().changed > 0
        assert hacked.fetch(HACKED, headers=PAST_THE_CACHE).status_code == 200


@contextmanager
def _starting_slowly(node: Node, service: str) -> Iterator[None]:
    """For as long as a run takes to look at it, systemd is at the beginning of a start."""
    directory = f"/run/systemd/system/{service}.d"
    text = "[Service]\nExecStartPre=/usr/bin/sleep 4\nTimeoutStartSec=60\n"
    node.ssh(f"mkdir -p {directory} && tee {directory}/slow.conf && systemctl daemon-reload", input=text)
    try:
        yield
    finally:
        node.ssh(f"rm -r {directory} && systemctl daemon-reload")


def _failed_and_is(node: Node, service: str, sub_state: str) -> bool:
    shown = node.ssh(["systemctl", "show", "-p", "NRestarts,SubState", service]).stdout.split()
    return f"SubState={sub_state}" in shown and (sub_state == "auto-restart" or "NRestarts=0" not in shown)
