"""A node's pool: trees that are ready before a site asks for one."""

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab.commands import wait_until
from tests.playbooks.environments import VERSION, Hosting, variables_for

SPARES = "/var/www/sites/.spare"
READY = f"{SPARES}/{VERSION}-1"
MANIFEST = "/etc/trueup/node.json"

pytestmark = pytest.mark.lab


def names(hosting: Hosting) -> list[str]:
    return hosting.node.ssh(["ls", "-A", SPARES], check=False).stdout.split()


def until_full(hosting: Hosting, *wanted: str) -> None:
    assert wait_until(lambda: names(hosting) == list(wanted or (f"{VERSION}-1",)), 300, 0.2), names(hosting)


def inode(hosting: Hosting, path: str) -> str:
    return hosting.node.ssh(["stat", "--format=%i", path]).stdout.strip()


def touched(hosting: Hosting, path: str) -> str:
    """When a file of the tree was written last."""
    return hosting.node.ssh(["stat", "--format=%y", f"{path}/wp-load.php"]).stdout


def release(hosting: Hosting, key: str) -> str:
    return hosting.path(key, "releases", hosting.environments[key]["release"]["id"])


@pytest.fixture
def full(hosting: Hosting) -> Iterator[Hosting]:
    """The hosting once its pool is full, as the first site left it."""
    until_full(hosting)
    known = set(hosting.environments)
    yield hosting
    for key in set(hosting.environments) - known:
        del hosting.environments[key]


@contextmanager
def pool_of(hosting: Hosting, count: int) -> Iterator[None]:
    """The node's manifest as if its document asked for another pool."""
    before = hosting.node.ssh(["cat", MANIFEST]).stdout
    manifest = json.loads(before)
    manifest["variables"]["pool"] = count
    hosting.node.ssh(["tee", MANIFEST], input=json.dumps(manifest))
    try:
        yield
    finally:
        hosting.node.ssh(["tee", MANIFEST], input=before)


def test_a_new_site_takes_the_tree_that_is_ready_and_another_is_made(full: Hosting) -> None:
    key, spare = "spare-one/production", inode(full, READY)
    full.apply(key).raise_if_failed()
    assert inode(full, release(full, key)) == spare
    assert full.title(key) == f"Title of {key}"
    until_full(full)
    assert inode(full, READY) != spare
    assert full.apply(key).raise_if_failed().changed == 0


def test_what_was_ready_is_no_drift_and_nobodys(full: Hosting) -> None:
    key = "spare-two/production"
    full.apply(key).raise_if_failed()
    observed = full.observe(deep=True)
    assert observed.environments[full.id(key)].differences == ()
    assert set(map(str, observed.environments)) >= {full.id(key)}
    assert not [one for one in observed.environments if VERSION in str(one)]
    owners = f"cd {release(full, key)} && stat --format=%U wp-load.php wp-content wp-content/plugins/index.php"
    assert full.node.ssh(owners).stdout.split() == ["root", "root", f"wp-{full.short(key)}"]
    secrets = full.node.ssh("grep -h \"_KEY'\\|_SALT'\\|DB_PASSWORD\" /var/www/sites/*/shared/wp-config.php").stdout
    values = [line.split("'")[3] for line in secrets.splitlines() if line.count("'") == 4]
    assert len(values) == len(set(values)) >= 18


@pytest.mark.long
def test_no_site_reaches_what_is_ready(full: Hosting) -> None:
    full.apply("spare-three/production").raise_if_failed()
    until_full(full)
    assert full.php("spare-three/production", f"var_dump(@scandir({SPARES!r}), @file_exists({READY!r}));").split() == [
        "bool(false)",
        "bool(false)",
    ]
    assert full.node.ssh(["stat", "--format=%a %U", SPARES]).stdout.split() == ["700", "root"]
    argv = ["setpriv", f"--reuid=wp-{full.short('spare-three/production')}", "--clear-groups", "ls", SPARES]
    assert full.node.ssh(argv, check=False).returncode != 0


@pytest.mark.long
def test_of_two_new_sites_at_once_each_has_its_own(full: Hosting) -> None:
    keys = ("pair-a/production", "pair-b/production")
    runs = {}
    with ThreadPoolExecutor(2) as pool:
        for key in keys:
            where = full.directory / key.replace("/", "-")
            one = Hosting(full.lab, full.node, where, full.wp_cli, full.wordpress)
            one.environments = {key: variables_for(key, full.node)}
            runs[key] = (one, pool.submit(one.apply, key))
    for key, (one, run) in runs.items():
        run.result().raise_if_failed()
        assert one.title(key) == f"Title of {key}"
    assert len({inode(one, release(one, key)) for key, (one, _) in runs.items()}) == 2
    until_full(full)


@pytest.mark.long
def test_what_is_not_of_the_version_whole_or_wanted_goes(full: Hosting) -> None:
    """Another version, one too many, half of one, and one of a core that was unpacked before this one."""
    full.node.ssh(
        f"cd {SPARES} && mkdir 6.0-1 {VERSION}-7 .new-{VERSION}-3 && cp -a {VERSION}-1 copy && mv -T copy {VERSION}-9"
    )
    full.node.ssh(f"touch {READY}/wp-load.php")
    # Its number may be given to the next directory that is made.
    stale, key = touched(full, READY), "spare-four/production"
    full.apply(key).raise_if_failed()
    assert touched(full, release(full, key)) != stale
    until_full(full)
    assert touched(full, READY) != stale
    assert full.apply(key).raise_if_failed().changed == 0


@pytest.mark.long
def test_a_node_may_keep_more_or_none(full: Hosting) -> None:
    with pool_of(full, 2):
        full.apply("spare-five/production").raise_if_failed()
        until_full(full, f"{VERSION}-1", f"{VERSION}-2")
    with pool_of(full, 0):
        full.apply("spare-six/production").raise_if_failed()
        assert wait_until(lambda: not names(full), 300, 0.2)
        full.apply("spare-seven/production").raise_if_failed()
        assert full.title("spare-seven/production") == "Title of spare-seven/production"
    full.apply("spare-seven/production").raise_if_failed()
    until_full(full)


@pytest.mark.long
def test_where_no_tree_can_be_kept_sites_are_made_all_the_same(full: Hosting) -> None:
    full.node.ssh(f"rm -r {SPARES} && touch {SPARES}")
    try:
        full.apply("spare-eight/production").raise_if_failed()
        assert full.title("spare-eight/production") == "Title of spare-eight/production"
        assert full.node.ssh(["stat", "--format=%F", SPARES]).stdout.strip() == "regular empty file"
    finally:
        full.node.ssh(f"rm {shlex.quote(SPARES)}")
    full.apply("spare-eight/production").raise_if_failed()
    until_full(full)
