"""What the probe says of a node before and after somebody touched it."""

import json
from uuid import NAMESPACE_URL, uuid5

import pytest

from reconciler.core.observed import FileDifference
from tests.playbooks.environments import PROBE, VERSION, Hosting

KEY = "acme/production"

pytestmark = pytest.mark.lab


def test_it_describes_the_node(hosting: Hosting) -> None:
    node = hosting.observe()
    assert node.hostname == hosting.node.name
    assert (node.os_id, node.os_version) == ("debian", "12")
    assert set(node.versions) == {"nginx", "php", "mariadb", "redis", "wp_cli", "probe"}
    assert node.versions["wp_cli"] == "2.12.0"
    assert node.versions["php"].startswith("8.2.")
    assert node.artifacts["wordpress"] == (VERSION,)
    assert 0 < node.disk_free_bytes < node.disk_size_bytes
    assert node.memory_bytes > 1 << 28
    assert node.hold is None
    assert node.applied
    assert node.files == node.applied.files
    assert {service.active for service in node.services.values()} == {"active"}


def test_what_is_as_it_was_written_shows_no_difference(hosting: Hosting) -> None:
    seen = hosting.look(KEY, deep=True)
    assert seen.applied
    assert seen.files == seen.applied.files
    assert len(seen.files) >= 8
    assert seen.links == seen.applied.links
    assert {(one.active, one.enabled) for one in seen.services.values()} == {("active", "enabled")}
    assert seen.database
    assert not seen.pending
    assert seen.wordpress_version == VERSION
    assert seen.differences == ()
    assert hosting.look(KEY).differences is None


def test_what_was_touched_is_seen(hosting: Hosting) -> None:
    site = hosting.id(KEY)
    before = hosting.look(KEY)
    block, config = f"/etc/nginx/sites-enabled/trueup-{site}.conf", hosting.path(KEY, "shared", "wp-config.php")
    unit, timer = f"trueup-php@{site}.service", f"trueup-cron@{site}.timer"
    hosting.node.ssh(
        f"echo '# mine' >> {block}; rm {config}; sed -i '/# trueup {site}/d' /etc/hosts; systemctl stop {unit};"
        f" systemctl disable {timer}; ln -sfn /nowhere {hosting.path(KEY, 'current')};"
        " echo 'moving disks' > /etc/trueup/hold"
    )
    try:
        node = hosting.observe()
        seen = node.environments[site]
        changed = {path for path, digest in seen.files.items() if digest != before.files[path]}
        assert changed >= {block, config, f"/etc/hosts#{site}"}
        assert seen.files[config] is None
        assert seen.files[f"/etc/hosts#{site}"] is None
        assert seen.links[hosting.path(KEY, "current")] == "/nowhere"
        assert seen.services[unit].active == "inactive"
        assert seen.services[timer].enabled == "disabled"
        assert seen.wordpress_version is None
        assert node.hold == "moving disks"
    finally:
        hosting.node.ssh("rm /etc/trueup/hold")
        hosting.apply(KEY).raise_if_failed()
    # Lost secrets are made anew, so that one file has another content.
    after = hosting.look(KEY).files
    assert {path: digest for path, digest in after.items() if path != config} == {
        path: digest for path, digest in before.files.items() if path != config
    }


@pytest.mark.long
def test_a_deep_look_finds_every_changed_file(hosting: Hosting) -> None:
    release, uploads = hosting.path(KEY, "current"), hosting.path(KEY, "shared", "uploads")
    hosting.node.ssh(
        f"""cd {release} &&
        cp -p wp-load.php wp-load.mine && echo '//' >> wp-load.mine && mv wp-load.mine wp-load.php &&
        rm wp-admin/about.php && echo '<?php' > wp-admin/strange.php &&
        mkdir -p wp-content/plugins/mine/deep wp-content/plugins/hollow && touch wp-content/plugins/mine/deep/a.php &&
        cp wp-content/index.php wp-content/themes/index.mine && echo '//' >> wp-content/themes/index.mine &&
        mv wp-content/themes/index.mine wp-content/themes/index.php && rm wp-content/plugins/akismet/akismet.php &&
        mkdir -p {uploads}/2026 && echo '<?php evil();' > {uploads}/2026/a.php &&
        echo '<?php // Silence is golden.' > {uploads}/index.php && echo text > {uploads}/a.txt"""
    )
    differences = hosting.look(KEY, deep=True).differences
    assert differences is not None
    assert set(differences) == {
        FileDifference(path="wp-load.php", kind="modified", area="core"),
        FileDifference(path="wp-admin/about.php", kind="missing", area="core"),
        FileDifference(path="wp-admin/strange.php", kind="unknown", area="core"),
        FileDifference(path="wp-content/plugins/mine/", kind="unknown", area="release"),
        FileDifference(path="wp-content/themes/index.php", kind="modified", area="release"),
        FileDifference(path="wp-content/plugins/akismet/akismet.php", kind="missing", area="release"),
        FileDifference(path="uploads/2026/a.php", kind="unknown", area="uploads"),
    }
    # A neighbour's core is its own.
    assert hosting.look("acme/staging", deep=True).differences == ()
    hosting.apply(KEY).raise_if_failed()
    healed = hosting.look(KEY, deep=True).differences
    assert healed is not None
    assert {(one.kind, one.area) for one in healed if one.area == "core"} == {("unknown", "core")}
    new = {**hosting.environments[KEY]["release"], "id": str(uuid5(NAMESPACE_URL, "another release"))}
    hosting.node.ssh(f"rm -r {uploads}/*; rm -r {release}/wp-content/plugins/mine")
    hosting.apply(KEY, release=new).raise_if_failed()
    healed = hosting.look(KEY, deep=True).differences
    assert healed is not None
    assert {one.area for one in healed} == {"release"}, "a new release has sound core and carries wp-content over"


def test_it_looks_at_the_environments_that_it_is_asked_for(hosting: Hosting) -> None:
    options = json.dumps({"deep": False, "environments": [hosting.id(KEY), "00000000-0000-4000-8000-000000000000"]})
    answer = hosting.node.ssh(["python3", "-I", "-S", "-", options], input=PROBE.read_text()).stdout
    assert list(json.loads(answer)["environments"]) == [hosting.id(KEY)]
    assert answer.count("\n") == 1


def test_a_manifest_that_cannot_be_read_is_no_manifest(hosting: Hosting) -> None:
    place, stranger = "/etc/trueup/environments", "00000000-0000-4000-8000-00000000000f"
    hosting.node.ssh(f"echo '{{' > {place}/{stranger}.json; touch {place}/{stranger}.pending")
    try:
        seen = hosting.observe().environments[stranger]
        assert (seen.applied, seen.pending, seen.database, seen.files) == (None, True, False, {})
    finally:
        hosting.node.ssh(f"rm {place}/{stranger}.json {place}/{stranger}.pending")


def test_a_bare_server_has_nothing(bare_node: object) -> None:
    node = bare_node.ssh(["python3", "-I", "-S", "-"], input=PROBE.read_text())  # type: ignore[attr-defined]
    answer = json.loads(node.stdout)
    assert answer["applied"] is None
    assert answer["environments"] == {}
    assert answer["versions"]["nginx"]


def test_the_playbook_shows_the_same(hosting: Hosting) -> None:
    run = hosting.run("observe", KEY, "-e", f"node={hosting.node.name}")
    assert run.raise_if_failed().changed == 0
    assert hosting.id(KEY) in run.output
