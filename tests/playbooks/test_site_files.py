"""A site whose user plants links, pipes and holes where root works; and core that was changed on the node."""

import json
import shlex
from collections.abc import Iterator
from uuid import NAMESPACE_URL, uuid5

import pytest

from reconciler.core.observed import FileDifference, ObservedEnvironment
from tests.playbooks.environments import VERSION, Hosting

A, B = "planted/production", "planted/staging"
STORE = "/opt/trueup/wordpress"
LINKED = "wp-includes"

pytestmark = [pytest.mark.lab, pytest.mark.in_order]


@pytest.fixture(scope="module")
def sites(own_hosting: Hosting) -> Hosting:
    """A hacked site and its neighbour."""
    for key in (A, B):
        own_hosting.apply(key).raise_if_failed()
    return own_hosting


def as_site(sites: Hosting, script: str, key: str = A) -> str:
    """What a web shell of the site's does, in its release's wp-content."""
    user = f"wp-{sites.short(key)}"
    argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "sh", "-ec"]
    script = f"cd {sites.path(key, 'current')}/wp-content/ && {script}"
    return sites.node.ssh(" ".join([*argv, shlex.quote(script)])).stdout.strip()


def anew(sites: Hosting, key: str, name: str) -> dict[str, object]:
    """A release of another id, of the same origin."""
    return {**sites.environments[key]["release"], "id": str(uuid5(NAMESPACE_URL, name))}


def store_is_roots(sites: Hosting) -> bool:
    found = sites.node.ssh(f"find {STORE} ! -user root -o ! -group root -o -type f -links +1 | head -3").stdout
    sums = sites.node.ssh(f"cd {STORE}/{VERSION} && sha256sum --quiet --check ../{VERSION}.sha256", check=False)
    return (found, sums.returncode) == ("", 0)


def differences(sites: Hosting, key: str) -> set[FileDifference]:
    found = sites.look(key, deep=True).differences
    assert found is not None
    return set(found)


# How a release is made


def test_a_release_shares_no_inode_with_the_store_nor_with_another(sites: Hosting) -> None:
    for key in (A, B):
        release = sites.path(key, "current")
        assert sites.node.ssh(["readlink", f"{release}/{LINKED}"]).stdout.strip() == f"{STORE}/{VERSION}/{LINKED}"
        assert sites.node.ssh(f"find {release}/ -xdev -type f -links +1").stdout == ""
        assert sites.fetch(key, f"/{LINKED}/css/dashicons.min.css").status_code == 200
        assert sites.fetch(key, "/wp-login.php").status_code == 200
        assert sites.wp(key, "core", "version") == VERSION
        assert sites.apply(key).raise_if_failed().changed == 0
        assert differences(sites, key) == set()
    assert store_is_roots(sites)


def test_no_site_writes_into_the_store(sites: Hosting) -> None:
    assert sites.php(A, f"var_dump(@file_put_contents('{STORE}/{VERSION}/{LINKED}/load.php', 'x', FILE_APPEND));") == (
        "bool(false)\n"
    )
    assert store_is_roots(sites)


# What the site's user plants


@pytest.fixture
def links(sites: Hosting) -> Iterator[None]:
    """Row 3: in the place of its own directories the site has links to core."""
    as_site(sites, f"mv plugins was && ln -s ../{LINKED} plugins")
    as_site(sites, f"mv languages spoke && ln -s {STORE}/{VERSION} languages")
    yield
    as_site(sites, "rm -rf plugins languages && mv was plugins && mv spoke languages")


@pytest.mark.long
@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("files", ["writable", "locked"])
def test_what_its_links_lead_to_is_not_given_to_the_site(sites: Hosting, files: str) -> None:
    try:
        sites.apply(A, files=files).raise_if_failed()
        assert store_is_roots(sites)
        assert sites.node.ssh(f"find {sites.path(B, 'current')}/ -user wp-{sites.short(A)}").stdout == ""
        sites.apply(A, files=files, release=anew(sites, A, f"linked {files}")).raise_if_failed()
        assert store_is_roots(sites)
        assert sites.title(A) == f"Title of {A}"
    finally:
        sites.apply(A, files="writable").raise_if_failed()


