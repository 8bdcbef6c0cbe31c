"""Releases on a real node: what an archive becomes, and what is never switched to."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.load import visitors
from tests.playbooks.environments import Hosting
from tests.playbooks.nodes import Run

pytestmark = pytest.mark.lab
KEY = "released/production"
PLUGIN = "wp-content/mu-plugins/ours.php"


def speaking(word: str) -> str:
    return f"<?php add_action('wp_footer', function () {{ echo '<i>{word}</i>'; }});"


def packed(path: Path, files: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"


class Site:
    def __init__(self, hosting: Hosting, directory: Path) -> None:
        self.hosting = hosting
        self.directory = directory

    def deploy(self, content: Mapping[str, str], *options: str, **more: Any) -> Run:
        release = {"id": str(uuid4()), "source_type": "upload", "source_ref": "upload:x", "revision": None}
        self.hosting.declare(KEY, release=release, **more)
        return self.again(packed(self.directory / f"{release['id']}.tar.gz", content), *options)

    def again(self, archive: Path, *options: str) -> Run:
        given = json.dumps({"trueup_release_archive": {"path": str(archive)}})
        return self.hosting.run("deploy", KEY, "-e", given, *options)

    @property
    def release(self) -> str:
        found: str = self.hosting.environments[KEY]["release"]["id"]
        return found

    @property
    def served(self) -> str:
        return self.hosting.node.ssh(["readlink", self.hosting.path(KEY, "current")]).stdout.strip().split("/")[-1]

    def releases(self) -> set[str]:
        return set(self.hosting.node.ssh(["ls", self.hosting.path(KEY, "releases")]).stdout.split())

    def manifest(self) -> dict[str, Any]:
        path = f"/etc/trueup/environments/{self.hosting.id(KEY)}.json"
        found: dict[str, Any] = json.loads(self.hosting.node.ssh(["cat", path]).stdout)
        return found

    def page(self) -> str:
        return self.hosting.fetch(KEY, headers={"Cookie": "wordpress_no_cache=1"}).text

    @property
    def visited(self) -> tuple[str, str]:
        return self.hosting.node.address, self.hosting.environments[KEY]["hostnames"][0]


@pytest.fixture(scope="module")
def hosting(own_hosting: Hosting) -> Hosting:
    """The common node, or one of this module's own."""
    return own_hosting


