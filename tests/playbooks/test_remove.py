"""Removing an environment from a real node: all of it goes, and nothing of its neighbours."""

from collections.abc import Iterator

import pytest

from tests.controlplane import until
from tests.lab import Node
from tests.playbooks.environments import Hosting
from tests.playbooks.nodes import Run

pytestmark = pytest.mark.lab
KEY, NEIGHBOUR = "leaving/staging", "acme/production"


def traces(hosting: Hosting) -> str:
    """Every name on the node that has the environment's id in it; its fence is meant to stay."""
    id_, short = hosting.id(KEY), hosting.short(KEY)
    script = (
        f"find / -xdev -name '*{id_}*' ! -path '/proc/*' ! -path '/run/trueup/locks/*' "
        f"! -path '/var/lib/trueup/fences/*' ! -path '/var/log/journal/*'; "
        f"find / -xdev -name '*{short}*' ! -path '/proc/*'; grep -n '{id_}' /etc/hosts; "
        f"getent passwd wp-{short}; getent group wp-{short}; ls /run/trueup-php | grep '{id_}'; "
        f"mariadb -BN -e \"SELECT User FROM mysql.global_priv WHERE User = 'wp_{short}'; "
        f"SELECT Db FROM mysql.db WHERE User = 'wp_{short}'; SHOW DATABASES LIKE 'wp_{short}%'\"; "
        f"systemctl list-units --all --plain --no-legend '*{id_}*' 'trueup-*-{short}.service'; "
        f"ls /run/systemd/system | grep '{short}'; ls /run/trueup-redis | grep '{id_}'"
    )
    return hosting.node.ssh(script, check=False).stdout


def remove(hosting: Hosting, *options: str, confirm: str | None = None, **more: object) -> Run:
    given = hosting.id(KEY) if confirm is None else confirm
    return hosting.run("remove", KEY, "-e", f"confirm={given}", *options, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    """The common node, or one of this module's own."""
    return own_hosting


@pytest.fixture
def leaving(hosting: Hosting) -> Iterator[Node]:
    """An environment with pages and objects in its caches, what interrupted runs left, and a process."""
    hosting.apply(KEY).raise_if_failed()
    assert hosting.fetch(KEY).status_code == 200
    short = hosting.short(KEY)
    hosting.node.ssh(
        ["mariadb"],
        input=f"CREATE DATABASE IF NOT EXISTS wp_{short}_next; CREATE DATABASE IF NOT EXISTS wp_{short}_old;",
    )
    for kind in ("bridge", "rehearsal", "drill"):
        name = f"trueup-{kind}-{short}.service"
        text = f"[Service]\nUser=wp-{short}\nExecStart=/usr/bin/sleep 4242\n"
        hosting.node.ssh(["tee", f"/run/systemd/system/{name}"], input=text)
        hosting.node.ssh(f"systemctl daemon-reload && systemctl start {name}")
    # That looks up the hosts that it lists, and outlives the run that began it.
    looks = ["systemctl", "list-units", "--plain", "--no-legend", f"trueup-egress@{hosting.id(KEY)}.service"]
    until(lambda: hosting.node.ssh(looks).stdout == "", "its hosts to be looked up")
    # Something that the site started and left, as a site that was broken into does.
    hosting.node.ssh(f"runuser -u wp-{short} -- setsid -f sleep 4242 </dev/null >/dev/null 2>&1")
    yield hosting.node
    hosting.environments.pop(KEY, None)


def test_all_of_it_goes_and_its_neighbours_stay(hosting: Hosting, leaving: Node) -> None:
    before = hosting.look(NEIGHBOUR)
    would = remove(hosting, "--check", "--diff").raise_if_failed()
    assert would.changed == 1
    assert hosting.fetch(KEY).status_code == 200
    assert remove(hosting).raise_if_failed().changed == 1
    assert traces(hosting) == ""
    assert hosting.id(KEY) not in hosting.observe().environments
    assert hosting.look(NEIGHBOUR) == before
    assert hosting.fetch(NEIGHBOUR).status_code == 200
    assert hosting.node.ssh(["nginx", "-t", "-q"]).stdout == ""
    assert remove(hosting).raise_if_failed().changed == 0


def test_only_its_own_id_confirms_it(hosting: Hosting, leaving: Node) -> None:
    run = remove(hosting, confirm=hosting.id(NEIGHBOUR))
    assert run.status == 2
    assert "Removing is final" in run.output
    assert hosting.fetch(KEY).status_code == 200


@pytest.mark.long
def test_what_a_killed_removal_left_goes_with_the_next(hosting: Hosting, leaving: Node) -> None:
    """A directory that nothing can be removed from stops it half-way; what served the site is gone by then."""
    stuck = hosting.path(KEY, "shared", "uploads")
    leaving.ssh(["mount", "--bind", stuck, stuck])
    try:
        assert remove(hosting).status == 2
        assert hosting.observe().environments[hosting.id(KEY)].pending
    finally:
        leaving.ssh(["umount", stuck])
    assert remove(hosting).raise_if_failed().changed == 1
    assert traces(hosting) == ""


@pytest.mark.long
def test_a_late_job_cannot_bring_it_back(hosting: Hosting, leaving: Node) -> None:
    job = {"id": "5d1c7c0e-0f3b-4f6e-9a43-6a6f3f2b9d11"}
    remove(hosting, job={**job, "fence": 9}).raise_if_failed()
    late = hosting.apply(KEY, job={**job, "fence": 8})
    assert late.status == 2
    assert "it is late" in late.output
    assert traces(hosting) == ""


@pytest.mark.long
def test_a_server_block_that_nginx_needs_is_put_back(hosting: Hosting, leaving: Node) -> None:
    """While somebody else's file keeps nginx from reading anything, nothing is removed."""
    foreign = "/etc/nginx/sites-enabled/foreign.conf"
    leaving.ssh(["tee", foreign], input="nonsense;\n")
    try:
        run = remove(hosting)
        assert run.status == 2
        assert foreign in run.output
        assert hosting.fetch(KEY).status_code == 200
    finally:
        leaving.ssh(["rm", foreign])
    remove(hosting).raise_if_failed()