@pytest.mark.long
@pytest.mark.parametrize("files", ["writable", "locked"])
def test_a_link_that_root_copies_leads_nginx_nowhere(sites: Hosting, files: str) -> None:
    """Links of the site's come into a new release by root's hand: they stay the site's, or nginx would follow them."""
    links = ("leak.txt", "mu-plugins/leak.txt", "plugins/leak.txt", "conf.txt")
    secret = sites.path(B, "current", "wp-content", "mu-plugins", "trueup.php")
    as_site(sites, " && ".join(f"ln -s {secret} {name}" for name in links[:-1]))
    as_site(sites, f"ln -s /etc/nginx/nginx.conf {links[-1]} && touch plugins/real.txt")
    as_site(sites, "ln -s plugins/real.txt inside.txt")
    adopted = {"origin": "adopt", "made_from": sites.environments[A]["release"]["id"]}
    try:
        sites.apply(A, files=files, release={**anew(sites, A, f"copied {files}"), **adopted}).raise_if_failed()
        current = f"{sites.path(A, 'current')}/wp-content"
        assert sites.node.ssh(f"cd {current}/ && readlink {' '.join(links)} | wc -l").stdout.strip() == str(len(links))
        if files == "writable":  # one that leads within the release may lead to another link, later
            as_site(sites, f"rm -f plugins/real.txt && ln -s {secret} plugins/real.txt")
        found = {name: sites.fetch(A, f"/wp-content/{name}").status_code for name in (*links, "inside.txt")}
        assert set(found.values()) <= {403, 404}, found
    finally:
        sites.apply(A, files="writable").raise_if_failed()
        as_site(sites, f"rm -f {' '.join(links)} inside.txt plugins/real.txt")


PLANTED = f"""
mkfifo plugins/x.php uploads/x.php uploads/y.jpg &&
ln -s /dev/zero plugins/zero.php && ln -s /dev/zero uploads/zero.php &&
ln -s /etc/shadow plugins/shadow.php && truncate -s 4T plugins/huge.php uploads/huge.php &&
truncate -s 4G plugins/hole.php &&
ln -s {STORE}/{VERSION}/{LINKED}/load.php plugins/load.php && mkdir -p plugins/deep && cd plugins/deep &&
for i in $(seq 300); do mkdir -p d && cd d; done
"""
REMOVED = (
    "cd plugins && rm -rf x.php zero.php shadow.php huge.php hole.php load.php deep ../uploads/*.php ../uploads/y.jpg"
)


@pytest.fixture
def planted(sites: Hosting) -> Iterator[None]:
    """Row 8, and a neighbour's configuration under a name of the site's own."""
    as_site(sites, PLANTED)
    content = f"{sites.path(A, 'current')}/wp-content"
    sites.node.ssh(f"ln {sites.path(B, 'shared', 'wp-config.php')} {content}/plugins/hard.php")
    yield
    sites.node.ssh(f"rm -f {content}/plugins/hard.php")
    as_site(sites, REMOVED)


def leaked(sites: Hosting, key: str) -> str:
    """Where the neighbour's password, or a line of /etc/shadow, lies in a site's directory."""
    mark = sites.node.ssh(["grep", "-m1", "DB_PASSWORD", sites.path(B, "shared", "wp-config.php")]).stdout.split("'")[3]
    find = f"find {sites.path(key)} -type f -size -1000k ! -path '*/shared/wp-config.php' -print0"
    return sites.node.ssh(f"{find} | xargs -0 grep -l -e {mark} -e '^root:' || true").stdout.replace(
        f"{sites.path(A, 'current')}/wp-content/plugins/hard.php\n", ""
    )