@pytest.fixture(scope="module")
def site(hosting: Hosting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosting.apply(KEY).raise_if_failed()
    site = Site(hosting, tmp_path_factory.mktemp("archives"))
    site.deploy({PLUGIN: speaking("first")}).raise_if_failed()
    yield site
    del hosting.environments[KEY]


def test_an_overlay_is_released_and_a_second_run_changes_nothing(site: Site) -> None:
    node = site.hosting.node
    node.ssh(["mkdir", "-p", site.hosting.path(KEY, "current", "wp-content", "plugins", "bought")])
    node.ssh(["tee", site.hosting.path(KEY, "current", "wp-content", "plugins", "bought", "b.php")], input="<?php")
    with visitors(*site.visited) as visits:
        run = site.deploy({PLUGIN: speaking("second")}).raise_if_failed()
    assert run.changed > 0
    assert (visits.failures, visits.total > 20) == ([], True)
    assert site.served == site.release
    assert "<i>second</i>" in site.page()
    details = site.manifest()["release_details"][site.release]
    assert (details["source_ref"], details["wordpress_version"]) == ("upload:x", "7.1.1")
    assert "plugins/bought" in details["unmanaged"]
    assert node.ssh(["cat", site.hosting.path(KEY, "current", "wp-content", "plugins", "bought", "b.php")]).stdout
    again = site.again(site.directory / f"{site.release}.tar.gz").raise_if_failed()
    assert again.changed == 0, again.output


@pytest.mark.long
@pytest.mark.parametrize(
    "code",
    [
        "<?php this is no php",
        "<?php throw new Exception('no');",
        "<?php add_action('wp_head', function () { die(); });",
        "<?php ob_start(function () { return ''; });",
        "<?php add_action('template_redirect', function () { status_header(500); });",
        "<?php add_action('template_redirect', function () { wp_redirect('/elsewhere'); exit; });",
        "<?php while (true) { sleep(1); }",
    ],
)
def test_a_release_that_breaks_the_site_is_never_switched_to(site: Site, code: str) -> None:
    before, releases = site.served, site.releases()
    word = "<i>" if "<i>" in site.page() else "</html>"
    with visitors(*site.visited, wanted=word) as visits:
        run = site.deploy({PLUGIN: code})
    assert run.status != 0
    assert "It was not switched to." in run.output, run.output
    assert "RELEASE_UNHEALTHY" in run.output
    assert visits.failures == []
    assert (site.served, site.releases()) == (before, releases)


SLOW = "wp-content/uploads/slow"
TIMEOUTS = {"timeout_s": 2, "slow_timeout_s": 30}


def as_slow_as(times: float, word: str) -> str:
    """Each page takes so many times the seconds that are in a file: those of the machine."""
    wait = f"usleep((int) (1e6 * {times} * (float) file_get_contents(ABSPATH . '{SLOW}')));"
    return f"<?php if (file_exists(ABSPATH . '{SLOW}')) {{ {wait} }} {speaking(word).removeprefix('<?php ')}"


@pytest.mark.long
def test_slow_is_no_death_on_a_slow_machine_and_what_hangs_is_dead(site: Site) -> None:
    """Also for what follows the switch, and for a change of settings alone."""
    site.deploy({PLUGIN: as_slow_as(1, "as slow")}, health=TIMEOUTS).raise_if_failed()
    slow = site.hosting.path(KEY, "shared", "uploads", "slow")
    site.hosting.node.ssh(["tee", slow], input="3")
    try:
        site.deploy({PLUGIN: as_slow_as(1.4, "slower")}, health=TIMEOUTS).raise_if_failed()
        assert "<i>slower</i>" in site.page()
        release = site.hosting.environments[KEY]["release"]
        site.hosting.apply(KEY, release=release, health=TIMEOUTS, fastcgi_cache=False).raise_if_failed()
        before = site.served
        run = site.deploy({PLUGIN: as_slow_as(100, "hanging")}, health=TIMEOUTS, fastcgi_cache=False)
        assert "RELEASE_UNHEALTHY" in run.output, run.output
        assert "and what is served took" in run.output, run.output
        assert "It was not switched to." in run.output
        assert site.served == before
    finally:
        site.hosting.node.ssh(["rm", "-f", slow])
    run = site.deploy({PLUGIN: f"{speaking('late')} sleep(12);"}, health=TIMEOUTS)
    assert "RELEASE_UNHEALTHY" in run.output, "beside a served release that is quick, the time is what is said"
    assert site.served == before


@pytest.mark.long
def test_a_release_that_breaks_only_afterwards_is_undone(site: Site) -> None:
    """Its first page makes an option that every later one dies of: a migration gone wrong."""
    before, page = site.served, site.page()
    run = site.deploy({PLUGIN: "<?php if (!add_option('migrated', '1')) { http_response_code(500); die('no'); }"})
    assert run.status != 0
    assert "put back as they were, and the site is healthy" in run.output, run.output
    assert "RELEASE_UNHEALTHY" in run.output
    assert site.served == before
    assert ("<i>second</i>" in site.page()) == ("<i>second</i>" in page)


@pytest.mark.long
def test_locked_files_hold_what_the_source_has_and_no_more(site: Site) -> None:
    theme = {"wp-content/themes/plain/style.css": "/* Theme Name: Plain */"}
    theme["wp-content/themes/plain/index.php"] = "<html><body>plain<?php wp_footer(); ?></body></html>"
    site.hosting.wp(KEY, "option", "update", "template", "plain")
    site.hosting.wp(KEY, "option", "update", "stylesheet", "plain")
    site.deploy({PLUGIN: speaking("locked"), **theme}, files="locked").raise_if_failed()
    assert "<body>plain" in site.page()
    assert "<i>locked</i>" in site.page()
    names = site.hosting.node.ssh(["ls", site.hosting.path(KEY, "current", "wp-content", "themes")]).stdout.split()
    assert names == ["plain"]
    site.deploy({PLUGIN: speaking("open")}, files="writable").raise_if_failed()
    assert "<body>plain" in site.page(), "the theme is carried over"
    assert "<i>open</i>" in site.page()


@pytest.mark.long
def test_a_whole_tree_and_a_repository_around_wp_content(site: Site, wordpress: Any) -> None:
    whole = site.directory / "whole"
    whole.mkdir()
    subprocess.run(["tar", "-xzf", str(wordpress.path), "-C", str(whole), "--strip-components=1"], check=True)
    (whole / "wp-content/mu-plugins").mkdir(parents=True, exist_ok=True)
    (whole / PLUGIN).write_text(speaking("whole"))
    (whole / "robots.txt").write_text("User-agent: *\n")
    (whole / "wp-config.php").write_text("<?php die('not ours');")
    (whole / "dump.sql").write_text("secret")
    archive = site.directory / "whole.tar.gz"
    subprocess.run(["tar", "-czf", str(archive), "-C", str(whole.parent), "whole"], check=True)
    release = {"id": str(uuid4()), "source_type": "upload", "source_ref": "upload:x", "revision": None}
    site.hosting.declare(KEY, release=release)
    site.again(archive).raise_if_failed()
    assert "<i>whole</i>" in site.page()
    assert site.hosting.fetch(KEY, "/robots.txt").text == "User-agent: *\n"
    assert site.hosting.fetch(KEY, "/dump.sql").text != "secret"
    assert not [one for one in site.hosting.look(KEY, deep=True).differences or () if one.area != "uploads"]
    site.deploy({f"repo/site/{PLUGIN}": speaking("inner"), "repo/README.md": "x"}).raise_if_failed()
    assert "<i>inner</i>" in site.page()


PROJECT = {
    "composer.json": json.dumps({"require": {"php": ">=8.3"}}),
    "config/application.php": "<?php die('not ours');",
    "web/index.php": "<?php die('not ours');",
    "web/wp/wp-includes/version.php": "<?php $wp_version = '6.0';",
    "web/robots.txt": "User-agent: *\n",
    PLUGIN.replace("wp-content", "web/app"): speaking("project"),
    "web/app/themes/.gitkeep": "",
}


@pytest.mark.long
def test_a_project_of_composers_is_released_on_the_pinned_core(site: Site) -> None:
    whole = PROJECT | {"vendor/autoload.php": "<?php"}
    run = site.deploy({f"project/{name}": text for name, text in whole.items()}, "-v")
    assert "its web/app/ is served as wp-content" in run.raise_if_failed().output
    assert "<i>project</i>" in site.page()
    assert site.hosting.fetch(KEY, "/robots.txt").text == "User-agent: *\n"
    top = site.hosting.node.ssh(["ls", site.hosting.path(KEY, "current")]).stdout.split()
    assert not {"config", "vendor", "web", "wp", "composer.json"} & set(top)
    assert not [one for one in site.hosting.look(KEY, deep=True).differences or () if one.area != "uploads"]


HOSTILE_COMPOSER = """#!/usr/bin/python3
# What a project's scripts and packages may do when Composer runs them.
import json, os, shutil, sys
from pathlib import Path
project = Path(sys.argv[sys.argv.index("--working-dir") + 1])
def tried(path):
    try:
        return sorted(os.listdir(path)) if os.path.isdir(path) else open(path).read()[:20]
    except OSError as error:
        return error.errno
looked = ["/var/www/sites", "/etc/trueup", "/root", "/etc/nginx", "/var/lib/trueup", "/etc/shadow"]
seen = {path: tried(path) for path in looked}
groups = open("/proc/self/cgroup").read().strip()
app = project / "web" / "app"
(app / "mu-plugins" / "seen.php").write_text("<?php // " + json.dumps([os.getuid(), groups, seen]))
(app / "passwd.txt").symlink_to("/etc/passwd")
(app / "plugins").mkdir(exist_ok=True)
(app / "plugins" / "etc").symlink_to("/etc")
(project / "web" / "robots.txt").unlink()
(project / "web" / "robots.txt").symlink_to("/etc/passwd")
if (project / "exchange").exists():
    shutil.rmtree(app)
    app.symlink_to("/etc")
"""


@pytest.mark.long
def test_what_composer_runs_is_the_sites_and_leads_root_nowhere(site: Site) -> None:
    """Scripts run as the site's user in its sandbox; root, who makes the release of it, follows no link of theirs."""
    node, key = site.hosting.node, site.hosting.path(KEY, "current")
    node.ssh("tee /usr/local/bin/composer && chmod 755 /usr/local/bin/composer", input=HOSTILE_COMPOSER)
    try:
        site.deploy({f"project/{name}": text for name, text in PROJECT.items()}, "-v").raise_if_failed()
        uid, groups, seen = json.loads(node.ssh(["cat", f"{key}/wp-content/mu-plugins/seen.php"]).stdout[9:])
        assert str(uid) == node.ssh(["id", "-u", f"wp-{site.hosting.short(KEY)}"]).stdout.strip()
        assert "/trueup-run-" in groups
        assert seen.pop("/var/www/sites") == [site.hosting.id(KEY)]
        assert seen.pop("/etc/trueup") == ["php"]
        assert {type(one) for one in seen.values()} == {int}, seen
        for name in ("/robots.txt", "/wp-content/passwd.txt", "/wp-content/plugins/etc/passwd"):
            assert "root:" not in site.hosting.fetch(KEY, name).text, name
        assert node.ssh(["test", "-e", f"{key}/robots.txt"], check=False).returncode != 0
        served = site.served
        run = site.deploy({f"project/{name}": text for name, text in {**PROJECT, "exchange": "x"}.items()})
        assert run.status != 0
        assert site.served == served
        assert (
            node.ssh(f"grep -rl root: {site.hosting.path(KEY, 'releases')} --include=passwd", check=False).stdout == ""
        )
    finally:
        node.ssh(["rm", "/usr/local/bin/composer"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"README.md": "x"}, "neither wp-content nor plugins"),
        ({"a/wp-content/plugins/x.php": "", "b/wp-content/plugins/x.php": ""}, "more than one wp-content"),
        ({"wp-includes/version.php": "<?php\n$wp_version = '6.5';\n"}, "pins 7.1.1"),
        ({"../../evil.php": "x"}, "ARCHIVE_UNSAFE"),
        ({"wp-content/plugins/shop/data.bin": POINTER, PLUGIN: ""}, "wp-content/plugins/shop/data.bin: in Git LFS"),
        (PROJECT, "has no composer to install them"),
    ],
)
def test_sources_that_are_refused(site: Site, files: Mapping[str, str], words: str) -> None:
    before, releases = site.served, site.releases()
    run = site.deploy(files)
    assert run.status != 0
    assert words in run.output, run.output
    assert (site.served, site.releases()) == (before, releases)


@pytest.mark.long
def test_the_last_five_are_kept_and_an_earlier_one_is_only_switched_to(site: Site) -> None:
    made = []
    for number in range(5):
        site.deploy({PLUGIN: speaking(f"n{number}")}).raise_if_failed()
        made.append(site.release)
    manifest = site.manifest()
    assert manifest["releases"] == made
    assert sorted(manifest["release_details"]) == sorted(made)
    assert {name for name in site.releases() if "." not in name} == set(made)
    release = {key: manifest["release_details"][made[1]][key] for key in ("source_type", "source_ref", "revision")}
    site.hosting.declare(KEY, release={"id": made[1], **release})
    site.hosting.run("environment", KEY).raise_if_failed()
    assert (site.served, "<i>n1</i>" in site.page()) == (made[1], True)


def test_a_release_that_is_not_there_names_its_playbook(site: Site) -> None:
    release = {"id": str(uuid4()), "source_type": "git", "source_ref": "https://git.example.com/x", "revision": None}
    site.hosting.declare(KEY, release=release)
    run = site.hosting.run("environment", KEY)
    assert run.status != 0
    assert "playbooks/deploy.yml" in run.output