@pytest.mark.usefixtures("planted")
def test_a_look_ends_and_tells_what_is_there(sites: Hosting) -> None:
    found = {(one.path, one.kind) for one in differences(sites, A)}
    for name in ("x.php", "zero.php", "shadow.php", "huge.php", "hole.php", "load.php", "hard.php"):
        assert (f"wp-content/plugins/{name}", "unknown") in found
    for name in ("x.php", "zero.php", "huge.php"):
        assert (f"uploads/{name}", "unknown") in found
    assert differences(sites, B) == set()


@pytest.mark.long
@pytest.mark.usefixtures("planted")
def test_a_new_release_takes_nothing_of_a_neighbour_along(sites: Hosting) -> None:
    run = sites.apply(A, release=anew(sites, A, "planted"))
    run.raise_if_failed()
    current = f"{sites.path(A, 'current')}/wp-content/plugins"
    there = sites.node.ssh(f"cd {current}/ && ls").stdout.split()
    assert {"x.php", "hard.php", "huge.php"}.isdisjoint(there)
    assert {"zero.php", "shadow.php", "hole.php"} <= set(there)
    assert int(sites.node.ssh(["du", "-sk", f"{current}/hole.php"]).stdout.split()[0]) < 1024
    config = sites.path(B, "shared", "wp-config.php")
    assert sites.node.ssh(["stat", "-c", "%a %U", config]).stdout.split() == ["640", "root"]
    sites.node.ssh(f"find {sites.path(A, 'releases')} -name hard.php -delete")
    assert leaked(sites, A) == ""
    assert store_is_roots(sites)


@pytest.mark.long
@pytest.mark.usefixtures("planted")
def test_a_copy_of_the_site_ends_and_has_nothing_of_a_neighbour(sites: Hosting) -> None:
    key = "planted/copy"
    declared = sites.declare(key, type="clone")
    content = {**declared["content"], "id": str(uuid5(NAMESPACE_URL, "copied")), "origin": "clone"}
    content["source_environment"] = sites.id(A)
    release = {**declared["release"], "origin": "clone", "made_from": sites.id(A)}
    sites.declare(key, type="clone", content=content, release=release)
    source = {"id": sites.id(A), "urls": [sites.environments[A]["url"]]}
    try:
        run = sites.run("clone", key, "-e", json.dumps({"trueup_source": source}))
        run.raise_if_failed()
        assert leaked(sites, key) == ""
        there = sites.node.ssh(f"ls {sites.path(key, 'shared', 'uploads')}").stdout.split()
        assert {"x.php", "y.jpg"}.isdisjoint(there)
        assert sites.fetch(key).status_code == 200
    finally:
        sites.run("remove", key, "-e", f"confirm={sites.id(key)}").raise_if_failed()
        del sites.environments[key]


# What is managed has its owner and mode, too


def test_an_owner_or_a_mode_is_compared_and_healed_like_content(sites: Hosting) -> None:
    uploads, config = sites.path(A, "shared", "uploads"), sites.path(A, "shared", "wp-config.php")
    block = f"/etc/nginx/sites-enabled/trueup-{sites.id(A)}.conf"
    sites.apply(A).raise_if_failed()
    before = sites.look(A)
    assert touched(before) == set()
    sites.node.ssh(f"mkdir -p {uploads}/2026 && touch {uploads}/2026/a.jpg && chown -R root: {uploads}")
    sites.node.ssh(f"chmod 0666 {config} && chmod 0777 {block}")
    assert touched(sites.look(A)) == {uploads, config, block}
    sites.apply(A).raise_if_failed()
    assert touched(sites.look(A)) == set()
    found = sites.node.ssh(["stat", "-c", "%a %U", config, block, uploads, f"{uploads}/2026/a.jpg"]).stdout
    user = f"wp-{sites.short(A)}"
    assert found.splitlines() == ["640 root", "644 root", f"755 {user}", f"644 {user}"]
    sites.node.ssh(["rm", "-r", f"{uploads}/2026"])


def touched(seen: ObservedEnvironment) -> set[str]:
    assert seen.applied
    return {path for path, digest in seen.applied.files.items() if seen.files.get(path) != digest}


# Core that was changed on the node


@pytest.mark.long
def test_core_that_was_changed_in_one_site_stays_there_and_is_mended(sites: Hosting) -> None:
    sites.node.ssh(f"echo '//' >> {sites.path(A, 'current')}/wp-admin/admin.php")
    assert differences(sites, A) == {FileDifference(path="wp-admin/admin.php", kind="modified", area="core")}
    assert differences(sites, B) == set()
    sites.apply(A).raise_if_failed()
    assert differences(sites, A) == set()


@pytest.mark.long
def test_the_store_that_was_changed_is_told_and_goes_into_no_site(sites: Hosting) -> None:
    changed = f"{STORE}/{VERSION}/{LINKED}/load.php"
    beneath = f"unshare --mount sh -c 'umount {STORE} 2>/dev/null; echo \"//\" >> {changed}'"
    sites.node.ssh(beneath)
    for key in (A, B):
        assert differences(sites, key) == {FileDifference(path=f"{LINKED}/load.php", kind="modified", area="core")}
    sites.apply(B).raise_if_failed()
    assert store_is_roots(sites)
    assert [differences(sites, key) for key in (A, B)] == [set(), set()]
    assert sites.title(A) == f"Title of {A}"


@pytest.mark.long
def test_what_was_changed_in_core_is_discarded_and_spreads_to_no_new_site(sites: Hosting) -> None:
    """Root's edits: of the release's own copy, and of the store itself."""
    release = sites.environments[A]["release"]
    changed = f"{STORE}/{VERSION}/{LINKED}/load.php {STORE}/{VERSION}/wp-login.php"
    sites.node.ssh(f"unshare --mount sh -c 'umount {STORE}; for f in {changed}; do echo \"//\" >> $f; done'")
    sites.node.ssh(f"echo '//' >> {sites.path(A, 'current')}/wp-admin/admin.php")
    found = {(one.path, one.kind, one.area) for one in differences(sites, A)}
    assert found == {
        (path, "modified", "core") for path in (f"{LINKED}/load.php", "wp-login.php", "wp-admin/admin.php")
    }
    discard = {**anew(sites, A, "discarded"), "origin": "discard", "made_from": release["id"]}
    sites.apply(A, release=discard).raise_if_failed()
    sites.apply("planted/later").raise_if_failed()
    try:
        assert store_is_roots(sites)
        assert [differences(sites, key) for key in (A, B, "planted/later")] == [set()] * 3
    finally:
        sites.run("remove", "planted/later", "-e", f"confirm={sites.id('planted/later')}").raise_if_failed()
        del sites.environments["planted/later"]


@pytest.mark.long
def test_a_release_that_was_linked_to_the_store_gets_its_own_files(sites: Hosting) -> None:
    """As an earlier Trueup made them: hard links to a store that was not read-only."""
    release = sites.path(A, "current")
    sites.node.ssh(
        f"unshare --mount sh -c 'umount {STORE} 2>/dev/null; cd {release}/ && rm {LINKED} && "
        f"cp -al {STORE}/{VERSION}/{LINKED} . && cp -alf {STORE}/{VERSION}/wp-admin .'"
    )
    assert sites.fetch(A, "/wp-login.php").status_code == 200
    sites.apply(A).raise_if_failed()
    assert sites.node.ssh(f"find {release}/ -xdev -type f -links +1").stdout == ""
    assert store_is_roots(sites)
    assert differences(sites, A) == set()
    assert sites.apply(A).raise_if_failed().changed == 0
